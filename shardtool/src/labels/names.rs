//! The names by which a label file may call a video.

use pipeline::video::discover::{VideoFile, has_video_extension, path_name};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The videos, and the names by which a line may call them.
pub struct VideoNames<'a> {
    videos: &'a [VideoFile],
    /// The path of each video without links.
    real: Vec<Option<PathBuf>>,
    /// Folder of the label file.
    labels_dir: Option<PathBuf>,
}

impl<'a> VideoNames<'a> {
    /// Returns the names of `videos` in the label file `file`.
    pub fn new(videos: &'a [VideoFile], file: &Path) -> Self {
        let real = videos
            .iter()
            .map(|video| fs::canonicalize(&video.path).ok())
            .collect();
        let parent = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let labels_dir = fs::canonicalize(parent.unwrap_or(Path::new("."))).ok();
        Self {
            videos,
            real,
            labels_dir,
        }
    }

    /// Returns the number of videos.
    pub const fn len(&self) -> usize {
        self.videos.len()
    }

    /// Returns the names of video `index`, the most specific first.
    pub fn exact(&self, index: usize) -> Vec<String> {
        self.places(index)
            .iter()
            .flat_map(|place| keys(place))
            .collect()
    }

    /// Returns the same names without the file's extension, for lists that omit it or have another
    /// one.
    pub fn without_extension(&self, index: usize) -> Vec<String> {
        let places = self.places(index);
        let places = places.iter().filter(|place| place.extension().is_some());
        places
            .flat_map(|place| keys(&place.with_extension("")))
            .collect()
    }

    /// Returns which of `paths` name a video.
    pub fn known<'t>(&self, paths: impl Iterator<Item = &'t str>) -> Known {
        let wanted: HashSet<String> = paths.flat_map(spellings).collect();
        let mut known = HashSet::new();
        if !wanted.is_empty() {
            for index in 0..self.len() {
                let names = self
                    .exact(index)
                    .into_iter()
                    .chain(self.without_extension(index));
                known.extend(names.filter(|name| wanted.contains(name)));
            }
        }
        Known(known)
    }

    /// Returns the paths by which a line may name video `index`, the most specific first.
    fn places(&self, index: usize) -> Vec<PathBuf> {
        let VideoFile { path, relative, .. } = &self.videos[index];
        let real = self.real[index].as_ref();
        let beside_labels = self
            .labels_dir
            .as_ref()
            .and_then(|dir| Some(real?.strip_prefix(dir).ok()?.to_owned()));
        let places = [
            Some(path.clone()),
            std::path::absolute(path).ok(),
            real.cloned(),
            Some(relative.clone()),
            beside_labels,
            path.file_name().map(PathBuf::from),
        ];
        places.into_iter().flatten().collect()
    }
}

/// Paths of a label file that name a video.
pub struct Known(HashSet<String>);

impl Known {
    /// Whether `path` names a video.
    pub fn contains(&self, path: &str) -> bool {
        spellings(path)
            .iter()
            .any(|spelling| self.0.contains(spelling))
    }
}

/// Normalises a path for comparison: without `./` and doubled slashes.
pub fn normal(path: &str) -> String {
    let path: PathBuf = Path::new(path)
        .components()
        .filter(|part| part.as_os_str() != ".")
        .collect();
    path.to_string_lossy().into_owned()
}

/// Returns a line's path without its extension, if that is one of videos.
pub fn shortened(path: &str) -> Option<String> {
    let path = Path::new(path);
    has_video_extension(path).then(|| normal(&path.with_extension("").to_string_lossy()))
}

/// Returns a line's path, and the same without its extension.
fn spellings(path: &str) -> Vec<String> {
    [normal(path)].into_iter().chain(shortened(path)).collect()
}

/// Returns the notations of `place` in a line: the path itself, or, if that is not text, its name
/// in lists of videos.
fn keys(place: &Path) -> Vec<String> {
    let mut keys: Vec<String> = place.to_str().into_iter().map(normal).collect();
    let name = normal(&path_name(place));
    if !keys.contains(&name) {
        keys.push(name);
    }
    keys
}
