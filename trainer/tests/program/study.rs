//! Studies as a user runs them, of one step each.

use crate::trainer;
use schemas::manifest::MANIFEST_FILE;
use schemas::report::StudyReport;
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
        accuracies(&footage, "pre-trained", "the task's, all"),
        accuracies(&labels, "pre-trained", "256")
    );
    let [any, few] =
        ["any", "the task's, as few"].map(|name| accuracies(&footage, "pre-trained", name));
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

#[test]
fn each_fold_of_real_footage_is_validated_on_once() {
    let dir = with_data();
    let on = |folds: &[&str]| {
        let folds = folds.iter().flat_map(|fold| ["--fold", fold]);
        let briefly = ["--pretrain-steps", "1", "--finetune-steps", "1", "--json"];
        let arguments: Vec<&str> = ["study", "slices"].into_iter().chain(folds).collect();
        trainer(dir.path(), &[&arguments[..], &briefly].concat())
    };
    // Of 4, 4 and 3 clips.
    let report = report(&on(&["s/unlabelled", "s/train", "s/val"]));
    let last_step = |run: &Path| -> serde_json::Value {
        let metrics: Vec<_> = tests::json_lines(&dir.path().join(run).join("metrics.jsonl"));
        metrics.into_iter().next_back().expect("a step")
    };
    for arm in &report.arms {
        let validated: Vec<(u64, u64)> = arm
            .runs
            .iter()
            .map(|run| {
                let clips = &last_step(Path::new(&run.dir))["validation"]["clips"];
                (run.seed, clips.as_u64().expect("a number"))
            })
            .collect();
        assert_eq!(validated, [(0, 4), (1, 4), (2, 3)], "{}", arm.name);
    }
    // The clips of the other folds are pre-trained on: 7, 7 and 8.
    let epochs = [0, 1, 2].map(|seed| {
        let run = Path::new("study").join(format!("pretrain-base-{seed}"));
        last_step(&run)["epoch"].as_f64().expect("a number")
    });
    assert!(
        (epochs[0] * 7.0 - epochs[2] * 8.0).abs() < 1e-9,
        "{epochs:?}"
    );
    assert_eq!(epochs[0], epochs[1]);

    let alone = on(&["s/train"]);
    assert_eq!(alone.status.code(), Some(1), "{}", shown(&alone));
    let message = "one fold leaves none to train on: give --fold at least twice";
    assert!(String::from_utf8_lossy(&alone.stderr).contains(message));
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
