//! The index of a data set in a store that has none: of each shard, everything but the frames is
//! fetched.

use super::super::ShardError;
use super::super::index::IndexWriter;
use super::super::reader::Shard;
use super::Slot;
use crate::store::{Pending, StoreError, Url};
use schemas::manifest::ShardEntry;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Shards that are fetched at a time.
const SHARDS_AHEAD: usize = 32;

/// The requests for a shard.
type Requests = Vec<(Range<u64>, Arc<Slot>, Option<Pending>)>;

/// Appends the clips of `shards` at `url` to an index.
///
/// # Errors
/// When a shard cannot be fetched, or is not what the manifest says.
pub fn push_stored(
    writer: &mut IndexWriter,
    url: &Url,
    shards: &[ShardEntry],
) -> Result<(), ShardError> {
    let mut entries = shards.iter();
    let mut ahead: VecDeque<(&ShardEntry, Requests)> = VecDeque::new();
    loop {
        while ahead.len() < SHARDS_AHEAD
            && let Some(entry) = entries.next()
        {
            let object = url.join(&entry.file).map_err(StoreError::from)?;
            ahead.push_back((entry, request(&object, entry)));
        }
        let Some((entry, requests)) = ahead.pop_front() else {
            break;
        };
        // Without a name, it is gone with this process, however that ends.
        let unnamed = Path::new("a temporary file");
        let file = tempfile::tempfile().and_then(|file| file.set_len(entry.bytes).map(|()| file));
        let file = file.map_err(ShardError::io("create", unnamed))?;
        for (range, slot, _request) in requests {
            let contents = slot.wait(&AtomicBool::new(false))?;
            let written = file.write_all_at(&contents.bytes, range.start);
            written.map_err(ShardError::io("write", unnamed))?;
        }
        let local = ShardEntry {
            file: format!("/proc/self/fd/{}", file.as_raw_fd()),
            ..entry.clone()
        };
        let shard = Shard::open_as_listed(Path::new(""), &local);
        writer.push(&shard.map_err(|error| of_object(error, url, entry))?)?;
    }
    Ok(())
}

/// Requests everything but the frames of a shard.
fn request(object: &Url, entry: &ShardEntry) -> Requests {
    let mut ranges = Vec::new();
    let mut at = 0;
    for &(offset, bytes) in &entry.pixels {
        ranges.push(at..offset);
        at = offset + bytes;
    }
    ranges.push(at..entry.bytes);
    ranges.retain(|range| range.start < range.end);
    let requests = ranges.into_iter().map(|range| {
        let (slot, request) = Slot::request(object.clone(), range.clone(), None);
        (range, slot, request)
    });
    requests.collect()
}

/// Names the object in an error of its local copy.
fn of_object(error: ShardError, url: &Url, entry: &ShardEntry) -> ShardError {
    let path = PathBuf::from(format!("{url}/{}", entry.file));
    match error {
        ShardError::DamagedShard { reason, .. } => ShardError::DamagedShard { path, reason },
        ShardError::NotAShard { reason, .. } => ShardError::NotAShard { path, reason },
        other => ShardError::Io {
            operation: "read",
            path,
            source: io::Error::other(other.to_string()),
        },
    }
}
