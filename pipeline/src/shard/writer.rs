//! Writes clips into a folder of shards of bounded size.

use super::mapping::Mapping;
use super::page::EncodedClip;
use super::{ShardError, hex, index_xxh3, rows};
use crate::atomic_file::AtomicFile;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, OffsetIndexBuilder};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use schemas::manifest::{BuildOptions, ShardEntry};
use schemas::shard::{ClipMeta, FORMAT_VERSION, FORMAT_VERSION_KEY, OPTIONS_KEY, arrow_schema};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Clips per row group, at most. Readers that cannot skip pages read a whole column chunk, so row
/// groups are small.
pub const ROW_GROUP_CLIPS: usize = 32;

/// Stored bytes of a row group, at most (not counting its last clip).
pub const ROW_GROUP_BYTES: usize = 64 << 20;

/// zstd level of the columns beside the pixels.
const META_LEVEL: i32 = 3;

/// Writes clips, in the order in which they are pushed, to `shard-00000.parquet` and on. A shard is
/// renamed to its name when it is complete.
///
/// At most one row group of compressed clips is held in memory.
///
/// ```
/// use pipeline::shard::{Shard, ShardSetWriter, page, synthetic};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let options = synthetic::options();
/// let mut writer = ShardSetWriter::new(dir, options.clone(), Vec::new());
/// for number in 0..5 {
///     let (meta, frames) = synthetic::clip(number);
///     // Usually on another thread than the writer's.
///     let encoded = page::encode(&frames, options.payload, meta.frames, options.level)?;
///     writer.push(meta, encoded)?;
/// }
/// let shards = writer.finish()?;
/// assert_eq!((shards.len(), shards[0].clips), (1, 5));
/// let shard = Shard::open_as_listed(dir, &shards[0])?;
/// assert_eq!(shard.metas()?[4].video, "synthetic-4");
/// # Ok(()) }
/// ```
pub struct ShardSetWriter {
    dir: PathBuf,
    options: BuildOptions,
    open: Option<OpenShard>,
    group: Vec<(ClipMeta, EncodedClip)>,
    group_bytes: usize,
    finished: Vec<ShardEntry>,
}

impl ShardSetWriter {
    /// A writer into `dir`, which must exist and hold the shards `finished` (none for a new build);
    /// further ones are numbered after them.
    pub fn new(dir: &Path, options: BuildOptions, finished: Vec<ShardEntry>) -> Self {
        Self {
            dir: dir.to_owned(),
            options,
            open: None,
            group: Vec::new(),
            group_bytes: 0,
            finished,
        }
    }

    /// The complete shards, in order.
    pub fn finished(&self) -> &[ShardEntry] {
        &self.finished
    }

    /// Appends a clip; returns whether it was the last of its shard, which is then on disk.
    /// `meta.data_xxh3` is set from the encoded clip.
    ///
    /// # Errors
    /// When the shard cannot be written (a full disk, for example). Finished shards stay usable.
    pub fn push(&mut self, mut meta: ClipMeta, clip: EncodedClip) -> Result<bool, ShardError> {
        meta.data_xxh3 = clip.xxh3;
        self.group_bytes += clip.body.len();
        self.group.push((meta, clip));
        let shard_bytes = self.open.as_ref().map_or(0, OpenShard::bytes_written) + self.group_bytes;
        let shard_is_full = shard_bytes as u64 >= self.options.shard_bytes;
        if shard_is_full
            || self.group.len() >= ROW_GROUP_CLIPS
            || self.group_bytes >= ROW_GROUP_BYTES
        {
            self.flush_group()?;
        }
        if shard_is_full {
            self.close_shard()?;
        }
        Ok(shard_is_full)
    }

    /// Writes the remaining clips and completes the last shard.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<&[ShardEntry], ShardError> {
        self.flush_group()?;
        self.close_shard()?;
        Ok(&self.finished)
    }

    fn flush_group(&mut self) -> Result<(), ShardError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => {
                let file = shard_file(self.finished.len());
                self.open
                    .insert(OpenShard::create(&self.dir, file, &self.options)?)
            }
        };
        let (metas, clips): (Vec<_>, Vec<_>) = self.group.drain(..).unzip();
        self.group_bytes = 0;
        shard
            .append_row_group(&metas, clips)
            .map_err(ShardError::parquet("write", &shard.path))
    }

    fn close_shard(&mut self) -> Result<(), ShardError> {
        if let Some(shard) = self.open.take() {
            self.finished.push(shard.close()?);
        }
        Ok(())
    }
}

/// File name of shard `index`.
fn shard_file(index: usize) -> String {
    format!("shard-{index:05}.parquet")
}

struct OpenShard {
    path: PathBuf,
    file: String,
    writer: SerializedFileWriter<AtomicFile>,
    columns: ArrowRowGroupWriterFactory,
    data_compression: Compression,
    clips: u64,
    /// Hash of the stored pixels of all row groups up to now.
    pixels_hash: Xxh3,
}

