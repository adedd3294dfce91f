//! Opens shards: maps them and reads their index. [`super::clip`] reads their clips.

use super::clip::Wanted;
use super::mapping::Mapping;
use super::page::page_sizes;
use super::remote::{Remote, RemoteClip};
use super::set::{is_read, other_version};
use super::{ShardError, index_xxh3, rows};
use crate::frames::Color;
use arrow::array::{AsArray, Int32Array, RecordBatch, RecordBatchReader, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int32Type, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::file::metadata::PageIndexPolicy;
use schemas::geometry::FrameSize;
use schemas::manifest::ShardEntry;
use schemas::shard::{ClipMeta, DATA_COLUMN, FORMAT_VERSION_KEY, Parts, Payload, arrow_schema_of};
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a page's header, at most.
const PAGE_HEADER_BYTES: usize = 64;

/// The index entry of a clip, which is kept in memory: enough to read and transform it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipEntry {
    /// Frames stored.
    pub frames: usize,
    /// Size of a frame.
    pub size: FrameSize,
    /// Range and matrix of its samples.
    pub color: Color,
    /// How they are stored.
    pub payload: Payload,
    /// Class number.
    pub label: Option<i32>,
    /// XXH3-64 of the payload.
    pub(super) xxh3: u64,
    pub(super) page_offset: usize,
    pub(super) page_bytes: usize,
    /// Bytes of the page before its body; 0, unknown, before format version 4.
    pub(super) header_bytes: usize,
    pub(super) compressed: bool,
    /// Frames of each part but the last; at least 1.
    pub(super) part_frames: usize,
    /// Its parts among those of the shard.
    pub(super) first_part: usize,
    pub(super) parts: usize,
}

/// A part of a clip, which is read on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Where its stored bytes start in the body of the page. They end where the next part starts.
    pub(super) start: usize,
    /// XXH3-64 of its bytes of the payload.
    pub(super) xxh3: u64,
}

impl ClipEntry {
    /// Bytes of its pixels in the file.
    pub const fn stored_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Where its page lies in the file.
    pub(super) const fn page(&self) -> Range<usize> {
        self.page_offset..self.page_offset + self.page_bytes
    }

    /// The frames of part `part`; the last part may have fewer.
    pub(super) const fn part_range(&self, part: usize) -> Range<usize> {
        let start = part * self.part_frames;
        start..start + self.part_frames
    }

    /// The minimal and maximal bytes of its payload; `None` if no page can be as large.
    pub(super) fn payload_bytes(&self) -> Option<(usize, usize)> {
        let pixels = self.size.width.checked_mul(self.size.height)?;
        if pixels.checked_mul(self.frames)? > i32::MAX as usize {
            return None;
        }
        let planes = self.frames * self.size.frame_bytes();
        Some(match self.payload {
            Payload::I420 | Payload::I420Delta => (planes, planes),
            Payload::Rgb => (3 * self.frames * pixels, 3 * self.frames * pixels),
            // Lossless noise takes a little more than its planes. Small sides are padded.
            Payload::H264 => (1, 2 * planes + self.frames * 4096),
        })
    }
}

/// One open shard: its file, and an entry for each of its clips.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    pub(super) file: ShardFile,
    clips: Vec<ClipEntry>,
    parts: Vec<Part>,
    /// See [`ShardEntry::rows`] and [`ShardEntry::labels`].
    rows: Option<Vec<(u32, u32)>>,
    labels: Option<Vec<i32>>,
}

/// Where the bytes of a shard are.
#[derive(Debug)]
pub(super) enum ShardFile {
    /// In a file, which is mapped.
    Mapped(Mapping),
    /// In an object of a store.
    Remote(Remote),
}

impl Shard {
    /// A shard in a store, as the index of its data set describes it.
    pub(super) fn remote(
        path: PathBuf,
        remote: Remote,
        clips: Vec<ClipEntry>,
        parts: Vec<Part>,
        entry: &ShardEntry,
    ) -> Self {
        Self {
            path,
            file: ShardFile::Remote(remote),
            clips,
            parts,
            rows: entry.rows.clone(),
            // The index has the labels of the data set.
            labels: None,
        }
    }

