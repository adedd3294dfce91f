//! Commands and flags.

mod build;
mod derive;
mod shards;
mod synth;

pub use build::{BuildArgs, BuildCommand, PlanArgs};
pub use derive::{DeriveArgs, DuplicatesArgs, FilterArgs, MergeArgs};
pub use shards::{ExportArgs, IndexArgs, InspectArgs, StatsArgs, VerifyArgs};
pub use synth::SynthArgs;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use pipeline::store::{self, local_path};
use std::path::PathBuf;

/// Name of the hidden command of a build's worker processes.
pub const WORKER: &str = "decode-worker";

/// Build zstd-compressed Parquet shards of frame-sampled clips from raw video.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Start here:
  shardtool synth ./videos       generate a small labelled set of videos to play with
  shardtool build ./videos       build shards of a folder of videos into ./shards
  trainer run --data ./shards    train on them"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build shards of clips from videos.
    Build(BuildCommand),
    /// Cut a build into parts, for many machines.
    Plan(PlanArgs),
    /// Generate a small labelled set of H.264 videos of moving shapes.
    Synth(SynthArgs),
    /// Verify every byte of a folder of shards.
    Verify(VerifyArgs),
    /// List the clips of a folder of shards, or draw them.
    Inspect(InspectArgs),
    /// Write the index of a data set that has none, for reading it from a store.
    Index(IndexArgs),
    /// Print statistics of a folder of shards.
    Stats(StatsArgs),
    /// Export one clip as a video or as pictures.
    Export(ExportArgs),
    /// Write a data set of some clips of another, without copying.
    Filter(FilterArgs),
    /// Join several data sets into one, without copying.
    Merge(MergeArgs),
    /// Find clips that are nearly equal.
    Duplicates(DuplicatesArgs),
    /// Print a completion script for your shell.
    Completions(CompletionsArgs),
    /// Decode the videos that a build names on standard input.
    #[command(name = WORKER, hide = true)]
    DecodeWorker,
}

/// Print a completion script for your shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool completions bash > ~/.local/share/bash-completion/completions/shardtool
  shardtool completions zsh > ~/.zfunc/_shardtool       with ~/.zfunc in your fpath
  shardtool completions fish > ~/.config/fish/completions/shardtool.fish")]
pub struct CompletionsArgs {
    /// Shell to complete commands in.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Parses a value of a closed set of names.
fn named<T: Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
    from_name: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).map(move |name| from_name(&name).expect("one of the names"))
}

/// Parses a path, or the URL of a place in a store.
fn place() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(store::place)
}

/// Parses a path that is not a URL.
fn local() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(local_path)
}

/// Parses a number greater than 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("not a number greater than 0".to_owned()),
    }
}
