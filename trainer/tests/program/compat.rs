//! Runs, shards, weights and configurations of version 0.1 (`tests/fixtures/v0.1`) still work, and
//! so does every flag of that version.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tests::{copy_all, shown};
use toml::{Table, Value};

/// Keys of configurations that have another name now: that of version 0.1, and the new one.
const RENAMED: [(&str, &str); 7] = [
    ("began_with", "init_from"),
    ("compute.recompute", "compute.gradient_checkpointing"),
    ("data.accumulate", "data.grad_accum"),
    ("data.holdout", "split.holdout"),
    ("data.repeat", "data.repeat_aug"),
    ("data.videos_per_class", "split.videos_per_class"),
    ("target.slices", "target.pred_frames"),
];

/// Relative difference of losses that other instructions of another CPU may make in a few steps.
const TOLERANCE: f64 = 1e-5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/v0.1")
}

/// What version 0.1 computed.
fn expected() -> Json {
    let text = fs::read(fixtures().join("expected.json")).expect("a fixture");
    serde_json::from_slice(&text).expect("JSON")
}

/// A temporary folder with copies of these fixtures.
fn with(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in names {
        copy_all(&fixtures().join(name), &dir.path().join(name));
    }
    dir
}

/// Runs `trainer` with these arguments, separated by spaces.
fn trainer(dir: &Path, arguments: &str) -> Output {
    crate::trainer(dir, &arguments.split_whitespace().collect::<Vec<_>>())
}

/// The same with `--json`, which succeeds; its report.
fn report(dir: &Path, arguments: &str) -> Json {
    let output = trainer(dir, &format!("{arguments} --json"));
    assert!(output.status.success(), "{arguments}: {}", shown(&output));
    serde_json::from_slice(&output.stdout).expect("the report's JSON")
}

/// The error of a command that fails.
fn refused(dir: &Path, arguments: &str) -> String {
    let output = trainer(dir, arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments}: {}",
        shown(&output)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every step that the run has logged.
fn metrics(run: &Path) -> Vec<Json> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a step"))
        .collect()
}

/// The losses of the run, a value a step.
fn losses(run: &Path) -> Vec<f64> {
    metrics(run)
        .iter()
        .map(|step| number(&step["loss"]))
        .collect()
}

/// The losses of the run's validations.
fn validation_losses(run: &Path) -> Vec<f64> {
    let steps = metrics(run);
    let validations = steps.iter().filter_map(|step| step.get("validation"));
    validations
        .filter(|validation| !validation.is_null())
        .map(|found| number(&found["loss"]))
        .collect()
}

fn number(value: &Json) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is a number"))
}

fn parse<T: DeserializeOwned>(value: &Json) -> T {
    serde_json::from_value(value.clone()).expect("a fixture")
}

fn assert_near(found: &[f64], expected: &[f64]) {
    let is_near =
        |(found, expected): (&f64, &f64)| (found - expected).abs() <= TOLERANCE * expected.abs();
    let all_near = found.len() == expected.len() && found.iter().zip(expected).all(is_near);
    assert!(all_near, "{found:?} instead of {expected:?}");
}

/// The configuration that a run has kept.
fn config(run: &Path) -> Table {
    table(&run.join("config.toml"))
}

fn table(path: &Path) -> Table {
    fs::read_to_string(path)
        .expect("a configuration")
        .parse()
        .expect("TOML")
}

/// The value of a key with its tables, as `data.batch_size`.
fn value<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((name, rest)) => value(table.get(name)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// The value of a key of version 0.1, by that name or by its new one.
fn setting<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let renamed = RENAMED.iter().find(|(old, _)| *old == key);
    value(table, key).or_else(|| value(table, renamed?.1))
}

/// All values of a configuration, with their keys.
fn leaves(table: &Table, above: &str) -> Vec<(String, Value)> {
    let leaves_of = |(name, value): (&String, &Value)| {
        let key = if above.is_empty() {
            name.clone()
        } else {
            format!("{above}.{name}")
        };
        match value {
            Value::Table(below) => leaves(below, &key),
            value => vec![(key, value.clone())],
        }
    };
    table.iter().flat_map(leaves_of).collect()
}

