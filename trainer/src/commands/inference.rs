//! Inference on every clip of some data, shared by `eval` and `embed`.

use crate::cli::{ReadArgs, SpanArg};
use crate::commands::{sources, together};
use anyhow::Context;
use console::progress::Progress;
use console::{interrupt, output};
use pipeline::live::LiveSpan;
use pipeline::loader::LoaderOptions;
use pipeline::sampling::sample::Views;
use pipeline::source::{Catalogue, WeightedSource};
use pipeline::{all_cores, physical_cores};
use std::sync::Arc;
use std::time::Instant;
use trainer::backend::InferenceModel;
use trainer::config::{LiveConfig, Task};
use trainer::eval::{self, ClipOutput, EvaluateError};
use trainer::ranks::Ranks;
use trainer::train::weights::Weights;

/// A model, and the clips to run it on.
pub struct ClipInference<'a> {
    ranks: &'a Ranks,
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
pub fn open(
    ranks: &Ranks,
    args: &ReadArgs,
    weights: &Weights,
) -> anyhow::Result<Vec<WeightedSource>> {
    if ranks.is_root() {
        weights.skipped_checkpoints.iter().for_each(|invalid| {
            output::say(&format!(
                "warning: skipped an invalid checkpoint: {invalid}"
            ))
        });
    }
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

impl<'a> ClipInference<'a> {
    /// Prepares inference on `sets` with `weights`, as one of `ranks`.
    ///
    /// # Errors
    /// When a shard cannot be read, or the weights do not fit.
    pub fn new(
        ranks: &'a Ranks,
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
            if ranks.is_root() {
                output::say(&format!(
                    "note: clips have {longest} frames and a window has {frames}: there {} \
                     instead of {}. For longer clips use shardtool build --frames, or videos",
                    if windows == 1 {
                        "is one window".to_owned()
                    } else {
                        format!("are {windows} windows")
                    },
                    views.temporal
                ));
            }
            views.temporal = windows;
        }
        let precision = args.dtype.unwrap_or_default();
        let model = weights
            .inference_model(
                &device,
                precision,
                args.compute.threads(ranks.share_of(physical_cores())),
            )
            .with_context(|| weights.path.display().to_string())?;
        let grid = weights.task.common().clip;
        let options = args
            .load
            .loading(ranks.share_of(all_cores()))
            .options(args.batch_size as usize * ranks.count(), grid)
            .once(views);
        let options = LoaderOptions {
            memory: model.memory(),
            interrupt: interrupt::flag(),
            frame_order: weights.task.common().data.frame_order,
            ..options
        };
        let catalogues = sets
            .iter()
            .map(|set| set.source.catalogue())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ranks,
            model,
            data: sets.into(),
            catalogues,
            views,
            options,
        })
    }

    /// Checks that all ranks are about to do the same, before [`Self::run`].
    ///
    /// # Errors
    /// [`RanksError::Unlike`](trainer::ranks::RanksError) where they differ, on all of them.
    pub fn check_alike(&self, weights: &Weights) -> anyhow::Result<()> {
        let options = &self.options;
        let [views, batch] = [format!("{:?}", self.views), options.batch_size.to_string()];
        let settings = format!("{views}\nbatch of {batch}\n{:?}", options.format);
        together::check_inference(self.ranks, &self.data, weights, &settings)
    }

    /// Frames per window.
    pub const fn window_frames(&self) -> usize {
        self.options.format.grid.frames
    }

    /// Runs the model on all clips, with all ranks; rank 0 calls `take` with the outputs in the order
    /// of the clips.
    ///
    /// # Errors
    /// When too many clips are bad, or `take` fails.
    pub fn run(
        &mut self,
        tokens: bool,
        mut take: impl FnMut(Vec<ClipOutput>) -> anyhow::Result<()>,
    ) -> anyhow::Result<InferenceStats> {
        let clips = sources::clips(&self.data);
        let is_root = self.ranks.is_root();
        let progress = is_root.then(|| Progress::new(clips, "{pos}/{len} clips"));
        let advance = |clips: usize| {
            if let Some(progress) = &progress {
                progress.advance(clips as u64, String::new());
            }
        };
        let began = Instant::now();
        let mut skipped = 0;
        let Self {
            ranks,
            model,
            data,
            options,
            ..
        } = self;
        let on_clips = |clips: Vec<ClipOutput>| {
            advance(clips.len());
            take(clips).map_err(|error| EvaluateError::Write(error.into()))
        };
        let on_skipped = |reason: &str| {
            skipped += 1;
            advance(1);
            if let Some(progress) = &progress {
                progress.say(&format!("warning: skipped: {reason}"));
            }
        };
        let result = eval::infer_all(
            ranks,
            data,
            options.clone(),
            |batch| model.infer(batch, tokens),
            on_clips,
            on_skipped,
        );
        if let Some(progress) = progress {
            progress.finish();
        }
        result?;
        Ok(InferenceStats {
            skipped,
            seconds: began.elapsed().as_secs_f64(),
        })
    }
}
