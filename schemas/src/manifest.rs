//! The manifest: the description of a build in `manifest.json` beside the shards, and the lines of
//! the two lists next to it.

use crate::choice::Choice;
use crate::shard::Payload;
use serde::{Deserialize, Serialize};

/// File name of the manifest in a folder of shards. It is replaced as a whole when a shard is
/// complete: all that it names exists.
pub const MANIFEST_FILE: &str = "manifest.json";

/// File name of the list of files and clips that were skipped, one [`Rejected`] per line, beside
/// the shards.
pub const REJECTED_FILE: &str = "rejected.jsonl";

/// File name of the list of videos that the build has completed, one [`VideoRecord`] per line,
/// beside the shards.
pub const VIDEOS_FILE: &str = "videos.jsonl";

/// File name of the index, a table of all clips ([`IndexEntry`]), beside the shards.
pub const INDEX_FILE: &str = "index.parquet";

/// Default limit of the time for which a clip may hold a frame beyond its own, in seconds.
pub const DEFAULT_GAP_SECONDS: f64 = 1.0;

/// The description of a build. It holds no time of day and no host name, so equal builds have equal
/// manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`crate::shard::FORMAT_VERSION`] of the shards.
    pub format_version: u32,
    /// Program and version that built them.
    pub created_by: String,
    /// Whether the build is complete. The shards of an incomplete build are usable, too.
    pub finished: bool,
    /// Options that determine the contents of the shards.
    pub options: BuildOptions,
    /// Class names in the order of their numbers; empty without labels, or if labels are plain
    /// numbers.
    pub classes: Vec<String>,
    /// Shards in reading order.
    pub shards: Vec<ShardEntry>,
    /// Number of clips in all shards.
    pub clips: u64,
    /// Number of videos that the shards hold, or that were rejected: this many lines of
    /// [`VIDEOS_FILE`] belong to this manifest.
    pub videos: u64,
    /// The video of which finished shards hold only the first clips, in an incomplete build.
    pub open_video: Option<OpenVideo>,
    /// XXH3-64 of the lines of [`VIDEOS_FILE`] that belong to this manifest, in 16 hexadecimal
    /// digits. Absent in manifests of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub videos_xxh3: Option<String>,
    /// XXH3-64 of [`REJECTED_FILE`], in 16 hexadecimal digits. Present only if the build is
    /// complete: until then the file may change without the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_xxh3: Option<String>,
    /// The index of all shards. Absent if the build is incomplete, and in manifests of older
    /// builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexEntry>,
    /// The plan that it was built by, if many machines built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanEntry>,
    /// How the manifest was made from others, if it was not made by a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Box<Derived>>,
}

/// The index: [`INDEX_FILE`], a Parquet table with a row for each clip of the data set, in order:
/// the columns of the shards but the frames, and `shard`, `row`, `page_offset`, `page_bytes` and
/// `compressed`, which say where its frames lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// XXH3-64 of the file, in 16 hexadecimal digits.
    pub xxh3: String,
}

/// The plan of a build by many machines, by `shardtool plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// XXH3-64 of the file of the plan, in 16 hexadecimal digits.
    pub xxh3: String,
    /// Number of its parts.
    pub parts: u32,
    /// Number of this part, from 0; none if all parts were joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
}

/// How a manifest was made from others, by `shardtool filter` or `shardtool merge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// Folders of the other manifests, as they were given.
    pub from: Vec<String>,
    /// The clips that were chosen.
    pub choice: Choice,
    /// Whether the shards are copies.
    pub copied: bool,
}

/// A video of which finished shards hold the first clips, but not all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenVideo {
    /// Path of the file, as given to the build. Bytes that are not UTF-8 are written as `\xNN`, and
    /// backslashes are doubled.
    pub path: String,
    /// BLAKE3 of the file's bytes, in hex.
    pub blake3: String,
    /// Number of its clips in the shards.
    pub clips: u64,
}

