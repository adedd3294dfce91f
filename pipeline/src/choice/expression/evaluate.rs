//! [`Node`]s over the rows of a batch.

use super::ExpressionError;
use super::node::{Arithmetic, Call, Comparison, Node};
use super::values::{
    Value, Values, arithmetic_of_real, arithmetic_of_whole, checked, combine, compare, flags,
    in_set, is, real, reals, rounded, typed, unknown,
};
use arrow::array::{Array, BooleanArray, ListArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{and_kleene, ilike, like, not, or_kleene, take};

/// For each row whether the condition is true.
pub fn evaluate(root: &Node, batch: &RecordBatch) -> Result<BooleanArray, ExpressionError> {
    let rows = Rows { batch };
    let value = rows.value(root)?;
    let (Value::Flags(_) | Value::Null) = value else {
        let what = rows.describe(root, &value);
        return Err(ExpressionError::Type(format!(
            "the whole is {what}, neither true nor false: compare it, as in `width >= 256`"
        )));
    };
    let flags = rows.broadcast(flags(value).unwrap_or_else(unknown));
    Ok(is(&flags, true))
}

/// The rows that a condition is evaluated over.
pub struct Rows<'a> {
    /// Their columns.
    pub batch: &'a RecordBatch,
}

impl Rows<'_> {
    /// One flag for each row.
    fn broadcast(&self, flags: Values<BooleanArray>) -> BooleanArray {
        let rows = self.batch.num_rows();
        match flags.constant {
            false => flags.array,
            true if flags.array.is_null(0) => BooleanArray::new_null(rows),
            true => BooleanArray::from(vec![flags.array.value(0); rows]),
        }
    }

    /// The values of `node`. Only this function is recursive, to need little of the stack.
    fn value(&self, node: &Node) -> Result<Value, ExpressionError> {
        let mut parts = Vec::new();
        for part in node.parts() {
            parts.push(self.value(part)?);
        }
        self.value_of_parts(node, parts)
    }

    /// The values of `node`, whose parts have the values `parts`.
    #[inline(never)]
    fn value_of_parts(&self, node: &Node, parts: Vec<Value>) -> Result<Value, ExpressionError> {
        let mut values = parts.into_iter();
        let mut next = || values.next().unwrap_or(Value::Null);
        match node {
            Node::Column { name, quoted, at } => self.column(name, *quoted, *at),
            Node::Null => Ok(Value::Null),
            Node::Flag(flag) => Ok(Value::Flags(Values::constant(vec![*flag].into()))),
            Node::Text(text) => Ok(Value::Text(Values::constant(vec![text.as_str()].into()))),
            Node::Whole(number) => Ok(Value::Whole(Values::constant(vec![*number].into()))),
            Node::Real(number) => {
                let values = Values::constant(vec![real(*number)].into());
                Ok(Value::real(values, false))
            }
            Node::Negative(part) => match next() {
                Value::Null => Ok(Value::Null),
                Value::Whole(whole) => {
                    let array = checked(&whole.array, "-", i128::checked_neg)?;
                    Ok(Value::Whole(whole.with(array)))
                }
                Value::Real(numbers) => Ok(numbers.map(|number| real(-number))),
                other => Err(self.mismatch("`-`", "a number", part, &other)),
            },
            Node::Arithmetic(operation, left, right) => {
                self.arithmetic(*operation, (left, next()), (right, next()))
            }
            Node::Comparison(comparison, left, right) => {
                let values = (next(), next());
                let flags = self.compared(*comparison, (left, &values.0), (right, &values.1))?;
                Ok(Value::Flags(flags))
            }
            Node::All(parts) => self.logic("`and`", parts, values, and_kleene),
            Node::Any(parts) => self.logic("`or`", parts, values, or_kleene),
            Node::Not(part) => {
                let flags = self.flags("`not`", part, next())?;
                Ok(Value::Flags(flags.with(not(&flags.array)?)))
            }
            Node::In(part, items) => self.is_in((part, next()), items, values.collect()),
            Node::Between(parts) => {
                let [part, low, high] = parts.as_ref();
                let value = next();
                let mut within = Vec::new();
                for (comparison, bound) in [
                    (Comparison::GreaterOrEqual, low),
                    (Comparison::LessOrEqual, high),
                ] {
                    let limit = next();
                    within.push(self.compared(comparison, (part, &value), (bound, &limit))?);
                }
                self.joined(within, and_kleene)
            }
            Node::Like {
                text,
                pattern,
                any_case,
            } => match next() {
                Value::Null => Ok(Value::Null),
                Value::Text(text) => {
                    let pattern = Values::constant(StringArray::from(vec![pattern.as_str()]));
                    let matches = if *any_case { ilike } else { like };
                    Ok(Value::Flags(text.with(matches(&text, &pattern)?)))
                }
                other => Err(self.mismatch("`like`", "text", text, &other)),
            },
            Node::IsNull(_) => self.is_null(next()),
            Node::Is(part, wanted) => {
                let flags = self.flags("`is`", part, next())?;
                Ok(Value::Flags(flags.with(match wanted {
                    Some(wanted) => is(&flags.array, *wanted),
                    None => arrow::compute::is_null(&flags.array)?,
                })))
            }
            Node::Call(call, part) => self.call(*call, part, next()),
            Node::Element(part, index) => match next() {
                Value::Null => Ok(Value::Null),
                Value::List(list) => self.element(part, &list, *index),
                other => Err(self.mismatch("`[ ]`", "a list", part, &other)),
            },
        }
    }

    /// The part as true or false.
    fn flags(
        &self,
        operator: &str,
        part: &Node,
        value: Value,
    ) -> Result<Values<BooleanArray>, ExpressionError> {
        match value {
            Value::Null => Ok(unknown()),
            Value::Flags(flags) => Ok(flags),
            other => Err(self.mismatch(operator, "true or false", part, &other)),
        }
    }

    /// Joins `parts`, which are true or false, by `join`.
    fn logic(
        &self,
        operator: &str,
        parts: &[Node],
        values: impl Iterator<Item = Value>,
        join: fn(&BooleanArray, &BooleanArray) -> Result<BooleanArray, arrow::error::ArrowError>,
    ) -> Result<Value, ExpressionError> {
        let parts = parts
            .iter()
            .zip(values)
            .map(|(part, value)| self.flags(operator, part, value));
        self.joined(parts.collect::<Result<Vec<_>, _>>()?, join)
    }

    /// Joins `parts` by `join`.
    fn joined(
        &self,
        parts: Vec<Values<BooleanArray>>,
        join: fn(&BooleanArray, &BooleanArray) -> Result<BooleanArray, arrow::error::ArrowError>,
    ) -> Result<Value, ExpressionError> {
        let mut parts = parts.into_iter().map(|part| self.broadcast(part));
        let Some(mut joined) = parts.next() else {
            return Ok(Value::Null);
        };
        for part in parts {
            joined = join(&joined, &part)?;
        }
        Ok(Value::Flags(Values::rows(joined)))
    }

    /// Compares two parts with their values.
    fn compared(
        &self,
        comparison: Comparison,
        left: (&Node, &Value),
        right: (&Node, &Value),
    ) -> Result<Values<BooleanArray>, ExpressionError> {
        compare(comparison, left.1, right.1)?.ok_or_else(|| {
            ExpressionError::Type(format!(
                "{} cannot be compared with {}",
                self.describe(left.0, left.1),
                self.describe(right.0, right.1)
            ))
        })
    }

    /// Whether a part is one of `items`, with their `values`.
    fn is_in(
        &self,
        (part, value): (&Node, Value),
        items: &[Node],
        values: Vec<Value>,
    ) -> Result<Value, ExpressionError> {
        if let Some(flags) = in_set(&value, &values) {
            return Ok(Value::Flags(flags));
        }
        let equal = items.iter().zip(&values).map(|(item, item_value)| {
            self.compared(Comparison::Equal, (part, &value), (item, item_value))
        });
        self.joined(equal.collect::<Result<_, _>>()?, or_kleene)
    }

    /// Whether values are null.
    fn is_null(&self, value: Value) -> Result<Value, ExpressionError> {
        fn of<A: Array>(values: &Values<A>) -> Result<Values<BooleanArray>, ExpressionError> {
            Ok(values.with(arrow::compute::is_null(&values.array)?))
        }
        Ok(Value::Flags(match value {
            Value::Null => Values::constant(vec![true].into()),
            Value::Flags(values) => of(&values)?,
            Value::Text(values) => of(&values)?,
            Value::Whole(values) => of(&values)?,
            Value::Real(numbers) => of(&numbers.values)?,
            Value::List(values) => of(&values)?,
        }))
    }

    /// Applies `operation` to two parts with their values.
    fn arithmetic(
        &self,
        operation: Arithmetic,
        left: (&Node, Value),
        right: (&Node, Value),
    ) -> Result<Value, ExpressionError> {
        for (node, value) in [&left, &right] {
            match value {
                Value::Null | Value::Whole(_) | Value::Real(_) => {}
                Value::Flags(_) | Value::Text(_) | Value::List(_) => {
                    let operator = format!("`{}`", operation.symbol());
                    return Err(self.mismatch(&operator, "numbers", node, value));
                }
            }
        }
        if let ((Value::Whole(left), Value::Whole(right)), true) =
            ((&left.1, &right.1), operation != Arithmetic::Divide)
        {
            let f = |left, right| arithmetic_of_whole(operation, left, right);
            return Ok(Value::Whole(combine(left, right, f)?));
        }
        let Some((left, right, single)) = reals(&left.1, &right.1) else {
            return Ok(Value::Null);
        };
        let values = combine(&left, &right, |left, right| {
            let number = arithmetic_of_real(operation, left, right);
            Ok(if single { number.map(rounded) } else { number })
        })?;
        Ok(Value::real(values, single))
    }

    /// Applies a function to a part with its value.
    fn call(&self, call: Call, part: &Node, value: Value) -> Result<Value, ExpressionError> {
        let text = |text: Values<StringArray>, f: fn(&str) -> String| {
            let changed = text.array.iter().map(|text| text.map(f));
            Ok(Value::Text(text.with(changed.collect())))
        };
        let whole = |number: usize| number as i128;
        match (call, value) {
            (_, Value::Null) => Ok(Value::Null),
            (Call::Lower, Value::Text(values)) => text(values, str::to_lowercase),
            (Call::Upper, Value::Text(values)) => text(values, str::to_uppercase),
            (Call::Length, Value::Text(values)) => {
                let lengths = values.array.iter();
                let lengths = lengths.map(|text| text.map(|text| whole(text.chars().count())));
                Ok(Value::Whole(values.with(lengths.collect())))
            }
            (Call::Length, Value::List(lists)) => {
                let lengths = lists
                    .array
                    .iter()
                    .map(|list| list.map(|list| whole(list.len())));
                Ok(Value::Whole(lists.with(lengths.collect())))
            }
            (Call::Absolute, Value::Whole(values)) => Ok(Value::Whole(values.with(checked(
                &values.array,
                "abs()",
                i128::checked_abs,
            )?))),
            (Call::Absolute, Value::Real(numbers)) => Ok(numbers.map(f64::abs)),
            (call, other) => {
                let wanted = match call {
                    Call::Lower | Call::Upper => "text",
                    Call::Length => "text or a list",
                    Call::Absolute => "a number",
                };
                Err(self.mismatch(&format!("{}()", call.name()), wanted, part, &other))
            }
        }
    }

    /// One element of each list; null outside of it.
    fn element(
        &self,
        part: &Node,
        list: &Values<ListArray>,
        index: i64,
    ) -> Result<Value, ExpressionError> {
        let lists = &list.array;
        let places = (0..lists.len()).map(|row| {
            if lists.is_null(row) {
                return None;
            }
            let (start, len) = (
                i64::from(lists.value_offsets()[row]),
                lists.value_length(row),
            );
            let from_start = if index > 0 {
                index - 1
            } else {
                i64::from(len).checked_add(index)?
            };
            let is_within = (0..i64::from(len)).contains(&from_start);
            is_within.then(|| (start + from_start) as u64)
        });
        let places: UInt64Array = places.collect();
        let elements = take(lists.values(), &places, None)?;
        typed(&elements).ok_or_else(|| {
            ExpressionError::Type(format!(
                "`[ ]` takes lists of numbers, text or flags, and {} is none",
                self.describe(part, &Value::List(list.with(lists.clone())))
            ))
        })
    }

    /// The values of a column.
    fn column(&self, name: &str, quoted: bool, at: usize) -> Result<Value, ExpressionError> {
        let Some(column) = self.batch.column_by_name(name) else {
            return Err(self.unknown_column(name, quoted, at));
        };
        typed(column).ok_or_else(|| {
            ExpressionError::Type(format!(
                "column `{name}` cannot be used: it has type {}",
                column.data_type()
            ))
        })
    }
}
