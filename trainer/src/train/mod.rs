//! The train loop: batches, gradients, updates; metrics, pictures, validation and checkpoints on
//! the way, and a report at the end.

pub mod checkpoint;
mod loading;
pub mod nonfinite;
mod objective;
mod outcome;
pub mod probes;
pub mod run_folder;
mod step;
pub mod weights;

pub use loading::{Loading, loader_options, task_options};
pub use outcome::{Event, Outcome, RunError};

use self::checkpoint::{Checkpoints, InvalidCheckpoint, RunState};
use self::objective::Objective;
use self::outcome::OnEvent;
use self::run_folder::RunFolder;
use self::step::Step;
use crate::backend::SavedLearner;
use crate::config::Task;
use crate::log::{PICTURE_FILE, RunLog};
use crate::optim::Schedule;
use crate::ranks::Ranks;
use candle_core::{Device, Tensor};
use pipeline::loader::{LoadError, Loader, LoaderOptions, Rank};
use pipeline::simd;
use pipeline::source::{self, WeightedSource};
use schemas::report::{RanksFigures, StepMetrics, ValidationMetrics};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The inputs of a run.
pub struct Run {
    /// The configuration: all that decides the results.
    pub task: Task,
    /// The clips to train on.
    pub data: Arc<[WeightedSource]>,
    /// The clips to validate a classifier on; none where there are none.
    pub validation: Option<Arc<[WeightedSource]>>,
    /// Initial weights of a classifier's encoder, under our names; none for random initialisation.
    pub init_weights: Option<HashMap<String, Tensor>>,
    /// Folder of the run, which exists. When it holds a checkpoint, the run resumes from it.
    pub dir: PathBuf,
    /// The device to compute on.
    pub device: Device,
    /// Number of threads that compute on the CPU.
    pub compute_threads: usize,
    /// How the clips are loaded.
    pub loading: Loading,
    /// Set to stop the run: it finishes the current step, unless that waits for data, and saves.
    pub stop: Arc<AtomicBool>,
}

impl Run {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Trains to the end, from the last valid checkpoint in the run's folder if there is one. Calls
/// `on_event` after each step, and whenever something is skipped.
///
/// A run that was interrupted and resumed computes the same as an uninterrupted one: weights,
/// moments and the place in the data are all in the checkpoint, and every random number is a
/// function of seed and sample.
///
/// # Errors
/// When data, device or disk fail, the loss is no longer finite, or another process uses the
/// folder.
pub fn train(run: &Run, on_event: impl FnMut(Event<'_>)) -> Result<Outcome, RunError> {
    train_with(&Ranks::alone(), run, on_event)
}

/// [`train`] with other ranks, which all call this after [`check_alike`]. Rank 0 reads and writes
/// the run's folder, and only it has events.
///
/// # Errors
/// As [`train`], on the rank that fails: the others wait for it until it aborts them
/// ([`Ranks::abort`]).
pub fn train_with(
    ranks: &Ranks,
    run: &Run,
    mut on_event: impl FnMut(Event<'_>),
) -> Result<Outcome, RunError> {
    let count = ranks.count();
    let batch_size = run.task.common().data.batch_size;
    if !batch_size.is_multiple_of(count) {
        return Err(RunError::UnevenBatch { batch_size, count });
    }
    if !ranks.is_root() {
        return TrainLoop::start(run, ranks, None, &mut on_event)?.run();
    }
    let folder = RunFolder::take(&run.dir)?;
    train_in(run, ranks, &folder, &mut on_event).or_else(|error| {
        if matches!(
            error,
            RunError::Checkpoint(_) | RunError::Log(_) | RunError::Write { .. }
        ) {
            // Where the folder itself is gone, that is the reason to report.
            folder.check()?;
        }
        Err(error)
    })
}

/// Checks that all ranks are about to do the same run.
///
/// # Errors
/// [`crate::ranks::RanksError::Unlike`] where they differ, on all of them.
pub fn check_alike(ranks: &Ranks, run: &Run) -> Result<(), RunError> {
    let state = new_state(run);
    let data = format!(
        "{} clips, {:016x}",
        state.clips,
        state.data.unwrap_or_default()
    );
    ranks.check_program(simd::chosen().map_err(LoadError::from)?)?;
    ranks.check("data", &data)?;
    Ok(ranks.check("configuration", &run.task.to_toml())?)
}

/// [`train_with`] on rank 0, in a folder that no other process uses.
fn train_in(
    run: &Run,
    ranks: &Ranks,
    folder: &RunFolder,
    on_event: OnEvent<'_>,
) -> Result<Outcome, RunError> {
    let mut train_loop = TrainLoop::start(run, ranks, Some(folder), on_event)?;
    let outcome = train_loop.run();
    let Some(root) = train_loop.root else {
        return outcome;
    };
    if outcome.is_ok() {
        root.log.finish()?;
    } else if folder.check().is_ok() {
        // A report on the steps that were done; the first failure is the one to return.
        let _ = root.log.finish();
    }
    outcome
}

/// A run in progress.
struct TrainLoop<'a> {
    run: &'a Run,
    ranks: &'a Ranks,
    /// None on the other ranks than 0.
    root: Option<RootFiles<'a>>,
    on_event: OnEvent<'a>,
    objective: Objective<'a>,
    state: RunState,
    saved_step: u64,
    /// Data set and clip of those that a rank has skipped.
    bad: HashSet<(u32, u64)>,
    /// The last validation.
    validation: Option<ValidationMetrics>,
}

/// What rank 0 writes.
struct RootFiles<'a> {
    folder: &'a RunFolder,
    checkpoints: Checkpoints,
    log: RunLog,
    last_checkpoint: Option<PathBuf>,
}

impl<'a> TrainLoop<'a> {
    fn start(
        run: &'a Run,
        ranks: &'a Ranks,
        folder: Option<&'a RunFolder>,
        on_event: OnEvent<'a>,
    ) -> Result<Self, RunError> {
        let (mut start, files) = match folder {
            Some(folder) => {
                let mut checkpoints = Checkpoints::new(&run.dir, &run.task);
                let start = Start::find(run, &mut checkpoints, on_event)?;
                (start, Some((folder, checkpoints)))
            }
            None => (Start::new(run)?, None),
        };
        start.share(ranks)?;
        let Start {
            objective,
            state,
            checkpoint,
        } = start;
        let root = match files {
            Some((folder, checkpoints)) => Some(RootFiles {
                folder,
                checkpoints,
                log: RunLog::open(&run.dir, state.step)?,
                last_checkpoint: checkpoint,
            }),
            None => None,
        };
        Ok(Self {
            run,
            ranks,
            root,
            on_event,
            objective,
            saved_step: state.step,
            state,
            bad: HashSet::new(),
            validation: None,
        })
    }

