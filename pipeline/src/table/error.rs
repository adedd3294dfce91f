//! What can be wrong with the file of a table.

use super::Format;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

/// Something wrong with the file of a table.
#[derive(Debug)]
pub struct TableError {
    /// The file.
    pub path: PathBuf,
    /// What is counted, and the number: `("line", 3)`; none if the whole file is wrong.
    pub place: Option<(&'static str, usize)>,
    /// What is wrong there.
    pub cause: Cause,
}

/// What is wrong.
#[derive(Debug)]
pub enum Cause {
    /// The file cannot be read.
    Read(io::Error),
    /// The file is empty.
    Empty,
    /// The file is no text, but a known kind.
    Binary(&'static str),
    /// The text is not UTF-8.
    NotUtf8 {
        /// Whether it looks like UTF-16.
        utf16: bool,
    },
    /// A quote is not closed.
    OpenQuote,
    /// A row has more or fewer cells than the table has columns.
    Ragged {
        /// Number of cells.
        cells: usize,
        /// Number of columns.
        columns: usize,
    },
    /// Two columns have this name.
    Repeated(String),
    /// The JSON cannot be parsed.
    Json(String),
    /// The JSON is one object instead of an array of them.
    JsonObject,
    /// A JSON value that should be an object is none.
    NotAnObject,
    /// The Parquet file cannot be read.
    Parquet(String),
}

impl TableError {
    /// Returns the error of the whole file `path`.
    pub fn of_file(path: &Path, cause: Cause) -> Self {
        Self {
            path: path.to_owned(),
            place: None,
            cause,
        }
    }

    /// Returns the error of one line or row.
    pub fn at(path: &Path, format: Format, line: usize, cause: Cause) -> Self {
        Self {
            path: path.to_owned(),
            place: Some((format.unit(), line)),
            cause,
        }
    }
}

impl Display for TableError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if let Cause::Read(error) = &self.cause {
            return match error.kind() {
                io::ErrorKind::NotFound => write!(f, "cannot read {path}: no such file"),
                io::ErrorKind::PermissionDenied => {
                    write!(f, "cannot read {path}: permission denied")
                }
                _ => write!(f, "cannot read {path}: {error}"),
            };
        }
        match self.place {
            Some((unit, number)) => write!(f, "{unit} {number} of {path} {}", self.cause),
            None => write!(f, "{path} {}", self.cause),
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Empty => write!(f, "is empty"),
            Self::Binary(what) => write!(f, "{what}"),
            Self::NotUtf8 { utf16: true } => {
                write!(
                    f,
                    "is not UTF-8, it looks like UTF-16: save the file as UTF-8"
                )
            }
            Self::NotUtf8 { utf16: false } => write!(f, "is not UTF-8: save the file as UTF-8"),
            Self::OpenQuote => write!(f, "has a quote that is never closed"),
            Self::Ragged { cells, columns } => write!(
                f,
                "has {cells} cells, the header has {columns}: quote what contains a separator"
            ),
            Self::Repeated(column) if column.is_empty() => {
                write!(f, "has several columns without a name")
            }
            Self::Repeated(column) => write!(f, "has several columns named {column}"),
            Self::Json(error) => write!(f, "is not valid JSON: {error}"),
            Self::JsonObject => write!(
                f,
                "is one JSON object, by columns: write an array of objects, or an object per line \
                 (pandas: to_json(orient=\"records\", lines=True))"
            ),
            Self::NotAnObject => write!(f, "is no JSON object with the columns as keys"),
            Self::Parquet(error) => write!(f, "cannot be read as Parquet: {error}"),
        }
    }
}

impl Error for TableError {}
