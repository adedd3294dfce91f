//! Layers of settings: TOML tables laid over each other, each with a name for error messages.

use super::ConfigError;
use std::path::Path;
use toml::{Table, Value};

/// Old spellings of keys and what they are now. Every layer may still use them.
const RENAMED: [(&str, &str); 7] = [
    ("began_with", "init_from"),
    ("compute.recompute", "compute.gradient_checkpointing"),
    ("data.accumulate", "data.grad_accum"),
    ("data.holdout", "split.holdout"),
    ("data.repeat", "data.repeat_aug"),
    ("data.videos_per_class", "split.videos_per_class"),
    ("target.slices", "target.pred_frames"),
];

/// A key that version 0.1 did not have, and the value that its runs were computed with: presets may
/// have another.
const ADDED: (&str, f64) = ("model.position_std", 0.02);

/// A key of every configuration that a run has kept, and of no preset.
const KEPT: &str = "model.norm_epsilon";

/// Settings from one place: a preset, a file, or a flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The place, as errors name it.
    name: String,
    table: Table,
}

impl Layer {
    /// The settings of a TOML file. That of an older run means what it did.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    pub fn file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut layer = Self::text(path.display().to_string(), &text)?;
        let (added, value) = ADDED;
        if lookup(&layer.table, KEPT).is_some() && lookup(&layer.table, added).is_none() {
            insert(&mut layer.table, added, value.into());
        }
        Ok(layer)
    }

    /// The settings of a TOML text.
    ///
    /// # Errors
    /// When the text is not TOML.
    pub fn text(name: impl Into<String>, text: &str) -> Result<Self, ConfigError> {
        let name = name.into();
        match text.parse() {
            Ok(table) => Self::new(name, table),
            Err(error) => Err(ConfigError::parse(name, &error)),
        }
    }

    /// One setting, `value` at `key` (`masking.ratio`), from the place `name`.
    ///
    /// # Errors
    /// When the key is empty or has an empty part.
    pub fn key(
        name: impl Into<String>,
        key: &str,
        value: impl Into<Value>,
    ) -> Result<Self, ConfigError> {
        let name = name.into();
        if key.split('.').any(str::is_empty) {
            let message = format!("\"{key}\" is not a key, such as masking.ratio");
            return Err(ConfigError::Parse {
                layer: name,
                message,
            });
        }
        let mut table = Table::new();
        insert(&mut table, key, value.into());
        Self::new(name, table)
    }

    /// One setting as it is typed, `KEY=VALUE`. The value is TOML; a bare word is a string.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn assignment(name: impl Into<String>, text: &str) -> Result<Self, ConfigError> {
        let name = name.into();
        match text.split_once('=') {
            Some((key, value)) => Self::key(name, key.trim(), parse_value(value.trim())),
            None => {
                let message = "not of the form KEY=VALUE, such as masking.ratio=0.75".to_owned();
                Err(ConfigError::Parse {
                    layer: name,
                    message,
                })
            }
        }
    }

    /// Lays `other` over this layer, which keeps its name.
    pub(super) fn add(&mut self, other: &Self) {
        lay_over(&mut self.table, other.table.clone());
    }

    /// The text at a key of the top level.
    pub(super) fn string(&self, key: &str) -> Option<&str> {
        self.table.get(key)?.as_str()
    }

    fn new(name: String, mut table: Table) -> Result<Self, ConfigError> {
        for (old, new) in RENAMED {
            let Some(value) = remove(&mut table, old) else {
                continue;
            };
            if lookup(&table, new).is_some() {
                let message = format!("{old} is the old spelling of {new}; give only {new}");
                return Err(ConfigError::Parse {
                    layer: name,
                    message,
                });
            }
            insert(&mut table, new, value);
        }
        Ok(Self { name, table })
    }

    /// Lays `layers` over this one, the later over the earlier, and parses the result. An error
    /// names the layer that caused it.
    pub(super) fn resolve<T>(
        self,
        layers: &[Self],
        parse: impl Fn(Table) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let named = |layer: &Self, message| ConfigError::Parse {
            layer: layer.name.clone(),
            message,
        };
        let mut parsed = parse(self.table.clone()).map_err(|message| named(&self, message))?;
        let mut table = self.table;
        for layer in layers {
            lay_over(&mut table, layer.table.clone());
            parsed = parse(table.clone()).map_err(|message| named(layer, message))?;
        }
        Ok(parsed)
    }
}

/// A value as it is typed: TOML, or else a number, or else a string.
pub fn parse_value(text: &str) -> Value {
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"));
    let single = as_toml.ok().filter(|table| table.len() == 1);
    single
        .and_then(|mut table| table.remove("value"))
        .or_else(|| text.parse::<f64>().ok().map(Value::from))
        .unwrap_or_else(|| Value::from(text))
}

/// Lays the values of `over` onto `table`, table by table. `length` is replaced as a whole: it has
/// one key or the other.
fn lay_over(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) if key != "length" => {
                lay_over(under, over);
            }
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// Sets the value at a dotted key. What is in the way of a table is replaced by it.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let entry = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            if let Value::Table(under) = entry {
                insert(under, rest, value);
            }
        }
    }
}

