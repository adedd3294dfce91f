//! Reports of `shardtool`.

use crate::manifest::Rejected;
use crate::shard::{ClipMeta, Payload};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Report of `shardtool build --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildReport {
    /// Folder of the shards.
    pub out: String,
    /// Number of videos with at least one clip in the shards.
    pub videos: u64,
    /// Number of clips in the shards.
    pub clips: u64,
    /// Number of clips that were skipped because frames of them are damaged.
    pub damaged_clips: u64,
    /// Number of videos with damaged frames.
    pub damaged_videos: u64,
    /// Number of clips with damaged frames that were kept and marked in their row (`--on-corrupt
    /// keep`).
    pub kept_damaged_clips: u64,
    /// Number of clips that would overlap a gap of their video, and were skipped.
    pub gap_clips: u64,
    /// Number of videos with high dynamic range (PQ or HLG), whose samples are stored as decoded.
    pub hdr_videos: u64,
    /// Number of clips whose end repeats the last frame because their video is too short.
    pub padded_clips: u64,
    /// Number of shards.
    pub shards: u64,
    /// Size of all shards in bytes.
    pub stored_bytes: u64,
    /// Size of all clips before compression, in bytes.
    pub decoded_bytes: u64,
    /// Number of videos that an earlier run of the same build has completed.
    pub known_videos: u64,
    /// Videos whose clips are in the shards, but which are no longer at their paths.
    pub removed_videos: Vec<String>,
    /// Files without clips, and parts of files that were skipped.
    pub rejected: Vec<Rejected>,
    /// Number of files in folders that are no video by content nor by name.
    pub not_video: u64,
    /// Number of videos whose label is null in a build with labels: the label file has no line for
    /// them, or one without a label.
    pub unlabelled: u64,
    /// Names of the first five of these videos.
    pub unlabelled_examples: Vec<String>,
    /// Number of lines of the label file whose path matches no video.
    pub unmatched_labels: u64,
    /// Paths of the first five of these lines.
    pub unmatched_label_examples: Vec<String>,
    /// Class names in the order of their numbers.
    pub classes: Vec<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Report of `shardtool build --dry-run --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRunReport {
    /// Folder that the build would write.
    pub out: String,
    /// Number of videos that would be decoded.
    pub videos: u64,
    /// Total length of these videos in seconds.
    pub video_seconds: f64,
    /// Number of clips that they would give.
    pub clips: u64,
    /// Number of clips that would overlap a gap of their video, and would be skipped.
    pub gap_clips: u64,
    /// Size of these clips before compression, in bytes: the maximum size of the shards, except for
    /// a small overhead.
    pub decoded_bytes: u64,
    /// Estimated size of the shards in bytes: [`DryRunReport::decoded_bytes`] times the typical
    /// ratio of the payload and level.
    pub estimated_bytes: u64,
    /// Free bytes at the destination.
    pub free_bytes: u64,
    /// Files that appear to be video but cannot be opened.
    pub rejected: Vec<Rejected>,
    /// Number of files in folders that are no video by content nor by name.
    pub not_video: u64,
    /// Number of videos whose label would be null in a build with labels.
    pub unlabelled: u64,
    /// Names of the first five of these videos.
    pub unlabelled_examples: Vec<String>,
    /// Number of lines of the label file whose path matches no video.
    pub unmatched_labels: u64,
    /// Paths of the first five of these lines.
    pub unmatched_label_examples: Vec<String>,
}

/// Report of `shardtool synth --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthReport {
    /// Folder that was written.
    pub dir: String,
    /// Number of videos.
    pub videos: u64,
    /// Class names. Each class is a folder.
    pub classes: Vec<String>,
    /// Size of all videos in bytes.
    pub bytes: u64,
}

/// Report of `shardtool verify --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build is complete.
    pub finished: bool,
    /// Whether every clip was also read with Parquet's own reader and decoded.
    pub deep: bool,
    /// Number of shards in the manifest.
    pub shards: u64,
    /// Number of clips that were read.
    pub clips: u64,
    /// Size of these shards in bytes, by the manifest.
    pub bytes: u64,
    /// All problems found.
    pub problems: Vec<Problem>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// A problem with a folder of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Name of the file inside the folder.
    pub file: String,
    /// Row of the shard, from 0, if the problem is about one clip.
    pub row: Option<u64>,
    /// Index of that clip among all clips of the build.
    pub clip: Option<u64>,
    /// Description of the problem.
    pub what: String,
    /// Remedy.
    pub remedy: String,
}

/// Report of `shardtool inspect --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build is complete.
    pub finished: bool,
    /// Number of clips in the shards.
    pub all_clips: u64,
    /// The selected clips.
    pub clips: Vec<InspectedClip>,
    /// Path of the contact sheet, if one was drawn.
    pub sheet: Option<String>,
}

/// Details of one clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectedClip {
    /// Index among all clips of the build, from 0.
    pub clip: u64,
    /// Name of the shard inside the folder.
    pub shard: String,
    /// Row of the shard, from 0.
    pub row: u64,
    /// Stored size of its frames in bytes.
    pub stored_bytes: u64,
    /// Size of its frames as I420, in bytes.
    pub decoded_bytes: u64,
    /// The other columns of its row.
    pub meta: ClipMeta,
}

