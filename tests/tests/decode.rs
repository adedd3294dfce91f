//! Decoded frames and sampled clips against the ffmpeg command line's.

use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::frame::FrameScaler;
use schemas::geometry::I420;
use schemas::manifest::{BuildOptions, Tiling};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::{ffmpeg_frames, moving_frame, options, real_videos, write_video};

const DECODE: DecodeOptions = DecodeOptions { threads: 2, timeout: Duration::from_secs(60) };

/// All frames of a video, upright, at their own size.
fn frames(path: &Path) -> (I420, Vec<u8>) {
    pipeline::video::init().expect("GStreamer");
    let mut decoder = VideoDecoder::open(path, DECODE).expect("opened");
    let mut scaler = None;
    let mut bytes = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let orientation = decoder.orientation();
        let size = orientation.upright_size(frame.size());
        let (_, scaler) = scaler.get_or_insert_with(|| (size, FrameScaler::new(size, orientation)));
        frame.with_planes(|planes| scaler.append(planes, &mut bytes)).expect("converted");
    }
    (scaler.expect("at least one frame").0, bytes)
}

#[track_caller]
fn assert_same_frames(path: &Path, size: I420, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len(), "{}: bytes of all frames", path.display());
    let frames = ours.chunks_exact(size.frame_bytes()).zip(theirs.chunks_exact(size.frame_bytes()));
    for (number, (ours, theirs)) in frames.enumerate() {
        assert!(ours == theirs, "{}: frame {number} differs", path.display());
    }
}

#[test]
fn every_frame_is_ffmpegs() {
    let dir = tempfile::tempdir().expect("a folder");
    let odd_length = dir.path().join("a.mp4");
    write_video(&odd_length, 1, 41, 30, I420 { width: 98, height: 66 });
    let mut paths = real_videos("real");
    paths.push(odd_length);
    for path in paths {
        let (size, ours) = frames(&path);
        assert_same_frames(&path, size, &ours, &ffmpeg_frames(&path, &["-map", "0:v:0", "-fps_mode", "passthrough"]));
    }
}

#[test]
fn phone_footage_is_brought_upright() {
    let rotated: Vec<PathBuf> = real_videos("odd").into_iter().filter(|path| path.to_string_lossy().contains("rotated")).collect();
    for path in rotated {
        // ffmpeg turns by the display matrix unless told otherwise.
        let (size, ours) = frames(&path);
        assert_same_frames(&path, size, &ours, &ffmpeg_frames(&path, &["-map", "0:v:0", "-fps_mode", "passthrough"]));
    }
}

#[test]
fn ten_bits_become_eight() {
    for path in real_videos("odd").into_iter().filter(|path| path.to_string_lossy().contains("10bit")) {
        let (_, ours) = frames(&path);
        let theirs = ffmpeg_frames(&path, &["-map", "0:v:0", "-fps_mode", "passthrough"]);
        assert_eq!(ours.len(), theirs.len());
        // ffmpeg dithers, so samples differ by a step here and there, and not on the whole.
        let furthest = ours.iter().zip(&theirs).map(|(&a, &b)| a.abs_diff(b)).max();
        let mean = ours.iter().zip(&theirs).map(|(&a, &b)| f64::from(a) - f64::from(b)).sum::<f64>() / ours.len() as f64;
        assert!(furthest <= Some(2) && mean.abs() < 0.6, "furthest {furthest:?}, mean {mean}");
    }
}

/// The clips of a video, unscaled.
fn clips(path: &Path, options: &BuildOptions) -> Vec<(Vec<u8>, Vec<i64>, u32)> {
    pipeline::video::init().expect("GStreamer");
    let options = BuildOptions { short_side: 4096, ..options.clone() };
    let mut decoder = ClipDecoder::open(path, &options, DECODE).expect("opened");
    let mut clips = Vec::new();
    while let Some(clip) = decoder.next_clip().expect("decoded") {
        clips.push((clip.data, clip.pts_ns, clip.repeated_frames));
    }
    clips
}

