//! The grid of ticks that frames are sampled on, and where on it clips begin.
//!
//! Time is divided into ticks of `1 / fps` seconds from the first frame on. The tick of a frame is
//! its time rounded to the nearest tick, and a tick shows the last frame whose own tick is not
//! later. This is the rule of ffmpeg's `fps` filter: frames of any rate, also a variable one, are
//! repeated or skipped as a viewer at `fps` would see them. A clip takes every `stride`-th tick. If
//! source frames are sampled, whatever their times, the tick of a frame is its index.

use super::VideoProbe;
use super::gaps::Gap;
use schemas::manifest::{BuildOptions, Sampling, Tiling};
use std::ops::Range;

/// Returns the tick of a time `ns` nanoseconds after the first frame. One nanosecond of tolerance:
/// GStreamer rounds times down.
pub fn tick_of(ns: i64, fps: f64) -> u64 {
    (ns.saturating_add(1) as f64 * fps / 1e9 + 0.5)
        .floor()
        .max(0.0) as u64
}

/// The ticks of a video, and those of them that no clip may contain or straddle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Number of ticks.
    pub ticks: u64,
    /// Ticks within gaps, at which a frame would be held for too long; in order.
    pub holes: Vec<Range<u64>>,
    /// Ticks at which a scene begins, in order.
    pub cuts: Vec<u64>,
}

impl Timeline {
    /// Returns the timeline of a video with the result `probe` of probing it, on the grid of
    /// `options`.
    pub fn of(options: &BuildOptions, probe: &VideoProbe) -> Self {
        let Sampling::TicksPerSecond(fps) = options.sampling else {
            return Self {
                ticks: probe.packets,
                holes: Vec::new(),
                cuts: Vec::new(),
            };
        };
        let tick = |ns: i64| tick_of(ns.saturating_sub(probe.start_ns), fps);
        // The last frame is shown, however short it is.
        let ticks = tick(probe.end_ns).max(tick(probe.last_ns) + 1);
        let holes = probe
            .gaps
            .iter()
            .filter_map(|&gap| hole_of(options, gap, probe.start_ns))
            .collect();
        Self {
            ticks,
            holes,
            cuts: Vec::new(),
        }
    }

    /// Returns the stretches between the holes and the cuts, in order.
    pub fn stretches(&self) -> Vec<Range<u64>> {
        self.stretches_of(0..self.ticks)
    }

    /// Returns the stretches of `part` between the holes and the cuts, in order.
    pub fn stretches_of(&self, part: Range<u64>) -> Vec<Range<u64>> {
        let mut bounds: Vec<Range<u64>> = self.holes.clone();
        bounds.extend(self.cuts.iter().map(|&cut| cut..cut));
        bounds.sort_unstable_by_key(|bound| (bound.start, bound.end));
        let part_end = part.end.min(self.ticks);
        let mut start = part.start;
        let mut stretches = Vec::with_capacity(bounds.len() + 1);
        for bound in bounds {
            stretches.push(start..bound.start.min(part_end));
            start = start.max(bound.end);
        }
        stretches.push(start..part_end);
        stretches.retain(|stretch| !stretch.is_empty());
        stretches
    }
}

/// Returns the ticks of `gap` at which the frame before it would be held for longer than the
/// options allow; none if there is no such tick. `start_ns` is the time of tick 0.
pub fn hole_of(options: &BuildOptions, gap: Gap, start_ns: i64) -> Option<Range<u64>> {
    let (fps, limit) = options.sampling.fps().zip(options.gap_seconds)?;
    let tick = |ns: i64| tick_of(ns.saturating_sub(start_ns), fps);
    let held_until = gap.from_ns.saturating_add((limit * 1e9) as i64);
    let hole = tick(held_until) + 1..tick(gap.to_ns);
    (!hole.is_empty()).then_some(hole)
}

/// Returns the longest time that a frame may be held beyond its own, in nanoseconds; none without a
/// limit, and if ticks are not times.
pub fn gap_limit_ns(options: &BuildOptions) -> Option<i64> {
    options
        .sampling
        .fps()
        .and(options.gap_seconds)
        .map(|seconds| (seconds * 1e9) as i64)
}

/// Returns the number of ticks from a clip's first frame to its last, both included.
pub fn span_ticks(options: &BuildOptions) -> u64 {
    u64::from(options.frames - 1) * u64::from(options.stride) + 1
}

