//! The short way to a few frames of a video: from the last entry before them, and without the pictures that nobody refers to and nobody wants.
//!
//! It gives the frames that decoding from the start gives, or says that it is not sure to. What can make it unsure is looked at as it goes: a frame
//! that is not at the time at which a packet promised it, a picture that was left out and would have been shown after all, anything that is
//! damaged. Then the long way decides.

use super::graph::Held;
use super::nal::{NalFormat, PacketKind};
use super::ticks::tick_of;
use super::{POLL, RunningPipeline, VideoError, VideoProbe};
use gstreamer as gst;
use gstreamer::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How far behind an entry a seek aims: indexes round times, and the key frame at or before the aim is taken.
const INTO_FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// Containers in which a seek to a key frame is known to be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Container {
    /// mp4 and mov.
    Mp4,
    /// Matroska and WebM.
    Matroska,
}

impl Container {
    /// The container of a file whose content is `media`; none for others.
    pub fn of(media: &str) -> Option<Self> {
        match media {
            "video/quicktime" | "application/x-3gp" => Some(Self::Mp4),
            "video/x-matroska" | "video/webm" => Some(Self::Matroska),
            _ => None,
        }
    }
}

/// What the short way through one file is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekPlan {
    /// Media type of the stream without `video/`.
    codec: String,
    /// Whether packets say when they are decoded, and none is shown before.
    decoding_times: bool,
    /// Stream time minus the packets' own time. After a seek the demultiplexers' segments do not always say it: Matroska's may begin at 0 again.
    pub(super) shift_ns: i64,
}

impl SeekPlan {
    /// The route through a file whose content is `media`, in which `probe` was found; none where there is no short one.
    pub fn of(media: &str, probe: &VideoProbe) -> Option<Self> {
        let container = Container::of(media)?;
        if probe.entries.is_empty() {
            return None;
        }
        // These report broken packets, and give each frame its packet's time.
        let decoders = ["avdec_h264", "avdec_h265", "avdec_vp8", "avdec_vp9", "avdec_av1"];
        let known = decoders.contains(&probe.decoder.as_str());
        // Matroska has no times of decoding: what the packets say there is made up.
        let decoding_times = probe.decoding_times && container == Container::Mp4;
        known.then(|| Self { codec: probe.codec.clone(), decoding_times, shift_ns: probe.shift_ns })
    }

    /// Whether each packet has a frame.
    pub(super) fn has_a_frame_a_packet(&self) -> bool {
        matches!(self.codec.as_str(), "x-h264" | "x-h265")
    }
}

/// Which ticks are wanted: every `stride`-th of `frames` ones, from each of `starts` on.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedTicks {
    /// First ticks, in order.
    pub starts: Vec<u64>,
    /// Ticks from each of them.
    pub frames: u64,
    /// From one to the next.
    pub stride: u64,
    /// Frames whose tick comes by so many before a wanted one are not left out either: 0 where each frame's duration can be believed.
    pub slack: u64,
    /// Ticks a second.
    pub fps: f64,
    /// Time of tick 0, in nanoseconds of stream time.
    pub start_ns: i64,
}

impl WantedTicks {
    /// The tick of a time.
    pub(super) fn tick_of(&self, ns: i64) -> u64 {
        tick_of(ns - self.start_ns, self.fps)
    }

    /// The last of them.
    pub(super) fn last(&self) -> u64 {
        self.starts.last().map_or(0, |start| start + (self.frames - 1) * self.stride)
    }

    /// Whether a tick of `from..to` is wanted.
    fn any(&self, from: u64, to: u64) -> bool {
        self.starts.iter().any(|&start| {
            let index = from.saturating_sub(start).div_ceil(self.stride);
            index < self.frames && start + index * self.stride < to
        })
    }
}

/// Why what came by a shortcut may not be what the long way gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A frame that was left out would have been shown: with more slack it may not be left out.
    LeftOut,
    /// Damage, or a frame that did not come, or not at its time.
    Unusual,
}

/// A short way to some ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct FastSeek {
    /// Through what.
    pub route: SeekPlan,
    /// Time of the packet to begin at, in nanoseconds of stream time.
    pub entry_ns: i64,
    /// Whether that is the first packet of all.
    pub from_start: bool,
    /// To which ticks.
    pub wanted: WantedTicks,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketAction {
    /// It is decoded.
    Decoded,
    /// It is left out.
    LeftOut,
    /// It and all after it come too late to be wanted.
    TooLate,
}

/// Leaves out the packets that nobody refers to and nobody wants.
#[derive(Debug)]
pub(super) struct PacketFilter {
    wanted: WantedTicks,
    /// Whether the packets' times of decoding say when no wanted one can come any more.
    decoding_times: bool,
    has_ended: bool,
    shift_ns: i64,
    format: Option<NalFormat>,
    /// Times of what was left out, in nanoseconds of stream time.
    dropped: BTreeSet<i64>,
    packets: u64,
    /// Whether the first packet was one at which decoding may begin.
    began_at_entry: bool,
}

