//! [`parse`]: text to [`Node`]s, by precedence climbing.

use super::ExpressionError;
use super::node::{Arithmetic, Call, Comparison, Node};
use super::tokens::{Kind, Power, Token, syntax, tokens, unsupported};

/// Most parentheses, functions, lists and prefixes within each other, which are read recursively.
const MAX_NESTING: usize = 32;

/// Most levels of the tree, which is evaluated and dropped recursively. Each operator is a level,
/// also in a chain such as `a + b + c`, but a chain of `and` or of `or` is one.
const MAX_LEVELS: usize = 120;

/// A part of the condition that was read.
struct Part {
    /// Its tree.
    node: Node,
    /// Levels of its tree.
    levels: usize,
}

impl Part {
    /// A part that consists of others, of which the deepest has `below` levels.
    fn new(node: Node, below: usize) -> Result<Self, ExpressionError> {
        let levels = below + 1;
        let part = Self { node, levels };
        (levels <= MAX_LEVELS).then_some(part).ok_or_else(too_deep)
    }

    /// Puts a node above it.
    fn below(self, node: impl FnOnce(Box<Node>) -> Node) -> Result<Self, ExpressionError> {
        Self::new(node(Box::new(self.node)), self.levels)
    }

    /// Puts `not` above it.
    fn negated(self, is_negated: bool) -> Result<Self, ExpressionError> {
        match is_negated {
            true => self.below(Node::Not),
            false => Ok(self),
        }
    }
}

/// Parses `text`.
pub fn parse(text: &str) -> Result<Node, ExpressionError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        nesting: 0,
    };
    let root = parser.part(Power::Nothing)?;
    match parser.peek().kind {
        Kind::End => Ok(root.node),
        _ => Err(parser.peek().unexpected("an operator or the end")),
    }
}

/// Reads tokens as parts of the condition.
struct Parser<'a> {
    /// All tokens; the last is the end.
    tokens: Vec<Token<'a>>,
    /// Index of the next token.
    next: usize,
    /// Number of parts that are being read, each within the one before.
    nesting: usize,
}

