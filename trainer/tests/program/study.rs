//! Studies as a user runs them, of one step each.

use crate::trainer;
use schemas::manifest::MANIFEST_FILE;
use schemas::report::{EvalReport, StudyReport};
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tests::{TestClip, shown, write_shards};

/// Folders of shards that a study takes: `s/unlabelled`, `s/train` and `s/val`, of two classes.
fn with_data() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let classes = ["even", "odd"];
    for (folder, seeds) in [("unlabelled", 0..4), ("train", 10..14), ("val", 20..23)] {
        let clips: Vec<TestClip> = seeds
            .map(|seed| {
                let mut clip = TestClip::moving(seed, 16, 64, 64);
                let label = seed as usize % 2;
                (clip.meta.label, clip.meta.class) =
                    (Some(label as i32), Some(classes[label].to_owned()));
                clip.meta.video_blake3 = format!("hash of {seed}");
                clip
            })
            .collect();
        let shards = dir.path().join("s").join(folder);
        let mut manifest = write_shards(&shards, &clips);
        manifest.classes = classes.map(str::to_owned).to_vec();
        fs::write(
            shards.join(MANIFEST_FILE),
            serde_json::to_vec(&manifest).expect("JSON"),
        )
        .expect("written");
    }
    dir
}

fn study(dir: &Path, arguments: &[&str]) -> Output {
    let briefly = [
        "--seeds",
        "2",
        "--pretrain-steps",
        "1",
        "--finetune-steps",
        "1",
    ];
    trainer(dir, &[&["study"], arguments, &briefly].concat())
}

fn report(output: &Output) -> StudyReport {
    tests::parse_report(output)
}

#[test]
fn runs_are_shared_kept_and_not_done_again() {
    let dir = with_data();
    let labels = report(&study(dir.path(), &["labels", "--json"]));
    assert_eq!(labels.arms.len(), 9, "three ways to begin, three budgets");
    for arm in &labels.arms {
        assert_eq!(
            arm.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
            [0, 1],
            "{} {}",
            arm.series,
            arm.name
        );
        assert_eq!(
            arm.runs.iter().all(|run| run.pretrain_loss.is_some()),
            arm.series == "pre-trained"
        );
        assert!(
            arm.runs
                .iter()
                .all(|run| (0.0..=1.0).contains(&run.top1) && run.validation_loss.is_finite())
        );
    }
    let table = fs::read_to_string(dir.path().join("study/labels.md")).expect("a table");
    assert_eq!(table.lines().count(), 2 + 9);
    image::open(dir.path().join("study/labels.png")).expect("a picture");

    // What another study has in common with it is there: the pre-training, and the fine-tuning
    // after it. A run that is done again takes other times.
    let metrics = |run: &str| {
        fs::read_to_string(dir.path().join("study").join(run).join("metrics.jsonl"))
            .expect("metrics")
    };
    let runs = ["pretrain-base-0", "finetune-base-256-1-1"];
    let before = runs.map(metrics);
    let footage = report(&study(
        dir.path(),
        &["footage", "--other", "s/val", "--json"],
    ));
    assert_eq!(runs.map(metrics), before);
    let accuracies = |report: &StudyReport, series: &str, name: &str| -> Vec<f64> {
        let arm = report
            .arms
            .iter()
            .find(|arm| arm.series == series && arm.name == name)
            .expect("the arm");
        arm.runs.iter().map(|run| run.validation_loss).collect()
    };
    assert_eq!(
        accuracies(&footage, "fine-tuned", "the task's, all"),
        accuracies(&labels, "pre-trained", "256")
    );
    let [any, few] =
        ["any", "the task's, as few"].map(|name| accuracies(&footage, "fine-tuned", name));
    assert_ne!(any, accuracies(&labels, "pre-trained", "256"));
    assert_ne!(
        few,
        accuracies(&labels, "pre-trained", "256"),
        "three clips, not four"
    );
    assert_ne!(any, few);

    // What is missing is done again, to the same end, also when runs take place side by side.
    for run in [
        "finetune-scratch-64-1-1",
        "pretrain-base-0",
        "finetune-base-16-1-0",
    ] {
        fs::remove_dir_all(dir.path().join("study").join(run)).expect("removed");
    }
    let again = report(&study(dir.path(), &["labels", "--jobs", "3", "--json"]));
    for (series, name) in [("from scratch", "64"), ("pre-trained", "16")] {
        assert_eq!(
            accuracies(&again, series, name),
            accuracies(&labels, series, name)
        );
    }
}