impl PacketFilter {
    pub(super) fn new(shortcut: &FastSeek) -> Self {
        let (wanted, decoding_times) = (shortcut.wanted.clone(), shortcut.route.decoding_times);
        let shift_ns = shortcut.route.shift_ns;
        Self {
            wanted,
            decoding_times,
            has_ended: false,
            shift_ns,
            format: None,
            dropped: BTreeSet::new(),
            packets: 0,
            began_at_entry: false,
        }
    }

    /// What becomes of `packet`, which is about to go through `pad`.
    pub(super) fn action(&mut self, pad: &gst::Pad, packet: &gst::BufferRef) -> PacketAction {
        self.packets += 1;
        if self.packets == 1 {
            self.format = pad.current_caps().and_then(|caps| NalFormat::of(&caps));
            self.began_at_entry = match self.format {
                Some(format) => packet.map_readable().is_ok_and(|bytes| format.kind(&bytes, |_| ()) == PacketKind::Entry),
                None => !packet.flags().contains(gst::BufferFlags::DELTA_UNIT),
            };
        }
        let Some((format, pts)) = self.format.zip(packet.pts()) else { return PacketAction::Decoded };
        let stream_time = |time: gst::ClockTime| time.nseconds() as i64 + self.shift_ns;
        let ns = stream_time(pts);
        // Whatever comes from now on is shown no earlier than this one is decoded.
        let decoded_ns = packet.dts().filter(|_| self.decoding_times).map(stream_time);
        self.has_ended |= decoded_ns.is_some_and(|decoded_ns| self.wanted.tick_of(decoded_ns) > self.wanted.last());
        if self.has_ended {
            return PacketAction::TooLate;
        }
        let end_ns = ns + packet.duration().map_or(0, |duration| duration.nseconds() as i64);
        let (from, to) = (self.wanted.tick_of(ns), self.wanted.tick_of(end_ns));
        if self.wanted.any(from, to.max(from + 1) + self.wanted.slack) {
            return PacketAction::Decoded;
        }
        let disposable = packet.map_readable().is_ok_and(|bytes| format.kind(&bytes, |_| ()) == PacketKind::Disposable);
        if !disposable {
            return PacketAction::Decoded;
        }
        self.dropped.insert(ns);
        PacketAction::LeftOut
    }

    /// Whether the first packet was one at which decoding may begin.
    pub(super) const fn began_at_entry(&self) -> bool {
        self.began_at_entry
    }

    /// The tick up to which all frames are known, when no more packets are let through.
    pub(super) fn end(&self) -> Option<u64> {
        self.has_ended.then(|| self.wanted.last() + 1)
    }

    /// The tick from which on a picture that was left out would be shown, after the frame of time `ns`.
    pub(super) fn first_dropped_after(&self, ns: i64) -> Option<u64> {
        self.dropped.range(ns + 1..).next().map(|&dropped| self.wanted.tick_of(dropped))
    }

    /// Packets that came, and those of them that were left out.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.packets, self.dropped.len() as u64)
    }
}

/// Goes to the entry at `entry_ns` and lets packets through from there.
pub(super) fn seek(pipeline: &RunningPipeline, held: &mpsc::Receiver<Held>, entry_ns: i64, timeout: Duration) -> Result<(), VideoError> {
    let deadline = Instant::now() + timeout;
    let (pad, probe) = loop {
        match held.recv_timeout(POLL.into()) {
            Ok(held) => break held,
            Err(_) if Instant::now() > deadline => return Err(VideoError::Stalled { timeout }),
            Err(_) => {}
        }
        if let Some(error) = pipeline.bus_error() {
            return Err(error);
        }
    };
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    let entry = gst::ClockTime::from_nseconds(entry_ns.max(0) as u64) + INTO_FRAME;
    let seek = gst::event::Seek::new(1.0, flags, gst::SeekType::Set, entry, gst::SeekType::None, gst::ClockTime::NONE);
    let done = pad.send_event(seek);
    pad.remove_probe(probe);
    if done { Ok(()) } else { Err(VideoError::Stream { element: String::new(), message: "the demultiplexer does not seek".to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_ticks_are_those_of_any_window() {
        let wanted = WantedTicks { starts: vec![3, 10], frames: 3, stride: 4, slack: 0, fps: 30.0, start_ns: 0 };
        let ticks: Vec<u64> = (0..40).filter(|&tick| wanted.any(tick, tick + 1)).collect();
        assert_eq!(ticks, [3, 7, 10, 11, 14, 18]);
        assert!(wanted.any(4, 8) && !wanted.any(4, 7) && !wanted.any(19, 200));
    }
}
