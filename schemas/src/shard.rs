//! The shard: a Parquet file of clips, with one row and one data page per clip.

use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Version of the shard format that is written. A reader refuses a version that it does not know.
pub const FORMAT_VERSION: u32 = 5;

/// Oldest version of the format that is read. Later versions added the columns that
/// [`arrow_schema_of`] omits for older ones.
pub const OLDEST_FORMAT_VERSION: u32 = 2;

/// Key of [`FORMAT_VERSION`] in the metadata of the Parquet file.
pub const FORMAT_VERSION_KEY: &str = "clip_shard.format_version";

/// Key of the [`crate::manifest::BuildOptions`], as JSON, in the metadata of the Parquet file.
pub const OPTIONS_KEY: &str = "clip_shard.options";

/// Name of the last column, which holds the frames.
pub const DATA_COLUMN: &str = "data";

/// All columns of a clip's row except the frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipMeta {
    /// Path of the source file, as given to the build.
    pub video: String,
    /// BLAKE3 of the source file's bytes, in hex.
    pub video_blake3: String,
    /// Index of the clip within its video, from 0.
    pub clip: u32,
    /// Class number, if the build has labels.
    pub label: Option<i32>,
    /// Class name, if the labels have names.
    pub class: Option<String>,
    /// Name of the split, if the build has splits: `train`, `val`.
    pub split: Option<String>,
    /// Name of the segment in the list of the build, if it has one: a narration's or a clip's id.
    pub segment: Option<String>,
    /// Start of the listed segment in the video, in seconds of stream time; none if the whole
    /// video was listed, from its start.
    pub segment_start: Option<f64>,
    /// End of the listed segment, in seconds of stream time; none if it ends with the video.
    pub segment_end: Option<f64>,
    /// Index of the clip's scene within its video, from 0; only in builds with `--scenes`.
    pub scene: Option<u32>,
    /// Number of stored frames.
    pub frames: u32,
    /// Ticks of the sampling grid between two stored frames.
    pub stride: u32,
    /// Ticks per second of the sampling grid; none if its ticks are the source's frames.
    pub fps: Option<f64>,
    /// Stored luma width in pixels, after rotation and scaling.
    pub width: u32,
    /// Stored luma height in pixels, after rotation and scaling.
    pub height: u32,
    /// Presentation time of each stored frame in the source, in nanoseconds of stream time.
    pub pts_ns: Vec<i64>,
    /// Number of frames at the end that repeat the last one because the video ended before the
    /// clip.
    pub repeated_frames: u32,
    /// Whether frames of the clip are damaged: only in builds with `--on-corrupt keep`. False
    /// before format version 3, which stored no such clip.
    pub damaged: bool,
    /// Width of the decoded source frame, before rotation and scaling.
    pub source_width: u32,
    /// Height of the decoded source frame, before rotation and scaling.
    pub source_height: u32,
    /// Pixel aspect ratio of the source frame, width to height: 1:1 is square. Stored frames are
    /// scaled to square pixels, unless the build keeps the ratio. 0:0 (not recorded) before format
    /// version 3.
    pub pixel_aspect_num: u32,
    /// See [`Self::pixel_aspect_num`].
    pub pixel_aspect_den: u32,
    /// Applied clockwise rotation in degrees: 0, 90, 180 or 270.
    pub rotation: u32,
    /// Whether the frame was mirrored left to right, before the rotation.
    pub mirrored: bool,
    /// Whether the source was interlaced, so that each frame is made from one field.
    pub deinterlaced: bool,
    /// Pixel format of the decoder (GStreamer's name), before conversion to I420.
    pub pixel_format: String,
    /// Range of the stored samples: `limited` (16..235) or `full` (0..255); with payload `rgb`, of
    /// the samples that RGB was converted from.
    pub color_range: ColorRange,
    /// Matrix that converts the stored samples to RGB; with payload `rgb`, the one that was used.
    pub color_matrix: ColorMatrix,
    /// Transfer function of the samples, by ffmpeg's name for its code in ITU-T H.273, table 3:
    /// `bt709`, `smpte2084` (PQ), `arib-std-b67` (HLG); `unknown` if the stream does not declare
    /// it, and before format version 3. Samples are stored as decoded, without tone mapping.
    pub color_transfer: String,
    /// Colour primaries, by ffmpeg's name for their code in ITU-T H.273, table 2; `unknown` as
    /// above.
    pub color_primaries: String,
    /// Codec of the source: GStreamer's media type without `video/`.
    pub codec: String,
    /// Decoder element, and version of GStreamer.
    pub decoder: String,
    /// Scores of the frames, one column each. None before format version 5.
    pub scores: Option<Scores>,
    /// Storage format of the frames in `data`.
    pub payload: Payload,
    /// XXH3-64 of the payload in `data`.
    pub data_xxh3: u64,
}

/// Number of 64-bit words of [`Scores::phash`]: 256 bits of each of three frames.
pub const PHASH_WORDS: usize = 12;

