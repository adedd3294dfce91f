//! Video to clips, clips to shards, shards to training batches.
//!
//! ```
//! use pipeline::loader::batch::Pixels;
//! use pipeline::loader::{Loader, LoaderOptions};
//! use pipeline::sampling::mask::{MaskKind, MaskRule};
//! use pipeline::source::{Source, WeightedSource};
//! use schemas::geometry::PatchGrid;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! // In place of `ShardSet::open(dir)`, where `shardtool build` has written shards.
//! let shards = pipeline::shard::synthetic::write(dir.path(), 20)?;
//! let source = WeightedSource::from(Source::Shards(shards));
//!
//! let grid = PatchGrid { frames: 8, size: 32, tubelet: 2, patch: 8 };
//! let mask = MaskRule::new(MaskKind::Random, 0.9);
//! let loader = Loader::new([source].into(), LoaderOptions::new(4, grid, mask))?;
//! for batch in loader.take(10) {
//!     let batch = batch?;
//!     // f32, normalised, `[clips, 3, frames, size, size]`.
//!     let Pixels::Clips(bytes) = batch.pixels() else { unreachable!("the default form") };
//!     assert_eq!(bytes.len(), 4 * 3 * 8 * 32 * 32 * size_of::<f32>());
//!     assert_eq!(batch.masks().visible(), 6, "of 64 tokens");
//! }
//! # Ok(()) }
//! ```
//!
//! The rooms, in the order in which data flows:
//! - [`video`]: GStreamer. Finds videos, decodes a file to I420 frames with their times, samples
//!   clips from them, encodes test material. [`worker`]: the processes in which that is done.
//! - [`frames`]: decoded frames in memory.
//! - [`shard`]: the Parquet format, writer and reader side by side.
//! - [`choice`]: which clips of shards are used, by their columns; [`table`]: tables in files.
//! - [`live`]: clips straight from videos, without shards.
//! - [`source`]: where clips come from, shards or videos.
//! - [`sampling`]: which clip comes when, which window, crop and flip it gets, and its mask.
//! - [`transform`]: frames to a normalised, cropped training clip, or to the patches of it that are
//!   used.
//! - [`loader`]: worker threads that put all of it together, as an iterator of `Result<Batch>`;
//!   [`stats`]: its counters.
//! - [`simd`]: which vector instructions are used.
//!
//! Without the feature `video`, which is on by default, the crate does without GStreamer: it reads
//! shards of all payloads but H.264, and has neither `worker` nor live videos.

pub mod atomic_file;
pub mod choice;
mod cores;
pub mod frames;
#[cfg(feature = "video")]
pub mod live;
pub mod loader;
mod panic_message;
pub mod sampling;
pub mod shard;
pub mod simd;
pub mod source;
pub mod stats;
pub mod store;
pub mod table;
pub mod transform;
#[cfg(feature = "video")]
pub mod video;
#[cfg(not(feature = "video"))]
mod without_video;
#[cfg(feature = "video")]
pub mod worker;

pub use cores::{all_cores, physical_cores};
#[cfg(not(feature = "video"))]
pub use without_video::{live, video};
