//! Combines several list files, and finds what they repeat or contradict.

use super::{Bound, ClassMap, Entry, FORMS, Form, List, ListOptions, Reading, Recognised};
use super::{classes, official, place, values};
use anyhow::{anyhow, ensure};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// Combines what the files hold.
///
/// # Errors
/// When they contradict each other.
pub fn combine(
    files: &[PathBuf],
    readings: Vec<Reading>,
    options: &ListOptions,
) -> anyhow::Result<List> {
    refuse_mixed_splits(files, &readings)?;
    let has_label = readings.iter().any(|reading| reading.label.is_some());
    if let (Some(label), false) = (&options.label, has_label) {
        return Err(anyhow!(
            "no list file has a column {label} for the labels\n{FORMS}"
        ));
    }
    let map = classes::choose(files, &readings)?;
    if let Some(map) = &map {
        check_numbers(files, &readings, map)?;
    }
    let mut recognised = Vec::with_capacity(readings.len());
    let mut entries = Vec::new();
    for (file, mut reading) in readings.into_iter().enumerate() {
        let classes = reading.classes.iter().map(|classes| classes.names.len());
        let has_times = |entry: &Entry| entry.start.is_some() || entry.end.is_some();
        recognised.push(Recognised {
            file,
            form: reading.form,
            unit: reading.unit,
            entries: reading.entries.len() + classes.sum::<usize>(),
            segments: reading.entries.iter().any(has_times),
            notes: reading.notes,
        });
        entries.append(&mut reading.entries);
    }
    ensure!(
        !entries.is_empty(),
        "the list files name classes, but no videos\n{FORMS}"
    );
    let place_of = |entry: &Entry| {
        let unit = recognised[entry.file].unit;
        place(unit, entry.line, &files[entry.file])
    };
    let mut empty = Vec::new();
    entries.retain(|entry| match values::emptiness(entry.start, entry.end) {
        None => true,
        Some(reason) => {
            empty.push((place_of(entry), reason));
            false
        }
    });
    if let (true, Some((place, reason))) = (entries.is_empty(), empty.first()) {
        return Err(anyhow!(
            "all segments are empty: {place} has {reason}; are start and end exchanged?\n{FORMS}"
        ));
    }
    match &map {
        Some(map) => classes::apply(map, files, &mut entries, place_of)?,
        None => refuse_mixed_labels(&entries, place_of)?,
    }
    let mut list = List {
        files: files.to_vec(),
        entries,
        recognised,
        classes: map,
        duplicates: 0,
        relabelled: 0,
        empty,
    };
    drop_duplicates(&mut list)?;
    Ok(list)
}

