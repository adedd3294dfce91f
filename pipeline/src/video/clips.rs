//! Decoded frames to clips, sampled by presentation time on the grid of [`ticks`](super::ticks).

use super::VideoError;
use super::decode::{DecodeOptions, DecodedFrame, VideoDecoder};
use super::fast_seek::{Doubt, FastSeek};
use super::frame::{FrameScaler, SourceShape};
use super::gaps::{Gap, GapFinder};
use super::ticks::{Timeline, clip_starts, first_clip_from, gap_limit_ns, hole_of, nth_start, span_ticks, tick_of};
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, Sampling, ShortVideo, Tiling};
use schemas::shard::{ColorMatrix, ColorRange};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

/// One clip, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Number within its video.
    pub index: u32,
    /// `frames` tightly packed I420 frames, one after the other.
    pub data: Vec<u8>,
    /// Presentation time of each frame.
    pub pts_ns: Vec<i64>,
    /// How many frames at the end repeat the last one.
    pub repeated_frames: u32,
    /// Whether a frame of it is damaged, or stands for one that is.
    pub damaged: bool,
}

/// What one step of decoding gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A frame, and no clip yet.
    Frame,
    /// A clip.
    Clip(Clip),
    /// All clips have been given.
    End,
}

/// Something that is wrong with a stretch of a video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// From when to when, in seconds of stream time.
    pub seconds: (f64, f64),
    /// What is wrong.
    pub reason: String,
    /// What kind of fault that is.
    pub kind: FaultKind,
    /// Clips that were left out for it: at first those that were never made.
    pub clips: u64,
}

pub use schemas::manifest::FaultKind;

/// What all clips of one video have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipSource {
    /// Size of a stored frame.
    pub size: FrameSize,
    /// Size of a decoded frame, of its pixels, and how it was turned.
    pub shape: SourceShape,
    /// Whether the source is interlaced.
    pub deinterlaced: bool,
    /// Decoder's pixel format.
    pub pixel_format: &'static str,
    /// Range of the stored samples.
    pub color_range: ColorRange,
    /// Matrix of the stored samples.
    pub color_matrix: ColorMatrix,
    /// ffmpeg's name of their transfer function.
    pub color_transfer: &'static str,
    /// ffmpeg's name of their primaries.
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
    source: ClipSource,
    scaler: FrameScaler,
    options: BuildOptions,
    starts: Starts,
    start_ns: i64,
    /// The newest frame: it is shown until the next one's tick.
    shown: Option<DecodedFrame>,
    shown_tick: u64,
    /// End of the last frame, in stream time.
    end_ns: i64,
    frames: u64,
    missing_bytes: u64,
    ended: bool,
    open: VecDeque<OpenClip>,
    done: VecDeque<Clip>,
    clips: u32,
    scratch: Vec<u8>,
    /// What is doubtful about a shortcut, beside what the decoder knows.
    doubt: Option<Doubt>,
    /// Finds gaps, where frames may not be held for long.
    gap_finder: Option<GapFinder>,
    /// Gaps so far, with the clips that each has cost.
    gaps: Vec<(Gap, u64)>,
    /// What is still to be shown before the next frame is decoded: the next frame, and its tick.
    pending: Option<Pending>,
}

/// A frame that has come, and is not shown yet.
struct Pending {
    frame: DecodedFrame,
    tick: u64,
    /// Ticks before its own at which nothing may be shown.
    hole: Option<(Gap, Range<u64>)>,
}

/// Where clips start: known beforehand, or one after the other until the video ends.
enum Starts {
    Listed(VecDeque<u64>),
    Running {
        /// First tick of the stretch that is tiled.
        base: u64,
        next: u64,
    },
}

struct OpenClip {
    start: u64,
    clip: Clip,
}

impl ClipDecoder {
    /// Opens the video at `path` and decodes its first frame. A number of clips for a video needs its length, so the packets are
    /// counted first ([`super::probe`](fn@super::probe)).
    ///
    /// # Errors
    /// As [`VideoDecoder::next_frame`], and [`VideoError::NoFrames`] when there is none.
    pub fn open(path: &Path, options: &BuildOptions, decode: DecodeOptions) -> Result<Self, VideoError> {
        let starts = match options.tiling {
            Tiling::BackToBack | Tiling::EverySeconds(_) => Starts::Running { base: 0, next: 0 },
            Tiling::ClipsPerVideo(_) => {
                let probe = super::probe(path, options, decode.timeout)?;
                Starts::Listed(clip_starts(options, &Timeline::of(options, &probe)).into())
            }
        };
        Self::new(path, VideoDecoder::open(path, decode)?, options, starts)
    }

