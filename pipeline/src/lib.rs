//! Video to clips, clips to shards, shards to training batches.
//!
//! The rooms, in the order in which data flows:
//! - [`video`]: GStreamer. Finds videos, decodes a file to I420 frames with their times, samples
//!   clips from them, encodes test material. [`worker`]: the processes in which that is done.
//! - [`frames`]: decoded frames in memory.
//! - [`shard`]: the Parquet format, writer and reader side by side.
//! - [`live`]: clips straight from videos, without shards.
//! - [`source`]: where clips come from, shards or videos.
//! - [`sampling`]: which clip comes when, which window, crop and flip it gets, and its mask.
//! - [`transform`]: frames to a normalised, cropped training clip, or to the patches of it that are
//!   used.
//! - [`loader`]: worker threads that put all of it together, as an iterator of `Result<Batch>`;
//!   [`stats`]: what it counts.

pub mod atomic_file;
pub mod frames;
pub mod live;
pub mod loader;
pub mod sampling;
pub mod shard;
pub mod source;
pub mod stats;
pub mod transform;
pub mod video;
pub mod worker;

/// Number of cores that this process may use.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
