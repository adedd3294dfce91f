//! The worker's side: tasks in, replies out.

use super::protocol::{Message, read, write};
use crate::panic_message::panic_message;
use crate::video::{self, VideoError};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A worker without another reply reports progress at most this often.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// Bytes of replies that are written at a time.
const REPLY_BYTES: usize = 1 << 16;

/// A worker that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its parent has gone, or does not speak the protocol of this program.
    #[error("cannot speak with the parent process: {0}")]
    Io(#[from] io::Error),
    /// GStreamer is missing.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// A bug in this program.
    #[error("panicked: {0}")]
    Panic(String),
}

/// Why a task ended early.
#[derive(Debug)]
pub enum End<Failure> {
    /// It has failed; the worker goes on with the next task.
    Failed(Failure),
    /// The parent has gone.
    Gone(io::Error),
}

impl<Failure> From<io::Error> for End<Failure> {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// Where a worker's replies go.
#[derive(Debug)]
pub struct Replies<Reply> {
    to: BufWriter<File>,
    last_sent: Instant,
    replies: PhantomData<Reply>,
}

impl<Reply: Serialize> Replies<Reply> {
    /// Sends `reply`.
    ///
    /// # Errors
    /// When the parent has gone.
    pub fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.send_with(reply, [])
    }

    /// Sends `reply`, and after it `parts`, the bytes that it announces.
    ///
    /// # Errors
    /// When the parent has gone.
    pub fn send_with<'a>(
        &mut self,
        reply: &Reply,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        self.message(&Message::<_, ()>::Reply(reply), parts)
    }

    /// Reports progress, so that the worker is not taken to hang. Call it often: a message is sent
    /// only when there was none for 200 ms.
    ///
    /// # Errors
    /// When the parent has gone.
    pub fn alive(&mut self) -> io::Result<()> {
        if self.last_sent.elapsed() < ALIVE_EVERY {
            return Ok(());
        }
        self.message(&Message::<(), ()>::Alive, [])
    }

    fn message<'a>(
        &mut self,
        message: &impl Serialize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        write(&mut self.to, message)?;
        for part in parts {
            self.to.write_all(part)?;
        }
        self.to.flush()?;
        self.last_sent = Instant::now();
        Ok(())
    }
}

/// Makes this process a worker, and does one task after the other until the parent gives no more.
/// A panic of `work` fails its task and ends the worker.
///
/// # Errors
/// When GStreamer is missing, the parent does not speak the protocol of this program, or `work` has
/// panicked.
pub fn serve<Task, Reply, Failure>(
    mut work: impl FnMut(Task, &mut Replies<Reply>) -> Result<(), End<Failure>>,
) -> Result<(), WorkerError>
where
    Task: DeserializeOwned,
    Reply: Serialize,
    Failure: Serialize + From<String>,
{
    let to = BufWriter::with_capacity(REPLY_BYTES, become_worker()?);
    let mut replies = Replies {
        to,
        last_sent: Instant::now(),
        replies: PhantomData,
    };
    video::init()?;
    let mut tasks = io::stdin().lock();
    while let Some(task) = read::<Task>(&mut tasks)? {
        let failure = match catch_unwind(AssertUnwindSafe(|| work(task, &mut replies))) {
            Ok(Ok(())) => continue,
            Ok(Err(End::Gone(error))) => return Err(error.into()),
            Ok(Err(End::Failed(failure))) => failure,
            Err(panic) => {
                let message = panic_message(&*panic);
                let failure = Failure::from(format!("this program has a bug: {message}"));
                replies.message(&Message::<(), _>::Failed(failure), [])?;
                return Err(WorkerError::Panic(message));
            }
        };
        replies.message(&Message::<(), _>::Failed(failure), [])?;
    }
    Ok(())
}

/// Makes this process a worker: it ends with the thread that started it. Returns the standard
/// output, to which nothing but replies is written from now on.
fn become_worker() -> io::Result<File> {
    // A parent that is killed takes its workers along, also those that hang.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // What native code prints must not end up between the replies.
    let replies = File::from(rustix::io::dup(io::stdout())?);
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(replies)
}
