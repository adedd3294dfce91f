//! Arguments of `trainer import` and `trainer export`.

use super::local;
use clap::Args;
use std::path::PathBuf;
use trainer::convert::Format;

/// Arguments of `trainer import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer import mae_pretrain_vit_large_k400.pth --out weights/large      mae_st or PySlowFast
  trainer import ./videomae-base --out weights/videomae
                                a folder of Hugging Face transformers
  trainer import checkpoint.pth --heads 3 --decoder-heads 3 --out weights/mine
  trainer finetune --weights weights/large --data ./train                 use the imported weights

The format is detected from the names of the weights. If any name is missing, unknown or has another
shape, nothing is written.")]
pub struct ImportArgs {
    /// A PyTorch checkpoint (.pth, .pyth), a safetensors file, or a folder of Hugging Face
    /// transformers.
    #[arg(value_name = "FOREIGN")]
    pub foreign: PathBuf,
    /// Folder to create, with model.safetensors and config.toml.
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: PathBuf,
    /// Heads of the encoder, which only transformers stores [default: as in published models of its
    /// width].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub heads: Option<u16>,
    /// Heads of the decoder [default: as in published models of its width].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub decoder_heads: Option<u16>,
    /// Frames per clip, if not given by the positions [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub frames: Option<u16>,
    /// Height and width of a clip, if not given by the positions [default: 224].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub size: Option<u16>,
    /// Target of an autoencoder, which only transformers stores: pixels or normalised [default:
    /// normalised].
    #[arg(long = "target", value_name = "TARGET", value_parser = normalise_target)]
    pub normalise_target: Option<bool>,
    /// File of the class names of a classifier, one per line, in order.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

fn normalise_target(text: &str) -> Result<bool, String> {
    match text {
        "pixels" => Ok(false),
        "normalised" => Ok(true),
        _ => Err("must be pixels or normalised".to_owned()),
    }
}

/// Arguments of `trainer export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer export runs/base-1 --format mae-st --out base.safetensors       for the models of mae_st
  trainer export runs/finetune-1 --format huggingface --out ./classifier
                                VideoMAEForVideoClassification.from_pretrained(\"./classifier\")")]
pub struct ExportArgs {
    /// The folder of a run, a checkpoint of it, or a folder written by `trainer import`.
    #[arg(value_name = "WEIGHTS")]
    pub weights: PathBuf,
    /// Format of the exported weights.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Safetensors file to create; for huggingface, a folder.
    #[arg(long, value_name = "PATH", value_parser = local())]
    pub out: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}
