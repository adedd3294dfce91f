//! Runs on some of the clips of a data set, and queries whose video has copies.

use crate::{messages, steps, trainer};
use schemas::geometry::FrameSize;
use schemas::report::EmbedReport;
use std::fs;
use std::process::Command;
use tempfile::TempDir;
use tests::{
    TestClip, parse_report, shown, small_config, write_labelled_shards, write_shards, write_video,
};

/// A folder with shards of twelve clips in `shards`, every third of them in the split `val` and the
/// others in `train`.
fn with_splits() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..12)
        .map(|seed| {
            let mut clip = TestClip::moving(seed, 8, 40, 36);
            clip.meta.split = Some(if seed % 3 == 0 { "val" } else { "train" }.to_owned());
            clip
        })
        .collect();
    write_shards(&dir.path().join("shards"), &clips);
    fs::write(dir.path().join("small.toml"), small_config(1, 2)).expect("written");
    dir
}

#[test]
fn a_choice_belongs_to_the_run() {
    let dir = with_splits();
    let run = |arguments: &[&str]| trainer(dir.path(), &[&["run"], arguments].concat());
    let start = [
        "--config",
        "small.toml",
        "--out",
        "a",
        "--data",
        "shards:train",
        "--steps",
        "4",
    ];
    let condition = ["--where", "video != 'video-1.mp4'"];
    let output = run(&[&start[..], &condition].concat());
    assert!(output.status.success(), "{}", shown(&output));
    let text = messages(&output);
    assert!(
        text.contains("shards: 7 of 12 clips chosen: split leaves out 4, where leaves out 1"),
        "{text}"
    );
    let config = fs::read_to_string(dir.path().join("a/config.toml")).expect("a configuration");
    assert!(
        config.contains("where = \"video != 'video-1.mp4'\""),
        "{config}"
    );

    // The same clips by other means are the same data; a list of them is another configuration.
    let resume = [
        "--config",
        "small.toml",
        "--out",
        "a",
        "--resume",
        "--steps",
        "4",
    ];
    let same = run(&[&resume[..], &["--data", "shards:train"], &condition].concat());
    assert!(same.status.success(), "{}", shown(&same));
    let other = run(&[
        &resume[..],
        &["--data", "shards:train", "--where", "clip = 0"],
    ]
    .concat());
    assert!(!other.status.success());
    assert!(
        messages(&other).contains("data.choose.where"),
        "{}",
        shown(&other)
    );
    let saved = ["--out", "a", "--resume", "--data", "shards:train"];
    assert!(run(&saved).status.success());
    let all = run(&["--out", "a", "--resume", "--data", "shards"]);
    assert!(!all.status.success(), "{}", shown(&all));
    assert_eq!(steps(&dir.path().join("a")).len(), 4);
}

