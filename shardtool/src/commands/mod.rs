//! The commands, a file each.

pub mod build;
pub mod synth;
