//! Arguments of the commands that use trained weights: finetune, eval, embed.

use super::{
    ComputeArgs, DataArg, FinetuneFlags, LoadArgs, Settings, hide_loading, local, settings,
};
use clap::Args;
use console::choose::ChooseArgs;
use pipeline::sampling::sample::Views;
use std::path::PathBuf;
use trainer::config::{Preset, Recipe};
use trainer::cpu::Precision;

/// Arguments of `trainer finetune`.
#[derive(Debug, Args)]
#[command(
    mut_args(hide_loading),
    after_help = settings::render_help::<FinetuneFlags>("\
Examples:
  trainer finetune --weights runs/tiny-1 --data ./train
                                      a classifier of the classes in ./train
  trainer finetune --weights runs/b --data ./train --val ./val
                                      validated on other shards
  trainer finetune --from-scratch --preset tiny --data ./train
                                      random initialisation, to compare
  trainer finetune --weights runs/b --data ./train --freeze
                                      linear and attentive probe of the frozen encoder
  trainer finetune --weights runs/b --data ./train --set recipe.mixup=0.8
                                      any key of the recipe
  trainer finetune --out runs/finetune-1 --data ./train --resume

Labels come from the shards: shardtool build ./videos --labels dirs. Where classes are directions
(left, right), use --flip 0.")
)]
pub struct FinetuneArgs {
    /// Weights to initialise the encoder from: the folder of a run, a checkpoint of it, or a folder
    /// made by `trainer import`.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["from_scratch", "resume"])]
    pub weights: Option<PathBuf>,
    /// Initialise the encoder of --preset at random.
    #[arg(long, conflicts_with = "weights")]
    pub from_scratch: bool,
    /// Preset of the encoder, with --from-scratch [default: tiny].
    #[arg(long, value_enum, requires = "from_scratch")]
    pub preset: Option<Preset>,
    /// Folder of labelled shards; one split of it with PATH:SPLIT. Given several times, all are
    /// mixed: evenly, or by weight with PATH=WEIGHT.
    #[arg(long, value_name = "SHARDS", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Folder of labelled shards for validation. Without it, a share of each class's videos is held
    /// out (--holdout).
    #[arg(long, value_name = "SHARDS", value_parser = DataArg::parse)]
    pub val: Vec<DataArg>,
    /// Freeze the encoder: compute its features once, and train a linear probe on them and an
    /// attentive probe on the tokens.
    #[arg(long, conflicts_with_all = ["from_scratch", "resume"])]
    pub freeze: bool,
    /// Recipe to start from [default: paper for encoders as wide as ViT-Small's and wider, light
    /// otherwise].
    #[arg(long, value_enum)]
    pub recipe: Option<Recipe>,
    /// TOML file whose keys replace the recipe's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keys that replace both.
    #[command(flatten)]
    pub settings: Settings<FinetuneFlags>,
    /// Folder of the run [default: runs/finetune-N, the next free N; with --resume, the last one].
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: Option<PathBuf>,
    /// Resume a run from its last valid checkpoint; the result is that of an uninterrupted run.
    #[arg(long)]
    pub resume: bool,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    /// How clips are loaded.
    pub load: LoadArgs,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Clips to run a model on.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Folder of shards, or of videos, which are then decoded. Given several times, they are read
    /// one after the other.
    #[arg(long, value_name = "PATH", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Views per clip, whose results are averaged: evenly spread windows by square crops per
    /// window, along the longer side.
    #[arg(long, value_name = "KxS", default_value = "1x1", value_parser = views)]
    pub views: Views,
    /// Clips of a folder of videos: each video whole, or cut back to back as by `shardtool build`
    /// [default: video with several windows, clip otherwise].
    #[arg(long, value_enum)]
    pub span: Option<SpanArg>,
    #[command(flatten)]
    /// Which of them to use.
    pub choose: ChooseArgs,
    /// Clips per batch.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=4096),
    )]
    pub batch_size: u32,
    /// Type of activations on the CPU: f32, or bf16, which is faster where the CPU multiplies it.
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,
    #[command(flatten)]
    /// Where to compute.
    pub compute: ComputeArgs,
    #[command(flatten)]
    /// How clips are loaded.
    pub load: LoadArgs,
}

/// The clips of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SpanArg {
    /// Back to back clips as long as the model takes them.
    Clip,
    /// The whole video.
    Video,
}

fn views(text: &str) -> Result<Views, String> {
    let numbers = text
        .split_once(['x', 'X'])
        .and_then(|(k, s)| Some((k.trim().parse().ok()?, s.trim().parse().ok()?)));
    match numbers {
        Some((temporal @ 1.., spatial @ 1..)) if temporal <= 1000 && spatial <= 1000 => {
            Ok(Views { temporal, spatial })
        }
        _ => Err(
            "must be two numbers from 1, such as 5x3: windows per clip by crops per window"
                .to_owned(),
        ),
    }
}

/// Arguments of `trainer eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer eval --weights runs/finetune-1 --data ./val                           one view per clip
  trainer eval --weights runs/finetune-1 --data ./videos --views 5x3
                            the reference's test: 5 windows by 3 crops of whole videos
  trainer eval --weights runs/finetune-1 --data ./val --confusion confusion.png --json")]
pub struct EvalArgs {
    /// A classifier: the folder of a fine-tuning, a checkpoint of it, or a folder made by
    /// `trainer import`.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    #[command(flatten)]
    /// The clips.
    pub read: ReadArgs,
    /// Also draw the confusion matrix, a PNG.
    #[arg(long, value_name = "FILE")]
    pub confusion: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `trainer embed`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer embed --weights runs/tiny-1 --data ./shards --out features.parquet
                                one row per clip
  trainer embed --weights runs/tiny-1 --data ./videos --out videos.parquet --per video
                                one row per video
  trainer embed --weights runs/tiny-1 --data ./shards --query bikes.mp4 --query dog
                                also draw the nearest clips of other videos
Read the file with any Parquet reader: pandas.read_parquet(\"features.parquet\").")]
pub struct EmbedArgs {
    /// A pre-trained encoder or a classifier: the folder of a run, a checkpoint of it, or a folder
    /// made by `trainer import`.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    #[command(flatten)]
    /// The clips.
    pub read: ReadArgs,
    /// The Parquet file.
    #[arg(long, value_name = "FILE", default_value = "./features.parquet", value_parser = local())]
    pub out: PathBuf,
    /// Rows of the file.
    #[arg(long, value_enum, default_value = "clip")]
    pub per: Per,
    /// Also write the features of every token, `[tokens, width]`. Takes one view, and one row per
    /// clip.
    #[arg(long)]
    pub tokens: bool,
    /// Find the nearest clips to those of this video, by cosine similarity; a part of its path is
    /// enough. Given several times, each has a row. With --sheet alone, a few clips spread over the
    /// data are the queries.
    #[arg(long, value_name = "VIDEO")]
    pub query: Vec<String>,
    /// Number of nearest clips.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=20),
    )]
    pub neighbours: u32,
    /// Picture of the nearest clips, a PNG [default with --query: beside --out].
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A row of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Per {
    /// A clip.
    Clip,
    /// A video: the mean of its clips.
    Video,
}
