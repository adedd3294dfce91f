//! The index of a data set: one Parquet table with a row for each clip of all its shards, in
//! `index.parquet` beside the manifest. It has every column of the shards but the frames, and where
//! the page of each clip lies. With it, a data set in an object store is opened by reading two
//! objects, however many shards it has.
//!
//! Clips, order and labels are those of the data set: rows of a shard that a manifest of `filter`
//! or `merge` leaves out are not in its index.

use super::reader::{ClipEntry, Part, Shard, parts_of};
use super::remote::push_stored;
use super::{ShardError, rows};
use crate::atomic_file;
use crate::frames::Color;
use crate::store::{StoreError, Url};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, RecordBatch, RecordBatchReader,
    StringArray, UInt32Array, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Int32Type, Schema, SchemaRef, UInt32Type, UInt64Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use schemas::geometry::FrameSize;
use schemas::manifest::{INDEX_FILE, IndexEntry, ShardEntry};
use schemas::shard::{ColorMatrix, ColorRange, DATA_COLUMN, Payload, arrow_schema};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 16;

/// Columns of numbers that do not repeat: a dictionary would be larger.
const PLAIN: [&str; 6] = [
    "data_xxh3",
    "part_xxh3",
    "phash",
    "page_offset",
    "page_bytes",
    "row",
];

/// The columns that [`Index::clips`] reads.
const ENTRY_COLUMNS: [&str; 15] = [
    "shard",
    "page_offset",
    "page_bytes",
    "compressed",
    "label",
    "frames",
    "width",
    "height",
    "color_range",
    "color_matrix",
    "payload",
    "data_xxh3",
    "part_frames",
    "part_bytes",
    "part_xxh3",
];

/// The columns of the index: the place of the clip, then those of a shard but the frames.
fn schema() -> SchemaRef {
    let required = |name: &str, data_type| Arc::new(Field::new(name, data_type, false));
    let mut fields = vec![
        // Number of the shard in the manifest.
        required("shard", DataType::UInt32),
        // Number of the row in the shard.
        required("row", DataType::UInt32),
        // Offset and size in bytes of its page in the shard.
        required("page_offset", DataType::UInt64),
        required("page_bytes", DataType::UInt32),
        required("compressed", DataType::Boolean),
    ];
    let columns = arrow_schema();
    let columns = columns.fields().iter();
    fields.extend(columns.filter(|field| field.name() != DATA_COLUMN).cloned());
    Arc::new(Schema::new(fields))
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(3).expect("a level within zstd's range");
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("shardtool ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    let path = |name: &str| match schema().field_with_name(name).map(Field::data_type) {
        Ok(DataType::List(_)) => {
            ColumnPath::from(vec![name.to_owned(), "list".to_owned(), "item".to_owned()])
        }
        _ => ColumnPath::from(name),
    };
    for name in PLAIN {
        properties = properties.set_column_dictionary_enabled(path(name), false);
    }
    for name in ["pts_ns", "page_offset", "row"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// Writes the index of `shards`, all those of a manifest in the folder `dir`, beside it.
///
/// # Errors
/// When a shard cannot be read, or the file cannot be written.
pub fn write(dir: &Path, shards: &[ShardEntry]) -> Result<IndexEntry, ShardError> {
    let path = dir.join(INDEX_FILE);
    let mut writer = IndexWriter::new(&path)?;
    for shard in shards {
        writer.push(&Shard::open_as_listed(dir, shard)?)?;
    }
    let (bytes, entry) = writer.finish()?;
    atomic_file::write(&path, &bytes).map_err(ShardError::io("write", &path))?;
    Ok(entry)
}

/// Makes the index of `shards`, all those of a manifest at `url` in a store, at the cost of some
/// requests for each. Returns the file, and its entry for the manifest.
///
/// # Errors
/// When a shard cannot be fetched, or is not what its entry says.
pub fn of_store(url: &Url, shards: &[ShardEntry]) -> Result<(Vec<u8>, IndexEntry), ShardError> {
    let name = url.join(INDEX_FILE).map_err(StoreError::from)?;
    let mut writer = IndexWriter::new(Path::new(&name.to_string()))?;
    writer.push_stored(url, shards)?;
    writer.finish()
}

/// Writes an index into memory, shard by shard.
pub struct IndexWriter {
    path: PathBuf,
    writer: ArrowWriter<Vec<u8>>,
    shards: u32,
}

impl IndexWriter {
    /// A writer of an index at `path`, which is for messages.
    ///
    /// # Errors
    /// When the Parquet crate refuses.
    pub fn new(path: &Path) -> Result<Self, ShardError> {
        let writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties()));
        Ok(Self {
            path: path.to_owned(),
            writer: writer.map_err(ShardError::parquet("write", path))?,
            shards: 0,
        })
    }

    /// Appends the clips of the next shard.
    ///
    /// # Errors
    /// When the shard cannot be read.
    pub fn push(&mut self, shard: &Shard) -> Result<(), ShardError> {
        let rows = rows_of(self.shards, shard)?;
        self.shards += 1;
        let written = self.writer.write(&rows);
        written.map_err(ShardError::parquet("write", &self.path))
    }

    /// Appends the clips of the next `shards`, which are at `url` in a store.
    ///
    /// # Errors
    /// When a shard cannot be fetched, or is not what its entry says.
    pub fn push_stored(&mut self, url: &Url, shards: &[ShardEntry]) -> Result<(), ShardError> {
        push_stored(self, url, shards)
    }

    /// The file, and its entry in the manifest.
    ///
    /// # Errors
    /// When the Parquet crate refuses.
    pub fn finish(self) -> Result<(Vec<u8>, IndexEntry), ShardError> {
        let bytes = self.writer.into_inner();
        let bytes = bytes.map_err(ShardError::parquet("write", &self.path))?;
        let entry = IndexEntry {
            bytes: bytes.len() as u64,
            xxh3: format!("{:016x}", xxh3_64(&bytes)),
        };
        Ok((bytes, entry))
    }
}

