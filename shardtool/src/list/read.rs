//! Finds the form of a list file, and reads it.

use super::columns::{First, first_row};
use super::{Form, ListOptions, Reading, Source, classes, lines, nested, official, tables, values};
use pipeline::table::{self, Comments, Content};
use serde_json::Value;
use std::path::Path;

/// Reads the list file `path`, the one with number `file`.
///
/// # Errors
/// When it has none of the forms.
pub fn read(file: usize, path: &Path, options: &ListOptions) -> anyhow::Result<Reading> {
    let source = Source {
        file,
        path,
        options,
    };
    let mut reading = match table::content(path)? {
        Content::Text(text) => of_text(&source, &text)?,
        Content::Json(text) => of_json(&source, &table::json_value(&text, path)?)?,
        Content::JsonLines(text) => match single_object(&text) {
            Some(value) if nested::is_nested(&value) => nested::read(&source, &value)?,
            _ => tables::read(&source, &table::from_json_lines(&text, path)?)?,
        },
        Content::Parquet => tables::read(&source, &table::parquet(path)?)?,
    };
    if reading.entries.is_empty() && reading.classes.is_empty() {
        return Err(source.refusal("names no videos"));
    }
    name_split(&source, &mut reading);
    let unit = reading.unit;
    classes::normalise(&mut reading.entries)
        .map_err(|(line, what)| source.fault(unit, line, &what))?;
    Ok(reading)
}

/// Reads text that is no JSON.
fn of_text(source: &Source, text: &str) -> anyhow::Result<Reading> {
    if let Some(reading) = official::official(source, text)? {
        return Ok(reading);
    }
    let delimiter = table::delimiter(text, Comments::Hash);
    let is_header = |text: &str| {
        let header = text.lines().map(str::trim_start);
        let mut header = header.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = header.next().unwrap_or_default();
        let rows = table::records(first, delimiter, Comments::No, source.path);
        // A quote that continues on the next line is found below.
        let rows = rows.unwrap_or_default();
        rows.first()
            .map_or(First::Data, |row| first_row(&row.cells))
    };
    match is_header(text) {
        First::Header => {
            let table = table::separated(text, source.path, Comments::Hash)?;
            tables::read(source, &table)
        }
        First::WithoutPath => {
            let rows = table::records(text, delimiter, Comments::Hash, source.path)?;
            let line = rows.first().map_or(1, |row| row.line);
            let what = "is a header without a column for the path or id of the video";
            Err(source.fault("line", line, what))
        }
        First::Data => lines::plain(source, text),
    }
}

/// Reads one JSON value.
fn of_json(source: &Source, value: &Value) -> anyhow::Result<Reading> {
    if nested::is_nested(value) {
        return nested::read(source, value);
    }
    tables::read(source, &table::from_json(value, source.path)?)
}

/// Returns the object of a text that has only one line.
fn single_object(text: &str) -> Option<Value> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next()?;
    match lines.next() {
        None => serde_json::from_str(first).ok(),
        Some(_) => None,
    }
}

/// Gives entries without a split the one of which the file's name speaks, and notes the splits.
fn name_split(source: &Source, reading: &mut Reading) {
    if reading.entries.is_empty() {
        return;
    }
    let named = values::split_of_file(&source.name());
    if let Some(split) = named.filter(|_| reading.form != Form::Hmdb51) {
        for entry in &mut reading.entries {
            entry.split.get_or_insert_with(|| split.to_owned());
        }
    }
    let mut splits: Vec<&str> = Vec::new();
    for entry in &reading.entries {
        let split = entry.split.as_deref().unwrap_or("none");
        if !splits.contains(&split) && splits.len() < 5 {
            splits.push(split);
        }
    }
    splits.sort_unstable();
    let note = match splits.as_slice() {
        ["none"] => return,
        [split] => format!("split {split}"),
        splits => format!("splits {}", splits.join(", ")),
    };
    reading.notes.insert(0, note);
}
