//! Live loading: the frames are those of clips that are decoded from the start, whatever happens to
//! videos and decoders.

use pipeline::live::{ClipFault, LiveError, LiveOptions, LiveReader, LiveSet, LiveSpan};
use pipeline::sampling::order::{Purpose, stream};
use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::DecodeOptions;
use pipeline::worker::WorkerProgram;
use rand::RngExt;
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, Sampling};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::{ffmpeg, options, ran_alone, real_videos, signal, write_video};

fn live_options(span: LiveSpan) -> LiveOptions {
    let worker = WorkerProgram {
        path: env!("CARGO_BIN_EXE_live-worker").into(),
        argument: "live-worker".to_owned(),
    };
    LiveOptions {
        span,
        timeout: Duration::from_secs(30),
        ..LiveOptions::new(worker)
    }
}

fn open(path: &Path, options: LiveOptions) -> LiveSet {
    LiveSet::open(&[path.to_owned()], options, |_, _| {}).expect("opened")
}

fn reader() -> LiveReader {
    LiveReader::new(Arc::default())
}

/// All clips of a video by its decoder from the start, with `options`: frames, whether they are
/// damaged, and how many at the end are repeated.
fn clips(path: &Path, options: &BuildOptions) -> (FrameSize, Vec<(Vec<u8>, bool, u32)>) {
    pipeline::video::init().expect("GStreamer");
    let mut decoder = ClipDecoder::open(path, options, DecodeOptions::default()).expect("opened");
    let clips = std::iter::from_fn(|| decoder.next_clip().expect("decoded"));
    let clips = clips
        .map(|clip| (clip.data, clip.damaged, clip.repeated_frames))
        .collect();
    (decoder.source().size, clips)
}

/// What every tick of a video shows, and whether that is damaged: clips of one frame back to back.
fn ticks(path: &Path, sampling: Sampling) -> (FrameSize, Vec<(Vec<u8>, bool)>) {
    let (size, clips) = clips(
        path,
        &BuildOptions {
            frames: 1,
            stride: 1,
            sampling,
            ..options(3, 1 << 30)
        },
    );
    (
        size,
        clips
            .into_iter()
            .map(|(frame, damaged, _)| (frame, damaged))
            .collect(),
    )
}

/// Compares windows anywhere in a video, alone and several at a time, with what its ticks show.
/// Returns how many of nine calls used the fast seek, how many of them not from the start of the
/// video, and how many packets were skipped.
fn compare_windows(path: &Path, live: LiveOptions) -> (u64, u64, u64) {
    let name = path.display();
    let (size, ticks) = ticks(path, live.sampling);
    let set = open(path, live);
    let (frames, stride) = (set.options().frames, set.options().stride as usize);
    assert_eq!((set.len(), set.rejected()), (1, &[][..]), "{name}");
    let clip = set.clip(0);
    assert_eq!(clip.size, size, "{name}: size");
    assert_eq!(
        clip.frames,
        ticks.len().div_ceil(stride).max(frames),
        "{name}: frames of {} ticks",
        ticks.len()
    );
    let last = clip.frames - frames;
    let mut rng = stream(Purpose::Synth, 7, 0, 0);
    let mut calls: Vec<Vec<usize>> = vec![vec![0], vec![last], vec![last, 0, last / 2, 0]];
    calls.extend((0..6).map(|call| {
        (0..call % 3 + 1)
            .map(|_| rng.random_range(0..=last))
            .collect()
    }));
    let mut reader = reader();
    let (mut short, mut sought, mut left_out) = (0, 0, 0);
    for starts in &calls {
        let result = reader.windows(&set, 0, starts);
        // Past the end, the last frame of the window is repeated.
        let expected = |start: usize, frame: usize| {
            &ticks[((start + frame) * stride).min((ticks.len() - 1) / stride * stride)]
        };
        if let Err(error) = result {
            let damaged = starts
                .iter()
                .any(|&start| (0..frames).any(|frame| expected(start, frame).1));
            assert!(
                damaged && error.is_of_one_clip() && error.to_string().contains(&name.to_string()),
                "{name}, {starts:?}: {error}"
            );
            continue;
        }
        short += u64::from(reader.effort().fast_seek);
        sought += u64::from(reader.effort().sought);
        left_out += reader.effort().skipped_packets;
        for (window, &start) in starts.iter().enumerate() {
            let live = reader.frames(window);
            assert_eq!(
                live.bytes().len(),
                frames * size.frame_bytes(),
                "{name}: bytes of a window"
            );
            for (frame, bytes) in live.bytes().chunks_exact(size.frame_bytes()).enumerate() {
                assert!(
                    bytes == expected(start, frame).0,
                    "{name}: frame {frame} of the window at {start} differs ({starts:?})"
                );
            }
        }
    }
    println!(
        "{name}: of {} calls {short} by the fast seek, {sought} not from the start; {left_out} \
         packets skipped",
        calls.len()
    );
    (short, sought, left_out)
}

