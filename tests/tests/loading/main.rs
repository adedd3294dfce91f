//! From shards, or live video, to batches.

mod live;
mod live_batches;
mod loader;
mod payloads;
mod shards;
mod single_pass;
mod transform;
mod windows;
