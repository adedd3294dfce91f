//! The manifest: what a finished build says of itself, in `manifest.json` beside the shards.

use serde::{Deserialize, Serialize};

/// Name of the manifest inside a folder of shards. It is written last: a folder that has one is a finished build.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the list of files that gave no clips, one [`Rejected`] a line, beside the shards.
pub const REJECTED_FILE: &str = "rejected.jsonl";

/// What a finished build says of itself. It holds no times and no machine's name, so equal builds give equal manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`crate::shard::FORMAT_VERSION`] of the shards.
    pub format_version: u32,
    /// Program and version that built them.
    pub created_by: String,
    /// Options that decide what is in the shards.
    pub options: BuildOptions,
    /// Class names in the order of their label numbers; empty without labels, or where labels are bare numbers.
    pub classes: Vec<String>,
    /// Shards in reading order.
    pub shards: Vec<ShardEntry>,
    /// Clips in all shards.
    pub clips: u64,
    /// Videos that gave at least one clip.
    pub videos: u64,
    /// Files that gave none; [`REJECTED_FILE`] names them.
    pub rejected: u64,
}

/// Options that decide what is in the shards. Two builds of the same videos with equal options are the same to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildOptions {
    /// Frames a clip.
    pub frames: u32,
    /// Ticks of `1 / fps` seconds between two frames of a clip.
    pub stride: u32,
    /// Ticks a second of the sampling grid.
    pub fps: f64,
    /// Where clips start.
    pub tiling: Tiling,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
    /// zstd level of the pixels; 0 stores them as they are.
    pub level: i32,
    /// A shard is closed when it has reached this many bytes.
    pub shard_bytes: u64,
}

/// Where the clips of a video start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tiling {
    /// A clip every so many seconds, from the first frame on, as long as whole clips fit.
    EverySeconds(f64),
    /// So many clips a video, spread evenly from its start to its end; a single one is taken from the middle.
    ClipsPerVideo(u32),
}

/// One shard of a finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name inside the folder of shards.
    pub file: String,
    /// Clips in it.
    pub clips: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// A file that gave no clips, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// The file, as the build was told to find it.
    pub path: String,
    /// What was wrong with it.
    pub reason: String,
}