/// Report of `shardtool stats --json`. Counts are of clips, unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build is complete.
    pub finished: bool,
    /// Number of clips.
    pub clips: u64,
    /// Number of videos with at least one clip.
    pub videos: u64,
    /// Total footage of the clips in hours.
    pub hours: f64,
    /// Number of shards.
    pub shards: u64,
    /// Storage format of frames.
    pub payload: Payload,
    /// Size of all shards in bytes.
    pub stored_bytes: u64,
    /// Size of all clips as I420, in bytes.
    pub decoded_bytes: u64,
    /// Ratio of stored to decoded bytes; 0 without clips.
    pub ratio: f64,
    /// Stored size of the frames of a clip, in bytes.
    pub clip_bytes: Spread,
    /// Clips per class. A class without a name is called by its number.
    pub classes: BTreeMap<String, u64>,
    /// Clips without a label.
    pub unlabelled: u64,
    /// Clips per split; empty without splits.
    pub splits: BTreeMap<String, u64>,
    /// Distribution of each score over the clips that have scores; empty without any.
    pub scores: BTreeMap<String, ScoreSpread>,
    /// Clips per stored size, `WIDTHxHEIGHT`.
    pub resolutions: BTreeMap<String, u64>,
    /// Clips per codec of the source.
    pub codecs: BTreeMap<String, u64>,
    /// Clips per pixel format of the source.
    pub pixel_formats: BTreeMap<String, u64>,
    /// Clips per range of the samples.
    pub color_ranges: BTreeMap<String, u64>,
    /// Clips per matrix of the samples.
    pub color_matrices: BTreeMap<String, u64>,
    /// Clips per transfer function of the samples.
    pub color_transfers: BTreeMap<String, u64>,
    /// Clips per pixel aspect ratio of the source, `1:1` if square; `unknown` before format version
    /// 3.
    pub pixel_aspects: BTreeMap<String, u64>,
    /// Number of clips whose end repeats the last frame because their video is too short.
    pub repeated: u64,
    /// Clips with damaged frames, in builds that keep them.
    pub damaged: u64,
    /// Clips of interlaced sources.
    pub deinterlaced: u64,
    /// Clips that were rotated by 90, 180 or 270 degrees.
    pub rotated: u64,
    /// Clips that were mirrored.
    pub mirrored: u64,
}

/// The report of `shardtool filter` and `shardtool merge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeriveReport {
    /// Folder of the new data set.
    pub out: String,
    /// Number of its clips.
    pub clips: u64,
    /// Number of their videos.
    pub videos: u64,
    /// Number of shards that hold them.
    pub shards: u64,
    /// Number of clips of the inputs that were not chosen.
    pub left_out: u64,
    /// Whether the clips were copied.
    pub copied: bool,
}

/// The report of `shardtool duplicates`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicatesReport {
    /// Folder of the shards.
    pub dir: String,
    /// Number of clips that were compared.
    pub clips: u64,
    /// Number of clips that are near an earlier one: all of the groups but the first of each.
    pub duplicates: u64,
    /// Number of clips that are too flat to be compared by their hashes.
    pub flat: u64,
    /// What was compared: `hash` or `features`.
    pub by: String,
    /// The groups, in the order of their first clips.
    pub groups: Vec<DuplicateGroup>,
    /// The drawing, if there is one.
    pub sheet: Option<String>,
}

/// Clips that are nearly equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateGroup {
    /// The clips, in order; at least two.
    pub clips: Vec<DuplicateClip>,
}

/// A clip of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateClip {
    /// Number of the clip in the data set.
    pub number: u64,
    /// Path of its video.
    pub video: String,
    /// Index within its video.
    pub clip: u32,
    /// Start in its video, in seconds.
    pub second: f64,
    /// Distance to the nearest clip before it in the group; 0 for the first. In bits of 256, or 1
    /// minus the cosine of features.
    pub distance: f64,
}

/// Distribution of a score over the clips.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSpread {
    /// Minimum.
    pub min: f64,
    /// 5th percentile.
    pub p05: f64,
    /// Median.
    pub median: f64,
    /// Mean.
    pub mean: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Maximum.
    pub max: f64,
}

/// Distribution of a number over the clips; all 0 without clips.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Minimum.
    pub min: u64,
    /// Median; of an even number of clips, the upper one.
    pub median: u64,
    /// Mean.
    pub mean: f64,
    /// 95th percentile: at least 95 % are not greater.
    pub p95: u64,
    /// Maximum.
    pub max: u64,
}

/// Report of `shardtool export --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportReport {
    /// File or folder that was written.
    pub out: String,
    /// Index of the clip.
    pub clip: u64,
    /// Number of frames.
    pub frames: u64,
    /// Width of a frame in pixels; even in a video.
    pub width: u64,
    /// Height of a frame in pixels; even in a video.
    pub height: u64,
    /// Frames per second of a video; none for pictures.
    pub fps: Option<f64>,
}
