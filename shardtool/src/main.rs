//! `shardtool`: raw video to shards of clips.

mod cli;
mod commands;
mod drawing;
mod fan_out;
mod journal;
mod labels;
mod protocol;
mod reading;
mod scene;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    console::exit::run(|cli: cli::Cli| {
        pipeline::simd::chosen()?;
        match &cli.command {
            cli::Command::Build(args) => commands::build::run(args),
            cli::Command::Synth(args) => commands::synth::run(args),
            cli::Command::Verify(args) => commands::verify::run(args),
            cli::Command::Inspect(args) => commands::inspect::run(args),
            cli::Command::Stats(args) => commands::stats::run(args),
            cli::Command::Export(args) => commands::export::run(args),
            cli::Command::Completions(args) => commands::completions::run(args),
            cli::Command::DecodeWorker => {
                worker::run()?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}
