//! Memory-mapped shards; the `unsafe` code of this room.
//!
//! Reading a page of a map beyond the end of its file raises a signal (SIGBUS): truncating a mapped
//! file would end this process. Here such a page reads as zeros instead, which fail the hash, and
//! the reader then reports what happened to the file.

use super::ShardError;
use memmap2::{Advice, Mmap, MmapMut};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

/// A mapped file. Clones share the map.
#[derive(Debug, Clone)]
pub(super) struct Mapping(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    map: Mmap,
    path: PathBuf,
    /// Device and inode of the file, to tell whether the file at this path is still the same.
    identity: (u64, u64),
    place: Option<Place>,
}

impl Mapping {
    /// Maps the whole file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, ShardError> {
        let file = File::open(path).map_err(ShardError::io("open", path))?;
        let metadata = file.metadata().map_err(ShardError::io("open", path))?;
        // SAFETY: shards are written under a temporary name, renamed when complete, and never
        // written again, so the mapped bytes do not change under their readers. If a shard is
        // truncated all the same, its lost pages read as zeros (see the head of this module).
        let map = unsafe { Mmap::map(&file) }.map_err(ShardError::io("map", path))?;
        let place = Place::take(map.as_ptr() as usize..map.as_ptr() as usize + map.len());
        Ok(Self(Arc::new(Mapped {
            map,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            place,
        })))
    }

    /// What happened to the file since it was mapped; `None` if it is still there and complete.
    pub(super) fn loss(&self) -> Option<String> {
        let Mapped {
            map,
            path,
            identity,
            ..
        } = &*self.0;
        match fs::metadata(path) {
            Err(error) => Some(format!("it is gone since it was opened: {error}")),
            Ok(metadata) if (metadata.dev(), metadata.ino()) != *identity => {
                Some("another file has taken its place since it was opened".to_owned())
            }
            Ok(metadata) if metadata.len() < map.len() as u64 => Some(format!(
                "it was cut short since it was opened: it had {} bytes, and now has {}",
                map.len(),
                metadata.len()
            )),
            Ok(_) => None,
        }
    }

    /// Advises the system that clips are read in random order, so reading ahead does not help.
    pub(super) fn advise_random(&self) {
        // Advice only: failure costs nothing but speed.
        let _ = self.0.map.advise(Advice::Random);
    }

    /// Asks the system to read `range` from disk, without waiting for it.
    pub(super) fn fetch(&self, range: Range<usize>) {
        let _ = self
            .0
            .map
            .advise_range(Advice::WillNeed, range.start, range.len());
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.map
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Words in a file that processes share. They survive a killed process.
#[derive(Debug)]
pub(super) struct SharedWords {
    map: MmapMut,
    words: usize,
}

impl SharedWords {
    /// Maps the file at `path`, which is made if it is not one of `words` words: all zero then.
    pub(super) fn open(path: &Path, words: usize) -> io::Result<Self> {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // An empty file cannot be mapped.
        let bytes = words.max(1) * size_of::<u64>();
        if file.metadata()?.len() != bytes as u64 {
            file.set_len(0)?;
            file.set_len(bytes as u64)?;
        }
        // SAFETY: the words are only ever used as atomic numbers, of which every value is valid;
        // the file is ours, and is not truncated while it is in use.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok(Self { map, words })
    }

    /// The words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map begins at a page, holds at least this many words, and lives as long as
        // the slice; all access to it is atomic.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}

/// Maps that the signal handler knows, at most. More can be mapped, without its protection.
const PLACES: usize = 1 << 14;

/// Start and end of each map; an empty range where there is none.
static PLACED: [[AtomicUsize; 2]; PLACES] = [const { [const { AtomicUsize::new(0) }; 2] }; PLACES];

/// Free places, from the first map on.
static FREE: OnceLock<Mutex<Vec<usize>>> = OnceLock::new();

fn free() -> &'static Mutex<Vec<usize>> {
    FREE.get_or_init(|| Mutex::new((0..PLACES).rev().collect()))
}

/// An index into [`PLACED`], which the handler reads.
#[derive(Debug)]
struct Place(usize);

impl Place {
    fn take(range: Range<usize>) -> Option<Self> {
        catch_lost_pages();
        let place = free()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()?;
        PLACED[place][0].store(range.start, Ordering::Relaxed);
        PLACED[place][1].store(range.end, Ordering::Release);
        Some(Self(place))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(Place(place)) = self.place.take() {
            PLACED[place][1].store(0, Ordering::Release);
            free()
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(place);
        }
    }
}

/// Whether `address` lies in one of our maps. Called by the handler: takes no lock, allocates
/// nothing.
fn is_mapped(address: usize) -> bool {
    PLACED.iter().any(|[start, end]| {
        let end = end.load(Ordering::Acquire);
        address < end && address >= start.load(Ordering::Relaxed)
    })
}

/// The previous action of SIGBUS.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once per process.
fn catch_lost_pages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            replace_lost_page;
        // SAFETY: an all-zero sigaction is valid; the handler has the signature that SA_SIGINFO
        // asks for, and calls only async-signal-safe functions. If the system refuses, nothing
        // changes.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut previous) == 0 {
                // Before the handler, which reads it.
                let _ = PREVIOUS.set(previous);
                libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
            }
        }
    });
}