impl<'a> Parser<'a> {
    /// The next token.
    fn peek(&self) -> &Token<'a> {
        &self.tokens[self.next]
    }

    /// Reads a token; the end stays.
    fn take(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.next += usize::from(token.kind != Kind::End);
        token
    }

    /// Reads `word` if it is next: an operator, a bracket, or a word without quotes.
    fn takes(&mut self, word: &str) -> bool {
        let token = self.peek();
        let is_next = matches!(token.kind, Kind::Symbol(_) | Kind::Word)
            && token.text.eq_ignore_ascii_case(word);
        self.next += usize::from(is_next);
        is_next
    }

    /// Reads `symbol`, which has to be next.
    fn expect(&mut self, symbol: &str) -> Result<(), ExpressionError> {
        let is_next = self.takes(symbol);
        let error = || self.peek().unexpected(symbol);
        is_next.then_some(()).ok_or_else(error)
    }

    /// Reads operands and the operators between them that bind more tightly than `outer`. Refuses
    /// `1 < x < 3`: it is not that of mathematics, and dialects of SQL do not agree on what it is.
    fn part(&mut self, outer: Power) -> Result<Part, ExpressionError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep());
        }
        let mut part = self.prefix()?;
        let mut last = Power::Nothing;
        loop {
            let (power, symbol) = self.infix();
            if power <= outer {
                self.nesting -= 1;
                return Ok(part);
            }
            if (last, power) == (Power::Compare, Power::Compare) {
                let hint = " without parentheses: use `and`, `between`, or parentheses";
                let at = self.peek().at;
                return Err(unsupported(at, "a comparison of a comparison", hint));
            }
            part = self.apply(part, power, symbol)?;
            last = power;
        }
    }

    /// Reads an operand, with `not` or `-` before it.
    fn prefix(&mut self) -> Result<Part, ExpressionError> {
        let token = self.take();
        let part = match token.kind {
            Kind::Symbol("not") => return self.part(Power::Not)?.below(Node::Not),
            Kind::Symbol("-") => return self.part(Power::Product)?.below(Node::Negative),
            Kind::Symbol("(") => {
                let part = self.part(Power::Nothing)?;
                self.expect(")")?;
                part
            }
            Kind::Word if self.takes("(") => self.call(&token)?,
            _ => Part::new(leaf(token)?, 0)?,
        };
        match self.takes("[") {
            true => self.element(part),
            false => Ok(part),
        }
    }

    /// Reads the argument of the function `name`.
    fn call(&mut self, name: &Token<'_>) -> Result<Part, ExpressionError> {
        let (name, at) = (name.text, name.at);
        let Some(call) = Call::from_name(name) else {
            return Err(unsupported(at, format!("the function `{name}`"), ""));
        };
        if self.takes(")") {
            return Err(syntax(at, format!("{name}() takes one value")));
        }
        let part = self.part(Power::Nothing)?;
        self.expect(")")?;
        part.below(|part| Node::Call(call, part))
    }

    /// Reads which element of `part`: a literal that is not 0.
    fn element(&mut self, part: Part) -> Result<Part, ExpressionError> {
        let is_negative = self.takes("-");
        let token = self.take();
        let problem = "an index is a whole number from 1, or from -1 for the end";
        let (Kind::Number, Ok(index @ 1..)) = (token.kind, token.text.parse::<i64>()) else {
            return Err(syntax(token.at, problem));
        };
        self.expect("]")?;
        let index = if is_negative { -index } else { index };
        part.below(|part| Node::Element(part, index))
    }

    /// The operator that is next, and how tightly it binds.
    fn infix(&self) -> (Power, &'static str) {
        let symbol = |place: usize| match self.tokens.get(place).map(|token| &token.kind) {
            Some(Kind::Symbol(symbol)) => *symbol,
            _ => "",
        };
        match (symbol(self.next), symbol(self.next + 1)) {
            ("not", next @ ("in" | "between" | "like" | "ilike")) => (Power::Compare, next),
            ("not", _) => (Power::Nothing, ""),
            (symbol, _) => (Power::of(symbol), symbol),
        }
    }

    /// Reads the operator `symbol`, which is next, and what follows it.
    fn apply(&mut self, left: Part, power: Power, symbol: &str) -> Result<Part, ExpressionError> {
        let at = self.peek().at;
        let is_negated = self.takes("not");
        self.next += 1;
        let part = match symbol {
            "and" => return self.parts(left, power, "and", Node::All),
            "or" => return self.parts(left, power, "or", Node::Any),
            "is" => return self.is(left),
            "in" => self.list(left),
            "between" => self.between(left),
            "like" | "ilike" => self.like(left, symbol == "ilike"),
            _ => return self.binary(left, power, symbol, at),
        };
        part?.negated(is_negated)
    }

    /// Reads the right operand of the operator `symbol` at `at`.
    fn binary(
        &mut self,
        left: Part,
        power: Power,
        symbol: &str,
        at: usize,
    ) -> Result<Part, ExpressionError> {
        let right = self.part(power)?;
        let below = left.levels.max(right.levels);
        let has_null = matches!((&left.node, &right.node), (Node::Null, _) | (_, Node::Null));
        let (left, right) = (Box::new(left.node), Box::new(right.node));
        let node = match Comparison::from_symbol(symbol) {
            Some(_) if has_null => {
                let hint = ", as it is never true: use `is null` or `is not null`";
                return Err(unsupported(at, "a comparison with `null`", hint));
            }
            Some(comparison) => Node::Comparison(comparison, left, right),
            None => match Arithmetic::from_symbol(symbol) {
                Some(operation) => Node::Arithmetic(operation, left, right),
                None => return Err(unsupported(at, format!("`{symbol}`"), "")),
            },
        };
        Part::new(node, below)
    }

    /// Reads a part, and more after each `separator`. They become one node with `first`.
    fn parts(
        &mut self,
        first: Part,
        power: Power,
        separator: &str,
        node: impl FnOnce(Vec<Node>) -> Node,
    ) -> Result<Part, ExpressionError> {
        let mut below = first.levels;
        let mut parts = vec![first.node];
        loop {
            let part = self.part(power)?;
            below = below.max(part.levels);
            parts.push(part.node);
            if !self.takes(separator) {
                return Part::new(node(parts), below);
            }
        }
    }

    /// Reads what follows `is`.
    fn is(&mut self, left: Part) -> Result<Part, ExpressionError> {
        let is_negated = self.takes("not");
        let token = self.take();
        let wanted = match token.kind {
            Kind::Symbol("null") => return left.below(Node::IsNull)?.negated(is_negated),
            Kind::Symbol("true") => Some(true),
            Kind::Symbol("false") => Some(false),
            Kind::Word if token.text.eq_ignore_ascii_case("unknown") => None,
            _ => return Err(token.unexpected("null, true, false or unknown")),
        };
        let part = left.below(|part| Node::Is(part, wanted))?;
        part.negated(is_negated)
    }

    /// Reads the list of `in`.
    fn list(&mut self, left: Part) -> Result<Part, ExpressionError> {
        self.expect("(")?;
        let node = |mut items: Vec<Node>| Node::In(Box::new(items.remove(0)), items);
        let part = self.parts(left, Power::Nothing, ",", node)?;
        self.expect(")")?;
        Ok(part)
    }

    /// Reads the bounds of `between`.
    fn between(&mut self, left: Part) -> Result<Part, ExpressionError> {
        let low = self.part(Power::Compare)?;
        self.expect("and")?;
        let high = self.part(Power::Compare)?;
        let below = left.levels.max(low.levels).max(high.levels);
        let parts = Box::new([left.node, low.node, high.node]);
        Part::new(Node::Between(parts), below)
    }

    /// Reads the pattern of `like`. As in SQL, no character escapes unless `escape` says which.
    fn like(&mut self, left: Part, any_case: bool) -> Result<Part, ExpressionError> {
        let Token { kind, at, .. } = self.take();
        let Kind::Text(like) = kind else {
            return Err(syntax(at, "the pattern of `like` is text in quotes"));
        };
        let mut escape = None;
        if self.takes("escape") {
            let token = self.take();
            escape = match &token.kind {
                Kind::Text(text) if text.chars().count() == 1 => text.chars().next(),
                _ => return Err(syntax(token.at, "`escape` takes one character in quotes")),
            };
        }
        let mut pattern = String::new();
        let mut characters = like.chars();
        while let Some(mut character) = characters.next() {
            let is_escaped = escape == Some(character);
            if is_escaped {
                let problem = "the pattern ends with the escape character";
                character = characters.next().ok_or_else(|| syntax(at, problem))?;
            }
            if character == '\\' || is_escaped && matches!(character, '%' | '_') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        left.below(|text| Node::Like {
            text,
            pattern,
            any_case,
        })
    }
}

/// A name or a literal.
fn leaf(token: Token<'_>) -> Result<Node, ExpressionError> {
    let (at, text) = (token.at, token.text);
    let column = |name, quoted| Node::Column { name, quoted, at };
    Ok(match token.kind {
        Kind::Word => column(text.to_owned(), false),
        Kind::Name(name) => column(name, true),
        Kind::Text(text) => Node::Text(text),
        Kind::Number => match (text.parse(), text.parse::<f64>()) {
            (Ok(whole), _) => Node::Whole(whole),
            (Err(_), Ok(real)) if real.is_finite() => Node::Real(real),
            _ => return Err(syntax(at, format!("`{text}` is not a number in range"))),
        },
        Kind::Symbol("null") => Node::Null,
        Kind::Symbol("true") => Node::Flag(true),
        Kind::Symbol("false") => Node::Flag(false),
        Kind::Symbol(_) | Kind::End => return Err(token.unexpected("an expression")),
    })
}

/// Refuses a condition with more levels than are read.
fn too_deep() -> ExpressionError {
    ExpressionError::TooLarge("is nested too deeply; use fewer parentheses".to_owned())
}
