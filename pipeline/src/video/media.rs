//! Videos that are not a file of their own: members of tar archives, and folders of pictures. The
//! path of a member is that of its archive, and its own path below it.

use super::discover::numbered_pictures;
use super::lock;
use super::sniff::{Content, SNIFF_BYTES, sniff_bytes};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Members of at most this many bytes are unpacked in memory, others to a file in the folder of
/// temporary files.
const IN_MEMORY_BYTES: u64 = 256 << 20;

/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// A member of a tar archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarMember {
    /// Path below the archive.
    pub path: PathBuf,
    /// Offset of its bytes in the archive.
    pub offset: u64,
    /// Number of its bytes.
    pub bytes: u64,
}

/// Where the bytes of a video are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// In a file of its own.
    File,
    /// In a tar archive.
    Member {
        /// The archive.
        archive: PathBuf,
        /// The member.
        member: TarMember,
    },
    /// In the pictures of a folder, in order.
    Pictures(Vec<PathBuf>),
}

/// The regular files in a tar archive.
#[derive(Debug, Clone, Default)]
pub struct TarListing {
    /// The files, in the archive's order.
    pub members: Arc<[TarMember]>,
    /// Why there are no more, if the archive is damaged after them.
    pub error: Option<String>,
}

/// The archive that was listed last, with its size and time: its members are built one after
/// another.
static LAST_LISTED: Mutex<Option<Listed>> = Mutex::new(None);

/// An archive, its size and time, and its files.
type Listed = (PathBuf, (u64, i64), TarListing);

/// Lists the regular files in the tar archive at `path`.
///
/// # Errors
/// When the archive cannot be read.
pub fn tar_members(path: &Path) -> io::Result<TarListing> {
    let identity = size_and_time(path)?;
    if let Some((last, known, listing)) = &*lock(&LAST_LISTED)
        && (last.as_path(), *known) == (path, identity)
    {
        return Ok(listing.clone());
    }
    let mut archive = tar::Archive::new(File::open(path)?);
    let mut members = Vec::new();
    let mut read = || {
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let member = TarMember {
                    path: entry.path()?.into_owned(),
                    offset: entry.raw_file_position(),
                    bytes: entry.size(),
                };
                // The last one may be cut short.
                if member.offset + member.bytes > identity.0 {
                    return Err(io::Error::other("its last file is incomplete"));
                }
                members.push(member);
            }
        }
        io::Result::Ok(())
    };
    let error = read().err().map(|error| error.to_string());
    let listing = TarListing {
        members: members.into(),
        error,
    };
    *lock(&LAST_LISTED) = Some((path.to_owned(), identity, listing.clone()));
    Ok(listing)
}

/// Returns the size of a file, and the time of its last modification in nanoseconds since 1970.
fn size_and_time(path: &Path) -> io::Result<(u64, i64)> {
    let metadata = fs::metadata(path)?;
    let time = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    Ok((metadata.len(), time))
}

impl Media {
    /// Finds out where the bytes of the video at `path` are.
    ///
    /// # Errors
    /// When there is nothing at `path`, or the archive that holds it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => numbered_pictures(path).map(Self::Pictures),
            Ok(_) => Ok(Self::File),
            // An ancestor may be an archive.
            Err(error) => {
                let archive = path.ancestors().skip(1).find(|ancestor| ancestor.is_file());
                let Some(archive) = archive else {
                    return Err(error);
                };
                let inner = path.strip_prefix(archive).unwrap_or(path);
                let listing = tar_members(archive)?;
                let mut members = listing.members.iter();
                let member = members
                    .find(|member| normal(&member.path) == inner)
                    .cloned();
                let missing = || io::Error::new(io::ErrorKind::NotFound, "no such member");
                Ok(Self::Member {
                    archive: archive.to_owned(),
                    member: member.ok_or_else(missing)?,
                })
            }
        }
    }

    /// Returns the number of bytes, and the time of the last modification in nanoseconds since
    /// 1970, of the video at `path`: those of all pictures of a folder, and of a member those that
    /// its archive has.
    ///
    /// # Errors
    /// When there is nothing there.
    pub fn size_and_time(&self, path: &Path) -> io::Result<(u64, i64)> {
        match self {
            Self::File => size_and_time(path),
            Self::Member { archive, member } => {
                size_and_time(archive).map(|(_, time)| (member.bytes, time))
            }
            Self::Pictures(files) => {
                let mut all = (0, 0);
                for file in files {
                    let (bytes, time) = size_and_time(file)?;
                    all = (all.0 + bytes, all.1.max(time));
                }
                Ok(all)
            }
        }
    }

    /// Reads the bytes that identify the video at `path`, block by block: of a folder, the names
    /// and the bytes of its pictures.
    ///
    /// # Errors
    /// When a file cannot be read, and the errors of `take`.
    pub fn read(
        &self,
        path: &Path,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::File => blocks(File::open(path)?, &mut take),
            Self::Member { archive, member } => blocks(member.open(archive)?, &mut take),
            Self::Pictures(files) => {
                for file in files {
                    let name = file.file_name().unwrap_or_default();
                    take(name.as_encoded_bytes())?;
                    take(&[0])?;
                    blocks(File::open(file)?, &mut take)?;
                }
                Ok(())
            }
        }
    }
}

/// A video that can be opened by its path. A member of an archive is unpacked for as long as this
/// exists.
#[derive(Debug)]
pub struct LocalVideo {
    path: PathBuf,
    /// Keeps the unpacked bytes.
    _unpacked: Option<File>,
}

impl LocalVideo {
    /// Makes the video at `path`, whose bytes are in `media`, available at a path of its own.
    ///
    /// # Errors
    /// When a member cannot be read, or there is no room for it.
    pub fn open(path: &Path, media: &Media) -> io::Result<Self> {
        let Media::Member { archive, member } = media else {
            return Ok(Self {
                path: path.to_owned(),
                _unpacked: None,
            });
        };
        let mut unpacked = if member.bytes <= IN_MEMORY_BYTES {
            File::from(memfd_create("member", MemfdFlags::CLOEXEC)?)
        } else {
            tempfile::tempfile()?
        };
        blocks(member.open(archive)?, &mut |block| {
            unpacked.write_all(block)
        })?;
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}", unpacked.as_raw_fd())),
            _unpacked: Some(unpacked),
        })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl TarMember {
    /// Opens the bytes of the member of the archive at `archive`.
    fn open(&self, archive: &Path) -> io::Result<impl Read + use<>> {
        let mut file = File::open(archive)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.bytes))
    }

    /// Reads all bytes of the member of the archive at `archive`.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn read(&self, archive: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(archive)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Finds the type of the member of the archive at `archive` by its first bytes.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn sniff(&self, archive: &Path) -> io::Result<Content> {
        let mut start = Vec::new();
        self.open(archive)?
            .take(SNIFF_BYTES)
            .read_to_end(&mut start)?;
        Ok(sniff_bytes(&start))
    }
}

fn blocks(mut file: impl Read, take: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(bytes) => take(&block[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The path without `.` at its start, which many archives have.
pub(super) fn normal(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}
