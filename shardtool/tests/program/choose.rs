//! Choosing clips, filtering and merging data sets, and finding duplicates.

use crate::shardtool;
use pipeline::choice::{Choice, choose};
use pipeline::shard::{ClipReader, ShardSet};
use schemas::geometry::FrameSize;
use schemas::manifest::Manifest;
use schemas::report::{DeriveReport, DuplicatesReport, InspectReport, StatsReport};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tests::{ffmpeg, parse_report, shown, write_labelled_shards, write_video};

/// Two data sets whose classes have other numbers: 5 and 3 videos of two clips.
fn two_sets() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write_labelled_shards(
        &dir.path().join("one"),
        &["run", "walk"],
        &[
            ("a", "run"),
            ("b", "walk"),
            ("c", "run"),
            ("d", "walk"),
            ("e", "run"),
        ],
    );
    write_labelled_shards(
        &dir.path().join("two"),
        &["sit", "walk", "run"],
        &[("f", "walk"), ("g", "sit"), ("h", "walk")],
    );
    dir
}

fn numbers(dir: &Path, arguments: &[&str]) -> Vec<u64> {
    let report: InspectReport = parse_report(&shardtool(
        dir,
        &[&["inspect", "--json"], arguments].concat(),
    ));
    report.clips.iter().map(|clip| clip.clip).collect()
}

/// The pixels, class names and class numbers of all clips.
fn contents(dir: &Path) -> Vec<(Vec<u8>, Option<String>, Option<i32>)> {
    let set = ShardSet::open(dir).expect("a data set");
    let mut reader = ClipReader::default();
    let mut contents = Vec::new();
    for shard in set.shards() {
        for (row, meta) in shard.metas().expect("rows").into_iter().enumerate() {
            let pixels = reader.payload(shard, row).expect("a clip").to_vec();
            assert_eq!(meta.label, shard.clips()[row].label);
            contents.push((pixels, meta.class, meta.label));
        }
    }
    contents
}

#[test]
fn every_way_to_choose_gives_the_same_clips() {
    let dir = two_sets();
    let expected = [0, 1, 4, 5, 8, 9];
    fs::write(
        dir.path().join("rows.csv"),
        "video,clip\na.mp4,0\na.mp4,1\nc.mp4,0\nc.mp4,1\ne.mp4,0\ne.mp4,1\n",
    )
    .expect("written");
    fs::write(
        dir.path().join("numbers.jsonl"),
        "{\"number\":0}\n{\"number\":9}\n",
    )
    .expect("written");
    for arguments in [
        &["--classes", "run"][..],
        &["--where", "class = 'run'"],
        &["--where", "label = 0 and length(pts_ns) > 7"],
        &["--where", "class != 'walk' and video like '%.mp4'"],
        &["--select", "rows.csv"],
    ] {
        assert_eq!(
            numbers(dir.path(), &[&["one"], arguments].concat()),
            expected,
            "{arguments:?}"
        );
        let stats: StatsReport = parse_report(&shardtool(
            dir.path(),
            &[&["stats", "one", "--json"], arguments].concat(),
        ));
        assert_eq!((stats.clips, stats.videos), (6, 3), "{arguments:?}");
    }
    assert_eq!(
        numbers(dir.path(), &["one", "--select", "numbers.jsonl"]),
        [0, 9]
    );
    let both = [
        "one",
        "--classes",
        "run",
        "--select",
        "numbers.jsonl",
        "--where",
        "clip = 1",
    ];
    assert_eq!(numbers(dir.path(), &both), [9]);
}

