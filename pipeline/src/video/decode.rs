//! A video file to decoded frames, in presentation order, with their times.

use super::damage::{Damage, DamageTracker};
use super::decoder::{FoundDecoder, stream_time};
use super::facts::Facts;
use super::fast_seek::{self, FastSeek, PacketFilter};
use super::frame::{Orientation, PixelRatio, SourceShape, UNKNOWN, primaries_name, transfer_name};
use super::graph::{Graph, Held, Until};
use super::probe::exact_ns;
use super::{POLL, VideoError, lock, media_type};
use crate::frames::Color;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use schemas::geometry::FrameSize;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

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

/// The decoder of the stream, once it is known.
type Found = Arc<Mutex<Option<FoundDecoder>>>;

/// What a decoder's caps say of its frames.
#[derive(Debug, Clone)]
struct FrameInfo {
    video: gst_video::VideoInfo,
    /// The colours as the caps say them. A [`gst_video::VideoInfo`] replaces all of it by a default where
    /// the matrix is unknown, as in streams that say nothing but that their range is full.
    color: Option<gst_video::VideoColorimetry>,
}

impl FrameInfo {
    fn of(caps: &gst::CapsRef) -> Result<Self, VideoError> {
        let video = gst_video::VideoInfo::from_caps(caps).map_err(VideoError::frame)?;
        let text = caps.structure(0).and_then(|structure| structure.get::<&str>("colorimetry").ok());
        Ok(Self { video, color: text.and_then(|text| text.parse().ok()) })
    }
}

/// One decoded frame, still in the decoder's memory and format.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    sample: gst::Sample,
    info: FrameInfo,
    /// What is said of the colours: first by the stream, then by the container.
    colors: Vec<gst_video::VideoColorimetry>,
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
    pub fn size(&self) -> FrameSize {
        FrameSize { width: self.info.video.width() as usize, height: self.info.video.height() as usize }
    }

    /// GStreamer's name of the pixel format.
    pub fn pixel_format(&self) -> &'static str {
        self.info.video.format().to_str().as_str()
    }

    /// What the samples mean once they are I420.
    pub fn color(&self) -> Color {
        Color::of(&self.info.video, &self.colors)
    }

    /// Transfer function and primaries, by ffmpeg's names.
    pub fn transfer_and_primaries(&self) -> (&'static str, &'static str) {
        let known = |name: &&str| *name != UNKNOWN;
        let transfer = self.colors.iter().map(|color| transfer_name(color.transfer())).find(known);
        let primaries = self.colors.iter().map(|color| primaries_name(color.primaries())).find(known);
        (transfer.unwrap_or(UNKNOWN), primaries.unwrap_or(UNKNOWN))
    }

    /// Frames a second, as far as the stream has a fixed rate.
    pub fn frame_rate(&self) -> Option<f64> {
        let rate = self.info.video.fps();
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
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info.video).map_err(VideoError::frame)?;
        use_frame(&frame)
    }
}

/// Decodes the default video stream of a file from its start to its end. Interlaced streams are deinterlaced: of each frame the top field is kept,
/// and its missing lines are made by GStreamer's `deinterlace`.
pub struct VideoDecoder {
    graph: Graph,
    found: Found,
    timeout: Duration,
    caps: Option<(gst::Caps, FrameInfo)>,
    last_pts_ns: Option<i64>,
    /// Stream time minus the buffers' time, of the last frame.
    shift_ns: i64,
    container_color: Option<gst_video::VideoColorimetry>,
    header_color: Option<gst_video::VideoColorimetry>,
    /// The tracker of the stream's decoder.
    tracker: Option<Arc<Mutex<DamageTracker>>>,
    /// What leaves packets out, on a short way.
    filter: Option<Arc<Mutex<PacketFilter>>>,
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
    /// [`VideoError::Setup`] when GStreamer or its plugins are missing, and when the file cannot be read or
    /// is of no known type.
    pub fn open(path: &Path, options: DecodeOptions) -> Result<Self, VideoError> {
        let decoder = Self::new(path, options, None, None)?;
        decoder.graph.pipeline.start()?;
        Ok(decoder)
    }

