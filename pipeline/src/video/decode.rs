//! A video file to decoded frames, in presentation order, with their times.

use super::damage::{Damage, DamageTracker};
use super::frame::Orientation;
use super::shortcut::{self, Fate, ShortPipeline, Shortcut, Sieve};
use super::{POLL, RunningPipeline, SwallowedError, VideoError, media_type};
use crate::frames::Color;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use schemas::geometry::I420;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Decoded frames that wait for the reader, at most.
const QUEUED_FRAMES: u32 = 4;

/// How to decode.
#[derive(Debug, Clone, Copy)]
pub struct DecodeOptions {
    /// Threads of the decoder itself. The frames are the same for any number.
    pub threads: u32,
    /// How long the decoder may make no progress.
    pub timeout: Duration,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { threads: 1, timeout: super::DEFAULT_TIMEOUT }
    }
}

/// What the pipeline's own threads tell the reader.
#[derive(Debug, Default)]
struct Found {
    pads: Vec<gst::Pad>,
    /// Media type of a stream that nothing decodes.
    undecoded: Option<String>,
    decoders: Vec<FoundDecoder>,
    /// What became of the choice among the pads, once it is made.
    chosen: Option<Result<(), VideoError>>,
}

#[derive(Debug, Clone)]
struct FoundDecoder {
    element: gst::Element,
    tracker: Arc<Mutex<DamageTracker>>,
    /// What the container says of the colours.
    container_color: Arc<Mutex<Option<gst_video::VideoColorimetry>>>,
}

/// One decoded frame, still in the decoder's memory and format.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    sample: gst::Sample,
    info: gst_video::VideoInfo,
    container_color: Option<gst_video::VideoColorimetry>,
    /// Presentation time in nanoseconds of stream time: edit lists and a start other than zero are accounted for.
    pub pts_ns: i64,
    /// How long it is shown, where the stream says so.
    pub duration_ns: Option<i64>,
    /// Whether its packet was broken, or one that it refers to.
    pub damaged: bool,
    /// Whether frames are missing just before it, because their packets were broken.
    pub after_hole: bool,
}

impl DecodedFrame {
    /// Size as decoded.
    pub fn size(&self) -> I420 {
        I420 { width: self.info.width() as usize, height: self.info.height() as usize }
    }

    /// GStreamer's name of the pixel format.
    pub fn pixel_format(&self) -> &'static str {
        self.info.format().to_str().as_str()
    }

    /// What the samples mean.
    pub fn color(&self) -> Color {
        Color::of(&self.info, self.container_color.as_ref())
    }

    /// Frames a second, as far as the stream has a fixed rate.
    pub fn frame_rate(&self) -> Option<f64> {
        let rate = self.info.fps();
        (rate.numer() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
    }

    /// Maps the frame and hands it to `use_frame`.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when it cannot be mapped, and what `use_frame` fails with.
    pub fn with_planes<T>(
        &self,
        use_frame: impl FnOnce(&gst_video::VideoFrameRef<&gst::BufferRef>) -> Result<T, VideoError>,
    ) -> Result<T, VideoError> {
        let buffer = self.sample.buffer().ok_or_else(|| VideoError::frame("it has no buffer"))?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info).map_err(VideoError::frame)?;
        use_frame(&frame)
    }
}

/// Decodes the default video stream of a file from its start to its end. Interlaced streams are deinterlaced: of each frame the top field is kept,
/// and its missing lines are made by GStreamer's `deinterlace`.
#[derive(Debug)]
pub struct VideoDecoder {
    pipeline: RunningPipeline,
    sink: gst_app::AppSink,
    found: Arc<Mutex<Found>>,
    timeout: Duration,
    caps: Option<(gst::Caps, gst_video::VideoInfo)>,
    last_pts_ns: Option<i64>,
    /// Stream time minus the buffers' time, of the last frame.
    shift_ns: i64,
    swallowed: SwallowedError,
    container_color: Option<gst_video::VideoColorimetry>,
    /// The tracker of the chosen stream's decoder.
    tracker: Option<Arc<Mutex<DamageTracker>>>,
    /// What leaves packets out, on a short way.
    sieve: Option<Arc<Mutex<Sieve>>>,
    /// Stream time minus the buffers' time on a short way, whatever the segment says.
    fixed_shift_ns: Option<i64>,
    /// Whether a frame that did not come out is a reason for doubt.
    counts_frames: bool,
    /// Whether a frame's time was made up.
    made_up: bool,
}

