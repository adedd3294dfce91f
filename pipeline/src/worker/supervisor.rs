//! The program's side: a worker that crashes, or makes no progress, is replaced, and the task that
//! it had is reported as lost.

use super::protocol::{Message, read, write};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time that a worker has beyond the decoder's own deadline, whose message is the better one.
const GRACE: Duration = Duration::from_secs(1);

/// How often a wait for a worker checks whether to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long a worker that has closed its output may take to exit.
const DYING: Duration = Duration::from_secs(1);

/// Bytes of replies that are read at a time; longer ones are read straight into their place.
const REPLY_BYTES: usize = 1 << 15;

/// Bytes by which a worker can be ahead of its reader, where the system allows it.
const PIPE_BYTES: usize = 1 << 20;

/// The program to start as a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerProgram {
    /// The program's file.
    pub path: PathBuf,
    /// Its only argument, which makes it a worker.
    pub argument: String,
}

/// No worker process can be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a worker process, {}: {source}", program.display())]
pub struct StartError {
    /// The program's file.
    pub program: PathBuf,
    /// Why it cannot be started.
    pub source: io::Error,
}

/// Whether a task has more replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// More are to come.
    More,
    /// This was the last one.
    Done,
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending<Failure> {
    /// With its last reply.
    Done,
    /// The worker has failed to do it.
    Failed(Failure),
    /// The worker died or was killed; the reason.
    Lost(String),
    /// The supervisor was stopped.
    Stopped,
}

/// Owns one worker process at a time: it starts one when there is a task, and another one after
/// that was lost. A worker ends with the thread that started it.
#[derive(Debug)]
pub struct Supervisor {
    program: WorkerProgram,
    timeout: Duration,
    stop: Arc<AtomicBool>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    tasks: ChildStdin,
    replies: BufReader<ReplyPipe>,
}

/// A worker's standard output, with a deadline that every byte renews.
#[derive(Debug)]
struct ReplyPipe {
    pipe: ChildStdout,
    timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl Read for ReplyPipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.timeout;
        let every = Timespec {
            tv_sec: 0,
            tv_nsec: POLL_EVERY.as_nanos() as _,
        };
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&every)) {
                Ok(0) if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Supervisor {
    /// A supervisor of workers of `program` that may make no progress for `timeout`. Once `stop` is
    /// set, it waits no longer.
    pub fn new(program: WorkerProgram, timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        Self {
            program,
            timeout,
            stop,
            process: None,
        }
    }

    /// Sends a worker `task`, and hands each reply to `take`, with the reader of the bytes that
    /// follow it, until `take` returns [`Reported::Done`] or the task fails.
    ///
    /// # Errors
    /// When no worker can be started.
    pub fn run<Task: Serialize, Reply: DeserializeOwned, Failure: DeserializeOwned>(
        &mut self,
        task: &Task,
        mut take: impl FnMut(Reply, &mut dyn BufRead) -> io::Result<Reported>,
    ) -> Result<Ending<Failure>, StartError> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self
                .process
                .insert(Process::start(&self.program, self.timeout, &self.stop)?),
        };
        let lost = match process.converse(task, &mut take) {
            Ok(Some(Ok(()))) => return Ok(Ending::Done),
            Ok(Some(Err(failure))) => {
                // A decoder that has failed may have left anything behind: the next task gets a new
                // one.
                self.end(Duration::ZERO);
                return Ok(Ending::Failed(failure));
            }
            Ok(None) => death(self.end(DYING)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
                ) =>
            {
                death(self.end(DYING))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                format!(
                    "no progress within {} s: its decoder was killed",
                    self.timeout.as_secs_f64()
                )
            }
            Err(error) => format!("its decoder sent an invalid reply: {error}"),
        };
        self.end(Duration::ZERO);
        Ok(if self.stop.load(Ordering::SeqCst) {
            Ending::Stopped
        } else {
            Ending::Lost(lost)
        })
    }

    /// Whether its workers are of `program` and have this `timeout`.
    pub fn serves(&self, program: &WorkerProgram, timeout: Duration) -> bool {
        self.program == *program && self.timeout == timeout
    }

    /// Process id of the worker, if there is one.
    pub fn worker_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Ends the worker, if there is one, after it had `patience` to end by itself.
    fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                let _ = process.child.kill();
                return process.child.wait().ok();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Process {
    fn start(
        program: &WorkerProgram,
        timeout: Duration,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError {
            program: program.path.clone(),
            source,
        };
        let mut child = Command::new(&program.path)
            .arg(&program.argument)
            // Ctrl-C is for the program, which then ends its workers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let tasks = child.stdin.take().expect("standard input is piped");
        let pipe = child.stdout.take().expect("standard output is piped");
        // A worker that may be further ahead waits less. Where the system refuses, the usual size
        // will do.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        let replies = ReplyPipe {
            pipe,
            timeout: timeout + GRACE,
            stop: Arc::clone(stop),
        };
        Ok(Self {
            child,
            tasks,
            replies: BufReader::with_capacity(REPLY_BYTES, replies),
        })
    }

    /// The result of the task; none when the worker has closed its output before.
    fn converse<Reply: DeserializeOwned, Failure: DeserializeOwned>(
        &mut self,
        task: &impl Serialize,
        take: &mut impl FnMut(Reply, &mut dyn BufRead) -> io::Result<Reported>,
    ) -> io::Result<Option<Result<(), Failure>>> {
        write(&mut self.tasks, task)?;
        while let Some(message) = read(&mut self.replies)? {
            match message {
                Message::Alive => {}
                Message::Reply(reply) => {
                    if take(reply, &mut self.replies)? == Reported::Done {
                        return Ok(Some(Ok(())));
                    }
                }
                Message::Failed(failure) => return Ok(Some(Err(failure))),
            }
        }
        Ok(None)
    }
}

/// Describes how a worker that had a task has ended.
fn death(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("its decoder crashed (signal {signal})"),
        Some((_, Some(code))) => format!("its decoder ended by itself (exit code {code})"),
        _ => "its decoder is gone".to_owned(),
    }
}
