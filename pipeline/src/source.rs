//! Sources of clips: shards, or live video. The same clips in the same order give the same batches.

use crate::frames::Frames;
use crate::live::{LiveError, LiveReader, LiveSet};
use crate::shard::clip::Windows;
use crate::shard::{ClipReader, RemoteCounts, ShardError, ShardSet};
use crate::stats::{Stage, StageClock};
use crate::video::VideoError;
use schemas::geometry::FrameSize;
use schemas::manifest::ShardEntry;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use xxhash_rust::xxh3::xxh3_64;

/// A data set.
///
/// ```
/// use pipeline::source::Source;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// // In place of `ShardSet::open(dir)`.
/// let data = Source::Shards(pipeline::shard::synthetic::write(dir.path(), 3)?);
/// assert_eq!((data.len(), data.clip(0).frames), (3, 8));
/// let catalogue = data.catalogue()?;
/// assert_eq!(catalogue.videos[2].path, "synthetic-2");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum Source {
    /// A finished build.
    Shards(ShardSet),
    /// Videos that are decoded on demand.
    Live(LiveSet),
}

/// A data set or a part of one, and its share of what is loaded.
///
/// ```
/// use pipeline::source::{Source, WeightedSource};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = Source::Shards(pipeline::shard::synthetic::write(dir.path(), 10)?);
/// // All clips, drawn twice as often as those of a source of weight 1.
/// let all = WeightedSource { weight: 2.0, ..WeightedSource::from(data) };
/// // Every second clip.
/// let half = WeightedSource { chosen: Some((0..10).step_by(2).collect()), ..all.clone() };
/// assert_eq!((all.len(), half.len(), half.number(1)), (10, 5, 2));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct WeightedSource {
    /// The clips.
    pub source: Arc<Source>,
    /// Share of draws, relative to the other data sets'.
    pub weight: f64,
    /// Numbers of the clips that are used, if not all of them.
    pub chosen: Option<Arc<[u32]>>,
    /// Class of each clip of the source, in place of the source's own.
    pub labels: Option<Arc<[Option<i32>]>>,
}

impl From<Source> for WeightedSource {
    fn from(source: Source) -> Self {
        Self {
            source: Arc::new(source),
            weight: 1.0,
            chosen: None,
            labels: None,
        }
    }
}

impl WeightedSource {
    /// Number of clips that are used.
    pub fn len(&self) -> usize {
        self.chosen
            .as_ref()
            .map_or(self.source.len(), |chosen| chosen.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number in the source of the clip at `index` of those that are used.
    ///
    /// # Panics
    /// When `index` is not less than [`Self::len`].
    pub fn number(&self, index: usize) -> usize {
        self.chosen
            .as_ref()
            .map_or(index, |chosen| chosen[index] as usize)
    }

    /// Frames, size and class of clip `number` of the source.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn clip(&self, number: usize) -> ClipInfo {
        let info = self.source.clip(number);
        match &self.labels {
            Some(labels) => ClipInfo {
                label: labels[number],
                ..info
            },
            None => info,
        }
    }
}

/// A hash that identifies data: the clips that are used, their order, weights and classes, wherever
/// they are stored. It reads nothing: shards have hashes of their bytes, and a video is identified
/// by its name and size.
pub fn fingerprint(sources: &[WeightedSource]) -> u64 {
    let described: Vec<_> = sources
        .iter()
        .map(|set| {
            (
                set.source.identity(),
                set.weight,
                set.chosen.as_deref(),
                set.labels.as_deref(),
            )
        })
        .collect();
    xxh3_64(&serde_json::to_vec(&described).expect("numbers and strings"))
}

/// Ranges of rows.
type Rows = Vec<(u32, u32)>;

/// What identifies a source, wherever it is stored.
#[derive(Debug, Serialize)]
enum Identity<'a> {
    /// The two hashes of each shard.
    Shards(Vec<(&'a str, &'a str)>),
    /// The two hashes of each shard, and which of its rows are used.
    Parts(Vec<(&'a str, &'a str, &'a Option<Rows>)>),
    /// Name, bytes and clips of each video.
    Videos(Vec<(String, u64, usize)>),
}

/// The origins of all clips of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// The videos, in order.
    pub videos: Vec<VideoOrigin>,
    /// The clips, in order: those of a video follow each other.
    pub clips: Vec<ClipOrigin>,
}

/// A video that clips are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoOrigin {
    /// The path as it was given to the build, or the path of a live video.
    pub path: String,
    /// BLAKE3 of its bytes, in hex; `None` for live video.
    pub blake3: Option<String>,
}

/// The origin of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipOrigin {
    /// Number of its video.
    pub video: u32,
    /// Number within its video, from 0.
    pub number: u32,
    /// Times of its first and last frame in the video, in seconds.
    pub seconds: [f64; 2],
}

