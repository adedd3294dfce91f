//! Reports of `trainer bench`.

use super::{LoaderFigures, RanksFigures, WaitFigures};
use serde::{Deserialize, Serialize};

/// Report of `trainer bench loader --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderReport {
    /// The data, as given on the command line.
    pub data: Vec<String>,
    /// Number of clips in the data.
    pub data_clips: u64,
    /// Consumer of the batches.
    pub consumer: String,
    /// Form of the batches: `clips` or `patches`.
    pub form: String,
    /// Type of the values: `u8`, `f32` or `bf16`.
    pub values: String,
    /// Clips per batch.
    pub batch_size: u64,
    /// Number of samples per read of a clip.
    pub repeat: u64,
    /// Number of loader threads.
    pub threads: u64,
    /// Seconds to open the data, before the loader starts.
    #[serde(default)]
    pub open_seconds: f64,
    /// Clips per second. Equals [`LoaderFigures::clips_per_second`].
    pub clips_per_second: f64,
    /// Fraction of the time that the consumer waited. Equals [`LoaderFigures::stall_fraction`].
    pub stall_fraction: f64,
    /// Wait for a batch. Equals [`LoaderFigures::batch_wait_ms`].
    pub batch_wait_ms: WaitFigures,
    /// CPU time per clip in milliseconds, of this process with its consumer, and of all decoders.
    pub cpu_ms_per_clip: f64,
    /// Peak memory of this process in bytes.
    pub peak_memory_bytes: u64,
    /// Number of A100s that this many clips per second would feed, at 17 clips/s each (ViT-L, 90 %
    /// masked).
    pub a100s: f64,
    /// All measurements of the loader.
    pub loader: LoaderFigures,
    /// Cost of loading, with a training step as consumer.
    pub step: Option<StepFigures>,
}

/// Cost of loading in a training step: steps with a new batch each alternate with steps that repeat
/// one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepFigures {
    /// Number of pairs of steps.
    pub pairs: u64,
    /// Median seconds of a step with a new batch, including the wait for it.
    pub loaded_seconds: f64,
    /// Median seconds of a step with the repeated batch.
    pub cached_seconds: f64,
    /// `loaded_seconds` over `cached_seconds`.
    pub ratio: f64,
}

/// Multiply-adds of the forward pass of one clip, by part. A multiply-add is two flops; only matrix
/// products are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationFigures {
    /// Patch embedding.
    pub patch_embedding: u64,
    /// Linear layers of the encoder's blocks.
    pub encoder_linear: u64,
    /// Matrix products of queries with keys, and of weights with values, in the encoder.
    pub encoder_attention: u64,
    /// Projection from the encoder's width to the decoder's, and linear layers of the decoder's
    /// blocks.
    pub decoder_linear: u64,
    /// Matrix products of attention in the decoder.
    pub decoder_attention: u64,
    /// Prediction of pixels from tokens.
    pub prediction: u64,
}

impl OperationFigures {
    /// Returns the multiply-adds of the decoder: its layers, its attention and the prediction.
    pub const fn decoder(&self) -> u64 {
        self.decoder_linear + self.decoder_attention + self.prediction
    }

    /// Returns the multiply-adds of the forward pass.
    pub const fn forward(&self) -> u64 {
        self.patch_embedding + self.encoder_linear + self.encoder_attention + self.decoder()
    }

    /// Returns the multiply-adds of the forward and the backward pass. The gradients of the two
    /// factors of a product each take as many as the product; that of the pixels is not computed.
    pub const fn step(&self) -> u64 {
        3 * self.forward() - self.patch_embedding
    }
}

/// Report of `trainer bench sparsity --json`: Table 1 of Feichtenhofer et al. 2022 for any model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityReport {
    /// Preset of the model.
    pub preset: String,
    /// Clips per step.
    pub batch_size: u64,
    /// Number of timed steps of each kind.
    pub steps: u64,
    /// Number of trainable parameters of the model.
    pub parameters: u64,
    /// The data, as given on the command line; empty if none was loaded.
    pub data: Vec<String>,
    /// Training with every token visible to the encoder, and predicted.
    pub dense: SparsityFigures,
    /// Training with the masking of the preset.
    pub sparse: SparsityFigures,
    /// Ratios of dense to sparse.
    pub gain: SparsityGain,
    /// The paper's figures, if the preset is its main model.
    pub paper: Option<PaperSparsity>,
}

/// Cost of dense or sparse training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityFigures {
    /// Number of tokens of a clip.
    pub tokens: u64,
    /// Number of tokens that are visible to the encoder.
    pub visible_tokens: u64,
    /// Multiply-adds of a clip's forward pass, by part.
    pub operations: OperationFigures,
    /// Sum of these. Equals [`OperationFigures::forward`].
    pub forward_multiply_adds: u64,
    /// Multiply-adds of a clip's forward and backward pass. Equals [`OperationFigures::step`].
    pub step_multiply_adds: u64,
    /// Speed of steps that repeat one batch of random numbers.
    pub computed: StepSpeed,
    /// Speed of steps with a new batch of clips each, if there is data.
    pub loaded: Option<StepSpeed>,
}

