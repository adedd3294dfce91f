//! What a build and its worker processes say to each other ([`pipeline::worker::process`]).

use pipeline::video::VideoProbe;
use pipeline::video::clips::Fault;
use schemas::manifest::BuildOptions;
use schemas::shard::{ClipMeta, HDR_TRANSFERS};
use serde::{Deserialize, Serialize};

/// What a worker is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Make the clips of a video.
    Build {
        /// The file's name, in the system's own bytes.
        path: Vec<u8>,
        /// How to make them.
        options: BuildOptions,
        /// Threads of the decoder.
        threads: u32,
        /// Seconds that the decoder may make no progress.
        timeout: f64,
        /// Clips that the shards hold already: they are counted and not sent.
        skip: u64,
    },
    /// Count the packets of a video.
    Probe {
        /// The file's name, in the system's own bytes.
        path: Vec<u8>,
        /// How its clips would be made.
        options: BuildOptions,
        /// Seconds that the demultiplexer may make no progress.
        timeout: f64,
    },
}

/// What a build counts of a clip.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct AboutClip {
    /// Whether its end repeats the last frame.
    pub padded: bool,
    /// Whether frames of it are damaged.
    pub damaged: bool,
    /// Whether it is of high dynamic range.
    pub hdr: bool,
}

impl AboutClip {
    /// What is counted of the clip of `meta`.
    pub fn of(meta: &ClipMeta) -> Self {
        let hdr = HDR_TRANSFERS.contains(&meta.color_transfer.as_str());
        Self { padded: meta.repeated_frames > 0, damaged: meta.damaged, hdr }
    }
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// There is progress.
    Alive,
    /// The file has been read: its identity.
    Identity {
        /// BLAKE3 of its bytes, in hex.
        blake3: String,
    },
    /// A clip that was to be skipped.
    Skipped {
        /// What is counted of it.
        about: AboutClip,
        /// Bytes of its I420 frames.
        decoded_bytes: u64,
    },
    /// A clip; `stored_bytes` bytes follow.
    Clip {
        /// All that is known of it.
        meta: Box<ClipMeta>,
        /// Bytes of the page's body before compression.
        uncompressed_bytes: usize,
        /// XXH3-64 of the payload.
        xxh3: u64,
        /// Bytes that follow: the page's body.
        stored_bytes: usize,
    },
    /// The video is done, but for what was wrong with it.
    Built {
        /// What was wrong, with the number of clips that were left out for each.
        faults: Vec<Fault>,
    },
    /// The answer to [`Task::Probe`].
    Probed(VideoProbe),
    /// The task ends here.
    Failed {
        /// Why.
        reason: String,
        /// Where in the video, where that is known.
        seconds: Option<(f64, f64)>,
        /// Whether the video is to blame that the whole build was told to stop for.
        stops_build: bool,
    },
}
