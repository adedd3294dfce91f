//! The tasks and replies of the live source's worker processes ([`crate::worker`]).

use crate::video::fast_seek::SeekPlan;
use crate::video::{VideoError, VideoProbe};
use crate::worker::{End, path_bytes};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ColorMatrix, ColorRange};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A task of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Count the packets of a video, and decode its first frame.
    Probe {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        options: BuildOptions,
        /// Seconds without progress after which the decoder is given up.
        timeout: f64,
    },
    /// Decode windows of a video.
    Windows(WindowsTask),
}

/// Windows to decode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WindowsTask {
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    pub options: BuildOptions,
    /// First tick of each window, ascending, without duplicates.
    pub starts: Vec<u64>,
    /// Ticks of the video.
    pub ticks: u64,
    /// Time of tick 0, in nanoseconds.
    pub start_ns: i64,
    /// Of a frame.
    pub size: FrameSize,
    /// How to seek, and the time of the entry to seek to in nanoseconds, if the file can be decoded
    /// from there.
    pub fast_seek: Option<(SeekPlan, i64)>,
    /// Seconds without progress after which the decoder is given up.
    pub timeout: f64,
}

/// A reply to a task.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To [`Task::Probe`].
    Probed {
        probe: VideoProbe,
        /// How to seek in the file, if that is possible.
        seek_plan: Option<SeekPlan>,
    },
    /// To [`Task::Windows`]; `bytes` bytes follow: the windows' frames.
    Windows {
        range: ColorRange,
        matrix: ColorMatrix,
        bytes: usize,
        effort: Effort,
    },
}

/// Why a task has failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// GStreamer cannot be used, for any video.
    Setup(String),
    /// The video ends early.
    Shorter { seconds: f64 },
    /// The frames are of another size.
    OtherSize { found: FrameSize },
    /// Wanted frames are damaged.
    Damaged { seconds: (f64, f64), reason: String },
    /// There are no frames, or no more of them.
    Undecodable(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Undecodable(reason)
    }
}

impl From<VideoError> for End<Failure> {
    fn from(error: VideoError) -> Self {
        Self::Failed(match error {
            VideoError::Setup { .. } => Failure::Setup(error.to_string()),
            error => Failure::Undecodable(error.to_string()),
        })
    }
}

/// The work that it took to decode windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effort {
    /// Whether decoding was a fast seek: from the last key frame before the windows, and without
    /// the packets that they do not need.
    pub fast_seek: bool,
    /// Whether decoding began elsewhere than at the video's start.
    pub sought: bool,
    /// Packets that came during a fast seek.
    pub packets: u64,
    /// Those of them that were not decoded.
    pub skipped_packets: u64,
}
