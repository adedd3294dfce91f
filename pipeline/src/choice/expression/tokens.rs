//! [`tokens`]: the words, literals and operators of a condition.

use super::ExpressionError;

/// Most tokens of a condition, without literals and commas.
const MAX_TOKENS: usize = 1200;

/// Words that are names only in double quotes.
const KEYWORDS: [&str; 11] = [
    "and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false",
];

/// Operators and brackets; each before those that it starts with.
const OPERATORS: [&str; 18] = [
    "<=", "<>", "<", ">=", ">", "==", "=", "!=", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",",
];

/// Words of SQL that are refused unless they are quoted: as names of columns they would give
/// puzzling errors.
const REFUSED: [&str; 21] = [
    "select", "case", "cast", "exists", "distinct", "interval", "collate", "similar", "regexp",
    "rlike", "glob", "over", "from", "where", "group", "order", "limit", "union", "xor", "array",
    "isnull",
];

/// How tightly operators bind, the loosest first.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Power {
    /// No operator.
    Nothing,
    /// `or`
    Or,
    /// `and`
    And,
    /// `not` before an operand.
    Not,
    /// `is`
    Is,
    /// Comparisons, of which none is an operand of another without parentheses.
    Compare,
    /// `+`, `-`
    Sum,
    /// `*`, `/`, `%`, and `-` before an operand.
    Product,
}

impl Power {
    /// That of `symbol` between operands or after one.
    pub fn of(symbol: &str) -> Self {
        match symbol {
            "or" => Self::Or,
            "and" => Self::And,
            "is" => Self::Is,
            "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" => Self::Compare,
            "in" | "between" | "like" | "ilike" => Self::Compare,
            "+" | "-" => Self::Sum,
            "*" | "/" | "%" => Self::Product,
            _ => Self::Nothing,
        }
    }
}

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One of [`KEYWORDS`], in lower case, or of [`OPERATORS`].
    Symbol(&'static str),
    /// Any other word.
    Word,
    /// The content of double quotes.
    Name(String),
    /// The content of single quotes.
    Text(String),
    /// A number without sign, which may be malformed.
    Number,
    /// The end of the condition.
    End,
}

/// A token and its place.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// How it is written.
    pub text: &'a str,
    /// Where it starts, in characters from 1.
    pub at: usize,
}

impl Token<'_> {
    /// The error where something else was `expected`.
    pub fn unexpected(&self, expected: &str) -> ExpressionError {
        let problem = match self.kind {
            Kind::End => format!("expected {expected}, found the end"),
            _ => format!("expected {expected}, found `{}`", self.text),
        };
        syntax(self.at, problem)
    }
}

/// An error in the text.
pub fn syntax(at: usize, problem: impl Into<String>) -> ExpressionError {
    let problem = problem.into();
    ExpressionError::Syntax { at, problem }
}

/// An error for SQL that conditions do not have; `hint` continues its message.
pub fn unsupported(at: usize, what: impl Into<String>, hint: &'static str) -> ExpressionError {
    let what = what.into();
    ExpressionError::Unsupported { at, what, hint }
}

/// The tokens of `text`. The last, and no other, is [`Kind::End`].
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, ExpressionError> {
    let mut reader = Reader { rest: text, at: 1 };
    let mut tokens = Vec::new();
    let mut count = 0;
    loop {
        reader.take_while(char::is_whitespace);
        let (from, at) = (reader.rest, reader.at);
        let kind = reader.kind()?;
        let text = &from[..from.len() - reader.rest.len()];
        let is_end = kind == Kind::End;
        match kind {
            Kind::Number | Kind::Text(_) | Kind::Symbol(",") | Kind::End => {}
            Kind::Symbol(_) | Kind::Word | Kind::Name(_) => count += 1,
        }
        tokens.push(Token { kind, text, at });
        if is_end {
            break;
        }
    }
    if count > MAX_TOKENS {
        return Err(ExpressionError::TooLarge(format!(
            "has {count} names and operators, more than {MAX_TOKENS}; `in (..)` takes a list of \
             any length"
        )));
    }
    Ok(tokens)
}

/// Reads tokens from the start of a text.
struct Reader<'a> {
    /// What is not read yet.
    rest: &'a str,
    /// Where it starts, in characters from 1.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `len` bytes.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.at += taken.chars().count();
        taken
    }

    /// Reads characters while they are `wanted`.
    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !wanted(character));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Reads a token.
    fn kind(&mut self) -> Result<Kind, ExpressionError> {
        let mut next = self.rest.chars();
        match (next.next(), next.next()) {
            (None, _) => Ok(Kind::End),
            (Some('\''), _) => self.quoted('\'').map(Kind::Text),
            (Some('"'), _) => self.quoted('"').map(Kind::Name),
            (Some('0'..='9'), _) | (Some('.'), Some('0'..='9')) => {
                let mut last = ' ';
                self.take_while(|next| {
                    let is_sign = matches!((last, next), ('e' | 'E', '+' | '-'));
                    last = next;
                    is_sign || next == '.' || is_of_word(next)
                });
                Ok(Kind::Number)
            }
            (Some(first), _) if is_of_word(first) => {
                let at = self.at;
                let word = self.take_while(is_of_word);
                if find(&REFUSED, word).is_some() {
                    return Err(unsupported(at, format!("`{word}`"), ""));
                }
                Ok(find(&KEYWORDS, word).map_or(Kind::Word, Kind::Symbol))
            }
            (Some('-'), Some('-')) | (Some('/'), Some('*')) => {
                Err(unsupported(self.at, "a comment", ""))
            }
            (Some(first), _) => self.operator(first),
        }
    }

    /// Reads what is in quotes, where each quote is written twice.
    fn quoted(&mut self, quote: char) -> Result<String, ExpressionError> {
        let at = self.at;
        let mut content = String::new();
        loop {
            self.take(1);
            content.push_str(self.take_while(|character| character != quote));
            if self.rest.is_empty() {
                return Err(syntax(at, format!("the string has no closing {quote}")));
            }
            self.take(1);
            if !self.rest.starts_with(quote) {
                return Ok(content);
            }
            content.push(quote);
        }
    }

    /// Reads an operator or a bracket, which starts with `first`.
    fn operator(&mut self, first: char) -> Result<Kind, ExpressionError> {
        let mut operators = OPERATORS.iter();
        if let Some(operator) = operators.find(|operator| self.rest.starts_with(**operator)) {
            self.take(operator.len());
            return Ok(Kind::Symbol(operator));
        }
        let hint = match first {
            '&' => ": write `and`",
            '|' => ": write `or`",
            '!' | '~' => ": write `not`",
            _ => "",
        };
        Err(unsupported(self.at, format!("`{first}`"), hint))
    }
}

/// Whether words, and malformed numbers, go on with `character`.
fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The one of `words` that `word` is, in any case.
fn find(words: &[&'static str], word: &str) -> Option<&'static str> {
    let mut words = words.iter().copied();
    words.find(|other| other.eq_ignore_ascii_case(word))
}