/// Compares the clips of a video with those of a build.
fn compare_clips(path: &Path) {
    let set = open(path, live_options(LiveSpan::Clip));
    let (size, clips) = clips(path, &options(3, 1 << 30));
    assert_eq!(set.len(), clips.len(), "{}: clips", path.display());
    let mut reader = reader();
    for (index, (frames, damaged, _)) in clips.iter().enumerate() {
        assert_eq!((set.clip(index).frames, set.clip(index).size), (16, size));
        match reader.windows(&set, index, &[0]) {
            Ok(()) => assert!(
                reader.frames(0).bytes() == frames,
                "{}: clip {index} differs",
                path.display()
            ),
            Err(error) => assert!(*damaged, "{error}"),
        }
    }
}

/// A film of 10 s.
fn film(dir: &Path) -> PathBuf {
    let path = dir.join("film.mp4");
    write_video(
        &path,
        21,
        300,
        30,
        FrameSize {
            width: 128,
            height: 96,
        },
    );
    path
}

#[test]
fn live_windows_are_what_decoding_from_the_start_gives() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path());
    let x264 = |parameters: &'static str| {
        vec![
            "-c:v",
            "libx264",
            "-preset",
            "fast",
            "-x264-params",
            parameters,
        ]
    };
    let pyramid = "keyint=50:bframes=5:b-pyramid=normal:b-adapt=0";
    let always = 9;
    // All but those of one group, or of open ones, are entered elsewhere than at their start.
    let seeks = |name: &str| {
        ![
            "one-group.mp4",
            "open.mp4",
            "refresh.mp4",
            "hardly-long-enough.mp4",
            "short.mp4",
        ]
        .contains(&name)
    };
    for (name, arguments, short_ways, leaves_out) in [
        ("all-intra.mp4", x264("keyint=1"), always, false),
        (
            "short-groups.mp4",
            x264("keyint=12:min-keyint=12:bframes=2:scenecut=0"),
            always,
            true,
        ),
        ("pyramid.mp4", x264(pyramid), always, true),
        (
            "one-group.mp4",
            x264("keyint=infinite:bframes=3"),
            always,
            true,
        ),
        ("no-b.mov", x264("keyint=40:bframes=0"), always, false),
        ("pyramid.mkv", x264(pyramid), always, true),
        (
            "open.mp4",
            x264("keyint=30:bframes=3:open-gop=1"),
            always,
            true,
        ),
        (
            "refresh.mp4",
            x264("keyint=40:intra-refresh=1:bframes=0"),
            always,
            false,
        ),
        ("pyramid.ts", x264(pyramid), 0, false),
        ("pyramid.flv", x264(pyramid), 0, false),
        (
            "packed.avi",
            vec!["-c:v", "mpeg4", "-q:v", "4", "-bf", "2", "-g", "40"],
            0,
            false,
        ),
        (
            "mpeg4.mp4",
            vec!["-c:v", "mpeg4", "-q:v", "4", "-bf", "2", "-g", "40"],
            0,
            false,
        ),
        (
            "h265.mp4",
            vec![
                "-c:v",
                "libx265",
                "-x265-params",
                "log-level=none:keyint=50",
                "-preset",
                "fast",
            ],
            always,
            true,
        ),
        (
            "vp8.webm",
            vec![
                "-c:v",
                "libvpx",
                "-b:v",
                "500k",
                "-g",
                "50",
                "-auto-alt-ref",
                "1",
                "-lag-in-frames",
                "10",
            ],
            always,
            false,
        ),
        (
            "vp9.webm",
            vec![
                "-c:v",
                "libvpx-vp9",
                "-b:v",
                "500k",
                "-cpu-used",
                "6",
                "-g",
                "50",
            ],
            always,
            false,
        ),
        (
            "25.mp4",
            [x264(pyramid), vec!["-r", "25"]].concat(),
            always,
            true,
        ),
        (
            "60.mp4",
            [x264(pyramid), vec!["-r", "60"]].concat(),
            always,
            true,
        ),
        (
            "ntsc.mkv",
            [x264(pyramid), vec!["-r", "30000/1001"]].concat(),
            always,
            true,
        ),
        (
            "film.mkv",
            [x264(pyramid), vec!["-r", "24000/1001"]].concat(),
            always,
            true,
        ),
        (
            "late.mp4",
            [x264(pyramid), vec!["-output_ts_offset", "3"]].concat(),
            always,
            true,
        ),
        (
            "late.mkv",
            [x264(pyramid), vec!["-output_ts_offset", "3"]].concat(),
            always,
            true,
        ),
        (
            "odd.mkv",
            [
                x264(pyramid),
                vec!["-vf", "scale=99:63", "-pix_fmt", "yuv444p"],
            ]
            .concat(),
            always,
            true,
        ),
        (
            "large.mp4",
            [x264(pyramid), vec!["-vf", "scale=480:400", "-t", "4"]].concat(),
            always,
            true,
        ),
        (
            "interlaced.mp4",
            [
                x264("keyint=50:tff=1:bframes=2"),
                vec!["-flags", "+ilme+ildct"],
            ]
            .concat(),
            0,
            false,
        ),
        (
            "hardly-long-enough.mp4",
            [x264(pyramid), vec!["-frames:v", "61"]].concat(),
            always,
            true,
        ),
        (
            "short.mp4",
            [x264(pyramid), vec!["-frames:v", "23"]].concat(),
            always,
            true,
        ),
    ] {
        let path = dir.path().join(name);
        ffmpeg(&film, &arguments, &path);
        let (short, sought, left_out) = compare_windows(&path, live_options(LiveSpan::Video));
        assert!(
            short >= short_ways,
            "{name}: {short} calls by the short way"
        );
        assert_eq!(
            sought > 0,
            seeks(name) && short > 0,
            "{name}: {sought} calls from elsewhere than the start"
        );
        assert_eq!(
            left_out > 0,
            leaves_out,
            "{name}: {left_out} packets skipped"
        );
        compare_clips(&path);
    }
}