/// Scores of a clip, computed from its stored frames when it is built. They are for choosing clips;
/// no clip is left out because of them. Luma is in the full range, 0 to 255, whatever the samples'.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Mean length of the motion of blocks from frame to frame, as a share of the sum of width and
    /// height; 0 for a single frame. Blocks are matched on a small picture whose long side has 64
    /// pixels, so more than 7 pixels (a ninth of it), plus what the block or its neighbours moved
    /// before, is not followed.
    pub motion: f32,
    /// Mean of the variance of the Laplacian (4 neighbours, mirrored at the border, as OpenCV's
    /// default) of luma in the first, middle and last frame, in squared levels. Frames with a short
    /// side above 128 are shrunk to 128 first, by area averages.
    pub sharpness: f32,
    /// Mean luma of all frames.
    pub luma_mean: f32,
    /// Difference of the 95th and the 5th percentile of luma in all frames, on a small picture
    /// whose long side has 64 pixels.
    pub luma_range: f32,
    /// Share of the frames that are black: at least 98 % of the pixels are at most a tenth of the
    /// range from black to white (ffmpeg's `blackdetect`).
    pub black: f32,
    /// Share of the pairs of successive frames with a mean difference of less than 0.001 of the
    /// range (ffmpeg's `freezedetect`); 0 for a single frame.
    pub frozen: f32,
    /// Share of the picture that is dark borders (at most 24 of 255, but for 2 % of each row or
    /// column) in all frames (ffmpeg's `cropdetect`); 1 if all of it is.
    pub letterbox: f32,
    /// Greatest change between two successive frames of the source within the clip: the mean of
    /// the absolute differences of hue, saturation and value, as PySceneDetect's content value.
    pub cut: f32,
    /// Perceptual hashes of the first, the middle and the last frame, 256 bits in four words each:
    /// whether each of 16x16 coefficients of the cosine transform of luma, shrunk to 64x64, is
    /// above their median (the construction of PDQ, Facebook 2019). Hashes of pictures that are
    /// nearly flat are random.
    pub phash: [u64; PHASH_WORDS],
}

impl Scores {
    /// Names of the columns of the scores that are numbers, in the order of the schema.
    pub const NAMES: [&str; 8] = [
        "motion",
        "sharpness",
        "luma_mean",
        "luma_range",
        "black",
        "frozen",
        "letterbox",
        "cut",
    ];

    /// Returns the scores that are numbers, in the order of [`Self::NAMES`].
    pub const fn numbers(&self) -> [f32; Self::NAMES.len()] {
        [
            self.motion,
            self.sharpness,
            self.luma_mean,
            self.luma_range,
            self.black,
            self.frozen,
            self.letterbox,
            self.cut,
        ]
    }

    /// Returns the scores with these numbers, in the order of [`Self::NAMES`], and hashes.
    pub const fn new(numbers: [f32; Self::NAMES.len()], phash: [u64; PHASH_WORDS]) -> Self {
        let [
            motion,
            sharpness,
            luma_mean,
            luma_range,
            black,
            frozen,
            letterbox,
            cut,
        ] = numbers;
        Self {
            motion,
            sharpness,
            luma_mean,
            luma_range,
            black,
            frozen,
            letterbox,
            cut,
            phash,
        }
    }
}

/// The parts of a clip's payload, which are compressed apart: a window of the clip costs the parts
/// that it touches. These are the columns `part_frames`, `part_bytes` and `part_xxh3`; before
/// format version 4, a clip is one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Number of frames of each part; the last one may have fewer.
    pub frames: u32,
    /// Stored bytes of each part. Together they are the body of the clip's page.
    pub bytes: Vec<u32>,
    /// XXH3-64 of each part of the payload, before compression.
    pub xxh3: Vec<u64>,
}

/// Storage format of a clip's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// Exact 8-bit planes: `frames` tightly packed I420 frames, one after another.
    I420,
    /// As [`Self::I420`], but each plane as its two-dimensional differences: a sample minus its
    /// left neighbour, minus its upper one, plus the one above its left, modulo 256, where samples
    /// outside of the plane are 0. Cumulative sums along both axes give the samples.
    I420Delta,
    /// `frames` tightly packed frames of 8-bit R'G'B', three bytes per pixel, one after another.
    Rgb,
    /// One closed group of pictures of H.264 as an Annex B byte stream: a single IDR picture, the
    /// first, and `frames` access units, each with a delimiter. Sides that are odd or less than 16
    /// are padded by repeating the last column and row: decoded frames are then larger.
    H264,
}

/// Range of the stored luma and chroma samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorRange {
    /// Luma 16..=235, chroma 16..=240.
    Limited,
    /// 0..=255.
    Full,
}

/// Matrix that converts Y'CbCr to R'G'B', by its luma coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorMatrix {
    /// ITU-R BT.601: Kr 0.299, Kb 0.114.
    Bt601,
    /// ITU-R BT.709: Kr 0.2126, Kb 0.0722.
    Bt709,
    /// ITU-R BT.2020: Kr 0.2627, Kb 0.0593.
    Bt2020,
}

