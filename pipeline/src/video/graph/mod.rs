//! The graph of GStreamer elements between a file and its packets or frames. Probing, decoding and
//! seeking share it, so that they see the same stream.
//!
//! ```text
//! file ! typefind ! demultiplexer ! [parser] ! [decoder ! [deinterlace]] ! appsink
//! pictures (appsrc) ! [decoder] ! appsink
//! ```
//!
//! GStreamer's own `decodebin` is not used: it hides the container's description of the stream,
//! refuses a file because of a stream that is not needed (pictures of subtitles), and chooses
//! decoders that do not report damage. Here, only the chosen video is linked, and decoders are
//! libav's where it has a good one: they report broken packets, and their frames are those of the
//! ffmpeg command line to the bit.
//!
//! - `links`: links the elements as streams appear.
//! - `elements`: the elements that are installed, and which of them a stream needs.

mod elements;
mod links;

use super::facts::Facts;
use super::pictures::{self, PictureSource};
use super::{POLL, RunningPipeline, VideoError, lock, spliced};
use elements::{demultiplexer, make, sink_for};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use links::Links;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Name of the element that deinterlaces, if the stream is interlaced.
const DEINTERLACE: &str = "deinterlacer";

/// Maximum number of packets, and of frames, that wait to be pulled.
const QUEUED_PACKETS: u32 = 64;
const QUEUED_FRAMES: u32 = 4;

/// A pad at which the first packet waits until a seek is done, and the probe that holds it.
pub(super) type HeldPad = (gst::Pad, gst::PadProbeId);

/// Prepares a decoder before its first packet, given the facts of the file.
pub(super) type Prepare = Box<dyn Fn(&gst::Element, &Facts) + Send + Sync>;

/// The output of a graph.
pub(super) enum Output {
    /// Packets, as the decoder would receive them.
    Packets,
    /// Frames, of a decoder that the function prepares.
    Frames(Prepare),
}

/// The graph of one file. The caller starts it ([`RunningPipeline::start`]).
pub(super) struct Graph {
    pub(super) pipeline: RunningPipeline,
    pub(super) sink: gst_app::AppSink,
    /// Whether the file is an elementary stream: its packets have no times of their own.
    pub(super) is_elementary: bool,
    links: Arc<Links>,
    /// The error that the graph has failed with: the bus gives it once.
    failed: Option<VideoError>,
}

impl Graph {
    /// Builds the graph of the file at `path` that ends in `output`; the pictures of a folder are
    /// shown at `picture_rate` per second. If `hold` is given, the first packet waits at a pad that
    /// is sent to it.
    ///
    /// # Errors
    /// [`VideoError::Setup`] when GStreamer or its plugins are missing, [`VideoError::Stream`] when
    /// the file cannot be read or is of no known type.
    pub(super) fn new(
        path: &Path,
        picture_rate: f64,
        output: Output,
        hold: Option<Sender<HeldPad>>,
    ) -> Result<Self, VideoError> {
        if let Some(PictureSource { element, facts }) = pictures::source(path, picture_rate)? {
            return Self::link(facts, &[&element], false, output, hold);
        }
        let unreadable = |message: String| VideoError::Stream {
            element: String::new(),
            message,
        };
        let mut facts = Facts::of(path)
            .map_err(|error| unreadable(crate::video::discover::io_reason(&error)))?
            .ok_or_else(|| unreadable("its content is of no known type".to_owned()))?;
        if facts.is_encrypted {
            return Err(VideoError::Encrypted);
        }
        let factory = demultiplexer(&facts.caps).ok_or_else(|| VideoError::NoDecoder {
            codec: facts.media().to_owned(),
        })?;
        let is_elementary = factory.has_type(gst::ElementFactoryType::PARSER);
        let demuxer = factory.create().build().map_err(VideoError::setup)?;
        let source = if facts.edits.is_empty() {
            let source = gst::ElementFactory::make("filesrc").property("location", path);
            source.build().map_err(VideoError::setup)?
        } else {
            spliced::source(path, std::mem::take(&mut facts.edits))?
        };
        // It gives the type to elements that parse an elementary stream.
        let typefind = make("typefind")?;
        typefind.set_property("force-caps", &facts.caps);
        Self::link(
            facts,
            &[&source, &typefind, &demuxer],
            is_elementary,
            output,
            hold,
        )
    }

