//! The loop: batches, loss, gradients, step; metrics, pictures and checkpoints on the way, a report at the end.

pub mod checkpoint;
pub mod nonfinite;
pub mod probes;
pub mod run_folder;
pub mod weights;

use self::checkpoint::{CheckpointError, Checkpoints, InvalidCheckpoint, RunState};
use self::nonfinite::NONFINITE_FILE;
use self::run_folder::{FolderError, RunFolder};
use crate::backend::{Learner, LearnerError};
use crate::config::{FinetuneConfig, OnNonfinite, PretrainConfig, SafetyConfig, Task};
use crate::data::targets::SoftTargets;
use crate::eval::{self, EvaluateError, Scores};
use crate::log::{LogError, PICTURE_FILE, PICTURE_TAG, RunLog};
use crate::plot::reconstruction;
use candle_core::{Device, Tensor};
use pipeline::loader::batch::{BatchFormat, Form, Skipped};
use pipeline::loader::{self, LoadError, Loader, LoaderOptions};
use pipeline::sampling::order::{Cursor, SampleId};
use pipeline::source::{self, WeightedSource};
use schemas::geometry::PatchGrid;
use schemas::report::{NonfiniteBatch, NonfiniteStep, StepMetrics, ValidationMetrics};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clips in the picture.
const PICTURE_CLIPS: usize = 3;

/// What a run needs.
pub struct Run {
    /// What to compute.
    pub task: Task,
    /// The clips.
    pub data: Arc<[WeightedSource]>,
    /// Clips that a classifier is looked at with, and does not learn from; none where there are none.
    pub validation: Option<Arc<[WeightedSource]>>,
    /// Weights that a classifier's encoder begins with, under our names; none where it begins by chance.
    pub start: Option<HashMap<String, Tensor>>,
    /// Folder of the run, which exists. When it holds a checkpoint, the run goes on from it.
    pub dir: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Threads that compute, on the processor.
    pub compute_threads: usize,
    /// How the clips are loaded.
    pub loading: Loading,
    /// Set by whoever wants the run to stop: it then finishes the step in hand, unless that waits for data, and saves.
    pub stop: Arc<AtomicBool>,
}

