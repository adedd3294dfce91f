//! What `trainer bench` can be told.

use super::{DataArg, LoadArgs, RunFlags, Settings, positive, settings};
use clap::{Args, Subcommand};
use pipeline::loader::batch::ValueType;
use std::path::PathBuf;
use trainer::config::Preset;
use trainer::cpu::Precision;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Clips a second from shards or videos, where the time goes, and how long a consumer waits.
    Loader(Box<BenchLoaderArgs>),
    /// Seconds of a training step, where they go, and how much of what the processor can do that is.
    Step(BenchStepArgs),
    /// What masking saves: a step with every token visible against a step of the preset, in operations, seconds and clips a second.
    Sparsity(BenchSparsityArgs),
}

/// Clips a second from shards or videos, where the time goes, and how long a consumer waits.
///
/// Loads as training does, with the crops, masks and batches of a preset, and hands the batches to a consumer that does nothing, takes a fixed time (a
/// stand-in for GPUs), or trains on this machine's processor.
#[derive(Debug, Args)]
#[command(after_help = settings::render_help::<RunFlags>("\
Examples:
  trainer bench loader ./shards                      as fast as it goes
  trainer bench loader ./shards --consumer rate:136  does it keep 8 A100s busy? (17 clips/s each)
  trainer bench loader ./shards --consumer step      what loading costs a training step
  trainer bench loader ./videos --repeat-aug 4           on the fly, four samples of each clip
  trainer bench loader ./shards --form clips --values f32 --json"))]
pub struct BenchLoaderArgs {
    /// Folders of shards that `shardtool build` has finished, or of videos; with several, PATH=WEIGHT says how they are mixed.
    #[arg(value_name = "DATA", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Who uses the batches: none, rate:CLIPS_PER_S, or step (trains the preset).
    #[arg(long, default_value = "none", value_parser = Consumer::parse)]
    pub consumer: Consumer,
    /// How long to measure, after a tenth of this to warm up.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = positive)]
    pub seconds: f64,
    /// Whose clips, masks and model.
    #[arg(long, value_enum, default_value = "base")]
    pub preset: Preset,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What of a clip is made: the patches that a masked autoencoder uses, or all of it.
    #[arg(long, value_enum, default_value = "patches")]
    pub form: FormArg,
    /// Type of the values [default: the preset's].
    #[arg(long, value_enum)]
    pub values: Option<ValuesArg>,
    /// Keys that replace both.
    #[command(flatten)]
    pub settings: Settings<RunFlags>,
    #[command(flatten)]
    /// How clips are loaded.
    pub load: LoadArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Seconds of a training step, where they go, and how much of what the processor can do that is.
///
/// Trains a preset's model on one batch of random numbers over and over: forward, backward, clipping and AdamW, without loading.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer bench step                                      ViT-B, two clips, 90 % masked, f32
  trainer bench step --dtype bf16                         the same in bf16
  trainer bench step --preset large --batch-size 1 --gradient-checkpointing --json")]
pub struct BenchStepArgs {
    /// Whose model.
    #[arg(long, value_enum, default_value = "base")]
    pub preset: Preset,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Clips a step.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub batch_size: usize,
    /// Share of the tokens that is masked [default: the preset's].
    #[arg(long, value_name = "R")]
    pub mask_ratio: Option<f64>,
    /// Type of activations.
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Precision,
    /// Keep less for the backward and compute it again.
    #[arg(long, alias = "recompute")]
    pub gradient_checkpointing: bool,
    /// Threads [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Steps that are timed, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What masking saves: a step with every token visible against a step of the preset, in operations, seconds and clips a second.
///
/// Table 1 of the paper (Feichtenhofer et al. 2022) for any model, on this machine's processor. Dense: the encoder sees every token, the decoder gets all of them,
/// and all are predicted. Sparse: as training does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer bench sparsity                                the paper's ViT-L, one clip a step, computing alone
  trainer bench sparsity --preset base --data ./shards  ViT-B, and what loading costs both
  trainer bench sparsity --preset tiny --batch-size 8 --steps 20 --json")]
pub struct BenchSparsityArgs {
    /// Whose clips, masks and model.
    #[arg(long, value_enum, default_value = "large")]
    pub preset: Preset,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Steps that are timed, of each kind, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Clips a step.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: usize,
    /// Folder of shards that `shardtool build` has finished, or of videos: also times steps with a new batch each. Given several times, all are mixed.
    #[arg(long, value_name = "PATH", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    #[command(flatten)]
    /// How clips are loaded.
    pub load: LoadArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Who uses the batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Consumer {
    /// Nobody.
    None,
    /// Somebody who takes so many clips a second.
    Rate(f64),
    /// Training.
    Step,
}

impl Consumer {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "step" => Ok(Self::Step),
            _ => text.strip_prefix("rate:").ok_or("none, rate:CLIPS_PER_S or step".to_owned()).and_then(positive).map(Self::Rate),
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

/// What of a clip is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormArg {
    /// All pixels.
    Clips,
    /// Visible patches, and the target's.
    Patches,
}

/// Type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ValuesArg {
    /// Samples.
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
