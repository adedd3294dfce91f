//! The tools that read shards: what they say of sound ones, and of damaged ones.

use schemas::geometry::I420;
use schemas::report::{ExportReport, InspectReport, StatsReport, VerifyReport};
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use tests::{damage_clip, ffmpeg_frames, shown, write_video};

const SIZE: I420 = I420 { width: 96, height: 64 };
const SHARD: &str = "shards/shard-00000.parquet";

fn shardtool(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin("shardtool")).current_dir(dir).args(arguments).output().expect("run")
}

fn json<T: DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    let output = shardtool(dir, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown(&output)))
}

/// Shards of three videos of two clips each.
fn with_shards() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (class, seed) in [("a", 1), ("a", 2), ("b", 3)] {
        let folder = dir.path().join("videos").join(class);
        fs::create_dir_all(&folder).expect("made");
        write_video(&folder.join(format!("{seed}.mp4")), seed, 130, 30, SIZE);
    }
    let output = shardtool(dir.path(), &["build", "videos", "--labels", "dirs"]);
    assert!(output.status.success(), "{}", shown(&output));
    dir
}

#[test]
fn sound_shards_are_counted_and_found_sound() {
    let dir = with_shards();
    for deep in [&[][..], &["--deep"]] {
        let verified: VerifyReport = json(dir.path(), &[&["verify", "shards"], deep].concat());
        assert_eq!((verified.clips, verified.problems, verified.finished), (6, Vec::new(), true));
    }
    let stats: StatsReport = json(dir.path(), &["stats", "shards", "--picture", "stats.png"]);
    assert_eq!((stats.clips, stats.videos, stats.classes["a"], stats.classes["b"]), (6, 3, 4, 2));
    assert_eq!((stats.resolutions["96x64"], stats.decoded_bytes), (6, 6 * 16 * SIZE.frame_bytes() as u64));
    assert_eq!(&fs::read(dir.path().join("stats.png")).expect("a picture")[1..4], b"PNG");
    let inspected: InspectReport = json(dir.path(), &["inspect", "shards", "--clip", "5", "--sheet", "sheet.png"]);
    assert_eq!((inspected.all_clips, inspected.clips.len(), inspected.clips[0].clip), (6, 1, 5));
    assert_eq!((inspected.clips[0].meta.class.as_deref(), inspected.clips[0].meta.clip), (Some("b"), 1));
    assert_eq!(&fs::read(dir.path().join("sheet.png")).expect("a picture")[1..4], b"PNG");
    let output = shardtool(dir.path(), &["completions", "bash"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("--on-corrupt"), "the flags are completed");
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
    let stored = reader.payload(shard, row).expect("read");
    assert_eq!(frames.len(), stored.len());
    let error: f64 = frames.iter().zip(stored).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>() / stored.len() as f64;
    assert!(error < 40.0, "mean squared error {error}");
    let exported: ExportReport = json(dir.path(), &["export", "shards", "--clip", "2", "pictures"]);
    assert_eq!((exported.frames, fs::read_dir(dir.path().join("pictures")).expect("a folder").count()), (16, 16));
    let output = shardtool(dir.path(), &["export", "shards", "--clip", "2", "clip.mp4"]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("--force"), "{}", shown(&output));
    let output = shardtool(dir.path(), &["export", "shards", "--clip", "6", "x.mp4"]);
    assert!(output.status.code() == Some(1) && !dir.path().join("x.mp4").exists(), "{}", shown(&output));
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
        ("the end", |dir| edit(dir, SHARD, |bytes| bytes.truncate(bytes.len() / 2))),
        ("the shard", |dir| fs::remove_file(dir.join(SHARD)).expect("removed")),
        ("the version", |dir| {
            edit(dir, "shards/manifest.json", |bytes| {
                *bytes = String::from_utf8_lossy(bytes).replace("\"format_version\": 2", "\"format_version\": 9").into_bytes()
            })
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("shards")).expect("made");
        for entry in fs::read_dir(sound.path().join("shards")).expect("listed") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, dir.path().join("shards").join(path.file_name().expect("a name"))).expect("copied");
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
            assert!(said.contains("shard-00000.parquet") || said.contains("manifest.json"), "{name}, {command:?}: {said}");
            assert!(!said.contains("panicked"), "{name}, {command:?}: {said}");
        }
        if clip_only {
            let verified: VerifyReport = json(dir.path(), &["verify", "shards"]);
            assert_eq!(verified.problems.iter().map(|problem| problem.row).collect::<Vec<_>>(), [Some(1)]);
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
    let sound = fs::read(&path).expect("read");
    for at in (0..sound.len()).step_by(sound.len() / 40) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).expect("written");
        let verified: VerifyReport = json(dir.path(), &["verify", "shards"]);
        assert!(!verified.problems.is_empty(), "byte {at} of {}", sound.len());
    }
}
