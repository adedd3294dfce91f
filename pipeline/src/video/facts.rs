//! The facts of a file that are needed before GStreamer reads it: its type, and the bytes and caps
//! that must be replaced for GStreamer 1.22.
//!
//! Each fact is needed because a demultiplexer of GStreamer fails on valid files without it, or
//! hides what ffmpeg's decoders need to know.

use super::sniff::read_start;
use super::{iso, transport};
use gstreamer as gst;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of a program stream that are searched for its video.
const PROGRAM_BYTES: u64 = 1 << 20;

/// Bytes of the video that suffice to find its type.
const ELEMENTARY_BYTES: usize = 32 << 10;

/// A replacement of bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Offset of the first replaced byte.
    pub(super) offset: u64,
    /// Number of bytes of the file that are replaced.
    pub(super) removed: u64,
    /// The bytes in their place.
    pub(super) inserted: Vec<u8>,
}

/// The facts of a file.
#[derive(Debug)]
pub(super) struct Facts {
    /// Type of the file, by GStreamer's type finders.
    pub(super) caps: gst::Caps,
    /// Bytes that are replaced for the demultiplexer.
    pub(super) edits: Vec<Edit>,
    /// The container's own name of the codec, if it is a four-character code: some decoders derive
    /// from it which encoder's faults to expect.
    pub(super) codec_tag: Option<[u8; 4]>,
    /// Caps of the video of a program stream. The stream itself often does not declare its codec,
    /// and is then taken for MPEG-2.
    pub(super) program_video: Option<gst::Caps>,
    /// Whether the video is known to be encrypted.
    pub(super) is_encrypted: bool,
}

impl Facts {
    /// Reads the facts of the file at `path`; none if its type is unknown.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let start = read_start(path)?;
        let Some(caps) = super::sniff::type_of(&start) else {
            return Ok(None);
        };
        let mut facts = Self::of_caps(caps);
        match facts.media() {
            "video/quicktime" | "application/x-3gp" | "audio/x-m4a" | "video/mj2" => {
                let movie = iso::movie_facts(path)?;
                (facts.edits, facts.is_encrypted) = (movie.edits, movie.is_encrypted);
            }
            "video/x-msvideo" => facts.codec_tag = avi_tag(&start),
            "video/x-matroska" | "video/webm" => facts.codec_tag = matroska_tag(&start),
            "video/mpegts" => facts.edits = transport::edits(path)?,
            "video/mpeg" if is_program_stream(&facts.caps) => {
                facts.program_video = program_video(path)?
            }
            _ => {}
        }
        Ok(Some(facts))
    }

    /// The facts of a stream of `caps` that is in no container.
    pub(super) const fn of_caps(caps: gst::Caps) -> Self {
        Self {
            caps,
            edits: Vec::new(),
            codec_tag: None,
            program_video: None,
            is_encrypted: false,
        }
    }

    /// Whether the container has decoding times only.
    pub(super) fn has_decoding_times_only(&self) -> bool {
        self.media() == "video/x-msvideo"
    }

    /// Returns the file's media type.
    pub(super) fn media(&self) -> &str {
        super::media_type(&self.caps)
    }
}

fn is_program_stream(caps: &gst::CapsRef) -> bool {
    caps.structure(0)
        .and_then(|structure| structure.get::<bool>("systemstream").ok())
        .unwrap_or(false)
}

/// Returns `biCompression` of the first video stream of an AVI file that begins with `bytes`: `LIST
/// strl` holds `strh`, whose first word is `vids`, and `strf`, a `BITMAPINFOHEADER`.
fn avi_tag(bytes: &[u8]) -> Option<[u8; 4]> {
    let mut at = 12;
    let mut is_video = false;
    loop {
        let header = bytes.get(at..at + 8)?;
        let size = u32::from_le_bytes(header[4..].try_into().ok()?) as usize;
        let body = at + 8;
        match &header[..4] {
            // Lists are entered: the headers' list, and each stream's in it.
            b"LIST" => {
                at = body + 4;
                continue;
            }
            b"strh" => is_video = bytes.get(body..body + 4)? == b"vids",
            b"strf" if is_video => return bytes.get(body + 16..body + 20)?.try_into().ok(),
            _ => {}
        }
        at = body.checked_add(size)?.checked_add(size % 2)?;
    }
}

