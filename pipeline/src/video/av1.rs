//! Reads the range of samples from AV1's sequence header. GStreamer 1.22 does not pass it on if the
//! stream declares nothing else about its colours.

use super::bits::Bits;

/// Whether samples have full range, by the sequence header in `packet`, a temporal unit; none if
/// there is no such header, or it cannot be read.
pub(super) fn is_full_range(packet: &[u8]) -> Option<bool> {
    sequence_header(packet).and_then(|header| color_range(&mut Bits::new(header)))
}

/// Returns the sequence header among the OBUs of `bytes` (AV1 bitstream specification, 5.3).
fn sequence_header(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let header = *bytes.first()?;
        let kind = header >> 3 & 15;
        let has_extension = header & 4 != 0;
        let has_size = header & 2 != 0;
        let rest = bytes.get(1 + usize::from(has_extension)..)?;
        let (size, rest) = if has_size {
            leb128(rest)?
        } else {
            (rest.len(), rest)
        };
        let (content, after) = rest.split_at_checked(size)?;
        if kind == 1 {
            return Some(content);
        }
        bytes = after;
    }
}

/// Reads a number in groups of seven bits, the lowest first. Returns it and the bytes after it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let length = bytes.iter().take(8).position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..length]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, &bytes[length..]))
}

/// Reads `color_range` of a sequence header (AV1 bitstream specification, 5.5.1 and 5.5.2).
fn color_range(bits: &mut Bits) -> Option<bool> {
    let profile = bits.number(3)?;
    bits.bit()?;
    let is_reduced = bits.bit()?;
    if is_reduced {
        bits.number(5)?;
    } else {
        operating_points(bits)?;
    }
    let width_bits = bits.number(4)? as u32 + 1;
    let height_bits = bits.number(4)? as u32 + 1;
    bits.number(width_bits)?;
    bits.number(height_bits)?;
    if !is_reduced && bits.bit()? {
        bits.number(7)?;
    }
    bits.number(3)?;
    if !is_reduced {
        tools(bits)?;
    }
    bits.number(3)?;
    let high_bit_depth = bits.bit()?;
    if profile == 2 && high_bit_depth {
        bits.bit()?;
    }
    let is_mono = profile != 1 && bits.bit()?;
    let description = if bits.bit()? {
        Some(bits.number(24)?)
    } else {
        None
    };
    // sRGB always has full range: primaries 1, transfer 13, matrix 0.
    if !is_mono && description == Some(0x01_0d_00) {
        return Some(true);
    }
    bits.bit()
}

fn operating_points(bits: &mut Bits) -> Option<()> {
    let mut delay_bits = None;
    if bits.bit()? {
        bits.number(64)?;
        if bits.bit()? {
            // uvlc: as many bits follow the first set bit as precede it.
            let mut zeros = 0;
            while !bits.bit()? {
                zeros += 1;
            }
            bits.number(zeros)?;
        }
        if bits.bit()? {
            delay_bits = Some(bits.number(5)? as u32 + 1);
            bits.number(42)?;
        }
    }
    let has_display_delay = bits.bit()?;
    for _ in 0..=bits.number(5)? {
        bits.number(12)?;
        if bits.number(5)? > 7 {
            bits.bit()?;
        }
        if let Some(delay_bits) = delay_bits
            && bits.bit()?
        {
            bits.number(delay_bits)?;
            bits.number(delay_bits)?;
            bits.bit()?;
        }
        if has_display_delay && bits.bit()? {
            bits.number(4)?;
        }
    }
    Some(())
}

fn tools(bits: &mut Bits) -> Option<()> {
    bits.number(4)?;
    let has_order_hint = bits.bit()?;
    if has_order_hint {
        bits.number(2)?;
    }
    // Chosen for each frame, or fixed here: 0 is "never".
    let uses_screen_content = bits.bit()? || bits.bit()?;
    if uses_screen_content && !bits.bit()? {
        bits.bit()?;
    }
    if has_order_hint {
        bits.number(3)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sequence headers of two files that ffmpeg 5.1 has encoded with libsvtav1 from
    /// `testsrc2=s=160x120`, in `yuv420p` and in `yuvj420p`.
    const LIMITED: &[u8] = &[
        0x0a, 0x0a, 0x00, 0x00, 0x00, 0x03, 0xb4, 0xff, 0x70, 0x0b, 0xe0, 0x01,
    ];
    const FULL: &[u8] = &[
        0x0a, 0x0a, 0x00, 0x00, 0x00, 0x03, 0xb4, 0xff, 0x73, 0x6b, 0xe4, 0x21,
    ];

    #[test]
    fn the_range_is_found_behind_other_units() {
        for (header, is_full) in [(LIMITED, false), (FULL, true)] {
            assert_eq!(is_full_range(header), Some(is_full));
            let with_delimiter = [&[0x12, 0], header, &[0x32, 1, 0]].concat();
            assert_eq!(is_full_range(&with_delimiter), Some(is_full));
        }
    }

    #[test]
    fn truncated_headers_are_unknown() {
        for length in 0..LIMITED.len() {
            // The result does not matter: nothing may be read beyond the end.
            let _ = is_full_range(&LIMITED[..length]);
        }
        assert_eq!(is_full_range(&[]), None);
        assert_eq!(is_full_range(&[0x12, 0]), None, "no sequence header");
    }
}