    /// Opens the file at `path` to decode it from the entry of `shortcut` on, without the frames that are not wanted, as far as this is possible.
    ///
    /// # Errors
    /// As [`Self::next_frame`], and when the demultiplexer does not find the entry.
    pub fn open_at(path: &Path, options: DecodeOptions, shortcut: &FastSeek) -> Result<Self, VideoError> {
        let filter = Arc::new(Mutex::new(PacketFilter::new(shortcut)));
        let (hold, held) = mpsc::channel();
        let hold = (!shortcut.from_start).then_some(hold);
        let mut decoder = Self::new(path, options, Some(&filter), hold)?;
        decoder.filter = Some(filter);
        decoder.fixed_shift_ns = Some(shortcut.route.shift_ns);
        decoder.counts_frames = shortcut.route.has_a_frame_a_packet();
        decoder.graph.pipeline.start()?;
        if !shortcut.from_start {
            fast_seek::seek(&decoder.graph.pipeline, &held, shortcut.entry_ns, options.timeout)?;
        }
        Ok(decoder)
    }

    fn new(
        path: &Path,
        options: DecodeOptions,
        filter: Option<&Arc<Mutex<PacketFilter>>>,
        hold: Option<mpsc::Sender<Held>>,
    ) -> Result<Self, VideoError> {
        super::init()?;
        let found = Found::default();
        let prepare = {
            let (found, filter) = (Arc::clone(&found), filter.cloned());
            move |element: &gst::Element, facts: &Facts| {
                *lock(&found) = Some(FoundDecoder::new(element, facts, options.threads, filter.as_ref()));
            }
        };
        Ok(Self {
            graph: Graph::new(path, Until::Frames(Box::new(prepare)), hold)?,
            found,
            timeout: options.timeout,
            caps: None,
            last_pts_ns: None,
            shift_ns: 0,
            container_color: None,
            header_color: None,
            tracker: None,
            filter: None,
            fixed_shift_ns: None,
            counts_frames: false,
            made_up: false,
        })
    }

    /// The next frame, or `None` at the end of the stream.
    ///
    /// # Errors
    /// What the stream's elements report; [`VideoError::NoVideo`]; [`VideoError::Stalled`] after the deadline.
    pub fn next_frame(&mut self) -> Result<Option<DecodedFrame>, VideoError> {
        let mut deadline = Instant::now() + self.timeout;
        loop {
            if let Some(sample) = self.graph.sink.try_pull_sample(POLL) {
                match self.frame(sample)? {
                    Some(frame) => return Ok(Some(frame)),
                    // Outside of the edit list: decoded, but not shown.
                    None => {
                        deadline = Instant::now() + self.timeout;
                        continue;
                    }
                }
            }
            if let Some(error) = self.graph.failure() {
                return Err(error);
            }
            if self.graph.sink.is_eos() {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(VideoError::Stalled { timeout: self.timeout });
            }
        }
    }

    /// How the picture has to be turned; known once the first frame has come.
    pub fn orientation(&self) -> Orientation {
        orientation_of(&self.graph.sink.static_pad("sink"))
    }

    /// What decides the size of stored frames, of which `frame` is one.
    pub fn shape(&self, frame: &DecodedFrame) -> SourceShape {
        let given = lock(&self.found).as_ref().and_then(FoundDecoder::given_aspect);
        let of_frame = frame.info.video.par();
        SourceShape {
            size: frame.size(),
            pixel_aspect: given.unwrap_or_else(|| PixelRatio::new(of_frame.numer(), of_frame.denom())),
            orientation: self.orientation(),
        }
    }

    /// Whether the stream is interlaced, and its frames are made from fields; known once the first frame has come.
    pub fn is_deinterlaced(&self) -> bool {
        self.graph.is_deinterlaced()
    }

