//! What `eval` and `embed` have in common: clips that are read once.

use crate::cli::{ReadArgs, SpanArg, all_cores};
use crate::{cli::output, commands::sources};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget};
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

/// Clips that are to be read, and by what.
pub struct Inference {
    /// The model.
    pub reader: InferenceModel,
    /// The clips.
    pub data: Arc<[WeightedSource]>,
    /// Where those of each data set are from.
    pub catalogues: Vec<Catalogue>,
    /// Views of each clip.
    pub views: Views,
    options: LoaderOptions,
}

/// What reading came to.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// Clips that could not be read.
    pub skipped: u64,
    /// How long it took, loading and computing.
    pub seconds: f64,
}

/// Opens what the flags name, for clips as long as `weights` take them.
///
/// # Errors
/// When the data or the weights cannot be used.
pub fn open(args: &ReadArgs, weights: &Weights) -> anyhow::Result<Vec<WeightedSource>> {
    weights.skipped_checkpoints.iter().for_each(|invalid| output::say(&format!("warning: a checkpoint cannot be used: {invalid}")));
    sources::open(&args.data, &live(args, weights), weights.task.encoder().clip.frames)
}

/// How videos are cut, which are not shards.
pub fn live(args: &ReadArgs, weights: &Weights) -> LiveConfig {
    let as_trained = match &weights.task {
        Task::Pretrain(config) => config.live.clone(),
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

impl Inference {
    /// To read `sets` with `weights`.
    ///
    /// # Errors
    /// When a shard cannot be read, or the weights do not fit.
    pub fn new(args: &ReadArgs, weights: &Weights, sets: Vec<WeightedSource>) -> anyhow::Result<Self> {
        let device = crate::commands::session::device(args.compute.device)?;
        let frames = weights.task.encoder().clip.frames;
        let mut views = args.views;
        let longest = sets.iter().flat_map(|set| (0..set.len()).map(|at| set.clip(set.number(at)).frames)).max().unwrap_or(frames);
        let windows = longest + 1 - frames.min(longest);
        if views.temporal > windows {
            output::say(&format!(
                "note: clips have {longest} frames and a window {frames}: there {} instead of {}. Longer clips: shardtool build --frames, or videos",
                if windows == 1 { "is one window".to_owned() } else { format!("are {windows} windows") },
                views.temporal
            ));
            views.temporal = windows;
        }
        let precision = args.compute.dtype.unwrap_or_default();
        let reader = weights.reader(&device, precision, args.compute.threads()).with_context(|| weights.path.display().to_string())?;
        let grid = weights.task.encoder().clip;
        let options = args.load.loading(all_cores()).options(args.batch_size as usize, grid).once(views);
        let options = LoaderOptions { memory: reader.memory(), interrupt: crate::cli::interrupt::flag(), ..options };
        let catalogues = sets.iter().map(|set| set.source.catalogue()).collect::<Result<_, _>>()?;
        Ok(Self { reader, data: sets.into(), catalogues, views, options })
    }

    /// Frames of a window.
    pub const fn reader_frames(&self) -> usize {
        self.options.format.grid.frames
    }

    /// Reads all clips; `take` gets them in their order.
    ///
    /// # Errors
    /// When too many clips are bad, or `take` fails.
    pub fn run(&mut self, tokens: bool, mut take: impl FnMut(Vec<ClipOutput>) -> anyhow::Result<()>) -> anyhow::Result<Tally> {
        let bar = ProgressBar::with_draw_target(Some(sources::clips(&self.data)), ProgressDrawTarget::stderr());
        bar.set_style(output::bar_style("clip {pos}/{len}  {per_sec}  {eta} left"));
        let (began, mut skipped) = (Instant::now(), 0);
        let Self { reader, data, options, .. } = self;
        let took = |clips: Vec<ClipOutput>| {
            bar.inc(clips.len() as u64);
            take(clips).map_err(|error| EvaluateError::Write(error.into()))
        };
        let on_skipped = |clip: &pipeline::loader::batch::Skipped| {
            skipped += 1;
            bar.inc(1);
            bar.suspend(|| output::say(&format!("warning: left out: {}", clip.reason)));
        };
        let result = eval::read_all(data, options.clone(), |batch| reader.infer(batch, tokens), took, on_skipped);
        bar.finish_and_clear();
        result?;
        Ok(Tally { skipped, seconds: began.elapsed().as_secs_f64() })
    }
}
