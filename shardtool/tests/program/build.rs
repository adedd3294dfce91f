//! Builds that are killed, resumed and repeated, and builds of bad input.

use crate::{command, shardtool};
use schemas::geometry::FrameSize;
use schemas::manifest::{Manifest, Rejected, VideoRecord};
use schemas::report::{BuildReport, DryRunReport};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::{children, ffmpeg, has_ended, json_lines, shown, signal, write_video};

const SIZE: FrameSize = FrameSize {
    width: 96,
    height: 64,
};

fn build(dir: &Path, arguments: &[&str]) -> Output {
    shardtool(dir, &[&["build"], arguments].concat())
}

fn report(dir: &Path, arguments: &[&str]) -> BuildReport {
    tests::parse_report(&build(dir, &[arguments, &["--json"]].concat()))
}

/// Small shards, so that there are many.
const MANY_SHARDS: [&str; 10] = [
    "videos",
    "--frames",
    "4",
    "--stride",
    "2",
    "--level",
    "0",
    "--shard-mb",
    "1",
    "--strict",
];

/// A folder with `count` videos of 5 seconds in `videos`: with [`MANY_SHARDS`], 18 clips of 37 kB
/// each.
fn with_videos(count: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    for seed in 0..count {
        write_video(
            &dir.path().join(format!("videos/{seed:02}.mp4")),
            seed,
            150,
            30,
            SIZE,
        );
    }
    dir
}

/// Every file of a build, by its name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                fs::read(&path).expect("read"),
            )
        })
        .collect();
    files.sort();
    files
}

fn assert_same_build(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    let names = |files: &[(String, Vec<u8>)]| {
        files
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&one), names(&other));
    for ((name, one), (_, other)) in one.iter().zip(&other) {
        assert!(one == other, "{name} differs");
    }
}

fn manifest(dir: &Path) -> Manifest {
    serde_json::from_slice(&fs::read(dir.join("manifest.json")).expect("a manifest"))
        .expect("a valid manifest")
}

fn rejected(dir: &Path) -> Vec<Rejected> {
    json_lines(&dir.join("rejected.jsonl"))
}

/// Waits until `done`, or fails.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn shards(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, |entries| {
        entries
            .filter(|entry| {
                entry.as_ref().is_ok_and(|entry| {
                    entry
                        .path()
                        .extension()
                        .is_some_and(|ending| ending == "parquet")
                })
            })
            .count()
    })
}

#[test]
fn a_build_that_is_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let dir = with_videos(12);
    let whole = dir.path().join("whole");
    report(
        dir.path(),
        &[&MANY_SHARDS[..], &["--out", "whole"]].concat(),
    );
    let shards_in_all = manifest(&whole).shards.len();
    assert!(shards_in_all >= 7, "{shards_in_all} shards");
    let (mut killed, mut gone_on) = (0, 0);
    for moment in 0..20u32 {
        let name = format!("killed-{moment}");
        let out = dir.path().join(&name);
        let arguments = [
            &["build"],
            &MANY_SHARDS[..],
            &[
                "--jobs",
                if moment % 2 == 0 { "1" } else { "3" },
                "--out",
                &name,
            ],
        ]
        .concat();
        let mut child = command(dir.path(), &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // By the build's own progress, which a busy machine slows down, and a little later each
        // time.
        let enough = moment as usize * shards_in_all / 20;
        wait_until("some shards", || {
            shards(&out) >= enough || child.try_wait().expect("asked").is_some()
        });
        std::thread::sleep(Duration::from_millis(7 * u64::from(moment) % 30));
        child.kill().expect("killed");
        killed += usize::from(!child.wait().expect("ended").success());
        // The files are valid at any moment: a manifest names whole shards only.
        let before: Vec<_> = if out.join("manifest.json").exists() {
            manifest(&out).shards
        } else {
            Vec::new()
        };
        gone_on += usize::from(!before.is_empty() && before.len() < shards_in_all);
        let times = |entries: &[schemas::manifest::ShardEntry]| -> Vec<_> {
            entries
                .iter()
                .map(|entry| {
                    fs::metadata(out.join(&entry.file))
                        .expect("a shard")
                        .modified()
                        .expect("a time")
                })
                .collect()
        };
        let written = times(&before);
        report(dir.path(), &arguments[1..]);
        assert_eq!(
            written,
            times(&before),
            "finished shards are not made again"
        );
        assert_same_build(&out, &whole);
    }
    println!("{killed} killed before the end, {gone_on} with finished shards");
    assert!(
        killed >= 10 && gone_on >= 3,
        "{killed} were killed, {gone_on} had shards"
    );
}

