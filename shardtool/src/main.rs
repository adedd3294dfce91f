//! `shardtool`: raw video to shards of clips.

mod cli;
mod commands;
mod drawing;
mod fan_out;
mod journal;
mod labels;
mod output;
mod protocol;
mod reading;
mod scene;
mod stop;
mod worker;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // 0 done, 1 the user's input or environment, 2 a bug.
    std::panic::catch_unwind(start).unwrap_or(ExitCode::from(2))
}

fn start() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; what the user mistyped is the user's input.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let result = match &cli.command {
        cli::Command::Build(args) => commands::build::run(args),
        cli::Command::Synth(args) => commands::synth::run(args),
        cli::Command::Verify(args) => commands::verify::run(args),
        cli::Command::Inspect(args) => commands::inspect::run(args),
        cli::Command::Stats(args) => commands::stats::run(args),
        cli::Command::Export(args) => commands::export::run(args),
        cli::Command::Completions(args) => commands::completions::run(args),
        cli::Command::DecodeWorker => worker::run().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
    }
}
