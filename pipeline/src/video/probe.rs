//! Finds the contents of a file and its true length without decoding it.
//!
//! A container's header may declare more frames or seconds than there are, so every packet is
//! counted.

use super::decode::{DecodeOptions, VideoDecoder};
use super::frame::SourceShape;
use super::gaps::{Gap, GapFinder};
use super::graph::{Graph, Output};
use super::nal::{NalFormat, PacketKind};
use super::ticks::gap_limit_ns;
use super::{VideoError, media_type};
use gstreamer as gst;
use schemas::manifest::BuildOptions;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Minimum distance of entries: nearer ones are not recorded.
const MIN_ENTRY_DISTANCE_NS: i64 = 250_000_000;

/// The result of probing a file: facts from the packets of its video, and from its first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoProbe {
    /// GStreamer's media type without `video/`.
    pub codec: String,
    /// Element that decodes it.
    pub decoder: String,
    /// Size of a decoded frame, aspect ratio of its pixels, and rotation that makes it upright.
    pub shape: SourceShape,
    /// Whether the stream is interlaced.
    pub deinterlaced: bool,
    /// Number of packets that are shown: the number of frames of a valid file.
    pub packets: u64,
    /// Presentation time of the first frame, in nanoseconds of stream time.
    pub start_ns: i64,
    /// Presentation time of the last shown packet.
    pub last_ns: i64,
    /// End of the last shown packet.
    pub end_ns: i64,
    /// Stretches without a frame that are longer than allowed, in order.
    pub gaps: Vec<Gap>,
    /// Presentation times of packets at which decoding may begin, in order: from there on it gives
    /// the frames of decoding from the start, at the same times. Empty if this is unknown, as for
    /// interlaced streams and files with several video streams.
    pub entries: Vec<i64>,
    /// Whether all packets have decoding times, in order, and none is shown before it is decoded.
    pub decoding_times: bool,
    /// Stream time minus the packets' own time, if there are entries: the same for all packets.
    pub shift_ns: i64,
}

impl VideoProbe {
    /// Returns the seconds from the first frame to the end of the last one.
    pub fn seconds(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / 1e9
    }
}

/// Reads all packets of the video in the file at `path`, and decodes its first frame, with the
/// elements that a build with `options` uses.
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
/// Those of [`VideoDecoder::next_frame`], and [`VideoError::NoFrames`] when there are no frames.
pub fn probe(
    path: &Path,
    options: &BuildOptions,
    timeout: Duration,
) -> Result<VideoProbe, VideoError> {
    super::init()?;
    let decode = DecodeOptions::of_build(1, timeout, options);
    let mut decoder = VideoDecoder::open(path, decode)?;
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

/// Time and duration of a packet that is shown.
type ShownPacket = (i64, Option<i64>);

/// Reads all packets, and adds their facts to `probe`. A packet without a time is shown after the
/// one before, which is shown for `frame_ns` if it has no duration.
fn read_packets(
    path: &Path,
    options: &BuildOptions,
    timeout: Duration,
    frame_ns: Option<i64>,
    probe: &mut VideoProbe,
) -> Result<(), VideoError> {
    let picture_rate = DecodeOptions::of_build(1, timeout, options).picture_rate;
    let mut graph = Graph::new(path, picture_rate, Output::Packets, None)?;
    graph.pipeline.start()?;
    let mut entries = Entries::default();
    let mut shown: Vec<ShownPacket> = Vec::new();
    loop {
        let sample = match graph.pull(timeout) {
            Ok(Some(sample)) => sample,
            Ok(None) => break,
            Err(error @ VideoError::Stalled { .. }) => return Err(error),
            // The file is broken further on: a build gets the packets before.
            Err(error) if shown.is_empty() => return Err(error),
            Err(_) => break,
        };
        let after = shown
            .last()
            .zip(frame_ns)
            .map(|(&(ns, duration_ns), frame_ns)| {
                ns.saturating_add(duration_ns.filter(|&ns| ns > 0).unwrap_or(frame_ns))
            });
        shown.extend(shown_packet(
            &sample,
            graph.is_elementary,
            after,
            frame_ns,
            &mut entries,
        ));
    }
    if shown.is_empty() {
        return Err(VideoError::NoFrames);
    }
    // Packets come in decoding order. Those before the first frame are not shown.
    shown.retain(|&(ns, _)| ns >= probe.start_ns);
    shown.sort_unstable();
    probe.packets = shown.len() as u64;
    let mut finder = gap_limit_ns(options).map(GapFinder::new);
    for &(ns, duration_ns) in &shown {
        probe.gaps.extend(
            finder
                .as_mut()
                .and_then(|finder| finder.next(ns, duration_ns)),
        );
        probe.last_ns = probe.last_ns.max(ns);
        probe.end_ns = probe
            .end_ns
            .max(ns.saturating_add(duration_ns.unwrap_or(0)));
    }
    if entries.are_known && graph.streams() == 1 {
        probe.entries = entries.times;
        probe.decoding_times = entries.decoding_times;
        probe.shift_ns = entries.shift_ns.unwrap_or(0);
    }
    Ok(())
}

/// Returns the time and the duration of the packet of `sample`; none if it is not shown. Without a
/// time of its own it is shown at `after`, without a duration for `default_ns`.
fn shown_packet(
    sample: &gst::Sample,
    is_elementary: bool,
    after: Option<i64>,
    default_ns: Option<i64>,
    entries: &mut Entries,
) -> Option<ShownPacket> {
    let (buffer, caps) = sample.buffer().zip(sample.caps())?;
    let segment = sample
        .segment()
        .and_then(|segment| segment.downcast_ref::<gst::format::Time>());
    let Some(pts) = buffer.pts().or(buffer.dts()) else {
        entries.are_known = false;
        let has_frame = !buffer.flags().contains(gst::BufferFlags::HEADER);
        return after.filter(|_| has_frame).map(|ns| (ns, default_ns));
    };
    let start = segment.map_or(Some(pts), |segment| segment.to_stream_time(pts));
    entries.add_packet(buffer, caps, start);
    let start_ns = start?.nseconds() as i64;
    let rate = caps
        .structure(0)
        .and_then(|structure| structure.get::<gst::Fraction>("framerate").ok());
    let rate = rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0);
    let frame_ns =
        rate.map(|rate| (1e9 * f64::from(rate.denom()) / f64::from(rate.numer())) as i64);
    let start_ns = if is_elementary {
        exact_ns(start_ns, rate)
    } else {
        start_ns
    };
    Some((
        start_ns,
        buffer
            .duration()
            .map(|duration| duration.nseconds() as i64)
            .or(frame_ns),
    ))
}

