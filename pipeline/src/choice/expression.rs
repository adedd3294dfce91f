//! [`Expression`]: a condition over the columns of clips, in a subset of SQL.

mod describe;
mod evaluate;
mod node;
mod parse;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_text;
mod tokens;
mod values;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use node::Node;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// What a condition may contain, in one line.
pub const GRAMMAR: &str = "conditions are made of column names, numbers, 'text', true, false, \
    null, and or not, = == != <> < <= > >=, + - * / %, [not] in (..), [not] between .. and .., \
    [not] like, [not] ilike, is [not] null|true|false|unknown, lower(), upper(), length(), abs(), \
    list[1] and parentheses";

/// Why a condition cannot be read or evaluated. Positions count characters from 1.
#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    /// The text is not an expression.
    #[error("at character {at} of the condition: {problem}; {GRAMMAR}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong.
        problem: String,
    },
    /// SQL that conditions do not have.
    #[error("at character {at} of the condition: {what} is not supported{hint}; {GRAMMAR}")]
    Unsupported {
        /// Where.
        at: usize,
        /// Which construct.
        what: String,
        /// What to write instead, or nothing.
        hint: &'static str,
    },
    /// The text has more operators or levels than are read.
    #[error("the condition {0}")]
    TooLarge(String),
    /// No column has this name.
    #[error("at character {at} of the condition: there is no column `{name}`{hint}; columns: {}",
        columns.join(", "))]
    UnknownColumn {
        /// Where.
        at: usize,
        /// The name.
        name: String,
        /// What may have been meant, or nothing.
        hint: String,
        /// The columns that exist.
        columns: Vec<String>,
    },
    /// An operator does not take values of this type.
    #[error("in the condition, {0}")]
    Type(String),
    /// Whole numbers became too large.
    #[error("in the condition, `{0}` exceeds the range of 128-bit whole numbers")]
    Overflow(&'static str),
    /// Arrow refused.
    #[error("cannot evaluate the condition: {0}")]
    Arrow(#[from] ArrowError),
}

/// A condition over the columns of clips: a subset of SQL ([`GRAMMAR`]) with SQL's three-valued
/// logic.
///
/// Whole numbers are computed and compared exactly, with 128 bits; all others as [`f64`], and so is
/// a whole number with a fraction. Literals next to `Float32` values, and results of arithmetic on
/// these, are rounded to [`f32`]: `motion = 0.002` finds the values that were stored as 0.002, and
/// `motion > 0.002` does not. Between columns of different types, values keep their precision. `/`
/// is never a division of whole numbers. Division by zero, and its remainder, are null.
#[derive(Debug, Clone)]
pub struct Expression {
    root: Node,
    columns: BTreeSet<String>,
    text: String,
}

impl Expression {
    /// Parses `text`. Whether its columns exist, and have types that fit, is known only when it
    /// meets a schema: [`Self::check`].
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let root = parse::parse(text)?;
        let mut columns = BTreeSet::new();
        root.add_columns(&mut columns);
        let text = text.to_owned();
        Ok(Self {
            root,
            columns,
            text,
        })
    }

    /// Names of the columns that it uses, in byte order, each once: those to read before
    /// [`Self::evaluate`].
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(String::as_str)
    }

    /// Whether it can be evaluated over rows of `schema`. With the complete schema, the error of an
    /// unknown column lists all that exist, not only those that were read.
    pub fn check(&self, schema: &Schema) -> Result<(), ExpressionError> {
        let schema: SchemaRef = Arc::new(schema.clone());
        self.evaluate(&RecordBatch::new_empty(schema)).map(drop)
    }

    /// For each row whether the condition is true: null and false are both false. The result has no
    /// nulls.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray, ExpressionError> {
        evaluate::evaluate(&self.root, batch)
    }
}

/// The text that was parsed.
impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::str::FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        Self::parse(text)
    }
}
