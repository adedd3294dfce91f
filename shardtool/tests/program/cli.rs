//! Every command as a user runs it: exit code, standard output and standard error of every command.

use crate::{command, shardtool};
use schemas::manifest::Rejected;
use schemas::report::{BuildReport, DryRunReport, SynthReport};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tests::{json_lines, parse_report, shown};

/// Compares with the snapshot; what differs from run to run is replaced.
fn assert_shown(name: &str, output: &Output) {
    insta::with_settings!({ filters => vec![
        (r"\d+(\.\d+)? (k|M|G)?B", "[BYTES]"),
        (r"\d+\.\d+ s\b", "[SECONDS]"),
        // Terminals of other widths wrap elsewhere.
        (r" +\n", "\n"),
    ] }, { insta::assert_snapshot!(name, shown(output)) });
}

/// A folder with `count` synthesised videos of four classes in `videos`.
fn with_videos(count: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let report: SynthReport = parse_report(&shardtool(
        dir.path(),
        &[
            "synth",
            "videos",
            "--videos",
            count,
            "--classes",
            "4",
            "--size",
            "64",
            "--seconds",
            "2.5",
            "--json",
        ],
    ));
    assert_eq!(
        (report.videos.to_string().as_str(), report.classes.len()),
        (count, 4)
    );
    dir
}

#[test]
fn every_command_has_help() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_shown("help", &shardtool(dir.path(), &["--help"]));
    for command in ["build", "synth", "verify", "inspect", "stats", "export"] {
        assert_shown(
            &format!("help-{command}"),
            &shardtool(dir.path(), &[command, "--help"]),
        );
    }
}

#[test]
fn synth_then_build_with_labels() {
    let dir = with_videos("8");
    let output = shardtool(dir.path(), &["build", "videos", "--labels", "dirs"]);
    assert_shown("build", &output);
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &[
            "build", "videos", "--labels", "dirs", "--out", "again", "--json",
        ],
    ));
    assert_eq!(
        (
            report.videos,
            report.clips,
            report.rejected.len(),
            report.padded_clips
        ),
        (8, 8, 0, 0)
    );
    assert_eq!(report.classes, ["down", "left", "right", "up"]);
    // Label and class of each clip are those of its folder.
    let set = pipeline::shard::ShardSet::open(&dir.path().join("again")).expect("shards");
    let metas: Vec<_> = set
        .shards()
        .iter()
        .flat_map(|shard| shard.metas().expect("read"))
        .collect();
    assert_eq!(metas.len(), 8);
    for meta in metas {
        let class = meta.class.expect("a class");
        assert!(
            meta.video.contains(&format!("/{class}/")),
            "{} is of class {class}",
            meta.video
        );
        assert_eq!(report.classes[meta.label.expect("a label") as usize], class);
        assert_eq!(
            (meta.width, meta.height, meta.frames, meta.pts_ns.len()),
            (64, 64, 16, 16)
        );
    }
}

#[test]
fn synth_is_seeded_and_never_overwrites() {
    let dir = tempfile::tempdir().expect("a folder");
    let synth = |name: &str, seed: &str| {
        shardtool(
            dir.path(),
            &[
                "synth",
                name,
                "--videos",
                "2",
                "--size",
                "64",
                "--seconds",
                "0.5",
                "--seed",
                seed,
            ],
        )
    };
    for (name, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        assert!(synth(name, seed).status.success());
    }
    let read = |name: &str| {
        fs::read(dir.path().join(name).join("right/right-00000.mp4")).expect("a video")
    };
    // But for the three pairs of times, of 4 bytes each, that the muxer takes from the clock.
    let (a, b) = (read("a"), read("b"));
    let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
    assert!(
        a.len() == b.len() && differing <= 24,
        "{differing} bytes differ"
    );
    let c = read("c");
    assert!(
        a.len() != c.len() || a.iter().zip(&c).filter(|(a, c)| a != c).count() > 24,
        "another seed, another video"
    );
    assert_shown("synth-into-a-folder-that-is-taken", &synth("a", "1"));
}

