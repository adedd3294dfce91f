//! Every codec and container that the installed GStreamer decodes, frame by frame against the ffmpeg command line.

use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::frame::FrameScaler;
use schemas::geometry::FrameSize;
use schemas::shard::{ColorMatrix, ColorRange};
use std::path::Path;
use tests::{ffmpeg, ffmpeg_frames, moving_frame, options, write_video};

/// Upright frames at their own size, their times in nanoseconds, and how many were said to be damaged.
fn frames(path: &Path) -> (FrameSize, Vec<Vec<u8>>, Vec<i64>, usize) {
    pipeline::video::init().expect("GStreamer");
    let mut decoder = VideoDecoder::open(path, DecodeOptions::default()).expect("opened");
    let (mut frames, mut times, mut damaged) = (Vec::new(), Vec::new(), 0);
    let mut size = None;
    while let Some(frame) = decoder.next_frame().unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let upright = decoder.orientation().upright_size(frame.size());
        let mut bytes = Vec::new();
        let mut scaler = FrameScaler::new(upright, decoder.orientation(), frame.color().range);
        frame.with_planes(|planes| scaler.append(planes, &mut bytes)).expect("converted");
        size = Some(upright);
        damaged += usize::from(frame.damaged || frame.after_hole);
        frames.push(bytes);
        times.push(frame.pts_ns);
    }
    (size.expect("a frame"), frames, times, damaged)
}

/// Decodes with ffmpeg, without a change of rate or range.
fn theirs(path: &Path, size: FrameSize, format: &str) -> Vec<Vec<u8>> {
    let bytes = ffmpeg_frames(path, &["-map", "0:v:0", "-fps_mode", "passthrough", "-pix_fmt", format]);
    bytes.chunks_exact(size.frame_bytes()).map(<[u8]>::to_vec).collect()
}

#[test]
fn frames_equal_ffmpegs_in_every_codec_and_container() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = dir.path().join("film.mp4");
    let size = FrameSize { width: 128, height: 96 };
    write_video(&film, 3, 60, 30, size);
    let mut compared = 0;
    let h264 = &["-c:v", "libx264", "-g", "25", "-bf", "3", "-preset", "fast"][..];
    let h265 = &["-c:v", "libx265", "-x265-params", "log-level=none:keyint=25", "-preset", "fast"][..];
    let vp8 = &["-c:v", "libvpx", "-b:v", "500k", "-auto-alt-ref", "1", "-lag-in-frames", "10"][..];
    let vp9 = &["-c:v", "libvpx-vp9", "-b:v", "500k", "-cpu-used", "6"][..];
    let av1 = &["-c:v", "libsvtav1", "-preset", "10", "-svtav1-params", "keyint=25"][..];
    let mpeg4 = &["-c:v", "mpeg4", "-q:v", "4", "-bf", "2"][..];
    let mpeg2 = &["-c:v", "mpeg2video", "-q:v", "4", "-bf", "2"][..];
    let mjpeg = &["-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"][..];
    for (name, encoding, containers) in [
        ("h264", h264, &["mp4", "mkv", "mov", "avi", "ts", "flv"][..]),
        ("h265", h265, &["mp4", "mkv", "mov", "ts"]),
        ("vp8", vp8, &["webm", "mkv"]),
        ("vp9", vp9, &["webm", "mp4", "mkv"]),
        ("av1", av1, &["mp4", "mkv", "webm"]),
        ("mpeg4", mpeg4, &["mp4", "mkv", "mov", "avi"]),
        ("mpeg2", mpeg2, &["ts", "mkv", "mpg"]),
        ("mjpeg", mjpeg, &["mkv", "mov", "avi"]),
    ] {
        for container in containers {
            let path = dir.path().join(format!("{name}.{container}"));
            ffmpeg(&film, encoding, &path);
            let format = if name == "mjpeg" { "yuvj420p" } else { "yuv420p" };
            let theirs = theirs(&path, size, format);
            let (our_size, ours, times, damaged) = frames(&path);
            assert_eq!((our_size, ours.len(), damaged), (size, theirs.len(), 0), "{name}.{container}: size, frames, damaged frames");
            for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert!(ours == theirs, "{name}.{container}: frame {number} differs");
            }
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{name}.{container}: times {times:?}");
            compared += ours.len();
            println!("{name}.{container}: {} frames equal", ours.len());
        }
    }
    assert!(compared >= 28 * 59, "{compared} frames compared");
}

#[test]
fn full_range_and_wide_colour_are_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = dir.path().join("film.mp4");
    write_video(&film, 3, 20, 30, FrameSize { width: 128, height: 96 });
    for (name, range, matrix, expected) in [
        ("full", "pc", "bt709", (ColorRange::Full, ColorMatrix::Bt709)),
        ("limited", "tv", "bt709", (ColorRange::Limited, ColorMatrix::Bt709)),
        ("old", "tv", "smpte170m", (ColorRange::Limited, ColorMatrix::Bt601)),
        ("wide", "tv", "bt2020nc", (ColorRange::Limited, ColorMatrix::Bt2020)),
    ] {
        let path = dir.path().join(format!("{name}.mp4"));
        let primaries = if matrix == "bt2020nc" { "bt2020" } else { matrix };
        let color = ["-color_range", range, "-colorspace", matrix, "-color_primaries", primaries, "-color_trc", "bt709"];
        ffmpeg(&film, &[&["-c:v", "libx264"], &color[..]].concat(), &path);
        let decoder = ClipDecoder::open(&path, &options(3, 1 << 30), DecodeOptions::default()).expect("opened");
        assert_eq!((decoder.source().color_range, decoder.source().color_matrix), expected, "{name}");
    }
}

