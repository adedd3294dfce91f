//! Builds of gaps, pixels that are not square, high dynamic range, damage that is kept, encrypted
//! files, and shards of the version before.

use crate::shardtool;
use schemas::geometry::FrameSize;
use schemas::report::{BuildReport, DryRunReport, InspectReport};
use std::fs;
use std::path::Path;
use tests::{copy_all, ffmpeg, parse_report, shown, write_video};

const SIZE: FrameSize = FrameSize {
    width: 96,
    height: 64,
};
const SHORT_CLIPS: [&str; 4] = ["--frames", "8", "--stride", "3"];

fn json<T: serde::de::DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    parse_report(&shardtool(dir, &[arguments, &["--json"]].concat()))
}

fn build(dir: &Path, arguments: &[&str]) -> BuildReport {
    json(dir, &[&["build"], &SHORT_CLIPS[..], arguments].concat())
}

/// A video of `frames` frames at 30 a second.
fn film(dir: &Path, frames: u32) -> std::path::PathBuf {
    let path = dir.join("film.mp4");
    write_video(&path, 7, frames, 30, SIZE);
    path
}

#[test]
fn clips_in_a_gap_are_skipped_and_counted_by_a_dry_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path(), 150);
    // After 60 frames, nothing for 100 seconds.
    ffmpeg(
        &film,
        &[
            "-vf",
            "setpts=PTS+gte(N\\,60)*100/TB",
            "-fps_mode",
            "passthrough",
        ],
        &dir.path().join("gap.mkv"),
    );
    let report = build(dir.path(), &["gap.mkv", "--out", "a"]);
    // 24 ticks a clip, of which 22 are spanned: two before, one that holds a frame for less than a
    // second, and three after it.
    assert_eq!((report.clips, report.damaged_clips), (6, 0), "{report:?}");
    let gap = &report.rejected[0];
    assert!(gap.reason.starts_with("a gap"), "{gap:?}");
    let (from, to) = gap.seconds.expect("a stretch");
    assert!(
        (from - 1.967).abs() < 0.01 && (to - 102.0).abs() < 0.01,
        "{from} to {to}"
    );
    assert!(report.gap_clips > 120, "{report:?}");
    let counted: DryRunReport = json(
        dir.path(),
        &[
            &["build", "--dry-run"],
            &SHORT_CLIPS[..],
            &["gap.mkv", "--out", "b"],
        ]
        .concat(),
    );
    assert_eq!(
        (counted.clips, counted.gap_clips),
        (report.clips, report.gap_clips)
    );
    // All of it, on demand; and all is what a build of the version before gave.
    let all = build(
        dir.path(),
        &["gap.mkv", "--out", "c", "--gap-seconds", "inf"],
    );
    assert_eq!((all.clips, all.gap_clips), (3150 / 24, 0));
    // Clips that are spread over a video lie on both sides.
    let spread = build(
        dir.path(),
        &["gap.mkv", "--out", "d", "--clips-per-video", "4"],
    );
    assert_eq!((spread.clips, spread.gap_clips), (4, 0));
    // Counted in frames, there is no gap.
    let frames = build(dir.path(), &["gap.mkv", "--out", "e", "--sample", "frames"]);
    assert_eq!((frames.clips, frames.gap_clips), (150 / 24, 0));
}

#[test]
fn pixels_become_square_and_the_ratio_is_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path(), 60);
    ffmpeg(
        &film,
        &["-vf", "setsar=64/45"],
        &dir.path().join("wide.mp4"),
    );
    for (arguments, width) in [(&[][..], 137), (&["--pixel-aspect", "keep"], 96)] {
        let out = format!("out-{width}");
        build(
            dir.path(),
            &[&["wide.mp4", "--out", &out], arguments].concat(),
        );
        let clips: InspectReport = json(dir.path(), &["inspect", &out]);
        let meta = &clips.clips[0].meta;
        assert_eq!((meta.width, meta.height), (width, 64));
        assert_eq!((meta.pixel_aspect_num, meta.pixel_aspect_den), (64, 45));
    }
}

#[test]
fn high_dynamic_range_is_recorded_and_reported() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path(), 60);
    let colors = [
        "-color_primaries",
        "bt2020",
        "-color_trc",
        "smpte2084",
        "-colorspace",
        "bt2020nc",
    ];
    let ten_bits = ["-c:v", "libx264", "-pix_fmt", "yuv420p10le"];
    ffmpeg(
        &film,
        &[&ten_bits[..], &colors[..]].concat(),
        &dir.path().join("hdr.mp4"),
    );
    let report = build(dir.path(), &["hdr.mp4"]);
    assert_eq!(report.hdr_videos, 1);
    let clips: InspectReport = json(dir.path(), &["inspect", "shards"]);
    let meta = &clips.clips[0].meta;
    assert_eq!(
        (meta.color_transfer.as_str(), meta.color_primaries.as_str()),
        ("smpte2084", "bt2020")
    );
    let again = shardtool(
        dir.path(),
        &[&["build"], &SHORT_CLIPS[..], &["hdr.mp4"]].concat(),
    );
    assert!(
        shown(&again).contains("1 video of high dynamic range, stored as decoded"),
        "{}",
        shown(&again)
    );
}