/// The configuration has all of these values, whose keys are those of version 0.1.
fn assert_settings(config: &Table, expected: &Table) {
    for (key, wanted) in leaves(expected, "") {
        assert_eq!(setting(config, &key), Some(&wanted), "{key}");
    }
}

/// The keys of a report, down to the last table: `looks.masked`.
fn keys(report: &Json, above: &str, found: &mut BTreeSet<String>) {
    match report {
        Json::Object(values) => {
            for (name, value) in values {
                let key = if above.is_empty() {
                    name.clone()
                } else {
                    format!("{above}.{name}")
                };
                keys(value, &key, found);
                found.insert(key);
            }
        }
        Json::Array(values) => values.iter().for_each(|value| keys(value, above, found)),
        _ => {}
    }
}

/// The report has all keys that version 0.1 gave it.
fn assert_keys(report: &Json, name: &str) {
    let mut found = BTreeSet::new();
    keys(report, "", &mut found);
    let wanted: BTreeSet<String> = parse(&expected()["keys"][name]);
    let missing: Vec<&String> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "{name} has no {missing:?}");
}

/// The name and the bytes of every file in a folder and below it.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn a_pretraining_that_was_killed_is_resumed() {
    let dir = with(&["shards", "pretrain"]);
    let run = dir.path().join("pretrain");
    let resumed = report(dir.path(), "run --out pretrain --data shards --resume");
    assert_eq!(
        (number(&resumed["resumed_from"]), number(&resumed["steps"])),
        (4.0, 8.0)
    );
    assert_near(
        &losses(&run),
        &parse::<Vec<f64>>(&expected()["pretrain"]["losses"]),
    );
    assert_keys(&resumed, "run");
    assert_keys(&metrics(&run)[7], "metrics of a pre-training");
    assert!(
        run.join("checkpoints/step-000008/model.safetensors")
            .is_file()
    );
    assert!(run.join("report.html").is_file() && run.join("curves.png").is_file());
}

#[test]
fn a_pretraining_is_resumed_with_the_flags_that_it_had() {
    let dir = with(&["shards", "pretrain"]);
    let resume = "run --out pretrain --data shards --resume";
    let before = contents(&dir.path().join("pretrain"));
    for (flag, key) in [
        ("--accumulate 3", "accumulate"),
        ("--repeat 3", "repeat"),
        ("--slices 1", "slices"),
        ("--steps 9", "schedule.length"),
        ("--set model.position_std=0.3", "position_std"),
        ("--preset tiny --set model.position_std=0.3", "position_std"),
    ] {
        let error = refused(dir.path(), &format!("{resume} {flag}"));
        let (old, new) = RENAMED
            .into_iter()
            .find(|(old, _)| old.ends_with(key))
            .unwrap_or((key, key));
        assert!(
            error.contains(old) || error.contains(new),
            "{flag}: {error}"
        );
    }
    assert!(
        contents(&dir.path().join("pretrain")) == before,
        "a refused command changes nothing"
    );
    let flags = "--accumulate 2 --repeat 2 --recompute --slices 2 --batch-size 2 --seed 5 \
                 --lr 0.32 --steps 8 --mask-kind tube --mask-ratio 0.75 --decoder-keep 0.5 \
                 --frames 8 --size 32 --tubelet 2 --target normalised --positions separable \
                 --class-token --crop-area 0.4,0.9 --flip 0.25 --on-nonfinite skip --dtype f32";
    let resumed = report(dir.path(), &format!("{resume} {flags}"));
    assert_eq!(number(&resumed["resumed_from"]), 4.0);
    let expected = parse::<Vec<f64>>(&expected()["pretrain"]["losses"]);
    assert_near(&losses(&dir.path().join("pretrain")), &expected);
}

