//! One training step's update: AdamW, the learning rate's schedule, and rates by layer.

mod adamw;
pub mod layer_decay;
mod schedule;

pub use adamw::*;
pub use schedule::Schedule;
