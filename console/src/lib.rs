//! The terminal side that `shardtool` and `trainer` share.
//!
//! - [`output`]: results on standard output, messages on standard error.
//! - [`progress`]: a bar on a terminal, lines elsewhere.
//! - [`interrupt`]: stops on Ctrl-C.
//! - [`choose`]: the arguments that choose clips.
//! - [`exit`]: from the command line to the exit code.

pub mod choose;
pub mod exit;
pub mod interrupt;
pub mod output;
pub mod progress;
