//! Worker processes, in which videos are decoded: a decoder is native code, and a file that makes
//! it crash or hang must not take the program down with it.
//!
//! The program's side is a [`Supervisor`]: it starts a worker, sends it one task at a time, and
//! replaces a worker that has crashed or makes no progress. The worker's side is [`serve`]. What
//! the tasks and replies are is up to the two users, [`crate::live`] and `shardtool build`.

mod child;
pub mod path_bytes;
mod protocol;
mod supervisor;

pub use child::{End, Replies, WorkerError, serve};
pub use supervisor::{Ending, Reported, StartError, Supervisor, WorkerProgram};
