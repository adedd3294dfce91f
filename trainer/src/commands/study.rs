//! `trainer study`: reproduces findings of the paper at small scale.

use crate::cli::progress::TrainingProgress;
use crate::cli::{StudyArgs, loader_threads_beside_training};
use crate::commands::sources;
use anyhow::Context;
use console::{interrupt, output};
use pipeline::atomic_file;
use pipeline::physical_cores;
use std::process::ExitCode;
use trainer::config::LiveConfig;
use trainer::plot::png;
use trainer::study::{self, Budget, Settings, StudyData, StudyError};
use trainer::train::Event;

/// Frames per clip in all studies.
const FRAMES: usize = 16;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: data without labels, a full disk.
pub fn study(args: &StudyArgs) -> anyhow::Result<ExitCode> {
    interrupt::listen()?;
    let open = |data| sources::open(data, &LiveConfig::default(), FRAMES);
    let other = if args.other.is_empty() {
        None
    } else {
        Some(open(&args.other)?.into())
    };
    let data = StudyData {
        unlabelled: open(&args.unlabelled)?.into(),
        other,
        train: open(&args.train)?,
        validation: open(&args.val)?,
    };
    let settings = Settings {
        out: args.out.clone(),
        seeds: u64::from(args.seeds),
        budget: Budget {
            pretrain_steps: args.pretrain_steps,
            finetune_steps: args.finetune_steps,
        },
        loading: args.load.loading(loader_threads_beside_training()),
        threads: args
            .threads
            .map_or_else(physical_cores, |threads| threads as usize),
        stop: interrupt::flag(),
    };
    let progress = std::cell::RefCell::new(TrainingProgress::new());
    let on_run = |number: usize, of: usize, name: &str| {
        progress.replace(TrainingProgress::new()).finish();
        output::say(&format!("run {number} of {of}: {name}"));
    };
    let on_event = |event: Event<'_>| match event {
        Event::Step(metrics, all) => progress.borrow_mut().advance(metrics, all),
        Event::Nonfinite(step, _) => {
            output::say(&format!("warning: step {} was not finite", step.step))
        }
        Event::InvalidCheckpoint(checkpoint) => output::say(&format!(
            "warning: skipped an invalid checkpoint: {checkpoint}"
        )),
        Event::Skipped(clip) => output::say(&format!("warning: skipped: {}", clip.reason)),
    };
    let report = match study::study(args.study, &data, &settings, on_run, on_event) {
        Err(StudyError::Stopped) => {
            output::say("stopped; run the same command again to continue");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        report => report?,
    };
    progress.into_inner().finish();
    let table = study::render_table(&report);
    let json = serde_json::to_string_pretty(&report)?;
    let picture = png(&study::draw(&report))?;
    for (ending, contents) in [
        ("json", json.as_bytes()),
        ("md", table.as_bytes()),
        ("png", picture.as_slice()),
    ] {
        let path = args.out.join(format!("{}.{ending}", args.study.name()));
        atomic_file::write(&path, contents)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    output::print(&if args.json {
        json
    } else {
        format!(
            "{table}\nplot: {}",
            args.out
                .join(format!("{}.png", args.study.name()))
                .display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
