//! Labels of videos: from folders, from a file, or none.
//!
//! - `parse`: the lines of a label file.
//! - `names`: the names by which a line may call a video.
//! - `members`: labels beside the videos in tar archives.
//! - `matching`: which lines belong to which video.

mod matching;
mod members;
mod names;
mod parse;

use crate::reading::printable;
use anyhow::{Context, ensure};
use console::output::count;
use names::VideoNames;
use parse::{Line, fault};
use pipeline::store::{self, UrlError};
use pipeline::video::discover::{VideoFile, path_name};
use schemas::manifest::Labelling;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The forms of a label file, for help and errors.
pub const FORMS: &str = r#"Lines of a label file:
  videos/a.mp4,riding a bike   path and label, separated by a comma or a tab
  "a, b.mp4",3                 quoted where a value contains the separator
  videos/a.mp4 3               or separated by a space
  path,label                   optional header; with it, columns may come in any order:
                               path, video, file, filename, video_path, video_id or clip
                               for the path; label, class, category or action for the label
Labels are class names or integers from 0; -1 or an empty label means no label.
Paths are as found by the build, relative to the folder searched or to the label file,
absolute, or bare file names; the extension may be omitted. # starts a comment line."#;

/// Maximum number of videos and of lines that are named individually.
const MAX_EXAMPLES: usize = 5;

/// Source of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// No labels.
    None,
    /// The name of each file's folder.
    Dirs,
    /// The `cls` or `json` file beside each video in its tar archive.
    Members,
    /// A file with a line per video, in one of [`FORMS`].
    File(PathBuf),
}

impl LabelSource {
    /// Returns the kind of the source.
    pub const fn kind(&self) -> Labelling {
        match self {
            Self::None => Labelling::None,
            Self::Dirs => Labelling::Dirs,
            Self::Members => Labelling::Members,
            Self::File(_) => Labelling::File,
        }
    }

    /// Parses the flag's value.
    ///
    /// # Errors
    /// When the value is a URL that cannot be used.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Ok(match text {
            "none" => Self::None,
            "dirs" => Self::Dirs,
            "members" => Self::Members,
            file => Self::File(store::place(file.into())?),
        })
    }
}

/// The label of one video.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Label {
    /// Class number.
    pub number: Option<i32>,
    /// Class name, if classes have names.
    pub class: Option<String>,
}

/// Labels as their source gives them.
#[derive(Debug, Default)]
pub struct Names {
    /// One label per video or segment, in their order.
    labels: Vec<Option<String>>,
    /// Whether the labels are numbers.
    numeric: bool,
}

/// Labels of all videos.
#[derive(Debug, Default)]
pub struct Found {
    /// One label per video, in their order.
    pub names: Names,
    /// Mismatches of videos and source.
    pub coverage: Coverage,
}

/// Mismatches of videos and label file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Number of videos without a label, if there are labels.
    pub unlabelled: u64,
    /// Names of the first few of these.
    pub unlabelled_examples: Vec<String>,
    /// Number of lines whose path matches no video.
    pub unmatched: u64,
    /// Paths of the first few of these.
    pub unmatched_examples: Vec<String>,
    /// Whether the lines are those of a list of what to build.
    pub is_list: bool,
}

impl Coverage {
    /// Renders one line per kind of mismatch; none if all match.
    pub fn render(&self) -> Vec<String> {
        let render = |what: String, number: u64, examples: &[String]| {
            let names: Vec<String> = examples.iter().map(|name| printable(name)).collect();
            let more = number.saturating_sub(examples.len() as u64);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            (number > 0).then(|| format!("{what}: {}{more}", names.join(", ")))
        };
        let videos = format!("{} without a label", count(self.unlabelled, "video"));
        let matches = if self.unmatched == 1 {
            "matches"
        } else {
            "match"
        };
        let lines = if self.is_list {
            format!("{} not found", count(self.unmatched, "listed video"))
        } else {
            format!(
                "{} of the label file {matches} no video",
                count(self.unmatched, "line")
            )
        };
        let videos = render(videos, self.unlabelled, &self.unlabelled_examples);
        let lines = render(lines, self.unmatched, &self.unmatched_examples);
        [videos, lines].into_iter().flatten().collect()
    }
}