/// Maps a page of zeros where one was lost, and lets the reader continue. Other faults are passed
/// to the previous action.
extern "C" fn replace_lost_page(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid siginfo to a handler that was set with SA_SIGINFO, and for
    // SIGBUS it holds an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if is_mapped(address) {
        let page = rustix::param::page_size();
        let start = (address / page * page) as *mut std::ffi::c_void;
        // SAFETY: the page belongs to a map of ours, which is read-only and stays: its lost bytes
        // become zeros, and are unmapped with it.
        let replaced = unsafe {
            mmap_anonymous(
                start,
                page,
                ProtFlags::READ,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        };
        if replaced.is_ok() {
            return;
        }
    }
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: this is what the system itself said. The access is tried again after this
        // handler, and then is the previous one's.
        unsafe { libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()) };
    }
}

/// The error of a shard whose file has changed.
pub(super) fn lost(path: &Path, reason: String) -> ShardError {
    ShardError::Io {
        operation: "read",
        path: path.to_owned(),
        source: io::Error::other(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_reads_as_zeros_and_says_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 100_000]).expect("written");
        let mapping = Mapping::open(&path).expect("mapped");
        assert_eq!(mapping.loss(), None);
        assert!(mapping.iter().all(|&byte| byte == 7));
        File::options()
            .write(true)
            .open(&path)
            .expect("opened")
            .set_len(5000)
            .expect("cut");
        // Several threads at a time, each of which meets the same lost pages.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    assert!(
                        mapping[..5000].iter().all(|&byte| byte == 7),
                        "what is left is what it was"
                    );
                    assert!(
                        mapping[8192..].iter().all(|&byte| byte == 0),
                        "what is lost is zeros"
                    );
                });
            }
        });
        let loss = mapping.loss().expect("cut short");
        assert!(
            loss.contains("had 100000 bytes, and now has 5000"),
            "{loss}"
        );
    }

    #[test]
    fn a_file_that_is_removed_is_missed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        fs::write(&path, [7; 10]).expect("written");
        let mapping = Mapping::open(&path).expect("mapped");
        fs::remove_file(&path).expect("removed");
        assert!(
            mapping
                .loss()
                .expect("gone")
                .contains("it is gone since it was opened")
        );
        fs::write(&path, [8; 10]).expect("written");
        assert!(mapping.loss().expect("replaced").contains("another file"));
        assert_eq!(
            mapping[..],
            [7; 10],
            "its bytes are there as long as it is mapped"
        );
    }

    #[test]
    fn places_are_given_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        fs::write(&path, [7; 10]).expect("written");
        let start = {
            let mapping = Mapping::open(&path).expect("mapped");
            assert!(
                is_mapped(mapping.as_ptr() as usize)
                    && is_mapped(mapping.as_ptr() as usize + 9)
                    && !is_mapped(mapping.as_ptr() as usize + 10)
            );
            mapping.as_ptr() as usize
        };
        assert!(!is_mapped(start));
    }
}