#[test]
fn a_choice_that_cannot_be_made_says_why() {
    let dir = two_sets();
    fs::write(dir.path().join("other.csv"), "video,clip\nz.mp4,0\n").expect("written");
    fs::write(dir.path().join("columns.csv"), "name\nz.mp4\n").expect("written");
    for (arguments, part) in [
        (
            &["--classes", "fly"][..],
            "no class \"fly\"; its classes are run, walk",
        ),
        (&["--split", "val"], "no split \"val\"; it has no splits"),
        (&["--where", "mition > 1"], "did you mean `motion`"),
        (&["--where", "class ="], "at character"),
        (
            &["--where", "class = 'fly'"],
            "no clip of one is chosen: where leaves out 10",
        ),
        (&["--select", "other.csv"], "1 of its 1 rows name no clip"),
        (&["--select", "columns.csv"], "its columns are name"),
        (&["--select", "none.csv"], "none.csv"),
    ] {
        let output = shardtool(dir.path(), &[&["inspect", "one"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            shown(&output).contains(part),
            "{arguments:?}: {}",
            shown(&output)
        );
    }
}

#[test]
fn filters_and_merges_are_data_sets_of_their_own() {
    let dir = two_sets();
    for copy in [&[][..], &["--copy"]] {
        let derive = |arguments: &[&str]| -> DeriveReport {
            parse_report(&shardtool(
                dir.path(),
                &[arguments, copy, &["--json"]].concat(),
            ))
        };
        let name = |name: &str| format!("{name}{}", copy.len());
        let (walks, all, some) = (name("walks"), name("all"), name("some"));
        let report = derive(&["filter", "one", "--classes", "walk", "--out", &walks]);
        assert_eq!((report.clips, report.videos, report.left_out), (4, 2, 6));
        let report = derive(&["merge", "one", "two", "--out", &all]);
        assert_eq!((report.clips, report.videos, report.left_out), (16, 8, 0));
        // Of a merge of a filter, in which classes have new numbers.
        let merged = name("merged");
        derive(&["merge", "two", &walks, "--out", &merged]);
        derive(&["filter", &merged, "--where", "clip = 1", "--out", &some]);

        let (one, two) = (
            contents(&dir.path().join("one")),
            contents(&dir.path().join("two")),
        );
        let classes = |dir: &str| -> Vec<String> {
            let text = fs::read(Path::new(dir).join("manifest.json")).expect("a manifest");
            serde_json::from_slice::<Manifest>(&text)
                .expect("valid")
                .classes
        };
        let path = |name: &str| dir.path().join(name);
        assert_eq!(
            classes(path(&all).to_str().expect("text")),
            ["run", "walk", "sit"]
        );
        assert_eq!(
            classes(path(&some).to_str().expect("text")),
            ["sit", "walk", "run"]
        );
        let joined = contents(&path(&all));
        for (clip, of) in joined.iter().zip(one.iter().chain(&two)) {
            assert!(clip.0 == of.0 && clip.1 == of.1);
            let number = ["run", "walk", "sit"]
                .iter()
                .position(|&name| Some(name) == clip.1.as_deref());
            assert_eq!(clip.2, number.map(|number| number as i32));
        }
        let some = contents(&path(&some));
        let expected = two
            .iter()
            .skip(1)
            .step_by(2)
            .chain(one[3..].iter().step_by(4));
        assert_eq!(some.len(), 5);
        for (clip, of) in some.iter().zip(expected) {
            assert!(clip.0 == of.0 && clip.1 == of.1);
            assert_eq!(clip.2, Some(i32::from(clip.1.as_deref() == Some("walk"))));
        }
        for dir_name in [&walks, &all, &merged] {
            let verified = shardtool(dir.path(), &["verify", dir_name, "--deep"]);
            assert!(verified.status.success(), "{}", shown(&verified));
        }
        // The numbers of a condition are those of the data set.
        let set = ShardSet::open(&path(&merged)).expect("a data set");
        let sits = Choice {
            condition: Some("label = 0".to_owned()),
            ..Choice::default()
        };
        assert_eq!(choose(&sits, &set).expect("chosen").clips, [2, 3]);
    }
}

#[test]
fn a_manifest_is_made_over_others_only() {
    let dir = two_sets();
    let made = shardtool(
        dir.path(),
        &["filter", "one", "--classes", "run", "--out", "runs"],
    );
    assert!(made.status.success(), "{}", shown(&made));
    for (arguments, part) in [
        (&["filter", "one", "--out", "x"][..], "nothing is chosen"),
        (
            &["filter", "one", "--classes", "run", "--out", "runs"],
            "holds a data set already",
        ),
        (
            &[
                "filter",
                "one",
                "--classes",
                "run",
                "--out",
                "one",
                "--force",
            ],
            "both input and output",
        ),
        (
            &["merge", "one", "runs", "--out", "x", "--copy"],
            "hold the same clips",
        ),
        (
            &["merge", "one", "runs", "--out", "x"],
            "hold the same clips",
        ),
        (
            &["merge", "one", "none", "--out", "x"],
            "none holds no manifest.json",
        ),
        (&["build", "one", "--out", "runs"], "no video"),
    ] {
        let output = shardtool(dir.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            shown(&output).contains(part),
            "{arguments:?}: {}",
            shown(&output)
        );
    }
    // A shard that is moved away is missed, and a changed one is damaged.
    fs::rename(dir.path().join("one"), dir.path().join("moved")).expect("moved");
    let gone = shardtool(dir.path(), &["inspect", "runs"]);
    assert!(
        shown(&gone).contains("one/shard-00000.parquet"),
        "{}",
        shown(&gone)
    );
    fs::create_dir(dir.path().join("videos")).expect("made");
    let size = FrameSize {
        width: 96,
        height: 64,
    };
    write_video(&dir.path().join("videos/a.mp4"), 1, 60, 30, size);
    let build = shardtool(dir.path(), &["build", "videos", "--out", "runs"]);
    assert!(
        shown(&build).contains("filter or merge"),
        "{}",
        shown(&build)
    );
}

#[test]
fn planted_duplicates_are_found_and_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    for number in 0..8 {
        let place = -0.7435 + 0.11 * f64::from(number);
        let source = format!("mandelbrot=s=320x240:r=30:start_x={place}:start_scale=1.5");
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &source, "-t", "2.3"])
            .arg(videos.join(format!("{number}.mp4")))
            .status();
        assert!(made.expect("ffmpeg runs").success());
    }
    // The same footage in another size, quality and container.
    for (number, arguments) in [
        (1, &["-crf", "33"][..]),
        (4, &["-vf", "scale=160:120"]),
        (6, &["-vf", "eq=brightness=0.03", "-crf", "28"]),
    ] {
        let copy = videos.join(format!("copy-{number}.mkv"));
        ffmpeg(&videos.join(format!("{number}.mp4")), arguments, &copy);
    }
    let built = shardtool(dir.path(), &["build", "videos"]);
    assert!(built.status.success(), "{}", shown(&built));
    let arguments = [
        "duplicates",
        "shards",
        "--json",
        "--keep",
        "keep.csv",
        "--sheet",
        "d.png",
    ];
    let report: DuplicatesReport = parse_report(&shardtool(dir.path(), &arguments));
    let groups: Vec<Vec<&str>> = report
        .groups
        .iter()
        .map(|group| {
            let videos = group.clips.iter().map(|clip| clip.video.as_str());
            videos
                .map(|video| video.trim_start_matches("videos/"))
                .collect()
        })
        .collect();
    assert_eq!(
        groups,
        [
            ["1.mp4", "copy-1.mkv"],
            ["4.mp4", "copy-4.mkv"],
            ["6.mp4", "copy-6.mkv"]
        ]
    );
    assert_eq!((report.clips, report.duplicates), (11, 3));
    assert!(dir.path().join("d.png").exists());
    let filter = [
        "filter", "shards", "--select", "keep.csv", "--out", "unique", "--json",
    ];
    let unique: DeriveReport = parse_report(&shardtool(dir.path(), &filter));
    assert_eq!((unique.clips, unique.left_out), (8, 3));
}
