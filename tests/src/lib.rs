//! What the whole-product tests share: clips, shards and videos made on the spot, real footage where there is some, and ffmpeg to compare with.

pub mod corpus;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use pipeline::frames::Color;
use pipeline::loader::LoaderOptions;
use pipeline::loader::batch::{Batch, Pixels, values};
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::sampling::order::{Purpose, stream};
use pipeline::shard::payload;
use pipeline::shard::{ShardSet, ShardSetWriter, page};
use pipeline::source::{Source, WeightedSource};
use pipeline::video::encode::H264Writer;
use rand::RngExt;
use schemas::geometry::{FrameSize, PatchGrid};
use schemas::manifest::{
    BuildOptions, DEFAULT_GAP_SECONDS, Labelling, MANIFEST_FILE, Manifest, OnCorrupt, PixelAspect, Sampling, ShortVideo, Tiling,
};
use schemas::shard::{ClipMeta, ColorMatrix, ColorRange, FORMAT_VERSION, Payload};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// A clip in memory, as a build would store it.
#[derive(Debug, Clone)]
pub struct TestClip {
    /// What is known of it.
    pub meta: ClipMeta,
    /// Its frames, tightly packed I420.
    pub payload: Vec<u8>,
}

impl TestClip {
    /// Smooth texture that moves; every `seed` has its own.
    pub fn moving(seed: u64, frames: u32, width: usize, height: usize) -> Self {
        let size = FrameSize { width, height };
        let payload = (0..frames).flat_map(|frame| moving_frame(seed, f64::from(frame), size)).collect();
        Self { meta: meta(seed, frames, size), payload }
    }

    /// Noise: zstd cannot make it smaller.
    pub fn noise(seed: u64, frames: u32, width: usize, height: usize) -> Self {
        let size = FrameSize { width, height };
        let mut rng = stream(Purpose::Synth, seed, 1, 0);
        let payload = (0..frames as usize * size.frame_bytes()).map(|_| rng.random()).collect();
        Self { meta: meta(seed, frames, size), payload }
    }
}

/// One frame of a texture that moves to the right by two pixels a frame, as tightly packed I420.
pub fn moving_frame(seed: u64, frame: f64, size: FrameSize) -> Vec<u8> {
    let mut rng = stream(Purpose::Synth, seed, 0, 0);
    let mut draw = |range: Range<f64>| rng.random_range(range);
    let (slope, period, phase) = (draw(-1.0..1.0), draw(9.0..23.0), draw(0.0..6.3));
    // Mild chroma: every colour has its place in RGB.
    let colors = [(draw(90.0..150.0), 50.0), (draw(120.0..136.0), 12.0), (draw(120.0..136.0), 12.0)];
    let mut bytes = Vec::with_capacity(size.frame_bytes());
    for (plane, (color, contrast)) in colors.into_iter().enumerate() {
        let (width, height) = size.plane_size(plane);
        let scale = if plane == 0 { 1.0 } else { 2.0 };
        for y in 0..height {
            for x in 0..width {
                let along = scale * (x as f64 + slope * y as f64) - 2.0 * frame;
                bytes.push((color + contrast * (along / period + phase).sin()) as u8);
            }
        }
    }
    bytes
}

fn meta(seed: u64, frames: u32, size: FrameSize) -> ClipMeta {
    ClipMeta {
        video: format!("video-{seed}.mp4"),
        video_blake3: "00".repeat(32),
        clip: 0,
        label: seed.is_multiple_of(2).then_some(seed as i32),
        class: seed.is_multiple_of(2).then(|| format!("class {seed}")),
        frames,
        stride: 4,
        fps: Some(30.0),
        width: size.width as u32,
        height: size.height as u32,
        pts_ns: (0..i64::from(frames)).map(|frame| frame * 133_333_333).collect(),
        repeated_frames: 0,
        damaged: false,
        source_width: size.width as u32,
        source_height: size.height as u32,
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
        payload: Payload::I420,
        data_xxh3: 0,
    }
}

/// Options of a build as the tests need one.
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
        payload: Payload::I420,
        crf: None,
        level,
        labels: Labelling::None,
        shard_bytes,
    }
}

/// Options of a loader of small clips of 6 frames.
pub fn loader_options(threads: usize) -> LoaderOptions {
    LoaderOptions {
        seed: 5,
        threads,
        prefetch: 3,
        ..LoaderOptions::new(4, PatchGrid { frames: 6, size: 32, tubelet: 2, patch: 8 }, MaskRule::new(MaskKind::Random, 0.9))
    }
}

/// The shards in `dir` as all there is to load.
pub fn shard_sources(dir: &Path) -> Arc<[WeightedSource]> {
    [WeightedSource::from(Source::Shards(ShardSet::open(dir).expect("shards")))].into()
}

/// A batch's whole clips, as f32.
pub fn clip_pixels(batch: &Batch) -> &[f32] {
    match batch.pixels() {
        Pixels::Clips(bytes) | Pixels::Tokens(bytes) => values(bytes),
        Pixels::Patches { .. } => panic!("the batch holds patches"),
    }
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
        let size = FrameSize { width: clip.meta.width as usize, height: clip.meta.height as usize };
        let color = Color { range: clip.meta.color_range, matrix: clip.meta.color_matrix };
        let payload = payload::encode(&clip.payload, size, color, &options).expect("encoded");
        let encoded = page::encode(&payload, options.level).expect("compressed");
        writer.push(ClipMeta { payload: options.payload, ..clip.meta.clone() }, encoded).expect("written");
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
    };
    fs::write(dir.join(MANIFEST_FILE), serde_json::to_vec(&manifest).expect("JSON")).expect("written");
    manifest
}

