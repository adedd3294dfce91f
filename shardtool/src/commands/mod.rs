//! The commands, a file each.

pub mod build;
pub mod dry_run;
pub mod synth;
