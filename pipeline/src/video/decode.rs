//! Decodes a video file to frames in presentation order, with their times.

use super::damage::{Damage, DamageTracker};
use super::decoder::{FoundDecoder, stream_time};
use super::facts::Facts;
use super::fast_seek::{self, FastSeek, PacketFilter};
use super::frame::{
    FrameScaler, Orientation, PixelRatio, SourceShape, UNKNOWN, components, planar, primaries_name,
    transfer_name, yuv,
};
use super::graph::{Graph, HeldPad, Output};
use super::measure::picture::SmallPicture;
use super::probe::exact_ns;
use super::{VideoError, lock, media_type};
use crate::frames::Color;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Options of a decoder.
#[derive(Debug, Clone, Copy)]
pub struct DecodeOptions {
    /// Number of threads of the decoder element. The frames are the same for any number.
    pub threads: u32,
    /// Time without progress after which the decoder fails.
    pub timeout: Duration,
    /// Rate at which the pictures of a folder are shown, per second.
    pub picture_rate: f64,
}

/// Rate of the pictures of a folder if ticks are frames, per second.
const DEFAULT_PICTURE_RATE: f64 = 30.0;

impl DecodeOptions {
    /// The options of a decoder for clips of `options`: each picture of a folder is a tick.
    pub fn of_build(threads: u32, timeout: Duration, options: &BuildOptions) -> Self {
        Self {
            threads,
            timeout,
            picture_rate: options.sampling.fps().unwrap_or(DEFAULT_PICTURE_RATE),
        }
    }
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            timeout: super::DEFAULT_TIMEOUT,
            picture_rate: DEFAULT_PICTURE_RATE,
        }
    }
}

/// The decoder of the stream, once it is known.
type Found = Arc<Mutex<Option<FoundDecoder>>>;

/// The description of a decoder's frames by its caps.
#[derive(Debug, Clone)]
struct FrameInfo {
    video: gst_video::VideoInfo,
    /// The colours as the caps give them. A [`gst_video::VideoInfo`] replaces all of them by a
    /// default if the matrix is unknown, as in streams that declare a full range and nothing else.
    color: Option<gst_video::VideoColorimetry>,
}

impl FrameInfo {
    fn of(caps: &gst::CapsRef) -> Result<Self, VideoError> {
        let video = gst_video::VideoInfo::from_caps(caps).map_err(VideoError::frame)?;
        let text = caps
            .structure(0)
            .and_then(|structure| structure.get::<&str>("colorimetry").ok());
        Ok(Self {
            video,
            color: text.and_then(|text| text.parse().ok()),
        })
    }
}

/// One decoded frame, still in the decoder's memory and format.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    sample: gst::Sample,
    info: FrameInfo,
    /// Descriptions of the colours: the stream's first, then the container's.
    colors: Vec<gst_video::VideoColorimetry>,
    /// Presentation time in nanoseconds of stream time, which accounts for edit lists and a start
    /// other than zero.
    pub pts_ns: i64,
    /// Duration in nanoseconds, if the stream gives one.
    pub duration_ns: Option<i64>,
    /// Whether the frame's packet was broken, or one that it refers to.
    pub damaged: bool,
    /// Whether frames just before it are missing because their packets were broken.
    pub after_hole: bool,
}

impl DecodedFrame {
    /// Returns the size as decoded.
    pub fn size(&self) -> FrameSize {
        FrameSize {
            width: self.info.video.width() as usize,
            height: self.info.video.height() as usize,
        }
    }

