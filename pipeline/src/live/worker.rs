//! The worker process: decodes windows of one video at a time and sends their frames.

use super::protocol::{Effort, Failure, Reply, Task};
use crate::video::clips::{Clip, ClipDecoder, Step};
use crate::video::decode::DecodeOptions;
use crate::video::fast_seek::{Doubt, FastSeek, SeekPlan, WantedTicks};
use crate::video::{self, Content, VideoError};
use crate::worker::process::{become_worker, receive, send};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a worker says that there is progress, at most.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// How many entries are remembered to need another way than the shortest.
const MOST_WAYS: usize = 10_000;

/// A worker that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its parent has gone, or does not speak as this program does.
    #[error("cannot speak with the parent process: {0}")]
    Io(#[from] io::Error),
    /// GStreamer is missing.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// A bug of ours.
    #[error("panicked: {0}")]
    Panic(String),
}

/// Works until nobody gives a task any more: the whole life of a process that a [`super::LiveReader`] starts.
///
/// # Errors
/// When GStreamer is missing, or the other side does not speak as this program does.
pub fn run() -> Result<(), WorkerError> {
    let replies = become_worker()?;
    video::init()?;
    let mut worker = Worker { replies, last_sign: Instant::now(), ways: HashMap::new() };
    let mut tasks = io::stdin().lock();
    while let Some(task) = receive::<Task>(&mut tasks)? {
        worker.work(task)?;
    }
    Ok(())
}

struct Worker {
    replies: File,
    last_sign: Instant,
    /// Entries of videos from which the shortest way gave reason for doubt.
    ways: HashMap<(PathBuf, i64), Way>,
}

/// How windows are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a shortcut that leaves out all that it can.
    Short,
    /// By one that leaves out less near wanted frames.
    Slack,
    /// From the start, whole.
    Long,
}

/// Why a task ended early.
enum End {
    /// The video's fault.
    Failed(Failure),
    /// The parent has gone.
    Gone(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<VideoError> for End {
    fn from(error: VideoError) -> Self {
        Self::Failed(match error {
            VideoError::Setup { .. } => Failure::Setup(error.to_string()),
            error => Failure::Undecodable(error.to_string()),
        })
    }
}

/// What is to be decoded.
struct Wanted<'a> {
    path: &'a Path,
    options: &'a BuildOptions,
    starts: &'a [u64],
    ticks: u64,
    size: FrameSize,
    decode: DecodeOptions,
}

/// Decoded windows, or why there are none.
type Decoded = Result<(ClipDecoder, Vec<Clip>), End>;

impl Worker {
    fn work(&mut self, task: Task) -> Result<(), WorkerError> {
        self.last_sign = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Probe { path, options, timeout } => {
                self.probe(&PathBuf::from(OsString::from_vec(path)), &options, decode_options(timeout))
            }
            Task::Windows { path, options, starts, ticks, start_ns, size, shortcut, timeout } => {
                let path = PathBuf::from(OsString::from_vec(path));
                let (options, starts) = (&options, starts.as_slice());
                let wanted = Wanted { path: &path, options, starts, ticks, size, decode: decode_options(timeout) };
                self.windows(&wanted, shortcut.and_then(|(route, entry_ns)| wanted.shortcut(route, entry_ns, start_ns)))
            }
        }));
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(End::Failed(failure))) => Ok(send(&mut self.replies, &Reply::Failed(failure))?),
            Ok(Err(End::Gone(error))) => Err(error.into()),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let failure = Failure::Undecodable(format!("this program has a bug: {text}"));
                send(&mut self.replies, &Reply::Failed(failure))?;
                Err(WorkerError::Panic(text))
            }
        }
    }

    /// Says now and then that there is progress.
    fn alive(&mut self) -> io::Result<()> {
        if self.last_sign.elapsed() < ALIVE_EVERY {
            return Ok(());
        }
        self.last_sign = Instant::now();
        send(&mut self.replies, &Reply::Alive)
    }

    fn probe(&mut self, path: &Path, options: &BuildOptions, decode: DecodeOptions) -> Result<(), End> {
        let probe = video::probe(path, options, decode.timeout)?;
        let route = match video::sniff(path) {
            // Not every packet of an interlaced stream says so; its first frame does.
            Ok(Content::Video(media)) if !probe.deinterlaced => SeekPlan::of(&media, &probe),
            _ => None,
        };
        Ok(send(&mut self.replies, &Reply::Probed { route, probe })?)
    }

    fn windows(&mut self, wanted: &Wanted, shortcut: Option<FastSeek>) -> Result<(), End> {
        if let Some(mut shortcut) = shortcut {
            let place = (wanted.path.to_owned(), shortcut.entry_ns);
            let mut way = self.ways.get(&place).copied().unwrap_or(Way::Short);
            while way != Way::Long {
                shortcut.wanted.slack = if way == Way::Short { 0 } else { shortcut.wanted.fps.ceil() as u64 };
                let doubt = match self.decode(wanted, Some(&shortcut)) {
                    Ok((decoder, clips)) => match decoder.doubt() {
                        None if wanted.fault(&decoder, &clips).is_none() => return self.send(&decoder, clips, Some(&shortcut)),
                        doubt => doubt,
                    },
                    Err(End::Gone(error)) => return Err(End::Gone(error)),
                    // Whatever it was, the long way says what it means.
                    Err(End::Failed(_)) => Some(Doubt::Unusual),
                };
                way = if (way, doubt) == (Way::Short, Some(Doubt::LeftOut)) { Way::Slack } else { Way::Long };
                if self.ways.len() == MOST_WAYS {
                    self.ways.clear();
                }
                self.ways.insert(place.clone(), way);
            }
        }
        let (decoder, clips) = self.decode(wanted, None)?;
        match wanted.fault(&decoder, &clips) {
            Some(fault) => Err(End::Failed(fault)),
            None => self.send(&decoder, clips, None),
        }
    }

    fn decode(&mut self, wanted: &Wanted, shortcut: Option<&FastSeek>) -> Decoded {
        let mut decoder = ClipDecoder::open_at(wanted.path, wanted.options, wanted.decode, wanted.starts, shortcut)?;
        let mut clips = Vec::with_capacity(wanted.starts.len());
        loop {
            self.alive()?;
            match decoder.step()? {
                // Another way begins at once.
                Step::Frame if shortcut.is_some() && decoder.doubt().is_some() => break,
                Step::Frame => {}
                Step::Clip(clip) => clips.push(clip),
                Step::End => break,
            }
        }
        Ok((decoder, clips))
    }

    fn send(&mut self, decoder: &ClipDecoder, clips: Vec<Clip>, shortcut: Option<&FastSeek>) -> Result<(), End> {
        let source = decoder.source();
        let (packets, left_out) = decoder.sieved();
        let bytes = clips.iter().map(|clip| clip.data.len()).sum();
        let sought = shortcut.is_some_and(|shortcut| !shortcut.from_start);
        let effort = Effort { short_way: shortcut.is_some(), sought, packets, left_out };
        send(&mut self.replies, &Reply::Windows { range: source.color_range, matrix: source.color_matrix, bytes, effort })?;
        for clip in clips {
            self.replies.write_all(&clip.data)?;
        }
        Ok(())
    }
}

