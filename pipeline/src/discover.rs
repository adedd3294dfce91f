//! Which files are videos: the inputs, searched in a fixed order.

use crate::video::{Content, sniff};
use schemas::manifest::Rejected;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// File endings that promise a video. What has one and is none by content is rejected by name; what has none is only counted.
const VIDEO_ENDINGS: &[&str] = &[
    "3gp", "avi", "flv", "h264", "hevc", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv",
];

/// A file that is video by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFile {
    /// As the user can open it: the input, and what was found below it.
    pub path: PathBuf,
    /// Below the folder that was given; the file's name for a file that was given.
    pub relative: PathBuf,
}

/// What the inputs hold.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Videos in reading order.
    pub videos: Vec<VideoFile>,
    /// Files that should have been videos.
    pub rejected: Vec<Rejected>,
    /// Files in folders that are no video by content nor by name.
    pub not_video: u64,
}

/// Searches `inputs`: files as they are, folders to the bottom, names in byte order. A file that is reached twice counts once.
pub fn discover(inputs: &[PathBuf]) -> Discovered {
    let mut search = Search::default();
    for input in inputs {
        if input.is_dir() {
            search.folder(input, input);
        } else {
            let name = input.file_name().map_or_else(|| input.clone(), PathBuf::from);
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

    /// `named`: the user gave this very file, so it has to be a video.
    fn file(&mut self, path: &Path, relative: PathBuf, named: bool) {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(_) if path.is_symlink() => return self.reject(path, "the link leads nowhere".to_owned()),
            Err(error) => return self.reject(path, io_reason(&error)),
        };
        if !self.visited.insert(real) {
            return;
        }
        let should_be_video = named || has_video_ending(path);
        // A pipe or a device would be waited for without end.
        let reason = match fs::metadata(path) {
            Err(error) => Some(io_reason(&error)),
            Ok(metadata) if !metadata.is_file() => Some("not a regular file".to_owned()),
            Ok(_) => match sniff(path) {
                Err(error) => Some(io_reason(&error)),
                Ok(Content::Video(_)) => None,
                Ok(_) if !should_be_video => {
                    self.found.not_video += 1;
                    return;
                }
                Ok(content) => content.not_video_reason(),
            },
        };
        match reason {
            Some(reason) => self.reject(path, reason),
            None => self.found.videos.push(VideoFile { path: path.to_owned(), relative }),
        }
    }

    fn reject(&mut self, path: &Path, reason: String) {
        self.found.rejected.push(Rejected::file(path.display(), reason));
    }
}

fn has_video_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| VIDEO_ENDINGS.contains(&ending.as_str()))
}

/// The reason without the operating system's number, which tells nobody anything.
pub fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
