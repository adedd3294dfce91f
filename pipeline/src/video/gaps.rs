//! Finds gaps: stretches of time without frames. A clip in one would show a held frame, without
//! motion.
//!
//! A frame is shown until the next one. If that comes later than the intervals before it suggest,
//! by more than a limit, the video has a gap: a camera was off, a recorder lost its signal, or two
//! films were joined with a wrong clock. The expected interval is the median of those before, so
//! that a video of one frame in two seconds has no gaps, and packets and frames give the same gaps.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Number of intervals of which the median is taken.
const RECENT_INTERVALS: usize = 15;

/// A stretch from a frame that is held to the next one, in nanoseconds of stream time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Time of the held frame.
    pub from_ns: i64,
    /// Time of the next frame.
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
    /// Creates a finder of gaps that are longer than `limit_ns`.
    pub const fn new(limit_ns: i64) -> Self {
        Self {
            limit_ns,
            recent: VecDeque::new(),
            last: None,
        }
    }

    /// Takes the next frame in presentation order: its time, and the duration of its packet.
    /// Returns the gap before it, if there is one.
    pub fn next(&mut self, ns: i64, duration_ns: Option<i64>) -> Option<Gap> {
        let (from_ns, last_duration_ns) = self.last.replace((ns, duration_ns))?;
        let interval = ns.saturating_sub(from_ns);
        let is_gap = interval > self.limit_ns && {
            let expected = self.median().or(last_duration_ns).unwrap_or(0);
            interval.saturating_sub(expected) > self.limit_ns
        };
        // Gaps count, too: a gap that recurs is expected.
        if self.recent.len() == RECENT_INTERVALS {
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
    fn a_gap_is_longer_than_the_expected_interval() {
        assert_eq!(
            gaps(1000, &[0, 40, 80, 1080, 1120, 3000]),
            [(1120, 3000)],
            "960 ms more than expected, then 1840"
        );
        assert_eq!(
            gaps(1000, &[0, 900, 1800, 4000, 6000, 8000]),
            [(1800, 4000), (4000, 6000)],
            "then it is expected"
        );
        assert_eq!(
            gaps(1000, &[0, 5000, 5040]),
            [(0, 5000)],
            "before any interval is known"
        );
    }

    #[test]
    fn a_slow_video_has_no_gaps() {
        let times: Vec<i64> = (0..20).map(|frame| frame * 2000).collect();
        let mut finder = GapFinder::new(1000 * MS);
        assert_eq!(
            times
                .iter()
                .filter_map(|ms| finder.next(ms * MS, Some(2000 * MS)))
                .count(),
            0
        );
        let mut finder = GapFinder::new(1000 * MS);
        let found = times
            .iter()
            .filter_map(|ms| finder.next(ms * MS, None))
            .count();
        assert_eq!(
            found, 1,
            "without durations, the first interval is not expected yet"
        );
    }

    #[test]
    fn invalid_times_do_not_overflow() {
        let mut finder = GapFinder::new(1);
        assert_eq!(finder.next(i64::MIN, None), None);
        assert_eq!(
            finder.next(i64::MAX, None),
            Some(Gap {
                from_ns: i64::MIN,
                to_ns: i64::MAX
            })
        );
    }
}