/// A video that a build has completed: a line of [`VIDEOS_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRecord {
    /// Path of the file, as given to the build. Bytes that are not UTF-8 are written as `\xNN`, and
    /// backslashes are doubled.
    pub path: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Time of the last modification, in nanoseconds since 1970: a file of the same size and time
    /// is taken to be the same.
    pub modified_ns: i64,
    /// BLAKE3 of the file's bytes, in hex; empty if it could not be read to its end.
    pub blake3: String,
    /// Class number, if the build has labels.
    pub label: Option<i32>,
    /// Class name, if the labels have names.
    pub class: Option<String>,
    /// XXH3-64 of its rows in the list of the build (times, labels, splits and names), in 16
    /// hexadecimal digits; none without a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_xxh3: Option<String>,
    /// Times at which scenes begin, in seconds of stream time, without the first; only in builds
    /// with `--scenes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuts: Option<Vec<f64>>,
    /// Number of its clips in the shards.
    pub clips: u64,
    /// Number of these whose end repeats the last frame because the video is too short.
    pub padded_clips: u64,
    /// Number of these with damaged frames, in a build that keeps them.
    #[serde(default)]
    pub damaged_clips: u64,
    /// Whether its samples have high dynamic range (PQ or HLG).
    #[serde(default)]
    pub hdr: bool,
    /// Size of its clips as I420 frames in bytes, whatever their storage format.
    pub decoded_bytes: u64,
    /// The parts of it that were skipped, or why all of it was.
    pub rejected: Vec<Rejected>,
}

/// Options that determine the contents of the shards. Builds of the same videos with equal options
/// are equal to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildOptions {
    /// Frames per clip.
    pub frames: u32,
    /// Distance between two frames of a clip, in ticks of the sampling grid.
    pub stride: u32,
    /// Meaning of a tick.
    pub sampling: Sampling,
    /// Where clips start.
    pub tiling: Tiling,
    /// What to do with a video that is shorter than a clip.
    pub short: ShortVideo,
    /// What to do with a video that is damaged in parts.
    pub on_corrupt: OnCorrupt,
    /// Length in pixels to which the short side of frames is scaled down.
    pub short_side: u32,
    /// What to do with pixels that are not square. Format version 2 kept them.
    #[serde(default = "keep")]
    pub pixel_aspect: PixelAspect,
    /// Limit of the time for which a clip may hold a frame beyond its own, in seconds: clips beyond
    /// it are skipped. None is no limit, as in format version 2.
    #[serde(default)]
    pub gap_seconds: Option<f64>,
    /// How cuts between scenes are found, which no clip straddles. None keeps clips with cuts, as
    /// before format version 5.
    #[serde(default)]
    pub scenes: Option<SceneDetector>,
    /// Names of splits and their shares of the videos, which are assigned by the hash of a video's
    /// bytes; empty if the list gives the splits, or there are none.
    #[serde(default)]
    pub split: Vec<(String, f64)>,
    /// Storage format of frames.
    pub payload: Payload,
    /// x264's constant rate factor, 0 (lossless) to 50; payload `h264` only.
    #[serde(default)]
    pub crf: Option<u32>,
    /// zstd level of the payload; 0 stores it uncompressed.
    pub level: i32,
    /// Source of labels.
    pub labels: Labelling,
    /// Size in bytes at which a shard is closed.
    pub shard_bytes: u64,
}

const fn keep() -> PixelAspect {
    PixelAspect::Keep
}

/// How cuts between scenes are found, by the change from one frame of the source to the next: the
/// mean of the absolute differences of hue, saturation and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SceneDetector {
    /// The change is at least 27.
    Content,
    /// The change is at least 15, and three times that of the frames around it.
    Adaptive,
}

/// What to do with pixels that are not square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelAspect {
    /// Scale the width of frames until pixels are square, as players show them.
    Square,
    /// Store frames as they are coded.
    Keep,
}

