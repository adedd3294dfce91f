//! Entries of official lists without a header: HMDB51, UCF101, Moments in Time; and class names.

use super::classes::{self, ClassKind};
use super::lines::{Line, numbered};
use super::{Form, Reading, Source, values};
use std::collections::HashMap;

/// Reads `text` if it has one of the forms of official lists without a header.
pub fn official(source: &Source, text: &str) -> anyhow::Result<Option<Reading>> {
    let lines = numbered(text);
    // Names of HMDB51 may begin with #, so that nothing is a comment here.
    if let Some(reading) = hmdb(source, &lines)? {
        return Ok(Some(reading));
    }
    if let Some(reading) = ucf(source, &lines)? {
        return Ok(Some(reading));
    }
    if let Some(reading) = numbered_classes(&lines)? {
        return Ok(Some(reading));
    }
    moments(source, &lines)
}

/// Returns class and split of a file of HMDB51 by its name.
pub fn hmdb_name(name: &str) -> Option<(&str, u8)> {
    let (class, rest) = name.rsplit_once("_test_split")?;
    let split = match rest {
        "1.txt" => 1,
        "2.txt" => 2,
        "3.txt" => 3,
        _ => return None,
    };
    (!class.is_empty()).then_some((class, split))
}

/// Reads a split of one class of HMDB51: names of files, and 0, 1 or 2.
fn hmdb(source: &Source, lines: &[Line]) -> anyhow::Result<Option<Reading>> {
    let name = source.name();
    let Some((class, number)) = hmdb_name(&name) else {
        return Ok(None);
    };
    let mut entries = Vec::new();
    let mut unused = 0;
    for &(line, text) in lines {
        let split = match text.rsplit_once(' ') {
            Some((_, "0")) => None,
            Some((_, "1")) => Some("train"),
            Some((_, "2")) => Some("test"),
            _ => {
                let what = "is no file name and 0, 1 or 2, as in the split lists of HMDB51";
                return Err(source.fault("line", line, what));
            }
        };
        let Some(split) = split else {
            unused += 1;
            continue;
        };
        let path = text[..text.len() - 2].trim_end();
        let mut entry = source.entry(line, path);
        entry.label = Some(class.to_owned());
        entry.split = Some(split.to_owned());
        entries.push(entry);
    }
    if entries.is_empty() && unused > 0 {
        return Err(source.refusal("uses none of its videos: all of its numbers are 0"));
    }
    let mut reading = Reading::of_entries(Form::Hmdb51, "line", entries);
    reading.notes = vec![
        "classes from the files' names".to_owned(),
        format!("split number {number}"),
    ];
    Ok(Some(reading))
}

/// Reads a split of UCF101: `Class/v_Class_g01_c01.avi`, and the number of the class.
fn ucf(source: &Source, lines: &[Line]) -> anyhow::Result<Option<Reading>> {
    let parse = |line: &str| {
        let (path, number) = match line.split_once(' ') {
            Some((path, number)) => (path, Some(number.trim().parse::<i32>().ok()?)),
            None => (line, None),
        };
        let (class, file) = path.split_once('/')?;
        let rest = file.strip_prefix("v_")?.strip_suffix(".avi")?;
        // Upper and lower case differ in HandstandPushups.
        let group = rest.get(class.len()..)?;
        let is_class = rest[..class.len()].eq_ignore_ascii_case(class);
        let is_file = group.starts_with("_g") && group.contains("_c");
        (is_class && is_file && !class.is_empty()).then(|| {
            let owned = (path.to_owned(), class.to_owned());
            (owned, number)
        })
    };
    let mut entries = Vec::with_capacity(lines.len());
    let mut numbers = Vec::with_capacity(lines.len());
    let mut number_of: HashMap<String, i32> = HashMap::new();
    for &(line, text) in lines {
        let Some(((path, class), number)) = parse(text) else {
            return Ok(None);
        };
        if let Some(number) = number {
            let first = *number_of.entry(class.clone()).or_insert(number);
            if first != number {
                let what = format!("gives {class} the number {number}, a line before {first}");
                return Err(source.fault("line", line, &what));
            }
        }
        let mut entry = source.entry(line, &path);
        entry.label = Some(class);
        entries.push(entry);
        numbers.push(number);
    }
    let mut reading = Reading::of_entries(Form::Ucf101, "line", entries);
    reading.numbers = numbers;
    reading.notes = vec!["classes from folders".to_owned()];
    Ok(Some(reading))
}

