//! The folder of shards during a build: it records the work that is done, so that a build can be
//! killed at any moment and resumed.
//!
//! The manifest alone decides which work is done. It is replaced as a whole once a shard is on
//! disk, and then names that shard. Lines of `videos.jsonl` and shards beyond it are from a build
//! that was killed in between, and are made again.
//!
//! The manifest also has the hashes of the two lists. That of `videos.jsonl` covers the lines that
//! it counts. That of `rejected.jsonl`, which is replaced as a whole, exists only once the build
//! has finished: the list is written before the manifest that names its hash, and a finished
//! manifest loses the hash before the list is replaced. So a build that is killed, at whatever
//! moment, leaves nothing that looks like damage.

use crate::publish::{Publisher, Step};
use anyhow::{Context, ensure};
use console::{interrupt, output};
use pipeline::atomic_file::{self, TEMPORARY_ENDING};
use pipeline::shard::index::{self, IndexWriter};
use pipeline::shard::{Shard, read_manifest};
use pipeline::store::Url;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use schemas::manifest::{
    BuildOptions, INDEX_FILE, IndexEntry, MANIFEST_FILE, Manifest, OpenVideo, PlanEntry,
    REJECTED_FILE, Rejected, ShardEntry, VIDEOS_FILE, VideoRecord,
};
use schemas::shard::FORMAT_VERSION;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Program and version, as manifests name them.
const CREATED_BY: &str = concat!("shardtool ", env!("CARGO_PKG_VERSION"));

/// Oldest format version of which a build is continued: its clips are those of the version that is
/// written, only stored otherwise.
const OLDEST_CONTINUED_VERSION: u32 = 3;

/// Time from one manifest in a store to the next: each comes with the whole list of videos.
const NAME_EVERY: Duration = Duration::from_secs(10);

/// The record of a build.
pub struct Journal {
    /// The folder, or the URL of the place in a store.
    place: PathBuf,
    /// The folder, or one on the way to the store.
    dir: PathBuf,
    publisher: Option<Publisher>,
    /// Number of shards that are in the store, or on their way.
    published: usize,
    /// When the manifest in the store was written last.
    named: Option<Instant>,
    /// The index of the shards up to now, if they go to a store: there they cannot be read cheaply.
    index: Option<IndexWriter>,
    /// The manifest on disk.
    pub manifest: Manifest,
    /// Class names, which the next commit writes to the manifest.
    pub classes: Vec<String>,
    /// One for each video that is done.
    records: Vec<VideoRecord>,
    /// Number of records that are on disk.
    written: usize,
    /// Hash of their lines.
    written_xxh3: Xxh3,
    /// `videos.jsonl`, locked for as long as the build runs.
    videos: File,
}

impl Journal {
    /// Opens the folder, or place in a store, `target` for a build with `options`, a new one or one
    /// to resume; `force` replaces a build that is in it. What is on its way to a store is in
    /// `scratch`.
    ///
    /// # Errors
    /// When the folder or the store cannot be written, another build is running in it, or it holds
    /// a build with other options.
    pub fn open(
        target: &Target,
        options: &BuildOptions,
        scratch: &Path,
        force: bool,
    ) -> anyhow::Result<Self> {
        let place = target.place.as_path();
        let publisher = Url::of(place)
            .map(|url| Publisher::open(&url?, scratch, force))
            .transpose()?;
        let dir = publisher.as_ref().map_or(place, Publisher::dir).to_owned();
        let dir = dir.as_path();
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(VIDEOS_FILE);
        let is_ours = path.exists() || dir.join(MANIFEST_FILE).exists();
        ensure!(
            is_ours || force || shards(dir)?.is_empty(),
            "{} holds shards without a manifest; give another --out, or --force to replace them",
            dir.display()
        );
        // Before anything is made in it.
        let before = read_manifest(dir).ok();
        let is_joined = |manifest: &Manifest| {
            let is_whole_plan = manifest
                .plan
                .as_ref()
                .is_some_and(|plan| plan.part.is_none());
            manifest.derived.is_some() || is_whole_plan
        };
        ensure!(
            !before.as_ref().is_some_and(is_joined),
            "{} holds a data set of filter or merge; give another --out",
            place.display()
        );
        let videos = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        let videos = videos.with_context(|| format!("cannot write {}", path.display()))?;
        if !is_locked(&videos)? {
            // A part that a scheduler has started twice: the other one makes it.
            ensure!(
                target.plan.is_some(),
                "another build is at work in {}; wait for it, or give another --out",
                dir.display()
            );
            output::say(&format!(
                "another process builds {}: waiting for it",
                dir.display()
            ));
            wait_for(&videos)?;
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            created_by: CREATED_BY.to_owned(),
            finished: false,
            options: options.clone(),
            classes: Vec::new(),
            shards: Vec::new(),
            clips: 0,
            videos: 0,
            open_video: None,
            videos_xxh3: None,
            rejected_xxh3: None,
            index: None,
            plan: target.plan.clone(),
            derived: None,
        };
        let mut journal = Self {
            place: place.to_owned(),
            dir: dir.to_owned(),
            publisher,
            published: 0,
            named: None,
            index: None,
            manifest,
            classes: Vec::new(),
            records: Vec::new(),
            written: 0,
            written_xxh3: Xxh3::new(),
            videos,
        };
        if force {
            // The manifest goes first: without it, the remaining files are not taken for a build.
            for name in [MANIFEST_FILE, INDEX_FILE, REJECTED_FILE] {
                remove(&dir.join(name))?;
            }
        } else if dir.join(MANIFEST_FILE).exists() {
            journal.manifest =
                read_manifest(dir).context("cannot resume the build; --force replaces it")?;
            journal.classes = journal.manifest.classes.clone();
            journal.published = journal.manifest.shards.len();
            journal.check_options(options, target)?;
            journal.read_records()?;
            journal.check_shards()?;
        }
        journal.remove_leftovers()?;
        if journal.publisher.is_some() && target.plan.is_none() && !dir.join(MANIFEST_FILE).exists()
        {
            // Takes the place. Of two builds, the other one stops at its next step.
            journal.replace_manifest(journal.manifest.clone())?;
            journal.publish()?;
        }
        Ok(journal)
    }

