//! Finds the videos among the inputs, in a fixed order.

use crate::video::{Content, sniff};
use schemas::manifest::Rejected;
use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Extensions of video files. A file with one of them that is no video by content is rejected by
/// name; other files are only counted.
const VIDEO_EXTENSIONS: &[&str] = &[
    "3gp", "avi", "flv", "h264", "hevc", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts",
    "mxf", "ogv", "ts", "vob", "webm", "wmv",
];

/// A file that is video by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFile {
    /// Path by which it can be opened: the input, and the path below it.
    pub path: PathBuf,
    /// Path below the input, if that is a folder; the file name if the input is a file.
    pub relative: PathBuf,
}

/// The files found in the inputs.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Videos in reading order.
    pub videos: Vec<VideoFile>,
    /// Files that should have been videos.
    pub rejected: Vec<Rejected>,
    /// Number of files in folders that are no video by content nor by name.
    pub not_video: u64,
}

/// Searches `inputs`: files as given, folders recursively, names in byte order. A file that is
/// reached twice counts once.
///
/// # Panics
/// When GStreamer was not started ([`super::init`]).
///
/// ```
/// use pipeline::video::discover::discover;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let folder = dir.path();
/// // Content is detected by GStreamer.
/// pipeline::video::init()?;
/// std::fs::write(folder.join("clip.avi"), b"RIFF\x10\0\0\0AVI LIST")?;
/// std::fs::write(folder.join("notes.txt"), "no video")?;
/// let found = discover(&[folder.to_owned()]);
/// assert_eq!(found.videos[0].relative.to_str(), Some("clip.avi"));
/// assert_eq!((found.videos.len(), found.not_video), (1, 1));
/// # Ok(()) }
/// ```
pub fn discover(inputs: &[PathBuf]) -> Discovered {
    let mut search = Search::default();
    for input in inputs {
        if input.is_dir() {
            search.folder(input, input);
        } else {
            let name = input
                .file_name()
                .map_or_else(|| input.clone(), PathBuf::from);
            search.file(input, name, true);
        }
    }
    search.found
}

#[derive(Default)]
struct Search {
    found: Discovered,
    /// Real paths that were visited: links may form loops, and inputs may overlap.
    visited: HashSet<PathBuf>,
}

impl Search {
    fn folder(&mut self, folder: &Path, root: &Path) {
        match fs::canonicalize(folder) {
            Ok(real) => {
                if !self.visited.insert(real) {
                    return;
                }
            }
            Err(error) => return self.reject(folder, io_reason(&error)),
        }
        let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.reject(folder, io_reason(&error)),
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self.folder(&path, root);
            } else {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                self.file(&path, relative, false);
            }
        }
    }

    /// `named`: the user named this file, so it must be a video.
    fn file(&mut self, path: &Path, relative: PathBuf, named: bool) {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(_) if path.is_symlink() => {
                return self.reject(path, "the link leads nowhere".to_owned());
            }
            Err(error) => return self.reject(path, io_reason(&error)),
        };
        if !self.visited.insert(real) {
            return;
        }
        let should_be_video = named || has_video_extension(path);
        // Reading a pipe or a device would block forever.
        let reason = match fs::metadata(path) {
            Err(error) => Some(io_reason(&error)),
            Ok(metadata) if !metadata.is_file() => Some("not a regular file".to_owned()),
            Ok(_) => match sniff(path) {
                Err(error) => Some(io_reason(&error)),
                Ok(Content::Video(_)) => None,
                Ok(Content::Other(_) | Content::Empty) if !should_be_video => {
                    self.found.not_video += 1;
                    return;
                }
                Ok(content) => content.not_video_reason(),
            },
        };
        match reason {
            Some(reason) => self.reject(path, reason),
            None => self.found.videos.push(VideoFile {
                path: path.to_owned(),
                relative,
            }),
        }
    }

    fn reject(&mut self, path: &Path, reason: String) {
        self.found
            .rejected
            .push(Rejected::file(path_name(path), reason));
    }
}

