//! What is left of a build: which videos are complete, and which are left to do.

use crate::inputs::Input;
use crate::journal::Journal;
use anyhow::ensure;
use pipeline::store;
use pipeline::video::media::Media;
use schemas::manifest::VideoRecord;

/// A video to build: the unit of work.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) input: Input,
    /// Number of its clips that finished shards hold already.
    pub(super) skip: u64,
}

impl Source {
    /// Returns the name under which the path is stored.
    pub(super) fn name(&self) -> String {
        self.input.name()
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
    /// Compares the videos `inputs` with those that the journal records.
    ///
    /// # Errors
    /// When a video with clips in the shards has changed.
    pub(super) fn new(journal: &Journal, inputs: Vec<Input>) -> anyhow::Result<Self> {
        let sources = inputs.into_iter().map(|input| Source { input, skip: 0 });
        let mut recorded = journal.completed();
        let mut todo = Vec::new();
        let mut completed = 0;
        let mut changed = Vec::new();
        for source in sources {
            let Some(record) = recorded.remove(source.name().as_str()) else {
                todo.push(source);
                continue;
            };
            let label = source.input.label();
            let same_label = (record.label, &record.class) == (label.number, &label.class)
                && record.list_xxh3 == source.input.list_xxh3();
            match (is_same_file(&source, record), same_label) {
                (true, true) => completed += 1,
                // A video without clips can be built again.
                _ if record.clips == 0 => todo.push(source),
                (false, _) => changed.push(format!("{} has different content", source.name())),
                (true, false) if source.input.is_listed => {
                    changed.push(format!("{} has different rows in the list", source.name()));
                }
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
    let path = &source.input.file.path;
    if source.input.file.object.is_some() {
        let hashed = bytes == record.bytes
            && store::open_file(path)
                .and_then(|file| hasher.update_reader(file).map(drop))
                .is_ok();
        return hashed && hasher.finalize().to_hex().as_str() == record.blake3;
    }
    let hashed = Media::of(path).and_then(|media| {
        media.read(path, |block| {
            hasher.update(block);
            Ok(())
        })
    });
    bytes == record.bytes && hashed.is_ok() && hasher.finalize().to_hex().as_str() == record.blake3
}

/// Returns the size in bytes, and the time of the last modification in nanoseconds since 1970;
/// zeros if the file does not exist.
pub(super) fn size_and_time(source: &Source) -> (u64, i64) {
    if let Some(object) = &source.input.file.object {
        return (object.bytes, object.modified_ns);
    }
    let path = &source.input.file.path;
    let found = Media::of(path).and_then(|media| media.size_and_time(path));
    found.unwrap_or((0, 0))
}
