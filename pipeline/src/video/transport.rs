//! Completes transport streams (ISO/IEC 13818-1) for GStreamer 1.22, which needs the tables first,
//! and a clock.
//!
//! `tsdemux` drops the packets before the first table, and gives no times to packets of streams
//! without a clock, such as segments of HLS. The missing tables and clocks are inserted.

use super::facts::Edit;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Number of bytes in which `tsdemux` searches for a clock, and in which the tables are searched
/// here.
const SCAN_BYTES: u64 = 655_360;

/// First byte of each packet of 188 bytes.
const SYNC: u8 = 0x47;

/// Time by which the inserted clock is ahead of the packets, in units of 90 kHz.
const CLOCK_LEAD: u64 = 9000;

/// Position of the first packet's 188 bytes, and the distance from one packet to the next: 188, 192
/// with a time before each packet, or 204 with error correction after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grid {
    first: usize,
    step: usize,
}

impl Grid {
    fn of(bytes: &[u8]) -> Option<Self> {
        let is_sync = |at: usize| bytes.get(at).is_none_or(|&byte| byte == SYNC);
        let grids = (0..204).flat_map(|first| [188, 192, 204].map(|step| Self { first, step }));
        grids.into_iter().find(|grid| {
            bytes.get(grid.first) == Some(&SYNC)
                && (1..8).all(|packet| is_sync(grid.first + packet * grid.step))
        })
    }

    /// Returns the 188 bytes of `packet` in a packet of the file's size.
    fn framed(self, packet: &[u8]) -> Vec<u8> {
        let before = if self.step == 192 { 4 } else { 0 };
        let mut framed = vec![0; before];
        framed.extend_from_slice(packet);
        framed.resize(self.step, 0);
        framed
    }

    /// Returns the start of the packet whose 188 bytes begin at `at`.
    fn start(self, at: u64) -> u64 {
        if self.step == 192 {
            at.saturating_sub(4)
        } else {
            at
        }
    }
}

/// The 188 bytes of a packet.
#[derive(Clone, Copy)]
struct Packet<'a>(&'a [u8]);

impl<'a> Packet<'a> {
    fn pid(self) -> u16 {
        u16::from_be_bytes([self.0[1], self.0[2]]) & 0x1fff
    }

    fn begins_unit(self) -> bool {
        self.0[1] & 0x40 != 0
    }

    fn has_clock(self) -> bool {
        self.0[3] & 0x20 != 0 && self.0[4] > 0 && self.0[5] & 0x10 != 0
    }

    fn payload(self) -> Option<&'a [u8]> {
        match self.0[3] >> 4 & 3 {
            1 => self.0.get(4..),
            3 => self.0.get(5 + usize::from(self.0[4])..),
            _ => None,
        }
    }

    /// Returns the table that begins in the packet, and its offset.
    fn section(self) -> Option<(usize, &'a [u8])> {
        let payload = self.payload().filter(|_| self.begins_unit())?;
        let skipped = 1 + usize::from(*payload.first()?);
        let section = payload.get(skipped..)?;
        let length =
            usize::from(u16::from_be_bytes([*section.get(1)?, *section.get(2)?]) & 0xfff) + 3;
        Some((188 - section.len(), section.get(..length)?))
    }
}

/// The stream identifiers in the tables of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Program {
    table_pid: u16,
    video_pid: u16,
}

