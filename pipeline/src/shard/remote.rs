//! Shards in object stores: what a window needs of a page is fetched by one range request, ahead of
//! its turn, checked by its hashes like any other clip, and kept in the [`cache`].
//!
//! ```text
//! announce ──> request in flight ──> bytes ──> read: hashes ──> batch
//!    │                                             └──> cache (if it has room)
//!    └── all parts in the cache ──> mapped file ──> read
//! ```
//!
//! Bytes are kept only after they were read: a part of the cache is either right or missing. A clip
//! with a wrong hash is fetched once more before it counts as damaged.

pub mod cache;
mod unindexed;

pub(super) use self::unindexed::push_stored;

use self::cache::{CacheOptions, CachedSet};
use super::ShardError;
use super::clip::Wanted;
use super::index::{self, Index};
use super::mapping::Mapping;
use super::page::{LENGTH_BYTES, write_sizes};
use super::reader::{ClipEntry, Part, Shard};
use crate::store::{self, Contents, Pending, StoreError, Url};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use schemas::manifest::{INDEX_FILE, Manifest};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long one wait for bytes lasts before the request to stop is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// What all shards of a data set in a store share.
#[derive(Debug)]
pub(super) struct RemoteSet {
    index: Index,
    cache: Option<CachedSet>,
    /// What was announced and not read yet.
    pending: Mutex<HashMap<Key, Fetch>>,
    counters: Counters,
}

/// A stretch of a page: shard, offset of the page, first and last part.
type Key = (u32, usize, usize, usize);

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    repeated: AtomicU64,
    /// Bytes that were announced and not read yet.
    ahead: AtomicU64,
}

/// How the clips of a data set in a store were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoteCounts {
    /// Clips that were in the cache.
    pub hits: u64,
    /// Clips that were fetched.
    pub misses: u64,
    /// Of these, fetched again because of a wrong hash.
    pub repeated: u64,
    /// Whether the cache had no room for a clip.
    pub is_cache_full: bool,
}

/// A request in flight, or its result.
#[derive(Debug)]
struct Fetch {
    slot: Arc<Slot>,
    /// Stretch of parts that is fetched: those that are not in the cache.
    parts: Range<usize>,
    bytes: u64,
    /// Cancels the request when it is dropped.
    _request: Option<Pending>,
}

#[derive(Debug, Default)]
struct Slot {
    result: Mutex<Option<Result<Contents, StoreError>>>,
    ready: Condvar,
}

/// A shard in a store.
#[derive(Debug)]
pub(super) struct Remote {
    set: Arc<RemoteSet>,
    url: Url,
    number: u32,
    /// Rows of the index that are its clips.
    rows: Range<usize>,
    /// Number in the data set of its first part.
    first_part: usize,
    /// Of the first answer: later ones must be of the same object.
    etag: OnceLock<String>,
}

/// Where a page was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// In the cache.
    Cached,
    /// In the store; the parts that were fetched.
    Fetched(Range<usize>),
}

impl RemoteSet {
    /// Opens the shards of the manifest at `url`, whose index is `index`, and the cache for them.
    pub(super) fn open(
        url: &Url,
        manifest: &Manifest,
        index: Index,
        cache: Option<&CacheOptions>,
    ) -> Result<(Arc<Self>, Vec<Shard>), ShardError> {
        let clips = index.clips(manifest.shards.len())?;
        let parts = clips.iter().map(|shard| shard.parts.len()).sum();
        let cache = cache.map(|options| CachedSet::open(options, manifest, parts));
        let set = Arc::new(Self {
            index,
            cache: cache.transpose()?,
            pending: Mutex::default(),
            counters: Counters::default(),
        });
        let mut first_part = 0;
        let mut shards = Vec::with_capacity(clips.len());
        for ((number, entry), indexed) in (0..).zip(&manifest.shards).zip(clips) {
            let url = url.join(&entry.file).map_err(StoreError::from)?;
            let path = PathBuf::from(url.to_string());
            if indexed.clips.len() as u64 != entry.clips {
                return Err(ShardError::DamagedShard {
                    path,
                    reason: format!(
                        "the index has {} clips of it, the manifest says {}",
                        indexed.clips.len(),
                        entry.clips
                    ),
                });
            }
            let remote = Remote {
                set: Arc::clone(&set),
                url,
                number,
                rows: indexed.rows,
                first_part,
                etag: OnceLock::new(),
            };
            first_part += indexed.parts.len();
            let (clips, parts) = (indexed.clips, indexed.parts);
            shards.push(Shard::remote(path, remote, clips, parts, entry));
        }
        Ok((set, shards))
    }

    /// Bytes that were announced and not read yet.
    pub(super) fn bytes_ahead(&self) -> u64 {
        self.counters.ahead.load(Ordering::Relaxed)
    }

