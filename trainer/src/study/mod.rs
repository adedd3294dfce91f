//! The paper's findings in small: studies of what pre-training is worth, on data that anybody can make.

mod plan;
mod plot;

pub use plan::{Arm, Budget, Footage, Pretraining, Study};
pub use plot::draw;

use crate::config::{Config, Task};
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

/// Steps at the end of a pre-training of whose loss the mean is told.
const LAST_STEPS: usize = 50;

/// What a study is made of.
pub struct Material {
    /// Clips to pre-train on.
    pub unlabelled: Arc<[WeightedSource]>,
    /// Others to pre-train on, for [`Study::Footage`].
    pub other: Option<Arc<[WeightedSource]>>,
    /// Labelled clips to fine-tune on.
    pub train: Vec<WeightedSource>,
    /// Labelled clips to look at.
    pub validation: Vec<WeightedSource>,
}

/// How a study is done.
pub struct Settings {
    /// Folder of all its runs.
    pub out: PathBuf,
    /// Runs of each arm, whose seeds are 0, 1, ...
    pub seeds: u64,
    /// How long they take.
    pub budget: Budget,
    /// How clips are loaded.
    pub loading: Loading,
    /// Threads that compute.
    pub threads: usize,
    /// Set by whoever wants to stop.
    pub stop: Arc<AtomicBool>,
}

/// Why a study has no result.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// One of its runs.
    #[error("{}: {source}", path.display())]
    Run {
        /// Which run.
        path: PathBuf,
        /// What is wrong.
        source: Box<RunError>,
    },
    /// Classes and videos.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// A pre-training that is done cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// What a run has measured cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The other footage is missing.
    #[error("the study of footage needs other footage to pre-train on: --other")]
    NoOther,
    /// The folder holds runs of other settings.
    #[error("{} holds a run of other settings: {}; choose another --out", path.display(), differences.join("; "))]
    OtherSettings {
        /// Which run.
        path: PathBuf,
        /// What differs.
        differences: Vec<String>,
    },
    /// It was stopped.
    #[error("stopped; the same command goes on")]
    Stopped,
}