#[test]
fn other_grids_are_sampled_alike() {
    let dir = tempfile::tempdir().expect("a folder");
    let (film, path) = (film(dir.path()), dir.path().join("a.mp4"));
    ffmpeg(&film, &["-c:v", "libx264", "-g", "40", "-bf", "3"], &path);
    for (fps, stride, frames) in [(30.0, 1, 8), (7.5, 2, 4), (50.0, 3, 16), (29.97, 4, 16)] {
        let live = LiveOptions {
            sampling: Sampling::TicksPerSecond(fps),
            stride,
            frames,
            ..live_options(LiveSpan::Video)
        };
        assert!(compare_windows(&path, live).0 > 0, "{fps} ticks a second");
    }
    let live = LiveOptions {
        sampling: Sampling::SourceFrames,
        stride: 2,
        ..live_options(LiveSpan::Video)
    };
    assert_eq!(
        compare_windows(&path, live).0,
        0,
        "frames without times are counted from the start"
    );
}

#[test]
fn variable_rates_edit_lists_and_rotations_are_those_of_a_build() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path());
    let coded = dir.path().join("coded.mp4");
    ffmpeg(
        &film,
        &[
            "-c:v",
            "libx264",
            "-x264-params",
            "keyint=40:bframes=3:b-pyramid=normal:b-adapt=0",
        ],
        &coded,
    );
    let copied = |name: &str, before: &[&str], after: &[&str]| {
        let path = dir.path().join(name);
        let command = [&["-v", "error", "-y"], before, &["-i"]].concat();
        let status = Command::new("ffmpeg")
            .args(command)
            .arg(&coded)
            .args(["-c", "copy"])
            .args(after)
            .arg(&path)
            .status();
        assert!(status.expect("ffmpeg runs").success(), "{name}");
        path
    };
    // Two of three frames late, and half a second of standstill.
    let uneven = "setts=pts='PTS+(0.011*mod(round(PTS*TB*30),3)+0.5*gte(PTS*TB,1.65))/TB'";
    for path in [
        copied("uneven.mp4", &[], &["-bsf:v", uneven]),
        copied("cut.mp4", &["-ss", "0.5"], &[]),
        copied("cut-later.mp4", &["-ss", "4.1"], &[]),
        copied("turned.mov", &[], &["-metadata:s:v", "rotate=90"]),
    ] {
        let (short, sought, _) = compare_windows(&path, live_options(LiveSpan::Video));
        assert!(short >= 4 && sought > 0, "{}", path.display());
        compare_clips(&path);
    }
}

