//! What a build makes clips of: videos, and the segments of each with their labels and splits.

use crate::cli::BuildArgs;
use crate::labels::{self, Coverage, Label, Names};
use crate::list::{self, List, ListOptions};
use anyhow::{bail, ensure};
use console::output::{self, count};
use pipeline::video::clips::{Bound, Segment};
use pipeline::video::discover::{self, Discovered, VideoFile, discover, path_name};
use schemas::manifest::Rejected;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Maximum number of listed videos that are named in a message.
const MAX_EXAMPLES: usize = 5;

/// The inputs of a build, before their classes have numbers.
pub struct Inputs {
    /// The videos, with segments whose labels are not set yet.
    pub inputs: Vec<Input>,
    /// The labels of all segments, in order.
    names: Names,
    /// Names of the classes in the order of their numbers, if a list gives them.
    classes: Vec<String>,
    /// Files and rows of a list that are not used.
    pub rejected: Vec<Rejected>,
    /// Number of files that are no video.
    pub not_video: u64,
    /// Mismatches of videos and labels.
    pub coverage: Coverage,
}

/// A video, and what of it to build.
#[derive(Debug, Clone)]
pub struct Input {
    /// The video.
    pub file: VideoFile,
    /// Its segments, at least one.
    pub segments: Vec<Listed>,
    /// Whether they come from a list.
    pub is_listed: bool,
}

/// A segment of a video with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The segment.
    pub segment: Segment,
    /// Its label.
    pub label: Label,
    /// Its split.
    pub split: Option<String>,
    /// Its name in the list: a narration's or a clip's id.
    pub name: Option<String>,
}

impl Input {
    /// Returns the whole of `file`.
    fn whole(file: VideoFile) -> Self {
        let whole = Listed {
            segment: Segment::WHOLE,
            label: Label::default(),
            split: None,
            name: None,
        };
        Self {
            file,
            segments: vec![whole],
            is_listed: false,
        }
    }

    /// Returns the name under which the path is stored.
    pub fn name(&self) -> String {
        path_name(&self.file.path)
    }

    /// Returns the label of all segments; none if they differ.
    pub fn label(&self) -> Label {
        let first = self.segments.first().map(|listed| listed.label.clone());
        let first = first.unwrap_or_default();
        if self.segments.iter().all(|listed| listed.label == first) {
            first
        } else {
            Label::default()
        }
    }

    /// Returns the hash of its rows of the list, in hexadecimal; none without a list.
    pub fn list_xxh3(&self) -> Option<String> {
        let json = serde_json::to_vec(&self.segments).expect("plain data becomes JSON");
        self.is_listed.then(|| crate::journal::xxh3_hex(&json))
    }
}

impl Listed {
    /// Start and end in seconds, as far as they are given in seconds.
    pub fn seconds(&self) -> (Option<f64>, Option<f64>) {
        let seconds = |bound: Option<Bound>| match bound {
            Some(Bound::Seconds(seconds)) => Some(seconds),
            Some(Bound::Frame(_)) | None => None,
        };
        (seconds(self.segment.start), seconds(self.segment.end))
    }
}

/// Finds the inputs of a build, and says what is worth knowing about them.
///
/// # Errors
/// When there are none, or the labels or the list cannot be read.
pub fn find(videos: &[PathBuf], args: &BuildArgs) -> anyhow::Result<Inputs> {
    if args.list.is_empty() {
        find_all(videos, args)
    } else {
        find_listed(videos, args)
    }
}

/// All videos of the folders.
fn find_all(inputs: &[PathBuf], args: &BuildArgs) -> anyhow::Result<Inputs> {
    let Discovered {
        videos,
        rejected,
        not_video,
        picture_folders,
    } = discover(inputs)?;
    say_rejected(&rejected);
    if videos.is_empty() {
        bail!(
            "no video among {}",
            count(rejected.len() as u64 + not_video, "file")
        );
    }
    if picture_folders > 0 {
        let folders = count(picture_folders, "folder");
        output::say(&format!(
            "{folders} of pictures, taken to have {} per second (--fps)",
            args.fps
        ));
    }
    let found = labels::find(&videos, &args.labels)?;
    Ok(Inputs {
        inputs: videos.into_iter().map(Input::whole).collect(),
        names: found.names,
        classes: Vec::new(),
        rejected,
        not_video,
        coverage: found.coverage,
    })
}

