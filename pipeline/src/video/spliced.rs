//! A GStreamer source that reads a file with some of its bytes replaced.

use super::VideoError;
use super::discover::io_reason;
use super::facts::{Edit, read_at};
use super::lock;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Number of bytes that are read at a time if no length is requested.
const BLOCK_BYTES: u64 = 64 << 10;

/// A part of the spliced file: `length` bytes from `at`.
#[derive(Debug)]
struct Part {
    at: u64,
    length: u64,
    origin: Origin,
}

/// Where the bytes of a part come from.
#[derive(Debug)]
enum Origin {
    File { offset: u64 },
    Inserted(Vec<u8>),
}

/// A file with its edits.
#[derive(Debug)]
struct Spliced {
    file: File,
    parts: Vec<Part>,
    length: u64,
    /// Position at which the next bytes are read.
    at: u64,
}

impl Spliced {
    /// Opens the file at `path` with `edits`, which are in order and do not overlap.
    fn open(path: &Path, edits: Vec<Edit>) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        let mut spliced = Self {
            file,
            parts: Vec::new(),
            length: 0,
            at: 0,
        };
        let mut offset = 0;
        for edit in edits {
            spliced.push(
                edit.offset.min(end).saturating_sub(offset),
                Origin::File { offset },
            );
            offset = (edit.offset + edit.removed).min(end);
            spliced.push(edit.inserted.len() as u64, Origin::Inserted(edit.inserted));
        }
        spliced.push(end - offset, Origin::File { offset });
        Ok(spliced)
    }

    fn push(&mut self, length: u64, origin: Origin) {
        if length > 0 {
            self.parts.push(Part {
                at: self.length,
                length,
                origin,
            });
            self.length += length;
        }
    }

    /// Reads the next `length` bytes; fewer at the end.
    fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let end = self.at.saturating_add(length).min(self.length);
        let mut bytes = Vec::with_capacity(end.saturating_sub(self.at) as usize);
        let first = self
            .parts
            .partition_point(|part| part.at + part.length <= self.at);
        for part in &self.parts[first..] {
            if self.at >= end {
                break;
            }
            let skipped = self.at - part.at;
            let taken = (part.at + part.length).min(end) - self.at;
            match &part.origin {
                Origin::File { offset } => {
                    bytes.extend(read_at(&mut self.file, offset + skipped, taken)?)
                }
                Origin::Inserted(inserted) => {
                    bytes
                        .extend_from_slice(&inserted[skipped as usize..(skipped + taken) as usize]);
                }
            }
            self.at += taken;
        }
        Ok(bytes)
    }
}

/// Creates a source of the file at `path` with `edits`.
///
/// # Errors
/// When the file cannot be read, or GStreamer's `appsrc` is missing.
pub(super) fn source(path: &Path, edits: Vec<Edit>) -> Result<gst::Element, VideoError> {
    let unreadable = |error: io::Error| VideoError::Stream {
        element: String::new(),
        message: io_reason(&error),
    };
    let spliced = Spliced::open(path, edits).map_err(unreadable)?;
    let source = gst_app::AppSrc::builder()
        .format(gst::Format::Bytes)
        .stream_type(gst_app::AppStreamType::RandomAccess)
        .build();
    source.set_size(spliced.length as i64);
    let spliced = Arc::new(Mutex::new(spliced));
    let callbacks = gst_app::AppSrcCallbacks::builder()
        .seek_data({
            let spliced = Arc::clone(&spliced);
            move |_, offset| {
                lock(&spliced).at = offset;
                true
            }
        })
        .need_data(move |source, length| {
            let length = if length == u32::MAX {
                BLOCK_BYTES
            } else {
                u64::from(length)
            };
            let mut spliced = lock(&spliced);
            let at = spliced.at;
            let read = spliced.read(length);
            drop(spliced);
            // A push fails only when the pipeline stops.
            let _ = match read {
                Ok(bytes) if !bytes.is_empty() => {
                    let mut buffer = gst::Buffer::from_mut_slice(bytes);
                    if let Some(buffer) = buffer.get_mut() {
                        buffer.set_offset(at);
                    }
                    source.push_buffer(buffer)
                }
                Ok(_) => source.end_of_stream(),
                Err(error) => {
                    gst::element_error!(source, gst::ResourceError::Read, ("{error}"));
                    source.end_of_stream()
                }
            };
        });
    source.set_callbacks(callbacks.build());
    Ok(source.upcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_replaced_and_inserted_wherever_reading_begins() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"0123456789").expect("written");
        let edit = |offset, removed, inserted: &[u8]| Edit {
            offset,
            removed,
            inserted: inserted.to_vec(),
        };
        let edits = vec![edit(0, 0, b"ab"), edit(3, 2, b"cde"), edit(9, 1, b"")];
        let mut spliced = Spliced::open(file.path(), edits).expect("opened");
        let whole = b"ab012cde5678";
        assert_eq!(spliced.length, whole.len() as u64);
        for from in 0..=whole.len() {
            for length in 0..=whole.len() {
                spliced.at = from as u64;
                let expected = &whole[from..(from + length).min(whole.len())];
                assert_eq!(
                    spliced.read(length as u64).expect("read"),
                    expected,
                    "{length} from {from}"
                );
            }
        }
    }
}
