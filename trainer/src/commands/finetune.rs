//! `trainer finetune`: from weights and labelled shards to a classifier.

use crate::cli::{DataArg, FinetuneArgs, LoadArgs};
use crate::commands::probe::Probe;
use crate::commands::session::{self, Saved};
use crate::{commands::sources, commands::together};
use anyhow::{Context, bail};
use candle_core::{Device, Tensor};
use console::{interrupt, output};
use pipeline::loader::check_options;
use pipeline::sampling::order::Cursor;
use pipeline::source::WeightedSource;
use pipeline::{physical_cores, store};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{
    CommonConfig, EncoderPart, FinetuneConfig, Layer, LiveConfig, Preset, PretrainConfig, Recipe,
    Task,
};
use trainer::data::classes::{self, Split};
use trainer::ranks::Ranks;
use trainer::train::checkpoint::CHECKPOINTS_DIR;
use trainer::train::weights::Weights;
use trainer::train::{self, Run};

/// Name of the runs without --out.
const NAME: &str = "finetune";

/// Runs the command.
///
/// # Errors
/// What the user can fix: flags, weights and files that do not fit, missing labels, a full disk.
pub fn finetune(args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, finetune_with(&ranks, args))
}

/// [`finetune`] on each of `ranks`.
fn finetune_with(ranks: &Ranks, args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
    let saved = together::saved(ranks, args.resume, || {
        session::saved(args.out.as_deref(), NAME)
    })?;
    let resumed = saved.as_ref().map(|(dir, _)| dir.clone());
    let mut run = match together::agree(ranks, prepare(ranks, args, saved))? {
        Prepared::Run(run) => *run,
        Prepared::Probe(probe) => return probe.train(ranks, args),
    };
    train::check_alike(ranks, &run)?;
    run.dir = together::folder(ranks, || {
        resumed.map_or_else(|| session::create(args.out.as_deref(), NAME, &run.task), Ok)
    })?;
    let resume = resume_command(args, &run.dir);
    session::train(ranks, &run, &resume, args.json, |report| {
        match report.finished {
            true => format!(
                "\nnext: trainer eval --weights {} --data SHARDS",
                report.out
            ),
            false => String::new(),
        }
    })
}

/// What remains to be done.
enum Prepared {
    /// A run, whose folder is not known yet.
    Run(Box<Run>),
    /// Probes of the frozen encoder.
    Probe(Box<Probe>),
}

fn prepare(ranks: &Ranks, args: &FinetuneArgs, saved: Option<Saved>) -> anyhow::Result<Prepared> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let device = session::device(args.compute.device)?;
    let layers = args.settings.layers(args.config.as_deref())?;
    if let Some(saved) = saved {
        return resume(ranks, args, &layers, saved, device);
    }
    let weights = args.weights.as_deref().map(Weights::open).transpose()?;
    if let Some(weights) = weights.as_ref().filter(|_| ranks.is_root()) {
        weights.skipped_checkpoints.iter().for_each(|invalid| {
            output::say(&format!(
                "warning: skipping an invalid checkpoint: {invalid}"
            ))
        });
    }
    let encoder = match &weights {
        Some(weights) => EncoderPart::from(weights.task.common()),
        None => EncoderPart::from(&PretrainConfig::resolve(
            args.preset.unwrap_or(Preset::Tiny),
            &[],
        )?),
    };
    let init_from = match &weights {
        Some(weights) => Some(std::fs::canonicalize(&weights.path)?.display().to_string()),
        None => None,
    };
    let data = sources::open_all(
        &args.data,
        &LiveConfig::default(),
        encoder.clip.frames,
        args.load.cache().as_ref(),
    )?;
    let classes = classes::of_all(&data)?;
    let recipe = args
        .recipe
        .unwrap_or(Recipe::for_width(encoder.encoder.width));
    let mut config = FinetuneConfig::resolve(recipe, &encoder, init_from, classes, &layers)?;
    let choice = config.common.data.choose.clone();
    if !choice.classes.is_empty() {
        let classes = &mut config.objective.classes;
        classes.retain(|class| choice.classes.contains(class));
    }
    let data = sources::choose_from(data, &args.data, &choice)?;
    let split = split(ranks, args, &config, data)?;
    if args.freeze {
        let weights = weights.context("--freeze needs --weights")?;
        let probe = Probe {
            config,
            weights,
            split,
            device,
        };
        return Ok(Prepared::Probe(Box::new(probe)));
    }
    session::share_batches(ranks, &mut config.common.data);
    prepared(
        ranks,
        args,
        config.into(),
        split,
        weights.map(|weights| weights.tensors),
        device,
    )
}

