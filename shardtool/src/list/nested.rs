//! Entries of JSON that is no table: Ego4D, ActivityNet and Kinetics; and class names.

use super::classes::{self, ClassKind};
use super::columns::{First, first_row};
use super::tables::whole_file;
use super::{Bound, Cut, Entry, Form, Reading, Source, values};
use serde_json::{Map, Value};

/// Times that are below zero by less than this, in seconds, are zero that was computed.
const ROUNDING: f64 = 0.01;

/// An object of JSON.
type Object = Map<String, Value>;

/// Whether a value is no table, but may have one of the forms here.
pub fn is_nested(value: &Value) -> bool {
    let Value::Object(object) = value else {
        return false;
    };
    let is_list = |key: &str| object.get(key).is_some_and(Value::is_array);
    is_list("videos")
        || is_list("clips")
        || is_list("annotations")
        || is_list("verbs")
        || database(object).is_some()
        || class_rows(object).is_some()
}

/// Reads a value that [`is_nested`].
pub fn read(source: &Source, value: &Value) -> anyhow::Result<Reading> {
    let Value::Object(object) = value else {
        return Err(source.refusal("is no JSON object"));
    };
    if let Some(rows) = class_rows(object) {
        let classes = classes::collect(ClassKind::of_name(&source.name()), rows.into_iter())
            .map_err(|(number, what)| source.fault("entry", number, &what))?;
        return Ok(Reading::of_classes(Form::ClassObject, vec![classes]));
    }
    if let (Some(verbs), Some(nouns)) = (object.get("verbs"), object.get("nouns")) {
        let verbs = taxonomy(source, ClassKind::Verb, verbs)?;
        let nouns = taxonomy(source, ClassKind::Noun, nouns)?;
        return Ok(Reading::of_classes(Form::Ego4dClasses, vec![verbs, nouns]));
    }
    let mut reader = Reader {
        source,
        entries: Vec::new(),
        number: 0,
        skipped: 0,
        label: None,
    };
    let form = if let Some(database) = database(object) {
        reader.activity_net(database)?;
        Form::ActivityNet
    } else if let Some(Value::Array(videos)) = object.get("videos") {
        reader.videos(videos)?
    } else if let Some(Value::Array(clips)) = object.get("clips") {
        reader.clips(clips)?;
        Form::Ego4dActions
    } else {
        return Err(reader.unknown());
    };
    reader.finish(form)
}

/// Returns the videos of ActivityNet or Kinetics by their ids.
fn database(object: &Object) -> Option<&Object> {
    let videos = match object.get("database") {
        Some(Value::Object(videos)) => videos,
        _ => object,
    };
    let has_annotations = |video: &Value| video.get("annotations").is_some();
    let is_database = !videos.is_empty() && videos.values().all(Value::is_object);
    (is_database && videos.values().any(has_annotations)).then_some(videos)
}

/// Returns the classes of an object of names and numbers, each with its number in the object.
fn class_rows(object: &Object) -> Option<Vec<(usize, i32, String)>> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse::<i32>().ok(),
        Value::Number(number) => number.as_i64().and_then(|number| number.try_into().ok()),
        _ => None,
    };
    let mut rows = Vec::with_capacity(object.len());
    for (index, (key, value)) in object.iter().enumerate() {
        let row = match (number(value), key.parse::<i32>(), value) {
            // Some lists have names in quotes.
            (Some(number), Err(_), _) => (number, key.trim_matches('"').to_owned()),
            (None, Ok(number), Value::String(name)) => (number, name.clone()),
            _ => return None,
        };
        rows.push((index + 1, row.0, row.1));
    }
    // One line of JSON Lines may look the same.
    let keys: Vec<Option<String>> = object.keys().cloned().map(Some).collect();
    (!rows.is_empty() && first_row(&keys) == First::Data).then_some(rows)
}

/// Reads a list of class names in the order of their numbers.
fn taxonomy(source: &Source, kind: ClassKind, names: &Value) -> anyhow::Result<classes::ClassFile> {
    let names = names.as_array().into_iter().flatten().enumerate();
    let mut rows = Vec::new();
    for (index, name) in names {
        let (Some(name), Ok(number)) = (name.as_str(), i32::try_from(index)) else {
            return Err(source.fault("entry", index + 1, "is no name of a class"));
        };
        rows.push((index + 1, number, name.to_owned()));
    }
    classes::collect(kind, rows.into_iter())
        .map_err(|(number, what)| source.fault("entry", number, &what))
}

/// Collects the entries of a value.
pub struct Reader<'a> {
    /// The list file.
    pub source: &'a Source<'a>,
    /// What was read so far.
    entries: Vec<Entry>,
    /// Number of the entry that is read, from 1.
    pub number: usize,
    /// Number of entries that the file itself declares invalid.
    pub skipped: u64,
    /// The key of labels.
    label: Option<String>,
}

