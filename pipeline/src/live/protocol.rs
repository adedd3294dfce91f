//! What the live source and its worker processes say to each other ([`crate::worker::process`]).

use crate::video::VideoProbe;
use crate::video::fast_seek::SeekPlan;
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ColorMatrix, ColorRange};
use serde::{Deserialize, Serialize};

/// What a worker is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Count the packets of a video, and decode its first frame.
    Probe {
        /// The file's name, in the system's own bytes.
        path: Vec<u8>,
        options: BuildOptions,
        /// Seconds without progress.
        timeout: f64,
    },
    /// Decode windows of a video.
    Windows {
        /// The file's name, in the system's own bytes.
        path: Vec<u8>,
        options: BuildOptions,
        /// First tick of each window, in order, none twice.
        starts: Vec<u64>,
        /// Ticks of the video.
        ticks: u64,
        /// Time of tick 0.
        start_ns: i64,
        /// Of a frame.
        size: FrameSize,
        /// A short way, and the time of the entry to take.
        shortcut: Option<(SeekPlan, i64)>,
        /// Seconds without progress.
        timeout: f64,
    },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// There is progress.
    Alive,
    /// The answer to [`Task::Probe`].
    Probed {
        probe: VideoProbe,
        /// The short way through the file, where there is one.
        route: Option<SeekPlan>,
    },
    /// The answer to [`Task::Windows`]; `bytes` bytes follow: the windows' frames.
    Windows { range: ColorRange, matrix: ColorMatrix, bytes: usize, effort: Effort },
    /// The task ends here.
    Failed(Failure),
}

/// Why a task has failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// GStreamer cannot be used, for any video.
    Setup(String),
    /// The video has an end before its time.
    Shorter { seconds: f64 },
    /// The frames are of another size.
    OtherSize { found: FrameSize },
    /// Wanted frames are damaged.
    Damaged { seconds: (f64, f64), reason: String },
    /// There are no frames, or no more.
    Undecodable(String),
}

/// What it took to decode windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effort {
    /// Whether the short way led to them: from the last key frame before, and without what is not needed.
    pub short_way: bool,
    /// Whether decoding began elsewhere than at the video's start.
    pub sought: bool,
    /// Packets that came on the short way.
    pub packets: u64,
    /// Those of them that were not decoded.
    pub left_out: u64,
}
