//! One video in a worker process: its replies become messages to the thread that appends clips.

use super::resume::Source;
use crate::protocol::{ClipFlags, Failure, Reply, Task};
use console::output::count;
use crossbeam_channel::Sender;
use pipeline::shard::EncodedClip;
use pipeline::video::clips::Fault;
use pipeline::worker::{Ending, Reported, Supervisor};
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, Rejected};
use schemas::shard::ClipMeta;
use std::io;

/// Bytes of clips before compression that may wait to be appended, per video in progress.
const QUEUED_BYTES: usize = 32 << 20;

/// A message about a video.
pub(super) enum Message {
    /// BLAKE3 of the file.
    Identity(String),
    /// A clip that the shards hold already.
    Skipped {
        flags: ClipFlags,
        decoded_bytes: u64,
    },
    /// A clip to append, of the segment of this index.
    Clip(Box<ClipMeta>, u32, EncodedClip),
    /// Times at which scenes begin, in seconds.
    Cuts(Vec<f64>),
    /// The file, or a part of it, is rejected.
    Rejected(Rejected),
    /// The build must stop, with the reason.
    Fatal(String),
    /// No more messages follow.
    Done,
}

/// Returns the number of clips that may wait per video in progress: as many as fit into
/// [`QUEUED_BYTES`], if frames are twice as wide as high.
pub(super) fn queued_clips(options: &BuildOptions) -> usize {
    let side = options.short_side as usize;
    let clip_bytes = options.frames as usize
        * FrameSize {
            width: 2 * side,
            height: side,
        }
        .frame_bytes();
    (QUEUED_BYTES / clip_bytes).clamp(1, 16)
}

/// Has a worker make the clips of one video, and passes on its replies.
pub(super) fn supervise(
    supervisor: &mut Supervisor,
    task: &Task,
    source: &Source,
    messages: &Sender<Message>,
) {
    let mut clips = 0;
    // The receiver is gone only when the build itself has failed.
    let ending = supervisor.run(task, |reply: Reply, bytes| {
        let message = match reply {
            Reply::Probed(_) => return Ok(Reported::More),
            Reply::Identity { blake3 } => Message::Identity(blake3),
            Reply::Skipped {
                flags,
                decoded_bytes,
            } => {
                clips += 1;
                Message::Skipped {
                    flags,
                    decoded_bytes,
                }
            }
            Reply::Clip {
                meta,
                segment,
                uncompressed_bytes,
                xxh3,
                parts,
                stored_bytes,
            } => {
                clips += 1;
                let mut body = vec![0; stored_bytes];
                bytes.read_exact(&mut body)?;
                Message::Clip(
                    meta,
                    segment,
                    EncodedClip {
                        body,
                        uncompressed_bytes,
                        xxh3,
                        parts,
                    },
                )
            }
            Reply::Built { faults, cuts } => {
                if let Some(cuts) = cuts {
                    let _ = messages.send(Message::Cuts(cuts));
                }
                for fault in faults {
                    let _ = messages.send(Message::Rejected(rejected_part(source, fault)));
                }
                return Ok(Reported::Done);
            }
        };
        messages
            .send(message)
            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
        Ok(Reported::More)
    });
    let reject = |reason: String, seconds| {
        let rejected = Rejected {
            seconds,
            ..Rejected::file(source.name(), render_reason(reason, clips))
        };
        let _ = messages.send(Message::Rejected(rejected));
    };
    let last = match ending {
        Ok(Ending::Done) => Message::Done,
        Ok(Ending::Failed(Failure {
            reason,
            seconds,
            stops_build: true,
        })) => {
            let place = seconds.map_or(String::new(), |(from, _)| format!(" at {from:.2} s"));
            let advice = "--on-corrupt keep-good skips the damaged clips only";
            Message::Fatal(format!(
                "{} is damaged{place}: {reason}; {advice}",
                source.name()
            ))
        }
        Ok(Ending::Failed(Failure {
            reason, seconds, ..
        })) => {
            reject(reason, seconds);
            Message::Done
        }
        Ok(Ending::Lost(reason)) => {
            reject(reason, None);
            Message::Done
        }
        Ok(Ending::Stopped) => return,
        Err(error) => Message::Fatal(error.to_string()),
    };
    let _ = messages.send(last);
}

/// Returns the entry of a part of a video for the list of rejected files.
fn rejected_part(source: &Source, fault: Fault) -> Rejected {
    Rejected {
        path: source.name(),
        reason: fault.reason,
        seconds: Some(fault.seconds),
        clips: Some(fault.clips),
        kind: Some(fault.kind),
    }
}

/// Renders the reason for which a video ended, with the number of clips before.
fn render_reason(reason: String, clips: u64) -> String {
    if clips == 0 {
        reason
    } else {
        format!("{reason} (after {}, kept)", count(clips, "clip"))
    }
}
