//! Reports of evaluation and feature extraction, and of the conversion of weights.

use super::ValidationMetrics;
use serde::{Deserialize, Serialize};

/// Report of `trainer finetune --freeze --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// Checkpoint or folder of the weights.
    pub weights: String,
    /// Folder of the probes.
    pub out: String,
    /// Linear probe on the mean of the tokens.
    pub linear: ProbeScores,
    /// Attentive probe on all tokens.
    pub attentive: ProbeScores,
    /// Folder with the weights of a classifier: the encoder with the linear probe as its head.
    pub classifier: String,
}

/// Metrics of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeScores {
    /// Metrics on the training clips.
    pub train: ValidationMetrics,
    /// Metrics on the validation clips, if there are any.
    pub validation: Option<ValidationMetrics>,
}

/// Report of `trainer import --json` and `trainer export --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeReport {
    /// Format of the other code base.
    pub format: String,
    /// Short description of the model.
    pub model: String,
    /// File or folder that the weights were read from.
    pub from: String,
    /// File or folder that the weights were written to.
    pub weights: String,
    /// Notes on tensors and settings that were skipped, assumed, folded or dropped.
    pub notes: Vec<String>,
}

/// Report of `trainer embed --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedReport {
    /// Checkpoint or folder of the weights.
    pub weights: String,
    /// Path of the file of features.
    pub out: String,
    /// Number of rows.
    pub rows: u64,
    /// Number of values of a feature.
    pub width: u64,
    /// Number of tokens per row; 0 if they were not requested.
    pub tokens: u64,
    /// Number of clips that could not be read, and are not in the file.
    pub skipped: u64,
    /// Wall time in seconds, including loading.
    pub seconds: f64,
    /// Clips per second, including loading.
    pub clips_per_second: f64,
    /// Path of the picture of the nearest clips, if one was drawn.
    pub sheet: Option<String>,
    /// The queried clips with their nearest neighbours.
    pub queries: Vec<QueryReport>,
}

/// A clip with its nearest neighbours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryReport {
    /// The queried clip.
    pub query: NeighbourReport,
    /// Nearest clips of other videos, the nearest first.
    pub nearest: Vec<NeighbourReport>,
}

/// A clip in a search for nearest neighbours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourReport {
    /// Video of the clip.
    pub video: String,
    /// Start of the clip in its video, in seconds.
    pub second: f64,
    /// Class of the clip, if it has one.
    pub class: Option<String>,
    /// Cosine similarity of its feature and the query's, after subtraction of the mean of all
    /// features; none for the query itself.
    pub similarity: Option<f64>,
}

/// Report of `trainer eval --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalReport {
    /// Checkpoint or folder of the weights.
    pub weights: String,
    /// Number of windows per clip, and of crops per window.
    pub views: [u64; 2],
    /// Metrics per clip.
    pub clips: ValidationMetrics,
    /// Metrics per video, by the mean of its clips' probabilities; `clips` is then the number of
    /// videos.
    pub videos: ValidationMetrics,
    /// Counts per class, in the order of class numbers.
    pub classes: Vec<ClassReport>,
    /// Confusion matrix: number of clips by class (rows) and predicted class (columns).
    pub confusion: Vec<Vec<u64>>,
    /// Number of clips that could not be read, and are not counted.
    pub skipped: u64,
    /// Wall time in seconds, including loading.
    pub seconds: f64,
    /// Views per second, including loading.
    pub views_per_second: f64,
    /// Path of the picture of the confusion matrix, if one was drawn.
    pub confusion_picture: Option<String>,
}

/// Accuracy of a classifier on one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassReport {
    /// Name of the class.
    pub name: String,
    /// Number of its clips.
    pub clips: u64,
    /// Number of its clips that are classified correctly.
    pub clips_top1: u64,
    /// Number of its clips whose class is among the first five.
    pub clips_top5: u64,
    /// Number of its videos.
    pub videos: u64,
    /// Number of its videos that are classified correctly.
    pub videos_top1: u64,
}

/// Report of `trainer visualise --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisualiseReport {
    /// Checkpoint or folder of the weights.
    pub weights: String,
    /// Video of the clip, if known.
    pub video: Option<String>,
    /// Index of the clip.
    pub clip: u64,
    /// Start of the clip in its video, in seconds.
    pub second: f64,
    /// Number of drawn frames: those that the model predicts.
    pub frames: u64,
    /// Number of frames at the end of the clip that repeat the last frame of the video.
    pub repeated_frames: u64,
    /// Kind of the mask: which tokens are masked together.
    pub mask_kind: String,
    /// One entry per mask ratio.
    pub looks: Vec<LookReport>,
    /// Paths of the files that were written.
    pub files: Vec<String>,
}

/// A clip under one mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookReport {
    /// Requested fraction of masked tokens.
    pub mask_ratio: f64,
    /// Number of tokens that are visible to the encoder.
    pub visible: u64,
    /// Number of tokens that are predicted.
    pub masked: u64,
}
