//! One clip as one Parquet data page: 4 little-endian length bytes and the payload (PLAIN
//! `BYTE_ARRAY`), compressed as one zstd frame.

use super::ShardError;
use std::io::Write;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes before the payload in an uncompressed page.
pub const LENGTH_BYTES: usize = 4;

/// A clip compressed into the body of its page, ready to be appended to a shard.
#[derive(Debug, Clone)]
pub struct EncodedClip {
    /// The page body as stored: a zstd frame, or the plain bytes at level 0.
    pub body: Vec<u8>,
    /// Bytes of the body before compression.
    pub uncompressed_bytes: usize,
    /// XXH3-64 of the payload.
    pub xxh3: u64,
}

/// Compresses `payload` at zstd `level`; level 0 stores it uncompressed.
///
/// # Errors
/// [`ShardError::TooLarge`] when the payload does not fit a page, whose sizes are signed 32-bit.
pub fn encode(payload: &[u8], level: i32) -> Result<EncodedClip, ShardError> {
    let too_large = || ShardError::TooLarge {
        bytes: payload.len(),
    };
    // Half of the format's limit leaves room for a payload that zstd cannot shrink.
    if payload.len() > (i32::MAX / 2) as usize {
        return Err(too_large());
    }
    let uncompressed_bytes = payload.len() + LENGTH_BYTES;
    let length = (payload.len() as u32).to_le_bytes();
    let body = if level == 0 {
        [&length, payload].concat()
    } else {
        compress(&length, payload, level).map_err(|_| too_large())?
    };
    Ok(EncodedClip {
        body,
        uncompressed_bytes,
        xxh3: xxh3_64(payload),
    })
}

fn compress(length: &[u8], payload: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let total = length.len() + payload.len();
    let mut encoder = zstd::Encoder::new(Vec::with_capacity(total / 2), level)?;
    encoder.set_pledged_src_size(Some(total as u64))?;
    encoder.write_all(length)?;
    encoder.write_all(payload)?;
    encoder.finish()
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
    }
}
