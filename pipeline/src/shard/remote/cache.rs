//! What was fetched of a data set, kept on a local disk for later epochs and other processes.
//!
//! ```text
//! CACHE/CACHEDIR.TAG           marks the folder as a cache, for us and for backup programs
//! CACHE/lock                   held while a data set is opened
//! CACHE/used                   bytes in all data sets
//! CACHE/0123456789abcdef/      a data set, named by the hashes of its shards
//!     parts                    a bit for each part of each clip that is here
//!     lock                     shared by the processes that use it
//!     00000, 00001, ...        the shards: sparse files, with holes for what is not here
//! ```
//!
//! A bit is set after the part was read, checked and written; so a process that is killed leaves
//! holes, and never wrong bytes. A hole is not to be told from zeros, so only the bits count.
//! Whatever is damaged afterwards has the wrong hash, and is fetched again.
//!
//! Nothing is removed while it is in use: with a new random order in each epoch, keeping what came
//! first has a hit rate of cache / data, and removing the oldest a much lower one. When there is no
//! room left, clips are passed through. Data sets that no process uses are removed, the oldest
//! first, when another one needs the room.

use super::super::ShardError;
use super::super::mapping::{Mapping, SharedWords};
use rustix::fs::{FlockOperation, flock, statvfs};
use schemas::manifest::Manifest;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use xxhash_rust::xxh3::xxh3_64;

/// Marks a folder as a cache (bford.info/cachedir).
const TAG: &str = "CACHEDIR.TAG";

/// Its contents: the signature of all caches, and a line of ours.
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                        # Clips of data sets in object stores. It may be removed at any time.\n";

/// Share of the free space of the disk that is used if no limit is given.
const FREE_SHARE: f64 = 0.9;

/// Where to keep what is fetched from stores, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder, on a local disk.
    pub dir: PathBuf,
    /// Bytes of all data sets in it, at most; none is nine tenths of the space that is free.
    pub bytes: Option<u64>,
}

/// A data set in a cache.
#[derive(Debug)]
pub(super) struct CachedSet {
    dir: PathBuf,
    parts: SharedWords,
    /// Bytes in the whole cache.
    used: SharedWords,
    limit: u64,
    shards: Vec<CachedShard>,
    /// Whether there was no room for a part.
    is_full: AtomicBool,
    /// Locked for as long as the data set is in use.
    _lock: File,
}

#[derive(Debug)]
struct CachedShard {
    bytes: u64,
    map: OnceLock<Option<Mapping>>,
}

impl CachedSet {
    /// Opens the cache of the data set of `manifest`, whose clips have `parts` parts.
    ///
    /// # Errors
    /// When the folder holds something else, or cannot be written.
    pub(super) fn open(
        options: &CacheOptions,
        manifest: &Manifest,
        parts: usize,
    ) -> Result<Self, ShardError> {
        let cannot = |error: io::Error| ShardError::Cache {
            dir: options.dir.clone(),
            reason: error.to_string(),
        };
        mark(&options.dir).map_err(cannot)?;
        // One process at a time looks at the whole cache.
        let whole = lock(&options.dir.join("lock"), FlockOperation::LockExclusive);
        let whole = whole.map_err(cannot)?;
        let set = Self::open_locked(options, manifest, parts).map_err(cannot)?;
        drop(whole);
        Ok(set)
    }

