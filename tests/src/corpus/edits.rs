//! Changes of bytes that the ffmpeg command line cannot make.

/// Puts `new` for every `old` of the same length.
pub(super) fn replace(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut at = 0;
    while let Some(found) = find(&bytes[at..], old) {
        bytes[at + found..][..new.len()].copy_from_slice(new);
        at += found + new.len();
    }
    assert!(at > 0, "{old:?} is not there");
    bytes
}

pub(super) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// MPEG-4 Part 2 of ffmpeg 5.1 as if it were of DivX 5.0.3.
pub(super) fn made_by_divx(bytes: Vec<u8>) -> Vec<u8> {
    replace(bytes, b"Lavc59.37.100", b"DivX503b1393p")
}

/// An AVI of today's XviD as if it were of build 50: with two packets of stuffing after the first
/// frame.
pub(super) fn made_by_old_xvid(bytes: Vec<u8>) -> Vec<u8> {
    let bytes = replace(bytes, b"XviD0069", b"XviD0050");
    let Avi { head, mut frames } = Avi::read(&bytes);
    let stuffing = (0, b"00dc\x01\0\0\0\x7f\0".to_vec());
    frames.splice(1..1, [stuffing.clone(), stuffing]);
    let mut out = head.to_vec();
    write_movi(&mut out, &frames);
    set_size(&mut out, 0);
    let header = find(&out, b"avih").expect("a header") + 8 + 16;
    let stream = find(&out, b"strh").expect("a stream's header") + 8 + 32;
    for count in [header, stream] {
        out[count..count + 4].copy_from_slice(&(frames.len() as u32).to_le_bytes());
    }
    out
}

/// The matrix of the only track: upside down.
pub(super) fn flipped(bytes: Vec<u8>) -> Vec<u8> {
    with_matrix(bytes, [1, 0, 0, -1])
}

/// The matrix of the only track: rows and columns exchanged.
pub(super) fn transposed(bytes: Vec<u8>) -> Vec<u8> {
    with_matrix(bytes, [0, 1, 1, 0])
}

pub(super) fn with_matrix(mut bytes: Vec<u8>, [a, b, c, d]: [i32; 4]) -> Vec<u8> {
    let header = find(&bytes, b"tkhd").expect("a track");
    // After the type: version and flags, five times and numbers, 16 bytes of other things.
    let matrix = header + 4 + 4 + 20 + 16;
    for (place, value) in [(0, a), (4, b), (12, c), (16, d)] {
        bytes[matrix + place..][..4].copy_from_slice(&(value << 16).to_be_bytes());
    }
    bytes
}

const TS_PACKET: usize = 188;

/// The 13-bit number of a transport packet's stream.
pub(super) fn pid(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

/// The stream that carries the program map in ffmpeg's transport streams.
const PMT_PID: u16 = 0x1000;
/// The stream number that stands for nothing.
const NO_PID: u16 = 0x1fff;

/// A transport stream whose program map names no clock, and which has none.
pub(super) fn without_pcr(mut bytes: Vec<u8>) -> Vec<u8> {
    for packet in bytes.chunks_exact_mut(TS_PACKET) {
        if pid(packet) == PMT_PID {
            let section = 5 + usize::from(packet[4]);
            let length = usize::from(u16::from_be_bytes([
                packet[section + 1] & 0x0f,
                packet[section + 2],
            ]));
            let checksum = section + 3 + length - 4;
            packet[section + 8..][..2].copy_from_slice(&(0xe000 | NO_PID).to_be_bytes());
            let crc = crc32_mpeg(&packet[section..checksum]);
            packet[checksum..][..4].copy_from_slice(&crc.to_be_bytes());
        } else if packet[3] & 0x20 != 0 && packet[4] > 6 && packet[5] & 0x10 != 0 {
            // The clock's six bytes become stuffing at the field's end.
            let end = 5 + usize::from(packet[4]);
            packet[5] &= !0x10;
            packet.copy_within(12..end, 6);
            packet[end - 6..end].fill(0xff);
        }
    }
    bytes
}

pub(super) fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            if crc >> 31 == 1 {
                crc << 1 ^ 0x04c1_1db7
            } else {
                crc << 1
            }
        })
    })
}

/// A transport stream that was joined late: without tables (PAT, PMT, SDT) in its first third.
pub(super) fn with_late_tables(bytes: Vec<u8>) -> Vec<u8> {
    let packets = bytes.chunks_exact(TS_PACKET);
    let third = packets.len() / 3;
    let is_table = |packet: &[u8]| [0, 17, PMT_PID].contains(&pid(packet));
    let kept = packets
        .enumerate()
        .filter(|(at, packet)| *at >= third || !is_table(packet));
    kept.flat_map(|(_, packet)| packet.to_vec()).collect()
}

