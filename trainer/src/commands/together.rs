//! What ranks do before and after they train together, so that each error is reported once.

use crate::commands::session::Saved;
use anyhow::anyhow;
use console::{interrupt, output};
use pipeline::loader::LoadError;
use pipeline::simd;
use pipeline::source::{self, WeightedSource};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::config::Task;
use trainer::eval::EvaluateError;
use trainer::ranks::{Ranks, RanksError};
use trainer::train::RunError;
use trainer::train::weights::Weights;

/// An error that all ranks know, and rank 0 reports.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct OfAll(String);

/// What each rank did alone: an error of one of them is one of all.
///
/// # Errors
/// That of the first rank that has failed.
pub fn agree<T>(ranks: &Ranks, result: anyhow::Result<T>) -> anyhow::Result<T> {
    if ranks.count() == 1 {
        return result;
    }
    let message = result.as_ref().err().map(output::render_error);
    let messages = ranks.gather_bytes(message.unwrap_or_default().as_bytes());
    let Some(rank) = messages.iter().position(|message| !message.is_empty()) else {
        return result;
    };
    let message = String::from_utf8_lossy(&messages[rank]);
    let is_of_all = messages.iter().all(|other| *other == messages[rank]);
    Err(anyhow!(OfAll(if is_of_all {
        message.into_owned()
    } else {
        format!("rank {rank}: {message}")
    })))
}

/// The run that rank 0 resumes, if it does.
///
/// # Errors
/// When it finds none.
pub fn saved(
    ranks: &Ranks,
    resumes: bool,
    on_root: impl FnOnce() -> anyhow::Result<Saved>,
) -> anyhow::Result<Option<Saved>> {
    let of_root = match resumes && ranks.is_root() {
        true => on_root().map(Some),
        false => Ok(None),
    };
    let of_root = agree(ranks, of_root)?;
    if ranks.count() == 1 {
        return Ok(of_root);
    }
    let text = of_root.map(|(dir, task)| (dir, task.to_toml()));
    let text = serde_json::to_vec(&text)?;
    let text: Option<(PathBuf, String)> = serde_json::from_slice(&ranks.gather_bytes(&text)[0])?;
    text.map(|(dir, task)| Ok((dir, Task::parse(&task)?)))
        .transpose()
}

/// Checks that all ranks are about to read the same clips with the same model, in the same way.
///
/// # Errors
/// [`RanksError::Unlike`] where they differ, on all of them.
pub fn check_inference(
    ranks: &Ranks,
    data: &[WeightedSource],
    weights: &Weights,
    settings: &str,
) -> anyhow::Result<()> {
    // The model's hash takes a moment.
    if ranks.count() == 1 {
        return Ok(());
    }
    ranks.check_program(simd::chosen()?)?;
    let data = source::fingerprint(data);
    ranks.check("data", &format!("{data:016x}"))?;
    ranks.check("configuration", settings)?;
    let model = weights.fingerprint()?;
    Ok(ranks.check("model", &format!("{model:016x}"))?)
}

/// The folder that rank 0 has made or found.
///
/// # Errors
/// When it has not.
pub fn folder(
    ranks: &Ranks,
    on_root: impl FnOnce() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let of_root = if ranks.is_root() {
        on_root()
    } else {
        Ok(PathBuf::new())
    };
    let dir = agree(ranks, of_root)?;
    let text = dir.display().to_string();
    let all = ranks.gather_bytes(text.as_bytes());
    let of_root = String::from_utf8_lossy(&all[0]);
    Ok(Path::new(of_root.as_ref()).to_owned())
}

/// What is said when [`is_interrupted`].
pub const STOPPED: &str = "stopped; nothing was written";

/// Whether Ctrl-C has ended a command that writes its result at the end.
pub fn is_interrupted(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(EvaluateError::Load(LoadError::Interrupted))
    )
}

/// The end of a command on all ranks. An error that one rank alone has ends all of them at once;
/// otherwise none ends before rank 0 has said everything: a launcher kills the others when one ends
/// with an error code.
///
/// # Errors
/// Where there is one rank.
pub fn end(ranks: &Ranks, result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    if ranks.count() == 1 {
        return result;
    }
    let code = match result {
        Ok(code) => code,
        Err(error) if is_interrupted(&error) => {
            if ranks.is_root() {
                output::say(STOPPED);
            }
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            let message = output::render_error(&error);
            let error_of_run = error.downcast_ref();
            let is_of_all = error.is::<OfAll>()
                || error.is::<RanksError>()
                || matches!(error.downcast_ref(), Some(EvaluateError::Ranks(_)))
                || error_of_run.is_some_and(RunError::is_of_all_ranks);
            if !is_of_all {
                output::say(&format!("rank {}: error: {message}", ranks.number()));
                ranks.abort(1);
            }
            if ranks.is_root() {
                output::say(&format!("error: {message}"));
            }
            ExitCode::from(1)
        }
    };
    ranks.wait();
    Ok(code)
}
