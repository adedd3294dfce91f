//! The shard format: [`writer`] and [`reader`] side by side, with the page codec between them.
//!
//! A shard is a Parquet file with one clip per row ([`schemas::shard`]). Clips are compressed where
//! they are made, into ready pages ([`page::encode`]), so the one thread that writes a shard only
//! appends bytes. A window of a clip is read from the parts of its page that it touches: slices of
//! the mapped file, decompressed one by one ([`clip::ClipReader`]). Of shards in an object store, the
//! parts are fetched and kept in a cache (`remote`), and all shards are known from one [`index`].
//! [`synthetic`]: shards to try things out with.

pub mod check;
pub mod clip;
mod delta;
pub mod index;
mod mapping;
pub mod page;
pub mod payload;
pub mod reader;
mod remote;
mod rows;
mod set;
pub mod synthetic;
pub mod writer;

use crate::store::StoreError;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

pub use clip::ClipReader;
pub use page::EncodedClip;
pub use reader::{ClipEntry, Shard};
pub use remote::RemoteCounts;
pub use remote::cache::CacheOptions;
pub use set::{ShardSet, read_manifest};
pub use writer::ShardSetWriter;

/// What can go wrong with shards.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The Parquet crate refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Parquet {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: parquet::errors::ParquetError,
    },
    /// The file is valid Parquet, but not a shard that this version reads.
    #[error("{} is not a shard that this version reads: {reason}", path.display())]
    NotAShard {
        /// Which file.
        path: PathBuf,
        /// What is missing or differs.
        reason: String,
    },
    /// The shard's size, or a byte outside the pixels, is not what was written.
    #[error("{} is damaged: {reason}; restore it, or build these shards again", path.display())]
    DamagedShard {
        /// Which shard.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The bytes of one clip are not what was written.
    #[error("clip {row} of {} is damaged: {reason}; rebuild this shard", path.display())]
    Damaged {
        /// Which shard.
        path: PathBuf,
        /// Which row of it.
        row: usize,
        /// What differs.
        reason: String,
    },
    /// The payload of one clip is intact, but does not decode.
    #[error("clip {row} of {} cannot be decoded: {source}", path.display())]
    Undecodable {
        /// Which shard.
        path: PathBuf,
        /// Which row of it.
        row: usize,
        /// Why not.
        source: crate::video::VideoError,
    },
    /// The folder holds no build.
    #[error("{} holds no {}: give a folder of shards that `shardtool build` has \
             made", path.display(), schemas::manifest::MANIFEST_FILE)]
    NoManifest {
        /// Which folder.
        path: PathBuf,
    },
    /// The manifest cannot be read.
    #[error("{} is not a manifest that this version reads: {reason}", path.display())]
    BadManifest {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder for what is fetched from stores cannot be used.
    #[error("cannot use {} as a cache: {reason}", dir.display())]
    Cache {
        /// Which folder.
        dir: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A clip is too large for one Parquet page.
    #[error(
        "a clip of {bytes} bytes does not fit into one Parquet page (2 GiB); use fewer frames or a \
         smaller short side"
    )]
    TooLarge {
        /// Bytes of the clip.
        bytes: usize,
    },
}

impl ShardError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    fn parquet(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(parquet::errors::ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet {
            operation,
            path,
            source,
        }
    }
}

/// XXH3-64 in hexadecimal of all bytes of a shard but `pixels`, given as offsets and lengths in
/// order; `None` if these do not lie in the file.
fn index_xxh3(file: &[u8], pixels: &[(u64, u64)]) -> Option<String> {
    let mut hash = Xxh3::new();
    let mut rest = file;
    let mut at = 0;
    for &(offset, bytes) in pixels {
        let index;
        (index, rest) = rest.split_at_checked(usize::try_from(offset.checked_sub(at)?).ok()?)?;
        hash.update(index);
        rest = rest.get(usize::try_from(bytes).ok()?..)?;
        at = offset.checked_add(bytes)?;
    }
    hash.update(rest);
    Some(hex(&hash))
}

/// XXH3-64 in hexadecimal of the `pixels` of a shard, given as offsets and lengths in order; `None`
/// if these do not lie in the file.
fn pixels_xxh3(file: &[u8], pixels: &[(u64, u64)]) -> Option<String> {
    let mut hash = Xxh3::new();
    for &(offset, bytes) in pixels {
        let from = file.get(usize::try_from(offset).ok()?..)?;
        hash.update(from.get(..usize::try_from(bytes).ok()?)?);
    }
    Some(hex(&hash))
}

fn hex(hash: &Xxh3) -> String {
    format!("{:016x}", hash.digest())
}
