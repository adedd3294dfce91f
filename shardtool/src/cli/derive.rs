//! Arguments of the commands that make data sets of others, or compare their clips.

use super::{local, place};
use clap::Args;
use console::choose::ChooseArgs;
use std::path::PathBuf;

/// How a data set is written.
#[derive(Debug, Args)]
pub struct DeriveArgs {
    /// Copy the clips into shards of their own, as they are compressed; otherwise, the new manifest
    /// names the shards where they are.
    #[arg(long)]
    pub copy: bool,
    /// Replace the manifest of another filter or merge in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Write a data set of some clips of another.
///
/// The output is a manifest that names the shards of the input and the rows of them that belong to
/// the data set. Keep the input: its files are read. --copy makes shards of their own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool filter ./shards --where \"motion > 0.002 and black = 0\" --out ./moving
  shardtool filter ./shards --split val --out ./val --copy
  shardtool filter ./shards --select rows.parquet --out ./chosen
                            rows of a query, such as DuckDB's
                            copy (select video, clip from './shards/*.parquet' where ...)
                            to 'rows.parquet'")]
pub struct FilterArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    #[command(flatten)]
    /// The clips.
    pub choose: ChooseArgs,
    /// Folder of the new data set.
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: PathBuf,
    #[command(flatten)]
    /// The output.
    pub derive: DeriveArgs,
}

/// Join several data sets into one.
///
/// Classes are joined by their names: those of the first data set keep their numbers. The clips of
/// all must have the same number of frames at the same distance.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool merge ./part-0 ./part-1 --out ./all
  shardtool merge ./kinetics ./ssv2 --out ./both --copy
  shardtool merge --plan s3://bucket/train      the parts of a plan, see `shardtool plan`")]
pub struct MergeArgs {
    /// Folders of shards.
    #[arg(value_name = "DIR", required_unless_present = "plan", value_parser = place())]
    pub dirs: Vec<PathBuf>,
    /// Join the parts of the plan in this folder or place in a store, there.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = place(),
        conflicts_with_all = ["dirs", "out", "copy", "force"],
    )]
    pub plan: Option<PathBuf>,
    /// Folder of the new data set.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = local(),
        required_unless_present = "plan",
    )]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    /// How it is written.
    pub derive: DeriveArgs,
}

/// Find clips that are nearly equal.
///
/// Two clips are duplicates if the perceptual hashes of their first, middle and last frames differ
/// by at most --distance of 256 bits each, or, with --features, if the cosine of their features is
/// at least --similarity. Clips that are connected by such pairs are a group.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool duplicates ./shards --sheet duplicates.png
  shardtool duplicates ./shards --keep keep.csv
  shardtool filter ./shards --select keep.csv --out ./unique
  trainer embed --weights runs/tiny-1 --data ./shards --out features.parquet
  shardtool duplicates ./shards --features features.parquet")]
pub struct DuplicatesArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = place())]
    pub dir: PathBuf,
    /// Greatest Hamming distance of the hashes of two frames.
    #[arg(
        long,
        value_name = "BITS",
        default_value_t = 31,
        value_parser = clap::value_parser!(u32).range(0..=256),
    )]
    pub distance: u32,
    /// Compare these features of `trainer embed` in place of hashes.
    #[arg(long, value_name = "FILE", value_parser = local())]
    pub features: Option<PathBuf>,
    /// Least cosine of the features of two clips.
    #[arg(
        long,
        value_name = "COSINE",
        default_value_t = 0.99,
        requires = "features"
    )]
    pub similarity: f64,
    /// Also compare clips of one video, which resemble each other.
    #[arg(long)]
    pub within: bool,
    #[command(flatten)]
    /// The clips to compare.
    pub choose: ChooseArgs,
    /// Write the numbers of the clips to keep to this CSV file, for --select: all but the
    /// duplicates of an earlier clip.
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// Draw the first groups to this PNG file. An existing file is replaced.
    #[arg(long, value_name = "OUT.png")]
    pub sheet: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}
