//! [`Node`]: the tree of a condition.

use std::collections::BTreeSet;
use std::iter;

/// A comparison of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`, `==`
    Equal,
    /// `!=`, `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// By its operator.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "=" | "==" => Self::Equal,
            "!=" | "<>" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`, which gives a fraction.
    Divide,
    /// `%`, with the sign of the left operand.
    Remainder,
}

impl Arithmetic {
    /// Its operator.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// By its operator.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
        [Add, Subtract, Multiply, Divide, Remainder]
            .into_iter()
            .find(|operation| operation.symbol() == symbol)
    }
}

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `lower`
    Lower,
    /// `upper`
    Upper,
    /// `length`: characters of text, elements of a list.
    Length,
    /// `abs`
    Absolute,
}

impl Call {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Upper => "upper",
            Self::Length => "length",
            Self::Absolute => "abs",
        }
    }

    /// By its name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Lower, Self::Upper, Self::Length, Self::Absolute]
            .into_iter()
            .find(|call| call.name().eq_ignore_ascii_case(name))
    }
}

/// A part of a condition.
#[derive(Debug, Clone)]
pub enum Node {
    /// The value of a column.
    Column {
        /// Its name.
        name: String,
        /// Whether the name was quoted.
        quoted: bool,
        /// Where, in characters from 1.
        at: usize,
    },
    /// `null`
    Null,
    /// `true` or `false`
    Flag(bool),
    /// Text in single quotes.
    Text(String),
    /// A number without fraction and exponent.
    Whole(i128),
    /// Any other number; finite.
    Real(f64),
    /// Unary `-`.
    Negative(Box<Node>),
    /// An operation on two numbers.
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    /// A comparison.
    Comparison(Comparison, Box<Node>, Box<Node>),
    /// `and` of two or more.
    All(Vec<Node>),
    /// `or` of two or more.
    Any(Vec<Node>),
    /// `not`
    Not(Box<Node>),
    /// `in`
    In(Box<Node>, Vec<Node>),
    /// `between`: value, low, high.
    Between(Box<[Node; 3]>),
    /// `like` or `ilike`
    Like {
        /// The text to match.
        text: Box<Node>,
        /// The pattern, with `\` before each character that stands for itself.
        pattern: String,
        /// Whether upper and lower case are one.
        any_case: bool,
    },
    /// `is null`
    IsNull(Box<Node>),
    /// `is true` or `is false`; `is unknown` for none.
    Is(Box<Node>, Option<bool>),
    /// A function.
    Call(Call, Box<Node>),
    /// An element of a list: counted from 1, or from the end as -1.
    Element(Box<Node>, i64),
}

impl Node {
    /// The parts that it consists of, in the order of the text.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Column { .. } | Self::Null | Self::Flag(_) | Self::Text(_) => Vec::new(),
            Self::Whole(_) | Self::Real(_) => Vec::new(),
            Self::Arithmetic(_, left, right) | Self::Comparison(_, left, right) => {
                vec![left, right]
            }
            Self::All(parts) | Self::Any(parts) => parts.iter().collect(),
            Self::In(value, items) => iter::once(value.as_ref()).chain(items).collect(),
            Self::Between(parts) => parts.iter().collect(),
            Self::Negative(part)
            | Self::Not(part)
            | Self::Like { text: part, .. }
            | Self::IsNull(part)
            | Self::Is(part, _)
            | Self::Call(_, part)
            | Self::Element(part, _) => vec![part],
        }
    }

    /// Adds the names of its columns.
    pub fn add_columns(&self, names: &mut BTreeSet<String>) {
        if let Self::Column { name, .. } = self {
            names.insert(name.clone());
        }
        for part in self.parts() {
            part.add_columns(names);
        }
    }
}
