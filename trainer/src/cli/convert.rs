//! What can be typed to exchange weights with other code bases.

use super::local;
use clap::Args;
use std::path::PathBuf;
use trainer::config::TargetChoice;
use trainer::convert::Format;

/// What `trainer import` can be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer import mae_pretrain_vit_large_k400.pth --out weights/large      mae_st or PySlowFast
  trainer import ./videomae-base --out weights/videomae                   a folder of Hugging Face transformers
  trainer import checkpoint.pth --heads 3 --decoder-heads 3 --out weights/mine
  trainer finetune --weights weights/large --data ./train                 what to do with them

Formats are known by their names. Nothing is left out in silence: one name that is missing, unknown or of another shape, and nothing is written.")]
pub struct ImportArgs {
    /// A checkpoint of PyTorch (.pth, .pyth), a file of safetensors, or a folder of Hugging Face transformers.
    #[arg(value_name = "FOREIGN")]
    pub foreign: PathBuf,
    /// The folder to make: model.safetensors and config.toml.
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: PathBuf,
    /// Heads of the encoder, which only transformers writes down [default: those of published models of its width].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub heads: Option<u16>,
    /// Heads of the decoder [default: those of published models of its width].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub decoder_heads: Option<u16>,
    /// Frames of a clip, where the positions do not say them [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub frames: Option<u16>,
    /// Height and width of a clip, where the positions do not say them [default: 224].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub size: Option<u16>,
    /// What an autoencoder has learned to predict, which only transformers writes down: pixels or normalised [default: normalised].
    #[arg(long, value_parser = target)]
    pub target: Option<TargetChoice>,
    /// Names of a classifier's classes, one a line, in their order.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Print what was done as JSON.
    #[arg(long)]
    pub json: bool,
}

fn target(text: &str) -> Result<TargetChoice, String> {
    match text {
        "pixels" => Ok(TargetChoice::Pixels),
        "normalised" => Ok(TargetChoice::Normalised),
        _ => Err("pixels or normalised".to_owned()),
    }
}

/// What `trainer export` can be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer export runs/base-1 --format mae-st --out base.safetensors       to be loaded into mae_st's models
  trainer export runs/finetune-1 --format huggingface --out ./classifier  VideoMAEForVideoClassification.from_pretrained(\"./classifier\")")]
pub struct ExportArgs {
    /// The folder of a run, a checkpoint of it, or a folder that `trainer import` has made.
    #[arg(value_name = "WEIGHTS")]
    pub weights: PathBuf,
    /// Whose names they are to have.
    #[arg(long, value_enum)]
    pub format: Format,
    /// The file of safetensors to make; a folder where the format is huggingface.
    #[arg(long, value_name = "PATH", value_parser = local())]
    pub out: PathBuf,
    /// Print what was done as JSON.
    #[arg(long)]
    pub json: bool,
}