#[test]
fn ctrl_c_stops_cleanly_and_says_how_to_resume() {
    let dir = with_videos(12);
    report(
        dir.path(),
        &[&MANY_SHARDS[..], &["--out", "whole"]].concat(),
    );
    let arguments = [
        &["build"],
        &MANY_SHARDS[..],
        &["--out", "out", "--jobs", "1"],
    ]
    .concat();
    let mut child = command(dir.path(), &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    wait_until("the first shard", || shards(&dir.path().join("out")) > 0);
    assert!(signal(child.id(), "INT"));
    let status = child.wait().expect("ended");
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(
        said.contains("run the same command again to resume"),
        "{said}"
    );
    assert!(!manifest(&dir.path().join("out")).finished);
    assert!(
        fs::read_dir(dir.path().join("out"))
            .expect("listed")
            .all(|entry| entry
                .expect("an entry")
                .path()
                .extension()
                .expect("an ending")
                != "tmp")
    );
    // What is there is usable, unfinished as it is.
    assert!(
        !pipeline::shard::ShardSet::open(&dir.path().join("out"))
            .expect("opened")
            .is_empty()
    );
    report(dir.path(), &arguments[1..]);
    assert_same_build(&dir.path().join("out"), &dir.path().join("whole"));
}

/// A folder with a video that takes some time, between two that do not.
fn with_a_long_video() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    write_video(&dir.path().join("videos/a.mp4"), 1, 90, 30, SIZE);
    let still = dir.path().join("still.mp4");
    write_video(
        &still,
        2,
        60,
        30,
        FrameSize {
            width: 640,
            height: 480,
        },
    );
    // Copied end to end: minutes of video without minutes of encoding.
    let arguments = ["-v", "error", "-stream_loop", "200", "-i"];
    let long = dir.path().join("videos/b.mp4");
    assert!(
        Command::new("ffmpeg")
            .args(arguments)
            .arg(&still)
            .args(["-c", "copy"])
            .arg(&long)
            .status()
            .expect("ffmpeg runs")
            .success()
    );
    write_video(&dir.path().join("videos/c.mp4"), 3, 90, 30, SIZE);
    dir
}

/// Builds the folder of [`with_a_long_video`], and sends `name` to the worker when it is at the
/// long video.
fn build_and_signal_worker(dir: &Path, name: &str) -> (Output, Vec<Rejected>) {
    let arguments = [
        "build",
        "videos",
        "--jobs",
        "1",
        "--timeout",
        "1",
        "--shard-mb",
        "4",
    ];
    let child = command(dir, &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // The first shard closes within the long video.
    wait_until("the first shard", || shards(&dir.join("shards")) > 0);
    let workers = children(child.id());
    assert_eq!(workers.len(), 1);
    assert!(signal(workers[0], name));
    let output = child.wait_with_output().expect("ended");
    (output, rejected(&dir.join("shards")))
}

#[test]
fn a_worker_that_is_killed_costs_one_video() {
    let dir = with_a_long_video();
    let (output, rejected) = build_and_signal_worker(dir.path(), "KILL");
    assert!(output.status.success(), "{}", shown(&output));
    let [crashed] = rejected.as_slice() else {
        panic!("{rejected:?}")
    };
    assert!(
        crashed.path.ends_with("b.mp4")
            && crashed
                .reason
                .starts_with("its decoder crashed (signal 9) (after "),
        "{crashed:?}"
    );
    let records: Vec<VideoRecord> = json_lines(&dir.path().join("shards/videos.jsonl"));
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.clips > 0), "{records:?}");
}

#[test]
fn a_worker_that_hangs_is_killed_after_the_deadline() {
    let dir = with_a_long_video();
    let (output, rejected) = build_and_signal_worker(dir.path(), "STOP");
    assert!(output.status.success(), "{}", shown(&output));
    let [hung] = rejected.as_slice() else {
        panic!("{rejected:?}")
    };
    assert!(
        hung.path.ends_with("b.mp4")
            && hung
                .reason
                .starts_with("no progress within 1 s: its decoder was killed"),
        "{hung:?}"
    );
    assert_eq!(manifest(&dir.path().join("shards")).videos, 3);
}