impl VideoDecoder {
    /// Opens the file at `path`. Errors in the file itself come from [`Self::next_frame`].
    ///
    /// # Errors
    /// [`VideoError::Setup`] when GStreamer or its plugins are missing.
    pub fn open(path: &Path, options: DecodeOptions) -> Result<Self, VideoError> {
        super::init()?;
        // Decoders also offer memory that is not the system's; without `ANY`, decodebin finds none that fits.
        let any_raw_video = gst::Caps::builder("video/x-raw").any_features().build();
        let decodebin = gst::ElementFactory::make("decodebin")
            .property("caps", &any_raw_video)
            .property("expose-all-streams", false)
            .build()
            .map_err(VideoError::setup)?;
        let sink = frame_sink();
        let pipeline = RunningPipeline::reading(path, &decodebin)?;
        pipeline.0.add(&sink).map_err(VideoError::setup)?;

        let found = Arc::new(Mutex::new(Found::default()));
        decodebin.connect_pad_added({
            let found = Arc::clone(&found);
            move |_, pad| lock(&found).pads.push(pad.clone())
        });
        decodebin.connect("unknown-type", false, {
            let found = Arc::clone(&found);
            move |arguments| {
                let caps = arguments.get(2).and_then(|caps| caps.get::<gst::Caps>().ok())?;
                let media = media_type(&caps);
                if media.starts_with("video/") || media.starts_with("image/") {
                    lock(&found).undecoded = Some(media.to_owned());
                }
                None
            }
        });
        // All pads are there before data flows through any of them.
        decodebin.connect_no_more_pads({
            let (found, pipeline, sink) = (Arc::clone(&found), pipeline.0.downgrade(), sink.downgrade());
            move |_| {
                let (Some(pipeline), Some(sink)) = (pipeline.upgrade(), sink.upgrade()) else { return };
                let pads = lock(&found).pads.clone();
                let chosen = default_stream(&pads).ok_or(VideoError::NoVideo).and_then(|pad| link(&pipeline, &pad, &sink));
                lock(&found).chosen = Some(chosen);
            }
        });
        pipeline.0.connect_deep_element_added({
            let found = Arc::clone(&found);
            move |_, _, element| {
                let is_video_decoder = element
                    .factory()
                    .is_some_and(|factory| factory.has_type(gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO));
                if is_video_decoder {
                    let decoder = FoundDecoder::new(element, options.threads, None);
                    lock(&found).decoders.push(decoder);
                }
            }
        });
        let decoder = Self::new(pipeline, sink, found, options.timeout);
        decoder.pipeline.start()?;
        Ok(decoder)
    }

    /// Opens the file at `path` to decode it from the entry of `shortcut` on, without the frames that are not wanted, as far as this is possible.
    ///
    /// # Errors
    /// As [`Self::next_frame`], and when the demultiplexer does not find the entry.
    pub fn open_at(path: &Path, options: DecodeOptions, shortcut: &Shortcut) -> Result<Self, VideoError> {
        super::init()?;
        let sink = frame_sink();
        let ShortPipeline { pipeline, demuxer, first, decoder } = shortcut::pipeline(path, shortcut)?;
        pipeline.0.add(&sink).map_err(VideoError::setup)?;
        decoder.link(&sink).map_err(VideoError::setup)?;
        let sieve = Arc::new(Mutex::new(Sieve::new(shortcut)));
        let found =
            Found { decoders: vec![FoundDecoder::new(&decoder, options.threads, Some(&sieve))], chosen: Some(Ok(())), ..Found::default() };
        let linked = shortcut::link_video(&demuxer, &first, !shortcut.from_start);
        let mut decoder = Self::new(pipeline, sink, Arc::new(Mutex::new(found)), options.timeout);
        decoder.sieve = Some(sieve);
        decoder.fixed_shift_ns = Some(shortcut.route.shift_ns);
        decoder.counts_frames = shortcut.route.has_a_frame_a_packet();
        decoder.pipeline.start()?;
        if !shortcut.from_start {
            shortcut::seek(&decoder.pipeline, &linked, shortcut.entry_ns, options.timeout)?;
        }
        Ok(decoder)
    }

    fn new(pipeline: RunningPipeline, sink: gst_app::AppSink, found: Arc<Mutex<Found>>, timeout: Duration) -> Self {
        Self {
            pipeline,
            sink,
            found,
            timeout,
            caps: None,
            last_pts_ns: None,
            shift_ns: 0,
            swallowed: SwallowedError::listen(),
            container_color: None,
            tracker: None,
            sieve: None,
            fixed_shift_ns: None,
            counts_frames: false,
            made_up: false,
        }
    }

