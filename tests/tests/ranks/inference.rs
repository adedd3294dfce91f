//! Evaluation, features and probes: each rank takes a share of the clips, and rank 0 has one output.

use crate::{Work, ranks_of, wait_until};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use tests::{damage_clip, shown, signal};

/// Threads of each rank.
const THREADS: [&str; 4] = ["--threads", "1", "--loader-threads", "1"];

/// A pre-training of one step `pretrained`, a classifier `tuned`, and `labelled`, two of whose 22
/// clips are damaged.
fn models() -> Option<Work> {
    let work = Work::new()?;
    work.pretrain(1, "pretrained", &["--steps", "1"]);
    work.write_labelled("labelled", 11);
    let tune = [
        "finetune",
        "--weights",
        "pretrained",
        "--data",
        "labelled",
        "--out",
        "tuned",
        "--set",
        "schedule.length.steps=2",
    ];
    work.run(1, &[&tune[..], &THREADS].concat());
    let shard = work.path("labelled").join("shard-00000.parquet");
    [3, 16].iter().for_each(|&row| damage_clip(&shard, row));
    Some(work)
}

#[test]
fn an_evaluation_is_the_same_on_1_2_3_and_4_ranks() {
    let Some(work) = models() else { return };
    let reports = [1, 2, 3, 4].map(|ranks| {
        let eval = ["eval", "--weights", "tuned", "--data", "labelled", "--json"];
        let more = ["--views", "1x2", "--batch-size", "3"];
        let output = work.run(ranks, &[&eval[..], &more, &THREADS].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr.matches("warning: skipped").count(), 2, "{stderr}");
        let mut report: Value = serde_json::from_slice(&output.stdout).expect("one report");
        for name in ["seconds", "views_per_second"] {
            report.as_object_mut().expect("an object").remove(name);
        }
        report
    });
    assert_eq!(reports[0]["clips"]["clips"], 20);
    assert_eq!(reports[0]["skipped"], 2);
    assert!(reports[1..].iter().all(|other| *other == reports[0]));
}

#[test]
fn features_are_the_same_on_1_2_3_and_4_ranks() {
    let Some(work) = models() else { return };
    for more in [&["--tokens"][..], &["--per", "video", "--views", "1x3"]] {
        let files = [1, 2, 3, 4].map(|ranks| {
            let embed = ["embed", "--weights", "pretrained", "--data", "labelled"];
            let batch = ["--batch-size", "3"];
            work.run(ranks, &[&embed[..], more, &batch, &THREADS].concat());
            let file = work.path("features.parquet");
            let bytes = fs::read(&file).expect("features");
            fs::remove_file(file).expect("removed");
            bytes
        });
        assert!(
            files[1..].iter().all(|other| *other == files[0]),
            "{more:?}"
        );
    }
}

#[test]
fn probes_are_the_same_on_1_and_3_ranks() {
    let Some(work) = models() else { return };
    let classifiers = [1, 3].map(|ranks| {
        let out = format!("probe-{ranks}");
        let probe = ["finetune", "--freeze", "--weights", "pretrained"];
        let more = ["--data", "labelled", "--out", &out, "--json"];
        let output = work.run(ranks, &[&probe[..], &more, &THREADS].concat());
        let report: Value = serde_json::from_slice(&output.stdout).expect("one report");
        let classifier = report["classifier"].as_str().expect("a folder");
        let weights = work.path(classifier).join("model.safetensors");
        (
            fs::read(weights).expect("weights"),
            report["linear"].clone(),
        )
    });
    assert_eq!(classifiers[0], classifiers[1]);
}

#[test]
fn clips_that_are_bad_count_on_all_ranks_together() {
    let Some(work) = models() else { return };
    let embed = ["embed", "--weights", "pretrained", "--data", "labelled"];
    let few = [&embed[..], &["--max-bad", "1", "--batch-size", "2"]].concat();
    // Clip 16 on rank 0, clip 3 on rank 1.
    let output = work.command(2, &few).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let message = "error: 2 clips cannot be read, and at most 1 may be skipped (--max-bad)";
    assert_eq!(stderr.matches(message).count(), 1, "{stderr}");
    assert!(!work.path("features.parquet").exists());
}

#[test]
fn ranks_with_different_models_or_views_say_so() {
    let Some(work) = models() else { return };
    work.pretrain(1, "other", &["--steps", "1", "--seed", "5"]);
    let embed = |weights| ["embed", "--weights", weights, "--data", "labelled"];
    let views = [&embed("pretrained")[..], &["--views", "1x2"]].concat();
    for (other, message) in [
        (
            &embed("other")[..],
            "the model of rank 1 is not that of rank 0",
        ),
        (&views, "the configuration of rank 1 is not that of rank 0"),
    ] {
        let parts = [(1, &embed("pretrained")[..]), (1, other)];
        let output = work.commands(&parts).output().expect("started");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.matches(message).count(), 1, "{stderr}");
        assert!(!work.path("features.parquet").exists());
    }
}

#[test]
fn probes_of_different_data_are_refused() {
    let Some(work) = models() else { return };
    work.write_labelled("other", 12);
    let probe = |data| {
        [
            "finetune",
            "--freeze",
            "--weights",
            "pretrained",
            "--data",
            data,
        ]
    };
    let parts = [(1, &probe("labelled")[..]), (1, &probe("other")[..])];
    let output = work.commands(&parts).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let message = "the data of rank 1 is not that of rank 0";
    assert_eq!(stderr.matches(message).count(), 1, "{stderr}");
    assert!(!work.path("runs").exists());
}

#[test]
fn ctrl_c_on_one_rank_stops_the_inference_of_all() {
    let Some(work) = models() else { return };
    let embed = ["embed", "--weights", "pretrained", "--data", "labelled"];
    let long = [&embed[..], &["--views", "1x1000"], &THREADS].concat();
    let mut mpirun = work
        .command(2, &long)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // Its file, under another name until it is finished.
    wait_until(&mut mpirun, || {
        let entries = fs::read_dir(work.path(".")).expect("a folder");
        let mut names = entries.map(|entry| entry.expect("an entry").file_name());
        names.any(|name| name.to_string_lossy().contains("features.parquet"))
    });
    assert!(signal(ranks_of(&mpirun)[1], "INT"));
    let output = mpirun.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.matches("stopped; nothing").count(), 1, "{stderr}");
    assert!(!work.path("features.parquet").exists());
}
