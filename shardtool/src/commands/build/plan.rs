//! The plan of a build: which videos are complete, and which are left to do.

use crate::journal::Journal;
use crate::labels::Label;
use anyhow::ensure;
use pipeline::video::discover::{VideoFile, path_name};
use schemas::manifest::VideoRecord;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A video and its label: the unit of work.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: VideoFile,
    pub(super) label: Label,
    /// Number of its clips that finished shards hold already.
    pub(super) skip: u64,
}

impl Source {
    /// Returns the name under which the path is stored.
    pub(super) fn name(&self) -> String {
        path_name(&self.file.path)
    }
}

/// The plan of a build.
pub(super) struct Plan {
    /// Videos to build.
    pub(super) sources: Vec<Source>,
    /// Number of videos that are complete.
    pub(super) completed: u64,
    /// Videos that are complete, but no longer exist.
    pub(super) removed: Vec<String>,
}

impl Plan {
    /// Compares the videos `sources` with those that the journal records.
    ///
    /// # Errors
    /// When a video with clips in the shards has changed.
    pub(super) fn new(journal: &Journal, sources: Vec<Source>) -> anyhow::Result<Self> {
        let mut recorded = journal.completed();
        let mut todo = Vec::new();
        let mut completed = 0;
        let mut changed = Vec::new();
        for source in sources {
            let Some(record) = recorded.remove(source.name().as_str()) else {
                todo.push(source);
                continue;
            };
            let same_label =
                (record.label, &record.class) == (source.label.number, &source.label.class);
            match (is_same_file(&source, record), same_label) {
                (true, true) => completed += 1,
                // A video without clips can be built again.
                _ if record.clips == 0 => todo.push(source),
                (false, _) => changed.push(format!("{} has different content", source.name())),
                (true, false) => changed.push(format!("{} has a different label", source.name())),
            }
        }
        if let Some(open) = &journal.manifest.open_video {
            match todo.iter().position(|source| source.name() == open.path) {
                Some(index) => todo[..=index].rotate_right(1),
                None => changed.push(format!(
                    "{}, at which the build was stopped, no longer exists",
                    open.path
                )),
            }
            todo.first_mut()
                .into_iter()
                .for_each(|source| source.skip = open.clips);
        }
        ensure!(
            changed.is_empty(),
            "since these shards were built, their videos have changed: {}; restore them, give \
             another --out, or rebuild with --force",
            changed.join("; ")
        );
        let removed = recorded
            .into_values()
            .filter(|record| record.clips > 0)
            .map(|record| record.path.clone())
            .collect();
        Ok(Self {
            sources: todo,
            completed,
            removed,
        })
    }
}

/// Whether the file is the recorded one: it has the same size and time, or else the same content.
fn is_same_file(source: &Source, record: &VideoRecord) -> bool {
    let (bytes, modified_ns) = size_and_time(source);
    if (bytes, modified_ns) == (record.bytes, record.modified_ns) {
        return true;
    }
    let mut hasher = blake3::Hasher::new();
    let hashed =
        fs::File::open(&source.file.path).and_then(|file| hasher.update_reader(file).map(drop));
    bytes == record.bytes && hashed.is_ok() && hasher.finalize().to_hex().as_str() == record.blake3
}

/// Returns the size in bytes, and the time of the last modification in nanoseconds since 1970;
/// zeros if the file does not exist.
pub(super) fn size_and_time(source: &Source) -> (u64, i64) {
    fs::metadata(&source.file.path).map_or((0, 0), |file| {
        (file.len(), file.mtime() * 1_000_000_000 + file.mtime_nsec())
    })
}
