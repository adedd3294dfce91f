//! Entries of tables with a header.

use super::classes::{self, ClassKind};
use super::columns::{CLASS_COLUMNS, Roles, Unit, has, normal, position};
use super::values;
use super::{Bound, Cut, Entry, Form, Reading, Source};
use pipeline::table::{Format, Row, Table};
use std::path::Path;

/// Reads a table with a header.
pub fn read(source: &Source, table: &Table) -> anyhow::Result<Reading> {
    if let Some(columns) = class_columns(table) {
        return class_table(source, table, columns);
    }
    let form = form(source, table);
    let roles = source.roles(table, form)?;
    // The files of segments have these names whether times apply or not.
    let cut = position(table, "time_start").zip(position(table, "time_end"));
    let cut = cut.filter(|_| form == Form::Kinetics);
    let mut entries = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let entry = entry(source, &roles, row, form, cut);
        let fault = |what: String| source.fault_in(table.format, row.line, &what);
        entries.push(entry.map_err(fault)?);
    }
    let mut reading = Reading::of_entries(form, table.format.unit(), entries);
    reading.label = roles.label.map(|label| normal(&table.columns[label]));
    match roles.label {
        Some(label) if form != Form::Something => {
            let column = &table.columns[label];
            reading
                .notes
                .push(format!("labels from the column {column}"));
        }
        Some(_) => {}
        None => reading.notes.push("no labels".to_owned()),
    }
    if roles.ignores_times {
        reading.notes.push("times ignored".to_owned());
    }
    Ok(reading)
}

/// Returns the columns of numbers and names if `table` names classes.
fn class_columns(table: &Table) -> Option<(usize, usize)> {
    let is_numbers = |column: usize| {
        let cells = table.rows.iter().map(|row| row.cells[column].as_deref());
        let mut numbers = cells.map(|cell| cell.is_some_and(values::is_number));
        numbers.all(|is_number| is_number)
    };
    let found = CLASS_COLUMNS.iter().find_map(|(number, name)| {
        let columns = (position(table, number)?, position(table, name)?);
        // Columns in this order, and nothing that tells of videos.
        (columns == (0, 1) && is_numbers(0)).then_some(columns)
    });
    found.filter(|_| !has(table, &["video_id"]) && !has(table, &["path"]))
}

/// Reads a table of class numbers and names.
fn class_table(
    source: &Source,
    table: &Table,
    (number, name): (usize, usize),
) -> anyhow::Result<Reading> {
    let kind = match ClassKind::of_name(&table.columns[number]) {
        ClassKind::Any => ClassKind::of_name(&source.name()),
        kind => kind,
    };
    let mut rows = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let fault = |what: &str| source.fault_in(table.format, row.line, what);
        let number = row.cells[number].as_deref().unwrap_or_default();
        let Ok(number) = number.parse::<i32>() else {
            return Err(fault(&format!("has the class number {number}")));
        };
        let Some(name) = row.cells[name].clone() else {
            return Err(fault("has no name of the class"));
        };
        rows.push((row.line, number, name));
    }
    let classes = classes::collect(kind, rows.into_iter())
        .map_err(|(line, what)| source.fault_in(table.format, line, &what))?;
    let form = match normal(&table.columns[name]).ends_with("key") {
        true => Form::EpicClasses,
        false => Form::NumberedClasses,
    };
    Ok(Reading::of_classes(form, vec![classes]))
}

/// Returns the form of a table of videos, by its columns.
fn form(source: &Source, table: &Table) -> Form {
    let is_named_metadata = source
        .path
        .file_stem()
        .is_some_and(|stem| stem == "metadata");
    let is_epic = has(table, &["video_id", "participant_id"])
        && (has(table, &["narration_id"]) || has(table, &["uid", "start_timestamp"]));
    let is_ids = table.columns == ["id"] && table.format == Format::Json;
    if has(table, &["youtube_id", "time_start", "time_end"]) && !has(table, &["path"]) {
        Form::Kinetics
    } else if is_epic && !has(table, &["path"]) {
        Form::Epic
    } else if has(table, &["id", "template"]) || is_ids {
        Form::Something
    } else if is_named_metadata && (has(table, &["file_name"]) || has(table, &["video_file_name"]))
    {
        Form::HuggingFace
    } else {
        Form::Table
    }
}

/// Returns the entry of a row.
///
/// # Errors
/// With what is wrong, to be written after the line's place.
fn entry(
    source: &Source,
    roles: &Roles,
    row: &Row,
    form: Form,
    cut: Option<(usize, usize)>,
) -> Result<Entry, String> {
    let cell = |column: Option<usize>| {
        let text = row.cells[column?].as_deref()?.trim();
        (!text.is_empty()).then_some(text)
    };
    let Some(name) = cell(Some(roles.path)) else {
        return Err("has no path or id of a video".to_owned());
    };
    let bound = |column: Option<usize>| {
        let Some(text) = cell(column) else {
            return Ok(None);
        };
        Ok::<_, String>(Some(match roles.unit {
            Unit::Seconds => Bound::Seconds(values::seconds(text)?),
            Unit::Frames => Bound::Frame(values::frame(text)?),
        }))
    };
    let mut entry = source.entry(row.line, name);
    entry.start = bound(roles.start)?;
    entry.end = bound(roles.end)?;
    entry.label = cell(roles.label).map(str::to_owned);
    entry.split = cell(roles.split).map(values::split);
    entry.id = cell(roles.id).map(str::to_owned);
    match form {
        Form::Kinetics => {
            let whole = |column| values::frame(cell(Some(column))?).ok();
            entry.cut = cut
                .and_then(|(start, end)| whole(start).zip(whole(end)))
                .map(|(start, end)| whole_file(format!("{name}_{start:06}_{end:06}")));
        }
        // The number of EPIC-KITCHENS 55 is too short for the name of a file.
        Form::Epic => {
            entry.cut = entry
                .id
                .clone()
                .filter(|id| id.len() > name.len() && id.starts_with(name))
                .map(whole_file);
        }
        Form::Something => entry.label = entry.label.map(|label| label.replace(['[', ']'], "")),
        Form::HuggingFace if entry.split.is_none() => {
            entry.split = split_of_folders(name, source.path);
        }
        _ => {}
    }
    Ok(entry)
}

/// Returns a file that holds nothing but the segment.
pub fn whole_file(name: String) -> Cut {
    Cut {
        name,
        start: None,
        end: None,
    }
}

/// Returns the split that a folder in `name` has, or the folder of the list file.
fn split_of_folders(name: &str, list: &Path) -> Option<String> {
    let (folders, _) = name.rsplit_once('/').unwrap_or_default();
    let beside = list.parent().and_then(Path::file_name);
    let beside = beside.and_then(|name| name.to_str());
    let mut folders = folders.split('/').chain(beside);
    folders.find_map(values::known_split).map(str::to_owned)
}
