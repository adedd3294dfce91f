//! The loop: batch, loss, gradients, step; metrics and checkpoints on the way, a picture at the end.

use crate::checkpoint::{self, CheckpointError, Checkpoints, RunState, Unsound};
use crate::config::Config;
use crate::learner::{Learner, LearnerError};
use crate::metrics::MetricsFile;
use crate::visualise;
use candle_core::Device;
use pipeline::batch::{BatchFormat, Form, Skipped};
use pipeline::buffers::MemoryKind;
use pipeline::loader::{self, LoadError, Loader, LoaderOptions, Rank};
use pipeline::order::{Cursor, SampleId};
use pipeline::source::WeightedSource;
use schemas::report::StepMetrics;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Name of the picture inside the folder of a run.
pub const PICTURE_FILE: &str = "reconstruction.png";

/// Clips in the picture.
const PICTURE_CLIPS: usize = 3;

/// What a run needs.
pub struct Run {
    /// What to compute.
    pub config: Config,
    /// The clips.
    pub data: Arc<[WeightedSource]>,
    /// Folder of the run, which exists. When it holds a checkpoint, the run goes on from it.
    pub dir: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// How the clips are loaded.
    pub loading: Loading,
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
    Unsound(&'a Unsound),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Step at which this process began.
    pub resumed_from: u64,
    /// Steps done in all.
    pub steps: u64,
    /// Trainable values.
    pub parameters: usize,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The picture.
    pub picture: PathBuf,
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
        unsound.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    NoneSound {
        /// The run's folder.
        dir: PathBuf,
        /// All of them, the latest first.
        unsound: Vec<Unsound>,
    },
    /// The device.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The loss or the gradients' norm is no finite number.
    #[error(
        "step {step}: loss {loss}, gradient norm {grad_norm}; nothing was changed or deleted{}. Samples of this step: {}",
        checkpoint.as_ref().map_or(String::new(), |path| format!(", and the last checkpoint is {}", path.display())),
        samples.iter().map(|sample| format!("clip {} of epoch {}", sample.clip, sample.epoch)).collect::<Vec<_>>().join(", ")
    )]
    NotFinite {
        /// The step that failed.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradients' norm.
        grad_norm: f64,
        /// Its samples.
        samples: Vec<SampleId>,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The run began with other data.
    #[error("the run began with {began} clips and the data now has {now}: go on with the same shards, or start a new run")]
    OtherData {
        /// Clips when the run began.
        began: u64,
        /// Clips now.
        now: u64,
    },
    /// A file of the run cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RunError {
    fn write(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Write { path: path.to_owned(), source: source.into() }
    }
}