    /// The next frame, or `None` at the end of the stream.
    ///
    /// # Errors
    /// What the stream's elements report; [`VideoError::NoVideo`]; [`VideoError::Stalled`] after the deadline.
    pub fn next_frame(&mut self) -> Result<Option<DecodedFrame>, VideoError> {
        let mut deadline = Instant::now() + self.timeout;
        loop {
            if let Some(sample) = self.sink.try_pull_sample(POLL) {
                match self.frame(sample)? {
                    Some(frame) => return Ok(Some(frame)),
                    // Outside of the edit list: decoded, but not shown.
                    None => {
                        deadline = Instant::now() + self.timeout;
                        continue;
                    }
                }
            }
            if let Some(error) = self.pipeline.bus_error() {
                return Err(match (error, lock(&self.found).undecoded.clone()) {
                    (VideoError::NoVideo, Some(codec)) => VideoError::NoDecoder { codec },
                    (error, _) => error,
                });
            }
            if self.sink.is_eos() {
                return Ok(None);
            }
            if let Some(Err(error)) = &lock(&self.found).chosen {
                return Err(error.clone());
            }
            if lock(&self.found).chosen.is_none()
                && let Some(error) = self.swallowed.error()
            {
                return Err(error);
            }
            if Instant::now() > deadline {
                return Err(VideoError::Stalled { timeout: self.timeout });
            }
        }
    }

    /// How the picture has to be turned; known once the first frame has come.
    pub fn orientation(&self) -> Orientation {
        orientation_of(&self.sink.static_pad("sink"))
    }

    /// Whether the stream is interlaced, and its frames are made from fields; known once the first frame has come.
    pub fn is_deinterlaced(&self) -> bool {
        self.pipeline.0.by_name(DEINTERLACE).is_some()
    }

    /// Codec of the stream (`x-h264`) and the element that decodes it; known once the first frame has come.
    pub fn codec_and_decoder(&self) -> (String, String) {
        let Some(decoder) = self.chosen_decoder() else { return ("raw".to_owned(), "none".to_owned()) };
        let caps = decoder.element.static_pad("sink").and_then(|pad| pad.current_caps());
        let codec = caps.as_deref().map_or("unknown", |caps| media_type(caps).trim_start_matches("video/")).to_owned();
        let name = decoder.element.factory().map_or_else(|| "unknown".into(), |factory| factory.name());
        (codec, format!("{name}, {}", super::version()))
    }

    /// The stretches that are damaged so far, in order, in stream time.
    pub fn damages(&self) -> Vec<Damage> {
        let Some(tracker) = &self.tracker else { return Vec::new() };
        let damages = lock(tracker).damages().to_vec();
        let shifted = |ns: i64| ns.saturating_add(self.shift_ns);
        damages.into_iter().map(|damage| Damage { from_ns: shifted(damage.from_ns), to_ns: damage.to_ns.map(shifted), ..damage }).collect()
    }

    /// Whether the file was read to its end and a packet was not whole there.
    pub fn ended_early(&self) -> bool {
        self.tracker.as_ref().is_some_and(|tracker| lock(tracker).ended_early())
    }

    /// Whether damaged frames are missing after the last one; to be asked at the end.
    pub fn ends_in_hole(&self) -> bool {
        self.tracker.as_ref().is_some_and(|tracker| lock(tracker).end())
    }

    /// Whether something was unusual on a short way, so that its frames may not be those of the long way.
    pub(super) fn is_unsure(&self) -> bool {
        let tracker = self.tracker.as_ref().map(|tracker| lock(tracker));
        self.made_up || tracker.is_some_and(|tracker| !tracker.damages().is_empty() || (self.counts_frames && tracker.lost() > 0))
    }

    /// The tick from which on a frame that was left out would be shown, after the frame of time `ns`.
    pub(super) fn first_dropped_after(&self, ns: i64) -> Option<u64> {
        self.sieve.as_ref().and_then(|sieve| lock(sieve).first_dropped_after(ns))
    }

    /// Whether a short way began at a packet at which decoding may begin.
    pub(super) fn began_at_entry(&self) -> bool {
        self.sieve.as_ref().is_some_and(|sieve| lock(sieve).began_at_entry())
    }

    /// The tick up to which all frames are known, where a short way has ended before the video.
    pub(super) fn sieve_end(&self) -> Option<u64> {
        self.sieve.as_ref().and_then(|sieve| lock(sieve).end())
    }

    /// Packets that came on a short way, and those of them that were left out.
    pub(super) fn sieved(&self) -> (u64, u64) {
        self.sieve.as_ref().map_or((0, 0), |sieve| lock(sieve).counts())
    }

