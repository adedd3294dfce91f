//! What `shardtool` prints.

use crate::manifest::Rejected;
use crate::shard::{ClipMeta, Payload};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `shardtool build --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildReport {
    /// Folder of the shards.
    pub out: String,
    /// Videos with at least one clip in the shards.
    pub videos: u64,
    /// Clips in the shards.
    pub clips: u64,
    /// Clips that were left out because frames of them are damaged.
    pub damaged_clips: u64,
    /// Videos of which clips were left out for that.
    pub damaged_videos: u64,
    /// Clips with damaged frames that were kept, and say so in their row (`--on-corrupt keep`).
    pub kept_damaged_clips: u64,
    /// Clips that would lie in a gap of their video, at least in part, and were left out.
    pub gap_clips: u64,
    /// Videos of high dynamic range (PQ or HLG), whose samples are stored as they are decoded.
    pub hdr_videos: u64,
    /// Clips whose end repeats the last frame, because their video was too short.
    pub padded_clips: u64,
    /// Shards.
    pub shards: u64,
    /// Bytes of all shards.
    pub stored_bytes: u64,
    /// Bytes of all clips before compression.
    pub decoded_bytes: u64,
    /// Videos that were in the shards already, from an earlier run of the same build.
    pub known_videos: u64,
    /// Videos whose clips are in the shards, and which are no longer where they were.
    pub removed_videos: Vec<String>,
    /// Files that gave no clips, and parts of files that were left out.
    pub rejected: Vec<Rejected>,
    /// Files found in folders that are no video by content nor by name.
    pub not_video: u64,
    /// Videos whose label is null, of a build that has labels: the label file has no line for them,
    /// or one without a label.
    pub unlabelled: u64,
    /// The first five of them.
    pub unlabelled_examples: Vec<String>,
    /// Lines of the label file whose path matches no video.
    pub unmatched_labels: u64,
    /// The paths of the first five of them.
    pub unmatched_label_examples: Vec<String>,
    /// Classes found.
    pub classes: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// What `shardtool build --dry-run --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRunReport {
    /// Folder that a build would write.
    pub out: String,
    /// Videos that would be decoded.
    pub videos: u64,
    /// Seconds of video in them.
    pub video_seconds: f64,
    /// Clips that they would give.
    pub clips: u64,
    /// Clips that would lie in a gap of their video, at least in part, and would be left out.
    pub gap_clips: u64,
    /// Bytes of these clips before compression: the most that the shards can take, but for a small overhead.
    pub decoded_bytes: u64,
    /// Bytes that the shards should take: [`DryRunReport::decoded_bytes`] by the usual ratio of the chosen payload and level.
    pub estimated_bytes: u64,
    /// Bytes free where the shards would go.
    pub free_bytes: u64,
    /// Files that looked like video but cannot be opened.
    pub rejected: Vec<Rejected>,
    /// Files found in folders that are no video by content nor by name.
    pub not_video: u64,
    /// Videos whose label would be null, of a build that has labels.
    pub unlabelled: u64,
    /// The first five of them.
    pub unlabelled_examples: Vec<String>,
    /// Lines of the label file whose path matches no video.
    pub unmatched_labels: u64,
    /// The paths of the first five of them.
    pub unmatched_label_examples: Vec<String>,
}

/// What `shardtool synth --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthReport {
    /// Folder that was written.
    pub dir: String,
    /// Videos written.
    pub videos: u64,
    /// Class names, one folder each.
    pub classes: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
}

/// What `shardtool verify --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Whether every clip was also read with Parquet's own reader, and decoded.
    pub deep: bool,
    /// Shards that the manifest names.
    pub shards: u64,
    /// Clips that were read.
    pub clips: u64,
    /// Bytes that the manifest's shards have.
    pub bytes: u64,
    /// All that is wrong.
    pub problems: Vec<Problem>,
    /// Wall time.
    pub seconds: f64,
}

/// One thing that is wrong with a folder of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Name of the file inside the folder.
    pub file: String,
    /// Row of the shard, from 0, when it is about one clip.
    pub row: Option<u64>,
    /// Number of this clip among all clips of the build, as the manifest counts them.
    pub clip: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What `shardtool inspect --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Clips in the shards.
    pub all_clips: u64,
    /// The chosen ones.
    pub clips: Vec<InspectedClip>,
    /// The contact sheet, if one was drawn.
    pub sheet: Option<String>,
}

/// All that is known of one clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectedClip {
    /// Number among all clips of the build, from 0.
    pub clip: u64,
    /// Name of the shard inside the folder.
    pub shard: String,
    /// Row of the shard, from 0.
    pub row: u64,
    /// Bytes that its pixels take in the shard.
    pub stored_bytes: u64,
    /// Bytes of its frames as I420.
    pub decoded_bytes: u64,
    /// What its row says.
    pub meta: ClipMeta,
}

/// What `shardtool stats --json` prints. Counts are of clips, unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Clips.
    pub clips: u64,
    /// Videos with at least one clip.
    pub videos: u64,
    /// Hours of footage that the clips span.
    pub hours: f64,
    /// Shards.
    pub shards: u64,
    /// How frames are stored.
    pub payload: Payload,
    /// Bytes of all shards.
    pub stored_bytes: u64,
    /// Bytes of all clips as I420.
    pub decoded_bytes: u64,
    /// Stored over decoded bytes; 0 without clips.
    pub ratio: f64,
    /// Bytes that the pixels of a clip take in its shard.
    pub clip_bytes: Spread,
    /// Clips of each class; a label without a name is called by its number.
    pub classes: BTreeMap<String, u64>,
    /// Clips without a label.
    pub unlabelled: u64,
    /// Clips of each stored size, `WIDTHxHEIGHT`.
    pub resolutions: BTreeMap<String, u64>,
    /// Clips of each codec of the source.
    pub codecs: BTreeMap<String, u64>,
    /// Clips of each pixel format of the source.
    pub pixel_formats: BTreeMap<String, u64>,
    /// Clips of each range of the samples.
    pub color_ranges: BTreeMap<String, u64>,
    /// Clips of each matrix of the samples.
    pub color_matrices: BTreeMap<String, u64>,
    /// Clips of each transfer function of the samples.
    pub color_transfers: BTreeMap<String, u64>,
    /// Clips of each ratio of width to height of the source's pixels, `1:1` if square; `unknown` before format
    /// version 3.
    pub pixel_aspects: BTreeMap<String, u64>,
    /// Clips whose end repeats the last frame, because their video was too short.
    pub repeated: u64,
    /// Clips with damaged frames, in builds that keep them.
    pub damaged: u64,
    /// Clips of interlaced sources.
    pub deinterlaced: u64,
    /// Clips that were turned by 90, 180 or 270 degrees.
    pub rotated: u64,
    /// Clips that were mirrored.
    pub mirrored: u64,
}

/// How a number is spread over the clips; all 0 without clips.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// The one in the middle; of an even number, the upper one.
    pub median: u64,
    /// The mean.
    pub mean: f64,
    /// At least 95 in 100 are not greater.
    pub p95: u64,
    /// The greatest.
    pub max: u64,
}

/// What `shardtool export --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportReport {
    /// File or folder that was written.
    pub out: String,
    /// Number of the clip.
    pub clip: u64,
    /// Frames written.
    pub frames: u64,
    /// Width of a frame in pixels; a video's is even.
    pub width: u64,
    /// Height of a frame in pixels; a video's is even.
    pub height: u64,
    /// Frames a second of a video; none for pictures.
    pub fps: Option<f64>,
}
