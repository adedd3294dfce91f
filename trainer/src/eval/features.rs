//! Features: a Parquet file with a row per clip or video, and nearest-neighbour search.

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int32Array, StringArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use pipeline::atomic_file::AtomicFile;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum rows and values of a row group, which is written when either is reached.
const GROUP_ROWS: usize = 4096;
const GROUP_VALUES: usize = 1 << 24;

/// A row of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow {
    /// The video.
    pub video: String,
    /// Index of the clip within its video; `None` for a whole video.
    pub clip: Option<u32>,
    /// Time of the first frame and of the last in the video, in seconds.
    pub seconds: [f64; 2],
    /// Class index, if labelled.
    pub label: Option<i32>,
    /// Class name, if labelled.
    pub class: Option<String>,
    /// `[width]`
    pub feature: Vec<f32>,
    /// `[tokens, width]`, or empty.
    pub tokens: Vec<f32>,
}

/// An error of writing features.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct FeatureError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Writer of a file of features, which appears under its name when finished.
pub struct FeatureFile {
    path: PathBuf,
    writer: ArrowWriter<AtomicFile>,
    schema: Arc<Schema>,
    buffered: Vec<FeatureRow>,
    width: usize,
    tokens: usize,
}

impl FeatureFile {
    /// Creates a file of features of `width` values, and `tokens` tokens per row if not 0. `about`
    /// goes into the file's metadata.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(
        path: &Path,
        width: usize,
        tokens: usize,
        about: HashMap<String, String>,
    ) -> Result<Self, FeatureError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| FeatureError {
            path: path.to_owned(),
            source,
        };
        let values = Arc::new(Field::new("item", DataType::Float32, false));
        let list = |name: &str, count: usize| {
            Field::new(
                name,
                DataType::FixedSizeList(Arc::clone(&values), count as i32),
                false,
            )
        };
        let mut fields = vec![
            Field::new("video", DataType::Utf8, false),
            Field::new("clip", DataType::UInt32, true),
            Field::new("first_second", DataType::Float64, false),
            Field::new("last_second", DataType::Float64, false),
            Field::new("label", DataType::Int32, true),
            Field::new("class", DataType::Utf8, true),
            list("feature", width),
        ];
        if tokens > 0 {
            fields.push(list("tokens", tokens * width));
        }
        let schema = Arc::new(Schema::new(fields).with_metadata(about));
        let file = AtomicFile::create(path).map_err(|error| failed(error.into()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            schema,
            buffered: Vec::new(),
            width,
            tokens,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn push(&mut self, row: FeatureRow) -> Result<(), FeatureError> {
        self.buffered.push(row);
        let values = self.buffered.len() * (1 + self.tokens) * self.width;
        if self.buffered.len() >= GROUP_ROWS || values >= GROUP_VALUES {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<(), FeatureError> {
        let rows = std::mem::take(&mut self.buffered);
        if rows.is_empty() {
            return Ok(());
        }
        let result = self
            .columns(&rows)
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns));
        let result = result.map_err(Into::into).and_then(|batch| {
            self.writer.write(&batch)?;
            self.writer.flush()
        });
        result.map_err(|error: parquet::errors::ParquetError| FeatureError {
            path: self.path.clone(),
            source: error.into(),
        })
    }

    fn columns(&self, rows: &[FeatureRow]) -> Result<Vec<ArrayRef>, arrow::error::ArrowError> {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let list = |count: usize,
                    get: fn(&FeatureRow) -> &[f32]|
         -> Result<ArrayRef, arrow::error::ArrowError> {
            let values: Float32Array = rows
                .iter()
                .flat_map(|row| get(row).iter().copied())
                .map(Some)
                .collect();
            Ok(Arc::new(FixedSizeListArray::try_new(
                Arc::clone(&item),
                count as i32,
                Arc::new(values),
                None,
            )?))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(
                rows.iter()
                    .map(|row| Some(row.video.as_str()))
                    .collect::<StringArray>(),
            ),
            Arc::new(rows.iter().map(|row| row.clip).collect::<UInt32Array>()),
            Arc::new(
                rows.iter()
                    .map(|row| Some(row.seconds[0]))
                    .collect::<Float64Array>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|row| Some(row.seconds[1]))
                    .collect::<Float64Array>(),
            ),
            Arc::new(rows.iter().map(|row| row.label).collect::<Int32Array>()),
            Arc::new(
                rows.iter()
                    .map(|row| row.class.as_deref())
                    .collect::<StringArray>(),
            ),
            list(self.width, |row| &row.feature)?,
        ];
        if self.tokens > 0 {
            columns.push(list(self.tokens * self.width, |row| &row.tokens)?);
        }
        Ok(columns)
    }

    /// Writes the buffered rows, and renames the file to its path.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn finish(mut self) -> Result<(), FeatureError> {
        self.write()?;
        let path = self.path;
        let file = self.writer.into_inner().map_err(|error| FeatureError {
            path: path.clone(),
            source: error.into(),
        })?;
        file.commit().map_err(|error| FeatureError {
            path,
            source: error.into(),
        })
    }
}

