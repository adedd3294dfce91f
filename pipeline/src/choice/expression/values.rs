//! [`Value`]: values by their kind, and what is computed with them.

use super::ExpressionError;
use super::node::{Arithmetic, Comparison};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Datum, Decimal128Array,
    Float64Array, ListArray, PrimitiveArray, StringArray,
};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type,
    UInt64Type,
};
use std::collections::HashSet;

/// Values of a part of a condition: one for each row, or a single one for all.
pub struct Values<A> {
    /// The values.
    pub array: A,
    /// Whether the array is one value for all rows.
    pub constant: bool,
}

impl<A: Array> Values<A> {
    /// One value for all rows.
    pub fn constant(array: A) -> Self {
        let constant = true;
        Self { array, constant }
    }

    /// A value for each row.
    pub fn rows(array: A) -> Self {
        let constant = false;
        Self { array, constant }
    }

    /// Index in the array of the value for `row`.
    pub fn index(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    /// What `array`, which was made of these values, stands for.
    pub fn with<B>(&self, array: B) -> Values<B> {
        let constant = self.constant;
        Values { array, constant }
    }
}

impl<A: Array> Datum for Values<A> {
    fn get(&self) -> (&dyn Array, bool) {
        (&self.array, self.constant)
    }
}

/// Numbers that are not whole.
pub struct Reals {
    /// Without -0.0 and negative NaN, which Arrow's comparisons distinguish.
    pub values: Values<Float64Array>,
    /// Whether they are [`f32`], as those of `Float32` columns. Constants next to such numbers are
    /// rounded to them, and so are the results.
    pub single: bool,
}

impl Reals {
    /// Applies `f`, which keeps the precision, to each.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Value {
        let values = self.values.with(self.values.array.unary(f));
        Value::real(values, self.single)
    }
}

/// Values by their kind.
pub enum Value {
    /// The literal `null`, which fits everywhere.
    Null,
    Flags(Values<BooleanArray>),
    Text(Values<StringArray>),
    /// Whole numbers of any width, exactly. Arrow's only array of 128-bit integers is this one; its
    /// scale is not used.
    Whole(Values<Decimal128Array>),
    /// Other numbers.
    Real(Reals),
    List(Values<ListArray>),
}

impl Value {
    /// Numbers that are not whole, and are [`f32`] if `single`.
    pub fn real(values: Values<Float64Array>, single: bool) -> Self {
        Self::Real(Reals { values, single })
    }

    /// Its kind, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flags(_) => "true or false",
            Self::Text(_) => "text",
            Self::Whole(_) | Self::Real(_) => "a number",
            Self::List(_) => "a list",
        }
    }
}

/// A number without its negative zero and negative NaN: comparisons see one zero and one NaN, the
/// largest number.
pub fn real(number: f64) -> f64 {
    if number.is_nan() {
        f64::NAN
    } else {
        number + 0.0
    }
}

/// Null for all rows.
pub fn unknown() -> Values<BooleanArray> {
    Values::constant(BooleanArray::new_null(1))
}

/// The flags of a value, if it has some.
pub fn flags(value: Value) -> Option<Values<BooleanArray>> {
    match value {
        Value::Flags(flags) => Some(flags),
        Value::Null | Value::Text(_) | Value::Whole(_) | Value::Real(_) | Value::List(_) => None,
    }
}

/// Where `flags` are valid and `wanted`; without nulls.
pub fn is(flags: &BooleanArray, wanted: bool) -> BooleanArray {
    let values = if wanted {
        flags.values().clone()
    } else {
        !flags.values()
    };
    match flags.nulls() {
        Some(nulls) => BooleanArray::new(&values & nulls.inner(), None),
        None => BooleanArray::new(values, None),
    }
}

/// A number as [`f32`], unless that has no normal number near it.
pub fn rounded(number: f64) -> f64 {
    let single = Some(number as f32).filter(|single| single.is_normal());
    single.map_or(number, f64::from)
}

/// Numbers that are not both whole as [`f64`], and whether they are [`f32`]: if one is, and the
/// other is too or is constant. `None` if they are no numbers.
pub fn reals(
    left: &Value,
    right: &Value,
) -> Option<(Values<Float64Array>, Values<Float64Array>, bool)> {
    let precision = |value: &Value| match value {
        Value::Real(real) => (real.single, real.values.constant),
        Value::Whole(whole) => (false, whole.constant),
        Value::Null | Value::Flags(_) | Value::Text(_) | Value::List(_) => (false, false),
    };
    let single = match (precision(left), precision(right)) {
        ((true, _), (single, constant)) | ((single, constant), (true, _)) => single || constant,
        ((false, _), (false, _)) => false,
    };
    let of = |value: &Value| {
        let values = match value {
            Value::Real(real) => real.values.with(real.values.array.clone()),
            Value::Whole(whole) => whole.with(whole.array.unary(|number| number as f64)),
            Value::Null | Value::Flags(_) | Value::Text(_) | Value::List(_) => return None,
        };
        Some(match single && values.constant {
            true => values.with(values.array.unary(rounded)),
            false => values,
        })
    };
    Some((of(left)?, of(right)?, single))
}

