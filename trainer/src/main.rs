//! `trainer`: pre-trains a video ViT on shards of clips, and uses what it has learned.

mod cli;
mod commands;

use clap::Parser;
use cli::{interrupt, output};
use commands::{bench, curves, embed, eval, export, finetune, import, run, study, visualise};
use pipeline::loader::LoadError;
use std::process::ExitCode;
use trainer::eval::EvaluateError;

fn main() -> ExitCode {
    // 0 done, 1 the user's input or environment, 2 a bug, 130 stopped by Ctrl-C.
    std::panic::catch_unwind(start).unwrap_or(ExitCode::from(2))
}

fn start() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let result = match &cli.command {
        cli::Command::Run(args) => run::run(args),
        cli::Command::Finetune(args) => finetune::finetune(args),
        cli::Command::Eval(args) => eval::eval(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Embed(args) => embed::embed(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Visualise(args) => visualise::visualise(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Study(args) => study::study(args),
        cli::Command::Import(args) => import::import(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Export(args) => export::export(args).map(|()| ExitCode::SUCCESS),
        cli::Command::DecodeWorker => pipeline::live::worker::run().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        cli::Command::Curves(args) => curves::curves(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Bench(cli::Bench::Loader(args)) => bench::loader::loader(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Bench(cli::Bench::Step(args)) => bench::step::step(args).map(|()| ExitCode::SUCCESS),
        cli::Command::Bench(cli::Bench::Sparsity(args)) => bench::sparsity::sparsity(args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(EvaluateError::Load(LoadError::Interrupted))) => {
            output::say("stopped; nothing was written");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            output::say(&format!("error: {}", output::described(&error)));
            ExitCode::from(1)
        }
    }
}