/// Refuses files of several of the three splits of HMDB51, which overlap.
fn refuse_mixed_splits(files: &[PathBuf], readings: &[Reading]) -> anyhow::Result<()> {
    let mut first: Option<(&PathBuf, u8)> = None;
    for (file, reading) in files.iter().zip(readings) {
        if reading.form != Form::Hmdb51 {
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let Some((_, split)) = official::hmdb_name(&name) else {
            continue;
        };
        match first {
            Some((other, number)) if number != split => {
                let folder = file.with_file_name("");
                return Err(anyhow!(
                    "{} and {} are of different splits of HMDB51, which hold the same videos: give \
                     the files of one, such as {}*_test_split{number}.txt",
                    other.display(),
                    file.display(),
                    folder.display()
                ));
            }
            Some(_) => {}
            None => first = Some((file, split)),
        }
    }
    Ok(())
}

/// Checks that the numbers beside UCF101's paths are those of their classes.
fn check_numbers(files: &[PathBuf], readings: &[Reading], map: &ClassMap) -> anyhow::Result<()> {
    for (file, reading) in files.iter().zip(readings) {
        for (entry, number) in reading.entries.iter().zip(&reading.numbers) {
            let (Some(number), Some(class)) = (number, &entry.label) else {
                continue;
            };
            let named = map.names.get(number);
            ensure!(
                named == Some(class),
                "{} gives {class} the number {number}, which is {} in {}",
                place(reading.unit, entry.line, file),
                named.map_or("no class", String::as_str),
                files[map.file].display()
            );
        }
    }
    Ok(())
}

/// Refuses labels that are numbers in one file and names in another.
fn refuse_mixed_labels(
    entries: &[Entry],
    place_of: impl Fn(&Entry) -> String,
) -> anyhow::Result<()> {
    // Whether the labels of each file are numbers, and an entry with one.
    let mut kinds: Vec<(usize, bool, &Entry)> = Vec::new();
    for entry in entries {
        let Some(label) = &entry.label else { continue };
        let is_number = values::is_number(label);
        match kinds.last_mut() {
            Some((file, are_numbers, _)) if *file == entry.file => *are_numbers &= is_number,
            _ => kinds.push((entry.file, is_number, entry)),
        }
    }
    let numbers = kinds.iter().find(|(_, are_numbers, _)| *are_numbers);
    let names = kinds.iter().find(|(_, are_numbers, _)| !are_numbers);
    if let (Some((_, _, number)), Some((_, _, name))) = (numbers, names) {
        return Err(anyhow!(
            "{} has a class by its number, {}, and {} one by its name, {}: give a file of class \
             names and numbers as well\n{FORMS}",
            place_of(number),
            number.label.as_deref().unwrap_or_default(),
            place_of(name),
            name.label.as_deref().unwrap_or_default()
        ));
    }
    Ok(())
}

/// What makes two entries one segment.
type Segment = (String, Option<String>, Key, Key);

/// A bound that can be compared.
type Key = Option<(bool, u64)>;

/// Returns a bound that can be compared.
pub fn key(bound: Option<Bound>) -> Key {
    Some(match bound? {
        // Zero has two notations.
        Bound::Seconds(seconds) => (true, (seconds + 0.0).to_bits()),
        Bound::Frame(frame) => (false, frame),
    })
}

/// Removes entries that repeat an earlier one.
fn drop_duplicates(list: &mut List) -> anyhow::Result<()> {
    let mut first_of: HashMap<Segment, usize> = HashMap::with_capacity(list.entries.len());
    let mut labels: HashSet<(usize, String)> = HashSet::new();
    let mut relabelled: HashSet<usize> = HashSet::new();
    let mut keep = vec![true; list.entries.len()];
    for (index, keep) in keep.iter_mut().enumerate() {
        let entry = &list.entries[index];
        let cut = entry.cut.as_ref().map(|cut| cut.name.clone());
        let segment = (entry.name.clone(), cut, key(entry.start), key(entry.end));
        let first = *first_of.entry(segment).or_insert(index);
        let (label, split) = (entry.label.clone(), entry.split.clone());
        if first != index {
            if let (Some(one), Some(other)) = (&list.entries[first].split, &split) {
                ensure!(
                    one == other,
                    "{} and {} give {} the splits {one} and {other}: what is trained on would be \
                     tested on",
                    list.place(first),
                    list.place(index),
                    entry.name
                );
            }
            // What one line leaves open, the other may tell.
            let earlier = &mut list.entries[first];
            earlier.split = earlier.split.take().or(split);
            let split = earlier.split.clone();
            match (&earlier.label, &label) {
                (_, None) => *keep = false,
                (None, Some(_)) => {
                    earlier.label.clone_from(&label);
                    *keep = false;
                }
                (Some(_), Some(label)) => {
                    *keep = !labels.contains(&(first, label.clone()));
                    if *keep {
                        relabelled.insert(first);
                        list.entries[index].split = split;
                    }
                }
            }
        }
        if let Some(label) = label {
            labels.insert((first, label));
        }
    }
    list.duplicates = keep.iter().filter(|&&keep| !keep).count() as u64;
    list.relabelled = relabelled.len() as u64;
    let mut keep = keep.into_iter();
    list.entries.retain(|_| keep.next().unwrap_or(true));
    Ok(())
}
