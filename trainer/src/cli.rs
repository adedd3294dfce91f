//! What can be typed.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use trainer::config::{Overrides, Preset};

/// Pre-trains a video ViT by masked autoencoding on shards of clips.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Start here:
  shardtool build ./videos        build shards of your own folder of videos into ./shards
  trainer run                     train a tiny model on them, in minutes on a laptop"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pre-train a masked autoencoder.
    Run(RunArgs),
}

/// Pre-train a masked autoencoder.
///
/// Writes into the run's folder: config.toml (everything that decides what is computed), metrics.jsonl (a line a step), checkpoints/ (the latest
/// ones, each whole), and reconstruction.png (frames, the same masked, and what the model makes of them).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer run                                            the tiny preset on ./shards, into runs/tiny-1
  trainer run --data ./train --preset base --out runs/b  ViT-Base with the paper's recipe
  trainer run --config my.toml                           my.toml's keys over the preset's
  trainer run --out runs/b --resume                      go on with runs/b from its last checkpoint

A config file holds any of the keys that a run's config.toml shows, for example:
  [clip]
  size = 160
  [schedule]
  length = { epochs = 100.0 }   # or { steps = 5000 }")]
pub struct RunArgs {
    /// Folder of shards that `shardtool build` has finished.
    #[arg(long, value_name = "DIR", default_value = "./shards")]
    pub data: PathBuf,
    /// Where to start from [default: tiny].
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the run [default: runs/PRESET-N, the next free N; with --resume, the last one].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Train for so many steps.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Clips a step.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Seed of the first weights, of order, crops, flips and masks.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Go on with a run from its last checkpoint; the result is that of an uninterrupted run.
    #[arg(long)]
    pub resume: bool,
    /// Where to compute: cpu, cuda, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = DeviceChoice::parse)]
    pub device: DeviceChoice,
    /// Threads that load clips [default: half of the cores, 8 at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub loader_threads: Option<u32>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// What the flags change in a configuration.
    pub const fn overrides(&self) -> Overrides {
        Overrides { steps: self.steps, batch_size: self.batch_size, seed: self.seed }
    }

    /// Threads that load clips.
    pub fn loader_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.loader_threads.map_or((cores / 2).clamp(1, 8), |threads| threads as usize)
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// A GPU, by number.
    Cuda(usize),
}

impl DeviceChoice {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda).ok_or("cpu, cuda or cuda:N".to_owned()),
        }
    }
}