fn decode_options(timeout: f64) -> DecodeOptions {
    // Readers run side by side, each with a decoder.
    DecodeOptions { threads: 1, timeout: Duration::from_secs_f64(timeout) }
}

impl Wanted<'_> {
    fn shortcut(&self, route: SeekPlan, entry_ns: i64, start_ns: i64) -> Option<FastSeek> {
        let wanted = WantedTicks {
            starts: self.starts.to_vec(),
            frames: self.options.frames.into(),
            stride: self.options.stride.into(),
            slack: 0,
            fps: self.options.sampling.fps()?,
            start_ns,
        };
        Some(FastSeek { route, entry_ns, from_start: entry_ns == start_ns, wanted })
    }

    /// What is wrong with what was decoded.
    fn fault(&self, decoder: &ClipDecoder, clips: &[Clip]) -> Option<Failure> {
        let found = decoder.source().size;
        if found != self.size {
            return Some(Failure::OtherSize { found });
        }
        if let Some(clip) = clips.iter().find(|clip| clip.damaged) {
            let seconds = |ns: Option<&i64>| ns.map_or(0.0, |&ns| ns as f64 / 1e9);
            let (from, to) = (seconds(clip.pts_ns.first()), seconds(clip.pts_ns.last()));
            let fault = decoder.faults().into_iter().find(|fault| fault.seconds.0 <= to && fault.seconds.1 >= from);
            let reason = fault.map_or_else(|| "frames are missing".to_owned(), |fault| fault.reason);
            return Some(Failure::Damaged { seconds: (from, to), reason });
        }
        let is_short = |(clip, &start): (&Clip, &u64)| {
            let frames = u64::from(self.options.frames);
            let before_end = self.ticks.saturating_sub(start).div_ceil(self.options.stride.into());
            u64::from(clip.repeated_frames) > frames - before_end.min(frames)
        };
        if clips.len() < self.starts.len() || clips.iter().zip(self.starts).any(is_short) {
            return Some(Failure::Shorter { seconds: decoder.end_seconds() });
        }
        None
    }
}
