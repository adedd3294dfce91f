//! Arguments of `trainer visualise`.

use super::{ComputeArgs, MaskKindArg, local, positive};
use clap::Args;
use std::path::PathBuf;
use trainer::cpu::Precision;
use trainer::plot::reconstruction::Contrast;

/// Arguments of `trainer visualise`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer visualise --weights runs/tiny-1                the middle clip of ./shards
  trainer visualise --weights runs/tiny-1 --data bikes.mp4 --at 3.5
                                                         a video, from 3.5 s
  trainer visualise --weights runs/tiny-1 --clip 12 --mask-kind tube --mask-ratio 0.9
                                                         one ratio, tube masks
  trainer visualise --weights runs/tiny-1 --data dog.mkv --out dog.gif
                                                         one file only

The strip has the original frames on top, and two rows per ratio: the visible patches and the
reconstruction. Another --seed draws other masks of the same clip.")]
pub struct VisualiseArgs {
    /// Weights of a pre-trained autoencoder: the folder of a run, a checkpoint of it, or a folder
    /// written by `trainer import`.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// Folder of shards or of videos, or one video.
    #[arg(long, value_name = "PATH", default_value = "./shards")]
    pub data: PathBuf,
    /// Index of the clip, from 0, in the order of the shards or videos; videos are cut into
    /// consecutive clips, as by `shardtool build` [default: the middle clip].
    #[arg(long, value_name = "N", conflicts_with = "at")]
    pub clip: Option<usize>,
    /// Start of the clip in the video. Requires one video as --data.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub at: Option<f64>,
    /// Mask ratios; the same clip is drawn under each.
    #[arg(
        long,
        value_name = "R,...",
        value_delimiter = ',',
        default_value = "0.75,0.9,0.95,0.98",
        value_parser = ratio,
    )]
    pub mask_ratio: Vec<f64>,
    /// Which tokens are masked together [default: as the model was trained].
    #[arg(long, value_enum)]
    pub mask_kind: Option<MaskKindArg>,
    /// Source of the mean and contrast of masked patches, if the model predicts normalised patches.
    #[arg(long, value_enum, value_name = "WHOSE", default_value = "true")]
    pub contrast: Contrast,
    /// Random seed of the masks.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Output: a .png (strip), .gif or .mp4 (animation) file, or a folder for all three.
    #[arg(
        long,
        value_name = "FILE or DIR",
        default_value = "./reconstruction",
        value_parser = local(),
    )]
    pub out: PathBuf,
    /// Frames per second of animations [default: real time].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub fps: Option<f64>,
    /// Type of activations on the CPU: f32, or bf16, which is faster where the CPU multiplies it.
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,
    #[command(flatten)]
    /// Compute settings.
    pub compute: ComputeArgs,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&seconds: &f64| seconds.is_finite() && seconds >= 0.0)
        .ok_or("must be seconds from the start, such as 12.5".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .trim()
        .parse()
        .ok()
        .filter(|&ratio: &f64| ratio > 0.0 && ratio < 1.0);
    ratio.ok_or("must be above 0 and below 1, such as 0.9".to_owned())
}
