//! Reads Parquet files.

use super::{Cause, Format, Row, Table, TableError};
use crate::store;
use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use std::path::Path;

/// Rows that are read at once.
const BATCH: usize = 8192;

/// Reads the Parquet file `path`.
pub fn read(path: &Path) -> Result<Table, TableError> {
    let file =
        store::open_file(path).map_err(|error| TableError::of_file(path, Cause::Read(error)))?;
    let failed = |text: String| TableError::of_file(path, Cause::Parquet(remedy(text)));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| failed(error.to_string()))?;
    let fields = builder.schema().fields();
    let columns = fields.iter().map(|field| field.name().clone()).collect();
    let batches = builder
        .with_batch_size(BATCH)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let mut rows: Vec<Row> = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        let first = rows.len();
        rows.extend((0..batch.num_rows()).map(|index| Row {
            line: first + index + 1,
            cells: Vec::with_capacity(batch.num_columns()),
        }));
        for column in batch.columns() {
            append(column, &mut rows[first..]).map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(Table {
        columns,
        rows,
        format: Format::Parquet,
    })
}

/// Appends the cells of `column` to the rows.
fn append(column: &dyn Array, rows: &mut [Row]) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    if is_nested(column.data_type()) {
        for (index, row) in rows.iter_mut().enumerate() {
            let value = json(column, index, &options)?;
            row.cells
                .push((!value.is_null()).then(|| value.to_string()));
        }
        return Ok(());
    }
    let texts = ArrayFormatter::try_new(column, &options)?;
    for (index, row) in rows.iter_mut().enumerate() {
        let text = match column.is_null(index) {
            true => None,
            false => Some(texts.value(index).try_to_string()?),
        };
        row.cells.push(text.filter(|text| !text.is_empty()));
    }
    Ok(())
}

/// Whether a type has parts that become JSON.
fn is_nested(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
    )
}

/// Returns one value of `array` as JSON.
fn json(array: &dyn Array, index: usize, options: &FormatOptions) -> Result<Value, ArrowError> {
    if array.is_null(index) {
        return Ok(Value::Null);
    }
    let items = match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(index)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(index)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(index)),
        _ => None,
    };
    if let Some(items) = items {
        let values = (0..items.len()).map(|item| json(&items, item, options));
        return Ok(Value::Array(values.collect::<Result<_, _>>()?));
    }
    if let DataType::Struct(fields) = array.data_type() {
        let columns = array.as_struct().columns().iter();
        let mut object = Map::new();
        for (field, column) in fields.iter().zip(columns) {
            object.insert(field.name().clone(), json(column, index, options)?);
        }
        return Ok(Value::Object(object));
    }
    let text = ArrayFormatter::try_new(array, options)?
        .value(index)
        .try_to_string()?;
    let kind = array.data_type();
    // Infinite numbers have no notation in JSON and remain text.
    let value = (kind.is_numeric() || *kind == DataType::Boolean)
        .then(|| serde_json::from_str(&text).ok())
        .flatten();
    Ok(value.unwrap_or(Value::String(text)))
}

/// Adds the remedy to the message of a codec that is not compiled in.
fn remedy(error: String) -> String {
    if error.contains("Disabled feature") {
        return format!("{error}; write it with zstd or snappy compression");
    }
    error
}
