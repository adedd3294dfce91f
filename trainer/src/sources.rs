//! From what the user names to sources of clips.

use crate::cli::DataArg;
use pipeline::shard::ShardSet;
use pipeline::source::{Source, WeightedSource};
use std::sync::Arc;

/// Opens all data sets.
///
/// # Errors
/// When one of them is none.
pub fn open(data: &[DataArg]) -> anyhow::Result<Arc<[WeightedSource]>> {
    data.iter()
        .map(|DataArg { path, weight }| Ok(WeightedSource { source: Source::Shards(ShardSet::open(path)?), weight: *weight }))
        .collect()
}

/// Clips in all of them.
pub fn clips(sources: &[WeightedSource]) -> u64 {
    sources.iter().map(|set| set.source.len() as u64).sum()
}