    fn open_locked(options: &CacheOptions, manifest: &Manifest, parts: usize) -> io::Result<Self> {
        let dir = options.dir.join(identity(manifest));
        fs::create_dir_all(&dir)?;
        let lock = lock(&dir.join("lock"), FlockOperation::LockShared)?;
        // The last use, by which the oldest data set is found.
        lock.set_modified(SystemTime::now())?;
        let words = parts.div_ceil(64);
        let path = dir.join("parts");
        let bits = SharedWords::open(&path, words)?;
        let used = SharedWords::open(&options.dir.join("used"), 1)?;
        let data = pixel_bytes(manifest);
        let mut all = disk_bytes(&options.dir)?;
        let limit = match options.bytes {
            Some(limit) => limit,
            None => {
                let disk = statvfs(&options.dir)?;
                let free = disk.f_bavail * disk.f_frsize;
                all + (free as f64 * FREE_SHARE) as u64
            }
        };
        let missing = data.saturating_sub(disk_bytes(&dir)?);
        all -= remove_unused(&options.dir, &dir, (all + missing).saturating_sub(limit))?;
        used.words()[0].store(all, Ordering::Relaxed);
        let shards = manifest.shards.iter().map(|entry| CachedShard {
            bytes: entry.bytes,
            map: OnceLock::new(),
        });
        Ok(Self {
            shards: shards.collect(),
            dir,
            parts: bits,
            used,
            limit,
            is_full: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Whether part `part` is here.
    pub(super) fn has(&self, part: usize) -> bool {
        let word = self.parts.words()[part / 64].load(Ordering::Acquire);
        word >> (part % 64) & 1 == 1
    }

    /// Forgets that part `part` is here.
    pub(super) fn forget(&self, part: usize) {
        self.parts.words()[part / 64].fetch_and(!(1 << (part % 64)), Ordering::AcqRel);
    }

    /// The file of a shard; `None` if it is missing or damaged.
    pub(super) fn mapping(&self, shard: u32) -> Option<&Mapping> {
        let shard_file = &self.shards[shard as usize];
        let open = || {
            let map = Mapping::open(&self.path(shard)).ok()?;
            map.advise_random();
            (map.len() as u64 == shard_file.bytes).then_some(map)
        };
        shard_file.map.get_or_init(open).as_ref()
    }

    /// Keeps part `part` of shard `shard`: its `pieces`, offsets in the shard and bytes. Returns
    /// whether there was room.
    pub(super) fn keep(&self, shard: u32, part: usize, pieces: &[(usize, &[u8])]) -> bool {
        if self.is_full.load(Ordering::Relaxed) {
            return false;
        }
        let bytes: u64 = pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
        let used = &self.used.words()[0];
        let fits = used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit;
        // A full disk is a cache without room, too.
        if fits && self.write(shard, pieces).is_ok() {
            self.parts.words()[part / 64].fetch_or(1 << (part % 64), Ordering::AcqRel);
            return true;
        }
        used.fetch_sub(bytes, Ordering::Relaxed);
        self.is_full.store(true, Ordering::Relaxed);
        false
    }

    /// Whether there was no room for a part.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn write(&self, shard: u32, pieces: &[(usize, &[u8])]) -> io::Result<()> {
        let mut options = File::options();
        let path = self.path(shard);
        // Opened for each write: there can be more shards than a process may have open files.
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let bytes = self.shards[shard as usize].bytes;
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
        }
        pieces
            .iter()
            .try_for_each(|&(offset, piece)| file.write_all_at(piece, offset as u64))
    }

    fn path(&self, shard: u32) -> PathBuf {
        self.dir.join(format!("{shard:05}"))
    }
}

/// A name for the shards of a manifest, wherever they are stored.
fn identity(manifest: &Manifest) -> String {
    let shards = manifest.shards.iter();
    let hashes: Vec<_> = shards
        .map(|shard| {
            (
                shard.bytes,
                &shard.index_xxh3,
                &shard.pixels_xxh3,
                &shard.rows,
            )
        })
        .collect();
    let json = serde_json::to_vec(&hashes).expect("numbers and strings");
    format!("{:016x}", xxh3_64(&json))
}

/// Bytes of the frames of all shards.
fn pixel_bytes(manifest: &Manifest) -> u64 {
    let ranges = manifest.shards.iter().flat_map(|shard| &shard.pixels);
    ranges.map(|&(_, bytes)| bytes).sum()
}

/// Makes `dir` a cache, if it is empty or new.
fn mark(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let tag = dir.join(TAG);
    let is_empty = fs::read_dir(dir)?.next().is_none();
    // After the look at the folder: another process may be making it, with its tag first.
    if tag.exists() {
        return Ok(());
    }
    if !is_empty {
        return Err(io::Error::other(format!(
            "it holds files that are no cache (it has no {TAG}); give an empty or a new folder"
        )));
    }
    File::create(&tag)?.write_all(TAG_TEXT.as_bytes())
}

fn lock(path: &Path, operation: FlockOperation) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    flock(&file, operation)?;
    Ok(file)
}

/// Bytes on disk below `dir`.
fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            // Blocks of 512 bytes, whatever the file system's.
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

/// Removes data sets other than `own` that no process uses, the oldest first, until `wanted` bytes
/// are free. Returns the bytes that were freed.
fn remove_unused(cache: &Path, own: &Path, wanted: u64) -> io::Result<u64> {
    let mut others = Vec::new();
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if path.is_dir() && path != own {
            let used = fs::metadata(path.join("lock")).and_then(|lock| lock.modified());
            others.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    others.sort();
    let mut freed = 0;
    for (_, dir) in others {
        if freed >= wanted {
            break;
        }
        // Held by the processes that use it.
        if let Ok(_lock) = lock(&dir.join("lock"), FlockOperation::NonBlockingLockExclusive) {
            freed += disk_bytes(&dir)?;
            fs::remove_dir_all(&dir)?;
        }
    }
    Ok(freed)
}
