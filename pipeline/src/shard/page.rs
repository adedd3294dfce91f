//! One clip as one Parquet data page: 4 little-endian length bytes and the payload (PLAIN
//! `BYTE_ARRAY`), cut into parts of a few frames that are each compressed as one zstd frame.
//!
//! zstd frames that follow each other are one stream to every decoder, so other readers see an
//! ordinary page.

use super::ShardError;
use schemas::shard::{Parts, Payload};
use std::io;
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy};

/// Bytes before the payload in an uncompressed page. They belong to its first part.
pub const LENGTH_BYTES: usize = 4;

/// A clip compressed into the body of its page, ready to be appended to a shard.
#[derive(Debug, Clone)]
pub struct EncodedClip {
    /// The page body as stored: the zstd frames of its parts, or the plain bytes at level 0.
    pub body: Vec<u8>,
    /// Bytes of the body before compression.
    pub uncompressed_bytes: usize,
    /// XXH3-64 of the payload.
    pub xxh3: u64,
    /// The parts of the body.
    pub parts: Parts,
}

/// Frames of each part of a clip of `frames` frames.
///
/// A window of a clip costs the parts that it touches, so small parts are better for windows. zstd
/// finds repetitions within a part only, so large parts are better for size: plain planes in parts
/// of 8 frames are 2 % larger than in one of 64, in parts of 4 frames 4 %. Of differences, only
/// those of frames that stand still are larger.
fn part_frames(kind: Payload, frames: u32) -> u32 {
    match kind {
        Payload::I420 | Payload::Rgb => frames.min(8),
        Payload::I420Delta => frames.min(4),
        // Its frames depend on each other.
        Payload::H264 => frames,
    }
}

/// Compresses `payload`, which holds `frames` frames as `kind`, at zstd `level`; level 0 stores it
/// uncompressed.
///
/// # Errors
/// [`ShardError::TooLarge`] when the payload does not fit a page, whose sizes are signed 32-bit.
pub fn encode(
    payload: &[u8],
    kind: Payload,
    frames: u32,
    level: i32,
) -> Result<EncodedClip, ShardError> {
    let too_large = || ShardError::TooLarge {
        bytes: payload.len(),
    };
    // Half of the format's limit leaves room for a payload that zstd cannot shrink.
    if payload.len() > (i32::MAX / 2) as usize {
        return Err(too_large());
    }
    let part_frames = part_frames(kind, frames);
    let part_bytes = if part_frames == frames {
        payload.len()
    } else {
        payload.len() / frames as usize * part_frames as usize
    };
    let mut parts = Parts {
        frames: part_frames,
        bytes: Vec::new(),
        xxh3: Vec::new(),
    };
    let mut body = Vec::with_capacity(payload.len() / 2);
    let mut compressor = PartCompressor::new(kind, level).map_err(|_| too_large())?;
    let mut head = Vec::from((payload.len() as u32).to_le_bytes());
    for part in payload.chunks(part_bytes.max(1)) {
        let before = body.len();
        if parts.bytes.is_empty() {
            head.extend_from_slice(part);
            compressor.append(&head, &mut body)
        } else {
            compressor.append(part, &mut body)
        }
        .map_err(|_| too_large())?;
        parts.bytes.push((body.len() - before) as u32);
        parts.xxh3.push(xxh3_64(part));
    }
    Ok(EncodedClip {
        body,
        uncompressed_bytes: LENGTH_BYTES + payload.len(),
        xxh3: xxh3_64(payload),
        parts,
    })
}

/// Compresses one part after the other.
struct PartCompressor {
    /// `None` stores.
    zstd: Option<Compressor<'static>>,
    /// A second try, for differences.
    literals: Option<Compressor<'static>>,
}

impl PartCompressor {
    fn new(kind: Payload, level: i32) -> io::Result<Self> {
        let is_compressed = level != 0;
        let zstd = is_compressed.then(|| Compressor::new(level)).transpose()?;
        let literals = (is_compressed && kind == Payload::I420Delta)
            .then(literals_only)
            .transpose()?;
        Ok(Self { zstd, literals })
    }

