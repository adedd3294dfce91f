//! Data sets: the manifest of a folder, and its shards as one list of clips.

use super::remote::cache::CacheOptions;
use super::remote::{RemoteCounts, RemoteSet, index_of};
use super::{Shard, ShardError};
use crate::store::{self, StoreError, Url};
use schemas::manifest::{MANIFEST_FILE, Manifest};
use schemas::shard::{FORMAT_VERSION, OLDEST_FORMAT_VERSION};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All shards of a finished build, as one list of clips.
///
/// ```
/// use pipeline::shard::ShardSet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # pipeline::shard::synthetic::write(dir.path(), 40)?;
/// # let dir = dir.path();
/// let data = ShardSet::open(dir)?;
/// println!("{} clips in {} shards", data.len(), data.shards().len());
/// let (shard, row) = data.locate(data.len() - 1);
/// let clip = shard.clips()[row];
/// assert_eq!((clip.frames, clip.size.width, clip.size.height), (8, 64, 48));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ShardSet {
    dir: PathBuf,
    manifest: Box<Manifest>,
    shards: Vec<Shard>,
    /// Number of the first clip of each shard.
    starts: Vec<usize>,
    clips: usize,
    /// What the shards share, if they are in a store.
    remote: Option<Arc<RemoteSet>>,
}

impl ShardSet {
    /// Opens the build in `dir`, a folder, or the URL of one in a store.
    ///
    /// # Errors
    /// When there is no manifest, or a shard that it names is missing, damaged or has a different
    /// number of clips. Shards in a store are looked at only when clips of them are read.
    pub fn open(dir: &Path) -> Result<Self, ShardError> {
        Self::open_with(dir, None)
    }

    /// Opens the build in `dir`, and keeps what is fetched of it in `cache`, if it is in a store.
    ///
    /// # Errors
    /// As [`Self::open`], and when the cache cannot be used.
    pub fn open_with(dir: &Path, cache: Option<&CacheOptions>) -> Result<Self, ShardError> {
        Self::open_as(dir, read_manifest(dir)?, cache)
    }

    /// Opens the build in `dir`, whose `manifest` was read before.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open_as(
        dir: &Path,
        manifest: Manifest,
        cache: Option<&CacheOptions>,
    ) -> Result<Self, ShardError> {
        let (shards, remote) = match Url::of(dir) {
            None => {
                let shards = manifest.shards.iter();
                let open = |entry| Shard::open_as_listed(dir, entry);
                (shards.map(open).collect::<Result<_, _>>()?, None)
            }
            Some(url) => {
                let url = url.map_err(StoreError::from)?;
                let index = index_of(&url, &manifest)?;
                let (remote, shards) = RemoteSet::open(&url, &manifest, index, cache)?;
                (shards, Some(remote))
            }
        };
        let starts = shards.iter().scan(0, |clips, shard: &Shard| {
            let start = *clips;
            *clips += shard.clips().len();
            Some(start)
        });
        Ok(Self {
            dir: dir.to_owned(),
            starts: starts.collect(),
            clips: shards.iter().map(|shard| shard.clips().len()).sum(),
            manifest: Box::new(manifest),
            shards,
            remote,
        })
    }

    /// What is worth knowing about reading this data set, if anything.
    pub fn note(&self) -> Option<String> {
        let is_slow = self.is_remote() && self.manifest.index.is_none();
        is_slow.then(|| {
            let (dir, shards) = (self.dir.display(), self.shards.len());
            format!(
                "note: {dir} has no index: opening it took some requests for each of its {shards} \
                 shards; `shardtool index {dir}` writes one"
            )
        })
    }

    /// Whether the shards are in a store.
    pub const fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Bytes that were announced by [`Shard::fetch`] and not read yet; 0 for local shards.
    pub fn bytes_ahead(&self) -> u64 {
        self.remote
            .as_ref()
            .map_or(0, |remote| remote.bytes_ahead())
    }

    /// How clips were read from the store up to now; none for local shards.
    pub fn remote_counts(&self) -> Option<RemoteCounts> {
        self.remote.as_ref().map(|remote| remote.counts())
    }

    /// The folder, or its URL.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The build's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The shards in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of clips in all shards.
    pub fn len(&self) -> usize {
        self.clips
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.clips == 0
    }

    /// The shard of clip `index`, and its row there.
    ///
    /// # Panics
    /// When `index` is not less than [`Self::len`].
    pub fn locate(&self, index: usize) -> (&Shard, usize) {
        assert!(index < self.clips, "clip {index} of {}", self.clips);
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.shards[shard], index - self.starts[shard])
    }
}

/// The one field of a manifest that all versions have.
#[derive(serde::Deserialize)]
struct Version {
    format_version: u32,
}

/// Reads the manifest in `dir`, a folder, or the URL of one in a store.
///
/// # Errors
/// When there is none, or this version does not read it.
pub fn read_manifest(dir: &Path) -> Result<Manifest, ShardError> {
    let no_manifest = || ShardError::NoManifest {
        path: dir.to_owned(),
    };
    let path = dir.join(MANIFEST_FILE);
    let text = match Url::of(dir) {
        None => match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(no_manifest()),
            read => read.map_err(ShardError::io("read", &path))?,
        },
        Some(url) => {
            let url = url.and_then(|url| url.join(MANIFEST_FILE));
            match store::read(&url.map_err(StoreError::from)?) {
                Err(StoreError::NotFound { .. }) => return Err(no_manifest()),
                read => read?.bytes.into(),
            }
        }
    };
    let bad = |reason: String| ShardError::BadManifest {
        path: path.clone(),
        reason,
    };
    // Its version first: other versions may have other fields.
    let Version { format_version } =
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if !is_read(format_version) {
        return Err(bad(other_version(&format_version.to_string())));
    }
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

pub(super) fn is_read(version: u32) -> bool {
    (OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&version)
}

pub(super) fn other_version(version: &str) -> String {
    format!(
        "it has format version {version}, this program reads {OLDEST_FORMAT_VERSION} to \
         {FORMAT_VERSION}"
    )
}
