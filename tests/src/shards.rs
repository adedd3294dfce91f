//! Shards of clips in memory.

use crate::TestClip;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use pipeline::frames::Color;
use pipeline::shard::payload;
use pipeline::shard::{ShardSet, ShardSetWriter, page};
use pipeline::source::{Source, WeightedSource};
use schemas::geometry::FrameSize;
use schemas::manifest::{
    BuildOptions, DEFAULT_GAP_SECONDS, Labelling, MANIFEST_FILE, Manifest, OnCorrupt, PixelAspect,
    Sampling, ShortVideo, Tiling,
};
use schemas::shard::{ClipMeta, FORMAT_VERSION, Payload};
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Options of a build: clips of 16 frames with a stride of 4, stored as I420 and compressed with
/// zstd `level`.
pub fn options(level: i32, shard_bytes: u64) -> BuildOptions {
    BuildOptions {
        frames: 16,
        stride: 4,
        sampling: Sampling::TicksPerSecond(30.0),
        tiling: Tiling::BackToBack,
        short: ShortVideo::Repeat,
        on_corrupt: OnCorrupt::KeepGood,
        short_side: 256,
        pixel_aspect: PixelAspect::Square,
        gap_seconds: Some(DEFAULT_GAP_SECONDS),
        scenes: None,
        split: Vec::new(),
        payload: Payload::I420,
        crf: None,
        level,
        labels: Labelling::None,
        shard_bytes,
    }
}

/// The shards in `dir`, as the only source of a loader.
pub fn shard_sources(dir: &Path) -> Arc<[WeightedSource]> {
    [WeightedSource::from(Source::Shards(
        ShardSet::open(dir).expect("shards"),
    ))]
    .into()
}

/// Writes shards of `clips` and a manifest into `dir`, with zstd level 3.
pub fn write_shards(dir: &Path, clips: &[TestClip]) -> Manifest {
    write_shards_with(dir, clips, options(3, 256 << 20))
}

/// Writes shards of `clips` and a manifest into `dir`.
pub fn write_shards_with(dir: &Path, clips: &[TestClip], options: BuildOptions) -> Manifest {
    fs::create_dir_all(dir).expect("a folder");
    let mut writer = ShardSetWriter::new(dir, options.clone(), Vec::new());
    for clip in clips {
        let size = FrameSize {
            width: clip.meta.width as usize,
            height: clip.meta.height as usize,
        };
        let color = Color {
            range: clip.meta.color_range,
            matrix: clip.meta.color_matrix,
        };
        let payload = payload::encode(&clip.payload, size, color, &options).expect("encoded");
        let encoded = page::encode(&payload, options.payload, clip.meta.frames, options.level)
            .expect("compressed");
        writer
            .push(
                ClipMeta {
                    payload: options.payload,
                    ..clip.meta.clone()
                },
                encoded,
            )
            .expect("written");
    }
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        created_by: "tests".to_owned(),
        options,
        classes: Vec::new(),
        shards: writer.finish().expect("finished").to_vec(),
        clips: clips.len() as u64,
        videos: clips.len() as u64,
        finished: true,
        open_video: None,
        videos_xxh3: None,
        rejected_xxh3: None,
        index: None,
        plan: None,
        derived: None,
    };
    fs::write(
        dir.join(MANIFEST_FILE),
        serde_json::to_vec(&manifest).expect("JSON"),
    )
    .expect("written");
    manifest
}

/// Writes shards of two clips per video and a manifest into `dir`. `videos` are pairs of a name and
/// a class. Clips of the first class are dark and those of each further class brighter, so that a
/// small model can classify them. A video's name without its folder determines its bytes and their
/// hash: `a/one` and `b/one` are copies.
pub fn write_labelled_shards(dir: &Path, classes: &[&str], videos: &[(&str, &str)]) {
    let clips: Vec<TestClip> = videos
        .iter()
        .flat_map(|&(video, class)| (0..2).map(move |number| (video, class, number)))
        .map(|(video, class, number)| {
            let content = video.rsplit('/').next().unwrap_or(video);
            let seed: u64 = content.bytes().map(u64::from).sum::<u64>() * 2 + u64::from(number);
            let mut clip = TestClip::moving(seed, 8, 40, 36);
            let label = classes
                .iter()
                .position(|&known| known == class)
                .expect("a known class");
            for frame in clip.payload.chunks_exact_mut(
                FrameSize {
                    width: 40,
                    height: 36,
                }
                .frame_bytes(),
            ) {
                let shift = (label * 160 / (classes.len() - 1)) as u8;
                frame[..40 * 36]
                    .iter_mut()
                    .for_each(|luma| *luma = (*luma / 3).saturating_add(shift));
            }
            clip.meta = ClipMeta {
                video: format!("{video}.mp4"),
                video_blake3: format!("hash of {content}"),
                clip: number,
                label: Some(label as i32),
                class: Some(class.to_owned()),
                ..clip.meta
            };
            clip
        })
        .collect();
    let mut manifest = write_shards(dir, &clips);
    manifest.classes = classes.iter().map(|&class| class.to_owned()).collect();
    fs::write(
        dir.join(MANIFEST_FILE),
        serde_json::to_vec(&manifest).expect("JSON"),
    )
    .expect("written");
}

/// Byte ranges of the pages of the clips in the valid shard at `path`, headers included, as
/// Parquet's own reader finds them.
pub fn data_pages(path: &Path) -> Vec<Range<usize>> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&File::open(path).expect("the shard"), options)
        .expect("a valid footer");
    let metadata = metadata.metadata();
    let groups = metadata.row_groups().iter().enumerate();
    let pages = groups.flat_map(|(group, columns)| {
        let index = metadata.page_index_for_row_group(group);
        index
            .offset_index(columns.num_columns() - 1)
            .expect("an offset index")
            .page_locations()
            .to_vec()
    });
    pages
        .map(|page| page.offset as usize..page.offset as usize + page.compressed_page_size as usize)
        .collect()
}

/// Flips one bit in the middle of the pixels of clip `row` of the valid shard at `path`.
pub fn damage_clip(path: &Path, row: usize) {
    let page = &data_pages(path)[row];
    let mut bytes = fs::read(path).expect("the shard");
    bytes[page.start.midpoint(page.end)] ^= 1;
    fs::write(path, bytes).expect("written");
}
