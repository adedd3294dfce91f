//! What every training has around its loop: run folder, progress, and the report at the end.

use crate::cli::progress::TrainingProgress;
use crate::cli::usage;
use crate::cli::{DeviceChoice, loader_threads_beside_training};
use anyhow::{Context, bail, ensure};
use candle_core::Device;
use console::{interrupt, output};
use pipeline::{all_cores, atomic_file};
use schemas::report::RunReport;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::{DataConfig, Task};
use trainer::log::{CONFIG_FILE, CURVES_FILE, History, HistoryError, REPORT_FILE, TENSORBOARD_DIR};
use trainer::ranks::Ranks;
use trainer::train::nonfinite::NONFINITE_FILE;
use trainer::train::{self, Event, Outcome, Run, RunError};

/// Folder of the runs without --out.
pub const RUNS_DIR: &str = "runs";

/// Trains, shows progress, and prints the report. `resume` is the command that resumes the run, and
/// `more` renders what the objective adds to the report.
///
/// # Errors
/// When the run fails.
pub fn train(
    ranks: &Ranks,
    run: &Run,
    resume: &str,
    json: bool,
    more: impl FnOnce(&RunReport) -> String,
) -> anyhow::Result<ExitCode> {
    if !ranks.is_root() {
        return train_beside(ranks, run);
    }
    let mut progress = TrainingProgress::new();
    // The first step pays for start-up.
    let (mut steps, mut seconds, mut waited) = (0, 0.0, 0.0);
    let (mut clips, mut skipped) = (0.0, 0);
    let outcome = train::train_with(ranks, run, |event| match event {
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
            "warning: step {} skipped: loss {}, gradient norm {}; its clips are in {}",
            step.step,
            step.loss,
            step.grad_norm,
            file.display()
        )),
        Event::InvalidCheckpoint(checkpoint) => progress.say(&format!(
            "warning: skipping an invalid checkpoint: {checkpoint}"
        )),
        Event::Skipped(reason) => progress.say(&format!("warning: skipped: {reason}")),
    });
    progress.finish();
    let outcome = outcome.inspect_err(|error| {
        if can_go_on(error) {
            output::say(&format!(
                "once the cause is fixed, resume from the last checkpoint: {resume}"
            ));
        }
    })?;
    let is_finished = outcome.steps >= outcome.all_steps;
    let (steps, all_steps) = (outcome.steps, outcome.all_steps);
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let report = report(run, outcome, per_second(clips), per_second(waited), skipped)?;
    output::print(&if json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report, run) + &more(&report)
    })?;
    if is_finished {
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!(
        "stopped after step {steps} of {all_steps}; to resume: {resume}"
    ));
    Ok(ExitCode::from(interrupt::EXIT_CODE))
}

/// Trains on a rank that is not 0.
fn train_beside(ranks: &Ranks, run: &Run) -> anyhow::Result<ExitCode> {
    // Rank 0 reports.
    let outcome = train::train_with(ranks, run, |_| {})?;
    Ok(if outcome.steps >= outcome.all_steps {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(interrupt::EXIT_CODE)
    })
}

/// Whether the run can be resumed after this error, once its cause is fixed.
const fn can_go_on(error: &RunError) -> bool {
    matches!(
        error,
        RunError::Load(_)
            | RunError::Checkpoint(_)
            | RunError::Learner(_)
            | RunError::Nonfinite { .. }
            | RunError::Validation(_)
            | RunError::Log(_)
            | RunError::Write { .. }
    )
}

fn report(
    run: &Run,
    outcome: Outcome,
    clips_per_second: f64,
    stall_fraction: f64,
    skipped: u64,
) -> anyhow::Result<RunReport> {
    let (first_loss, last_loss) = losses(&run.dir)?;
    let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
    Ok(RunReport {
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
        validation: outcome.validation,
    })
}