    /// Whether the run is stopped, on any rank.
    fn is_stopped(&self) -> bool {
        self.ranks.any(self.run.is_stopped())
    }

    /// Trains to the end of the run, or until it is stopped.
    fn run(&mut self) -> Result<Outcome, RunError> {
        let schedule = self.run.task.common().schedule(self.state.clips);
        let resumed_from = self.state.step;
        if self.state.step < schedule.steps && !self.is_stopped() {
            self.take_steps(&schedule)?;
        }
        let is_finished = self.state.step >= schedule.steps;
        if self.state.step > self.saved_step {
            self.save()?;
        }
        if is_finished && self.state.step == resumed_from {
            // It was finished before: its picture and validation are made again.
            self.draw()?;
            self.validation = self.validate()?;
        }
        let has_picture = is_finished && self.objective.has_picture();
        Ok(Outcome {
            resumed_from,
            steps: self.state.step,
            all_steps: schedule.steps,
            nonfinite: self.state.nonfinite,
            parameters: self.objective.learner().parameter_count(),
            checkpoint: self.last_checkpoint(),
            picture: has_picture.then(|| self.run.dir.join(PICTURE_FILE)),
            validation: self.validation,
        })
    }

    fn take_steps(&mut self, schedule: &Schedule) -> Result<(), RunError> {
        let mut loader = self.loader()?;
        let mut step_began = Instant::now();
        while self.state.step < schedule.steps && !self.is_stopped() {
            let lr = schedule.rate(self.state.step);
            let Some(step) = self.take_step(&mut loader, lr)? else {
                break;
            };
            if let Some(root) = &self.root {
                root.folder.check()?;
            }
            self.advance(&step)?;
            let seconds = step_began.elapsed().as_secs_f64();
            let is_due = self
                .objective
                .validation_is_due(self.state.step, schedule.steps);
            let validation = if is_due { self.validate()? } else { None };
            step_began = Instant::now();
            self.validation = validation.or(self.validation);
            let metrics = self.metrics(&step, seconds, validation, &loader);
            if let Some(root) = &mut self.root {
                root.log.push(&metrics)?;
                (self.on_event)(Event::Step(&metrics, schedule.steps));
            }
            let is_last = self.state.step == schedule.steps;
            if is_last
                || self
                    .state
                    .step
                    .is_multiple_of(self.run.task.common().checkpoints.every)
            {
                // The picture comes first, so that no checkpoint is without it. But where it fails,
                // the checkpoint is worth more.
                let drawn = self.draw();
                self.save()?;
                drawn?;
            }
        }
        Ok(())
    }

    fn loader(&self) -> Result<Loader, RunError> {
        let options = self
            .objective
            .loader_options(self.run.loading, self.state.cursor);
        let interrupt = Arc::clone(&self.run.stop);
        let (number, of) = (self.ranks.number(), self.ranks.count());
        Ok(Loader::new(
            Arc::clone(&self.run.data),
            LoaderOptions {
                interrupt,
                rank: Rank { number, of },
                keeps_empty: true,
                ..options
            },
        )?)
    }

    /// Counts a step that was taken.
    fn advance(&mut self, step: &Step) -> Result<(), RunError> {
        if step.is_finite() {
            self.state.nonfinite_in_a_row = 0;
        } else {
            self.skip_nonfinite(step)?;
        }
        self.state.step += 1;
        self.state.cursor = step.next;
        Ok(())
    }

