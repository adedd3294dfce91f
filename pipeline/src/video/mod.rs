//! GStreamer: the only room that knows it.
//!
//! - [`sniff`](fn@sniff): is this file video, by its content? `facts` (with `iso`, `transport`): what GStreamer
//!   has to be told of it, or shown instead of it (`spliced`). `graph`: the elements between a file and its packets or frames.
//! - [`probe`](fn@probe): what is in it, and how long is it really? Demultiplexes without decoding.
//! - [`decode::VideoDecoder`]: a file to frames with their presentation times; `decoder`: what is heard and
//!   changed at the pads of its decoder.
//! - [`damage`]: which of them are broken, or missing; `messages`: what a decoder's words mean.
//! - [`container`](mod@container): does the file end before its container says?
//! - [`ticks`]: the grid that frames are sampled on; [`gaps`]: where it has no frames to show;
//!   [`clips`]: frames to clips by it.
//! - [`frame`]: one decoded frame to an I420 frame, scaled and upright.
//! - [`encode`]: frames to an H.264 file; [`gop`]: a stored clip as H.264, and back.

mod av1;
mod bits;
pub mod clips;
pub mod container;
pub mod damage;
pub mod decode;
mod decoder;
pub mod discover;
pub mod encode;
mod facts;
pub mod fast_seek;
pub mod frame;
pub mod gaps;
pub mod gop;
mod graph;
mod iso;
mod messages;
mod nal;
mod probe;
mod sniff;
mod spliced;
pub mod ticks;
mod transport;

use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use probe::{VideoProbe, probe};
pub use sniff::{Content, sniff};

/// How long a pipeline may make no progress before its file is given up.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one wait for a sample lasts before the bus is looked at.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);

/// Why a video gave no frames, or no more of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VideoError {
    /// GStreamer, or a plugin that is needed, is not installed.
    #[error("GStreamer cannot be used: {reason}; install GStreamer 1.22 or newer with its base, good, bad, ugly and libav plugins")]
    Setup {
        /// What GStreamer said.
        reason: String,
    },
    /// An element reported an error.
    #[error("{message}")]
    Stream {
        /// Element that reported it; empty where that is not known.
        element: String,
        /// What it said.
        message: String,
    },
    /// The container has no video stream.
    #[error("no video stream")]
    NoVideo,
    /// The streams are encrypted.
    #[error("the video is encrypted: it cannot be decoded without its key; decrypt it first")]
    Encrypted,
    /// No installed plugin decodes the stream.
    #[error("no installed plugin of GStreamer decodes {codec}")]
    NoDecoder {
        /// Media type of the stream.
        codec: String,
    },
    /// The stream ended without a frame.
    #[error("no frames could be decoded")]
    NoFrames,
    /// The only picture is a still one.
    #[error("only a still picture (cover art)")]
    StillPicture,
    /// The video is shorter than a clip, and such are not wanted.
    #[error("shorter than a clip: {seconds:.2} s of video, a clip spans {clip_seconds:.2} s")]
    TooShort {
        /// Length of the video.
        seconds: f64,
        /// Length of a clip.
        clip_seconds: f64,
    },
    /// No sample, no error and no end within the deadline.
    #[error("no progress within {} s", timeout.as_secs_f64())]
    Stalled {
        /// The deadline.
        timeout: Duration,
    },
    /// A frame cannot be brought to I420.
    #[error("a frame cannot be converted: {reason}")]
    Frame {
        /// Why not.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl VideoError {
    fn setup(error: impl ToString) -> Self {
        Self::Setup { reason: error.to_string() }
    }

    fn frame(error: impl ToString) -> Self {
        Self::Frame { reason: error.to_string() }
    }
}

/// Starts GStreamer, once for the process.
///
/// # Errors
/// [`VideoError::Setup`] when it does not start.
pub fn init() -> Result<(), VideoError> {
    gst::init().map_err(VideoError::setup)?;
    damage::listen();
    Ok(())
}

/// `GStreamer 1.22.0`, say: which version runs.
pub fn version() -> String {
    gst::version_string().to_string()
}

/// A pipeline that is stopped when it is dropped: one that is not leaks its threads and descriptors.
struct RunningPipeline(gst::Pipeline);

impl RunningPipeline {
    fn start(&self) -> Result<(), VideoError> {
        match self.0.set_state(gst::State::Playing) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.bus_error().unwrap_or_else(|| VideoError::Setup { reason: error.to_string() })),
        }
    }

    /// The first error that waits on the bus.
    fn bus_error(&self) -> Option<VideoError> {
        let bus = self.0.bus()?;
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else { return None };
        if error.error().matches(gst::StreamError::Decrypt) || error.error().matches(gst::StreamError::DecryptNokey) {
            return Some(VideoError::Encrypted);
        }
        let element = error.src().map_or_else(String::new, |source| source.name().to_string());
        // GStreamer numbers its elements across the process; the number would make equal failures look different.
        let element = element.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        Some(VideoError::Stream { element, message: error.error().message().trim_end_matches('.').to_owned() })
    }
}

impl Drop for RunningPipeline {
    fn drop(&mut self) {
        // Nothing is left to do about a pipeline that will not stop.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// What is inside is whole at every moment: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a caps' first structure: its media type.
fn media_type(caps: &gst::CapsRef) -> &str {
    caps.structure(0).map_or("", |structure| structure.name().as_str())
}
