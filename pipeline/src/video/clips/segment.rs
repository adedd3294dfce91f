//! Segments: stretches of a video that clips are taken from, each tiled as if it were a video of
//! its own. A video without segments is a single one, from its start to its end.

use crate::video::VideoProbe;
use crate::video::ticks::{Timeline, nth_start, span_ticks, tick_of};
use schemas::manifest::{BuildOptions, Sampling};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;

/// A stretch of a video: from `start` until before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Segment {
    /// Start; none is the start of the video.
    pub start: Option<Bound>,
    /// End; none is the end of the video.
    pub end: Option<Bound>,
}

/// A position in a video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Bound {
    /// Stream time in seconds: 0 is where players start to count.
    Seconds(f64),
    /// Index of a frame, from 0, in presentation order.
    Frame(u64),
}

impl Segment {
    /// The whole video.
    pub const WHOLE: Self = Self {
        start: None,
        end: None,
    };

    /// Whether it is the whole video.
    pub fn is_whole(&self) -> bool {
        *self == Self::WHOLE
    }
}

/// Returns the ticks of `segment` in a video with the result `probe` of probing it. The tick of a
/// frame is an estimate, and that of a time if ticks are frames: frames are taken to be evenly
/// spaced.
pub fn segment_ticks(segment: Segment, options: &BuildOptions, probe: &VideoProbe) -> Range<u64> {
    let ticks = Timeline::of(options, probe).ticks;
    let tick = |bound: Bound| {
        let known = bound.known_tick(options.sampling, probe.start_ns);
        known.unwrap_or_else(|| {
            let share = match bound {
                Bound::Frame(frame) => frame as f64 / probe.packets.max(1) as f64,
                Bound::Seconds(seconds) => {
                    (seconds - probe.start_ns as f64 / 1e9) / probe.seconds().max(1e-9)
                }
            };
            (share.max(0.0) * ticks as f64).round() as u64
        })
    };
    segment.start.map_or(0, tick)..segment.end.map_or(ticks, tick).min(ticks)
}

/// A frame's place in its video.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Index of the frame.
    pub(super) index: u64,
    /// Presentation time in nanoseconds of stream time.
    pub(super) ns: i64,
    pub(super) tick: u64,
}

impl Bound {
    /// Returns the tick of the bound if it is known before the frames: `start_ns` is the time of
    /// tick 0.
    pub(super) fn known_tick(self, sampling: Sampling, start_ns: i64) -> Option<u64> {
        match (self, sampling) {
            (Self::Seconds(seconds), Sampling::TicksPerSecond(fps)) => {
                Some(tick_of(nanoseconds(seconds).saturating_sub(start_ns), fps))
            }
            (Self::Frame(frame), Sampling::SourceFrames) => Some(frame),
            (Self::Seconds(_), Sampling::SourceFrames)
            | (Self::Frame(_), Sampling::TicksPerSecond(_)) => None,
        }
    }

    /// Returns the tick of the bound if the frame at `place` has reached it. One nanosecond of
    /// tolerance: GStreamer rounds times down.
    pub(super) fn tick_at(self, place: Place) -> Option<u64> {
        let is_reached = match self {
            Self::Seconds(seconds) => place.ns.saturating_add(1) >= nanoseconds(seconds),
            Self::Frame(frame) => place.index >= frame,
        };
        is_reached.then_some(place.tick)
    }
}

fn nanoseconds(seconds: f64) -> i64 {
    // Saturates.
    (seconds * 1e9).round() as i64
}

/// Where the clips of a segment start: listed beforehand, or one after another until it ends.
pub(super) enum Starts {
    Listed(VecDeque<u64>),
    Running {
        /// First tick of the stretch between gaps and cuts that is being tiled; none before the
        /// segment begins.
        base: Option<u64>,
        next: u64,
    },
}

/// A segment during decoding.
pub(super) struct Track {
    pub(super) segment: Segment,
    /// Tick at which it begins, once that is known.
    pub(super) start: Option<u64>,
    /// Tick at which it ends, once that is known.
    pub(super) end: Option<u64>,
    pub(super) starts: Starts,
    /// Number of its clips that are complete.
    pub(super) clips: u64,
    /// Whether all of it has been decoded.
    pub(super) is_closed: bool,
}

impl Track {
    /// Creates the track of `segment`, of which as many bounds are resolved as are known before the
    /// frames.
    pub(super) fn new(segment: Segment, sampling: Sampling, start_ns: i64) -> Self {
        let start = match segment.start {
            None => Some(0),
            Some(bound) => bound.known_tick(sampling, start_ns),
        };
        let end = segment.end;
        Self {
            segment,
            start,
            end: end.and_then(|bound| bound.known_tick(sampling, start_ns)),
            starts: Starts::Running {
                base: start,
                next: 0,
            },
            clips: 0,
            is_closed: false,
        }
    }

    /// Creates the track of the clips that begin at the ticks `starts`.
    pub(super) fn listed(starts: impl IntoIterator<Item = u64>) -> Self {
        Self {
            segment: Segment::WHOLE,
            start: Some(0),
            end: None,
            starts: Starts::Listed(starts.into_iter().collect()),
            clips: 0,
            is_closed: false,
        }
    }

    /// Resolves the bounds that the frame at `place` reaches.
    pub(super) fn resolve(&mut self, place: Place) {
        if self.start.is_none() {
            self.start = self.segment.start.and_then(|bound| bound.tick_at(place));
            if let Starts::Running { base, .. } = &mut self.starts {
                *base = self.start;
            }
        }
        if self.end.is_none() {
            self.end = self.segment.end.and_then(|bound| bound.tick_at(place));
        }
    }

    /// Returns the first tick of the next clip, unless it would end after the segment. The first
    /// clip of a segment may: if no other is complete, it is padded.
    pub(super) fn next_start(&self, options: &BuildOptions) -> Option<u64> {
        match &self.starts {
            Starts::Listed(starts) => starts.front().copied(),
            Starts::Running { base, next } => {
                let start = (*base)?.saturating_add(nth_start(options, *next));
                let end = self.end.unwrap_or(u64::MAX);
                let fits = start.saturating_add(span_ticks(options)) <= end;
                let is_first = self.clips == 0 && *next == 0 && start < end;
                (fits || is_first).then_some(start)
            }
        }
    }

    pub(super) fn advance_start(&mut self) {
        match &mut self.starts {
            Starts::Listed(starts) => drop(starts.pop_front()),
            Starts::Running { next, .. } => *next += 1,
        }
    }

    /// Whether its clips were planned with the whole video in view.
    pub(super) const fn is_listed(&self) -> bool {
        matches!(self.starts, Starts::Listed(_))
    }
}
