//! `trainer run`: from flags to a finished pre-training.

use crate::cli::{DeviceChoice, RunArgs};
use crate::commands::session::{self, Saved};
use crate::{commands::sources, commands::together};
use anyhow::bail;
use console::interrupt;
use pipeline::loader::check_options;
use pipeline::sampling::order::Cursor;
use pipeline::{physical_cores, store};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{Layer, Preset, PretrainConfig, Task};
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
    let name = args.preset.unwrap_or(Preset::Tiny).name();
    let saved = together::saved(ranks, args.resume, || {
        session::saved(args.out.as_deref(), name)
    })?;
    let resumed = saved.as_ref().map(|(dir, _)| dir.clone());
    let mut run = together::agree(ranks, prepare(ranks, args, saved))?;
    let Task::Pretrain(config) = &run.task else {
        unreachable!("it is prepared so")
    };
    let target = config.objective.target.clone();
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

/// The run, whose folder is not known yet.
fn prepare(ranks: &Ranks, args: &RunArgs, saved: Option<Saved>) -> anyhow::Result<Run> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let device = session::device(args.compute.device)?;
    let is_new = saved.is_none();
    let mut config = configuration(args, saved)?;
    if is_new {
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
    let loading = args.load.loading(session::loader_threads(ranks));
    check_options(
        &data,
        &train::task_options(&task, loading, Cursor::default()),
    )?;
    Ok(Run {
        task,
        data: data.into(),
        validation: None,
        init_weights: None,
        dir: PathBuf::new(),
        device,
        compute_threads: args.compute.threads(ranks.share_of(physical_cores())),
        loading,
        stop: interrupt::flag(),
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

/// The configuration of a new run, or of the `saved` one. Flags may repeat what that was started
/// with, but not change it.
fn configuration(args: &RunArgs, saved: Option<Saved>) -> anyhow::Result<PretrainConfig> {
    let preset = args.preset.unwrap_or(Preset::Tiny);
    let layers = args.settings.layers(args.config.as_deref())?;
    let Some((dir, saved)) = saved else {
        return Ok(PretrainConfig::resolve(preset, &layers)?);
    };
    let Task::Pretrain(saved) = saved else {
        bail!(
            "{} is a fine-tuning: resume it with `trainer finetune --out {0} --resume`",
            dir.display()
        )
    };
    let asked = if args.preset.is_some() || args.config.is_some() {
        // A preset of an older version had another one, and initial weights are there already.
        let std = saved.common.model.position_std;
        let mut layers = layers;
        layers.insert(0, Layer::key("the run", "model.position_std", std)?);
        let mut asked = PretrainConfig::resolve(preset, &layers)?;
        // Ranks have divided the batches of a run that leaves this open.
        if asked.common.data.micro_batches == 1 {
            asked.common.data.micro_batches = saved.common.data.micro_batches;
        }
        asked
    } else {
        saved.with(&layers)?
    };
    session::refuse_differences(&dir, &asked.differences_that_matter(&saved))?;
    // When to save, and what to do about failures, is as asked for now.
    Ok(asked)
}
