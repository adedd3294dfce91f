//! Small-scale reproductions of the paper's findings about pre-training, on synthetic data or on
//! folds of real footage.

mod arm;
mod compare;
mod data;
mod folds;
mod plan;
mod plot;
mod queue;
mod report;
mod runs;
mod setup;

pub use arm::{Arm, Draw, Footage, Measure, Pretraining};
pub use data::{StudyData, TaskData};
pub use folds::folds;
pub use plan::Study;
pub use plot::{draw, draw_confusions};
pub use report::{accuracies, render_table};
pub use setup::{Budget, Setup};

use self::data::SeedData;
use self::queue::{Waiting, run_all};
use self::runs::{Evaluation, Predictions, Runs};
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

/// Settings of a study.
pub struct Settings {
    /// Folder of all its runs.
    pub out: PathBuf,
    /// Seeds of the pre-trainings of each arm, and folds of real footage.
    pub seeds: Range<u64>,
    /// Evaluations of each pre-training, with different seeds.
    pub repeats: u64,
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
    /// The evaluations of an arm.
    fn draws(&self) -> impl Iterator<Item = Draw> {
        let of_seed = |seed| (0..self.repeats).map(move |repeat| Draw { seed, repeat });
        self.seeds.clone().flat_map(of_seed)
    }

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

/// A run of one or several studies.
enum Work<'a> {
    /// A pre-training with a seed, and its clips.
    Pretrain(&'a Pretraining, u64, Arc<[WeightedSource]>),
    /// An evaluation of an arm.
    Evaluate(&'a Arm, Draw),
}

/// Runs studies: every arm with every seed, `jobs` runs at a time, those of the first study first.
/// Arms share the runs that are equal, in all studies. Finished runs are not repeated, and an
/// interrupted one is resumed. Calls `progress` with the name of a run and what it does, and
/// `report` with the result of each study as soon as it is there.
///
/// # Errors
/// When a run or `report` fails, or the studies are stopped.
pub fn study(
    studies: &[Study],
    data: &StudyData,
    settings: &Settings,
    progress: impl Fn(&str, Progress<'_>) + Sync,
    mut report: impl FnMut(StudyReport) -> Result<(), StudyError>,
) -> Result<(), StudyError> {
    let setup = data.task.setup();
    let names = data.task.classes()?;
    let of_seeds = settings.seeds.clone();
    let of_seeds: BTreeMap<u64, SeedData> = of_seeds
        .map(|seed| Ok((seed, data.task.of_seed(seed, &names)?)))
        .collect::<Result<_, ClassError>>()?;
    let arms: Vec<Vec<Arm>> = studies
        .iter()
        .map(|study| study.arms(setup, settings.budget))
        .collect();
    let (mut waiting, mut known) = (Vec::new(), BTreeSet::new());
    for arms in &arms {
        let other = data.other.as_ref();
        waiting.extend(runs_of(arms, settings, &of_seeds, other, &mut known)?);
    }
    // The studies that are not reported, and the evaluations that each waits for.
    let of_arm =
        |arm: &Arm| -> Vec<String> { settings.draws().map(|draw| arm.run(draw)).collect() };
    let mut open: Vec<(Study, &[Arm], BTreeSet<String>)> = studies
        .iter()
        .zip(&arms)
        .map(|(&study, arms)| (study, &**arms, arms.iter().flat_map(of_arm).collect()))
        .collect();
    let runs = Runs::new(settings, &progress, waiting.len());
    let run = |name: &str, work: Work<'_>| match work {
        Work::Pretrain(pretraining, seed, data) => {
            runs.pretrain(name, pretraining, seed, data)?;
            Ok(None)
        }
        Work::Evaluate(arm, draw) => {
            let of_seed = &of_seeds[&draw.seed];
            let seed = draw.evaluation_seed();
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
            let evaluation = Evaluation {
                config,
                start: start.map(|pretraining| pretraining.run(draw.seed)),
                measure: arm.measure,
                split,
            };
            runs.evaluate(name, evaluation).map(Some)
        }
    };
    let mut evaluations: BTreeMap<String, Predictions> = BTreeMap::new();
    let done = |name: &str, predictions: Option<Predictions>| {
        evaluations.extend(predictions.map(|predictions| (name.to_owned(), predictions)));
        for (.., missing) in &mut open {
            missing.remove(name);
        }
        while let Some(at) = open.iter().position(|(.., missing)| missing.is_empty()) {
            let (study, arms, _) = open.remove(at);
            let classes = names.clone();
            report(report::build(
                study,
                setup,
                settings,
                classes,
                arms,
                &evaluations,
            )?)?;
        }
        Ok(())
    };
    run_all(settings.jobs, &settings.stop, waiting, run, done)
}

/// The runs of a study that are not `known` from another, which makes them known: pre-trainings,
/// then evaluations.
fn runs_of<'a>(
    arms: &'a [Arm],
    settings: &Settings,
    of_seeds: &BTreeMap<u64, SeedData>,
    other: Option<&Arc<[WeightedSource]>>,
    known: &mut BTreeSet<String>,
) -> Result<Vec<Waiting<Work<'a>>>, StudyError> {
    let (mut pretrainings, mut evaluations) = (Vec::new(), Vec::new());
    for (arm, draw) in arms
        .iter()
        .flat_map(|arm| settings.draws().map(move |draw| (arm, draw)))
    {
        let seed = draw.seed;
        let start = arm.pretraining.as_ref();
        if let Some(pretraining) = start {
            // Fail before anything is computed.
            let footage = of_seeds[&seed].footage(pretraining.footage, other)?;
            let name = pretraining.run(seed);
            if known.insert(name.clone()) {
                pretrainings.push(Waiting {
                    name,
                    needs: None,
                    work: Work::Pretrain(pretraining, seed, footage),
                });
            }
        }
        let name = arm.run(draw);
        if known.insert(name.clone()) {
            evaluations.push(Waiting {
                name,
                needs: start.map(|pretraining| pretraining.run(seed)),
                work: Work::Evaluate(arm, draw),
            });
        }
    }
    // The longest first, so that jobs end at about the same time.
    let steps = |run: &Waiting<Work<'_>>| match run.work {
        Work::Pretrain(..) => 0,
        Work::Evaluate(arm, _) => arm.measure.steps(),
    };
    evaluations.sort_by_key(|run| Reverse(steps(run)));
    pretrainings.append(&mut evaluations);
    Ok(pretrainings)
}