#[test]
fn real_footage_is_decoded_alike() {
    for path in ["real", "odd", "bench"].into_iter().flat_map(real_videos) {
        compare_windows(&path, live_options(LiveSpan::Video));
        compare_clips(&path);
    }
}

#[test]
fn unusable_videos_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path());
    fs::write(dir.path().join("empty.mp4"), b"").expect("written");
    fs::write(
        dir.path().join("text.mp4"),
        b"no video at all, whatever its name",
    )
    .expect("written");
    let bytes = fs::read(&film).expect("read");
    let media = bytes
        .windows(4)
        .position(|name| name == b"moov")
        .expect("a table of contents");
    fs::write(dir.path().join("z.mp4"), &bytes[..media - 4]).expect("written");
    let mut heard = Vec::new();
    let set = LiveSet::open(
        &[dir.path().to_owned()],
        live_options(LiveSpan::Clip),
        |done, all| heard.push((done, all)),
    )
    .expect("opened");
    assert_eq!(
        (set.videos(), set.len(), heard),
        (1, 4, vec![(0, 2), (1, 2), (2, 2)])
    );
    let rejected: Vec<String> = set
        .rejected()
        .iter()
        .map(|rejected| format!("{}: {}", rejected.path, rejected.reason))
        .collect();
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(
        rejected[0].ends_with("empty.mp4: the file is empty"),
        "{rejected:?}"
    );
    assert!(
        rejected[2].ends_with("z.mp4: This file contains no playable streams"),
        "{rejected:?}"
    );
    let nowhere = open(&dir.path().join("nowhere"), live_options(LiveSpan::Clip));
    assert_eq!(
        (nowhere.is_empty(), nowhere.rejected()[0].reason.as_str()),
        (true, "no such file")
    );
}

/// The fault of a clip that cannot be had.
#[track_caller]
fn fault(result: Result<(), LiveError>) -> ClipFault {
    let error = result.expect_err("there is a fault");
    assert!(error.is_of_one_clip(), "{error}");
    match error {
        LiveError::Clip { fault, .. } => fault,
        error => panic!("{error}"),
    }
}

