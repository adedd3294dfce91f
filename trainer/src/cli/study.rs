//! Arguments of `trainer study`.

use super::{DataArg, LoadArgs, local};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use trainer::study::Study;

/// The name that stands for all studies of real footage.
const REAL: &str = "real";

/// Arguments of `trainer study`.
#[derive(Debug, Args)]
#[command(after_help = "\
Real footage, labelled. A clip should show a whole action: --stride 6 of 30 fps is 3 seconds. Five
folds are about 12 hours on two cores (18 minutes per pre-training, 7 per fine-tuning, in pairs):
  shardtool build ./videos --labels dirs --stride 6 --every 0.2 --out s/videos
  trainer study real --data s/videos --other s/other --jobs 2

Synthetic shapes, generated in five minutes on two cores:
  shardtool synth v/unlabelled --videos 16000 --shapes 6 --size 64 --seconds 2.2 --seed 1
  shardtool build v/unlabelled --out s/unlabelled
  shardtool synth v/train --videos 2048 --shapes 6 --size 64 --seconds 2.2 --seed 2
  shardtool build v/train --labels dirs --out s/train
  shardtool synth v/val --videos 800 --shapes 6 --size 64 --seconds 2.2 --seed 3
  shardtool build v/val --labels dirs --out s/val
  trainer study labels --unlabelled s/unlabelled --train s/train --val s/val")]
pub struct StudyArgs {
    /// The findings to reproduce, one or several: labels (pre-trained vs from scratch, by labelled
    /// videos), probes (linear and attentive), order (shuffled and single frames), ratio, kind (mask
    /// ratios and kinds), footage (of other videos), slices, depth, width, repeat; or real: the
    /// first six.
    #[arg(required = true, value_name = "NAME", value_parser = Questions::parse)]
    pub studies: Vec<Questions>,
    /// Folder of labelled shards of real footage. Folds of it are validated on in turn, with the
    /// others to train on: its splits where it has three or more, blocks of its videos otherwise.
    #[arg(
        long,
        value_name = "SHARDS",
        value_parser = DataArg::parse,
        conflicts_with_all = ["unlabelled", "train", "val"],
    )]
    pub data: Vec<DataArg>,
    /// Number of blocks of videos, in the order of their names, that serve as folds of --data
    /// without splits.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(2..=100),
    )]
    pub folds: u32,
    /// Folder of other footage for pre-training, for the study of footage.
    #[arg(long, value_name = "PATH", value_parser = DataArg::parse)]
    pub other: Vec<DataArg>,
    /// Synthetic shapes: folder of shards or of videos for pre-training.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "./s/unlabelled",
        value_parser = DataArg::parse,
    )]
    pub unlabelled: Vec<DataArg>,
    /// Synthetic shapes: folder of labelled shards for fine-tuning.
    #[arg(long, value_name = "SHARDS", default_value = "./s/train", value_parser = DataArg::parse)]
    pub train: Vec<DataArg>,
    /// Synthetic shapes: folder of labelled shards for validation.
    #[arg(long, value_name = "SHARDS", default_value = "./s/val", value_parser = DataArg::parse)]
    pub val: Vec<DataArg>,
    /// Output folder of all runs, and of the results: NAME.json, NAME.md, NAME.png and
    /// NAME-confusion.png, the confusion matrices of all arms.
    #[arg(long, value_name = "DIR", default_value = "./study", value_parser = local())]
    pub out: PathBuf,
    /// Runs of each kind, each with its own seed. Of real footage, seed n validates on fold n
    /// [default: one per fold; of synthetic shapes 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: Option<u32>,
    /// The first seed: of real footage, folds before it are trained on only, as those that settings
    /// were tuned on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_seed: u32,
    /// Fine-tunings and probes of each pre-training, each with its own seed. Fine-tuned on some
    /// hundred videos, accuracies differ by ten points between them.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=100),
    )]
    pub repeats: u32,
    /// Steps per pre-training [default: 8000 of 16 clips; of synthetic shapes 2000 of 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pretrain_steps: Option<u64>,
    /// Steps per fine-tuning [default: 1000 of 8 clips; of synthetic shapes 500 of 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub finetune_steps: Option<u64>,
    /// Probability of a flip left to right in all runs; 0 where left and right are different classes
    /// [default: 0.5; of synthetic shapes 0]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub flip: Option<f64>,
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
    /// Print the result as JSON; of several studies, a list of results.
    #[arg(long)]
    pub json: bool,
}

fn probability(text: &str) -> Result<f64, String> {
    let is_valid = |value: &f64| (0.0..=1.0).contains(value);
    let value = text.parse().ok().filter(is_valid);
    value.ok_or_else(|| "a probability, from 0 to 1".to_owned())
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub enum Questions {
    /// One study.
    One(Study),
    /// [`Study::REAL`].
    Real,
}

impl Questions {
    fn parse(name: &str) -> Result<Self, String> {
        if name == REAL {
            return Ok(Self::Real);
        }
        let study = Study::from_str(name, false).map_err(|_| {
            let known = Study::value_variants().iter().map(|study| study.name());
            let known: Vec<&str> = known.chain([REAL]).collect();
            format!("the studies are {}", known.join(", "))
        })?;
        Ok(Self::One(study))
    }
}
