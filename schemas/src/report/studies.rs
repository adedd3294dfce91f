//! Reports of studies.

use serde::{Deserialize, Serialize};

/// Report of a study, `trainer study --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyReport {
    /// Name of the study.
    pub name: String,
    /// The setting that it varies.
    pub axis: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Arms of the study.
    pub arms: Vec<StudyArm>,
}

/// One arm of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyArm {
    /// Curve that the arm is a point of.
    pub series: String,
    /// Value of the varied setting.
    pub name: String,
    /// Runs of the arm, one per seed.
    pub runs: Vec<StudyRun>,
    /// Difference to the arm that it is compared with.
    pub difference: Option<StudyDifference>,
}

/// The difference of an arm to another, over the videos that both were validated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyDifference {
    /// The other arm.
    pub from: String,
    /// Difference of the accuracies by video, in percentage points.
    pub points: f64,
    /// Videos that this arm classifies correctly more often than the other.
    pub better: u64,
    /// Videos that it classifies correctly less often.
    pub worse: u64,
    /// Probability of a difference at least as large, in either direction, by chance of the videos:
    /// a paired sign-flip test over them.
    pub p_videos: f64,
    /// The same by chance of training: a permutation test over the runs of each seed. One run per
    /// seed decides little: three seeds have no probability below 0.25.
    pub p_runs: f64,
}

/// One run of an arm: a pre-training, if there is one, and an evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRun {
    /// Random seed of the pre-training; of real footage also the fold.
    pub seed: u64,
    /// Which evaluation of the same pre-training it is, from 0.
    #[serde(default)]
    pub repeat: u64,
    /// Top-1 accuracy on the validation videos: the mean of the probabilities of a video's clips.
    pub top1: f64,
    /// Cross entropy on the validation videos.
    pub validation_loss: f64,
    /// Mean loss over the last steps of the pre-training.
    pub pretrain_loss: Option<f64>,
    /// Seconds of the pre-training's steps; 0 if there is no pre-training.
    pub pretrain_seconds: f64,
    /// Median seconds of a step of the pre-training; 0 if there is no pre-training.
    pub pretrain_step_seconds: f64,
    /// Seconds of these that were spent waiting for data.
    pub pretrain_wait_seconds: f64,
    /// Seconds of the fine-tuning's steps; 0 for a probe.
    pub finetune_seconds: f64,
    /// Folder of the evaluation.
    pub dir: String,
    /// The validation videos.
    pub videos: Vec<StudyVideo>,
}

/// A validation video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyVideo {
    /// Its path, as it was given to the build.
    pub video: String,
    /// Its class.
    pub label: u32,
    /// The class that was predicted.
    pub predicted: u32,
}
