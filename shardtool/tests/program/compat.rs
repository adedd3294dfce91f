//! Shards that version 0.1 built (`tests/fixtures/v0.1`) are read, and taken for done.

use crate::shardtool;
use serde_json::Value as Json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tests::{copy_all, parse_report};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/v0.1")
}

/// Runs `shardtool` with these arguments, separated by spaces, and `--json`; its report.
fn report(dir: &Path, arguments: &str) -> Json {
    parse_report(&shardtool(
        dir,
        &arguments
            .split_whitespace()
            .chain(["--json"])
            .collect::<Vec<_>>(),
    ))
}

#[test]
fn shards_are_verified_listed_counted_and_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    copy_all(&fixtures().join("shards"), &dir.path().join("shards"));
    let verified = report(dir.path(), "verify shards --deep");
    assert_eq!(
        (&verified["problems"], &verified["clips"]),
        (&Json::Array(vec![]), &18.into())
    );
    let listed = report(dir.path(), "inspect shards --limit 100 --sheet sheet.png");
    let clips = listed["clips"].as_array().expect("clips");
    let of_class = |class: &str| {
        clips
            .iter()
            .filter(|clip| clip["meta"]["class"] == class)
            .count()
    };
    assert_eq!(["down", "left", "right"].map(of_class), [6; 3]);
    let counted = report(dir.path(), "stats shards --picture stats.png");
    assert_eq!(
        (&counted["clips"], &counted["videos"]),
        (&18.into(), &9.into()),
        "{counted}"
    );
    report(dir.path(), "export shards clip.mp4 --clip 5");
}

/// What made the shards; see `tests/fixtures/README.md`.
const BUILD: &str = "build videos --labels dirs --frames 16 --short-side 32 --level 19";

/// What a folder of shards says of its clips, and the hash of their pixels. The decoder may be of
/// another version, which is not to matter, and the same bytes may be compressed otherwise. Older
/// shards have no scores.
fn clips(dir: &Path) -> Vec<Json> {
    let listed = report(dir, "inspect . --limit 100");
    let mut clips = listed["clips"].as_array().expect("clips").clone();
    for clip in &mut clips {
        clip["meta"]["decoder"].take();
        clip["meta"]["scores"].take();
        clip["stored_bytes"].take();
    }
    clips
}

#[test]
fn the_same_videos_make_the_same_clips() {
    let dir = tempfile::tempdir().expect("a folder");
    copy_all(&fixtures().join("videos"), &dir.path().join("videos"));
    report(dir.path(), &format!("{BUILD} --payload i420 --out shards"));
    assert_eq!(
        clips(&dir.path().join("shards")),
        clips(&fixtures().join("shards"))
    );
}

/// Gives the videos in `dir` the time of their last change that their shards have recorded.
fn set_times(dir: &Path) {
    // Videos are known by the time of their last change, which a checkout of the repository sets.
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    for folder in fs::read_dir(dir.join("videos"))
        .expect("a folder")
        .flatten()
    {
        for video in fs::read_dir(folder.path()).expect("a folder").flatten() {
            let file = File::options()
                .write(true)
                .open(video.path())
                .expect("a video");
            file.set_modified(changed).expect("the time is set");
        }
    }
}

#[test]
fn a_build_that_is_finished_is_not_done_again() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["videos", "shards"] {
        copy_all(&fixtures().join(name), &dir.path().join(name));
    }
    set_times(dir.path());
    let built = report(dir.path(), &format!("{BUILD} --out shards"));
    assert_eq!(built["known_videos"], 9, "{built}");
    for file in [
        "shard-00000.parquet",
        "manifest.json",
        "videos.jsonl",
        "rejected.jsonl",
    ] {
        let read = |dir: &Path| fs::read(dir.join("shards").join(file)).expect("a file");
        assert!(read(dir.path()) == read(&fixtures()), "{file} has changed");
    }
}

#[test]
fn a_build_is_continued_and_its_shards_stay_as_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["videos", "shards"] {
        copy_all(&fixtures().join(name), &dir.path().join(name));
    }
    set_times(dir.path());
    copy_all(
        &dir.path().join("videos/left"),
        &dir.path().join("videos/new"),
    );
    let built = report(dir.path(), &format!("{BUILD} --out shards"));
    assert_eq!(
        (&built["known_videos"], &built["clips"]),
        (&9.into(), &24.into()),
        "{built}"
    );
    let read = |dir: &Path| fs::read(dir.join("shards/shard-00000.parquet")).expect("a shard");
    assert!(read(dir.path()) == read(&fixtures()), "a shard has changed");
    let verified = report(dir.path(), "verify shards --deep");
    assert_eq!(
        (&verified["problems"], &verified["clips"]),
        (&Json::Array(vec![]), &24.into())
    );
    // The planes as before, and those of the same videos are the same.
    let listed = clips(&dir.path().join("shards"));
    let hashes = |class: &str| -> Vec<&Json> {
        let of_class = listed.iter().filter(|clip| clip["meta"]["class"] == class);
        of_class.map(|clip| &clip["meta"]["data_xxh3"]).collect()
    };
    assert_eq!(hashes("left"), hashes("new"));
    assert_eq!(hashes("new").len(), 6);
}
