//! Errors as exceptions of the package.

use pipeline::choice::ChoiceError;
use pipeline::loader::LoadError;
use pipeline::shard::ShardError;
use pipeline::source::SourceError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The classes of `clipfeed._errors` that are raised here.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// What the caller asked for is impossible.
    Option,
    /// The data cannot be read.
    Data,
}

/// Flags of the programs in messages, and the arguments that stand for them here.
const ARGUMENTS: [(&str, &str); 4] = [
    ("--max-bad", "max_bad"),
    ("--loader-memory", "memory"),
    ("--values f32 or bf16", "dtype float32 or bfloat16"),
    ("--where", "where"),
];

/// An exception.
pub fn raise(py: Python<'_>, kind: Kind, message: &str) -> PyErr {
    let name = match kind {
        Kind::Option => "OptionError",
        Kind::Data => "DataError",
    };
    let mut message = message.to_owned();
    for (flag, argument) in ARGUMENTS {
        message = message.replace(flag, argument);
    }
    let class = py
        .import("clipfeed._errors")
        .and_then(|module| Ok(module.getattr(name)?.cast_into::<PyType>()?));
    match class {
        Ok(class) => PyErr::from_type(class, (message,)),
        Err(error) => error,
    }
}

/// Something impossible was asked for.
pub fn option(py: Python<'_>, message: &str) -> PyErr {
    raise(py, Kind::Option, message)
}

/// A shard or data set cannot be read.
pub fn of_shard(py: Python<'_>, error: &ShardError) -> PyErr {
    raise(py, Kind::Data, &error.to_string())
}

/// A clip cannot be read.
pub fn of_source(py: Python<'_>, error: &SourceError) -> PyErr {
    raise(py, Kind::Data, &error.to_string())
}

/// Clips cannot be chosen.
pub fn of_choice(py: Python<'_>, error: &ChoiceError) -> PyErr {
    let kind = match error {
        ChoiceError::Shard(_) | ChoiceError::OldShard { .. } => Kind::Data,
        _ => Kind::Option,
    };
    raise(py, kind, &error.to_string())
}

/// A batch cannot be made.
pub fn of_load(py: Python<'_>, error: &LoadError) -> PyErr {
    let kind = match error {
        LoadError::Grid(_)
        | LoadError::InstructionSet(_)
        | LoadError::TooFewFrames { .. }
        | LoadError::Option(_)
        | LoadError::Memory { .. } => Kind::Option,
        _ => Kind::Data,
    };
    raise(py, kind, &error.to_string())
}
