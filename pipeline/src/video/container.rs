//! Checks whether a file ends before its container does: an interrupted download does, and plays
//! without an error as far as it goes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Returns the number of bytes that the file at `path` lacks according to its container; 0 if none
/// is missing, or the container does not say.
///
/// The outermost sizes are read: the boxes of mp4 and mov (ISO/IEC 14496-12, 4.2), the segment of
/// Matroska and WebM (RFC 8794, RFC 9559), the RIFF chunks of AVI. A transport stream has none.
///
/// # Errors
/// When the file cannot be read.
pub fn missing_bytes(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = [0; 12];
    if length < start.len() as u64 {
        return Ok(0);
    }
    file.read_exact(&mut start)?;
    let end = match &start {
        [0x1a, 0x45, 0xdf, 0xa3, ..] => matroska_end(&mut file)?,
        [b'R', b'I', b'F', b'F', ..] => riff_end(&mut file, length)?,
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => boxes_end(&mut file, length)?,
        // Old QuickTime files begin with any of these boxes.
        [_, _, _, _, b'm', b'o', b'o', b'v', ..]
        | [_, _, _, _, b'm', b'd', b'a', b't', ..]
        | [_, _, _, _, b'w', b'i', b'd', b'e', ..] => boxes_end(&mut file, length)?,
        _ => None,
    };
    Ok(end.unwrap_or(0).saturating_sub(length))
}

/// Returns the end of the last box. A box has four bytes of size, four of type, and eight more of
/// size if the first are 1. Size 0 is "to the end".
fn boxes_end(file: &mut File, length: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    while at + 8 <= length {
        let mut header = [0; 16];
        file.seek(SeekFrom::Start(at))?;
        let known = ((length - at) as usize).min(16);
        file.read_exact(&mut header[..known])?;
        let [a, b, c, d, ..] = header;
        let size = match u64::from(u32::from_be_bytes([a, b, c, d])) {
            0 => return Ok(Some(length)),
            1 => u64::from_be_bytes(header[8..].try_into().expect("eight bytes")),
            size => size,
        };
        // Garbage after the last box is no box.
        if size < 8
            || !header[4..8]
                .iter()
                .all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | 0xa9))
        {
            return Ok(Some(at));
        }
        at = at.saturating_add(size);
    }
    Ok(Some(at))
}

/// Returns the end of the RIFF chunks: four bytes of name, four of size. Large files have several.
fn riff_end(file: &mut File, length: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    while at + 8 <= length {
        let mut header = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let [b'R', b'I', b'F', b'F', a, b, c, d] = header else {
            return Ok(Some(at));
        };
        let size = u64::from(u32::from_le_bytes([a, b, c, d]));
        // A recorder that was interrupted has left the size open.
        if size == 0 || size == u64::from(u32::MAX) {
            return Ok(None);
        }
        at += 8 + size + size % 2;
    }
    Ok(Some(at))
}

/// Returns the end of the segment, which follows the EBML header; none if its size is unknown, as
/// in a live recording.
fn matroska_end(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(4))?;
    let Some(header) = ebml_size(file)? else {
        return Ok(None);
    };
    file.seek_relative(i64::try_from(header).unwrap_or(i64::MAX))?;
    let mut id = [0; 4];
    file.read_exact(&mut id)?;
    if id != [0x18, 0x53, 0x80, 0x67] {
        return Ok(None);
    }
    let size = ebml_size(file)?;
    let at = file.stream_position()?;
    Ok(size.map(|size| at.saturating_add(size)))
}

/// Reads a size of variable length: it has as many leading zero bits as further bytes. All ones is
/// "unknown".
fn ebml_size(file: &mut File) -> io::Result<Option<u64>> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes[..1])?;
    let more = bytes[0].leading_zeros() as usize;
    if more > 7 {
        return Ok(None);
    }
    file.read_exact(&mut bytes[1..=more])?;
    let bits = 7 * (more as u32 + 1);
    let value = (u64::from_be_bytes(bytes) >> (64 - 8 * (more + 1))) & ((1 << bits) - 1);
    Ok((value != (1 << bits) - 1).then_some(value))
}
