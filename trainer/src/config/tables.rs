//! Configurations as tables of TOML: read, laid over each other, compared.

use super::ConfigError;
use std::path::Path;
use toml::{Table, Value};

/// The tables of a file.
pub(super) fn parse_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let error = |error: toml::de::Error| ConfigError::Parse { path: path.to_owned(), message: error.to_string().trim().to_owned() };
    text.parse().map_err(error)
}

/// Sets `key` where a flag was given.
pub(super) fn set<T>(key: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *key = value;
    }
}

/// Lays the values of `over` onto `table`, table by table. `length` is replaced as a whole: it has one key or the other.
pub(super) fn lay_over(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) if key != "length" => lay_over(under, over),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

pub(super) fn compare(key: &str, mine: &Value, other: &Value, differences: &mut Vec<String>) {
    match (mine, other) {
        (Value::Table(mine), Value::Table(other)) if mine.keys().eq(other.keys()) => {
            for (name, value) in mine {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&key, value, &other[name], differences);
            }
        }
        _ if mine == other => {}
        _ => differences.push(format!("{key}: {}, not {}", plain(mine), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Table(table) => table.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
