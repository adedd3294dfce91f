//! Small-scale reproductions of the paper's findings about pre-training, on synthetic data or on
//! folds of real footage.

mod plan;
mod plot;

pub use plan::{Arm, Budget, Footage, Pretraining, Setup, Study};
pub use plot::draw;

use crate::config::Task;
use crate::data::classes::{self, ClassError};
use crate::log::{CONFIG_FILE, History, HistoryError};
use crate::train::weights::{Weights, WeightsError};
use crate::train::{self, Event, Loading, Outcome, Run, RunError};
use candle_core::Device;
use pipeline::source::WeightedSource;
use schemas::report::{StudyArm, StudyReport, StudyRun};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Steps at the end of a pre-training over which the reported loss is averaged.
const LAST_STEPS: usize = 50;

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
    /// Folds of real footage, all labelled. Seed `n` validates on fold `n`, counted in a circle, and
    /// trains on the others, with and without their labels.
    Folds(Vec<WeightedSource>),
}

/// The clips of the runs of a seed.
struct SeedData {
    unlabelled: Arc<[WeightedSource]>,
    train: Vec<WeightedSource>,
    validation: Vec<WeightedSource>,
}

impl TaskData {
    /// The footage that the runs are sized for.
    const fn setup(&self) -> Setup {
        match self {
            Self::Shapes { .. } => Setup::Shapes,
            Self::Folds(_) => Setup::Real,
        }
    }

    /// The names of all classes.
    fn classes(&self) -> Result<Vec<String>, ClassError> {
        match self {
            Self::Shapes { train, .. } => classes::of_all(train),
            Self::Folds(folds) => classes::of_all(folds),
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
                let mut train = folds.clone();
                let validation = train.remove(seed as usize % folds.len());
                (train.clone().into(), train, vec![validation])
            }
        };
        Ok(SeedData {
            unlabelled,
            train: classes::number(train, names, true)?,
            validation: classes::number(validation, names, true)?,
        })
    }
}

/// Settings of a study.
pub struct Settings {
    /// Folder of all its runs.
    pub out: PathBuf,
    /// Runs per arm, with seeds 0, 1, ...
    pub seeds: u64,
    /// Steps of the runs.
    pub budget: Budget,
    /// Settings of the loader.
    pub loading: Loading,
    /// Compute threads of all runs together.
    pub threads: usize,
    /// Runs at a time.
    pub jobs: usize,
    /// Set to stop the study. A run that fails sets it.
    pub stop: Arc<AtomicBool>,
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
    /// Classes or labels are invalid.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// The weights of a finished pre-training cannot be read.
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
    /// The study was stopped.
    #[error("stopped; run the same command again to continue")]
    Stopped,
}