    /// Returns GStreamer's name of the pixel format.
    pub fn pixel_format(&self) -> &'static str {
        self.info.video.format().to_str().as_str()
    }

    /// Returns the colour of the samples once they are I420.
    pub fn color(&self) -> Color {
        Color::of(&self.info.video, &self.colors)
    }

    /// Returns ffmpeg's names of the transfer function and the primaries.
    pub fn transfer_and_primaries(&self) -> (&'static str, &'static str) {
        let known = |name: &&str| *name != UNKNOWN;
        let transfer = self
            .colors
            .iter()
            .map(|color| transfer_name(color.transfer()))
            .find(known);
        let primaries = self
            .colors
            .iter()
            .map(|color| primaries_name(color.primaries()))
            .find(known);
        (transfer.unwrap_or(UNKNOWN), primaries.unwrap_or(UNKNOWN))
    }

    /// Samples the frame into `picture`.
    ///
    /// # Errors
    /// As [`Self::with_planes`].
    pub fn sample_into(&self, picture: &mut SmallPicture) -> Result<(), VideoError> {
        let color = self.color();
        self.with_planes(|frame| {
            if let Some((components, colors)) = components(frame, color) {
                picture.sample(components, colors);
            } else {
                // Packed formats of unusual depth.
                let size = self.size();
                let mut scaler = FrameScaler::new(size, Orientation::default(), color.range);
                let mut planes = Vec::new();
                scaler.append(frame, &mut planes)?;
                picture.sample(planar(&planes, size), yuv(color));
            }
            Ok(())
        })
    }

    /// Returns the frames per second, if the stream has a fixed rate.
    pub fn frame_rate(&self) -> Option<f64> {
        let rate = self.info.video.fps();
        (rate.numer() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
    }

    /// Maps the frame and passes it to `use_frame`.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when the frame cannot be mapped, and the errors of `use_frame`.
    pub fn with_planes<T>(
        &self,
        use_frame: impl FnOnce(&gst_video::VideoFrameRef<&gst::BufferRef>) -> Result<T, VideoError>,
    ) -> Result<T, VideoError> {
        let buffer = self
            .sample
            .buffer()
            .ok_or_else(|| VideoError::frame("it has no buffer"))?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info.video)
            .map_err(VideoError::frame)?;
        use_frame(&frame)
    }
}

/// Decodes the default video stream of a file from its start to its end. Interlaced streams are
/// deinterlaced: the top field of each frame is kept, and GStreamer's `deinterlace` makes the
/// missing lines.
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
    /// Skips packets during a fast seek.
    filter: Option<Arc<Mutex<PacketFilter>>>,
    /// Stream time minus the buffers' time during a fast seek, in place of the segment's.
    fixed_shift_ns: Option<i64>,
    /// Whether a packet without a frame is a reason for doubt.
    expects_all_frames: bool,
    /// Whether the time of a frame was made up.
    has_made_up_time: bool,
}

impl VideoDecoder {
    /// Opens the file at `path`. Errors in the file itself come from [`Self::next_frame`].
    ///
    /// # Errors
    /// [`VideoError::Setup`] when GStreamer or its plugins are missing, and when the file cannot be
    /// read or is of no known type.
    pub fn open(path: &Path, options: DecodeOptions) -> Result<Self, VideoError> {
        let decoder = Self::new(path, options, None, None)?;
        decoder.graph.pipeline.start()?;
        Ok(decoder)
    }

    /// Opens the file at `path` to decode it from the entry of `fast_seek`, skipping unwanted
    /// frames where that is possible.
    ///
    /// # Errors
    /// Those of [`Self::next_frame`], and when the demultiplexer does not find the entry.
    pub fn open_at(
        path: &Path,
        options: DecodeOptions,
        fast_seek: &FastSeek,
    ) -> Result<Self, VideoError> {
        let filter = Arc::new(Mutex::new(PacketFilter::new(fast_seek)));
        let (hold, held) = mpsc::channel();
        let hold = (!fast_seek.from_start).then_some(hold);
        let mut decoder = Self::new(path, options, Some(&filter), hold)?;
        decoder.filter = Some(filter);
        decoder.fixed_shift_ns = Some(fast_seek.plan.shift_ns);
        decoder.expects_all_frames = fast_seek.plan.has_one_frame_per_packet();
        decoder.graph.pipeline.start()?;
        if !fast_seek.from_start {
            fast_seek::seek(
                &decoder.graph.pipeline,
                &held,
                fast_seek.entry_ns,
                options.timeout,
            )?;
        }
        Ok(decoder)
    }

