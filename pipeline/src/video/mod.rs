//! GStreamer: the only room that knows it.
//!
//! - [`sniff`](fn@sniff): is this file video, by its content?
//! - [`probe`](fn@probe): what is in it, and how long is it really? Demultiplexes without decoding.
//! - [`decode::VideoDecoder`]: a file to frames with their presentation times.
//! - [`damage`]: which of them are broken, or missing.
//! - [`container`](mod@container): does the file end before its container says?
//! - [`ticks`]: the grid that frames are sampled on; [`clips`]: frames to clips by it.
//! - [`frame`]: one decoded frame to an I420 frame, scaled and upright.
//! - [`encode`]: frames to an H.264 file; [`gop`]: a stored clip as H.264, and back.

pub mod clips;
pub mod container;
pub mod damage;
pub mod decode;
pub mod encode;
pub mod frame;
pub mod gop;
mod nal;
mod probe;
pub mod shortcut;
mod sniff;
pub mod ticks;

use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

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
    prefer_libav();
    Ok(())
}

/// Makes libav's decoders the first choice for what GStreamer would give to another library: they report broken packets, and their frames are
/// those of the ffmpeg command line to the bit.
fn prefer_libav() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let registry = gst::Registry::get();
        // libav's decoder of JPEG wants whole pictures.
        registry.lookup_feature("jpegparse").into_iter().for_each(|parser| parser.set_rank(gst::Rank::PRIMARY));
        for (libavs, other) in [("avdec_vp8", "vp8dec"), ("avdec_vp9", "vp9dec"), ("avdec_mjpeg", "jpegdec")] {
            if let Some(decoder) = registry.lookup_feature(libavs) {
                decoder.set_rank(gst::Rank::PRIMARY);
                registry.lookup_feature(other).into_iter().for_each(|other| other.set_rank(gst::Rank::NONE));
            }
        }
    });
}

/// `GStreamer 1.22.0`, say: which version runs.
pub fn version() -> String {
    gst::version_string().to_string()
}

/// A pipeline that is stopped when it is dropped: one that is not leaks its threads and descriptors.
#[derive(Debug)]
struct RunningPipeline(gst::Pipeline);

impl RunningPipeline {
    /// `filesrc ! parser`, not started yet: the source of every reading pipeline.
    fn reading(path: &Path, parser: &gst::Element) -> Result<Self, VideoError> {
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("filesrc").property("location", path).build().map_err(VideoError::setup)?;
        pipeline.add_many([&source, parser]).map_err(VideoError::setup)?;
        source.link(parser).map_err(VideoError::setup)?;
        Ok(Self(pipeline))
    }

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
        // All that was asked for is video: what is missing is its decoder, or the video.
        if error.error().matches(gst::CoreError::MissingPlugin) || error.error().matches(gst::StreamError::CodecNotFound) {
            return Some(VideoError::NoVideo);
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

/// How long a pipeline whose element has posted an error that nobody was told of may stay silent.
const SILENCE: Duration = Duration::from_secs(1);

/// Finds the error that a pipeline's own `decodebin` has kept to itself ([`damage::posted_errors`]).
#[derive(Debug)]
struct SwallowedError {
    before: u64,
    since: Option<Instant>,
}

impl SwallowedError {
    /// Listens from now on.
    fn listen() -> Self {
        Self { before: damage::posted_errors().0, since: None }
    }

    /// The error, when one was posted and silence has followed. To be asked now and then while no data comes.
    fn error(&mut self) -> Option<VideoError> {
        let (posted, message) = damage::posted_errors();
        if posted == self.before {
            return None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        (since.elapsed() > SILENCE).then(|| VideoError::Stream { element: String::new(), message })
    }
}

/// The name of a caps' first structure: its media type.
fn media_type(caps: &gst::CapsRef) -> &str {
    caps.structure(0).map_or("", |structure| structure.name().as_str())
}