/// Runs a study: every arm with every seed, `jobs` runs at a time. All pre-trainings come before the
/// fine-tunings, and arms share those that are equal. Finished runs are not repeated, and an
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
    let seeds = 0..settings.seeds;
    let of_seeds: Vec<SeedData> = seeds
        .clone()
        .map(|seed| data.task.of_seed(seed, &names))
        .collect::<Result<_, _>>()?;
    let footage = |footage, seed: u64| {
        let own = &of_seeds[seed as usize].unlabelled;
        let other = data.other.as_ref().ok_or(StudyError::NoOther);
        match footage {
            Footage::OfTheTask => Ok(Arc::clone(own)),
            Footage::AsFew => {
                other.map(|other| spread_over(own, other.iter().map(WeightedSource::len).sum()))
            }
            Footage::Other => other.cloned(),
        }
    };
    let mut pretrainings = BTreeMap::new();
    let mut finetunings = BTreeMap::new();
    for (arm, seed) in arms
        .iter()
        .flat_map(|arm| seeds.clone().map(move |seed| (arm, seed)))
    {
        if let Some(pretraining) = &arm.pretraining {
            // Fail before anything is computed.
            let footage = footage(pretraining.footage, seed)?;
            pretrainings.insert(pretraining.run(seed), (pretraining, seed, footage));
        }
        finetunings.insert(arm.run(seed), (arm, seed));
    }
    let all = pretrainings.len() + finetunings.len();
    let began = AtomicUsize::new(0);
    let run = |name: &str, task, data, validation, start| {
        report(
            name,
            Progress::Begins(began.fetch_add(1, Ordering::Relaxed) + 1, all),
        );
        let on_event = |event: Event<'_>| report(name, Progress::Event(event));
        let outcome = run(settings, name, task, data, validation, start, on_event);
        report(name, Progress::Ends);
        outcome
    };
    in_parallel(
        settings,
        pretrainings,
        |name, (pretraining, seed, footage)| {
            let task = Task::from(pretraining.config.clone()).with_seed(seed);
            run(name, task, footage, None, None)
        },
    )?;
    let scores = in_parallel(settings, finetunings, |name, (arm, seed)| {
        let weights =
            |pretraining: &Pretraining| Weights::open(&settings.out.join(pretraining.run(seed)));
        let start = arm.pretraining.as_ref().map(weights).transpose()?;
        let SeedData {
            train, validation, ..
        } = &of_seeds[seed as usize];
        let split = classes::split(
            train.clone(),
            Some(validation.clone()),
            &names,
            0.0,
            arm.videos_per_class,
            seed,
        )?;
        let task = setup.finetuning(arm, &names, seed).into();
        let start = start.map(|weights| weights.tensors);
        let outcome = run(name, task, split.train, split.validation, start)?;
        Ok(outcome
            .validation
            .expect("a finished fine-tuning was validated"))
    })?;
    let of_run = |arm: &Arm, seed| {
        let dir = settings.out.join(arm.run(seed));
        let pretraining = arm.pretraining.as_ref();
        let pretrained = pretraining
            .map(|pretraining| measured(&settings.out.join(pretraining.run(seed))))
            .transpose()?;
        let scores = &scores[&arm.run(seed)];
        Ok(StudyRun {
            seed,
            top1: scores.top1,
            validation_loss: scores.loss,
            pretrain_loss: pretrained.map(|(loss, ..)| loss),
            pretrain_seconds: pretrained.map_or(0.0, |(_, seconds, _)| seconds),
            pretrain_wait_seconds: pretrained.map_or(0.0, |(.., wait)| wait),
            finetune_seconds: measured(&dir)?.1,
            dir: dir.display().to_string(),
        })
    };
    let arms = arms.iter().map(|arm| {
        Ok(StudyArm {
            series: arm.series.to_owned(),
            name: arm.name.clone(),
            runs: seeds
                .clone()
                .map(|seed| of_run(arm, seed))
                .collect::<Result<_, StudyError>>()?,
        })
    });
    Ok(StudyReport {
        name: study.name().to_owned(),
        axis: study.axis().to_owned(),
        arms: arms.collect::<Result<_, StudyError>>()?,
    })
}

