//! What studies find.

use serde::{Deserialize, Serialize};

/// What `trainer study --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyReport {
    /// Which study.
    pub name: String,
    /// What it varies.
    pub axis: String,
    /// Its arms.
    pub arms: Vec<StudyArm>,
}

/// One arm of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyArm {
    /// The curve that it is part of.
    pub series: String,
    /// Its value of what is varied.
    pub name: String,
    /// Its runs, one a seed.
    pub runs: Vec<StudyRun>,
}

/// One run of an arm: a pre-training, if there is one, and a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRun {
    /// Its seed.
    pub seed: u64,
    /// Share of the validation clips that are told right at the end.
    pub top1: f64,
    /// Cross entropy on them.
    pub validation_loss: f64,
    /// Mean loss over the last steps of the pre-training.
    pub pretrain_loss: Option<f64>,
    /// Seconds of the pre-training's steps; 0 where there is none.
    pub pretrain_seconds: f64,
    /// Of these, waiting for data.
    pub pretrain_wait_seconds: f64,
    /// Seconds of the fine-tuning's steps.
    pub finetune_seconds: f64,
    /// Folder of the fine-tuning.
    pub dir: String,
}