    /// Links `elements` one after another, and the streams of the last one when they appear.
    fn link(
        facts: Facts,
        elements: &[&gst::Element],
        is_elementary: bool,
        output: Output,
        hold: Option<Sender<HeldPad>>,
    ) -> Result<Self, VideoError> {
        let pipeline = RunningPipeline(gst::Pipeline::new());
        let sink = sink_for(&output);
        let all = elements.iter().copied().chain([sink.upcast_ref()]);
        pipeline.0.add_many(all).map_err(VideoError::setup)?;
        gst::Element::link_many(elements.iter().copied()).map_err(VideoError::setup)?;
        let links = Arc::new(Links {
            facts,
            output,
            pipeline: pipeline.0.downgrade(),
            sink: sink.clone(),
            hold: hold.map(Mutex::new),
            found: Mutex::default(),
        });
        if let Some(last) = elements.last() {
            Links::connect_demuxer(&links, last);
        }
        Ok(Self {
            pipeline,
            sink,
            is_elementary,
            links,
            failed: None,
        })
    }

    /// Returns the next packet or frame, or `None` at the end of the stream. An error comes after
    /// all that was output before it.
    ///
    /// # Errors
    /// The errors that elements report, also when no stream could be linked;
    /// [`VideoError::Stalled`] when nothing comes within `timeout`.
    pub(super) fn pull(&mut self, timeout: Duration) -> Result<Option<gst::Sample>, VideoError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(sample) = self.sink.try_pull_sample(POLL) {
                return Ok(Some(sample));
            }
            // In this order, since an element reports its error before it ends the stream.
            let has_ended = self.sink.is_eos();
            if self.failed.is_none() {
                self.failed = self.failure();
            }
            if let Some(error) = &self.failed {
                // What was output before the error is in the sink by now.
                let sample = self.sink.try_pull_sample(gst::ClockTime::ZERO);
                return sample.map_or_else(|| Err(error.clone()), |sample| Ok(Some(sample)));
            }
            if has_ended {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(VideoError::Stalled { timeout });
            }
        }
    }

    /// Returns why no more packets or frames come, if the graph has failed: no stream could be
    /// linked, or an element reported an error.
    fn failure(&self) -> Option<VideoError> {
        let found = lock(&self.links.found);
        if let Some(Err(error)) = &found.chosen {
            return Some(error.clone());
        }
        let error = self.pipeline.bus_error()?;
        // A demultiplexer whose pads are not linked fails with a less specific error.
        let is_encrypted = found.is_encrypted && found.chosen.is_none();
        Some(if is_encrypted {
            VideoError::Encrypted
        } else {
            error
        })
    }

    /// Returns the number of video streams found so far.
    pub(super) fn streams(&self) -> usize {
        lock(&self.links.found).pads.len()
    }

    /// Whether the stream is interlaced, so that frames are made from fields. Known with the first
    /// frame.
    pub(super) fn is_deinterlaced(&self) -> bool {
        self.pipeline.0.by_name(DEINTERLACE).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element that fails after some packets. The source then ends the stream.
    #[test]
    fn an_error_comes_after_all_packets_and_stays() {
        crate::video::init().expect("GStreamer");
        let source = make("videotestsrc").expect("a source");
        let failing = make("identity").expect("an element");
        failing.set_property("error-after", 4);
        let facts = Facts::of_caps(gst::Caps::new_any());
        let mut graph = Graph::link(facts, &[&source, &failing], false, Output::Packets, None)
            .expect("a graph");
        graph.pipeline.start().expect("started");
        // Long enough that the error waits beside the packets.
        std::thread::sleep(4 * Duration::from(POLL));
        let timeout = Duration::from_secs(30);
        for packet in 0..3 {
            let sample = graph.pull(timeout).expect("no error yet");
            assert!(sample.is_some(), "packet {packet}");
        }
        for _ in 0..2 {
            let error = graph.pull(timeout).expect_err("the element's error");
            assert!(
                error.to_string().contains("Failed after iterations"),
                "{error}"
            );
        }
    }
}
