//! Windows of clips, decoded on the fly.

use super::protocol::{Effort, Failure, Reply, Task, WindowsTask};
use super::{ClipFault, LiveError, LiveOptions, LiveSet, Video, identity};
use crate::frames::{Color, Frames};
use crate::video::fast_seek::SeekPlan;
use crate::video::ticks::tick_of;
use crate::worker::{Ending, Reported, Supervisor};
use schemas::shard::{ColorMatrix, ColorRange};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Decodes windows of the clips of a [`LiveSet`], for one thread. It owns one worker process, which
/// is started when it is first needed and again after it was lost, and ends with the reader. Memory
/// is reused from call to call.
#[derive(Debug)]
pub struct LiveReader {
    stop: Arc<AtomicBool>,
    supervisor: Option<Supervisor>,
    /// The decoded windows, one after the other.
    frames: Vec<u8>,
    /// Bytes of one window.
    window_bytes: usize,
    /// For each window of the last call, its index among the decoded windows.
    places: Vec<usize>,
    color: Color,
    effort: Effort,
}

impl LiveReader {
    /// A reader whose calls return early when `stop` is set.
    pub const fn new(stop: Arc<AtomicBool>) -> Self {
        let color = Color {
            range: ColorRange::Limited,
            matrix: ColorMatrix::Bt601,
        };
        let effort = Effort {
            fast_seek: false,
            sought: false,
            packets: 0,
            skipped_packets: 0,
        };
        Self {
            stop,
            supervisor: None,
            frames: Vec::new(),
            window_bytes: 0,
            places: Vec::new(),
            color,
            effort,
        }
    }

    /// Decodes windows of clip `clip` of `set`, in one pass over the video. Window `i` has as many
    /// frames as a training clip, from the clip's frame `starts[i]` on. [`Self::frames`] returns
    /// them.
    ///
    /// # Errors
    /// Those of one clip ([`LiveError::is_of_one_clip`]), after which the reader can go on, and
    /// those of all clips.
    ///
    /// # Panics
    /// When the set has no such clip, or the clip has fewer frames.
    pub fn windows(
        &mut self,
        set: &LiveSet,
        clip: usize,
        starts: &[usize],
    ) -> Result<(), LiveError> {
        let (video, place) = set.locate(clip);
        let options = set.options();
        let length = set.clip(clip).frames;
        assert!(
            starts.iter().all(|&start| start + options.frames <= length),
            "clip {clip} has {length} frames: {starts:?}"
        );
        let ticks_at = |start: usize| place.start + start as u64 * u64::from(options.stride);
        let mut ticks: Vec<u64> = starts.iter().map(|&start| ticks_at(start)).collect();
        ticks.sort_unstable();
        ticks.dedup();
        self.places.clear();
        let place = |&start: &usize| {
            ticks
                .binary_search(&ticks_at(start))
                .expect("each start is there")
        };
        self.places.extend(starts.iter().map(place));
        self.window_bytes = options.frames * video.size.frame_bytes();
        let failed = |fault| LiveError::Clip {
            path: video.path.clone(),
            seconds: first_tick_seconds(options, &ticks),
            fault,
        };
        match identity(&video.path) {
            Err(reason) => return Err(failed(ClipFault::Gone { reason })),
            Ok(now) if now != video.identity => return Err(failed(ClipFault::Changed)),
            Ok(_) => {}
        }
        if ticks.is_empty() {
            return Ok(());
        }
        let task = Task::Windows(WindowsTask {
            path: video.path.clone(),
            options: options.as_build(),
            fast_seek: fast_seek(video, options, ticks[0]),
            starts: ticks.clone(),
            ticks: video.ticks,
            start_ns: video.start_ns,
            size: video.size,
            timeout: options.timeout.as_secs_f64(),
        });
        self.decode(&task, options, ticks.len())
            .map_err(|end| match end {
                End::Clip(fault) => failed(fault),
                End::All(error) => error,
            })
    }

    /// The frames of window `window` of the last call of [`Self::windows`], which has succeeded.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn frames(&self, window: usize) -> Frames<'_> {
        let place = self.places[window] * self.window_bytes;
        Frames::I420(&self.frames[place..place + self.window_bytes], self.color)
    }

    /// The work that the last windows took.
    pub const fn effort(&self) -> Effort {
        self.effort
    }

    /// Process id of the worker, if there is one.
    pub fn worker_id(&self) -> Option<u32> {
        self.supervisor.as_ref().and_then(Supervisor::worker_id)
    }

    fn decode(&mut self, task: &Task, options: &LiveOptions, windows: usize) -> Result<(), End> {
        let expected = windows * self.window_bytes;
        // Another set may have another program.
        let supervisor = match &mut self.supervisor {
            Some(supervisor) if supervisor.serves(&options.worker, options.timeout) => supervisor,
            other => other.insert(supervisor(options, Arc::clone(&self.stop))),
        };
        let ending = supervisor.run(task, |reply: Reply, bytes| match reply {
            Reply::Windows {
                range,
                matrix,
                bytes: size,
                effort,
            } if size == expected => {
                self.frames.resize(size, 0);
                bytes.read_exact(&mut self.frames)?;
                self.color = Color { range, matrix };
                self.effort = effort;
                Ok(Reported::Done)
            }
            Reply::Windows { .. } | Reply::Probed { .. } => {
                Err(std::io::Error::other("another task's reply"))
            }
        });
        match ending {
            Err(error) => Err(End::All(error.into())),
            Ok(Ending::Done) => Ok(()),
            Ok(Ending::Failed(failure)) => Err(Failure::into(failure)),
            Ok(Ending::Lost(reason)) => Err(End::Clip(ClipFault::Lost { reason })),
            Ok(Ending::Stopped) => Err(End::All(LiveError::Stopped)),
        }
    }
}

/// A supervisor of the workers of `options`.
pub(super) fn supervisor(options: &LiveOptions, stop: Arc<AtomicBool>) -> Supervisor {
    Supervisor::new(options.worker.clone(), options.timeout, stop)
}

/// The extent of an error: one clip, or all of them.
enum End {
    Clip(ClipFault),
    All(LiveError),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Clip(match failure {
            Failure::Setup(reason) => return Self::All(LiveError::Setup { reason }),
            Failure::Shorter { seconds } => ClipFault::Shorter { seconds },
            Failure::OtherSize { found } => ClipFault::OtherSize {
                width: found.width,
                height: found.height,
            },
            Failure::Damaged { seconds, reason } => ClipFault::Damaged {
                from: seconds.0,
                to: seconds.1,
                reason,
            },
            Failure::Undecodable(reason) => ClipFault::Undecodable { reason },
        })
    }
}

/// Seconds from the video's first frame to the first of `ticks`.
fn first_tick_seconds(options: &LiveOptions, ticks: &[u64]) -> f64 {
    ticks.first().map_or(0.0, |&tick| {
        tick as f64 / options.sampling.fps().unwrap_or(30.0)
    })
}

/// How to seek to `tick`, if the file can be decoded from elsewhere than its start, and the time of
/// the entry to seek to: the last one whose frame is shown no later, or else the start.
fn fast_seek(video: &Video, options: &LiveOptions, tick: u64) -> Option<(SeekPlan, i64)> {
    let (plan, fps) = video.seek_plan.as_ref().zip(options.sampling.fps())?;
    let after = video
        .entries
        .partition_point(|&entry| tick_of(entry - video.start_ns, fps) <= tick);
    let entry = after.checked_sub(1).map_or(video.start_ns, |last| {
        video.entries[last].max(video.start_ns)
    });
    Some((plan.clone(), entry))
}
