//! Inference on every clip once, and classification scores.

pub mod features;
mod infer;
pub mod videos;

use crate::backend::LearnerError;
use crate::ranks::RanksError;
use pipeline::loader::LoadError;
use schemas::report::ValidationMetrics;

pub use infer::{ClipOutput, infer_all};

/// Number of classes for top-5.
const TOP: usize = 5;

/// An error of inference on a data set.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device failed.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The ranks together cannot go on.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The outputs cannot be written.
    #[error(transparent)]
    Write(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Classification scores: confusion matrix, top-5 accuracy and loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// `[classes, classes]`: clips by true class and predicted class.
    confusion: Vec<u64>,
    classes: usize,
    top5: u64,
    /// Clips of each class whose class is among the five most probable.
    top5_of: Vec<u64>,
    loss: f64,
}

impl Scores {
    /// Creates empty scores of `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self {
            confusion: vec![0; classes * classes],
            classes,
            top5: 0,
            top5_of: vec![0; classes],
            loss: 0.0,
        }
    }

    /// Adds a prediction for a clip or video of class `label`. Without a label it is ignored.
    pub fn add(&mut self, probabilities: &[f32], label: Option<i32>) {
        let Some(label) = label.and_then(|label| usize::try_from(label).ok()) else {
            return;
        };
        let own = probabilities[label];
        // Of equal probabilities the first ranks higher, as in a stable sort.
        let greater = probabilities
            .iter()
            .enumerate()
            .filter(|&(at, &other)| other > own || (other == own && at < label))
            .count();
        self.confusion[label * self.classes + Self::most_probable(probabilities)] += 1;
        if greater < TOP {
            self.top5 += 1;
            self.top5_of[label] += 1;
        }
        self.loss -= f64::from(own.max(f32::MIN_POSITIVE)).ln();
    }

    /// The most probable class; of equal ones the first.
    pub fn most_probable(probabilities: &[f32]) -> usize {
        let better = |best: usize, (at, &value): (usize, &f32)| {
            if value > probabilities[best] {
                at
            } else {
                best
            }
        };
        probabilities.iter().enumerate().fold(0, better)
    }

    /// Number of predictions added.
    pub fn count(&self) -> u64 {
        self.confusion.iter().sum()
    }

    /// `[classes, classes]`: predictions by true class and predicted class.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        self.confusion
            .chunks_exact(self.classes)
            .map(<[u64]>::to_vec)
            .collect()
    }

    /// Counts for class `class`: all clips, those classified correctly, and those with the class in
    /// the top 5.
    pub fn of_class(&self, class: usize) -> [u64; 3] {
        let row = &self.confusion[class * self.classes..][..self.classes];
        [row.iter().sum(), row[class], self.top5_of[class]]
    }

    /// Loss and accuracy over all predictions; NaN if there are none.
    pub fn metrics(&self) -> ValidationMetrics {
        let count = self.count();
        let correct: u64 = (0..self.classes)
            .map(|class| self.confusion[class * self.classes + class])
            .sum();
        let share = |part: f64| part / count as f64;
        ValidationMetrics {
            clips: count,
            loss: share(self.loss),
            top1: share(correct as f64),
            top5: share(self.top5 as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_counted_by_class() {
        let mut scores = Scores::new(6);
        let of = |predicted: usize, second: f32| {
            (0..6)
                .map(|at| {
                    if at == predicted {
                        0.5
                    } else if at == 5 {
                        second
                    } else {
                        0.1
                    }
                })
                .collect::<Vec<f32>>()
        };
        scores.add(&of(2, 0.05), Some(2));
        scores.add(&of(2, 0.05), Some(0));
        scores.add(&of(2, 0.05), Some(5));
        scores.add(&of(2, 0.05), None);
        let metrics = scores.metrics();
        assert_eq!(
            (metrics.clips, metrics.top1, metrics.top5),
            (3, 1.0 / 3.0, 2.0 / 3.0),
            "5 is the least probable of six"
        );
        assert!((metrics.loss - -(0.5f64.ln() + 0.1f64.ln() + 0.05f64.ln()) / 3.0).abs() < 1e-6);
        assert_eq!(
            (scores.of_class(0), scores.of_class(2), scores.of_class(5)),
            ([1, 0, 1], [1, 1, 1], [1, 0, 0])
        );
        let confusion = scores.confusion();
        assert_eq!((confusion[0][2], confusion[2][0]), (1, 0));
    }

    #[test]
    fn equal_probabilities_predict_the_first_class() {
        let mut scores = Scores::new(8);
        (0..8).for_each(|class| scores.add(&[0.125; 8], Some(class)));
        let metrics = scores.metrics();
        assert_eq!((metrics.top1, metrics.top5), (1.0 / 8.0, 5.0 / 8.0));
    }
}
