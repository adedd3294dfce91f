//! TensorBoard event files: scalars and pictures by step.
//!
//! A file is a sequence of records: length (u64), its checksum, the event, its checksum, all
//! little-endian. An event is a protobuf message; the four kinds written here are encoded by hand
//! (field numbers from TensorFlow's `event.proto` and `summary.proto`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Subfolder of a run's folder; `tensorboard --logdir RUN` finds it.
pub const TENSORBOARD_DIR: &str = "tensorboard";

/// Prefix of the names of event files, before time and host.
const FILE_PREFIX: &str = "events.out.tfevents.";

/// Version of the file format, in the first event of a file.
const FILE_VERSION: &str = "brain.Event:2";

/// `SessionLog.SessionStatus.START`: the reader discards events of this step and later ones.
const SESSION_START: u64 = 1;

/// `Summary.Image.colorspace` of RGB.
const RGB: u64 = 3;

/// Writes an event file, without buffering, so that a killed run keeps its events.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates a file in `dir` that continues after `steps` steps: TensorBoard then ignores later
    /// steps in existing files.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(dir: &Path, steps: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        // Files are read in the order of their names, and this one has to be the last.
        let mut seconds = now;
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let time = name
                .strip_prefix(FILE_PREFIX)
                .and_then(|rest| rest.split('.').next())
                .and_then(|time| time.parse::<u64>().ok());
            seconds = time.map_or(seconds, |time| seconds.max(time + 1));
        }
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .replace('/', "-");
        let path = dir.join(format!("{FILE_PREFIX}{seconds:010}.{host}"));
        let mut writer = Self {
            file: File::create_new(&path)?,
            path,
        };
        writer.event(0, |event| event.bytes(3, FILE_VERSION.as_bytes()))?;
        writer.event(steps + 1, |event| {
            event.message(7, |session| session.integer(1, SESSION_START))
        })?;
        Ok(writer)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes values of a step, each under its tag. TensorBoard stores single precision, and marks
    /// NaN.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        self.event(step, |event| {
            event.message(5, |summary| {
                for (tag, value) in scalars {
                    summary.message(1, |entry| {
                        entry.bytes(1, tag.as_bytes());
                        entry.single(2, *value as f32);
                    });
                }
            });
        })
    }

    /// Writes a picture of a step: the bytes of an RGB PNG of `width` x `height` pixels.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn picture(
        &mut self,
        step: u64,
        tag: &str,
        (width, height): (u32, u32),
        png: &[u8],
    ) -> io::Result<()> {
        self.event(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |entry| {
                    entry.bytes(1, tag.as_bytes());
                    entry.message(4, |picture| {
                        picture.integer(1, height.into());
                        picture.integer(2, width.into());
                        picture.integer(3, RGB);
                        picture.bytes(4, png);
                    });
                });
            });
        })
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        let mut event = Message::default();
        event.double(
            1,
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        );
        event.integer(2, step);
        fill(&mut event);
        let Message(event) = event;
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc32c(&event).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// Builder of a protobuf message.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Writes number and wire type of a field.
    fn field(&mut self, number: u64, wire_type: u64) {
        self.varint(number << 3 | wire_type);
    }

    fn integer(&mut self, number: u64, value: u64) {
        self.field(number, 0);
        self.varint(value);
    }

    fn double(&mut self, number: u64, value: f64) {
        self.field(number, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn single(&mut self, number: u64, value: f32) {
        self.field(number, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.field(number, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, number: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }
}

/// The checksum of a record's parts: CRC-32C (Castagnoli), masked by rotation and addition so that
/// a checksum of checksums remains a good one.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0, |crc: u32, byte| {
        crc >> 8 ^ CRC32C_TABLE[usize::from(crc as u8 ^ byte)]
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Remainders of the 256 bytes divided by the reflected polynomial.
static CRC32C_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = remainder >> 1 ^ if remainder & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        // RFC 3720, B.4: 32 bytes of zeros, and 0 to 31.
        let unmasked = |bytes: &[u8]| {
            masked_crc32c(bytes)
                .wrapping_sub(0xa282_ead8)
                .rotate_left(15)
        };
        assert_eq!(unmasked(&[0; 32]), 0x8a91_36aa);
        assert_eq!(unmasked(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn integers_take_seven_bits_per_byte() {
        let mut message = Message::default();
        message.integer(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }

    #[test]
    fn a_new_file_comes_after_existing_ones() {
        let dir = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = (0..3)
            .map(|steps| {
                EventWriter::create(dir.path(), steps)
                    .expect("created")
                    .path
            })
            .collect();
        assert!(paths.is_sorted() && paths[0] != paths[1], "{paths:?}");
    }
}
