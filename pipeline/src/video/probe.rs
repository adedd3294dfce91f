//! What is in a file and how long it really is, without decoding it.
//!
//! A container's header may claim more frames or seconds than there are, so every packet is counted.

use super::decode::{DecodeOptions, VideoDecoder};
use super::frame::SourceShape;
use super::gaps::{Gap, GapFinder};
use super::graph::{Graph, Until};
use super::nal::{NalFormat, PacketKind};
use super::ticks::gap_limit_ns;
use super::{POLL, VideoError, media_type};
use gstreamer as gst;
use schemas::manifest::BuildOptions;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Entries nearer to the last one are not remembered.
const BETWEEN_ENTRIES_NS: i64 = 250_000_000;

/// What the packets of a file's video say, and its first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoProbe {
    /// GStreamer's media type without `video/`.
    pub codec: String,
    /// Element that decodes it.
    pub decoder: String,
    /// Size of a frame as decoded, of its pixels, and how it has to be turned.
    pub shape: SourceShape,
    /// Whether the stream is interlaced.
    pub deinterlaced: bool,
    /// Packets that are shown: the number of frames of a valid file.
    pub packets: u64,
    /// Presentation time of the first frame, in nanoseconds of stream time.
    pub start_ns: i64,
    /// Presentation time of the last shown packet.
    pub last_ns: i64,
    /// When the last shown packet ends.
    pub end_ns: i64,
    /// Where no frame comes for longer than is allowed, in order.
    pub gaps: Vec<Gap>,
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

/// Reads all packets of the video in the file at `path`, and decodes its first frame: what a build with
/// `options` would find, by the same elements.
///
/// ```no_run
/// use pipeline::shard::synthetic;
/// use pipeline::video::{DEFAULT_TIMEOUT, probe};
/// use std::path::Path;
///
/// # fn main() -> Result<(), pipeline::video::VideoError> {
/// let video = probe(Path::new("video.mp4"), &synthetic::options(), DEFAULT_TIMEOUT)?;
/// println!("{} frames of {} in {:.1} s", video.packets, video.codec, video.seconds());
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`VideoDecoder::next_frame`], and [`VideoError::NoFrames`] when there are none.
pub fn probe(path: &Path, options: &BuildOptions, timeout: Duration) -> Result<VideoProbe, VideoError> {
    super::init()?;
    let mut decoder = VideoDecoder::open(path, DecodeOptions { threads: 1, timeout })?;
    let first = decoder.next_frame()?.ok_or(VideoError::NoFrames)?;
    let (codec, element) = decoder.codec_and_decoder();
    let mut probe = VideoProbe {
        codec,
        decoder: element.split(',').next().unwrap_or_default().to_owned(),
        shape: decoder.shape(&first),
        deinterlaced: decoder.is_deinterlaced(),
        packets: 0,
        start_ns: first.pts_ns,
        last_ns: first.pts_ns,
        end_ns: first.pts_ns,
        gaps: Vec::new(),
        entries: Vec::new(),
        decoding_times: false,
        shift_ns: 0,
    };
    let frame_ns = first.frame_rate().map(|rate| (1e9 / rate) as i64);
    drop((first, decoder));
    read_packets(path, options, timeout, frame_ns, &mut probe)?;
    Ok(probe)
}

/// One packet that is shown: its time, and how long it is shown.
type ShownPacket = (i64, Option<i64>);

/// Reads all packets, and adds to `probe` what they say. A packet that does not say when it is shown is shown
/// after the one before, which lasts for `frame_ns`.
fn read_packets(
    path: &Path,
    options: &BuildOptions,
    timeout: Duration,
    frame_ns: Option<i64>,
    probe: &mut VideoProbe,
) -> Result<(), VideoError> {
    let graph = Graph::new(path, Until::Packets, None)?;
    graph.pipeline.start()?;
    let mut entries = Entries::default();
    let mut shown: Vec<ShownPacket> = Vec::new();
    let mut deadline = Instant::now() + timeout;
    loop {
        if let Some(sample) = graph.sink.try_pull_sample(POLL) {
            deadline = Instant::now() + timeout;
            let after = shown
                .last()
                .zip(frame_ns)
                .map(|(&(ns, lasts_ns), frame_ns)| ns.saturating_add(lasts_ns.filter(|&ns| ns > 0).unwrap_or(frame_ns)));
            shown.extend(shown_packet(&sample, graph.is_elementary, after, frame_ns, &mut entries));
            continue;
        }
        if let Some(error) = graph.failure() {
            // Broken further on: what came before is what a build gets.
            if shown.is_empty() {
                return Err(error);
            }
            break;
        }
        if graph.sink.is_eos() {
            break;
        }
        if Instant::now() > deadline {
            return Err(VideoError::Stalled { timeout });
        }
    }
    if shown.is_empty() {
        return Err(VideoError::NoFrames);
    }
    // Packets come in the order in which they are decoded. What would be shown before the first frame is not.
    shown.retain(|&(ns, _)| ns >= probe.start_ns);
    shown.sort_unstable();
    probe.packets = shown.len() as u64;
    let mut finder = gap_limit_ns(options).map(GapFinder::new);
    for &(ns, duration_ns) in &shown {
        probe.gaps.extend(finder.as_mut().and_then(|finder| finder.next(ns, duration_ns)));
        probe.last_ns = probe.last_ns.max(ns);
        probe.end_ns = probe.end_ns.max(ns.saturating_add(duration_ns.unwrap_or(0)));
    }
    if entries.are_known && graph.streams() == 1 {
        probe.entries = entries.times;
        probe.decoding_times = entries.decoding_times;
        probe.shift_ns = entries.shift_ns.unwrap_or(0);
    }
    Ok(())
}

/// When the packet of `sample` is shown, and for how long; none where it is not. Without a time of its own it
/// is shown at `after`, without a duration for `lasts_ns`.
fn shown_packet(
    sample: &gst::Sample,
    is_elementary: bool,
    after: Option<i64>,
    lasts_ns: Option<i64>,
    entries: &mut Entries,
) -> Option<ShownPacket> {
    let (buffer, caps) = sample.buffer().zip(sample.caps())?;
    let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::format::Time>());
    let Some(pts) = buffer.pts().or(buffer.dts()) else {
        entries.are_known = false;
        let has_frame = !buffer.flags().contains(gst::BufferFlags::HEADER);
        return after.filter(|_| has_frame).map(|ns| (ns, lasts_ns));
    };
    let start = segment.map_or(Some(pts), |segment| segment.to_stream_time(pts));
    entries.take(buffer, caps, start);
    let start_ns = start?.nseconds() as i64;
    let rate = caps.structure(0).and_then(|structure| structure.get::<gst::Fraction>("framerate").ok());
    let rate = rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0);
    let frame_ns = rate.map(|rate| (1e9 * f64::from(rate.denom()) / f64::from(rate.numer())) as i64);
    let start_ns = if is_elementary { exact_ns(start_ns, rate) } else { start_ns };
    Some((start_ns, buffer.duration().map(|duration| duration.nseconds() as i64).or(frame_ns)))
}

/// The time of a frame of a bare stream, whose times are sums of rounded durations: the multiple of `rate`
/// that is meant.
pub(super) fn exact_ns(ns: i64, rate: Option<gst::Fraction>) -> i64 {
    let Some(rate) = rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0) else { return ns };
    let frame_ns = 1e9 * f64::from(rate.denom()) / f64::from(rate.numer());
    let frames = (ns as f64 / frame_ns).round();
    let exact = frames * frame_ns;
    if (exact - ns as f64).abs() < frame_ns / 8.0 { exact as i64 } else { ns }
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
