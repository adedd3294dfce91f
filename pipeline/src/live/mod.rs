//! Training clips straight from videos, without shards: what a build would have stored, bit for bit, decoded when it is wanted.
//!
//! [`LiveSet::open`] counts the packets of every video. A [`LiveReader`] decodes windows of its clips, in a worker process ([`worker`]): a decoder that
//! crashes or hangs costs one clip. Where the container and the codec allow it, it goes the short way ([`crate::video::fast_seek`]).

mod protocol;
mod reader;
pub mod worker;

use crate::video::discover::{VideoFile, discover, io_reason, path_name};
use crate::video::fast_seek::SeekPlan;
use crate::video::ticks::{Timeline, clip_starts, span_ticks};
use crate::video::{self, VideoError};
use crate::worker::process::{Ending, Reported, StartError, WorkerProgram};
use crossbeam_channel::{bounded, unbounded};
use protocol::{Failure, Reply, Task};
use reader::supervisor;
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, DEFAULT_GAP_SECONDS, Labelling, OnCorrupt, PixelAspect, Rejected, Sampling, ShortVideo, Tiling};
use schemas::shard::Payload;
use serde::{Deserialize, Serialize};
use std::fs;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use protocol::Effort;
pub use reader::LiveReader;

/// How videos become training clips.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveOptions {
    /// What a tick is.
    pub sampling: Sampling,
    /// Ticks from one frame of a clip to the next.
    pub stride: u32,
    /// Frames of a training clip.
    pub frames: usize,
    /// How much of a video a clip is.
    pub span: LiveSpan,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
    /// What becomes of pixels that are not square.
    pub pixel_aspect: PixelAspect,
    /// Windows that would show a frame for longer than this beyond its time are left out; none leaves none
    /// out for that.
    pub gap_seconds: Option<f64>,
    /// How long a decoder may make no progress.
    pub timeout: Duration,
    /// What calls [`worker::run`].
    pub worker: WorkerProgram,
}

/// How much of a video a clip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveSpan {
    /// Videos are cut back to back into clips as long as a training clip, as a build does it unless told otherwise: the same clips in the same order.
    Clip,
    /// A whole video is one clip, in all of which windows can lie.
    Video,
}

impl LiveOptions {
    /// The usual options, with `worker` to do the work: 16 frames at stride 4 of 30 ticks a second, anywhere in each video.
    pub const fn new(worker: WorkerProgram) -> Self {
        Self {
            sampling: Sampling::TicksPerSecond(30.0),
            stride: 4,
            frames: 16,
            span: LiveSpan::Video,
            short_side: 256,
            pixel_aspect: PixelAspect::Square,
            gap_seconds: Some(DEFAULT_GAP_SECONDS),
            timeout: video::DEFAULT_TIMEOUT,
            worker,
        }
    }

    /// The options of the build whose clips are the windows.
    fn as_build(&self) -> BuildOptions {
        BuildOptions {
            frames: self.frames as u32,
            stride: self.stride,
            sampling: self.sampling,
            tiling: Tiling::BackToBack,
            short: ShortVideo::Repeat,
            on_corrupt: OnCorrupt::KeepGood,
            short_side: self.short_side,
            pixel_aspect: self.pixel_aspect,
            gap_seconds: self.gap_seconds,
            payload: Payload::I420,
            crf: None,
            level: 0,
            labels: Labelling::None,
            shard_bytes: u64::MAX,
        }
    }

    fn check(&self) -> Result<(), LiveError> {
        let numbers = [("frames", self.frames), ("stride", self.stride as usize), ("short side", self.short_side as usize)];
        if let Some((name, _)) = numbers.into_iter().find(|&(_, value)| value == 0) {
            return Err(LiveError::Option(format!("{name} is 0; it must be at least 1")));
        }
        if u32::try_from(self.frames).is_err() {
            return Err(LiveError::Option(format!("{} frames are too many", self.frames)));
        }
        match self.sampling {
            Sampling::TicksPerSecond(fps) if !(fps.is_finite() && fps > 0.0) => {
                Err(LiveError::Option(format!("{fps} ticks a second; there must be more than 0")))
            }
            _ => Ok(()),
        }
    }
}