impl Reader<'_> {
    /// Returns an error about the entry that is read.
    pub fn fault(&self, what: &str) -> anyhow::Error {
        self.source.fault("entry", self.number, what)
    }

    /// Returns the error of a file that has none of the forms.
    pub fn unknown(&self) -> anyhow::Error {
        self.source.refusal(
            "is JSON of an unknown form: of Ego4D, moments, fho_lta, fho_oscc-pnr and fho_main are \
             read, but no queries",
        )
    }

    /// Returns the text at `key`.
    pub fn text(&self, object: &Value, key: &str) -> anyhow::Result<String> {
        match object.get(key).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(self.fault(&format!("has no {key}"))),
        }
    }

    /// Returns the time at `key`, if it has one.
    pub fn time(&self, object: &Value, key: &str) -> anyhow::Result<Option<f64>> {
        let seconds = match object.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_f64(),
        };
        match seconds {
            Some(seconds) if seconds < -ROUNDING => {
                Err(self.fault(&format!("has the {key} {seconds}, which is negative")))
            }
            Some(seconds) => Ok(Some(seconds.max(0.0))),
            None => Err(self.fault(&format!("has a {key} that is no number"))),
        }
    }

    /// Returns both times, if both are given.
    pub fn times(
        &self,
        object: &Value,
        start: &str,
        end: &str,
    ) -> anyhow::Result<Option<(f64, f64)>> {
        Ok(self.time(object, start)?.zip(self.time(object, end)?))
    }

    /// Adds the entry with the number that was counted up last.
    pub fn push(
        &mut self,
        name: &str,
        times: Option<(f64, f64)>,
        label: Option<String>,
        split: Option<&str>,
        cut: Option<Cut>,
        id: Option<String>,
    ) -> anyhow::Result<()> {
        let bound = |seconds| self.source.options.times.then_some(Bound::Seconds(seconds));
        let mut entry = self.source.entry(self.number, name);
        entry.start = times.and_then(|(start, _)| bound(start));
        entry.end = times.and_then(|(_, end)| bound(end));
        entry.label = label.filter(|label| !label.is_empty());
        entry.split = split.map(values::split);
        entry.cut = cut;
        entry.id = id;
        self.entries.push(entry);
        Ok(())
    }

    /// Returns the label of `object`, at the key that was asked for or at `own`.
    pub fn label(&mut self, object: &Value, own: &str) -> Option<String> {
        let key = self.source.options.label.as_deref().unwrap_or(own);
        let value = object.get(key)?;
        self.label.get_or_insert_with(|| key.to_owned());
        match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Reads the videos of ActivityNet or Kinetics.
    fn activity_net(&mut self, videos: &Object) -> anyhow::Result<()> {
        for (id, video) in videos {
            let split = video.get("subset").and_then(Value::as_str);
            let (annotations, is_kinetics) = match video.get("annotations") {
                Some(Value::Array(annotations)) => (annotations.iter().collect(), false),
                Some(annotation @ Value::Object(_)) => (vec![annotation], true),
                _ => (Vec::new(), false),
            };
            if annotations.is_empty() {
                self.number += 1;
                self.push(id, None, None, split, None, None)?;
            }
            for annotation in annotations {
                self.number += 1;
                let segment = annotation.get("segment").and_then(Value::as_array);
                let times = match segment.map(Vec::as_slice) {
                    None => None,
                    Some([start, end]) => start.as_f64().zip(end.as_f64()),
                    Some(_) => None,
                };
                if segment.is_some() && times.is_none() {
                    return Err(self.fault(&format!("({id}) has a segment that is no two numbers")));
                }
                if times.is_some_and(|(start, _)| start < 0.0) {
                    return Err(self.fault(&format!("({id}) has a negative time")));
                }
                let label = self.label(annotation, "label");
                let cut = times.filter(|_| is_kinetics).map(|(start, end)| {
                    whole_file(format!("{id}_{:06}_{:06}", start as u64, end as u64))
                });
                self.push(id, times, label, split, cut, None)?;
            }
        }
        Ok(())
    }

    /// Returns what was read.
    fn finish(self, form: Form) -> anyhow::Result<Reading> {
        let mut reading = Reading::of_entries(form, "entry", self.entries);
        match &self.label {
            Some(label) => reading.notes.push(format!("labels from {label}")),
            None => reading.notes.push("no labels".to_owned()),
        }
        if self.skipped > 0 {
            let skipped = self.skipped;
            reading
                .notes
                .push(format!("{skipped} invalid or secondary skipped"));
        }
        reading.label = self.label;
        Ok(reading)
    }
}
