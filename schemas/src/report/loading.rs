//! Measurements of a loader.

use serde::{Deserialize, Serialize};

/// Measurements of a loader, since its first batch unless stated otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderFigures {
    /// Number of clips delivered after the first batch.
    pub clips: u64,
    /// Wall time of their delivery in seconds.
    pub seconds: f64,
    /// Clips delivered per second.
    pub clips_per_second: f64,
    /// Frames delivered per second.
    pub frames_per_second: f64,
    /// Stored bytes read from shards per second.
    pub stored_bytes_per_second: f64,
    /// Bytes of frames per second that were decoded from shards or video.
    pub decoded_bytes_per_second: f64,
    /// Wait of the consumer for a batch.
    pub batch_wait_ms: WaitFigures,
    /// Fraction of the wall time that the consumer waited for batches.
    pub stall_fraction: f64,
    /// Mean number of batches that were ready when one was requested.
    pub ready_batches: f64,
    /// Waiting for a clip's bytes from a store, and keeping them.
    #[serde(default)]
    pub fetch: StageFigures,
    /// Reading a clip's bytes: mapping, decompressing, checking the hash.
    pub read: StageFigures,
    /// Decoding them to frames.
    pub decode: StageFigures,
    /// Crop, resize, colour conversion, normalisation, masks.
    pub transform: StageFigures,
    /// Fraction of the threads' time that they waited for a free buffer.
    pub idle_fraction: f64,
    /// The limiting stage.
    pub limit: LoaderLimit,
    /// CPU time of the loader's threads per clip read, in milliseconds, excluding the decoder
    /// processes of live video.
    pub thread_cpu_ms_per_clip: f64,
    /// Seconds from the start to the first batch.
    pub first_batch_seconds: f64,
    /// Number of times that a clip could not be read and was skipped.
    pub skipped: u64,
    /// Traffic with object stores; none where all data is local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreFigures>,
}

/// Traffic with object stores, from the start of the loader on, the first batch included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreFigures {
    /// Number of HTTP requests.
    pub requests: u64,
    /// Number of these that repeated a failed one.
    pub retries: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Clips that were in the cache.
    pub hits: u64,
    /// Clips that were fetched.
    pub misses: u64,
    /// Clips that were fetched again because of a wrong hash.
    pub repeated: u64,
    /// Fraction of the clips that were in the cache.
    pub hit_rate: f64,
    /// Whether the cache had no room for a clip: it keeps what it has, and others are fetched each
    /// time.
    pub is_cache_full: bool,
}

/// Statistics of waits, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitFigures {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

/// Cost of a stage of loading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFigures {
    /// Fraction of the threads' time spent in the stage.
    pub busy_fraction: f64,
    /// Wall time of a thread per clip read, in milliseconds.
    pub ms_per_clip: f64,
}

/// The limit of the loader's throughput.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoaderLimit {
    /// The network, or the store.
    Network,
    /// Reading.
    Read,
    /// Decoding.
    Decode,
    /// Transforming.
    Transform,
    /// The consumer of the batches: the loader could be faster.
    #[default]
    Consumer,
}
