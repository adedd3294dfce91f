//! The loop: batch, loss, gradients, step; metrics and checkpoints on the way, a picture at the end.

use crate::checkpoint::{self, CheckpointError, Checkpoints, RunState};
use crate::config::Config;
use crate::data::{DeviceBatch, Uploader};
use crate::metrics::MetricsFile;
use crate::model::{Mae, ParameterError};
use crate::optimizer::AdamW;
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
    /// The weights in a checkpoint.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The device.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
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
    let Run { config, data, dir, device, .. } = run;
    let checkpoints = Checkpoints::new(dir, config.checkpoints.keep);
    let mut last_checkpoint = checkpoints.latest()?;
    let (model, mut optimizer, mut state) = begin(run, last_checkpoint.as_deref())?;
    let schedule = config.schedule(state.clips);
    let resumed_from = state.step;
    let mut metrics_file = MetricsFile::open(dir, state.step).map_err(|error| RunError::write(dir, error))?;
    if state.step < schedule.steps {
        let uploader = Uploader::new(device)?;
        let options = LoaderOptions { memory: uploader.memory(), ..loader_options(config, run.loading, state.cursor) };
        let mut loader = Loader::new(Arc::clone(data), options)?;
        let mut step_began = Instant::now();
        while state.step < schedule.steps {
            let batch = loader.next().expect("after an error nothing is asked for")?;
            batch.skipped.iter().filter(|skipped| skipped.is_new).for_each(|skipped| on_event(Event::Skipped(skipped)));
            let (clips, wait, next, samples) = (batch.len(), batch.wait, batch.next, batch.samples.clone());
            let lr = schedule.rate(state.step);
            let (loss, grad_norm) = step(&model, &mut optimizer, &uploader.upload(batch)?, lr)?;
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
                last_checkpoint = Some(checkpoints.save(model.parameters(), &optimizer, state)?);
            }
        }
    }
    Ok(Outcome {
        resumed_from,
        steps: state.step,
        parameters: model.parameters().count(),
        checkpoint: last_checkpoint.unwrap_or_default(),
        picture: draw_picture(run, &model)?,
    })
}

/// Model, optimiser and place in the data: those of `checkpoint`, or those of a new run.
fn begin(run: &Run, checkpoint: Option<&Path>) -> Result<(Mae, AdamW, RunState), RunError> {
    let Run { config, data, device, .. } = run;
    let clips = data.iter().map(|set| set.source.len() as u64).sum();
    let Some(path) = checkpoint else {
        let model = Mae::seeded(config.model(), config.seed, device)?;
        let optimizer = AdamW::new(model.parameters(), config.optimizer.clone())?;
        return Ok((model, optimizer, RunState { step: 0, cursor: Cursor::default(), clips }));
    };
    let loaded = checkpoint::load(path, device)?;
    if loaded.state.clips != clips {
        return Err(RunError::OtherData { began: loaded.state.clips, now: clips });
    }
    let model = Mae::given(config.model(), loaded.weights, device)?;
    let mut optimizer = AdamW::new(model.parameters(), config.optimizer.clone())?;
    optimizer.restore(loaded.optimizer, loaded.state.step)?;
    Ok((model, optimizer, loaded.state))
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

/// One step of training; gives its loss and the gradients' norm before clipping. When either is not finite, nothing is changed.
///
/// # Errors
/// When the device fails.
pub fn step(model: &Mae, optimizer: &mut AdamW, batch: &DeviceBatch, lr: f64) -> candle_core::Result<(f64, f64)> {
    let loss = model.loss(batch)?;
    let value = f64::from(loss.to_scalar::<f32>()?);
    if !value.is_finite() {
        return Ok((value, f64::NAN));
    }
    Ok((value, optimizer.step(&loss.backward()?, lr)?))
}

fn draw_picture(run: &Run, model: &Mae) -> Result<PathBuf, RunError> {
    let Run { config, data, dir, device, .. } = run;
    let examples = loader::examples(data, config.clip, config.masking, config.seed, PICTURE_CLIPS)?;
    let picture = visualise::reconstruction(model, examples, device)?;
    let path = dir.join(PICTURE_FILE);
    picture.save(&path).map_err(|error| RunError::write(&path, error))?;
    Ok(path)
}