/// Nearest-neighbour search among features.
#[derive(Debug)]
pub struct Neighbours {
    /// The features, centred by the mean of all, and of length 1.
    directions: Vec<Vec<f32>>,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its index.
    pub index: usize,
    /// Cosine similarity after centring by the mean of all.
    pub similarity: f32,
}

impl Neighbours {
    /// Creates an index of `features`, which all have the same length.
    pub fn new(features: &[&[f32]]) -> Self {
        let width = features.first().map_or(0, |feature| feature.len());
        let mut mean = vec![0f64; width];
        for &feature in features {
            mean.iter_mut()
                .zip(feature)
                .for_each(|(mean, &value)| *mean += f64::from(value) / features.len() as f64);
        }
        let direction = |feature: &&[f32]| {
            let centred: Vec<f64> = feature
                .iter()
                .zip(&mean)
                .map(|(&value, mean)| f64::from(value) - mean)
                .collect();
            let length = centred
                .iter()
                .map(|value| value * value)
                .sum::<f64>()
                .sqrt()
                .max(f64::MIN_POSITIVE);
            centred
                .into_iter()
                .map(|value| (value / length) as f32)
                .collect()
        };
        Self {
            directions: features.iter().map(direction).collect(),
        }
    }

    /// The `count` nearest neighbours of feature `query` for which `allowed` is true, the nearest
    /// first.
    pub fn nearest(
        &self,
        query: usize,
        count: usize,
        allowed: impl Fn(usize) -> bool,
    ) -> Vec<Neighbour> {
        let own = &self.directions[query];
        let similarity = |other: &[f32]| own.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut all: Vec<Neighbour> = (0..self.directions.len())
            .filter(|&index| index != query && allowed(index))
            .map(|index| Neighbour {
                index,
                similarity: similarity(&self.directions[index]),
            })
            .collect();
        all.sort_by(|a, b| {
            b.similarity
                .total_cmp(&a.similarity)
                .then(a.index.cmp(&b.index))
        });
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_by_angle_come_first() {
        // About their mean, which is near (10, 10): right, right and further, up, left, down.
        let features = [
            [11.0, 10.0],
            [13.0, 10.1],
            [10.2, 12.0],
            [6.0, 10.0],
            [10.0, 7.9],
        ];
        let neighbours =
            Neighbours::new(&features.each_ref().map(|point: &[f32; 2]| point.as_slice()));
        let nearest = neighbours.nearest(0, 3, |_| true);
        assert_eq!(
            nearest
                .iter()
                .map(|neighbour| neighbour.index)
                .collect::<Vec<_>>(),
            [1, 2, 4]
        );
        assert!(nearest[0].similarity > 0.99 && nearest[1].similarity.abs() < 0.1);
        assert_eq!(neighbours.nearest(0, 9, |index| index > 2).len(), 2);
    }
}
