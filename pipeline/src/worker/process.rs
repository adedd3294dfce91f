//! Worker processes under supervision: one that crashes, or makes no progress, is replaced, and what it was doing is named.
//!
//! Native code that eats whatever lies in a folder runs in them. The two sides speak in JSON lines, and after some of these come the bytes that
//! the line announces; which lines there are is the caller's.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a worker has beyond the decoder's own deadline, which gives the better message.
const GRACE: Duration = Duration::from_secs(1);

/// How long one wait lasts before it is seen whether all is to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long a worker that has closed its output may take to end.
const DYING: Duration = Duration::from_secs(1);

/// Bytes of replies that are read at a time; what is longer goes straight to where it belongs.
const REPLY_BYTES: usize = 1 << 15;

/// Bytes that a worker can be ahead of its reader, where the system allows it.
const PIPE_BYTES: usize = 1 << 20;

/// What to start as a worker.
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
    /// Which program.
    pub program: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// What a reply means for its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// More is to come.
    Nothing,
    /// It is done.
    Done,
    /// It has failed.
    Failed,
}

/// How the replies to a task ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its last reply.
    Whole,
    /// The worker died or was killed; why.
    Lost(String),
    /// All is to stop.
    Stopped,
}

/// A place for one worker process at a time: it is started when there is a task, and again after it was lost. A worker ends with the thread that
/// started it.
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
    replies: BufReader<Replies>,
}

/// A worker's standard output, with a deadline that every byte renews.
#[derive(Debug)]
struct Replies {
    pipe: ChildStdout,
    timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl Read for Replies {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.timeout;
        let every = Timespec { tv_sec: 0, tv_nsec: POLL_EVERY.as_nanos() as _ };
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
    /// A supervisor whose workers, of `program`, may make no progress for `timeout`, and are waited for until `stop` is set.
    pub fn new(program: WorkerProgram, timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { program, timeout, stop, process: None }
    }

    /// Gives a worker `task` and hands each reply to `take`, with the reader of the bytes that follow it, until `take` says that it was the
    /// last.
    ///
    /// # Errors
    /// When no worker can be started.
    pub fn run<T: Serialize, R: DeserializeOwned>(
        &mut self,
        task: &T,
        mut take: impl FnMut(R, &mut dyn BufRead) -> io::Result<Reported>,
    ) -> Result<Ending, StartError> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self.process.insert(Process::start(&self.program, self.timeout, &self.stop)?),
        };
        let lost = match process.converse(task, &mut take) {
            Ok(Reported::Done) => return Ok(Ending::Whole),
            // Of a decoder that has failed, who knows what is left behind: the next task gets a new one.
            Ok(Reported::Failed) => {
                self.end(Duration::ZERO);
                return Ok(Ending::Whole);
            }
            Ok(Reported::Nothing) => death(self.end(DYING)),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => death(self.end(DYING)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                format!("no progress within {} s: its decoder was killed", self.timeout.as_secs_f64())
            }
            Err(error) => format!("its decoder said what cannot be understood: {error}"),
        };
        self.end(Duration::ZERO);
        Ok(if self.stop.load(Ordering::SeqCst) { Ending::Stopped } else { Ending::Lost(lost) })
    }

    /// Whether this one is for such workers.
    pub fn serves(&self, program: &WorkerProgram, timeout: Duration) -> bool {
        self.program == *program && self.timeout == timeout
    }

    /// Process id of the worker, where there is one.
    pub fn worker_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Ends the worker, if there is one, after it had so much time to end by itself.
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
    fn start(program: &WorkerProgram, timeout: Duration, stop: &Arc<AtomicBool>) -> Result<Self, StartError> {
        let failed = |source| StartError { program: program.path.clone(), source };
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
        // A worker that is further ahead waits less. Where the system refuses, the usual size does.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        let replies = Replies { pipe, timeout: timeout + GRACE, stop: Arc::clone(stop) };
        Ok(Self { child, tasks, replies: BufReader::with_capacity(REPLY_BYTES, replies) })
    }

    /// How far the task came: [`Reported::Nothing`] when the worker has gone before its end.
    fn converse<R: DeserializeOwned>(
        &mut self,
        task: &impl Serialize,
        take: &mut impl FnMut(R, &mut dyn BufRead) -> io::Result<Reported>,
    ) -> io::Result<Reported> {
        send(&mut self.tasks, task)?;
        while let Some(reply) = receive(&mut self.replies)? {
            let reported = take(reply, &mut self.replies)?;
            if reported != Reported::Nothing {
                return Ok(reported);
            }
        }
        Ok(Reported::Nothing)
    }
}

fn death(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("its decoder crashed (signal {signal})"),
        Some((_, Some(code))) => format!("its decoder ended by itself (exit code {code})"),
        _ => "its decoder is gone".to_owned(),
    }
}

/// Makes this process a worker: it ends with the thread that started it. Returns where its replies go: the standard output, to which nothing
/// else is printed from now on.
///
/// # Errors
/// When the system refuses.
pub fn become_worker() -> io::Result<File> {
    // A parent that is killed takes its workers along, also those that hang.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // What native code prints must not end up between our messages.
    let replies = File::from(rustix::io::dup(io::stdout())?);
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(replies)
}

/// Writes a message.
///
/// # Errors
/// When the other side has gone.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a message; none when the other side has gone.
///
/// # Errors
/// When it is none of ours, or cannot be read.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
