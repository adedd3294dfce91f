//! Worker processes under supervision: one that crashes, or makes no progress, is replaced, and its video named.

use crate::protocol::{Reply, Task, receive, send};
use crate::stop;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a worker has beyond the decoder's own deadline, which gives the better message.
const GRACE: Duration = Duration::from_secs(1);

/// How long one wait lasts before it is seen whether the build is to stop.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How long a worker that has closed its output may take to end.
const DYING: Duration = Duration::from_secs(1);

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
    /// The build is to stop.
    Stopped,
}

/// A place for one worker process at a time: it is started when there is a task, and again after it was lost.
pub struct Supervisor {
    timeout: Duration,
    process: Option<Process>,
}

struct Process {
    child: Child,
    tasks: ChildStdin,
    replies: BufReader<Replies>,
}

/// A worker's standard output, with a deadline that every byte renews.
struct Replies {
    pipe: ChildStdout,
    timeout: Duration,
}

impl Read for Replies {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.timeout;
        let every = Timespec { tv_sec: 0, tv_nsec: POLL_EVERY.as_nanos() as _ };
        loop {
            if stop::requested() {
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
    /// A supervisor whose workers may make no progress for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, process: None }
    }

    /// Gives a worker `task` and hands each reply to `take`, with the reader of the bytes that follow it, until `take` says that it was the
    /// last.
    ///
    /// # Errors
    /// When no worker can be started.
    pub fn run(&mut self, task: &Task, mut take: impl FnMut(Reply, &mut dyn BufRead) -> io::Result<Reported>) -> anyhow::Result<Ending> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self.process.insert(Process::start(self.timeout)?),
        };
        let lost = match process.converse(task, &mut take) {
            Ok(Reported::Done) => return Ok(Ending::Whole),
            // Of a decoder that has failed, who knows what is left behind: the next video gets a new one.
            Ok(Reported::Failed) => {
                self.end(Duration::ZERO);
                return Ok(Ending::Whole);
            }
            Ok(Reported::Nothing) => death(self.end(DYING)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => death(self.end(DYING)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                format!("no progress within {} s: its decoder was killed", self.timeout.as_secs_f64())
            }
            Err(error) => format!("its decoder said what cannot be understood: {error}"),
        };
        self.end(Duration::ZERO);
        Ok(if stop::requested() { Ending::Stopped } else { Ending::Lost(lost) })
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
    fn start(timeout: Duration) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg(crate::cli::WORKER)
            // Ctrl-C is for the build, which then ends its workers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a worker process")?;
        let tasks = child.stdin.take().context("a worker without standard input")?;
        let pipe = child.stdout.take().context("a worker without standard output")?;
        let replies = BufReader::with_capacity(1 << 18, Replies { pipe, timeout: timeout + GRACE });
        Ok(Self { child, tasks, replies })
    }

    /// How far the task came: [`Reported::Nothing`] when the worker has gone before its end.
    fn converse(&mut self, task: &Task, take: &mut impl FnMut(Reply, &mut dyn BufRead) -> io::Result<Reported>) -> io::Result<Reported> {
        send(&mut self.tasks, task)?;
        while let Some(reply) = receive::<Reply>(&mut self.replies)? {
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