/// Why there are no frames.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// GStreamer, or a plugin that is needed, is not installed.
    #[error("{reason}")]
    Setup {
        /// What is missing, and what to do.
        reason: String,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// No worker process can be started.
    #[error(transparent)]
    Worker(#[from] StartError),
    /// The caller wants no more.
    #[error("stopped")]
    Stopped,
    /// A video, or a stretch of one, cannot be used.
    #[error("{}, from {seconds:.2} s: {fault}", path.display())]
    Clip {
        /// Which video.
        path: PathBuf,
        /// Where the first wanted frame lies, in seconds from the first of the video.
        seconds: f64,
        /// What is wrong with it.
        fault: ClipFault,
    },
}

impl LiveError {
    /// Whether it costs one clip, and others can be had.
    pub const fn is_of_one_clip(&self) -> bool {
        matches!(self, Self::Clip { .. })
    }
}

/// What is wrong with a clip.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClipFault {
    /// The file cannot be looked at.
    #[error("{reason}")]
    Gone {
        /// Why not.
        reason: String,
    },
    /// The file is not the one that was counted.
    #[error("the file has changed since it was opened")]
    Changed,
    /// There are fewer frames than were counted.
    #[error("the video ends at {seconds:.2} s, before the last frame that was counted")]
    Shorter {
        /// Time of the last frame.
        seconds: f64,
    },
    /// The frames are not as large as the first one was.
    #[error("its frames come out as {width}x{height}, other than at first")]
    OtherSize {
        /// Samples a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// Wanted frames are damaged.
    #[error("damaged between {from:.2} and {to:.2} s: {reason}")]
    Damaged {
        /// Time of the first wanted frame.
        from: f64,
        /// Time of the last wanted frame.
        to: f64,
        /// What is wrong.
        reason: String,
    },
    /// The decoder crashed or made no progress.
    #[error("{reason}")]
    Lost {
        /// What became of it.
        reason: String,
    },
    /// There are no frames, or no more of them.
    #[error("{reason}")]
    Undecodable {
        /// Why not.
        reason: String,
    },
}

/// A clip that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveClip {
    /// Frames of it, at least as many as a training clip has: the end of a video that is too short repeats its last frame.
    pub frames: usize,
    /// Size of a frame, upright and scaled.
    pub size: FrameSize,
}

/// A video that can be decoded.
#[derive(Debug)]
struct Video {
    path: PathBuf,
    identity: Identity,
    ticks: u64,
    places: Vec<Place>,
    start_ns: i64,
    size: FrameSize,
    /// Times at which decoding may begin.
    entries: Vec<i64>,
    route: Option<SeekPlan>,
}

/// Where a clip lies in its video.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its first tick.
    start: u64,
    /// Its frames.
    frames: usize,
    /// End of the stretch without gaps that it lies in.
    stretch_end: u64,
}

/// Size and time of the last change: a file that has both is taken to be the same.
type Identity = (u64, i64, i64);

fn identity(path: &Path) -> Result<Identity, String> {
    fs::metadata(path).map(|file| (file.len(), file.mtime(), file.mtime_nsec())).map_err(|error| io_reason(&error))
}

/// The clips of some videos.
///
/// ```no_run
/// use pipeline::live::{LiveOptions, LiveSet};
/// use pipeline::loader::{Loader, LoaderOptions};
/// use pipeline::sampling::mask::{MaskKind, MaskRule};
/// use pipeline::source::{Source, WeightedSource};
/// use pipeline::worker::process::WorkerProgram;
/// use schemas::geometry::PatchGrid;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Videos are decoded in processes of this same program.
///     if std::env::args().nth(1).as_deref() == Some("worker") {
///         return Ok(pipeline::live::worker::run()?);
///     }
///     let worker = WorkerProgram { path: std::env::current_exe()?, argument: "worker".to_owned() };
///     let videos = LiveSet::open(&["videos".into()], LiveOptions::new(worker), |done, all| {
///         eprint!("\r{done} of {all} videos");
///     })?;
///     let grid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };
///     let options = LoaderOptions::new(8, grid, MaskRule::new(MaskKind::Random, 0.9));
///     let source = WeightedSource::from(Source::Live(videos));
///     for batch in Loader::new([source].into(), options)?.take(100) {
///         println!("{} clips", batch?.len());
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct LiveSet {
    inputs: Vec<PathBuf>,
    options: LiveOptions,
    videos: Vec<Video>,
    /// Number of the first clip of each video, and the number of all clips.
    firsts: Vec<usize>,
    rejected: Vec<Rejected>,
}

