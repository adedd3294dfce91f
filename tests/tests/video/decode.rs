//! Decoded frames and sampled clips against the ffmpeg command line's.

use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::frame::FrameScaler;
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, PixelAspect, Sampling, Tiling};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::{ffmpeg, ffmpeg_frames, moving_frame, options, real_videos, write_video};

const DECODE: DecodeOptions = DecodeOptions {
    threads: 2,
    timeout: Duration::from_secs(60),
    picture_rate: 30.0,
};

/// Makes ffmpeg give every frame once, whatever its time.
const PASS_THROUGH: [&str; 4] = ["-map", "0:v:0", "-fps_mode", "passthrough"];

/// All frames of a video, upright, at their own size.
fn frames(path: &Path) -> (FrameSize, Vec<u8>) {
    let (size, bytes, _) = frames_and_times(path);
    (size, bytes)
}

/// The same, and the time of each frame in nanoseconds.
fn frames_and_times(path: &Path) -> (FrameSize, Vec<u8>, Vec<i64>) {
    pipeline::video::init().expect("GStreamer");
    let mut decoder = VideoDecoder::open(path, DECODE).expect("opened");
    let mut scaler = None;
    let mut bytes = Vec::new();
    let mut times = Vec::new();
    while let Some(frame) = decoder
        .next_frame()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    {
        let orientation = decoder.orientation();
        let size = orientation.upright_size(frame.size());
        let (_, scaler) = scaler.get_or_insert_with(|| {
            (
                size,
                FrameScaler::new(size, orientation, frame.color().range),
            )
        });
        frame
            .with_planes(|planes| scaler.append(planes, &mut bytes))
            .expect("converted");
        times.push(frame.pts_ns);
    }
    (scaler.expect("at least one frame").0, bytes, times)
}

#[track_caller]
fn assert_same_frames(path: &Path, size: FrameSize, ours: &[u8], theirs: &[u8]) {
    assert_eq!(
        ours.len(),
        theirs.len(),
        "{}: bytes of all frames",
        path.display()
    );
    let frames = ours
        .chunks_exact(size.frame_bytes())
        .zip(theirs.chunks_exact(size.frame_bytes()));
    for (number, (ours, theirs)) in frames.enumerate() {
        assert!(ours == theirs, "{}: frame {number} differs", path.display());
    }
}

#[test]
fn every_frame_is_ffmpegs() {
    let dir = tempfile::tempdir().expect("a folder");
    let odd_length = dir.path().join("a.mp4");
    write_video(
        &odd_length,
        1,
        41,
        30,
        FrameSize {
            width: 98,
            height: 66,
        },
    );
    let mut paths = real_videos("real");
    paths.push(odd_length);
    for path in paths {
        let (size, ours) = frames(&path);
        assert_same_frames(&path, size, &ours, &ffmpeg_frames(&path, &PASS_THROUGH));
    }
}

#[test]
fn phone_footage_is_brought_upright() {
    let rotated: Vec<PathBuf> = real_videos("odd")
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("rotated"))
        .collect();
    for path in rotated {
        // ffmpeg turns by the display matrix unless told otherwise.
        let (size, ours) = frames(&path);
        assert_same_frames(&path, size, &ours, &ffmpeg_frames(&path, &PASS_THROUGH));
    }
}

