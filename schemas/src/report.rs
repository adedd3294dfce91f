//! What commands print with `--json`, and the lines of `metrics.jsonl`.

use crate::manifest::Rejected;
use crate::shard::{ClipMeta, Payload};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// What `shardtool build --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildReport {
    /// Folder of the shards.
    pub out: String,
    /// Videos with at least one clip in the shards.
    pub videos: u64,
    /// Clips in the shards.
    pub clips: u64,
    /// Clips that were left out because frames of them are damaged.
    pub damaged_clips: u64,
    /// Clips whose end repeats the last frame, because their video was too short.
    pub padded_clips: u64,
    /// Shards.
    pub shards: u64,
    /// Bytes of all shards.
    pub stored_bytes: u64,
    /// Bytes of all clips before compression.
    pub decoded_bytes: u64,
    /// Videos that were in the shards already, from an earlier run of the same build.
    pub known_videos: u64,
    /// Videos whose clips are in the shards, and which are no longer where they were.
    pub removed_videos: Vec<String>,
    /// Files that gave no clips, and parts of files that were left out.
    pub rejected: Vec<Rejected>,
    /// Files found in folders that are no video by content nor by name.
    pub not_video: u64,
    /// Videos that the label file does not name (their label is null).
    pub unlabelled: u64,
    /// Classes found.
    pub classes: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// What `shardtool build --dry-run --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRunReport {
    /// Folder that a build would write.
    pub out: String,
    /// Videos that would be decoded.
    pub videos: u64,
    /// Seconds of video in them.
    pub video_seconds: f64,
    /// Clips that they would give.
    pub clips: u64,
    /// Bytes of these clips before compression: the most that the shards can take, but for a small overhead.
    pub decoded_bytes: u64,
    /// Bytes that the shards should take: [`DryRunReport::decoded_bytes`] by the usual ratio of the chosen payload and level.
    pub estimated_bytes: u64,
    /// Bytes free where the shards would go.
    pub free_bytes: u64,
    /// Files that looked like video but cannot be opened.
    pub rejected: Vec<Rejected>,
    /// Files found in folders that are no video by content nor by name.
    pub not_video: u64,
}

/// What `shardtool synth --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthReport {
    /// Folder that was written.
    pub dir: String,
    /// Videos written.
    pub videos: u64,
    /// Class names, one folder each.
    pub classes: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
}

/// What `shardtool verify --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Whether every clip was also read with Parquet's own reader, and decoded.
    pub deep: bool,
    /// Shards that the manifest names.
    pub shards: u64,
    /// Clips that were read.
    pub clips: u64,
    /// Bytes that the manifest's shards have.
    pub bytes: u64,
    /// All that is wrong.
    pub problems: Vec<Problem>,
    /// Wall time.
    pub seconds: f64,
}

