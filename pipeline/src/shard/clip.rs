//! Reads clips: of a page, only the parts that hold the wanted frames, each checked by its hash.

use super::delta;
use super::mapping::{Mapping, lost};
use super::page::{EncodedClip, LENGTH_BYTES, page_sizes};
use super::payload::{PayloadDecoder, PayloadFormat};
use super::reader::{ClipEntry, Part, ShardFile};
use super::remote::{Found, RemoteClip};
use super::{Shard, ShardError};
use crate::frames::Frames;
use crate::stats::{Stage, StageClock};
use schemas::shard::{Parts, Payload};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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
    /// A reader that stops waiting for a store when `stop` is set.
    pub fn stopping(stop: Arc<AtomicBool>) -> Self {
        let mut reader = Self::default();
        reader.pages.stop = stop;
        reader
    }

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
        let clock = &mut StageClock::default();
        let read = self.pages.read(shard, row, wanted, Form::Stored, clock)?;
        let payload = read.payload;
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
            .read(shard, row, Wanted { frames, starts }, Form::Frames, clock)?;
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
        let mut reader = ClipReader::default();
        reader.payload(self, row)?;
        let clip = &self.clips()[row];
        let page = reader.pages.page(self, row);
        let (body, payload_bytes) =
            body(clip, page).map_err(|reason| damaged(self, row, reason))?;
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
pub(super) struct Wanted<'a> {
    pub(super) frames: usize,
    pub(super) starts: &'a [usize],
}

impl Wanted<'_> {
    /// Whether a window has frames of part `part` of `clip`.
    pub(super) fn touches_part(self, clip: &ClipEntry, part: usize) -> bool {
        self.touches(&clip.part_range(part))
    }

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
    parts: PartReader,
    /// The page of a clip from a store.
    fetched: Vec<u8>,
    /// Whether the last page was read from `fetched`.
    is_fetched: bool,
    stop: Arc<AtomicBool>,
}

/// Decompresses parts into memory that it reuses.
#[derive(Default)]
struct PartReader {
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
        clock: &mut StageClock,
    ) -> Result<PageFrames<'a>, ShardError> {
        let stretch = match &shard.file {
            ShardFile::Mapped(file) => self.read_mapped(shard, file, row, wanted, form)?,
            ShardFile::Remote(remote) => {
                let clip = shard.remote_clip(remote, row);
                self.read_remote(shard, clip, row, wanted, form, clock)?
            }
        };
        let payload = if stretch.is_copied {
            &self.parts.page[stretch.range]
        } else {
            &self.page(shard, row)[stretch.range]
        };
        Ok(PageFrames {
            payload,
            first_frame: stretch.first_frame,
            stored_bytes: stretch.stored_bytes,
        })
    }

    /// The page of clip `row`, which was read last.
    fn page<'a>(&'a self, shard: &'a Shard, row: usize) -> &'a [u8] {
        match &shard.file {
            ShardFile::Mapped(file) => &file[shard.clips()[row].page()],
            ShardFile::Remote(_) if self.is_fetched => &self.fetched,
            ShardFile::Remote(remote) => {
                let clip = shard.remote_clip(remote, row);
                clip.cached().unwrap_or_default()
            }
        }
    }

    fn read_mapped(
        &mut self,
        shard: &Shard,
        file: &Mapping,
        row: usize,
        wanted: Wanted<'_>,
        form: Form,
    ) -> Result<Stretch, ShardError> {
        // A shard that is gone or truncated is not the damage of one clip.
        let loss = || {
            let reason = file.loss()?;
            Some(lost(shard.path(), reason))
        };
        match loss() {
            Some(error) => Err(error),
            None => {
                let page = &file[shard.clips()[row].page()];
                let read = self.parts.read(shard, row, page, wanted, form);
                read.map_err(|reason| loss().unwrap_or_else(|| damaged(shard, row, reason)))
            }
        }
    }

    /// Reads a clip from the cache, or else from the store. What has a wrong hash is fetched again,
    /// once.
    fn read_remote(
        &mut self,
        shard: &Shard,
        clip: RemoteClip<'_>,
        row: usize,
        wanted: Wanted<'_>,
        form: Form,
        clock: &mut StageClock,
    ) -> Result<Stretch, ShardError> {
        let mut again = false;
        loop {
            let found = clip.find(wanted, again, &mut self.fetched, &self.stop)?;
            clock.lap(Stage::Fetch);
            self.is_fetched = found != Found::Cached;
            let page = match &found {
                Found::Cached => clip.cached().unwrap_or_default(),
                Found::Fetched(_) => &self.fetched,
            };
            let read = self.parts.read(shard, row, page, wanted, form);
            clock.lap(Stage::Read);
            match (read, found) {
                (Ok(stretch), Found::Cached) => return Ok(stretch),
                (Ok(stretch), Found::Fetched(parts)) => {
                    clip.keep(wanted, &parts, &self.fetched);
                    clock.lap(Stage::Fetch);
                    return Ok(stretch);
                }
                (Err(reason), _) if again => return Err(damaged(shard, row, reason)),
                (Err(_), _) => clip.forget(wanted),
            }
            again = true;
        }
    }
}

/// Where a stretch of a payload was left.
struct Stretch {
    /// Whether it is in the reader's memory; otherwise it is where it was in its page.
    is_copied: bool,
    range: Range<usize>,
    first_frame: usize,
    stored_bytes: usize,
}

impl PartReader {
    /// Reads the parts of `page` that hold the frames that are `wanted`; the error is the damage.
    fn read(
        &mut self,
        shard: &Shard,
        row: usize,
        page: &[u8],
        wanted: Wanted<'_>,
        form: Form,
    ) -> Result<Stretch, String> {
        let clip = &shard.clips()[row];
        let (body, payload_bytes) = body(clip, page)?;
        let parts = PartTable {
            parts: shard.parts(clip),
            clip,
            body,
            payload_bytes,
        };
        let touched = |&index: &usize| wanted.touches(&clip.part_range(index));
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
        let before = page.len() - body.len();
        let range = if is_copied {
            LENGTH_BYTES..LENGTH_BYTES + span.len()
        } else {
            before + LENGTH_BYTES + span.start..before + LENGTH_BYTES + span.end
        };
        Ok(Stretch {
            is_copied,
            range,
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
                let Range { start, end } = self.clip.part_range(index);
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
