//! Damage that GStreamer hides: a decoder conceals a broken frame, a demultiplexer takes a file that was cut short for one that ends.
//!
//! Both say so in the debug log and nowhere else, so the log is listened to. Its messages name no stream: in a process that decodes several videos
//! at a time, the damage of one is charged to all of them. A build decodes each video in a process where it is alone.
//!
//! A message belongs to the packet that the decoder has last been given. Damage spreads from there to the frames that refer to it, up to
//! the next key frame.

use super::messages::{Meaning, meaning};
use gstreamer as gst;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// Log categories that are listened to, and from which level on.
const CATEGORIES: [(&str, gst::DebugLevel); 5] = [
    ("libav", gst::DebugLevel::Debug),
    ("videodecoder", gst::DebugLevel::Warning),
    ("qtdemux", gst::DebugLevel::Warning),
    ("matroskareadcommon", gst::DebugLevel::Warning),
    ("avidemux", gst::DebugLevel::Warning),
];

/// What the log has said so far, in the whole process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Heard {
    /// Messages of decoders about broken packets.
    decoder_errors: u64,
    /// Messages of decoders about references that are missing.
    lost_references: u64,
    /// The last of them that nobody has asked for.
    last_decoder_error: String,
    /// Messages of demultiplexers about a file that ends before its last packet does.
    short_reads: u64,
}

static HEARD: Mutex<Heard> = Mutex::new(Heard { decoder_errors: 0, lost_references: 0, last_decoder_error: String::new(), short_reads: 0 });

fn heard() -> MutexGuard<'static, Heard> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to listen to the log, once for the process.
pub(super) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The usual printing to standard error stays only where the user asked for it.
        if std::env::var_os("GST_DEBUG").is_none() {
            gst::log::remove_default_log_function();
        }
        gst::log::add_log_function(|category, level, file, _, _, _, message| {
            let known = CATEGORIES.iter().find(|(name, _)| *name == category.name());
            if known.is_none_or(|&(_, least)| level > least) {
                return;
            }
            // GStreamer's own part of the category names its source file; libav's messages have none.
            if category.name() == "libav" && !file.is_empty() {
                return;
            }
            let text = message.get().map(|text| text.trim().to_owned()).unwrap_or_default();
            let mut heard = heard();
            match category.name() {
                "libav" => match meaning(level, &text) {
                    Meaning::Damage => {
                        heard.decoder_errors += 1;
                        // An error tells more than what is done about it.
                        if level <= gst::DebugLevel::Error || heard.last_decoder_error.is_empty() {
                            heard.last_decoder_error = text;
                        }
                    }
                    Meaning::LostReference => {
                        heard.lost_references += 1;
                        heard.last_decoder_error = text;
                    }
                    Meaning::Remark => {}
                },
                "videodecoder" => {
                    // `_gst_video_decoder_error` alone means a broken packet; other warnings are about negotiation and time.
                    if let Some((_, text)) = text.split_once("error: ").or(text.starts_with("error: ").then_some(("", &text[7..]))) {
                        let text = text.to_owned();
                        heard.decoder_errors += 1;
                        heard.last_decoder_error = text;
                    }
                }
                _ => heard.short_reads += u64::from(text.to_ascii_lowercase().contains("short ")),
            }
        });
        for (name, level) in CATEGORIES {
            gst::log::set_threshold_for_name(name, level);
        }
    });
}

/// A stretch of a video whose frames are not what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Presentation time of the first damaged frame, in nanoseconds.
    pub from_ns: i64,
    /// Presentation time of the first frame that is sound again; none when the damage lasts to the end.
    pub to_ns: Option<i64>,
    /// What the decoder said.
    pub reason: String,
}

impl Damage {
    fn covers(&self, ns: i64) -> bool {
        self.from_ns <= ns && self.to_ns.is_none_or(|to| ns < to)
    }
}

/// Follows one decoder's packets and frames, and knows which frames are damaged. All times are those of the buffers.
#[derive(Debug)]
pub(super) struct DamageTracker {
    heard: Heard,
    /// Packets by which a message can be late: a decoder with several threads has so many in hand.
    late: usize,
    /// Packets since the last key frame, that included, in decoding order.
    group: Vec<i64>,
    /// Packets before it that a late message could mean.
    before: Vec<i64>,
    /// Whether the last damage goes on until the next key frame.
    open: bool,
    damages: Vec<Damage>,
    /// Whether what was given last has no frame.
    in_headers: bool,
    /// Whether references may be missing from the stream.
    gaps_are_legal: bool,
    /// Whether the first packet is a key frame. What is missing before one, nothing after it needs.
    begins_with_key: bool,
    /// When packets are decoded whose turn to be shown has not come, where that is all that they say.
    decoded_at: VecDeque<i64>,
    has_decoding_times_only: bool,
    /// Packets whose frames have not come out.
    inside: BTreeSet<i64>,
    last_frame: Option<i64>,
    /// When the last packet ends that says how long it is shown.
    end_ns: Option<i64>,
    /// Packets after the first frame whose own frames did not come out before a later one.
    lost: u64,
}

impl DamageTracker {
    /// A tracker of a decoder with so many threads.
    pub(super) fn new(threads: u32) -> Self {
        let late = if threads > 1 { threads as usize } else { 0 };
        Self {
            heard: heard().clone(),
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
            inside: BTreeSet::new(),
            last_frame: None,
            end_ns: None,
            lost: 0,
        }
    }

    /// References may be missing from the stream.
    pub(super) const fn allow_gaps(&mut self) {
        self.gaps_are_legal = true;
    }

    /// Packets are given with the times at which they are decoded.
    pub(super) const fn expect_decoding_times(&mut self) {
        self.has_decoding_times_only = true;
    }

