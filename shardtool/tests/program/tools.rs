//! The commands that read shards, on valid and on damaged ones.

use crate::{command, shardtool};
use schemas::geometry::FrameSize;
use schemas::report::{ExportReport, InspectReport, StatsReport, VerifyReport};
use serde::de::DeserializeOwned;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use tests::{damage_clip, ffmpeg_frames, shown, write_video};

const SIZE: FrameSize = FrameSize {
    width: 96,
    height: 64,
};
const SHARD: &str = "shards/shard-00000.parquet";

/// The report of a command, which may find damage and fail.
fn json<T: DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    let output = shardtool(dir, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)))
}

/// Shards of three videos of two clips each.
fn with_shards() -> TempDir {
    with_shards_of(&[])
}

/// The same, built with further `flags`.
fn with_shards_of(flags: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (class, seed) in [("a", 1), ("a", 2), ("b", 3)] {
        let folder = dir.path().join("videos").join(class);
        fs::create_dir_all(&folder).expect("made");
        write_video(&folder.join(format!("{seed}.mp4")), seed, 130, 30, SIZE);
    }
    let output = shardtool(
        dir.path(),
        &[&["build", "videos", "--labels", "dirs"], flags].concat(),
    );
    assert!(output.status.success(), "{}", shown(&output));
    dir
}