/// Turns the picture of a video that this crate wrote, by its track's display matrix alone.
fn set_display_matrix(path: &Path, matrix: [i32; 4]) {
    // 16.16 fixed point, the last of a row 2.30.
    let coefficients = |[a, b, c, d]: [i32; 4]| -> Vec<u8> {
        let rows = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30];
        rows.into_iter().flat_map(i32::to_be_bytes).collect()
    };
    let mut bytes = std::fs::read(path).expect("a video");
    let track = bytes
        .windows(4)
        .position(|name| name == b"tkhd")
        .expect("a track's header");
    let upright = coefficients([1, 0, 0, 1]);
    let place = track
        + bytes[track..]
            .windows(upright.len())
            .position(|window| window == upright)
            .expect("its matrix");
    bytes[place..place + upright.len()].copy_from_slice(&coefficients(matrix));
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn display_matrices_are_applied_as_by_ffmpeg() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 98,
        height: 66,
    };
    let lying = FrameSize {
        width: 66,
        height: 98,
    };
    for (degrees, matrix, turned) in [
        (90, [0, 1, -1, 0], lying),
        (180, [-1, 0, 0, -1], size),
        (270, [0, -1, 1, 0], lying),
    ] {
        let path = dir.path().join(format!("{degrees}.mp4"));
        write_video(&path, 6, 9, 30, size);
        set_display_matrix(&path, matrix);
        let (upright, ours) = frames(&path);
        assert_eq!(upright, turned, "{degrees} degrees");
        assert_same_frames(
            &path,
            upright,
            &ours,
            &ffmpeg_frames(&path, &["-fps_mode", "passthrough"]),
        );
        let decoder = ClipDecoder::open(&path, &options(3, 1 << 30), DECODE).expect("opened");
        assert_eq!(
            (decoder.source().size, decoder.source().shape.size),
            (turned, size)
        );
        assert_eq!(decoder.source().shape.orientation.rotation, degrees);
    }
}

#[test]
fn frames_are_the_same_for_any_number_of_threads() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    write_video(
        &path,
        7,
        70,
        30,
        FrameSize {
            width: 98,
            height: 66,
        },
    );
    let clips = |threads| {
        let mut decoder = ClipDecoder::open(
            &path,
            &options(3, 1 << 30),
            DecodeOptions { threads, ..DECODE },
        )
        .expect("opened");
        std::iter::from_fn(|| decoder.next_clip().expect("decoded")).collect::<Vec<_>>()
    };
    let one = clips(1);
    assert_eq!(one.len(), 1);
    for threads in [2, 5] {
        assert!(clips(threads) == one, "{threads} threads");
    }
}

#[test]
fn ten_bits_become_eight() {
    for path in real_videos("odd")
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("10bit"))
    {
        let (_, ours) = frames(&path);
        let theirs = ffmpeg_frames(&path, &PASS_THROUGH);
        assert_eq!(ours.len(), theirs.len());
        // ffmpeg dithers, so samples differ by a step here and there, and not on the whole.
        let furthest = ours.iter().zip(&theirs).map(|(&a, &b)| a.abs_diff(b)).max();
        let mean = ours
            .iter()
            .zip(&theirs)
            .map(|(&a, &b)| f64::from(a) - f64::from(b))
            .sum::<f64>()
            / ours.len() as f64;
        assert!(
            furthest <= Some(1) && mean.abs() < 0.6,
            "furthest {furthest:?}, mean {mean}"
        );
    }
}

