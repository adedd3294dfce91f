//! The folder of shards as a build keeps it: what is done is written down, so that a build can be killed at any moment and go on.
//!
//! The manifest is the only word on what is done. It is replaced, whole, when a shard is on disk, and names it then; lines of `videos.jsonl` and
//! shards beyond it are from a build that was killed in between, and are made again.

use anyhow::{Context, bail, ensure};
use pipeline::atomic_file::{self, TEMPORARY_ENDING};
use pipeline::shard::reader::read_manifest;
use rustix::fs::{FlockOperation, flock};
use schemas::manifest::{BuildOptions, MANIFEST_FILE, Manifest, OpenVideo, REJECTED_FILE, Rejected, ShardEntry, VIDEOS_FILE, VideoRecord};
use schemas::shard::FORMAT_VERSION;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Program and version, as manifests name them.
const CREATED_BY: &str = concat!("shardtool ", env!("CARGO_PKG_VERSION"));

/// What is written down of a build, and where more is written.
pub struct Journal {
    dir: PathBuf,
    /// What is done.
    pub manifest: Manifest,
    /// A line for each video that is done.
    records: Vec<VideoRecord>,
    /// Records that are on disk.
    written: usize,
    /// `videos.jsonl`, locked for as long as the build runs.
    videos: File,
}

impl Journal {
    /// Opens the folder `dir` for a build with `options`: a new one, or one to go on with.
    ///
    /// # Errors
    /// When the folder cannot be written, another build is at work in it, or what is in it was built otherwise.
    pub fn open(dir: &Path, options: &BuildOptions, force: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(VIDEOS_FILE);
        let is_ours = path.exists() || dir.join(MANIFEST_FILE).exists();
        ensure!(
            is_ours || force || shards(dir)?.is_empty(),
            "{} holds shards without a manifest; give another --out, or --force to replace them",
            dir.display()
        );
        let videos = File::options().read(true).append(true).create(true).open(&path);
        let videos = videos.with_context(|| format!("cannot write {}", path.display()))?;
        if flock(&videos, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another build is at work in {}; wait for it, or give another --out", dir.display());
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
        };
        let mut journal = Self { dir: dir.to_owned(), manifest, records: Vec::new(), written: 0, videos };
        if force {
            // The manifest goes first: without it, nobody takes what is left for a build.
            for name in [MANIFEST_FILE, REJECTED_FILE] {
                remove(&dir.join(name))?;
            }
        } else if dir.join(MANIFEST_FILE).exists() {
            journal.manifest = read_manifest(dir).context("cannot go on with the build; --force replaces it")?;
            journal.refuse_other_options(options)?;
            journal.read_records()?;
            journal.check_shards()?;
        }
        journal.remove_leftovers()?;
        Ok(journal)
    }

    /// The videos that are done, by their paths; of one that was examined twice, the last record.
    pub fn known(&self) -> BTreeMap<&str, &VideoRecord> {
        self.records.iter().map(|record| (record.path.as_str(), record)).collect()
    }

    /// Notes that a video is done. It is on disk with the next commit.
    pub fn record(&mut self, record: VideoRecord) {
        self.records.push(record);
    }

    /// Clips of all videos that are done.
    pub fn clips(&self) -> u64 {
        self.records.iter().map(|record| record.clips).sum()
    }

    /// Writes down what is done: `shards` are whole, and hold all videos recorded so far, and the first clips of `open_video`.
    ///
    /// # Errors
    /// When the disk is full, say; what was written down before stays.
    pub fn commit(&mut self, shards: &[ShardEntry], open_video: Option<OpenVideo>, finished: bool) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for record in &self.records[self.written..] {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        let videos = self.videos.write_all(&lines).and_then(|()| self.videos.sync_data());
        videos.with_context(|| format!("cannot write {}", self.dir.join(VIDEOS_FILE).display()))?;
        self.written = self.records.len();
        self.manifest.shards = shards.to_vec();
        self.manifest.clips = shards.iter().map(|shard| shard.clips).sum();
        self.manifest.videos = self.records.len() as u64;
        self.manifest.open_video = open_video;
        self.manifest.finished = finished;
        let json = serde_json::to_vec_pretty(&self.manifest)?;
        let path = self.dir.join(MANIFEST_FILE);
        atomic_file::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the list of what was left out: `not_video`, the files that were no video, and what the records say.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_rejected(&self, not_video: &[Rejected]) -> anyhow::Result<Vec<Rejected>> {
        let known = self.known();
        let recorded =
            self.records.iter().filter(|record| known.get(record.path.as_str()).is_some_and(|last| std::ptr::eq(*last, *record)));
        let all: Vec<Rejected> = not_video.iter().chain(recorded.flat_map(|record| &record.rejected)).cloned().collect();
        let mut lines = Vec::new();
        for rejected in &all {
            serde_json::to_writer(&mut lines, rejected)?;
            lines.push(b'\n');
        }
        let path = self.dir.join(REJECTED_FILE);
        atomic_file::write(&path, &lines).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(all)
    }

    fn refuse_other_options(&self, options: &BuildOptions) -> anyhow::Result<()> {
        let mut differences = Vec::new();
        if self.manifest.created_by != CREATED_BY {
            differences.push(format!("built by {}, this is {CREATED_BY}", self.manifest.created_by));
        }
        let (before, now) = (serde_json::to_value(&self.manifest.options)?, serde_json::to_value(options)?);
        for (name, now) in now.as_object().into_iter().flatten() {
            let before = &before[name];
            if before != now {
                let shown = |value: &serde_json::Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
                differences.push(format!("{name} was {}, is {}", shown(before), shown(now)));
            }
        }
        ensure!(
            differences.is_empty(),
            "{} holds a build with other options: {}; give another --out, or --force to replace it",
            self.dir.display(),
            differences.join("; ")
        );
        Ok(())
    }

    /// Reads the records that the manifest counts, and cuts off what comes after them.
    fn read_records(&mut self) -> anyhow::Result<()> {
        let path = self.dir.join(VIDEOS_FILE);
        let mut text = String::new();
        self.videos.seek(SeekFrom::Start(0))?;
        self.videos.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        let mut bytes = 0;
        for line in text.split_inclusive('\n').take(self.manifest.videos as usize) {
            let record = serde_json::from_str(line);
            self.records.push(record.with_context(|| format!("{} is damaged; --force builds anew", path.display()))?);
            bytes += line.len() as u64;
        }
        let (lines, counted) = (self.records.len() as u64, self.manifest.videos);
        ensure!(lines == counted, "{} has {lines} lines, the manifest says {counted}; --force builds anew", path.display());
        self.videos.set_len(bytes).with_context(|| format!("cannot write {}", path.display()))?;
        self.written = self.records.len();
        Ok(())
    }

    fn check_shards(&self) -> anyhow::Result<()> {
        for shard in &self.manifest.shards {
            let path = self.dir.join(&shard.file);
            let bytes = fs::metadata(&path).map(|metadata| metadata.len());
            let bytes = bytes.with_context(|| format!("cannot find {}, which the manifest names; --force builds anew", path.display()))?;
            ensure!(bytes == shard.bytes, "{} has {bytes} bytes, the manifest says {}; --force builds anew", path.display(), shard.bytes);
        }
        Ok(())
    }

    /// Removes what a build that was killed has left: shards that the manifest does not name, and temporary files.
    fn remove_leftovers(&mut self) -> anyhow::Result<()> {
        if self.manifest.videos == 0 {
            self.videos.set_len(0).with_context(|| format!("cannot write {}", self.dir.join(VIDEOS_FILE).display()))?;
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

/// Shards in the folder, and what was to become one.
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
