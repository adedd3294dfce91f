//! From the command line to the exit code: 0 done, 1 the user's input or environment, 2 a bug, 130
//! stopped by Ctrl-C.

use crate::output;
use clap::Parser;
use std::panic::{UnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Parses the command line and runs `command` on it; prints errors, of both, to standard error.
/// Returns the program's exit code.
pub fn run<Cli: Parser>(
    command: impl FnOnce(Cli) -> anyhow::Result<ExitCode> + UnwindSafe,
) -> ExitCode {
    catch_unwind(|| parse_and_run(command)).unwrap_or(ExitCode::from(2))
}

fn parse_and_run<Cli: Parser>(command: impl FnOnce(Cli) -> anyhow::Result<ExitCode>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; a mistyped flag is the user's input.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match command(cli) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("error: {}", output::render_error(&error)));
            ExitCode::from(1)
        }
    }
}
