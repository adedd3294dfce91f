//! Finds the videos among the inputs, in a fixed order.

use super::media::{Media, TarListing, normal, tar_members};
use crate::store::{self, ObjectMeta, StoreError, Url};
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
pub const VIDEO_EXTENSIONS: &[&str] = &[
    "3gp", "avi", "flv", "h264", "hevc", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts",
    "mxf", "ogv", "ts", "vob", "webm", "wmv", "y4m",
];

/// Extensions of the pictures that a folder of frames may hold.
const PICTURE_EXTENSIONS: &[&str] = &["jpeg", "jpg", "png"];

/// A video: a file, a member of a tar archive, or a folder of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFile {
    /// Path by which it can be opened ([`super::media::Media::of`]): the input, and the path below
    /// it.
    pub path: PathBuf,
    /// Path below the input, if that is a folder; the file name if the input is a file.
    pub relative: PathBuf,
    /// The object, if it is in a store; its path is then a URL.
    pub object: Option<ObjectMeta>,
}

impl VideoFile {
    /// The video at `path` of a local file system.
    pub const fn local(path: PathBuf, relative: PathBuf) -> Self {
        Self {
            path,
            relative,
            object: None,
        }
    }
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
    /// Number of videos that are folders of pictures.
    pub picture_folders: u64,
}

/// Searches `inputs`: files as given, folders recursively, names in byte order. A file that is
/// reached twice counts once.
///
/// Inputs may be URLs of objects, or of prefixes in stores; there, videos are recognised by the
/// extensions of their names, and files whose content is no video are found out when they are read.
///
/// # Errors
/// When a store cannot be listed.
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
/// let found = discover(&[folder.to_owned()])?;
/// assert_eq!(found.videos[0].relative.to_str(), Some("clip.avi"));
/// assert_eq!((found.videos.len(), found.not_video), (1, 1));
/// # Ok(()) }
/// ```
pub fn discover(inputs: &[PathBuf]) -> Result<Discovered, StoreError> {
    search(inputs, false)
}

/// Searches `inputs` as [`discover`], but opens no file: all files are returned, videos or not, and
/// the members of archives whose names end in `.tar`. Use [`refusal`] to find out which are not.
///
/// # Errors
/// As [`discover`].
pub fn files(inputs: &[PathBuf]) -> Result<Discovered, StoreError> {
    search(inputs, true)
}

/// Returns why the file at `path`, or member of an archive, is not a video; none if it is.
pub fn refusal(path: &Path) -> Option<String> {
    let content = match Media::of(path) {
        Ok(Media::File) => sniff(path),
        Ok(Media::Member { archive, member }) => member.sniff(&archive),
        Ok(Media::Pictures(_)) => return None,
        Err(error) => Err(error),
    };
    match content {
        Ok(content) => content.not_video_reason(),
        Err(error) => Some(io_reason(&error)),
    }
}

fn search(inputs: &[PathBuf], by_name: bool) -> Result<Discovered, StoreError> {
    let mut search = Search {
        by_name,
        ..Search::default()
    };
    for input in inputs {
        if let Some(url) = Url::of(input) {
            search.store(&url?)?;
        } else if input.is_dir() {
            search.folder(input, input);
        } else {
            let name = input
                .file_name()
                .map_or_else(|| input.clone(), PathBuf::from);
            search.file(input, name, true);
        }
    }
    Ok(search.found)
}