/// Trains to the end, from the last checkpoint in the run's folder if there is one. Calls `on_event` after each step, and when a clip is left out.
///
/// A run that was interrupted and resumed computes what an uninterrupted one does: weights, moments and the place in the data are all in
/// the checkpoint, and every random number is a function of seed and sample.
///
/// # Errors
/// When data, device or disk fail, or the loss is no longer finite.
pub fn pretrain(run: &Run, mut on_event: impl FnMut(Event<'_>)) -> Result<Outcome, RunError> {
    let Run { config, data, dir, .. } = run;
    let mut checkpoints = Checkpoints::new(dir, config);
    let (mut learner, mut state, mut last_checkpoint) = begin(run, &mut checkpoints, &mut on_event)?;
    let schedule = config.schedule(state.clips);
    let resumed_from = state.step;
    let mut metrics_file = MetricsFile::open(dir, state.step).map_err(|error| RunError::write(dir, error))?;
    if state.step < schedule.steps {
        let options = LoaderOptions { memory: learner.memory(), ..loader_options(config, run.loading, state.cursor) };
        let mut loader = Loader::new(Arc::clone(data), options)?;
        let mut step_began = Instant::now();
        while state.step < schedule.steps {
            let batch = loader.next().expect("after an error nothing is asked for")?;
            batch.skipped.iter().filter(|skipped| skipped.is_new).for_each(|skipped| on_event(Event::Skipped(skipped)));
            let (clips, wait, next, samples) = (batch.len(), batch.wait, batch.next, batch.samples.clone());
            let lr = schedule.rate(state.step);
            let loss = learner.accumulate(batch, 1.0)?;
            let grad_norm = learner.update(lr)?;
            if !loss.is_finite() || !grad_norm.is_finite() {
                return Err(RunError::NotFinite { step: state.step + 1, loss, grad_norm, samples, checkpoint: last_checkpoint });
            }
            state = RunState { step: state.step + 1, cursor: next, ..state };
            let step_seconds = step_began.elapsed().as_secs_f64();
            step_began = Instant::now();
            let metrics = StepMetrics {
                step: state.step,
                epoch: state.cursor.samples as f64 / state.clips as f64,
                loss,
                lr,
                grad_norm,
                clips_per_second: clips as f64 / step_seconds,
                step_seconds,
                wait_seconds: wait.as_secs_f64(),
                loader: loader.figures(),
            };
            metrics_file.push(&metrics).map_err(|error| RunError::write(dir, error))?;
            on_event(Event::Step(&metrics, schedule.steps));
            if state.step % config.checkpoints.every == 0 || state.step == schedule.steps {
                last_checkpoint = Some(checkpoints.save(&learner, state)?);
            }
        }
    }
    Ok(Outcome {
        resumed_from,
        steps: state.step,
        parameters: learner.parameter_count(),
        checkpoint: last_checkpoint.unwrap_or_default(),
        picture: draw_picture(run, &learner)?,
    })
}

/// What learns, its place in the data, and the checkpoint that both are of: those of the latest sound checkpoint, or those of a new run.
fn begin(
    run: &Run,
    checkpoints: &mut Checkpoints,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(Learner, RunState, Option<PathBuf>), RunError> {
    let Run { config, data, device, .. } = run;
    let clips = data.iter().map(|set| set.source.len() as u64).sum();
    let mut unsound = Vec::new();
    for path in checkpoints.newest_first()? {
        let reason = match checkpoints.load(&path) {
            Ok(loaded) if loaded.state.clips != clips => return Err(RunError::OtherData { began: loaded.state.clips, now: clips }),
            Ok(loaded) => {
                let state = loaded.state;
                match Learner::resumed(config, loaded, device) {
                    Ok(learner) => return Ok((learner, state, Some(path))),
                    Err(error) if checkpoint::is_unfit(&error) => Unsound { path: path.clone(), reason: error.to_string() },
                    Err(error) => return Err(error.into()),
                }
            }
            Err(reason) => reason,
        };
        on_event(Event::Unsound(&reason));
        checkpoints.leave_alone(&path);
        unsound.push(reason);
    }
    if unsound.is_empty() {
        return Ok((Learner::new(config, device)?, RunState::new(clips), None));
    }
    Err(RunError::NoneSound { dir: run.dir.clone(), unsound })
}

/// What the loader of a run is told.
pub fn loader_options(config: &Config, loading: Loading, start: Cursor) -> LoaderOptions {
    let Loading { threads, memory_bytes, max_bad } = loading;
    LoaderOptions {
        batch_size: config.data.batch_size,
        repeat: config.data.repeat,
        format: BatchFormat {
            grid: config.clip,
            mask_rule: config.masking,
            form: Form::Patches { slices: config.target.slices },
            values: config.data.values,
        },
        augmentation: config.augmentation(),
        seed: config.seed,
        rank: Rank::default(),
        threads,
        prefetch: 2 * threads,
        memory: MemoryKind::Host,
        memory_bytes,
        max_bad,
        start,
    }
}

fn draw_picture(run: &Run, learner: &Learner) -> Result<PathBuf, RunError> {
    let Run { config, data, dir, .. } = run;
    let examples = loader::examples(data, config.clip, config.masking, config.seed, PICTURE_CLIPS)?;
    let picture = visualise::reconstruction(learner, examples)?;
    let path = dir.join(PICTURE_FILE);
    picture.save(&path).map_err(|error| RunError::write(&path, error))?;
    Ok(path)
}