/// Compares clips back to back with the frames that `ffmpeg -vf fps=30` shows at their ticks.
fn compare_with_ffmpegs_resampling(path: &Path, frame_bytes: usize) {
    let options = options(3, 1 << 30);
    let resampled = ffmpeg_frames(path, &["-map", "0:v:0", "-vf", "fps=30"]);
    let ticks: Vec<&[u8]> = resampled.chunks_exact(frame_bytes).collect();
    let clips = clips(path, &options);
    let (frames, stride) = (options.frames as usize, options.stride as usize);
    let fits = if ticks.len() > (frames - 1) * stride { (ticks.len() - (frames - 1) * stride - 1) / (frames * stride) + 1 } else { 1 };
    assert!(clips.len().abs_diff(fits) <= 1, "{}: {} clips where {fits} fit", path.display(), clips.len());
    for (index, (data, _, repeated)) in clips.iter().enumerate() {
        for (frame, ours) in data.chunks_exact(frame_bytes).enumerate().take(frames - *repeated as usize) {
            // Past its end ffmpeg shows nothing.
            let Some(theirs) = ticks.get(index * frames * stride + frame * stride) else { continue };
            assert!(ours == *theirs, "{}: clip {index}, frame {frame}", path.display());
        }
    }
}

#[test]
fn clips_are_sampled_by_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = I420 { width: 64, height: 48 };
    for (fps, frames) in [(30, 150), (25, 120), (60, 200), (12, 70)] {
        let path = dir.path().join(format!("{fps}.mp4"));
        write_video(&path, 2, frames, fps, size);
        compare_with_ffmpegs_resampling(&path, size.frame_bytes());
    }
    for path in real_videos("real") {
        let (size, _) = frames(&path);
        compare_with_ffmpegs_resampling(&path, size.frame_bytes());
    }
}

#[test]
fn clips_are_spread_over_the_video() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = I420 { width: 64, height: 48 };
    write_video(&path, 3, 161, 30, size);
    let starts = |tiling| {
        let clips = clips(&path, &BuildOptions { tiling, ..options(3, 1 << 30) });
        clips.iter().map(|(_, pts, _)| (pts[0] - clips[0].1[0]) * 30 / 1_000_000_000).collect::<Vec<_>>()
    };
    // A clip lasts from tick 0 to tick 60, so the last one may start at tick 100.
    assert_eq!(starts(Tiling::EverySeconds(64.0 / 30.0)), [0, 64]);
    assert_eq!(starts(Tiling::EverySeconds(1.0)), [0, 30, 60, 90]);
    assert_eq!(starts(Tiling::ClipsPerVideo(3)), [0, 50, 100]);
    let middle = clips(&path, &BuildOptions { tiling: Tiling::ClipsPerVideo(1), ..options(3, 1 << 30) });
    assert_eq!(middle.len(), 1);
    assert_eq!((middle[0].1[0] - frame_zero(&path)) * 30 / 1_000_000_000, 50);
}

fn frame_zero(path: &Path) -> i64 {
    clips(path, &options(3, 1 << 30))[0].1[0]
}

#[test]
fn a_short_video_repeats_its_last_frame_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = I420 { width: 64, height: 48 };
    write_video(&path, 4, 10, 30, size);
    let clips = clips(&path, &options(3, 1 << 30));
    let [(data, pts, repeated)] = clips.as_slice() else { panic!("{} clips", clips.len()) };
    // Ticks 0, 4 and 8 exist; 13 frames are missing.
    assert_eq!((pts.len(), *repeated), (16, 13));
    let frames: Vec<&[u8]> = data.chunks_exact(size.frame_bytes()).collect();
    assert!(frames[3..].iter().all(|frame| frame == frames.last().expect("a last one")));
    assert_ne!(frames[0], frames[1]);
}

#[test]
fn encoded_frames_come_back_nearly_as_they_were() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = I420 { width: 96, height: 80 };
    write_video(&path, 5, 20, 30, size);
    let (decoded_size, decoded) = frames(&path);
    assert_eq!(decoded_size, size);
    let drawn: Vec<u8> = (0..20).flat_map(|frame| moving_frame(5, f64::from(frame), size)).collect();
    assert_eq!(decoded.len(), drawn.len());
    let error: f64 = decoded.iter().zip(&drawn).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>() / drawn.len() as f64;
    assert!(error < 40.0, "mean squared error {error}");
}