/// Reads lines of a number, counting up from 0 or 1, and the name of a class.
fn numbered_classes(lines: &[Line]) -> anyhow::Result<Option<Reading>> {
    let mut rows = Vec::with_capacity(lines.len());
    for &(line, text) in lines {
        let Some((number, name)) = text.split_once([' ', '\t', ',']) else {
            return Ok(None);
        };
        let Ok(number) = number.parse::<i32>() else {
            return Ok(None);
        };
        let first = rows.first().map_or(number, |&(_, first, _)| first);
        let counts = (0..=1).contains(&first) && number == first + rows.len() as i32;
        let name = name.trim();
        if !counts || values::is_number(name) || values::is_video_name(name) || name.is_empty() {
            return Ok(None);
        }
        rows.push((line, number, name.to_owned()));
    }
    // Names of classes that repeat are labels of videos with numbers as names.
    let Ok(classes) = classes::collect(ClassKind::Any, rows.into_iter()) else {
        return Ok(None);
    };
    let is_list = classes.names.len() > 1;
    Ok(is_list.then(|| Reading::of_classes(Form::NumberedClasses, vec![classes])))
}

/// Reads the lists of Moments in Time: path, class and two numbers; or class and number.
fn moments(source: &Source, lines: &[Line]) -> anyhow::Result<Option<Reading>> {
    let is_number = |cell: &&str| cell.bytes().all(|byte| byte.is_ascii_digit());
    let mut entries = Vec::with_capacity(lines.len());
    for &(line, text) in lines {
        let cells: Vec<&str> = text.split(',').map(str::trim).collect();
        let [path, class, votes @ ..] = cells.as_slice() else {
            return named_classes(source, lines);
        };
        let is_row = votes.len() == 2 && votes.iter().all(is_number);
        if !is_row || !values::is_video_name(path) || values::is_number(class) {
            return named_classes(source, lines);
        }
        let mut entry = source.entry(line, path);
        entry.label = (!class.is_empty()).then(|| (*class).to_owned());
        entries.push(entry);
    }
    Ok(Some(Reading::of_entries(Form::Moments, "line", entries)))
}

/// Reads lines of the name of a class and its number.
fn named_classes(source: &Source, lines: &[Line]) -> anyhow::Result<Option<Reading>> {
    let mut rows = Vec::with_capacity(lines.len());
    for &(line, text) in lines {
        let Some((name, number)) = text.rsplit_once([' ', '\t', ',']) else {
            return Ok(None);
        };
        let (name, number) = (name.trim(), number.parse::<i32>());
        let Ok(number) = number else { return Ok(None) };
        if name.contains(',') || values::is_video_name(name) || name.is_empty() {
            return Ok(None);
        }
        rows.push((line, number, name.to_owned()));
    }
    let count = rows.len();
    // Numbers that each occur once are more likely those of classes than labels of videos.
    let Ok(classes) = classes::collect(ClassKind::of_name(&source.name()), rows.into_iter()) else {
        return Ok(None);
    };
    let first = classes.names.keys().next().copied().unwrap_or_default();
    let last = classes.names.keys().last().copied().unwrap_or_default();
    let counts = (0..=1).contains(&first) && (last - first) as usize + 1 == count;
    let is_path = classes.names.values().any(|name| name.contains('/'));
    let name = source.name().to_ascii_lowercase();
    let is_named = ["categor", "class", "label"]
        .iter()
        .any(|word| name.contains(word));
    match (counts && count > 1, is_named) {
        (false, _) => Ok(None),
        (true, false) if is_path => Ok(None),
        (true, true) => Ok(Some(Reading::of_classes(Form::NamedClasses, vec![classes]))),
        (true, false) => Err(source.refusal(
            "may be a list of videos or of classes, as its numbers count up without repeating: \
             name a list of classes classes.txt, and give a list of videos a header",
        )),
    }
}
