//! What `trainer visualise` can be told.

use super::{ComputeArgs, MaskKindArg, local, positive};
use clap::Args;
use std::path::PathBuf;
use trainer::cpu::Precision;
use trainer::plot::reconstruction::Contrast;

/// What `trainer visualise` can be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer visualise --weights runs/tiny-1                the clip in the middle of ./shards
  trainer visualise --weights runs/tiny-1 --data bikes.mp4 --at 3.5
                                                         a video, from 3.5 s on
  trainer visualise --weights runs/tiny-1 --clip 12 --mask-kind tube --mask-ratio 0.9
                                                         one ratio, other masks
  trainer visualise --weights runs/tiny-1 --data dog.mkv --out dog.gif
                                                         one file only

The strip has the original frames on top, and a pair of rows for each ratio: what the model sees,
and what it makes of it. Another --seed shows other masks of the same clip.")]
pub struct VisualiseArgs {
    /// A pre-trained autoencoder: the folder of a run, a checkpoint of it, or a folder that `trainer import` has made.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// Folder of shards or of videos, or one video.
    #[arg(long, value_name = "PATH", default_value = "./shards")]
    pub data: PathBuf,
    /// Number of the clip, from 0, in the order in which the shards or the videos have them; videos are cut back to back, as `shardtool build` does [default: the one in
    /// the middle].
    #[arg(long, value_name = "N", conflicts_with = "at")]
    pub clip: Option<usize>,
    /// Where in the video the clip begins. Takes one video as --data.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub at: Option<f64>,
    /// Shares of the tokens that the model does not see, each drawn by itself. The clip is the same.
    #[arg(long, value_name = "R,...", value_delimiter = ',', default_value = "0.75,0.9,0.95,0.98", value_parser = ratio)]
    pub mask_ratio: Vec<f64>,
    /// Which tokens are masked together [default: as the model was trained].
    #[arg(long, value_enum)]
    pub mask_kind: Option<MaskKindArg>,
    /// Whose mean and contrast the masked patches get, where the model predicts normalised patches, which have none.
    #[arg(long, value_enum, value_name = "WHOSE", default_value = "true")]
    pub contrast: Contrast,
    /// Seed of the masks.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Where to: a .png (frame by frame), .gif or .mp4 (moving) file, or a folder for all three.
    #[arg(long, value_name = "FILE or DIR", default_value = "./reconstruction", value_parser = local())]
    pub out: PathBuf,
    /// Frames a second of what moves [default: as fast as the video].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub fps: Option<f64>,
    /// Type of activations on the CPU: f32, or bf16, which is faster where the CPU multiplies it.
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,
    #[command(flatten)]
    /// Where to compute.
    pub compute: ComputeArgs,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&seconds: &f64| seconds.is_finite() && seconds >= 0.0).ok_or("seconds from the start, as 12.5".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok().filter(|&ratio: &f64| ratio > 0.0 && ratio < 1.0);
    ratio.ok_or("a share above 0 and below 1, as 0.9".to_owned())
}