/// The names of the videos that each run of an arm was validated on.
fn validated(report: &StudyReport) -> Vec<Vec<Vec<String>>> {
    let of_run = |run: &schemas::report::StudyRun| {
        let videos = run.videos.iter().map(|video| video.video.clone());
        videos.collect()
    };
    let arms = report.arms.iter();
    arms.map(|arm| arm.runs.iter().map(of_run).collect())
        .collect()
}

/// Studies real footage, in runs of a step or two.
fn study_folds(dir: &Path, arguments: &[&str]) -> Output {
    let briefly = ["--pretrain-steps", "2", "--finetune-steps", "1", "--json"];
    trainer(dir, &[&["study"], arguments, &briefly].concat())
}

#[test]
fn each_block_of_real_footage_is_validated_on_once() {
    let dir = with_data();
    let probes = report(&study_folds(
        dir.path(),
        &["probes", "--data", "s/train", "--folds", "2"],
    ));
    // Four videos, two of each class: the first of each is in the first fold.
    let folds = [
        ["video-10.mp4", "video-11.mp4"],
        ["video-12.mp4", "video-13.mp4"],
    ];
    let of_arm: Vec<Vec<String>> = folds
        .iter()
        .map(|fold| fold.map(str::to_owned).to_vec())
        .collect();
    assert_eq!(validated(&probes), vec![of_arm; 4]);
    let series: Vec<(&str, &str)> = probes
        .arms
        .iter()
        .map(|arm| (&*arm.series, &*arm.name))
        .collect();
    assert_eq!(
        series,
        [
            ("linear probe", "random"),
            ("linear probe", "pre-trained"),
            ("attentive probe", "random"),
            ("attentive probe", "pre-trained"),
        ]
    );
    let losses = |at: usize| -> Vec<f64> {
        let runs = probes.arms[at].runs.iter();
        runs.map(|run| run.validation_loss).collect()
    };
    for (random, trained) in [(0, 1), (2, 3)] {
        assert_ne!(losses(random), losses(trained), "another encoder");
    }
    // The encoder that is called random has its initial values: those of another seed differ.
    let [first, second] = [0, 1].map(|seed| {
        let run = format!("study/pretrain-random-{seed}/metrics.jsonl");
        let steps: Vec<serde_json::Value> = tests::json_lines(&dir.path().join(run));
        assert_eq!(steps[0]["lr"], 0.0);
        steps.len()
    });
    assert_eq!((first, second), (1, 1));
    for arm in &probes.arms {
        let difference = arm.difference.as_ref();
        assert_eq!(difference.is_some(), arm.name == "pre-trained");
    }
    image::open(dir.path().join("study/probes-confusion.png")).expect("a picture");
}

