//! Fast seek: decodes a few frames of a video from the last entry before them, and skips the
//! pictures that are neither wanted nor referred to.
//!
//! A fast seek returns the frames that decoding from the start returns, or reports that it may not
//! ([`Doubt`]). It checks for all that makes it doubtful while it runs: a frame that is not at the
//! time of its packet, a skipped picture that would have been shown, and any damage. The caller
//! then decodes from the start.

use super::graph::HeldPad;
use super::nal::{NalFormat, PacketKind};
use super::ticks::tick_of;
use super::{POLL, RunningPipeline, VideoError, VideoProbe};
use gstreamer as gst;
use gstreamer::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Distance behind an entry at which a seek aims: indexes round times, and the key frame at or
/// before the target is taken.
const INTO_FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// A container in which a seek to a key frame is known to be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Container {
    /// mp4 and mov.
    Mp4,
    /// Matroska and WebM.
    Matroska,
}

impl Container {
    /// Returns the container of a file of the media type `media`; none for other containers.
    pub fn of(media: &str) -> Option<Self> {
        match media {
            "video/quicktime" | "application/x-3gp" => Some(Self::Mp4),
            "video/x-matroska" | "video/webm" => Some(Self::Matroska),
            _ => None,
        }
    }
}

/// The properties of a file that a fast seek in it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekPlan {
    /// Media type of the stream without `video/`.
    codec: String,
    /// Whether packets have decoding times, and none is shown before it is decoded.
    decoding_times: bool,
    /// Stream time minus the packets' own time, in nanoseconds. After a seek, the demultiplexer's
    /// segments do not always contain it: Matroska's may begin at 0 again.
    pub(super) shift_ns: i64,
}

impl SeekPlan {
    /// Returns the seek plan of a file of the media type `media` with the result `probe` of probing
    /// it; none if a fast seek is not possible.
    pub fn of(media: &str, probe: &VideoProbe) -> Option<Self> {
        let container = Container::of(media)?;
        if probe.entries.is_empty() {
            return None;
        }
        // These report broken packets, and give each frame the time of its packet.
        let decoders = [
            "avdec_h264",
            "avdec_h265",
            "avdec_vp8",
            "avdec_vp9",
            "avdec_av1",
        ];
        let known = decoders.contains(&probe.decoder.as_str());
        // Matroska stores no decoding times: those of its packets are made up.
        let decoding_times = probe.decoding_times && container == Container::Mp4;
        known.then(|| Self {
            codec: probe.codec.clone(),
            decoding_times,
            shift_ns: probe.shift_ns,
        })
    }

    /// Whether each packet has one frame.
    pub(super) fn has_one_frame_per_packet(&self) -> bool {
        matches!(self.codec.as_str(), "x-h264" | "x-h265")
    }
}

/// The wanted ticks: `frames` ticks at a distance of `stride`, from each of `starts`.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedTicks {
    /// First ticks, ascending.
    pub starts: Vec<u64>,
    /// Number of ticks from each start.
    pub frames: u64,
    /// Distance between these, in ticks.
    pub stride: u64,
    /// Frames whose tick lies up to this many ticks before a wanted one are kept, too: 0 if the
    /// durations of frames can be trusted.
    pub slack: u64,
    /// Ticks per second.
    pub fps: f64,
    /// Time of tick 0, in nanoseconds of stream time.
    pub start_ns: i64,
}

impl WantedTicks {
    /// Returns the tick of a time in nanoseconds of stream time.
    pub(super) fn tick_of(&self, ns: i64) -> u64 {
        tick_of(ns - self.start_ns, self.fps)
    }

    /// Returns the last wanted tick.
    pub(super) fn last(&self) -> u64 {
        self.starts
            .last()
            .map_or(0, |start| start + (self.frames - 1) * self.stride)
    }

    /// Whether any tick of `from..to` is wanted.
    fn any(&self, from: u64, to: u64) -> bool {
        self.starts.iter().any(|&start| {
            let index = from.saturating_sub(start).div_ceil(self.stride);
            index < self.frames && start + index * self.stride < to
        })
    }
}

/// Why the frames of a fast seek may differ from those of decoding from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A skipped frame would have been shown. With more slack it may be kept.
    SkippedFrame,
    /// Damage, a missing frame, or a frame that is not at its time.
    Unusual,
}

/// A fast seek to some ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct FastSeek {
    /// Properties of the file.
    pub plan: SeekPlan,
    /// Time of the packet at which decoding begins, in nanoseconds of stream time.
    pub entry_ns: i64,
    /// Whether that is the first packet of the file.
    pub from_start: bool,
    /// The ticks to decode.
    pub wanted: WantedTicks,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketAction {
    /// Decode it.
    Decode,
    /// Skip it.
    Skip,
    /// End the stream: this packet and all that follow come after the last wanted tick.
    End,
}

