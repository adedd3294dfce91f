//! The columns of tables with a header.

use super::{Form, Source, values};
use pipeline::table::Table;

/// Names of columns with paths, the first of which is used.
const PATHS: &[&str] = &[
    "path",
    "video_path",
    "file_path",
    "filepath",
    "file_name",
    "video_file_name",
    "filename",
    "file",
    "clip_path",
    "video",
    "clip",
    "video_name",
    "vid_name",
    "video_id",
    "video_uid",
    "youtube_id",
    "vid",
    "id",
    "clip_uid",
    "clip_id",
];

/// Names of columns with identifiers of segments.
const IDS: &[&str] = &[
    "narration_id",
    "clip_uid",
    "clip_id",
    "annotation_uid",
    "annotation_id",
    "segment_id",
    "uid",
    "id",
];

/// Names of columns with starts in seconds.
const START_SECONDS: &[&str] = &[
    "start",
    "start_time",
    "time_start",
    "start_sec",
    "start_secs",
    "start_second",
    "start_seconds",
    "start_s",
    "start_timestamp",
    "t_start",
    "begin",
    "begin_time",
];

/// Names of columns with ends in seconds.
const END_SECONDS: &[&str] = &[
    "end",
    "end_time",
    "time_end",
    "end_sec",
    "end_secs",
    "end_second",
    "end_seconds",
    "end_s",
    "end_timestamp",
    "stop_timestamp",
    "t_end",
    "stop",
    "stop_time",
    "stop_sec",
];

/// Names of columns with the numbers of first frames.
const START_FRAMES: &[&str] = &["start_frame", "frame_start", "begin_frame", "first_frame"];

/// Names of columns with the numbers of the frames after the last.
const END_FRAMES: &[&str] = &["end_frame", "frame_end", "stop_frame"];

/// Names of columns with labels.
const LABELS: &[&str] = &[
    "label",
    "class",
    "category",
    "action",
    "class_name",
    "label_name",
    "class_id",
    "label_id",
];

/// Names of columns with splits.
const SPLITS: &[&str] = &["split", "subset", "partition"];

/// Pairs of columns that make a table one of class numbers and names.
pub const CLASS_COLUMNS: &[(&str, &str)] = &[
    ("id", "key"),
    ("verb_id", "class_key"),
    ("noun_id", "class_key"),
    ("id", "name"),
    ("index", "name"),
    ("number", "name"),
    ("class_id", "class_name"),
];

/// The unit of a table's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Numbers of frames.
    Frames,
}

/// The columns of a table by what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Path or id of the video.
    pub path: usize,
    /// Start of the segment.
    pub start: Option<usize>,
    /// End of the segment.
    pub end: Option<usize>,
    /// What the times count.
    pub unit: Unit,
    /// Whether there are times that do not apply.
    pub ignores_times: bool,
    /// Class.
    pub label: Option<usize>,
    /// Split.
    pub split: Option<usize>,
    /// Identifier of the segment.
    pub id: Option<usize>,
}

/// What the first row of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The names of columns, one of which names videos or classes.
    Header,
    /// The names of columns, none of which names videos.
    WithoutPath,
    /// Data.
    Data,
}

/// Returns what the first row of a text is, by its cells.
pub fn first_row(cells: &[Option<String>]) -> First {
    let names: Vec<String> = cells
        .iter()
        .map(|cell| normal(cell.as_deref().unwrap_or_default()))
        .collect();
    // A header has neither numbers nor paths.
    let is_data = |name: &String| {
        name.parse::<f64>().is_ok() || name.contains('/') || values::is_video_name(name)
    };
    if names.iter().any(is_data) {
        return First::Data;
    }
    let is = |lists: &[&[&str]]| {
        let is_in = |name: &String| lists.iter().any(|list| list.contains(&name.as_str()));
        names.iter().any(is_in)
    };
    let starts = |&(number, name): &(&str, &str)| names.starts_with(&[number.into(), name.into()]);
    if is(&[PATHS]) || CLASS_COLUMNS.iter().any(starts) {
        return First::Header;
    }
    let times = [START_SECONDS, END_SECONDS, START_FRAMES, END_FRAMES];
    let is_header = is(&times) || is(&[LABELS, SPLITS]);
    match names.len() > 1 && is_header {
        true => First::WithoutPath,
        false => First::Data,
    }
}

