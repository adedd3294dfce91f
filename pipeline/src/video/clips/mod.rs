//! Samples clips from decoded frames, by presentation time on the grid of [`ticks`](super::ticks).
//!
//! - `segment`: the stretches of a video that clips are taken from.
//! - `plan`: the clips that must be planned before the video is decoded.
//! - `ahead`: frames with the change from the one before.
//! - `assemble`: puts frames into clips.
//! - `fault`: the faults of a video, as a build lists them.

mod ahead;
mod assemble;
mod fault;
mod plan;
mod segment;

pub use fault::{Fault, FaultKind};
pub use plan::{ClipPlan, ClipPlanner};
pub use segment::{Bound, Segment, segment_ticks};

use super::VideoError;
use super::decode::{DecodeOptions, DecodedFrame, VideoDecoder};
use super::fast_seek::{Doubt, FastSeek};
use super::frame::{FrameScaler, SourceShape};
use super::gaps::{Gap, GapFinder};
use super::measure::cuts::Change;
use super::ticks::gap_limit_ns;
use ahead::Ahead;
use assemble::{OpenClip, Pending};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ColorMatrix, ColorRange};
use segment::{Place, Track};
use std::collections::VecDeque;
use std::path::Path;

/// One clip, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Index within its video, from 0.
    pub index: u32,
    /// Index of its segment among those of the video.
    pub segment: u32,
    /// Index of its scene within the video, from 0; 0 if scenes are not looked for.
    pub scene: u32,
    /// Greatest change between two successive frames of the source within the clip: see
    /// [`schemas::shard::Scores::cut`]. 0 if changes are not measured.
    pub cut: f32,
    /// `frames` tightly packed I420 frames, one after another.
    pub data: Vec<u8>,
    /// Presentation time of each frame, in nanoseconds of stream time.
    pub pts_ns: Vec<i64>,
    /// Number of frames at the end that repeat the last one.
    pub repeated_frames: u32,
    /// Whether a frame is damaged, or shown in place of one that is.
    pub damaged: bool,
}

/// The result of one step of decoding.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A frame, and no clip yet.
    Frame,
    /// A clip.
    Clip(Clip),
    /// The end: all clips have been returned.
    End,
}

/// The properties that all clips of one video share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipSource {
    /// Size of a stored frame.
    pub size: FrameSize,
    /// Size of a decoded frame, aspect ratio of its pixels, and rotation.
    pub shape: SourceShape,
    /// Whether the source is interlaced.
    pub deinterlaced: bool,
    /// Pixel format of the decoder.
    pub pixel_format: &'static str,
    /// Range of the stored samples.
    pub color_range: ColorRange,
    /// Matrix of the stored samples.
    pub color_matrix: ColorMatrix,
    /// ffmpeg's name of the samples' transfer function.
    pub color_transfer: &'static str,
    /// ffmpeg's name of the samples' primaries.
    pub color_primaries: &'static str,
    /// Codec of the stream.
    pub codec: String,
    /// Element that decoded it.
    pub decoder: String,
}

