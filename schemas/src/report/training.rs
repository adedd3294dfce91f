//! Reports of training runs, and the lines of `metrics.jsonl` and `nonfinite.jsonl`.

use super::LoaderFigures;
use serde::{Deserialize, Deserializer, Serialize};

/// A line of `metrics.jsonl`: one training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMetrics {
    /// Number of the step, from 1.
    pub step: u64,
    /// Epochs at the end of the step, as a fraction.
    pub epoch: f64,
    /// Mean squared error over the masked patches. NaN if the step changed nothing: null in JSON.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global gradient norm before clipping; like the loss, null if it is not finite.
    #[serde(deserialize_with = "number_or_null")]
    pub grad_norm: f64,
    /// Clips per second, including the wait for data.
    pub clips_per_second: f64,
    /// Wall time of the step in seconds, including the wait for data.
    pub step_seconds: f64,
    /// Seconds that the step waited for its batches.
    pub wait_seconds: f64,
    /// Number of steps of the run so far that changed nothing because the loss or the gradients
    /// were not finite; see [`NonfiniteStep`].
    #[serde(default)]
    pub nonfinite: u64,
    /// Validation metrics of a classifier after this step, if it was validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationMetrics>,
    /// On several ranks, the cost of their sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksFigures>,
    /// Measurements of the loader since the process began; default values in lines of versions
    /// without measurements.
    #[serde(default)]
    pub loader: LoaderFigures,
}

/// What it costs to sum gradients over ranks, as rank 0 measures it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RanksFigures {
    /// Number of ranks.
    pub count: usize,
    /// Seconds of the step's sums, with the wait for ranks that are slower.
    pub sum_seconds: f64,
    /// Those of them after the rank's own backward: the others are hidden by it.
    pub exposed_seconds: f64,
}

/// Metrics of a classifier on clips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationMetrics {
    /// Number of clips.
    pub clips: u64,
    /// Cross entropy of the averaged probabilities with the labels.
    pub loss: f64,
    /// Top-1 accuracy: fraction of the clips whose class has the greatest probability.
    pub top1: f64,
    /// Top-5 accuracy: fraction of the clips whose class is among the five of the greatest
    /// probabilities.
    pub top5: f64,
}

/// Deserializes a number, and JSON's null as NaN.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A line of `nonfinite.jsonl`: a step whose loss or gradients were not finite, with all that is
/// needed to reproduce it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteStep {
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate that the step would have used.
    pub lr: f64,
    /// Mean loss of its batches: a number, `NaN` or `inf`.
    #[serde(with = "any_number")]
    pub loss: f64,
    /// Global gradient norm before clipping, likewise; `NaN` if the loss is not finite, since there
    /// are no gradients then.
    #[serde(with = "any_number")]
    pub grad_norm: f64,
    /// Whether the run continued without the step.
    pub skipped: bool,
    /// The step's batches.
    pub batches: Vec<NonfiniteBatch>,
    /// Complete configuration of the run: the text of its `config.toml`.
    pub config: String,
}

/// A batch of a [`NonfiniteStep`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteBatch {
    /// Loss of the batch.
    #[serde(with = "any_number")]
    pub loss: f64,
    /// Samples of the batch, in order.
    pub samples: Vec<NonfiniteSample>,
}

/// A sample of a [`NonfiniteBatch`]: its window, crop, flip and mask are a function of these
/// numbers and the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteSample {
    /// Index of the data set, in the order of the configuration.
    pub set: u32,
    /// Epoch of this data set, from 0.
    pub epoch: u64,
    /// Index of the clip in the data set.
    pub clip: u64,
    /// Index among the samples that are made each time the clip is read.
    pub repeat: u32,
    /// Video of the clip, if known.
    pub video: Option<String>,
    /// Shard that holds the clip.
    pub shard: Option<String>,
    /// Row of the clip in the shard, from 0.
    pub row: Option<u64>,
}

/// Numbers; those that JSON does not have are text.
mod any_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_finite() {
            serializer.serialize_f64(*number)
        } else {
            serializer.serialize_str(&number.to_string())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Number(f64),
            Text(String),
        }
        match Any::deserialize(deserializer)? {
            Any::Number(number) => Ok(number),
            Any::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// Report of `trainer run --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// Folder of the run.
    pub out: String,
    /// Step from which this process resumed the run; 0 if it was not resumed.
    pub resumed_from: u64,
    /// Steps of the run so far.
    pub steps: u64,
    /// Whether the run is complete; false if it was stopped.
    pub finished: bool,
    /// Mean loss over the first ten steps of the run, excluding steps that are not finite; null if
    /// there is none.
    #[serde(deserialize_with = "number_or_null")]
    pub first_loss: f64,
    /// Mean loss over the last ten steps, likewise.
    #[serde(deserialize_with = "number_or_null")]
    pub last_loss: f64,
    /// Clips per second of this process, excluding its first step; 0 if no step was left to do.
    pub clips_per_second: f64,
    /// Fraction of that time spent waiting for data.
    pub stall_fraction: f64,
    /// How often this process has skipped a clip that cannot be read.
    pub skipped: u64,
    /// Number of steps of the run that changed nothing because the loss or the gradients were not
    /// finite.
    pub nonfinite: u64,
    /// Peak memory of this process in bytes, excluding the decoder processes of live video.
    pub peak_memory_bytes: u64,
    /// Number of trainable parameters of the model.
    pub parameters: u64,
    /// Path of the last checkpoint; none if the run was stopped before its first step was complete.
    pub checkpoint: Option<String>,
    /// Metrics of the last validation of a classifier; none for a pre-training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationMetrics>,
    /// Path of the picture of the reconstruction at the end of the run; none if the run was
    /// stopped.
    pub picture: Option<String>,
}

/// Figures of a run, over all its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFigures {
    /// Folder of the run.
    pub out: String,
    /// Name in the legend.
    pub name: String,
    /// Number of steps.
    pub steps: u64,
    /// Number of epochs, as a fraction.
    pub epochs: f64,
    /// Mean loss over the first ten steps, excluding steps that are not finite; null if there is
    /// none.
    #[serde(deserialize_with = "number_or_null")]
    pub first_loss: f64,
    /// Mean loss over the last ten steps, likewise.
    #[serde(deserialize_with = "number_or_null")]
    pub last_loss: f64,
    /// Wall time of the steps in seconds.
    pub seconds: f64,
    /// Clips per second of this time.
    pub clips_per_second: f64,
    /// Fraction of this time spent waiting for data.
    pub stall_fraction: f64,
}

/// Report of `trainer curves --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvesReport {
    /// Path of the picture of the curves.
    pub picture: String,
    /// Path of the HTML report, if one was requested.
    pub html: Option<String>,
    /// The runs, in the order of the arguments.
    pub runs: Vec<RunFigures>,
}