/// How the frames of a clip lie in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Frames at the end that repeat the video's last frame, because the video is too short.
    pub repeated: usize,
    /// Frames per second of video; `None` if frames were taken without regard to their times.
    pub frames_per_second: Option<f64>,
}

/// What is known of a clip before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipInfo {
    /// Number of frames.
    pub frames: usize,
    /// Size of a frame.
    pub size: FrameSize,
    /// Class number.
    pub label: Option<i32>,
}

/// The origin of a clip, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The video, as the build named it, or its path; `None` if the shard cannot be read.
    pub video: Option<String>,
    /// The shard that holds it, and its row there.
    pub stored: Option<(PathBuf, usize)>,
}

/// Why a clip cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A clip of a shard.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A clip of a live video.
    #[error(transparent)]
    Live(#[from] LiveError),
}

impl SourceError {
    /// Whether only this clip is bad, so that loading can continue without it.
    pub const fn is_of_one_clip(&self) -> bool {
        match self {
            // Without a decoder, no clip can be read.
            Self::Shard(ShardError::Undecodable { source, .. }) => {
                !matches!(source, VideoError::Setup { .. })
            }
            Self::Shard(error) => matches!(error, ShardError::Damaged { .. }),
            Self::Live(error) => error.is_of_one_clip(),
        }
    }
}

impl Source {
    /// Number of clips.
    pub fn len(&self) -> usize {
        match self {
            Self::Shards(shards) => shards.len(),
            Self::Live(videos) => videos.len(),
        }
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The folder; the first one of several.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Shards(shards) => shards.dir(),
            Self::Live(videos) => videos
                .inputs()
                .first()
                .map_or(Path::new(""), |input| input.as_path()),
        }
    }

    fn identity(&self) -> Identity<'_> {
        match self {
            Self::Shards(shards) => {
                let entries = &shards.manifest().shards;
                fn hashes(entry: &ShardEntry) -> (&str, &str) {
                    (&entry.index_xxh3, &entry.pixels_xxh3)
                }
                if entries.iter().all(|entry| entry.rows.is_none()) {
                    Identity::Shards(entries.iter().map(hashes).collect())
                } else {
                    let parts = entries.iter().map(|entry| {
                        let (index, pixels) = hashes(entry);
                        (index, pixels, &entry.rows)
                    });
                    Identity::Parts(parts.collect())
                }
            }
            Self::Live(videos) => Identity::Videos(videos.identities().collect()),
        }
    }

    /// Frames, size and class of clip `clip`.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn clip(&self, clip: usize) -> ClipInfo {
        match self {
            Self::Shards(shards) => {
                let (shard, row) = shards.locate(clip);
                let entry = &shard.clips()[row];
                ClipInfo {
                    frames: entry.frames,
                    size: entry.size,
                    label: entry.label,
                }
            }
            Self::Live(videos) => {
                let clip = videos.clip(clip);
                ClipInfo {
                    frames: clip.frames,
                    size: clip.size,
                    label: None,
                }
            }
        }
    }
}