/// Labels with their numbers.
#[derive(Debug, Default)]
pub struct Labels {
    /// One label per video or segment, in their order.
    pub labels: Vec<Label>,
    /// Names of the classes, in the order of their numbers.
    pub classes: Vec<String>,
}

/// Finds the label of each video.
///
/// # Errors
/// When the label file cannot be read, or a line of it has no accepted form.
pub fn find(videos: &[VideoFile], source: &LabelSource) -> anyhow::Result<Found> {
    let mut found = match source {
        LabelSource::None => {
            return Ok(Found {
                names: Names {
                    labels: vec![None; videos.len()],
                    numeric: false,
                },
                coverage: Coverage::default(),
            });
        }
        LabelSource::Dirs => {
            let labels = videos
                .iter()
                .map(|video| folder_name(&video.path))
                .collect();
            Found {
                names: Names {
                    labels,
                    numeric: false,
                },
                coverage: Coverage::default(),
            }
        }
        LabelSource::Members => Found {
            names: Names::of_list(members::find(videos)?),
            coverage: Coverage::default(),
        },
        LabelSource::File(file) => from_file(videos, file)?,
    };
    let unlabelled = videos
        .iter()
        .zip(&found.names.labels)
        .filter(|(_, label)| label.is_none());
    let mut unlabelled = unlabelled.map(|(video, _)| path_name(&video.path));
    found.coverage.unlabelled_examples = unlabelled.by_ref().take(MAX_EXAMPLES).collect();
    let named = found.coverage.unlabelled_examples.len() + unlabelled.count();
    found.coverage.unlabelled = named as u64;
    Ok(found)
}

impl Names {
    /// Returns the labels of a list. They are numbers if all of them are.
    pub fn of_list(labels: Vec<Option<String>>) -> Self {
        let is_whole = |label: &String| label.parse::<i32>().is_ok_and(|number| number >= 0);
        let mut given = labels.iter().flatten().peekable();
        Self {
            numeric: given.peek().is_some() && given.all(is_whole),
            labels,
        }
    }

    /// Assigns numbers to the labels. Classes in `known` keep theirs; new ones follow them.
    pub fn number(self, known: &[String]) -> Labels {
        let names = self.labels;
        // Labels that are numbers keep them.
        if self.numeric && known.is_empty() {
            let number = |name: Option<String>| name.and_then(|name| name.parse().ok());
            let label = |name| Label {
                number: number(name),
                class: None,
            };
            return Labels {
                labels: names.into_iter().map(label).collect(),
                classes: Vec::new(),
            };
        }
        let mut classes = known.to_vec();
        let names_in_order: BTreeSet<&String> = names.iter().flatten().collect();
        let is_known: HashSet<&String> = known.iter().collect();
        classes.extend(
            names_in_order
                .into_iter()
                .filter(|name| !is_known.contains(name))
                .cloned(),
        );
        let numbers: HashMap<&String, i32> = classes.iter().zip(0..).collect();
        let number = |name: &String| numbers.get(name).copied();
        let label = |name: Option<String>| Label {
            number: name.as_ref().and_then(number),
            class: name,
        };
        let labels = names.into_iter().map(label).collect();
        drop(numbers);
        Labels { labels, classes }
    }
}