#[test]
fn choices_that_cannot_be_made_are_refused() {
    let dir = with_splits();
    fs::create_dir(dir.path().join("videos")).expect("made");
    let size = FrameSize {
        width: 48,
        height: 32,
    };
    write_video(&dir.path().join("videos/a.mp4"), 7, 60, 30, size);
    for (arguments, part) in [
        (
            &["--data", "shards:test"][..],
            "no split \"test\"; its splits are train, val",
        ),
        (&["--where", "speed > 1"], "there is no column `speed`"),
        (&["--where", "label = 7"], "no clip of ./shards is chosen"),
        (
            &["--data", "videos", "--classes", "run"],
            "videos holds videos",
        ),
        (&["--data", "videos:train"], "videos holds videos"),
    ] {
        let fixed = ["run", "--config", "small.toml", "--out", "b"];
        let output = trainer(dir.path(), &[&fixed[..], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            messages(&output).contains(part),
            "{arguments:?}: {}",
            shown(&output)
        );
        assert!(!dir.path().join("b").exists());
    }
}

#[test]
fn a_classifier_is_trained_on_one_split_and_evaluated_on_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let names: Vec<String> = (0..8).map(|number| format!("video-{number}")).collect();
    let classes = ["dark", "bright", "other"];
    let videos: Vec<(&str, &str)> = names
        .iter()
        .zip(0..)
        .map(|(name, number)| (name.as_str(), classes[number % 3]))
        .collect();
    write_labelled_shards(&dir.path().join("shards"), &classes, &videos);
    fs::write(dir.path().join("small.toml"), small_config(1, 2)).expect("written");
    let pre = [
        "run",
        "--config",
        "small.toml",
        "--steps",
        "2",
        "--out",
        "pre",
    ];
    assert!(trainer(dir.path(), &pre).status.success());
    // Two of three classes: the classifier knows no other.
    let tune = [
        "finetune",
        "--weights",
        "pre",
        "--epochs",
        "1",
        "--out",
        "tuned",
    ];
    let two = ["--classes", "dark,bright", "--where", "clip = 0"];
    let output = trainer(dir.path(), &[&tune[..], &two].concat());
    assert!(output.status.success(), "{}", shown(&output));
    assert!(
        messages(&output).contains("2 classes; "),
        "{}",
        shown(&output)
    );
    let eval = ["eval", "--weights", "tuned"];
    let all = trainer(dir.path(), &eval);
    assert!(messages(&all).contains("other"), "{}", shown(&all));
    let output = trainer(dir.path(), &[&eval[..], &two].concat());
    assert!(output.status.success(), "{}", shown(&output));
    assert!(
        messages(&output).contains("6 of 16 clips chosen"),
        "{}",
        shown(&output)
    );
}

#[test]
fn the_copies_of_a_query_are_left_out() {
    let dir = with_splits();
    let pre = [
        "run",
        "--config",
        "small.toml",
        "--steps",
        "2",
        "--out",
        "pre",
    ];
    assert!(trainer(dir.path(), &pre).status.success());
    let videos = dir.path().join("videos/deep");
    fs::create_dir_all(&videos).expect("made");
    let size = FrameSize {
        width: 48,
        height: 40,
    };
    for seed in 0..3 {
        write_video(&videos.join(format!("{seed}.mp4")), seed, 60, 30, size);
    }
    fs::copy(videos.join("1.mp4"), videos.join("copy.mp4")).expect("copied");
    fs::copy(videos.join("1.mp4"), dir.path().join("asked.mp4")).expect("copied");
    for query in ["deep/1.mp4", "asked.mp4"] {
        let arguments = [
            "embed",
            "--weights",
            "pre",
            "--data",
            "videos",
            "--query",
            query,
            "--json",
        ];
        let report: EmbedReport = parse_report(&trainer(dir.path(), &arguments));
        let nearest = report.queries[0].nearest.iter();
        let nearest: Vec<&str> = nearest.map(|near| near.video.as_str()).collect();
        assert!(!nearest.is_empty());
        assert!(
            nearest
                .iter()
                .all(|video| !video.ends_with("1.mp4") && !video.ends_with("copy.mp4")),
            "{query}: {nearest:?}"
        );
    }
}

#[test]
fn archives_and_pictures_are_trained_on_without_shards() {
    let dir = with_splits();
    let size = FrameSize {
        width: 48,
        height: 40,
    };
    write_video(&dir.path().join("a.mp4"), 1, 60, 30, size);
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .current_dir(dir.path())
            .args(arguments)
            .output()
            .expect("run");
        assert!(output.status.success(), "{}", shown(&output));
    };
    run("tar", &["cf", "a.tar", "a.mp4"]);
    fs::create_dir(dir.path().join("frames")).expect("made");
    run("ffmpeg", &["-v", "error", "-i", "a.mp4", "frames/%d.png"]);
    for data in ["a.tar", "frames"] {
        let out = format!("run-{data}");
        let arguments = [
            "run",
            "--config",
            "small.toml",
            "--steps",
            "2",
            "--data",
            data,
            "--out",
            &out,
        ];
        let output = trainer(dir.path(), &arguments);
        assert!(output.status.success(), "{}", shown(&output));
        assert_eq!(steps(&dir.path().join(out)).len(), 2);
    }
}