/// Returns the exact time of a frame of an elementary stream, whose times are sums of rounded
/// durations: the nearest multiple of the frame duration.
pub(super) fn exact_ns(ns: i64, rate: Option<gst::Fraction>) -> i64 {
    let Some(rate) = rate.filter(|rate| rate.numer() > 0 && rate.denom() > 0) else {
        return ns;
    };
    let frame_ns = 1e9 * f64::from(rate.denom()) / f64::from(rate.numer());
    let frames = (ns as f64 / frame_ns).round();
    let exact = frames * frame_ns;
    if (exact - ns as f64).abs() < frame_ns / 8.0 {
        exact as i64
    } else {
        ns
    }
}

/// The entries among the packets so far: where decoding may begin.
#[derive(Debug)]
struct Entries {
    times: Vec<i64>,
    /// Whether nothing makes them doubtful so far.
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
    /// Adds a packet, which is shown at `start` in stream time, or not at all.
    fn add_packet(
        &mut self,
        packet: &gst::BufferRef,
        caps: &gst::CapsRef,
        start: Option<gst::ClockTime>,
    ) {
        let Some(pts) = packet.pts() else {
            self.are_known = false;
            return;
        };
        self.decoding_times &= packet
            .dts()
            .is_some_and(|dts| dts <= pts && self.last_dts.is_none_or(|last| last <= dts));
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
                        // A decoder that begins at an entry after these would lack them.
                        self.are_known &= self.times.is_empty();
                    }
                })
            }),
            // The container's flag is reliable for codecs whose key frames reset the decoder.
            None if packet.flags().contains(gst::BufferFlags::DELTA_UNIT) => PacketKind::Other,
            None => PacketKind::Entry,
        };
        if let Some(start) = start {
            let start_ns = start.nseconds() as i64;
            if kind == PacketKind::Entry
                && self
                    .times
                    .last()
                    .is_none_or(|&last| start_ns >= last + MIN_ENTRY_DISTANCE_NS)
            {
                self.times.push(start_ns);
            }
            let shift_ns = start_ns - pts.nseconds() as i64;
            // An edit list with several stretches: a time no longer determines the frame.
            self.are_known &= *self.shift_ns.get_or_insert(shift_ns) == shift_ns;
        }
    }

    fn begin(&mut self, caps: &gst::CapsRef) {
        self.caps = Some(caps.to_owned());
        self.format = NalFormat::of(caps);
        let mode = caps
            .structure(0)
            .and_then(|structure| structure.get::<String>("interlace-mode").ok());
        let resets_at_keys = matches!(
            media_type(caps),
            "video/x-vp8" | "video/x-vp9" | "video/x-av1"
        );
        self.are_known &= mode.is_none_or(|mode| mode == "progressive")
            && (self.format.is_some() || resets_at_keys);
    }
}
