//! What commands print with `--json`, and the lines of `metrics.jsonl`.

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