#[test]
fn workers_end_with_a_build_that_is_killed() {
    let dir = with_a_long_video();
    let mut child = command(
        dir.path(),
        &["build", "videos", "--jobs", "1", "--shard-mb", "4"],
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .expect("started");
    wait_until("the first shard", || shards(&dir.path().join("shards")) > 0);
    let workers = children(child.id());
    assert!(signal(workers[0], "STOP"));
    child.kill().expect("killed");
    child.wait().expect("ended");
    wait_until("the worker's end", || has_ended(workers[0]));
}

#[test]
fn files_that_change_during_the_build_are_named() {
    let dir = with_a_long_video();
    let videos = dir.path().join("videos");
    write_video(&videos.join("d.mp4"), 4, 90, 30, SIZE);
    let arguments = [
        "build",
        "videos",
        "--jobs",
        "1",
        "--timeout",
        "1",
        "--shard-mb",
        "4",
    ];
    let child = command(dir.path(), &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    wait_until("the first shard", || shards(&dir.path().join("shards")) > 0);
    fs::remove_file(videos.join("c.mp4")).expect("removed");
    fs::remove_file(videos.join("d.mp4")).expect("removed");
    // A pipe that nobody writes to: opening it takes forever.
    assert!(
        Command::new("mkfifo")
            .arg(videos.join("d.mp4"))
            .status()
            .expect("mkfifo runs")
            .success()
    );
    assert!(child.wait_with_output().expect("ended").status.success());
    let rejected: Vec<(String, String)> = rejected(&dir.path().join("shards"))
        .into_iter()
        .map(|rejected| (rejected.path, rejected.reason))
        .collect();
    assert_eq!(
        rejected,
        [
            ("videos/c.mp4".to_owned(), "no such file".to_owned()),
            (
                "videos/d.mp4".to_owned(),
                "no progress within 1 s: its decoder was killed".to_owned()
            )
        ]
    );
}

#[test]
fn added_videos_are_appended_and_changed_ones_noticed() {
    let dir = with_videos(3);
    let videos = dir.path().join("videos");
    let first = report(dir.path(), &MANY_SHARDS);
    let before = manifest(&dir.path().join("shards"));
    let shard = fs::read(dir.path().join("shards/shard-00000.parquet")).expect("a shard");

    // Nothing new: nothing is done.
    let again = report(dir.path(), &MANY_SHARDS);
    assert_eq!(
        (again.clips, again.known_videos, again.videos),
        (first.clips, 3, 3)
    );
    assert!(manifest(&dir.path().join("shards")) == before);

    write_video(&videos.join("0-before-all.mp4"), 50, 150, 30, SIZE);
    let added = report(dir.path(), &MANY_SHARDS);
    assert_eq!(
        (added.clips, added.known_videos, added.videos),
        (first.clips + first.clips / 3, 3, 4)
    );
    assert!(
        manifest(&dir.path().join("shards"))
            .shards
            .starts_with(&before.shards)
    );
    assert!(fs::read(dir.path().join("shards/shard-00000.parquet")).expect("a shard") == shard);

    // Another time alone is no change; another content is.
    fs::write(
        videos.join("00.mp4"),
        fs::read(videos.join("00.mp4")).expect("read"),
    )
    .expect("written");
    assert_eq!(report(dir.path(), &MANY_SHARDS).known_videos, 4);
    fs::remove_file(videos.join("01.mp4")).expect("removed");
    let output = build(dir.path(), &[&MANY_SHARDS[..], &["--json"]].concat());
    let removed: BuildReport = serde_json::from_slice(&output.stdout).expect("the report");
    assert_eq!(
        (removed.removed_videos, removed.clips),
        (vec!["videos/01.mp4".to_owned()], added.clips)
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("note: videos/01.mp4 no longer exists"),
        "{}",
        shown(&output)
    );
    write_video(&videos.join("02.mp4"), 51, 150, 30, SIZE);
    let output = build(dir.path(), &MANY_SHARDS);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("videos/02.mp4 has different content"),
        "{}",
        shown(&output)
    );
}

#[test]
fn other_options_and_other_builds_are_refused() {
    let dir = with_videos(2);
    report(dir.path(), &["videos"]);
    let output = build(
        dir.path(),
        &["videos", "--short-side", "32", "--every", "1"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("short_side was 256, is 32")
            && said.contains("tiling was \"back_to_back\", is {\"every_seconds\":1.0}"),
        "{said}"
    );
    let output = build(dir.path(), &["videos", "--payload", "h264"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("crf was none, is 18; level was 3, is 0")
            && said.contains("payload was \"i420-delta\", is \"h264\""),
        "{said}"
    );
    // Shards of somebody else's.
    fs::create_dir(dir.path().join("foreign")).expect("made");
    fs::write(dir.path().join("foreign/shard-00000.parquet"), "not ours").expect("written");
    let output = build(dir.path(), &["videos", "--out", "foreign"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("holds shards without a manifest"),
        "{}",
        shown(&output)
    );
    assert_eq!(
        fs::read(dir.path().join("foreign/shard-00000.parquet")).expect("still there"),
        b"not ours"
    );
    // Two at a time.
    let lock = fs::File::open(dir.path().join("shards/videos.jsonl")).expect("the journal");
    lock.lock().expect("locked");
    let output = build(dir.path(), &["videos"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("another build is at work in ./shards"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_read_only_folder_and_an_unreadable_file_are_named() {
    let dir = with_videos(2);
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if is_root {
        eprintln!("permissions mean nothing to root: not tested");
        return;
    }
    let shut = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set")
    };
    shut(&dir.path().join("videos/01.mp4"), 0o000);
    let report = report(dir.path(), &["videos"]);
    assert_eq!(
        report.rejected,
        [Rejected::file("videos/01.mp4", "permission denied")]
    );
    fs::create_dir(dir.path().join("closed")).expect("made");
    shut(&dir.path().join("closed"), 0o500);
    let output = build(dir.path(), &["videos", "--out", "closed"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot write closed/videos.jsonl"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_full_disk_leaves_what_is_finished_usable() {
    let dir = with_videos(6);
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("made");
    let mount = |arguments: &[&str]| {
        Command::new("mount")
            .args(arguments)
            .arg(&small)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=2500k", "tmpfs"]) {
        eprintln!("a small file system cannot be mounted here: not tested");
        return;
    }
    let output = build(
        dir.path(),
        &[&MANY_SHARDS[..], &["--out", "small/shards"]].concat(),
    );
    let out = small.join("shards");
    let usable =
        pipeline::shard::ShardSet::open(&out).map(|set| (set.len(), set.manifest().finished));
    let leftovers = fs::read_dir(&out)
        .expect("listed")
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| {
                entry
                    .path()
                    .extension()
                    .is_some_and(|ending| ending == "tmp")
            })
        })
        .count();
    let more_room = mount(&["-o", "remount,size=20m"]);
    let done = report(
        dir.path(),
        &[&MANY_SHARDS[..], &["--out", "small/shards"]].concat(),
    );
    report(
        dir.path(),
        &[&MANY_SHARDS[..], &["--out", "whole"]].concat(),
    );
    let same = files(&out) == files(&dir.path().join("whole"));
    assert!(
        Command::new("umount")
            .arg(&small)
            .status()
            .expect("umount runs")
            .success()
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("No space left on device")
            && said.contains("the same command resumes the build"),
        "{said}"
    );
    let (clips, finished) = usable.expect("shards that can be read");
    assert!(clips > 0 && !finished && leftovers == 0);
    assert!(more_room && same && done.clips > clips as u64);
}

/// One bad input: what it is, how it is made in the folder, and the reason that is reported; an
/// empty reason is a video that is built.
type BadInput = (&'static str, fn(&Path, &Path), &'static str);

/// As `(file, made from an intact film, reason)`.
const BAD_INPUTS: &[BadInput] = &[
    (
        "empty.mp4",
        |_, path| fs::write(path, "").expect("written"),
        "the file is empty",
    ),
    (
        "text.mp4",
        |_, path| fs::write(path, "just words").expect("written"),
        "not a video: its content is of no known type",
    ),
    (
        "no-moov.mp4",
        |film, path| cut(film, path, 0.5),
        "This file contains no playable streams",
    ),
    (
        "fast-start-cut.mp4",
        fast_start_cut,
        "cut short: the file lacks",
    ),
    ("flipped.mp4", flipped, "damaged: the decoder says"),
    (
        "sound-only.mp4",
        |_, path| {
            generate(
                path,
                &["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"],
            )
        },
        "no video stream",
    ),
    ("cover-art.mp4", cover_art, "no video stream"),
    (
        "still.mov",
        |_, path| {
            generate(
                path,
                &[
                    "-f",
                    "lavfi",
                    "-i",
                    "color=red:size=64x64:duration=0.04:rate=25",
                    "-c:v",
                    "mjpeg",
                ],
            )
        },
        "only a still picture (cover art)",
    ),
    (
        "no-frames.mp4",
        |film, path| ffmpeg(film, &["-vf", "select=0", "-c:v", "libx264"], path),
        "This file contains no playable streams",
    ),
    (
        "unicode-ünï-🎞.mp4",
        |film, path| assert!(fs::copy(film, path).is_ok()),
        "",
    ),
    (
        "dangling.mp4",
        |_, path| std::os::unix::fs::symlink("nowhere", path).expect("linked"),
        "the link leads nowhere",
    ),
    (
        "loop",
        |_, path| std::os::unix::fs::symlink(".", path).expect("linked"),
        "",
    ),
    (
        "fifo.mp4",
        |_, path| {
            assert!(
                Command::new("mkfifo")
                    .arg(path)
                    .status()
                    .expect("mkfifo runs")
                    .success()
            )
        },
        "not a regular file",
    ),
];

fn cut(film: &Path, path: &Path, share: f64) {
    let bytes = fs::read(film).expect("read");
    // Without the faststart that this project's own writer gives: the table of frames comes last.
    let moved = path.with_extension("moved.mp4");
    ffmpeg(film, &["-c", "copy"], &moved);
    let bytes = fs::read(&moved).unwrap_or(bytes);
    fs::remove_file(moved).expect("removed");
    fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).expect("written");
}

fn fast_start_cut(film: &Path, path: &Path) {
    let bytes = fs::read(film).expect("read");
    fs::write(path, &bytes[..bytes.len() * 7 / 10]).expect("written");
}

fn flipped(film: &Path, path: &Path) {
    let mut bytes = fs::read(film).expect("read");
    let media = bytes
        .windows(4)
        .position(|window| window == b"mdat")
        .expect("media")
        + 4;
    let step = (bytes.len() - media) / 200;
    (0..200).for_each(|flip| bytes[media + flip * step] ^= 0x10);
    fs::write(path, bytes).expect("written");
}

fn generate(path: &Path, arguments: &[&str]) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments)
        .arg(path)
        .status()
        .expect("ffmpeg runs");
    assert!(status.success());
}

fn cover_art(_: &Path, path: &Path) {
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        "sine=duration=1",
        "-f",
        "lavfi",
        "-i",
        "color=red:size=64x64:duration=0.04:rate=25",
    ];
    let mapped = [
        "-map",
        "0",
        "-map",
        "1",
        "-c:a",
        "aac",
        "-c:v",
        "mjpeg",
        "-frames:v",
        "1",
        "-disposition:v:0",
        "attached_pic",
    ];
    generate(path, &[&inputs[..], &mapped].concat());
}

#[test]
fn every_bad_input_has_its_outcome() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    let film = dir.path().join("film.mp4");
    write_video(&film, 9, 200, 30, SIZE);
    for (name, make, _) in BAD_INPUTS {
        make(&film, &videos.join(name));
    }
    let long: PathBuf = videos.join("n".repeat(200)).with_extension("mp4");
    fs::copy(&film, &long).expect("copied");
    let report = report(dir.path(), &["videos", "--timeout", "20"]);
    for (name, _, reason) in BAD_INPUTS {
        let said: Vec<&str> = report
            .rejected
            .iter()
            .filter(|rejected| rejected.path == format!("videos/{name}"))
            .map(|rejected| rejected.reason.as_str())
            .collect();
        match (reason.is_empty(), said.as_slice()) {
            (true, []) => {}
            (false, said) if said.iter().any(|said| said.starts_with(reason)) => {}
            (_, said) => panic!("{name}: expected {reason:?}, got {said:?}"),
        }
    }
    assert_eq!(rejected(&dir.path().join("shards")), report.rejected);
    // The one with the name, the long one, and the intact part of the one that was cut short: two
    // clips of two, two of two, two or one.
    let records = fs::read_to_string(dir.path().join("shards/videos.jsonl")).expect("records");
    let clips: Vec<(String, u64)> = records
        .lines()
        .map(|line| serde_json::from_str::<VideoRecord>(line).expect("a record"))
        .filter(|record| record.clips > 0)
        .map(|record| (record.path.chars().skip(7).take(8).collect(), record.clips))
        .collect();
    assert!(
        clips.contains(&("unicode-".to_owned(), 3)) && clips.contains(&("nnnnnnnn".to_owned(), 3)),
        "{clips:?}"
    );
    assert!(
        clips
            .iter()
            .any(|(name, clips)| name == "fast-sta" && (1..3).contains(clips)),
        "{clips:?}"
    );
    for policy in ["skip", "fail"] {
        let output = build(
            dir.path(),
            &[
                "videos",
                "--on-corrupt",
                policy,
                "--out",
                policy,
                "--timeout",
                "20",
            ],
        );
        assert_eq!(
            output.status.success(),
            policy == "skip",
            "{}",
            shown(&output)
        );
        if policy == "skip" {
            let records =
                fs::read_to_string(dir.path().join("skip/videos.jsonl")).expect("records");
            let damaged = records
                .lines()
                .map(|line| serde_json::from_str::<VideoRecord>(line).expect("a record"));
            assert!(
                damaged
                    .filter(|record| record.path.contains("fast-start-cut")
                        || record.path.contains("flipped"))
                    .all(|record| record.clips == 0)
            );
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                said.contains("is damaged at")
                    && said.contains("--on-corrupt keep-good skips the damaged clips"),
                "{said}"
            );
        }
    }
}

