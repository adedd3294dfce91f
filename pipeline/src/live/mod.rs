//! Training clips straight from videos, without shards: the frames that a build would have stored,
//! bit for bit, decoded on demand.
//!
//! [`LiveSet::open`] counts the packets of every video. A [`LiveReader`] decodes windows of its
//! clips, in a worker process ([`worker`]): a decoder that crashes or hangs costs one clip. Where
//! the container and the codec allow it, it seeks ([`crate::video::fast_seek`]).

mod protocol;
mod reader;
pub mod worker;

use crate::all_cores;
use crate::video::discover::{VideoFile, discover, io_reason, path_name};
use crate::video::fast_seek::SeekPlan;
use crate::video::media::Media;
use crate::video::ticks::{Timeline, clip_starts, span_ticks};
use crate::video::{self, VideoError};
use crate::worker::{Ending, Reported, StartError, Supervisor, WorkerProgram};
use crossbeam_channel::{bounded, unbounded};
use protocol::{Failure, Reply, Task};
use reader::supervisor;
use schemas::geometry::FrameSize;
use schemas::manifest::{
    BuildOptions, DEFAULT_GAP_SECONDS, Labelling, OnCorrupt, PixelAspect, Rejected, Sampling,
    ShortVideo, Tiling,
};
use schemas::shard::Payload;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use protocol::Effort;
pub use reader::LiveReader;

/// How to make training clips of videos.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveOptions {
    /// The unit of time, a tick.
    pub sampling: Sampling,
    /// Ticks from one frame of a clip to the next.
    pub stride: u32,
    /// Frames of a training clip.
    pub frames: usize,
    /// The part of a video that is a clip.
    pub span: LiveSpan,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
    /// What to do with pixels that are not square.
    pub pixel_aspect: PixelAspect,
    /// Windows that would show a frame for longer than this beyond its duration are skipped; none
    /// keeps them all.
    pub gap_seconds: Option<f64>,
    /// How long a decoder may make no progress.
    pub timeout: Duration,
    /// A program that calls [`worker::run`].
    pub worker: WorkerProgram,
}

/// The part of a video that is a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveSpan {
    /// Videos are cut back to back into clips as long as a training clip: the clips of a build with
    /// default options, in the same order.
    Clip,
    /// A whole video is one clip; windows can lie anywhere in it.
    Video,
}

impl LiveOptions {
    /// The default options, with `worker` to decode: 16 frames at stride 4 of 30 ticks per second,
    /// anywhere in each video.
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

    /// The options of a build with the same clips.
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
            scenes: None,
            split: Vec::new(),
            payload: Payload::I420,
            crf: None,
            level: 0,
            labels: Labelling::None,
            shard_bytes: u64::MAX,
        }
    }

    fn check(&self) -> Result<(), LiveError> {
        let numbers = [
            ("frames", self.frames),
            ("stride", self.stride as usize),
            ("short side", self.short_side as usize),
        ];
        if let Some((name, _)) = numbers.into_iter().find(|&(_, value)| value == 0) {
            return Err(LiveError::Option(format!(
                "{name} is 0; it must be at least 1"
            )));
        }
        if u32::try_from(self.frames).is_err() {
            return Err(LiveError::Option(format!(
                "{} frames are too many",
                self.frames
            )));
        }
        match self.sampling {
            Sampling::TicksPerSecond(fps) if !(fps.is_finite() && fps > 0.0) => Err(
                LiveError::Option(format!("{fps} ticks per second; it must be more than 0")),
            ),
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
        /// Names what is missing, and the remedy.
        reason: String,
    },
    /// An option is invalid.
    #[error("{0}")]
    Option(String),
    /// No worker process can be started.
    #[error(transparent)]
    Worker(#[from] StartError),
    /// The caller has asked to stop.
    #[error("stopped")]
    Stopped,
    /// A clip cannot be used.
    #[error("{}, from {seconds:.2} s: {fault}", path.display())]
    Clip {
        /// The video.
        path: PathBuf,
        /// Time of the first wanted frame, in seconds from the first one of the video.
        seconds: f64,
        /// The fault.
        fault: ClipFault,
    },
}

impl LiveError {
    /// Whether it concerns one clip only; others can still be decoded.
    pub const fn is_of_one_clip(&self) -> bool {
        matches!(self, Self::Clip { .. })
    }
}

/// The fault of a clip.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClipFault {
    /// The file cannot be found or read.
    #[error("{reason}")]
    Gone {
        /// The system's reason.
        reason: String,
    },
    /// The file has another size or time than when its packets were counted.
    #[error("the file has changed since it was opened")]
    Changed,
    /// There are fewer frames than packets were counted.
    #[error("the video ends at {seconds:.2} s, before the last frame that was counted")]
    Shorter {
        /// Time of the last frame.
        seconds: f64,
    },
    /// The frames have another size than the first one of the video had.
    #[error("its frames are {width}x{height}, unlike the first one")]
    OtherSize {
        /// Pixels per row.
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
        /// The fault.
        reason: String,
    },
    /// The decoder crashed or made no progress.
    #[error("{reason}")]
    Lost {
        /// What happened to it.
        reason: String,
    },
    /// There are no frames, or no more of them.
    #[error("{reason}")]
    Undecodable {
        /// The decoder's reason.
        reason: String,
    },
}

