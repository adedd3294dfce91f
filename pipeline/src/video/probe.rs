//! What is in a file and how long it really is, without decoding it.
//!
//! A container's header may claim more frames or seconds than there are, so every packet is counted.

use super::decode::orientation_of;
use super::frame::Orientation;
use super::nal::{NalFormat, PacketKind};
use super::{POLL, RunningPipeline, SwallowedError, VideoError, media_type};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use schemas::geometry::I420;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Entries nearer to the last one are not remembered.
const BETWEEN_ENTRIES_NS: i64 = 250_000_000;

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
    /// Presentation time of the last shown packet.
    pub last_ns: i64,
    /// When the last shown packet ends.
    pub end_ns: i64,
    /// Presentation times of packets at which decoding may begin, in order: from there on it gives the frames, at the times, that decoding from
    /// the start gives. Empty where this is not known, as for streams that are interlaced, or not alone.
    pub entries: Vec<i64>,
    /// Whether each packet says when it is decoded, in order, and none is shown before.
    pub decoding_times: bool,
    /// Stream time minus the packets' own time, where there are entries: the same for all.
    pub shift_ns: i64,
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
    let streams = Arc::new(AtomicUsize::new(0));
    parsebin.connect_pad_added({
        let (sink_pad, streams) = (sink_pad.clone(), Arc::clone(&streams));
        move |_, pad| {
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let media = media_type(&caps);
            // Motion JPEG and the like are image types. A failed link leaves the pad out, as with sound.
            if media.starts_with("video/") || media.starts_with("image/") {
                streams.fetch_add(1, Ordering::SeqCst);
                if !sink_pad.is_linked() {
                    let _ = pad.link(&sink_pad);
                }
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
    let mut entries = Entries::default();
    let mut deadline = Instant::now() + timeout;
    loop {
        if let Some(sample) = sink.try_pull_sample(POLL) {
            deadline = Instant::now() + timeout;
            count(&sample, &mut probe, &mut entries);
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
    if entries.are_known && streams.load(Ordering::SeqCst) == 1 {
        probe.entries = entries.times;
        probe.decoding_times = entries.decoding_times;
        probe.shift_ns = entries.shift_ns.unwrap_or(0);
    }
    Ok(probe)
}

/// Adds one packet to what is known.
fn count(sample: &gst::Sample, probe: &mut Option<VideoProbe>, entries: &mut Entries) {
    let Some((buffer, caps)) = sample.buffer().zip(sample.caps()) else { return };
    let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::format::Time>());
    let Some(pts) = buffer.pts().or(buffer.dts()) else { return };
    let start = segment.map_or(Some(pts), |segment| segment.to_stream_time(pts));
    entries.take(buffer, caps, start);
    let Some(start) = start else { return };
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
            probe.last_ns = probe.last_ns.max(start_ns);
            probe.end_ns = probe.end_ns.max(end_ns);
        }
        None => {
            *probe = Some(VideoProbe {
                codec: media_type(caps).trim_start_matches("video/").to_owned(),
                size: I420 { width: number("width"), height: number("height") },
                orientation: Orientation::default(),
                packets: 1,
                start_ns,
                last_ns: start_ns,
                end_ns,
                entries: Vec::new(),
                decoding_times: false,
                shift_ns: 0,
            });
        }
    }
}

/// Where decoding may begin, as far as it was seen.
#[derive(Debug)]
struct Entries {
    times: Vec<i64>,
    /// Whether nothing was seen that makes them doubtful.
    are_known: bool,
    caps: Option<gst::Caps>,
    format: Option<NalFormat>,
    /// Stream time minus the packets' time.
    shift_ns: Option<i64>,
    /// Hashes of the parameters that came with packets, up to the first entry.
    parameters: Vec<u64>,
    decoding_times: bool,
    last_dts: Option<gst::ClockTime>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            times: Vec::new(),
            are_known: true,
            caps: None,
            format: None,
            shift_ns: None,
            parameters: Vec::new(),
            decoding_times: true,
            last_dts: None,
        }
    }
}

impl Entries {
    /// Looks at one packet, which is shown at `start` of stream time, or not at all.
    fn take(&mut self, packet: &gst::BufferRef, caps: &gst::CapsRef, start: Option<gst::ClockTime>) {
        let Some(pts) = packet.pts() else {
            self.are_known = false;
            return;
        };
        self.decoding_times &= packet.dts().is_some_and(|dts| dts <= pts && self.last_dts.is_none_or(|last| last <= dts));
        self.last_dts = packet.dts();
        match &self.caps {
            None => self.begin(caps),
            Some(known) => self.are_known &= known.as_ref() == caps,
        }
        if !self.are_known {
            return;
        }
        let kind = match self.format {
            Some(format) => packet.map_readable().map_or(PacketKind::Other, |bytes| {
                format.kind(&bytes, |unit| {
                    let hash = xxh3_64(unit);
                    if !self.parameters.contains(&hash) {
                        self.parameters.push(hash);
                        // Who begins at an entry after these would not have them.
                        self.are_known &= self.times.is_empty();
                    }
                })
            }),
            // The containers' word is good for codecs whose key frames forget all that came before.
            None if packet.flags().contains(gst::BufferFlags::DELTA_UNIT) => PacketKind::Other,
            None => PacketKind::Entry,
        };
        if let Some(start) = start {
            let start_ns = start.nseconds() as i64;
            if kind == PacketKind::Entry && self.times.last().is_none_or(|&last| start_ns >= last + BETWEEN_ENTRIES_NS) {
                self.times.push(start_ns);
            }
            let shift_ns = start_ns - pts.nseconds() as i64;
            // More than one stretch of an edit list: a time says no more what is shown.
            self.are_known &= *self.shift_ns.get_or_insert(shift_ns) == shift_ns;
        }
    }

    fn begin(&mut self, caps: &gst::CapsRef) {
        self.caps = Some(caps.to_owned());
        self.format = NalFormat::of(caps);
        let mode = caps.structure(0).and_then(|structure| structure.get::<String>("interlace-mode").ok());
        let forgets_all = matches!(media_type(caps), "video/x-vp8" | "video/x-vp9" | "video/x-av1");
        self.are_known &= mode.is_none_or(|mode| mode == "progressive") && (self.format.is_some() || forgets_all);
    }
}