/// The little-endian number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// An AVI without its index, as a recording that was broken off.
pub(super) fn without_index(mut bytes: Vec<u8>) -> Vec<u8> {
    let movi = find(&bytes, b"movi").expect("frames");
    let end = movi + u32_at(&bytes, movi - 4) as usize;
    assert_eq!(&bytes[end..end + 4], b"idx1");
    bytes.truncate(end);
    let size = (bytes.len() - 8) as u32;
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// An AVI of one stream of pictures, as ffmpeg writes it.
struct Avi<'a> {
    /// What comes before the list of frames.
    head: &'a [u8],
    /// What the index says of each frame (16 is a key frame), and its chunk, header included.
    frames: Vec<(u32, Vec<u8>)>,
}

impl<'a> Avi<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let movi = find(bytes, b"movi").expect("frames");
        let end = movi + u32_at(bytes, movi - 4) as usize;
        let mut frames = Vec::new();
        let mut at = movi + 4;
        while at < end {
            assert_eq!(&bytes[at..at + 4], b"00dc");
            let size = 8 + u32_at(bytes, at + 4).next_multiple_of(2) as usize;
            let flags = u32_at(bytes, end + 8 + frames.len() * 16 + 4);
            frames.push((flags, bytes[at..at + size].to_vec()));
            at += size;
        }
        Self {
            head: &bytes[..movi - 8],
            frames,
        }
    }
}

/// Writes the list of frames and the index of AVI 1.
pub(super) fn write_movi(out: &mut Vec<u8>, frames: &[(u32, Vec<u8>)]) {
    let list = out.len();
    out.extend(b"LIST\0\0\0\0movi");
    let index = write_frames(out, list, frames);
    set_size(out, list);
    out.extend(b"idx1");
    out.extend((index.len() as u32).to_le_bytes());
    out.extend(index);
}

/// Writes frames into the list that began at `list`, and gives their entries in an `idx1`.
pub(super) fn write_frames(out: &mut Vec<u8>, list: usize, frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut index = Vec::new();
    for (flags, frame) in frames {
        let place = (out.len() - list - 8) as u32;
        let entry = [
            u32::from_le_bytes(*b"00dc"),
            *flags,
            place,
            u32_at(frame, 4),
        ];
        index.extend(entry.iter().flat_map(|number| number.to_le_bytes()));
        out.extend(frame);
    }
    index
}

/// An AVI of one stream of pictures in two parts (`RIFF AVI`, `RIFF AVIX`), as OpenDML has it for
/// files beyond 1 GB, with an index in each and an index of these.
pub(super) fn open_dml(bytes: Vec<u8>) -> Vec<u8> {
    let Avi { head, frames } = Avi::read(&bytes);
    let mut out = head.to_vec();
    let mut parts = Vec::new();
    let (first, second) = frames.split_at(frames.len() / 2);
    for (part, frames) in [first, second].into_iter().enumerate() {
        let riff = if part == 0 { 0 } else { out.len() };
        if part > 0 {
            out.extend(b"RIFF\0\0\0\0AVIX");
        }
        let list = out.len();
        out.extend(b"LIST\0\0\0\0movi");
        let old_index = write_frames(&mut out, list, frames);
        parts.push((out.len(), 32 + frames.len() * 8, frames.len()));
        out.extend(b"ix00");
        out.extend((24 + frames.len() as u32 * 8).to_le_bytes());
        // Two numbers an entry, an index of frames.
        out.extend([2, 0, 0, 1]);
        out.extend((frames.len() as u32).to_le_bytes());
        out.extend(b"00dc");
        out.extend((list as u64).to_le_bytes());
        out.extend([0; 4]);
        for entry in old_index.chunks_exact(16) {
            // To the frame itself, from the list's beginning; the highest bit: no key frame.
            let key = u32_at(entry, 4) & 16 != 0;
            out.extend((u32_at(entry, 8) + 16).to_le_bytes());
            out.extend((u32_at(entry, 12) | if key { 0 } else { 1 << 31 }).to_le_bytes());
        }
        set_size(&mut out, list);
        if part == 0 {
            out.extend(b"idx1");
            out.extend((old_index.len() as u32).to_le_bytes());
            out.extend(old_index);
        }
        set_size(&mut out, riff);
    }
    // ffmpeg leaves room for the index of indexes after the stream's format.
    let room = find(&out, b"JUNK").expect("room");
    let mut index = b"indx".to_vec();
    index.extend(u32_at(&out, room + 4).to_le_bytes());
    index.extend([4, 0, 0, 0, parts.len() as u8, 0, 0, 0]);
    index.extend(b"00dc");
    index.extend([0; 12]);
    for (place, size, frames) in parts {
        index.extend((place as u64).to_le_bytes());
        index.extend((size as u32).to_le_bytes());
        index.extend((frames as u32).to_le_bytes());
    }
    out[room..room + index.len()].copy_from_slice(&index);
    // The main header counts the first part only.
    let main = find(&out, b"avih").expect("a header") + 8 + 16;
    out[main..main + 4].copy_from_slice(&(first.len() as u32).to_le_bytes());
    out
}

/// Writes the size of the RIFF chunk that began at `chunk` and ends here.
pub(super) fn set_size(out: &mut [u8], chunk: usize) {
    let size = (out.len() - chunk - 8) as u32;
    out[chunk + 4..chunk + 8].copy_from_slice(&size.to_le_bytes());
}