#[test]
fn valid_shards_are_counted_and_verified() {
    let dir = with_shards();
    for deep in [&[][..], &["--deep"]] {
        let verified: VerifyReport = json(dir.path(), &[&["verify", "shards"], deep].concat());
        assert_eq!(
            (verified.clips, verified.problems, verified.finished),
            (6, Vec::new(), true)
        );
    }
    let stats: StatsReport = json(dir.path(), &["stats", "shards", "--picture", "stats.png"]);
    assert_eq!(
        (
            stats.clips,
            stats.videos,
            stats.classes["a"],
            stats.classes["b"]
        ),
        (6, 3, 4, 2)
    );
    assert_eq!(
        (stats.resolutions["96x64"], stats.decoded_bytes),
        (6, 6 * 16 * SIZE.frame_bytes() as u64)
    );
    assert_eq!(
        &fs::read(dir.path().join("stats.png")).expect("a picture")[1..4],
        b"PNG"
    );
    let inspected: InspectReport = json(
        dir.path(),
        &["inspect", "shards", "--clip", "5", "--sheet", "sheet.png"],
    );
    assert_eq!(
        (
            inspected.all_clips,
            inspected.clips.len(),
            inspected.clips[0].clip
        ),
        (6, 1, 5)
    );
    assert_eq!(
        (
            inspected.clips[0].meta.class.as_deref(),
            inspected.clips[0].meta.clip
        ),
        (Some("b"), 1)
    );
    assert_eq!(
        &fs::read(dir.path().join("sheet.png")).expect("a picture")[1..4],
        b"PNG"
    );
    let output = shardtool(dir.path(), &["completions", "bash"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("--on-corrupt"),
        "the flags are completed"
    );
}

#[test]
fn a_clip_comes_back_as_a_video_and_as_pictures() {
    let dir = with_shards();
    let exported: ExportReport = json(dir.path(), &["export", "shards", "--clip", "2", "clip.mp4"]);
    assert_eq!((exported.frames, exported.fps), (16, Some(7.5)));
    let frames = ffmpeg_frames(&dir.path().join("clip.mp4"), &["-fps_mode", "passthrough"]);
    let mut reader = pipeline::shard::ClipReader::default();
    let set = pipeline::shard::ShardSet::open(&dir.path().join("shards")).expect("shards");
    let (shard, row) = set.locate(2);
    let stored = reader.frames(shard, row, 16).expect("read").bytes();
    assert_eq!(frames.len(), stored.len());
    let error: f64 = frames
        .iter()
        .zip(stored)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum::<f64>()
        / stored.len() as f64;
    assert!(error < 40.0, "mean squared error {error}");
    let exported: ExportReport = json(dir.path(), &["export", "shards", "--clip", "2", "pictures"]);
    assert_eq!(
        (
            exported.frames,
            fs::read_dir(dir.path().join("pictures"))
                .expect("a folder")
                .count()
        ),
        (16, 16)
    );
    let output = shardtool(dir.path(), &["export", "shards", "--clip", "2", "clip.mp4"]);
    assert!(
        output.status.code() == Some(1)
            && String::from_utf8_lossy(&output.stderr).contains("--force"),
        "{}",
        shown(&output)
    );
    let output = shardtool(dir.path(), &["export", "shards", "--clip", "6", "x.mp4"]);
    assert!(
        output.status.code() == Some(1) && !dir.path().join("x.mp4").exists(),
        "{}",
        shown(&output)
    );
}

#[test]
fn every_payload_is_built_checked_drawn_and_exported() {
    let exact = with_shards();
    assert_eq!(
        shardtool(exact.path(), &["export", "shards", "--clip", "2", "exact"])
            .status
            .code(),
        Some(0)
    );
    for (payload, flags) in [
        ("i420-delta", &["--payload", "i420-delta"][..]),
        ("rgb", &["--payload", "rgb", "--level", "0"]),
        ("h264", &["--payload", "h264", "--crf", "10"]),
        ("i420", &["--payload", "i420", "--level", "0"]),
    ] {
        let one = with_shards_of(&[flags, &["--jobs", "1"]].concat());
        let again = shardtool(
            one.path(),
            &[
                &[
                    "build", "videos", "--labels", "dirs", "--out", "again", "--jobs", "4",
                ],
                flags,
            ]
            .concat(),
        );
        assert!(again.status.success(), "{}", shown(&again));
        let read = |folder: &str| {
            fs::read(one.path().join(folder).join("shard-00000.parquet")).expect("read")
        };
        assert!(read("shards") == read("again"), "{payload} with other jobs");
        let dir = one.path();
        let verified: VerifyReport = json(dir, &["verify", "shards", "--deep"]);
        assert_eq!(
            (verified.clips, verified.problems),
            (6, Vec::new()),
            "{payload}"
        );
        let inspected: InspectReport = json(
            dir,
            &["inspect", "shards", "--clip", "2", "--sheet", "sheet.png"],
        );
        assert_eq!(inspected.clips[0].meta.payload.name(), payload);
        let clip_bytes = 16 * SIZE.frame_bytes() as u64;
        let expected = match payload {
            "rgb" => 2 * clip_bytes..2 * clip_bytes + 100,
            "i420" => clip_bytes..clip_bytes + 100,
            "i420-delta" => clip_bytes / 100..clip_bytes / 2,
            _ => 1..clip_bytes / 10,
        };
        assert!(
            expected.contains(&inspected.clips[0].stored_bytes),
            "{payload}: {} bytes",
            inspected.clips[0].stored_bytes
        );
        // A picture of the clip is that of the exact one, or nearly so.
        assert_eq!(
            shardtool(dir, &["export", "shards", "--clip", "2", "frames"])
                .status
                .code(),
            Some(0),
            "{payload}"
        );
        let picture = |dir: &Path, folder: &str| {
            image::open(dir.join(folder).join("frame-0007.png"))
                .expect("a picture")
                .into_rgb8()
        };
        let (got, wanted) = (picture(dir, "frames"), picture(exact.path(), "exact"));
        let greatest = got
            .iter()
            .zip(wanted.iter())
            .map(|(&a, &b)| a.abs_diff(b))
            .max()
            .expect("pixels");
        assert!(
            greatest <= if payload == "h264" { 12 } else { 0 },
            "{payload} differs by {greatest}"
        );
        let exported: ExportReport = json(dir, &["export", "shards", "--clip", "2", "clip.mp4"]);
        assert_eq!(
            (exported.frames, exported.width, exported.height),
            (16, 96, 64),
            "{payload}"
        );
        let frames = ffmpeg_frames(&dir.join("clip.mp4"), &["-fps_mode", "passthrough"]);
        let set = pipeline::shard::ShardSet::open(&exact.path().join("shards")).expect("shards");
        let mut reader = pipeline::shard::ClipReader::default();
        let planes = reader.frames(set.locate(2).0, 2, 16).expect("read");
        let planes = planes.bytes();
        let error: f64 = frames
            .iter()
            .zip(planes)
            .map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2))
            .sum::<f64>()
            / planes.len() as f64;
        assert!(
            frames.len() == planes.len() && error < 40.0,
            "{payload}: mean squared error {error}"
        );
    }
}

#[test]
fn a_missing_encoder_is_reported_before_anything_is_decoded() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = Command::new("pkg-config")
        .args(["--variable=pluginsdir", "gstreamer-1.0"])
        .output()
        .expect("pkg-config runs");
    let plugins = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // All plugins but x264's.
    fs::create_dir(dir.path().join("plugins")).expect("made");
    for entry in fs::read_dir(plugins).expect("listed") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() && !entry.file_name().to_string_lossy().contains("x264") {
            symlink(
                entry.path(),
                dir.path().join("plugins").join(entry.file_name()),
            )
            .expect("linked");
        }
    }
    write_video(&dir.path().join("a.mp4"), 1, 70, 30, SIZE);
    let build = |payload: &str| {
        let mut command = command(
            dir.path(),
            &["build", "a.mp4", "--payload", payload, "--out", payload],
        );
        command
            .env("GST_PLUGIN_SYSTEM_PATH_1_0", dir.path().join("plugins"))
            .env("GST_REGISTRY_1_0", dir.path().join("registry"));
        command.output().expect("run")
    };
    let output = build("h264");
    let said = shown(&output);
    assert!(
        output.status.code() == Some(1)
            && said.contains("x264enc")
            && said.contains("install GStreamer"),
        "{said}"
    );
    assert!(!dir.path().join("h264").exists(), "nothing was begun");
    let output = build("i420");
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_rate_factor_without_h264_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = shardtool(dir.path(), &["build", ".", "--crf", "20"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--payload i420-delta has none"),
        "{}",
        shown(&output)
    );
}

