//! `trainer`: pre-trains a video ViT on shards of clips, and uses what it has learned.

mod cli;
mod commands;

use commands::{
    bench, curves, embed, eval, export, finetune, import, run, study, together, visualise,
};
use console::{exit, interrupt, output};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::run(|cli: cli::Cli| match run_command(&cli.command) {
        Err(error) if together::is_interrupted(&error) => {
            output::say(together::STOPPED);
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        result => result,
    })
}

fn run_command(command: &cli::Command) -> anyhow::Result<ExitCode> {
    pipeline::simd::chosen()?;
    match command {
        cli::Command::Run(args) => return run::run(args),
        cli::Command::Finetune(args) => return finetune::finetune(args),
        cli::Command::Study(args) => return study::study(args),
        cli::Command::Eval(args) => return eval::eval(args),
        cli::Command::Embed(args) => return embed::embed(args),
        cli::Command::Visualise(args) => visualise::visualise(args)?,
        cli::Command::Import(args) => import::import(args)?,
        cli::Command::Export(args) => export::export(args)?,
        cli::Command::DecodeWorker => pipeline::live::worker::run()?,
        cli::Command::Curves(args) => curves::curves(args)?,
        cli::Command::Bench(cli::Bench::Loader(args)) => bench::loader::loader(args)?,
        cli::Command::Bench(cli::Bench::Step(args)) => return bench::step::step(args),
        cli::Command::Bench(cli::Bench::Scaling(args)) => return bench::scaling::scaling(args),
        cli::Command::Bench(cli::Bench::Sparsity(args)) => bench::sparsity::sparsity(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