#[test]
fn a_finetuning_that_was_killed_is_resumed() {
    // The weights that it began with are not there: the checkpoint has all that it takes.
    let dir = with(&["shards", "finetune"]);
    let run = dir.path().join("finetune");
    let resume = "finetune --out finetune --data shards --resume";
    let error = refused(dir.path(), &format!("{resume} --repeat 3"));
    assert!(error.contains("data.repeat"), "{error}");
    let flags = "--accumulate 2 --repeat 2 --recompute --batch-size 2 --seed 6 --lr 0.64 \
                 --steps 8 --holdout 0.34 --videos-per-class 1 --flip 0.25 --on-nonfinite skip \
                 --dtype f32";
    let resumed = report(dir.path(), &format!("{resume} {flags}"));
    assert_eq!(
        (number(&resumed["resumed_from"]), number(&resumed["steps"])),
        (4.0, 8.0)
    );
    let expected = &expected()["finetune"];
    assert_near(&losses(&run), &parse::<Vec<f64>>(&expected["losses"]));
    assert_near(
        &validation_losses(&run),
        &parse::<Vec<f64>>(&expected["validation"]),
    );
    assert_keys(&resumed, "finetune");
    assert_keys(&metrics(&run)[7], "metrics of a fine-tuning");
}

#[test]
fn a_finetuning_is_resumed_without_a_flag() {
    let dir = with(&["shards", "finetune"]);
    report(dir.path(), "finetune --out finetune --data shards --resume");
    let expected = parse::<Vec<f64>>(&expected()["finetune"]["losses"]);
    assert_near(&losses(&dir.path().join("finetune")), &expected);
}

#[test]
fn a_run_that_is_finished_is_not_trained_again() {
    let dir = with(&["shards", "finished"]);
    let run = dir.path().join("finished");
    let before = fs::read(run.join("metrics.jsonl")).expect("metrics");
    let checkpoints = contents(&run.join("checkpoints"));
    let resumed = report(dir.path(), "run --out finished --data shards --resume");
    assert_eq!(
        (number(&resumed["resumed_from"]), number(&resumed["steps"])),
        (2.0, 2.0)
    );
    assert_eq!(
        fs::read(run.join("metrics.jsonl")).expect("metrics"),
        before
    );
    assert!(
        contents(&run.join("checkpoints")) == checkpoints,
        "the checkpoints are the same"
    );
}

#[test]
fn the_configuration_file_of_a_pretraining_is_read() {
    let dir = with(&["shards", "pretrain.toml"]);
    report(
        dir.path(),
        "run --config pretrain.toml --data shards --out run",
    );
    let run = dir.path().join("run");
    assert_settings(&config(&run), &table(&dir.path().join("pretrain.toml")));
    assert_near(
        &losses(&run),
        &parse::<Vec<f64>>(&expected()["pretrain"]["losses"]),
    );
}

#[test]
fn the_configuration_file_of_a_finetuning_is_read() {
    let dir = with(&["shards", "finetune.toml", "pretrain"]);
    let weights = "--weights pretrain --data shards";
    report(
        dir.path(),
        &format!("finetune {weights} --config finetune.toml --out run"),
    );
    let found = config(&dir.path().join("run"));
    assert_settings(&found, &table(&dir.path().join("finetune.toml")));
    let init = setting(&found, "began_with")
        .and_then(Value::as_str)
        .expect("the weights' path");
    assert!(init.ends_with("pretrain/checkpoints/step-000004"), "{init}");
}

#[test]
fn a_configuration_that_a_run_has_kept_starts_another_one() {
    let dir = with(&["shards", "pretrain"]);
    report(
        dir.path(),
        "run --config pretrain/config.toml --data shards --out again",
    );
    let run = dir.path().join("again");
    assert_settings(
        &config(&run),
        &table(&fixtures().join("pretrain/config.toml")),
    );
    assert_near(
        &losses(&run),
        &parse::<Vec<f64>>(&expected()["pretrain"]["losses"]),
    );
}