/// Speed of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpeed {
    /// Median wall time of a step in seconds, including the wait for data and the optimizer.
    pub step_seconds: f64,
    /// Clips per second.
    pub clips_per_second: f64,
    /// Flops of the forward and the backward pass, two per multiply-add, in 10^9 per second of the
    /// whole step.
    pub gflops: f64,
}

/// Ratios of dense to sparse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityGain {
    /// Ratio of the multiply-adds of the forward pass.
    pub multiply_adds: f64,
    /// Ratio of the seconds of a step, without loading.
    pub computed: f64,
    /// Ratio of the seconds of a step with loading, if there is data.
    pub loaded: Option<f64>,
}

/// Table 1 of Feichtenhofer et al. 2022: ViT-L, 800 epochs of Kinetics-400 on 128 A100s.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperSparsity {
    /// Training with every token visible.
    pub dense: PaperFigures,
    /// Training with 90 % of the tokens masked.
    pub sparse: PaperFigures,
    /// Ratios of dense to sparse.
    pub gain: SparsityGain,
}

/// A row of the paper's table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperFigures {
    /// Multiply-adds of a clip's forward pass, which the paper calls FLOPs.
    pub forward_multiply_adds: f64,
    /// Hours without loading.
    pub computed_hours: f64,
    /// Hours with loading.
    pub loaded_hours: f64,
}

/// Report of `trainer bench step --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// Preset of the model.
    pub preset: String,
    /// Clips per step, of each rank.
    pub batch_size: u64,
    /// Fraction of the tokens that is masked.
    pub mask_ratio: f64,
    /// Type of the activations.
    pub dtype: String,
    /// Number of compute threads, of each rank.
    pub threads: u64,
    /// Number of trainable parameters of the model.
    pub parameters: u64,
    /// Number of timed steps.
    pub steps: u64,
    /// On several ranks, the median cost of their sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksFigures>,
    /// Median seconds of a step: forward, backward and optimizer.
    pub seconds_per_step: f64,
    /// Seconds of the fastest step.
    pub least_seconds: f64,
    /// Seconds of the slowest step.
    pub most_seconds: f64,
    /// Median seconds of the parts of a step.
    pub parts: StepParts,
    /// Clips per second at the median.
    pub clips_per_second: f64,
    /// Flops of a step's matrix products, counted from the shapes, two per multiply-add, in 10^9.
    pub gflop_per_step: f64,
    /// `gflop_per_step` over the median seconds.
    pub gflop_per_second: f64,
    /// Speed of one large matrix product of this type on this machine, in 10^9 flops per second.
    pub product_gflop_per_second: f64,
    /// `gflop_per_second` over `product_gflop_per_second`.
    pub product_share: f64,
    /// Peak memory of the process in bytes.
    pub peak_memory_bytes: u64,
}

/// Report of `trainer bench scaling`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingReport {
    /// Preset of the model.
    pub preset: String,
    /// Clips per step, of each rank.
    pub batch_size: u64,
    /// Type of the activations.
    pub dtype: String,
    /// Number of compute threads, of each rank.
    pub threads: u64,
    /// Number of trainable parameters of the model.
    pub parameters: u64,
    /// Seconds of a step without sums, while all ranks compute.
    pub alone_seconds: f64,
    /// Those of them after the first gradients are complete, in which sums can be hidden.
    pub overlap_seconds: f64,
    /// The link between the ranks of this run, if there are several.
    pub link: Option<LinkFigures>,
    /// What was measured, by the number of ranks.
    pub measured: Vec<MeasuredScaling>,
    /// What is predicted for other networks, by bandwidth and number of nodes.
    pub predicted: Vec<PredictedScaling>,
}

/// A link between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFigures {
    /// What a rank sends while it receives as much, in 10^9 bits per second.
    pub gbit_per_second: f64,
    /// Seconds of a message without bytes.
    pub latency_seconds: f64,
}

/// Steps on some ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredScaling {
    /// Number of ranks.
    pub ranks: u64,
    /// Median seconds of a step.
    pub seconds_per_step: f64,
    /// Clips per second of all ranks.
    pub clips_per_second: f64,
    /// Clips per second over those of as many ranks without sums.
    pub efficiency: f64,
    /// Median seconds of a step's sums, with the wait for slower ranks.
    pub sum_seconds: f64,
    /// Those of them after the backward.
    pub exposed_seconds: f64,
    /// Predicted seconds of a step, for the measured link.
    pub predicted_seconds: f64,
}

/// A predicted step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedScaling {
    /// The link, whose figures are given.
    pub link: LinkFigures,
    /// Number of nodes, of one rank each.
    pub nodes: u64,
    /// Seconds of a step.
    pub seconds_per_step: f64,
    /// Clips per second over those of as many nodes without sums.
    pub efficiency: f64,
    /// Seconds of the sums.
    pub sum_seconds: f64,
    /// Those of them after the backward.
    pub exposed_seconds: f64,
}

/// Seconds of the parts of a step.
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
    /// Gradient clipping, and update of weights and moments.
    pub optimizer_seconds: f64,
}
