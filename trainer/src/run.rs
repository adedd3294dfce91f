//! `trainer run`: from flags to a finished run.

use crate::cli::{DeviceChoice, RunArgs, all_cores, loader_threads_beside_training};
use crate::output::{self, Progress};
use crate::{sources, stop, usage};
use anyhow::{Context, bail, ensure};
use candle_core::Device;
use pipeline::atomic_file;
use schemas::report::RunReport;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{Config, Preset};
use trainer::engine::{self, Event, Outcome, Run, RunError};
use trainer::log::{CONFIG_FILE, CURVES_FILE, History, HistoryError, REPORT_FILE, TENSORBOARD_DIR};
use trainer::nonfinite::NONFINITE_FILE;
use trainer::visualise;

/// Folder in which runs without a name are numbered.
const RUNS_DIR: &str = "runs";

/// Runs the command.
///
/// # Errors
/// What the user can mend: flags and files that do not fit, missing data, a full disk.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    stop::listen()?;
    let device = device(args.device)?;
    let (config, resumed) = configuration(args)?;
    let data = sources::open(&args.data, &config)?;
    // A run of its own begins when its data is there.
    let dir = resumed.map_or_else(|| create(args, &config), Ok)?;
    let loading = args.load.loading(loader_threads_beside_training());
    let compute_threads = args.threads.map_or_else(all_cores, |threads| threads as usize);
    let run = Run { config, data, dir, device, compute_threads, loading, stop: stop::flag() };

    let mut progress = Progress::new();
    // The first step pays for start-up.
    let (mut steps, mut seconds, mut waited) = (0, 0.0, 0.0);
    let (mut clips, mut skipped) = (0.0, 0);
    let outcome = engine::pretrain(&run, |event| match event {
        Event::Step(metrics, all) => {
            progress.advance(metrics, all);
            if steps > 0 {
                seconds += metrics.step_seconds;
                waited += metrics.wait_seconds;
                clips += metrics.step_seconds * metrics.clips_per_second;
            }
            steps += 1;
            skipped = metrics.loader.skipped;
        }
        Event::Nonfinite(step, file) => progress.say(&format!(
            "warning: step {}: loss {}, gradient norm {}: it changes nothing, and its clips are in {}",
            step.step,
            step.loss,
            step.grad_norm,
            file.display()
        )),
        Event::Unsound(checkpoint) => progress.say(&format!("warning: a checkpoint cannot be used and is left as it is: {checkpoint}")),
        Event::Skipped(clip) => progress.say(&format!("warning: left out: {}", clip.reason)),
    });
    progress.finish();
    let outcome = outcome.inspect_err(|error| {
        if can_go_on(error) {
            output::say(&format!("to go on from the last checkpoint, once the cause is mended: {}", resume_command(args, &run.dir)));
        }
    })?;
    let is_finished = outcome.steps >= outcome.all_steps;
    let (steps, all_steps) = (outcome.steps, outcome.all_steps);
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    report(args, &run, outcome, per_second(clips), per_second(waited), skipped)?;
    if is_finished {
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!("stopped after step {steps} of {all_steps}; to go on: {}", resume_command(args, &run.dir)));
    Ok(ExitCode::from(stop::EXIT_CODE))
}

/// Whether the same run can be taken up after this error, when its cause is mended.
const fn can_go_on(error: &RunError) -> bool {
    matches!(
        error,
        RunError::Load(_)
            | RunError::Checkpoint(_)
            | RunError::Learner(_)
            | RunError::Nonfinite { .. }
            | RunError::Log(_)
            | RunError::Write { .. }
    )
}

/// What to type to go on with the run in `dir`.
fn resume_command(args: &RunArgs, dir: &Path) -> String {
    let mut command = "trainer run".to_owned();
    for data in &args.data {
        command += &format!(" --data {data}");
    }
    command += &format!(" --out {} --resume", dir.display());
    if args.device != DeviceChoice::Cpu {
        command += &format!(" --device {}", args.device);
    }
    command
}

