//! Small-scale reproductions of the paper's findings about pre-training, on synthetic data or on
//! folds of real footage.

mod compare;
mod folds;
mod plan;
mod plot;
mod report;
mod runs;
mod setup;

pub use folds::folds;
pub use plan::{Arm, Footage, Measure, Pretraining, Study};
pub use plot::{draw, draw_confusions};
pub use report::{accuracies, render_table};
pub use setup::{Budget, Setup};

use self::runs::{Evaluation, Runs, in_parallel};
use crate::config::CommonConfig;
use crate::data::classes::{self, ClassError};
use crate::eval::EvaluateError;
use crate::log::HistoryError;
use crate::train::weights::WeightsError;
use crate::train::{Event, Loading, RunError};
use pipeline::choice::ChoiceError;
use pipeline::source::WeightedSource;
use schemas::report::StudyReport;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The data of a study.
pub struct StudyData {
    /// The clips of the task.
    pub task: TaskData,
    /// Other footage to pre-train on, for [`Study::Footage`].
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
    /// Folds of real footage, all labelled ([`folds()`]). Seed `n` validates on fold `n`, counted in
    /// a circle, and trains on the others, with and without their labels.
    Folds(Vec<Vec<WeightedSource>>),
}

/// The clips of the runs of a seed.
struct SeedData {
    unlabelled: Arc<[WeightedSource]>,
    train: Vec<WeightedSource>,
    validation: Vec<WeightedSource>,
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
    fn classes(&self) -> Result<Vec<String>, ClassError> {
        match self {
            Self::Shapes { train, .. } => classes::of_all(train),
            Self::Folds(folds) => classes::of_all(&folds.concat()),
        }
    }

    /// The clips of the runs of `seed`, numbered by the classes `names`.
    fn of_seed(&self, seed: u64, names: &[String]) -> Result<SeedData, ClassError> {
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
    fn footage(
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

/// Settings of a study.
pub struct Settings {
    /// Folder of all its runs.
    pub out: PathBuf,
    /// Seeds of the runs of each arm.
    pub seeds: Range<u64>,
    /// Steps of the runs.
    pub budget: Budget,
    /// Probability of a flip left to right in all runs, in place of the usual one.
    pub flip: Option<f64>,
    /// Settings of the loader.
    pub loading: Loading,
    /// Compute threads of all runs together.
    pub threads: usize,
    /// Runs at a time.
    pub jobs: usize,
    /// Set to stop the study. A run that fails sets it.
    pub stop: Arc<AtomicBool>,
}

impl Settings {
    fn set_flip(&self, config: &mut CommonConfig) {
        config.data.flip = self.flip.unwrap_or(config.data.flip);
    }
}

/// What a study does while it runs.
pub enum Progress<'a> {
    /// A run begins: its number, from 1, and how many there are.
    Begins(usize, usize),
    /// Something happened in a run.
    Event(Event<'a>),
    /// A run ended.
    Ends,
}

/// An error of a study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A run failed.
    #[error("{}: {source}", path.display())]
    Run {
        /// Folder of the run.
        path: PathBuf,
        /// The cause.
        source: Box<RunError>,
    },
    /// An encoder or a classifier could not be evaluated.
    #[error("{}: {source}", path.display())]
    Evaluate {
        /// Folder of the run.
        path: PathBuf,
        /// The cause.
        source: Box<EvaluateError>,
    },
    /// Classes or labels are invalid.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// The splits of shards cannot be read.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The weights of a finished run cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The metrics of a run cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Folds are of labelled shards.
    #[error(
        "{} holds videos: a study takes labelled shards; `shardtool build {0} --labels dirs --out \
         s` makes them",
        path.display()
    )]
    NoShards {
        /// Which data set.
        path: PathBuf,
    },
    /// A fold would have no video.
    #[error("there are too few videos for {folds} folds: give fewer with --folds")]
    FewVideos {
        /// Folds that were requested.
        folds: usize,
    },
    /// The study needs other footage.
    #[error("the study of footage needs other footage to pre-train on: --other")]
    NoOther,
    /// The folder holds runs of other settings.
    #[error("{} holds a run of other settings: {}; choose another \
             --out", path.display(), differences.join("; "))]
    OtherSettings {
        /// Folder of the run.
        path: PathBuf,
        /// The differences.
        differences: Vec<String>,
    },
    /// The folder holds a run on other clips.
    #[error("{} holds a run on other data; choose another --out", path.display())]
    OtherData {
        /// Folder of the run.
        path: PathBuf,
    },
    /// The study was stopped.
    #[error("stopped; run the same command again to continue")]
    Stopped,
}

/// Runs a study: every arm with every seed, `jobs` runs at a time. All pre-trainings come before the
/// evaluations, and arms share those that are equal. Finished runs are not repeated, and an
/// interrupted one is resumed. Calls `report` with the name of a run and what it does.
///
/// # Errors
/// When a run fails, or the study is stopped.
pub fn study(
    study: Study,
    data: &StudyData,
    settings: &Settings,
    report: impl Fn(&str, Progress<'_>) + Sync,
) -> Result<StudyReport, StudyError> {
    let setup = data.task.setup();
    let names = data.task.classes()?;
    let arms = study.arms(setup, settings.budget);
    let seeds = settings.seeds.clone();
    let of_seeds: BTreeMap<u64, SeedData> = seeds
        .clone()
        .map(|seed| Ok((seed, data.task.of_seed(seed, &names)?)))
        .collect::<Result<_, ClassError>>()?;
    let (mut pretrainings, mut evaluations) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for (arm, seed) in arms
        .iter()
        .flat_map(|arm| seeds.clone().map(move |seed| (arm, seed)))
    {
        if let Some(pretraining) = &arm.pretraining {
            // Fail before anything is computed.
            let footage = of_seeds[&seed].footage(pretraining.footage, data.other.as_ref())?;
            let name = pretraining.run(seed);
            if known.insert(name.clone()) {
                pretrainings.push((name, (pretraining, seed, footage)));
            }
        }
        let name = arm.run(seed);
        if known.insert(name.clone()) {
            evaluations.push((name, (arm, seed)));
        }
    }
    // The longest first, so that jobs end at about the same time.
    evaluations.sort_by_key(|(_, (arm, _))| Reverse(arm.measure.steps()));
    let runs = Runs::new(settings, &report, pretrainings.len() + evaluations.len());
    in_parallel(settings, pretrainings, |name, (pretraining, seed, data)| {
        runs.pretrain(name, pretraining, seed, data)
    })?;
    let evaluations = in_parallel(settings, evaluations, |name, (arm, seed)| {
        let of_seed = &of_seeds[&seed];
        let mut config = setup.finetuning(arm, &names, seed);
        settings.set_flip(&mut config.common);
        let split = classes::split(
            of_seed.train.clone(),
            Some(of_seed.validation.clone()),
            &names,
            &config.objective.split,
            seed,
        )?;
        let start = arm.pretraining.as_ref();
        let start = start.map(|pretraining| pretraining.run(seed));
        runs.evaluate(
            name,
            Evaluation {
                config,
                start,
                measure: arm.measure,
                split,
            },
        )
    })?;
    report::build(study, setup, settings, names, &arms, &evaluations)
}