    /// Appends `part` to `body`.
    ///
    /// Differences are compressed twice. Literals without matches are read nearly twice as fast,
    /// and are smaller where nothing repeats; frames that stand still are much smaller with
    /// matches. So matches must save an eighth to be chosen.
    fn append(&mut self, part: &[u8], body: &mut Vec<u8>) -> io::Result<()> {
        let Some(zstd) = &mut self.zstd else {
            body.extend_from_slice(part);
            return Ok(());
        };
        let mut best = zstd.compress(part)?;
        if let Some(literals) = &mut self.literals {
            let other = literals.compress(part)?;
            if best.len() > other.len() / 8 * 7 {
                best = other;
            }
        }
        body.extend_from_slice(&best);
        Ok(())
    }
}

/// A compressor that hardly looks for matches, and codes the bytes by how frequent they are in
/// their block of 64 KiB.
fn literals_only() -> io::Result<Compressor<'static>> {
    let mut zstd = Compressor::new(1)?;
    zstd.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
    // For this strategy, the distance between two searches.
    zstd.set_parameter(CParameter::TargetLength(1 << 17))?;
    zstd.set_parameter(CParameter::WindowLog(16))?;
    // Otherwise, at such distances, bytes are stored as they are.
    zstd.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
    Ok(zstd)
}

/// The start of a page: its header's size fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSizes {
    /// Bytes of the body before compression.
    pub uncompressed: usize,
    /// Bytes of the body as stored.
    pub compressed: usize,
}

/// Reads the two sizes from a Parquet page header.
///
/// A header is a Thrift struct in the compact protocol whose first three fields are 32-bit
/// integers: page type, uncompressed size, compressed size (parquet-format, `PageHeader`). The rest
/// is not needed: the offset index gives the end of the page, and the compressed size the start of
/// its body.
pub fn page_sizes(page: &[u8]) -> Option<PageSizes> {
    // A field header is (delta of the field's number << 4) | type, and type 5 is a 32-bit integer.
    const NEXT_FIELD_I32: u8 = 0x15;
    const DATA_PAGE: i32 = 0;
    let mut bytes = page.iter().copied();
    let mut next_i32 = || {
        (bytes.next()? == NEXT_FIELD_I32).then_some(())?;
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // Zigzag: the sign is in the lowest bit.
                return i32::try_from((value >> 1) as i64 ^ -((value & 1) as i64)).ok();
            }
        }
        None
    };
    let (page_type, uncompressed, compressed) = (next_i32()?, next_i32()?, next_i32()?);
    (page_type == DATA_PAGE).then_some(())?;
    Some(PageSizes {
        uncompressed: usize::try_from(uncompressed).ok()?,
        compressed: usize::try_from(compressed).ok()?,
    })
}

/// Writes the beginning of a page's header, from which [`page_sizes`] reads these sizes, over that
/// of `page`. Too short a page stays as it is.
pub(super) fn write_sizes(page: &mut [u8], uncompressed: usize, compressed: usize) {
    let mut header = vec![0x15, 0];
    for size in [uncompressed, compressed] {
        header.push(0x15);
        // Zigzag: sizes are positive.
        let mut rest = (size as u64) << 1;
        while rest >= 0x80 {
            header.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        header.push(rest as u8);
    }
    if let Some(begin) = page.get_mut(..header.len()) {
        begin.copy_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_a_header() {
        // Page type 0, uncompressed size 150 (zigzag 300 = 0xac 0x02), compressed size 1 (zigzag
        // 2), then more fields.
        let header = [0x15, 0x00, 0x15, 0xac, 0x02, 0x15, 0x02, 0x2c, 0x15, 0x02];
        assert_eq!(
            page_sizes(&header),
            Some(PageSizes {
                uncompressed: 150,
                compressed: 1
            })
        );
        assert_eq!(page_sizes(&header[..4]), None, "cut short");
        assert_eq!(
            page_sizes(&[0x15, 0x04, 0x15, 0x02, 0x15, 0x02]),
            None,
            "a dictionary page"
        );
        assert_eq!(
            page_sizes(&[0x15, 0x00, 0x15, 0x01, 0x15, 0x02]),
            None,
            "a negative size"
        );
        let mut page = [0; 20];
        for (uncompressed, compressed) in [(150, 1), (5, 63), (1 << 30, 64), (1, 0)] {
            write_sizes(&mut page, uncompressed, compressed);
            let written = PageSizes {
                uncompressed,
                compressed,
            };
            assert_eq!(page_sizes(&page), Some(written));
        }
    }
}
