//! Encodes a clip as one closed group of pictures of H.264, and decodes it.
//!
//! Elements run on the caller's thread: their pads are linked to two pads of ours, so a push
//! returns when all of its output has arrived at the other end. There is no queue, no thread, and
//! nothing to wait for.

use super::VideoError;
use super::encode::raw_buffer;
use super::frame::pack;
use crate::frames::{Color, padded};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use schemas::geometry::FrameSize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The smallest side that every H.264 decoder accepts: a macroblock.
const MIN_SIDE: usize = 16;

/// Duration of a frame: 25 per second. Nothing depends on it.
const FRAME_TIME: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// A chain of elements that run on the caller's thread, and their output.
#[derive(Debug)]
struct Chain {
    elements: Vec<gst::Element>,
    bus: gst::Bus,
    source: gst::Pad,
    sink: gst::Pad,
    output: Arc<Mutex<Vec<gst::Buffer>>>,
}

impl Chain {
    /// Links `elements`, of which the last one is to output `output_caps`.
    fn new(elements: Vec<gst::Element>, output_caps: &gst::Caps) -> Result<Self, VideoError> {
        let output = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&output);
        let template = gst::PadTemplate::new(
            "sink",
            gst::PadDirection::Sink,
            gst::PadPresence::Always,
            output_caps,
        );
        let sink = gst::Pad::builder_from_template(&template.map_err(VideoError::setup)?)
            .chain_function(move |_, _, buffer| {
                collected
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(buffer);
                Ok(gst::FlowSuccess::Ok)
            })
            .query_function(|pad, parent, query| {
                // Rows may end in padding: decoders that may keep theirs do not copy frames.
                if let gst::QueryViewMut::Allocation(allocation) = query.view_mut() {
                    allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                    return true;
                }
                gst::Pad::query_default(pad, parent, query)
            })
            .build();
        let source = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .build();
        let bus = gst::Bus::new();
        let pad = |element: &gst::Element, name| {
            element
                .static_pad(name)
                .ok_or_else(|| VideoError::setup(format!("no pad {name}")))
        };
        let mut from = source.clone();
        for element in &elements {
            element.set_bus(Some(&bus));
            from.link(&pad(element, "sink")?)
                .map_err(VideoError::setup)?;
            from = pad(element, "src")?;
        }
        from.link(&sink).map_err(VideoError::setup)?;
        Ok(Self {
            elements,
            bus,
            source,
            sink,
            output,
        })
    }

    /// Sends `buffers` of `caps` through all elements, until at least `enough` buffers have come
    /// out. Returns these and their caps.
    fn run(
        &self,
        caps: &gst::Caps,
        buffers: impl IntoIterator<Item = gst::Buffer>,
        enough: usize,
    ) -> Result<(Vec<gst::Buffer>, gst::Caps), VideoError> {
        let result = self
            .start()
            .and_then(|()| self.push_all(caps, buffers, enough));
        let output_caps = self.sink.current_caps();
        // After an error, too: the next run starts afresh.
        self.stop();
        let output = std::mem::take(&mut *self.output());
        match self
            .bus
            .pop_filtered(&[gst::MessageType::Error])
            .as_ref()
            .map(|message| message.view())
        {
            Some(gst::MessageView::Error(error)) => Err(VideoError::frame(error.error().message())),
            _ => result
                .and(output_caps.ok_or(VideoError::NoFrames))
                .map(|caps| (output, caps)),
        }
    }

    fn output(&self) -> MutexGuard<'_, Vec<gst::Buffer>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<(), VideoError> {
        self.sink.set_active(true).map_err(VideoError::setup)?;
        self.source.set_active(true).map_err(VideoError::setup)?;
        self.elements.iter().try_for_each(|element| {
            element
                .set_state(gst::State::Playing)
                .map(drop)
                .map_err(VideoError::setup)
        })
    }

    fn push_all(
        &self,
        caps: &gst::Caps,
        buffers: impl IntoIterator<Item = gst::Buffer>,
        enough: usize,
    ) -> Result<(), VideoError> {
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        let push = |event: gst::Event| {
            self.source
                .push_event(event)
                .then_some(())
                .ok_or_else(|| VideoError::frame("an element refuses its input"))
        };
        push(gst::event::StreamStart::new("clip"))?;
        push(gst::event::Caps::new(caps))?;
        push(gst::event::Segment::new(&segment))?;
        for buffer in buffers {
            self.source.push(buffer).map_err(VideoError::frame)?;
            if self.output().len() >= enough {
                return Ok(());
            }
        }
        push(gst::event::Eos::new())
    }

    fn stop(&self) {
        // An element that does not stop has no effect on the next run.
        for element in &self.elements {
            let _ = element.set_state(gst::State::Ready);
        }
        let _ = self.source.set_active(false);
        let _ = self.sink.set_active(false);
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for element in &self.elements {
            let _ = element.set_state(gst::State::Null);
        }
        self.bus.set_flushing(true);
    }
}

