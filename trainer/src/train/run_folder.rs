//! The folder of a run: one process at a time uses it, and detects when it is gone.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a run cannot use its folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process uses it.
    #[error("another run is at work in {}; wait for it, or give another --out", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open the run's folder {}: {source}", path.display())]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was there, and is gone.
    #[error(
        "the run's folder {} is gone, or another is in its place: the run has stopped, as nothing \
         that it learns could be saved; where the folder was \
         moved to, --out FOLDER --resume goes on from its last checkpoint",
        path.display()
    )]
    Gone {
        /// Which folder.
        path: PathBuf,
    },
}

/// The open folder, locked until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The folder itself: no lock file is needed in it.
    handle: File,
}

impl RunFolder {
    /// Locks the folder `path` for this process.
    ///
    /// # Errors
    /// When it cannot be opened, or another process uses it.
    pub fn take(path: &Path) -> Result<Self, FolderError> {
        let handle = File::open(path).map_err(|source| FolderError::Open {
            path: path.to_owned(),
            source,
        })?;
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(FolderError::InUse {
                path: path.to_owned(),
            }),
            // Some network file systems have no locks; a run on them is not refused.
            _ => Ok(Self {
                path: path.to_owned(),
                handle,
            }),
        }
    }

    /// Checks that the folder is still where it was.
    ///
    /// # Errors
    /// [`FolderError::Gone`] when it is not.
    pub fn check(&self) -> Result<(), FolderError> {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (
            fs::metadata(&self.path).map(identity),
            self.handle.metadata().map(identity),
        ) {
            (Ok(found), Ok(taken)) if found == taken => Ok(()),
            _ => Err(FolderError::Gone {
                path: self.path.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_missed_when_it_goes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("run");
        assert!(matches!(
            RunFolder::take(&path),
            Err(FolderError::Open { .. })
        ));
        fs::create_dir(&path).expect("made");
        let folder = RunFolder::take(&path).expect("taken");
        assert!(matches!(
            RunFolder::take(&path),
            Err(FolderError::InUse { .. })
        ));
        folder.check().expect("it is there");
        fs::rename(&path, dir.path().join("elsewhere")).expect("moved");
        assert!(matches!(folder.check(), Err(FolderError::Gone { .. })));
        fs::create_dir(&path).expect("made");
        assert!(
            matches!(folder.check(), Err(FolderError::Gone { .. })),
            "another one is in its place"
        );
        drop(folder);
        RunFolder::take(&dir.path().join("elsewhere")).expect("free again");
    }
}
