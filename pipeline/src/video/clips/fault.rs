//! The faults of a video, as a build lists them.

use super::ClipDecoder;
pub use schemas::manifest::FaultKind;
use serde::{Deserialize, Serialize};

/// A fault of a stretch of a video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Start and end of the stretch, in seconds of stream time.
    pub seconds: (f64, f64),
    /// Description of the fault.
    pub reason: String,
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Number of clips that were dropped because of it. The decoder counts the clips that
    /// it did not make; a build adds those that it drops.
    pub clips: u64,
}

impl ClipDecoder {
    /// Returns the faults of the video, as far as it was decoded: damaged stretches, gaps, an end
    /// that is missing, and segments that it does not have.
    pub fn faults(&self) -> Vec<Fault> {
        let seconds = |ns: i64| ns.max(self.start_ns) as f64 / 1e9;
        let end_ns = self
            .end_ns
            .max(self.shown.as_ref().map_or(0, |shown| shown.pts_ns));
        let damages = self.decoder.damages().into_iter().map(|damage| Fault {
            seconds: (
                seconds(damage.from_ns),
                seconds(damage.to_ns.unwrap_or(end_ns)),
            ),
            reason: format!("damaged: the decoder says \"{}\"", damage.reason),
            kind: FaultKind::Damage,
            clips: 0,
        });
        let gaps = self.gaps.iter().map(|&(gap, clips)| Fault {
            seconds: (seconds(gap.from_ns), seconds(gap.to_ns)),
            reason: "a gap without frames (--gap-seconds inf keeps what holds a frame there)"
                .to_owned(),
            kind: FaultKind::Gap,
            clips,
        });
        let missing_end = self.missing_end().map(|reason| Fault {
            seconds: (seconds(end_ns), seconds(end_ns)),
            reason,
            kind: FaultKind::CutShort,
            clips: 0,
        });
        let segments = self.segment_faults.iter().cloned();
        damages
            .chain(gaps)
            .chain(missing_end)
            .chain(segments)
            .collect()
    }

    /// Returns how the end of the video is missing, if it is.
    fn missing_end(&self) -> Option<String> {
        if self.missing_bytes > 0 {
            let bytes = self.missing_bytes;
            return Some(format!(
                "cut short: the file lacks {bytes} bytes that its container says it has"
            ));
        }
        let lacks_frames = self.ended && self.decoder.ended_early();
        lacks_frames
            .then(|| "cut short: the container lists frames that the file does not hold".to_owned())
    }
}