/// Returns the tables and the clock to insert into the transport stream at `path`.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn edits(path: &Path) -> io::Result<Vec<Edit>> {
    let mut start = Vec::new();
    File::open(path)?.take(SCAN_BYTES).read_to_end(&mut start)?;
    let Some(grid) = Grid::of(&start) else {
        return Ok(Vec::new());
    };
    let packets = || {
        start[grid.first..]
            .chunks(grid.step)
            .filter_map(|bytes| Some(Packet(bytes.get(..188)?)))
    };
    let Some((tables, program)) = tables(packets()) else {
        return Ok(Vec::new());
    };
    let mut edits = Vec::new();
    let before_tables = packets().position(|packet| packet.pid() == 0).unwrap_or(0);
    let lost = packets()
        .take(before_tables)
        .any(|packet| packet.pid() == program.video_pid);
    if lost {
        let inserted = tables
            .iter()
            .flat_map(|packet| grid.framed(packet))
            .collect();
        edits.push(Edit {
            offset: grid.start(grid.first as u64),
            removed: 0,
            inserted,
        });
    }
    if !packets().any(Packet::has_clock) {
        drop(start);
        edits.extend(clock_edits(path, grid, program)?);
    }
    Ok(edits)
}

/// Finds the packets of the first two tables, and reads them.
fn tables<'a>(
    packets: impl Iterator<Item = Packet<'a>> + Clone,
) -> Option<([Vec<u8>; 2], Program)> {
    let programs = packets
        .clone()
        .find(|packet| packet.pid() == 0 && packet.section().is_some())?;
    let (_, section) = programs.section()?;
    // After eight bytes of header: number and stream of each program, and four bytes of checksum.
    let entries = section.get(8..section.len().checked_sub(4)?)?;
    let entry = entries.chunks_exact(4).find(|entry| entry[..2] != [0, 0])?;
    let table_pid = u16::from_be_bytes([entry[2], entry[3]]) & 0x1fff;
    let mut candidates = packets.filter(|packet| packet.pid() == table_pid);
    let (table, video_pid) =
        candidates.find_map(|packet| Some((packet, video_pid(packet.section()?.1)?)))?;
    Some((
        [programs.0.to_vec(), table.0.to_vec()],
        Program {
            table_pid,
            video_pid,
        },
    ))
}

/// Returns the first video stream in a program's table: MPEG-1, 2 and 4, H.264, H.265, AVS, VC-1.
fn video_pid(section: &[u8]) -> Option<u16> {
    let described = usize::from(u16::from_be_bytes([*section.get(10)?, *section.get(11)?]) & 0xfff);
    let mut streams = section.get(12 + described..section.len().checked_sub(4)?)?;
    loop {
        let (&[kind, high, low, size_high, size_low], rest) = streams.split_first_chunk::<5>()?;
        if matches!(kind, 0x01 | 0x02 | 0x10 | 0x1b | 0x24 | 0x42 | 0xd2 | 0xea) {
            return Some(u16::from_be_bytes([high, low]) & 0x1fff);
        }
        streams = rest.get(usize::from(u16::from_be_bytes([size_high, size_low]) & 0xfff)..)?;
    }
}