/// Returns the first ticks of the clips of a video of `timeline`. Each stretch between holes and
/// cuts is tiled by itself. There is always one clip: a video without a stretch as long as a clip
/// gives one clip of its last stretch, whose last frame is repeated.
pub fn clip_starts(options: &BuildOptions, timeline: &Timeline) -> Vec<u64> {
    starts_in(options, &timeline.stretches())
}

/// Returns the first ticks of the clips in `stretches`, as [`clip_starts`].
pub fn starts_in(options: &BuildOptions, stretches: &[Range<u64>]) -> Vec<u64> {
    let span = span_ticks(options);
    let fitting = stretches
        .iter()
        .filter(|stretch| stretch.end - stretch.start >= span);
    let mut starts: Vec<u64> = match options.tiling {
        Tiling::BackToBack | Tiling::EverySeconds(_) => fitting
            .flat_map(|stretch| {
                let starts = (0..).map(|clip| stretch.start + nth_start(options, clip));
                starts.take_while(move |start| start + span <= stretch.end)
            })
            .collect(),
        Tiling::ClipsPerVideo(clips) => {
            // Possible first ticks, one stretch after another.
            let places: Vec<Range<u64>> = fitting
                .map(|stretch| stretch.start..stretch.end - span + 1)
                .collect();
            spread(u64::from(clips), &places)
        }
    };
    if starts.is_empty() {
        starts.extend(stretches.last().map(|last| last.start));
    }
    starts
}

/// Returns `clips` of the numbers in `places`, evenly spaced from the first to the last; a single
/// one from the middle.
fn spread(clips: u64, places: &[Range<u64>]) -> Vec<u64> {
    let all: u64 = places.iter().map(|place| place.end - place.start).sum();
    let Some(last) = all.checked_sub(1) else {
        return Vec::new();
    };
    let nth = |index: u64| {
        let mut rest = index;
        for place in places {
            let length = place.end - place.start;
            if rest < length {
                return place.start + rest;
            }
            rest -= length;
        }
        unreachable!("an index is less than the number of places")
    };
    let mut starts: Vec<u64> = match clips {
        1 => vec![nth(last / 2)],
        clips => (0..clips)
            .map(|clip| nth(clip * last / (clips - 1)))
            .collect(),
    };
    // A short video has fewer places than the requested number of clips.
    starts.dedup();
    starts
}

/// Returns the number of clips that the holes of `timeline` cost: for each hole, the clips that
/// would follow those before it and begin before its end.
pub fn clips_in_holes(options: &BuildOptions, timeline: &Timeline) -> u64 {
    if matches!(options.tiling, Tiling::ClipsPerVideo(_)) {
        return 0;
    }
    let mut stretch_start = 0;
    let mut clips = 0;
    for hole in &timeline.holes {
        let whole = (hole.start - stretch_start).checked_sub(span_ticks(options));
        let kept = whole.map_or(0, |room| first_clip_from(options, room + 1));
        clips += first_clip_from(options, hole.end - stretch_start) - kept;
        stretch_start = hole.end;
    }
    clips
}

/// Returns the index of the first clip that begins at `tick` or later, if clips follow each other
/// without end.
pub(super) fn first_clip_from(options: &BuildOptions, tick: u64) -> u64 {
    let step = match options.tiling {
        Tiling::BackToBack => f64::from(options.frames) * f64::from(options.stride),
        Tiling::EverySeconds(seconds) => seconds * options.sampling.fps().unwrap_or(1.0),
        Tiling::ClipsPerVideo(_) => unreachable!("the number of clips is known beforehand"),
    };
    // Rounding may be off by one.
    let mut clip = ((tick as f64 / step) as u64).saturating_sub(1);
    while nth_start(options, clip) < tick {
        clip += 1;
    }
    clip
}

