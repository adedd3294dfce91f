//! Reads clips: of a page, only the parts that hold the wanted frames, each checked by its hash.

use super::delta;
use super::mapping::lost;
use super::page::{EncodedClip, LENGTH_BYTES, page_sizes};
use super::payload::{PayloadDecoder, PayloadFormat};
use super::reader::{ClipEntry, Part};
use super::{Shard, ShardError};
use crate::frames::Frames;
use crate::stats::{Stage, StageClock};
use schemas::shard::{Parts, Payload};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::Decompressor;

/// Bytes that one stored byte can stand for, at most: zstd repeats a byte up to 128 KiB in 4 bytes.
/// A table of parts that claims more lies, and no memory is allocated for it.
const BYTES_PER_STORED_BYTE: usize = 32 << 10;

/// Reads clips into memory that it reuses: one reader per thread.
///
/// ```
/// use pipeline::shard::ClipReader;
/// # use pipeline::shard::synthetic;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = synthetic::write(dir.path(), 5)?;
/// let mut reader = ClipReader::default();
/// let (shard, row) = data.locate(3);
/// let frame_bytes = synthetic::SIZE.frame_bytes();
/// let frames = reader.frames(shard, row, 8)?;
/// assert_eq!(frames.bytes(), synthetic::clip(3).1);
/// let window = reader.window(shard, row, 2..5)?;
/// assert_eq!(window.bytes(), &synthetic::clip(3).1[2 * frame_bytes..5 * frame_bytes]);
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct ClipReader {
    pages: PageReader,
    decoder: PayloadDecoder,
}

/// Frames that hold some windows of a clip.
pub(crate) struct Windows<'a> {
    /// Frames from the first of all windows to the last. Those of no window may be of other clips.
    pub(crate) frames: Frames<'a>,
    /// Number of the first one in the clip.
    pub(crate) first_frame: usize,
    /// Stored bytes that were read for them.
    pub(crate) stored_bytes: usize,
}

impl ClipReader {
    /// Reads the payload of clip `row` of `shard` as stored, checked against all its hashes.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] when the bytes are not those that were written.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn payload<'a>(&'a mut self, shard: &'a Shard, row: usize) -> Result<&'a [u8], ShardError> {
        let clip = &shard.clips()[row];
        let wanted = Wanted {
            frames: clip.frames.max(1),
            starts: &[0],
        };
        let payload = self.pages.read(shard, row, wanted, Form::Stored)?.payload;
        // Of a single part, it has been checked.
        if shard.parts(clip).len() > 1 && xxh3_64(payload) != clip.xxh3 {
            return Err(damaged(
                shard,
                row,
                "its parts do not have the hash of the whole that was stored with them".to_owned(),
            ));
        }
        Ok(payload)
    }

    /// Reads the first `count` frames of clip `row` of `shard`, checked against the hashes of their
    /// parts.
    ///
    /// # Errors
    /// As [`Self::payload`], and [`ShardError::Undecodable`] when the payload holds fewer frames,
    /// or its decoder is missing.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn frames<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        count: usize,
    ) -> Result<Frames<'a>, ShardError> {
        self.window(shard, row, 0..count)
    }

    /// Reads some frames of clip `row` of `shard`, at the cost of the parts that hold them.
    ///
    /// # Errors
    /// As [`Self::frames`].
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn window<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        frames: Range<usize>,
    ) -> Result<Frames<'a>, ShardError> {
        let size = shard.clips()[row].size;
        let clock = &mut StageClock::default();
        let read = self.windows(shard, row, frames.len(), &[frames.start], clock)?;
        let first = frames.start - read.first_frame;
        let window = read.frames.window(first, frames.len(), size);
        Ok(window.expect("the frames that were read hold the window"))
    }

    /// Reads the windows of `frames` frames from `starts` on, charging the time to the stages of
    /// `clock`.
    pub(crate) fn windows<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        frames: usize,
        starts: &[usize],
        clock: &mut StageClock,
    ) -> Result<Windows<'a>, ShardError> {
        let clip = &shard.clips()[row];
        let PageFrames {
            payload,
            first_frame,
            stored_bytes,
        } = self
            .pages
            .read(shard, row, Wanted { frames, starts }, Form::Frames)?;
        clock.lap(Stage::Read);
        let format = PayloadFormat {
            kind: clip.payload,
            size: clip.size,
            color: clip.color,
        };
        let end = starts.iter().max().map_or(0, |start| start + frames);
        let frames = self.decoder.decode(format, payload, end - first_frame);
        clock.lap(Stage::Decode);
        let frames = frames.map_err(|source| ShardError::Undecodable {
            path: shard.path().to_owned(),
            row,
            source,
        })?;
        Ok(Windows {
            frames,
            first_frame,
            stored_bytes,
        })
    }
}

