//! A build into a store: shards go up as they are finished, and then the manifest that names them.
//!
//! The build itself works in a folder on its way to the store, as in any folder. What the manifest
//! in the store names is there; other objects of a build that was killed are read by nobody, and
//! are replaced when it is repeated. A build takes its place by a first, empty manifest, and replaces
//! it only if it is the one that it wrote or read: of two builds into one place, one fails. A part
//! of a plan may be built twice at once; its manifest is written when all of it is there, with the
//! same bytes by both.

use anyhow::{Context, anyhow, bail, ensure};
use crossbeam_channel::{Sender, bounded};
use pipeline::atomic_file;
use pipeline::store::{self, StoreError, Url};
use rustix::fs::{FlockOperation, flock};
use schemas::manifest::{MANIFEST_FILE, VIDEOS_FILE};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Beginning of the names of folders on the way to a store.
const STAGING: &str = "shardtool-";

/// Finished states of the build that may wait to go up, besides the one that is going.
const WAITING: usize = 1;

/// What sends a build to a store.
pub struct Publisher {
    url: Url,
    staging: Staging,
    /// Sizes of the objects that are there, by name.
    sizes: HashMap<String, u64>,
    steps: Option<Sender<Step>>,
    thread: Option<JoinHandle<()>>,
    /// Why it has stopped.
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

/// A folder that is locked for as long as it is in use, and removed with all that is in it.
struct Staging {
    dir: TempDir,
    _lock: File,
}

/// A state of the build: new shards, new contents of lists, and the manifest that names them.
pub struct Step {
    /// Names of the new shards, in the folder.
    pub shards: Vec<String>,
    /// Names and bytes of other files.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The manifest, if it is to be replaced.
    pub manifest: Option<Vec<u8>>,
}

impl Publisher {
    /// Prepares a build into `url`, with a folder in `scratch`, and gets what a build before has
    /// left there. `force` removes its manifest.
    ///
    /// # Errors
    /// When the store or the folder cannot be used.
    pub fn open(url: &Url, scratch: &Path, force: bool) -> anyhow::Result<Self> {
        let staging = Staging::make(scratch)?;
        let place = |name: &str| url.join(name);
        let mut sizes = HashMap::new();
        let mut etag = None;
        if force {
            store::delete(&place(MANIFEST_FILE)?)?;
        }
        match store::read(&place(MANIFEST_FILE)?) {
            Ok(manifest) => {
                etag = manifest.etag;
                let keep = |name: &str, bytes: &[u8]| {
                    let path = staging.dir.path().join(name);
                    fs::write(&path, bytes)
                        .with_context(|| format!("cannot write {}", path.display()))
                };
                keep(MANIFEST_FILE, &manifest.bytes)?;
                match store::read(&place(VIDEOS_FILE)?) {
                    Ok(videos) => keep(VIDEOS_FILE, &videos.bytes)?,
                    Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                for object in store::list(url)? {
                    if let Some(name) = url.relative(&object.url) {
                        sizes.insert(name, object.bytes);
                    }
                }
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (steps, received) = bounded(WAITING);
        let failure = Arc::<Mutex<Option<anyhow::Error>>>::default();
        let mut upload = Upload {
            url: url.clone(),
            dir: staging.dir.path().to_owned(),
            etag,
        };
        let failed = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("publish".to_owned())
            .spawn(move || {
                let mut has_failed = false;
                // After a failure, steps are taken and dropped, so that nobody waits for them.
                for step in received {
                    if !has_failed && let Err(error) = upload.publish(step) {
                        has_failed = true;
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            })?;
        Ok(Self {
            url: url.clone(),
            staging,
            sizes,
            steps: Some(steps),
            thread: Some(thread),
            failure,
        })
    }

    /// The folder on the way to the store.
    pub fn dir(&self) -> &Path {
        self.staging.dir.path()
    }

    /// The place in the store.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Bytes of the object `name` that a build before has left; none if there is no such object.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(name).copied()
    }

    /// Sends a state of the build on its way; waits while others are before it.
    ///
    /// # Errors
    /// When a state before could not be sent.
    pub fn send(&self, step: Step) -> anyhow::Result<()> {
        self.check()?;
        let steps = self.steps.as_ref().context("the build was finished")?;
        steps.send(step).map_err(|_| self.failure())
    }

    /// Waits until all states are in the store.
    ///
    /// # Errors
    /// When one could not be sent.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.steps = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            bail!("the thread that uploads has panicked");
        }
        self.check()
    }

    /// Fails if a state could not be sent.
    fn check(&self) -> anyhow::Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }

    fn failure(&self) -> anyhow::Error {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure
            .take()
            .unwrap_or_else(|| anyhow!("cannot write to {}", self.url))
    }
}

impl Staging {
    /// Makes a folder in `scratch`, and removes those of builds that were killed.
    fn make(scratch: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write to {}; choose --scratch", scratch.display());
        for entry in fs::read_dir(scratch).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(STAGING) && locked(&path).is_some() {
                // Another build may be removing it as well.
                let _ = fs::remove_dir_all(&path);
            }
        }
        loop {
            let mut builder = tempfile::Builder::new();
            let made = builder.prefix(STAGING).tempdir_in(scratch);
            let dir = made.with_context(cannot)?;
            // Until it is locked, another build may take it for one that is left, and remove it.
            if let Some(lock) = locked(dir.path()).filter(|_| dir.path().exists()) {
                return Ok(Self { dir, _lock: lock });
            }
        }
    }
}

/// Locks a folder; none if another process holds it.
fn locked(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// The thread that uploads.
struct Upload {
    url: Url,
    dir: PathBuf,
    /// Of the manifest in the store, if there is one.
    etag: Option<String>,
}

impl Upload {
    fn publish(&mut self, step: Step) -> anyhow::Result<()> {
        let Step {
            shards,
            files,
            manifest,
        } = step;
        // Requests take long, whatever they are for: those that need not wait do not.
        let (is_there, uploaded) = std::thread::scope(|scope| {
            let lists = scope.spawn(|| self.write_lists(manifest.as_deref(), files));
            let uploaded = shards.iter().try_for_each(|name| self.upload(name));
            (lists.join(), uploaded)
        });
        uploaded?;
        let is_there = is_there.map_err(|_| anyhow!("a thread that uploads has panicked"))??;
        let Some(manifest) = manifest.filter(|_| !is_there) else {
            return Ok(());
        };
        let object = self.url.join(MANIFEST_FILE)?;
        let written = match &self.etag {
            Some(etag) => store::replace(&object, manifest.clone().into(), Some(etag)),
            None => store::create(&object, manifest.clone().into()),
        };
        match written {
            Ok(etag) => self.etag = etag,
            // Another process may have made the same part.
            Err(StoreError::Exists { .. } | StoreError::Changed { .. }) => {
                ensure!(self.is_there(&manifest)?, self.conflict());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes a shard that no manifest names yet, and removes its file.
    fn upload(&self, name: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let object = self.url.join(name)?;
        if let Err(error) = store::upload(&object, &path) {
            if !matches!(error, StoreError::Exists { .. }) {
                return Err(error.into());
            }
            // No manifest names it: a build that was killed has left it.
            self.check_manifest()?;
            store::delete(&object)?;
            store::upload(&object, &path)?;
        }
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Writes the lists that `manifest` counts, unless the store has that manifest already.
    fn write_lists(
        &self,
        manifest: Option<&[u8]>,
        files: Vec<(&str, Vec<u8>)>,
    ) -> anyhow::Result<bool> {
        if let Some(manifest) = manifest
            && self.etag.is_some()
            && self.is_there(manifest)?
        {
            return Ok(true);
        }
        std::thread::scope(|scope| {
            let write = |(name, bytes): (&str, Vec<u8>)| {
                let object = self.url.join(name)?;
                Ok(scope.spawn(move || store::overwrite(&object, bytes.into())))
            };
            let written = files.into_iter().map(write);
            for file in written.collect::<anyhow::Result<Vec<_>>>()? {
                let panicked = |_| anyhow!("a thread that uploads has panicked");
                file.join().map_err(panicked)??;
            }
            Ok(false)
        })
    }

    /// Whether the store has `manifest` already.
    ///
    /// # Errors
    /// When it has another one that is not ours.
    fn is_there(&self, manifest: &[u8]) -> anyhow::Result<bool> {
        match store::read(&self.url.join(MANIFEST_FILE)?) {
            Ok(found) if found.bytes == manifest => Ok(true),
            Ok(found) => {
                ensure!(
                    self.etag.is_some() && found.etag == self.etag,
                    self.conflict()
                );
                Ok(false)
            }
            Err(StoreError::NotFound { .. }) => {
                ensure!(self.etag.is_none(), self.conflict());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fails if the manifest in the store is not the one that this build wrote or read.
    fn check_manifest(&self) -> anyhow::Result<()> {
        let etag = match store::head(&self.url.join(MANIFEST_FILE)?) {
            Ok(found) => found.etag,
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        ensure!(etag == self.etag, self.conflict());
        Ok(())
    }

    fn conflict(&self) -> String {
        format!(
            "another build has written into {}; wait for it, or give another --out",
            self.url
        )
    }
}

/// Writes a file of a build that is in a folder, or in a store.
///
/// # Errors
/// When it cannot be written.
pub fn write(place: &Path, name: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
    let path = place.join(name);
    match Url::of(place) {
        Some(url) => Ok(store::overwrite(&url?.join(name)?, bytes.into())?),
        None => atomic_file::write(&path, &bytes)
            .with_context(|| format!("cannot write {}", path.display())),
    }
}