/// Normalises the name of a column: `Video ID` becomes `video_id`.
pub fn normal(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace([' ', '-'], "_")
}

/// Returns the number of the column with a normalised name.
pub fn position(table: &Table, name: &str) -> Option<usize> {
    table
        .columns
        .iter()
        .position(|column| normal(column) == name)
}

/// Whether the table has all of these columns.
pub fn has(table: &Table, names: &[&str]) -> bool {
    names.iter().all(|name| position(table, name).is_some())
}

impl Source<'_> {
    /// Finds the columns of `table`.
    ///
    /// # Errors
    /// When none names videos, several have one meaning, or the column of labels is missing.
    pub fn roles(&self, table: &Table, form: Form) -> anyhow::Result<Roles> {
        let named: Vec<String> = table.columns.iter().map(|name| normal(name)).collect();
        let all = |names: &[&str]| -> Vec<usize> {
            let found = names
                .iter()
                .filter_map(|name| named.iter().position(|column| column == name));
            found.collect()
        };
        let one = |what: &str, names: &[&str]| match all(names).as_slice() {
            [] => Ok(None),
            [column] => Ok(Some(*column)),
            [first, second, ..] => Err(self.refusal(&format!(
                "has several columns for the {what}, {} and {}: leave one of them",
                table.columns[*first], table.columns[*second]
            ))),
        };
        let paths = match form {
            Form::HuggingFace => all(&["file_name", "video_file_name"]),
            Form::Kinetics => all(&["youtube_id"]),
            Form::Epic => all(&["video_id"]),
            _ => all(PATHS),
        };
        let Some(&path) = paths.first() else {
            return Err(self.refusal(&format!(
                "has no column for the path or id of the video; its columns are {}",
                table.columns.join(", ")
            )));
        };
        let seconds = (one("start", START_SECONDS)?, one("end", END_SECONDS)?);
        let ((start, end), unit) = match seconds {
            (None, None) => {
                let frames = (one("start", START_FRAMES)?, one("end", END_FRAMES)?);
                (frames, Unit::Frames)
            }
            seconds => (seconds, Unit::Seconds),
        };
        let splits = one("split", SPLITS)?.filter(|&column| column != path);
        Ok(Roles {
            path,
            start: start.filter(|_| self.options.times),
            end: end.filter(|_| self.options.times),
            unit,
            ignores_times: !self.options.times && (start.is_some() || end.is_some()),
            label: self.label_column(table, &all(LABELS), form)?,
            split: splits,
            id: all(IDS).into_iter().find(|&column| column != path),
        })
    }

    /// Returns the column of labels, `own` being those with a usual name.
    fn label_column(
        &self,
        table: &Table,
        own: &[usize],
        form: Form,
    ) -> anyhow::Result<Option<usize>> {
        let own = match form {
            Form::Epic => position(table, "verb_class").into_iter().collect(),
            Form::Something => position(table, "template").into_iter().collect(),
            _ => own.to_vec(),
        };
        let Some(wanted) = &self.options.label else {
            if let [first, second, ..] = own.as_slice() {
                return Err(self.refusal(&format!(
                    "has several columns of labels, {} and {}: choose one with --list-label COLUMN",
                    table.columns[*first], table.columns[*second]
                )));
            }
            return Ok(own.first().copied());
        };
        let column = position(table, &normal(wanted));
        // Lists of test videos have no labels at all.
        if column.is_none() && !own.is_empty() {
            return Err(self.refusal(&format!(
                "has no column {wanted} for the labels; its columns are {}",
                table.columns.join(", ")
            )));
        }
        Ok(column)
    }
}
