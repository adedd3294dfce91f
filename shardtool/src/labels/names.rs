//! By which names a label file may call a video.

use pipeline::video::discover::{VideoFile, has_video_extension, path_name};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The videos, and the names by which a line may call them.
pub struct VideoNames<'a> {
    videos: &'a [VideoFile],
    /// The path of each video without links.
    real: Vec<Option<PathBuf>>,
    /// Where the label file lies.
    labels_dir: Option<PathBuf>,
}

impl<'a> VideoNames<'a> {
    /// Names of `videos` in the label file `file`.
    pub fn new(videos: &'a [VideoFile], file: &Path) -> Self {
        let real = videos.iter().map(|video| fs::canonicalize(&video.path).ok()).collect();
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let labels_dir = fs::canonicalize(parent.unwrap_or(Path::new("."))).ok();
        Self { videos, real, labels_dir }
    }

    /// Number of videos.
    pub const fn len(&self) -> usize {
        self.videos.len()
    }

    /// The names of video `index`, the most specific first.
    pub fn exact(&self, index: usize) -> Vec<String> {
        self.places(index).iter().flat_map(|place| keys(place)).collect()
    }

    /// The same without the ending of the file, for lists that leave it out or have another one.
    pub fn without_ending(&self, index: usize) -> Vec<String> {
        let places = self.places(index);
        let places = places.iter().filter(|place| place.extension().is_some());
        places.flat_map(|place| keys(&place.with_extension(""))).collect()
    }

    /// Which of `paths` name a video.
    pub fn known<'t>(&self, paths: impl Iterator<Item = &'t str>) -> Known {
        let asked: HashSet<String> = paths.flat_map(spellings).collect();
        let mut known = HashSet::new();
        if !asked.is_empty() {
            for index in 0..self.len() {
                let names = self.exact(index).into_iter().chain(self.without_ending(index));
                known.extend(names.filter(|name| asked.contains(name)));
            }
        }
        Known(known)
    }

    fn places(&self, index: usize) -> Vec<PathBuf> {
        let VideoFile { path, relative } = &self.videos[index];
        let real = self.real[index].as_ref();
        let beside_labels = self.labels_dir.as_ref().and_then(|dir| Some(real?.strip_prefix(dir).ok()?.to_owned()));
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
        spellings(path).iter().any(|spelling| self.0.contains(spelling))
    }
}

/// A path as it is compared: without `./` and doubled slashes.
pub fn normal(path: &str) -> String {
    let path: PathBuf = Path::new(path).components().filter(|part| part.as_os_str() != ".").collect();
    path.to_string_lossy().into_owned()
}

/// A line's path without its ending, where that is one of videos.
pub fn shortened(path: &str) -> Option<String> {
    let path = Path::new(path);
    has_video_extension(path).then(|| normal(&path.with_extension("").to_string_lossy()))
}

/// A line's path, and the same without its ending.
fn spellings(path: &str) -> Vec<String> {
    [normal(path)].into_iter().chain(shortened(path)).collect()
}

/// How a line may write `place`: as it is, or, where a text file cannot, as lists of videos do.
fn keys(place: &Path) -> Vec<String> {
    let mut keys: Vec<String> = place.to_str().into_iter().map(normal).collect();
    let name = normal(&path_name(place));
    if !keys.contains(&name) {
        keys.push(name);
    }
    keys
}