/// Calls `run` for all runs, `jobs` at a time in the order of their names; returns their results.
/// After an error no further run begins, and the others are stopped.
fn in_parallel<J: Send, R: Send>(
    settings: &Settings,
    runs: BTreeMap<String, J>,
    run: impl Fn(&str, J) -> Result<R, StudyError> + Sync,
) -> Result<BTreeMap<String, R>, StudyError> {
    let jobs = settings.jobs.min(runs.len());
    let waiting = Mutex::new(runs.into_iter());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || -> Result<Vec<(String, R)>, StudyError> {
        let mut results = Vec::new();
        while let Some((name, job)) = next() {
            if settings.stop.load(Ordering::SeqCst) {
                return Err(StudyError::Stopped);
            }
            let result =
                run(&name, job).inspect_err(|_| settings.stop.store(true, Ordering::SeqCst))?;
            results.push((name, result));
        }
        Ok(results)
    };
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    // The error that stopped the others comes first.
    let mut all = BTreeMap::new();
    let mut stopped = false;
    for result in results {
        match result {
            Ok(results) => all.extend(results),
            Err(StudyError::Stopped) => stopped = true,
            Err(error) => return Err(error),
        }
    }
    if stopped {
        Err(StudyError::Stopped)
    } else {
        Ok(all)
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

/// Runs one training to its end.
fn run(
    settings: &Settings,
    name: &str,
    task: Task,
    data: Arc<[WeightedSource]>,
    validation: Option<Arc<[WeightedSource]>>,
    start: Option<std::collections::HashMap<String, candle_core::Tensor>>,
    on_event: impl FnMut(Event<'_>),
) -> Result<Outcome, StudyError> {
    let dir = &settings.out.join(name);
    let write = |source| StudyError::Write {
        path: dir.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(write)?;
    let config = dir.join(CONFIG_FILE);
    if let Ok(saved) = Task::read(&config) {
        let differences = task.differences_that_matter(&saved);
        if !differences.is_empty() {
            return Err(StudyError::OtherSettings {
                path: dir.to_owned(),
                differences,
            });
        }
    }
    pipeline::atomic_file::write(&config, task.to_toml().as_bytes()).map_err(write)?;
    let run = Run {
        task,
        data,
        validation,
        init_weights: start,
        dir: dir.to_owned(),
        device: Device::Cpu,
        compute_threads: (settings.threads / settings.jobs).max(1),
        loading: settings.loading,
        stop: Arc::clone(&settings.stop),
    };
    let outcome = train::train(&run, on_event).map_err(|source| StudyError::Run {
        path: dir.to_owned(),
        source: Box::new(source),
    })?;
    if outcome.steps < outcome.all_steps || settings.stop.load(Ordering::SeqCst) {
        return Err(StudyError::Stopped);
    }
    Ok(outcome)
}

/// Reads the final loss of a run, the seconds of all its steps, and the seconds of waiting for data
/// among them.
fn measured(dir: &Path) -> Result<(f64, f64, f64), StudyError> {
    let steps = History::read(dir)?.steps;
    let last = &steps[steps.len().saturating_sub(LAST_STEPS)..];
    let loss = last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64;
    Ok((
        loss,
        steps.iter().map(|step| step.step_seconds).sum(),
        steps.iter().map(|step| step.wait_seconds).sum(),
    ))
}

/// Mean, minimum and maximum accuracy of an arm's runs, in %.
pub fn accuracy_range(arm: &StudyArm) -> [f64; 3] {
    let values = || arm.runs.iter().map(|run| 100.0 * run.top1);
    [
        values().sum::<f64>() / arm.runs.len() as f64,
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    ]
}

/// Renders the result as a Markdown table: mean and range over the seeds.
pub fn render_table(report: &StudyReport) -> String {
    let mut text = format!(
        "| | {} | accuracy, % (min to max) | pre-training loss | pre-training, s | fine-tuning, s \
         |\n",
        report.axis
    );
    text += "|---|---|---|---|---|---|\n";
    for arm in &report.arms {
        let [mean, least, most] = accuracy_range(arm);
        let average = |value: &dyn Fn(&StudyRun) -> f64| {
            arm.runs.iter().map(value).sum::<f64>() / arm.runs.len() as f64
        };
        let losses: Option<Vec<f64>> = arm.runs.iter().map(|run| run.pretrain_loss).collect();
        let loss = losses.map_or("-".to_owned(), |losses| {
            format!("{:.3}", losses.iter().sum::<f64>() / losses.len() as f64)
        });
        let seconds = average(&|run| run.pretrain_seconds);
        let seconds = if seconds > 0.0 {
            format!("{seconds:.0}")
        } else {
            "-".to_owned()
        };
        text += &format!(
            "| {} | {} | {mean:.1} ({least:.1} to {most:.1}) | {loss} | {seconds} | {:.0} |\n",
            arm.series,
            arm.name,
            average(&|run| run.finetune_seconds)
        );
    }
    text
}
