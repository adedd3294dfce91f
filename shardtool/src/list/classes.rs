//! Files of class names.

use super::{Entry, FORMS, Reading, values};
use anyhow::{anyhow, ensure};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

/// Names of classes by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// The list file that gives them.
    pub file: usize,
    /// Names by number. The numbers are those of the file; UCF101 counts from 1.
    pub names: BTreeMap<i32, String>,
}

/// The classes of one file.
pub struct ClassFile {
    /// What they are classes of.
    pub kind: ClassKind,
    /// Names by number, with the lines that give them.
    pub names: BTreeMap<i32, String>,
}

/// What classes are classes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassKind {
    /// Of verbs.
    Verb,
    /// Of nouns.
    Noun,
    /// Unknown.
    Any,
}

impl ClassKind {
    /// Returns the kind of which the name of a file or column speaks.
    pub fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match (name.contains("verb"), name.contains("noun")) {
            (true, false) => Self::Verb,
            (false, true) => Self::Noun,
            _ => Self::Any,
        }
    }

    /// Returns the word for messages.
    const fn word(self) -> &'static str {
        match self {
            Self::Verb => "verbs",
            Self::Noun => "nouns",
            Self::Any => "classes",
        }
    }
}

/// Collects class names by number.
///
/// # Errors
/// With the line and what is wrong there, when a number or a name occurs twice.
pub fn collect(
    kind: ClassKind,
    rows: impl Iterator<Item = (usize, i32, String)>,
) -> Result<ClassFile, (usize, String)> {
    let mut names = BTreeMap::new();
    let mut seen = HashSet::new();
    for (line, number, name) in rows {
        if !seen.insert(name.clone()) {
            return Err((line, format!("repeats the class {name}")));
        }
        if let Some(other) = names.insert(number, name.clone()) {
            let what = format!("gives the number {number} to {name}, which {other} has");
            return Err((line, what));
        }
    }
    Ok(ClassFile { kind, names })
}

/// Chooses the classes that belong to the labels of `readings`.
///
/// # Errors
/// When several files give them, or one gives those of other labels.
pub fn choose(files: &[PathBuf], readings: &[Reading]) -> anyhow::Result<Option<ClassMap>> {
    let labels = readings.iter().find_map(|reading| reading.label.as_deref());
    let wanted = labels.map_or(ClassKind::Any, ClassKind::of_name);
    let mut chosen: Option<(usize, &ClassFile)> = None;
    let mut others = None;
    for (file, reading) in readings.iter().enumerate() {
        for classes in &reading.classes {
            let is_other = classes.kind != ClassKind::Any && classes.kind != wanted;
            if is_other && wanted != ClassKind::Any {
                others = Some((file, classes.kind));
                continue;
            }
            if let Some((first, _)) = chosen {
                return Err(anyhow!(
                    "{} and {} both name classes: give one of them, or a column of their numbers \
                     with --list-label COLUMN\n{FORMS}",
                    files[first].display(),
                    files[file].display()
                ));
            }
            chosen = Some((file, classes));
        }
    }
    if let (None, Some((file, kind)), Some(label)) = (chosen, others, labels) {
        return Err(anyhow!(
            "{} names {}, but the labels are of the column {label}: give the file of its classes, \
             or another column with --list-label COLUMN\n{FORMS}",
            files[file].display(),
            kind.word()
        ));
    }
    Ok(chosen.map(|(file, classes)| ClassMap {
        file,
        names: classes.names.clone(),
    }))
}

/// Replaces the numbers of classes by their names, and checks names.
///
/// # Errors
/// When a class is not in the map.
pub fn apply(
    map: &ClassMap,
    files: &[PathBuf],
    entries: &mut [Entry],
    place: impl Fn(&Entry) -> String,
) -> anyhow::Result<()> {
    let source = files[map.file].display();
    let known: HashSet<&str> = map.names.values().map(String::as_str).collect();
    for entry in entries {
        let Some(label) = entry
            .label
            .as_deref()
            .filter(|label| !known.contains(label))
        else {
            continue;
        };
        ensure!(
            values::is_number(label),
            "{} has the class {label}, which {source} does not name",
            place(entry)
        );
        let number = label.parse::<i32>().ok();
        let Some(name) = number.and_then(|number| map.names.get(&number)) else {
            return Err(anyhow!(
                "{} has the class {label}, but {source} names {} to {}",
                place(entry),
                map.names.keys().next().copied().unwrap_or_default(),
                map.names.keys().last().copied().unwrap_or_default()
            ));
        };
        entry.label = Some(name.clone());
    }
    Ok(())
}

/// Brings the labels of one file to their common notation: -1 means none, and if all are numbers,
/// they are written alike.
///
/// # Errors
/// With the line and what is wrong there.
pub fn normalise(entries: &mut [Entry]) -> Result<(), (usize, String)> {
    for entry in entries.iter_mut() {
        let Some(label) = entry.label.as_deref() else {
            continue;
        };
        if !label.starts_with('-') || !values::is_number(label) {
            continue;
        }
        match label.strip_suffix(".0").unwrap_or(label).parse::<i64>() {
            Ok(-1) => entry.label = None,
            Ok(0) => {}
            _ => {
                let what =
                    format!("has the label {label}: the only number below 0 is -1, no label");
                return Err((entry.line, what));
            }
        }
    }
    let mut labels = entries.iter().filter_map(|entry| entry.label.as_deref());
    if !labels.all(values::is_number) {
        return Ok(());
    }
    let mut cache: HashMap<String, String> = HashMap::new();
    for entry in entries {
        let Some(label) = &mut entry.label else {
            continue;
        };
        if let Some(number) = cache.get(label) {
            label.clone_from(number);
            continue;
        }
        let Ok(number) = label.strip_suffix(".0").unwrap_or(label).parse::<i32>() else {
            let what = format!("has the label {label}: the greatest number is {}", i32::MAX);
            return Err((entry.line, what));
        };
        let number = number.to_string();
        cache.insert(label.clone(), number.clone());
        *label = number;
    }
    Ok(())
}