#[test]
fn every_flag_of_a_pretraining_means_what_it_did() {
    let dir = with(&["shards"]);
    let flags = "--preset tiny --steps 2 --lr 0.01 --batch-size 3 --accumulate 2 --repeat 4 \
                 --seed 7 --on-nonfinite skip --device cpu --dtype bf16 --threads 1 --recompute \
                 --loader-threads 1 --loader-memory 64 --max-bad 3 --frames 4 --tubelet 2 \
                 --size 32 --mask-ratio 0.5 --mask-kind block --decoder-keep 0.75 \
                 --decoder-width 16 --decoder-depth 1 --decoder-heads 4 --target hog --slices 2 \
                 --positions joint --no-class-token --crop-area 0.3,0.9 --flip 0.125";
    report(
        dir.path(),
        &format!("run --data shards=2 --data shards=1 --out run {flags}"),
    );
    let expected = "
        seed = 7
        clip = { frames = 4, size = 32, tubelet = 2 }
        model = { positions = 'joint', class_token = false }
        decoder = { width = 16, depth = 1, heads = 4 }
        masking = { kind = 'block', ratio = 0.5, decoder_keep = 0.75 }
        target = { kind = 'hog', slices = 2, normalise = false }
        data = { batch_size = 3, accumulate = 2, repeat = 4, area = [0.3, 0.9], flip = 0.125 }
        optimizer = { base_lr = 0.01 }
        schedule = { length = { steps = 2 } }
        safety = { on_nonfinite = 'skip' }
        compute = { dtype = 'bf16', recompute = true }
    ";
    assert_settings(
        &config(&dir.path().join("run")),
        &expected.parse().expect("TOML"),
    );
}

#[test]
fn the_other_values_of_flags_mean_what_they_did() {
    let dir = with(&["shards"]);
    let small = "--data shards --frames 4 --size 32 --batch-size 18 --epochs 1";
    for (flags, expected) in [
        (
            "--mask-kind tube --target pixels",
            "masking.kind = 'tube'\ntarget.normalise = false",
        ),
        (
            "--mask-kind random --mask-ratio 0.75",
            "masking.kind = 'random'\nmasking.ratio = 0.75",
        ),
        (
            "--mask-kind frame --mask-ratio 0.5",
            "masking.kind = 'frame'\ntarget.kind = 'pixels'",
        ),
        (
            "--target normalised --class-token",
            "target.normalise = true\nmodel.class_token = true",
        ),
        (
            "--positions sinusoid --slices 1",
            "model.positions = 'sinusoid'\ntarget.slices = 1",
        ),
        (
            "--positions separable --flip 0",
            "model.positions = 'separable'\ndata.flip = 0.0",
        ),
        ("--dtype f32", "compute.dtype = 'f32'"),
        (
            "--on-nonfinite stop",
            "safety.on_nonfinite = 'stop'\ncompute.recompute = false",
        ),
        (
            "--repeat 1 --accumulate 1",
            "data.repeat = 1\ndata.accumulate = 1",
        ),
        (
            "--preset tiny",
            "schedule.length.epochs = 1.0\nencoder.width = 192",
        ),
    ] {
        let mask = if flags.contains("--mask-ratio") {
            ""
        } else {
            "--mask-ratio 0.75"
        };
        let out = flags.replace(' ', "");
        report(
            dir.path(),
            &format!("run {small} {mask} {flags} --out run{out}"),
        );
        let found = config(&dir.path().join(format!("run{out}")));
        assert_settings(&found, &expected.parse().expect("TOML"));
    }
}

#[test]
fn every_flag_of_a_finetuning_means_what_it_did() {
    let dir = with(&["shards", "val", "pretrain"]);
    let flags = "--recipe light --steps 2 --lr 0.01 --batch-size 3 --accumulate 2 --repeat 4 \
                 --seed 7 --on-nonfinite skip --flip 0.125 --device cpu --dtype bf16 --threads 1 \
                 --recompute --loader-threads 1 --loader-memory 64 --max-bad 3 \
                 --videos-per-class 2";
    let from = "finetune --weights pretrain --data shards=2";
    let trained = report(
        dir.path(),
        &format!("{from} --holdout 0.4 --out run {flags}"),
    );
    assert_eq!(
        number(&trained["validation"]["clips"]),
        6.0,
        "one video of three of each class"
    );
    let expected = "
        task = 'finetune'
        seed = 7
        classes = ['down', 'left', 'right']
        clip = { frames = 8, size = 32, tubelet = 2, patch = 8 }
        encoder = { width = 12, depth = 2, heads = 3 }
        recipe = { layer_decay = 0.75, drop_path = 0.1, mixup = 0.0, smoothing = 0.1 }
        optimizer = { base_lr = 0.01 }
        schedule = { length = { steps = 2 } }
        safety = { on_nonfinite = 'skip' }
        compute = { dtype = 'bf16', recompute = true }
        [data]
        batch_size = 3
        accumulate = 2
        repeat = 4
        flip = 0.125
        holdout = 0.4
        videos_per_class = 2
    ";
    assert_settings(
        &config(&dir.path().join("run")),
        &expected.parse().expect("TOML"),
    );

    let scratch = "finetune --from-scratch --preset tiny --recipe paper --data shards --val val";
    let trained = report(
        dir.path(),
        &format!("{scratch} --batch-size 9 --steps 1 --out scratch"),
    );
    assert_eq!(number(&trained["validation"]["clips"]), 3.0);
    let found = config(&dir.path().join("scratch"));
    assert_eq!(setting(&found, "began_with"), None);
    let expected = "data.repeat = 2\nrecipe.erasing = 0.25\nrecipe.rand_augment.operations = 2";
    assert_settings(&found, &expected.parse().expect("TOML"));

    let frozen = format!("{from} --val val --freeze --steps 2 --batch-size 6 --out probe");
    assert_keys(&report(dir.path(), &frozen), "probe");
}

