//! Detects damage that GStreamer hides: a decoder conceals a broken frame, and a demultiplexer
//! takes the end of a truncated file for its regular end.
//!
//! Both report it in the debug log and nowhere else, so the log is watched. Its messages name no
//! stream: in a process that decodes several videos at a time, the damage of one is charged to all
//! of them. A build decodes each video in a process of its own.
//!
//! A message is charged to the packet that the decoder received last. From there, damage spreads to
//! the frames that refer to it, up to the next key frame.

use super::messages::{Meaning, meaning};
use gstreamer as gst;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The log categories that are watched, and the least severe level of each.
const CATEGORIES: [(&str, gst::DebugLevel); 5] = [
    ("libav", gst::DebugLevel::Debug),
    ("videodecoder", gst::DebugLevel::Warning),
    ("qtdemux", gst::DebugLevel::Warning),
    ("matroskareadcommon", gst::DebugLevel::Warning),
    ("avidemux", gst::DebugLevel::Warning),
];

/// The messages in the log so far, of the whole process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LogCounts {
    /// Number of messages of decoders about broken packets.
    decoder_errors: u64,
    /// Number of messages of decoders about missing references.
    lost_references: u64,
    /// The last of these messages that no tracker has taken.
    last_decoder_error: String,
    /// Number of messages of demultiplexers about a file that ends within its last packet.
    short_reads: u64,
}

static LOG_COUNTS: Mutex<LogCounts> = Mutex::new(LogCounts {
    decoder_errors: 0,
    lost_references: 0,
    last_decoder_error: String::new(),
    short_reads: 0,
});

fn log_counts() -> MutexGuard<'static, LogCounts> {
    LOG_COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to watch the log, once per process.
pub(super) fn watch_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Printing to standard error stays only if the user has asked for it.
        if std::env::var_os("GST_DEBUG").is_none() {
            gst::log::remove_default_log_function();
        }
        gst::log::add_log_function(|category, level, file, _, _, _, message| {
            let known = CATEGORIES.iter().find(|(name, _)| *name == category.name());
            if known.is_none_or(|&(_, least)| level > least) {
                return;
            }
            // GStreamer's own part of the category names its source file; libav's messages have
            // none.
            if category.name() == "libav" && !file.is_empty() {
                return;
            }
            let text = message
                .get()
                .map(|text| text.trim().to_owned())
                .unwrap_or_default();
            let mut counts = log_counts();
            match category.name() {
                "libav" => match meaning(level, &text) {
                    Meaning::Damage => {
                        counts.decoder_errors += 1;
                        // An error is more specific than a message about its handling.
                        if level <= gst::DebugLevel::Error || counts.last_decoder_error.is_empty() {
                            counts.last_decoder_error = text;
                        }
                    }
                    Meaning::LostReference => {
                        counts.lost_references += 1;
                        counts.last_decoder_error = text;
                    }
                    Meaning::Remark => {}
                },
                "videodecoder" => {
                    // Only `_gst_video_decoder_error` means a broken packet; other warnings are
                    // about negotiation and time.
                    if let Some((_, text)) = text
                        .split_once("error: ")
                        .or(text.starts_with("error: ").then_some(("", &text[7..])))
                    {
                        let text = text.to_owned();
                        counts.decoder_errors += 1;
                        counts.last_decoder_error = text;
                    }
                }
                _ => counts.short_reads += u64::from(text.to_ascii_lowercase().contains("short ")),
            }
        });
        for (name, level) in CATEGORIES {
            gst::log::set_threshold_for_name(name, level);
        }
    });
}

/// A stretch of a video whose frames differ from what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Presentation time of the first damaged frame, in nanoseconds.
    pub from_ns: i64,
    /// Presentation time of the first valid frame after the stretch; none if the damage lasts to
    /// the end.
    pub to_ns: Option<i64>,
    /// The decoder's message.
    pub reason: String,
}

impl Damage {
    fn covers(&self, ns: i64) -> bool {
        self.from_ns <= ns && self.to_ns.is_none_or(|to| ns < to)
    }
}