    /// The decoder of the chosen stream: the one whose pad is linked.
    fn chosen_decoder(&self) -> Option<FoundDecoder> {
        let found = lock(&self.found);
        let is_chosen = |decoder: &&FoundDecoder| {
            let pad = decoder.element.static_pad("src");
            let caps = pad.and_then(|pad| pad.current_caps());
            found.decoders.len() == 1 || caps.is_some_and(|_| found.is_linked(&decoder.element))
        };
        found.decoders.iter().find(is_chosen).cloned()
    }

    fn frame(&mut self, sample: gst::Sample) -> Result<Option<DecodedFrame>, VideoError> {
        let caps = sample.caps_owned().ok_or_else(|| VideoError::frame("it has no caps"))?;
        let info = match &self.caps {
            Some((known, info)) if *known == caps => info.clone(),
            _ => {
                let info = gst_video::VideoInfo::from_caps(&caps).map_err(VideoError::frame)?;
                self.caps = Some((caps, info.clone()));
                info
            }
        };
        if self.tracker.is_none()
            && let Some(decoder) = self.chosen_decoder()
        {
            self.container_color = *lock(&decoder.container_color);
            self.tracker = Some(decoder.tracker);
        }
        let buffer = sample.buffer().ok_or_else(|| VideoError::frame("it has no buffer"))?;
        let duration_ns = buffer.duration().map(|duration| duration.nseconds() as i64);
        let stream_time = match (buffer.pts(), self.fixed_shift_ns) {
            (Some(pts), Some(shift_ns)) => Some(pts.nseconds() as i64 + shift_ns),
            (Some(pts), None) => {
                let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::format::Time>());
                match segment.map_or(Some(pts), |segment| segment.to_stream_time(pts)) {
                    Some(time) => Some(time.nseconds() as i64),
                    None => return Ok(None),
                }
            }
            (None, _) => None,
        };
        // A frame without a time follows the one before it, and so does one whose time is not later: AVI has times of decoding only.
        let pts_ns = match (stream_time, self.last_pts_ns) {
            (Some(time), Some(last)) if time > last => time,
            (time, None) => time.unwrap_or(0),
            (_, Some(last)) => {
                self.made_up = true;
                let rate = info.fps();
                let frame_ns = 1e9 * f64::from(rate.denom()) / f64::from(rate.numer().max(1));
                last + duration_ns.filter(|&duration| duration > 0).unwrap_or(frame_ns as i64)
            }
        };
        let buffer_ns = buffer.pts().map_or(pts_ns, |pts| pts.nseconds() as i64);
        let (damaged, after_hole) = self.tracker.as_ref().map_or((false, false), |tracker| lock(tracker).frame(buffer_ns));
        self.shift_ns = pts_ns - buffer_ns;
        self.last_pts_ns = Some(pts_ns);
        Ok(Some(DecodedFrame { sample, info, container_color: self.container_color, pts_ns, duration_ns, damaged, after_hole }))
    }
}

impl Found {
    /// Whether what `decoder` makes is the stream that was linked.
    fn is_linked(&self, decoder: &gst::Element) -> bool {
        self.pads.iter().filter(|pad| pad.is_linked()).any(|pad| {
            let target = pad.downcast_ref::<gst::GhostPad>().and_then(GhostPadExt::target);
            target.and_then(|pad| pad.parent_element()).as_ref() == Some(decoder)
        })
    }
}

/// Name of the element that deinterlaces, where there is one.
const DEINTERLACE: &str = "deinterlacer";

/// The video stream that the container marks as the one to show, else the first.
fn default_stream(pads: &[gst::Pad]) -> Option<gst::Pad> {
    let flags = |pad: &gst::Pad| {
        let start = pad.sticky_event::<gst::event::StreamStart>(0);
        start.map_or(gst::StreamFlags::empty(), |start| start.stream_flags())
    };
    let is_default = |pad: &&gst::Pad| flags(pad).contains(gst::StreamFlags::SELECT);
    let is_shown = |pad: &&gst::Pad| !flags(pad).contains(gst::StreamFlags::UNSELECT);
    pads.iter().find(is_default).or_else(|| pads.iter().find(is_shown)).or(pads.first()).cloned()
}