#[test]
fn files_that_are_no_video_are_named_and_skipped() {
    let dir = with_videos("4");
    let bad = dir.path().join("videos/bad");
    fs::create_dir(&bad).expect("made");
    fs::write(bad.join("empty.mp4"), "").expect("written");
    fs::write(bad.join("text.mp4"), "this is no video").expect("written");
    fs::write(
        bad.join("notes.txt"),
        "nor is this, and its name does not say so",
    )
    .expect("written");
    symlink("nowhere", bad.join("dangling.mp4")).expect("linked");
    let fifo = Command::new("mkfifo").arg(bad.join("fifo.mp4")).status();
    assert!(fifo.expect("mkfifo runs").success());

    let output = shardtool(dir.path(), &["build", "videos"]);
    assert_shown("build-with-rejected-files", &output);
    let listed: Vec<Rejected> = json_lines(&dir.path().join("shards/rejected.jsonl"));
    assert_eq!(listed.len(), 4);

    let output = shardtool(
        dir.path(),
        &["build", "videos", "--out", "strict", "--strict", "--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let report: BuildReport =
        serde_json::from_slice(&output.stdout).expect("the report is printed all the same");
    assert_eq!(
        (report.rejected, report.not_video, report.clips),
        (listed, 1, 4)
    );

    let output = shardtool(dir.path(), &["build", "videos/bad", "--out", "none"]);
    assert_shown("build-without-any-video", &output);
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_build_is_replaced_only_with_force() {
    let dir = with_videos("4");
    assert!(shardtool(dir.path(), &["build", "videos"]).status.success());
    let before = fs::read(dir.path().join("shards/shard-00000.parquet")).expect("a shard");
    assert_shown(
        "build-into-a-folder-that-is-taken",
        &shardtool(dir.path(), &["build", "videos", "--frames", "8"]),
    );
    assert!(fs::read(dir.path().join("shards/shard-00000.parquet")).expect("a shard") == before);
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &["build", "videos", "--frames", "8", "--force", "--json"],
    ));
    assert_eq!(
        report.clips, 8,
        "two clips of 8 frames at stride 4 fit into 2.5 s"
    );
    assert!(fs::read(dir.path().join("shards/shard-00000.parquet")).expect("a shard") != before);
}

#[test]
fn shards_are_the_same_for_any_number_of_jobs() {
    let dir = with_videos("10");
    let build = |out: &str, jobs: &str| {
        let report: BuildReport = parse_report(&shardtool(
            dir.path(),
            &[
                "build",
                "videos",
                "--shard-mb",
                "1",
                "--level",
                "0",
                "--out",
                out,
                "--jobs",
                jobs,
                "--json",
            ],
        ));
        (0..report.shards)
            .map(|shard| {
                fs::read(
                    dir.path()
                        .join(out)
                        .join(format!("shard-{shard:05}.parquet")),
                )
                .expect("a shard")
            })
            .collect::<Vec<_>>()
    };
    let one = build("one", "1");
    assert!(one == build("three", "3"));
    assert_eq!(
        fs::read(dir.path().join("one/manifest.json")).expect("a manifest"),
        fs::read(dir.path().join("three/manifest.json")).expect("a manifest")
    );
}

#[test]
fn labels_come_from_a_file() {
    let dir = with_videos("4");
    fs::write(
        dir.path().join("labels.txt"),
        "videos/right/right-00000.mp4 7\nvideos/up/up-00003.mp4 2\n",
    )
    .expect("written");
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &["build", "videos", "--labels", "labels.txt", "--json"],
    ));
    assert_eq!((report.clips, report.unlabelled), (4, 2));
    let set = pipeline::shard::ShardSet::open(&dir.path().join("shards")).expect("shards");
    for meta in set.shards()[0].metas().expect("read") {
        let expected = if meta.video.contains("right-00000") {
            Some(7)
        } else if meta.video.contains("up-00003") {
            Some(2)
        } else {
            None
        };
        assert_eq!(meta.label, expected, "{}", meta.video);
    }
    // As Kinetics lists them: the class, with its blanks, is a folder below the one that is given.
    fs::rename(
        dir.path().join("videos/down"),
        dir.path().join("videos/riding a bike"),
    )
    .expect("renamed");
    let lines = "riding a bike/down-00002.mp4 269\r\nleft/left-00001.mp4 \
                 0\r\nright/right-00000.mp4 1\r\nup/up-00003.mp4 2\r\n";
    fs::write(dir.path().join("kinetics.csv"), lines).expect("written");
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &[
            "build",
            "videos",
            "--labels",
            "kinetics.csv",
            "--out",
            "kinetics",
            "--json",
        ],
    ));
    assert_eq!(
        (report.clips, report.unlabelled, report.classes.len()),
        (4, 0, 0)
    );
    let set = pipeline::shard::ShardSet::open(&dir.path().join("kinetics")).expect("shards");
    let metas = set.shards()[0].metas().expect("read");
    let labels: Vec<_> = metas
        .iter()
        .map(|meta| (meta.video.as_str(), meta.label))
        .collect();
    assert_eq!(
        labels,
        [
            ("videos/left/left-00001.mp4", Some(0)),
            ("videos/riding a bike/down-00002.mp4", Some(269)),
            ("videos/right/right-00000.mp4", Some(1)),
            ("videos/up/up-00003.mp4", Some(2)),
        ]
    );

    fs::write(dir.path().join("bad.txt"), "videos/right/right-00000.mp4\n").expect("written");
    assert_shown(
        "build-with-a-bad-label-file",
        &shardtool(
            dir.path(),
            &["build", "videos", "--labels", "bad.txt", "--out", "x"],
        ),
    );
    assert_shown(
        "build-without-the-label-file",
        &shardtool(
            dir.path(),
            &["build", "videos", "--labels", "none.txt", "--out", "x"],
        ),
    );
}