#[test]
fn damage_is_named_by_every_reading_command() {
    let sound = with_shards();
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("a bit of a clip", |dir| damage_clip(&dir.join(SHARD), 1)),
        ("a bit of the footer", |dir| {
            edit(dir, SHARD, |bytes| {
                let at = bytes.len() - 40;
                bytes[at] ^= 1;
            })
        }),
        ("the end", |dir| {
            edit(dir, SHARD, |bytes| bytes.truncate(bytes.len() / 2))
        }),
        ("the shard", |dir| {
            fs::remove_file(dir.join(SHARD)).expect("removed")
        }),
        ("the version", |dir| {
            edit(dir, "shards/manifest.json", |bytes| {
                *bytes = String::from_utf8_lossy(bytes)
                    .replace("\"format_version\": 5", "\"format_version\": 9")
                    .into_bytes()
            })
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("shards")).expect("made");
        for entry in fs::read_dir(sound.path().join("shards")).expect("listed") {
            let path = entry.expect("an entry").path();
            fs::copy(
                &path,
                dir.path()
                    .join("shards")
                    .join(path.file_name().expect("a name")),
            )
            .expect("copied");
        }
        damage(dir.path());
        let clip_only = name == "a bit of a clip";
        for command in [
            &["verify", "shards"][..],
            &["verify", "shards", "--deep"],
            &["stats", "shards"],
            &["inspect", "shards", "--clip", "1", "--sheet", "s.png"],
            &["export", "shards", "--clip", "1", "c.mp4"],
        ] {
            // Statistics need no pixels.
            if clip_only && command[0] == "stats" {
                continue;
            }
            let output = shardtool(dir.path(), command);
            let said = shown(&output);
            assert_eq!(output.status.code(), Some(1), "{name}, {command:?}: {said}");
            assert!(
                said.contains("shard-00000.parquet") || said.contains("manifest.json"),
                "{name}, {command:?}: {said}"
            );
            assert!(!said.contains("panicked"), "{name}, {command:?}: {said}");
        }
        if clip_only {
            let verified: VerifyReport = json(dir.path(), &["verify", "shards"]);
            assert_eq!(
                verified
                    .problems
                    .iter()
                    .map(|problem| problem.row)
                    .collect::<Vec<_>>(),
                [Some(1)]
            );
        }
    }
}