#[test]
fn videos_that_vanish_or_change_cost_their_clips() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path());
    let path = |name: &str| dir.path().join(name);
    for name in ["b.mp4", "c.mp4", "d.mp4"] {
        ffmpeg(
            &film,
            &["-c", "copy", "-movflags", "+faststart"],
            &path(name),
        );
    }
    let set = LiveSet::open(
        &[path("b.mp4"), path("c.mp4"), path("d.mp4")],
        live_options(LiveSpan::Video),
        |_, _| {},
    )
    .expect("opened");
    assert_eq!(set.len(), 3);
    let mut reader = reader();
    fs::remove_file(path("b.mp4")).expect("removed");
    assert_eq!(
        fault(reader.windows(&set, 0, &[0])),
        ClipFault::Gone {
            reason: "no such file".to_owned()
        }
    );
    // Cut short behind our back: first with another time of change, then with everything as it was
    // but the bytes.
    let length = fs::metadata(path("c.mp4")).expect("there").len();
    File::options()
        .write(true)
        .open(path("c.mp4"))
        .and_then(|file| file.set_len(length / 2))
        .expect("cut");
    assert_eq!(fault(reader.windows(&set, 1, &[0])), ClipFault::Changed);
    let modified = fs::metadata(path("d.mp4"))
        .and_then(|file| file.modified())
        .expect("a time");
    let mut bytes = fs::read(path("d.mp4")).expect("read");
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(path("d.mp4"), bytes).expect("written");
    File::options()
        .write(true)
        .open(path("d.mp4"))
        .and_then(|file| file.set_modified(modified))
        .expect("a time");
    reader
        .windows(&set, 2, &[0])
        .expect("the first half is as it was");
    let last = set.clip(2).frames - 16;
    let damaged = fault(reader.windows(&set, 2, &[last]));
    assert!(
        matches!(
            damaged,
            ClipFault::Damaged { .. } | ClipFault::Shorter { .. } | ClipFault::Undecodable { .. }
        ),
        "{damaged}"
    );
    reader.windows(&set, 2, &[0]).expect("the reader goes on");
}

#[test]
fn damaged_frames_are_named_and_all_others_given() {
    if ran_alone("live::damaged_frames_are_named_and_all_others_given") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let path = film(dir.path());
    let mut bytes = fs::read(&path).expect("read");
    let media = bytes
        .windows(4)
        .position(|name| name == b"mdat")
        .expect("media");
    let middle = media + (bytes.len() - media) / 3;
    bytes[middle..middle + 100]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    fs::write(&path, bytes).expect("written");
    let live = live_options(LiveSpan::Video);
    let (size, ticks) = ticks(&path, live.sampling);
    let set = open(&path, live);
    let mut reader = reader();
    let (mut given, mut damaged) = (0, 0);
    for start in (0..=set.clip(0).frames - 16).step_by(4) {
        let expected: Vec<_> = (start..start + 16).map(|frame| &ticks[frame * 4]).collect();
        match reader.windows(&set, 0, &[start]) {
            Ok(()) => {
                let frames = reader.frames(0).bytes().chunks_exact(size.frame_bytes());
                assert!(
                    frames
                        .zip(expected)
                        .all(|(frame, expected)| frame == expected.0),
                    "the window at {start}"
                );
                given += 1;
            }
            Err(error) => {
                assert!(
                    error.to_string().contains("film.mp4") && error.to_string().contains("damaged"),
                    "{error}"
                );
                assert!(
                    matches!(fault(Err(error)), ClipFault::Damaged { .. })
                        && expected.iter().any(|(_, damaged)| *damaged)
                );
                damaged += 1;
            }
        }
    }
    assert!(
        given > 2 && damaged > 2,
        "{given} windows given, {damaged} damaged"
    );
}

#[test]
fn a_worker_that_is_killed_costs_one_clip() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = open(&film(dir.path()), live_options(LiveSpan::Video));
    let mut reader = reader();
    reader.windows(&set, 0, &[3]).expect("decoded");
    let frames = reader.frames(0).bytes().to_vec();
    let first = reader.worker_id().expect("a worker");
    assert!(signal(first, "KILL"));
    let lost = fault(reader.windows(&set, 0, &[3]));
    assert_eq!(
        lost,
        ClipFault::Lost {
            reason: "its decoder crashed (signal 9)".to_owned()
        }
    );
    reader.windows(&set, 0, &[3]).expect("a new worker");
    assert!(reader.worker_id() != Some(first) && reader.frames(0).bytes() == frames);
}

