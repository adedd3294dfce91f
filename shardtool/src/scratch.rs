//! Videos from stores, downloaded one after the other into scratch space of bounded size, ahead of
//! the workers that decode them.
//!
//! A download is a file without a name: it is gone as soon as its video is done, or this program
//! has ended, in whatever way. Workers open it by the number of its descriptor.

use anyhow::{Context, bail};
use pipeline::store::{self, ObjectMeta, StoreError};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Downloads at a time.
const DOWNLOADS: usize = 4;

/// The downloads of a build, by the index of their video.
pub struct Scratch<'a> {
    dir: &'a Path,
    limit: u64,
    objects: Vec<Option<&'a ObjectMeta>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Videos before this one are there or on their way.
    next: usize,
    /// Bytes that are there or on their way.
    used: u64,
    files: Vec<Download>,
    is_over: bool,
}

/// A video's download.
#[derive(Default)]
enum Download {
    #[default]
    Waiting,
    There(File),
    Failed(anyhow::Error),
    Gone,
}

impl<'a> Scratch<'a> {
    /// Scratch space for `objects`, one for each video that is in a store, in the folder `dir`:
    /// `limit` bytes at most, or else a single video.
    pub fn new(dir: &'a Path, limit: u64, objects: Vec<Option<&'a ObjectMeta>>) -> Self {
        let mut files = Vec::new();
        files.resize_with(objects.len(), Download::default);
        Self {
            dir,
            limit,
            objects,
            state: Mutex::new(State {
                files,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// Calls `work` while the videos are downloaded.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let any = self.objects.iter().any(Option::is_some);
        std::thread::scope(|scope| {
            if any {
                (0..DOWNLOADS).for_each(|_| drop(scope.spawn(|| self.download_all())));
            }
            let _over = Over(self);
            work()
        })
    }

    /// Waits for the download of video `index`; returns the path by which any process of this user
    /// can open it. None if the video is not in a store.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub fn wait(&self, index: usize) -> anyhow::Result<Option<PathBuf>> {
        if self.objects[index].is_none() {
            return Ok(None);
        }
        let mut state = self.lock();
        loop {
            match std::mem::take(&mut state.files[index]) {
                Download::Waiting if !state.is_over => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Download::There(file) => {
                    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                    state.files[index] = Download::There(file);
                    return Ok(Some(path.into()));
                }
                Download::Failed(error) => return Err(error),
                Download::Waiting | Download::Gone => bail!("stopped"),
            }
        }
    }

    /// Frees the space of video `index`.
    pub fn remove(&self, index: usize) {
        let mut state = self.lock();
        if matches!(state.files[index], Download::There(_)) {
            state.used -= self.bytes(index);
        }
        state.files[index] = Download::Gone;
        self.changed.notify_all();
    }

    fn download_all(&self) {
        while let Some(index) = self.admit() {
            let object = self.objects[index].expect("only objects are admitted");
            let result = self.download(object);
            let mut state = self.lock();
            state.files[index] = match result {
                Ok(file) => Download::There(file),
                Err(error) => {
                    state.used -= self.bytes(index);
                    Download::Failed(error)
                }
            };
            self.changed.notify_all();
        }
    }

    /// The next video to download, once there is room for it. They are admitted in order, and begun
    /// in that order by the workers: the video that everything waits for is there, or next.
    fn admit(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            while state.next < self.objects.len() && self.objects[state.next].is_none() {
                state.next += 1;
            }
            if state.is_over || state.next == self.objects.len() {
                return None;
            }
            let bytes = self.bytes(state.next);
            if state.used == 0 || state.used + bytes <= self.limit {
                state.used += bytes;
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn download(&self, object: &ObjectMeta) -> anyhow::Result<File> {
        let file = tempfile::tempfile_in(self.dir)
            .with_context(|| format!("cannot write to {}", self.dir.display()))?;
        let mut alive = |_: u64| {
            if self.lock().is_over {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        match store::download(&object.url, Some(object), &file, &mut alive) {
            Ok(_) => Ok(file),
            Err(StoreError::Io { source, .. }) => Err(source).with_context(|| {
                format!(
                    "cannot keep {} in {}; choose another folder with --scratch",
                    object.url,
                    self.dir.display()
                )
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn bytes(&self, index: usize) -> u64 {
        self.objects[index].map_or(0, |object| object.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the downloads when it is dropped, after an error or a panic as well.
struct Over<'a, 'b>(&'a Scratch<'b>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}
