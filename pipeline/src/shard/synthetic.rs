//! Shards of made-up clips, without any video: for the examples of this crate, and for trying
//! things out.

use super::{ShardError, ShardSet, ShardSetWriter, index, page};
use crate::atomic_file;
use schemas::geometry::FrameSize;
use schemas::manifest::{
    BuildOptions, DEFAULT_GAP_SECONDS, Labelling, MANIFEST_FILE, Manifest, OnCorrupt, PixelAspect,
    Sampling, ShortVideo, Tiling,
};
use schemas::shard::{ClipMeta, ColorMatrix, ColorRange, FORMAT_VERSION, Payload};
use std::path::Path;

/// Frames of a clip.
pub const FRAMES: u32 = 8;

/// Size of a frame.
pub const SIZE: FrameSize = FrameSize {
    width: 64,
    height: 48,
};

/// The options of `shardtool build`, for clips of [`FRAMES`] frames.
pub const fn options() -> BuildOptions {
    BuildOptions {
        frames: FRAMES,
        stride: 4,
        sampling: Sampling::TicksPerSecond(30.0),
        tiling: Tiling::BackToBack,
        short: ShortVideo::Repeat,
        on_corrupt: OnCorrupt::KeepGood,
        short_side: SIZE.height as u32,
        pixel_aspect: PixelAspect::Square,
        gap_seconds: Some(DEFAULT_GAP_SECONDS),
        scenes: None,
        split: Vec::new(),
        payload: Payload::I420,
        crf: None,
        level: 3,
        labels: Labelling::None,
        shard_bytes: 256 << 20,
    }
}

/// Clip `number`: a grey ramp that moves to the left by `number` + 1 pixels a frame. Returns its
/// row without pixels, and its frames, I420.
pub fn clip(number: u32) -> (ClipMeta, Vec<u8>) {
    let mut frames = Vec::with_capacity(FRAMES as usize * SIZE.frame_bytes());
    for frame in 0..FRAMES as usize {
        let shift = frame * (number as usize + 1);
        frames.extend(
            (0..SIZE.luma_bytes()).map(|at| 16 + ((3 * (at % SIZE.width + shift)) % 220) as u8),
        );
        frames.resize((frame + 1) * SIZE.frame_bytes(), 128);
    }
    let meta = ClipMeta {
        video: format!("synthetic-{number}"),
        video_blake3: String::new(),
        clip: 0,
        label: None,
        class: None,
        split: None,
        segment: None,
        segment_start: None,
        segment_end: None,
        scene: None,
        frames: FRAMES,
        stride: 4,
        fps: Some(30.0),
        width: SIZE.width as u32,
        height: SIZE.height as u32,
        pts_ns: (0..i64::from(FRAMES))
            .map(|frame| frame * 4_000_000_000 / 30)
            .collect(),
        repeated_frames: 0,
        damaged: false,
        source_width: SIZE.width as u32,
        source_height: SIZE.height as u32,
        pixel_aspect_num: 1,
        pixel_aspect_den: 1,
        rotation: 0,
        mirrored: false,
        deinterlaced: false,
        pixel_format: "I420".to_owned(),
        color_range: ColorRange::Limited,
        color_matrix: ColorMatrix::Bt601,
        color_transfer: "unknown".to_owned(),
        color_primaries: "unknown".to_owned(),
        codec: "none".to_owned(),
        decoder: "none".to_owned(),
        scores: None,
        payload: Payload::I420,
        // The writer sets it.
        data_xxh3: 0,
    };
    (meta, frames)
}

/// Writes a finished build of clips 0 to `clips` into the folder `dir`, which must exist, and opens
/// it.
///
/// # Errors
/// When a file cannot be written.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let data = pipeline::shard::synthetic::write(dir.path(), 10)?;
/// assert_eq!(data.len(), 10);
/// # Ok(()) }
/// ```
pub fn write(dir: &Path, clips: u32) -> Result<ShardSet, ShardError> {
    let options = options();
    let mut writer = ShardSetWriter::new(dir, options.clone(), Vec::new());
    for number in 0..clips {
        let (meta, frames) = clip(number);
        let encoded = page::encode(&frames, options.payload, FRAMES, options.level)?;
        writer.push(meta, encoded)?;
    }
    let shards = writer.finish()?.to_vec();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        created_by: concat!("pipeline ", env!("CARGO_PKG_VERSION")).to_owned(),
        finished: true,
        options,
        classes: Vec::new(),
        index: Some(index::write(dir, &shards)?),
        shards,
        clips: u64::from(clips),
        videos: u64::from(clips),
        open_video: None,
        videos_xxh3: None,
        rejected_xxh3: None,
        plan: None,
        derived: None,
    };
    let path = dir.join(MANIFEST_FILE);
    let json = serde_json::to_vec_pretty(&manifest).expect("plain data becomes JSON");
    atomic_file::write(&path, &json).map_err(ShardError::io("write", &path))?;
    ShardSet::open(dir)
}
