//! Which clips, windows and tokens: every random number is a function of purpose, seed, epoch, clip
//! and repeat, so neither threads nor a resume can change it.
//!
//! - [`order`]: which clip comes when.
//! - [`sample`]: which window, crop and flip it gets.
//! - [`frame_order`]: the order of its frames.
//! - [`mask`]: which tokens stay visible, and which are predicted.

pub mod frame_order;
pub mod mask;
pub mod order;
pub mod sample;