/// The rows of one shard.
fn rows_of(number: u32, shard: &Shard) -> Result<RecordBatch, ShardError> {
    let (metas, parts): (Vec<_>, Vec<_>) = shard.rows()?.into_iter().unzip();
    let clips = shard.clips();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vec![number; clips.len()])),
        Arc::new(UInt32Array::from_iter_values(
            (0..clips.len()).map(|row| shard.stored_row(row) as u32),
        )),
        Arc::new(UInt64Array::from_iter_values(
            clips.iter().map(|clip| clip.page().start as u64),
        )),
        Arc::new(UInt32Array::from_iter_values(
            clips.iter().map(|clip| clip.stored_bytes() as u32),
        )),
        Arc::new(BooleanArray::from_iter(
            clips.iter().map(|clip| Some(clip.compressed)),
        )),
    ];
    columns.extend(rows::to_arrays(&metas, parts.iter()));
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| ShardError::parquet("write", shard.path())(error.into()))
}

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    name: PathBuf,
    file: Bytes,
    metadata: ArrowReaderMetadata,
    /// The row group that was read last: columns are asked for shard by shard.
    last: Mutex<Option<LastRead>>,
}

/// Some columns of a row group.
#[derive(Debug)]
struct LastRead {
    group: usize,
    names: Vec<String>,
    columns: RecordBatch,
}

/// The clips of one shard in an index.
#[derive(Debug, Default)]
pub(super) struct IndexedShard {
    /// Its rows in the index.
    pub(super) rows: Range<usize>,
    /// Its clips, as [`Shard::clips`].
    pub(super) clips: Vec<ClipEntry>,
    /// Their parts.
    pub(super) parts: Vec<Part>,
}