    /// Opens the video at `path` to decode the clips that begin at the ticks `starts`, in order; each of them is given, as far as the video
    /// reaches to its first tick. `options` say all but where clips start.
    ///
    /// By a `shortcut` they are the same, unless [`Self::doubt`] says at the end that they may not be.
    ///
    /// # Errors
    /// As [`Self::open`], and when the shortcut does not lead to its entry.
    pub fn open_at(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
        starts: &[u64],
        shortcut: Option<&FastSeek>,
    ) -> Result<Self, VideoError> {
        let starts = Starts::Listed(starts.iter().copied().collect());
        // Whoever chose the starts has seen the gaps, and by a shortcut not all frames come.
        let options = &BuildOptions { gap_seconds: None, ..options.clone() };
        let Some(shortcut) = shortcut else {
            return Self::new(path, VideoDecoder::open(path, decode)?, options, starts);
        };
        let mut decoder = Self::new(path, VideoDecoder::open_at(path, decode, shortcut)?, options, starts)?;
        let first_ns = decoder.start_ns;
        // A demultiplexer may have taken an entry before. One nanosecond of grace: times are rounded.
        let as_promised = if shortcut.from_start {
            first_ns.abs_diff(shortcut.entry_ns) <= 1
        } else {
            decoder.decoder.began_at_entry() && first_ns <= shortcut.entry_ns + 1
        };
        decoder.doubt = (!as_promised).then_some(Doubt::Unusual);
        decoder.start_ns = shortcut.wanted.start_ns;
        decoder.shown_tick = shortcut.wanted.tick_of(first_ns);
        Ok(decoder)
    }