/// Meaning of a tick of the sampling grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// This many ticks per second of presentation time.
    TicksPerSecond(f64),
    /// Every decoded frame is a tick, whatever its time.
    SourceFrames,
}

impl Sampling {
    /// Returns the ticks per second; none if ticks are frames of the source.
    pub const fn fps(self) -> Option<f64> {
        match self {
            Self::TicksPerSecond(fps) => Some(fps),
            Self::SourceFrames => None,
        }
    }
}

/// What to do with a video that is shorter than a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortVideo {
    /// Make one clip of it, whose end repeats the last frame.
    Repeat,
    /// Skip it.
    Skip,
}

/// What to do with a video that is damaged in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCorrupt {
    /// Skip the whole video.
    Skip,
    /// Keep the clips of which no frame is damaged.
    KeepGood,
    /// Keep all clips, and mark those with damaged frames in their row.
    Keep,
    /// Stop the build.
    Fail,
}

/// Source of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labelling {
    /// No labels.
    None,
    /// The name of each file's folder.
    Dirs,
    /// A label file.
    File,
    /// The files beside each video in its tar archive.
    Members,
    /// The list of what to build.
    List,
}

/// Starts of the clips of a video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tiling {
    /// Back to back from the first frame on, as long as whole clips fit: a clip every `frames x
    /// stride` ticks.
    BackToBack,
    /// A clip every this many seconds, from the first frame on, as long as whole clips fit.
    EverySeconds(f64),
    /// This many clips per video, evenly spaced from its start to its end; a single one is taken
    /// from the middle.
    ClipsPerVideo(u32),
}

/// One shard of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name in the folder of shards; of a shard in another folder, its path from there.
    pub file: String,
    /// Number of clips of the data set in the shard.
    pub clips: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Offset and size in bytes of the frames of each row group. Each clip in them has a hash of
    /// its own.
    pub pixels: Vec<(u64, u64)>,
    /// XXH3-64 of all other bytes of the file, in 16 hexadecimal digits.
    pub index_xxh3: String,
    /// XXH3-64 of the stored bytes of `pixels`, one range after another, in 16 hexadecimal digits.
    /// Clips are read without it; it covers what no clip's own hash does: the headers of pages and
    /// of compressed frames.
    pub pixels_xxh3: String,
    /// The rows that belong to the data set, as ranges of first and end, in order; absent if all
    /// of them do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<(u32, u32)>>,
    /// The class number in this manifest of each class number in the shard; absent if they are the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<i32>>,
}

/// A file without clips, or a skipped part of a file, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Path of the file, as given to the build. Bytes that are not UTF-8 are written as `\xNN`, and
    /// backslashes are doubled.
    pub path: String,
    /// Reason.
    pub reason: String,
    /// Start and end of the part, in seconds; none if it is the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<(f64, f64)>,
    /// Number of clips that were skipped because of it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<u64>,
    /// Kind of the fault, if it is one of a part of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FaultKind>,
}

/// The kind of a fault of a stretch of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Pixels differ from what was recorded.
    Damage,
    /// The file ends before its container says.
    CutShort,
    /// There is no frame for a long time.
    Gap,
    /// A listed segment has no clip, or ends before the list says.
    Segment,
}

impl Rejected {
    /// Creates the entry of a whole file without clips.
    pub fn file(path: impl ToString, reason: impl ToString) -> Self {
        Self {
            path: path.to_string(),
            reason: reason.to_string(),
            seconds: None,
            clips: None,
            kind: None,
        }
    }
}

names!(ShortVideo { Self::Repeat => "repeat", Self::Skip => "skip" });
names!(OnCorrupt {
    Self::Skip => "skip",
    Self::KeepGood => "keep-good",
    Self::Keep => "keep",
    Self::Fail => "fail"
});
names!(SceneDetector { Self::Content => "content", Self::Adaptive => "adaptive" });
names!(PixelAspect { Self::Square => "square", Self::Keep => "keep" });
