//! The difference of two arms, and whether it may be chance: a paired sign-flip test over videos.

use pipeline::sampling::order::{Purpose, stream};
use rand::RngExt;
use schemas::report::{StudyArm, StudyDifference, StudyRun};
use std::collections::BTreeMap;

/// Random sign flips from which the probability is estimated; its least value is one in this.
const FLIPS: usize = 20_000;

/// The difference of `arm` to `other`, in accuracy by video over the runs of equal seeds. The
/// probability is that of a difference at least as large, in either direction, if for each video it
/// were chance which of the two classifies it better.
pub fn difference(arm: &StudyArm, other: &StudyArm) -> StudyDifference {
    let (own, others) = (correct(&arm.runs), correct(&other.runs));
    let paired: Vec<f64> = own
        .iter()
        .filter_map(|(video, own)| others.get(video).map(|other| mean(own) - mean(other)))
        .collect();
    StudyDifference {
        from: if arm.series == other.series {
            other.name.clone()
        } else {
            other.series.clone()
        },
        points: 100.0 * mean(&paired),
        better: paired.iter().filter(|&&value| value > 0.0).count() as u64,
        worse: paired.iter().filter(|&&value| value < 0.0).count() as u64,
        p: sign_flip_p(&paired),
    }
}

/// Of each video the results of all runs that validated on it: 1 where it was classified correctly.
fn correct(runs: &[StudyRun]) -> BTreeMap<&str, Vec<f64>> {
    let mut of_video: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for video in runs.iter().flat_map(|run| &run.videos) {
        let is_correct = f64::from(u8::from(video.label == video.predicted));
        of_video.entry(&video.video).or_default().push(is_correct);
    }
    of_video
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The share of random sign flips of `differences` whose sum is at least as far from 0.
fn sign_flip_p(differences: &[f64]) -> f64 {
    let observed = differences.iter().sum::<f64>().abs();
    let mut rng = stream(Purpose::SignFlips, 0, 0, 0);
    let mut as_far = 0;
    for _ in 0..FLIPS {
        let flipped = differences
            .iter()
            .map(|&value| if rng.random::<bool>() { value } else { -value });
        // Sums of the same values in another order differ in the last bits.
        if flipped.sum::<f64>().abs() >= observed - 1e-9 {
            as_far += 1;
        }
    }
    f64::from(as_far + 1) / (FLIPS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::report::StudyVideo;

    /// An arm with one run, of videos that are classified correctly or not.
    fn arm(correct: &[bool]) -> StudyArm {
        let video = |(at, &is_correct): (usize, &bool)| StudyVideo {
            video: at.to_string(),
            label: 1,
            predicted: u32::from(is_correct),
        };
        StudyArm {
            series: "s".to_owned(),
            name: "n".to_owned(),
            difference: None,
            runs: vec![StudyRun {
                videos: correct.iter().enumerate().map(video).collect(),
                ..StudyRun::default()
            }],
        }
    }

    #[test]
    fn the_probability_is_that_of_a_binomial_test() {
        // Ten videos better, two worse, others equal: McNemar's exact test, two-sided, gives
        // 2 (C(12,0) + C(12,1) + C(12,2)) / 2^12 = 0.0386.
        let mut own = vec![true; 30];
        let mut other = own.clone();
        other[..10].fill(false);
        own[10..12].fill(false);
        let found = difference(&arm(&own), &arm(&other));
        assert_eq!((found.better, found.worse), (10, 2));
        assert!((found.points - 100.0 * 8.0 / 30.0).abs() < 1e-9);
        assert!((found.p - 0.0386).abs() < 0.006, "{}", found.p);
        let none = difference(&arm(&own), &arm(&own));
        assert_eq!((none.points, none.p), (0.0, 1.0));
    }
}