    /// The decoder is about to be given headers and no frame, which it may refuse as a packet.
    pub(super) fn headers(&mut self) {
        self.listen();
        self.in_headers = true;
    }

    /// The decoder is about to be given a packet, which is shown from `pts` to `end_ns`.
    pub(super) fn packet(&mut self, pts: Option<i64>, end_ns: Option<i64>, is_key: bool) {
        self.listen();
        self.in_headers = false;
        self.begins_with_key |= is_key && self.group.is_empty() && self.before.is_empty();
        self.end_ns = self.end_ns.max(end_ns);
        if self.has_decoding_times_only {
            self.decoded_at.extend(pts);
        }
        // A packet without a time is taken for the next frame to come out: the damage is then rather too long than too short.
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
        self.inside.insert(pts);
        if self.open
            && let Some(damage) = self.damages.last_mut()
        {
            damage.from_ns = damage.from_ns.min(pts);
        }
    }

    /// When the next frame is shown by the times at which packets are decoded: frames take these in turn.
    pub(super) fn next_turn(&mut self) -> Option<i64> {
        self.decoded_at.pop_front()
    }

    /// A frame has come out: whether it is damaged, and whether frames that are damaged are missing just before it.
    pub(super) fn frame(&mut self, pts: i64) -> (bool, bool) {
        self.listen();
        let missing: Vec<i64> = self.inside.range(..pts).copied().collect();
        if self.last_frame.is_some() {
            self.lost += missing.len() as u64;
        }
        let hole = missing.iter().any(|&missing| self.is_damaged(missing));
        self.inside = self.inside.split_off(&(pts + 1));
        self.last_frame = Some(pts);
        (self.is_damaged(pts), hole)
    }

    /// No frame will come any more: whether damaged ones are missing at the end.
    pub(super) fn end(&mut self) -> bool {
        self.listen();
        self.inside.iter().any(|&missing| self.is_damaged(missing))
    }

    /// Packets after the first frame whose frames did not come out in their turn: broken ones, and those of streams that have packets without a
    /// frame.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// When the last packet so far ends, where packets say how long they are shown.
    pub(super) const fn end_ns(&self) -> Option<i64> {
        self.end_ns
    }

    /// The stretches that are damaged, in order.
    pub(super) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Whether the file ended before a packet did.
    pub(super) fn ended_early(&self) -> bool {
        heard().short_reads > self.heard.short_reads
    }

    fn is_damaged(&self, pts: i64) -> bool {
        self.damages.iter().rev().any(|damage| damage.covers(pts))
    }

    /// Charges new messages to the packet in hand and those after it.
    fn listen(&mut self) {
        let reason = {
            let mut now = heard();
            let is_lost = now.lost_references > self.heard.lost_references && self.last_frame.is_some() && !self.gaps_are_legal;
            self.heard.lost_references = now.lost_references;
            if now.decoder_errors == self.heard.decoder_errors && !is_lost {
                return;
            }
            self.heard.decoder_errors = now.decoder_errors;
            std::mem::take(&mut now.last_decoder_error)
        };
        if self.in_headers || (self.group.is_empty() && self.before.is_empty()) {
            // Words about headers: what is missing there, packets will miss.
            return;
        }
        if self.open {
            // The damage lasts until the next key frame already.
            return;
        }
        let in_hand = self.before.iter().chain(&self.group);
        let first = (self.before.len() + self.group.len()).saturating_sub(self.late + 1);
        let from_ns = in_hand.skip(first).copied().min().unwrap_or(i64::MIN);
        match self.damages.last_mut() {
            // Two key frames in a row that are damaged: one stretch.
            Some(last) if last.to_ns.is_some_and(|to| to >= from_ns) => {
                last.from_ns = last.from_ns.min(from_ns);
                last.to_ns = None;
            }
            _ => self.damages.push(Damage { from_ns, to_ns: None, reason }),
        }
        self.open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the log had spoken.
    fn say(reason: &str) {
        let mut heard = heard();
        heard.decoder_errors += 1;
        heard.last_decoder_error = reason.to_owned();
    }

    /// One test, for the log is the process's.
    #[test]
    fn damage_lasts_from_the_broken_packet_to_the_next_key_frame() {
        let mut tracker = DamageTracker::new(1);
        // Decoding order I P B B P, and the next group.
        for (pts, key) in [(0, true), (3, false), (1, false)] {
            tracker.packet(Some(pts), None, key);
        }
        assert_eq!(tracker.frame(0), (false, false));
        tracker.packet(Some(2), None, false);
        say("broken");
        tracker.packet(Some(6), None, false);
        assert_eq!(tracker.frame(1), (false, false));
        assert_eq!(tracker.frame(2), (true, false));
        // The packet that arrived before the broken one is not charged, though it is shown later.
        assert_eq!(tracker.frame(3), (true, false), "a time inside the stretch is damaged, whatever its packet");
        tracker.packet(Some(7), None, true);
        // 6 never comes out.
        assert_eq!(tracker.frame(7), (false, true));
        assert_eq!(tracker.damages(), [Damage { from_ns: 2, to_ns: Some(7), reason: "broken".to_owned() }]);
        tracker.packet(Some(8), None, false);
        say("again");
        assert!(tracker.end());
        assert_eq!(tracker.damages().last(), Some(&Damage { from_ns: 8, to_ns: None, reason: "again".to_owned() }));

        // With several threads the message may mean an earlier packet.
        let mut tracker = DamageTracker::new(2);
        (0..5).for_each(|pts| tracker.packet(Some(pts), None, pts == 0));
        say("late");
        assert_eq!(tracker.frame(1), (false, false));
        assert_eq!(tracker.frame(2), (true, false));
    }
}
