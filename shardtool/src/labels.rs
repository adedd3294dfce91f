//! Labels of videos: from folders, from a file, or none.

use anyhow::{Context, bail};
use pipeline::discover::VideoFile;
use schemas::manifest::Labelling;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Where labels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// There are none.
    None,
    /// The name of the folder that a file lies in.
    Dirs,
    /// A file with a line `path label` for each video.
    File(PathBuf),
}

impl LabelSource {
    /// Which of the three it is.
    pub const fn kind(&self) -> Labelling {
        match self {
            Self::None => Labelling::None,
            Self::Dirs => Labelling::Dirs,
            Self::File(_) => Labelling::File,
        }
    }

    /// Reads the flag's value; it never fails.
    pub fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(match text {
            "none" => Self::None,
            "dirs" => Self::Dirs,
            file => Self::File(file.into()),
        })
    }
}

/// The label of one video.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    /// Class number.
    pub number: Option<i32>,
    /// Class name, where classes have names.
    pub class: Option<String>,
}

/// Labels of all videos.
#[derive(Debug, Default)]
pub struct Labels {
    /// One for each video, in their order.
    pub labels: Vec<Label>,
    /// Names of the classes, in the order of their numbers.
    pub classes: Vec<String>,
    /// Videos that the source does not name.
    pub unlabelled: u64,
}

/// Finds the label of each video. Classes that are `known` keep their numbers; new ones follow them.
///
/// # Errors
/// When the file of labels cannot be read, or a line of it has no label.
pub fn label(videos: &[VideoFile], source: &LabelSource, known: &[String]) -> anyhow::Result<Labels> {
    let names = match source {
        LabelSource::None => return Ok(Labels { labels: vec![Label::default(); videos.len()], ..Labels::default() }),
        LabelSource::Dirs => videos.iter().map(|video| folder_name(&video.path)).collect(),
        LabelSource::File(file) => names_from_file(videos, file)?,
    };
    let unlabelled = names.iter().filter(|name| name.is_none()).count() as u64;
    if let (LabelSource::File(file), true) = (source, unlabelled == videos.len() as u64 && !videos.is_empty()) {
        bail!("{} names none of the videos; its paths must be as found, relative to the folder given, or bare file names", file.display());
    }
    // Labels that are numbers already stay what they are.
    if matches!(source, LabelSource::File(_)) && known.is_empty() && names.iter().flatten().all(|name| name.parse::<u16>().is_ok()) {
        let number = |name: &Option<String>| name.as_ref().and_then(|name| name.parse().ok());
        let labels = names.iter().map(|name| Label { number: number(name), class: None }).collect();
        return Ok(Labels { labels, classes: Vec::new(), unlabelled });
    }
    let mut classes = known.to_vec();
    let names_in_order: BTreeSet<&String> = names.iter().flatten().collect();
    classes.extend(names_in_order.into_iter().filter(|name| !known.contains(name)).cloned());
    let numbers: HashMap<&String, i32> = classes.iter().zip(0..).collect();
    let number = |name: &String| numbers.get(name).copied();
    let labels = names.iter().map(|name| Label { number: name.as_ref().and_then(number), class: name.clone() }).collect();
    drop(numbers);
    Ok(Labels { labels, classes, unlabelled })
}

fn folder_name(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    // The name as the user sees it, unless the path does not show it.
    let folder = path.parent().and_then(Path::file_name).or_else(|| real.parent().and_then(Path::file_name))?;
    Some(folder.to_string_lossy().into_owned())
}

/// Reads lines `path label`, separated by the line's last blank or comma, and finds each video among them.
fn names_from_file(videos: &[VideoFile], file: &Path) -> anyhow::Result<Vec<Option<String>>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the labels in {}", file.display()))?;
    let mut by_path = HashMap::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((path, label)) = line.rsplit_once([' ', '\t', ',']) else {
            bail!("line {number} of {} has no label: write \"path label\"", file.display());
        };
        let path = path.trim_end_matches([' ', '\t', ',']);
        if by_path.insert(without_dot(Path::new(path)), label.to_owned()).is_some_and(|earlier| earlier != label) {
            bail!("line {number} of {} gives {path} a second label", file.display());
        }
    }
    let beside_labels = |video: &VideoFile| {
        let folder = fs::canonicalize(file.parent()?).or_else(|_| fs::canonicalize(".")).ok()?;
        Some(fs::canonicalize(&video.path).ok()?.strip_prefix(folder).ok()?.to_owned())
    };
    Ok(videos
        .iter()
        .map(|video| {
            let name = video.path.file_name().map(PathBuf::from);
            let places = [Some(video.path.clone()), Some(video.relative.clone()), beside_labels(video), name];
            places.into_iter().flatten().find_map(|place| by_path.get(&without_dot(&place)).cloned())
        })
        .collect())
}

fn without_dot(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn videos(paths: &[&str]) -> Vec<VideoFile> {
        paths.iter().map(|path| VideoFile { path: Path::new("in").join(path), relative: path.into() }).collect()
    }

    fn with_file(text: &str, paths: &[&str]) -> anyhow::Result<Labels> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("labels.txt");
        fs::write(&file, text).expect("written");
        label(&videos(paths), &LabelSource::File(file), &[])
    }

    #[test]
    fn names_are_numbered_in_their_order() {
        let labels =
            with_file("a/1.mp4 walk\n2.mp4, run\n# note\n\nin/with blank.mp4\tjump\n", &["a/1.mp4", "b/2.mp4", "with blank.mp4", "x.mp4"]);
        let labels = labels.expect("sound labels");
        assert_eq!(labels.classes, ["jump", "run", "walk"]);
        assert_eq!(labels.labels.iter().map(|label| label.number).collect::<Vec<_>>(), [Some(2), Some(1), Some(0), None]);
        assert_eq!(labels.unlabelled, 1);
    }

    #[test]
    fn numbers_stay_numbers() {
        let labels = with_file("a.mp4 12\nb.mp4 3\n", &["a.mp4", "b.mp4"]).expect("sound labels");
        assert_eq!(labels.labels.iter().map(|label| label.number).collect::<Vec<_>>(), [Some(12), Some(3)]);
        assert!(labels.classes.is_empty());
    }

    #[test]
    fn a_line_without_a_label_and_a_file_that_fits_nothing_are_errors() {
        let error = with_file("a.mp4 1\nb.mp4\n", &["a.mp4"]).expect_err("no label").to_string();
        assert!(error.starts_with("line 2 of"), "{error}");
        let error = with_file("c.mp4 1\n", &["a.mp4"]).expect_err("nothing fits").to_string();
        assert!(error.contains("names none of the videos"), "{error}");
        let error = with_file("a.mp4 1\na.mp4 2\n", &["a.mp4"]).expect_err("two labels").to_string();
        assert!(error.contains("a second label"), "{error}");
    }
}
