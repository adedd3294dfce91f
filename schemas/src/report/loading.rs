//! What a loader has measured of itself.

use serde::{Deserialize, Serialize};

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