impl OpenShard {
    fn create(dir: &Path, file: String, options: &BuildOptions) -> Result<Self, ShardError> {
        let path = dir.join(&file);
        let options_json = serde_json::to_string(options).expect("plain data becomes JSON");
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("shardtool ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![
                KeyValue::new(FORMAT_VERSION_KEY.to_owned(), FORMAT_VERSION.to_string()),
                KeyValue::new(OPTIONS_KEY.to_owned(), options_json),
            ]))
            .set_compression(zstd(META_LEVEL))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let schema = arrow_schema();
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let parquet_error = || ShardError::parquet("write", &path);
        let parquet_schema = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(parquet_error())?;
        let sink = AtomicFile::create(&path).map_err(ShardError::io("create", &path))?;
        let writer =
            SerializedFileWriter::new(sink, parquet_schema.root_schema_ptr(), Arc::new(properties))
                .map_err(parquet_error())?;
        let columns = ArrowRowGroupWriterFactory::new(&writer, schema);
        let data_compression = if options.level == 0 {
            Compression::UNCOMPRESSED
        } else {
            zstd(META_LEVEL)
        };
        Ok(Self {
            path,
            file,
            writer,
            columns,
            data_compression,
            clips: 0,
            pixels_hash: Xxh3::new(),
        })
    }

    fn bytes_written(&self) -> usize {
        self.writer.bytes_written()
    }

    fn append_row_group(
        &mut self,
        metas: &[ClipMeta],
        clips: Vec<EncodedClip>,
    ) -> ParquetResult<()> {
        let index = self.writer.flushed_row_groups().len();
        let mut writers = self.columns.create_column_writers(index)?.into_iter();
        let schema = arrow_schema();
        let data_column = self
            .writer
            .schema_descr()
            .column(self.writer.schema_descr().num_columns() - 1);
        let mut group = self.writer.next_row_group()?;
        let arrays = rows::to_arrays(metas, clips.iter().map(|clip| &clip.parts));
        for (array, field) in arrays.iter().zip(schema.fields()) {
            for leaf in compute_leaves(field, array)? {
                let mut column = writers
                    .next()
                    .expect("a writer for each leaf of the schema");
                column.write(&leaf)?;
                column.close()?.append_to_row_group(&mut group)?;
            }
        }
        self.clips += clips.len() as u64;
        let (chunk, close) = data_chunk(clips, data_column, self.data_compression)?;
        self.pixels_hash.update(&chunk);
        group.append_column(&chunk, close)?;
        group.close()?;
        Ok(())
    }

    fn close(self) -> Result<ShardEntry, ShardError> {
        let mut pixels = Vec::new();
        for group in self.writer.flushed_row_groups() {
            pixels.push(group.column(group.num_columns() - 1).byte_range());
        }
        // This also writes the footer.
        let sink = self
            .writer
            .into_inner()
            .map_err(ShardError::parquet("write", &self.path))?;
        sink.commit()
            .map_err(ShardError::io("finish", &self.path))?;
        let file = Mapping::open(&self.path)?;
        let index_xxh3 =
            index_xxh3(&file, &pixels).expect("row groups follow each other within their file");
        let pixels_xxh3 = hex(&self.pixels_hash);
        Ok(ShardEntry {
            file: self.file,
            clips: self.clips,
            bytes: file.len() as u64,
            pixels,
            index_xxh3,
            pixels_xxh3,
            rows: None,
            labels: None,
        })
    }
}

/// The `data` column chunk of a row group, one page per clip, as bytes that begin at offset 0.
fn data_chunk(
    clips: Vec<EncodedClip>,
    column: parquet::schema::types::ColumnDescPtr,
    compression: Compression,
) -> ParquetResult<(Bytes, ColumnCloseResult)> {
    let rows = clips.len();
    let stored: usize = clips.iter().map(|clip| clip.body.len() + 64).sum();
    let mut sink = TrackedWrite::new(Vec::with_capacity(stored));
    let mut offsets = OffsetIndexBuilder::new();
    let (mut compressed, mut uncompressed) = (0, 0);
    let mut pages = SerializedPageWriter::new(&mut sink);
    for clip in clips {
        let page = Page::DataPage {
            buf: clip.body.into(),
            num_values: 1,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let written = pages.write_page(CompressedPage::new(page, clip.uncompressed_bytes))?;
        offsets.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
        offsets.append_row_count(1);
        compressed += written.compressed_size;
        uncompressed += written.uncompressed_size;
    }
    let metadata = ColumnChunkMetaData::builder(column)
        .set_compression(compression)
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
        .set_num_values(rows as i64)
        .set_total_compressed_size(compressed as i64)
        .set_total_uncompressed_size(uncompressed as i64)
        .set_data_page_offset(0)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: compressed as u64,
        rows_written: rows as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(offsets.build()),
    };
    Ok((sink.into_inner()?.into(), close))
}

fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).expect("a level within zstd's range"))
}
