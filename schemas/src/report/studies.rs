//! Reports of studies.

use serde::{Deserialize, Serialize};

/// Report of `trainer study --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyReport {
    /// Name of the study.
    pub name: String,
    /// The setting that it varies.
    pub axis: String,
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
}

/// One run of an arm: a pre-training, if there is one, and a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRun {
    /// Random seed.
    pub seed: u64,
    /// Top-1 accuracy on the validation clips at the end.
    pub top1: f64,
    /// Cross entropy on the validation clips.
    pub validation_loss: f64,
    /// Mean loss over the last steps of the pre-training.
    pub pretrain_loss: Option<f64>,
    /// Seconds of the pre-training's steps; 0 if there is no pre-training.
    pub pretrain_seconds: f64,
    /// Seconds of these that were spent waiting for data.
    pub pretrain_wait_seconds: f64,
    /// Seconds of the fine-tuning's steps.
    pub finetune_seconds: f64,
    /// Folder of the fine-tuning.
    pub dir: String,
}
