//! Lists of videos, and of segments of videos, of which alone clips are built.
//!
//! Each file of a list is recognised by its content as one of the forms in which data sets and
//! training programs keep theirs, unmodified.
//!
//! - `forms`: the forms, and the messages about them.
//! - `read`: which form a file has.
//! - `columns`: the columns of tables with a header.
//! - `tables`: entries of such tables.
//! - `official`: entries of official lists without a header.
//! - `lines`: entries of lines of paths.
//! - `nested`: entries of JSON that is no table.
//! - `ego4d`: entries of Ego4D.
//! - `classes`: files of class names.
//! - `values`: times, splits and labels.
//! - `check`: what several files say together.
//! - `find`: the files that entries name.

mod check;
mod classes;
mod columns;
mod ego4d;
mod find;
mod forms;
mod lines;
mod nested;
mod official;
mod read;
mod tables;
mod values;

pub use classes::ClassMap;
pub use find::{Found, find};
pub use forms::{FORMS, Form, Recognised};

use anyhow::{anyhow, ensure};
use pipeline::table::Format;
pub use pipeline::video::clips::Bound;
use std::path::{Path, PathBuf};

/// A video, or a segment of it, that a list names.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Which of the list files names it.
    pub file: usize,
    /// Its line there, or its number, from 1 ([`Recognised::unit`]).
    pub line: usize,
    /// Path or id of the video as written.
    pub name: String,
    /// Where the segment begins; none: with the video.
    pub start: Option<Bound>,
    /// Where the segment ends; none: with the video.
    pub end: Option<Bound>,
    /// Name or number of the class, if it has one.
    pub label: Option<String>,
    /// `train`, `val` or `test`, or another name as written.
    pub split: Option<String>,
    /// Identifier of the segment, such as a narration id.
    pub id: Option<String>,
    /// The file that exists for this segment if the data set was cut into segments.
    pub cut: Option<Cut>,
}

/// A file that holds a segment of a longer video.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    /// Name of the file, without its extension.
    pub name: String,
    /// Where the entry's segment begins in this file.
    pub start: Option<Bound>,
    /// Where the entry's segment ends in this file.
    pub end: Option<Bound>,
}

/// How lists are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOptions {
    /// The column that holds labels, instead of the form's own.
    pub label: Option<String>,
    /// Whether times apply; otherwise, whole videos are meant.
    pub times: bool,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            label: None,
            times: true,
        }
    }
}

/// The entries of one or several list files.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The list files, as given.
    pub files: Vec<PathBuf>,
    /// The entries, in the order of files and lines.
    pub entries: Vec<Entry>,
    /// What each file was recognised as.
    pub recognised: Vec<Recognised>,
    /// Names of the classes, if a file gives them.
    pub classes: Option<ClassMap>,
    /// Number of entries that repeated an earlier one, and were dropped.
    pub duplicates: u64,
    /// Number of segments that have several labels, and therefore several entries.
    pub relabelled: u64,
    /// Entries that were dropped because their segment is empty: each with its place and the
    /// reason.
    pub empty: Vec<(String, String)>,
}

impl List {
    /// Returns the place of entry `index`, for messages: `line 3 of train.csv`.
    pub fn place(&self, index: usize) -> String {
        let entry = &self.entries[index];
        let unit = self.recognised[entry.file].unit;
        place(unit, entry.line, &self.files[entry.file])
    }
}

/// Reads list files.
///
/// # Errors
/// When a file has none of the accepted forms, or one of its lines has not the file's form; when
/// files contradict each other.
pub fn read(files: &[PathBuf], options: &ListOptions) -> anyhow::Result<List> {
    ensure!(!files.is_empty(), "no list file is given\n{FORMS}");
    let mut readings = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        readings.push(read::read(index, file, options)?);
    }
    check::combine(files, readings, options)
}

/// One list file while it is read.
struct Source<'a> {
    /// Its number.
    file: usize,
    /// The file.
    path: &'a Path,
    /// How it is read.
    options: &'a ListOptions,
}

impl Source<'_> {
    /// Returns an error about a line.
    fn fault(&self, unit: &str, line: usize, what: &str) -> anyhow::Error {
        anyhow!("{} {what}\n{FORMS}", place(unit, line, self.path))
    }

    /// Returns an error about a line or row of a table.
    fn fault_in(&self, format: Format, line: usize, what: &str) -> anyhow::Error {
        self.fault(format.unit(), line, what)
    }

    /// Returns an error about the file.
    fn refusal(&self, what: &str) -> anyhow::Error {
        anyhow!("{} {what}\n{FORMS}", self.path.display())
    }

    /// Returns the file's name.
    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Returns an entry with nothing but a name.
    fn entry(&self, line: usize, name: &str) -> Entry {
        Entry {
            file: self.file,
            line,
            name: name.to_owned(),
            start: None,
            end: None,
            label: None,
            split: None,
            id: None,
            cut: None,
        }
    }
}

/// What one list file holds.
struct Reading {
    /// Its form.
    form: Form,
    /// What its entries are numbered by.
    unit: &'static str,
    /// Its entries.
    entries: Vec<Entry>,
    /// Numbers that stand beside the classes of the entries, to be checked; of UCF101 only.
    numbers: Vec<Option<i32>>,
    /// The classes that it names.
    classes: Vec<classes::ClassFile>,
    /// The column that gave the labels, if columns have names.
    label: Option<String>,
    /// What is worth telling about it.
    notes: Vec<String>,
}

impl Reading {
    /// Returns what a file with entries holds.
    fn of_entries(form: Form, unit: &'static str, entries: Vec<Entry>) -> Self {
        Self {
            form,
            unit,
            entries,
            numbers: Vec::new(),
            classes: Vec::new(),
            label: None,
            notes: Vec::new(),
        }
    }

    /// Returns what a file of class names holds.
    fn of_classes(form: Form, classes: Vec<classes::ClassFile>) -> Self {
        Self {
            classes,
            ..Self::of_entries(form, "line", Vec::new())
        }
    }
}

/// Renders a place in a file.
fn place(unit: &str, line: usize, path: &Path) -> String {
    format!("{unit} {line} of {}", path.display())
}

#[cfg(test)]
mod tests;