#[test]
fn classifiers_are_evaluated() {
    let dir = with(&["shards", "finetune", "weights"]);
    for weights in ["finetune", "weights/classifier"] {
        let found = report(
            dir.path(),
            &format!("eval --weights {weights} --data shards"),
        );
        let expected = number(&expected()["eval"][weights]);
        assert_near(&[number(&found["clips"]["loss"])], &[expected]);
        assert_keys(&found, "eval");
    }
    let flags = "--views 2x2 --span clip --batch-size 5 --dtype bf16 --confusion confusion.png";
    let weights = "--weights finetune/checkpoints/step-000004 --data shards";
    report(dir.path(), &format!("eval {weights} {flags}"));
    assert!(dir.path().join("confusion.png").is_file());
}

#[test]
fn features_are_computed() {
    let dir = with(&["shards", "val", "pretrain", "finetune", "weights"]);
    for weights in [
        "pretrain",
        "finetune",
        "weights/autoencoder",
        "weights/classifier",
    ] {
        let data = "--data shards --data val --out features.parquet";
        let found = report(dir.path(), &format!("embed --weights {weights} {data}"));
        assert_eq!(number(&found["rows"]), 21.0, "{weights}");
    }
    let flags = "--per clip --tokens --query left-00001 --neighbours 2 --sheet nearest.png";
    let found = report(
        dir.path(),
        &format!("embed --weights pretrain --data shards {flags}"),
    );
    assert_keys(&found, "embed");
    assert!(dir.path().join("nearest.png").is_file());
    let per_video = "embed --weights pretrain --data shards --per video --views 2x1";
    assert_eq!(number(&report(dir.path(), per_video)["rows"]), 9.0);
}