/// Applies `f` to pairs of numbers; `None` is null.
pub fn combine<T: ArrowPrimitiveType>(
    left: &Values<PrimitiveArray<T>>,
    right: &Values<PrimitiveArray<T>>,
    f: impl Fn(T::Native, T::Native) -> Result<Option<T::Native>, ExpressionError>,
) -> Result<Values<PrimitiveArray<T>>, ExpressionError> {
    let constant = left.constant && right.constant;
    let len = if left.constant {
        right.array.len()
    } else {
        left.array.len()
    };
    let pairs = (0..len).map(|row| {
        let (l, r) = (left.index(row), right.index(row));
        if left.array.is_null(l) || right.array.is_null(r) {
            return Ok(None);
        }
        f(left.array.value(l), right.array.value(r))
    });
    let array = pairs.collect::<Result<PrimitiveArray<T>, _>>()?;
    Ok(Values { array, constant })
}

/// Applies `operation`; `None` is null.
pub fn arithmetic_of_whole(
    operation: Arithmetic,
    left: i128,
    right: i128,
) -> Result<Option<i128>, ExpressionError> {
    let result = match operation {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => return Ok(None),
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => Some(left.wrapping_rem(right)),
    };
    let overflow = ExpressionError::Overflow(operation.symbol());
    result.map(Some).ok_or(overflow)
}

/// Applies `operation`; `None` is null.
pub fn arithmetic_of_real(operation: Arithmetic, left: f64, right: f64) -> Option<f64> {
    let result = match operation {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide | Arithmetic::Remainder if right == 0.0 => return None,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
    };
    Some(real(result))
}

/// Compares values of one kind; `None` if they are of different kinds, or lists.
pub fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
) -> Result<Option<Values<BooleanArray>>, ExpressionError> {
    fn of<A: Array, B: Array>(
        comparison: Comparison,
        left: &Values<A>,
        right: &Values<B>,
    ) -> Result<Option<Values<BooleanArray>>, ExpressionError> {
        let array = match comparison {
            Comparison::Equal => cmp::eq(left, right),
            Comparison::NotEqual => cmp::neq(left, right),
            Comparison::Less => cmp::lt(left, right),
            Comparison::LessOrEqual => cmp::lt_eq(left, right),
            Comparison::Greater => cmp::gt(left, right),
            Comparison::GreaterOrEqual => cmp::gt_eq(left, right),
        }?;
        let constant = left.constant && right.constant;
        Ok(Some(Values { array, constant }))
    }
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => Ok(Some(unknown())),
        (Value::Flags(left), Value::Flags(right)) => of(comparison, left, right),
        (Value::Text(left), Value::Text(right)) => of(comparison, left, right),
        (Value::Whole(left), Value::Whole(right)) => of(comparison, left, right),
        _ => match reals(left, right) {
            Some((left, right, _)) => of(comparison, &left, &right),
            None => Ok(None),
        },
    }
}

/// `value in (items)` with a set, if all are constant text or all constant whole numbers.
pub fn in_set(value: &Value, items: &[Value]) -> Option<Values<BooleanArray>> {
    let has_null = items.iter().any(|item| match item {
        Value::Null => true,
        Value::Whole(item) => item.constant && item.array.is_null(0),
        _ => false,
    });
    let answer = |found: bool| {
        if found {
            Some(true)
        } else {
            (!has_null).then_some(false)
        }
    };
    match value {
        Value::Text(text) => {
            let mut set = HashSet::new();
            for item in items {
                match item {
                    Value::Text(item) if item.constant => set.extend(item.array.iter().flatten()),
                    Value::Null => {}
                    _ => return None,
                }
            }
            let found = text.array.iter().map(|text| answer(set.contains(text?)));
            Some(text.with(found.collect()))
        }
        Value::Whole(whole) => {
            let mut set = HashSet::new();
            for item in items {
                match item {
                    Value::Whole(item) if item.constant => set.extend(item.array.iter().flatten()),
                    Value::Null => {}
                    _ => return None,
                }
            }
            let found = whole
                .array
                .iter()
                .map(|whole| answer(set.contains(&whole?)));
            Some(whole.with(found.collect()))
        }
        Value::Null | Value::Flags(_) | Value::Real(_) | Value::List(_) => None,
    }
}

/// Applies `f` to whole numbers; `None` is an overflow of `operation`.
pub fn checked(
    numbers: &Decimal128Array,
    operation: &'static str,
    f: fn(i128) -> Option<i128>,
) -> Result<Decimal128Array, ExpressionError> {
    numbers.try_unary(|number| f(number).ok_or(ExpressionError::Overflow(operation)))
}

/// An array of a column by its kind; `None` for types that conditions do not have.
pub fn typed(array: &ArrayRef) -> Option<Value> {
    fn whole<T: ArrowPrimitiveType>(array: &ArrayRef) -> Value
    where
        i128: From<T::Native>,
    {
        let numbers = array.as_primitive::<T>();
        Value::Whole(Values::rows(numbers.unary::<_, Decimal128Type>(i128::from)))
    }
    Some(match array.data_type() {
        DataType::Boolean => Value::Flags(Values::rows(array.as_boolean().clone())),
        DataType::Utf8 => Value::Text(Values::rows(array.as_string().clone())),
        DataType::Int32 => whole::<Int32Type>(array),
        DataType::Int64 => whole::<Int64Type>(array),
        DataType::UInt32 => whole::<UInt32Type>(array),
        DataType::UInt64 => whole::<UInt64Type>(array),
        DataType::Float32 => {
            let numbers = array.as_primitive::<Float32Type>();
            let values = Values::rows(numbers.unary(|number| real(f64::from(number))));
            Value::real(values, true)
        }
        DataType::Float64 => {
            let values = Values::rows(array.as_primitive::<Float64Type>().unary(real));
            Value::real(values, false)
        }
        DataType::List(_) => Value::List(Values::rows(array.as_list().clone())),
        DataType::Null => Value::Null,
        _ => return None,
    })
}
