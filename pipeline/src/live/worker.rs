//! The worker process: decodes windows of one video at a time and sends their frames.

use super::protocol::{Effort, Failure, Reply, Task, WindowsTask};
use crate::video::clips::{Clip, ClipDecoder, Step};
use crate::video::decode::DecodeOptions;
use crate::video::discover::io_reason;
use crate::video::fast_seek::{Doubt, FastSeek, SeekPlan, WantedTicks};
use crate::video::media::{LocalVideo, Media};
use crate::video::{self, Content, VideoError};
use crate::worker::{self, WorkerError};
use schemas::manifest::BuildOptions;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Entries of which the worker remembers how to decode from them.
const MAX_SEEK_MODES: usize = 10_000;

type End = worker::End<Failure>;
type Replies = worker::Replies<Reply>;

/// How windows are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeekMode {
    /// By a fast seek that skips every packet that it can.
    Fast,
    /// By a fast seek that skips fewer packets near wanted frames.
    FastWithSlack,
    /// From the start, all packets.
    FromStart,
}

/// The modes with which videos are decoded from an entry, where that is not [`SeekMode::Fast`].
type SeekModes = HashMap<(PathBuf, i64), SeekMode>;

/// Does tasks until the parent gives no more: the whole life of a process that a
/// [`super::LiveReader`] starts.
///
/// # Errors
/// Those of [`worker::serve`].
pub fn run() -> Result<(), WorkerError> {
    let mut seek_modes = SeekModes::new();
    let mut unpacked = Unpacked::default();
    worker::serve(|task, replies| match task {
        Task::Probe {
            path,
            options,
            timeout,
        } => {
            let path = unpacked.path(&path)?;
            probe(replies, path, &options, Duration::from_secs_f64(timeout))
        }
        Task::Windows(task) => {
            let path = unpacked.path(&task.path)?;
            windows(replies, &task, path, &mut seek_modes)
        }
    })
}

/// The video of the last task: windows of a member of an archive often follow each other.
#[derive(Default)]
struct Unpacked(Option<(PathBuf, LocalVideo)>);

impl Unpacked {
    /// The path at which the video at `path` can be opened.
    fn path(&mut self, path: &Path) -> Result<&Path, End> {
        let (_, local) = match self.0.take() {
            Some((last, local)) if last == path => self.0.insert((last, local)),
            _ => {
                let local = Media::of(path).and_then(|media| LocalVideo::open(path, &media));
                let local = local.map_err(|error| VideoError::Stream {
                    element: String::new(),
                    message: io_reason(&error),
                })?;
                self.0.insert((path.to_owned(), local))
            }
        };
        Ok(local.path())
    }
}

fn probe(
    replies: &mut Replies,
    path: &Path,
    options: &BuildOptions,
    timeout: Duration,
) -> Result<(), End> {
    let probe = video::probe(path, options, timeout)?;
    let seek_plan = match video::sniff(path) {
        // Not every packet of an interlaced stream is marked as such; its first frame is.
        Ok(Content::Video(media)) if !probe.deinterlaced => SeekPlan::of(&media, &probe),
        _ => None,
    };
    Ok(replies.send(&Reply::Probed { seek_plan, probe })?)
}

fn windows(
    replies: &mut Replies,
    task: &WindowsTask,
    path: &Path,
    seek_modes: &mut SeekModes,
) -> Result<(), End> {
    if let Some(mut fast_seek) = task.fast_seek() {
        let entry = (task.path.clone(), fast_seek.entry_ns);
        let mut mode = seek_modes.get(&entry).copied().unwrap_or(SeekMode::Fast);
        while mode != SeekMode::FromStart {
            fast_seek.wanted.slack = if mode == SeekMode::Fast {
                0
            } else {
                fast_seek.wanted.fps.ceil() as u64
            };
            let doubt = match decode(replies, task, path, Some(&fast_seek)) {
                Ok((decoder, clips)) => match decoder.doubt() {
                    None if task.fault(&decoder, &clips).is_none() => {
                        return send(replies, &decoder, &clips, Some(&fast_seek));
                    }
                    doubt => doubt,
                },
                Err(End::Gone(error)) => return Err(End::Gone(error)),
                // Decoding from the start gives the failure that counts.
                Err(End::Failed(_)) => Some(Doubt::Unusual),
            };
            mode = match (mode, doubt) {
                (SeekMode::Fast, Some(Doubt::SkippedFrame)) => SeekMode::FastWithSlack,
                _ => SeekMode::FromStart,
            };
            if seek_modes.len() == MAX_SEEK_MODES {
                seek_modes.clear();
            }
            seek_modes.insert(entry.clone(), mode);
        }
    }
    let (decoder, clips) = decode(replies, task, path, None)?;
    match task.fault(&decoder, &clips) {
        Some(fault) => Err(End::Failed(fault)),
        None => send(replies, &decoder, &clips, None),
    }
}

