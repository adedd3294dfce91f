//! `trainer run`: from flags to a finished pre-training.

use crate::cli::{DeviceChoice, RunArgs, loader_threads_beside_training};
use crate::{commands::session, commands::sources};
use anyhow::bail;
use console::interrupt;
use pipeline::loader::check_options;
use pipeline::sampling::order::Cursor;
use pipeline::store;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{Preset, PretrainConfig, Task};
use trainer::plot::reconstruction;
use trainer::train::{self, Run};

/// Runs the command.
///
/// # Errors
/// What the user can fix: flags and files that do not fit, missing data, a full disk.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let device = session::device(args.compute.device)?;
    let (config, resumed) = configuration(args)?;
    let data = sources::open(
        &args.data,
        &config.common.data.choose,
        &config.objective.live,
        config.common.clip.frames,
        args.load.cache().as_ref(),
    )?;
    let (target, task) = (config.objective.target.clone(), Task::from(config));
    // The folder of a new run is made once its data is there.
    let name = args.preset.unwrap_or(Preset::Tiny).name();
    let loading = args.load.loading(loader_threads_beside_training());
    check_options(
        &data,
        &train::task_options(&task, loading, Cursor::default()),
    )?;
    let dir = resumed.map_or_else(|| session::create(args.out.as_deref(), name, &task), Ok)?;
    let compute_threads = args.compute.threads();
    let resume = resume_command(args, &dir);
    let run = Run {
        task,
        data: data.into(),
        validation: None,
        init_weights: None,
        dir,
        device,
        compute_threads,
        loading,
        stop: interrupt::flag(),
    };
    session::train(&run, &resume, args.json, |report| match &report.picture {
        Some(picture) => {
            format!(
                "\npicture: {picture}\n  rows of each clip: {}",
                reconstruction::rows(target.kind, target.normalise).join(";\n    ")
            )
        }
        None => String::new(),
    })
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
