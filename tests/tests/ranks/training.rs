//! The same bits on one rank and on several.

use crate::{PRETRAIN, Work, last_checkpoint};
use std::fs;
use tests::{damage_clip, json_lines};

#[test]
fn a_pre_training_is_the_same_on_1_2_4_and_8_ranks() {
    let Some(work) = Work::new() else { return };
    for dtype in ["f32", "bf16"] {
        let results = [1, 2, 4, 8].map(|ranks| {
            let out = format!("{dtype}-{ranks}");
            work.pretrain(ranks, &out, &["--dtype", dtype]);
            work.result(&out)
        });
        assert_eq!(results[0].1.len(), 6, "a line for each step");
        assert!(
            results[1..].iter().all(|other| *other == results[0]),
            "{dtype}"
        );
    }
    // Three ranks sum in another order.
    let three = [&PRETRAIN[..], &["--out", "three", "--batch-size", "48"]].concat();
    work.run(3, &three);
    let one = [&PRETRAIN[..], &["--out", "one", "--batch-size", "48"]].concat();
    work.run(1, &one);
    let (three, one) = (work.result("three").1, work.result("one").1);
    let differences = three.iter().zip(&one).map(|(three, one)| {
        let relative = |three: f64, one: f64| (three / one - 1.0).abs();
        relative(three.0, one.0).max(relative(three.1, one.1))
    });
    let differences: Vec<f64> = differences.collect();
    assert!(differences[0] < 1e-6, "{differences:?}");
    assert!(
        differences.iter().all(|&difference| difference < 1e-3),
        "{differences:?}"
    );
}

#[test]
fn a_fine_tuning_is_the_same_on_1_2_4_and_8_ranks() {
    let Some(work) = Work::new() else { return };
    work.write_labelled("labelled", 16);
    work.pretrain(1, "pretrained", &["--steps", "1"]);
    let results = [1, 2, 4, 8].map(|ranks| {
        let out = format!("tuned-{ranks}");
        let mut arguments = vec!["finetune", "--weights", "pretrained"];
        arguments.extend(["--data", "labelled", "--out", &out]);
        let settings = [
            "data.batch_size=16",
            "data.micro_batches=8",
            "recipe.mixup=0.8",
            "recipe.cutmix=1.0",
            "recipe.drop_path=0.2",
            "recipe.dropout=0.3",
            "schedule.length.steps=4",
            "validation.every=2",
        ];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        arguments.extend(["--threads", "1", "--loader-threads", "1"]);
        work.run(ranks, &arguments);
        let steps: Vec<serde_json::Value> = json_lines(&work.path(&out).join("metrics.jsonl"));
        let validations: Vec<serde_json::Value> = steps
            .iter()
            .map(|step| step["validation"].clone())
            .collect();
        assert!(
            validations[3]["clips"].as_u64() > Some(0),
            "{validations:?}"
        );
        (work.result(&out), validations)
    });
    assert!(results[1..].iter().all(|other| *other == results[0]));
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let Some(work) = Work::new() else { return };
    work.pretrain(2, "whole", &[]);
    for (first, then) in [(2, 4), (2, 1), (1, 8)] {
        let out = format!("{first}-{then}");
        work.pretrain(first, &out, &[]);
        // As if it had been killed after the first checkpoint.
        let run = work.path(&out);
        while last_checkpoint(&run) != run.join("checkpoints").join("step-000002") {
            fs::remove_dir_all(last_checkpoint(&run)).expect("removed");
        }
        work.pretrain(then, &out, &["--resume"]);
        assert_eq!(work.result(&out), work.result("whole"), "{out}");
    }
}

#[test]
fn clips_that_are_bad_on_one_rank_are_left_out_as_on_one() {
    let Some(work) = Work::new() else { return };
    let shard = work.path("b").join("shard-00000.parquet");
    for row in 0..9 {
        damage_clip(&shard, row);
    }
    let results = [1, 2, 8].map(|ranks| {
        let out = format!("bad-{ranks}");
        work.pretrain(ranks, &out, &["--data", "b=4"]);
        work.result(&out)
    });
    assert!(results[1..].iter().all(|other| *other == results[0]));
}

#[test]
fn a_loss_that_is_not_finite_stops_all_or_is_skipped_by_all() {
    let Some(work) = Work::new() else { return };
    let diverging = ["--lr", "1e30"];
    let stopped = [&PRETRAIN[..], &["--out", "stop"], &diverging].concat();
    let output = work.command(2, &stopped).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.matches("Nothing was changed").count(), 1, "{stderr}");
    let skipped = |ranks, out: &str| {
        work.pretrain(
            ranks,
            out,
            &[&diverging[..], &["--on-nonfinite", "skip"]].concat(),
        );
        let steps: Vec<serde_json::Value> = json_lines(&work.path(out).join("metrics.jsonl"));
        let records = fs::read(work.path(out).join("nonfinite.jsonl")).expect("records");
        (
            work.result_files(out),
            steps[5]["nonfinite"].clone(),
            records,
        )
    };
    let one = skipped(1, "skip-1");
    assert!(one.1.as_u64() > Some(0), "{:?}", one.1);
    assert_eq!(skipped(4, "skip-4"), one);
}