/// Resumes a run. Flags may repeat what it was started with, but not change it.
fn resume(
    ranks: &Ranks,
    args: &FinetuneArgs,
    layers: &[Layer],
    (dir, saved): Saved,
    device: Device,
) -> anyhow::Result<Prepared> {
    let Task::Finetune(saved) = saved else {
        bail!(
            "{} is a pre-training: resume it with `trainer run --out {0} --resume`",
            dir.display()
        )
    };
    let config = saved.with(layers)?;
    session::refuse_differences(&dir, &config.differences_that_matter(&saved))?;
    // A run that was stopped before its first checkpoint starts again, from the same weights. The
    // other ranks get theirs from rank 0.
    let init_from = config
        .objective
        .init_from
        .as_deref()
        .filter(|_| ranks.is_root() && !dir.join(CHECKPOINTS_DIR).is_dir());
    let weights = init_from
        .map(|path| Weights::open(Path::new(path)))
        .transpose()?;
    let split = split(
        ranks,
        args,
        &config,
        open(&args.data, &config.common, &args.load)?,
    )?;
    prepared(
        ranks,
        args,
        config.into(),
        split,
        weights.map(|weights| weights.tensors),
        device,
    )
}

fn open(
    data: &[DataArg],
    config: &CommonConfig,
    load: &LoadArgs,
) -> anyhow::Result<Vec<WeightedSource>> {
    let choice = &config.data.choose;
    let cache = load.cache();
    sources::open(
        data,
        choice,
        &LiveConfig::default(),
        config.clip.frames,
        cache.as_ref(),
    )
}

/// The clips of `sets` to train on and those for validation, each with its class.
fn split(
    ranks: &Ranks,
    args: &FinetuneArgs,
    config: &FinetuneConfig,
    sets: Vec<WeightedSource>,
) -> anyhow::Result<Split> {
    let number = |sets| classes::number(sets, &config.objective.classes, true);
    let validation = if args.val.is_empty() {
        None
    } else {
        Some(number(open(&args.val, &config.common, &args.load)?)?)
    };
    let split = classes::split(
        number(sets)?,
        validation,
        &config.objective.classes,
        &config.objective.split,
        config.common.seed,
    )?;
    if ranks.is_root() {
        describe(args, config, &split);
    }
    Ok(split)
}

/// Says what the clips are divided into, and which classes get none.
fn describe(args: &FinetuneArgs, config: &FinetuneConfig, split: &Split) {
    let data = &config.objective.split;
    let [train, kept] = split.videos.iter().fold([0, 0], |[train, kept], videos| {
        [train + videos[0], kept + videos[1]]
    });
    let clips = split
        .validation
        .as_ref()
        .map_or(0, |sets| sources::clips(sets));
    output::say(&match args.val.is_empty() {
        true => format!(
            "{} classes; {} clips of {train} videos to train on, {clips} of {kept} held out for \
             validation",
            config.objective.classes.len(),
            sources::clips(&split.train)
        ),
        false => format!(
            "{} classes; {} clips of {train} videos to train on, {clips} for validation",
            config.objective.classes.len(),
            sources::clips(&split.train)
        ),
    });
    let without = |at: usize| {
        split
            .videos
            .iter()
            .zip(&config.objective.classes)
            .filter(move |(videos, _)| videos[at] == 0)
            .map(|(_, name)| name.as_str())
    };
    let untrained: Vec<&str> = without(0).collect();
    if !untrained.is_empty() {
        output::say(&format!(
            "warning: no video to train on: {}",
            untrained.join(", ")
        ));
    }
    let unseen: Vec<&str> = without(1).collect();
    if args.val.is_empty() && data.holdout > 0.0 && !unseen.is_empty() {
        output::say(&format!(
            "warning: only one video, so none held out for validation: {}",
            unseen.join(", ")
        ));
    }
}

fn prepared(
    ranks: &Ranks,
    args: &FinetuneArgs,
    task: Task,
    Split {
        train, validation, ..
    }: Split,
    start: Option<HashMap<String, Tensor>>,
    device: Device,
) -> anyhow::Result<Prepared> {
    let loading = args.load.loading(session::loader_threads(ranks));
    for sets in std::iter::once(&train).chain(&validation) {
        check_options(
            sets,
            &train::task_options(&task, loading, Cursor::default()),
        )?;
    }
    let run = Run {
        task,
        data: train,
        validation,
        init_weights: start,
        dir: PathBuf::new(),
        device,
        compute_threads: args.compute.threads(ranks.share_of(physical_cores())),
        loading,
        stop: interrupt::flag(),
    };
    Ok(Prepared::Run(Box::new(run)))
}

/// The command that resumes the run in `dir`.
fn resume_command(args: &FinetuneArgs, dir: &Path) -> String {
    let mut command = format!("trainer finetune --out {} --resume", dir.display());
    for (flag, data) in args
        .data
        .iter()
        .map(|data| ("data", data))
        .chain(args.val.iter().map(|data| ("val", data)))
    {
        command += &format!(" --{flag} {data}");
    }
    command
}