impl Shard {
    /// Returns clip `row` as it is compressed, to be appended to another shard of the same
    /// compression ([`super::ShardSetWriter`]).
    ///
    /// # Errors
    /// When the clip is damaged.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn encoded(&self, row: usize) -> Result<EncodedClip, ShardError> {
        // All of it must be intact.
        ClipReader::default().payload(self, row)?;
        let clip = &self.clips()[row];
        let (body, payload_bytes) =
            body(clip, &self.file[clip.page()]).map_err(|reason| damaged(self, row, reason))?;
        let parts = self.parts(clip);
        let ends = parts.iter().skip(1).map(|part| part.start);
        let ends = ends.chain([body.len()]);
        let bytes = parts
            .iter()
            .zip(ends)
            .map(|(part, end)| (end - part.start) as u32);
        Ok(EncodedClip {
            uncompressed_bytes: LENGTH_BYTES + payload_bytes,
            xxh3: clip.xxh3,
            parts: Parts {
                frames: clip.part_frames as u32,
                bytes: bytes.collect(),
                xxh3: parts.iter().map(|part| part.xxh3).collect(),
            },
            body: body.to_vec(),
        })
    }
}

/// Windows of a clip.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    frames: usize,
    starts: &'a [usize],
}

impl Wanted<'_> {
    /// Whether a window has frames of `part`, a range of frames.
    fn touches(self, part: &Range<usize>) -> bool {
        let begins_before_end = |start: usize| start < part.end;
        let ends_after_start = |start: usize| start + self.frames > part.start;
        self.starts
            .iter()
            .any(|&start| begins_before_end(start) && ends_after_start(start))
    }
}

/// What is read of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The bytes as they are stored.
    Stored,
    /// Planes in place of differences.
    Frames,
}

/// A stretch of a payload.
struct PageFrames<'a> {
    payload: &'a [u8],
    /// Number of its first frame in the clip.
    first_frame: usize,
    /// Stored bytes of the parts that were read.
    stored_bytes: usize,
}

/// Reads payloads into memory that it reuses.
#[derive(Default)]
struct PageReader {
    zstd: Option<Decompressor<'static>>,
    /// 4 length bytes, then the payload from the first part on that was read.
    page: Vec<u8>,
}

/// The error of a clip whose bytes are not what was written.
fn damaged(shard: &Shard, row: usize, reason: String) -> ShardError {
    ShardError::Damaged {
        path: shard.path().to_owned(),
        row,
        reason,
    }
}

impl PageReader {
    /// Reads the parts that hold the frames that are `wanted`.
    fn read<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        wanted: Wanted<'_>,
        form: Form,
    ) -> Result<PageFrames<'a>, ShardError> {
        // A shard that is gone or truncated is not the damage of one clip.
        let loss = || {
            let reason = shard.file.loss()?;
            Some(lost(shard.path(), reason))
        };
        match loss() {
            Some(error) => Err(error),
            None => self
                .read_parts(shard, row, wanted, form)
                .map_err(|reason| loss().unwrap_or_else(|| damaged(shard, row, reason))),
        }
    }

    /// [`Self::read`] of a file that is there; the error is the damage.
    fn read_parts<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        wanted: Wanted<'_>,
        form: Form,
    ) -> Result<PageFrames<'a>, String> {
        let clip = &shard.clips()[row];
        let (body, payload_bytes) = body(clip, &shard.file[clip.page()])?;
        let parts = PartTable {
            parts: shard.parts(clip),
            clip,
            body,
            payload_bytes,
        };
        let touched = |&index: &usize| wanted.touches(&parts.frames(index));
        let count = parts.parts.len();
        let first = (0..count).find(touched).unwrap_or(0);
        let last = (0..count).rfind(touched).unwrap_or(0);
        // All are looked at before memory is allocated for them.
        for index in first..=last {
            parts.stored(index)?;
        }
        let start = parts.payload(first).start;
        let span = start..parts.payload(last).end;
        let has_differences = form == Form::Frames && clip.payload == Payload::I420Delta;
        // What is stored plainly is used where it lies.
        let is_copied = clip.compressed || has_differences;
        if is_copied && self.page.len() < LENGTH_BYTES + span.len() {
            self.page.resize(LENGTH_BYTES + span.len(), 0);
        }
        let mut stored_bytes = 0;
        for index in (first..=last).filter(|&index| index == first || touched(&index)) {
            let stored = parts.stored(index)?;
            stored_bytes += stored.len();
            let range = parts.payload(index);
            // The first part of a page begins with the length.
            let length = if index == 0 { LENGTH_BYTES } else { 0 };
            let checked = |part: &[u8]| {
                if xxh3_64(part) == parts.parts[index].xxh3 {
                    return Ok(());
                }
                let reason = "its pixels do not have the hash that was stored with them";
                Err(parts.damage(index, reason))
            };
            if !is_copied {
                checked(&stored[length..])?;
                continue;
            }
            let from = LENGTH_BYTES - length + range.start - start;
            let part = &mut self.page[from..][..length + range.len()];
            if clip.compressed {
                decompress(&mut self.zstd, stored, part)
                    .map_err(|reason| parts.damage(index, &reason))?;
            } else {
                part.copy_from_slice(stored);
            }
            let part = &mut part[length..];
            checked(part)?;
            if has_differences {
                delta::undo(part, clip.size);
            }
        }
        let payload = if is_copied {
            &self.page[LENGTH_BYTES..][..span.len()]
        } else {
            &body[LENGTH_BYTES..][span]
        };
        Ok(PageFrames {
            payload,
            first_frame: first * clip.part_frames,
            stored_bytes,
        })
    }
}