    fn new(
        path: &Path,
        options: DecodeOptions,
        filter: Option<&Arc<Mutex<PacketFilter>>>,
        hold: Option<mpsc::Sender<HeldPad>>,
    ) -> Result<Self, VideoError> {
        super::init()?;
        let found = Found::default();
        let prepare = {
            let found = Arc::clone(&found);
            let filter = filter.cloned();
            move |element: &gst::Element, facts: &Facts| {
                *lock(&found) = Some(FoundDecoder::new(
                    element,
                    facts,
                    options.threads,
                    filter.as_ref(),
                ));
            }
        };
        Ok(Self {
            graph: Graph::new(
                path,
                options.picture_rate,
                Output::Frames(Box::new(prepare)),
                hold,
            )?,
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
            expects_all_frames: false,
            has_made_up_time: false,
        })
    }

    /// Returns the next frame, or `None` at the end of the stream.
    ///
    /// # Errors
    /// The errors that elements report; [`VideoError::NoVideo`]; [`VideoError::Stalled`] after the
    /// timeout.
    pub fn next_frame(&mut self) -> Result<Option<DecodedFrame>, VideoError> {
        while let Some(sample) = self.graph.pull(self.timeout)? {
            // None is outside the edit list: decoded, but not shown.
            if let Some(frame) = self.frame(sample)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Returns the rotation and mirroring that make the picture upright. Known after the first
    /// frame.
    pub fn orientation(&self) -> Orientation {
        orientation_of(&self.graph.sink.static_pad("sink"))
    }

    /// Returns the properties that determine the size of stored frames, of which `frame` is one.
    pub fn shape(&self, frame: &DecodedFrame) -> SourceShape {
        let container = lock(&self.found)
            .as_ref()
            .and_then(FoundDecoder::container_aspect);
        let of_frame = frame.info.video.par();
        SourceShape {
            size: frame.size(),
            pixel_aspect: container
                .unwrap_or_else(|| PixelRatio::new(of_frame.numer(), of_frame.denom())),
            orientation: self.orientation(),
        }
    }

    /// Whether the stream is interlaced, so that frames are made from fields. Known after the first
    /// frame.
    pub fn is_deinterlaced(&self) -> bool {
        self.graph.is_deinterlaced()
    }

    /// Returns the codec of the stream (`x-h264`) and the element that decodes it. Known after the
    /// first frame.
    pub fn codec_and_decoder(&self) -> (String, String) {
        let Some(decoder) = lock(&self.found).clone() else {
            return ("raw".to_owned(), "none".to_owned());
        };
        let caps = decoder
            .element
            .static_pad("sink")
            .and_then(|pad| pad.current_caps());
        let codec = caps
            .as_deref()
            .map_or("unknown", |caps| {
                media_type(caps).trim_start_matches("video/")
            })
            .to_owned();
        let name = decoder
            .element
            .factory()
            .map_or_else(|| "unknown".into(), |factory| factory.name());
        (codec, format!("{name}, {}", super::version()))
    }

    /// Returns the damaged stretches so far, in order, in stream time.
    pub fn damages(&self) -> Vec<Damage> {
        let Some(tracker) = &self.tracker else {
            return Vec::new();
        };
        let damages = lock(tracker).damages().to_vec();
        let shifted = |ns: i64| ns.saturating_add(self.shift_ns);
        let shift = |damage: Damage| Damage {
            from_ns: shifted(damage.from_ns),
            to_ns: damage.to_ns.map(shifted),
            ..damage
        };
        damages.into_iter().map(shift).collect()
    }

    /// Returns the end of the last packet so far in nanoseconds of stream time, if packets have
    /// durations.
    pub fn packets_end_ns(&self) -> Option<i64> {
        let end_ns = lock(self.tracker.as_ref()?).end_ns()?;
        Some(end_ns.saturating_add(self.shift_ns))
    }

    /// Whether the file was read to its end and its last packet was incomplete.
    pub fn ended_early(&self) -> bool {
        self.tracker
            .as_ref()
            .is_some_and(|tracker| lock(tracker).ended_early())
    }

    /// Whether damaged frames are missing after the last one. To be called at the end of the
    /// stream.
    pub fn ends_in_hole(&self) -> bool {
        self.tracker
            .as_ref()
            .is_some_and(|tracker| lock(tracker).end())
    }

    /// Whether a fast seek met something unusual, so that its frames may differ from those of
    /// decoding from the start.
    pub(super) fn is_doubtful(&self) -> bool {
        let tracker = self.tracker.as_ref().map(|tracker| lock(tracker));
        self.has_made_up_time
            || tracker.is_some_and(|tracker| {
                !tracker.damages().is_empty() || (self.expects_all_frames && tracker.lost() > 0)
            })
    }

    /// Returns the tick from which on a skipped frame would be shown, after the frame of time `ns`.
    pub(super) fn first_skipped_after(&self, ns: i64) -> Option<u64> {
        self.filter
            .as_ref()
            .and_then(|filter| lock(filter).first_skipped_after(ns))
    }

    /// Whether a fast seek began at a packet at which decoding may begin.
    pub(super) fn began_at_entry(&self) -> bool {
        self.filter
            .as_ref()
            .is_some_and(|filter| lock(filter).began_at_entry())
    }

    /// Returns the tick up to which all frames are known, if a fast seek has ended before the
    /// video.
    pub(super) fn known_until(&self) -> Option<u64> {
        self.filter
            .as_ref()
            .and_then(|filter| lock(filter).known_until())
    }

    /// Returns the number of packets that came during a fast seek, and how many of them were
    /// skipped.
    pub(super) fn packet_counts(&self) -> (u64, u64) {
        self.filter
            .as_ref()
            .map_or((0, 0), |filter| lock(filter).counts())
    }

    /// Returns the frame in `sample`; none if it is not to be shown.
    fn frame(&mut self, sample: gst::Sample) -> Result<Option<DecodedFrame>, VideoError> {
        let caps = sample
            .caps_owned()
            .ok_or_else(|| VideoError::frame("it has no caps"))?;
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
        let buffer = sample
            .buffer()
            .ok_or_else(|| VideoError::frame("it has no buffer"))?;
        let duration_ns = buffer.duration().map(|duration| duration.nseconds() as i64);
        let decoding_time = self
            .tracker
            .as_ref()
            .and_then(|tracker| lock(tracker).next_decoding_time());
        let shown = decoding_time
            .map(|ns| gst::ClockTime::from_nseconds(ns.max(0).unsigned_abs()))
            .or(buffer.pts());
        let segment = sample
            .segment()
            .and_then(|segment| segment.downcast_ref::<gst::format::Time>());
        let stream_time = match shown {
            None => None,
            Some(pts) => {
                let in_segment = segment.map_or(Some(pts), |segment| stream_time(segment, pts));
                let Some(time) = in_segment else {
                    return Ok(None);
                };
                Some(match self.fixed_shift_ns {
                    Some(shift_ns) => pts.nseconds() as i64 + shift_ns,
                    None if self.graph.is_elementary => {
                        exact_ns(time.nseconds() as i64, Some(info.video.fps()))
                    }
                    None => time.nseconds() as i64,
                })
            }
        };
        // A frame without a time follows the one before it, and so does one whose time is not
        // later.
        let pts_ns = match (stream_time, self.last_pts_ns) {
            (Some(time), Some(last)) if time > last => time,
            (time, None) => time.unwrap_or(0),
            (_, Some(last)) => {
                self.has_made_up_time = true;
                let rate = info.video.fps();
                let frame_ns = 1e9 * f64::from(rate.denom()) / f64::from(rate.numer().max(1));
                last + duration_ns
                    .filter(|&duration| duration > 0)
                    .unwrap_or(frame_ns as i64)
            }
        };
        let buffer_ns = shown.map_or(pts_ns, |pts| pts.nseconds() as i64);
        let (damaged, after_hole) = self
            .tracker
            .as_ref()
            .map_or((false, false), |tracker| lock(tracker).frame(buffer_ns));
        self.shift_ns = pts_ns - buffer_ns;
        self.last_pts_ns = Some(pts_ns);
        let colors = [self.header_color, info.color, self.container_color]
            .into_iter()
            .flatten()
            .collect();
        Ok(Some(DecodedFrame {
            sample,
            info,
            colors,
            pts_ns,
            duration_ns,
            damaged,
            after_hole,
        }))
    }
}

/// Reads the orientation from the sticky tag events of `pad`. A stream's own tag comes after the
/// container's, and overrides it.
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
