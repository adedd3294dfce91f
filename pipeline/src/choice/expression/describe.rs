//! Errors of evaluation, in terms of what the condition says.

use super::ExpressionError;
use super::evaluate::Rows;
use super::node::Node;
use super::values::Value;

impl Rows<'_> {
    /// The error for a name that no column has, with what may have been meant.
    pub fn unknown_column(&self, name: &str, quoted: bool, at: usize) -> ExpressionError {
        let schema = self.batch.schema();
        let columns = schema.fields().iter().map(|field| field.name().clone());
        let columns: Vec<String> = columns.collect();
        let distance = |column: &&String| distance(&name.to_lowercase(), &column.to_lowercase());
        let nearest = columns
            .iter()
            .min_by_key(distance)
            .filter(|column| distance(column) <= name.chars().count().div_ceil(3));
        let is_mistyped = nearest.map(|column| format!("; did you mean `{column}`?"));
        let text = name.replace('\'', "''");
        let hint = match (quoted, is_mistyped) {
            (true, nearest) => {
                format!(
                    " (text takes single quotes: '{text}'){}",
                    nearest.unwrap_or_default()
                )
            }
            (false, Some(nearest)) => nearest,
            (false, None) => format!(" (text takes single quotes: '{text}')"),
        };
        let name = name.to_owned();
        ExpressionError::UnknownColumn {
            at,
            name,
            hint,
            columns,
        }
    }

    /// The error where `operator` takes `wanted` and `node` has another kind.
    pub fn mismatch(
        &self,
        operator: &str,
        wanted: &str,
        node: &Node,
        value: &Value,
    ) -> ExpressionError {
        let what = self.describe(node, value);
        ExpressionError::Type(format!("{operator} takes {wanted}, not {what}"))
    }

    /// What `node` is, with its value.
    pub fn describe(&self, node: &Node, value: &Value) -> String {
        match node {
            Node::Column { name, .. } => match self.batch.column_by_name(name) {
                Some(column) => {
                    format!(
                        "column `{name}` ({}, type {})",
                        value.kind(),
                        column.data_type()
                    )
                }
                None => format!("column `{name}`"),
            },
            Node::Text(text) => format!("'{text}' (text)"),
            Node::Whole(number) => format!("{number} (a number)"),
            Node::Real(number) => format!("{number} (a number)"),
            Node::Flag(flag) => format!("{flag}"),
            Node::Call(call, _) => format!("{}() ({})", call.name(), value.kind()),
            _ => match value {
                Value::Flags(_) => "a condition".to_owned(),
                other => other.kind().to_owned(),
            },
        }
    }
}

/// Number of characters to insert, delete or replace to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut costs: Vec<usize> = (0..=b.len()).collect();
    for (row, a) in a.chars().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = row + 1;
        for (column, &b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = costs[column + 1];
            costs[column + 1] = replaced.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[b.len()]
}