/// The report as text.
fn render_report(report: &RunReport, run: &Run) -> String {
    let RunReport {
        out,
        steps,
        first_loss,
        last_loss,
        clips_per_second,
        skipped,
        nonfinite,
        ..
    } = report;
    let mut text = format!(
        "{steps} steps in {out}: loss {first_loss:.4} over the first ten, {last_loss:.4} over the \
         last \
         ten; {clips_per_second:.1} clips/s, {:.1} % of the time waiting for data; peak memory \
         {:.0} MB",
        100.0 * report.stall_fraction,
        report.peak_memory_bytes as f64 / 1e6,
    );
    if *skipped > 0 {
        text += &format!("; {skipped} reads of unreadable clips skipped");
    }
    if *nonfinite > 0 {
        text += &format!("; {nonfinite} non-finite steps skipped ({NONFINITE_FILE})");
    }
    if let Some(validation) = &report.validation {
        text += &format!(
            "\nvalidation: top-1 accuracy {:.1} %, top-5 {:.1} %, of {} clips",
            100.0 * validation.top1,
            100.0 * validation.top5,
            validation.clips
        );
    }
    if let Some(checkpoint) = &report.checkpoint {
        text += &format!("\nweights: {checkpoint}");
    }
    let [curves, page, events] =
        [CURVES_FILE, REPORT_FILE, TENSORBOARD_DIR].map(|name| run.dir.join(name));
    if curves.exists() {
        let [curves, page, events] = [curves.display(), page.display(), events.display()];
        text += &format!(
            "\ncurves: {curves}; all in one page: {page}; by step: tensorboard --logdir {events}"
        );
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

/// Loader threads of this rank, beside its training.
pub fn loader_threads(ranks: &Ranks) -> usize {
    loader_threads_beside_training(ranks.share_of(all_cores()))
}

/// Divides the batches of a new run for several ranks, where the configuration does not.
pub fn share_batches(ranks: &Ranks, data: &mut DataConfig) {
    let wanted = ranks.count().next_power_of_two();
    if data.micro_batches == 1 && data.batch_size.is_multiple_of(wanted) {
        data.micro_batches = wanted;
    }
}

/// The device that was chosen.
///
/// # Errors
/// When this program or machine has no such device.
pub fn device(choice: DeviceChoice) -> anyhow::Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(_) if !cfg!(feature = "cuda") => {
            bail!(
                "this program was built for the CPU; build it with `cargo build --release \
                 --features trainer/cuda` for --device cuda"
            )
        }
        DeviceChoice::Cuda(number) => {
            Device::new_cuda(number).with_context(|| format!("cannot use CUDA device {number}"))
        }
    }
}

/// Makes the folder of a new run, `out` or `runs/NAME-N` with the next free N, with its
/// configuration in it.
///
/// # Errors
/// When the folder is not empty, or cannot be written.
pub fn create(out: Option<&Path>, name: &str, task: &Task) -> anyhow::Result<PathBuf> {
    let dir = match out {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            dir.to_owned()
        }
        None => create_numbered(name)?,
    };
    let is_taken = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .next()
        .is_some();
    ensure!(
        !is_taken,
        "{} is not empty: --resume continues the run in it, another --out starts a new one",
        dir.display()
    );
    let path = dir.join(CONFIG_FILE);
    atomic_file::write(&path, task.to_toml().as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(dir)
}

/// A run to resume: its folder and its configuration.
pub type Saved = (PathBuf, Task);

/// The run to resume, `out` or the last `runs/NAME-N`.
///
/// # Errors
/// When there is no such run.
pub fn saved(out: Option<&Path>, name: &str) -> anyhow::Result<Saved> {
    let dir = match out {
        Some(dir) => dir.to_owned(),
        None => numbered(name)?.pop().map(|(_, dir)| dir).with_context(|| {
            format!(
                "there is no {RUNS_DIR}/{name}-N to resume; give the folder of the run with --out"
            )
        })?,
    };
    let path = dir.join(CONFIG_FILE);
    ensure!(
        path.exists(),
        "{} holds no run to resume (it has no {CONFIG_FILE})",
        dir.display()
    );
    let saved = Task::read(&path)?;
    Ok((dir, saved))
}

/// Refuses to resume a run with another configuration.
///
/// # Errors
/// When there are `differences` that matter.
pub fn refuse_differences(dir: &Path, differences: &[String]) -> anyhow::Result<()> {
    ensure!(
        differences.is_empty(),
        "{} was started with another configuration, and a resumed run has to keep it:\n  {}\n\
         leave these flags out, or start a new run with another --out",
        dir.display(),
        differences.join("\n  ")
    );
    Ok(())
}

/// Makes `runs/NAME-N` with the next free N.
fn create_numbered(name: &str) -> anyhow::Result<PathBuf> {
    let mut number = numbered(name)?.last().map_or(1, |(number, _)| number + 1);
    fs::create_dir_all(RUNS_DIR).with_context(|| format!("cannot create {RUNS_DIR}"))?;
    loop {
        let dir = Path::new(RUNS_DIR).join(format!("{name}-{number}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            // Another run has just taken it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", dir.display()));
            }
        }
    }
}

/// The folders `runs/NAME-N`, by number.
fn numbered(wanted: &str) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(RUNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).context(format!("cannot read {RUNS_DIR}")),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let number = name
            .strip_prefix(wanted)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}
