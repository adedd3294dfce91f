//! What trainings print and write down: the lines of `metrics.jsonl` and `nonfinite.jsonl`.

use super::LoaderFigures;
use serde::{Deserialize, Deserializer, Serialize};

/// One line of `metrics.jsonl`: one training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMetrics {
    /// Step, from 1.
    pub step: u64,
    /// Passes over the data when the step ended, as a fraction.
    pub epoch: f64,
    /// Mean squared error over the masked patches. Not a number where the step changed nothing: null in JSON.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Global gradient norm before clipping; as the loss, null where it is no finite number.
    #[serde(deserialize_with = "number_or_null")]
    pub grad_norm: f64,
    /// Clips a second of this step, its wait for data included.
    pub clips_per_second: f64,
    /// Wall time of this step, its wait for data included.
    pub step_seconds: f64,
    /// How long this step waited for its batches.
    pub wait_seconds: f64,
    /// Steps of the run so far that changed nothing, because loss or gradients were not finite; see [`NonfiniteStep`].
    #[serde(default)]
    pub nonfinite: u64,
    /// How a classifier did after this step, where it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationMetrics>,
    /// What the loader has measured since this process began; nothing in the lines of versions that did not measure.
    #[serde(default)]
    pub loader: LoaderFigures,
}

/// How a classifier does on clips that it does not learn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationMetrics {
    /// Clips that were looked at.
    pub clips: u64,
    /// Cross entropy of the averaged probabilities with the labels.
    pub loss: f64,
    /// Share of the clips whose class has the greatest probability.
    pub top1: f64,
    /// Share of the clips whose class is among the five of the greatest probabilities.
    pub top5: f64,
}

/// A number, or not a number for JSON's null.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// One line of `nonfinite.jsonl`: a step whose loss or gradients were not finite, with all that is needed to look into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteStep {
    /// Step, from 1.
    pub step: u64,
    /// Learning rate that it would have had.
    pub lr: f64,
    /// Mean loss of its batches: a number, or `NaN` or `inf`.
    #[serde(with = "any_number")]
    pub loss: f64,
    /// Global gradient norm before clipping, likewise; `NaN` where the loss is not finite, so that there are no gradients.
    #[serde(with = "any_number")]
    pub grad_norm: f64,
    /// Whether the run went on without it.
    pub skipped: bool,
    /// What it was to learn from.
    pub batches: Vec<NonfiniteBatch>,
    /// The run's whole configuration, as the text of its `config.toml`.
    pub config: String,
}

/// A batch of such a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteBatch {
    /// Its loss.
    #[serde(with = "any_number")]
    pub loss: f64,
    /// Its clips, in their order.
    pub samples: Vec<NonfiniteSample>,
}

/// A clip of such a batch, and the draw of its window, crop, flip and mask: a function of these numbers and the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonfiniteSample {
    /// Number of the data set, in the order in which they were named.
    pub set: u32,
    /// Pass over this data set, from 0.
    pub epoch: u64,
    /// Number of the clip in it.
    pub clip: u64,
    /// Which of the samples of one reading of the clip.
    pub repeat: u32,
    /// The video that it is of, where that can be told.
    pub video: Option<String>,
    /// The shard that holds it.
    pub shard: Option<String>,
    /// Its row in the shard, from 0.
    pub row: Option<u64>,
}

/// Numbers that JSON has, and as text those that it has not.
mod any_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.serialize_str(&number.to_string()) }
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
    /// Whether that is its last step; not where it was stopped.
    pub finished: bool,
    /// Mean loss over the first ten steps of the run, those left out that are not finite; null without any.
    #[serde(deserialize_with = "number_or_null")]
    pub first_loss: f64,
    /// Mean loss over its last ten steps, likewise.
    #[serde(deserialize_with = "number_or_null")]
    pub last_loss: f64,
    /// Clips a second of this process, its first step left out; 0 when there was nothing left to do.
    pub clips_per_second: f64,
    /// Share of that time spent waiting for data.
    pub stall_fraction: f64,
    /// How often this process has left out a clip that cannot be read.
    pub skipped: u64,
    /// Steps of the run that changed nothing, because loss or gradients were not finite.
    pub nonfinite: u64,
    /// The most memory that this process has used, decoders of live video left out.
    pub peak_memory_bytes: u64,
    /// Trainable parameters of the model.
    pub parameters: u64,
    /// The last checkpoint; none where the run was stopped before its first step was done.
    pub checkpoint: Option<String>,
    /// How the classifier did at its last look at the validation clips; nothing of a pre-training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationMetrics>,
    /// The picture of the reconstruction at the run's end; none where the run was stopped.
    pub picture: Option<String>,
}

/// A run in figures, over all its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFigures {
    /// Folder of the run.
    pub out: String,
    /// What it is called in the legend.
    pub name: String,
    /// Its last step.
    pub steps: u64,
    /// Passes over the data, as a fraction.
    pub epochs: f64,
    /// Mean loss over its first ten steps, those left out that are not finite; null without any.
    #[serde(deserialize_with = "number_or_null")]
    pub first_loss: f64,
    /// Mean loss over its last ten steps, likewise.
    #[serde(deserialize_with = "number_or_null")]
    pub last_loss: f64,
    /// Wall time of its steps.
    pub seconds: f64,
    /// Clips a second of this time.
    pub clips_per_second: f64,
    /// Share of this time spent waiting for data.
    pub stall_fraction: f64,
}

/// What `trainer curves --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvesReport {
    /// The picture of the curves.
    pub picture: String,
    /// The report, if one was asked for.
    pub html: Option<String>,
    /// The runs, as they were named.
    pub runs: Vec<RunFigures>,
}