#[test]
fn reconstructions_and_curves_are_drawn() {
    let dir = with(&["shards", "pretrain", "finetune", "finished", "weights"]);
    let flags = "--clip 3 --mask-ratio 0.5,0.75 --mask-kind random --contrast visible --seed 2 \
                 --fps 4 --out drawn";
    let drawn = report(
        dir.path(),
        &format!("visualise --weights pretrain --data shards {flags}"),
    );
    assert_keys(&drawn, "visualise");
    for file in ["strip.png", "animation.gif", "animation.mp4"] {
        assert!(dir.path().join("drawn").join(file).is_file(), "{file}");
    }
    report(
        dir.path(),
        "visualise --weights weights/autoencoder --data shards --out strip.png",
    );

    let curves = report(
        dir.path(),
        "curves pretrain finetune finished --html curves.html",
    );
    assert_keys(&curves, "curves");
    let steps: Vec<f64> = curves["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| number(&run["steps"]))
        .collect();
    assert_eq!(
        steps,
        ["pretrain", "finetune", "finished"].map(|run| losses(&fixtures().join(run)).len() as f64)
    );
    assert!(dir.path().join("curves.png").is_file() && dir.path().join("curves.html").is_file());
}

#[test]
fn weights_are_exported_and_imported() {
    let dir = with(&["shards", "pretrain", "finetune", "weights"]);
    for (weights, format) in [
        ("pretrain", "mae-st"),
        ("finetune", "mae-st"),
        ("finetune/checkpoints/step-000004", "pyslowfast"),
        ("weights/classifier", "pyslowfast"),
        ("weights/autoencoder", "videomae"),
        ("weights/autoencoder", "huggingface"),
    ] {
        let out = format!("{format}-of-{}", weights.replace('/', "-"));
        let export = format!("export {weights} --format {format} --out {out}");
        assert_keys(&report(dir.path(), &export), "export");
        let heads = "--heads 2 --decoder-heads 2 --frames 8 --size 32 --target normalised";
        let import = report(
            dir.path(),
            &format!("import {out} {heads} --out imported-{out}"),
        );
        assert_keys(&import, "import");
    }
    report(
        dir.path(),
        "finetune --weights weights/autoencoder --data shards --steps 1 --out run",
    );
}

/// What `study slices` is to do on the fixtures.
const STUDY: &str = "study slices --unlabelled shards --train shards --val val --out study \
                     --seeds 1 --pretrain-steps 2 --finetune-steps 2 --threads 2 \
                     --loader-threads 1 --loader-memory 64 --max-bad 3";

/// The losses of each of a study's runs: of the validation, and of the pre-training.
fn study_losses(report: &Json) -> Vec<f64> {
    let arms = report["arms"].as_array().expect("arms");
    let runs = arms
        .iter()
        .flat_map(|arm| arm["runs"].as_array().expect("runs"));
    runs.flat_map(|run| {
        [
            number(&run["validation_loss"]),
            number(&run["pretrain_loss"]),
        ]
    })
    .collect()
}

#[test]
fn a_study_goes_on_in_its_folder() {
    let dir = with(&["shards", "val", "study"]);
    let study = dir.path().join("study");
    let text = fs::read(study.join("slices.json")).expect("a report");
    let before: Json = serde_json::from_slice(&text).expect("JSON");

    // The configurations are those of the study; the checkpoints are missing: they are too large.
    let found = report(dir.path(), STUDY);
    assert_near(&study_losses(&found), &study_losses(&before));
    assert_keys(&found, "study");

    // Runs that are done are not done again, whichever version wrote their configurations.
    let runs = [
        "pretrain-base-0",
        "pretrain-slices-2-0",
        "finetune-base-256-2-0",
        "finetune-slices-2-256-2-0",
    ];
    let metrics =
        || runs.map(|run| fs::read(study.join(run).join("metrics.jsonl")).expect("metrics"));
    let trained = metrics();
    for run in runs {
        let config = Path::new(run).join("config.toml");
        copy_all(
            &fixtures().join("study").join(&config),
            &study.join(&config),
        );
    }
    let again = report(dir.path(), STUDY);
    assert!(metrics() == trained, "no run was trained again");
    assert_eq!(again, found);
    let table = fs::read_to_string(study.join("slices.md")).expect("a table");
    assert_eq!(table.lines().count(), 2 + 2);
}

#[test]
fn videos_are_trained_on_and_read() {
    let dir = with(&["videos", "pretrain.toml", "pretrain", "finetune"]);
    report(
        dir.path(),
        "run --config pretrain.toml --data videos --out live --steps 1",
    );
    let rows = |command: &str| number(&report(dir.path(), command)["rows"]);
    assert_eq!(
        rows("embed --weights pretrain --data videos --span video --views 2x1"),
        9.0
    );
    let at = "--data videos/left/left-00001.mp4 --at 1.5 --out strip.png";
    report(dir.path(), &format!("visualise --weights pretrain {at}"));
}

#[test]
fn loading_and_steps_are_measured() {
    let dir = with(&["shards", "pretrain.toml"]);
    let flags = "--consumer step --seconds 1 --preset tiny --config pretrain.toml --repeat 2";
    report(dir.path(), &format!("bench loader shards {flags}"));
    let flags = "--preset tiny --config pretrain.toml --batch-size 1 --recompute --steps 1";
    report(
        dir.path(),
        &format!("bench step {flags} --mask-ratio 0.75 --dtype f32 --threads 1"),
    );
    let flags = "--preset tiny --config pretrain.toml --steps 1 --batch-size 2 --data shards";
    report(dir.path(), &format!("bench sparsity {flags}"));
}