/// A clip that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveClip {
    /// Its frames, at least as many as those of a training clip: a video that is shorter repeats
    /// its last frame.
    pub frames: usize,
    /// Size of a frame, after rotation and scaling.
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
    /// Times at which decoding can begin, in nanoseconds.
    entries: Vec<i64>,
    /// How to seek in it, if that is possible.
    seek_plan: Option<SeekPlan>,
}

/// Where a clip lies in its video.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its first tick.
    start: u64,
    /// Its frames.
    frames: usize,
    /// Last tick, exclusive, of the stretch without gaps that it lies in.
    stretch_end: u64,
}

/// Size in bytes and time of the last change: a file in which both are equal counts as unchanged.
type Identity = (u64, i64);

fn identity(path: &Path) -> Result<Identity, String> {
    Media::of(path)
        .and_then(|media| media.size_and_time(path))
        .map_err(|error| io_reason(&error))
}

/// The clips of a list of videos.
///
/// ```no_run
/// use pipeline::live::{LiveOptions, LiveSet};
/// use pipeline::loader::{Loader, LoaderOptions};
/// use pipeline::sampling::mask::{MaskKind, MaskRule};
/// use pipeline::source::{Source, WeightedSource};
/// use pipeline::worker::WorkerProgram;
/// use schemas::geometry::PatchGrid;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Videos are decoded in processes of this same program.
///     if std::env::args().nth(1).as_deref() == Some("worker") {
///         return Ok(pipeline::live::worker::run()?);
///     }
///     let path = std::env::current_exe()?;
///     let worker = WorkerProgram { path, argument: "worker".to_owned() };
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
    /// Number of the first clip of each video, and after them the number of clips in all.
    firsts: Vec<usize>,
    rejected: Vec<Rejected>,
}

impl LiveSet {
    /// Finds the videos among `inputs`, files and folders, and counts the packets of each one, on
    /// all cores, without decoding more than one frame of each. Calls `progress` with the number of
    /// videos that are done, and that of all. Files that cannot be used are in [`Self::rejected`].
    ///
    /// # Errors
    /// When an option is invalid, GStreamer is missing, or no worker can be started.
    pub fn open(
        inputs: &[PathBuf],
        options: LiveOptions,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, LiveError> {
        options.check()?;
        video::init().map_err(|error: VideoError| LiveError::Setup {
            reason: error.to_string(),
        })?;
        let found = discover(inputs).map_err(|error| LiveError::Setup {
            reason: error.to_string(),
        })?;
        let mut set = Self {
            inputs: inputs.to_vec(),
            options,
            videos: Vec::new(),
            firsts: vec![0],
            rejected: found.rejected,
        };
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
                Some(Err(reason)) => set
                    .rejected
                    .push(Rejected::file(path_name(&file.path), reason)),
                None => unreachable!("every video has a result, or there was an error"),
            }
        }
        Ok(set)
    }

    /// Number of clips of all videos.
    pub fn len(&self) -> usize {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clip `index`.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn clip(&self, index: usize) -> LiveClip {
        let (video, place) = self.locate(index);
        LiveClip {
            frames: place.frames,
            size: video.size,
        }
    }

    /// The file of the video of clip `index`.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn path(&self, index: usize) -> &Path {
        &self.locate(index).0.path
    }

    /// The name of the video of clip `index`.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn name(&self, index: usize) -> String {
        path_name(self.path(index))
    }

    /// The number of clip `index` within its video, and the times of its first and last frame, in
    /// seconds from the video's first frame.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn origin(&self, index: usize) -> (usize, [f64; 2]) {
        let (_, place) = self.locate(index);
        let first = self.firsts.partition_point(|&first| first <= index) - 1;
        // The time of a source frame is not known without decoding: its number takes its place.
        let second = |tick: u64| tick as f64 / self.options.sampling.fps().unwrap_or(1.0);
        let last = place.start + (place.frames as u64 - 1) * u64::from(self.options.stride);
        let last = last.min(place.stretch_end.saturating_sub(1));
        (
            index - self.firsts[first],
            [second(place.start), second(last)],
        )
    }

    /// Frames from the start of clip `index` to the end of its video or the next gap: more than
    /// those of the clip where others follow it.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn whole_frames(&self, index: usize) -> usize {
        let (_, place) = self.locate(index);
        stored_frames(&self.options, place.start..place.stretch_end)
    }

    /// Number of videos that can be used.
    pub const fn videos(&self) -> usize {
        self.videos.len()
    }

    /// File name, size in bytes and number of clips of each video.
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

    /// The files and folders in which the videos were found.
    pub fn inputs(&self) -> &[PathBuf] {
        &self.inputs
    }

    /// The options with which the set was opened.
    pub const fn options(&self) -> &LiveOptions {
        &self.options
    }

    /// The video of clip `index`, and where the clip lies in it.
    fn locate(&self, index: usize) -> (&Video, Place) {
        assert!(index < self.len(), "clip {index} of {}", self.len());
        let video = self.firsts.partition_point(|&first| first <= index) - 1;
        (
            &self.videos[video],
            self.videos[video].places[index - self.firsts[video]],
        )
    }
}