    /// Codec of the stream (`x-h264`) and the element that decodes it; known once the first frame has come.
    pub fn codec_and_decoder(&self) -> (String, String) {
        let Some(decoder) = lock(&self.found).clone() else { return ("raw".to_owned(), "none".to_owned()) };
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

    /// When the last packet so far ends, in stream time, where packets say how long they are shown.
    pub fn packets_end_ns(&self) -> Option<i64> {
        let end_ns = lock(self.tracker.as_ref()?).end_ns()?;
        Some(end_ns.saturating_add(self.shift_ns))
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
        self.filter.as_ref().and_then(|filter| lock(filter).first_dropped_after(ns))
    }

    /// Whether a short way began at a packet at which decoding may begin.
    pub(super) fn began_at_entry(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| lock(filter).began_at_entry())
    }

    /// The tick up to which all frames are known, where a short way has ended before the video.
    pub(super) fn sieve_end(&self) -> Option<u64> {
        self.filter.as_ref().and_then(|filter| lock(filter).end())
    }

    /// Packets that came on a short way, and those of them that were left out.
    pub(super) fn sieved(&self) -> (u64, u64) {
        self.filter.as_ref().map_or((0, 0), |filter| lock(filter).counts())
    }

    fn frame(&mut self, sample: gst::Sample) -> Result<Option<DecodedFrame>, VideoError> {
        let caps = sample.caps_owned().ok_or_else(|| VideoError::frame("it has no caps"))?;
        let info = match &self.caps {
            Some((known, info)) if *known == caps => info.clone(),
            _ => {
                let info = FrameInfo::of(&caps)?;
                self.caps = Some((caps, info.clone()));
                info
            }
        };
        if self.tracker.is_none()
            && let Some(decoder) = lock(&self.found).clone()
        {
            self.container_color = *lock(&decoder.container_color);
            self.header_color = *lock(&decoder.header_color);
            self.tracker = Some(decoder.tracker);
        }
        let buffer = sample.buffer().ok_or_else(|| VideoError::frame("it has no buffer"))?;
        let duration_ns = buffer.duration().map(|duration| duration.nseconds() as i64);
        let turn = self.tracker.as_ref().and_then(|tracker| lock(tracker).next_turn());
        let shown = turn.map(|ns| gst::ClockTime::from_nseconds(ns.max(0).unsigned_abs())).or(buffer.pts());
        let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::format::Time>());
        let stream_time = match shown {
            None => None,
            Some(pts) => {
                let in_segment = segment.map_or(Some(pts), |segment| stream_time(segment, pts));
                let Some(time) = in_segment else { return Ok(None) };
                Some(match self.fixed_shift_ns {
                    Some(shift_ns) => pts.nseconds() as i64 + shift_ns,
                    None if self.graph.is_elementary => exact_ns(time.nseconds() as i64, Some(info.video.fps())),
                    None => time.nseconds() as i64,
                })
            }
        };
        // A frame without a time follows the one before it, and so does one whose time is not later.
        let pts_ns = match (stream_time, self.last_pts_ns) {
            (Some(time), Some(last)) if time > last => time,
            (time, None) => time.unwrap_or(0),
            (_, Some(last)) => {
                self.made_up = true;
                let rate = info.video.fps();
                let frame_ns = 1e9 * f64::from(rate.denom()) / f64::from(rate.numer().max(1));
                last + duration_ns.filter(|&duration| duration > 0).unwrap_or(frame_ns as i64)
            }
        };
        let buffer_ns = shown.map_or(pts_ns, |pts| pts.nseconds() as i64);
        let (damaged, after_hole) = self.tracker.as_ref().map_or((false, false), |tracker| lock(tracker).frame(buffer_ns));
        self.shift_ns = pts_ns - buffer_ns;
        self.last_pts_ns = Some(pts_ns);
        let colors = [self.header_color, info.color, self.container_color].into_iter().flatten().collect();
        Ok(Some(DecodedFrame { sample, info, colors, pts_ns, duration_ns, damaged, after_hole }))
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