impl LiveSet {
    /// Searches `inputs`, files and folders, and counts the packets of each video there is, on all cores, without decoding more than one frame of
    /// each. `progress` hears how many of how many are done. What cannot be used is in [`Self::rejected`].
    ///
    /// # Errors
    /// When an option makes no sense, GStreamer is missing, or no worker can be started.
    pub fn open(inputs: &[PathBuf], options: LiveOptions, mut progress: impl FnMut(usize, usize)) -> Result<Self, LiveError> {
        options.check()?;
        video::init().map_err(|error: VideoError| LiveError::Setup { reason: error.to_string() })?;
        let found = discover(inputs);
        let mut set = Self { inputs: inputs.to_vec(), options, videos: Vec::new(), firsts: vec![0], rejected: found.rejected };
        progress(0, found.videos.len());
        let mut probed: Vec<Option<Result<Video, String>>> = Vec::new();
        probed.resize_with(found.videos.len(), || None);
        probe_all(&found.videos, &set.options, |done, index, result| {
            probed[index] = Some(result);
            progress(done, found.videos.len());
        })?;
        for (file, result) in found.videos.iter().zip(probed) {
            match result {
                Some(Ok(video)) => {
                    set.firsts.push(set.len() + video.places.len());
                    set.videos.push(video);
                }
                Some(Err(reason)) => set.rejected.push(Rejected::file(path_name(&file.path), reason)),
                None => unreachable!("every video has a result, or there was an error"),
            }
        }
        Ok(set)
    }

    /// Clips of all videos.
    pub fn len(&self) -> usize {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// Whether there is nothing to load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clip `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn clip(&self, index: usize) -> LiveClip {
        let (video, place) = self.locate(index);
        LiveClip { frames: place.frames, size: video.size }
    }

    /// The video that clip `index` is of.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn path(&self, index: usize) -> &Path {
        &self.locate(index).0.path
    }

    /// The video that clip `index` is of, its number within it, and the times of its first and last frame, in seconds from the video's first frame.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn origin(&self, index: usize) -> (&Path, usize, [f64; 2]) {
        let (video, place) = self.locate(index);
        let first = self.firsts.partition_point(|&first| first <= index) - 1;
        // Ticks of source frames have no time that is known without decoding: theirs are counted.
        let second = |tick: u64| tick as f64 / self.options.sampling.fps().unwrap_or(1.0);
        let last = place.start + (place.frames as u64 - 1) * u64::from(self.options.stride);
        let last = last.min(place.stretch_end.saturating_sub(1));
        (&video.path, index - self.firsts[first], [second(place.start), second(last)])
    }

    /// Frames of clip `index` before its video ends or has a gap: more than the clip has where others follow it.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn whole_frames(&self, index: usize) -> usize {
        let (_, place) = self.locate(index);
        stored_frames(&self.options, place.start..place.stretch_end)
    }

    /// Videos that can be used.
    pub const fn videos(&self) -> usize {
        self.videos.len()
    }

    /// Name without folders, bytes and clips of each video.
    pub(crate) fn identities(&self) -> impl Iterator<Item = (String, u64, usize)> {
        let clips = self.firsts.windows(2).map(|firsts| firsts[1] - firsts[0]);
        self.videos.iter().zip(clips).map(|(video, clips)| {
            let name = video.path.file_name().unwrap_or(video.path.as_os_str());
            (path_name(Path::new(name)), video.identity.0, clips)
        })
    }

    /// Files that cannot be used.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Where the videos were searched.
    pub fn inputs(&self) -> &[PathBuf] {
        &self.inputs
    }

    /// The options with which it was opened.
    pub const fn options(&self) -> &LiveOptions {
        &self.options
    }

    /// The video of clip `index`, and where the clip lies in it.
    fn locate(&self, index: usize) -> (&Video, Place) {
        assert!(index < self.len(), "clip {index} of {}", self.len());
        let video = self.firsts.partition_point(|&first| first <= index) - 1;
        (&self.videos[video], self.videos[video].places[index - self.firsts[video]])
    }
}