/// Returns the name under which a path is stored and compared. Different paths have different
/// names: UTF-8 is kept, a backslash is doubled, and any other byte becomes `\xNN`.
pub fn path_name(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(name, r"\x{byte:02x}");
        }
    }
    name
}

/// An input that is a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The URL is of another machine.
    #[error(
        "{0} is a URL: reading from object stores is not supported yet; copy or mount it and give \
         a \
         local path"
    )]
    Remote(String),
    /// The URL is of a local file.
    #[error("{url} is a URL: give the local path {path}")]
    File {
        /// The URL.
        url: String,
        /// The path in it.
        path: String,
    },
}

/// Returns `path` unless it is a URL (`s3://bucket/x`), which would otherwise be taken for a local
/// folder.
///
/// # Errors
/// When `path` begins with a scheme and `://`.
pub fn local_path(path: PathBuf) -> Result<PathBuf, UrlError> {
    let url = path.to_string_lossy();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(path);
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return Ok(path);
    }
    Err(match rest.find('/') {
        // The part before the path is a host: empty, or this one.
        Some(host) if scheme.eq_ignore_ascii_case("file") => UrlError::File {
            path: rest[host..].to_owned(),
            url: url.into_owned(),
        },
        _ => UrlError::Remote(url.into_owned()),
    })
}

/// Whether the path has the extension of a video file.
pub fn has_video_extension(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| VIDEO_EXTENSIONS.contains(&extension.as_str()))
}

/// Returns the message of `error`, for common errors without the operating system's number.
pub fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;

    fn name(bytes: &[u8]) -> String {
        path_name(Path::new(OsStr::from_bytes(bytes)))
    }

    /// The bytes that a name stands for.
    fn bytes_of(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = name;
        while let Some((before, escape)) = rest.split_once('\\') {
            bytes.extend(before.bytes());
            let length = if escape.starts_with('x') { 3 } else { 1 };
            let hex = &escape[1..length];
            bytes.push(if hex.is_empty() {
                b'\\'
            } else {
                u8::from_str_radix(hex, 16).expect("hex")
            });
            rest = &escape[length..];
        }
        bytes.extend(rest.bytes());
        bytes
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(name("vidéos/a b.mp4".as_bytes()), "vidéos/a b.mp4");
        assert_eq!(name(b"a\xff.mp4"), r"a\xff.mp4");
        assert_eq!(name(br"a\xff.mp4"), r"a\\xff.mp4");
        assert_eq!(name(b"\xe2\x82|\xe2\x82\xac"), r"\xe2\x82|€");
    }

    proptest! {
        #[test]
        fn names_are_of_one_path(bytes in "[xf0\\\\é/]{0,8}", at in 0_usize..8, byte in 128_u8..) {
            let mut bytes = bytes.into_bytes();
            bytes.insert(at.min(bytes.len()), byte);
            prop_assert_eq!(bytes_of(&name(&bytes)), bytes);
        }
    }

    #[test]
    fn urls_are_rejected() {
        let parsed = |path: &str| local_path(path.into()).map_err(|error| error.to_string());
        for url in [
            "s3://bucket/x",
            "gs://b",
            "az://c/d",
            "http://h/v.mp4",
            "HTTPS://h",
            "file://x",
        ] {
            let error = parsed(url).expect_err("a URL");
            assert!(
                error.starts_with(&format!("{url} is a URL: ")) && error.contains("local path")
            );
        }
        assert_eq!(
            parsed("file:///data/a.mp4").expect_err("a URL"),
            "file:///data/a.mp4 is a URL: give the local path /data/a.mp4"
        );
        for path in [
            "videos", "./s3://x", "/a://b", "1a://b", "://b", "a:b", "s3:/x",
        ] {
            assert_eq!(parsed(path), Ok(path.into()));
        }
    }
}
