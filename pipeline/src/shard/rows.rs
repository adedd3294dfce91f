//! [`ClipMeta`] and [`Parts`] to Arrow arrays and back, in the order of
//! [`schemas::shard::arrow_schema`].

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, ListArray,
    ListBuilder, PrimitiveArray, PrimitiveBuilder, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Field, Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type,
    UInt64Type,
};
use schemas::shard::{ClipMeta, ColorMatrix, ColorRange, Parts, Payload, Scores};
use std::sync::Arc;

/// Value of colour columns that the source did not have, or an older shard does not record.
const UNKNOWN: &str = "unknown";

/// A list column.
fn lists<'a, T: ArrowPrimitiveType>(
    rows: impl Iterator<Item = Option<&'a [T::Native]>>,
) -> ArrayRef {
    let item = Field::new("item", T::DATA_TYPE, false);
    let mut lists = ListBuilder::new(PrimitiveBuilder::<T>::new()).with_field(item);
    for row in rows {
        lists.values().append_slice(row.unwrap_or_default());
        lists.append(row.is_some());
    }
    Arc::new(lists.finish())
}

/// The columns of `rows`, whose payloads are stored in `parts`, in the schema's order, all but
/// `data`.
pub fn to_arrays<'a>(
    rows: &[ClipMeta],
    parts: impl Iterator<Item = &'a Parts> + Clone,
) -> Vec<ArrayRef> {
    let text = |get: fn(&ClipMeta) -> &str| -> ArrayRef {
        Arc::new(
            rows.iter()
                .map(|row| Some(get(row)))
                .collect::<StringArray>(),
        )
    };
    let number = |get: fn(&ClipMeta) -> u32| -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<UInt32Array>())
    };
    let flag = |get: fn(&ClipMeta) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(
            rows.iter().map(|row| Some(get(row))),
        ))
    };
    let optional_text = |get: fn(&ClipMeta) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<StringArray>())
    };
    let seconds = |get: fn(&ClipMeta) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<Float64Array>())
    };
    let score = |number: usize| -> ArrayRef {
        let scores = rows.iter().map(|row| row.scores.as_ref());
        let column = scores.map(|scores| scores.map(|scores| scores.numbers()[number]));
        Arc::new(column.collect::<Float32Array>())
    };
    vec![
        text(|row| &row.video),
        text(|row| &row.video_blake3),
        number(|row| row.clip),
        Arc::new(rows.iter().map(|row| row.label).collect::<Int32Array>()),
        optional_text(|row| row.class.as_deref()),
        optional_text(|row| row.split.as_deref()),
        optional_text(|row| row.segment.as_deref()),
        seconds(|row| row.segment_start),
        seconds(|row| row.segment_end),
        Arc::new(rows.iter().map(|row| row.scene).collect::<UInt32Array>()),
        number(|row| row.frames),
        number(|row| row.stride),
        seconds(|row| row.fps),
        number(|row| row.width),
        number(|row| row.height),
        lists::<Int64Type>(rows.iter().map(|row| Some(row.pts_ns.as_slice()))),
        number(|row| row.repeated_frames),
        flag(|row| row.damaged),
        number(|row| row.source_width),
        number(|row| row.source_height),
        number(|row| row.pixel_aspect_num),
        number(|row| row.pixel_aspect_den),
        number(|row| row.rotation),
        flag(|row| row.mirrored),
        flag(|row| row.deinterlaced),
        text(|row| &row.pixel_format),
        text(|row| row.color_range.name()),
        text(|row| row.color_matrix.name()),
        text(|row| &row.color_transfer),
        text(|row| &row.color_primaries),
        text(|row| &row.codec),
        text(|row| &row.decoder),
        score(0),
        score(1),
        score(2),
        score(3),
        score(4),
        score(5),
        score(6),
        score(7),
        lists::<UInt64Type>(rows.iter().map(|row| {
            let scores = row.scores.as_ref();
            scores.map(|scores| scores.phash.as_slice())
        })),
        text(|row| row.payload.name()),
        Arc::new(
            rows.iter()
                .map(|row| row.data_xxh3)
                .collect::<UInt64Array>(),
        ),
        Arc::new(
            parts
                .clone()
                .map(|parts| parts.frames)
                .collect::<UInt32Array>(),
        ),
        lists::<UInt32Type>(parts.clone().map(|parts| Some(parts.bytes.as_slice()))),
        lists::<UInt64Type>(parts.map(|parts| Some(parts.xxh3.as_slice()))),
    ]
}

/// The parts of the clips of a batch of a shard's schema. `None` when it has no such columns:
/// before format version 4, a clip is one part.
pub fn parts_from_batch(batch: &RecordBatch) -> Option<Vec<Parts>> {
    let column = |name: &str| batch.column_by_name(name);
    let frames = column("part_frames")?.as_primitive_opt::<UInt32Type>()?;
    let bytes = column("part_bytes")?.as_list_opt::<i32>()?;
    let xxh3 = column("part_xxh3")?.as_list_opt::<i32>()?;
    (0..batch.num_rows())
        .map(|row| {
            Some(Parts {
                frames: frames.value(row),
                bytes: values::<UInt32Type>(&bytes.value(row))?,
                xxh3: values::<UInt64Type>(&xxh3.value(row))?,
            })
        })
        .collect()
}

fn optional_text(column: Option<&StringArray>, row: usize) -> Option<String> {
    let column = column?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn optional<T: ArrowPrimitiveType>(
    column: Option<&PrimitiveArray<T>>,
    row: usize,
) -> Option<T::Native> {
    let column = column?;
    column.is_valid(row).then(|| column.value(row))
}

/// The columns of [`Scores`].
struct ScoreColumns<'a> {
    /// In the order of [`Scores::NAMES`].
    numbers: Vec<&'a Float32Array>,
    phash: &'a ListArray,
}