    /// Maps the shard that `entry` names in folder `dir`, and checks it against its entry in the
    /// manifest: its size, the hash of all but its pixels, and its number of clips.
    ///
    /// # Errors
    /// As [`Shard::open`], and [`ShardError::DamagedShard`] when something differs.
    pub fn open_as_listed(dir: &Path, entry: &ShardEntry) -> Result<Self, ShardError> {
        let path = dir.join(&entry.file);
        let damaged = |reason: String| ShardError::DamagedShard {
            path: path.clone(),
            reason,
        };
        let file = Mapping::open(&path)?;
        if file.len() as u64 != entry.bytes {
            return Err(damaged(format!(
                "it has {} bytes, the manifest says {}",
                file.len(),
                entry.bytes
            )));
        }
        if index_xxh3(&file, &entry.pixels).as_ref() != Some(&entry.index_xxh3) {
            return Err(damaged(
                "its footer or its table of clips does not have the hash that the manifest gives"
                    .to_owned(),
            ));
        }
        let mut shard = Self::open(&path)?;
        shard
            .restrict(entry)
            .ok_or_else(|| damaged("it lacks rows that the manifest names".to_owned()))?;
        if shard.clips.len() as u64 != entry.clips {
            return Err(damaged(format!(
                "it has {} clips, the manifest says {}",
                shard.clips.len(),
                entry.clips
            )));
        }
        Ok(shard)
    }

    /// Maps the shard at `path` and reads its index: all columns but the pixels.
    ///
    /// # Errors
    /// When the file cannot be mapped, is not valid Parquet, or is not a shard of this version.
    pub fn open(path: &Path) -> Result<Self, ShardError> {
        // The Parquet crate panics on some damaged footers.
        catch_unwind(|| Self::open_trusting(path)).unwrap_or_else(|_| {
            let reason = "its footer is damaged; rebuild this shard".to_owned();
            Err(ShardError::NotAShard {
                path: path.to_owned(),
                reason,
            })
        })
    }