/// Links the chosen stream to the sink, through a deinterlacer where it is interlaced.
fn link(pipeline: &gst::Pipeline, pad: &gst::Pad, sink: &gst_app::AppSink) -> Result<(), VideoError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let mode = caps.structure(0).and_then(|structure| structure.get::<String>("interlace-mode").ok());
    let sink_pad = |element: &gst::Element| element.static_pad("sink").ok_or_else(|| VideoError::setup("an element without a sink pad"));
    let sink = sink.upcast_ref::<gst::Element>();
    let first = if mode.is_none_or(|mode| mode == "progressive") {
        sink.clone()
    } else {
        let deinterlace = gst::ElementFactory::make("deinterlace")
            .name(DEINTERLACE)
            .property_from_str("fields", "top")
            .build()
            .map_err(VideoError::setup)?;
        pipeline.add(&deinterlace).map_err(VideoError::setup)?;
        deinterlace.link(sink).map_err(VideoError::setup)?;
        deinterlace.sync_state_with_parent().map_err(VideoError::setup)?;
        deinterlace
    };
    pad.link(&sink_pad(&first)?).map(drop).map_err(VideoError::setup)
}

/// Takes frames in the system's memory.
fn frame_sink() -> gst_app::AppSink {
    let raw_video = gst::Caps::builder("video/x-raw").build();
    let sink = gst_app::AppSink::builder().caps(&raw_video).sync(false).max_buffers(QUEUED_FRAMES).build();
    sink.set_property("enable-last-sample", false);
    sink
}

impl FoundDecoder {
    /// Prepares `element`, a video decoder, before it is given anything.
    fn new(element: &gst::Element, threads: u32, sieve: Option<&Arc<Mutex<Sieve>>>) -> Self {
        limit_threads(element, threads);
        let tracker = Arc::new(Mutex::new(DamageTracker::new(threads)));
        track_packets(element, &tracker, sieve.cloned());
        let container_color = keep_container_color(element);
        Self { element: element.clone(), tracker, container_color }
    }
}

/// Tells `tracker` of every packet that `decoder` is given, once `sieve` has let it through.
fn track_packets(decoder: &gst::Element, tracker: &Arc<Mutex<DamageTracker>>, sieve: Option<Arc<Mutex<Sieve>>>) {
    let Some(pad) = decoder.static_pad("sink") else { return };
    let tracker = Arc::clone(tracker);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(packet) = info.buffer() {
            // Not `Drop`, after which GStreamer would free again what the binding has freed.
            match sieve.as_ref().map(|sieve| lock(sieve).fate(pad, packet)) {
                None | Some(Fate::Decoded) => {}
                Some(Fate::LeftOut) => return gst::PadProbeReturn::Handled,
                Some(Fate::TooLate) => {
                    // The demultiplexer then ends the stream, and the decoder gives what it still holds.
                    info.flow_res = Err(gst::FlowError::Eos);
                    return gst::PadProbeReturn::Handled;
                }
            }
            let is_key = !packet.flags().contains(gst::BufferFlags::DELTA_UNIT);
            lock(&tracker).packet(packet.pts().map(|pts| pts.nseconds() as i64), is_key);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Keeps what the container says of the colours from one of libav's decoders, and returns it: the decoder would believe it before the stream's own
/// word, and what GStreamer 1.22 reads from mp4 lacks the range.
fn keep_container_color(decoder: &gst::Element) -> Arc<Mutex<Option<gst_video::VideoColorimetry>>> {
    let kept = Arc::new(Mutex::new(None));
    let is_libavs = decoder.factory().is_some_and(|factory| factory.name().starts_with("avdec_"));
    if let (true, Some(pad)) = (is_libavs, decoder.static_pad("sink")) {
        let kept = Arc::clone(&kept);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => event.caps_owned(),
                _ => return gst::PadProbeReturn::Ok,
            };
            let text = caps.structure(0).and_then(|structure| structure.get::<String>("colorimetry").ok());
            if let Some(color) = text.and_then(|text| text.parse().ok()) {
                *lock(&kept) = Some(color);
                let mut caps = caps;
                caps.make_mut().iter_mut().for_each(|structure| structure.remove_field("colorimetry"));
                info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
            }
            gst::PadProbeReturn::Ok
        });
    }
    kept
}

/// Sets the number of threads of a software decoder, whose property has one of two names.
fn limit_threads(decoder: &gst::Element, threads: u32) {
    if let Some(property) = ["max-threads", "threads"].into_iter().find(|name| decoder.find_property(name).is_some()) {
        decoder.set_property_from_str(property, &threads.to_string());
    }
}

/// Reads the orientation from the tags that stick to `pad`; a stream's own tag comes after the container's and wins.
pub(super) fn orientation_of(pad: &Option<gst::Pad>) -> Orientation {
    let mut orientation = Orientation::default();
    if let Some(pad) = pad {
        pad.sticky_events_foreach(|event| {
            if let gst::EventView::Tag(tags) = event.view()
                && let Some(tag) = tags.tag().get::<gst::tags::ImageOrientation>()
            {
                orientation = Orientation::from_tag(tag.get());
            }
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
    }
    orientation
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is inside is whole at every moment: a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
