//! Optimization: AdamW, the learning rate schedule, and layer-wise rates.

mod adamw;
pub mod layer_decay;
mod schedule;

pub use adamw::*;
pub use schedule::Schedule;
