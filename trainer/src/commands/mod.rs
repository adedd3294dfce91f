//! One file a command, from its arguments to what it prints.
//!
//! `session` is what every training has around its loop, `sources` opens what `--data` names, and
//! `inference` is what the commands share that read clips with a trained model.

pub mod bench;
pub mod curves;
pub mod embed;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod import;
mod inference;
mod probe;
pub mod run;
mod session;
mod sources;
pub mod study;
pub mod together;
pub mod visualise;
