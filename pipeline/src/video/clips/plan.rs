//! Plans the clips of a video that must be known before it is decoded: a number of clips per
//! segment is spread over the whole of it.

use super::ahead::Ahead;
use super::segment::{Bound, Place, Segment, Starts, Track};
use crate::video::VideoError;
use crate::video::decode::{DecodeOptions, VideoDecoder};
use crate::video::gaps::GapFinder;
use crate::video::ticks::{Timeline, gap_limit_ns, hole_of, starts_in, tick_of};
use schemas::manifest::{BuildOptions, Sampling, Tiling};
use std::path::Path;

/// The clips of a video, planned as far as they can be.
pub struct ClipPlan {
    segments: Vec<Segment>,
    /// For each segment the first ticks of its clips, if they are planned.
    starts: Option<Vec<PlannedSegment>>,
}

/// First ticks of the clips of a segment, and the tick at which it ends, if it ends before the
/// video.
type PlannedSegment = (Vec<u64>, Option<u64>);

/// Plans the clips of a video. Where the starts of clips depend on the whole video, it is read
/// ([`probe`](fn@crate::video::probe)), or decoded if they depend on cuts or on the times of
/// frames.
pub struct ClipPlanner {
    segments: Vec<Segment>,
    options: BuildOptions,
    timeline: Option<(Timeline, Vec<Track>)>,
    scan: Option<Scan>,
}

impl ClipPlanner {
    /// Begins to plan the clips of `segments` of the video at `path`.
    ///
    /// # Errors
    /// Those of [`VideoDecoder::next_frame`].
    pub fn new(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
        segments: &[Segment],
    ) -> Result<Self, VideoError> {
        let mut planner = Self {
            segments: segments.to_vec(),
            options: options.clone(),
            timeline: None,
            scan: None,
        };
        if !matches!(options.tiling, Tiling::ClipsPerVideo(_)) {
            return Ok(planner);
        }
        let is_unknown = |bound: Option<Bound>| {
            bound.is_some_and(|bound| bound.known_tick(options.sampling, 0).is_none())
        };
        let needs_frames = options.scenes.is_some()
            || segments
                .iter()
                .any(|segment| is_unknown(segment.start) || is_unknown(segment.end));
        if needs_frames {
            planner.scan = Some(Scan::open(path, options, decode, segments)?);
        } else {
            let probe = crate::video::probe(path, options, decode.timeout)?;
            let tracks = segments
                .iter()
                .map(|&segment| Track::new(segment, options.sampling, probe.start_ns));
            planner.timeline = Some((Timeline::of(options, &probe), tracks.collect()));
        }
        Ok(planner)
    }

    /// Decodes a frame, if frames are needed. Returns whether there are more.
    ///
    /// # Errors
    /// Those of [`VideoDecoder::next_frame`].
    pub fn step(&mut self) -> Result<bool, VideoError> {
        let is_more = match &mut self.scan {
            Some(scan) => scan.step()?,
            None => false,
        };
        if !is_more && let Some(scan) = self.scan.take() {
            self.timeline = Some((scan.timeline, scan.tracks));
        }
        Ok(is_more)
    }

    /// Returns the plan. To be called when [`Self::step`] has returned false.
    pub fn finish(self) -> ClipPlan {
        let options = &self.options;
        let planned = |(timeline, tracks): (Timeline, Vec<Track>)| {
            let starts = tracks
                .iter()
                .map(|track| planned(options, &timeline, track));
            starts.collect()
        };
        ClipPlan {
            starts: self.timeline.map(planned),
            segments: self.segments,
        }
    }
}

impl ClipPlan {
    /// The tracks of the segments of a video whose first frame is at `start_ns`.
    pub(super) fn tracks(self, sampling: Sampling, start_ns: i64) -> Vec<Track> {
        let tracks = self
            .segments
            .iter()
            .map(|&segment| Track::new(segment, sampling, start_ns));
        let mut tracks: Vec<Track> = tracks.collect();
        for (track, (starts, end)) in tracks.iter_mut().zip(self.starts.into_iter().flatten()) {
            track.starts = Starts::Listed(starts.into());
            track.end = end;
        }
        tracks
    }
}

/// Returns the first ticks of the clips of `track` in a video of `timeline`, and its end.
fn planned(options: &BuildOptions, timeline: &Timeline, track: &Track) -> PlannedSegment {
    let part = track.start.unwrap_or(timeline.ticks)..track.end.unwrap_or(timeline.ticks);
    (starts_in(options, &timeline.stretches_of(part)), track.end)
}

/// Decodes a video for its timeline and the bounds of its segments.
struct Scan {
    decoder: VideoDecoder,
    ahead: Ahead,
    options: BuildOptions,
    timeline: Timeline,
    tracks: Vec<Track>,
    gap_finder: Option<GapFinder>,
    start_ns: i64,
    frames: u64,
}

impl Scan {
    fn open(
        path: &Path,
        options: &BuildOptions,
        decode: DecodeOptions,
        segments: &[Segment],
    ) -> Result<Self, VideoError> {
        let mut scan = Self {
            decoder: VideoDecoder::open(path, decode)?,
            ahead: Ahead::new(options.scenes),
            options: options.clone(),
            timeline: Timeline {
                ticks: 0,
                holes: Vec::new(),
                cuts: Vec::new(),
            },
            tracks: Vec::new(),
            gap_finder: gap_limit_ns(options).map(GapFinder::new),
            start_ns: 0,
            frames: 0,
        };
        let Some((first, _)) = scan.ahead.next(&mut scan.decoder)? else {
            return Err(VideoError::NoFrames);
        };
        scan.start_ns = first.pts_ns;
        let tracks = segments
            .iter()
            .map(|&segment| Track::new(segment, options.sampling, first.pts_ns));
        scan.tracks = tracks.collect();
        scan.take(first.pts_ns, first.duration_ns, false);
        Ok(scan)
    }

    /// Decodes a frame; returns whether there was one.
    fn step(&mut self) -> Result<bool, VideoError> {
        match self.ahead.next(&mut self.decoder) {
            Ok(Some((frame, change))) => {
                self.take(frame.pts_ns, frame.duration_ns, change.is_cut);
                Ok(true)
            }
            Ok(None) => {
                if let (Sampling::TicksPerSecond(fps), Some(end_ns)) =
                    (self.options.sampling, self.decoder.packets_end_ns())
                {
                    let end = tick_of(end_ns.saturating_sub(self.start_ns), fps);
                    self.timeline.ticks = self.timeline.ticks.max(end);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, ns: i64, duration_ns: Option<i64>, is_cut: bool) {
        let tick = match self.options.sampling {
            Sampling::TicksPerSecond(fps) => tick_of(ns.saturating_sub(self.start_ns), fps),
            Sampling::SourceFrames => self.frames,
        };
        let place = Place {
            index: self.frames,
            ns,
            tick,
        };
        self.tracks
            .iter_mut()
            .for_each(|track| track.resolve(place));
        let gap = self
            .gap_finder
            .as_mut()
            .and_then(|finder| finder.next(ns, duration_ns));
        let hole = gap.and_then(|gap| hole_of(&self.options, gap, self.start_ns));
        self.timeline.holes.extend(hole);
        if is_cut {
            self.timeline.cuts.push(tick);
        }
        self.timeline.ticks = tick + 1;
        self.frames += 1;
    }
}
