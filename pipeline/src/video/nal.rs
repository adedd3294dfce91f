//! Classifies packets of H.264 and H.265 by the headers of their NAL units: whether decoding may
//! begin at a packet, and whether anything refers to it.

use super::bits::Bits;
use gstreamer as gst;

/// The codec of a stream, and the framing of NAL units in its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NalFormat {
    codec: Codec,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    H264,
    /// With the number of temporal layers, if known.
    H265 {
        layers: Option<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Each NAL unit follows its size, a number of this many bytes.
    Sizes(usize),
    /// Each NAL unit follows the bytes 0, 0, 1.
    StartCodes,
}

/// The kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketKind {
    /// Decoding that begins here gives, from the packet's time on, the frames of decoding from the
    /// start, as long as the decoder has the parameters.
    Entry,
    /// Nothing refers to its picture: all others are the same without it.
    Disposable,
    /// Any other packet, or one that cannot be read.
    Other,
}

impl NalFormat {
    /// Returns the format that `caps` declare; none for other codecs, and if the format is unknown.
    pub(super) fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let config = structure.get::<gst::Buffer>("codec_data").ok();
        let config = config
            .as_ref()
            .and_then(|config| config.map_readable().ok());
        let is_h264 = match structure.name().as_str() {
            "video/x-h264" => true,
            "video/x-h265" => false,
            _ => return None,
        };
        match structure.get::<&str>("stream-format").ok()? {
            // ISO/IEC 14496-15, 5.3.3.1: the low bits of byte 4 are the size of sizes, less one.
            "avc" | "avc3" if is_h264 => {
                let framing = Framing::Sizes(usize::from(config?.get(4)? & 3) + 1);
                Some(Self {
                    codec: Codec::H264,
                    framing,
                })
            }
            // ISO/IEC 14496-15, 8.3.3.1: byte 21 holds the number of temporal layers, 0 for
            // unknown, and the size of sizes.
            "hvc1" | "hev1" if !is_h264 => {
                let byte = *config?.get(21)?;
                let layers = Some((byte >> 3) & 7).filter(|&layers| layers > 0);
                Some(Self {
                    codec: Codec::H265 { layers },
                    framing: Framing::Sizes(usize::from(byte & 3) + 1),
                })
            }
            "byte-stream" => {
                let codec = if is_h264 {
                    Codec::H264
                } else {
                    Codec::H265 { layers: None }
                };
                Some(Self {
                    codec,
                    framing: Framing::StartCodes,
                })
            }
            _ => None,
        }
    }

    /// Returns the kind of `packet`, one complete picture. Passes the units that hold parameters to
    /// `on_parameters`: they apply to later packets, too.
    pub(super) fn kind(self, packet: &[u8], mut on_parameters: impl FnMut(&[u8])) -> PacketKind {
        let mut slices = None;
        let mut has_parameters = false;
        let is_whole = self.each_unit(packet, |unit| {
            let kind = match self.codec {
                Codec::H264 => h264_unit(unit),
                Codec::H265 { layers } => h265_unit(unit, layers),
            };
            match (slices, kind) {
                (_, Unit::Other) => {}
                (_, Unit::Parameters) => {
                    has_parameters = true;
                    on_parameters(unit);
                }
                (Some(known), other) if known != other => slices = Some(Unit::Slice),
                (_, kind) => slices = Some(kind),
            }
        });
        match slices {
            Some(Unit::EntrySlice) if is_whole => PacketKind::Entry,
            Some(Unit::DisposableSlice) if is_whole && !has_parameters => PacketKind::Disposable,
            _ => PacketKind::Other,
        }
    }

    /// Passes each NAL unit to `on_unit`. Returns false if they do not add up to the packet.
    fn each_unit(self, packet: &[u8], mut on_unit: impl FnMut(&[u8])) -> bool {
        let mut rest = packet;
        match self.framing {
            Framing::Sizes(bytes) => {
                while !rest.is_empty() {
                    let Some((size, after)) = rest.split_at_checked(bytes) else {
                        return false;
                    };
                    let size = size
                        .iter()
                        .fold(0, |size, &byte| size << 8 | usize::from(byte));
                    let Some((unit, after)) = after.split_at_checked(size) else {
                        return false;
                    };
                    on_unit(unit);
                    rest = after;
                }
            }
            Framing::StartCodes => {
                let next = |bytes: &[u8]| bytes.windows(3).position(|bytes| bytes == [0, 0, 1]);
                while let Some(at) = next(rest) {
                    rest = &rest[at + 3..];
                    // Zeros may follow a unit, and no unit ends with one.
                    let unit = &rest[..next(rest).unwrap_or(rest.len())];
                    on_unit(
                        &unit[..unit
                            .iter()
                            .rposition(|&byte| byte != 0)
                            .map_or(0, |last| last + 1)],
                    );
                }
            }
        }
        true
    }
}

