//! Prepares the decoder of a graph: probes at its sink pad follow and filter packets, and correct
//! caps and segments.

use super::damage::DamageTracker;
use super::facts::Facts;
use super::fast_seek::{PacketAction, PacketFilter};
use super::frame::{PixelRatio, range_only};
use super::lock;
use super::nal::{self, NalFormat};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use schemas::shard::ColorRange;
use std::sync::{Arc, Mutex};

/// A decoder, with what its pad probes have found.
#[derive(Debug, Clone)]
pub(super) struct FoundDecoder {
    pub(super) element: gst::Element,
    pub(super) tracker: Arc<Mutex<DamageTracker>>,
    /// The container's description of the colours.
    pub(super) container_color: Arc<Mutex<Option<gst_video::VideoColorimetry>>>,
    /// The stream's own description of the range, if its decoder does not pass it on.
    pub(super) header_color: Arc<Mutex<Option<gst_video::VideoColorimetry>>>,
}

impl FoundDecoder {
    /// Prepares `element`, a video decoder, before its first packet.
    pub(super) fn new(
        element: &gst::Element,
        facts: &Facts,
        threads: u32,
        filter: Option<&Arc<Mutex<PacketFilter>>>,
    ) -> Self {
        limit_threads(element, threads);
        // As in ffmpeg, pictures before the first that can be decoded completely are not frames.
        if element.find_property("output-corrupt").is_some() {
            element.set_property("output-corrupt", false);
        }
        let mut tracker = DamageTracker::new(threads);
        if facts.has_decoding_times_only() {
            tracker.expect_decoding_times();
        }
        let tracker = Arc::new(Mutex::new(tracker));
        track_packets(element, &tracker, filter.cloned());
        let container_color = intercept_container_color(element);
        let header_color = read_header_color(element);
        announce_encoder(element, facts.codec_tag);
        widen_segments(element);
        Self {
            element: element.clone(),
            tracker,
            container_color,
            header_color,
        }
    }

    /// Returns the pixel aspect ratio of the container, or else of the parser; libav's decoders
    /// prefer the stream's.
    pub(super) fn container_aspect(&self) -> Option<PixelRatio> {
        let caps = self.element.static_pad("sink")?.current_caps()?;
        let ratio = caps
            .structure(0)?
            .get::<gst::Fraction>("pixel-aspect-ratio")
            .ok()?;
        Some(PixelRatio::new(ratio.numer(), ratio.denom())).filter(|&ratio| !ratio.is_square())
    }
}

