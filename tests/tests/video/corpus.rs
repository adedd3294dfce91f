//! Odd files by codec, container, colour, times, shape and tracks, frame by frame against the
//! ffmpeg command line: each is decoded, probed, cut into clips as a build does it, and loaded
//! live.

use pipeline::live::{LiveOptions, LiveReader, LiveSet, LiveSpan};
use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::discover::discover;
use pipeline::video::frame::FrameScaler;
use pipeline::video::probe;
use pipeline::video::ticks::{Timeline, clip_starts};
use pipeline::worker::WorkerProgram;
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tests::corpus::{CORPUS, Case, Expect, Fact, Group, generate};
use tests::{ffmpeg_frames, options, ran_alone};

/// How long a decoder may make no progress: no file takes a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The clips that are cut: short ones, so that each file gives some.
fn cut() -> BuildOptions {
    BuildOptions {
        frames: 8,
        stride: 3,
        ..options(3, 1 << 30)
    }
}

#[test]
fn odd_files_are_what_ffmpeg_says() {
    if ran_alone("corpus::odd_files_are_what_ffmpeg_says") {
        return;
    }
    pipeline::video::init().expect("GStreamer");
    let dir = tempfile::tempdir().expect("a folder");
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    generate(dir.path(), threads);
    let only = std::env::var("CORPUS_ONLY").unwrap_or_default();
    let cases: Vec<&Case> = CORPUS
        .iter()
        .filter(|case| case.group != Group::Material && case.name.contains(&only))
        .collect();
    // Messages of libav name no stream: what is judged by them is decoded one file at a time, in a
    // process of its own in a build, and here one after the other.
    let (mut frames, mut wrong) = (0, Vec::new());
    for case in &cases {
        match judge(case, &dir.path().join(case.name)) {
            Ok(compared) => frames += compared,
            Err(reason) => wrong.push(format!("{}: {reason}", case.name)),
        }
    }
    println!(
        "{} files, {frames} frames compared, {} wrong",
        cases.len(),
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "{} of {} files are wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(
        !only.is_empty() || (cases.len() >= 60 && frames > 5000),
        "{} files, {frames} frames",
        cases.len()
    );
}

/// How many frames were compared, or what is wrong.
fn judge(case: &Case, path: &Path) -> Result<usize, String> {
    if let Expect::Rejected(reason) = case.expect {
        return match refusal(path) {
            Some(found) if found.contains(reason) => Ok(0),
            Some(found) => Err(format!("refused with \"{found}\", not \"{reason}\"")),
            None => Err("not refused".to_owned()),
        };
    }
    if let Some(reason) = refusal(path) {
        return Err(format!("refused: {reason}"));
    }
    let frames = compare_frames(case, path)?;
    compare_clips(case, path)?;
    Ok(frames)
}

