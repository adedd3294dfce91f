//! The program `trainer`, command by command.

mod choose;
mod classify;
mod cli;
mod compat;
mod safety;
mod study;
mod visualise;

use schemas::report::StepMetrics;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use tests::{TestClip, json_lines, small_config, write_shards};

/// The program, to be started in the folder `dir`.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.current_dir(dir).args(arguments);
    command
}

/// Runs the program in the folder `dir`.
fn trainer(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().expect("run")
}

/// Clips that a small model takes.
fn small_clips(count: u64) -> Vec<TestClip> {
    (0..count)
        .map(|seed| TestClip::moving(seed, 8, 40, 36))
        .collect()
}

/// A folder with shards of `clips` clips in `shards`, and in `small.toml` the configuration of a
/// small model with a checkpoint every `every` steps.
fn with_shards(clips: u64, every: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write_shards(&dir.path().join("shards"), &small_clips(clips));
    fs::write(dir.path().join("small.toml"), small_config(1, every)).expect("written");
    dir
}

/// The metrics of a run.
fn steps(run: &Path) -> Vec<StepMetrics> {
    json_lines(&run.join("metrics.jsonl"))
}

/// The standard error of the program.
fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
