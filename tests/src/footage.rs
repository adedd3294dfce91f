//! Clips in memory and videos in files: made by the tests, or real; and ffmpeg to compare with.

use pipeline::sampling::order::{Purpose, stream};
use pipeline::video::encode::H264Writer;
use rand::RngExt;
use schemas::geometry::FrameSize;
use schemas::shard::{ClipMeta, ColorMatrix, ColorRange, Payload};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A clip in memory, as a build would store it.
#[derive(Debug, Clone)]
pub struct TestClip {
    /// Its columns in a shard.
    pub meta: ClipMeta,
    /// Its frames, tightly packed I420.
    pub payload: Vec<u8>,
}

impl TestClip {
    /// A smooth texture that moves; each `seed` has its own.
    pub fn moving(seed: u64, frames: u32, width: usize, height: usize) -> Self {
        let size = FrameSize { width, height };
        let payload = (0..frames)
            .flat_map(|frame| moving_frame(seed, f64::from(frame), size))
            .collect();
        Self {
            meta: meta(seed, frames, size),
            payload,
        }
    }

    /// Noise, which zstd cannot compress.
    pub fn noise(seed: u64, frames: u32, width: usize, height: usize) -> Self {
        let size = FrameSize { width, height };
        let mut rng = stream(Purpose::Synth, seed, 1, 0);
        let payload = (0..frames as usize * size.frame_bytes())
            .map(|_| rng.random())
            .collect();
        Self {
            meta: meta(seed, frames, size),
            payload,
        }
    }
}

/// One frame of a texture that moves to the right by two pixels a frame, as tightly packed I420.
pub fn moving_frame(seed: u64, frame: f64, size: FrameSize) -> Vec<u8> {
    let mut rng = stream(Purpose::Synth, seed, 0, 0);
    let mut draw = |range: Range<f64>| rng.random_range(range);
    let slope = draw(-1.0..1.0);
    let period = draw(9.0..23.0);
    let phase = draw(0.0..6.3);
    // Mild chroma: no colour lies outside of RGB.
    let colors = [
        (draw(90.0..150.0), 50.0),
        (draw(120.0..136.0), 12.0),
        (draw(120.0..136.0), 12.0),
    ];
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
        split: None,
        segment: None,
        segment_start: None,
        segment_end: None,
        scene: None,
        frames,
        stride: 4,
        fps: Some(30.0),
        width: size.width as u32,
        height: size.height as u32,
        pts_ns: (0..i64::from(frames))
            .map(|frame| frame * 133_333_333)
            .collect(),
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
        scores: None,
        payload: Payload::I420,
        data_xxh3: 0,
    }
}

/// Encodes a moving texture to an H.264 file.
pub fn write_video(path: &Path, seed: u64, frames: u32, fps: u32, size: FrameSize) {
    pipeline::video::init().expect("GStreamer");
    let mut writer = H264Writer::create(path, size, fps).expect("x264");
    for frame in 0..frames {
        writer
            .push(&moving_frame(seed, f64::from(frame), size))
            .expect("encoded");
    }
    writer.finish().expect("finished");
}

/// Real footage: the files in the folder `kind` (`real`, `odd`) of the folder that the environment
/// variable `TEST_VIDEOS` names. None if it is not set: the repository holds no videos.
pub fn real_videos(kind: &str) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("TEST_VIDEOS") else {
        eprintln!("TEST_VIDEOS is not set: no real footage is tested");
        return Vec::new();
    };
    let dir = Path::new(&root).join(kind);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| {
        panic!(
            "TEST_VIDEOS names no folder with {}: {error}",
            dir.display()
        )
    });
    let mut videos: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    videos.sort();
    assert!(!videos.is_empty(), "{} is empty", dir.display());
    videos
}

/// All frames that the ffmpeg command line decodes from `path`, as limited-range I420 unless
/// `arguments`, which come before the output, name another `-pix_fmt`.
pub fn ffmpeg_frames(path: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-pix_fmt", "yuv420p"])
        .args(arguments)
        .args(["-f", "rawvideo", "-"])
        .output()
        .expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(
        output.status.success(),
        "ffmpeg: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Converts `input` to `output` with the ffmpeg command line, with `arguments` between the two.
pub fn ffmpeg(input: &Path, arguments: &[&str], output: &Path) {
    let result = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-i"])
        .arg(input)
        .args(arguments)
        .arg(output)
        .output();
    let result = result.expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(
        result.status.success(),
        "ffmpeg: {}",
        String::from_utf8_lossy(&result.stderr)
    );
}