#[test]
fn splits_of_a_list_are_folds() {
    let dir = with_data();
    let clips: Vec<TestClip> = (0..6)
        .map(|seed| {
            let mut clip = TestClip::moving(seed, 16, 64, 64);
            let label = seed as usize % 2;
            (clip.meta.label, clip.meta.class) =
                (Some(label as i32), Some(["a", "b"][label].to_owned()));
            clip.meta.video_blake3 = format!("hash of {seed}");
            clip.meta.split = Some(format!("part{}", 2 - seed / 2));
            clip
        })
        .collect();
    let shards = dir.path().join("folds");
    let mut manifest = write_shards(&shards, &clips);
    manifest.classes = vec!["a".to_owned(), "b".to_owned()];
    let json = serde_json::to_vec(&manifest).expect("JSON");
    fs::write(shards.join(MANIFEST_FILE), json).expect("written");
    let found = report(&study_folds(
        dir.path(),
        &[
            "footage", "--data", "folds", "--other", "s/val", "--seeds", "2",
        ],
    ));
    let of_arm: Vec<Vec<String>> = [[4, 5], [2, 3]]
        .iter()
        .map(|fold| fold.map(|seed| format!("video-{seed}.mp4")).to_vec())
        .collect();
    let names: Vec<&str> = found.arms.iter().map(|arm| &*arm.name).collect();
    let pretrained_on = ["nothing", "other", "the task's", "both"];
    assert_eq!(names, [pretrained_on; 3].concat());
    assert_eq!(validated(&found), vec![of_arm; names.len()]);
    // Each encoder is compared with one that is not pre-trained, in the same evaluation.
    for arm in &found.arms {
        let compared = arm.difference.as_ref().map(|difference| &*difference.from);
        assert_eq!(compared, (arm.name != "nothing").then_some("nothing"));
    }
    // Other footage has no folds: all seeds share its pre-training.
    let is_there = |run: &str| dir.path().join("study").join(run).exists();
    assert!(is_there("pretrain-other-0") && !is_there("pretrain-other-1"));
    assert!(is_there("pretrain-both-1"));
    assert!(is_there("probe-random-all-1"));
}

#[test]
fn a_pretraining_is_evaluated_several_times() {
    let dir = with_data();
    let once = [
        "order", "--data", "s/train", "--folds", "2", "--seeds", "1", "--flip", "0",
    ];
    let twice = [&once[..], &["--repeats", "2"]].concat();
    let [once, twice] = [&once[..], &twice].map(|arguments| {
        let found = report(&study_folds(dir.path(), arguments));
        let table = fs::read_to_string(dir.path().join("study/order.md")).expect("a table");
        // One run has no deviation.
        assert_eq!(table.contains('±'), found.arms[0].runs.len() > 1, "{table}");
        found.arms
    });
    assert_eq!(once.len(), twice.len());
    for (once, twice) in once.iter().zip(&twice) {
        let [first, second] = &twice.runs[..] else {
            panic!("{twice:?}");
        };
        assert_eq!([first], [&once.runs[0]], "the run that was there");
        assert_eq!((second.seed, second.repeat), (first.seed, 1));
        assert_ne!(second.validation_loss, first.validation_loss);
        assert_eq!(second.pretrain_seconds, first.pretrain_seconds);
    }
}

#[test]
fn the_order_of_frames_is_a_control() {
    let dir = with_data();
    let found = report(&study_folds(
        dir.path(),
        &[
            "order", "--data", "s/train", "--folds", "2", "--seeds", "1", "--flip", "0",
        ],
    ));
    let losses: Vec<f64> = found
        .arms
        .iter()
        .map(|arm| arm.runs[0].validation_loss)
        .collect();
    let [time, shuffled, single] = losses[..] else {
        panic!("{losses:?}");
    };
    assert_ne!(time, shuffled);
    assert_ne!(time, single);
    // A classifier is evaluated with the order that it was trained with.
    for (run, loss) in [("1", time), ("1-shuffled", shuffled), ("1-single", single)] {
        let weights = format!("study/finetune-base-all-{run}-0");
        let of_fold = "video = 'video-10.mp4' or video = 'video-11.mp4'";
        let of_fold = [
            "--data", "s/train", "--where", of_fold, "--dtype", "bf16", "--json",
        ];
        let eval = [&["eval", "--weights", &weights], &of_fold[..]].concat();
        let found: EvalReport = tests::parse_report(&trainer(dir.path(), &eval));
        assert_eq!(found.videos.clips, 2);
        let off = (found.videos.loss - loss).abs();
        assert!(off < 1e-6, "{run}: {} for {loss}", found.videos.loss);
    }
    let config = |run: &str| {
        let path = dir.path().join("study").join(run).join("config.toml");
        fs::read_to_string(path).expect("a configuration")
    };
    let single = config("finetune-base-all-1-single-0");
    assert!(single.contains("frame_order = \"single\""), "{single}");
    for config in [single, config("pretrain-base-0")] {
        assert!(config.contains("flip = 0.0"), "{config}");
    }
}