names!(Payload {
    Self::I420 => "i420",
    Self::I420Delta => "i420-delta",
    Self::Rgb => "rgb",
    Self::H264 => "h264"
});
names!(ColorRange { Self::Limited => "limited", Self::Full => "full" });
names!(ColorMatrix { Self::Bt601 => "bt601", Self::Bt709 => "bt709", Self::Bt2020 => "bt2020" });

/// Transfer functions of high dynamic range. Displayed as standard video, their samples look flat
/// and dark.
pub const HDR_TRANSFERS: [&str; 2] = ["smpte2084", "arib-std-b67"];

/// Columns that a format version added, and the version.
const ADDED: [(&str, u32); 22] = [
    ("damaged", 3),
    ("pixel_aspect_num", 3),
    ("pixel_aspect_den", 3),
    ("color_transfer", 3),
    ("color_primaries", 3),
    ("part_frames", 4),
    ("part_bytes", 4),
    ("part_xxh3", 4),
    ("split", 5),
    ("segment", 5),
    ("segment_start", 5),
    ("segment_end", 5),
    ("scene", 5),
    ("motion", 5),
    ("sharpness", 5),
    ("luma_mean", 5),
    ("luma_range", 5),
    ("black", 5),
    ("frozen", 5),
    ("letterbox", 5),
    ("cut", 5),
    ("phash", 5),
];

/// Returns the Arrow schema of shards of `version`, which must be one that is read.
pub fn arrow_schema_of(version: u32) -> Arc<Schema> {
    let is_later = |name: &str| {
        ADDED
            .iter()
            .any(|&(added, since)| added == name && since > version)
    };
    let schema = arrow_schema();
    let fields = schema.fields().iter();
    Arc::new(Schema::new(
        fields
            .filter(|field| !is_later(field.name()))
            .cloned()
            .collect::<Vec<_>>(),
    ))
}

/// Returns the Arrow schema of shards: the fields of [`ClipMeta`] in their order, those of
/// [`Parts`], then `data`: `frames` frames of `width` x `height` in the format of [`Payload`]
/// ([`crate::geometry::FrameSize`] describes the layout of planes).
///
/// `data` is a required `LargeBinary`, PLAIN, without dictionary or statistics, one value per page:
/// a page is 4 length bytes and the payload, compressed as one zstd frame for each part. To other
/// readers, zstd frames that follow each other are one stream. A reader with the offset index reads
/// any part of a clip with one slice and one decompression.
pub fn arrow_schema() -> Arc<Schema> {
    let required = |name: &str, data_type| Field::new(name, data_type, false);
    let optional = |name: &str, data_type| Field::new(name, data_type, true);
    let list = |item| DataType::List(Arc::new(required("item", item)));
    Arc::new(Schema::new(vec![
        required("video", DataType::Utf8),
        required("video_blake3", DataType::Utf8),
        required("clip", DataType::UInt32),
        optional("label", DataType::Int32),
        optional("class", DataType::Utf8),
        optional("split", DataType::Utf8),
        optional("segment", DataType::Utf8),
        optional("segment_start", DataType::Float64),
        optional("segment_end", DataType::Float64),
        optional("scene", DataType::UInt32),
        required("frames", DataType::UInt32),
        required("stride", DataType::UInt32),
        optional("fps", DataType::Float64),
        required("width", DataType::UInt32),
        required("height", DataType::UInt32),
        required("pts_ns", list(DataType::Int64)),
        required("repeated_frames", DataType::UInt32),
        required("damaged", DataType::Boolean),
        required("source_width", DataType::UInt32),
        required("source_height", DataType::UInt32),
        required("pixel_aspect_num", DataType::UInt32),
        required("pixel_aspect_den", DataType::UInt32),
        required("rotation", DataType::UInt32),
        required("mirrored", DataType::Boolean),
        required("deinterlaced", DataType::Boolean),
        required("pixel_format", DataType::Utf8),
        required("color_range", DataType::Utf8),
        required("color_matrix", DataType::Utf8),
        required("color_transfer", DataType::Utf8),
        required("color_primaries", DataType::Utf8),
        required("codec", DataType::Utf8),
        required("decoder", DataType::Utf8),
        optional("motion", DataType::Float32),
        optional("sharpness", DataType::Float32),
        optional("luma_mean", DataType::Float32),
        optional("luma_range", DataType::Float32),
        optional("black", DataType::Float32),
        optional("frozen", DataType::Float32),
        optional("letterbox", DataType::Float32),
        optional("cut", DataType::Float32),
        optional("phash", list(DataType::UInt64)),
        required("payload", DataType::Utf8),
        required("data_xxh3", DataType::UInt64),
        required("part_frames", DataType::UInt32),
        required("part_bytes", list(DataType::UInt32)),
        required("part_xxh3", list(DataType::UInt64)),
        required(DATA_COLUMN, DataType::LargeBinary),
    ]))
}
