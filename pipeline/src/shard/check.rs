//! Checks beyond those of every reader: hashes of the stored bytes, and a second decoder.

use super::mapping::Mapping;
use super::reader::open_parquet;
use super::{Shard, ShardError, pixels_xxh3};
use arrow::array::{Array, AsArray};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use schemas::manifest::ShardEntry;
use schemas::shard::DATA_COLUMN;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Compares the stored bytes of all pixels of the shard that `entry` names in folder `dir` with
/// their hash. Together with [`Shard::open_as_listed`], which checks all others, every byte is
/// checked.
///
/// # Errors
/// [`ShardError::Io`] when the file cannot be mapped, [`ShardError::DamagedShard`] when its pixels
/// have another hash.
pub fn check_pixels(dir: &Path, entry: &ShardEntry) -> Result<(), ShardError> {
    let path = dir.join(&entry.file);
    let file = Mapping::open(&path)?;
    if pixels_xxh3(&file, &entry.pixels).as_ref() != Some(&entry.pixels_xxh3) {
        let reason = "its stored pixels do not have the hash that the manifest gives".to_owned();
        return Err(ShardError::DamagedShard { path, reason });
    }
    Ok(())
}

/// Reads a shard as any other program would: with the Parquet crate's Arrow reader, and none of our
/// page code.
pub struct ArrowReader<'a> {
    shard: &'a Shard,
    file: Mapping,
    metadata: ArrowReaderMetadata,
}

impl<'a> ArrowReader<'a> {
    /// Opens the file of `shard` again.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn open(shard: &'a Shard) -> Result<Self, ShardError> {
        let (file, metadata) = open_parquet(shard.path())?;
        Ok(Self {
            shard,
            file,
            metadata,
        })
    }

    /// Reads the payload of clip `row` and compares its hash with the stored one.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] when it cannot be read, or its hash differs.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn check(&self, row: usize) -> Result<(), ShardError> {
        let clip = &self.shard.clips()[row];
        let damaged = |reason: String| ShardError::Damaged {
            path: self.shard.path().to_owned(),
            row,
            reason,
        };
        // The Parquet crate panics on some damaged files.
        let hash = catch_unwind(AssertUnwindSafe(|| self.hash(row)));
        let hash = hash.unwrap_or_else(|_| Err(ParquetError::General("it panicked".to_owned())));
        match hash {
            Ok(Some(hash)) if hash == clip.xxh3 => Ok(()),
            Ok(Some(_)) => Err(damaged("Parquet's own reader gets other pixels".to_owned())),
            Ok(None) => Err(damaged("Parquet's own reader does not find it".to_owned())),
            Err(error) => Err(damaged(format!(
                "Parquet's own reader cannot read it: {error}"
            ))),
        }
    }

    fn hash(&self, row: usize) -> Result<Option<u64>, ParquetError> {
        let schema = self.metadata.parquet_schema();
        let data = ProjectionMask::leaves(schema, [schema.num_columns() - 1]);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            Bytes::from_owner(self.file.clone()),
            self.metadata.clone(),
        )
        .with_projection(data)
        .with_row_selection(RowSelection::from(vec![
            RowSelector::skip(self.shard.stored_row(row)),
            RowSelector::select(1),
        ]))
        .build()?;
        for batch in reader {
            let batch = batch?;
            let values = batch
                .column_by_name(DATA_COLUMN)
                .and_then(|column| column.as_binary_opt::<i64>());
            if let Some(values) = values.filter(|values| values.len() == 1) {
                return Ok(Some(xxh3_64(values.value(0))));
            }
        }
        Ok(None)
    }
}