/// Two videos whose names differ in one byte that is not UTF-8, as lists name them.
const ODD_NAMES: [(&[u8], &str); 2] = [
    (b"a\xfe.mp4", r"videos/a\xfe.mp4"),
    (b"a\xff.mp4", r"videos/a\xff.mp4"),
];

#[test]
fn names_that_are_not_utf8_are_distinguished() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    let path = |name: &[u8]| videos.join(OsStr::from_bytes(name));
    for (seed, (name, _)) in ODD_NAMES.iter().enumerate() {
        write_video(&dir.path().join("film.mp4"), seed as u64, 70, 30, SIZE);
        fs::rename(dir.path().join("film.mp4"), path(name)).expect("renamed");
    }
    // Two files that are no videos, and a backslash that is one.
    fs::write(path(b"b\xff.mp4"), "text").expect("written");
    fs::write(path(br"b\xff.mp4"), "text").expect("written");
    fs::write(
        dir.path().join("labels.csv"),
        "videos/a\\xfe.mp4,fe\nvideos/a\\xff.mp4,ff\n",
    )
    .expect("written");
    let bad = [r"videos/b\\xff.mp4", r"videos/b\xff.mp4"];
    let arguments = ["videos", "--labels", "labels.csv"];

    let dry = build(
        dir.path(),
        &[&arguments[..], &["--dry-run", "--json"]].concat(),
    );
    let dry: DryRunReport = serde_json::from_slice(&dry.stdout).expect("the report");
    let paths = |rejected: &[Rejected]| {
        rejected
            .iter()
            .map(|rejected| rejected.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (dry.videos, dry.unlabelled, paths(&dry.rejected)),
        (2, 0, bad.map(str::to_owned).to_vec())
    );

    let first = report(dir.path(), &arguments);
    assert_eq!((first.videos, first.clips, first.unlabelled), (2, 2, 0));
    let shards = dir.path().join("shards");
    assert_eq!(paths(&rejected(&shards)), bad);
    let names = ODD_NAMES.map(|(_, name)| name.to_owned());
    assert_eq!(
        records(&shards)
            .map(|record| record.path)
            .collect::<Vec<_>>(),
        names
    );
    let set = pipeline::shard::ShardSet::open(&shards).expect("shards");
    let metas = set.shards()[0].metas().expect("read");
    let stored: Vec<_> = metas
        .iter()
        .map(|meta| (meta.video.as_str(), meta.class.as_deref()))
        .collect();
    assert_eq!(
        stored,
        [
            (names[0].as_str(), Some("fe")),
            (names[1].as_str(), Some("ff"))
        ]
    );

    // The same again is nothing new; one of them is not the other.
    assert_eq!(report(dir.path(), &arguments).known_videos, 2);
    fs::remove_file(path(ODD_NAMES[0].0)).expect("removed");
    let removed = report(dir.path(), &arguments);
    assert_eq!(
        (removed.known_videos, &removed.removed_videos[..]),
        (1, &names[..1])
    );
}

