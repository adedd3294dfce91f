//! Reads clips from mapped shards: one slice and one decompression each.

use super::mapping::{Mapping, lost};
use super::page::{LENGTH_BYTES, page_sizes};
use super::{ShardError, index_xxh3, rows};
use crate::frames::{Color, Frames};
use crate::shard::payload::{PayloadDecoder, PayloadFormat};
use crate::stats::{Stage, StageClock};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::file::metadata::PageIndexPolicy;
use schemas::geometry::FrameSize;
use schemas::manifest::{MANIFEST_FILE, Manifest, ShardEntry};
use schemas::shard::{
    ClipMeta, DATA_COLUMN, FORMAT_VERSION, FORMAT_VERSION_KEY, OLDEST_FORMAT_VERSION, Payload,
    arrow_schema_of,
};
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

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
    xxh3: u64,
    page_offset: usize,
    page_bytes: usize,
    compressed: bool,
}

impl ClipEntry {
    /// Bytes of its pixels in the file.
    pub const fn stored_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The minimal and maximal bytes of its payload.
    const fn payload_bytes(&self) -> (usize, usize) {
        let (planes, pixels) = (
            self.frames * self.size.frame_bytes(),
            self.size.width * self.size.height,
        );
        match self.payload {
            Payload::I420 => (planes, planes),
            Payload::Rgb => (3 * self.frames * pixels, 3 * self.frames * pixels),
            // Lossless noise takes a little more than its planes. Small sides are padded.
            Payload::H264 => (1, 2 * planes + self.frames * 4096),
        }
    }

    /// XXH3-64 of the payload.
    pub(super) const fn xxh3(&self) -> u64 {
        self.xxh3
    }
}

/// One open shard: its file, mapped, and an entry for each of its clips.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: Mapping,
    clips: Vec<ClipEntry>,
}

impl Shard {
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
        let shard = Self::open(&path)?;
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
        let metas = read_metas(path, &file, &metadata)?;
        let not_a_shard = |reason: &str| ShardError::NotAShard {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let parquet = metadata.metadata();
        let mut metas = metas.into_iter();
        let mut clips = Vec::with_capacity(metas.len());
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
                let meta = metas
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
                    compressed,
                });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            clips,
        })
    }

    /// The clips in the order of their rows.
    pub fn clips(&self) -> &[ClipEntry] {
        &self.clips
    }

    /// Asks the system to read the pixels of clip `row` from disk, without waiting for them.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn fetch(&self, row: usize) {
        let clip = &self.clips[row];
        self.file
            .fetch(clip.page_offset..clip.page_offset + clip.page_bytes);
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all columns but the pixels.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn metas(&self) -> Result<Vec<ClipMeta>, ShardError> {
        let (file, metadata) = open_parquet(&self.path)?;
        read_metas(&self.path, &file, &metadata)
    }
}

/// Reads clips into memory that it reuses: one reader per thread.
///
/// ```
/// use pipeline::shard::ClipReader;
/// # use pipeline::shard::synthetic;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = synthetic::write(dir.path(), 5)?;
/// let mut reader = ClipReader::default();
/// let (shard, row) = data.locate(3);
/// let frames = reader.frames(shard, row, 8)?;
/// assert_eq!(frames.bytes(), synthetic::clip(3).1);
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct ClipReader {
    pages: PageReader,
    decoder: PayloadDecoder,
}

impl ClipReader {
    /// Reads the payload of clip `row` of `shard` as stored, checked against its hash.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] when the bytes are not those that were written.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn payload<'a>(&'a mut self, shard: &'a Shard, row: usize) -> Result<&'a [u8], ShardError> {
        self.pages.payload(shard, row)
    }

    /// Reads the first `count` frames of clip `row` of `shard`, after checking the payload against
    /// its hash.
    ///
    /// # Errors
    /// As [`Self::payload`], and [`ShardError::Undecodable`] when the payload holds fewer frames,
    /// or its decoder is missing.
    ///
    /// # Panics
    /// When `row` is not a row of the shard.
    pub fn frames<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        count: usize,
    ) -> Result<Frames<'a>, ShardError> {
        self.frames_timed(shard, row, count, &mut StageClock::default())
    }

    /// [`Self::frames`], charging the time to the stages of `clock`.
    pub(crate) fn frames_timed<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
        count: usize,
        clock: &mut StageClock,
    ) -> Result<Frames<'a>, ShardError> {
        let clip = &shard.clips[row];
        let payload = self.pages.payload(shard, row)?;
        clock.lap(Stage::Read);
        let format = PayloadFormat {
            kind: clip.payload,
            size: clip.size,
            color: clip.color,
        };
        let frames = self.decoder.decode(format, payload, count);
        clock.lap(Stage::Decode);
        frames.map_err(|source| ShardError::Undecodable {
            path: shard.path.clone(),
            row,
            source,
        })
    }
}

/// Reads payloads into memory that it reuses.
#[derive(Default)]
struct PageReader {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    page: Vec<u8>,
}

impl PageReader {
    fn payload<'a>(&'a mut self, shard: &'a Shard, row: usize) -> Result<&'a [u8], ShardError> {
        // A shard that is gone or truncated is not the damage of one clip.
        let loss = || shard.file.loss().map(|reason| lost(&shard.path, reason));
        match loss() {
            Some(error) => Err(error),
            None => self
                .valid_payload(shard, row)
                .map_err(|error| loss().unwrap_or(error)),
        }
    }