/// Whether an H.264 stream may lack frames, by the sequence parameters in `config`: an `avcC` box
/// (ISO/IEC 14496-15, 5.3.3.1), as caps hold it. None if it is no such box, or cannot be read.
pub(super) fn config_allows_gaps(config: &[u8]) -> Option<bool> {
    let length = usize::from(u16::from_be_bytes([*config.get(6)?, *config.get(7)?]));
    allows_gaps(config.get(8..8 + length)?)
}

/// Whether frames may be missing, by the sequence parameters `unit`, such as in a stream whose
/// temporal layers were removed (`gaps_in_frame_num_value_allowed_flag`; ITU-T H.264, 7.3.2.1.1).
/// None for other units.
pub(super) fn allows_gaps(unit: &[u8]) -> Option<bool> {
    if unit.first()? & 31 != 7 {
        return None;
    }
    let bytes = without_emulation(unit);
    let mut bits = Bits::new(&bytes);
    bits.number(8)?;
    let profile = bits.number(8)?;
    bits.number(16)?;
    bits.unsigned_code()?;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        let chroma = bits.unsigned_code()?;
        if chroma == 3 {
            bits.bit()?;
        }
        bits.unsigned_code()?;
        bits.unsigned_code()?;
        bits.bit()?;
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.unsigned_code()?;
    match bits.unsigned_code()? {
        0 => drop(bits.unsigned_code()?),
        1 => {
            bits.bit()?;
            bits.signed_code()?;
            bits.signed_code()?;
            for _ in 0..bits.unsigned_code()? {
                bits.signed_code()?;
            }
        }
        _ => {}
    }
    bits.unsigned_code()?;
    bits.bit()
}

