//! Puts frames into clips: each frame is shown from its tick to that of the next, and every open
//! clip takes the frame that is shown at a tick of its own.

use super::segment::{Place, Starts, Track};
use super::{Clip, ClipDecoder, Fault, FaultKind, Step, next_frame};
use crate::video::VideoError;
use crate::video::decode::DecodedFrame;
use crate::video::fast_seek::Doubt;
use crate::video::gaps::Gap;
use crate::video::measure::cuts::Change;
use crate::video::ticks::{first_clip_from, hole_of, span_ticks, tick_of};
use schemas::manifest::{Sampling, ShortVideo};
use std::ops::Range;

/// Seconds by which a segment may end after its video without a fault: lists round.
const END_TOLERANCE_SECONDS: f64 = 1.0;

/// A decoded frame that is not shown yet.
pub(super) struct Pending {
    frame: DecodedFrame,
    tick: u64,
    change: Change,
    /// Ticks before its own at which no frame may be shown.
    hole: Option<(Gap, Range<u64>)>,
}

/// A clip that is not returned yet.
pub(super) struct OpenClip {
    /// Index of its segment's track.
    track: usize,
    start: u64,
    clip: Clip,
    /// Whether it is complete: it waits for the clips that began before it.
    is_complete: bool,
}

impl ClipDecoder {
    /// Decodes at most one frame, after the first few.
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
        match next_frame(&mut self.decoder, &mut self.ahead)? {
            Some((frame, change)) => {
                let tick = match self.options.sampling {
                    Sampling::TicksPerSecond(fps) => {
                        tick_of(frame.pts_ns.saturating_sub(self.start_ns), fps)
                    }
                    Sampling::SourceFrames => self.shown_tick + 1,
                };
                let place = Place {
                    index: self.frames,
                    ns: frame.pts_ns,
                    tick,
                };
                self.tracks
                    .iter_mut()
                    .for_each(|track| track.resolve(place));
                let gap = self
                    .gap_finder
                    .as_mut()
                    .and_then(|finder| finder.next(frame.pts_ns, frame.duration_ns));
                let hole =
                    gap.and_then(|gap| Some((gap, hole_of(&self.options, gap, self.start_ns)?)));
                self.frames += 1;
                self.show(Pending {
                    frame,
                    tick,
                    change,
                    hole,
                })?;
            }
            None => self.finish()?,
        }
        Ok(Step::Frame)
    }

    /// Shows the frame before `pending` until the tick of `pending`, or until a clip is complete:
    /// the next step continues, so that a frame that is shown for long takes no more memory than
    /// another.
    fn show(&mut self, pending: Pending) -> Result<(), VideoError> {
        let Pending {
            frame,
            tick,
            change,
            hole,
        } = pending;
        let until = hole.as_ref().map_or(tick, |(_, hole)| hole.start);
        let after_hole = frame.after_hole;
        if !self.show_until(until, after_hole)? {
            self.pending = Some(Pending {
                frame,
                tick,
                change,
                hole,
            });
            return Ok(());
        }
        if let Some((gap, hole)) = hole {
            self.skip(gap, hole);
            if !self.show_until(tick, after_hole)? {
                self.pending = Some(Pending {
                    frame,
                    tick,
                    change,
                    hole: None,
                });
                return Ok(());
            }
        }
        if change.is_cut {
            self.cut(frame.pts_ns, tick);
        }
        for open in self.open.iter_mut().filter(|open| !open.is_complete) {
            open.clip.cut = open.clip.cut.max(change.content);
        }
        self.shown_tick = self.shown_tick.max(tick);
        self.shown = Some(frame);
        Ok(())
    }

    /// Drops the clips that would show a frame within `hole`.
    fn skip(&mut self, gap: Gap, hole: Range<u64>) {
        let open = self.open.len();
        self.open.retain(|open| open.is_complete);
        let mut clips = (open - self.open.len()) as u64;
        for track in self.tracks.iter_mut().filter(|track| !track.is_closed) {
            let end = track.end.unwrap_or(u64::MAX).min(hole.end);
            match &mut track.starts {
                Starts::Listed(starts) => {
                    let planned = starts.partition_point(|&start| start < hole.end);
                    clips += planned as u64;
                    starts.drain(..planned);
                }
                Starts::Running {
                    base: Some(base),
                    next,
                } if *base < hole.end => {
                    let room = end.saturating_sub(*base);
                    clips += first_clip_from(&self.options, room).saturating_sub(*next);
                    *base = hole.end;
                    *next = 0;
                }
                Starts::Running { .. } => {}
            }
        }
        self.gaps.push((gap, clips));
        self.return_complete();
    }

    /// Begins a scene at the frame of `tick`, which is at `ns`: drops the clips that would straddle
    /// its start.
    fn cut(&mut self, ns: i64, tick: u64) {
        self.scene += 1;
        self.cuts_ns.push(ns);
        let tracks = &mut self.tracks;
        self.open
            .retain(|open| open.is_complete || tracks[open.track].is_listed());
        for track in tracks {
            if let Starts::Running {
                base: Some(base),
                next,
            } = &mut track.starts
                && *base < tick
            {
                *base = tick;
                *next = 0;
            }
        }
        self.return_complete();
    }

    fn no_clip_is_wanted(&self) -> bool {
        self.open.is_empty()
            && self.tracks.iter().all(|track| {
                track.is_closed
                    || matches!(&track.starts, Starts::Listed(starts) if starts.is_empty())
            })
    }

    /// Appends the shown frame to every open clip that has a tick before `until`. Returns early,
    /// with false, when a clip is complete. `before_hole`: after its own tick, the frame is shown
    /// in place of damaged ones.
    fn show_until(&mut self, until: u64, before_hole: bool) -> Result<bool, VideoError> {
        if self.shown.is_none() {
            return Ok(true);
        }
        self.scratch.clear();
        loop {
            // One clip begins after another; several are open where they overlap.
            let start = self.next_start().filter(|&(start, _)| start < until);
            if let Some((start, track)) = start {
                self.tracks[track].advance_start();
                let clip = Clip::empty(track as u32, self.scene);
                self.open.push_back(OpenClip {
                    track,
                    start,
                    clip,
                    is_complete: false,
                });
            }
            self.append_shown(until, before_hole)?;
            if start.is_none() {
                self.close_tracks(until)?;
                self.return_complete();
                return Ok(true);
            }
            self.return_complete();
            if !self.done.is_empty() {
                return Ok(false);
            }
        }
    }

    /// Appends the shown frame to every open clip that has a tick before `until`.
    fn append_shown(&mut self, until: u64, before_hole: bool) -> Result<(), VideoError> {
        let frames = self.options.frames as usize;
        let stride = u64::from(self.options.stride);
        let Some(shown) = &self.shown else {
            return Ok(());
        };
        let first_skipped = self
            .decoder
            .first_skipped_after(shown.pts_ns)
            .unwrap_or(u64::MAX);
        for open in self.open.iter_mut().filter(|open| !open.is_complete) {
            let track = &mut self.tracks[open.track];
            let until = until.min(track.end.unwrap_or(u64::MAX));
            while open.clip.pts_ns.len() < frames && open.next_tick(stride) < until {
                if self.scratch.is_empty() {
                    shown.with_planes(|planes| self.scaler.append(planes, &mut self.scratch))?;
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
            if open.clip.pts_ns.len() == frames {
                open.is_complete = true;
                track.clips += 1;
            }
        }
        Ok(())
    }

    /// Returns the tick at which the next clip begins, and its track.
    fn next_start(&self) -> Option<(u64, usize)> {
        let live = self.tracks.iter().enumerate();
        live.filter(|(_, track)| !track.is_closed)
            .filter_map(|(index, track)| Some((track.next_start(&self.options)?, index)))
            .min()
    }

    /// Moves the complete clips to those that are returned, up to the first that is not.
    fn return_complete(&mut self) {
        while self.open.front().is_some_and(|open| open.is_complete) {
            self.done.extend(self.open.pop_front().map(|open| Clip {
                index: self.clips,
                ..open.clip
            }));
            self.clips += 1;
        }
    }

    /// Closes the tracks of segments that end at `until` or before.
    fn close_tracks(&mut self, until: u64) -> Result<(), VideoError> {
        for index in 0..self.tracks.len() {
            let track = &self.tracks[index];
            if !track.is_closed && track.end.is_some_and(|end| end <= until) {
                self.close_track(index, false)?;
            }
        }
        Ok(())
    }

    /// Ends the segment of track `index`. Fills up the clips of it that must exist by repeating
    /// their last frame, if the options ask for it: the only clip of a short segment, and those
    /// that were planned for a longer one. Drops the others.
    fn close_track(&mut self, index: usize, in_hole: bool) -> Result<(), VideoError> {
        let track = &mut self.tracks[index];
        track.is_closed = true;
        let repeats = self.options.short == ShortVideo::Repeat;
        let mut is_too_short = false;
        for open in &mut self.open {
            if open.track != index || open.is_complete {
                continue;
            }
            let is_needed = track.is_listed() || track.clips == 0;
            if is_needed && repeats && !open.clip.pts_ns.is_empty() {
                open.clip.damaged |= in_hole;
                open.clip.repeat_last_frame(self.options.frames as usize);
                open.is_complete = true;
                track.clips += 1;
            } else {
                is_too_short |= track.clips == 0;
            }
        }
        self.open
            .retain(|open| open.track != index || open.is_complete);
        if self.tracks[index].clips > 0 {
            return Ok(());
        }
        let (seconds, clip_seconds) = self.lengths(&self.tracks[index]);
        if self.tracks[index].segment.is_whole() {
            return if is_too_short {
                Err(VideoError::TooShort {
                    seconds,
                    clip_seconds,
                })
            } else {
                Ok(())
            };
        }
        let reason = if is_too_short {
            format!(
                "the listed segment is shorter than a clip: {seconds:.2} s of video, a clip spans \
                 {clip_seconds:.2} s"
            )
        } else {
            "the listed segment has no frames in the video".to_owned()
        };
        self.segment_fault(index, reason, u64::from(is_too_short));
        Ok(())
    }

    /// Returns the seconds of video in the segment of `track`, as far as it was decoded, and those
    /// of a clip.
    fn lengths(&self, track: &Track) -> (f64, f64) {
        let source_fps = self.shown.as_ref().and_then(DecodedFrame::frame_rate);
        let ticks_per_second = self.options.sampling.fps().or(source_fps).unwrap_or(30.0);
        let clip_seconds = span_ticks(&self.options) as f64 / ticks_per_second;
        let decoded = (self.end_ns - self.start_ns) as f64 / 1e9;
        let seconds = match (track.start, track.end) {
            (Some(start), Some(end)) => end.saturating_sub(start) as f64 / ticks_per_second,
            _ => decoded,
        };
        (seconds, clip_seconds)
    }

    /// Records a fault of the segment of track `index`.
    fn segment_fault(&mut self, index: usize, reason: String, clips: u64) {
        let seconds = |bound: Option<super::Bound>, default: i64| match bound {
            Some(super::Bound::Seconds(seconds)) => seconds,
            // The times of frames that do not exist are not known.
            _ => default as f64 / 1e9,
        };
        let segment = self.tracks[index].segment;
        self.segment_faults.push(Fault {
            seconds: (
                seconds(segment.start, self.start_ns),
                seconds(segment.end, self.end_ns),
            ),
            reason,
            kind: FaultKind::Segment,
            clips,
        });
    }

    /// Shows the last frame for its duration, then closes the tracks that are still open.
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
        for index in 0..self.tracks.len() {
            if !self.tracks[index].is_closed {
                self.compare_end(index);
                self.close_track(index, in_hole)?;
            }
        }
        self.return_complete();
        Ok(())
    }

    /// Records a fault if the segment of track `index` should end well after the video.
    fn compare_end(&mut self, index: usize) {
        let video_end = self.end_ns as f64 / 1e9;
        let reason = match self.tracks[index].segment.end {
            Some(super::Bound::Seconds(end)) if end > video_end + END_TOLERANCE_SECONDS => {
                format!("the listed segment ends at {end:.2} s, the video at {video_end:.2} s")
            }
            Some(super::Bound::Frame(end)) if end > self.frames + 1 => format!(
                "the listed segment ends at frame {end}, the video has {} frames",
                self.frames
            ),
            _ => return,
        };
        if self.tracks[index].clips > 0 || self.open.iter().any(|open| open.track == index) {
            self.segment_fault(index, reason, 0);
        }
    }
}

impl OpenClip {
    /// Returns the tick of its next frame.
    const fn next_tick(&self, stride: u64) -> u64 {
        self.start + self.clip.pts_ns.len() as u64 * stride
    }
}

impl Clip {
    const fn empty(segment: u32, scene: u32) -> Self {
        Self {
            index: 0,
            segment,
            scene,
            cut: 0.0,
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
