//! Encodes I420 frames to an H.264 file (x264, mp4).

use super::{RunningPipeline, VideoError};
use crate::frames::Color;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use schemas::geometry::FrameSize;
use std::path::{Path, PathBuf};

/// x264's quantizer for every frame: no visible artefacts, a few kilobytes per frame.
const QUANTIZER: u32 = 20;

/// Maximum number of frames from one key frame to the next.
const MAX_KEY_FRAME_INTERVAL: u32 = 60;

/// Writes frames to an H.264 mp4 file. Equal frames give equal files.
pub struct H264Writer {
    pipeline: RunningPipeline,
    source: gst_app::AppSrc,
    path: PathBuf,
    size: FrameSize,
    /// Frames per second.
    rate: gst::Fraction,
    frames: u64,
}

impl H264Writer {
    /// Creates the file at `path` for frames of `size` at `fps` frames per second. Both sides of
    /// `size` must be even.
    ///
    /// # Errors
    /// [`VideoError::Setup`] when a plugin is missing, [`VideoError::Write`] when the file cannot
    /// be created.
    pub fn create(path: &Path, size: FrameSize, fps: u32) -> Result<Self, VideoError> {
        Self::begin(path, size, gst::Fraction::new(fps as i32, 1), None)
    }

    /// Like [`Self::create`], at a rate that need not be an integer (29.97 becomes 2997/100), with
    /// samples of `color`.
    ///
    /// # Errors
    /// Those of [`Self::create`], and [`VideoError::Frame`] when no fraction of 32-bit numbers
    /// approximates the rate.
    pub fn create_with(
        path: &Path,
        size: FrameSize,
        fps: f64,
        color: Color,
    ) -> Result<Self, VideoError> {
        let rate = gst::Fraction::approximate_f64(fps).filter(|rate| rate.numer() > 0);
        let rate = rate.ok_or_else(|| {
            VideoError::frame(format!(
                "a rate of {fps} frames per second cannot be written"
            ))
        })?;
        Self::begin(path, size, rate, Some(color))
    }

    fn begin(
        path: &Path,
        size: FrameSize,
        rate: gst::Fraction,
        color: Option<Color>,
    ) -> Result<Self, VideoError> {
        super::init()?;
        let mut info = gst_video::VideoInfo::builder(
            gst_video::VideoFormat::I420,
            size.width as u32,
            size.height as u32,
        )
        .fps(rate);
        let colorimetry = color.map(Color::colorimetry);
        if let Some(colorimetry) = &colorimetry {
            info = info.colorimetry(colorimetry);
        }
        let info = info.build().map_err(VideoError::frame)?;
        let source = gst_app::AppSrc::builder()
            .caps(&info.to_caps().map_err(VideoError::frame)?)
            .format(gst::Format::Time)
            .block(true)
            .max_bytes(8 * info.size() as u64)
            .build();
        let make = gst::ElementFactory::make;
        let encoder = make("x264enc")
            .property_from_str("pass", "quant")
            .property("quantizer", QUANTIZER)
            .property("key-int-max", MAX_KEY_FRAME_INTERVAL)
            .property_from_str("speed-preset", "veryfast")
            .property("threads", 1u32)
            .build()
            .map_err(VideoError::setup)?;
        let muxer = make("mp4mux")
            .property("faststart", true)
            .build()
            .map_err(VideoError::setup)?;
        let sink = make("filesink")
            .property("location", path)
            .build()
            .map_err(VideoError::setup)?;
        let pipeline = gst::Pipeline::new();
        let elements = [source.upcast_ref(), &encoder, &muxer, &sink];
        pipeline.add_many(elements).map_err(VideoError::setup)?;
        gst::Element::link_many(elements).map_err(VideoError::setup)?;
        let writer = Self {
            pipeline: RunningPipeline(pipeline),
            source,
            path: path.to_owned(),
            size,
            rate,
            frames: 0,
        };
        writer
            .pipeline
            .start()
            .map_err(|error| writer.error(error))?;
        Ok(writer)
    }

    /// Appends a tightly packed frame.
    ///
    /// # Errors
    /// [`VideoError::Write`] when the pipeline has failed.
    pub fn push(&mut self, frame: &[u8]) -> Result<(), VideoError> {
        assert_eq!(frame.len(), self.size.frame_bytes(), "bytes of a frame");
        let seconds_of = |frames: u64| u128::from(frames) * self.rate.denom() as u128;
        let time = |frame: u64| {
            gst::ClockTime::from_nseconds(
                (seconds_of(frame) * 1_000_000_000 / self.rate.numer() as u128) as u64,
            )
        };
        let begin = time(self.frames);
        let end = time(self.frames + 1);
        let buffer = raw_buffer(frame.to_vec(), self.size, begin, end - begin)?;
        self.frames += 1;
        self.source
            .push_buffer(buffer)
            .map(drop)
            .map_err(|error| self.error(VideoError::frame(error)))
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`VideoError::Write`] when the pipeline fails before the end.
    pub fn finish(self) -> Result<(), VideoError> {
        self.source
            .end_of_stream()
            .map_err(|error| self.error(VideoError::frame(error)))?;
        let bus = self
            .pipeline
            .0
            .bus()
            .ok_or_else(|| VideoError::setup("a pipeline without a bus"))?;
        let timeout = super::DEFAULT_TIMEOUT;
        let deadline = gst::ClockTime::try_from(timeout).map_err(VideoError::setup)?;
        let message =
            bus.timed_pop_filtered(deadline, &[gst::MessageType::Eos, gst::MessageType::Error]);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => Ok(()),
            Some(gst::MessageView::Error(error)) => {
                Err(self.error(VideoError::frame(error.error())))
            }
            _ => Err(self.error(VideoError::Stalled { timeout })),
        }
    }

    /// Returns the pipeline's own error if it has one, else `error`, with the path of the file.
    fn error(&self, error: VideoError) -> VideoError {
        let reason = self.pipeline.bus_error().unwrap_or(error).to_string();
        VideoError::Write {
            path: self.path.clone(),
            reason,
        }
    }
}

/// Creates a buffer of one tightly packed I420 frame.
pub(super) fn raw_buffer(
    frame: Vec<u8>,
    size: FrameSize,
    pts: gst::ClockTime,
    duration: gst::ClockTime,
) -> Result<gst::Buffer, VideoError> {
    let mut buffer = gst::Buffer::from_slice(frame);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(pts);
        buffer.set_duration(duration);
        // GStreamer's default layout pads rows; the meta declares that these are not padded.
        let offsets = [0, 1, 2].map(|plane| size.plane_range(plane).start);
        let strides = [0, 1, 2].map(|plane| size.plane_size(plane).0 as i32);
        let flags = gst_video::VideoFrameFlags::empty();
        let format = gst_video::VideoFormat::I420;
        gst_video::VideoMeta::add_full(
            buffer,
            flags,
            format,
            size.width as u32,
            size.height as u32,
            &offsets,
            &strides,
        )
        .map_err(VideoError::frame)?;
    }
    Ok(buffer)
}
