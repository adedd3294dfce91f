//! Arguments of the commands that read a folder of shards.

use super::place;
use clap::Args;
use console::choose::ChooseArgs;
use std::path::PathBuf;

/// Write the index of a data set that has none.
///
/// The index is a table of all clips, index.parquet beside the manifest. Builds write it; data sets
/// of earlier versions have none, and are opened from a store by some requests for each shard.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool index ./shards
  shardtool index s3://bucket/train")]
pub struct IndexArgs {
    /// Folder of shards, or its URL in a store.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
}

/// Verify every byte of a folder of shards.
///
/// Compares each shard with the manifest, and each clip with the hash that is stored with it. Lists
/// every problem with its file, row and remedy; the exit code is 1 if there are any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool verify ./shards            compare the files with what was built
  shardtool verify ./shards --deep     also read every clip with Parquet's own reader")]
pub struct VerifyArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    /// Also read every clip with Parquet's own reader, and decode it to frames.
    #[arg(long)]
    pub deep: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// List the clips of a folder of shards, or draw them.
///
/// Clips are numbered from 0 through all shards, in storage order.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool inspect ./shards                                 table of the first 20 clips
  shardtool inspect ./shards --clip 7                        details of clip 7
  shardtool inspect ./shards --sample 10 --sheet sheet.png   contact sheet of ten random clips")]
pub struct InspectArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    /// Print the details of this clip; may be given several times.
    #[arg(long = "clip", value_name = "N", conflicts_with_all = ["sample", "limit"])]
    pub clips: Vec<u64>,
    /// Number of random clips to select.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "limit",
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    pub sample: Option<u64>,
    /// Random seed of --sample; the same seed selects the same clips.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Number of clips to select, from the first.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    pub limit: u64,
    #[command(flatten)]
    /// The clips to select from.
    pub choose: ChooseArgs,
    /// Draw the selected clips to this PNG file: a row of up to 8 frames per clip. An existing file
    /// is replaced.
    #[arg(long, value_name = "OUT.png")]
    pub sheet: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Print statistics of a folder of shards.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool stats ./shards                        clips, hours, bytes, classes, sizes, codecs
  shardtool stats ./shards --picture stats.png    also draw bytes per clip, classes and sizes
  shardtool stats ./shards --json                 report for a script")]
pub struct StatsArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    #[command(flatten)]
    /// The clips to count.
    pub choose: ChooseArgs,
    /// Draw bytes per clip, classes, sizes, and histograms of the scores with examples to this PNG
    /// file. An existing file is replaced.
    #[arg(long, value_name = "OUT.png")]
    pub picture: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Export one clip as a video or as pictures.
///
/// An output that ends in .mp4 becomes an H.264 video at the clip's own rate, one that ends in .png
/// a picture of all frames, and one without an extension a folder with a PNG file per frame. Odd
/// sides of a video are made even by repeating the last row or column.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool export ./shards --clip 7 clip.mp4     video to play
  shardtool export ./shards --clip 7 clip.png     all frames in one picture
  shardtool export ./shards --clip 7 frames       frames/frame-0000.png and so on, exact pixels")]
pub struct ExportArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    /// Index of the clip, as `shardtool inspect` prints it.
    #[arg(long, value_name = "N")]
    pub clip: u64,
    /// Output: a file that ends in .mp4 or .png, or a folder.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Replace an existing output.
    #[arg(long)]
    pub force: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}
