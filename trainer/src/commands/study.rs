//! `trainer study`: reproduces findings of the paper at small scale.

use crate::cli::progress::TrainingProgress;
use crate::cli::{Questions, StudyArgs, loader_threads_beside_training};
use crate::commands::sources;
use anyhow::ensure;
use console::progress::Bars;
use console::{interrupt, output};
use pipeline::atomic_file;
use pipeline::choice::Choice;
use pipeline::store;
use pipeline::{all_cores, physical_cores};
use schemas::report::StudyReport;
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use trainer::config::LiveConfig;
use trainer::plot::png;
use trainer::study::{
    self, Budget, Progress, Settings, Setup, Study, StudyData, StudyError, TaskData,
};
use trainer::train::Event;

/// Frames per clip in all studies.
const FRAMES: usize = 16;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: data without labels, a full disk.
pub fn study(args: &StudyArgs) -> anyhow::Result<ExitCode> {
    let studies = named(args)?;
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let cache = args.load.cache();
    let (choice, live) = (Choice::default(), LiveConfig::default());
    let open = |data| sources::open(data, &choice, &live, FRAMES, cache.as_ref());
    let other = if args.other.is_empty() {
        None
    } else {
        Some(open(&args.other)?.into())
    };
    let data = StudyData {
        task: if args.data.is_empty() {
            TaskData::Shapes {
                unlabelled: open(&args.unlabelled)?.into(),
                train: open(&args.train)?,
                validation: open(&args.val)?,
            }
        } else {
            TaskData::Folds(study::folds(&open(&args.data)?, args.folds as usize)?)
        },
        other,
    };
    let first_seed = u64::from(args.first_seed);
    let (seeds, usual) = match &data.task {
        TaskData::Shapes { .. } => (3, Setup::Shapes.budget()),
        TaskData::Folds(folds) => {
            let left = (folds.len() as u64).saturating_sub(first_seed);
            (left.max(1), Setup::Real.budget())
        }
    };
    let as_count = |count: u32| count as usize;
    let jobs = as_count(args.jobs);
    let settings = Settings {
        out: args.out.clone(),
        seeds: first_seed..first_seed + args.seeds.map_or(seeds, u64::from),
        repeats: u64::from(args.repeats),
        budget: Budget {
            pretrain_steps: args.pretrain_steps.unwrap_or(usual.pretrain_steps),
            finetune_steps: args.finetune_steps.unwrap_or(usual.finetune_steps),
        },
        flip: args.flip,
        loading: args
            .load
            .loading((loader_threads_beside_training(all_cores()) / jobs).max(1)),
        threads: args.threads.map_or_else(physical_cores, as_count),
        jobs,
        stop: interrupt::flag(),
    };
    let bars = Bars::new();
    let running = Mutex::new(HashMap::new());
    let on_progress = |name: &str, progress: Progress<'_>| {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let warn = |text: &str| bars.say(&format!("warning: {name}: {text}"));
        match progress {
            Progress::Begins(number, of) => {
                bars.say(&format!("run {number} of {of}: {name}"));
                running.insert(name.to_owned(), TrainingProgress::of(name, &bars));
            }
            Progress::Event(Event::Step(metrics, all)) => {
                if let Some(run) = running.get_mut(name) {
                    run.advance(metrics, all);
                }
            }
            Progress::Event(Event::Nonfinite(step, _)) => {
                warn(&format!("step {} was not finite", step.step));
            }
            Progress::Event(Event::InvalidCheckpoint(checkpoint)) => {
                warn(&format!("skipped an invalid checkpoint: {checkpoint}"));
            }
            Progress::Event(Event::Skipped(reason)) => warn(&format!("skipped: {reason}")),
            Progress::Ends => {
                if let Some(run) = running.remove(name) {
                    run.finish();
                }
            }
        }
    };
    let mut reports = Vec::new();
    let on_report = |report: StudyReport| {
        write(args, &report)?;
        if !args.json {
            let name = &report.name;
            let plot = args.out.join(format!("{name}.png"));
            let table = study::render_table(&report);
            let text = format!("{name}\n\n{table}\nplot: {}\n", plot.display());
            let path = "standard output".into();
            bars.print(&text)
                .map_err(|source| StudyError::Write { path, source })?;
        }
        reports.push(report);
        Ok(())
    };
    match study::study(&studies, &data, &settings, on_progress, on_report) {
        Err(StudyError::Stopped) => {
            output::say("stopped; run the same command again to continue");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        ended => ended?,
    }
    reports.sort_by_key(|report| studies.iter().position(|study| study.name() == report.name));
    if args.json {
        output::print(&match &*reports {
            [report] => serde_json::to_string_pretty(report)?,
            reports => serde_json::to_string_pretty(reports)?,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The studies that the arguments name, each once.
fn named(args: &StudyArgs) -> anyhow::Result<Vec<Study>> {
    let mut studies = Vec::new();
    for questions in &args.studies {
        let all: &[Study] = match questions {
            Questions::One(study) => &[*study],
            Questions::Real => &Study::REAL,
        };
        let has_data = |study: &Study| !args.other.is_empty() || *study != Study::Footage;
        for study in all {
            if has_data(study) {
                if !studies.contains(study) {
                    studies.push(*study);
                }
            } else if matches!(questions, Questions::Real) {
                output::say("note: without --other, the study of footage is left out");
            } else {
                return Err(StudyError::NoOther.into());
            }
        }
    }
    if args
        .studies
        .iter()
        .any(|questions| matches!(questions, Questions::Real))
    {
        ensure!(
            !args.data.is_empty(),
            "the studies of real footage need labelled shards: --data; `shardtool build VIDEOS \
             --labels dirs --stride 6 --every 0.2` makes them"
        );
    }
    Ok(studies)
}

/// Writes the table, the plot, the confusion matrices and the JSON of a study.
fn write(args: &StudyArgs, report: &StudyReport) -> Result<(), StudyError> {
    let table = study::render_table(report);
    let json = serde_json::to_string_pretty(report).expect("plain data becomes JSON");
    for (ending, contents) in [
        (".json", Ok(json.into_bytes())),
        (".md", Ok(table.into_bytes())),
        (".png", png(&study::draw(report))),
        ("-confusion.png", png(&study::draw_confusions(report))),
    ] {
        let path = args.out.join(format!("{}{ending}", report.name));
        contents
            .and_then(|contents| atomic_file::write(&path, &contents))
            .map_err(|source| StudyError::Write { path, source })?;
    }
    Ok(())
}
