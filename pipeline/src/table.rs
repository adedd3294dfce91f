//! Tables in files: CSV and its relatives, JSON, JSON Lines and Parquet.
//!
//! The form is found by the content, not by the ending of the file's name.
//!
//! - `error`: what can be wrong with a file.
//! - `text`: CSV, TSV and semicolon-separated text.
//! - `json`: JSON and JSON Lines.
//! - `columnar`: Parquet.

mod columnar;
mod error;
mod json;
mod text;

pub use error::{Cause, TableError};
pub use json::value as json_value;
pub use text::{delimiter, records};

use crate::store;
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

/// A table with named columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns. Those of JSON come in the order in which the rows have them, and
    /// alphabetically within a row.
    pub columns: Vec<String>,
    /// The rows, each with a cell per column.
    pub rows: Vec<Row>,
    /// The form of the file.
    pub format: Format,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line of the file on which it begins, or its number, from 1 ([`Format::unit`]).
    pub line: usize,
    /// Text of the cells; none where text is empty, and where JSON and Parquet have null.
    pub cells: Vec<Option<String>>,
}

/// The form of a table's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines of cells with this byte between them.
    Separated(u8),
    /// An array of objects.
    Json,
    /// An object per line.
    JsonLines,
    /// Parquet.
    Parquet,
}

impl Format {
    /// Returns what [`Row::line`] counts, for messages.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Separated(_) | Self::JsonLines => "line",
            Self::Json | Self::Parquet => "row",
        }
    }
}

/// Whether lines of text may be comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comments {
    /// Every line is data.
    No,
    /// Lines that begin with `#` are skipped.
    Hash,
}

/// The content of a file, by its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text that is neither of the following. Its lines end with line feeds.
    Text(String),
    /// One JSON value.
    Json(String),
    /// A JSON object per line.
    JsonLines(String),
    /// Parquet, which is not read yet.
    Parquet,
}

/// Reads the table in the file `path`.
///
/// # Errors
/// When the file cannot be read, or is no table.
pub fn read(path: &Path, comments: Comments) -> Result<Table, TableError> {
    match content(path)? {
        Content::Text(text) => separated(&text, path, comments),
        Content::Json(text) => from_json(&json::value(&text, path)?, path),
        Content::JsonLines(text) => json::lines(&text, path),
        Content::Parquet => parquet(path),
    }
}

/// Reads the file `path`, and finds its form.
///
/// # Errors
/// When the file cannot be read, is empty, or is neither text nor Parquet.
pub fn content(path: &Path) -> Result<Content, TableError> {
    let failed = |error| TableError::of_file(path, Cause::Read(error));
    let mut file = store::open_file(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes == b"PAR1" {
        return Ok(Content::Parquet);
    }
    if let Some(kind) = binary(&bytes) {
        return Err(TableError::of_file(path, Cause::Binary(kind)));
    }
    file.read_to_end(&mut bytes).map_err(failed)?;
    let text = text::decode(bytes, path)?;
    if text.trim().is_empty() {
        return Err(TableError::of_file(path, Cause::Empty));
    }
    Ok(match json::kind(&text) {
        json::Kind::Value => Content::Json(text),
        json::Kind::Lines => Content::JsonLines(text),
        json::Kind::None => Content::Text(text),
    })
}

/// Reads text whose first line names the columns. Tabs, commas or semicolons separate them.
///
/// # Errors
/// When a quote is not closed, two columns have one name, or a row has more or fewer cells.
pub fn separated(text: &str, path: &Path, comments: Comments) -> Result<Table, TableError> {
    let delimiter = delimiter(text, comments);
    let rows = records(text, delimiter, comments, path)?;
    with_header(rows, delimiter, path)
}

/// Makes a table of the `rows` of separated text, the first of which names the columns.
///
/// # Errors
/// When two columns have one name, or a row has more or fewer cells.
pub fn with_header(rows: Vec<Row>, delimiter: u8, path: &Path) -> Result<Table, TableError> {
    let mut rows = rows.into_iter();
    let Some(header) = rows.next() else {
        return Err(TableError::of_file(path, Cause::Empty));
    };
    let format = Format::Separated(delimiter);
    let name = |cell: Option<String>| cell.unwrap_or_default().trim().to_owned();
    let columns: Vec<String> = header.cells.into_iter().map(name).collect();
    let mut seen = HashSet::new();
    if let Some(column) = columns.iter().find(|column| !seen.insert(column.as_str())) {
        let cause = Cause::Repeated(column.clone());
        return Err(TableError::at(path, format, header.line, cause));
    }
    let rows: Vec<Row> = rows.collect();
    let is_ragged = |row: &&Row| row.cells.len() != columns.len();
    if let Some(row) = rows.iter().find(is_ragged) {
        let cause = Cause::Ragged {
            cells: row.cells.len(),
            columns: columns.len(),
        };
        return Err(TableError::at(path, format, row.line, cause));
    }
    Ok(Table {
        columns,
        rows,
        format,
    })
}

/// Reads the array of objects `value`.
///
/// # Errors
/// When it is something else.
pub fn from_json(value: &serde_json::Value, path: &Path) -> Result<Table, TableError> {
    json::table(value, path)
}

/// Reads JSON Lines.
///
/// # Errors
/// When a line is no JSON object.
pub fn from_json_lines(text: &str, path: &Path) -> Result<Table, TableError> {
    json::lines(text, path)
}

/// Reads the Parquet file `path`. Lists and structures become JSON text.
///
/// # Errors
/// When the file cannot be read.
pub fn parquet(path: &Path) -> Result<Table, TableError> {
    columnar::read(path)
}

/// Returns what a file that begins with `bytes` is, if that is a common kind that is no text.
fn binary(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [0x1f, 0x8b, ..] => "is compressed by gzip: unpack it",
        [b'P', b'K', 3, 4] => "is a zip file: unpack it",
        [0x28, 0xb5, 0x2f, 0xfd] => "is compressed by zstd: unpack it",
        [0x80, 2..=5, ..] => "is a Python pickle: give it as CSV, JSON or Parquet",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
