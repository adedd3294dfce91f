//! The difference of two arms, and whether it may be chance: that of the videos, by a paired
//! sign-flip test, or that of training, by a permutation test of runs.

use pipeline::sampling::order::{Purpose, stream};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use schemas::report::{StudyArm, StudyDifference, StudyRun};
use std::collections::BTreeMap;

/// Random draws from which a probability is estimated; its least value is one in this.
const DRAWS: usize = 20_000;

/// The difference of `arm` to `other`, in accuracy by video over the runs of equal seeds. The
/// probabilities are those of a difference at least as large, in either direction: `p_videos` if
/// for each video it were chance which of the two classifies it better, `p_runs` if for each seed
/// it were chance which runs are of which arm.
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
        p_videos: videos_p(&paired),
        p_runs: runs_p(&arm.runs, &other.runs),
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

/// The probability if the signs of `differences`, one per video, were random.
fn videos_p(differences: &[f64]) -> f64 {
    let observed = differences.iter().sum::<f64>();
    share_as_far(observed, |rng| {
        let flipped = differences
            .iter()
            .map(|&value| if rng.random() { value } else { -value });
        flipped.sum()
    })
}

/// The probability if the runs of each seed, as many of each arm, were distributed among the two
/// at random.
fn runs_p(own: &[StudyRun], others: &[StudyRun]) -> f64 {
    let mut of_seed: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for run in own.iter().chain(others) {
        of_seed
            .entry(run.seed)
            .or_default()
            .push(correct_videos(run));
    }
    let difference = |runs: &Vec<f64>| {
        let (own, others) = runs.split_at(runs.len() / 2);
        mean(own) - mean(others)
    };
    let observed = of_seed.values().map(difference).sum();
    share_as_far(observed, |mut rng| {
        of_seed.values_mut().for_each(|runs| runs.shuffle(&mut rng));
        of_seed.values().map(difference).sum()
    })
}

fn correct_videos(run: &StudyRun) -> f64 {
    let correct = run
        .videos
        .iter()
        .filter(|video| video.label == video.predicted);
    correct.count() as f64
}

/// The share of random draws that are at least as far from 0 as what was observed, which counts as
/// one of them.
fn share_as_far(observed: f64, mut draw: impl FnMut(&mut dyn Rng) -> f64) -> f64 {
    let mut rng = stream(Purpose::Significance, 0, 0, 0);
    // Sums of the same values in another order differ in the last bits.
    let least = observed.abs() - 1e-9;
    let as_far = (0..DRAWS).filter(|_| draw(&mut rng).abs() >= least).count();
    (as_far + 1) as f64 / (DRAWS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::report::StudyVideo;

    /// An arm with a run per element of `runs`, all of one seed, with videos that are classified
    /// correctly or not.
    fn arm(runs: &[&[bool]]) -> StudyArm {
        let video = |(at, &is_correct): (usize, &bool)| StudyVideo {
            video: at.to_string(),
            label: 1,
            predicted: u32::from(is_correct),
        };
        StudyArm {
            series: "s".to_owned(),
            name: "n".to_owned(),
            difference: None,
            runs: runs
                .iter()
                .map(|correct| StudyRun {
                    videos: correct.iter().enumerate().map(video).collect(),
                    ..StudyRun::default()
                })
                .collect(),
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
        let found = difference(&arm(&[&own]), &arm(&[&other]));
        assert_eq!((found.better, found.worse), (10, 2));
        assert!((found.points - 100.0 * 8.0 / 30.0).abs() < 1e-9);
        assert!(
            (found.p_videos - 0.0386).abs() < 0.006,
            "{}",
            found.p_videos
        );
        let none = difference(&arm(&[&own]), &arm(&[&own]));
        assert_eq!((none.points, none.p_videos, none.p_runs), (0.0, 1.0, 1.0));
    }

    #[test]
    fn the_probability_of_runs_is_that_of_permutations_within_seeds() {
        // Correct videos of three runs of each arm. With one seed, all own runs better than all
        // others: 2 of the C(6,3) = 20 ways are as far. With a second seed without a difference,
        // whose ways all leave the sum alone, it is the same.
        let videos = |correct: usize| -> Vec<bool> { (0..10).map(|at| at < correct).collect() };
        let of_seed = |seed: u64, correct: [usize; 3]| {
            let runs = correct.map(videos);
            let mut arm = arm(&[&runs[0], &runs[1], &runs[2]]);
            arm.runs.iter_mut().for_each(|run| run.seed = seed);
            arm
        };
        let (mut own, mut other) = (of_seed(0, [7, 8, 9]), of_seed(0, [1, 2, 3]));
        let p = difference(&own, &other).p_runs;
        assert!((p - 0.1).abs() < 0.01, "{p}");
        own.runs.extend(of_seed(1, [5, 5, 5]).runs);
        other.runs.extend(of_seed(1, [5, 5, 5]).runs);
        let p = difference(&own, &other).p_runs;
        assert!((p - 0.1).abs() < 0.01, "{p}");
    }

    #[test]
    fn one_run_per_seed_does_not_decide() {
        // All videos better, and yet a run like the other is one of two ways.
        let found = difference(&arm(&[&[true; 30]]), &arm(&[&[false; 30]]));
        assert!(found.p_videos < 0.001, "{}", found.p_videos);
        assert_eq!(found.p_runs, 1.0);
    }
}