#[test]
fn labels_that_fit_no_video_are_counted_and_named() {
    let dir = with_videos("4");
    let gone: String = (0..6)
        .map(|number| format!("gone/{number}.mp4,riding a bike\n"))
        .collect();
    let lines = format!(
        "\u{feff}path,class\r\nright/right-00000,riding a bike\r\nup-00003.mp4,-1\r\n{gone}"
    );
    fs::write(dir.path().join("labels.csv"), lines).expect("written");
    let build = ["build", "videos", "--labels", "labels.csv"];
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &[&build[..], &["--json", "--out", "json"]].concat(),
    ));
    let dry: DryRunReport = parse_report(&shardtool(
        dir.path(),
        &[&build[..], &["--json", "--dry-run"]].concat(),
    ));
    assert_eq!(
        (
            report.unlabelled,
            report.unmatched_labels,
            &report.classes[..]
        ),
        (3, 6, &["riding a bike".to_owned()][..])
    );
    let unlabelled = [
        "videos/down/down-00002.mp4",
        "videos/left/left-00001.mp4",
        "videos/up/up-00003.mp4",
    ];
    assert_eq!(report.unlabelled_examples, unlabelled);
    assert_eq!(
        report.unmatched_label_examples,
        (0..5)
            .map(|number| format!("gone/{number}.mp4"))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        (dry.unlabelled, dry.unmatched_labels),
        (report.unlabelled, report.unmatched_labels)
    );
    assert_eq!(dry.unlabelled_examples, report.unlabelled_examples);
    assert_eq!(
        dry.unmatched_label_examples,
        report.unmatched_label_examples
    );
    assert_shown(
        "build-with-labels-that-do-not-fit",
        &shardtool(dir.path(), &build),
    );
    assert_shown(
        "dry-run-with-labels-that-do-not-fit",
        &shardtool(dir.path(), &[&build[..], &["--dry-run"]].concat()),
    );
    // A bad file is reported before anything is made.
    fs::write(
        dir.path().join("labels.csv"),
        "videos/right/right-00000.mp4,0,12\n",
    )
    .expect("written");
    assert_shown(
        "build-with-a-column-too-many",
        &shardtool(dir.path(), &[&build[..], &["--out", "none"]].concat()),
    );
    assert!(!dir.path().join("none").exists());
}

#[test]
fn urls_that_cannot_be_used_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    for (arguments, expected) in [
        (&["build", "ftp://host/x"][..], "ftp:// is not supported"),
        (&["build", "s3://"], "write s3://bucket/key"),
        (
            &["build", "videos", "--out", "s3a://bucket/x"],
            "write s3://bucket/x",
        ),
        (&["build", "https://host/a.mp4?key=1"], "a query"),
        (
            &["synth", "s3://bucket/x"],
            "give a path in the local file system",
        ),
        (
            &["filter", "shards", "--out", "s3://b/x"],
            "give a path in the local file system",
        ),
    ] {
        let output = shardtool(dir.path(), arguments);
        let said = shown(&output);
        assert!(
            output.status.code() == Some(1) && said.contains(expected),
            "{arguments:?}: {said}"
        );
    }
    let output = shardtool(dir.path(), &["build", "file:///data/videos"]);
    assert!(
        shown(&output).contains("give the local path /data/videos"),
        "{}",
        shown(&output)
    );
    assert_eq!(
        fs::read_dir(dir.path()).expect("listed").count(),
        1,
        "nothing was made"
    );
}

#[test]
fn a_dry_run_counts_what_a_build_gives() {
    let dir = with_videos("5");
    for tiling in [
        vec![],
        vec!["--every", "0.1"],
        vec!["--clips-per-video", "3"],
    ] {
        let dry: DryRunReport = parse_report(&shardtool(
            dir.path(),
            &[
                &["build", "videos", "--dry-run", "--json"],
                tiling.as_slice(),
            ]
            .concat(),
        ));
        assert!(!dir.path().join("shards").exists(), "nothing is written");
        let built: BuildReport = parse_report(&shardtool(
            dir.path(),
            &[&["build", "videos", "--json"], tiling.as_slice()].concat(),
        ));
        assert_eq!(
            (dry.videos, dry.clips, dry.decoded_bytes),
            (built.videos, built.clips, built.decoded_bytes),
            "{tiling:?}"
        );
        assert!(
            dry.free_bytes > 0 && (dry.video_seconds - 12.5).abs() < 0.01,
            "{}",
            dry.video_seconds
        );
        fs::remove_dir_all(dir.path().join("shards")).expect("removed");
    }
    assert_shown(
        "dry-run",
        &shardtool(dir.path(), &["build", "videos", "--dry-run"]),
    );
}