/// Reports every packet that `decoder` receives to `tracker`, if `filter` does not skip it.
fn track_packets(
    decoder: &gst::Element,
    tracker: &Arc<Mutex<DamageTracker>>,
    filter: Option<Arc<Mutex<PacketFilter>>>,
) {
    let Some(pad) = decoder.static_pad("sink") else {
        return;
    };
    let tracker = Arc::clone(tracker);
    let is_h264 = decoder
        .factory()
        .is_some_and(|factory| factory.name() == "avdec_h264");
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(packet) = info.buffer() {
            let is_key = !packet.flags().contains(gst::BufferFlags::DELTA_UNIT);
            if is_h264 && is_key && allows_missing_frames(pad, packet) {
                lock(&tracker).allow_gaps();
            }
            // Not `Drop`: GStreamer would free the buffer again that the binding has freed.
            match filter
                .as_ref()
                .map(|filter| lock(filter).action(pad, packet))
            {
                None | Some(PacketAction::Decode) => {}
                Some(PacketAction::Skip) => return gst::PadProbeReturn::Handled,
                Some(PacketAction::End) => {
                    // The demultiplexer then ends the stream, and the decoder outputs the frames it
                    // holds.
                    info.flow_res = Err(gst::FlowError::Eos);
                    return gst::PadProbeReturn::Handled;
                }
            }
            let ns = |time: gst::ClockTime| time.nseconds() as i64;
            let has_frame =
                packet.pts().is_some() || !packet.flags().contains(gst::BufferFlags::HEADER);
            if has_frame {
                let shown = packet.pts().or(packet.dts()).map(ns);
                let duration = packet.duration().map(ns);
                let end_ns = shown
                    .zip(duration)
                    .map(|(ns, duration_ns)| ns.saturating_add(duration_ns));
                lock(&tracker).before_packet(shown, end_ns, is_key);
            } else {
                lock(&tracker).before_headers();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whether an H.264 stream may lack frames, by the parameters in the caps of `pad` or in `packet`.
fn allows_missing_frames(pad: &gst::Pad, packet: &gst::BufferRef) -> bool {
    let Some(caps) = pad.current_caps() else {
        return false;
    };
    let config = caps
        .structure(0)
        .and_then(|structure| structure.get::<gst::Buffer>("codec_data").ok());
    let config = config
        .as_ref()
        .and_then(|config| config.map_readable().ok());
    let mut allows = config.is_some_and(|config| nal::config_allows_gaps(&config) == Some(true));
    if let (Some(format), Ok(bytes)) = (NalFormat::of(&caps), packet.map_readable()) {
        format.kind(&bytes, |unit| {
            allows |= nal::allows_gaps(unit) == Some(true)
        });
    }
    allows
}

/// The most that times lose by rounding.
const ROUNDING: gst::ClockTime = gst::ClockTime::from_useconds(1);

/// The most by which a segment is widened before its start.
const MAX_WIDENING: gst::ClockTime = gst::ClockTime::SECOND;

/// Keeps a decoder from clipping frames at the start of an edit: it would show the end of the last
/// frame before the edit, since it uses durations in decoding order. The segment's `offset`, which
/// is not used otherwise here, holds the amount by which the segment is widened, for
/// [`stream_time`].
fn widen_segments(decoder: &gst::Element) {
    let Some(pad) = decoder.static_pad("sink") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::EventView::Segment(event)) = info.event().map(|event| event.view())
            && let Some(segment) = event.segment().downcast_ref::<gst::format::Time>()
            && let Some(start) = segment.start()
        {
            let mut widened = segment.clone();
            let by = start.min(MAX_WIDENING);
            widened.set_start(start - by);
            widened.set_offset(by);
            info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&widened)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Returns the stream time of `pts` in a widened `segment`; none if it is not shown.
pub(super) fn stream_time(
    segment: &gst::FormattedSegment<gst::ClockTime>,
    pts: gst::ClockTime,
) -> Option<gst::ClockTime> {
    let start = segment.start().unwrap_or_default() + segment.offset().unwrap_or_default();
    // Times are rounded down.
    if pts + ROUNDING < start || segment.stop().is_some_and(|stop| pts >= stop) {
        return None;
    }
    Some(pts.saturating_sub(start) + segment.time().unwrap_or_default())
}

/// Codec tags by which ffmpeg recognises the encoder XviD. GStreamer has no caps for them.
const XVID_TAGS: [&[u8; 4]; 5] = [b"XVID", b"XVIX", b"RMP4", b"ZMP4", b"SIPP"];

/// MPEG-4 user data that names the encoder XviD, build 0: libav then behaves as it does for the
/// tag.
const XVID_USER_DATA: &[u8] = b"\0\0\x01\xb2XviD0000";

/// Makes libav's MPEG-4 decoder expect the faults and the transform of the right encoder if only
/// the container's tag names it: inserts the name into the first packet, unless the packet names
/// one itself.
fn announce_encoder(decoder: &gst::Element, codec_tag: Option<[u8; 4]>) {
    let is_xvid =
        codec_tag.is_some_and(|tag| XVID_TAGS.iter().any(|xvid| xvid.eq_ignore_ascii_case(&tag)));
    let is_mpeg4 = decoder
        .factory()
        .is_some_and(|factory| factory.name() == "avdec_mpeg4");
    let (true, Some(pad)) = (is_xvid && is_mpeg4, decoder.static_pad("sink")) else {
        return;
    };
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let config = pad.current_caps().and_then(|caps| {
            let buffer = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
            buffer.map_readable().ok().map(|bytes| bytes.to_vec())
        });
        if let Some(gst::PadProbeData::Buffer(packet)) = &mut info.data
            && let Ok(bytes) = packet.map_readable().map(|bytes| bytes.to_vec())
            && !names_encoder(&config.unwrap_or_default())
            && !names_encoder(&bytes)
        {
            let mut named = gst::Buffer::from_mut_slice([XVID_USER_DATA, &bytes].concat());
            let kept = gst::BufferCopyFlags::FLAGS
                | gst::BufferCopyFlags::TIMESTAMPS
                | gst::BufferCopyFlags::META;
            if packet.copy_into(named.make_mut(), kept, ..).is_ok() {
                *packet = named;
            }
        }
        gst::PadProbeReturn::Remove
    });
}

/// Whether user data in `bytes` names an MPEG-4 encoder that libav knows.
fn names_encoder(bytes: &[u8]) -> bool {
    let user_data = bytes
        .windows(8)
        .filter(|window| window.starts_with(&[0, 0, 1, 0xb2]));
    user_data
        .map(|window| &window[4..])
        .any(|name| matches!(name, b"XviD" | b"DivX" | b"Lavc" | b"FFmp" | b"ffmp"))
}

/// Hides the container's description of the colours from a libav decoder, and returns it: the
/// decoder would prefer it to the stream's own, and the one that GStreamer 1.22 reads from mp4
/// lacks the range.
fn intercept_container_color(
    decoder: &gst::Element,
) -> Arc<Mutex<Option<gst_video::VideoColorimetry>>> {
    let kept = Arc::new(Mutex::new(None));
    let is_libav = decoder
        .factory()
        .is_some_and(|factory| factory.name().starts_with("avdec_"));
    if let (true, Some(pad)) = (is_libav, decoder.static_pad("sink")) {
        let kept = Arc::clone(&kept);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => event.caps_owned(),
                _ => return gst::PadProbeReturn::Ok,
            };
            let text = caps
                .structure(0)
                .and_then(|structure| structure.get::<String>("colorimetry").ok());
            if let Some(color) = text.and_then(|text| text.parse().ok()) {
                *lock(&kept) = Some(color);
                let mut caps = caps;
                caps.make_mut()
                    .iter_mut()
                    .for_each(|structure| structure.remove_field("colorimetry"));
                info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
            }
            gst::PadProbeReturn::Ok
        });
    }
    kept
}