#[test]
fn interlaced_footage_is_deinterlaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 128,
        height: 96,
    };
    let (film, path) = (
        dir.path().join("film.mp4"),
        dir.path().join("interlaced.mp4"),
    );
    write_video(&film, 5, 60, 60, size);
    // Each frame is made of two moments: what moves has combs.
    ffmpeg(
        &film,
        &[
            "-vf",
            "interlace=scan=tff:lowpass=0",
            "-c:v",
            "libx264",
            "-flags",
            "+ilme+ildct",
            "-x264-params",
            "tff=1",
        ],
        &path,
    );
    let combed = ffmpeg_frames(&path, &PASS_THROUGH);
    let (_, ours, times) = frames_and_times(&path);
    assert_eq!(
        (ours.len(), (times[1] - times[0]) / 1000),
        (combed.len(), 33_333),
        "30 frames per second, as before"
    );
    // Differences from line to line against those from line to the line after the next: combs make
    // the first larger.
    let combing = |frames: &[u8]| {
        let line = |frame: &[u8], y: usize| frame[y * size.width..(y + 1) * size.width].to_vec();
        let distance = |a: &[u8], b: &[u8]| {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| f64::from(a.abs_diff(b)))
                .sum::<f64>()
        };
        let (mut near, mut far) = (0.0, 0.0);
        for frame in frames.chunks_exact(size.frame_bytes()) {
            for y in 0..size.height - 2 {
                near += distance(&line(frame, y), &line(frame, y + 1));
                far += distance(&line(frame, y), &line(frame, y + 2));
            }
        }
        near / far
    };
    let (before, after) = (combing(&combed), combing(&ours));
    assert!(
        before > 1.0 && after < 0.8,
        "combing {before} before, {after} after"
    );
    let decoder =
        ClipDecoder::open(&path, &options(3, 1 << 30), DecodeOptions::default()).expect("opened");
    assert!(decoder.source().deinterlaced);
    assert!(
        !ClipDecoder::open(&film, &options(3, 1 << 30), DecodeOptions::default())
            .expect("opened")
            .source()
            .deinterlaced
    );
}

#[test]
fn times_are_right_for_late_starts_and_edit_lists() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
    let film = dir.path().join("film.mp4");
    write_video(&film, 1, 90, 30, size);
    // A transport stream starts at 1.4 s and more; B-frames are in both.
    let late = dir.path().join("late.ts");
    ffmpeg(
        &film,
        &["-c:v", "libx264", "-bf", "3", "-output_ts_offset", "5"],
        &late,
    );
    let (_, ours, times) = frames_and_times(&late);
    assert_eq!(times.len(), 90);
    assert_same_frames(&late, size, &ours, &ffmpeg_frames(&late, &PASS_THROUGH));
    assert!(
        times
            .windows(2)
            .all(|pair| (pair[1] - pair[0] - 33_333_333).abs() < 20_000),
        "{times:?}"
    );
    // Cut without a new encoding: the edit list hides the frames before the cut.
    let (source, cut) = (dir.path().join("source.mp4"), dir.path().join("cut.mp4"));
    ffmpeg(&film, &["-c:v", "libx264", "-g", "30", "-bf", "2"], &source);
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-ss", "0.5", "-i"])
        .arg(&source)
        .args(["-c", "copy"])
        .arg(&cut)
        .status();
    assert!(status.expect("ffmpeg runs").success());
    let (_, ours, times) = frames_and_times(&cut);
    assert_same_frames(&cut, size, &ours, &ffmpeg_frames(&cut, &PASS_THROUGH));
    assert!(times[0] >= 0 && times[0] < 34_000_000, "{times:?}");
}

/// The clips of a video, unscaled.
fn clips(path: &Path, options: &BuildOptions) -> Vec<(Vec<u8>, Vec<i64>, u32)> {
    pipeline::video::init().expect("GStreamer");
    let options = BuildOptions {
        short_side: 4096,
        pixel_aspect: PixelAspect::Keep,
        ..options.clone()
    };
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
    let fits = if ticks.len() > (frames - 1) * stride {
        (ticks.len() - (frames - 1) * stride - 1) / (frames * stride) + 1
    } else {
        1
    };
    assert!(
        clips.len().abs_diff(fits) <= 1,
        "{}: {} clips where {fits} fit",
        path.display(),
        clips.len()
    );
    for (index, (data, _, repeated)) in clips.iter().enumerate() {
        for (frame, ours) in data
            .chunks_exact(frame_bytes)
            .enumerate()
            .take(frames - *repeated as usize)
        {
            // Past its end ffmpeg shows nothing.
            let Some(theirs) = ticks.get(index * frames * stride + frame * stride) else {
                continue;
            };
            assert!(
                ours == *theirs,
                "{}: clip {index}, frame {frame}",
                path.display()
            );
        }
    }
}

#[test]
fn clips_are_sampled_by_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
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