/// Does a study: every arm with every seed, one after the other. Runs that are done are not done again, and one that was interrupted goes on. `on_run` hears which
/// of how many begins, and `on_event` what a run tells.
///
/// # Errors
/// When a run fails, or it is stopped.
pub fn study(
    study: Study,
    material: &Material,
    settings: &Settings,
    mut on_run: impl FnMut(usize, usize, &str),
    mut on_event: impl FnMut(Event<'_>),
) -> Result<StudyReport, StudyError> {
    let names = classes::of_all(&material.train)?;
    let train = classes::number(material.train.clone(), &names, true)?;
    let validation = classes::number(material.validation.clone(), &names, true)?;
    let arms = study.arms(settings.budget);
    let all = arms.len() * settings.seeds as usize;
    let few = material.other.as_ref().map(|other| spread_over(&material.unlabelled, other.iter().map(WeightedSource::len).sum()));
    let footage = |footage| {
        let sets = match footage {
            Footage::OfTheTask => Some(&material.unlabelled),
            Footage::AsFew => few.as_ref(),
            Footage::Other => material.other.as_ref(),
        };
        sets.cloned().ok_or(StudyError::NoOther)
    };
    // What is missing is said before anything is computed.
    for pretraining in arms.iter().filter_map(|arm| arm.pretraining.as_ref()) {
        footage(pretraining.footage)?;
    }
    let mut report = StudyReport { name: study.name().to_owned(), axis: study.axis().to_owned(), arms: Vec::new() };
    for (number, arm) in arms.iter().enumerate() {
        let mut runs = Vec::new();
        for seed in 0..settings.seeds {
            on_run(number * settings.seeds as usize + seed as usize + 1, all, &format!("{}, {}, seed {seed}", arm.series, arm.name));
            let (mut start, mut pretrained) = (None, None);
            if let Some(pretraining) = &arm.pretraining {
                let dir = settings.out.join(format!("pretrain-{}-{seed}", pretraining.key));
                let task = Task::from(Config { seed, ..pretraining.config.clone() });
                run(settings, &dir, task, footage(pretraining.footage)?, None, None, &mut on_event)?;
                start = Some(Weights::open(&dir)?.tensors);
                pretrained = Some(measured(&dir)?);
            }
            let dir = settings.out.join(format!("finetune-{}-{seed}", arm.key()));
            let config = plan::finetuning(arm, &names, seed);
            let split = classes::split(train.clone(), Some(validation.clone()), &names, 0.0, Some(arm.videos_per_class), seed)?;
            let outcome = run(settings, &dir, config.into(), split.train, split.validation, start, &mut on_event)?;
            let scores = outcome.validation.expect("a finished fine-tuning was looked at");
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
        report.arms.push(StudyArm { series: arm.series.to_owned(), name: arm.name.clone(), runs });
    }
    Ok(report)
}

/// About `wanted` clips of `sets`, and no fewer than one of each, evenly spread.
fn spread_over(sets: &[WeightedSource], wanted: usize) -> Arc<[WeightedSource]> {
    let all: usize = sets.iter().map(WeightedSource::len).sum();
    let some_of = |set: &WeightedSource| {
        let count = (set.len() * wanted / all.max(1)).max(1).min(set.len());
        let chosen = (0..count).map(|at| set.number(at * set.len() / count) as u32).collect();
        WeightedSource { chosen: Some(chosen), ..set.clone() }
    };
    sets.iter().map(some_of).collect()
}

/// One run, to its end.
fn run(
    settings: &Settings,
    dir: &Path,
    task: Task,
    data: Arc<[WeightedSource]>,
    validation: Option<Arc<[WeightedSource]>>,
    start: Option<std::collections::HashMap<String, candle_core::Tensor>>,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Outcome, StudyError> {
    let write = |source| StudyError::Write { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(write)?;
    let config = dir.join(CONFIG_FILE);
    if let Ok(saved) = Task::read(&config) {
        let differences = task.differences_that_matter(&saved);
        if !differences.is_empty() {
            return Err(StudyError::OtherSettings { path: dir.to_owned(), differences });
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
    let outcome = train::train(&run, on_event).map_err(|source| StudyError::Run { path: dir.to_owned(), source: Box::new(source) })?;
    if outcome.steps < outcome.all_steps || settings.stop.load(Ordering::SeqCst) {
        return Err(StudyError::Stopped);
    }
    Ok(outcome)
}

/// The loss at the end of a run, how long its steps took, and how long of that they waited for data.
fn measured(dir: &Path) -> Result<(f64, f64, f64), StudyError> {
    let steps = History::read(dir)?.steps;
    let last = &steps[steps.len().saturating_sub(LAST_STEPS)..];
    let loss = last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64;
    Ok((loss, steps.iter().map(|step| step.step_seconds).sum(), steps.iter().map(|step| step.wait_seconds).sum()))
}

/// Mean, least and greatest accuracy of an arm's runs, in %.
pub fn spread(arm: &StudyArm) -> [f64; 3] {
    let values = || arm.runs.iter().map(|run| 100.0 * run.top1);
    [values().sum::<f64>() / arm.runs.len() as f64, values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)]
}

/// The result as a table of Markdown: mean and spread over the seeds.
pub fn table(report: &StudyReport) -> String {
    let mut text = format!("| | {} | accuracy, % (least to most) | pre-training loss | pre-training, s | fine-tuning, s |\n", report.axis);
    text += "|---|---|---|---|---|---|\n";
    for arm in &report.arms {
        let [mean, least, most] = spread(arm);
        let average = |value: &dyn Fn(&StudyRun) -> f64| arm.runs.iter().map(value).sum::<f64>() / arm.runs.len() as f64;
        let losses: Option<Vec<f64>> = arm.runs.iter().map(|run| run.pretrain_loss).collect();
        let loss = losses.map_or("-".to_owned(), |losses| format!("{:.3}", losses.iter().sum::<f64>() / losses.len() as f64));
        let seconds = average(&|run| run.pretrain_seconds);
        let seconds = if seconds > 0.0 { format!("{seconds:.0}") } else { "-".to_owned() };
        text += &format!(
            "| {} | {} | {mean:.1} ({least:.1} to {most:.1}) | {loss} | {seconds} | {:.0} |\n",
            arm.series,
            arm.name,
            average(&|run| run.finetune_seconds)
        );
    }
    text
}