    fn open_trusting(path: &Path) -> Result<Self, ShardError> {
        let (file, metadata) = open_parquet(path)?;
        let rows = read_rows(path, &file, &metadata)?;
        let not_a_shard = |reason: &str| ShardError::NotAShard {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let parquet = metadata.metadata();
        let mut clips = Vec::with_capacity(rows.len());
        let mut parts = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter();
        for (index, group) in parquet.row_groups().iter().enumerate() {
            let column = group.num_columns() - 1;
            let compressed = match group.column(column).compression() {
                Compression::UNCOMPRESSED => false,
                Compression::ZSTD(_) => true,
                other => {
                    return Err(not_a_shard(&format!(
                        "its pixels are compressed with {other}"
                    )));
                }
            };
            let pages = parquet.page_index_for_row_group(index);
            let pages = pages
                .offset_index(column)
                .ok_or_else(|| not_a_shard("it has no offset index"))?
                .page_locations();
            if pages.len() as i64 != group.num_rows() {
                return Err(not_a_shard("it does not hold one clip a page"));
            }
            for page in pages {
                let (meta, table) = rows
                    .next()
                    .ok_or_else(|| not_a_shard("it has fewer rows than pages"))?;
                let range = page
                    .offset
                    .try_into()
                    .ok()
                    .zip(page.compressed_page_size.try_into().ok());
                let (page_offset, page_bytes): (usize, usize) =
                    range.ok_or_else(|| not_a_shard("a page has a negative place"))?;
                if page_offset
                    .checked_add(page_bytes)
                    .is_none_or(|end| end > file.len())
                {
                    return Err(not_a_shard("a page lies outside of the file"));
                }
                let first_part = parts.len();
                match &table {
                    Some(table) => {
                        let whole = parts_of(
                            meta.frames,
                            meta.payload,
                            table.frames,
                            &table.bytes,
                            &table.xxh3,
                            page_bytes,
                        );
                        parts.extend(whole.ok_or_else(|| {
                            not_a_shard("the parts of a clip do not make up the clip")
                        })?);
                    }
                    None => parts.push(Part {
                        start: 0,
                        xxh3: meta.data_xxh3,
                    }),
                }
                clips.push(ClipEntry {
                    frames: meta.frames as usize,
                    size: FrameSize {
                        width: meta.width as usize,
                        height: meta.height as usize,
                    },
                    color: Color {
                        range: meta.color_range,
                        matrix: meta.color_matrix,
                    },
                    payload: meta.payload,
                    label: meta.label,
                    xxh3: meta.data_xxh3,
                    page_offset,
                    page_bytes,
                    header_bytes: table.as_ref().map_or(0, |table| {
                        let body: usize = table.bytes.iter().map(|&bytes| bytes as usize).sum();
                        page_bytes - body
                    }),
                    compressed,
                    part_frames: 1.max(table.as_ref().map_or(meta.frames, |table| table.frames))
                        as usize,
                    first_part,
                    parts: parts.len() - first_part,
                });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file: ShardFile::Mapped(file),
            clips,
            parts,
            rows: None,
            labels: None,
        })
    }

    /// Leaves the rows that belong to the data set of `entry`, with its class numbers; `None` if
    /// the shard does not have these rows.
    fn restrict(&mut self, entry: &ShardEntry) -> Option<()> {
        self.rows.clone_from(&entry.rows);
        self.labels.clone_from(&entry.labels);
        if let Some(rows) = &self.rows {
            let mut clips = Vec::new();
            for &(first, end) in rows {
                clips.extend_from_slice(self.clips.get(first as usize..end as usize)?);
            }
            self.clips = clips;
        }
        for clip in &mut self.clips {
            clip.label = relabelled(&self.labels, clip.label);
        }
        Some(())
    }

    /// Leaves the rows of the data set in `all`, which has an item per row of the file.
    fn of_rows<T>(&self, all: Vec<T>) -> Vec<T> {
        let Some(rows) = &self.rows else {
            return all;
        };
        let is_in = |row: usize| {
            let after = rows.partition_point(|&(first, _)| first as usize <= row);
            after > 0 && row < rows[after - 1].1 as usize
        };
        let numbered = all.into_iter().enumerate();
        numbered
            .filter(|&(row, _)| is_in(row))
            .map(|(_, item)| item)
            .collect()
    }

    /// Number in the file of row `row` of the data set.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn stored_row(&self, row: usize) -> usize {
        let Some(ranges) = &self.rows else {
            return row;
        };
        let mut rest = row as u32;
        for &(first, end) in ranges {
            if rest < end - first {
                return (first + rest) as usize;
            }
            rest -= end - first;
        }
        panic!("row {row} of {}", self.clips.len())
    }

    /// The parts of a clip of this shard, at least one.
    pub(super) fn parts(&self, clip: &ClipEntry) -> &[Part] {
        &self.parts[clip.first_part..][..clip.parts]
    }

    /// Clip `row` of this shard, which is `remote`.
    pub(super) fn remote_clip<'a>(&'a self, remote: &'a Remote, row: usize) -> RemoteClip<'a> {
        let clip = &self.clips[row];
        RemoteClip {
            shard: remote,
            clip,
            parts: self.parts(clip),
        }
    }

    /// The clips in the order of their rows.
    pub fn clips(&self) -> &[ClipEntry] {
        &self.clips
    }

