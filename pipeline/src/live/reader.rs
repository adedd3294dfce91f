//! Windows of clips, decoded on the fly.

use super::protocol::{Effort, Failure, Reply, Task};
use super::{ClipFault, LiveError, LiveOptions, LiveSet, Video, identity};
use crate::frames::{Color, Frames};
use crate::video::ticks::tick_of;
use crate::worker::process::{Ending, Reported, Supervisor};
use schemas::shard::{ColorMatrix, ColorRange};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Decodes windows of the clips of a [`LiveSet`], for one thread: it owns one worker process, which is started when it is first needed and again
/// after it was lost, and ends with the reader. All memory is used again from call to call.
#[derive(Debug)]
pub struct LiveReader {
    stop: Arc<AtomicBool>,
    supervisor: Option<Supervisor>,
    /// The decoded windows, one after the other.
    frames: Vec<u8>,
    /// Bytes of one window.
    window_bytes: usize,
    /// Which decoded window each window of the last call is.
    places: Vec<usize>,
    color: Color,
    effort: Effort,
}

impl LiveReader {
    /// A reader whose calls return early when `stop` is set.
    pub const fn new(stop: Arc<AtomicBool>) -> Self {
        let color = Color { range: ColorRange::Limited, matrix: ColorMatrix::Bt601 };
        let effort = Effort { short_way: false, sought: false, packets: 0, left_out: 0 };
        Self { stop, supervisor: None, frames: Vec::new(), window_bytes: 0, places: Vec::new(), color, effort }
    }

    /// Decodes windows of clip `clip` of `set`, in one pass over the video: of stored frame `starts[i]` and those after it, as many as a training clip
    /// has, for each `i`. [`Self::frames`] then gives them.
    ///
    /// # Errors
    /// Those that cost one clip ([`LiveError::is_of_one_clip`]), after which the reader can go on, and those that end everything.
    ///
    /// # Panics
    /// When the set has no such clip, or the clip has not so many frames.
    pub fn windows(&mut self, set: &LiveSet, clip: usize, starts: &[usize]) -> Result<(), LiveError> {
        let (video, place) = set.locate(clip);
        let options = set.options();
        let length = set.clip(clip).frames;
        assert!(starts.iter().all(|&start| start + options.frames <= length), "clip {clip} has {length} frames: {starts:?}");
        let ticks_at = |start: usize| place.start + start as u64 * u64::from(options.stride);
        let mut ticks: Vec<u64> = starts.iter().map(|&start| ticks_at(start)).collect();
        ticks.sort_unstable();
        ticks.dedup();
        self.places.clear();
        let place = |&start: &usize| ticks.binary_search(&ticks_at(start)).expect("each start is there");
        self.places.extend(starts.iter().map(place));
        self.window_bytes = options.frames * video.size.frame_bytes();
        let failed = |fault| LiveError::Clip { path: video.path.clone(), seconds: first_tick_seconds(options, &ticks), fault };
        match identity(&video.path) {
            Err(reason) => return Err(failed(ClipFault::Gone { reason })),
            Ok(now) if now != video.identity => return Err(failed(ClipFault::Changed)),
            Ok(_) => {}
        }
        if ticks.is_empty() {
            return Ok(());
        }
        let task = Task::Windows {
            path: video.path.as_os_str().as_bytes().to_vec(),
            options: options.as_build(),
            shortcut: entry(video, options, ticks[0]),
            starts: ticks.clone(),
            ticks: video.ticks,
            start_ns: video.start_ns,
            size: video.size,
            timeout: options.timeout.as_secs_f64(),
        };
        self.decode(&task, options, ticks.len()).map_err(|end| match end {
            End::Clip(fault) => failed(fault),
            End::All(error) => error,
        })
    }

    /// Window `window` of the last call of [`Self::windows`], which has succeeded.
    ///
    /// # Panics
    /// When there is none.
    pub fn frames(&self, window: usize) -> Frames<'_> {
        let place = self.places[window] * self.window_bytes;
        Frames::I420(&self.frames[place..place + self.window_bytes], self.color)
    }

    /// What the last windows took.
    pub const fn effort(&self) -> Effort {
        self.effort
    }

    /// Process id of the worker, where there is one.
    pub fn worker_id(&self) -> Option<u32> {
        self.supervisor.as_ref().and_then(Supervisor::worker_id)
    }

    fn decode(&mut self, task: &Task, options: &LiveOptions, windows: usize) -> Result<(), End> {
        let expected = windows * self.window_bytes;
        let (frames, color, effort) = (&mut self.frames, &mut self.color, &mut self.effort);
        let stop = &self.stop;
        let start = || supervisor(options, options.timeout, Arc::clone(stop));
        // Another set may have another program.
        let supervisor = match &mut self.supervisor {
            Some(supervisor) if supervisor.serves(&options.worker, options.timeout) => supervisor,
            other => other.insert(start()),
        };
        let mut failure = None;
        let ending = supervisor.run(task, |reply: Reply, bytes| {
            Ok(match reply {
                Reply::Windows { range, matrix, bytes: size, effort: took } if size == expected => {
                    frames.resize(size, 0);
                    bytes.read_exact(frames)?;
                    (*color, *effort) = (Color { range, matrix }, took);
                    Reported::Done
                }
                Reply::Windows { .. } | Reply::Probed { .. } => return Err(std::io::Error::other("another task's answer")),
                Reply::Failed(reason) => {
                    failure = Some(reason);
                    Reported::Failed
                }
                Reply::Alive => Reported::Nothing,
            })
        });
        match ending {
            Err(error) => Err(End::All(error.into())),
            Ok(Ending::Stopped) => Err(End::All(LiveError::Stopped)),
            Ok(Ending::Lost(reason)) => Err(End::Clip(ClipFault::Lost { reason })),
            Ok(Ending::Whole) => failure.map_or(Ok(()), |failure| Err(failure.into())),
        }
    }
}

pub(super) fn supervisor(options: &LiveOptions, timeout: Duration, stop: Arc<AtomicBool>) -> Supervisor {
    Supervisor::new(options.worker.clone(), timeout, stop)
}

/// What ends: a clip, or everything.
enum End {
    Clip(ClipFault),
    All(LiveError),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Clip(match failure {
            Failure::Setup(reason) => return Self::All(LiveError::Setup { reason }),
            Failure::Shorter { seconds } => ClipFault::Shorter { seconds },
            Failure::OtherSize { found } => ClipFault::OtherSize { width: found.width, height: found.height },
            Failure::Damaged { seconds, reason } => ClipFault::Damaged { from: seconds.0, to: seconds.1, reason },
            Failure::Undecodable(reason) => ClipFault::Undecodable { reason },
        })
    }
}

/// Seconds from the video's first frame to the first of `ticks`.
fn first_tick_seconds(options: &LiveOptions, ticks: &[u64]) -> f64 {
    ticks.first().map_or(0.0, |&tick| tick as f64 / options.sampling.fps().unwrap_or(30.0))
}

/// The short way to `tick`: the route, and the last entry whose frame is shown no later, or else the start.
fn entry(video: &Video, options: &LiveOptions, tick: u64) -> Option<(crate::video::fast_seek::SeekPlan, i64)> {
    let (route, fps) = video.route.as_ref().zip(options.sampling.fps())?;
    let after = video.entries.partition_point(|&entry| tick_of(entry - video.start_ns, fps) <= tick);
    let entry = after.checked_sub(1).map_or(video.start_ns, |last| video.entries[last].max(video.start_ns));
    Some((route.clone(), entry))
}
