//! `shardtool`: raw video to shards of clips.

mod cli;
mod commands;
mod drawing;
mod fan_out;
mod features;
mod inputs;
mod journal;
mod labels;
mod list;
mod near;
mod plan;
mod protocol;
mod publish;
mod reading;
mod scene;
mod scratch;
mod split;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    console::exit::run(|cli: cli::Cli| {
        pipeline::simd::chosen()?;
        match &cli.command {
            cli::Command::Build(args) => commands::build::run(args),
            cli::Command::Plan(args) => commands::plan::run(args),
            cli::Command::Synth(args) => commands::synth::run(args),
            cli::Command::Verify(args) => commands::verify::run(args),
            cli::Command::Index(args) => commands::index::run(args),
            cli::Command::Inspect(args) => commands::inspect::run(args),
            cli::Command::Stats(args) => commands::stats::run(args),
            cli::Command::Export(args) => commands::export::run(args),
            cli::Command::Filter(args) => commands::derive::filter(args),
            cli::Command::Merge(args) => commands::derive::merge(args),
            cli::Command::Duplicates(args) => commands::duplicates::run(args),
            cli::Command::Completions(args) => commands::completions::run(args),
            cli::Command::DecodeWorker => {
                worker::run()?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}