/// Decodes the clips of one video, in order.
///
/// ```no_run
/// use pipeline::shard::synthetic;
/// use pipeline::video::clips::ClipDecoder;
/// use pipeline::video::decode::DecodeOptions;
/// use std::path::Path;
///
/// # fn main() -> Result<(), pipeline::video::VideoError> {
/// let path = Path::new("video.mp4");
/// let mut clips = ClipDecoder::open(path, &synthetic::options(), DecodeOptions::default())?;
/// while let Some(clip) = clips.next_clip()? {
///     println!("{} bytes of I420 frames of {:?}", clip.data.len(), clips.source().size);
/// }
/// # Ok(()) }
/// ```
pub struct ClipDecoder {
    decoder: VideoDecoder,
    /// Measures the changes between frames, unless that is not wanted.
    ahead: Option<Ahead>,
    source: ClipSource,
    scaler: FrameScaler,
    options: BuildOptions,
    /// The segments that clips are taken from.
    tracks: Vec<Track>,
    start_ns: i64,
    /// The newest frame: it is shown until the tick of the next one.
    shown: Option<DecodedFrame>,
    shown_tick: u64,
    /// End of the last frame, in stream time.
    end_ns: i64,
    frames: u64,
    missing_bytes: u64,
    ended: bool,
    /// Clips that are not returned yet, in the order of their starts.
    open: VecDeque<OpenClip>,
    done: VecDeque<Clip>,
    /// Number of clips that are complete.
    clips: u32,
    scene: u32,
    /// Times at which scenes begin, in nanoseconds of stream time, without the first.
    cuts_ns: Vec<i64>,
    scratch: Vec<u8>,
    /// Why a fast seek is doubtful, besides the decoder's own reasons.
    doubt: Option<Doubt>,
    /// Finds gaps, if the time for which frames are held is limited.
    gap_finder: Option<GapFinder>,
    /// Gaps so far, with the number of clips that each has cost.
    gaps: Vec<(Gap, u64)>,
    /// Faults of segments.
    segment_faults: Vec<Fault>,
    /// A decoded frame that is not shown yet: the shown one may fill further clips before it.
    pending: Option<Pending>,
}

impl ClipDecoder {
    /// Opens the video at `path` to decode the clips of all of it, and decodes its first frame. To
    /// spread a fixed number of clips over the video, it is read or decoded before
    /// ([`ClipPlanner`]).
    ///
    /// # Errors
    /// Those of [`VideoDecoder::next_frame`], and [`VideoError::NoFrames`] when there is no frame.
    pub fn open(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
    ) -> Result<Self, VideoError> {
        let mut planner = ClipPlanner::new(path, options, decode, &[Segment::WHOLE])?;
        while planner.step()? {}
        Self::open_planned(path, options, decode, planner.finish())
    }

