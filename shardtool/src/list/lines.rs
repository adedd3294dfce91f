//! Entries of lines of paths, with or without labels.

use super::forms::amount;
use super::{Entry, Form, Reading, Source, values};
use pipeline::table::{self, Comments, Row};

/// A line that is not blank: its number, and its text without blanks around it.
pub type Line<'t> = (usize, &'t str);

/// Returns the lines of `text` that are not blank.
pub fn numbered(text: &str) -> Vec<Line<'_>> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

/// Reads lines of a path, and perhaps a label.
pub fn plain(source: &Source, text: &str) -> anyhow::Result<Reading> {
    let mut lines = numbered(text);
    lines.retain(|(_, line)| !line.starts_with('#'));
    if source.options.label.is_some() {
        return Err(source.refusal("has no header, so that its columns have no names"));
    }
    if lines.iter().all(|(_, line)| split_video(line).is_some()) {
        return with_extensions(source, &lines);
    }
    // Labels of Something-Something contain commas.
    let mut ragged = None;
    for (delimiter, form) in [
        (b'\t', Form::Lines),
        (b';', Form::SomethingAnswers),
        (b',', Form::Lines),
    ] {
        let rows = table::records(text, delimiter, Comments::Hash, source.path)?;
        let Some(row) = rows.iter().find(|row| row.cells.len() != 2) else {
            return columns(source, form, &rows);
        };
        let is_used = rows.iter().any(|row| row.cells.len() > 1);
        if is_used && delimiter != b';' {
            ragged = Some((row.line, row.cells.len()));
        }
    }
    if let Some((line, cells)) = ragged {
        let what = format!(
            "has {}, but there is no header that names them: without one, a line is a path and a \
             label",
            amount(cells, "cell", "cells")
        );
        return Err(source.fault("line", line, &what));
    }
    words(source, &lines)
}

/// Reads rows of two cells.
fn columns(source: &Source, form: Form, rows: &[Row]) -> anyhow::Result<Reading> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let cell = |column: usize| {
            let text = row.cells.get(column)?.as_deref()?.trim();
            (!text.is_empty()).then_some(text)
        };
        let Some(path) = cell(0) else {
            return Err(source.fault("line", row.line, "has no path"));
        };
        let mut entry = source.entry(row.line, path);
        entry.label = cell(1).map(str::to_owned);
        entries.push(entry);
    }
    finish(source, form, entries)
}

/// Reads lines whose paths end with the extension of a video.
fn with_extensions(source: &Source, lines: &[Line]) -> anyhow::Result<Reading> {
    let mut entries = Vec::with_capacity(lines.len());
    for &(line, text) in lines {
        let (path, label) = split_video(text).unwrap_or((text, ""));
        let words: Vec<&str> = label.split_whitespace().collect();
        let mut entry = source.entry(line, path);
        entry.label = match words.as_slice() {
            [] => None,
            // Lists for training without labels have a start and -1.
            [start, "-1"] if values::is_number(start) => None,
            [_, _, ..] if words.iter().all(|word| values::is_number(word)) => {
                let what = format!(
                    "has several numbers after {path}: columns need a header that names them, and \
                     a video has one label"
                );
                return Err(source.fault("line", line, &what));
            }
            _ => Some(label.to_owned()),
        };
        entries.push(entry);
    }
    finish(source, Form::Lines, entries)
}

/// Splits a line after the first word that ends with the extension of a video, or after the quotes
/// with which it begins.
fn split_video(line: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = line.strip_prefix('"') {
        let (path, label) = quoted.split_once('"')?;
        let is_end = label.is_empty() || label.starts_with([' ', '\t']);
        return is_end.then_some((path, label.trim()));
    }
    let ends = line.match_indices([' ', '\t']).map(|(at, _)| at);
    let mut ends = ends.chain([line.len()]);
    let end = ends.find(|&end| values::is_video_name(&line[..end]))?;
    Some((&line[..end], line[end..].trim()))
}

/// Reads lines of one, two or three words: path, path and label, or path, frames and label.
fn words(source: &Source, lines: &[Line]) -> anyhow::Result<Reading> {
    let mut form = Form::Lines;
    let mut entries = Vec::with_capacity(lines.len());
    let mut first = None;
    for &(line, text) in lines {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = *first.get_or_insert(words.len());
        if words.len() != number {
            let what = format!(
                "has {} words, the first line has {number}: quote paths with blanks, or separate \
                 path and label by a comma",
                words.len()
            );
            return Err(source.fault("line", line, &what));
        }
        let (path, label) = match words.as_slice() {
            [path] => (path, None),
            [path, label] => (path, Some(label)),
            [path, frames, label] if values::is_number(frames) && values::is_number(label) => {
                form = Form::RawFrames;
                (path, Some(label))
            }
            _ => {
                let what = "is neither a path, nor a path and a label, nor a folder, a number of \
                            frames and a label: quote paths with blanks";
                return Err(source.fault("line", line, what));
            }
        };
        let mut entry = source.entry(line, path);
        entry.label = label.map(|label| (*label).to_owned());
        entries.push(entry);
    }
    let mut reading = finish(source, form, entries)?;
    if form == Form::RawFrames {
        reading.notes.push("numbers of frames ignored".to_owned());
    }
    Ok(reading)
}

/// Returns the reading, unless its first line is a header with unknown names.
fn finish(source: &Source, form: Form, entries: Vec<Entry>) -> anyhow::Result<Reading> {
    let is_number = |entry: &Entry| entry.label.as_deref().is_none_or(values::is_number);
    if let [first, others @ ..] = entries.as_slice()
        && !is_number(first)
        && !others.is_empty()
        && others.iter().all(is_number)
        && others.iter().any(|entry| entry.label.is_some())
        && !values::is_video_name(&first.name)
    {
        let what = "seems to be a header, as all other labels are numbers, but none of its columns \
                    is known to hold paths";
        return Err(source.fault("line", first.line, what));
    }
    let mut reading = Reading::of_entries(form, "line", entries);
    if reading.entries.iter().all(|entry| entry.label.is_none()) {
        reading.notes.push("no labels".to_owned());
    }
    Ok(reading)
}
