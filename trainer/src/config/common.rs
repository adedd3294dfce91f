//! Settings of every training, whatever its objective.

use crate::cpu::Precision;
use crate::model::{Conventions, DecoderClassToken, NormalisePer, PositionKind, TransformerConfig};
use crate::optim::{AdamWConfig, Schedule};
use pipeline::loader::batch::ValueType;
use pipeline::sampling::frame_order::FrameOrder;
use pipeline::sampling::sample::Augmentation;
use schemas::choice::Choice;
use schemas::geometry::{PatchGrid, TargetFrames};
use serde::{Deserialize, Serialize};

/// Settings of every training, whatever its objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonConfig {
    /// Random seed of the initial weights, of order, crops, flips, masks, and of what is dropped,
    /// mixed or held out.
    pub seed: u64,
    /// Training clips and their patches.
    pub clip: PatchGrid,
    /// Positions and cls token.
    #[serde(default)]
    pub model: ModelConfig,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// Batches.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Length and learning rate.
    pub schedule: ScheduleConfig,
    /// When to save.
    pub checkpoints: CheckpointsConfig,
    /// What to do about non-finite steps.
    #[serde(default)]
    pub safety: SafetyConfig,
    /// How a step is computed.
    #[serde(default)]
    pub compute: ComputeConfig,
}

impl CommonConfig {
    /// The keys of these settings; all others are the objective's.
    pub(super) const KEYS: [&str; 10] = [
        "seed",
        "clip",
        "model",
        "encoder",
        "data",
        "optimizer",
        "schedule",
        "checkpoints",
        "safety",
        "compute",
    ];

    /// Ranges of crops and flips.
    pub const fn augmentation(&self) -> Augmentation {
        let DataConfig {
            area, aspect, flip, ..
        } = self.data;
        Augmentation { area, aspect, flip }
    }

    /// Learning rate by step over data of `clips` clips. An epoch takes as many samples as there
    /// are clips.
    pub fn schedule(&self, clips: u64) -> Schedule {
        let samples_per_step = self.data.batch_size as f64 * self.data.grad_accum as f64;
        let steps = match self.schedule.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                ((epochs * clips as f64 / samples_per_step).ceil() as u64).max(1)
            }
        };
        Schedule {
            peak: self.optimizer.base_lr * samples_per_step / 256.0,
            warmup_steps: (self.schedule.warmup * steps as f64).round() as u64,
            steps,
        }
    }
}

/// What encoder and decoder share. The defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Kind of positional embedding.
    pub positions: PositionKind,
    /// Whether both have a cls token.
    pub class_token: bool,
    /// [`Conventions::norm_epsilon`].
    pub norm_epsilon: f64,
    /// [`Conventions::decoder_norm_epsilon`].
    pub decoder_norm_epsilon: f64,
    /// [`Conventions::head_norm_epsilon`].
    pub head_norm_epsilon: f64,
    /// [`Conventions::decoder_positions`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_positions: Option<PositionKind>,
    /// [`Conventions::position_std`].
    pub position_std: f64,
    /// [`Conventions::decoder_class_token`].
    pub decoder_class_token: DecoderClassToken,
}

impl ModelConfig {
    /// Conventions of other code bases, apart from those of the target.
    pub const fn conventions(&self) -> Conventions {
        Conventions {
            norm_epsilon: self.norm_epsilon,
            decoder_norm_epsilon: self.decoder_norm_epsilon,
            head_norm_epsilon: self.head_norm_epsilon,
            decoder_positions: self.decoder_positions,
            position_std: self.position_std,
            decoder_class_token: self.decoder_class_token,
            normalise_per: NormalisePer::Patch,
            target_frames: TargetFrames::Spread,
        }
    }

    /// These settings of a model that is not ours.
    pub const fn of(positions: PositionKind, class_token: bool, conventions: Conventions) -> Self {
        Self {
            positions,
            class_token,
            norm_epsilon: conventions.norm_epsilon,
            decoder_norm_epsilon: conventions.decoder_norm_epsilon,
            head_norm_epsilon: conventions.head_norm_epsilon,
            decoder_positions: conventions.decoder_positions,
            position_std: conventions.position_std,
            decoder_class_token: conventions.decoder_class_token,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::of(PositionKind::Separable, true, Conventions::default())
    }
}

/// Batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Samples per batch.
    pub batch_size: usize,
    /// Batches per step: their gradients are averaged, as if they were one batch.
    #[serde(default = "one")]
    pub grad_accum: usize,
    /// Micro-batches of each batch, a power of two: their gradients are computed one by one, and
    /// summed as a balanced tree. Ranks share them: as many ranks or fewer, if a power of two,
    /// compute the same to the bit.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// Samples (window, crop, flip and mask) of a clip each time that it is read. They go to as
    /// many batches.
    #[serde(default = "one")]
    pub repeat_aug: usize,
    /// Type of the pixel values that the loader makes. `u8` is a quarter of `f32`'s bytes to a GPU,
    /// and rounds crops to 8 bits.
    #[serde(default = "f32_values")]
    pub values: ValueType,
    /// Clips of shards that are used; all of them by default. It applies to each data set.
    #[serde(default, skip_serializing_if = "Choice::is_all")]
    pub choose: Choice,
    /// [`Augmentation::area`].
    pub area: [f64; 2],
    /// [`Augmentation::aspect`].
    pub aspect: [f64; 2],
    /// [`Augmentation::flip`].
    pub flip: f64,
    /// The order of each clip's frames, in validation, too: other than `time` they are controls of
    /// how much of a task is motion.
    #[serde(default, skip_serializing_if = "FrameOrder::is_time")]
    pub frame_order: FrameOrder,
}

const fn one() -> usize {
    1
}

const fn f32_values() -> ValueType {
    ValueType::F32
}

/// How a step is computed on the CPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeConfig {
    /// Type of activations and of weights as they are multiplied. Sums, master weights and moments
    /// are f32.
    pub dtype: Precision,
    /// Keep only the inputs of blocks for the backward, and recompute the rest: less memory, a
    /// third more time, the same results.
    pub gradient_checkpointing: bool,
}

/// Length and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// How long to train.
    pub length: Length,
    /// Share of the steps over which the learning rate rises.
    pub warmup: f64,
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Number of steps.
    Steps(u64),
    /// Passes over the data.
    Epochs(f64),
}

/// When to save.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointsConfig {
    /// Steps between checkpoints; the last step always saves one.
    pub every: u64,
    /// Number of the latest checkpoints that are kept.
    pub keep: usize,
}

/// What to do about steps whose loss or gradients are not finite. Such a step never changes weights
/// or moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SafetyConfig {
    /// Stop, or skip the step.
    pub on_nonfinite: OnNonfinite,
    /// Steps that may be skipped in the whole run.
    pub max_nonfinite: u64,
    /// Steps that may be skipped in a row: weights that have diverged give no finite loss any more.
    pub max_nonfinite_in_a_row: u64,
}

impl Default for SafetyConfig {
    fn default() -> Self {
        Self {
            on_nonfinite: OnNonfinite::Stop,
            max_nonfinite: 100,
            max_nonfinite_in_a_row: 10,
        }
    }
}

/// What to do about a step whose loss or gradients are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// End the run with an error.
    Stop,
    /// Count the step, and change nothing.
    Skip,
}