    /// Announces that the windows of `frames` frames from `starts` on of clip `row` will soon be
    /// read: what they need is read from disk, or fetched from the store, without waiting for it.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn fetch(&self, row: usize, frames: usize, starts: &[usize]) {
        let clip = &self.clips[row];
        let (page, parts) = (clip.page(), self.parts(clip));
        let file = match &self.file {
            ShardFile::Mapped(file) => file,
            ShardFile::Remote(remote) => {
                return self
                    .remote_clip(remote, row)
                    .announce(Wanted { frames, starts });
            }
        };
        // The body begins a few bytes after the page.
        let place = |part: usize| {
            parts
                .get(part)
                .map_or(page.end, |part| page.end.min(page.start + part.start))
        };
        for start in starts {
            let first = place(start / clip.part_frames);
            let end = place((start + frames).div_ceil(clip.part_frames));
            file.fetch(first..page.end.min(end + PAGE_HEADER_BYTES));
            if first > page.start {
                file.fetch(page.start..page.start + 1);
            }
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The columns of the shard, which depend on the version of its format.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn schema(&self) -> Result<SchemaRef, ShardError> {
        if let ShardFile::Remote(remote) = &self.file {
            return Ok(remote.schema());
        }
        let (_, metadata) = open_parquet(&self.path)?;
        Ok(metadata.schema().clone())
    }

    /// Reads the columns `names` of the clips, all in one batch.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn columns(&self, names: &BTreeSet<&str>) -> Result<RecordBatch, ShardError> {
        if let ShardFile::Remote(remote) = &self.file {
            return remote.columns(names);
        }
        let (file, metadata) = open_parquet(&self.path)?;
        let read_error = || ShardError::parquet("read", &self.path);
        let reader = reader_of(&self.path, &file, &metadata, |name| names.contains(name))?;
        let schema = reader.schema();
        let batches = reader
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| read_error()(error.into()))?;
        let all = concat_batches(&schema, &batches).map_err(|error| read_error()(error.into()))?;
        let rows: UInt32Array = self.of_rows((0..all.num_rows() as u32).collect()).into();
        let batch = take_record_batch(&all, &rows).map_err(|error| read_error()(error.into()))?;
        Ok(match (&self.labels, batch.column_by_name("label")) {
            (Some(_), Some(labels)) => {
                let labels = labels.as_primitive::<Int32Type>();
                let labels: Int32Array = labels
                    .iter()
                    .map(|label| relabelled(&self.labels, label))
                    .collect();
                let mut columns = batch.columns().to_vec();
                if let Some((index, _)) = batch.schema().column_with_name("label") {
                    columns[index] = Arc::new(labels);
                }
                RecordBatch::try_new(batch.schema(), columns)
                    .map_err(|error| read_error()(error.into()))?
            }
            _ => batch,
        })
    }

    /// Reads all columns but the pixels.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn metas(&self) -> Result<Vec<ClipMeta>, ShardError> {
        Ok(self.rows()?.into_iter().map(|(meta, _)| meta).collect())
    }

    /// Reads all columns but the pixels, and the parts of each clip.
    pub(super) fn rows(&self) -> Result<Vec<(ClipMeta, Parts)>, ShardError> {
        let unknown = || ShardError::NotAShard {
            path: self.path.clone(),
            reason: "a row contradicts itself".to_owned(),
        };
        let rows = match &self.file {
            ShardFile::Remote(remote) => {
                let all = remote.schema();
                let names = all.fields().iter().map(|field| field.name().as_str());
                let batch = remote.columns(&names.collect())?;
                let metas = rows::from_batch(&batch).ok_or_else(unknown)?;
                let parts = rows::parts_from_batch(&batch).ok_or_else(unknown)?;
                return Ok(metas.into_iter().zip(parts).collect());
            }
            ShardFile::Mapped(_) => {
                let (file, metadata) = open_parquet(&self.path)?;
                self.of_rows(read_rows(&self.path, &file, &metadata)?)
            }
        };
        let rows = rows.into_iter().zip(&self.clips);
        rows.map(|((mut meta, parts), clip)| {
            meta.label = relabelled(&self.labels, meta.label);
            // Before format version 4, a clip is one part.
            let parts = match (parts, &self.file) {
                (Some(parts), _) => Some(parts),
                (None, ShardFile::Mapped(file)) => {
                    page_sizes(&file[clip.page()]).map(|sizes| Parts {
                        frames: meta.frames.max(1),
                        bytes: vec![sizes.compressed as u32],
                        xxh3: vec![meta.data_xxh3],
                    })
                }
                (None, ShardFile::Remote(_)) => None,
            };
            Ok((meta, parts.ok_or_else(unknown)?))
        })
        .collect()
    }
}

/// The class number in the manifest of the stored class number `label`.
fn relabelled(labels: &Option<Vec<i32>>, label: Option<i32>) -> Option<i32> {
    match labels {
        None => label,
        Some(labels) => labels.get(usize::try_from(label?).ok()?).copied(),
    }
}