impl Index {
    /// Opens the index in `file`, which `entry` describes; `name` is for messages.
    ///
    /// # Errors
    /// When the bytes are not those that were written.
    pub(super) fn open(name: &Path, file: Bytes, entry: &IndexEntry) -> Result<Self, ShardError> {
        let damaged = |reason: String| ShardError::DamagedShard {
            path: name.to_owned(),
            reason,
        };
        let is_whole = file.len() as u64 == entry.bytes;
        if !is_whole || format!("{:016x}", xxh3_64(&file)) != entry.xxh3 {
            return Err(damaged(
                "it does not have the hash that the manifest gives".to_owned(),
            ));
        }
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let metadata =
            ArrowReaderMetadata::load(&file, options).map_err(ShardError::parquet("read", name))?;
        if metadata.schema().fields() != schema().fields() {
            return Err(ShardError::NotAShard {
                path: name.to_owned(),
                reason: "the columns of the index are not those of this version; write it again \
                         with `shardtool index`"
                    .to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            file,
            metadata,
            last: Mutex::new(None),
        })
    }

    /// The columns of the index.
    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.metadata.schema().fields().iter().skip(5);
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
    }

    /// The clips of all `shards` shards.
    ///
    /// # Errors
    /// When the index cannot be decoded, or contradicts itself.
    pub(super) fn clips(&self, shards: usize) -> Result<Vec<IndexedShard>, ShardError> {
        let mut all: Vec<IndexedShard> = Vec::new();
        all.resize_with(shards, IndexedShard::default);
        let names = BTreeSet::from(ENTRY_COLUMNS);
        let mut number = 0;
        let reader = self.builder(&names).and_then(|builder| builder.build());
        for batch in reader.map_err(self.parquet_error())? {
            let batch = batch.map_err(|error| self.parquet_error()(error.into()))?;
            let columns = EntryColumns::of(&batch).ok_or_else(|| self.contradiction())?;
            for row in 0..batch.num_rows() {
                let shard = columns.shard.value(row) as usize;
                let place = all.get_mut(shard).ok_or_else(|| self.contradiction())?;
                if place.clips.is_empty() {
                    place.rows = number..number;
                }
                if place.rows.end != number {
                    return Err(self.contradiction());
                }
                place.rows.end += 1;
                number += 1;
                let clip = columns.clip(row, &mut place.parts);
                place.clips.push(clip.ok_or_else(|| self.contradiction())?);
            }
        }
        Ok(all)
    }

    /// The columns `names` of the clips in `rows`.
    ///
    /// # Errors
    /// When the index cannot be decoded.
    pub(super) fn columns(
        &self,
        rows: Range<usize>,
        names: &BTreeSet<&str>,
    ) -> Result<RecordBatch, ShardError> {
        let all = self.metadata.schema().fields().iter();
        let fields = all.filter(|field| names.contains(field.name().as_str()));
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let read = || -> ParquetResult<RecordBatch> {
            let mut batches = Vec::new();
            let mut first = 0;
            for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
                let end = first + group.num_rows() as usize;
                let wanted = rows.start.max(first)..rows.end.min(end);
                if wanted.start < wanted.end {
                    let whole = self.group(number, names)?;
                    batches.push(whole.slice(wanted.start - first, wanted.len()));
                }
                first = end;
            }
            Ok(concat_batches(&schema, &batches)?)
        };
        read().map_err(self.parquet_error())
    }

    /// Columns of a whole row group.
    fn group(&self, group: usize, names: &BTreeSet<&str>) -> ParquetResult<RecordBatch> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.group == group
            && last
                .names
                .iter()
                .map(String::as_str)
                .eq(names.iter().copied())
        {
            return Ok(last.columns.clone());
        }
        let reader = self.builder(names)?.with_row_groups(vec![group]).build()?;
        let schema = reader.schema();
        let columns = concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>()?)?;
        *last = Some(LastRead {
            group,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            columns: columns.clone(),
        });
        Ok(columns)
    }

    fn builder(
        &self,
        names: &BTreeSet<&str>,
    ) -> ParquetResult<ParquetRecordBatchReaderBuilder<Bytes>> {
        let metadata = self.metadata.clone();
        let schema = metadata.parquet_schema();
        // The root of a list names the column, its leaf does not.
        let name =
            |&column: &usize| names.contains(schema.column(column).path().parts()[0].as_str());
        let columns = (0..schema.num_columns()).filter(name);
        let projection = ProjectionMask::leaves(schema, columns);
        Ok(
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), metadata)
                .with_projection(projection)
                .with_batch_size(GROUP_ROWS),
        )
    }

    fn parquet_error(&self) -> impl FnOnce(ParquetError) -> ShardError {
        ShardError::parquet("read", &self.name)
    }

    fn contradiction(&self) -> ShardError {
        ShardError::NotAShard {
            path: self.name.clone(),
            reason: "the rows of the index do not fit the manifest".to_owned(),
        }
    }
}

