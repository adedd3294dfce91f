//! A decoder of the graph and what is heard and changed at its pads: packets on their way in, their caps and
//! their segments.

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

/// A decoder, with what has been heard at its pads.
#[derive(Debug, Clone)]
pub(super) struct FoundDecoder {
    pub(super) element: gst::Element,
    pub(super) tracker: Arc<Mutex<DamageTracker>>,
    /// What the container says of the colours.
    pub(super) container_color: Arc<Mutex<Option<gst_video::VideoColorimetry>>>,
    /// What the stream says of the range, where its decoder does not pass it on.
    pub(super) header_color: Arc<Mutex<Option<gst_video::VideoColorimetry>>>,
}

impl FoundDecoder {
    /// Prepares `element`, a video decoder, before it is given anything.
    pub(super) fn new(element: &gst::Element, facts: &Facts, threads: u32, filter: Option<&Arc<Mutex<PacketFilter>>>) -> Self {
        limit_threads(element, threads);
        // As ffmpeg: pictures before the first that can be decoded whole are not frames.
        if element.find_property("output-corrupt").is_some() {
            element.set_property("output-corrupt", false);
        }
        let mut tracker = DamageTracker::new(threads);
        if facts.has_decoding_times_only() {
            tracker.expect_decoding_times();
        }
        let tracker = Arc::new(Mutex::new(tracker));
        track_packets(element, &tracker, filter.cloned());
        let container_color = keep_container_color(element);
        let header_color = read_header_color(element);
        announce_encoder(element, facts.codec_tag);
        widen_segments(element);
        Self { element: element.clone(), tracker, container_color, header_color }
    }

    /// The shape of a pixel as the container says it, or else the parser; libav's decoders would rather
    /// believe the stream.
    pub(super) fn given_aspect(&self) -> Option<PixelRatio> {
        let caps = self.element.static_pad("sink")?.current_caps()?;
        let ratio = caps.structure(0)?.get::<gst::Fraction>("pixel-aspect-ratio").ok()?;
        Some(PixelRatio::new(ratio.numer(), ratio.denom())).filter(|&ratio| !ratio.is_square())
    }
}

/// Tells `tracker` of every packet that `decoder` is given, once `filter` has let it through.
fn track_packets(decoder: &gst::Element, tracker: &Arc<Mutex<DamageTracker>>, filter: Option<Arc<Mutex<PacketFilter>>>) {
    let Some(pad) = decoder.static_pad("sink") else { return };
    let tracker = Arc::clone(tracker);
    let is_h264 = decoder.factory().is_some_and(|factory| factory.name() == "avdec_h264");
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(packet) = info.buffer() {
            let is_key = !packet.flags().contains(gst::BufferFlags::DELTA_UNIT);
            if is_h264 && is_key && says_that_gaps_are_legal(pad, packet) {
                lock(&tracker).allow_gaps();
            }
            // Not `Drop`, after which GStreamer would free again what the binding has freed.
            match filter.as_ref().map(|filter| lock(filter).action(pad, packet)) {
                None | Some(PacketAction::Decoded) => {}
                Some(PacketAction::LeftOut) => return gst::PadProbeReturn::Handled,
                Some(PacketAction::TooLate) => {
                    // The demultiplexer then ends the stream, and the decoder gives what it still holds.
                    info.flow_res = Err(gst::FlowError::Eos);
                    return gst::PadProbeReturn::Handled;
                }
            }
            let ns = |time: gst::ClockTime| time.nseconds() as i64;
            let has_frame = packet.pts().is_some() || !packet.flags().contains(gst::BufferFlags::HEADER);
            if has_frame {
                let (pts, dts) = (packet.pts().map(ns), packet.dts().map(ns));
                let shown = pts.or(dts);
                let end_ns = shown.zip(packet.duration().map(ns)).map(|(ns, lasts_ns)| ns.saturating_add(lasts_ns));
                lock(&tracker).packet(shown, end_ns, is_key);
            } else {
                lock(&tracker).headers();
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whether a stream of H.264 may lack frames, by parameters beside `pad` or in `packet`.
fn says_that_gaps_are_legal(pad: &gst::Pad, packet: &gst::BufferRef) -> bool {
    let Some(caps) = pad.current_caps() else { return false };
    let config = caps.structure(0).and_then(|structure| structure.get::<gst::Buffer>("codec_data").ok());
    let config = config.as_ref().and_then(|config| config.map_readable().ok());
    let mut legal = config.is_some_and(|config| nal::config_allows_gaps(&config) == Some(true));
    if let (Some(format), Ok(bytes)) = (NalFormat::of(&caps), packet.map_readable()) {
        format.kind(&bytes, |unit| legal |= nal::allows_gaps(unit) == Some(true));
    }
    legal
}

/// What times lose by rounding, at most.
const ROUNDING: gst::ClockTime = gst::ClockTime::from_useconds(1);

/// How far before its start a segment is widened, at most.
const WIDENED: gst::ClockTime = gst::ClockTime::SECOND;

/// Has a decoder not clip frames at the start of an edit: it would show the end of the last frame before it,
/// by durations that are those of decoding. `offset`, which nothing uses here, holds by how much a segment
/// is widened; [`stream_time`] knows it.
fn widen_segments(decoder: &gst::Element) {
    let Some(pad) = decoder.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::EventView::Segment(event)) = info.event().map(|event| event.view())
            && let Some(segment) = event.segment().downcast_ref::<gst::format::Time>()
            && let Some(start) = segment.start()
        {
            let mut widened = segment.clone();
            let by = start.min(WIDENED);
            widened.set_start(start - by);
            widened.set_offset(by);
            info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&widened)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// The stream time of `pts` in a widened `segment`; none where it is not shown.
pub(super) fn stream_time(segment: &gst::FormattedSegment<gst::ClockTime>, pts: gst::ClockTime) -> Option<gst::ClockTime> {
    let start = segment.start().unwrap_or_default() + segment.offset().unwrap_or_default();
    // Times are rounded down.
    if pts + ROUNDING < start || segment.stop().is_some_and(|stop| pts >= stop) {
        return None;
    }
    Some(pts.saturating_sub(start) + segment.time().unwrap_or_default())
}

/// Tags by which ffmpeg knows the encoder XviD. GStreamer has no word for them.
const XVID_TAGS: [&[u8; 4]; 5] = [b"XVID", b"XVIX", b"RMP4", b"ZMP4", b"SIPP"];

/// User data of MPEG-4 that names the encoder XviD, build 0: libav then expects what it expects by the tag.
const XVID_USER_DATA: &[u8] = b"\0\0\x01\xb2XviD0000";

/// Tells libav's decoder of MPEG-4 which encoder's faults and which transform to expect where only the
/// container's tag says so: the first packet, if it names no encoder itself, is made to.
fn announce_encoder(decoder: &gst::Element, codec_tag: Option<[u8; 4]>) {
    let is_xvid = codec_tag.is_some_and(|tag| XVID_TAGS.iter().any(|xvid| xvid.eq_ignore_ascii_case(&tag)));
    let is_mpeg4 = decoder.factory().is_some_and(|factory| factory.name() == "avdec_mpeg4");
    let (true, Some(pad)) = (is_xvid && is_mpeg4, decoder.static_pad("sink")) else { return };
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
            let mut announced = gst::Buffer::from_mut_slice([XVID_USER_DATA, &bytes].concat());
            let kept = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
            if packet.copy_into(announced.make_mut(), kept, ..).is_ok() {
                *packet = announced;
            }
        }
        gst::PadProbeReturn::Remove
    });
}