fn report(args: &RunArgs, run: &Run, outcome: Outcome, clips_per_second: f64, stall_fraction: f64, skipped: u64) -> anyhow::Result<()> {
    let (first_loss, last_loss) = losses(&run.dir)?;
    let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
    let report = RunReport {
        out: run.dir.display().to_string(),
        resumed_from: outcome.resumed_from,
        steps: outcome.steps,
        finished: outcome.steps >= outcome.all_steps,
        first_loss,
        last_loss,
        clips_per_second,
        stall_fraction,
        skipped,
        nonfinite: outcome.nonfinite,
        peak_memory_bytes: usage::peak_memory_bytes()?,
        parameters: outcome.parameters as u64,
        checkpoint: shown(outcome.checkpoint),
        picture: shown(outcome.picture),
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { summary(&report, run) };
    Ok(output::print(&text)?)
}

/// The report for people.
fn summary(report: &RunReport, run: &Run) -> String {
    let RunReport { out, steps, first_loss, last_loss, clips_per_second, skipped, nonfinite, .. } = report;
    let mut text = format!(
        "{steps} steps in {out}: loss {first_loss:.4} over the first ten, {last_loss:.4} over the last ten; {clips_per_second:.1} clips/s, {:.1} % of the \
         time waiting for data; {:.0} MB of memory at most",
        100.0 * report.stall_fraction,
        report.peak_memory_bytes as f64 / 1e6,
    );
    if *skipped > 0 {
        text += &format!("; {skipped} times a clip was left out that cannot be read");
    }
    if *nonfinite > 0 {
        text += &format!("; {nonfinite} steps were not finite and changed nothing ({NONFINITE_FILE})");
    }
    if let Some(checkpoint) = &report.checkpoint {
        text += &format!("\nweights: {checkpoint}");
    }
    let [curves, page, events] = [CURVES_FILE, REPORT_FILE, TENSORBOARD_DIR].map(|name| run.dir.join(name));
    if curves.exists() {
        let [curves, page, events] = [curves.display(), page.display(), events.display()];
        text += &format!("\ncurves: {curves}; all in one page: {page}; by step: tensorboard --logdir {events}");
    }
    if let Some(picture) = &report.picture {
        let rows = visualise::rows(run.config.target.kind, run.config.target.normalise).join(";\n    ");
        text += &format!("\npicture: {picture}\n  rows of each clip: {rows}");
    }
    text
}

/// Mean loss over the first and the last steps of the whole run, of those that have one.
fn losses(dir: &Path) -> Result<(f64, f64), HistoryError> {
    match History::read(dir).map(|history| history.figures()) {
        Ok(figures) => Ok((figures.first_loss, figures.last_loss)),
        // It was stopped before its first step.
        Err(HistoryError::Empty { .. }) => Ok((f64::NAN, f64::NAN)),
        Err(error) => Err(error),
    }
}

fn device(choice: DeviceChoice) -> anyhow::Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(_) if !cfg!(feature = "cuda") => {
            bail!("this program was built for the CPU; build it with `cargo build --release --features trainer/cuda` for --device cuda")
        }
        DeviceChoice::Cuda(number) => Device::new_cuda(number).with_context(|| format!("cannot use CUDA device {number}")),
    }
}

/// The configuration, and the folder of the run where it goes on.
fn configuration(args: &RunArgs) -> anyhow::Result<(Config, Option<PathBuf>)> {
    if args.resume {
        let (config, dir) = resume(args)?;
        return Ok((config, Some(dir)));
    }
    Ok((Config::resolve(args.preset.unwrap_or(Preset::Tiny), args.config.as_deref(), &args.overrides())?, None))
}

/// Makes the folder of a new run.
fn create(args: &RunArgs, config: &Config) -> anyhow::Result<PathBuf> {
    let dir = match &args.out {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            dir.clone()
        }
        None => create_numbered(args.preset.unwrap_or(Preset::Tiny))?,
    };
    let is_taken = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?.next().is_some();
    ensure!(!is_taken, "{} is not empty: --resume goes on with the run in it, another --out starts a new one", dir.display());
    let path = dir.join(CONFIG_FILE);
    atomic_file::write(&path, config.to_toml().as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(dir)
}

/// Configuration and folder of a run that goes on. Flags may repeat what the run was started with, but not change it.
fn resume(args: &RunArgs) -> anyhow::Result<(Config, PathBuf)> {
    let preset = args.preset.unwrap_or(Preset::Tiny);
    let dir = match &args.out {
        Some(dir) => dir.clone(),
        None => numbered(preset)?
            .pop()
            .map(|(_, dir)| dir)
            .with_context(|| format!("there is no {RUNS_DIR}/{}-N to resume; give the folder of the run with --out", preset.name()))?,
    };
    let path = dir.join(CONFIG_FILE);
    ensure!(path.exists(), "{} holds no run to resume (it has no {CONFIG_FILE})", dir.display());
    let saved = Config::read(&path)?;
    let asked = if args.preset.is_some() || args.config.is_some() {
        Config::resolve(preset, args.config.as_deref(), &args.overrides())?
    } else {
        saved.clone().with(&args.overrides())?
    };
    let differences = asked.differences_that_matter(&saved);
    ensure!(
        differences.is_empty(),
        "{} was started with another configuration, and a resumed run has to keep it:\n  {}\nleave these flags out, or start a new run with another --out",
        dir.display(),
        differences.join("\n  ")
    );
    // The rest is as it was asked for now: when to save, and what to do about failures.
    Ok((asked, dir))
}

/// Makes `runs/PRESET-N` with the next free N.
fn create_numbered(preset: Preset) -> anyhow::Result<PathBuf> {
    let mut number = numbered(preset)?.last().map_or(1, |(number, _)| number + 1);
    fs::create_dir_all(RUNS_DIR).with_context(|| format!("cannot create {RUNS_DIR}"))?;
    loop {
        let dir = Path::new(RUNS_DIR).join(format!("{}-{number}", preset.name()));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            // Another run has just taken it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error).with_context(|| format!("cannot create {}", dir.display())),
        }
    }
}

/// The folders `runs/PRESET-N`, by number.
fn numbered(preset: Preset) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(RUNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).context(format!("cannot read {RUNS_DIR}")),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix(preset.name()).and_then(|rest| rest.strip_prefix('-')).and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}
