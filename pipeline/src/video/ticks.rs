//! The grid of ticks that frames are sampled on, and where on it clips begin.
//!
//! Time is cut into ticks of `1 / fps` seconds from the first frame on. A frame's tick is its time rounded to the nearest tick, and a
//! tick shows the last frame whose own tick is not later: the rule of ffmpeg's `fps` filter, so frames of any rate, also a variable one, are
//! repeated or passed over as a viewer at `fps` would see them. A clip takes every `stride`-th tick. Where source frames are to be sampled, whatever
//! their times, a frame's tick is its number.

use super::VideoProbe;
use schemas::manifest::{BuildOptions, Sampling, Tiling};

/// The tick of a time that lies `ns` nanoseconds after the first frame. One nanosecond of grace: GStreamer rounds times down.
pub fn tick_of(ns: i64, fps: f64) -> u64 {
    ((ns + 1) as f64 * fps / 1e9 + 0.5).floor().max(0.0) as u64
}

/// Ticks of a video of so many packets that are shown for so long, by the grid of `options`.
pub fn video_ticks(options: &BuildOptions, probe: &VideoProbe) -> u64 {
    match options.sampling {
        Sampling::TicksPerSecond(fps) => {
            // The last frame is shown, however short.
            tick_of(probe.end_ns - probe.start_ns, fps).max(tick_of(probe.last_ns - probe.start_ns, fps) + 1)
        }
        Sampling::SourceFrames => probe.packets,
    }
}

/// Ticks from a clip's first frame to its last, both included.
pub fn span_ticks(options: &BuildOptions) -> u64 {
    u64::from(options.frames - 1) * u64::from(options.stride) + 1
}

/// First ticks of the clips of a video that lasts `ticks` ticks. There is always one: a video that is shorter than a clip gives a clip
/// whose last frame is repeated.
pub fn clip_starts(options: &BuildOptions, ticks: u64) -> Vec<u64> {
    let last_start = ticks.saturating_sub(span_ticks(options));
    match options.tiling {
        Tiling::BackToBack | Tiling::EverySeconds(_) => {
            (0..).map(|clip| nth_start(options, clip)).take_while(|&start| start <= last_start).collect()
        }
        Tiling::ClipsPerVideo(1) => vec![last_start / 2],
        Tiling::ClipsPerVideo(clips) => {
            let mut starts: Vec<u64> = (0..u64::from(clips)).map(|clip| clip * last_start / u64::from(clips - 1)).collect();
            // A short video has fewer places than clips were asked for.
            starts.dedup();
            starts
        }
    }
}

/// First tick of clip `clip` where clips follow each other without end.
pub(super) fn nth_start(options: &BuildOptions, clip: u64) -> u64 {
    match options.tiling {
        Tiling::BackToBack => clip * u64::from(options.frames) * u64::from(options.stride),
        Tiling::EverySeconds(seconds) => {
            let fps = options.sampling.fps().expect("source frames are not counted in seconds");
            (clip as f64 * seconds * fps).round() as u64
        }
        Tiling::ClipsPerVideo(_) => unreachable!("the number of clips is known beforehand"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::manifest::{Labelling, OnCorrupt, ShortVideo};
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
            payload: Payload::I420,
            crf: None,
            level: 3,
            labels: Labelling::None,
            shard_bytes: 1 << 28,
        }
    }

    #[test]
    fn times_that_gstreamer_rounded_down_keep_their_tick() {
        for frame in 0..1000u64 {
            let ns = (frame * 1_000_000_000 / 30) as i64;
            assert_eq!(tick_of(ns, 30.0), frame);
        }
        assert_eq!(tick_of(16_666_666, 30.0), 1, "half a tick rounds up, as in ffmpeg");
        assert_eq!(tick_of(16_600_000, 30.0), 0);
    }

    #[test]
    fn clips_tile_a_video_as_long_as_whole_ones_fit() {
        // 16 frames at stride 4 span 61 ticks.
        let every = options(Tiling::BackToBack);
        assert_eq!(clip_starts(&every, 300), [0, 64, 128, 192]);
        assert_eq!(clip_starts(&every, 125), [0, 64]);
        assert_eq!(clip_starts(&every, 124), [0]);
        assert_eq!(clip_starts(&every, 5), [0], "a short video gives one clip");
    }

    #[test]
    fn a_number_of_clips_is_spread_from_start_to_end() {
        assert_eq!(clip_starts(&options(Tiling::ClipsPerVideo(3)), 300), [0, 119, 239]);
        assert_eq!(clip_starts(&options(Tiling::ClipsPerVideo(1)), 300), [119]);
        assert_eq!(clip_starts(&options(Tiling::ClipsPerVideo(4)), 62), [0, 1]);
        assert_eq!(clip_starts(&options(Tiling::ClipsPerVideo(4)), 10), [0]);
    }
}