    /// Opens the video at `path` to decode the clips of `plan`, which must be of the same video and
    /// options.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_planned(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
        plan: ClipPlan,
    ) -> Result<Self, VideoError> {
        let ahead = Some(Ahead::new(options.scenes));
        let tracks = |start_ns| plan.tracks(options.sampling, start_ns);
        Self::new(
            path,
            VideoDecoder::open(path, decode)?,
            options,
            ahead,
            tracks,
        )
    }

    /// Opens the video at `path` to decode the clips that begin at the ticks `starts`, in order.
    /// Each of them is returned whose first tick lies before the end of the video. `options` hold
    /// all but the starts. Changes between frames are not measured.
    ///
    /// With `fast_seek` the clips are the same, unless [`Self::doubt`] returns at the end why they
    /// may not be.
    ///
    /// # Errors
    /// Those of [`Self::open`], and when the fast seek does not reach its entry.
    pub fn open_at(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
        starts: &[u64],
        fast_seek: Option<&FastSeek>,
    ) -> Result<Self, VideoError> {
        let tracks = |_| vec![Track::listed(starts.iter().copied())];
        // The starts were chosen with the gaps in view, and a fast seek skips frames.
        let options = &BuildOptions {
            gap_seconds: None,
            ..options.clone()
        };
        let Some(fast_seek) = fast_seek else {
            return Self::new(
                path,
                VideoDecoder::open(path, decode)?,
                options,
                None,
                tracks,
            );
        };
        let mut decoder = Self::new(
            path,
            VideoDecoder::open_at(path, decode, fast_seek)?,
            options,
            None,
            tracks,
        )?;
        let first_ns = decoder.start_ns;
        // A demultiplexer may have taken an earlier entry. One nanosecond of tolerance: times are
        // rounded.
        let starts_as_planned = if fast_seek.from_start {
            first_ns.abs_diff(fast_seek.entry_ns) <= 1
        } else {
            decoder.decoder.began_at_entry() && first_ns <= fast_seek.entry_ns + 1
        };
        decoder.doubt = (!starts_as_planned).then_some(Doubt::Unusual);
        decoder.start_ns = fast_seek.wanted.start_ns;
        decoder.shown_tick = fast_seek.wanted.tick_of(first_ns);
        Ok(decoder)
    }

    fn new(
        path: &Path,
        mut decoder: VideoDecoder,
        options: &BuildOptions,
        mut ahead: Option<Ahead>,
        tracks: impl FnOnce(i64) -> Vec<Track>,
    ) -> Result<Self, VideoError> {
        let first = next_frame(&mut decoder, &mut ahead)?.map(|(frame, _)| frame);
        let first = first.ok_or(VideoError::NoFrames)?;
        let missing_bytes = super::container::missing_bytes(path).unwrap_or(0);
        let (codec, decoder_name) = decoder.codec_and_decoder();
        let shape = decoder.shape(&first);
        let size = shape.stored_size(options);
        let color = first.color();
        let source_range = color.range;
        let (color_transfer, color_primaries) = first.transfer_and_primaries();
        let mut gap_finder = gap_limit_ns(options).map(GapFinder::new);
        if let Some(finder) = &mut gap_finder {
            finder.next(first.pts_ns, first.duration_ns);
        }
        let mut tracks = tracks(first.pts_ns);
        let place = Place {
            index: 0,
            ns: first.pts_ns,
            tick: 0,
        };
        tracks.iter_mut().for_each(|track| track.resolve(place));
        let source = ClipSource {
            size,
            shape,
            deinterlaced: decoder.is_deinterlaced(),
            pixel_format: first.pixel_format(),
            color_range: color.range,
            color_matrix: color.matrix,
            color_transfer,
            color_primaries,
            codec,
            decoder: decoder_name,
        };
        Ok(Self {
            decoder,
            ahead,
            source,
            scaler: FrameScaler::new(size, shape.orientation, source_range),
            options: options.clone(),
            tracks,
            start_ns: first.pts_ns,
            end_ns: first.pts_ns,
            frames: 1,
            missing_bytes,
            shown: Some(first),
            shown_tick: 0,
            ended: false,
            open: VecDeque::new(),
            done: VecDeque::new(),
            clips: 0,
            scene: 0,
            cuts_ns: Vec::new(),
            scratch: Vec::new(),
            doubt: None,
            gap_finder,
            gaps: Vec::new(),
            segment_faults: Vec::new(),
            pending: None,
        })
    }

    /// Returns the times at which scenes begin so far, in seconds of stream time, without the
    /// first.
    pub fn cuts(&self) -> Vec<f64> {
        self.cuts_ns.iter().map(|&ns| ns as f64 / 1e9).collect()
    }

    /// Returns the time of tick 0, which is that of the first frame, in nanoseconds of stream time.
    pub const fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// Returns why the clips of a fast seek so far may differ from those of decoding from the
    /// start; none when they are the same.
    pub fn doubt(&self) -> Option<Doubt> {
        if self.decoder.is_doubtful() {
            Some(Doubt::Unusual)
        } else {
            self.doubt
        }
    }

    /// Returns the number of packets that came during a fast seek, and how many of them were
    /// skipped.
    pub fn packet_counts(&self) -> (u64, u64) {
        self.decoder.packet_counts()
    }

    /// Returns the properties that all clips of the video share.
    pub fn source(&self) -> &ClipSource {
        &self.source
    }

    /// Returns the next clip, or `None` after the last.
    ///
    /// # Errors
    /// Those of [`Self::step`].
    pub fn next_clip(&mut self) -> Result<Option<Clip>, VideoError> {
        loop {
            match self.step()? {
                Step::Frame => {}
                Step::Clip(clip) => return Ok(Some(clip)),
                Step::End => return Ok(None),
            }
        }
    }

    /// Returns the stream time of the last frame so far, in seconds.
    pub fn end_seconds(&self) -> f64 {
        self.shown.as_ref().map_or(0, |shown| shown.pts_ns) as f64 / 1e9
    }
}

/// Returns the next frame, and its change from the one before if that is measured.
fn next_frame(
    decoder: &mut VideoDecoder,
    ahead: &mut Option<Ahead>,
) -> Result<Option<(DecodedFrame, Change)>, VideoError> {
    match ahead {
        Some(ahead) => ahead.next(decoder),
        None => {
            let frame = decoder.next_frame()?;
            Ok(frame.map(|frame| (frame, Change::default())))
        }
    }
}
