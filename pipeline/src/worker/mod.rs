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

use std::any::Any;

pub use child::{End, Replies, WorkerError, serve};
pub use supervisor::{Ending, Reported, StartError, Supervisor, WorkerProgram};

/// The message of a panic that was caught; empty if it has none.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let literal = panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned());
    literal
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn panics_have_their_message() {
        let literal = catch_unwind(|| panic!("plain")).expect_err("it panics");
        assert_eq!(panic_message(&*literal), "plain");
        let formatted = catch_unwind(|| panic!("{} of {}", 1, 2)).expect_err("it panics");
        assert_eq!(panic_message(&*formatted), "1 of 2");
        let other = catch_unwind(|| std::panic::panic_any(7)).expect_err("it panics");
        assert_eq!(panic_message(&*other), "");
    }
}