/// Skips the packets that are neither wanted nor referred to.
#[derive(Debug)]
pub(super) struct PacketFilter {
    wanted: WantedTicks,
    /// Whether decoding times show when no further packet is wanted.
    decoding_times: bool,
    has_ended: bool,
    shift_ns: i64,
    format: Option<NalFormat>,
    /// Times of skipped packets, in nanoseconds of stream time.
    skipped: BTreeSet<i64>,
    packets: u64,
    /// Whether decoding may begin at the first packet that came.
    began_at_entry: bool,
}

impl PacketFilter {
    pub(super) fn new(fast_seek: &FastSeek) -> Self {
        Self {
            wanted: fast_seek.wanted.clone(),
            decoding_times: fast_seek.plan.decoding_times,
            has_ended: false,
            shift_ns: fast_seek.plan.shift_ns,
            format: None,
            skipped: BTreeSet::new(),
            packets: 0,
            began_at_entry: false,
        }
    }

    /// Returns what to do with `packet`, which is about to pass through `pad`.
    pub(super) fn action(&mut self, pad: &gst::Pad, packet: &gst::BufferRef) -> PacketAction {
        self.packets += 1;
        if self.packets == 1 {
            self.format = pad.current_caps().and_then(|caps| NalFormat::of(&caps));
            self.began_at_entry = match self.format {
                Some(format) => packet
                    .map_readable()
                    .is_ok_and(|bytes| format.kind(&bytes, |_| ()) == PacketKind::Entry),
                None => !packet.flags().contains(gst::BufferFlags::DELTA_UNIT),
            };
        }
        let Some((format, pts)) = self.format.zip(packet.pts()) else {
            return PacketAction::Decode;
        };
        let stream_time = |time: gst::ClockTime| time.nseconds() as i64 + self.shift_ns;
        let ns = stream_time(pts);
        // No packet from here on is shown before this one is decoded.
        let decoded_ns = packet
            .dts()
            .filter(|_| self.decoding_times)
            .map(stream_time);
        self.has_ended |= decoded_ns
            .is_some_and(|decoded_ns| self.wanted.tick_of(decoded_ns) > self.wanted.last());
        if self.has_ended {
            return PacketAction::End;
        }
        let end_ns = ns
            + packet
                .duration()
                .map_or(0, |duration| duration.nseconds() as i64);
        let from = self.wanted.tick_of(ns);
        let to = self.wanted.tick_of(end_ns);
        if self.wanted.any(from, to.max(from + 1) + self.wanted.slack) {
            return PacketAction::Decode;
        }
        let disposable = packet
            .map_readable()
            .is_ok_and(|bytes| format.kind(&bytes, |_| ()) == PacketKind::Disposable);
        if !disposable {
            return PacketAction::Decode;
        }
        self.skipped.insert(ns);
        PacketAction::Skip
    }

    /// Whether decoding may begin at the first packet that came.
    pub(super) const fn began_at_entry(&self) -> bool {
        self.began_at_entry
    }

    /// Returns the tick up to which all frames are known, once the stream was ended.
    pub(super) fn known_until(&self) -> Option<u64> {
        self.has_ended.then(|| self.wanted.last() + 1)
    }

    /// Returns the tick from which on a skipped picture would be shown, after the frame of time
    /// `ns`.
    pub(super) fn first_skipped_after(&self, ns: i64) -> Option<u64> {
        self.skipped
            .range(ns + 1..)
            .next()
            .map(|&skipped| self.wanted.tick_of(skipped))
    }

    /// Returns the number of packets that came, and how many of them were skipped.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.packets, self.skipped.len() as u64)
    }
}

/// Seeks to the entry at `entry_ns`, and lets packets pass from there.
pub(super) fn seek(
    pipeline: &RunningPipeline,
    held: &mpsc::Receiver<HeldPad>,
    entry_ns: i64,
    timeout: Duration,
) -> Result<(), VideoError> {
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
    let seek = gst::event::Seek::new(
        1.0,
        flags,
        gst::SeekType::Set,
        entry,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    let done = pad.send_event(seek);
    pad.remove_probe(probe);
    if done {
        Ok(())
    } else {
        Err(VideoError::Stream {
            element: String::new(),
            message: "the demultiplexer does not seek".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_ticks_are_those_of_any_window() {
        let wanted = WantedTicks {
            starts: vec![3, 10],
            frames: 3,
            stride: 4,
            slack: 0,
            fps: 30.0,
            start_ns: 0,
        };
        let ticks: Vec<u64> = (0..40).filter(|&tick| wanted.any(tick, tick + 1)).collect();
        assert_eq!(ticks, [3, 7, 10, 11, 14, 18]);
        assert!(wanted.any(4, 8) && !wanted.any(4, 7) && !wanted.any(19, 200));
    }
}
