//! The clips of a study, and those of each run.

use super::arm::Footage;
use super::{Setup, StudyError};
use crate::data::classes::{self, ClassError};
use pipeline::source::WeightedSource;
use std::sync::Arc;

/// The data of a study.
pub struct StudyData {
    /// The clips of the task.
    pub task: TaskData,
    /// Other footage to pre-train on, for [`super::Study::Footage`].
    pub other: Option<Arc<[WeightedSource]>>,
}

/// The clips of a study's task.
pub enum TaskData {
    /// Synthetic shapes, the same for all seeds.
    Shapes {
        /// Clips to pre-train on.
        unlabelled: Arc<[WeightedSource]>,
        /// Labelled clips to fine-tune on.
        train: Vec<WeightedSource>,
        /// Labelled clips for validation.
        validation: Vec<WeightedSource>,
    },
    /// Folds of real footage, all labelled ([`super::folds()`]). Seed `n` validates on fold `n`,
    /// counted in a circle, and trains on the others, with and without their labels.
    Folds(Vec<Vec<WeightedSource>>),
}

/// The clips of the runs of a seed.
pub(super) struct SeedData {
    pub(super) unlabelled: Arc<[WeightedSource]>,
    pub(super) train: Vec<WeightedSource>,
    pub(super) validation: Vec<WeightedSource>,
}

impl TaskData {
    /// The footage that the runs are sized for.
    pub const fn setup(&self) -> Setup {
        match self {
            Self::Shapes { .. } => Setup::Shapes,
            Self::Folds(_) => Setup::Real,
        }
    }

    /// The names of all classes.
    pub(super) fn classes(&self) -> Result<Vec<String>, ClassError> {
        match self {
            Self::Shapes { train, .. } => classes::of_all(train),
            Self::Folds(folds) => classes::of_all(&folds.concat()),
        }
    }

    /// The clips of the runs of `seed`, numbered by the classes `names`.
    pub(super) fn of_seed(&self, seed: u64, names: &[String]) -> Result<SeedData, ClassError> {
        let (unlabelled, train, validation) = match self {
            Self::Shapes {
                unlabelled,
                train,
                validation,
            } => (Arc::clone(unlabelled), train.clone(), validation.clone()),
            Self::Folds(folds) => {
                let mut others = folds.clone();
                let validation = others.remove(seed as usize % folds.len());
                let train = others.concat();
                (train.clone().into(), train, validation)
            }
        };
        Ok(SeedData {
            unlabelled,
            train: classes::number(train, names, true)?,
            validation: classes::number(validation, names, true)?,
        })
    }
}

impl SeedData {
    /// The clips of a pre-training.
    pub(super) fn footage(
        &self,
        footage: Footage,
        other: Option<&Arc<[WeightedSource]>>,
    ) -> Result<Arc<[WeightedSource]>, StudyError> {
        let own = &self.unlabelled;
        let other = || other.ok_or(StudyError::NoOther);
        Ok(match footage {
            Footage::OfTheTask => Arc::clone(own),
            Footage::Other => Arc::clone(other()?),
            Footage::AsFew => {
                let wanted = other()?.iter().map(WeightedSource::len).sum();
                spread_over(own, wanted)
            }
            Footage::Both => {
                // Each clip as often as any other.
                let all = own.iter().chain(other()?.iter());
                let of_its_size = |set: &WeightedSource| WeightedSource {
                    weight: set.len() as f64,
                    ..set.clone()
                };
                all.map(of_its_size).collect()
            }
        })
    }
}

/// About `wanted` clips of `sets`, evenly spread, and at least one per set.
fn spread_over(sets: &[WeightedSource], wanted: usize) -> Arc<[WeightedSource]> {
    let all: usize = sets.iter().map(WeightedSource::len).sum();
    let some_of = |set: &WeightedSource| {
        let count = (set.len() * wanted / all.max(1)).max(1).min(set.len());
        let chosen = (0..count)
            .map(|at| set.number(at * set.len() / count) as u32)
            .collect();
        WeightedSource {
            chosen: Some(chosen),
            ..set.clone()
        }
    };
    sets.iter().map(some_of).collect()
}
