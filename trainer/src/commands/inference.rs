//! Inference on every clip of some data, shared by `eval` and `embed`.

use crate::cli::{ReadArgs, SpanArg};
use crate::commands::sources;
use anyhow::Context;
use console::progress::Progress;
use console::{interrupt, output};
use pipeline::all_cores;
use pipeline::live::LiveSpan;
use pipeline::loader::LoaderOptions;
use pipeline::sampling::sample::Views;
use pipeline::source::{Catalogue, WeightedSource};
use std::sync::Arc;
use std::time::Instant;
use trainer::backend::InferenceModel;
use trainer::config::{LiveConfig, Task};
use trainer::eval::{self, ClipOutput, EvaluateError};
use trainer::train::weights::Weights;

/// A model, and the clips to run it on.
pub struct ClipInference {
    /// The model.
    pub model: InferenceModel,
    /// The clips.
    pub data: Arc<[WeightedSource]>,
    /// Catalogue of each data set: the videos of its clips.
    pub catalogues: Vec<Catalogue>,
    /// Views of each clip.
    pub views: Views,
    options: LoaderOptions,
}

/// Statistics of a finished inference.
#[derive(Debug, Clone, Copy)]
pub struct InferenceStats {
    /// Clips that could not be read.
    pub skipped: u64,
    /// Duration of loading and computing.
    pub seconds: f64,
}

/// Opens the data sets of the flags, for clips of the length that `weights` take.
///
/// # Errors
/// When the data cannot be opened.
pub fn open(args: &ReadArgs, weights: &Weights) -> anyhow::Result<Vec<WeightedSource>> {
    weights.skipped_checkpoints.iter().for_each(|invalid| {
        output::say(&format!(
            "warning: skipped an invalid checkpoint: {invalid}"
        ))
    });
    sources::open(
        &args.data,
        &args.choose.choice(),
        &live_config(args, weights),
        weights.task.common().clip.frames,
        args.load.cache().as_ref(),
    )
}

/// How videos that are not in shards are cut into clips.
pub fn live_config(args: &ReadArgs, weights: &Weights) -> LiveConfig {
    let as_trained = match &weights.task {
        Task::Pretrain(config) => config.objective.live.clone(),
        Task::Finetune(_) => LiveConfig::default(),
    };
    let span = match args.span {
        Some(SpanArg::Clip) => LiveSpan::Clip,
        Some(SpanArg::Video) => LiveSpan::Video,
        None if args.views.temporal > 1 => LiveSpan::Video,
        None => LiveSpan::Clip,
    };
    LiveConfig { span, ..as_trained }
}

impl ClipInference {
    /// Prepares inference on `sets` with `weights`.
    ///
    /// # Errors
    /// When a shard cannot be read, or the weights do not fit.
    pub fn new(
        args: &ReadArgs,
        weights: &Weights,
        sets: Vec<WeightedSource>,
    ) -> anyhow::Result<Self> {
        let device = crate::commands::session::device(args.compute.device)?;
        let frames = weights.task.common().clip.frames;
        let mut views = args.views;
        let longest = sets
            .iter()
            .flat_map(|set| (0..set.len()).map(|at| set.clip(set.number(at)).frames))
            .max()
            .unwrap_or(frames);
        let windows = longest + 1 - frames.min(longest);
        if views.temporal > windows {
            output::say(&format!(
                "note: clips have {longest} frames and a window has {frames}: there {} instead of \
                 {}. For longer clips use shardtool build --frames, or videos",
                if windows == 1 {
                    "is one window".to_owned()
                } else {
                    format!("are {windows} windows")
                },
                views.temporal
            ));
            views.temporal = windows;
        }
        let precision = args.dtype.unwrap_or_default();
        let model = weights
            .inference_model(&device, precision, args.compute.threads())
            .with_context(|| weights.path.display().to_string())?;
        let grid = weights.task.common().clip;
        let options = args
            .load
            .loading(all_cores())
            .options(args.batch_size as usize, grid)
            .once(views);
        let options = LoaderOptions {
            memory: model.memory(),
            interrupt: interrupt::flag(),
            ..options
        };
        let catalogues = sets
            .iter()
            .map(|set| set.source.catalogue())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            model,
            data: sets.into(),
            catalogues,
            views,
            options,
        })
    }

    /// Frames per window.
    pub const fn window_frames(&self) -> usize {
        self.options.format.grid.frames
    }

    /// Runs the model on all clips; calls `take` with the outputs in the order of the clips.
    ///
    /// # Errors
    /// When too many clips are bad, or `take` fails.
    pub fn run(
        &mut self,
        tokens: bool,
        mut take: impl FnMut(Vec<ClipOutput>) -> anyhow::Result<()>,
    ) -> anyhow::Result<InferenceStats> {
        let progress = Progress::new(sources::clips(&self.data), "{pos}/{len} clips");
        let began = Instant::now();
        let mut skipped = 0;
        let Self {
            model,
            data,
            options,
            ..
        } = self;
        let on_clips = |clips: Vec<ClipOutput>| {
            progress.advance(clips.len() as u64, String::new());
            take(clips).map_err(|error| EvaluateError::Write(error.into()))
        };
        let on_skipped = |clip: &pipeline::loader::batch::Skipped| {
            skipped += 1;
            progress.advance(1, String::new());
            progress.say(&format!("warning: skipped: {}", clip.reason));
        };
        let result = eval::infer_all(
            data,
            options.clone(),
            |batch| model.infer(batch, tokens),
            on_clips,
            on_skipped,
        );
        progress.finish();
        result?;
        Ok(InferenceStats {
            skipped,
            seconds: began.elapsed().as_secs_f64(),
        })
    }
}
