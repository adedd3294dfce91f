//! The commands, one file each; `dry_run`, `sheet` and `stats_picture` are parts of build, inspect
//! and stats.

pub mod build;
pub mod completions;
pub mod derive;
pub mod dry_run;
pub mod duplicates;
pub mod export;
pub mod index;
pub mod inspect;
pub mod join;
pub mod plan;
pub mod scores;
mod sheet;
pub mod stats;
pub mod stats_picture;
pub mod synth;
pub mod verify;