    /// How the clips were read up to now.
    pub(super) fn counts(&self) -> RemoteCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteCounts {
            hits: read(&self.counters.hits),
            misses: read(&self.counters.misses),
            repeated: read(&self.counters.repeated),
            is_cache_full: self.cache.as_ref().is_some_and(CachedSet::is_full),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Fetch>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clip of a shard in a store.
#[derive(Clone, Copy)]
pub(super) struct RemoteClip<'a> {
    pub(super) shard: &'a Remote,
    pub(super) clip: &'a ClipEntry,
    pub(super) parts: &'a [Part],
}

impl Remote {
    /// The columns of the index.
    pub(super) fn schema(&self) -> SchemaRef {
        self.set.index.schema()
    }

    /// The columns `names` of the clips.
    pub(super) fn columns(&self, names: &BTreeSet<&str>) -> Result<RecordBatch, ShardError> {
        self.set.index.columns(self.rows.clone(), names)
    }

    /// Starts a request for `range` of the object.
    fn request(&self, range: Range<u64>) -> (Arc<Slot>, Option<Pending>) {
        Slot::request(self.url.clone(), range, self.etag.get().cloned())
    }
}

impl Slot {
    /// Starts a request for `range` of an object, of which the ETag may be known. Dropping the
    /// handle cancels it.
    fn request(url: Url, range: Range<u64>, etag: Option<String>) -> (Arc<Self>, Option<Pending>) {
        let slot = Arc::<Self>::default();
        let filled = Arc::clone(&slot);
        let done = move |result| {
            *filled.lock() = Some(result);
            filled.ready.notify_all();
        };
        match store::start_read(url, range, etag, done) {
            Ok(request) => (slot, Some(request)),
            Err(error) => {
                *slot.lock() = Some(Err(error));
                (slot, None)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Result<Contents, StoreError>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the result, unless `stop` is set.
    fn wait(&self, stop: &AtomicBool) -> Result<Contents, StoreError> {
        let mut result = self.lock();
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            store::check_stop()?;
            if stop.load(Ordering::Relaxed) {
                return Err(StoreError::Interrupted);
            }
            let waited = self.ready.wait_timeout(result, POLL);
            result = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<'a> RemoteClip<'a> {
    /// Starts to fetch what `wanted` needs, if it is not in the cache.
    pub(super) fn announce(self, wanted: Wanted<'_>) {
        let Some(parts) = self.missing(wanted) else {
            return;
        };
        let set = &self.shard.set;
        let mut pending = set.pending();
        // A clip that is announced twice is fetched once, and then on demand.
        if let std::collections::hash_map::Entry::Vacant(place) = pending.entry(self.key(wanted)) {
            let range = self.object_range(&parts);
            let bytes = range.end - range.start;
            set.counters.ahead.fetch_add(bytes, Ordering::Relaxed);
            let (slot, request) = self.shard.request(range);
            place.insert(Fetch {
                slot,
                parts,
                bytes,
                _request: request,
            });
        }
    }

    /// Waits until what `wanted` needs is in the cache or in `page`, a buffer for the whole page.
    /// With `again`, all of it is fetched, whatever was announced or is in the cache.
    ///
    /// # Errors
    /// When it cannot be fetched, or `stop` is set.
    pub(super) fn find(
        self,
        wanted: Wanted<'_>,
        again: bool,
        page: &mut Vec<u8>,
        stop: &AtomicBool,
    ) -> Result<Found, ShardError> {
        let set = &self.shard.set;
        let announced = set.pending().remove(&self.key(wanted));
        if let Some(fetch) = &announced {
            set.counters.ahead.fetch_sub(fetch.bytes, Ordering::Relaxed);
        }
        let (parts, fetch) = match (again, announced) {
            (false, Some(fetch)) => (fetch.parts.clone(), Some(fetch)),
            (false, None) => match self.missing(wanted) {
                None => {
                    set.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(Found::Cached);
                }
                Some(parts) => (parts, None),
            },
            (true, _) => {
                set.counters.repeated.fetch_add(1, Ordering::Relaxed);
                (self.touched(wanted, |_| true).unwrap_or(0..1), None)
            }
        };
        let range = self.object_range(&parts);
        let contents = match fetch {
            Some(fetch) => fetch.slot.wait(stop)?,
            None => {
                let (slot, _request) = self.shard.request(range.clone());
                slot.wait(stop)?
            }
        };
        if !again {
            set.counters.misses.fetch_add(1, Ordering::Relaxed);
        }
        self.check_etag(&contents)?;
        self.assemble(wanted, &parts, &contents.bytes, page);
        Ok(Found::Fetched(parts))
    }

    /// The page in the cache, of which all parts that were found there are right.
    pub(super) fn cached(self) -> Option<&'a [u8]> {
        let map = self.mapping()?;
        map.get(self.clip.page())
    }

    /// Keeps those parts of `page` that were `fetched` and read for `wanted`, if there is room.
    pub(super) fn keep(self, wanted: Wanted<'_>, fetched: &Range<usize>, page: &[u8]) {
        let Some(cache) = &self.shard.set.cache else {
            return;
        };
        let read = |part: &usize| wanted.touches_part(self.clip, *part) && !self.is_cached(*part);
        for part in fetched.clone().filter(read) {
            let bytes = self.page_range(&(part..part + 1));
            let start = self.clip.page_offset;
            let mut pieces = vec![(start + bytes.start, &page[bytes])];
            if part > 0 {
                // The sizes of the page are read with each of its parts.
                let header = self.clip.header_bytes.min(page.len());
                pieces.push((start, &page[..header]));
            }
            if !cache.keep(self.shard.number, self.bit(part), &pieces) {
                return;
            }
        }
    }

    /// Forgets that the parts for `wanted` are in the cache: they are not what was kept.
    pub(super) fn forget(self, wanted: Wanted<'_>) {
        if let Some(cache) = &self.shard.set.cache {
            (0..self.parts.len())
                .filter(|&part| wanted.touches_part(self.clip, part))
                .for_each(|part| cache.forget(self.bit(part)));
        }
    }

    fn key(self, wanted: Wanted<'_>) -> Key {
        let parts = self.touched(wanted, |_| true).unwrap_or(0..1);
        (
            self.shard.number,
            self.clip.page_offset,
            parts.start,
            parts.end,
        )
    }

    /// The stretch of parts for `wanted` that are not in the cache; `None` if all are.
    fn missing(self, wanted: Wanted<'_>) -> Option<Range<usize>> {
        self.touched(wanted, |part| !self.is_cached(part))
    }

    /// From the first to the last of the parts for `wanted` that are `such`.
    fn touched(self, wanted: Wanted<'_>, such: impl Fn(usize) -> bool) -> Option<Range<usize>> {
        let is_one = |&part: &usize| wanted.touches_part(self.clip, part) && such(part);
        let mut parts = (0..self.parts.len()).filter(is_one);
        let first = parts.next()?;
        Some(first..parts.last().unwrap_or(first) + 1)
    }

    fn bit(self, part: usize) -> usize {
        self.shard.first_part + self.clip.first_part + part
    }

    fn is_cached(self, part: usize) -> bool {
        let cache = self.shard.set.cache.as_ref();
        cache.is_some_and(|cache| cache.has(self.bit(part)))
    }

    fn mapping(self) -> Option<&'a Mapping> {
        self.shard.set.cache.as_ref()?.mapping(self.shard.number)
    }

    /// The bytes of `parts` in the page; those of the first part begin with the page's header.
    fn page_range(self, parts: &Range<usize>) -> Range<usize> {
        let place = |part: usize| match self.parts.get(part) {
            _ if part == 0 => 0,
            Some(part) => (self.clip.header_bytes + part.start).min(self.clip.page_bytes),
            None => self.clip.page_bytes,
        };
        place(parts.start)..place(parts.end)
    }

    fn object_range(self, parts: &Range<usize>) -> Range<u64> {
        let Range { start, end } = self.page_range(parts);
        let page = self.clip.page_offset as u64;
        page + start as u64..page + end as u64
    }

    /// Puts the fetched `bytes` of `parts` into `page`, and beside them what the cache has.
    fn assemble(self, wanted: Wanted<'_>, parts: &Range<usize>, bytes: &Bytes, page: &mut Vec<u8>) {
        page.resize(self.clip.page_bytes, 0);
        if parts.start > 0 {
            // The sizes that the header begins with; nothing else of it is read.
            let body = self.clip.page_bytes - self.clip.header_bytes;
            let payload = self.clip.payload_bytes().map_or(0, |(_, most)| most);
            write_sizes(page, LENGTH_BYTES + payload, body);
        }
        page[self.page_range(parts)].copy_from_slice(bytes);
        let is_other = |part: &usize| {
            !parts.contains(part) && wanted.touches_part(self.clip, *part) && self.is_cached(*part)
        };
        for part in (0..self.parts.len()).filter(is_other) {
            if let Some(cached) = self.cached() {
                let range = self.page_range(&(part..part + 1));
                page[range.clone()].copy_from_slice(&cached[range]);
            }
        }
    }

    /// Compares the object's ETag with that of the first answer.
    fn check_etag(self, contents: &Contents) -> Result<(), ShardError> {
        if let Some(etag) = &contents.etag
            && self.shard.etag.get_or_init(|| etag.clone()) != etag
        {
            return Err(StoreError::Changed {
                url: self.shard.url.to_string(),
            }
            .into());
        }
        Ok(())
    }
}

/// The index of the data set of `manifest` at `url`. Without one, what it would hold is read from
/// each shard, at the cost of some requests for each.
pub(super) fn index_of(url: &Url, manifest: &Manifest) -> Result<Index, ShardError> {
    let place = url.join(INDEX_FILE).map_err(StoreError::from)?;
    let name = PathBuf::from(place.to_string());
    match &manifest.index {
        Some(entry) => Index::open(&name, store::read(&place)?.bytes, entry),
        None => {
            let (bytes, entry) = index::of_store(url, &manifest.shards)?;
            Index::open(&name, bytes.into(), &entry)
        }
    }
}