    fn new(path: &Path, mut decoder: VideoDecoder, options: &BuildOptions, starts: Starts) -> Result<Self, VideoError> {
        let first = decoder.next_frame()?.ok_or(VideoError::NoFrames)?;
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
            source,
            scaler: FrameScaler::new(size, shape.orientation, source_range),
            options: options.clone(),
            starts,
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
            scratch: Vec::new(),
            doubt: None,
            gap_finder,
            gaps: Vec::new(),
            pending: None,
        })
    }

    /// Time of tick 0, in nanoseconds of stream time: that of the first frame.
    pub const fn start_ns(&self) -> i64 {
        self.start_ns
    }

    /// Why the clips so far, by a shortcut, may be others than those of the long way; none when they are the same.
    pub fn doubt(&self) -> Option<Doubt> {
        if self.decoder.is_unsure() { Some(Doubt::Unusual) } else { self.doubt }
    }

    /// Packets that came by a shortcut, and those of them that were left out.
    pub fn sieved(&self) -> (u64, u64) {
        self.decoder.sieved()
    }

    /// What all clips of this video have in common.
    pub fn source(&self) -> &ClipSource {
        &self.source
    }

    /// The next clip, or `None` after the last.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn next_clip(&mut self) -> Result<Option<Clip>, VideoError> {
        loop {
            match self.step()? {
                Step::Frame => {}
                Step::Clip(clip) => return Ok(Some(clip)),
                Step::End => return Ok(None),
            }
        }
    }

    /// Decodes at most one frame.
    ///
    /// # Errors
    /// As [`VideoDecoder::next_frame`]; [`VideoError::StillPicture`] and [`VideoError::TooShort`] at the end. The clips that came before the
    /// error are whole.
    pub fn step(&mut self) -> Result<Step, VideoError> {
        if let Some(clip) = self.done.pop_front() {
            return Ok(Step::Clip(clip));
        }
        if self.ended || self.no_clip_is_wanted() {
            return Ok(Step::End);
        }
        if let Some(pending) = self.pending.take() {
            self.show(pending)?;
            return Ok(Step::Frame);
        }
        match self.decoder.next_frame()? {
            Some(frame) => {
                let tick = match self.options.sampling {
                    Sampling::TicksPerSecond(fps) => tick_of(frame.pts_ns.saturating_sub(self.start_ns), fps),
                    Sampling::SourceFrames => self.shown_tick + 1,
                };
                let gap = self.gap_finder.as_mut().and_then(|finder| finder.next(frame.pts_ns, frame.duration_ns));
                let hole = gap.and_then(|gap| Some((gap, hole_of(&self.options, gap, self.start_ns)?)));
                self.frames += 1;
                self.show(Pending { frame, tick, hole })?;
            }
            None => self.finish()?,
        }
        Ok(Step::Frame)
    }

    /// Shows the frame before `pending` until its tick, or as far as this gives one clip: the rest is done
    /// in the next step, so that a frame that is shown for long takes no more memory than another.
    fn show(&mut self, pending: Pending) -> Result<(), VideoError> {
        let Pending { frame, tick, hole } = pending;
        let until = hole.as_ref().map_or(tick, |(_, hole)| hole.start);
        let after_hole = frame.after_hole;
        if !self.show_until(until, after_hole)? {
            self.pending = Some(Pending { frame, tick, hole });
            return Ok(());
        }
        if let Some((gap, hole)) = hole {
            self.skip(gap, hole);
            if !self.show_until(tick, after_hole)? {
                self.pending = Some(Pending { frame, tick, hole: None });
                return Ok(());
            }
        }
        self.shown_tick = self.shown_tick.max(tick);
        self.shown = Some(frame);
        Ok(())
    }

    /// Leaves out the clips that would show a frame within `hole`.
    fn skip(&mut self, gap: Gap, hole: Range<u64>) {
        let mut clips = self.open.len() as u64;
        // Their numbers go to the clips that follow.
        self.clips -= self.open.len() as u32;
        self.open.clear();
        match &mut self.starts {
            Starts::Listed(starts) => {
                let planned = starts.partition_point(|&start| start < hole.end);
                clips += planned as u64;
                starts.drain(..planned);
            }
            Starts::Running { base, next } => {
                clips += first_clip_from(&self.options, hole.end - *base).saturating_sub(*next);
                (*base, *next) = (hole.end, 0);
            }
        }
        self.gaps.push((gap, clips));
    }

    fn no_clip_is_wanted(&self) -> bool {
        matches!(&self.starts, Starts::Listed(starts) if starts.is_empty() && self.open.is_empty())
    }

    /// Gives the shown frame to every clip that wants a tick before `until`; returns early, with false, when a
    /// clip is whole. `before_hole`: after its own tick the frame stands for damaged ones.
    fn show_until(&mut self, until: u64, before_hole: bool) -> Result<bool, VideoError> {
        let (frames, stride) = (self.options.frames as usize, u64::from(self.options.stride));
        let Some(shown) = &self.shown else { return Ok(true) };
        let first_left_out = self.decoder.first_dropped_after(shown.pts_ns).unwrap_or(u64::MAX);
        self.scratch.clear();
        loop {
            // One clip after the other begins; several are open where they overlap.
            let start = self.next_start().filter(|&start| start < until);
            if let Some(start) = start {
                self.advance_start();
                self.open.push_back(OpenClip { start, clip: Clip::empty(self.clips) });
                self.clips += 1;
            }
            let Some(shown) = &self.shown else { return Ok(true) };
            for open in &mut self.open {
                while open.clip.pts_ns.len() < frames && open.next_tick(stride) < until {
                    if self.scratch.is_empty() {
                        shown.with_planes(|planes| self.scaler.append(planes, &mut self.scratch))?;
                    }
                    if open.clip.data.is_empty() {
                        open.clip.data.reserve_exact(frames * self.scratch.len());
                    }
                    let tick = open.next_tick(stride);
                    if tick >= first_left_out {
                        self.doubt.get_or_insert(Doubt::LeftOut);
                    }
                    open.clip.damaged |= shown.damaged || (before_hole && tick > self.shown_tick);
                    open.clip.data.extend_from_slice(&self.scratch);
                    open.clip.pts_ns.push(shown.pts_ns);
                }
            }
            while self.open.front().is_some_and(|open| open.clip.pts_ns.len() == frames) {
                self.done.extend(self.open.pop_front().map(|open| open.clip));
            }
            if start.is_none() {
                return Ok(true);
            }
            if !self.done.is_empty() {
                return Ok(false);
            }
        }
    }

    fn next_start(&self) -> Option<u64> {
        match &self.starts {
            Starts::Listed(starts) => starts.front().copied(),
            Starts::Running { base, next } => Some(base.saturating_add(nth_start(&self.options, *next))),
        }
    }

    fn advance_start(&mut self) {
        match &mut self.starts {
            Starts::Listed(starts) => drop(starts.pop_front()),
            Starts::Running { next, .. } => *next += 1,
        }
    }

    /// Shows the last frame for as long as it lasts, then ends the clips that must exist by repeating their last frame, where that is
    /// wanted: the only clip of a short video, and those that were planned from a longer one.
    fn finish(&mut self) -> Result<(), VideoError> {
        let Some(last) = &self.shown else { return Ok(()) };
        if self.frames == 1 && self.source.codec.starts_with("image/") {
            return Err(VideoError::StillPicture);
        }
        let duration_ns = last.duration_ns.unwrap_or_else(|| {
            let fps = last.frame_rate().or(self.options.sampling.fps());
            fps.map_or(0, |fps| (1e9 / fps) as i64)
        });
        // The packets' word is that of the probe.
        self.end_ns = self.decoder.packets_end_ns().unwrap_or(last.pts_ns.saturating_add(duration_ns));
        let end = match self.options.sampling {
            Sampling::TicksPerSecond(fps) => tick_of(self.end_ns - self.start_ns, fps),
            Sampling::SourceFrames => self.shown_tick + 1,
        };
        let in_hole = self.decoder.ends_in_hole();
        // Where packets after the last wanted one were held back, the video does not end with the last frame that came.
        let end = end.max(self.decoder.sieve_end().unwrap_or(0));
        if !self.show_until(end.max(self.shown_tick + 1), in_hole)? {
            // A clip is whole: the rest comes with the next step, as the decoder then is still at its end.
            return Ok(());
        }
        self.ended = true;
        let planned = matches!(self.starts, Starts::Listed(_));
        for mut open in std::mem::take(&mut self.open) {
            if self.options.short == ShortVideo::Repeat && (planned || open.clip.index == 0) {
                open.clip.damaged |= in_hole;
                open.clip.repeat_last_frame(self.options.frames as usize);
                self.done.push_back(open.clip);
            } else if open.clip.index == 0 {
                let ticks_per_second =
                    self.options.sampling.fps().or(self.shown.as_ref().and_then(DecodedFrame::frame_rate)).unwrap_or(30.0);
                let seconds = (self.end_ns - self.start_ns) as f64 / 1e9;
                return Err(VideoError::TooShort { seconds, clip_seconds: span_ticks(&self.options) as f64 / ticks_per_second });
            }
        }
        Ok(())
    }

    /// Stream time of the last frame so far, in seconds.
    pub fn end_seconds(&self) -> f64 {
        self.shown.as_ref().map_or(0, |shown| shown.pts_ns) as f64 / 1e9
    }

    /// What is wrong with the video, as far as it was decoded: stretches that are damaged, and an end that is missing.
    pub fn faults(&self) -> Vec<Fault> {
        let seconds = |ns: i64| ns.max(self.start_ns) as f64 / 1e9;
        let end_ns = self.end_ns.max(self.shown.as_ref().map_or(0, |shown| shown.pts_ns));
        let mut faults: Vec<Fault> = self
            .decoder
            .damages()
            .into_iter()
            .map(|damage| Fault {
                seconds: (seconds(damage.from_ns), seconds(damage.to_ns.unwrap_or(end_ns))),
                reason: format!("damaged: the decoder says \"{}\"", damage.reason),
                kind: FaultKind::Damage,
                clips: 0,
            })
            .collect();
        faults.extend(self.gaps.iter().map(|&(gap, clips)| Fault {
            seconds: (seconds(gap.from_ns), seconds(gap.to_ns)),
            reason: "a gap without frames (--gap-seconds inf keeps what holds a frame there)".to_owned(),
            kind: FaultKind::Gap,
            clips,
        }));
        let end = (seconds(end_ns), seconds(end_ns));
        if self.missing_bytes > 0 {
            faults.push(Fault {
                seconds: end,
                reason: format!("cut short: the file lacks {} bytes that its container says it has", self.missing_bytes),
                kind: FaultKind::CutShort,
                clips: 0,
            });
        } else if self.ended && self.decoder.ended_early() {
            faults.push(Fault {
                seconds: end,
                reason: "cut short: the container lists frames that the file does not hold".to_owned(),
                kind: FaultKind::CutShort,
                clips: 0,
            });
        }
        faults
    }
}

impl OpenClip {
    /// The tick that it wants next.
    const fn next_tick(&self, stride: u64) -> u64 {
        self.start + self.clip.pts_ns.len() as u64 * stride
    }
}

impl Clip {
    const fn empty(index: u32) -> Self {
        Self { index, data: Vec::new(), pts_ns: Vec::new(), repeated_frames: 0, damaged: false }
    }

    /// Fills the clip up to `frames` frames.
    fn repeat_last_frame(&mut self, frames: usize) {
        let shown = self.pts_ns.len();
        let last_frame = self.data[self.data.len() - self.data.len() / shown..].to_vec();
        self.repeated_frames = (frames - shown) as u32;
        self.data.extend(last_frame.repeat(frames - shown));
        self.pts_ns.resize(frames, self.pts_ns[shown - 1]);
    }
}
