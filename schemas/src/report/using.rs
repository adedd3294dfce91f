//! What is printed about the use of what was learned, and about weights of other code bases.

use super::ValidationMetrics;
use serde::{Deserialize, Serialize};

/// What `trainer finetune --freeze --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// The checkpoint or folder that the weights are from.
    pub weights: String,
    /// Folder of the probes.
    pub out: String,
    /// The linear probe on the mean of the tokens.
    pub linear: ProbeScores,
    /// The attentive probe on all tokens.
    pub attentive: ProbeScores,
    /// The linear probe on its encoder, as a folder of weights of a classifier.
    pub classifier: String,
}

/// How a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeScores {
    /// On the clips that it was trained on.
    pub train: ValidationMetrics,
    /// On others; nothing where there are none.
    pub validation: Option<ValidationMetrics>,
}

/// What `trainer import --json` and `trainer export --json` print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeReport {
    /// The other code base.
    pub format: String,
    /// The model in a few words.
    pub model: String,
    /// What the weights are from: a file or folder.
    pub from: String,
    /// Where they are now.
    pub weights: String,
    /// What was passed over, assumed, folded or left out.
    pub notes: Vec<String>,
}

/// What `trainer embed --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedReport {
    /// The checkpoint or folder that the weights are from.
    pub weights: String,
    /// The file of features.
    pub out: String,
    /// Its rows.
    pub rows: u64,
    /// Values of a feature.
    pub width: u64,
    /// Tokens of a row; 0 where they were not asked for.
    pub tokens: u64,
    /// Clips that could not be read, and are not in it.
    pub skipped: u64,
    /// How long it took, loading and computing.
    pub seconds: f64,
    /// Clips that were loaded and computed a second.
    pub clips_per_second: f64,
    /// The picture of the nearest clips.
    pub sheet: Option<String>,
    /// The clips that were asked about, with their nearest.
    pub queries: Vec<QueryReport>,
}

/// A clip, and those nearest to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryReport {
    /// The clip.
    pub query: NeighbourReport,
    /// The nearest clips of other videos, the nearest first.
    pub nearest: Vec<NeighbourReport>,
}

/// A clip among others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourReport {
    /// Its video.
    pub video: String,
    /// Where in it it begins, in seconds.
    pub second: f64,
    /// Its class, where it has one.
    pub class: Option<String>,
    /// Cosine of the angle between the two features, after the mean of all was taken off; nothing of the clip itself.
    pub similarity: Option<f64>,
}

/// What `trainer eval --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalReport {
    /// The checkpoint or folder that the weights are from.
    pub weights: String,
    /// Windows of each clip, and crops of each window.
    pub views: [u64; 2],
    /// How it does clip by clip.
    pub clips: ValidationMetrics,
    /// How it does video by video, by the mean of its clips' probabilities; `clips` is then the number of videos.
    pub videos: ValidationMetrics,
    /// The same by class, in the order of their numbers.
    pub classes: Vec<ClassReport>,
    /// Clips by class, and by the class that was told of them.
    pub confusion: Vec<Vec<u64>>,
    /// Clips that could not be read, and count for nothing.
    pub skipped: u64,
    /// How long it took, loading and computing.
    pub seconds: f64,
    /// Views that were loaded and computed a second.
    pub views_per_second: f64,
    /// Where the confusion matrix was drawn.
    pub confusion_picture: Option<String>,
}

/// How a classifier does on one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Its clips.
    pub clips: u64,
    /// How many of them are told right.
    pub clips_top1: u64,
    /// Of how many it is among the first five.
    pub clips_top5: u64,
    /// Its videos.
    pub videos: u64,
    /// How many of them are told right.
    pub videos_top1: u64,
}

/// What `trainer visualise --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisualiseReport {
    /// Where the weights are from.
    pub weights: String,
    /// The video, where it is known.
    pub video: Option<String>,
    /// Number of the clip.
    pub clip: u64,
    /// Time in the video at which it begins, in seconds.
    pub second: f64,
    /// Frames that are drawn: those that the model predicts.
    pub frames: u64,
    /// Frames at the clip's end that repeat the video's last one.
    pub repeated_frames: u64,
    /// Which tokens are masked together.
    pub mask_kind: String,
    /// One for each mask ratio.
    pub looks: Vec<LookReport>,
    /// What was written.
    pub files: Vec<String>,
}

/// A clip under one mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookReport {
    /// Share of the tokens that was asked to be masked.
    pub mask_ratio: f64,
    /// Tokens that the encoder sees.
    pub visible: u64,
    /// Tokens that are predicted.
    pub masked: u64,
}