/// Presentation times of all frames as ffprobe says them: units, and units a second as a fraction.
fn presentation_times(path: &Path) -> (Vec<i64>, (i64, i64)) {
    let ask = |entries: &str| {
        let arguments = [
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            entries,
            "-of",
            "default=nokey=1:noprint_wrappers=1",
        ];
        let output = Command::new("ffprobe")
            .args(arguments)
            .arg(path)
            .output()
            .expect("ffprobe comes with ffmpeg");
        assert!(
            output.status.success(),
            "ffprobe: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };
    let base = ask("stream=time_base");
    let (seconds, units) = base.trim().split_once('/').expect("a fraction");
    let times = ask("frame=pts")
        .lines()
        .map(|line| line.parse().expect("a time"))
        .collect();
    (
        times,
        (
            units.parse().expect("a number"),
            seconds.parse().expect("a number"),
        ),
    )
}

/// Compares the clips of a video with those that its frames' times say, in whole numbers; returns
/// how many frames are shown more than once or never.
fn compare_with_presentation_times(
    path: &Path,
    size: FrameSize,
    options: &BuildOptions,
) -> (usize, usize) {
    let (times, (units, seconds)) = presentation_times(path);
    let theirs = ffmpeg_frames(path, &PASS_THROUGH);
    let theirs: Vec<&[u8]> = theirs.chunks_exact(size.frame_bytes()).collect();
    assert_eq!(theirs.len(), times.len());
    // The nearest tick, halves up: floor(2 x + 1) / 2.
    let tick = |time: i64| {
        (2 * (time - times[0]) * seconds * options.sampling.fps().expect("time") as i64 + units)
            .div_euclid(2 * units)
    };
    let (mut repeated, mut skipped) = (0, 0);
    for pair in times.windows(2) {
        repeated += usize::from(tick(pair[1]) > tick(pair[0]) + 1);
        skipped += usize::from(tick(pair[1]) == tick(pair[0]));
    }
    let (frames, stride) = (i64::from(options.frames), i64::from(options.stride));
    let clips = clips(path, options);
    for (index, (data, pts, repeated)) in clips.iter().enumerate() {
        assert_eq!(*repeated, 0);
        for (number, (ours, pts)) in data.chunks_exact(size.frame_bytes()).zip(pts).enumerate() {
            let wanted = index as i64 * frames * stride + number as i64 * stride;
            let shown = times.partition_point(|&time| tick(time) <= wanted) - 1;
            assert!(
                ours == theirs[shown],
                "{}: clip {index}, frame {number} is not frame {shown}",
                path.display()
            );
            let expected = times[shown] as f64 * seconds as f64 / units as f64 * 1e9;
            assert!(
                (*pts as f64 - expected).abs() <= 1.0,
                "{}: clip {index}, frame {number} at {pts} ns",
                path.display()
            );
        }
    }
    // The next clip does not fit.
    let last = tick(times[times.len() - 1]);
    assert!(
        !clips.is_empty() && clips.len() as i64 * frames * stride + (frames - 1) * stride > last,
        "{} clips",
        clips.len()
    );
    (repeated, skipped)
}

#[test]
fn clips_hold_the_frames_that_are_shown_at_their_ticks() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
    // At 60 frames a second every other frame lies half way between two ticks.
    for (rate, fps) in [(30, 30), (60, 30), (24, 30), (25, 10), (50, 12)] {
        let path = dir.path().join(format!("{rate}.mp4"));
        write_video(&path, 8, 5 * rate, rate, size);
        let every = Tiling::EverySeconds(24.0 / f64::from(fps));
        let options = BuildOptions {
            frames: 8,
            stride: 3,
            sampling: Sampling::TicksPerSecond(f64::from(fps)),
            tiling: every,
            ..options(3, 1 << 30)
        };
        compare_with_presentation_times(&path, size, &options);
    }
}

#[test]
fn frames_of_a_variable_rate_are_repeated() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
    let (even, uneven) = (dir.path().join("even.mp4"), dir.path().join("uneven.mp4"));
    write_video(&even, 9, 120, 30, size);
    // Two of three frames late, and half a second of standstill. A function of the time and not of
    // the packet's number: packets lie in decoding order.
    let times = "setts=pts='PTS+(0.011*mod(round(PTS*TB*30),3)+0.5*gte(PTS*TB,1.65))/TB'";
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(&even)
        .args(["-c", "copy", "-bsf:v", times])
        .arg(&uneven)
        .output();
    let output = output.expect("ffmpeg runs");
    assert!(
        output.status.success(),
        "ffmpeg: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let every = Tiling::EverySeconds(24.0 / 30.0);
    let options = BuildOptions {
        frames: 8,
        stride: 3,
        tiling: every,
        ..options(3, 1 << 30)
    };
    let (repeated, _) = compare_with_presentation_times(&uneven, size, &options);
    assert!(repeated > 0, "the standstill repeats a frame");
    compare_with_ffmpegs_resampling(&uneven, size.frame_bytes());
}

#[test]
fn clips_are_spread_over_the_video() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
    write_video(&path, 3, 161, 30, size);
    let starts = |tiling| {
        let clips = clips(
            &path,
            &BuildOptions {
                tiling,
                ..options(3, 1 << 30)
            },
        );
        clips
            .iter()
            .map(|(_, pts, _)| (pts[0] - clips[0].1[0]) * 30 / 1_000_000_000)
            .collect::<Vec<_>>()
    };
    // A clip lasts from tick 0 to tick 60, so the last one may start at tick 100.
    assert_eq!(starts(Tiling::EverySeconds(64.0 / 30.0)), [0, 64]);
    assert_eq!(starts(Tiling::EverySeconds(1.0)), [0, 30, 60, 90]);
    assert_eq!(starts(Tiling::ClipsPerVideo(3)), [0, 50, 100]);
    let middle = clips(
        &path,
        &BuildOptions {
            tiling: Tiling::ClipsPerVideo(1),
            ..options(3, 1 << 30)
        },
    );
    assert_eq!(middle.len(), 1);
    assert_eq!(
        (middle[0].1[0] - frame_zero(&path)) * 30 / 1_000_000_000,
        50
    );
}