/// Why the file at `path` is rejected; none if it is not.
fn refusal(path: &Path) -> Option<String> {
    let found = discover(&[path.to_owned()]).expect("found");
    if let Some(rejected) = found.rejected.first() {
        return Some(rejected.reason.clone());
    }
    let decode = DecodeOptions {
        timeout: TIMEOUT,
        ..DecodeOptions::default()
    };
    let first = VideoDecoder::open(path, decode).and_then(|mut decoder| decoder.next_frame());
    match first {
        Ok(Some(_)) => None,
        Ok(None) => Some("no frames".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Every frame against ffmpeg's, and the facts.
fn compare_frames(case: &Case, path: &Path) -> Result<usize, String> {
    let decode = DecodeOptions {
        timeout: TIMEOUT,
        ..DecodeOptions::default()
    };
    let mut decoder = VideoDecoder::open(path, decode).map_err(|error| error.to_string())?;
    let theirs = ffmpeg_frames_of(case, path);
    let (width, height) = case.size();
    let size = FrameSize {
        width: width as usize,
        height: height as usize,
    };
    let frame_bytes = if case.expect == Expect::Gray {
        size.width * size.height
    } else {
        size.frame_bytes()
    };
    let theirs: Vec<&[u8]> = theirs.chunks_exact(frame_bytes).collect();
    let (mut count, mut last_ns) = (0, None);
    while let Some(frame) = decoder
        .next_frame()
        .map_err(|error| format!("frame {count}: {error}"))?
    {
        let upright = decoder.orientation().upright_size(frame.size());
        if upright != size {
            return Err(format!(
                "{}x{}, not {width}x{height}",
                upright.width, upright.height
            ));
        }
        if frame.damaged || frame.after_hole {
            let reasons: Vec<_> = decoder
                .damages()
                .into_iter()
                .map(|damage| damage.reason)
                .collect();
            return Err(format!("frame {count} is called damaged: {reasons:?}"));
        }
        if last_ns.is_some_and(|last| last >= frame.pts_ns) {
            return Err(format!(
                "frame {count} comes at {}, after {last_ns:?}",
                frame.pts_ns
            ));
        }
        gap_as_expected(case, count as u32, last_ns.map(|last| frame.pts_ns - last))?;
        last_ns = Some(frame.pts_ns);
        let mut ours = Vec::new();
        let mut scaler = FrameScaler::new(upright, decoder.orientation(), frame.color().range);
        frame
            .with_planes(|planes| scaler.append(planes, &mut ours))
            .map_err(|error| error.to_string())?;
        let Some(theirs) = theirs.get(count) else {
            if case.expect == Expect::First {
                break;
            }
            return Err(format!("more frames than ffmpeg's {}", theirs.len()));
        };
        let (ours, chroma) = ours.split_at(frame_bytes);
        let difference = ours
            .iter()
            .zip(*theirs)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap_or(0);
        let most = match case.expect {
            Expect::Within(most) => most,
            Expect::FramesOnly => u8::MAX,
            _ => 0,
        };
        if difference > most || chroma.iter().any(|&sample| sample != 128) {
            return Err(format!(
                "frame {count} differs by {difference}, at most {most} is right"
            ));
        }
        count += 1;
    }
    if count < theirs.len() || count < case.frames() as usize {
        return Err(format!(
            "{count} frames, ffmpeg has {} ({})",
            theirs.len(),
            case.frames()
        ));
    }
    Ok(count)
}

fn ffmpeg_frames_of(case: &Case, path: &Path) -> Vec<u8> {
    ffmpeg_frames(path, &case.oracle_arguments())
}

fn gap_as_expected(case: &Case, frame: u32, interval_ns: Option<i64>) -> Result<(), String> {
    for fact in case.facts {
        if let (Fact::Gap(expected, ms), Some(ns)) = (*fact, interval_ns)
            && expected == frame
            && (ns / 1_000_000 - i64::from(ms)).abs() > 2
        {
            return Err(format!(
                "frame {frame} comes {} ms after the one before, not {ms}",
                ns / 1_000_000
            ));
        }
    }
    Ok(())
}

/// The clips of a build, as many as were counted, and the same loaded live.
fn compare_clips(case: &Case, path: &Path) -> Result<(), String> {
    let options = cut();
    let decode = DecodeOptions {
        timeout: TIMEOUT,
        ..DecodeOptions::default()
    };
    let mut decoder =
        ClipDecoder::open(path, &options, decode).map_err(|error| error.to_string())?;
    let source = decoder.source().clone();
    let aspect = (source.shape.pixel_aspect.num, source.shape.pixel_aspect.den);
    let (num, den) = case.aspect();
    if aspect.0 * den != aspect.1 * num {
        return Err(format!(
            "pixels of {}:{}, not {num}:{den}",
            aspect.0, aspect.1
        ));
    }
    // A picture that is mirrored and turned has two names: its pixels were compared already.
    if !source.shape.orientation.mirrored && source.shape.orientation.rotation != case.rotation() {
        return Err(format!(
            "turned by {}, not {}",
            source.shape.orientation.rotation,
            case.rotation()
        ));
    }
    if source.color_range.name() != case.range() {
        return Err(format!(
            "{} range, not {}",
            source.color_range.name(),
            case.range()
        ));
    }
    for fact in case.facts {
        let (found, expected) = match *fact {
            // Without a description, the size decides.
            Fact::Matrix("unknown") => continue,
            Fact::Matrix(name) => (source.color_matrix.name(), matrix_name(name)),
            Fact::Transfer(name) => (source.color_transfer, name),
            Fact::Primaries(name) => (source.color_primaries, name),
            _ => continue,
        };
        if found != expected {
            return Err(format!("{found}, not {expected}"));
        }
    }
    let mut clips = Vec::new();
    while let Some(clip) = decoder.next_clip().map_err(|error| error.to_string())? {
        clips.push(clip);
    }
    let probe = probe(path, &options, TIMEOUT).map_err(|error| format!("probe: {error}"))?;
    let planned = clip_starts(&options, &Timeline::of(&options, &probe)).len();
    if planned != clips.len() {
        return Err(format!("{} clips, {planned} were counted", clips.len()));
    }
    let worker = WorkerProgram {
        path: env!("CARGO_BIN_EXE_live-worker").into(),
        argument: "live-worker".to_owned(),
    };
    let live = LiveOptions {
        frames: options.frames as usize,
        stride: options.stride,
        span: LiveSpan::Clip,
        timeout: TIMEOUT,
        ..LiveOptions::new(worker)
    };
    let set =
        LiveSet::open(&[path.to_owned()], live, |_, _| ()).map_err(|error| error.to_string())?;
    if set.len() != clips.len() {
        return Err(format!(
            "{} clips live, {} built; {:?}",
            set.len(),
            clips.len(),
            set.rejected()
        ));
    }
    let mut reader = LiveReader::new(Arc::default());
    for (index, clip) in clips.iter().enumerate() {
        reader
            .windows(&set, index, &[0])
            .map_err(|error| format!("live: {error}"))?;
        if reader.frames(0).bytes() != clip.data {
            return Err(format!("clip {index} is another one live"));
        }
    }
    Ok(())
}

/// Files that once came out wrong, and real footage with classes, where they lie beside the
/// project.
#[test]
fn real_files_are_what_ffmpeg_says() {
    if ran_alone("corpus::real_files_are_what_ffmpeg_says") {
        return;
    }
    pipeline::video::init().expect("GStreamer");
    let Some(root) = std::env::var_os("TEST_VIDEOS") else {
        return;
    };
    let mut videos = Vec::new();
    for folder in ["faults", "actions"] {
        videos.extend(
            discover(&[Path::new(&root).join(folder)])
                .expect("found")
                .videos,
        );
    }
    for (number, video) in videos.iter().enumerate() {
        // Of the many alike, some.
        if videos.len() > 100 && number >= 20 && number % 40 != 0 {
            continue;
        }
        let path = &video.path;
        let mut decoder = VideoDecoder::open(path, DecodeOptions::default()).expect("opened");
        let (mut theirs, mut count, mut frame_bytes) = (Vec::new(), 0, 0);
        while let Some(frame) = decoder
            .next_frame()
            .unwrap_or_else(|error| panic!("{path:?}: {error}"))
        {
            assert!(
                !frame.damaged && !frame.after_hole,
                "{path:?}, frame {count}: {:?}",
                decoder.damages()
            );
            let (color, size) = (frame.color(), frame.size());
            if count == 0 {
                let format = if color.range.name() == "full" {
                    "yuvj420p"
                } else {
                    "yuv420p"
                };
                theirs = ffmpeg_frames(path, &["-fps_mode", "passthrough", "-pix_fmt", format]);
            }
            let mut ours = Vec::new();
            let mut scaler = FrameScaler::new(size, decoder.orientation(), color.range);
            frame
                .with_planes(|planes| scaler.append(planes, &mut ours))
                .expect("converted");
            frame_bytes = size.frame_bytes();
            let expected = theirs
                .chunks_exact(frame_bytes)
                .nth(count)
                .expect("a frame of ffmpeg's");
            // 10 bits are rounded otherwise.
            let most = if frame.pixel_format() == "I420" { 0 } else { 1 };
            let difference = ours
                .iter()
                .zip(expected)
                .map(|(a, b)| a.abs_diff(*b))
                .max()
                .unwrap_or(0);
            assert!(
                difference <= most,
                "{path:?}, frame {count} differs by {difference}"
            );
            count += 1;
        }
        assert!(count > 0, "{path:?}");
        assert_eq!(
            theirs.len(),
            count * frame_bytes,
            "{path:?}: {count} frames, ffmpeg has others"
        );
    }
    println!("{} files", videos.len());
}

/// The matrix that ffprobe's name stands for.
fn matrix_name(name: &str) -> &str {
    match name {
        "smpte170m" | "bt470bg" | "fcc" => "bt601",
        "bt2020nc" | "bt2020c" => "bt2020",
        name => name,
    }
}
