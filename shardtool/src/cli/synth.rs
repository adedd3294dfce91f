//! Arguments of `shardtool synth`.

use super::{local, positive};
use clap::Args;
use std::path::PathBuf;

/// Generate a small labelled set of H.264 videos of moving shapes.
///
/// One folder per motion: right, left, down, up, clockwise, counterclockwise, grow, shrink. Shapes,
/// textures, positions and sizes have the same distribution in all classes, and each class is the
/// time reversal of another, so that a single frame does not reveal the class.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool synth ./videos                         64 videos of 8 classes, 160x160, 4 seconds
  shardtool synth ./videos --videos 400 --seed 7   more videos, and different ones
  shardtool synth ./videos --shapes 6              more motion, which is learned sooner
  shardtool build ./videos --labels dirs           build shards of them, with labels")]
pub struct SynthArgs {
    /// Output folder; it must be empty or not exist.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Number of videos.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
    )]
    pub videos: u32,
    /// Number of classes: the first N of right, left, down, up, clockwise, counterclockwise, grow
    /// and shrink.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=8),
    )]
    pub classes: u32,
    /// Width and height in pixels; must be even.
    #[arg(
        long,
        value_name = "PIXELS",
        default_value_t = 160,
        value_parser = clap::value_parser!(u32).range(32..=2048),
    )]
    pub size: u32,
    /// Maximum number of shapes per video: with more shapes, more of the picture moves.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=100),
    )]
    pub shapes: u32,
    /// Length of each video in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0, value_parser = positive)]
    pub seconds: f64,
    /// Random seed; the same seed gives the same pictures.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}
