//! Video files: finding, probing, decoding, sampling and encoding them. The only room that uses
//! GStreamer.
//!
//! Files:
//! - [`discover`]: which files of the inputs are videos.
//! - [`sniff`](fn@sniff): the type of a file, by its content.
//! - `facts`: what GStreamer needs to know of a file that it does not find out itself, and the
//!   bytes to replace for it; `iso` and `transport` read them from mp4 and transport streams, and
//!   `spliced` is a source with replaced bytes.
//! - [`media`]: members of tar archives, and folders of pictures; `pictures` is their source.
//! - [`container`](mod@container): whether a file ends before its container does.
//!
//! Decoding:
//! - `graph`: the elements between a file and its packets or frames.
//! - [`probe`](fn@probe): the contents of a file and its true length. Demultiplexes without
//!   decoding.
//! - [`decode::VideoDecoder`]: a file to frames with their presentation times; `decoder`: the
//!   probes at the pads of its decoder.
//! - [`fast_seek`]: decodes a few frames of a file without the others; `nal`: which packets that
//!   may skip.
//! - [`damage`]: which frames are broken or missing; `messages`: the meaning of a decoder's
//!   messages.
//! - `av1`, `bits`: headers that GStreamer does not read.
//!
//! Measures:
//! - [`measure`]: changes between frames and cuts; scores of clips.
//!
//! Clips:
//! - [`ticks`]: the grid that frames are sampled on; [`gaps`]: where it has no frames.
//! - [`clips`]: samples clips from frames.
//! - [`frame`]: one decoded frame to an I420 frame, scaled and upright.
//!
//! Encoding:
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
pub mod measure;
pub mod media;
mod messages;
mod nal;
mod pictures;
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

/// Time without progress after which a decoder fails, unless another is given.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Duration of one wait for a sample. The bus is checked between waits.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(50);

/// An error of a video file or of GStreamer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VideoError {
    /// GStreamer or a required plugin is not installed.
    #[error(
        "GStreamer cannot be used: {reason}; install GStreamer 1.22 or newer with its base, good, \
         bad, ugly and libav plugins"
    )]
    Setup {
        /// GStreamer's message.
        reason: String,
    },
    /// An element reported an error.
    #[error("{message}")]
    Stream {
        /// Element that reported the error; empty if unknown.
        element: String,
        /// Its message.
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
    /// The video is a single still picture.
    #[error("only a still picture (cover art)")]
    StillPicture,
    /// The video is shorter than a clip, and the options exclude such videos.
    #[error("shorter than a clip: {seconds:.2} s of video, a clip spans {clip_seconds:.2} s")]
    TooShort {
        /// Length of the video in seconds.
        seconds: f64,
        /// Length of a clip in seconds.
        clip_seconds: f64,
    },
    /// No sample, no error and no end within the timeout.
    #[error("no progress within {} s", timeout.as_secs_f64())]
    Stalled {
        /// The timeout.
        timeout: Duration,
    },
    /// A frame cannot be converted to I420.
    #[error("a frame cannot be converted: {reason}")]
    Frame {
        /// Reason.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
}

impl VideoError {
    fn setup(error: impl ToString) -> Self {
        Self::Setup {
            reason: error.to_string(),
        }
    }

    fn frame(error: impl ToString) -> Self {
        Self::Frame {
            reason: error.to_string(),
        }
    }
}

/// Initialises GStreamer, once per process.
///
/// # Errors
/// [`VideoError::Setup`] when that fails.
pub fn init() -> Result<(), VideoError> {
    gst::init().map_err(VideoError::setup)?;
    damage::watch_log();
    Ok(())
}

/// Returns the version of GStreamer, such as `GStreamer 1.22.0`.
pub fn version() -> String {
    gst::version_string().to_string()
}

/// A pipeline that is stopped when it is dropped: otherwise its threads and file descriptors would
/// leak.
struct RunningPipeline(gst::Pipeline);

impl RunningPipeline {
    fn start(&self) -> Result<(), VideoError> {
        match self.0.set_state(gst::State::Playing) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.bus_error().unwrap_or_else(|| VideoError::Setup {
                reason: error.to_string(),
            })),
        }
    }

    /// Takes the first error from the bus.
    fn bus_error(&self) -> Option<VideoError> {
        let bus = self.0.bus()?;
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        if error.error().matches(gst::StreamError::Decrypt)
            || error.error().matches(gst::StreamError::DecryptNokey)
        {
            return Some(VideoError::Encrypted);
        }
        let element = error
            .src()
            .map_or_else(String::new, |source| source.name().to_string());
        // GStreamer numbers elements per process: the number would make equal errors look
        // different.
        let element = element
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .to_owned();
        Some(VideoError::Stream {
            element,
            message: error.error().message().trim_end_matches('.').to_owned(),
        })
    }
}

impl Drop for RunningPipeline {
    fn drop(&mut self) {
        // Nothing can be done about a pipeline that does not stop.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Locks `mutex`, also after a panic elsewhere: its contents are consistent at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the media type of `caps`: the name of their first structure.
fn media_type(caps: &gst::CapsRef) -> &str {
    caps.structure(0)
        .map_or("", |structure| structure.name().as_str())
}