/// What [`Index::clips`] reads of a batch.
struct EntryColumns<'a> {
    shard: &'a UInt32Array,
    page_offset: &'a UInt64Array,
    page_bytes: &'a UInt32Array,
    compressed: &'a BooleanArray,
    label: &'a Int32Array,
    frames: &'a UInt32Array,
    width: &'a UInt32Array,
    height: &'a UInt32Array,
    color_range: &'a StringArray,
    color_matrix: &'a StringArray,
    payload: &'a StringArray,
    data_xxh3: &'a UInt64Array,
    part_frames: &'a UInt32Array,
    part_bytes: &'a ListArray,
    part_xxh3: &'a ListArray,
}

impl<'a> EntryColumns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let number = |name: &str| column(name)?.as_primitive_opt::<UInt32Type>();
        let long = |name: &str| column(name)?.as_primitive_opt::<UInt64Type>();
        let text = |name: &str| column(name)?.as_string_opt::<i32>();
        let list = |name: &str| column(name)?.as_list_opt::<i32>();
        Some(Self {
            shard: number("shard")?,
            page_offset: long("page_offset")?,
            page_bytes: number("page_bytes")?,
            compressed: column("compressed")?.as_boolean_opt()?,
            label: column("label")?.as_primitive_opt::<Int32Type>()?,
            frames: number("frames")?,
            width: number("width")?,
            height: number("height")?,
            color_range: text("color_range")?,
            color_matrix: text("color_matrix")?,
            payload: text("payload")?,
            data_xxh3: long("data_xxh3")?,
            part_frames: number("part_frames")?,
            part_bytes: list("part_bytes")?,
            part_xxh3: list("part_xxh3")?,
        })
    }

    /// The clip of a row, whose parts are appended to `parts`; `None` if it contradicts itself.
    fn clip(&self, row: usize, parts: &mut Vec<Part>) -> Option<ClipEntry> {
        let first_part = parts.len();
        let bytes = list_values::<UInt32Type>(self.part_bytes, row)?;
        let xxh3 = list_values::<UInt64Type>(self.part_xxh3, row)?;
        let (frames, part_frames) = (self.frames.value(row), self.part_frames.value(row));
        let payload = Payload::from_name(self.payload.value(row))?;
        let page_bytes = self.page_bytes.value(row) as usize;
        parts.extend(parts_of(
            frames,
            payload,
            part_frames,
            bytes,
            xxh3,
            page_bytes,
        )?);
        Some(ClipEntry {
            frames: frames as usize,
            size: FrameSize {
                width: self.width.value(row) as usize,
                height: self.height.value(row) as usize,
            },
            color: Color {
                range: ColorRange::from_name(self.color_range.value(row))?,
                matrix: ColorMatrix::from_name(self.color_matrix.value(row))?,
            },
            payload,
            label: self.label.is_valid(row).then(|| self.label.value(row)),
            xxh3: self.data_xxh3.value(row),
            page_offset: usize::try_from(self.page_offset.value(row)).ok()?,
            page_bytes,
            header_bytes: page_bytes - bytes.iter().map(|&bytes| bytes as usize).sum::<usize>(),
            compressed: self.compressed.value(row),
            part_frames: part_frames.max(1) as usize,
            first_part,
            parts: parts.len() - first_part,
        })
    }
}

/// The values of a row of a list column, without copying them.
fn list_values<T: ArrowPrimitiveType>(lists: &ListArray, row: usize) -> Option<&[T::Native]> {
    let values = lists.values().as_primitive_opt::<T>()?.values();
    let ends = lists.value_offsets();
    values.get(ends[row] as usize..ends[row + 1] as usize)
}
