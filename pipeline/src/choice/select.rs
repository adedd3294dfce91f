//! Lists of clips: rows that name them by their columns, as a query over the shards gives them.

use super::ChoiceError;
use crate::table::{self, Comments, Table};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{UInt32Type, UInt64Type};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How rows name clips, the most exact first: columns that must all be there.
const KEYS: [(Key, &[&str]); 4] = [
    (Key::Number, &["number"]),
    (Key::Hash, &["data_xxh3"]),
    (Key::Content, &["video_blake3", "clip"]),
    (Key::Video, &["video", "clip"]),
];

/// How rows name clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// By their number in the set.
    Number,
    /// By the hash of their payload.
    Hash,
    /// By the hash of their video, and their index in it.
    Content,
    /// By the path of their video, and their index in it.
    Video,
}

/// A list of clips.
pub(super) struct Selection {
    path: PathBuf,
    key: Key,
    /// The name of each listed clip, and whether a clip has it.
    names: HashMap<String, Cell<bool>>,
}

impl Selection {
    /// Reads the list in the file `path`.
    pub(super) fn read(path: &Path) -> Result<Self, ChoiceError> {
        let refuse = |reason: String| ChoiceError::Select {
            path: path.to_owned(),
            reason,
        };
        let table = table::read(path, Comments::No).map_err(|error| refuse(error.to_string()))?;
        let Table { columns, rows, .. } = &table;
        let column = |name: &&str| columns.iter().position(|column| column == name);
        let places = |names: &[&str]| names.iter().map(column).collect::<Option<Vec<usize>>>();
        let found = KEYS
            .iter()
            .find_map(|(key, names)| Some((*key, places(names)?)));
        let Some((key, places)) = found else {
            return Err(refuse(format!(
                "its columns are {}; give number, data_xxh3, or clip with video_blake3 or video",
                columns.join(", ")
            )));
        };
        let mut names = HashMap::with_capacity(rows.len());
        for row in rows {
            let cells = places.iter().map(|&place| row.cells[place].as_deref());
            let Some(cells) = cells.collect::<Option<Vec<&str>>>() else {
                let (unit, line) = (table.format.unit(), row.line);
                return Err(refuse(format!("{unit} {line} does not name a clip")));
            };
            names.insert(name(&cells), Cell::new(false));
        }
        Ok(Self {
            path: path.to_owned(),
            key,
            names,
        })
    }

    /// The columns that name clips.
    pub(super) fn columns(&self) -> impl Iterator<Item = &'static str> + use<> {
        let names = KEYS.iter().find(|(key, _)| *key == self.key);
        let names = names.map_or(&[][..], |(_, names)| names);
        let stored = names.iter().copied();
        stored.filter(|&name| name != "number")
    }

    /// Which of the rows `columns` are listed. The first row is clip `first` of the set.
    pub(super) fn mask(&self, columns: &RecordBatch, first: usize) -> BooleanArray {
        let text = |name: &str, row: usize| {
            let column = columns.column_by_name(name)?.as_string_opt::<i32>()?;
            Some(column.value(row).to_owned())
        };
        let clip = |row: usize| {
            let column = columns.column_by_name("clip")?;
            Some(
                column
                    .as_primitive_opt::<UInt32Type>()?
                    .value(row)
                    .to_string(),
            )
        };
        let hash = |row: usize| {
            let column = columns.column_by_name("data_xxh3")?;
            Some(
                column
                    .as_primitive_opt::<UInt64Type>()?
                    .value(row)
                    .to_string(),
            )
        };
        let is_listed = |row: usize| {
            let cells = match self.key {
                Key::Number => vec![(first + row).to_string()],
                Key::Hash => vec![hash(row)?],
                Key::Content => vec![text("video_blake3", row)?, clip(row)?],
                Key::Video => vec![text("video", row)?, clip(row)?],
            };
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            let found = self.names.get(&name(&cells))?;
            found.set(true);
            Some(true)
        };
        (0..columns.num_rows())
            .map(|row| Some(is_listed(row).unwrap_or(false)))
            .collect()
    }

    /// Refuses rows that name no clip: they are of other shards, or have been edited.
    pub(super) fn refuse_unmatched(&self) -> Result<(), ChoiceError> {
        let mut unmatched: Vec<&str> = self
            .names
            .iter()
            .filter(|(_, found)| !found.get())
            .map(|(name, _)| name.as_str())
            .collect();
        unmatched.sort_unstable();
        match unmatched.first() {
            None => Ok(()),
            Some(first) => Err(ChoiceError::Select {
                path: self.path.clone(),
                reason: format!(
                    "{} of its {} rows name no clip of these shards, the first of which is {}",
                    unmatched.len(),
                    self.names.len(),
                    first.replace('\n', ", ")
                ),
            }),
        }
    }
}

/// The name of a clip by its cells. A path holds no line feed, but for the oddest ones.
fn name(cells: &[&str]) -> String {
    cells.join("\n")
}