/// The videos and segments that a list names.
fn find_listed(inputs: &[PathBuf], args: &BuildArgs) -> anyhow::Result<Inputs> {
    let options = ListOptions {
        label: args.list_label.clone(),
        times: args.list_times == "use",
    };
    let list = list::read(&args.list, &options)?;
    list.messages()
        .iter()
        .for_each(|message| output::say(message));
    let has_splits = list.entries.iter().any(|entry| entry.split.is_some());
    ensure!(
        !has_splits || args.split.is_none(),
        "the list gives splits already; omit --split"
    );
    let files = discover::files(inputs)?;
    let found = list::find(&list, &files.videos)?;
    ensure!(
        !found.videos.is_empty(),
        "none of the listed videos is below the folder given, neither {} nor the others: give the \
         folder that holds them",
        list.entries.first().map_or("", |entry| entry.name.as_str())
    );
    say_notes(&list, &found);
    let mut rejected = files.rejected;
    rejected.extend(unusable_rows(&list, &found));
    let (mut inputs, mut labels) = (Vec::new(), Vec::new());
    for listed in &found.videos {
        let file = &files.videos[listed.file];
        // What is in a store is looked at when it is there.
        let refusal = match file.object {
            None => discover::refusal(&file.path),
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            let file = Rejected::file(path_name(&file.path), reason);
            say_rejected(std::slice::from_ref(&file));
            rejected.push(file);
            continue;
        }
        let segments = listed.entries.iter().map(|&index| {
            let entry = &list.entries[index];
            let (start, end) = found.segment(&list, index);
            labels.push(entry.label.clone());
            Listed {
                segment: Segment { start, end },
                label: Label::default(),
                split: entry.split.clone(),
                name: entry.id.clone(),
            }
        });
        inputs.push(Input {
            segments: segments.collect(),
            file: file.clone(),
            is_listed: true,
        });
    }
    ensure!(!inputs.is_empty(), "none of the listed files is a video");
    let missing = found.missing.iter().map(|&index| &list.entries[index].name);
    Ok(Inputs {
        inputs,
        names: Names::of_list(labels),
        classes: list
            .classes
            .map_or_else(Vec::new, |map| map.names.into_values().collect()),
        rejected,
        not_video: 0,
        coverage: Coverage {
            unmatched: found.missing.len() as u64,
            unmatched_examples: missing.take(MAX_EXAMPLES).cloned().collect(),
            is_list: true,
            ..Coverage::default()
        },
    })
}

fn say_rejected(rejected: &[Rejected]) {
    for rejected in rejected {
        output::say(&format!("rejected {}: {}", rejected.path, rejected.reason));
    }
}

/// Says what was done about rows that repeat or contradict each other.
fn say_notes(list: &List, found: &list::Found) {
    let rows = |number: u64| count(number, "row");
    if list.duplicates + found.repeated > 0 {
        let rows = rows(list.duplicates + found.repeated);
        output::say(&format!("note: {rows} repeat another, and count once"));
    }
    if list.relabelled > 0 {
        let segments = count(list.relabelled, "segment");
        output::say(&format!(
            "note: {segments} with several labels: clips are stored once for each"
        ));
    }
    if !found.trimmed.is_empty() {
        let files = count(found.trimmed.len() as u64, "file");
        output::say(&format!(
            "note: {files} cut to the listed segment already, by the name: their times are not \
             applied"
        ));
    }
    if let Some((place, reason)) = list.empty.first() {
        let rows = rows(list.empty.len() as u64);
        output::say(&format!(
            "note: {rows} with an empty segment, the first of which is {place}: {reason}"
        ));
    }
}

/// The rows of a list of which no clip can be made.
fn unusable_rows<'a>(
    list: &'a List,
    found: &'a list::Found,
) -> impl Iterator<Item = Rejected> + 'a {
    let missing = found.missing.iter().map(|&index| {
        let place = list.place(index);
        let reason = format!("listed in {place}, and not found below the folder given");
        Rejected::file(&list.entries[index].name, reason)
    });
    let empty = list.empty.iter();
    missing.chain(empty.map(|(place, reason)| Rejected::file(place, reason)))
}

impl Inputs {
    /// Numbers the classes of the labels: those in `known` keep their numbers. Returns the inputs,
    /// and the names of the classes.
    pub fn number(self, known: &[String]) -> (Vec<Input>, Vec<String>) {
        let known = if known.is_empty() {
            &self.classes
        } else {
            known
        };
        let labels = self.names.number(known);
        let mut inputs = self.inputs;
        let segments = inputs.iter_mut().flat_map(|input| &mut input.segments);
        for (listed, label) in segments.zip(labels.labels) {
            listed.label = label;
        }
        (inputs, labels.classes)
    }
}