/// Returns the edits that insert a clock into the stream at `path`: a packet with the time before
/// each frame, and tables that name the clock.
fn clock_edits(path: &Path, grid: Grid, program: Program) -> io::Result<Vec<Edit>> {
    let mut file = io::BufReader::with_capacity(1 << 20, File::open(path)?);
    io::copy(&mut (&mut file).take(grid.first as u64), &mut io::sink())?;
    let mut edits = Vec::new();
    let mut bytes = vec![0; grid.step];
    let mut at = grid.first as u64;
    loop {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read(&mut bytes[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled < 188 {
            return Ok(edits);
        }
        let packet = Packet(&bytes[..188]);
        if packet.pid() == program.table_pid {
            edits.extend(
                table_with_clock(packet, program.video_pid).map(|inserted| Edit {
                    offset: at,
                    removed: 188,
                    inserted,
                }),
            );
        } else if packet.pid() == program.video_pid
            && packet.begins_unit()
            && let Some(time) = packet.payload().and_then(decoding_time)
        {
            let inserted = grid.framed(&clock_packet(
                program.video_pid,
                time.saturating_sub(CLOCK_LEAD),
            ));
            edits.push(Edit {
                offset: grid.start(at),
                removed: 0,
                inserted,
            });
        }
        at += grid.step as u64;
    }
}

/// Returns the packet of a program's table with the clock in stream `pid`; none if the table is too
/// short.
fn table_with_clock(packet: Packet, pid: u16) -> Option<Vec<u8>> {
    // Twelve bytes of header, and four of checksum.
    let (at, section) = packet
        .section()
        .filter(|(_, section)| section.len() >= 16)?;
    let mut table = packet.0.to_vec();
    table[at + 8..at + 10].copy_from_slice(&(0xe000 | pid).to_be_bytes());
    let checksum = at + section.len() - 4;
    let crc = crc32(&table[at..checksum]);
    table[checksum..checksum + 4].copy_from_slice(&crc.to_be_bytes());
    Some(table)
}

/// Reads the decoding time of the frame whose packet begins with `bytes`, in units of 90 kHz
/// (2.4.3.6).
fn decoding_time(bytes: &[u8]) -> Option<u64> {
    let time = |at: usize| {
        let bytes: [u8; 5] = bytes.get(at..at + 5)?.try_into().ok()?;
        let [a, b, c, d, e] = bytes.map(u64::from);
        Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
    };
    match (bytes.get(..3)?, bytes.get(7)? >> 6) {
        ([0, 0, 1], 2) => time(9),
        ([0, 0, 1], 3) => time(14),
        _ => None,
    }
}

/// Creates a packet of stream `pid` without payload, whose clock has the time `time`.
fn clock_packet(pid: u16, time: u64) -> [u8; 188] {
    let mut packet = [0xff; 188];
    let [pid_high, pid_low] = pid.to_be_bytes();
    // 33 bits of time, six set bits, and nine bits of a finer time.
    let clock = time << 15 | 0x7e00;
    packet[..6].copy_from_slice(&[SYNC, pid_high, pid_low, 0x20, 183, 0x10]);
    packet[6..12].copy_from_slice(&clock.to_be_bytes()[2..]);
    packet
}

/// Returns the checksum of tables (annex A).
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_packet_holds_its_time() {
        let packet = clock_packet(0x100, 0x1_2345_6789);
        assert_eq!(
            (Packet(&packet).pid(), Packet(&packet).has_clock()),
            (0x100, true)
        );
        let clock = packet[6..12]
            .iter()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        assert_eq!((clock >> 15, clock & 0x1ff), (0x1_2345_6789, 0));
        assert!(Packet(&packet).payload().is_none());
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The first table of a stream that ffmpeg 5.1 muxes.
        let table = [0, 0xb0, 0x0d, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0];
        assert_eq!(crc32(&table), 0x2ab1_04b2);
    }

    #[test]
    fn a_table_that_is_too_short_is_left_as_it_is() {
        // A header of three bytes at the end of its packet, after a pointer that skips the rest.
        let mut packet = [0xff; 188];
        packet[..5].copy_from_slice(&[SYNC, 0x50, 0, 0x10, 180]);
        packet[185..].copy_from_slice(&[2, 0xb0, 0]);
        assert!(Packet(&packet).section().is_some());
        assert_eq!(table_with_clock(Packet(&packet), 0x100), None);
    }

    #[test]
    fn times_are_read_where_they_lie() {
        // PTS 900000 alone, and with DTS 896996.
        let alone = [
            0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0x00, 0x37, 0x77, 0x41,
        ];
        assert_eq!(decoding_time(&alone), Some(900_000));
        assert_eq!(decoding_time(&alone[..13]), None);
    }

    #[test]
    fn packets_of_any_size_are_found() {
        for (first, step) in [(0, 188), (4, 192), (0, 204), (7, 188)] {
            let mut bytes = vec![0; first + 10 * step];
            (0..10).for_each(|packet| bytes[first + packet * step] = SYNC);
            assert_eq!(Grid::of(&bytes), Some(Grid { first, step }));
        }
        assert_eq!(Grid::of(&[0; 4096]), None);
    }
}