fn edit(dir: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(file);
    let mut bytes = fs::read(&path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

#[test]
fn verify_finds_a_flip_of_any_byte() {
    let dir = with_shards();
    let path = dir.path().join(SHARD);
    let valid = fs::read(&path).expect("read");
    for at in (0..valid.len()).step_by(valid.len() / 40) {
        let mut bytes = valid.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).expect("written");
        let verified: VerifyReport = json(dir.path(), &["verify", "shards"]);
        assert!(
            !verified.problems.is_empty(),
            "byte {at} of {}",
            valid.len()
        );
    }
}

/// The problems that `verify` finds, by file and what is wrong, and its exit code.
fn verified(dir: &Path) -> (Vec<(String, String)>, Option<i32>) {
    let output = shardtool(dir, &["verify", "shards", "--json"]);
    let report: VerifyReport = serde_json::from_slice(&output.stdout).expect("the report");
    let problems = report
        .problems
        .into_iter()
        .map(|problem| (problem.file, problem.what));
    (problems.collect(), output.status.code())
}

/// Shards of three videos and of a file that is none.
fn with_a_rejected_file() -> TempDir {
    let dir = with_shards();
    fs::write(dir.path().join("videos/a/text.mp4"), "just words").expect("written");
    assert!(rebuild(dir.path()).status.success());
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
    dir
}

fn rebuild(dir: &Path) -> Output {
    shardtool(dir, &["build", "videos", "--labels", "dirs"])
}

/// Changes fields of the manifest.
fn edit_manifest(dir: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    edit(dir, "shards/manifest.json", |bytes| {
        let mut manifest: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        change(manifest.as_object_mut().expect("an object"));
        *bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
    });
}

#[test]
fn verify_finds_a_flip_of_any_byte_of_the_lists() {
    let dir = with_a_rejected_file();
    for list in ["videos.jsonl", "rejected.jsonl"] {
        let path = dir.path().join("shards").join(list);
        let valid = fs::read(&path).expect("read");
        for at in (0..valid.len()).step_by(valid.len() / 8) {
            let mut bytes = valid.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
            let (problems, code) = verified(dir.path());
            assert!(
                problems.iter().all(|(file, _)| file == list),
                "byte {at} of {list}: {problems:?}"
            );
            assert_eq!(
                (problems.is_empty(), code),
                (false, Some(1)),
                "byte {at} of {list}"
            );
        }
        fs::remove_file(&path).expect("removed");
        let gone = (
            list.to_owned(),
            "it cannot be read: no such file".to_owned(),
        );
        assert_eq!(verified(dir.path()), (vec![gone], Some(1)));
        // A manifest of an older build has no hashes.
        let manifest = fs::read(dir.path().join("shards/manifest.json")).expect("read");
        edit_manifest(dir.path(), |manifest| {
            manifest.remove("videos_xxh3").expect("a hash");
            manifest.remove("rejected_xxh3").expect("a hash");
        });
        assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
        fs::write(dir.path().join("shards/manifest.json"), manifest).expect("written");
        fs::write(&path, valid).expect("written");
    }
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
}

#[test]
fn a_value_that_was_changed_is_damage_to_verify_and_to_a_build() {
    let dir = with_shards();
    edit(dir.path(), "shards/videos.jsonl", |bytes| {
        // The size of a file: no count of lines or clips knows of it.
        let at = bytes
            .windows(8)
            .position(|window| window == b"\"bytes\":")
            .expect("a size")
            + 8;
        bytes[at] = if bytes[at] == b'9' { b'8' } else { b'9' };
    });
    let what = "its bytes are not those that the build wrote".to_owned();
    assert_eq!(
        verified(dir.path()),
        (vec![("videos.jsonl".to_owned(), what)], Some(1))
    );
    let output = rebuild(dir.path());
    let said = shown(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("shards/videos.jsonl is damaged"),
        "{said}"
    );
}

#[test]
fn the_same_build_writes_the_rejected_list_anew() {
    let dir = with_a_rejected_file();
    let list = || fs::read(dir.path().join("shards/rejected.jsonl")).expect("read");
    let (valid, manifest) = (
        list(),
        fs::read(dir.path().join("shards/manifest.json")).expect("read"),
    );
    edit(dir.path(), "shards/rejected.jsonl", |bytes| {
        bytes.truncate(3)
    });
    assert!(rebuild(dir.path()).status.success());
    assert!(
        list() == valid
            && fs::read(dir.path().join("shards/manifest.json")).expect("read") == manifest
    );
    // Other files are rejected now: the list and its hash change together.
    fs::remove_file(dir.path().join("videos/a/text.mp4")).expect("removed");
    assert!(rebuild(dir.path()).status.success());
    assert!(list().is_empty());
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
}

#[test]
fn a_build_that_was_killed_beside_its_rejected_list_is_not_damaged() {
    let dir = with_a_rejected_file();
    let manifest = |name: &str| {
        let bytes = fs::read(dir.path().join("shards/manifest.json")).expect("read");
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        manifest[name].clone()
    };
    assert!(manifest("rejected_xxh3").is_string());
    // The list cannot be replaced: a folder is in the way, as if the build were killed before it.
    fs::create_dir(dir.path().join("shards/rejected.jsonl.tmp")).expect("made");
    fs::write(dir.path().join("videos/a/more.mp4"), "just words").expect("written");
    let output = rebuild(dir.path());
    assert!(
        output.status.code() == Some(1) && shown(&output).contains("rejected.jsonl"),
        "{}",
        shown(&output)
    );
    assert!(manifest("rejected_xxh3").is_null() && manifest("finished") == true);
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
    // After it.
    edit(dir.path(), "shards/rejected.jsonl", |bytes| {
        bytes.extend_from_within(..)
    });
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
    fs::remove_dir(dir.path().join("shards/rejected.jsonl.tmp")).expect("removed");
    assert!(rebuild(dir.path()).status.success());
    assert!(manifest("rejected_xxh3").is_string());
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
    // A build that has not finished says nothing of the list.
    edit_manifest(dir.path(), |manifest| {
        manifest.insert("finished".to_owned(), false.into());
    });
    edit(dir.path(), "shards/rejected.jsonl", |bytes| {
        bytes.truncate(3)
    });
    assert_eq!(verified(dir.path()), (Vec::new(), Some(0)));
}