#[test]
fn a_worker_that_hangs_is_ended_after_the_deadline() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = open(
        &film(dir.path()),
        LiveOptions {
            timeout: Duration::from_millis(500),
            ..live_options(LiveSpan::Video)
        },
    );
    let mut reader = reader();
    reader.windows(&set, 0, &[0]).expect("decoded");
    let worker = reader.worker_id().expect("a worker");
    assert!(signal(worker, "STOP"));
    let lost = fault(reader.windows(&set, 0, &[0]));
    assert_eq!(
        lost,
        ClipFault::Lost {
            reason: "no progress within 0.5 s: its decoder was killed".to_owned()
        }
    );
    assert!(
        !Path::new(&format!("/proc/{worker}")).exists(),
        "nothing is left of it"
    );
    reader.windows(&set, 0, &[0]).expect("a new worker");
}

#[test]
fn a_reader_that_waits_is_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = open(&film(dir.path()), live_options(LiveSpan::Video));
    let stop = Arc::new(AtomicBool::new(false));
    let mut reader = LiveReader::new(Arc::clone(&stop));
    reader.windows(&set, 0, &[0]).expect("decoded");
    let worker = reader.worker_id().expect("a worker");
    assert!(signal(worker, "STOP"));
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        Instant::now()
    });
    let error = reader.windows(&set, 0, &[0]).expect_err("stopped");
    let stopped = stopper.join().expect("no panic");
    assert!(
        matches!(error, LiveError::Stopped) && !error.is_of_one_clip(),
        "{error}"
    );
    assert!(
        stopped.elapsed() < Duration::from_secs(1),
        "{:?}",
        stopped.elapsed()
    );
}

#[test]
fn without_a_worker_nothing_can_be_opened() {
    let dir = tempfile::tempdir().expect("a folder");
    let worker = WorkerProgram {
        path: dir.path().join("none"),
        argument: String::new(),
    };
    let error = LiveSet::open(&[film(dir.path())], LiveOptions::new(worker), |_, _| {})
        .expect_err("there is no such program");
    assert!(
        !error.is_of_one_clip()
            && error
                .to_string()
                .starts_with("cannot start a worker process"),
        "{error}"
    );
}

/// Descriptors, threads and children of a process.
fn belongings(process: &str) -> (usize, usize, usize) {
    let count = |what: &str| {
        fs::read_dir(format!("/proc/{process}/{what}"))
            .expect("procfs")
            .count()
    };
    let children =
        fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    (
        count("fd"),
        count("task"),
        children.split_whitespace().count(),
    )
}

#[test]
fn nothing_is_left_behind_by_many_calls() {
    let dir = tempfile::tempdir().expect("a folder");
    let (film, path) = (film(dir.path()), dir.path().join("a.mp4"));
    ffmpeg(&film, &["-c:v", "libx264", "-g", "40", "-bf", "3"], &path);
    let set = open(&path, live_options(LiveSpan::Video));
    let mut reader = reader();
    let mut call = |starts: &[usize]| {
        reader
            .windows(&set, 0, starts)
            .map(|()| reader.worker_id().expect("a worker").to_string())
    };
    let worker = call(&[0]).expect("decoded");
    (0..5).for_each(|start| drop(call(&[start]).expect("decoded")));
    // While a pipeline may still be there.
    let before = belongings(&worker);
    for start in 0..60 {
        assert_eq!(
            call(&[start % 50, (start + 20) % 50]).expect("decoded"),
            worker,
            "the same worker"
        );
    }
    // The last pipeline is taken down after its frames were sent.
    let deadline = Instant::now() + Duration::from_secs(10);
    while belongings(&worker) > before {
        assert!(
            Instant::now() < deadline,
            "descriptors, threads and children: {before:?} before, {:?} after",
            belongings(&worker)
        );
        std::thread::yield_now();
    }
    drop(reader);
    assert!(
        !Path::new(&format!("/proc/{worker}")).exists(),
        "the worker ends with its reader, and is no zombie"
    );
}