#[test]
fn studies_of_one_command_share_runs() {
    let dir = with_data();
    let data = ["--data", "s/train", "--folds", "2", "--jobs", "2"];
    let output = study_folds(dir.path(), &[&["order", "probes"], &data[..]].concat());
    let found: Vec<StudyReport> = tests::parse_report(&output);
    let names: Vec<&str> = found.iter().map(|report| &*report.name).collect();
    assert_eq!(names, ["order", "probes"]);
    // Two pre-trainings and six fine-tunings; two random encoders, and two times two probes.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("run 14 of 14: "), "{said}");
    // As each of them alone, whose runs are all there.
    for report_of_both in found {
        let name = report_of_both.name.as_str();
        let alone = report(&study_folds(dir.path(), &[&[name], &data[..]].concat()));
        assert_eq!(validated(&alone), validated(&report_of_both));
        let losses = |report: &StudyReport| -> Vec<f64> {
            let runs = report.arms.iter().flat_map(|arm| &arm.runs);
            runs.map(|run| run.validation_loss).collect()
        };
        assert_eq!(losses(&alone), losses(&report_of_both));
    }
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let dir = with_data();
    let said = |arguments: &[&str]| {
        let output = study(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let other = said(&["footage"]);
    assert!(
        other.contains("the study of footage needs other footage to pre-train on: --other"),
        "{other}"
    );
    assert!(
        !dir.path().join("study").exists(),
        "nothing was computed before"
    );
    report(&study(dir.path(), &["slices", "--json"]));
    // Nor is one of runs on other data.
    let other = said(&["slices", "--unlabelled", "s/train"]);
    assert!(
        other.contains(
            "pretrain-base-0: the run was started with other data, of 4 clips, and this has 4"
        ),
        "{other}"
    );
    let real = said(&["real"]);
    assert!(
        real.contains("without --other, the study of footage is left out"),
        "{real}"
    );
    assert!(
        real.contains("the studies of real footage need labelled shards: --data;"),
        "{real}"
    );
    // A finished evaluation is of its own clips, too, where there is no pre-training to say so.
    let order = [
        "order", "--data", "s/train", "--folds", "2", "--seeds", "1", "--out", "o",
    ];
    report(&study_folds(dir.path(), &order));
    fs::remove_dir_all(dir.path().join("o/pretrain-base-0")).expect("removed");
    let order = order.map(|argument| {
        if argument == "s/train" {
            "s/unlabelled"
        } else {
            argument
        }
    });
    let changed = study_folds(dir.path(), &order);
    assert_eq!(changed.status.code(), Some(1), "{}", shown(&changed));
    let changed = String::from_utf8_lossy(&changed.stderr).into_owned();
    assert!(
        changed.contains("holds a run on other data; choose another --out"),
        "{changed}"
    );
    let few = said(&["slices", "--data", "s/train", "--folds", "3"]);
    assert!(
        few.contains("too few videos for 3 folds: give fewer with --folds"),
        "{few}"
    );
    let unknown = said(&["size"]);
    assert!(
        unknown.contains("the studies are labels, probes, order,"),
        "{unknown}"
    );
    fs::remove_dir_all(dir.path().join("s/train")).expect("removed");
    let missing = said(&["slices"]);
    assert!(missing.contains("s/train"), "{missing}");
    // A folder of runs of other settings is not mixed with.
    let config = dir.path().join("study/pretrain-base-0/config.toml");
    let changed = fs::read_to_string(&config)
        .expect("a configuration")
        .replace("ratio = 0.75", "ratio = 0.8");
    fs::write(&config, changed).expect("written");
    fs::rename(dir.path().join("s/val"), dir.path().join("s/train")).expect("moved");
    let mixed = said(&["slices", "--val", "s/train", "--train", "s/train"]);
    assert!(
        mixed.contains(
            "pretrain-base-0 holds a run of other settings: masking.ratio: 0.75, \
                            not 0.8; choose another --out"
        ),
        "{mixed}"
    );
}
