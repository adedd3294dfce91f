//! Arguments of `trainer study`.

use super::{DataArg, LoadArgs, local};
use clap::Args;
use std::path::PathBuf;
use trainer::study::Study;

/// Arguments of `trainer study`.
#[derive(Debug, Args)]
#[command(after_help = "\
Generate synthetic data, in five minutes on two cores:
  shardtool synth v/unlabelled --videos 16000 --shapes 6 --size 64 --seconds 2.2 --seed 1
  shardtool build v/unlabelled --out s/unlabelled
  shardtool synth v/train --videos 2048 --shapes 6 --size 64 --seconds 2.2 --seed 2
  shardtool build v/train --labels dirs --out s/train
  shardtool synth v/val --videos 800 --shapes 6 --size 64 --seconds 2.2 --seed 3
  shardtool build v/val --labels dirs --out s/val
  trainer study labels --unlabelled s/unlabelled --train s/train --val s/val

Real footage, in folds that a list of videos gives (shardtool build --list, column \"split\"):
  trainer study labels --fold s:fold0 --fold s:fold1 --fold s:fold2 --fold s:fold3")]
pub struct StudyArgs {
    /// The finding to reproduce.
    #[arg(value_enum)]
    pub study: Study,
    /// Folder of shards or of videos for pre-training.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "./s/unlabelled",
        value_parser = DataArg::parse,
    )]
    pub unlabelled: Vec<DataArg>,
    /// Folder of other footage for pre-training, for the study of footage.
    #[arg(long, value_name = "PATH", value_parser = DataArg::parse)]
    pub other: Vec<DataArg>,
    /// Folder of labelled shards for fine-tuning.
    #[arg(long, value_name = "SHARDS", default_value = "./s/train", value_parser = DataArg::parse)]
    pub train: Vec<DataArg>,
    /// Folder of labelled shards for validation.
    #[arg(long, value_name = "SHARDS", default_value = "./s/val", value_parser = DataArg::parse)]
    pub val: Vec<DataArg>,
    /// Study real footage instead: a fold of labelled shards, PATH:SPLIT for a split of one. Given
    /// several times, each is validated on once, with the others to train on.
    #[arg(
        long,
        value_name = "SHARDS",
        value_parser = DataArg::parse,
        conflicts_with_all = ["unlabelled", "train", "val", "seeds"],
    )]
    pub fold: Vec<DataArg>,
    /// Output folder of all runs, and of the result: NAME.json, NAME.md and NAME.png.
    #[arg(long, value_name = "DIR", default_value = "./study", value_parser = local())]
    pub out: PathBuf,
    /// Runs of each kind, with seeds 0, 1, ...
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100),
    )]
    pub seeds: u32,
    /// Steps per pre-training, of 64 clips each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    pub pretrain_steps: u64,
    /// Steps per fine-tuning, of 32 clips each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 500,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    pub finetune_steps: u64,
    /// Runs at a time, which share the threads: small models keep one thread busier than several.
    /// Results do not depend on it, but the seconds in them are those of runs side by side.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024),
    )]
    pub jobs: u32,
    /// Compute threads of all runs together [default: physical cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    #[command(flatten)]
    /// Loader settings.
    pub load: LoadArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}