#[derive(Default)]
struct Search {
    found: Discovered,
    /// Whether files are not opened.
    by_name: bool,
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
        if self.pictures(folder, root, &paths) {
            paths.retain(|path| picture_number(path).is_none());
        }
        for path in paths {
            if path.is_dir() {
                self.folder(&path, root);
            } else {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                self.file(&path, relative, false);
            }
        }
    }

    /// Takes `folder`, which holds `paths`, as a video if it holds numbered pictures and no videos.
    /// Returns whether its pictures are one.
    fn pictures(&mut self, folder: &Path, root: &Path, paths: &[PathBuf]) -> bool {
        let pictures = paths.iter().filter(|path| picture_number(path).is_some());
        if pictures.count() < 2 || paths.iter().any(|path| has_video_extension(path)) {
            return false;
        }
        let relative = match folder.strip_prefix(root) {
            Ok(below) if below.as_os_str().is_empty() => folder.file_name().map(PathBuf::from),
            Ok(below) => Some(below.to_owned()),
            Err(_) => None,
        };
        match numbered_pictures(folder) {
            Ok(_) => {
                self.found.picture_folders += 1;
                self.found.videos.push(VideoFile::local(
                    folder.to_owned(),
                    relative.unwrap_or_else(|| folder.to_owned()),
                ));
            }
            Err(error) => self.reject(folder, io_reason(&error)),
        }
        true
    }

    /// Takes the videos in the tar archive at `path`.
    fn archive(&mut self, path: &Path, relative: &Path) {
        let TarListing { members, error } = match tar_members(path) {
            Ok(listing) => listing,
            Err(error) => return self.reject(path, io_reason(&error)),
        };
        for member in members.iter() {
            let inner = normal(&member.path);
            let name = path.join(&inner);
            if self.by_name {
                let video = VideoFile::local(name, relative.join(&inner));
                self.found.videos.push(video);
                continue;
            }
            let reason = match member.sniff(path) {
                Err(error) => Some(io_reason(&error)),
                Ok(Content::Video(_)) => None,
                Ok(_) if !has_video_extension(&inner) => {
                    self.found.not_video += 1;
                    continue;
                }
                Ok(content) => content.not_video_reason(),
            };
            match reason {
                Some(reason) => self.reject(&name, reason),
                None => {
                    let video = VideoFile::local(name, relative.join(&inner));
                    self.found.videos.push(video);
                }
            }
        }
        if let Some(error) = error {
            self.reject(
                path,
                format!(
                    "the archive is damaged after {} files: {error}",
                    members.len()
                ),
            );
        }
    }

    /// Takes the videos at or below `url`, by their names.
    fn store(&mut self, url: &Url) -> Result<(), StoreError> {
        let below = match store::list(url) {
            // Who may read an object may not always list the bucket.
            Err(StoreError::Unlistable { .. } | StoreError::Denied { .. }) => Vec::new(),
            listed => listed?,
        };
        let mut objects: Vec<_> = below.into_iter().map(|object| (object, false)).collect();
        if objects.is_empty() {
            objects.push((store::head(url)?, true));
        }
        // As names in folders are ordered.
        objects.sort_by_cached_key(|(object, _)| PathBuf::from(object.url.key()));
        for (object, named) in objects {
            let path = PathBuf::from(object.url.to_string());
            if !self.visited.insert(path.clone()) {
                continue;
            }
            let relative = match object.url.key().strip_prefix(url.key()) {
                Some(below) if !named => PathBuf::from(below.trim_start_matches('/')),
                _ => PathBuf::from(object.url.name()),
            };
            let is_archive = path.extension().is_some_and(|extension| extension == "tar");
            if is_archive && !self.by_name {
                let reason = "archives in stores are not read: copy it to a disk, and build from \
                              the copy";
                self.reject(&path, reason.to_owned());
            } else if self.by_name || named || has_video_extension(&path) {
                self.found.videos.push(VideoFile {
                    path,
                    relative,
                    object: Some(object),
                });
            } else {
                self.found.not_video += 1;
            }
        }
        Ok(())
    }

    /// `named`: the user named this file, so it must be a video.
    fn file(&mut self, path: &Path, relative: PathBuf, named: bool) {
        if self.by_name {
            if path.extension().is_some_and(|extension| extension == "tar") {
                return self.archive(path, &relative);
            }
            let path = path.to_owned();
            let video = VideoFile::local(path, relative);
            return self.found.videos.push(video);
        }
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
                Ok(Content::Archive) => return self.archive(path, &relative),
                Ok(Content::Other(_) | Content::Empty) if !should_be_video => {
                    self.found.not_video += 1;
                    return;
                }
                Ok(content) => content.not_video_reason(),
            },
        };
        match reason {
            Some(reason) => self.reject(path, reason),
            None => {
                let video = VideoFile::local(path.to_owned(), relative);
                self.found.videos.push(video);
            }
        }
    }

    fn reject(&mut self, path: &Path, reason: String) {
        self.found
            .rejected
            .push(Rejected::file(path_name(path), reason));
    }
}

/// Returns the pictures of a folder of frames: files with the extension of a picture and a number
/// in their name, in the order of the numbers.
///
/// # Errors
/// When the folder cannot be read, or its pictures are of several sequences: their names differ in
/// more than the number.
pub fn numbered_pictures(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(name) = picture_number(&path) {
            pictures.push((name, path));
        }
    }
    pictures.sort();
    let mut sequences: Vec<&PictureName> = pictures.iter().map(|(name, _)| name).collect();
    sequences.dedup_by_key(|name| (name.before.clone(), name.after.clone()));
    if let [one, other, ..] = sequences.as_slice() {
        return Err(io::Error::other(format!(
            "its pictures are of several sequences, {}#{} and {}#{}: put each into a folder of its \
             own",
            one.before, one.after, other.before, other.after
        )));
    }
    Ok(pictures.into_iter().map(|(_, path)| path).collect())
}

/// The name of a numbered picture, in the order of sequences, and of numbers in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PictureName {
    before: String,
    after: String,
    /// Number of digits without leading zeros, which orders numbers of any length.
    length: usize,
    digits: String,
}

/// Returns the name of a picture that has a number, the last one in it.
fn picture_number(path: &Path) -> Option<PictureName> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    if !PICTURE_EXTENSIONS.contains(&extension.as_str()) {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    let end = stem.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = stem[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |before| {
            before + stem[before..].chars().next().map_or(1, char::len_utf8)
        });
    let digits = stem[start..end].trim_start_matches('0');
    Some(PictureName {
        before: stem[..start].to_owned(),
        after: format!("{}.{extension}", &stem[end..]),
        length: digits.len(),
        digits: digits.to_owned(),
    })
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
    fn pictures_are_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in [
            "f10.jpg",
            "f9.jpg",
            "f0011.jpg",
            "f2.jpg",
            "notes.txt",
            "cover.jpg",
        ] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        let names = |pictures: Vec<PathBuf>| -> Vec<String> {
            let names = pictures
                .iter()
                .filter_map(|path| path.file_name()?.to_str());
            names.map(str::to_owned).collect()
        };
        let pictures = numbered_pictures(dir.path()).expect("one sequence");
        assert_eq!(
            names(pictures),
            ["f2.jpg", "f9.jpg", "f10.jpg", "f0011.jpg"]
        );
        fs::write(dir.path().join("g1.jpg"), "").expect("written");
        let error = numbered_pictures(dir.path()).expect_err("two sequences");
        assert!(error.to_string().contains("f#.jpg and g#.jpg"), "{error}");
    }
}