/// Number of frames of a clip that covers `ticks`.
fn stored_frames(options: &LiveOptions, ticks: Range<u64>) -> usize {
    (ticks.end.saturating_sub(ticks.start + 1) / u64::from(options.stride) + 1) as usize
}

/// The places of the clips of a video of `timeline`.
fn places(options: &LiveOptions, build: &BuildOptions, timeline: &Timeline) -> Vec<Place> {
    let stretches = timeline.stretches();
    let end_of = |start: u64| {
        let stretch = stretches.iter().find(|stretch| stretch.contains(&start));
        stretch.map_or(timeline.ticks, |stretch| stretch.end)
    };
    match options.span {
        LiveSpan::Clip => {
            let starts = clip_starts(build, timeline).into_iter();
            starts
                .map(|start| Place {
                    start,
                    frames: options.frames,
                    stretch_end: end_of(start),
                })
                .collect()
        }
        LiveSpan::Video => {
            let span = span_ticks(build);
            let fitting = stretches
                .iter()
                .filter(|stretch| stretch.end - stretch.start >= span);
            let mut chosen: Vec<&Range<u64>> = fitting.collect();
            // A video that is too short repeats its last frame.
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

/// Counts the packets of all `files`, and calls `take` with each result: the number of results by
/// now, the file's index, and the result.
fn probe_all(
    files: &[VideoFile],
    options: &LiveOptions,
    mut take: impl FnMut(usize, usize, Result<Video, String>),
) -> Result<(), LiveError> {
    let threads = all_cores().min(files.len());
    let (begin, begun) = unbounded();
    (0..files.len()).for_each(|index| begin.send(index).expect("the other end is here"));
    drop(begin);
    std::thread::scope(|scope| {
        let (done, results) = bounded(threads);
        for _ in 0..threads {
            let begun = begun.clone();
            let done = done.clone();
            scope.spawn(move || {
                // A worker ends with the thread that starts it, so each thread has a supervisor.
                let mut supervisor = supervisor(options, Arc::new(AtomicBool::new(false)));
                for index in begun {
                    // Nobody receives any more when another video's error has ended the search.
                    if done
                        .send((index, probe(&mut supervisor, &files[index].path, options)))
                        .is_err()
                    {
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

/// Has a worker count the packets of the video at `path`; the inner error is why it cannot be used.
fn probe(
    supervisor: &mut Supervisor,
    path: &Path,
    options: &LiveOptions,
) -> Result<Result<Video, String>, LiveError> {
    let identity = match identity(path) {
        Ok(identity) => identity,
        Err(reason) => return Ok(Err(reason)),
    };
    let build = options.as_build();
    let timeout = options.timeout.as_secs_f64();
    let task = Task::Probe {
        path: path.to_owned(),
        options: build.clone(),
        timeout,
    };
    let mut video = Err("its packets were not counted".to_owned());
    let ending = supervisor.run(&task, |reply: Reply, _| match reply {
        Reply::Probed { probe, seek_plan } => {
            let timeline = Timeline::of(&build, &probe);
            video = Ok(Video {
                path: path.to_owned(),
                identity,
                ticks: timeline.ticks,
                places: places(options, &build, &timeline),
                start_ns: probe.start_ns,
                size: probe.shape.stored_size(&build),
                entries: probe.entries,
                seek_plan,
            });
            Ok(Reported::Done)
        }
        Reply::Windows { .. } => Err(std::io::Error::other("another task's reply")),
    })?;
    match ending {
        Ending::Done | Ending::Stopped => Ok(video),
        Ending::Failed(Failure::Setup(reason)) => Err(LiveError::Setup { reason }),
        Ending::Failed(Failure::Undecodable(reason)) | Ending::Lost(reason) => Ok(Err(reason)),
        // Only windows can fail in these ways.
        Ending::Failed(failure) => Ok(Err(format!(
            "its decoder sent an invalid reply: {failure:?}"
        ))),
    }
}