#[test]
fn a_build_goes_on_within_a_video_of_an_odd_name() {
    let dir = with_a_long_video();
    let odd = dir
        .path()
        .join("videos")
        .join(OsStr::from_bytes(b"b\xff.mp4"));
    fs::rename(dir.path().join("videos/b.mp4"), odd).expect("renamed");
    let arguments = ["build", "videos", "--jobs", "1", "--shard-mb", "4"];
    let mut child = command(dir.path(), &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let shards = dir.path().join("shards");
    wait_until("the first manifest", || {
        shards.join("manifest.json").exists()
    });
    child.kill().expect("killed");
    child.wait().expect("ended");
    let open = manifest(&shards).open_video.expect("an open video");
    assert_eq!(open.path, r"videos/b\xff.mp4");
    let done = report(dir.path(), &arguments[1..]);
    assert_eq!((done.videos, done.rejected.len()), (3, 0));
}

fn records(shards: &Path) -> impl Iterator<Item = VideoRecord> {
    let lines = fs::read_to_string(shards.join("videos.jsonl")).expect("records");
    let records: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect();
    records.into_iter()
}

#[test]
fn two_videos_of_one_content_are_both_kept_and_named() {
    let dir = with_videos(2);
    fs::copy(
        dir.path().join("videos/00.mp4"),
        dir.path().join("videos/twin.mp4"),
    )
    .expect("copied");
    let output = build(dir.path(), &["videos"]);
    assert!(output.status.success(), "{}", shown(&output));
    let note = "note: videos/twin.mp4 has the same content as another video; both are kept";
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(note),
        "{}",
        shown(&output)
    );
    assert_eq!(manifest(&dir.path().join("shards")).videos, 3);
}

