//! Puts frames into clips: each frame is shown from its tick to that of the next, and every open
//! clip takes the frame that is shown at a tick of its own.

use super::{Clip, ClipDecoder, Step};
use crate::video::VideoError;
use crate::video::decode::DecodedFrame;
use crate::video::fast_seek::Doubt;
use crate::video::gaps::Gap;
use crate::video::ticks::{first_clip_from, hole_of, nth_start, span_ticks, tick_of};
use schemas::manifest::{Sampling, ShortVideo};
use std::collections::VecDeque;
use std::ops::Range;

/// A decoded frame that is not shown yet.
pub(super) struct Pending {
    frame: DecodedFrame,
    tick: u64,
    /// Ticks before its own at which no frame may be shown.
    hole: Option<(Gap, Range<u64>)>,
}

/// Where clips start: listed beforehand, or one after another until the video ends.
pub(super) enum Starts {
    Listed(VecDeque<u64>),
    Running {
        /// First tick of the stretch between gaps that is being tiled.
        base: u64,
        next: u64,
    },
}

/// A clip that is not complete.
pub(super) struct OpenClip {
    start: u64,
    clip: Clip,
}

impl ClipDecoder {
    /// Decodes at most one frame.
    ///
    /// # Errors
    /// Those of [`VideoDecoder::next_frame`](crate::video::decode::VideoDecoder::next_frame), and
    /// [`VideoError::StillPicture`] and [`VideoError::TooShort`] at the end. The clips before the
    /// error are complete.
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
                    Sampling::TicksPerSecond(fps) => {
                        tick_of(frame.pts_ns.saturating_sub(self.start_ns), fps)
                    }
                    Sampling::SourceFrames => self.shown_tick + 1,
                };
                let gap = self
                    .gap_finder
                    .as_mut()
                    .and_then(|finder| finder.next(frame.pts_ns, frame.duration_ns));
                let hole =
                    gap.and_then(|gap| Some((gap, hole_of(&self.options, gap, self.start_ns)?)));
                self.frames += 1;
                self.show(Pending { frame, tick, hole })?;
            }
            None => self.finish()?,
        }
        Ok(Step::Frame)
    }

    /// Shows the frame before `pending` until the tick of `pending`, or until a clip is complete:
    /// the next step continues, so that a frame that is shown for long takes no more memory than
    /// another.
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
                self.pending = Some(Pending {
                    frame,
                    tick,
                    hole: None,
                });
                return Ok(());
            }
        }
        self.shown_tick = self.shown_tick.max(tick);
        self.shown = Some(frame);
        Ok(())
    }

    /// Drops the clips that would show a frame within `hole`.
    fn skip(&mut self, gap: Gap, hole: Range<u64>) {
        let mut clips = self.open.len() as u64;
        // The clips that follow get their indices.
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
                *base = hole.end;
                *next = 0;
            }
        }
        self.gaps.push((gap, clips));
    }

    fn no_clip_is_wanted(&self) -> bool {
        matches!(&self.starts, Starts::Listed(starts) if starts.is_empty() && self.open.is_empty())
    }

    /// Appends the shown frame to every open clip that has a tick before `until`. Returns early,
    /// with false, when a clip is complete. `before_hole`: after its own tick, the frame is shown
    /// in place of damaged ones.
    fn show_until(&mut self, until: u64, before_hole: bool) -> Result<bool, VideoError> {
        let frames = self.options.frames as usize;
        let stride = u64::from(self.options.stride);
        let Some(shown) = &self.shown else {
            return Ok(true);
        };
        let first_skipped = self
            .decoder
            .first_skipped_after(shown.pts_ns)
            .unwrap_or(u64::MAX);
        self.scratch.clear();
        loop {
            // One clip begins after another; several are open where they overlap.
            let start = self.next_start().filter(|&start| start < until);
            if let Some(start) = start {
                self.advance_start();
                self.open.push_back(OpenClip {
                    start,
                    clip: Clip::empty(self.clips),
                });
                self.clips += 1;
            }
            let Some(shown) = &self.shown else {
                return Ok(true);
            };
            for open in &mut self.open {
                while open.clip.pts_ns.len() < frames && open.next_tick(stride) < until {
                    if self.scratch.is_empty() {
                        shown
                            .with_planes(|planes| self.scaler.append(planes, &mut self.scratch))?;
                    }
                    if open.clip.data.is_empty() {
                        open.clip.data.reserve_exact(frames * self.scratch.len());
                    }
                    let tick = open.next_tick(stride);
                    if tick >= first_skipped {
                        self.doubt.get_or_insert(Doubt::SkippedFrame);
                    }
                    open.clip.damaged |= shown.damaged || (before_hole && tick > self.shown_tick);
                    open.clip.data.extend_from_slice(&self.scratch);
                    open.clip.pts_ns.push(shown.pts_ns);
                }
            }
            while self
                .open
                .front()
                .is_some_and(|open| open.clip.pts_ns.len() == frames)
            {
                self.done
                    .extend(self.open.pop_front().map(|open| open.clip));
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
            Starts::Running { base, next } => {
                Some(base.saturating_add(nth_start(&self.options, *next)))
            }
        }
    }

    fn advance_start(&mut self) {
        match &mut self.starts {
            Starts::Listed(starts) => drop(starts.pop_front()),
            Starts::Running { next, .. } => *next += 1,
        }
    }

    /// Shows the last frame for its duration, then fills up the clips that must exist by repeating
    /// their last frame, if the options ask for it: the only clip of a short video, and those that
    /// were planned for a longer one.
    fn finish(&mut self) -> Result<(), VideoError> {
        let Some(last) = &self.shown else {
            return Ok(());
        };
        if self.frames == 1 && self.source.codec.starts_with("image/") {
            return Err(VideoError::StillPicture);
        }
        let duration_ns = last.duration_ns.unwrap_or_else(|| {
            let fps = last.frame_rate().or(self.options.sampling.fps());
            fps.map_or(0, |fps| (1e9 / fps) as i64)
        });
        // The end of the packets is the one that the probe has found.
        self.end_ns = self
            .decoder
            .packets_end_ns()
            .unwrap_or(last.pts_ns.saturating_add(duration_ns));
        let end = match self.options.sampling {
            Sampling::TicksPerSecond(fps) => tick_of(self.end_ns - self.start_ns, fps),
            Sampling::SourceFrames => self.shown_tick + 1,
        };
        let in_hole = self.decoder.ends_in_hole();
        // If the packets after the last wanted one were skipped, the video does not end with the
        // last frame that was decoded.
        let end = end.max(self.decoder.known_until().unwrap_or(0));
        if !self.show_until(end.max(self.shown_tick + 1), in_hole)? {
            // A clip is complete. The next step continues: the decoder is then still at its end.
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
                let source_fps = self.shown.as_ref().and_then(DecodedFrame::frame_rate);
                let ticks_per_second = self.options.sampling.fps().or(source_fps).unwrap_or(30.0);
                let seconds = (self.end_ns - self.start_ns) as f64 / 1e9;
                let clip_seconds = span_ticks(&self.options) as f64 / ticks_per_second;
                return Err(VideoError::TooShort {
                    seconds,
                    clip_seconds,
                });
            }
        }
        Ok(())
    }
}

impl OpenClip {
    /// Returns the tick of its next frame.
    const fn next_tick(&self, stride: u64) -> u64 {
        self.start + self.clip.pts_ns.len() as u64 * stride
    }
}

impl Clip {
    const fn empty(index: u32) -> Self {
        Self {
            index,
            data: Vec::new(),
            pts_ns: Vec::new(),
            repeated_frames: 0,
            damaged: false,
        }
    }

    /// Repeats the last frame until there are `frames` frames.
    fn repeat_last_frame(&mut self, frames: usize) {
        let shown = self.pts_ns.len();
        let last_frame = self.data[self.data.len() - self.data.len() / shown..].to_vec();
        self.repeated_frames = (frames - shown) as u32;
        self.data.extend(last_frame.repeat(frames - shown));
        self.pts_ns.resize(frames, self.pts_ns[shown - 1]);
    }
}
