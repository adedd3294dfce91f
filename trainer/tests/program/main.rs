//! The program `trainer`, command by command.

mod classify;
mod cli;
mod safety;
mod study;
mod visualise;
