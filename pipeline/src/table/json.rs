//! Reads arrays of JSON objects, and JSON Lines.

use super::{Cause, Format, Row, Table, TableError};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// How a text uses JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    Value,
    /// An object per line.
    Lines,
    /// Not at all.
    None,
}

/// Returns how `text` uses JSON, by its beginning.
pub fn kind(text: &str) -> Kind {
    let mut chars = text.chars().filter(|c| !c.is_whitespace());
    match (chars.next(), chars.next()) {
        // A name may begin with a bracket: [720p] a.mp4
        (Some('['), None | Some('{' | '[' | ']' | '"')) => Kind::Value,
        (Some('{'), None | Some('"' | '}')) => {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let first = lines.next().unwrap_or_default();
            let is_object = serde_json::from_str::<Map<String, Value>>(first);
            match is_object {
                // One line of lists or objects is a table by columns, or nested.
                Ok(object) if lines.next().is_none() && object.values().any(is_nested) => {
                    Kind::Value
                }
                Ok(_) => Kind::Lines,
                // Several objects, the first of which is broken.
                Err(_) if first.trim_end().ends_with('}') && lines.next().is_some() => Kind::Lines,
                Err(_) => Kind::Value,
            }
        }
        _ => Kind::None,
    }
}

/// Parses one JSON value.
///
/// # Errors
/// When it is not valid.
pub fn value(text: &str, path: &Path) -> Result<Value, TableError> {
    serde_json::from_str(text).map_err(|error| {
        let cause = Cause::Json(reason(&error));
        TableError::at(path, Format::JsonLines, error.line(), cause)
    })
}

/// Makes a table of an array of objects.
pub fn table(value: &Value, path: &Path) -> Result<Table, TableError> {
    let Value::Array(values) = value else {
        let cause = match value {
            Value::Object(_) => Cause::JsonObject,
            _ => Cause::NotAnObject,
        };
        return Err(TableError::of_file(path, cause));
    };
    let mut builder = Builder::default();
    for (index, value) in values.iter().enumerate() {
        let Value::Object(object) = value else {
            return Err(TableError::at(
                path,
                Format::Json,
                index + 1,
                Cause::NotAnObject,
            ));
        };
        builder.push(index + 1, object);
    }
    Ok(builder.table(Format::Json))
}

/// Makes a table of an object per line.
pub fn lines(text: &str, path: &Path) -> Result<Table, TableError> {
    let mut builder = Builder::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let failed = |cause| TableError::at(path, Format::JsonLines, index + 1, cause);
        match serde_json::from_str(line) {
            Ok(Value::Object(object)) => builder.push(index + 1, &object),
            Ok(_) => return Err(failed(Cause::NotAnObject)),
            Err(error) => return Err(failed(Cause::Json(reason(&error)))),
        }
    }
    Ok(builder.table(Format::JsonLines))
}

/// Returns the text of a cell with `value`.
pub fn cell(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}

/// Collects rows whose columns are not known before.
#[derive(Default)]
struct Builder {
    /// Names of the columns.
    columns: Vec<String>,
    /// Number of each column.
    numbers: HashMap<String, usize>,
    /// The rows, without cells for columns that came later.
    rows: Vec<Row>,
}

impl Builder {
    /// Adds a row.
    fn push(&mut self, line: usize, object: &Map<String, Value>) {
        let mut cells = vec![None; self.columns.len()];
        for (key, value) in object {
            let number = match self.numbers.get(key) {
                Some(&number) => number,
                None => {
                    self.numbers.insert(key.clone(), self.columns.len());
                    self.columns.push(key.clone());
                    cells.push(None);
                    self.columns.len() - 1
                }
            };
            cells[number] = cell(value);
        }
        self.rows.push(Row { line, cells });
    }

    /// Returns the table.
    fn table(mut self, format: Format) -> Table {
        for row in &mut self.rows {
            row.cells.resize(self.columns.len(), None);
        }
        Table {
            columns: self.columns,
            rows: self.rows,
            format,
        }
    }
}

/// Whether `value` has parts.
fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// Returns the message of `error` without its place, which is named before it.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