/// Skips a scaling list of `values` values (7.3.2.1.1.1): each is coded as its difference from the
/// one before, and none follow a zero.
fn skip_scaling_list(bits: &mut Bits, values: usize) -> Option<()> {
    let mut last = 8;
    let mut next = 8;
    for _ in 0..values {
        if next != 0 {
            next = (last + bits.signed_code()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Returns a unit without its emulation prevention bytes, which keep start codes out of it (7.4.1).
fn without_emulation(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let keep = |&byte: &u8| {
        let is_emulation = zeros >= 2 && byte == 3;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        !is_emulation
    };
    unit.iter().copied().filter(keep).collect()
}

/// The kind of a NAL unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Other,
    Parameters,
    EntrySlice,
    DisposableSlice,
    Slice,
}

/// Classifies a NAL unit by ITU-T H.264, 7.3.1 and table 7-1.
fn h264_unit(unit: &[u8]) -> Unit {
    let Some(header) = unit.first() else {
        return Unit::Other;
    };
    match (header & 31, header >> 5 & 3) {
        (1, 0) => Unit::DisposableSlice,
        // An I picture that is no IDR may do, too, but need not: pictures after it can refer to
        // pictures before it.
        (5, _) => Unit::EntrySlice,
        (1..=4, _) => Unit::Slice,
        (7 | 8 | 13 | 15, _) => Unit::Parameters,
        _ => Unit::Other,
    }
}

/// Classifies a NAL unit by ITU-T H.265, 7.3.1.2 and table 7-1.
fn h265_unit(unit: &[u8], layers: Option<u8>) -> Unit {
    let &[first, second, ..] = unit else {
        return Unit::Other;
    };
    match first >> 1 & 63 {
        // Sub-layer non-reference pictures: only higher layers may refer to them.
        0 | 2 | 4 | 6 | 8 | 10 | 12 | 14 if layers == Some(second & 7) => Unit::DisposableSlice,
        16..=21 => Unit::EntrySlice,
        0..=31 => Unit::Slice,
        32..=34 => Unit::Parameters,
        _ => Unit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: NalFormat = NalFormat {
        codec: Codec::H264,
        framing: Framing::Sizes(4),
    };
    const CODES: NalFormat = NalFormat {
        codec: Codec::H264,
        framing: Framing::StartCodes,
    };

    fn with_sizes(units: &[&[u8]]) -> Vec<u8> {
        units
            .iter()
            .flat_map(|unit| [&(unit.len() as u32).to_be_bytes(), *unit].concat())
            .collect()
    }

    fn with_codes(units: &[&[u8]]) -> Vec<u8> {
        units
            .iter()
            .flat_map(|unit| [&[0, 0, 0, 1], *unit].concat())
            .collect()
    }

    #[test]
    fn a_packet_is_what_all_its_slices_are() {
        // An access unit delimiter, SEI, IDR slices; slices that are referred to, and slices that
        // are not.
        for (units, kind) in [
            (
                &[&[9, 240][..], &[6, 1, 2], &[0x65, 1, 2, 3], &[0x65, 9]][..],
                PacketKind::Entry,
            ),
            (
                &[&[0x67, 1], &[0x68, 2], &[0x65, 1, 2, 3]],
                PacketKind::Entry,
            ),
            (&[&[0x68, 2], &[0x01, 7, 7]], PacketKind::Other),
            (
                &[&[9, 240], &[0x01, 7, 7], &[0x01, 8]],
                PacketKind::Disposable,
            ),
            (&[&[0x41, 7, 7]], PacketKind::Other),
            (&[&[0x01, 7, 7], &[0x21, 8]], PacketKind::Other),
            (&[&[6, 1]], PacketKind::Other),
            (&[], PacketKind::Other),
        ] {
            let parameters: Vec<&[u8]> = units
                .iter()
                .copied()
                .filter(|unit| matches!(unit[0] & 31, 7 | 8))
                .collect();
            for (format, packet) in [(SIZES, with_sizes(units)), (CODES, with_codes(units))] {
                let mut found = Vec::new();
                assert_eq!(
                    format.kind(&packet, |unit| found.push(unit.to_vec())),
                    kind,
                    "{units:?}"
                );
                assert_eq!(found, parameters, "{units:?}");
            }
        }
        let mut cut = with_sizes(&[&[0x01, 7, 7]]);
        cut.pop();
        assert_eq!(
            SIZES.kind(&cut, |_| ()),
            PacketKind::Other,
            "an incomplete packet"
        );
    }

    #[test]
    fn gaps_are_allowed_by_the_sequence_parameters() {
        // Of files that ffmpeg 5.1 has encoded with libx264 from `testsrc2=s=160x120:r=30`:
        // baseline, and 10 bits of the high profile.
        let baseline = [
            0x67, 0x42, 0xc0, 0x0b, 0xda, 0x0a, 0x11, 0xf9, 0x70, 0x11, 0, 0, 3, 0, 1, 0, 0, 3, 0,
            0x3c, 0x0f, 0x14, 0x2a, 0xa0,
        ];
        let high = [
            0x67, 0x6e, 0, 0x0b, 0xa6, 0xcb, 0x41, 0x42, 0x3f, 0x2e, 2, 0x20, 0, 0, 3, 0, 0x20, 0,
            0, 7, 0x81, 0xe2, 0x85, 0x54,
        ];
        for unit in [&baseline[..], &high] {
            assert_eq!(allows_gaps(unit), Some(false));
            for length in 0..5 {
                assert_eq!(allows_gaps(&unit[..length]), None, "cut short");
            }
        }
        // Profile 66, level 11; codes 0 (id), 0, 2 (no times), 1 (reference frames); then the flag.
        let with_flag = |flag: u8| [0x67, 66, 0, 11, 0b1101_1010, flag << 7 | 0x40];
        assert_eq!(allows_gaps(&with_flag(0)), Some(false));
        assert_eq!(allows_gaps(&with_flag(1)), Some(true));
        assert_eq!(allows_gaps(&[0x68, 1, 2, 3]), None, "picture parameters");
        let config = [&[1, 66, 0, 11, 0xff, 0xe1, 0, 6][..], &with_flag(1)].concat();
        assert_eq!(config_allows_gaps(&config), Some(true));
    }

    #[test]
    fn of_h265_only_the_highest_layer_is_disposable() {
        let kind = |unit_type: u8, layer: u8, layers| {
            let format = NalFormat {
                codec: Codec::H265 { layers },
                framing: Framing::Sizes(2),
            };
            format.kind(&[0, 3, unit_type << 1, layer + 1, 99], |_| ())
        };
        assert_eq!(kind(0, 0, Some(1)), PacketKind::Disposable);
        assert_eq!(kind(0, 0, Some(2)), PacketKind::Other);
        assert_eq!(kind(0, 1, Some(2)), PacketKind::Disposable);
        assert_eq!(kind(0, 0, None), PacketKind::Other);
        assert_eq!(kind(1, 0, Some(1)), PacketKind::Other);
        for entry in 16..=21 {
            assert_eq!(kind(entry, 0, Some(1)), PacketKind::Entry);
        }
    }
}