/// How clips are loaded, as far as it does not decide what is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// Threads.
    pub threads: usize,
    /// Memory of the batches that are made ahead.
    pub memory_bytes: usize,
    /// Clips that may be bad before the run stops.
    pub max_bad: usize,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done, of so many in all.
    Step(&'a StepMetrics, u64),
    /// A clip cannot be read, and was left out for the first time.
    Skipped(&'a Skipped),
    /// A checkpoint cannot be used, and is left alone; the run goes on from the one before it.
    InvalidCheckpoint(&'a InvalidCheckpoint),
    /// Loss or gradients of a step were not finite, and it changed nothing; what it was is in the file.
    Nonfinite(&'a NonfiniteStep, &'a Path),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Step at which this process began.
    pub resumed_from: u64,
    /// Steps done in all.
    pub steps: u64,
    /// Steps of the whole run.
    pub all_steps: u64,
    /// Steps that changed nothing, because they were not finite.
    pub nonfinite: u64,
    /// Trainable values.
    pub parameters: usize,
    /// The last checkpoint; none where the run was stopped before its first step was done.
    pub checkpoint: Option<PathBuf>,
    /// The picture; none where the run was stopped, and of a classifier.
    pub picture: Option<PathBuf>,
    /// How the classifier did at its last look at the clips that are kept for that.
    pub validation: Option<ValidationMetrics>,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// None of the checkpoints can be used.
    #[error(
        "no checkpoint in {} can be used, and nothing was changed; put a sound copy in place, or start a new run with another --out:\n  {}",
        dir.display(),
        invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    NoneValid {
        /// The run's folder.
        dir: PathBuf,
        /// All of them, the latest first.
        invalid: Vec<InvalidCheckpoint>,
    },
    /// The device.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// Where the run is.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The loss or the gradients' norm is no finite number.
    #[error(
        "step {step}: loss {loss}, gradient norm {grad_norm}. Nothing was changed or deleted{}. Its clips and the configuration are in {}. Resumed, the run comes to \
         the same step: --resume --on-nonfinite skip goes on without it; if others follow, the learning rate (optimizer.base_lr) is too high",
        last(checkpoint.as_deref()),
        file.display()
    )]
    Nonfinite {
        /// The step that failed.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradients' norm.
        grad_norm: f64,
        /// Its samples.
        samples: Vec<SampleId>,
        /// Where all of this is written.
        file: PathBuf,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// More such steps than may be skipped.
    #[error(
        "step {step}: loss and gradients were not finite in more than {limit} steps{} ({key}). The weights are probably spoiled: start anew at a lower learning \
         rate (optimizer.base_lr){}. The steps are in {}",
        if *in_a_row { " in a row" } else { "" },
        last(checkpoint.as_deref()),
        file.display()
    )]
    TooManyNonfinite {
        /// The last of them.
        step: u64,
        /// The key of the configuration that sets the limit.
        key: &'static str,
        /// The limit.
        limit: u64,
        /// Whether it is of steps one after the other.
        in_a_row: bool,
        /// Where they are written.
        file: PathBuf,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The run began with other data.
    #[error("the run began with other data, of {began} clips, and this is of {now}: go on with the same data, or start a new run")]
    OtherData {
        /// Clips when the run began.
        began: u64,
        /// Clips now.
        now: u64,
    },
    /// The clips that are kept for validation.
    #[error("validation: {0}")]
    Validation(#[from] EvaluateError),
    /// What the user sees of the run.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another file of the run cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn last(checkpoint: Option<&Path>) -> String {
    checkpoint.map_or(String::new(), |path| format!("; the last checkpoint is {}", path.display()))
}

/// Trains to the end, from the last sound checkpoint in the run's folder if there is one. Calls `on_event` after each step, and whenever something is left out.
///
/// A run that was interrupted and resumed computes what an uninterrupted one does: weights, moments and the place in the data are all in
/// the checkpoint, and every random number is a function of seed and sample.
///
/// # Errors
/// When data, device or disk fail, the loss is no longer finite, or another process is at work in the folder.
pub fn train(run: &Run, on_event: impl FnMut(Event<'_>)) -> Result<Outcome, RunError> {
    let folder = RunFolder::take(&run.dir)?;
    train_in(run, &folder, on_event).or_else(|error| {
        if matches!(error, RunError::Checkpoint(_) | RunError::Log(_) | RunError::Write { .. }) {
            // Where the folder itself is gone, that is the reason to tell.
            folder.check()?;
        }
        Err(error)
    })
}

/// [`train`], in a folder that nobody else is at work in.
fn train_in(run: &Run, folder: &RunFolder, mut on_event: impl FnMut(Event<'_>)) -> Result<Outcome, RunError> {
    let mut checkpoints = Checkpoints::new(&run.dir, &run.task);
    let begun = begin(run, &mut checkpoints, &mut on_event)?;
    let mut log = RunLog::open(&run.dir, begun.1.step)?;
    let outcome = train_from(begun, run, folder, &checkpoints, &mut log, &mut on_event);
    if outcome.is_ok() {
        log.finish()?;
    } else if folder.check().is_ok() {
        // A report on what there is; the first failure is the one to tell.
        let _ = log.finish();
    }
    outcome
}

/// What learns, its place in the data, and the checkpoint that both are of.
type Begun = (Learner, RunState, Option<PathBuf>);

/// Trains from where the run has begun to its end, or until it is stopped.
fn train_from(
    (mut learner, mut state, mut last_checkpoint): Begun,
    run: &Run,
    folder: &RunFolder,
    checkpoints: &Checkpoints,
    log: &mut RunLog,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Outcome, RunError> {
    let Run { task, data, dir, stop, .. } = run;
    let mut saved = state.step;
    let schedule = task.common().schedule(state.clips);
    let resumed_from = state.step;
    let is_stopped = || stop.load(Ordering::SeqCst);
    let mut validation = None;
    if state.step < schedule.steps && !is_stopped() {
        let options = task_options(task, run.loading, state.cursor);
        let mut loader = Loader::new(Arc::clone(data), LoaderOptions { memory: learner.memory(), interrupt: Arc::clone(stop), ..options })?;
        let mut step_began = Instant::now();
        while state.step < schedule.steps && !is_stopped() {
            let lr = schedule.rate(state.step);
            let Some(taken) = take_step(&mut learner, &mut loader, task, lr, on_event)? else { break };
            folder.check()?;
            if !taken.is_finite() {
                state = skip_nonfinite(run, state, &taken, lr, last_checkpoint.as_deref(), on_event)?;
            } else {
                state.nonfinite_in_a_row = 0;
            }
            state = RunState { step: state.step + 1, cursor: taken.next, ..state };
            let step_seconds = step_began.elapsed().as_secs_f64();
            let looked = match validation_is_due(task, state.step, schedule.steps) {
                true => look(run, &mut learner, on_event)?,
                false => None,
            };
            step_began = Instant::now();
            let metrics = StepMetrics {
                step: state.step,
                epoch: state.cursor.samples as f64 / state.clips as f64,
                loss: taken.loss(),
                lr,
                grad_norm: taken.grad_norm,
                clips_per_second: taken.clips() as f64 / step_seconds,
                step_seconds,
                wait_seconds: taken.wait.as_secs_f64(),
                nonfinite: state.nonfinite,
                validation: looked,
                loader: loader.figures(),
            };
            validation = looked.or(validation);
            log.push(&metrics)?;
            on_event(Event::Step(&metrics, schedule.steps));
            if state.step % task.common().checkpoints.every == 0 || state.step == schedule.steps {
                // The picture comes first, so that no checkpoint is without it. But where it fails, the checkpoint is worth more.
                let drawn = draw_picture(run, &mut learner, state.step, log);
                last_checkpoint = Some(checkpoints.save(&learner, state)?);
                saved = state.step;
                drawn?;
            }
        }
    }
    let is_finished = state.step >= schedule.steps;
    if state.step > saved {
        last_checkpoint = Some(checkpoints.save(&learner, state)?);
    }
    if is_finished && state.step == resumed_from {
        draw_picture(run, &mut learner, state.step, log)?;
        validation = look(run, &mut learner, on_event)?;
    }
    let has_picture = is_finished && matches!(task, Task::Pretrain(_));
    Ok(Outcome {
        resumed_from,
        steps: state.step,
        all_steps: schedule.steps,
        nonfinite: state.nonfinite,
        parameters: learner.parameter_count(),
        checkpoint: last_checkpoint,
        picture: has_picture.then(|| dir.join(PICTURE_FILE)),
        validation,
    })
}

/// Whether a classifier is to be looked at after step `step` of `steps`.
const fn validation_is_due(task: &Task, step: u64, steps: u64) -> bool {
    match task {
        Task::Pretrain(_) => false,
        Task::Finetune(config) => step == steps || step.is_multiple_of(config.objective.validation.every),
    }
}

/// How a classifier does on the clips that are kept for that; nothing where there are none, or the run is to stop meanwhile.
fn look(run: &Run, learner: &mut Learner, on_event: &mut impl FnMut(Event<'_>)) -> Result<Option<ValidationMetrics>, RunError> {
    let (Task::Finetune(config), Some(data)) = (&run.task, &run.validation) else { return Ok(None) };
    let mut options = task_options(&run.task, run.loading, Cursor::default()).once(config.objective.validation.views());
    options.interrupt = Arc::clone(&run.stop);
    options.memory = learner.memory();
    let mut scores = Scores::new(config.objective.classes.len());
    let seen = eval::infer_all(
        data,
        options,
        |batch| learner.read(batch),
        |clips| {
            clips.iter().for_each(|clip| scores.add(&clip.probabilities, clip.label));
            Ok(())
        },
        |skipped| on_event(Event::Skipped(skipped)),
    );
    match seen {
        Err(EvaluateError::Load(LoadError::Interrupted)) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Some(scores.metrics())),
    }
}

/// Begins with the latest sound checkpoint, or anew.
fn begin(run: &Run, checkpoints: &mut Checkpoints, on_event: &mut impl FnMut(Event<'_>)) -> Result<Begun, RunError> {
    let Run { task, data, device, .. } = run;
    let clips = data.iter().map(|set| set.len() as u64).sum();
    let fingerprint = source::fingerprint(data);
    let is_other = |state: &RunState| state.clips != clips || state.data.is_some_and(|began| began != fingerprint);
    let mut invalid = Vec::new();
    for path in checkpoints.newest_first()? {
        let reason = match checkpoints.load(&path) {
            Ok(loaded) if is_other(&loaded.state) => return Err(RunError::OtherData { began: loaded.state.clips, now: clips }),
            Ok(loaded) => {
                let state = RunState { data: Some(fingerprint), ..loaded.state };
                match Learner::resumed(task, loaded.weights, loaded.moments, state.updates(), device, run.compute_threads) {
                    Ok(learner) => return Ok((learner, state, Some(path))),
                    Err(error) if checkpoint::is_unfit(&error) => InvalidCheckpoint { path: path.clone(), reason: error.to_string() },
                    Err(error) => return Err(error.into()),
                }
            }
            Err(reason) => reason,
        };
        on_event(Event::InvalidCheckpoint(&reason));
        checkpoints.mark_invalid(&path);
        invalid.push(reason);
    }
    if invalid.is_empty() {
        let state = RunState { data: Some(fingerprint), ..RunState::new(clips) };
        return Ok((Learner::new(task, run.start.clone(), device, run.compute_threads)?, state, None));
    }
    Err(RunError::NoneValid { dir: run.dir.clone(), invalid })
}

/// What a step has taken in, and what came of it.
struct Taken {
    /// Loss and samples of each batch.
    batches: Vec<(f64, Vec<SampleId>)>,
    grad_norm: f64,
    /// How long it waited for all of them.
    wait: Duration,
    next: Cursor,
}

impl Taken {
    fn loss(&self) -> f64 {
        self.batches.iter().map(|(loss, _)| loss).sum::<f64>() / self.batches.len() as f64
    }

    fn clips(&self) -> usize {
        self.batches.iter().map(|(_, samples)| samples.len()).sum()
    }

    fn is_finite(&self) -> bool {
        self.loss().is_finite() && self.grad_norm.is_finite()
    }
}

/// One step at rate `lr`; none where the run is to stop and a batch is still to come. What is not finite changes nothing.
fn take_step(
    learner: &mut Learner,
    loader: &mut Loader,
    task: &Task,
    lr: f64,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<Option<Taken>, RunError> {
    let batches = task.common().data.grad_accum;
    let mut taken = Taken { batches: Vec::with_capacity(batches), grad_norm: f64::NAN, wait: Duration::ZERO, next: Cursor::default() };
    for _ in 0..batches {
        let mut batch = match loader.next().expect("after an error nothing is asked for") {
            Err(LoadError::Interrupted) => {
                learner.discard();
                return Ok(None);
            }
            batch => batch?,
        };
        batch.skipped.iter().filter(|skipped| skipped.is_new).for_each(|skipped| on_event(Event::Skipped(skipped)));
        taken.wait += batch.wait;
        taken.next = batch.next;
        let samples = batch.samples.clone();
        let soft_targets = match task {
            Task::Pretrain(_) => None,
            Task::Finetune(config) => Some(SoftTargets::of(config, &mut batch)),
        };
        taken.batches.push((learner.accumulate(batch, soft_targets, 1.0 / batches as f64)?, samples));
    }
    if taken.loss().is_finite() {
        taken.grad_norm = learner.update(lr)?;
    } else {
        learner.discard();
    }
    Ok(Some(taken))
}

/// Writes down a step that was not finite, and counts it; an error where the run is not to go on without it.
fn skip_nonfinite(
    run: &Run,
    state: RunState,
    taken: &Taken,
    lr: f64,
    checkpoint: Option<&Path>,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<RunState, RunError> {
    let SafetyConfig { on_nonfinite, max_nonfinite, max_nonfinite_in_a_row } = run.task.common().safety.clone();
    let (file, checkpoint) = (run.dir.join(NONFINITE_FILE), checkpoint.map(Path::to_owned));
    let state = RunState { nonfinite: state.nonfinite + 1, nonfinite_in_a_row: state.nonfinite_in_a_row + 1, ..state };
    let limits = [
        (state.nonfinite, max_nonfinite, "safety.max_nonfinite", false),
        (state.nonfinite_in_a_row, max_nonfinite_in_a_row, "safety.max_nonfinite_in_a_row", true),
    ];
    let exceeded = limits.into_iter().find(|(count, limit, ..)| count > limit);
    let batches = taken.batches.iter().map(|(loss, samples)| NonfiniteBatch {
        loss: *loss,
        samples: samples.iter().map(|sample| nonfinite::described(sample, &run.data)).collect(),
    });
    let record = NonfiniteStep {
        step: state.step + 1,
        lr,
        loss: taken.loss(),
        grad_norm: taken.grad_norm,
        skipped: on_nonfinite == OnNonfinite::Skip && exceeded.is_none(),
        batches: batches.collect(),
        config: run.task.to_toml(),
    };
    nonfinite::append(&file, &record).map_err(|source| RunError::Write { path: file.clone(), source })?;
    let NonfiniteStep { step, loss, grad_norm, .. } = record;
    match (on_nonfinite, exceeded) {
        (OnNonfinite::Stop, _) => {
            let samples = taken.batches.iter().flat_map(|(_, samples)| samples.iter().copied()).collect();
            Err(RunError::Nonfinite { step, loss, grad_norm, samples, file, checkpoint })
        }
        (OnNonfinite::Skip, Some((_, limit, key, in_a_row))) => {
            Err(RunError::TooManyNonfinite { step, key, limit, in_a_row, file, checkpoint })
        }
        (OnNonfinite::Skip, None) => {
            on_event(Event::Nonfinite(&record, &file));
            Ok(state)
        }
    }
}

/// What the loader of a run is told.
pub fn task_options(task: &Task, loading: Loading, start: Cursor) -> LoaderOptions {
    match task {
        Task::Pretrain(config) => loader_options(config, loading, start),
        Task::Finetune(config) => classifier_options(config, loading, start),
    }
}

/// What the loader of a pre-training is told.
pub fn loader_options(config: &PretrainConfig, loading: Loading, start: Cursor) -> LoaderOptions {
    LoaderOptions {
        repeat: config.common.data.repeat_aug,
        format: BatchFormat {
            grid: config.common.clip,
            mask_rule: Some(config.objective.masking),
            form: Form::Patches { target: config.model().target_form() },
            values: config.common.data.values,
        },
        augmentation: config.common.augmentation(),
        seed: config.common.seed,
        start,
        ..loading.options(config.common.data.batch_size, config.common.clip)
    }
}

/// What the loader of a fine-tuning is told.
fn classifier_options(config: &FinetuneConfig, loading: Loading, start: Cursor) -> LoaderOptions {
    let options = loading.options(config.common.data.batch_size, config.common.clip);
    LoaderOptions {
        repeat: config.common.data.repeat_aug,
        format: BatchFormat { values: config.common.data.values, ..options.format },
        augmentation: config.common.augmentation(),
        policy: config.augment_policy(),
        seed: config.common.seed,
        start,
        ..options
    }
}

impl Loading {
    /// Batches of `batch_size` clips of `grid`, all tokens of each in `f32`, loaded so.
    pub fn options(self, batch_size: usize, grid: PatchGrid) -> LoaderOptions {
        let Self { threads, memory_bytes, max_bad } = self;
        LoaderOptions { threads, prefetch: 2 * threads, memory_bytes, max_bad, ..LoaderOptions::tokens(batch_size, grid) }
    }
}

/// Draws what an autoencoder makes of the same few clips each time.
fn draw_picture(run: &Run, learner: &mut Learner, step: u64, log: &mut RunLog) -> Result<(), RunError> {
    let Task::Pretrain(config) = &run.task else { return Ok(()) };
    let examples = loader::examples(&run.data, config.common.clip, config.objective.masking, config.common.seed, PICTURE_CLIPS)?;
    let picture = reconstruction::reconstruction(learner, examples)?;
    Ok(log.picture(step, &picture, PICTURE_TAG)?)
}
