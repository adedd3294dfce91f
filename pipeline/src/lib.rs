//! Video to clips, clips to shards, shards to training batches.
//!
//! The rooms, in the order in which data flows:
//! - [`discover`](mod@discover): which files are videos. [`process`](mod@process): the processes in which they are decoded.
//! - [`video`]: GStreamer. Decodes a file to I420 frames with their times, samples clips from them, encodes test material.
//! - [`payload`]: decoded [`frames`] to the bytes that are stored, and back.
//! - [`shard`]: the Parquet format, writer and reader side by side.
//! - [`live`]: clips straight from videos, without shards.
//! - [`source`]: where clips come from.
//! - [`order`]: which clip comes when; [`sample`]: which window, crop and flip it gets; [`mask`]: which tokens stay visible, and which are predicted.
//! - [`augment`](mod@augment): what fine-tuning does to a training clip besides: RandAugment and random erasing.
//! - [`resample`]: a crop, resized; [`transform`](mod@transform): frames to a normalised, cropped training clip, or to the patches of it that are used;
//!   [`hog`]: histograms of oriented gradients, a target in place of pixels.
//! - [`picture`]: a stored frame as RGB, to look at.
//! - [`batch`]: what a batch holds; [`buffers`]: memory for batches, used again and again.
//! - [`loader`]: worker threads that put all of it together, as an iterator of `Result<Batch>`; [`stats`]: what it counts.

pub mod atomic_file;
pub mod augment;
pub mod batch;
pub mod buffers;
pub mod discover;
pub mod frames;
pub mod hog;
pub mod live;
pub mod loader;
pub mod mask;
pub mod order;
pub mod payload;
pub mod picture;
pub mod process;
pub mod resample;
pub mod sample;
pub mod shard;
pub mod source;
pub mod stats;
pub mod transform;
pub mod video;
