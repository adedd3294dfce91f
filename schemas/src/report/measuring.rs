//! What `trainer bench` prints.

use super::{LoaderFigures, WaitFigures};
use serde::{Deserialize, Serialize};

/// What `trainer bench loader --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderReport {
    /// What was loaded, as it was named.
    pub data: Vec<String>,
    /// Clips in it.
    pub data_clips: u64,
    /// Who used the batches.
    pub consumer: String,
    /// What of a clip a batch holds: `clips` or `patches`.
    pub form: String,
    /// Type of the values: `u8`, `f32` or `bf16`.
    pub values: String,
    /// Clips a batch.
    pub batch_size: u64,
    /// Samples of each reading of a clip.
    pub repeat: u64,
    /// Loader's threads.
    pub threads: u64,
    /// Clips a second. Equals [`LoaderFigures::clips_per_second`].
    pub clips_per_second: f64,
    /// Share of the time that the consumer waited. Equals [`LoaderFigures::stall_fraction`].
    pub stall_fraction: f64,
    /// How long it waited for a batch. Equals [`LoaderFigures::batch_wait_ms`].
    pub batch_wait_ms: WaitFigures,
    /// Processor time of this process, its consumer and all decoders included, for each clip handed out, in milliseconds.
    pub cpu_ms_per_clip: f64,
    /// The most memory that this process has used.
    pub peak_memory_bytes: u64,
    /// A100s that the figure of clips a second would feed, at 17 clips/s each (ViT-L, 90 % masked).
    pub a100s: f64,
    /// All that the loader has measured.
    pub loader: LoaderFigures,
    /// With a training step as consumer: what loading costs it.
    pub step: Option<StepFigures>,
}

/// What loading costs a training step: steps with a new batch each, and steps with one batch over and over, in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepFigures {
    /// Pairs of steps.
    pub pairs: u64,
    /// Median seconds of a step with a new batch, its wait included.
    pub loaded_seconds: f64,
    /// Median seconds of a step with the same batch again.
    pub cached_seconds: f64,
    /// The first over the second.
    pub ratio: f64,
}

/// Multiply-adds of the forward pass of one clip, by part. A multiply-add is two floating-point operations; what is not a matrix product is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationFigures {
    /// Patches to tokens.
    pub patch_embedding: u64,
    /// Linear layers of the encoder's blocks.
    pub encoder_linear: u64,
    /// Products of queries with keys, and of weights with values, in the encoder.
    pub encoder_attention: u64,
    /// From the encoder's width to the decoder's, and linear layers of the decoder's blocks.
    pub decoder_linear: u64,
    /// As in the encoder.
    pub decoder_attention: u64,
    /// Tokens to pixels.
    pub prediction: u64,
}

impl OperationFigures {
    /// All of the decoder: its layers, its attention and the prediction.
    pub const fn decoder(&self) -> u64 {
        self.decoder_linear + self.decoder_attention + self.prediction
    }

    /// The forward pass.
    pub const fn forward(&self) -> u64 {
        self.patch_embedding + self.encoder_linear + self.encoder_attention + self.decoder()
    }

    /// Forward and backward pass: a product has the gradients of both its factors behind it, each as much as itself; but nobody asks for that of the pixels.
    pub const fn step(&self) -> u64 {
        3 * self.forward() - self.patch_embedding
    }
}

/// What `trainer bench sparsity --json` prints: Table 1 of Feichtenhofer et al. 2022 for any model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityReport {
    /// Whose model.
    pub preset: String,
    /// Clips a step.
    pub batch_size: u64,
    /// Steps that were timed, of each kind.
    pub steps: u64,
    /// Trainable values of the model.
    pub parameters: u64,
    /// What was loaded, as it was named; empty when nothing was.
    pub data: Vec<String>,
    /// With every token visible to the encoder, and predicted.
    pub dense: SparsityFigures,
    /// Masked as the preset says.
    pub sparse: SparsityFigures,
    /// Dense over sparse.
    pub gain: SparsityGain,
    /// The paper's figures, for its main model as the preset has it.
    pub paper: Option<PaperSparsity>,
}

/// What one way of training costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityFigures {
    /// Tokens of a clip.
    pub tokens: u64,
    /// Tokens of it that the encoder sees.
    pub visible_tokens: u64,
    /// Multiply-adds of a clip's forward pass, by part.
    pub operations: OperationFigures,
    /// All of these. Equals [`OperationFigures::forward`].
    pub forward_multiply_adds: u64,
    /// Multiply-adds of a clip's forward and backward pass. Equals [`OperationFigures::step`].
    pub step_multiply_adds: u64,
    /// Steps with one batch of random numbers over and over.
    pub computed: StepSpeed,
    /// Steps with a new batch of clips each, when there is data.
    pub loaded: Option<StepSpeed>,
}

/// How fast steps are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpeed {
    /// Median of the wall times of the steps, their wait for data and the optimiser included.
    pub step_seconds: f64,
    /// Clips a second.
    pub clips_per_second: f64,
    /// Floating-point operations of forward and backward pass, two for each multiply-add, in 10^9 a second of the whole step.
    pub gflops: f64,
}

/// Dense over sparse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityGain {
    /// Of the forward pass's multiply-adds.
    pub multiply_adds: f64,
    /// Of a step's seconds, computed.
    pub computed: f64,
    /// Of a step's seconds with loading, when there is data.
    pub loaded: Option<f64>,
}

/// Table 1 of Feichtenhofer et al. 2022: ViT-L, 800 epochs of Kinetics-400 on 128 A100s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperSparsity {
    /// With every token visible.
    pub dense: PaperFigures,
    /// 90 % masked.
    pub sparse: PaperFigures,
    /// Dense over sparse.
    pub gain: SparsityGain,
}

/// A row of the paper's table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperFigures {
    /// Multiply-adds of a clip's forward pass, which the paper calls FLOPs.
    pub forward_multiply_adds: f64,
    /// Hours of computing.
    pub computed_hours: f64,
    /// Hours with loading.
    pub loaded_hours: f64,
}

/// What `trainer bench step --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// Whose model.
    pub preset: String,
    /// Clips a step.
    pub batch_size: u64,
    /// Share of the tokens that is masked.
    pub mask_ratio: f64,
    /// Type of the activations.
    pub dtype: String,
    /// Threads that compute.
    pub threads: u64,
    /// Trainable values of the model.
    pub parameters: u64,
    /// Steps that were timed.
    pub steps: u64,
    /// Their median: forward, backward and optimiser.
    pub seconds_per_step: f64,
    /// The fastest.
    pub least_seconds: f64,
    /// The slowest.
    pub most_seconds: f64,
    /// Medians of the parts.
    pub parts: StepParts,
    /// Clips a second, at the median.
    pub clips_per_second: f64,
    /// Floating-point operations of a step's matrix products, counted from the shapes: two for each multiply-add, in 10^9.
    pub gflop_per_step: f64,
    /// These over the median.
    pub gflop_per_second: f64,
    /// What one large matrix product of this type reaches on this machine.
    pub product_gflop_per_second: f64,
    /// `gflop_per_second` over that.
    pub product_share: f64,
    /// The most memory that the process used.
    pub peak_memory_bytes: u64,
}

/// Parts of a step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepParts {
    /// Embedding and encoder, forward.
    pub encoder_seconds: f64,
    /// Decoder and loss, forward.
    pub decoder_seconds: f64,
    /// Decoder, backward.
    pub decoder_backward_seconds: f64,
    /// Encoder, backward.
    pub encoder_backward_seconds: f64,
    /// Clipping, weights and moments.
    pub optimizer_seconds: f64,
}