/// Frames of a clip that is shown for all of `ticks`.
fn stored_frames(options: &LiveOptions, ticks: Range<u64>) -> usize {
    (ticks.end.saturating_sub(ticks.start + 1) / u64::from(options.stride) + 1) as usize
}

/// Where the clips of a video of `timeline` lie.
fn places(options: &LiveOptions, build: &BuildOptions, timeline: &Timeline) -> Vec<Place> {
    let stretches = timeline.stretches();
    let end_of = |start: u64| {
        let stretch = stretches.iter().find(|stretch| stretch.contains(&start));
        stretch.map_or(timeline.ticks, |stretch| stretch.end)
    };
    match options.span {
        LiveSpan::Clip => {
            let starts = clip_starts(build, timeline).into_iter();
            starts.map(|start| Place { start, frames: options.frames, stretch_end: end_of(start) }).collect()
        }
        LiveSpan::Video => {
            let span = span_ticks(build);
            let fitting = stretches.iter().filter(|stretch| stretch.end - stretch.start >= span);
            let mut chosen: Vec<&Range<u64>> = fitting.collect();
            // The end of a video that is too short repeats its last frame.
            if chosen.is_empty() {
                chosen.extend(stretches.last());
            }
            let place = |stretch: &&Range<u64>| Place {
                start: stretch.start,
                frames: stored_frames(options, (*stretch).clone()).max(options.frames),
                stretch_end: stretch.end,
            };
            chosen.iter().map(place).collect()
        }
    }
}

/// Counts the packets of all `files`, and hands `take` each result: how many there are by now, whose it is, and what it is.
fn probe_all(
    files: &[VideoFile],
    options: &LiveOptions,
    mut take: impl FnMut(usize, usize, Result<Video, String>),
) -> Result<(), LiveError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (begin, begun) = unbounded();
    (0..files.len()).for_each(|index| begin.send(index).expect("the other end is here"));
    drop(begin);
    std::thread::scope(|scope| {
        let (done, results) = bounded(cores);
        for _ in 0..cores.min(files.len()) {
            let (begun, done) = (begun.clone(), done.clone());
            scope.spawn(move || {
                // A supervisor belongs to the thread that starts its workers.
                let mut supervisor = supervisor(options, options.timeout, Arc::new(AtomicBool::new(false)));
                for index in begun {
                    // Nobody listens any more when another one has failed for all.
                    if done.send((index, probe(&mut supervisor, &files[index].path, options))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (before, (index, result)) in results.into_iter().enumerate() {
            take(before + 1, index, result?);
        }
        Ok(())
    })
}

/// What a worker finds in the video at `path`, or why it cannot be used.
fn probe(
    supervisor: &mut crate::worker::process::Supervisor,
    path: &Path,
    options: &LiveOptions,
) -> Result<Result<Video, String>, LiveError> {
    let identity = match identity(path) {
        Ok(identity) => identity,
        Err(reason) => return Ok(Err(reason)),
    };
    let build = options.as_build();
    let timeout = options.timeout.as_secs_f64();
    let task = Task::Probe { path: path.as_os_str().as_bytes().to_vec(), options: build.clone(), timeout };
    let mut answer = Ok(Err("it was not counted".to_owned()));
    let ending = supervisor.run(&task, |reply: Reply, _| {
        Ok(match reply {
            Reply::Probed { probe, route } => {
                let timeline = Timeline::of(&build, &probe);
                answer = Ok(Ok(Video {
                    path: path.to_owned(),
                    identity,
                    ticks: timeline.ticks,
                    places: places(options, &build, &timeline),
                    start_ns: probe.start_ns,
                    size: probe.shape.stored_size(&build),
                    entries: probe.entries,
                    route,
                }));
                Reported::Done
            }
            Reply::Failed(Failure::Setup(reason)) => {
                answer = Err(LiveError::Setup { reason });
                Reported::Failed
            }
            Reply::Failed(Failure::Undecodable(reason)) => {
                answer = Ok(Err(reason));
                Reported::Failed
            }
            Reply::Alive => Reported::Nothing,
            Reply::Windows { .. } | Reply::Failed(_) => return Err(std::io::Error::other("another task's answer")),
        })
    })?;
    match ending {
        Ending::Lost(reason) => Ok(Err(reason)),
        Ending::Whole | Ending::Stopped => answer,
    }
}