/// One thing that is wrong with a folder of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Name of the file inside the folder.
    pub file: String,
    /// Row of the shard, from 0, when it is about one clip.
    pub row: Option<u64>,
    /// Number of this clip among all clips of the build, as the manifest counts them.
    pub clip: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What `shardtool inspect --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Clips in the shards.
    pub all_clips: u64,
    /// The chosen ones.
    pub clips: Vec<InspectedClip>,
    /// The contact sheet, if one was drawn.
    pub sheet: Option<String>,
}

/// All that is known of one clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectedClip {
    /// Number among all clips of the build, from 0.
    pub clip: u64,
    /// Name of the shard inside the folder.
    pub shard: String,
    /// Row of the shard, from 0.
    pub row: u64,
    /// Bytes that its pixels take in the shard.
    pub stored_bytes: u64,
    /// Bytes of its frames as I420.
    pub decoded_bytes: u64,
    /// What its row says.
    pub meta: ClipMeta,
}

/// What `shardtool stats --json` prints. Counts are of clips, unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsReport {
    /// Folder of the shards.
    pub dir: String,
    /// Whether the build has come to its end.
    pub finished: bool,
    /// Clips.
    pub clips: u64,
    /// Videos with at least one clip.
    pub videos: u64,
    /// Hours of footage that the clips span.
    pub hours: f64,
    /// Shards.
    pub shards: u64,
    /// How frames are stored.
    pub payload: Payload,
    /// Bytes of all shards.
    pub stored_bytes: u64,
    /// Bytes of all clips as I420.
    pub decoded_bytes: u64,
    /// Stored over decoded bytes; 0 without clips.
    pub ratio: f64,
    /// Bytes that the pixels of a clip take in its shard.
    pub clip_bytes: Spread,
    /// Clips of each class; a label without a name is called by its number.
    pub classes: BTreeMap<String, u64>,
    /// Clips without a label.
    pub unlabelled: u64,
    /// Clips of each stored size, `WIDTHxHEIGHT`.
    pub resolutions: BTreeMap<String, u64>,
    /// Clips of each codec of the source.
    pub codecs: BTreeMap<String, u64>,
    /// Clips of each pixel format of the source.
    pub pixel_formats: BTreeMap<String, u64>,
    /// Clips of each range of the samples.
    pub color_ranges: BTreeMap<String, u64>,
    /// Clips of each matrix of the samples.
    pub color_matrices: BTreeMap<String, u64>,
    /// Clips whose end repeats the last frame, because their video was too short.
    pub repeated: u64,
    /// Clips of interlaced sources.
    pub deinterlaced: u64,
    /// Clips that were turned by 90, 180 or 270 degrees.
    pub rotated: u64,
    /// Clips that were mirrored.
    pub mirrored: u64,
}

/// How a number is spread over the clips; all 0 without clips.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// The one in the middle; of an even number, the upper one.
    pub median: u64,
    /// The mean.
    pub mean: f64,
    /// At least 95 in 100 are not greater.
    pub p95: u64,
    /// The greatest.
    pub max: u64,
}

/// What `shardtool export --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportReport {
    /// File or folder that was written.
    pub out: String,
    /// Number of the clip.
    pub clip: u64,
    /// Frames written.
    pub frames: u64,
    /// Width of a frame in pixels; a video's is even.
    pub width: u64,
    /// Height of a frame in pixels; a video's is even.
    pub height: u64,
    /// Frames a second of a video; none for pictures.
    pub fps: Option<f64>,
}

/// What a loader has measured of itself, since its first batch where it says nothing else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderFigures {
    /// Clips handed out after the first batch.
    pub clips: u64,
    /// Wall time in which they were.
    pub seconds: f64,
    /// Clips handed out a second.
    pub clips_per_second: f64,
    /// Frames of them a second.
    pub frames_per_second: f64,
    /// Bytes read from shards a second, as they are stored.
    pub stored_bytes_per_second: f64,
    /// Bytes of frames a second that were made of them, or decoded from video.
    pub decoded_bytes_per_second: f64,
    /// How long the user waited for a batch.
    pub batch_wait_ms: WaitFigures,
    /// Share of the wall time that the user waited for batches.
    pub stall_fraction: f64,
    /// Batches that were ready when one was asked for, on average.
    pub ready_batches: f64,
    /// Getting a clip's bytes: mapping, decompressing, comparing with the hash.
    pub read: StageFigures,
    /// Making frames of them.
    pub decode: StageFigures,
    /// Crop, resize, colour, normalisation, masks.
    pub transform: StageFigures,
    /// Share of the threads' time that they waited for room to fill.
    pub idle_fraction: f64,
    /// What limits.
    pub limit: LoaderLimit,
    /// Processor time of the loader's threads for each clip that was read, in milliseconds. Decoders of live video are processes of their own and not in it.
    pub thread_cpu_ms_per_clip: f64,
    /// From the start to the first batch.
    pub first_batch_seconds: f64,
    /// Clips that could not be read and were left out, each time that they were.
    pub skipped: u64,
}

/// How long waits took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitFigures {
    /// Half of them were not longer.
    pub p50: f64,
    /// 99 in 100 were not longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What a stage of loading costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFigures {
    /// Share of the threads' time that was spent in it.
    pub busy_fraction: f64,
    /// Wall time of a thread for each clip that was read, in milliseconds.
    pub ms_per_clip: f64,
}

/// What limits how many clips a second are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoaderLimit {
    /// Reading.
    Read,
    /// Decoding.
    Decode,
    /// Transforming.
    Transform,
    /// Who uses the batches: loading could go faster.
    #[default]
    Consumer,
}

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
