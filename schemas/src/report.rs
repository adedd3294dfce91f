//! The reports that commands print with `--json`, and the lines of `metrics.jsonl`.
//!
//! - `shards`: `shardtool`.
//! - `training`: training runs.
//! - `measuring`: benchmarks.
//! - `using`: evaluation, features and conversion of weights.
//! - `studies`: studies.
//! - `loading`: the loader's measurements, part of several reports.

mod loading;
mod measuring;
mod shards;
mod studies;
mod training;
mod using;

pub use loading::*;
pub use measuring::*;
pub use shards::*;
pub use studies::*;
pub use training::*;
pub use using::*;
