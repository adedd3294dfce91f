//! The manifest: what a build says of itself, in `manifest.json` beside the shards, and the lines of the two lists next to it.

use crate::shard::Payload;
use serde::{Deserialize, Serialize};

/// Name of the manifest inside a folder of shards. It is replaced, whole, each time that a shard is finished: what it names is there.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the list of files and clips that were left out, one [`Rejected`] a line, beside the shards.
pub const REJECTED_FILE: &str = "rejected.jsonl";

/// Name of the list of videos that the build has done with, one [`VideoRecord`] a line, beside the shards.
pub const VIDEOS_FILE: &str = "videos.jsonl";

/// How long a frame may be held beyond its time in a clip, unless told otherwise, in seconds.
pub const DEFAULT_GAP_SECONDS: f64 = 1.0;

/// What a build says of itself. It holds no times and no machine's name, so equal builds give equal manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`crate::shard::FORMAT_VERSION`] of the shards.
    pub format_version: u32,
    /// Program and version that built them.
    pub created_by: String,
    /// Whether the build has come to its end. The shards of one that has not are usable all the same.
    pub finished: bool,
    /// Options that decide what is in the shards.
    pub options: BuildOptions,
    /// Class names in the order of their label numbers; empty without labels, or where labels are bare numbers.
    pub classes: Vec<String>,
    /// Shards in reading order.
    pub shards: Vec<ShardEntry>,
    /// Clips in all shards.
    pub clips: u64,
    /// Videos that the shards hold, or that were examined and left out: this many lines of [`VIDEOS_FILE`] belong to this manifest.
    pub videos: u64,
    /// The video whose clips the last shard holds only in part, in a build that has not finished.
    pub open_video: Option<OpenVideo>,
    /// XXH3-64 of the lines of [`VIDEOS_FILE`] that belong to this manifest, in 16 hexadecimal
    /// digits. Manifests of older builds do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub videos_xxh3: Option<String>,
    /// XXH3-64 of [`REJECTED_FILE`], in 16 hexadecimal digits. Only a finished build has it: until
    /// then the file may change without the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_xxh3: Option<String>,
}

/// A video whose first clips are in finished shards, and whose others are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenVideo {
    /// The file, as the build was told to find it: where its name is not UTF-8, other bytes are
    /// `\xNN`, and backslashes are doubled.
    pub path: String,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// Clips of it in the shards.
    pub clips: u64,
}

/// One video that a build has done with: a line of [`VIDEOS_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRecord {
    /// The file, as the build was told to find it: where its name is not UTF-8, other bytes are
    /// `\xNN`, and backslashes are doubled.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970: a file of the same size and time is taken to be the same.
    pub modified_ns: i64,
    /// BLAKE3 of its bytes, in hex; empty when it could not be read to its end.
    pub blake3: String,
    /// Class number, if the build was given labels.
    pub label: Option<i32>,
    /// Class name, if the labels have names.
    pub class: Option<String>,
    /// Clips of it in the shards.
    pub clips: u64,
    /// Those of them whose end repeats the last frame, because the video is too short.
    pub padded_clips: u64,
    /// Those of them with damaged frames, in a build that keeps them.
    #[serde(default)]
    pub damaged_clips: u64,
    /// Whether its samples are of high dynamic range (PQ or HLG).
    #[serde(default)]
    pub hdr: bool,
    /// Bytes of its clips as I420 frames, however they are stored.
    pub decoded_bytes: u64,
    /// What of it was left out.
    pub rejected: Vec<Rejected>,
}

/// Options that decide what is in the shards. Two builds of the same videos with equal options are the same to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildOptions {
    /// Frames a clip.
    pub frames: u32,
    /// Ticks of the sampling grid between two frames of a clip.
    pub stride: u32,
    /// What a tick is.
    pub sampling: Sampling,
    /// Where clips start.
    pub tiling: Tiling,
    /// What becomes of a video that is shorter than a clip.
    pub short: ShortVideo,
    /// What becomes of a video of which parts are damaged.
    pub on_corrupt: OnCorrupt,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
    /// What becomes of pixels that are not square. Shards of format version 2 kept them.
    #[serde(default = "kept")]
    pub pixel_aspect: PixelAspect,
    /// Clips that would show a frame for longer than this beyond its time are left out; none leaves no
    /// clip out for that, as in format version 2.
    #[serde(default)]
    pub gap_seconds: Option<f64>,
    /// How pixels are stored.
    pub payload: Payload,
    /// x264's constant rate factor of payload `h264`, 0 (lossless) to 50; no other payload has one.
    #[serde(default)]
    pub crf: Option<u32>,
    /// zstd level of the payload; 0 stores it as it is.
    pub level: i32,
    /// Where labels come from.
    pub labels: Labelling,
    /// A shard is closed when it has reached this many bytes.
    pub shard_bytes: u64,
}

