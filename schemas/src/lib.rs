//! What the product writes down, and the geometry that all of it shares.
//!
//! Nothing here reads or writes a file: the crates that do (`pipeline` for shards, `shardtool` for manifests and reports, `trainer`
//! for metrics) take the shapes, names and versions from this one place.

pub mod geometry;
pub mod manifest;
pub mod report;
pub mod shard;
