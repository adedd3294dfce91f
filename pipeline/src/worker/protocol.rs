//! The messages between a program and its workers: lines of JSON. The bytes that a reply announces
//! follow its line.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};

/// A message of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message<Reply, Failure> {
    /// There is progress.
    Alive,
    /// One of the replies to a task.
    Reply(Reply),
    /// The task has failed; it has no more replies.
    Failed(Failure),
}

/// Writes a message, without flushing.
///
/// # Errors
/// When the other side has gone.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads a message; none when the other side has gone.
///
/// # Errors
/// When the message cannot be parsed or read.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