/// Takes the value at a dotted key out, and the table that it leaves empty with it.
fn remove(table: &mut Table, key: &str) -> Option<Value> {
    let Some((first, rest)) = key.split_once('.') else {
        return table.remove(key);
    };
    let under = table.get_mut(first)?.as_table_mut()?;
    let value = remove(under, rest)?;
    if under.is_empty() {
        table.remove(first);
    }
    Some(value)
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => lookup(table.get(first)?.as_table()?, rest),
    }
}

/// Appends the keys on which two configurations differ: `schedule.length: steps = 300, not
/// steps = 500`.
pub(super) fn compare(key: &str, mine: &Value, other: &Value, differences: &mut Vec<String>) {
    compare_set(key, Some(mine), Some(other), differences);
}

/// Compares values that may not be set. Tables of which one has all keys of the other are compared
/// key by key.
fn compare_set(
    key: &str,
    mine: Option<&Value>,
    other: Option<&Value>,
    differences: &mut Vec<String>,
) {
    let empty = Table::new();
    let table = |value: Option<&'_ Value>| match value {
        Some(Value::Table(table)) => Some(table.clone()),
        Some(_) => None,
        None => Some(empty.clone()),
    };
    let is_table = |value: Option<&Value>| value.is_some_and(Value::is_table);
    if let (true, Some(mine), Some(other)) =
        (is_table(mine) || is_table(other), table(mine), table(other))
    {
        let holds = |one: &Table, other: &Table| other.keys().all(|key| one.contains_key(key));
        if holds(&mine, &other) || holds(&other, &mine) {
            let larger = if holds(&mine, &other) { &mine } else { &other };
            for name in larger.keys() {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                compare_set(&key, mine.get(name), other.get(name), differences);
            }
            return;
        }
    }
    if mine != other {
        let render = |value: Option<&Value>| value.map_or("set".to_owned(), render);
        let shown = mine.map_or("not set".to_owned(), |mine| render(Some(mine)));
        differences.push(format!("{key}: {shown}, not {}", render(other)));
    }
}

fn render(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            pairs.join(", ")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        parse_value(text)
    }

    #[test]
    fn values_are_toml_numbers_or_bare_words() {
        assert_eq!(value("0.75"), Value::Float(0.75));
        assert_eq!(value(".75"), Value::Float(0.75));
        assert_eq!(value("8"), Value::Integer(8));
        assert_eq!(value("true"), Value::Boolean(true));
        assert_eq!(value("tube"), Value::from("tube"));
        assert_eq!(value("\"tube\""), Value::from("tube"));
        assert_eq!(
            value("[0.5, 1]"),
            Value::Array(vec![Value::Float(0.5), Value::Integer(1)])
        );
        assert!(value("{ steps = 5 }").is_table());
        // Two assignments are not one value.
        assert_eq!(value("1\nother = 2"), Value::from("1\nother = 2"));
    }

    #[test]
    fn old_spellings_are_read_as_the_new_keys() {
        let old = Layer::text(
            "old",
            "began_with = \"a\"\n[data]\naccumulate = 2\nholdout = 0.1\n",
        );
        let new = Layer::text(
            "old",
            "init_from = \"a\"\n[data]\ngrad_accum = 2\n[split]\nholdout = 0.1\n",
        );
        assert_eq!(old.expect("TOML"), new.expect("TOML"));
        let both = Layer::text("f.toml", "[data]\naccumulate = 2\ngrad_accum = 3");
        assert_eq!(
            both.expect_err("both").to_string(),
            "f.toml: data.accumulate is the old spelling of data.grad_accum; give only \
             data.grad_accum"
        );
    }

    #[test]
    fn assignments_without_key_or_value_are_refused() {
        let error = |text: &str| {
            Layer::assignment("--set", text)
                .expect_err(text)
                .to_string()
        };
        let form = "--set: not of the form KEY=VALUE, such as masking.ratio=0.75";
        assert_eq!(error("masking.ratio"), form);
        assert_eq!(
            error("=5"),
            "--set: \"\" is not a key, such as masking.ratio"
        );
        assert_eq!(
            error("a..b=5"),
            "--set: \"a..b\" is not a key, such as masking.ratio"
        );
    }

    #[test]
    fn the_layer_that_does_not_parse_is_named() {
        let layer = |name: &str, text: &str| Layer::text(name, text).expect("TOML");
        let parse = |table: Table| match table["a"].as_integer() {
            Some(a) => Ok(a),
            None => Err("not a number".to_owned()),
        };
        let base = layer("preset", "a = 1");
        let layers = [
            layer("file", "a = 2"),
            layer("--a", "a = 'x'"),
            layer("--b", "b = 1"),
        ];
        assert_eq!(
            base.clone().resolve(&layers[..1], parse).expect("numbers"),
            2
        );
        let error = base.resolve(&layers, parse).expect_err("a word");
        assert_eq!(error.to_string(), "--a: not a number");
    }
}
