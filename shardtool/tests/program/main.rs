//! The program `shardtool`, command by command.

mod build;
mod choose;
mod cli;
mod compat;
mod corpus;
mod lists;
mod odd;
mod scenes;
mod sources;
mod store;
mod tools;

use std::path::Path;
use std::process::{Command, Output};

/// The program, to be started in the folder `dir`.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardtool"));
    command.current_dir(dir).args(arguments);
    command
}

/// Runs the program in the folder `dir`.
fn shardtool(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().expect("run")
}
