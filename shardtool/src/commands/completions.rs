//! `shardtool completions`: prints a completion script for a shell.

use crate::cli::{Cli, CompletionsArgs};
use clap::CommandFactory;
use console::output;
use std::process::ExitCode;

/// Runs the command.
///
/// # Errors
/// When standard output is closed.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shardtool", &mut script);
    output::print(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
