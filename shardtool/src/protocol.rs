//! The tasks and replies of a build's worker processes ([`pipeline::worker`]).

use pipeline::video::VideoProbe;
use pipeline::video::clips::{Fault, Segment};
use pipeline::worker::path_bytes;
use schemas::manifest::BuildOptions;
use schemas::shard::{ClipMeta, HDR_TRANSFERS, Parts};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A task of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Make the clips of a video.
    Build(BuildTask),
    /// Count the packets of a video.
    Probe {
        /// The video.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// Where its bytes are, if it was downloaded from a store.
        download: Option<PathBuf>,
        /// How its clips would be made.
        options: BuildOptions,
        /// Seconds without progress after which the demultiplexer is given up.
        timeout: f64,
    },
}

/// A video to make clips of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildTask {
    /// The video.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// Where its bytes are, if it was downloaded from a store.
    pub download: Option<PathBuf>,
    /// The stretches of it to make clips of.
    pub segments: Vec<Segment>,
    /// How to make the clips.
    pub options: BuildOptions,
    /// Threads of the decoder.
    pub threads: u32,
    /// Seconds without progress after which the decoder is given up.
    pub timeout: f64,
    /// Number of clips that the shards hold already: they are counted and not sent.
    pub skip: u64,
}

/// Properties of a clip that a build counts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ClipFlags {
    /// Whether its end repeats the last frame.
    pub padded: bool,
    /// Whether frames of it are damaged.
    pub damaged: bool,
    /// Whether it has a high dynamic range.
    pub hdr: bool,
}

impl ClipFlags {
    /// Those of the clip with `meta`.
    pub fn of(meta: &ClipMeta) -> Self {
        let hdr = HDR_TRANSFERS.contains(&meta.color_transfer.as_str());
        Self {
            padded: meta.repeated_frames > 0,
            damaged: meta.damaged,
            hdr,
        }
    }
}

/// A reply to a task.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The file has been read once.
    Identity {
        /// BLAKE3 of its bytes, in hex.
        blake3: String,
    },
    /// One of the clips to skip.
    Skipped {
        /// Its properties.
        flags: ClipFlags,
        /// Bytes of its I420 frames.
        decoded_bytes: u64,
    },
    /// A clip; `stored_bytes` bytes follow.
    Clip {
        /// Its columns in the shard, without those that the list and the labels give.
        meta: Box<ClipMeta>,
        /// Index of its segment in [`BuildTask::segments`].
        segment: u32,
        /// Bytes of the page's body before compression.
        uncompressed_bytes: usize,
        /// XXH3-64 of the payload.
        xxh3: u64,
        /// The parts of the body.
        parts: Parts,
        /// Bytes that follow: the page's body.
        stored_bytes: usize,
    },
    /// The end of [`Task::Build`].
    Built {
        /// The video's faults, each with the number of clips that it cost.
        faults: Vec<Fault>,
        /// Times at which its scenes begin, in seconds of stream time, without the first; none if
        /// scenes were not looked for.
        cuts: Option<Vec<f64>>,
    },
    /// To [`Task::Probe`].
    Probed(VideoProbe),
}

/// Why a task has failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The reason.
    pub reason: String,
    /// Start and end in the video, in seconds, where they are known.
    pub seconds: Option<(f64, f64)>,
    /// Whether the video is damaged and the options are to stop the whole build then.
    pub stops_build: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            reason,
            seconds: None,
            stops_build: false,
        }
    }
}