/// Encodes tightly packed I420 `frames` of `size` to one closed group of pictures, an Annex B byte
/// stream. Equal frames give equal bytes.
///
/// # Errors
/// [`VideoError::Setup`] when x264's plugin is missing, [`VideoError::Frame`] when it fails.
pub fn encode_gop(
    frames: &[u8],
    size: FrameSize,
    color: Color,
    crf: u32,
) -> Result<Vec<u8>, VideoError> {
    super::init()?;
    let coded = coded_size(size);
    let count = frames.len() / size.frame_bytes();
    let encoder = gst::ElementFactory::make("x264enc")
        .property_from_str("pass", "qual")
        .property("quantizer", crf)
        .property_from_str("speed-preset", "veryfast")
        // No arithmetic coding and no loop filter: decoding takes half the time.
        .property_from_str("tune", "fastdecode")
        .property("key-int-max", count as u32 + 1)
        // On CPUs with AVX-512, x264's macroblock tree reads uninitialised memory (seen with build
        // 164), and equal clips get different bytes. Without it, clips take 5 to 20 % more at the
        // same PSNR.
        .property("option-string", "scenecut=0:mbtree=0")
        // By default, x264enc also limits the bit rate.
        .property("vbv-buf-capacity", 0u32)
        .property("threads", 1u32)
        .property("aud", true)
        .property("byte-stream", true)
        .build()
        .map_err(VideoError::setup)?;
    let info = gst_video::VideoInfo::builder(
        gst_video::VideoFormat::I420,
        coded.width as u32,
        coded.height as u32,
    )
    .fps(gst::Fraction::new(25, 1))
    .colorimetry(&color.colorimetry())
    .build()
    .map_err(VideoError::frame)?;
    let caps = info.to_caps().map_err(VideoError::frame)?;
    let output_caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .build();
    let chain = Chain::new(vec![encoder], &output_caps)?;
    let mut buffers = Vec::with_capacity(count);
    for (number, frame) in frames.chunks_exact(size.frame_bytes()).enumerate() {
        buffers.push(raw_buffer(
            padded(frame, size, coded),
            coded,
            FRAME_TIME * number as u64,
            FRAME_TIME,
        )?);
    }
    let mut stream = Vec::new();
    for buffer in chain.run(&caps, buffers, usize::MAX)?.0 {
        stream.extend_from_slice(&buffer.map_readable().map_err(VideoError::frame)?);
    }
    Ok(stream)
}

/// Decodes groups of pictures. Reuses its elements from clip to clip.
#[derive(Debug)]
pub struct GopDecoder {
    chain: Chain,
}

impl GopDecoder {
    /// Creates a decoder.
    ///
    /// # Errors
    /// [`VideoError::Setup`] when GStreamer's libav plugin is missing.
    pub fn new() -> Result<Self, VideoError> {
        super::init()?;
        let make = |name| gst::ElementFactory::make(name);
        let parser = make("h264parse").build().map_err(VideoError::setup)?;
        // Loaders already have a thread per core.
        let decoder = make("avdec_h264")
            .property("max-threads", 1i32)
            .build()
            .map_err(VideoError::setup)?;
        let output_caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .build();
        Ok(Self {
            chain: Chain::new(vec![parser, decoder], &output_caps)?,
        })
    }

    /// Decodes the first `count` frames of `stream` and appends them to `out`, tightly packed I420
    /// of `size`.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when there are fewer frames, they have another size, or they cannot be
    /// decoded.
    pub fn decode(
        &mut self,
        stream: &[u8],
        size: FrameSize,
        count: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), VideoError> {
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .build();
        let units = access_units(stream).map(|unit| gst::Buffer::from_slice(unit.to_vec()));
        let (decoded, caps) = self.chain.run(&caps, units, count)?;
        let info = gst_video::VideoInfo::from_caps(&caps).map_err(VideoError::frame)?;
        let coded = coded_size(size);
        if (info.width() as usize, info.height() as usize) != (coded.width, coded.height) {
            return Err(VideoError::frame(format!(
                "its size is {}x{}, not {}x{}",
                info.width(),
                info.height(),
                coded.width,
                coded.height
            )));
        }
        if decoded.len() < count {
            return Err(VideoError::frame(format!(
                "{} of {count} frames can be decoded",
                decoded.len()
            )));
        }
        out.reserve(count * size.frame_bytes());
        for buffer in &decoded[..count] {
            let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
                .map_err(VideoError::frame)?;
            // The padding is at the right and at the bottom.
            pack(&frame, size, out)?;
        }
        Ok(())
    }
}

/// Splits a byte stream before each of its access unit delimiters.
fn access_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    const DELIMITER: &[u8] = &[0, 0, 0, 1, 9];
    let mut rest = stream;
    std::iter::from_fn(move || {
        let next = rest
            .windows(DELIMITER.len())
            .skip(1)
            .position(|window| window == DELIMITER);
        let unit;
        (unit, rest) = rest.split_at(next.map_or(rest.len(), |at| at + 1));
        (!unit.is_empty()).then_some(unit)
    })
}

/// Returns the size of the coded frames of a clip of `size`: even, and at least a macroblock.
fn coded_size(size: FrameSize) -> FrameSize {
    let coded = |side: usize| side.next_multiple_of(2).max(MIN_SIDE);
    FrameSize {
        width: coded(size.width),
        height: coded(size.height),
    }
}