pub(super) fn open_parquet(path: &Path) -> Result<(Mapping, ArrowReaderMetadata), ShardError> {
    let map = Mapping::open(path)?;
    map.advise_random();
    let bytes = Bytes::from_owner(map.clone());
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata =
        ArrowReaderMetadata::load(&bytes, options).map_err(ShardError::parquet("read", path))?;
    let not_a_shard = |reason: String| ShardError::NotAShard {
        path: path.to_owned(),
        reason,
    };
    let key_values = metadata.metadata().file_metadata().key_value_metadata();
    let version = key_values
        .into_iter()
        .flatten()
        .find(|pair| pair.key == FORMAT_VERSION_KEY)
        .and_then(|pair| pair.value.as_deref());
    let expected = match version {
        None => {
            return Err(not_a_shard(format!(
                "its metadata has no {FORMAT_VERSION_KEY}"
            )));
        }
        Some(version) => match version.parse() {
            Ok(version) if is_read(version) => arrow_schema_of(version),
            _ => return Err(not_a_shard(other_version(version))),
        },
    };
    if metadata.schema().fields() != expected.fields() {
        return Err(not_a_shard(
            "its columns are not those of a shard".to_owned(),
        ));
    }
    Ok((map, metadata))
}

/// The parts of a clip whose page has `page_bytes` bytes, from its columns; `None` if they do not
/// make up the clip.
pub(super) fn parts_of(
    frames: u32,
    payload: Payload,
    part_frames: u32,
    bytes: &[u32],
    xxh3: &[u64],
    page_bytes: usize,
) -> Option<impl Iterator<Item = Part>> {
    let parts = frames.max(1).div_ceil(part_frames.max(1)) as usize;
    let stored: usize = bytes.iter().map(|&bytes| bytes as usize).sum();
    let whole = part_frames > 0
        && (bytes.len(), xxh3.len()) == (parts, parts)
        && stored <= page_bytes
        // A part of H.264 is of no use without those before it.
        && (payload != Payload::H264 || parts == 1);
    let starts = bytes.iter().scan(0, |next, &bytes| {
        let start = *next;
        *next += bytes as usize;
        Some(start)
    });
    let parts = starts.zip(xxh3);
    whole.then(|| parts.map(|(start, &xxh3)| Part { start, xxh3 }))
}

/// A reader of the columns whose name is `wanted`.
fn reader_of(
    path: &Path,
    file: &Mapping,
    metadata: &ArrowReaderMetadata,
    wanted: impl Fn(&str) -> bool,
) -> Result<ParquetRecordBatchReader, ShardError> {
    let schema = metadata.parquet_schema();
    // The root of a list names the column, its leaf does not.
    let columns = (0..schema.num_columns())
        .filter(|&column| wanted(&schema.column(column).path().parts()[0]));
    let projection = ProjectionMask::leaves(schema, columns);
    ParquetRecordBatchReaderBuilder::new_with_metadata(
        Bytes::from_owner(file.clone()),
        metadata.clone(),
    )
    .with_projection(projection)
    .build()
    .map_err(ShardError::parquet("read", path))
}

/// All columns but the pixels. Before format version 4, clips have no table of parts.
fn read_rows(
    path: &Path,
    file: &Mapping,
    metadata: &ArrowReaderMetadata,
) -> Result<Vec<(ClipMeta, Option<Parts>)>, ShardError> {
    let read_error = || ShardError::parquet("read", path);
    let reader = reader_of(path, file, metadata, |name| name != DATA_COLUMN)?;
    let mut all = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| read_error()(error.into()))?;
        let metas = rows::from_batch(&batch).ok_or_else(|| ShardError::NotAShard {
            path: path.to_owned(),
            reason: "a row names an unknown payload, colour range or matrix".to_owned(),
        })?;
        let mut parts = rows::parts_from_batch(&batch).map(Vec::into_iter);
        all.extend(metas.into_iter().map(|meta| {
            let parts = parts.as_mut().and_then(Iterator::next);
            (meta, parts)
        }));
    }
    Ok(all)
}