/// Reads the range of samples from the first packet of an AV1 stream.
fn read_header_color(decoder: &gst::Element) -> Arc<Mutex<Option<gst_video::VideoColorimetry>>> {
    let kept = Arc::new(Mutex::new(None));
    let is_av1 = decoder
        .factory()
        .is_some_and(|factory| matches!(factory.name().as_str(), "av1dec" | "dav1ddec"));
    if let (true, Some(pad)) = (is_av1, decoder.static_pad("sink")) {
        let kept = Arc::clone(&kept);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let bytes = info.buffer().and_then(|packet| packet.map_readable().ok());
            let is_full = bytes.and_then(|bytes| super::av1::is_full_range(&bytes));
            *lock(&kept) = is_full.map(|is_full| {
                let range = if is_full {
                    ColorRange::Full
                } else {
                    ColorRange::Limited
                };
                range_only(range)
            });
            gst::PadProbeReturn::Remove
        });
    }
    kept
}

/// Sets the number of threads of a software decoder. The property has one of two names.
fn limit_threads(decoder: &gst::Element, threads: u32) {
    if let Some(property) = ["max-threads", "threads"]
        .into_iter()
        .find(|name| decoder.find_property(name).is_some())
    {
        decoder.set_property_from_str(property, &threads.to_string());
    }
}