/// Follows the packets and frames of one decoder, and determines which frames are damaged. All
/// times are those of the buffers.
#[derive(Debug)]
pub(super) struct DamageTracker {
    /// The log when it was last read.
    seen: LogCounts,
    /// Number of packets by which a message can be late: those that a decoder with several threads
    /// works on.
    late: usize,
    /// Times of the packets since the last key frame, which is included, in decoding order.
    group: Vec<i64>,
    /// Times of the packets before it that a late message could be about.
    before: Vec<i64>,
    /// Whether the last damage continues until the next key frame.
    open: bool,
    damages: Vec<Damage>,
    /// Whether the decoder received headers last, which have no frame.
    in_headers: bool,
    /// Whether the stream may lack reference frames.
    gaps_are_legal: bool,
    /// Whether the first packet is a key frame. Nothing after a key frame refers to frames before
    /// it.
    begins_with_key: bool,
    /// Decoding times of the packets whose frames are not shown yet, if packets have no other
    /// times.
    decoded_at: VecDeque<i64>,
    has_decoding_times_only: bool,
    /// Times of the packets whose frames have not come out.
    pending: BTreeSet<i64>,
    last_frame: Option<i64>,
    /// End of the last packet that has a duration.
    end_ns: Option<i64>,
    /// Number of packets after the first frame whose frames did not come out before a later one.
    lost: u64,
}

impl DamageTracker {
    /// Creates the tracker of a decoder with `threads` threads.
    pub(super) fn new(threads: u32) -> Self {
        let late = if threads > 1 { threads as usize } else { 0 };
        Self {
            seen: log_counts().clone(),
            late,
            group: Vec::new(),
            before: Vec::new(),
            open: false,
            damages: Vec::new(),
            in_headers: false,
            gaps_are_legal: false,
            begins_with_key: false,
            decoded_at: VecDeque::new(),
            has_decoding_times_only: false,
            pending: BTreeSet::new(),
            last_frame: None,
            end_ns: None,
            lost: 0,
        }
    }

    /// Permits missing reference frames: they are no damage.
    pub(super) const fn allow_gaps(&mut self) {
        self.gaps_are_legal = true;
    }

    /// Expects packets whose times are their decoding times.
    pub(super) const fn expect_decoding_times(&mut self) {
        self.has_decoding_times_only = true;
    }

    /// Notes that the decoder is about to receive headers without a frame, which it may refuse as a
    /// packet.
    pub(super) fn before_headers(&mut self) {
        self.charge_new_messages();
        self.in_headers = true;
    }

    /// Notes that the decoder is about to receive a packet, which is shown from `pts` to `end_ns`.
    pub(super) fn before_packet(&mut self, pts: Option<i64>, end_ns: Option<i64>, is_key: bool) {
        self.charge_new_messages();
        self.in_headers = false;
        self.begins_with_key |= is_key && self.group.is_empty() && self.before.is_empty();
        self.end_ns = self.end_ns.max(end_ns);
        if self.has_decoding_times_only {
            self.decoded_at.extend(pts);
        }
        // A packet without a time is taken for that of the next frame: the damage is then too long
        // rather than too short.
        let pts = pts.unwrap_or_else(|| self.last_frame.map_or(i64::MIN, |last| last + 1));
        if is_key {
            if std::mem::take(&mut self.open)
                && let Some(damage) = self.damages.last_mut()
            {
                damage.to_ns = Some(pts);
            }
            let all = self.before.len() + self.group.len();
            self.before.append(&mut self.group);
            self.before.drain(..all - self.late.min(all));
        }
        self.group.push(pts);
        self.pending.insert(pts);
        if self.open
            && let Some(damage) = self.damages.last_mut()
        {
            damage.from_ns = damage.from_ns.min(pts);
        }
    }

    /// Returns the time of the next frame if packets have decoding times only: frames take these in
    /// turn.
    pub(super) fn next_decoding_time(&mut self) -> Option<i64> {
        self.decoded_at.pop_front()
    }

    /// Notes that a frame has come out. Returns whether it is damaged, and whether damaged frames
    /// are missing just before it.
    pub(super) fn frame(&mut self, pts: i64) -> (bool, bool) {
        self.charge_new_messages();
        let missing: Vec<i64> = self.pending.range(..pts).copied().collect();
        if self.last_frame.is_some() {
            self.lost += missing.len() as u64;
        }
        let hole = missing.iter().any(|&missing| self.is_damaged(missing));
        self.pending = self.pending.split_off(&(pts + 1));
        self.last_frame = Some(pts);
        (self.is_damaged(pts), hole)
    }

