//! Small-scale reproductions of the paper's findings about pre-training, on synthetic data.

mod plan;
mod plot;

pub use plan::{Arm, Budget, Footage, Pretraining, Study};
pub use plot::draw;

use crate::config::Task;
use crate::data::classes::{self, ClassError};
use crate::log::{CONFIG_FILE, History, HistoryError};
use crate::train::weights::{Weights, WeightsError};
use crate::train::{self, Event, Loading, Outcome, Run, RunError};
use candle_core::Device;
use pipeline::source::WeightedSource;
use schemas::report::{StudyArm, StudyReport, StudyRun};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Steps at the end of a pre-training over which the reported loss is averaged.
const LAST_STEPS: usize = 50;

/// The data of a study.
pub struct StudyData {
    /// Clips to pre-train on.
    pub unlabelled: Arc<[WeightedSource]>,
    /// Other footage to pre-train on, for [`Study::Footage`].
    pub other: Option<Arc<[WeightedSource]>>,
    /// Labelled clips to fine-tune on.
    pub train: Vec<WeightedSource>,
    /// Labelled clips for validation.
    pub validation: Vec<WeightedSource>,
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
    /// Compute threads.
    pub threads: usize,
    /// Set to stop the study.
    pub stop: Arc<AtomicBool>,
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

/// Runs a study: every arm with every seed, one after the other. Finished runs are not repeated,
/// and an interrupted one is resumed. Calls `on_run` with number, total and name of each run, and
/// `on_event` for the events of a run.
///
/// # Errors
/// When a run fails, or the study is stopped.
pub fn study(
    study: Study,
    data: &StudyData,
    settings: &Settings,
    mut on_run: impl FnMut(usize, usize, &str),
    mut on_event: impl FnMut(Event<'_>),
) -> Result<StudyReport, StudyError> {
    let names = classes::of_all(&data.train)?;
    let train = classes::number(data.train.clone(), &names, true)?;
    let validation = classes::number(data.validation.clone(), &names, true)?;
    let arms = study.arms(settings.budget);
    let all = arms.len() * settings.seeds as usize;
    let few = data.other.as_ref().map(|other| {
        spread_over(
            &data.unlabelled,
            other.iter().map(WeightedSource::len).sum(),
        )
    });
    let footage = |footage| {
        let sets = match footage {
            Footage::OfTheTask => Some(&data.unlabelled),
            Footage::AsFew => few.as_ref(),
            Footage::Other => data.other.as_ref(),
        };
        sets.cloned().ok_or(StudyError::NoOther)
    };
    // Fail before anything is computed.
    for pretraining in arms.iter().filter_map(|arm| arm.pretraining.as_ref()) {
        footage(pretraining.footage)?;
    }
    let mut report = StudyReport {
        name: study.name().to_owned(),
        axis: study.axis().to_owned(),
        arms: Vec::new(),
    };
    for (number, arm) in arms.iter().enumerate() {
        let mut runs = Vec::new();
        for seed in 0..settings.seeds {
            on_run(
                number * settings.seeds as usize + seed as usize + 1,
                all,
                &format!("{}, {}, seed {seed}", arm.series, arm.name),
            );
            let mut start = None;
            let mut pretrained = None;
            if let Some(pretraining) = &arm.pretraining {
                let dir = settings
                    .out
                    .join(format!("pretrain-{}-{seed}", pretraining.key));
                let task = Task::from(pretraining.config.clone()).with_seed(seed);
                run(
                    settings,
                    &dir,
                    task,
                    footage(pretraining.footage)?,
                    None,
                    None,
                    &mut on_event,
                )?;
                start = Some(Weights::open(&dir)?.tensors);
                pretrained = Some(measured(&dir)?);
            }
            let dir = settings.out.join(format!("finetune-{}-{seed}", arm.key()));
            let config = plan::finetuning(arm, &names, seed);
            let split = classes::split(
                train.clone(),
                Some(validation.clone()),
                &names,
                0.0,
                Some(arm.videos_per_class),
                seed,
            )?;
            let outcome = run(
                settings,
                &dir,
                config.into(),
                split.train,
                split.validation,
                start,
                &mut on_event,
            )?;
            let scores = outcome
                .validation
                .expect("a finished fine-tuning was validated");
            let (_, finetune_seconds, _) = measured(&dir)?;
            runs.push(StudyRun {
                seed,
                top1: scores.top1,
                validation_loss: scores.loss,
                pretrain_loss: pretrained.map(|(loss, ..)| loss),
                pretrain_seconds: pretrained.map_or(0.0, |(_, seconds, _)| seconds),
                pretrain_wait_seconds: pretrained.map_or(0.0, |(.., wait)| wait),
                finetune_seconds,
                dir: dir.display().to_string(),
            });
        }
        report.arms.push(StudyArm {
            series: arm.series.to_owned(),
            name: arm.name.clone(),
            runs,
        });
    }
    Ok(report)
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
    dir: &Path,
    task: Task,
    data: Arc<[WeightedSource]>,
    validation: Option<Arc<[WeightedSource]>>,
    start: Option<std::collections::HashMap<String, candle_core::Tensor>>,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Outcome, StudyError> {
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
        compute_threads: settings.threads,
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