#[test]
fn interlaced_footage_is_deinterlaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize { width: 128, height: 96 };
    let (film, path) = (dir.path().join("film.mp4"), dir.path().join("interlaced.mp4"));
    write_video(&film, 5, 60, 60, size);
    // Each frame is made of two moments: what moves has combs.
    ffmpeg(&film, &["-vf", "interlace=scan=tff:lowpass=0", "-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "tff=1"], &path);
    let combed = theirs(&path, size, "yuv420p");
    let (_, ours, times, _) = frames(&path);
    assert_eq!((ours.len(), (times[1] - times[0]) / 1000), (combed.len(), 33_333), "30 frames a second, as before");
    // Differences from line to line against those from line to the line after the next: combs make the first larger.
    let combing = |frames: &[Vec<u8>]| {
        let line = |frame: &[u8], y: usize| frame[y * size.width..(y + 1) * size.width].to_vec();
        let distance = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>();
        let (mut near, mut far) = (0.0, 0.0);
        for frame in frames {
            for y in 0..size.height - 2 {
                near += distance(&line(frame, y), &line(frame, y + 1));
                far += distance(&line(frame, y), &line(frame, y + 2));
            }
        }
        near / far
    };
    let (before, after) = (combing(&combed), combing(&ours));
    assert!(before > 1.0 && after < 0.8, "combing {before} before, {after} after");
    let decoder = ClipDecoder::open(&path, &options(3, 1 << 30), DecodeOptions::default()).expect("opened");
    assert!(decoder.source().deinterlaced);
    assert!(!ClipDecoder::open(&film, &options(3, 1 << 30), DecodeOptions::default()).expect("opened").source().deinterlaced);
}

#[test]
fn the_default_of_several_streams_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let (small, large) = (dir.path().join("small.mp4"), dir.path().join("large.mp4"));
    let (small_size, large_size) = (FrameSize { width: 64, height: 48 }, FrameSize { width: 128, height: 96 });
    write_video(&small, 1, 30, 30, small_size);
    write_video(&large, 2, 30, 30, large_size);
    for (default, size) in [(0, small_size), (1, large_size)] {
        for container in ["mkv", "mp4"] {
            let path = dir.path().join(format!("{default}.{container}"));
            let streams = ["-i", large.to_str().expect("text"), "-map", "0:v", "-map", "1:v", "-c", "copy"];
            let (first, second) = if default == 0 { ("default", "0") } else { ("0", "default") };
            ffmpeg(&small, &[&streams[..], &["-disposition:v:0", first, "-disposition:v:1", second]].concat(), &path);
            // mp4 has no default: the first track that is enabled counts, and ffmpeg enables by disposition.
            assert_eq!(frames(&path).0, size, "{default}.{container}");
        }
    }
}

#[test]
fn times_are_right_for_late_starts_and_edit_lists() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize { width: 64, height: 48 };
    let film = dir.path().join("film.mp4");
    write_video(&film, 1, 90, 30, size);
    // A transport stream starts at 1.4 s and more; B-frames are in both.
    let late = dir.path().join("late.ts");
    ffmpeg(&film, &["-c:v", "libx264", "-bf", "3", "-output_ts_offset", "5"], &late);
    let (_, ours, times, _) = frames(&late);
    assert_eq!((ours.len(), ours == theirs(&late, size, "yuv420p")), (90, true));
    assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 33_333_333).abs() < 20_000), "{times:?}");
    // Cut without a new encoding: the edit list hides the frames before the cut.
    let (source, cut) = (dir.path().join("source.mp4"), dir.path().join("cut.mp4"));
    ffmpeg(&film, &["-c:v", "libx264", "-g", "30", "-bf", "2"], &source);
    let status =
        std::process::Command::new("ffmpeg").args(["-v", "error", "-ss", "0.5", "-i"]).arg(&source).args(["-c", "copy"]).arg(&cut).status();
    assert!(status.expect("ffmpeg runs").success());
    let (_, ours, times, _) = frames(&cut);
    let theirs = theirs(&cut, size, "yuv420p");
    assert_eq!((ours.len(), ours == theirs), (theirs.len(), true));
    assert!(times[0] >= 0 && times[0] < 34_000_000, "{times:?}");
}

#[test]
fn odd_and_tiny_sizes_come_back_as_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    for (width, height) in [(1, 1), (63, 47), (2, 100)] {
        let path = dir.path().join(format!("{width}x{height}.mkv"));
        let raw = dir.path().join("raw.yuv");
        let drawn: Vec<u8> = (0..10).flat_map(|frame| moving_frame(4, f64::from(frame), FrameSize { width, height })).collect();
        std::fs::write(&raw, drawn).expect("written");
        let size = format!("{width}x{height}");
        let arguments = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", "10", "-i"];
        let mut ffmpeg = std::process::Command::new("ffmpeg");
        assert!(ffmpeg.args(arguments).arg(&raw).args(["-c:v", "mpeg4"]).arg(&path).status().expect("ffmpeg runs").success());
        let (size, ours, _, damaged) = frames(&path);
        assert_eq!((size, damaged), (FrameSize { width, height }, 0));
        assert!(ours == theirs(&path, size, "yuv420p"), "{width}x{height}");
    }
}