/// Returns the first tick of clip `clip`, if clips follow each other without end.
pub(super) fn nth_start(options: &BuildOptions, clip: u64) -> u64 {
    match options.tiling {
        Tiling::BackToBack => clip * u64::from(options.frames) * u64::from(options.stride),
        Tiling::EverySeconds(seconds) => {
            let fps = options
                .sampling
                .fps()
                .expect("source frames are not counted in seconds");
            (clip as f64 * seconds * fps).round() as u64
        }
        Tiling::ClipsPerVideo(_) => unreachable!("the number of clips is known beforehand"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::manifest::{Labelling, OnCorrupt, PixelAspect, ShortVideo};
    use schemas::shard::Payload;

    fn options(tiling: Tiling) -> BuildOptions {
        BuildOptions {
            frames: 16,
            stride: 4,
            sampling: Sampling::TicksPerSecond(30.0),
            tiling,
            short: ShortVideo::Repeat,
            on_corrupt: OnCorrupt::KeepGood,
            short_side: 256,
            pixel_aspect: PixelAspect::Square,
            gap_seconds: Some(1.0),
            scenes: None,
            split: Vec::new(),
            payload: Payload::I420,
            crf: None,
            level: 3,
            labels: Labelling::None,
            shard_bytes: 1 << 28,
        }
    }

    fn whole(ticks: u64) -> Timeline {
        Timeline {
            ticks,
            holes: Vec::new(),
            cuts: Vec::new(),
        }
    }

    #[test]
    fn clips_lie_between_holes() {
        // Two seconds of video, a gap of ten thousand, and three more; a frame is held for at most
        // one second.
        let timeline = Timeline {
            ticks: 300_090,
            holes: std::iter::once(90..300_000).collect(),
            cuts: Vec::new(),
        };
        let every = options(Tiling::BackToBack);
        assert_eq!(clip_starts(&every, &timeline), [0, 300_000]);
        assert_eq!(
            clips_in_holes(&every, &timeline),
            300_000_u64.div_ceil(64) - 1
        );
        let longer = Timeline {
            ticks: u64::MAX / 4,
            holes: std::iter::once(90..u64::MAX / 4 - 200).collect(),
            cuts: Vec::new(),
        };
        let starts = clip_starts(&every, &longer);
        assert_eq!(starts.len(), 1 + 3, "{starts:?}");
        // On both sides, and no clip in between.
        let spread = clip_starts(&options(Tiling::ClipsPerVideo(4)), &timeline);
        assert_eq!(spread, [0, 19, 300_009, 300_029]);
        // No stretch is long enough: the last one is padded.
        let short = Timeline {
            ticks: 1000,
            holes: std::iter::once(40..960).collect(),
            cuts: Vec::new(),
        };
        assert_eq!(clip_starts(&every, &short), [960]);
        assert_eq!(
            clip_starts(&options(Tiling::ClipsPerVideo(4)), &short),
            [960]
        );
    }

    #[test]
    fn clips_lie_between_cuts() {
        let timeline = Timeline {
            ticks: 400,
            holes: std::iter::once(150..160).collect(),
            cuts: vec![70, 80, 260],
        };
        assert_eq!(
            timeline.stretches(),
            [0..70, 70..80, 80..150, 160..260, 260..400]
        );
        assert_eq!(
            timeline.stretches_of(75..300),
            [75..80, 80..150, 160..260, 260..300]
        );
        let every = options(Tiling::BackToBack);
        assert_eq!(clip_starts(&every, &timeline), [0, 80, 160, 260, 324]);
        assert_eq!(
            starts_in(&every, &timeline.stretches_of(260..300)),
            [260],
            "a short stretch gives one clip, which is padded"
        );
    }

    #[test]
    fn times_that_gstreamer_rounded_down_keep_their_tick() {
        for frame in 0..1000u64 {
            let ns = (frame * 1_000_000_000 / 30) as i64;
            assert_eq!(tick_of(ns, 30.0), frame);
        }
        assert_eq!(
            tick_of(16_666_666, 30.0),
            1,
            "half a tick rounds up, as in ffmpeg"
        );
        assert_eq!(tick_of(16_600_000, 30.0), 0);
    }

    #[test]
    fn clips_tile_a_video_as_long_as_whole_ones_fit() {
        // 16 frames at stride 4 span 61 ticks.
        let every = options(Tiling::BackToBack);
        assert_eq!(clip_starts(&every, &whole(300)), [0, 64, 128, 192]);
        assert_eq!(clip_starts(&every, &whole(125)), [0, 64]);
        assert_eq!(clip_starts(&every, &whole(124)), [0]);
        assert_eq!(
            clip_starts(&every, &whole(5)),
            [0],
            "a short video gives one clip"
        );
    }

    #[test]
    fn a_number_of_clips_is_spread_from_start_to_end() {
        assert_eq!(
            clip_starts(&options(Tiling::ClipsPerVideo(3)), &whole(300)),
            [0, 119, 239]
        );
        assert_eq!(
            clip_starts(&options(Tiling::ClipsPerVideo(1)), &whole(300)),
            [119]
        );
        assert_eq!(
            clip_starts(&options(Tiling::ClipsPerVideo(4)), &whole(62)),
            [0, 1]
        );
        assert_eq!(
            clip_starts(&options(Tiling::ClipsPerVideo(4)), &whole(10)),
            [0]
        );
    }
}
