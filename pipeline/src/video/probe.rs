//! What is in a file and how long it really is, without decoding it.
//!
//! A container's header may claim more frames or seconds than there are, so every packet is counted.

use super::decode::orientation_of;
use super::frame::Orientation;
use super::{POLL, RunningPipeline, SwallowedError, VideoError, media_type};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use schemas::geometry::I420;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the packets of a file's first video stream say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoProbe {
    /// GStreamer's media type without `video/`.
    pub codec: String,
    /// Size as coded, before the orientation is applied.
    pub size: I420,
    /// How the picture has to be turned.
    pub orientation: Orientation,
    /// Packets that are shown: the number of frames of a sound file.
    pub packets: u64,
    /// Presentation time of the first shown packet, in nanoseconds of stream time.
    pub start_ns: i64,
    /// When the last shown packet ends.
    pub end_ns: i64,
}

impl VideoProbe {
    /// Seconds from the first frame to the end of the last one.
    pub fn seconds(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / 1e9
    }
}

/// Reads all packets of the first video stream of `path`.
///
/// # Errors
/// As [`super::decode::VideoDecoder::next_frame`], and [`VideoError::NoFrames`] when there are no packets.
pub fn probe(path: &Path, timeout: Duration) -> Result<VideoProbe, VideoError> {
    super::init()?;
    let parsebin = gst::ElementFactory::make("parsebin").build().map_err(VideoError::setup)?;
    let sink = gst_app::AppSink::builder().sync(false).max_buffers(64).build();
    sink.set_property("enable-last-sample", false);
    let pipeline = RunningPipeline::reading(path, &parsebin)?;
    pipeline.0.add(&sink).map_err(VideoError::setup)?;
    let sink_pad = sink.static_pad("sink").ok_or_else(|| VideoError::setup("appsink has no sink pad"))?;
    let no_video = Arc::new(AtomicBool::new(false));
    parsebin.connect_pad_added({
        let sink_pad = sink_pad.clone();
        move |_, pad| {
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let media = media_type(&caps);
            // Motion JPEG and the like are image types. A failed link leaves the pad out, as with sound.
            if !sink_pad.is_linked() && (media.starts_with("video/") || media.starts_with("image/")) {
                let _ = pad.link(&sink_pad);
            }
        }
    });
    parsebin.connect_no_more_pads({
        let (no_video, sink_pad) = (Arc::clone(&no_video), sink_pad.clone());
        move |_| no_video.store(!sink_pad.is_linked(), Ordering::SeqCst)
    });
    let mut swallowed = SwallowedError::listen();
    pipeline.start()?;

    let mut probe: Option<VideoProbe> = None;
    let mut deadline = Instant::now() + timeout;
    loop {
        if let Some(sample) = sink.try_pull_sample(POLL) {
            deadline = Instant::now() + timeout;
            count(&sample, &mut probe);
            continue;
        }
        if let Some(error) = pipeline.bus_error() {
            return Err(error);
        }
        if sink.is_eos() {
            break;
        }
        if no_video.load(Ordering::SeqCst) {
            return Err(VideoError::NoVideo);
        }
        if let (None, Some(error)) = (&probe, swallowed.error()) {
            return Err(error);
        }
        if Instant::now() > deadline {
            return Err(VideoError::Stalled { timeout });
        }
    }
    let mut probe = probe.ok_or(VideoError::NoFrames)?;
    probe.orientation = orientation_of(&Some(sink_pad));
    Ok(probe)
}

/// Adds one packet to what is known.
fn count(sample: &gst::Sample, probe: &mut Option<VideoProbe>) {
    let Some((buffer, caps)) = sample.buffer().zip(sample.caps()) else { return };
    let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::format::Time>());
    let Some(pts) = buffer.pts().or(buffer.dts()) else { return };
    let Some(start) = segment.map_or(Some(pts), |segment| segment.to_stream_time(pts)) else { return };
    let structure = caps.structure(0);
    let number = |name: &str| structure.and_then(|structure| structure.get::<i32>(name).ok()).unwrap_or(0).max(0) as usize;
    let frame_ns = || {
        let rate = structure.and_then(|structure| structure.get::<gst::Fraction>("framerate").ok());
        rate.filter(|rate| rate.numer() > 0).map_or(0, |rate| (1e9 * f64::from(rate.denom()) / f64::from(rate.numer())) as i64)
    };
    let start_ns = start.nseconds() as i64;
    let end_ns = start_ns + buffer.duration().map_or_else(frame_ns, |duration| duration.nseconds() as i64);
    match probe {
        Some(probe) => {
            probe.packets += 1;
            probe.start_ns = probe.start_ns.min(start_ns);
            probe.end_ns = probe.end_ns.max(end_ns);
        }
        None => {
            *probe = Some(VideoProbe {
                codec: media_type(caps).trim_start_matches("video/").to_owned(),
                size: I420 { width: number("width"), height: number("height") },
                orientation: Orientation::default(),
                packets: 1,
                start_ns,
                end_ns,
            });
        }
    }
}