fn decode(
    replies: &mut Replies,
    task: &WindowsTask,
    path: &Path,
    fast_seek: Option<&FastSeek>,
) -> Result<(ClipDecoder, Vec<Clip>), End> {
    // Readers run side by side, each with a decoder.
    let timeout = Duration::from_secs_f64(task.timeout);
    let decode = DecodeOptions::of_build(1, timeout, &task.options);
    let mut decoder = ClipDecoder::open_at(path, &task.options, decode, &task.starts, fast_seek)?;
    let mut clips = Vec::with_capacity(task.starts.len());
    loop {
        replies.alive()?;
        match decoder.step()? {
            // The next mode is tried at once.
            Step::Frame if fast_seek.is_some() && decoder.doubt().is_some() => break,
            Step::Frame => {}
            Step::Clip(clip) => clips.push(clip),
            Step::End => break,
        }
    }
    Ok((decoder, clips))
}

fn send(
    replies: &mut Replies,
    decoder: &ClipDecoder,
    clips: &[Clip],
    fast_seek: Option<&FastSeek>,
) -> Result<(), End> {
    let source = decoder.source();
    let (packets, skipped_packets) = decoder.packet_counts();
    let bytes = clips.iter().map(|clip| clip.data.len()).sum();
    let sought = fast_seek.is_some_and(|fast_seek| !fast_seek.from_start);
    let effort = Effort {
        fast_seek: fast_seek.is_some(),
        sought,
        packets,
        skipped_packets,
    };
    let reply = Reply::Windows {
        range: source.color_range,
        matrix: source.color_matrix,
        bytes,
        effort,
    };
    Ok(replies.send_with(&reply, clips.iter().map(|clip| clip.data.as_slice()))?)
}

impl WindowsTask {
    /// The fast seek to the windows, if there is one.
    fn fast_seek(&self) -> Option<FastSeek> {
        let (plan, entry_ns) = self.fast_seek.clone()?;
        let wanted = WantedTicks {
            starts: self.starts.clone(),
            frames: self.options.frames.into(),
            stride: self.options.stride.into(),
            slack: 0,
            fps: self.options.sampling.fps()?,
            start_ns: self.start_ns,
        };
        Some(FastSeek {
            plan,
            entry_ns,
            from_start: entry_ns == self.start_ns,
            wanted,
        })
    }

    /// The fault of the decoded windows; none if they are valid.
    fn fault(&self, decoder: &ClipDecoder, clips: &[Clip]) -> Option<Failure> {
        let found = decoder.source().size;
        if found != self.size {
            return Some(Failure::OtherSize { found });
        }
        if let Some(clip) = clips.iter().find(|clip| clip.damaged) {
            let seconds = |ns: Option<&i64>| ns.map_or(0.0, |&ns| ns as f64 / 1e9);
            let (from, to) = (seconds(clip.pts_ns.first()), seconds(clip.pts_ns.last()));
            let fault = decoder
                .faults()
                .into_iter()
                .find(|fault| fault.seconds.0 <= to && fault.seconds.1 >= from);
            let reason =
                fault.map_or_else(|| "frames are missing".to_owned(), |fault| fault.reason);
            return Some(Failure::Damaged {
                seconds: (from, to),
                reason,
            });
        }
        let is_short = |(clip, &start): (&Clip, &u64)| {
            let frames = u64::from(self.options.frames);
            let before_end = self
                .ticks
                .saturating_sub(start)
                .div_ceil(self.options.stride.into());
            u64::from(clip.repeated_frames) > frames - before_end.min(frames)
        };
        if clips.len() < self.starts.len() || clips.iter().zip(&self.starts).any(is_short) {
            return Some(Failure::Shorter {
                seconds: decoder.end_seconds(),
            });
        }
        None
    }
}