#[test]
fn short_videos_are_padded_or_skipped() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    write_video(&dir.path().join("videos/long.mp4"), 1, 90, 30, SIZE);
    write_video(&dir.path().join("videos/short.mp4"), 2, 20, 30, SIZE);
    let padded = report(dir.path(), &["videos"]);
    assert_eq!(
        (padded.clips, padded.padded_clips, padded.rejected.len()),
        (2, 1, 0)
    );
    let skipped = report(dir.path(), &["videos", "--short", "skip", "--out", "skip"]);
    assert_eq!((skipped.clips, skipped.padded_clips), (1, 0));
    assert_eq!(
        skipped.rejected,
        [Rejected::file(
            "videos/short.mp4",
            "shorter than a clip: 0.67 s of video, a clip spans 2.03 s"
        )]
    );
}

#[test]
fn source_frames_are_sampled_by_number() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    // At 10 frames a second, time would show each frame three times.
    write_video(&dir.path().join("videos/a.mp4"), 1, 100, 10, SIZE);
    let by_number = report(
        dir.path(),
        &["videos", "--sample", "frames", "--stride", "2"],
    );
    assert_eq!(by_number.clips, 3, "32 frames a clip");
    let set = pipeline::shard::ShardSet::open(&dir.path().join("shards")).expect("shards");
    let metas = set.shards()[0].metas().expect("read");
    assert_eq!((metas[1].fps, metas[1].stride), (None, 2));
    let steps: Vec<i64> = metas[1]
        .pts_ns
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(steps.iter().all(|&step| step == 200_000_000), "{steps:?}");
    let output = build(
        dir.path(),
        &["videos", "--sample", "frames", "--every", "1", "--out", "x"],
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--every counts seconds"),
        "{}",
        shown(&output)
    );
}