    /// The records of videos that are done, by path; of a video with two of them, the last one.
    pub fn completed(&self) -> BTreeMap<&str, &VideoRecord> {
        self.records
            .iter()
            .map(|record| (record.path.as_str(), record))
            .collect()
    }

    /// Records that a video is done. The next commit writes the record to disk.
    pub fn record(&mut self, record: VideoRecord) {
        self.records.push(record);
    }

    /// Number of clips of all videos that are done.
    pub fn clips(&self) -> u64 {
        self.records.iter().map(|record| record.clips).sum()
    }

    /// Writes the manifest: `shards` are complete, and hold all videos recorded so far and the
    /// first clips of `open_video`.
    ///
    /// # Errors
    /// When a file cannot be written; the last manifest stays.
    pub fn commit(
        &mut self,
        shards: &[ShardEntry],
        open_video: Option<OpenVideo>,
    ) -> anyhow::Result<()> {
        let manifest = self.write_records(shards, open_video)?;
        self.replace_manifest(manifest)?;
        self.push_index(shards)?;
        self.publish()
    }

    /// The folder that shards are written to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends the state of the build on its way to the store, if it goes to one: its new shards, and
    /// from time to time the manifest and the lists. Of a part, which a scheduler may have started
    /// twice, these go only once all of it is there: whoever writes them, and whenever, they have
    /// the same bytes.
    fn publish(&mut self) -> anyhow::Result<()> {
        let Some(publisher) = &self.publisher else {
            return Ok(());
        };
        let new = self.manifest.shards.get(self.published..);
        let shards = new.into_iter().flatten().map(|shard| shard.file.clone());
        let shards = shards.collect();
        let is_due = match self.named {
            Some(named) => named.elapsed() >= NAME_EVERY,
            None => true,
        };
        let is_part = self.manifest.plan.is_some();
        if !self.manifest.finished && (is_part || !is_due) {
            self.published = self.manifest.shards.len();
            return publisher.send(Step {
                shards,
                files: Vec::new(),
                manifest: None,
            });
        }
        let read = |name: &str| {
            let path = self.dir.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut files = Vec::new();
        if self.manifest.videos > 0 {
            files.push((VIDEOS_FILE, read(VIDEOS_FILE)?));
        }
        if self.manifest.finished {
            files.push((REJECTED_FILE, read(REJECTED_FILE)?));
            // An index that was not written again is in the store.
            if self.dir.join(INDEX_FILE).exists() {
                files.push((INDEX_FILE, read(INDEX_FILE)?));
            }
        }
        // What takes the place names nothing: the first shard does not wait for its turn.
        if self.manifest.videos > 0 || !self.manifest.shards.is_empty() {
            self.named = Some(Instant::now());
        }
        self.published = self.manifest.shards.len();
        publisher.send(Step {
            shards,
            files,
            manifest: Some(read(MANIFEST_FILE)?),
        })
    }

    /// Writes the manifest of a build that has finished with `shards`, and the list of rejected
    /// files. Returns that list: `not_video`, the files that are no video, and those of the
    /// records.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn finish(
        &mut self,
        shards: &[ShardEntry],
        not_video: &[Rejected],
    ) -> anyhow::Result<Vec<Rejected>> {
        let (rejected, rejected_xxh3) = self.replace_rejected(not_video)?;
        let manifest = self.write_records(shards, None)?;
        let manifest = Manifest {
            finished: true,
            rejected_xxh3: Some(rejected_xxh3),
            index: self.write_index(shards)?,
            ..manifest
        };
        if manifest != self.manifest {
            self.replace_manifest(manifest)?;
            self.publish()?;
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.finish()?;
        }
        Ok(rejected)
    }