const fn kept() -> PixelAspect {
    PixelAspect::Keep
}

/// What becomes of pixels that are not square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelAspect {
    /// Frames are scaled in width until pixels are square, as players show them.
    Square,
    /// Frames are stored as they are coded.
    Keep,
}

/// What a tick of the sampling grid is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// So many ticks a second of presentation time.
    TicksPerSecond(f64),
    /// Every decoded frame is a tick, whatever its time.
    SourceFrames,
}

impl Sampling {
    /// Ticks a second, where time is what counts.
    pub const fn fps(self) -> Option<f64> {
        match self {
            Self::TicksPerSecond(fps) => Some(fps),
            Self::SourceFrames => None,
        }
    }
}

/// What becomes of a video that is shorter than a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortVideo {
    /// It gives one clip, whose end repeats its last frame.
    Repeat,
    /// It is left out.
    Skip,
}

/// What becomes of a video of which parts are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCorrupt {
    /// The whole video is left out.
    Skip,
    /// The clips all of whose frames are undamaged are kept.
    KeepGood,
    /// All clips are kept; those with damaged frames say so in their row.
    Keep,
    /// The build stops.
    Fail,
}

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labelling {
    /// There are none.
    None,
    /// The name of each file's folder.
    Dirs,
    /// A file of labels.
    File,
}

/// Where the clips of a video start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tiling {
    /// One clip after the other, from the first frame on, as long as whole clips fit: a clip every `frames x stride` ticks.
    BackToBack,
    /// A clip every so many seconds, from the first frame on, as long as whole clips fit.
    EverySeconds(f64),
    /// So many clips a video, spread evenly from its start to its end; a single one is taken from the middle.
    ClipsPerVideo(u32),
}

/// One shard of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name inside the folder of shards.
    pub file: String,
    /// Clips in it.
    pub clips: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// First byte and number of bytes of the pixels of each row group. Each clip in them has a hash of its own.
    pub pixels: Vec<(u64, u64)>,
    /// XXH3-64 of all other bytes of the file, in 16 hexadecimal digits.
    pub index_xxh3: String,
    /// XXH3-64 of the bytes of `pixels`, one range after the other, as they are stored, in 16 hexadecimal digits. Clips are read without it; it
    /// covers what no clip's own hash does: the headers of pages and of compressed frames.
    pub pixels_xxh3: String,
}

/// A file that gave no clips, or a part of one that was left out, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// The file, as the build was told to find it: where its name is not UTF-8, other bytes are
    /// `\xNN`, and backslashes are doubled.
    pub path: String,
    /// What was wrong with it.
    pub reason: String,
    /// Where in the file, from one second to another of its time; none when it is the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<(f64, f64)>,
    /// Clips that were left out for it, where their number is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<u64>,
    /// What kind of fault it is, where it is one of a stretch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FaultKind>,
}

/// What can be wrong with a stretch of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Pixels are not what was recorded.
    Damage,
    /// The file ends before its container says.
    CutShort,
    /// No frame comes for long.
    Gap,
}

impl Rejected {
    /// A whole file that gave no clips.
    pub fn file(path: impl ToString, reason: impl ToString) -> Self {
        Self { path: path.to_string(), reason: reason.to_string(), seconds: None, clips: None, kind: None }
    }
}

names!(ShortVideo { Self::Repeat => "repeat", Self::Skip => "skip" });
names!(OnCorrupt {
    Self::Skip => "skip",
    Self::KeepGood => "keep-good",
    Self::Keep => "keep",
    Self::Fail => "fail"
});
names!(PixelAspect { Self::Square => "square", Self::Keep => "keep" });