/// Returns `biCompression` of a Matroska file's track whose codec is "Video for Windows": its
/// `CodecPrivate` (0x63a2), within the same `TrackEntry` (0xae), is a `BITMAPINFOHEADER` (RFC 9559,
/// 5.1.4.1).
fn matroska_tag(bytes: &[u8]) -> Option<[u8; 4]> {
    const CODEC: &[u8] = b"V_MS/VFW/FOURCC";
    let at = bytes
        .windows(CODEC.len())
        .position(|window| window == CODEC)?;
    // Writers put it shortly before or after the codec's name.
    let from = at.saturating_sub(256);
    let nearby = bytes.get(from..)?.get(..1024.min(bytes.len() - from))?;
    let private = nearby
        .windows(2)
        .enumerate()
        .filter(|(_, id)| *id == [0x63, 0xa2]);
    private
        .map(|(index, _)| &nearby[index + 2..])
        .find_map(|rest| {
            let length_bytes = rest.first()?.leading_zeros() as usize + 1;
            let header = rest.get(length_bytes..length_bytes + 40)?;
            // A BITMAPINFOHEADER begins with its own size.
            let size = u32::from_le_bytes(header[..4].try_into().ok()?);
            (40..1024)
                .contains(&size)
                .then(|| header[16..20].try_into().ok())
                .flatten()
        })
}

/// Returns the type of the first video of the program stream at `path`, by its own bytes; none if
/// it is unknown, or is the type that GStreamer assumes.
fn program_video(path: &Path) -> io::Result<Option<gst::Caps>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(PROGRAM_BYTES)
        .read_to_end(&mut bytes)?;
    let mut elementary = Vec::new();
    let mut stream = None;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(4).position(|code| {
        code[..3] == [0, 0, 1]
            && (0xe0..=0xef).contains(&code[3])
            && stream.is_none_or(|id| id == code[3])
    }) {
        let start = at + found;
        stream = Some(bytes[start + 3]);
        // ISO/IEC 13818-1, 2.4.3.6: length, two bytes of flags, and the length of the rest of the
        // header.
        let Some(header) = bytes.get(start + 4..start + 9) else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([header[0], header[1]]));
        let end = (start + 6 + length).min(bytes.len());
        let payload = if header[2] & 0xc0 == 0x80 {
            start + 9 + usize::from(header[4])
        } else {
            start + 6 + mpeg1_header_length(&bytes[start + 6..end.max(start + 6)])
        };
        elementary.extend_from_slice(bytes.get(payload..end.max(payload)).unwrap_or_default());
        if elementary.len() >= ELEMENTARY_BYTES {
            break;
        }
        at = end.max(start + 4);
    }
    let caps = super::sniff::type_of(&elementary);
    Ok(caps.filter(|caps| matches!(super::media_type(caps), "video/x-h264" | "video/x-h265")))
}

/// Returns the length of the rest of a packet's header in an MPEG-1 stream (ISO/IEC 11172-1,
/// 2.4.3.3): stuffing, the size of a buffer, and one or two times.
fn mpeg1_header_length(bytes: &[u8]) -> usize {
    let mut at = bytes.iter().take_while(|&&byte| byte == 0xff).count();
    if bytes.get(at).is_some_and(|byte| byte >> 6 == 1) {
        at += 2;
    }
    at + match bytes.get(at).map(|byte| byte >> 4) {
        Some(2) => 5,
        Some(3) => 10,
        _ => 1,
    }
}

/// Reads `length` bytes at `offset`; fewer at the end of the file.
pub(super) fn read_at(file: &mut File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_an_avi_file_is_that_of_its_video() {
        let mut bytes = b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrlavih\x02\0\0\0..".to_vec();
        bytes.extend_from_slice(
            b"LIST\0\0\0\0strlstrh\x04\0\0\0audsstrf\x14\0\0\0................????",
        );
        bytes.extend_from_slice(
            b"LIST\0\0\0\0strlstrh\x04\0\0\0vidsstrf\x14\0\0\0................XVID",
        );
        assert_eq!(avi_tag(&bytes), Some(*b"XVID"));
        assert_eq!(avi_tag(&bytes[..bytes.len() - 1]), None, "cut short");
    }
}