#[test]
fn a_build_of_damaged_videos_says_how_to_keep_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path(), 150);
    let mut bytes = fs::read(&film).expect("read");
    let media = bytes
        .windows(4)
        .position(|window| window == b"mdat")
        .expect("media");
    // All over the media.
    (media + 200..bytes.len() - 4000)
        .step_by(300)
        .for_each(|at| bytes[at] ^= 0x24);
    fs::write(&film, bytes).expect("written");
    let some = shardtool(
        dir.path(),
        &[&["build"], &SHORT_CLIPS[..], &["film.mp4"]].concat(),
    );
    assert!(
        shown(&some).contains("--on-corrupt keep"),
        "{}",
        shown(&some)
    );
    // One clip of all of it: nothing is left.
    let none = shardtool(
        dir.path(),
        &[
            "build", "film.mp4", "--frames", "49", "--stride", "3", "--out", "none",
        ],
    );
    assert_eq!(none.status.code(), Some(1), "{}", shown(&none));
    assert!(
        shown(&none).contains("--on-corrupt keep"),
        "{}",
        shown(&none)
    );
    let kept = build(
        dir.path(),
        &["film.mp4", "--on-corrupt", "keep", "--out", "kept"],
    );
    assert_eq!((kept.clips, kept.damaged_clips), (6, 0), "{kept:?}");
    assert!(
        kept.kept_damaged_clips > 0 && kept.damaged_videos == 1,
        "{kept:?}"
    );
    let clips: InspectReport = json(dir.path(), &["inspect", "kept"]);
    let marked = clips.clips.iter().filter(|clip| clip.meta.damaged).count() as u64;
    assert_eq!(marked, kept.kept_damaged_clips);
    let again = shardtool(
        dir.path(),
        &[
            &["build"],
            &SHORT_CLIPS[..],
            &["film.mp4", "--on-corrupt", "keep", "--out", "kept"],
        ]
        .concat(),
    );
    assert!(
        shown(&again).contains("kept with damaged frames"),
        "{}",
        shown(&again)
    );
}

#[test]
fn encrypted_files_and_animated_pictures_are_named_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path(), 30);
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    let key = [
        "-encryption_scheme",
        "cenc-aes-ctr",
        "-encryption_key",
        "76a6c65c5ea762046bd749a2e632ccbb",
    ];
    let id = [
        "-encryption_kid",
        "a7e61c373e219033c21091fa607bf3b8",
        "-c",
        "copy",
    ];
    ffmpeg(
        &film,
        &[&key[..], &id[..]].concat(),
        &videos.join("secret.mp4"),
    );
    ffmpeg(&film, &[], &videos.join("moving.gif"));
    ffmpeg(&film, &["-frames:v", "1"], &videos.join("still.gif"));
    fs::copy(&film, videos.join("film.mp4")).expect("copied");
    let report = build(dir.path(), &["videos"]);
    let reason = |name: &str| {
        let line = report
            .rejected
            .iter()
            .find(|rejected| rejected.path.ends_with(name));
        line.map_or_else(String::new, |line| line.reason.clone())
    };
    assert!(reason("secret.mp4").contains("encrypted"), "{report:?}");
    assert_eq!(reason("moving.gif"), "", "{report:?}");
    assert_eq!(
        (report.videos, report.rejected.len(), report.not_video),
        (2, 1, 1),
        "{report:?}"
    );
}

#[test]
fn shards_of_version_2_are_read_and_not_appended_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/shards-v2/i420");
    let old = dir.path().join("old");
    copy_all(&fixture, &old);
    let verified = shardtool(dir.path(), &["verify", "old", "--deep"]);
    assert!(verified.status.success(), "{}", shown(&verified));
    let clips: InspectReport = json(dir.path(), &["inspect", "old"]);
    assert_eq!(clips.clips.len(), 2);
    film(dir.path(), 30);
    let built = shardtool(dir.path(), &["build", "film.mp4", "--out", "old"]);
    assert_eq!(built.status.code(), Some(1));
    assert!(
        shown(&built).contains("its shards are of format version 2, now it is 5"),
        "{}",
        shown(&built)
    );
}