    fn metrics(
        &self,
        step: &Step,
        step_seconds: f64,
        validation: Option<ValidationMetrics>,
        loader: &Loader,
    ) -> StepMetrics {
        StepMetrics {
            step: self.state.step,
            epoch: self.state.cursor.samples as f64 / self.state.clips as f64,
            loss: step.loss(),
            lr: step.lr,
            grad_norm: step.grad_norm,
            clips_per_second: step.clips as f64 / step_seconds,
            step_seconds,
            wait_seconds: step.wait.as_secs_f64(),
            nonfinite: self.state.nonfinite,
            validation,
            ranks: (self.ranks.count() > 1).then(|| RanksFigures {
                count: self.ranks.count(),
                sum_seconds: step.sums.all.as_secs_f64(),
                exposed_seconds: step.sums.exposed.as_secs_f64(),
            }),
            loader: loader.figures(),
        }
    }

    fn validate(&mut self) -> Result<Option<ValidationMetrics>, RunError> {
        self.objective.validate(self.run, self.ranks, self.on_event)
    }

    fn draw(&mut self) -> Result<(), RunError> {
        match &mut self.root {
            Some(root) => self
                .objective
                .draw(self.run, self.state.step, &mut root.log),
            None => Ok(()),
        }
    }

    /// The last checkpoint.
    fn last_checkpoint(&self) -> Option<PathBuf> {
        self.root.as_ref()?.last_checkpoint.clone()
    }

    fn save(&mut self) -> Result<(), RunError> {
        if let Some(root) = &mut self.root {
            let path = root
                .checkpoints
                .save(self.objective.learner(), self.state)?;
            root.last_checkpoint = Some(path);
        }
        self.saved_step = self.state.step;
        Ok(())
    }
}

/// The state of a new run.
fn new_state(run: &Run) -> RunState {
    let clips = run.data.iter().map(|set| set.len() as u64).sum();
    RunState {
        data: Some(source::fingerprint(&run.data)),
        ..RunState::new(clips)
    }
}

/// Where a run starts.
struct Start<'a> {
    objective: Objective<'a>,
    state: RunState,
    /// The checkpoint that it resumes from.
    checkpoint: Option<PathBuf>,
}

impl<'a> Start<'a> {
    /// The beginning of a new run.
    fn new(run: &'a Run) -> Result<Self, RunError> {
        Ok(Self {
            objective: Objective::new(run)?,
            state: new_state(run),
            checkpoint: None,
        })
    }

    /// Makes this the start of all ranks, as it is that of rank 0.
    fn share(&mut self, ranks: &Ranks) -> Result<(), RunError> {
        if ranks.count() == 1 {
            return Ok(());
        }
        let own = serde_json::to_vec(&self.state).expect("plain numbers");
        let of_root = &ranks.gather_bytes(&own)[0];
        self.state = serde_json::from_slice(of_root).expect("as rank 0 has written it");
        let updates = self.state.updates();
        let learner = self.objective.learner_mut();
        Ok(learner.replace(updates, &mut |values| ranks.broadcast(values))?)
    }

    /// The latest valid checkpoint, or the beginning where there is no checkpoint.
    fn find(
        run: &'a Run,
        checkpoints: &mut Checkpoints,
        on_event: OnEvent<'_>,
    ) -> Result<Self, RunError> {
        let new = new_state(run);
        let mut invalid = Vec::new();
        for path in checkpoints.newest_first()? {
            let reason = match Self::resume(run, checkpoints, &path, &new)? {
                Ok(start) => return Ok(start),
                Err(reason) => reason,
            };
            on_event(Event::InvalidCheckpoint(&reason));
            checkpoints.mark_invalid(&path);
            invalid.push(reason);
        }
        if invalid.is_empty() {
            return Self::new(run);
        }
        Err(RunError::NoneValid {
            dir: run.dir.clone(),
            invalid,
        })
    }

    /// The checkpoint at `path`, or why it is invalid. `new` is the state of a new run on the data.
    fn resume(
        run: &'a Run,
        checkpoints: &Checkpoints,
        path: &Path,
        new: &RunState,
    ) -> Result<Result<Self, InvalidCheckpoint>, RunError> {
        let loaded = match checkpoints.load(path) {
            Ok(loaded) => loaded,
            Err(reason) => return Ok(Err(reason)),
        };
        let began = loaded.state;
        if began.clips != new.clips || began.data.is_some_and(|data| Some(data) != new.data) {
            return Err(RunError::OtherData {
                began: began.clips,
                now: new.clips,
            });
        }
        let state = RunState {
            data: new.data,
            ..began
        };
        let saved = SavedLearner {
            weights: loaded.weights,
            moments: loaded.moments,
            updates: state.updates(),
        };
        match Objective::resumed(run, saved) {
            Ok(objective) => Ok(Ok(Self {
                objective,
                state,
                checkpoint: Some(path.to_owned()),
            })),
            Err(error) if checkpoint::is_unfit(&error) => Ok(Err(InvalidCheckpoint {
                path: path.to_owned(),
                reason: error.to_string(),
            })),
            Err(error) => Err(error.into()),
        }
    }
}