    fn valid_payload<'a>(
        &'a mut self,
        shard: &'a Shard,
        row: usize,
    ) -> Result<&'a [u8], ShardError> {
        let clip = &shard.clips[row];
        let damaged = |reason: String| ShardError::Damaged {
            path: shard.path.clone(),
            row,
            reason,
        };
        let page = &shard.file[clip.page_offset..clip.page_offset + clip.page_bytes];
        let sizes =
            page_sizes(page).ok_or_else(|| damaged("its page header cannot be read".to_owned()))?;
        let body_offset = page
            .len()
            .checked_sub(sizes.compressed)
            .ok_or_else(|| damaged("its page is truncated".to_owned()))?;
        let (least, most) = clip.payload_bytes();
        let payload_bytes = sizes.uncompressed.saturating_sub(LENGTH_BYTES);
        if !(least..=most).contains(&payload_bytes) {
            let expected = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            return Err(damaged(format!(
                "expected {expected} bytes of pixels, the page has {}",
                sizes.uncompressed
            )));
        }
        let body = &page[body_offset..];
        let page = if clip.compressed {
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                None => self.zstd.insert(
                    zstd::bulk::Decompressor::new().map_err(|error| damaged(error.to_string()))?,
                ),
            };
            self.page.resize(sizes.uncompressed, 0);
            let written = zstd
                .decompress_to_buffer(body, &mut self.page[..])
                .map_err(|error| damaged(error.to_string()))?;
            &self.page[..written]
        } else {
            body
        };
        let payload = page
            .get(LENGTH_BYTES..)
            .filter(|payload| payload.len() == payload_bytes);
        let payload = payload
            .ok_or_else(|| damaged("its page is shorter than its header says".to_owned()))?;
        if xxh3_64(payload) != clip.xxh3 {
            return Err(damaged(
                "its pixels do not have the hash that was stored with them".to_owned(),
            ));
        }
        Ok(payload)
    }
}

/// All shards of a finished build, as one list of clips.
///
/// ```
/// use pipeline::shard::ShardSet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # pipeline::shard::synthetic::write(dir.path(), 40)?;
/// # let dir = dir.path();
/// let data = ShardSet::open(dir)?;
/// println!("{} clips in {} shards", data.len(), data.shards().len());
/// let (shard, row) = data.locate(data.len() - 1);
/// let clip = shard.clips()[row];
/// assert_eq!((clip.frames, clip.size.width, clip.size.height), (8, 64, 48));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ShardSet {
    dir: PathBuf,
    manifest: Manifest,
    shards: Vec<Shard>,
    /// Number of the first clip of each shard.
    starts: Vec<usize>,
    clips: usize,
}

impl ShardSet {
    /// Opens the build in folder `dir`.
    ///
    /// # Errors
    /// When the folder has no manifest, or a shard that the manifest names is missing, damaged or
    /// has a different number of clips.
    pub fn open(dir: &Path) -> Result<Self, ShardError> {
        let manifest = read_manifest(dir)?;
        let mut set = Self {
            dir: dir.to_owned(),
            shards: Vec::new(),
            starts: Vec::new(),
            clips: 0,
            manifest,
        };
        for entry in &set.manifest.shards {
            let shard = Shard::open_as_listed(dir, entry)?;
            set.starts.push(set.clips);
            set.clips += shard.clips.len();
            set.shards.push(shard);
        }
        Ok(set)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The build's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The shards in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of clips in all shards.
    pub fn len(&self) -> usize {
        self.clips
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.clips == 0
    }

    /// The shard of clip `index`, and its row there.
    ///
    /// # Panics
    /// When `index` is not less than [`Self::len`].
    pub fn locate(&self, index: usize) -> (&Shard, usize) {
        assert!(index < self.clips, "clip {index} of {}", self.clips);
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.shards[shard], index - self.starts[shard])
    }
}

/// The one field of a manifest that all versions have.
#[derive(serde::Deserialize)]
struct Version {
    format_version: u32,
}

/// Reads the manifest of folder `dir`.
///
/// # Errors
/// When there is none, or this version does not read it.
pub fn read_manifest(dir: &Path) -> Result<Manifest, ShardError> {
    let path = dir.join(MANIFEST_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ShardError::NoManifest {
                path: dir.to_owned(),
            });
        }
        Err(error) => return Err(ShardError::io("read", &path)(error)),
    };
    let bad = |reason: String| ShardError::BadManifest {
        path: path.clone(),
        reason,
    };
    // Its version first: other versions may have other fields.
    let Version { format_version } =
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if !is_read(format_version) {
        return Err(bad(other_version(&format_version.to_string())));
    }
    serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
}

fn is_read(version: u32) -> bool {
    (OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&version)
}

fn other_version(version: &str) -> String {
    format!(
        "it has format version {version}, this program reads {OLDEST_FORMAT_VERSION} to \
         {FORMAT_VERSION}"
    )
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

fn read_metas(
    path: &Path,
    file: &Mapping,
    metadata: &ArrowReaderMetadata,
) -> Result<Vec<ClipMeta>, ShardError> {
    let schema = metadata.parquet_schema();
    let meta_columns =
        (0..schema.num_columns()).filter(|&column| schema.column(column).name() != DATA_COLUMN);
    let projection = ProjectionMask::leaves(schema, meta_columns);
    let read_error = || ShardError::parquet("read", path);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
        Bytes::from_owner(file.clone()),
        metadata.clone(),
    )
    .with_projection(projection)
    .build()
    .map_err(read_error())?;
    let mut metas = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| read_error()(error.into()))?;
        let rows = rows::from_batch(&batch);
        metas.extend(rows.ok_or_else(|| ShardError::NotAShard {
            path: path.to_owned(),
            reason: "a row names an unknown payload, colour range or matrix".to_owned(),
        })?);
    }
    Ok(metas)
}
