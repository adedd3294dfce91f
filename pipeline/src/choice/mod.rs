//! Chooses clips of shards by their columns: by class, by split, by a condition, or by a list of
//! rows. Nothing is copied: a choice is the numbers of the clips that stay.
//!
//! - [`expression`]: conditions, a subset of SQL.
//! - `select`: files that list clips, as DuckDB or pandas write them.

pub mod expression;
mod select;

use crate::shard::{Shard, ShardError, ShardSet};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Int32Type;
use expression::{Expression, ExpressionError};
pub use schemas::choice::Choice;
use select::Selection;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The clips that a choice leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Their numbers in the set, in order.
    pub clips: Vec<u32>,
    /// Number of clips in the set.
    pub all: usize,
    /// What left out how many clips: each condition those that the ones before it have left.
    pub left_out: Vec<(&'static str, usize)>,
}

/// Why clips cannot be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// A shard cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The condition is invalid.
    #[error("--where: {0}")]
    Condition(#[from] ExpressionError),
    /// There are no clips of a name.
    #[error("{} has no {kind} \"{name}\"; {}", path.display(), listed(kind, known))]
    Unknown {
        /// Folder of the shards.
        path: PathBuf,
        /// `class` or `split`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The list of clips cannot be used.
    #[error("--select {}: {reason}", path.display())]
    Select {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A column is missing.
    #[error(
        "{} is of an older format and has no column {column}: build these shards again to have it",
        path.display()
    )]
    OldShard {
        /// The shard.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// No clip is left.
    #[error("no clip of {} is chosen: {left_out}", path.display())]
    Nothing {
        /// Folder of the shards.
        path: PathBuf,
        /// What left out the clips.
        left_out: String,
    },
}

fn listed(kind: &str, known: &[String]) -> String {
    const NAMED: usize = 10;
    let plural = if kind == "class" { "classes" } else { "splits" };
    match known {
        [] => format!("it has no {plural}"),
        _ => {
            let shown = known.iter().take(NAMED).map(String::as_str);
            let more = known.len().saturating_sub(NAMED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!(
                "its {plural} are {}{more}",
                shown.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// Chooses clips of `shards`.
///
/// ```
/// use pipeline::choice::{Choice, choose};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let shards = pipeline::shard::synthetic::write(dir.path(), 10)?;
/// let choice = Choice {
///     condition: Some("video in ('synthetic-2', 'synthetic-5')".to_owned()),
///     ..Choice::default()
/// };
/// let chosen = choose(&choice, &shards)?;
/// assert_eq!(chosen.clips, [2, 5]);
/// assert_eq!(chosen.render(), "2 of 10 clips chosen: where leaves out 8");
/// # Ok(()) }
/// ```
///
/// # Errors
/// When a shard or the list cannot be read, a name or a column is unknown, the condition is
/// invalid, or no clip is left.
pub fn choose(choice: &Choice, shards: &ShardSet) -> Result<Chosen, ChoiceError> {
    let condition = choice
        .condition
        .as_deref()
        .map(Expression::parse)
        .transpose()?;
    let selection = choice.select.as_deref().map(Selection::read).transpose()?;
    let mut known = Known::default();
    let mut left_out = [0; 4];
    let mut clips = Vec::new();
    let mut first = 0;
    for shard in shards.shards() {
        let columns = read_columns(shard, choice, condition.as_ref(), selection.as_ref())?;
        known.add(&columns);
        let masks = [
            in_classes(choice, &columns),
            in_splits(choice, &columns),
            condition
                .as_ref()
                .map(|condition| condition.evaluate(&columns))
                .transpose()?,
            selection.as_ref().map(|list| list.mask(&columns, first)),
        ];
        for row in 0..columns.num_rows() {
            let is_out =
                |mask: &Option<BooleanArray>| mask.as_ref().is_some_and(|mask| !mask.value(row));
            match masks.iter().position(is_out) {
                Some(condition) => left_out[condition] += 1,
                None => clips.push((first + row) as u32),
            }
        }
        first += columns.num_rows();
    }
    refuse_unknown(choice, shards, &known)?;
    if let Some(selection) = &selection {
        selection.refuse_unmatched()?;
    }
    let given = [
        ("classes", !choice.classes.is_empty()),
        ("split", !choice.split.is_empty()),
        ("where", condition.is_some()),
        ("select", selection.is_some()),
    ];
    let given = given.into_iter().zip(left_out);
    let chosen = Chosen {
        clips,
        all: first,
        left_out: given
            .filter(|&((_, is_given), _)| is_given)
            .map(|((name, _), clips)| (name, clips))
            .collect(),
    };
    if chosen.clips.is_empty() && !choice.is_all() {
        return Err(ChoiceError::Nothing {
            path: shards.dir().to_owned(),
            left_out: chosen.render_left_out(),
        });
    }
    Ok(chosen)
}

/// The names of the splits that clips of `shards` are in; none where a shard is older than splits.
///
/// # Errors
/// When a shard cannot be read.
pub fn splits(shards: &ShardSet) -> Result<BTreeSet<String>, ChoiceError> {
    let mut known = Known::default();
    for shard in shards.shards() {
        known.add(&read_columns(shard, &Choice::default(), None, None)?);
    }
    Ok(known.splits)
}

/// Reads the columns that the conditions need.
fn read_columns(
    shard: &Shard,
    choice: &Choice,
    condition: Option<&Expression>,
    selection: Option<&Selection>,
) -> Result<RecordBatch, ChoiceError> {
    let schema = shard.schema()?;
    let mut names: BTreeSet<&str> = BTreeSet::from(["class", "label"]);
    if schema.column_with_name("split").is_some() {
        names.insert("split");
    } else if !choice.split.is_empty() {
        return Err(old_shard(shard, "split"));
    }
    if let Some(selection) = selection {
        for name in selection.columns() {
            names.insert(name);
        }
    }
    if let Some(condition) = condition {
        let newest = schemas::shard::arrow_schema();
        for column in condition.columns() {
            if schema.column_with_name(column).is_none()
                && newest.column_with_name(column).is_some()
            {
                return Err(old_shard(shard, column));
            }
        }
        condition.check(&schema)?;
        for name in condition.columns() {
            names.insert(name);
        }
    }
    Ok(shard.columns(&names)?)
}

fn in_classes(choice: &Choice, columns: &RecordBatch) -> Option<BooleanArray> {
    if choice.classes.is_empty() {
        return None;
    }
    let names = class_names(columns);
    let is_in = |name: &Option<String>| {
        name.as_ref()
            .is_some_and(|name| choice.classes.contains(name))
    };
    Some(names.iter().map(|name| Some(is_in(name))).collect())
}

fn in_splits(choice: &Choice, columns: &RecordBatch) -> Option<BooleanArray> {
    if choice.split.is_empty() {
        return None;
    }
    let splits = columns.column_by_name("split")?.as_string_opt::<i32>()?;
    let is_in = |split: Option<&str>| {
        split.is_some_and(|split| choice.split.iter().any(|name| name == split))
    };
    Some(splits.iter().map(|split| Some(is_in(split))).collect())
}

fn refuse_unknown(choice: &Choice, shards: &ShardSet, known: &Known) -> Result<(), ChoiceError> {
    let lists = [
        ("class", &choice.classes, &known.classes),
        ("split", &choice.split, &known.splits),
    ];
    for (kind, names, known) in lists {
        if let Some(name) = names.iter().find(|name| !known.contains(*name)) {
            return Err(ChoiceError::Unknown {
                path: shards.dir().to_owned(),
                kind,
                name: name.clone(),
                known: known.iter().cloned().collect(),
            });
        }
    }
    Ok(())
}

fn old_shard(shard: &Shard, column: &str) -> ChoiceError {
    ChoiceError::OldShard {
        path: shard.path().to_owned(),
        column: column.to_owned(),
    }
}

/// The name of each row's class; its number if classes have no names.
fn class_names(columns: &RecordBatch) -> Vec<Option<String>> {
    let column = |name: &str| columns.column_by_name(name);
    let classes = column("class").and_then(|column| column.as_string_opt::<i32>());
    let labels = column("label").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let name = |row: usize| {
        let class = classes.filter(|classes| classes.is_valid(row));
        let label = labels.filter(|labels| labels.is_valid(row));
        class
            .map(|classes| classes.value(row).to_owned())
            .or_else(|| label.map(|labels| labels.value(row).to_string()))
    };
    (0..columns.num_rows()).map(name).collect()
}

/// The names that rows have.
#[derive(Default)]
struct Known {
    classes: BTreeSet<String>,
    splits: BTreeSet<String>,
}

impl Known {
    fn add(&mut self, columns: &RecordBatch) {
        self.classes
            .extend(class_names(columns).into_iter().flatten());
        let splits = columns.column_by_name("split");
        if let Some(splits) = splits.and_then(|column| column.as_string_opt::<i32>()) {
            let mut last = None;
            for split in splits.iter().flatten() {
                if last != Some(split) {
                    self.splits.insert(split.to_owned());
                    last = Some(split);
                }
            }
        }
    }
}

impl Chosen {
    /// Renders what was chosen: `80 of 100 clips chosen: split leaves out 20`.
    pub fn render(&self) -> String {
        format!(
            "{} of {} clips chosen: {}",
            self.clips.len(),
            self.all,
            self.render_left_out()
        )
    }

    fn render_left_out(&self) -> String {
        let parts = self
            .left_out
            .iter()
            .map(|(name, clips)| format!("{name} leaves out {clips}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}
