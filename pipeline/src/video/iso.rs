//! Reads the boxes of ISO base media files (ISO/IEC 14496-12) that GStreamer misreads or does not
//! report.

use super::facts::{Edit, read_at};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Maximum size of a movie box that is read.
const MAX_MOVIE_BYTES: u64 = 256 << 20;

/// A box: its kind, and where its content begins and ends in the bytes that hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BoxRange {
    kind: [u8; 4],
    start: usize,
    end: usize,
}

/// Iterates over the boxes in `bytes`, up to the first that is incomplete.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = BoxRange> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = bytes.get(at..at + 8)?;
        let kind: [u8; 4] = header[4..].try_into().ok()?;
        let (start, size) = match u32::from_be_bytes(header[..4].try_into().ok()?) {
            0 => (at + 8, bytes.len() - at),
            1 => {
                let size = u64::from_be_bytes(bytes.get(at + 8..at + 16)?.try_into().ok()?);
                (at + 16, usize::try_from(size).ok()?)
            }
            size => (at + 8, size as usize),
        };
        let end = at
            .checked_add(size)
            .filter(|&end| end >= start && end <= bytes.len())?;
        at = end;
        Some(BoxRange { kind, start, end })
    })
}

/// Returns the content of the first box of `kind` in `bytes`.
fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes)
        .find(|found| found.kind == *kind)
        .map(|found| &bytes[found.start..found.end])
}

/// Reads the content of the movie box of the file at `path`, and its offset.
fn movie(path: &Path) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = 0;
    while at + 8 <= length {
        let header = read_at(&mut file, at, 16)?;
        let Some((size, kind)) = header.split_first_chunk::<4>() else {
            break;
        };
        let (start, size) = match (u32::from_be_bytes(*size), header.get(8..16)) {
            (0, _) => (8, length - at),
            (1, Some(size)) => (
                16,
                u64::from_be_bytes(size.try_into().expect("eight bytes")),
            ),
            (size, _) => (8, u64::from(size)),
        };
        if size < start {
            break;
        }
        if kind.starts_with(b"moov") && size <= MAX_MOVIE_BYTES {
            return Ok(Some((
                at + start,
                read_at(&mut file, at + start, size - start)?,
            )));
        }
        at = at.saturating_add(size);
    }
    Ok(None)
}

/// Returns the time scale and the duration of a `mvhd` or `mdhd` box, and where in the box the
/// duration lies.
fn scale_and_duration(header: &[u8]) -> Option<(u64, u64, Range<usize>)> {
    let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if *header.first()? == 1 {
        let duration = u64::from_be_bytes(header.get(24..32)?.try_into().ok()?);
        Some((u64::from(word(20)?), duration, 24..32))
    } else {
        Some((u64::from(word(12)?), u64::from(word(16)?), 16..20))
    }
}

/// Iterates over the video tracks in `movie`.
fn video_tracks(movie: &[u8]) -> impl Iterator<Item = BoxRange> {
    boxes(movie).filter(|found| {
        let handler = || find(find(&movie[found.start..found.end], b"mdia")?, b"hdlr")?.get(8..12);
        found.kind == *b"trak" && handler() == Some(b"vide")
    })
}

/// Whether the file at `path` has a video track.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn has_video(path: &Path) -> io::Result<bool> {
    Ok(movie(path)?.is_some_and(|(_, movie)| video_tracks(&movie).next().is_some()))
}

/// Facts of a movie that `qtdemux` does not report, or misreads.
#[derive(Debug, Default)]
pub(super) struct MovieFacts {
    /// Bytes to replace for `qtdemux`.
    pub(super) edits: Vec<Edit>,
    /// Whether the first video track is encrypted (ISO/IEC 14496-12, 8.12: its sample entry is
    /// `encv`).
    pub(super) is_encrypted: bool,
}

/// Reads the facts of the movie in the file at `path`.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn movie_facts(path: &Path) -> io::Result<MovieFacts> {
    let Some((offset, movie)) = movie(path)? else {
        return Ok(MovieFacts::default());
    };
    let entry = video_tracks(&movie).next().and_then(|track| {
        let media = find(&movie[track.start..track.end], b"mdia")?;
        find(find(find(media, b"minf")?, b"stbl")?, b"stsd")?.get(12..16)
    });
    let is_encrypted = entry == Some(b"encv");
    Ok(MovieFacts {
        edits: duration_edits(offset, &movie),
        is_encrypted,
    })
}

