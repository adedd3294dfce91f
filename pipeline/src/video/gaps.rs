//! Gaps: stretches of time without frames. A clip in one would show a held frame, and nothing that moves.
//!
//! A frame is shown until the next one comes. Where that is later than the frames before it let expect, by
//! more than a limit, the video has a gap: a camera that was off, a recorder that lost its signal, two films
//! joined with a wrong clock. What is usual is the median of the intervals before it, so that a video of one
//! frame in two seconds has no gaps, and the same is found by who sees packets and by who sees frames.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Intervals that are remembered.
const RECENT: usize = 15;

/// From a frame that is held to the next, in nanoseconds of stream time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Time of the frame that is held.
    pub from_ns: i64,
    /// Time of the next one.
    pub to_ns: i64,
}

/// Finds gaps between the frames of a video.
#[derive(Debug, Clone)]
pub struct GapFinder {
    limit_ns: i64,
    recent: VecDeque<i64>,
    last: Option<(i64, Option<i64>)>,
}

impl GapFinder {
    /// A finder of gaps that are longer than `limit_ns`.
    pub const fn new(limit_ns: i64) -> Self {
        Self { limit_ns, recent: VecDeque::new(), last: None }
    }

    /// Takes the next frame in order of presentation: its time, and how long its packet says that it is
    /// shown. Returns the gap before it.
    pub fn next(&mut self, ns: i64, duration_ns: Option<i64>) -> Option<Gap> {
        let (from_ns, said_ns) = self.last.replace((ns, duration_ns))?;
        let interval = ns.saturating_sub(from_ns);
        let is_gap = interval > self.limit_ns && {
            let usual = self.median().or(said_ns).unwrap_or(0);
            interval.saturating_sub(usual) > self.limit_ns
        };
        // Gaps too: what comes again and again is usual.
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(interval);
        is_gap.then_some(Gap { from_ns, to_ns: ns })
    }

    fn median(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn gaps(limit_ms: i64, times_ms: &[i64]) -> Vec<(i64, i64)> {
        let mut finder = GapFinder::new(limit_ms * MS);
        let gaps = times_ms.iter().filter_map(|ms| finder.next(ms * MS, None));
        gaps.map(|gap| (gap.from_ns / MS, gap.to_ns / MS)).collect()
    }

    #[test]
    fn a_gap_is_longer_than_what_is_usual() {
        assert_eq!(gaps(1000, &[0, 40, 80, 1080, 1120, 3000]), [(1120, 3000)], "960 ms more than usual, then 1840");
        assert_eq!(gaps(1000, &[0, 900, 1800, 4000, 6000, 8000]), [(1800, 4000), (4000, 6000)], "then it is usual");
        assert_eq!(gaps(1000, &[0, 5000, 5040]), [(0, 5000)], "before anything is usual");
    }

    #[test]
    fn a_slow_video_has_no_gaps() {
        let times: Vec<i64> = (0..20).map(|frame| frame * 2000).collect();
        let mut finder = GapFinder::new(1000 * MS);
        assert_eq!(times.iter().filter_map(|ms| finder.next(ms * MS, Some(2000 * MS))).count(), 0);
        let mut finder = GapFinder::new(1000 * MS);
        let found = times.iter().filter_map(|ms| finder.next(ms * MS, None)).count();
        assert_eq!(found, 1, "without durations, the first interval is not usual yet");
    }

    #[test]
    fn times_that_make_no_sense_do_not_overflow() {
        let mut finder = GapFinder::new(1);
        assert_eq!(finder.next(i64::MIN, None), None);
        assert_eq!(finder.next(i64::MAX, None), Some(Gap { from_ns: i64::MIN, to_ns: i64::MAX }));
    }
}
