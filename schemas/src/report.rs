//! What commands print with `--json`, and the lines of `metrics.jsonl`.

use crate::manifest::Rejected;
use serde::{Deserialize, Serialize};

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
    /// Videos that the label file does not name (their label is null).
    pub unlabelled: u64,
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
    /// Bytes of these clips before compression: the most that the shards can take, but for a small overhead.
    pub decoded_bytes: u64,
    /// Bytes that the shards should take: [`DryRunReport::decoded_bytes`] by the usual ratio of the chosen level.
    pub estimated_bytes: u64,
    /// Bytes free where the shards would go.
    pub free_bytes: u64,
    /// Files that looked like video but cannot be opened.
    pub rejected: Vec<Rejected>,
    /// Files found in folders that are no video by content nor by name.
    pub not_video: u64,
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

/// One line of `metrics.jsonl`: one training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMetrics {
    /// Step, from 1.
    pub step: u64,
    /// Passes over the data when the step ended, as a fraction.
    pub epoch: f64,
    /// Mean squared error over the masked patches.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Clips a second of this step, its wait for data included.
    pub clips_per_second: f64,
    /// Wall time of this step, its wait for data included.
    pub step_seconds: f64,
    /// How long this step waited for its batch.
    pub wait_seconds: f64,
}

/// What `trainer run --json` prints at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// Folder of the run.
    pub out: String,
    /// Step that the run had reached when it began (0 unless resumed).
    pub resumed_from: u64,
    /// Step that the run has reached.
    pub steps: u64,
    /// Mean loss over the first ten steps of the run.
    pub first_loss: f64,
    /// Mean loss over its last ten steps.
    pub last_loss: f64,
    /// Clips a second of this process, its first step left out; 0 when there was nothing left to do.
    pub clips_per_second: f64,
    /// Share of that time spent waiting for data.
    pub stall_fraction: f64,
    /// Trainable parameters of the model.
    pub parameters: u64,
    /// The last checkpoint.
    pub checkpoint: String,
    /// The picture of the reconstruction.
    pub picture: String,
}