/// Returns the replacements of the durations of a movie that begins at `offset` of its file.
/// `qtdemux` drops a track that is shorter than a fifth of the movie, such as a video behind a long
/// empty edit. It ends a track when the time of its media, including what an edit list cuts off
/// before it, reaches the duration of the movie. And it ends a track without an edit list at the
/// duration of its media, beyond which its last frames are shown if they are shown later than they
/// are decoded. If the duration of the movie is unknown, and media last until their last frame is
/// shown, all frames are output.
fn duration_edits(offset: u64, movie: &[u8]) -> Vec<Edit> {
    let replace = |range: Range<usize>, value: u64| {
        let length = range.len();
        let inserted = value.to_be_bytes()[8 - length..].to_vec();
        Edit {
            offset: offset + range.start as u64,
            removed: length as u64,
            inserted,
        }
    };
    let header = boxes(movie).find(|found| found.kind == *b"mvhd");
    let of_movie = header.and_then(|header| {
        let (_, duration, range) = scale_and_duration(&movie[header.start..header.end])?;
        (duration != 0).then(|| replace(header.start + range.start..header.start + range.end, 0))
    });
    let of_media = video_tracks(movie).filter_map(|track| {
        let content = &movie[track.start..track.end];
        if find(content, b"edts").is_some() {
            return None;
        }
        let media = boxes(content).find(|found| found.kind == *b"mdia")?;
        let media_content = &content[media.start..media.end];
        let header = boxes(media_content).find(|found| found.kind == *b"mdhd")?;
        let (_, duration, range) = scale_and_duration(&media_content[header.start..header.end])?;
        let table = find(find(media_content, b"minf")?, b"stbl")?;
        let latest = latest_offset(find(table, b"ctts")?);
        let start = track.start + media.start + header.start;
        let until_shown = duration.saturating_add(latest);
        (latest > 0 && duration > 0)
            .then(|| replace(start + range.start..start + range.end, until_shown))
    });
    let mut edits: Vec<Edit> = of_movie.into_iter().chain(of_media).collect();
    edits.sort_by_key(|edit| edit.offset);
    edits
}

/// Returns the greatest time by which a frame is shown after it is decoded, by a `ctts` box
/// (8.6.1.3).
fn latest_offset(table: &[u8]) -> u64 {
    let entries = table.get(8..).unwrap_or_default().chunks_exact(8);
    let offsets = entries.map(|entry| i32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]));
    u64::from(offsets.max().unwrap_or(0).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn header(scale: u32, duration: u32) -> Vec<u8> {
        [&[0; 12][..], &scale.to_be_bytes(), &duration.to_be_bytes()].concat()
    }

    fn movie_of(handler: &[u8; 4], tables: &[u8], edits: &[u8]) -> Vec<u8> {
        let handler = a_box(b"hdlr", &[&[0; 8][..], handler].concat());
        let table = a_box(b"minf", &a_box(b"stbl", tables));
        let media = a_box(
            b"mdia",
            &[a_box(b"mdhd", &header(90, 270)), handler, table].concat(),
        );
        [
            a_box(b"mvhd", &header(10, 600)),
            a_box(b"trak", &[edits, &media].concat()),
        ]
        .concat()
    }

    #[test]
    fn a_movie_does_not_end_its_tracks() {
        let unknown = Edit {
            offset: 100 + 8 + 16,
            removed: 4,
            inserted: vec![0; 4],
        };
        assert_eq!(
            duration_edits(100, &movie_of(b"vide", &[], &[])),
            std::slice::from_ref(&unknown)
        );
        assert_eq!(
            duration_edits(100, &movie_of(b"vide", &[], &[])[..30]),
            std::slice::from_ref(&unknown),
            "cut short"
        );
        // Frames that are shown 7 units after they are decoded, at most.
        let later = a_box(
            b"ctts",
            &[
                0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 3,
            ],
        );
        let movie = movie_of(b"vide", &later, &[]);
        let edits = duration_edits(0, &movie);
        assert_eq!(edits.len(), 2);
        assert_eq!(edits[1].inserted, 277u32.to_be_bytes());
        assert_eq!(movie[edits[1].offset as usize..][..4], 270u32.to_be_bytes());
        assert_eq!(
            duration_edits(0, &movie_of(b"vide", &later, &a_box(b"edts", &[]))).len(),
            1
        );
        assert_eq!(duration_edits(0, &movie_of(b"soun", &later, &[])).len(), 1);
    }
}