/// The body of the page of `clip`, and the bytes of the payload in it.
fn body<'a>(clip: &ClipEntry, page: &'a [u8]) -> Result<(&'a [u8], usize), String> {
    let sizes = page_sizes(page).ok_or("its page header cannot be read")?;
    let body_offset = page
        .len()
        .checked_sub(sizes.compressed)
        .ok_or("its page is truncated")?;
    let (least, most) = clip
        .payload_bytes()
        .ok_or("its row describes more pixels than a page can hold")?;
    let payload_bytes = sizes.uncompressed.saturating_sub(LENGTH_BYTES);
    if !(least..=most).contains(&payload_bytes) {
        let expected = if least == most {
            least.to_string()
        } else {
            format!("{least} to {most}")
        };
        return Err(format!(
            "expected {expected} bytes of pixels, the page has {}",
            sizes.uncompressed
        ));
    }
    Ok((&page[body_offset..], payload_bytes))
}

/// The parts of a page.
struct PartTable<'a> {
    parts: &'a [Part],
    clip: &'a ClipEntry,
    body: &'a [u8],
    payload_bytes: usize,
}

impl<'a> PartTable<'a> {
    /// The frames of a part.
    fn frames(&self, index: usize) -> Range<usize> {
        let start = index * self.clip.part_frames;
        start..start + self.clip.part_frames
    }

    /// Where the bytes of a part lie in the payload.
    fn payload(&self, index: usize) -> Range<usize> {
        let part_bytes = match self.parts.len() {
            1 => self.payload_bytes,
            // Frames are of one size: those of H.264 are in one part.
            _ => self.payload_bytes / self.clip.frames * self.clip.part_frames,
        };
        index * part_bytes..((index + 1) * part_bytes).min(self.payload_bytes)
    }

    /// The stored bytes of a part. They can stand for as many bytes as the part has.
    fn stored(&self, index: usize) -> Result<&'a [u8], String> {
        let payload = self.payload(index);
        let length = if index == 0 { LENGTH_BYTES } else { 0 };
        let next = self.parts.get(index + 1);
        let stored = if self.clip.compressed {
            let end = next.map_or(self.body.len(), |next| next.start);
            self.body
                .get(self.parts[index].start..end)
                .filter(|stored| {
                    stored.len().saturating_mul(BYTES_PER_STORED_BYTE) >= length + payload.len()
                })
        } else {
            self.body
                .get(LENGTH_BYTES - length + payload.start..LENGTH_BYTES + payload.end)
        };
        stored.ok_or_else(|| self.damage(index, "its page is shorter than its header says"))
    }

    /// What is wrong with a part, which is named if it is one of several.
    fn damage(&self, index: usize, reason: &str) -> String {
        match self.parts.len() {
            1 => reason.to_owned(),
            _ => {
                let Range { start, end } = self.frames(index);
                let last = end.min(self.clip.frames) - 1;
                format!("part {index} (frames {start} to {last}): {reason}")
            }
        }
    }
}

/// Decompresses a part, which must fill `part`.
fn decompress(
    zstd: &mut Option<Decompressor<'static>>,
    stored: &[u8],
    part: &mut [u8],
) -> Result<(), String> {
    let zstd = match zstd {
        Some(zstd) => zstd,
        None => zstd.insert(Decompressor::new().map_err(|error| error.to_string())?),
    };
    let written = zstd
        .decompress_to_buffer(stored, part)
        .map_err(|error| error.to_string())?;
    if written == part.len() {
        Ok(())
    } else {
        Err("its page is shorter than its header says".to_owned())
    }
}
