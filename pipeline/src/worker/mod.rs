//! The processes in which videos are decoded, so that no file can take the program down with it.

pub mod process;