/// The writing end of a pipe that nobody reads.
fn closed_pipe() -> Stdio {
    std::io::pipe().expect("a pipe").1.into()
}

fn exit_code(dir: &Path, arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Option<i32> {
    command(dir, arguments)
        .stdout(stdout)
        .stderr(stderr)
        .status()
        .expect("run")
        .code()
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let dir = with_videos("4");
    for (arguments, written) in [
        (vec!["--help"], "videos"),
        (vec!["build", "videos", "--dry-run"], "videos"),
        (
            vec!["build", "videos", "--out", "text"],
            "text/manifest.json",
        ),
        (
            vec!["build", "videos", "--out", "json", "--json"],
            "json/manifest.json",
        ),
        (
            vec![
                "synth",
                "more",
                "--videos",
                "1",
                "--size",
                "64",
                "--seconds",
                "0.5",
            ],
            "more/right/right-00000.mp4",
        ),
    ] {
        assert_eq!(
            exit_code(dir.path(), &arguments, closed_pipe(), Stdio::null()),
            Some(0),
            "{arguments:?}"
        );
        assert!(
            dir.path().join(written).exists(),
            "{arguments:?} is finished"
        );
    }
}

#[test]
fn a_closed_standard_error_stops_no_build() {
    let dir = with_videos("4");
    fs::write(dir.path().join("videos/text.mp4"), "this is no video").expect("written");
    assert_eq!(
        exit_code(
            dir.path(),
            &["build", "videos"],
            Stdio::null(),
            closed_pipe()
        ),
        Some(0)
    );
    assert!(
        dir.path().join("shards/manifest.json").exists(),
        "the build is finished"
    );
    // What the user can mend stays 1, whether or not the message finds a reader.
    assert_eq!(
        exit_code(
            dir.path(),
            &["build", "nothing-here"],
            Stdio::null(),
            closed_pipe()
        ),
        Some(1)
    );
}

#[test]
fn a_video_that_is_reached_twice_counts_once() {
    let dir = with_videos("4");
    symlink("..", dir.path().join("videos/loop")).expect("linked");
    symlink("right/right-00000.mp4", dir.path().join("videos/again.mp4")).expect("linked");
    let report: BuildReport = parse_report(&shardtool(
        dir.path(),
        &[
            "build",
            "videos",
            "videos/up",
            "videos/up/up-00003.mp4",
            "--json",
        ],
    ));
    assert_eq!(
        (
            report.videos,
            report.clips,
            report.rejected,
            report.not_video
        ),
        (4, 4, Vec::new(), 0)
    );
}

#[test]
fn invalid_arguments_are_refused_by_name() {
    let dir = with_videos("4");
    fs::write(dir.path().join("file"), "in the way").expect("written");
    assert_shown(
        "build-into-a-file",
        &shardtool(dir.path(), &["build", "videos", "--out", "file/shards"]),
    );
    assert_shown(
        "build-of-nothing",
        &shardtool(dir.path(), &["build", "nothing-here"]),
    );
    assert_shown(
        "build-with-a-bad-flag",
        &shardtool(dir.path(), &["build", "videos", "--frames", "0"]),
    );
    assert_shown(
        "build-every-too-often",
        &shardtool(dir.path(), &["build", "videos", "--every", "0.01"]),
    );
    assert_shown(
        "synth-of-an-odd-size",
        &shardtool(dir.path(), &["synth", "odd", "--size", "65"]),
    );
}

#[test]
fn every_command_describes_shards() {
    let dir = with_videos("4");
    assert!(
        shardtool(
            dir.path(),
            &["build", "videos", "--labels", "dirs", "--frames", "8"]
        )
        .status
        .success()
    );
    for (name, arguments) in [
        ("verify", &["verify", "shards"][..]),
        ("verify-deep", &["verify", "shards", "--deep"]),
        (
            "inspect",
            &["inspect", "shards", "--limit", "3", "--sheet", "sheet.png"],
        ),
        ("stats", &["stats", "shards", "--picture", "stats.png"]),
        ("export", &["export", "shards", "--clip", "1", "clip.mp4"]),
        (
            "export-of-no-clip",
            &["export", "shards", "--clip", "99", "clip.mp4"],
        ),
        (
            "export-to-what-is-there",
            &["export", "shards", "--clip", "1", "clip.mp4"],
        ),
        ("inspect-of-no-shards", &["inspect", "videos"]),
    ] {
        assert_shown(name, &shardtool(dir.path(), arguments));
    }
    tests::damage_clip(&dir.path().join("shards/shard-00000.parquet"), 2);
    assert_shown(
        "verify-of-a-damaged-clip",
        &shardtool(dir.path(), &["verify", "shards"]),
    );
}
