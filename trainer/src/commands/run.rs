//! `trainer run`: from flags to a finished pre-training.

use crate::cli::{DeviceChoice, RunArgs, loader_threads_beside_training};
use crate::{commands::session, commands::sources, commands::together};
use anyhow::bail;
use console::interrupt;
use pipeline::loader::check_options;
use pipeline::sampling::order::Cursor;
use pipeline::store;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{Preset, PretrainConfig, Task};
use trainer::plot::reconstruction;
use trainer::ranks::Ranks;
use trainer::train::{self, Run};

/// Runs the command.
///
/// # Errors
/// What the user can fix: flags and files that do not fit, missing data, a full disk.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, run_with(&ranks, args))
}

/// [`run`] on each of `ranks`.
fn run_with(ranks: &Ranks, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (mut run, resumed) = together::agree(ranks, prepare(ranks, args))?;
    let Task::Pretrain(config) = &run.task else {
        unreachable!("it is prepared so")
    };
    let target = config.objective.target.clone();
    let name = args.preset.unwrap_or(Preset::Tiny).name();
    // The folder of a new run is made once its data is there.
    train::check_alike(ranks, &run)?;
    run.dir = together::folder(ranks, || {
        resumed.map_or_else(|| session::create(args.out.as_deref(), name, &run.task), Ok)
    })?;
    let resume = resume_command(args, &run.dir);
    session::train(ranks, &run, &resume, args.json, |report| {
        match &report.picture {
            Some(picture) => format!(
                "\npicture: {picture}\n  rows of each clip: {}",
                reconstruction::rows(target.kind, target.normalise).join(";\n    ")
            ),
            None => String::new(),
        }
    })
}

/// The run, whose folder is not known yet, and its folder if it is resumed.
fn prepare(ranks: &Ranks, args: &RunArgs) -> anyhow::Result<(Run, Option<PathBuf>)> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let device = session::device(args.compute.device)?;
    let (mut config, resumed) = configuration(args)?;
    if resumed.is_none() {
        session::share_batches(ranks, &mut config.common.data);
    }
    let data = sources::open(
        &args.data,
        &config.common.data.choose,
        &config.objective.live,
        config.common.clip.frames,
        args.load.cache().as_ref(),
    )?;
    let task = Task::from(config);
    let loading = args.load.loading(loader_threads_beside_training());
    check_options(
        &data,
        &train::task_options(&task, loading, Cursor::default()),
    )?;
    let run = Run {
        task,
        data: data.into(),
        validation: None,
        init_weights: None,
        dir: PathBuf::new(),
        device,
        compute_threads: args.compute.threads(),
        loading,
        stop: interrupt::flag(),
    };
    Ok((run, resumed))
}

/// The command that resumes the run in `dir`.
fn resume_command(args: &RunArgs, dir: &Path) -> String {
    let mut command = "trainer run".to_owned();
    for data in &args.data {
        command += &format!(" --data {data}");
    }
    command += &format!(" --out {} --resume", dir.display());
    if args.compute.device != DeviceChoice::Cpu {
        command += &format!(" --device {}", args.compute.device);
    }
    command
}

/// The configuration, and the folder of the run if it is resumed. Flags may repeat what a run was
/// started with, but not change it.
fn configuration(args: &RunArgs) -> anyhow::Result<(PretrainConfig, Option<PathBuf>)> {
    let preset = args.preset.unwrap_or(Preset::Tiny);
    let layers = args.settings.layers(args.config.as_deref())?;
    if !args.resume {
        return Ok((PretrainConfig::resolve(preset, &layers)?, None));
    }
    let (dir, saved) = session::saved(args.out.as_deref(), preset.name())?;
    let Task::Pretrain(saved) = saved else {
        bail!(
            "{} is a fine-tuning: resume it with `trainer finetune --out {0} --resume`",
            dir.display()
        )
    };
    let asked = if args.preset.is_some() || args.config.is_some() {
        PretrainConfig::resolve(preset, &layers)?
    } else {
        saved.with(&layers)?
    };
    session::refuse_differences(&dir, &asked.differences_that_matter(&saved))?;
    // When to save, and what to do about failures, is as asked for now.
    Ok((asked, Some(dir)))
}
