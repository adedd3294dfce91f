//! Features of clips, as `trainer embed` writes them.

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, UInt32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::shard::ClipMeta;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Reads the feature of each of `clips` from the file `path`.
///
/// # Errors
/// When the file is none of `trainer embed --per clip`, or lacks a clip.
pub fn read<'a>(
    path: &Path,
    clips: impl Iterator<Item = &'a ClipMeta>,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .with_context(|| format!("{shown} is not a file of `trainer embed`"))?;
    let mut features: HashMap<(String, u32), Vec<f32>> = HashMap::new();
    for batch in reader {
        let batch = batch.with_context(|| format!("cannot read {shown}"))?;
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .with_context(|| format!("{shown} has no column {name}: use `trainer embed`"))
        };
        let (videos, numbers) = (column("video")?, column("clip")?);
        let videos = videos.as_string_opt::<i32>().context("a video is text")?;
        let numbers = numbers.as_primitive_opt::<UInt32Type>();
        let numbers = numbers.context("the number of a clip is u32")?;
        ensure!(
            numbers.null_count() == 0,
            "{shown} has rows per video: write it with --per clip"
        );
        let values = column("feature")?;
        for row in 0..batch.num_rows() {
            let value = if let Some(lists) = values.as_fixed_size_list_opt() {
                lists.value(row)
            } else {
                let lists = values.as_list_opt::<i32>();
                lists.context("a feature is a list")?.value(row)
            };
            let value = value.as_primitive_opt::<Float32Type>();
            let value = value.context("a feature is a list of f32")?;
            let key = (videos.value(row).to_owned(), numbers.value(row));
            features.insert(key, value.values().to_vec());
        }
    }
    clips
        .map(|meta| {
            let feature = features.get(&(meta.video.clone(), meta.clip));
            let feature = feature.with_context(|| {
                format!(
                    "{shown} has no feature of clip {} of {}: write it with `trainer embed` of the \
                     same shards",
                    meta.clip, meta.video
                )
            })?;
            ensure!(!feature.is_empty(), "{shown} has an empty feature");
            Ok(feature.clone())
        })
        .collect()
}