/// Writes shards of two clips of each of `videos`, a name and a class each, and a manifest into `dir`. Clips of the first class are dark, the next ones ever
/// brighter, so that they are told apart easily. A video's name without its folder decides its
/// bytes, and their hash: `a/one` and `b/one` are copies.
pub fn write_labelled_shards(dir: &Path, classes: &[&str], videos: &[(&str, &str)]) {
    let clips: Vec<TestClip> = videos
        .iter()
        .flat_map(|&(video, class)| (0..2).map(move |number| (video, class, number)))
        .map(|(video, class, number)| {
            let content = video.rsplit('/').next().unwrap_or(video);
            let seed: u64 = content.bytes().map(u64::from).sum::<u64>() * 2 + u64::from(number);
            let mut clip = TestClip::moving(seed, 8, 40, 36);
            let label = classes.iter().position(|&known| known == class).expect("a known class");
            for frame in clip.payload.chunks_exact_mut(FrameSize { width: 40, height: 36 }.frame_bytes()) {
                let shift = (label * 160 / (classes.len() - 1)) as u8;
                frame[..40 * 36].iter_mut().for_each(|luma| *luma = (*luma / 3).saturating_add(shift));
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
    fs::write(dir.join(MANIFEST_FILE), serde_json::to_vec(&manifest).expect("JSON")).expect("written");
}

/// The configuration of a model that takes milliseconds a step, on clips of 8 frames: 4 time steps of 16 tokens, and a checkpoint every `every` steps.
pub fn small_config(encoder_depth: usize, every: u64) -> String {
    format!(
        "\
[clip]
frames = 8
size = 32
patch = 8
[encoder]
width = 24
depth = {encoder_depth}
[decoder]
width = 24
depth = 1
[data]
batch_size = 2
[checkpoints]
every = {every}
"
    )
}

/// Where the pages of the clips in the sound shard at `path` lie, headers included, as Parquet's own reader finds them.
pub fn data_pages(path: &Path) -> Vec<Range<usize>> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&File::open(path).expect("the shard"), options).expect("a sound footer");
    let metadata = metadata.metadata();
    let groups = metadata.row_groups().iter().enumerate();
    let pages = groups.flat_map(|(group, columns)| {
        let index = metadata.page_index_for_row_group(group);
        index.offset_index(columns.num_columns() - 1).expect("an offset index").page_locations().to_vec()
    });
    pages.map(|page| page.offset as usize..page.offset as usize + page.compressed_page_size as usize).collect()
}

/// Flips one bit in the middle of the pixels of clip `row` of the sound shard at `path`.
pub fn damage_clip(path: &Path, row: usize) {
    let page = &data_pages(path)[row];
    let mut bytes = fs::read(path).expect("the shard");
    bytes[page.start.midpoint(page.end)] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// Encodes a moving texture to an H.264 file.
pub fn write_video(path: &Path, seed: u64, frames: u32, fps: u32, size: FrameSize) {
    pipeline::video::init().expect("GStreamer");
    let mut writer = H264Writer::create(path, size, fps).expect("x264");
    for frame in 0..frames {
        writer.push(&moving_frame(seed, f64::from(frame), size)).expect("encoded");
    }
    writer.finish().expect("finished");
}

/// Real footage: the files in folder `kind` (`real`, `odd`) of the folder that the environment variable `TEST_VIDEOS` names. None where it is not
/// set: the product does not carry videos.
pub fn real_videos(kind: &str) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("TEST_VIDEOS") else {
        eprintln!("TEST_VIDEOS is not set: no real footage is tested");
        return Vec::new();
    };
    let dir = Path::new(&root).join(kind);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("TEST_VIDEOS names no folder with {}: {error}", dir.display()));
    let mut videos: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    videos.sort();
    assert!(!videos.is_empty(), "{} is empty", dir.display());
    videos
}

/// All frames that the ffmpeg command line decodes from `path`, as limited-range I420 unless `arguments`, which come before the output, say
/// another `-pix_fmt`.
pub fn ffmpeg_frames(path: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-pix_fmt", "yuv420p"])
        .args(arguments)
        .args(["-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Has the ffmpeg command line make `output` of `input`, with `arguments` between them.
pub fn ffmpeg(input: &Path, arguments: &[&str], output: &Path) {
    let result = Command::new("ffmpeg").args(["-v", "error", "-y", "-i"]).arg(input).args(arguments).arg(output).output();
    let result = result.expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(result.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&result.stderr));
}

/// What a program printed and how it ended, as text for a snapshot.
pub fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let code = output.status.code().map_or("killed".to_owned(), |code| code.to_string());
    format!("exit code: {code}\n--- stdout\n{}\n--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

/// Runs the test `name` in a process where no other test runs, and returns whether it has done so; if
/// not, that is this process. For tests that measure or change what belongs to the whole process: its
/// threads, its children, the log that reports damaged video. nextest gives each test a process; under
/// `cargo test` the binary starts itself again.
#[must_use]
pub fn ran_alone(name: &str) -> bool {
    const ALONE: &str = "TEST_RUNS_ALONE";
    let nextest = std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test");
    if nextest || std::env::var_os(ALONE).is_some() {
        return false;
    }
    let binary = std::env::current_exe().expect("this test's binary");
    let output = Command::new(binary).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("run");
    let shown = shown(&output);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    println!("{shown}");
    true
}