fn frame_zero(path: &Path) -> i64 {
    clips(path, &options(3, 1 << 30))[0].1[0]
}

#[test]
fn a_short_video_repeats_its_last_frame_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = FrameSize {
        width: 64,
        height: 48,
    };
    write_video(&path, 4, 10, 30, size);
    let clips = clips(&path, &options(3, 1 << 30));
    let [(data, pts, repeated)] = clips.as_slice() else {
        panic!("{} clips", clips.len())
    };
    // Ticks 0, 4 and 8 exist; 13 frames are missing.
    assert_eq!((pts.len(), *repeated), (16, 13));
    let frames: Vec<&[u8]> = data.chunks_exact(size.frame_bytes()).collect();
    assert!(
        frames[3..]
            .iter()
            .all(|frame| frame == frames.last().expect("a last one"))
    );
    assert_ne!(frames[0], frames[1]);
}

#[test]
fn encoded_frames_come_back_nearly_as_they_were() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    let size = FrameSize {
        width: 96,
        height: 80,
    };
    write_video(&path, 5, 20, 30, size);
    let (decoded_size, decoded) = frames(&path);
    assert_eq!(decoded_size, size);
    let drawn: Vec<u8> = (0..20)
        .flat_map(|frame| moving_frame(5, f64::from(frame), size))
        .collect();
    assert_eq!(decoded.len(), drawn.len());
    let error: f64 = decoded
        .iter()
        .zip(&drawn)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum::<f64>()
        / drawn.len() as f64;
    assert!(error < 40.0, "mean squared error {error}");
}