/// Whether user data in `bytes` names an encoder of MPEG-4 that libav knows.
fn names_encoder(bytes: &[u8]) -> bool {
    let user_data = bytes.windows(8).filter(|window| window.starts_with(&[0, 0, 1, 0xb2]));
    user_data.map(|window| &window[4..]).any(|name| matches!(name, b"XviD" | b"DivX" | b"Lavc" | b"FFmp" | b"ffmp"))
}

/// Keeps what the container says of the colours from one of libav's decoders, and returns it: the decoder would believe it before the stream's own
/// word, and what GStreamer 1.22 reads from mp4 lacks the range.
fn keep_container_color(decoder: &gst::Element) -> Arc<Mutex<Option<gst_video::VideoColorimetry>>> {
    let kept = Arc::new(Mutex::new(None));
    let is_libavs = decoder.factory().is_some_and(|factory| factory.name().starts_with("avdec_"));
    if let (true, Some(pad)) = (is_libavs, decoder.static_pad("sink")) {
        let kept = Arc::clone(&kept);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => event.caps_owned(),
                _ => return gst::PadProbeReturn::Ok,
            };
            let text = caps.structure(0).and_then(|structure| structure.get::<String>("colorimetry").ok());
            if let Some(color) = text.and_then(|text| text.parse().ok()) {
                *lock(&kept) = Some(color);
                let mut caps = caps;
                caps.make_mut().iter_mut().for_each(|structure| structure.remove_field("colorimetry"));
                info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
            }
            gst::PadProbeReturn::Ok
        });
    }
    kept
}

/// Reads the range of samples from the first packet of AV1.
fn read_header_color(decoder: &gst::Element) -> Arc<Mutex<Option<gst_video::VideoColorimetry>>> {
    let kept = Arc::new(Mutex::new(None));
    let is_av1 = decoder.factory().is_some_and(|factory| matches!(factory.name().as_str(), "av1dec" | "dav1ddec"));
    if let (true, Some(pad)) = (is_av1, decoder.static_pad("sink")) {
        let kept = Arc::clone(&kept);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let bytes = info.buffer().and_then(|packet| packet.map_readable().ok());
            let is_full = bytes.and_then(|bytes| super::av1::is_full_range(&bytes));
            *lock(&kept) = is_full.map(|is_full| {
                let range = if is_full { ColorRange::Full } else { ColorRange::Limited };
                range_only(range)
            });
            gst::PadProbeReturn::Remove
        });
    }
    kept
}

/// Sets the number of threads of a software decoder, whose property has one of two names.
fn limit_threads(decoder: &gst::Element, threads: u32) {
    if let Some(property) = ["max-threads", "threads"].into_iter().find(|name| decoder.find_property(name).is_some()) {
        decoder.set_property_from_str(property, &threads.to_string());
    }
}