    /// Notes the end of the stream. Returns whether damaged frames are missing there.
    pub(super) fn end(&mut self) -> bool {
        self.charge_new_messages();
        self.pending.iter().any(|&missing| self.is_damaged(missing))
    }

    /// Returns the number of packets after the first frame whose frames did not come out in order:
    /// broken packets, and those of streams that have packets without a frame.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the end of the last packet so far, if packets have durations.
    pub(super) const fn end_ns(&self) -> Option<i64> {
        self.end_ns
    }

    /// Returns the damaged stretches, in order.
    pub(super) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Whether the file ended within a packet.
    pub(super) fn ended_early(&self) -> bool {
        log_counts().short_reads > self.seen.short_reads
    }

    fn is_damaged(&self, pts: i64) -> bool {
        self.damages.iter().rev().any(|damage| damage.covers(pts))
    }

    /// Charges new messages to the packet that the decoder works on and those after it.
    fn charge_new_messages(&mut self) {
        let reason = {
            let mut now = log_counts();
            let has_lost_references = now.lost_references > self.seen.lost_references;
            let is_lost = has_lost_references && self.last_frame.is_some() && !self.gaps_are_legal;
            self.seen.lost_references = now.lost_references;
            if now.decoder_errors == self.seen.decoder_errors && !is_lost {
                return;
            }
            self.seen.decoder_errors = now.decoder_errors;
            std::mem::take(&mut now.last_decoder_error)
        };
        if self.in_headers || (self.group.is_empty() && self.before.is_empty()) {
            // A message about headers. If they are broken, the packets that need them report it.
            return;
        }
        if self.open {
            // The last damage continues until the next key frame already.
            return;
        }
        let recent = self.before.iter().chain(&self.group);
        let first = (self.before.len() + self.group.len()).saturating_sub(self.late + 1);
        let from_ns = recent.skip(first).copied().min().unwrap_or(i64::MIN);
        match self.damages.last_mut() {
            // Two damaged groups in a row are one stretch.
            Some(last) if last.to_ns.is_some_and(|to| to >= from_ns) => {
                last.from_ns = last.from_ns.min(from_ns);
                last.to_ns = None;
            }
            _ => self.damages.push(Damage {
                from_ns,
                to_ns: None,
                reason,
            }),
        }
        self.open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a message in the log.
    fn log_error(reason: &str) {
        let mut counts = log_counts();
        counts.decoder_errors += 1;
        counts.last_decoder_error = reason.to_owned();
    }

    /// A single test, since the process has one log.
    #[test]
    fn damage_lasts_from_the_broken_packet_to_the_next_key_frame() {
        let mut tracker = DamageTracker::new(1);
        // Decoding order I P B B P, and the next group.
        for (pts, key) in [(0, true), (3, false), (1, false)] {
            tracker.before_packet(Some(pts), None, key);
        }
        assert_eq!(tracker.frame(0), (false, false));
        tracker.before_packet(Some(2), None, false);
        log_error("broken");
        tracker.before_packet(Some(6), None, false);
        assert_eq!(tracker.frame(1), (false, false));
        assert_eq!(tracker.frame(2), (true, false));
        // The packet before the broken one is not charged, though it is shown later.
        assert_eq!(
            tracker.frame(3),
            (true, false),
            "a time inside the stretch is damaged, whatever its packet"
        );
        tracker.before_packet(Some(7), None, true);
        // 6 never comes out.
        assert_eq!(tracker.frame(7), (false, true));
        assert_eq!(
            tracker.damages(),
            [Damage {
                from_ns: 2,
                to_ns: Some(7),
                reason: "broken".to_owned()
            }]
        );
        tracker.before_packet(Some(8), None, false);
        log_error("again");
        assert!(tracker.end());
        assert_eq!(
            tracker.damages().last(),
            Some(&Damage {
                from_ns: 8,
                to_ns: None,
                reason: "again".to_owned()
            })
        );

        // With several threads the message may be about an earlier packet.
        let mut tracker = DamageTracker::new(2);
        (0..5).for_each(|pts| tracker.before_packet(Some(pts), None, pts == 0));
        log_error("late");
        assert_eq!(tracker.frame(1), (false, false));
        assert_eq!(tracker.frame(2), (true, false));
    }
}