impl<'a> ScoreColumns<'a> {
    /// The columns of `batch`; `None` if it has none.
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let number = |name: &&str| {
            batch
                .column_by_name(name)?
                .as_primitive_opt::<Float32Type>()
        };
        Some(Self {
            numbers: Scores::NAMES.iter().map(number).collect::<Option<_>>()?,
            phash: batch.column_by_name("phash")?.as_list_opt::<i32>()?,
        })
    }

    /// The scores of a row; `None` if it has none.
    fn row(&self, row: usize) -> Option<Scores> {
        let numbers: Vec<f32> = self
            .numbers
            .iter()
            .map(|column| optional(Some(column), row))
            .collect::<Option<_>>()?;
        let phash = self.phash.is_valid(row).then(|| self.phash.value(row))?;
        Some(Scores::new(
            numbers.try_into().ok()?,
            values::<UInt64Type>(&phash)?.try_into().ok()?,
        ))
    }
}

fn values<T: ArrowPrimitiveType>(list: &dyn Array) -> Option<Vec<T::Native>> {
    Some(list.as_primitive_opt::<T>()?.values().to_vec())
}

/// The rows of a batch of a shard's schema, without `data`. `None` when the name of a payload or
/// colour is unknown.
pub fn from_batch(batch: &RecordBatch) -> Option<Vec<ClipMeta>> {
    let column = |name: &str| batch.column_by_name(name);
    let text = |name: &str| column(name)?.as_string_opt::<i32>();
    let number = |name: &str| column(name)?.as_primitive_opt::<UInt32Type>();
    let (video, video_blake3, clip) = (text("video")?, text("video_blake3")?, number("clip")?);
    let (label, class) = (
        column("label")?.as_primitive_opt::<Int32Type>()?,
        text("class")?,
    );
    let (frames, stride) = (number("frames")?, number("stride")?);
    let fps = column("fps")?.as_primitive_opt::<Float64Type>()?;
    let (width, height) = (number("width")?, number("height")?);
    let pts = column("pts_ns")?.as_list_opt::<i32>()?;
    let repeated_frames = number("repeated_frames")?;
    // Shards before format version 5 do not have these.
    let scores = ScoreColumns::of(batch);
    let (split, segment) = (text("split"), text("segment"));
    let seconds = |name: &str| column(name)?.as_primitive_opt::<Float64Type>();
    let (segment_start, segment_end) = (seconds("segment_start"), seconds("segment_end"));
    let scene = number("scene");
    // Shards of format version 2 do not have these.
    let damaged = column("damaged").and_then(|column| column.as_boolean_opt());
    let aspect = number("pixel_aspect_num").zip(number("pixel_aspect_den"));
    let (transfer, primaries) = (text("color_transfer"), text("color_primaries"));
    let (source_width, source_height) = (number("source_width")?, number("source_height")?);
    let (rotation, mirrored) = (number("rotation")?, column("mirrored")?.as_boolean_opt()?);
    let deinterlaced = column("deinterlaced")?.as_boolean_opt()?;
    let (pixel_format, color_range, color_matrix) = (
        text("pixel_format")?,
        text("color_range")?,
        text("color_matrix")?,
    );
    let (codec, decoder) = (text("codec")?, text("decoder")?);
    let payload = text("payload")?;
    let data_xxh3 = column("data_xxh3")?.as_primitive_opt::<UInt64Type>()?;
    (0..batch.num_rows())
        .map(|row| {
            Some(ClipMeta {
                video: video.value(row).to_owned(),
                video_blake3: video_blake3.value(row).to_owned(),
                clip: clip.value(row),
                label: label.is_valid(row).then(|| label.value(row)),
                class: class.is_valid(row).then(|| class.value(row).to_owned()),
                split: optional_text(split, row),
                segment: optional_text(segment, row),
                segment_start: optional(segment_start, row),
                segment_end: optional(segment_end, row),
                scene: optional(scene, row),
                frames: frames.value(row),
                stride: stride.value(row),
                fps: fps.is_valid(row).then(|| fps.value(row)),
                width: width.value(row),
                height: height.value(row),
                pts_ns: values::<Int64Type>(&pts.value(row))?,
                repeated_frames: repeated_frames.value(row),
                damaged: damaged.is_some_and(|damaged| damaged.value(row)),
                source_width: source_width.value(row),
                source_height: source_height.value(row),
                pixel_aspect_num: aspect.map_or(0, |(num, _)| num.value(row)),
                pixel_aspect_den: aspect.map_or(0, |(_, den)| den.value(row)),
                rotation: rotation.value(row),
                mirrored: mirrored.value(row),
                deinterlaced: deinterlaced.value(row),
                pixel_format: pixel_format.value(row).to_owned(),
                color_range: ColorRange::from_name(color_range.value(row))?,
                color_matrix: ColorMatrix::from_name(color_matrix.value(row))?,
                color_transfer: transfer
                    .map_or(UNKNOWN, |names| names.value(row))
                    .to_owned(),
                color_primaries: primaries
                    .map_or(UNKNOWN, |names| names.value(row))
                    .to_owned(),
                codec: codec.value(row).to_owned(),
                decoder: decoder.value(row).to_owned(),
                scores: scores.as_ref().and_then(|scores| scores.row(row)),
                payload: Payload::from_name(payload.value(row))?,
                data_xxh3: data_xxh3.value(row),
            })
        })
        .collect()
}