impl Source {
    /// The origin of clip `clip`. Reads the whole index of the clip's shard: not for loops.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn origin(&self, clip: usize) -> Origin {
        match self {
            Self::Shards(shards) => {
                let (shard, row) = shards.locate(clip);
                let video = shard.metas().ok().and_then(|mut metas| {
                    metas
                        .get_mut(row)
                        .map(|meta| std::mem::take(&mut meta.video))
                });
                Origin {
                    video,
                    stored: Some((shard.path().to_owned(), row)),
                }
            }
            Self::Live(videos) => Origin {
                video: Some(videos.name(clip)),
                stored: None,
            },
        }
    }

    /// The origins of all clips.
    ///
    /// # Errors
    /// When a shard cannot be read.
    pub fn catalogue(&self) -> Result<Catalogue, SourceError> {
        let mut catalogue = Catalogue::default();
        match self {
            Self::Shards(shards) => {
                for shard in shards.shards() {
                    for meta in shard.metas()? {
                        let is_new = catalogue
                            .videos
                            .last()
                            .is_none_or(|video| video.path != meta.video);
                        if is_new {
                            catalogue.videos.push(VideoOrigin {
                                path: meta.video,
                                blake3: Some(meta.video_blake3),
                            });
                        }
                        let time = |pts: Option<&i64>| pts.map_or(0.0, |&ns| ns as f64 * 1e-9);
                        catalogue.clips.push(ClipOrigin {
                            video: catalogue.videos.len() as u32 - 1,
                            number: meta.clip,
                            seconds: [time(meta.pts_ns.first()), time(meta.pts_ns.last())],
                        });
                    }
                }
            }
            Self::Live(videos) => {
                for clip in 0..videos.len() {
                    let (number, seconds) = videos.origin(clip);
                    if number == 0 {
                        catalogue.videos.push(VideoOrigin {
                            path: videos.name(clip),
                            blake3: None,
                        });
                    }
                    let video = catalogue.videos.len() as u32 - 1;
                    catalogue.clips.push(ClipOrigin {
                        video,
                        number: number as u32,
                        seconds,
                    });
                }
            }
        }
        Ok(catalogue)
    }

    /// How `frames` frames of clip `clip` from `first_frame` on lie in time. Reads the whole index
    /// of the clip's shard.
    ///
    /// # Errors
    /// When a shard cannot be read.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn timing(
        &self,
        clip: usize,
        first_frame: usize,
        frames: usize,
    ) -> Result<Timing, SourceError> {
        let (whole, fps, stride) = match self {
            Self::Shards(shards) => {
                let (shard, row) = shards.locate(clip);
                let meta = &shard.metas()?[row];
                (
                    (meta.frames - meta.repeated_frames.min(meta.frames)) as usize,
                    meta.fps,
                    meta.stride,
                )
            }
            Self::Live(videos) => (
                videos.whole_frames(clip),
                videos.options().sampling.fps(),
                videos.options().stride,
            ),
        };
        let repeated = (first_frame + frames).saturating_sub(whole).min(frames);
        Ok(Timing {
            repeated,
            frames_per_second: fps.map(|fps| fps / f64::from(stride)),
        })
    }

    /// Announces that the windows of `frames` frames from `starts` on of clip `clip` will soon be
    /// read.
    pub(crate) fn fetch(&self, clip: usize, frames: usize, starts: &[usize]) {
        match self {
            Self::Shards(shards) => {
                let (shard, row) = shards.locate(clip);
                shard.fetch(row, frames, starts);
            }
            // Where its packets lie in the file, only the demuxer knows.
            Self::Live(_) => {}
        }
    }

    /// Whether clips are fetched from a store.
    pub(crate) const fn is_remote(&self) -> bool {
        match self {
            Self::Shards(shards) => shards.is_remote(),
            Self::Live(_) => false,
        }
    }

    /// Bytes that were announced and not read yet; 0 where nothing is fetched.
    pub(crate) fn bytes_ahead(&self) -> u64 {
        match self {
            Self::Shards(shards) => shards.bytes_ahead(),
            Self::Live(_) => 0,
        }
    }

    /// How clips were read from a store; none where they are not.
    pub(crate) fn remote_counts(&self) -> Option<RemoteCounts> {
        match self {
            Self::Shards(shards) => shards.remote_counts(),
            Self::Live(_) => None,
        }
    }
}

/// Bytes of a clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClipBytes {
    /// As stored.
    pub(crate) stored: usize,
    /// As frames.
    pub(crate) decoded: usize,
}

/// Reads clips of any source into memory that it reuses: one reader per thread.
pub(crate) struct SourceReader {
    shards: ClipReader,
    live: LiveReader,
}

/// A clip that was read, in windows.
pub(crate) enum Loaded<'a> {
    /// All windows, where they lie in the clip.
    Stored(Windows<'a>),
    /// Each window on its own.
    Live(&'a LiveReader),
}

impl SourceReader {
    /// A reader that stops waiting for a decoder when `stop` is set.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        Self {
            shards: ClipReader::stopping(Arc::clone(&stop)),
            live: LiveReader::new(stop),
        }
    }

    /// Reads the windows of `frames` frames of clip `clip` that begin at frames `starts`.
    pub(crate) fn load<'a>(
        &'a mut self,
        source: &'a Source,
        clip: usize,
        frames: usize,
        starts: &[usize],
        clock: &mut StageClock,
    ) -> Result<(Loaded<'a>, ClipBytes), SourceError> {
        match source {
            Source::Shards(shards) => {
                let (shard, row) = shards.locate(clip);
                let size = shard.clips()[row].size;
                let read = self.shards.windows(shard, row, frames, starts, clock)?;
                let count = read.frames.bytes().len() / read.frames.frame_bytes(size).max(1);
                let bytes = ClipBytes {
                    stored: read.stored_bytes,
                    decoded: count * size.frame_bytes(),
                };
                Ok((Loaded::Stored(read), bytes))
            }
            Source::Live(videos) => {
                self.live.windows(videos, clip, starts)?;
                clock.lap(Stage::Decode);
                let decoded = starts.len() * frames * videos.clip(clip).size.frame_bytes();
                Ok((Loaded::Live(&self.live), ClipBytes { stored: 0, decoded }))
            }
        }
    }
}

impl<'a> Loaded<'a> {
    /// Frames that hold window `window`, which begins at frame `start` of the clip, and the index
    /// of its first frame among them.
    pub(crate) fn window(&self, window: usize, start: usize) -> (Frames<'a>, usize) {
        match self {
            Self::Stored(read) => (read.frames, start - read.first_frame),
            Self::Live(reader) => (reader.frames(window), 0),
        }
    }
}