/// Reads the labels of `videos` from the label file `file`.
fn from_file(videos: &[VideoFile], file: &Path) -> anyhow::Result<Found> {
    let mut bytes = Vec::new();
    store::open_file(file)
        .and_then(|mut labels| labels.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read the labels in {}", file.display()))?;
    let names = VideoNames::new(videos, file);
    let mut lines = parse::parse(&bytes, file, &names)?;
    let numeric = read_numbers(&mut lines, file)?;
    let lines = matching::unique(lines, file)?;
    let lines_of = matching::lines_of(&lines, &names, file)?;
    let matched: HashSet<usize> = lines_of.iter().flatten().copied().collect();
    refuse_unnamed_header(&lines, &matched, file)?;
    ensure!(
        !matched.is_empty() || videos.is_empty(),
        "{} names none of the videos, the first of which is {}\n{FORMS}",
        file.display(),
        videos
            .first()
            .map(|video| path_name(&video.path))
            .unwrap_or_default()
    );
    let is_unmatched = |(index, _): &(usize, &Line)| !matched.contains(index);
    let unmatched: Vec<&Line> = lines
        .iter()
        .enumerate()
        .filter(is_unmatched)
        .map(|(_, line)| line)
        .collect();
    let coverage = Coverage {
        unmatched: unmatched.len() as u64,
        unmatched_examples: unmatched
            .iter()
            .take(MAX_EXAMPLES)
            .map(|line| line.path.clone())
            .collect(),
        ..Coverage::default()
    };
    let label = |lines_of: &Vec<usize>| lines[*lines_of.first()?].label.clone();
    Ok(Found {
        names: Names {
            labels: lines_of.iter().map(label).collect(),
            numeric,
        },
        coverage,
    })
}

/// Replaces -1 by no label and, if all labels are numbers, normalises their notation. Returns
/// whether all are numbers.
fn read_numbers(lines: &mut [Line], file: &Path) -> anyhow::Result<bool> {
    for line in lines.iter_mut() {
        let Some(label) = line
            .label
            .as_deref()
            .filter(|label| label.starts_with('-') && is_number(label))
        else {
            continue;
        };
        match label.parse::<i64>() {
            Ok(-1) => line.label = None,
            Ok(0) => {}
            _ => {
                let what =
                    format!("has the label {label}: the only number below 0 is -1, no label");
                return Err(fault(file, line.number, &what));
            }
        }
    }
    if !lines
        .iter()
        .filter_map(|line| line.label.as_deref())
        .all(is_number)
    {
        return Ok(false);
    }
    for line in lines {
        let Some(label) = &line.label else { continue };
        let Ok(number) = label.parse::<i32>() else {
            let what = format!("has the label {label}: the greatest number is {}", i32::MAX);
            return Err(fault(file, line.number, &what));
        };
        line.label = Some(number.to_string());
    }
    Ok(true)
}

/// Whether `label` is an integer of any size.
fn is_number(label: &str) -> bool {
    let digits = label.strip_prefix(['-', '+']).unwrap_or(label);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refuses a first line that seems to be a header with unknown column names, and would turn numbers
/// into names.
fn refuse_unnamed_header(
    lines: &[Line],
    matched: &HashSet<usize>,
    file: &Path,
) -> anyhow::Result<()> {
    let Some((first, others)) = lines.split_first() else {
        return Ok(());
    };
    let mut others = others
        .iter()
        .filter_map(|line| line.label.as_deref())
        .peekable();
    let is_name = first
        .label
        .as_deref()
        .is_some_and(|label| !is_number(label));
    if is_name && !matched.contains(&0) && others.peek().is_some() && others.all(is_number) {
        let what = "seems to be a header, as all other labels are numbers, but its columns have \
                    other names";
        return Err(fault(file, first.number, what));
    }
    Ok(())
}

/// Returns the name of the folder of `path`.
fn folder_name(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    // The folder in the path that the user gave, if there is one.
    let folder = path
        .parent()
        .and_then(Path::file_name)
        .or_else(|| real.parent().and_then(Path::file_name))?;
    Some(path_name(Path::new(folder)))
}

#[cfg(test)]
mod tests;