    /// Writes the list of files rejected so far, of a build that stops early.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn write_rejected(&mut self, not_video: &[Rejected]) -> anyhow::Result<()> {
        self.replace_rejected(not_video).map(drop)
    }

    /// Writes the index of `shards`; none for a build that has finished without one before.
    fn write_index(&mut self, shards: &[ShardEntry]) -> anyhow::Result<Option<IndexEntry>> {
        if self.manifest.finished && shards == self.manifest.shards {
            return Ok(self.manifest.index.clone());
        }
        if self.publisher.is_none() {
            return Ok(Some(index::write(&self.dir, shards)?));
        }
        self.push_index(shards)?;
        let path = self.dir.join(INDEX_FILE);
        let index = self.index.take().map(IndexWriter::finish);
        let (bytes, entry) = index.context("there is no index")??;
        atomic_file::write(&path, &bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Some(entry))
    }

    /// Appends those of `shards` that are not on their way yet to the index.
    fn push_index(&mut self, shards: &[ShardEntry]) -> anyhow::Result<()> {
        let Some(publisher) = &self.publisher else {
            return Ok(());
        };
        let (sent, new) = shards.split_at(self.published.min(shards.len()));
        if self.index.is_none() {
            let mut index = IndexWriter::new(&self.place.join(INDEX_FILE))?;
            index.push_stored(publisher.url(), sent)?;
            self.index = Some(index);
        }
        for shard in new {
            let shard = Shard::open_as_listed(&self.dir, shard)?;
            self.index
                .iter_mut()
                .try_for_each(|index| index.push(&shard))?;
        }
        Ok(())
    }

    /// Appends the records that are not on disk yet; returns the manifest that counts them.
    fn write_records(
        &mut self,
        shards: &[ShardEntry],
        open_video: Option<OpenVideo>,
    ) -> anyhow::Result<Manifest> {
        let mut lines = Vec::new();
        for record in &self.records[self.written..] {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        let videos = self
            .videos
            .write_all(&lines)
            .and_then(|()| self.videos.sync_data());
        videos.with_context(|| format!("cannot write {}", self.dir.join(VIDEOS_FILE).display()))?;
        self.written = self.records.len();
        self.written_xxh3.update(&lines);
        Ok(Manifest {
            // Shards of the version before stay as they are.
            format_version: if shards.len() > self.manifest.shards.len() {
                FORMAT_VERSION
            } else {
                self.manifest.format_version
            },
            finished: false,
            classes: self.classes.clone(),
            shards: shards.to_vec(),
            clips: shards.iter().map(|shard| shard.clips).sum(),
            videos: self.records.len() as u64,
            open_video,
            videos_xxh3: Some(hex(self.written_xxh3.digest())),
            rejected_xxh3: None,
            index: None,
            ..self.manifest.clone()
        })
    }

    fn replace_manifest(&mut self, manifest: Manifest) -> anyhow::Result<()> {
        let path = self.dir.join(MANIFEST_FILE);
        atomic_file::write(&path, &serde_json::to_vec_pretty(&manifest)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.manifest = manifest;
        Ok(())
    }

    /// Replaces the list of rejected files; returns it, and the hash of the file.
    fn replace_rejected(
        &mut self,
        not_video: &[Rejected],
    ) -> anyhow::Result<(Vec<Rejected>, String)> {
        let completed = self.completed();
        let is_last = |record: &&VideoRecord| {
            completed
                .get(record.path.as_str())
                .is_some_and(|last| std::ptr::eq(*last, *record))
        };
        let recorded = self.records.iter().filter(is_last);
        let all: Vec<Rejected> = not_video
            .iter()
            .chain(recorded.flat_map(|record| &record.rejected))
            .cloned()
            .collect();
        let mut lines = Vec::new();
        for rejected in &all {
            serde_json::to_writer(&mut lines, rejected)?;
            lines.push(b'\n');
        }
        let xxh3 = xxh3_hex(&lines);
        if self
            .manifest
            .rejected_xxh3
            .as_ref()
            .is_some_and(|before| *before != xxh3)
        {
            self.replace_manifest(Manifest {
                rejected_xxh3: None,
                ..self.manifest.clone()
            })?;
        }
        let path = self.dir.join(REJECTED_FILE);
        atomic_file::write(&path, &lines)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok((all, xxh3))
    }

    fn check_options(&self, options: &BuildOptions, target: &Target) -> anyhow::Result<()> {
        let mut differences = Vec::new();
        if self.manifest.plan != target.plan {
            differences.push("it is of another plan".to_owned());
        }
        if self.manifest.format_version < OLDEST_CONTINUED_VERSION {
            let version = self.manifest.format_version;
            differences.push(format!(
                "its shards are of format version {version}, now it is {FORMAT_VERSION}"
            ));
        }
        if self.manifest.created_by != CREATED_BY {
            differences.push(format!(
                "built by {}, this is {CREATED_BY}",
                self.manifest.created_by
            ));
        }
        let before = serde_json::to_value(&self.manifest.options)?;
        let now = serde_json::to_value(options)?;
        for (name, now) in now.as_object().into_iter().flatten() {
            let before = &before[name];
            if before != now {
                let render = |value: &serde_json::Value| {
                    if value.is_null() {
                        "none".to_owned()
                    } else {
                        value.to_string()
                    }
                };
                differences.push(format!("{name} was {}, is {}", render(before), render(now)));
            }
        }
        ensure!(
            differences.is_empty(),
            "{} holds a build with other options: {}; give another --out, or --force to replace it",
            self.place.display(),
            differences.join("; ")
        );
        Ok(())
    }

    /// Reads the records that the manifest counts, and removes the lines after them.
    fn read_records(&mut self) -> anyhow::Result<()> {
        let path = self.dir.join(VIDEOS_FILE);
        let mut text = Vec::new();
        self.videos.seek(SeekFrom::Start(0))?;
        self.videos
            .read_to_end(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut bytes = 0;
        for line in text
            .split_inclusive(|&byte| byte == b'\n')
            .take(self.manifest.videos as usize)
        {
            let record = serde_json::from_slice(line);
            self.records.push(
                record
                    .with_context(|| format!("{} is damaged; --force rebuilds", path.display()))?,
            );
            bytes += line.len();
        }
        let lines = self.records.len() as u64;
        let counted = self.manifest.videos;
        ensure!(
            lines == counted,
            "{} has {lines} lines, the manifest says {counted}; --force rebuilds",
            path.display()
        );
        self.written_xxh3.update(&text[..bytes]);
        ensure!(
            self.manifest
                .videos_xxh3
                .as_ref()
                .is_none_or(|xxh3| *xxh3 == hex(self.written_xxh3.digest())),
            "{} is damaged: it is not what the build wrote; restore it from a copy, or rebuild \
             with --force",
            path.display()
        );
        self.videos
            .set_len(bytes as u64)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.written = self.records.len();
        Ok(())
    }

    fn check_shards(&self) -> anyhow::Result<()> {
        for shard in &self.manifest.shards {
            let path = self.place.join(&shard.file);
            let bytes = match &self.publisher {
                None => fs::metadata(&path).ok().map(|metadata| metadata.len()),
                Some(publisher) => publisher.size(&shard.file),
            };
            let bytes = bytes.with_context(|| {
                format!(
                    "cannot find {}, which the manifest names; --force rebuilds",
                    path.display()
                )
            })?;
            ensure!(
                bytes == shard.bytes,
                "{} has {bytes} bytes, the manifest says {}; --force rebuilds",
                path.display(),
                shard.bytes
            );
        }
        Ok(())
    }

    /// Removes the leftovers of a build that was killed: shards that the manifest does not name,
    /// and temporary files.
    fn remove_leftovers(&mut self) -> anyhow::Result<()> {
        if self.manifest.videos == 0 {
            self.videos.set_len(0).with_context(|| {
                format!("cannot write {}", self.dir.join(VIDEOS_FILE).display())
            })?;
        }
        for path in shards(&self.dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !self.manifest.shards.iter().any(|shard| shard.file == name) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Where a build goes.
pub struct Target {
    /// The folder, or the URL of the place in a store.
    pub place: PathBuf,
    /// The part of a plan that it is.
    pub plan: Option<PlanEntry>,
}

/// Locks the folder of these records; false if another process holds it.
fn is_locked(videos: &File) -> anyhow::Result<bool> {
    match flock(videos, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).context(
            "cannot lock videos.jsonl, which keeps two builds apart: use a file system with locks, \
             or a store",
        ),
    }
}

/// Waits for the lock of a folder, unless the user wants to stop.
fn wait_for(videos: &File) -> anyhow::Result<()> {
    while !is_locked(videos)? {
        ensure!(!interrupt::requested(), "stopped");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// XXH3-64 of `bytes`, in 16 hexadecimal digits, as in the manifest.
pub fn xxh3_hex(bytes: &[u8]) -> String {
    hex(xxh3_64(bytes))
}

fn hex(xxh3: u64) -> String {
    format!("{xxh3:016x}")
}

/// The shards in the folder, finished ones and temporary files.
fn shards(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(TEMPORARY_ENDING).unwrap_or(&name);
        if name.starts_with("shard-") && name.ends_with(".parquet") {
            found.push(path);
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
