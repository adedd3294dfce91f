//! Arguments of `trainer bench`.

use super::{BenchFlags, DataArg, LoadArgs, Settings, positive, settings};
use clap::{Args, Subcommand};
use pipeline::loader::batch::ValueType;
use std::path::PathBuf;
use trainer::config::Preset;
use trainer::cpu::Precision;

/// Benchmarks.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Benchmark the loader: clips per second, time per stage, and waits of a consumer.
    Loader(Box<BenchLoaderArgs>),
    /// Benchmark a training step: time per part, and GFLOP/s vs one large matrix product.
    Step(BenchStepArgs),
    /// Compare masked with dense training steps: multiply-adds, seconds and clips per second.
    Sparsity(BenchSparsityArgs),
    /// Measure how training scales with ranks, and predict it for other networks.
    Scaling(BenchScalingArgs),
}

/// Benchmark the loader: clips per second, time per stage, and waits of a consumer.
///
/// Loads as in training, with the crops, masks and batches of a preset. The consumer of the batches
/// does nothing, takes them at a fixed rate (as GPUs would), or trains on the CPU.
#[derive(Debug, Args)]
#[command(after_help = settings::render_help::<BenchFlags>("\
Examples:
  trainer bench loader ./shards                      load at full speed
  trainer bench loader ./shards --consumer rate:136  feed 8 A100s (17 clips/s each)
  trainer bench loader ./shards --consumer step      measure the cost of loading for a training step
  trainer bench loader ./videos --repeat-aug 4       decode on the fly, four samples per clip
  trainer bench loader ./shards --form clips --values f32 --json"))]
pub struct BenchLoaderArgs {
    /// Folders of finished shards or of videos; to mix several by weight, use PATH=WEIGHT.
    #[arg(value_name = "DATA", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Consumer of the batches: none, rate:CLIPS_PER_S, or step (trains the preset).
    #[arg(long, default_value = "none", value_parser = Consumer::parse)]
    pub consumer: Consumer,
    /// Duration of the measurement, after a warm-up of a tenth of it.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = positive)]
    pub seconds: f64,
    /// Preset of clips, masks and model.
    #[arg(long, value_enum, default_value = "base")]
    pub preset: Preset,
    /// TOML file with keys that override the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the batches: the patches that a masked autoencoder uses, or whole clips.
    #[arg(long, value_enum, default_value = "patches")]
    pub form: FormArg,
    /// Type of the values [default: the preset's].
    #[arg(long, value_enum)]
    pub values: Option<ValuesArg>,
    /// Settings that override both.
    #[command(flatten)]
    pub settings: Settings<BenchFlags>,
    #[command(flatten)]
    /// Loader settings.
    pub load: LoadArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A training step on random data.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// Preset of the model.
    #[arg(long, value_enum, default_value = "base")]
    pub preset: Preset,
    /// TOML file with keys that override the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Clips per step, of each rank.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub batch_size: usize,
    /// Share of masked tokens [default: the preset's].
    #[arg(long, value_name = "R")]
    pub mask_ratio: Option<f64>,
    /// Type of activations.
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Precision,
    /// Recompute activations in the backward to save memory.
    #[arg(long, alias = "recompute")]
    pub gradient_checkpointing: bool,
    /// Compute threads of each rank [default: physical cores, shared by the ranks that may use them].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Timed steps, after one warm-up step.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub steps: u32,
}

/// Benchmark a training step: time per part, and GFLOP/s vs one large matrix product.
///
/// Trains the model of a preset on one random batch, repeatedly: forward, backward, clipping and
/// AdamW, without loading. Under mpirun all ranks do, and sum their gradients.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer bench step                                      ViT-B, two clips, 90 % masked, f32
  trainer bench step --dtype bf16                         the same in bf16
  trainer bench step --preset large --batch-size 1 --gradient-checkpointing --json
  mpirun -n 4 --bind-to none trainer bench step --preset small")]
pub struct BenchStepArgs {
    #[command(flatten)]
    /// The step.
    pub step: StepArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Measure how training scales with ranks, and predict it for other networks.
///
/// Under mpirun, times steps on 1, 2, 4, ... of the ranks, each with its own clips. With or without,
/// predicts the step on many nodes: from when the gradients of this machine's backward are complete,
/// the bytes to sum, and the bandwidth and latency of the network. Efficiency is the share of the
/// clips per second that as many nodes would have without sums.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer bench scaling                                 ViT-B, two clips per node
  mpirun -n 4 --map-by node --bind-to none trainer bench scaling --batch-size 16
                                                        four nodes, and the prediction for more
  trainer bench scaling --preset large --gbits 50,200 --nodes 8,64,512")]
pub struct BenchScalingArgs {
    #[command(flatten)]
    /// The step.
    pub step: StepArgs,
    /// Bandwidths of networks, in 10^9 bits per second.
    #[arg(
        long,
        value_name = "GBITS",
        value_delimiter = ',',
        default_value = "10,25,100,400",
        value_parser = positive,
    )]
    pub gbits: Vec<f64>,
    /// Numbers of nodes, of one rank each.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "2,4,8,16,32,64,128,256",
        value_parser = clap::value_parser!(u32).range(1..=65536),
    )]
    pub nodes: Vec<u32>,
    /// Latency of a message, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 20.0, value_parser = positive)]
    pub latency: f64,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Compare masked with dense training steps: multiply-adds, seconds and clips per second.
///
/// Table 1 of the paper (Feichtenhofer et al. 2022) for any model, on the CPU. Dense: encoder and
/// decoder take all tokens, and all are predicted. Sparse: as in training.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer bench sparsity                                ViT-L, one clip per step, no loading
  trainer bench sparsity --preset base --data ./shards  ViT-B, also with loading
  trainer bench sparsity --preset tiny --batch-size 8 --steps 20 --json")]
pub struct BenchSparsityArgs {
    /// Preset of clips, masks and model.
    #[arg(long, value_enum, default_value = "large")]
    pub preset: Preset,
    /// TOML file with keys that override the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Timed steps of each kind, after one warm-up step.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub steps: u32,
    /// Clips per step.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: usize,
    /// Folder of finished shards or of videos, to also time steps with loading. Repeat to mix
    /// several.
    #[arg(long, value_name = "PATH", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    #[command(flatten)]
    /// Loader settings.
    pub load: LoadArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Consumer of the batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Consumer {
    /// None: batches are dropped.
    None,
    /// Takes batches at this rate, in clips per second.
    Rate(f64),
    /// Trains on the batches.
    Step,
}

impl Consumer {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "step" => Ok(Self::Step),
            _ => text
                .strip_prefix("rate:")
                .ok_or("must be none, rate:CLIPS_PER_S or step".to_owned())
                .and_then(positive)
                .map(Self::Rate),
        }
    }
}

impl std::fmt::Display for Consumer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Rate(clips) => write!(formatter, "rate:{clips}"),
            Self::Step => formatter.write_str("step"),
        }
    }
}

/// Form of the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormArg {
    /// All pixels of a clip.
    Clips,
    /// Visible patches, and the patches of the target.
    Patches,
}

/// Type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ValuesArg {
    /// Samples from 0 to 255.
    U8,
    /// Normalised.
    F32,
    /// Normalised, half the bytes.
    Bf16,
}

impl From<ValuesArg> for ValueType {
    fn from(values: ValuesArg) -> Self {
        match values {
            ValuesArg::U8 => Self::U8,
            ValuesArg::F32 => Self::F32,
            ValuesArg::Bf16 => Self::Bf16,
        }
    }
}
