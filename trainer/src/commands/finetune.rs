//! `trainer finetune`: from weights and labelled shards to a classifier.

use crate::cli::{DataArg, FinetuneArgs, loader_threads_beside_training};
use crate::{cli::interrupt, cli::output, commands::probe, commands::session, commands::sources};
use anyhow::{Context, bail};
use candle_core::Tensor;
use pipeline::loader::check_options;
use pipeline::sampling::order::Cursor;
use pipeline::source::WeightedSource;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{Config, EncoderPart, FinetuneConfig, LiveConfig, Overrides, Preset, Recipe, Task};
use trainer::data::classes::{self, Split};
use trainer::train::checkpoint::CHECKPOINTS_DIR;
use trainer::train::weights::Weights;
use trainer::train::{self, Run};

/// What runs without a name are called.
const NAME: &str = "finetune";

/// Runs the command.
///
/// # Errors
/// What the user can mend: flags, weights and files that do not fit, labels that are missing, a full disk.
pub fn finetune(args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
    interrupt::listen()?;
    let device = session::device(args.compute.device)?;
    if args.train.resume {
        let (dir, saved) = session::begun(args.out.as_deref(), NAME)?;
        let Task::Finetune(config) = &saved else {
            bail!("{} is a pre-training: `trainer run --out {0} --resume` goes on with it", dir.display())
        };
        let asked = Task::from((**config).clone().with(&args.overrides())?);
        session::refuse_differences(&dir, &asked, &saved)?;
        // A run that was stopped before its first checkpoint begins anew, with the same weights.
        let init_from = config.init_from.as_deref().filter(|_| !dir.join(CHECKPOINTS_DIR).is_dir());
        let start = init_from.map(|path| Weights::open(Path::new(path))).transpose()?.map(|weights| weights.tensors);
        let Task::Finetune(config) = &asked else { unreachable!("it was a fine-tuning") };
        let split = split(args, config, open(&args.data, config.clip.frames)?)?;
        return train(args, asked, split, start, Some(dir), device);
    }
    let weights = args.weights.as_deref().map(Weights::open).transpose()?;
    if let Some(weights) = &weights {
        weights.skipped_checkpoints.iter().for_each(|invalid| output::say(&format!("warning: a checkpoint cannot be used: {invalid}")));
    }
    let encoder = match &weights {
        Some(weights) => weights.task.encoder(),
        None => EncoderPart::from(&Config::resolve(args.preset.unwrap_or(Preset::Tiny), None, &Overrides::default())?),
    };
    let init_from = match &weights {
        Some(weights) => Some(std::fs::canonicalize(&weights.path)?.display().to_string()),
        None => None,
    };
    let data = open(&args.data, encoder.clip.frames)?;
    let classes = classes::of_all(&data)?;
    let recipe = args.recipe.unwrap_or(Recipe::for_width(encoder.encoder.width));
    let config = FinetuneConfig::resolve(recipe, &encoder, init_from, classes, args.config.as_deref(), &args.overrides())?;
    let split = split(args, &config, data)?;
    if args.freeze {
        let weights = weights.context("--freeze needs --weights")?;
        return probe::probe(args, &config, &weights, split, device);
    }
    train(args, config.into(), split, weights.map(|weights| weights.tensors), None, device)
}

fn open(data: &[DataArg], frames: usize) -> anyhow::Result<Vec<WeightedSource>> {
    sources::open(data, &LiveConfig::default(), frames)
}

/// The clips of `sets` to train on, and those to look at, each with its class.
fn split(args: &FinetuneArgs, config: &FinetuneConfig, sets: Vec<WeightedSource>) -> anyhow::Result<Split> {
    let number = |sets| classes::number(sets, &config.classes, true);
    let validation = if args.val.is_empty() { None } else { Some(number(open(&args.val, config.clip.frames)?)?) };
    let data = &config.data;
    let split = classes::split(number(sets)?, validation, &config.classes, data.holdout, data.videos_per_class, config.seed)?;
    let [train, kept] = split.videos.iter().fold([0, 0], |[train, kept], videos| [train + videos[0], kept + videos[1]]);
    let clips = split.validation.as_ref().map_or(0, |sets| sources::clips(sets));
    output::say(&match args.val.is_empty() {
        true => format!(
            "{} classes; {} clips of {train} videos to train on, {clips} of {kept} kept for validation",
            config.classes.len(),
            sources::clips(&split.train)
        ),
        false => format!(
            "{} classes; {} clips of {train} videos to train on, {clips} for validation",
            config.classes.len(),
            sources::clips(&split.train)
        ),
    });
    let without =
        |at: usize| split.videos.iter().zip(&config.classes).filter(move |(videos, _)| videos[at] == 0).map(|(_, name)| name.as_str());
    let untrained: Vec<&str> = without(0).collect();
    if !untrained.is_empty() {
        output::say(&format!("warning: no video to train on: {}", untrained.join(", ")));
    }
    let unseen: Vec<&str> = without(1).collect();
    if args.val.is_empty() && data.holdout > 0.0 && !unseen.is_empty() {
        output::say(&format!("warning: one video only, and none kept for validation: {}", unseen.join(", ")));
    }
    Ok(split)
}

fn train(
    args: &FinetuneArgs,
    task: Task,
    Split { train, validation, .. }: Split,
    start: Option<HashMap<String, Tensor>>,
    resumed: Option<PathBuf>,
    device: candle_core::Device,
) -> anyhow::Result<ExitCode> {
    let loading = args.load.loading(loader_threads_beside_training());
    for sets in std::iter::once(&train).chain(&validation) {
        check_options(sets, &train::task_options(&task, loading, Cursor::default()))?;
    }
    let dir = resumed.map_or_else(|| session::create(args.out.as_deref(), NAME, &task), Ok)?;
    let mut resume = format!("trainer finetune --out {} --resume", dir.display());
    for (flag, data) in args.data.iter().map(|data| ("data", data)).chain(args.val.iter().map(|data| ("val", data))) {
        resume += &format!(" --{flag} {data}");
    }
    let run = Run {
        task,
        data: train,
        validation,
        init_weights: start,
        dir,
        device,
        compute_threads: args.compute.threads(),
        loading,
        stop: interrupt::flag(),
    };
    session::train(&run, &resume, args.json, |report| match report.finished {
        true => format!("\nnext: trainer eval --weights {} --data SHARDS", report.out),
        false => String::new(),
    })
}
