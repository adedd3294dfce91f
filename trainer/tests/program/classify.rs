//! Fine-tuning, evaluation and features as a user runs them.

use crate::{command, messages, small_clips, steps, trainer};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::geometry::FrameSize;
use schemas::report::{EmbedReport, EvalReport, ProbeReport, RunReport};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tests::{
    TestClip, copy_all, parse_report, shown, signal, small_config, write_labelled_shards,
    write_shards, write_video,
};

/// What a fine-tuning changes of the light recipe to be over in no time.
const LIGHT: &str = "\
[data]
batch_size = 4
[checkpoints]
every = 5
[validation]
every = 10
";

fn json<T: DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    parse_report(&trainer(dir, &[arguments, &["--json"]].concat()))
}

/// The error of a command that fails.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = trainer(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let said = messages(&output);
    let at = said
        .rfind("error: ")
        .unwrap_or_else(|| panic!("no error: {said}"));
    said[at..].trim_end().to_owned()
}

/// Names of videos of a class, from `first` on.
fn videos<'a>(names: &'a [String], class: &'a str) -> Vec<(&'a str, &'a str)> {
    names
        .iter()
        .filter(|name| name.starts_with(class))
        .map(|name| (name.as_str(), class))
        .collect()
}

/// A folder with labelled shards in `train` and `val`, of other videos, and a short pre-training in
/// `pre`.
fn with_data() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let classes = ["dark", "medium", "bright"];
    for (folder, numbers) in [("train", 0..6), ("val", 10..13)] {
        let names: Vec<String> = classes
            .iter()
            .flat_map(|class| {
                numbers
                    .clone()
                    .map(move |number| format!("{class}-{number}"))
            })
            .collect();
        let videos: Vec<(&str, &str)> = classes
            .iter()
            .flat_map(|class| videos(&names, class))
            .collect();
        write_labelled_shards(&dir.path().join(folder), &classes, &videos);
    }
    fs::write(dir.path().join("small.toml"), small_config(2, 4)).expect("written");
    fs::write(dir.path().join("light.toml"), LIGHT).expect("written");
    let output = trainer(
        dir.path(),
        &[
            "run",
            "--data",
            "train",
            "--config",
            "small.toml",
            "--steps",
            "4",
            "--out",
            "pre",
        ],
    );
    assert!(output.status.success(), "{}", shown(&output));
    dir
}

/// A fine-tuning that learns dark from bright.
const FINETUNE: [&str; 12] = [
    "finetune",
    "--weights",
    "pre",
    "--data",
    "train",
    "--val",
    "val",
    "--config",
    "light.toml",
    "--lr",
    "0.1",
    "--epochs",
];

#[test]
fn a_classifier_learns_and_is_evaluated_on_every_clip() {
    let dir = with_data();
    let report: RunReport = json(
        dir.path(),
        &[&FINETUNE[..], &["25", "--out", "ft"]].concat(),
    );
    let validation = report.validation.expect("validation");
    assert_eq!(validation.clips, 18, "two clips of nine videos");
    assert!(
        validation.top1 > 0.75,
        "dark, medium and bright are classified: {validation:?}"
    );
    assert!(report.last_loss < report.first_loss);
    let steps = steps(&dir.path().join("ft"));
    let validated: Vec<u64> = steps
        .iter()
        .filter(|step| step.validation.is_some())
        .map(|step| step.step)
        .collect();
    assert!(
        validated.len() > 2
            && validated[..validated.len() - 1]
                .iter()
                .all(|step| step % 10 == 0),
        "every ten steps: {validated:?}"
    );
    assert_eq!(validated.last(), Some(&(steps.len() as u64)));

    // As the run's last validation; no clip is skipped, whatever the batches.
    let eval = ["eval", "--weights", "ft", "--data", "val"];
    let report: EvalReport = json(
        dir.path(),
        &[
            &eval[..],
            &["--batch-size", "5", "--confusion", "confusion.png"],
        ]
        .concat(),
    );
    assert_eq!(
        (report.clips.clips, report.videos.clips, report.skipped),
        (18, 9, 0)
    );
    assert_eq!(report.clips.top1, validation.top1);
    assert!(
        (report.clips.loss - validation.loss).abs() < 1e-6,
        "{} for {}",
        report.clips.loss,
        validation.loss
    );
    assert_eq!(
        report
            .classes
            .iter()
            .map(|class| class.name.as_str())
            .collect::<Vec<_>>(),
        ["dark", "medium", "bright"]
    );
    assert!(
        report
            .classes
            .iter()
            .all(|class| class.clips == 6 && class.videos == 3)
    );
    assert_eq!(report.confusion.iter().flatten().sum::<u64>(), 18);
    image::open(dir.path().join("confusion.png")).expect("a picture");
    for size in ["1", "18", "100"] {
        let other: EvalReport = json(dir.path(), &[&eval[..], &["--batch-size", size]].concat());
        assert_eq!(
            (&other.confusion, other.clips.loss),
            (&report.confusion, report.clips.loss),
            "batches of {size}"
        );
    }
    // Three crops of the only window there is.
    let output = trainer(
        dir.path(),
        &[&eval[..], &["--views", "4x3", "--json"]].concat(),
    );
    let crops: EvalReport = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((crops.views, crops.clips.clips), ([1, 3], 18));
    assert!(
        messages(&output).contains("there is one window instead of 4"),
        "{}",
        shown(&output)
    );

    // A clip that is damaged counts for nothing, and is named.
    copy_all(&dir.path().join("val"), &dir.path().join("damaged"));
    tests::damage_clip(&dir.path().join("damaged/shard-00000.parquet"), 4);
    let output = trainer(
        dir.path(),
        &["eval", "--weights", "ft", "--data", "damaged", "--json"],
    );
    let damaged: EvalReport = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((damaged.clips.clips, damaged.skipped), (17, 1));
    assert!(
        messages(&output).contains("warning: skipped: clip 4 of"),
        "{}",
        shown(&output)
    );
}

#[test]
fn an_interrupted_fine_tuning_ends_as_one_that_was_not() {
    let dir = with_data();
    let regularised = "\
[recipe]
drop_path = 0.2
dropout = 0.3
mixup = 0.8
cutmix = 1.0
erasing = 0.5
[recipe.rand_augment]
[data]
batch_size = 4
repeat = 2
accumulate = 2
[checkpoints]
every = 3
[validation]
every = 4
";
    fs::write(dir.path().join("regularised.toml"), regularised).expect("written");
    let run = [
        "finetune",
        "--weights",
        "pre",
        "--data",
        "train",
        "--holdout",
        "0.3",
        "--config",
        "regularised.toml",
        "--steps",
        "9",
    ];
    let whole: RunReport = json(
        dir.path(),
        &[&run[..], &["--out", "whole", "--threads", "1"]].concat(),
    );
    // As a kill leaves it: the last checkpoint is gone, metrics beyond it are there.
    let again: RunReport = json(
        dir.path(),
        &[&run[..], &["--out", "cut", "--loader-threads", "3"]].concat(),
    );
    assert_eq!(whole.validation, again.validation, "threads change nothing");
    fs::remove_dir_all(dir.path().join("cut/checkpoints/step-000009")).expect("removed");
    let resumed: RunReport = json(
        dir.path(),
        &["finetune", "--out", "cut", "--resume", "--data", "train"],
    );
    assert_eq!((resumed.resumed_from, resumed.steps), (6, 9));
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &str| {
            fs::read(
                dir.path()
                    .join(run)
                    .join("checkpoints/step-000009")
                    .join(file),
            )
            .expect("a checkpoint")
        };
        assert!(read("whole") == read("cut"), "{file} differs");
    }
    // Before its first checkpoint it begins anew, with the same weights.
    fs::remove_dir_all(dir.path().join("cut/checkpoints")).expect("removed");
    let anew: RunReport = json(
        dir.path(),
        &["finetune", "--out", "cut", "--resume", "--data", "train"],
    );
    assert_eq!((anew.resumed_from, anew.validation), (0, whole.validation));

    let other = refused(
        dir.path(),
        &[
            "finetune", "--out", "cut", "--resume", "--data", "train", "--lr", "0.5",
        ],
    );
    assert!(
        other.contains("was started with another configuration")
            && other.contains("optimizer.base_lr: 0.5, not "),
        "{other}"
    );
    let wrong = refused(
        dir.path(),
        &["run", "--out", "cut", "--resume", "--data", "train"],
    );
    assert!(
        wrong.contains("is a fine-tuning: resume it with `trainer finetune --out cut --resume`"),
        "{wrong}"
    );
    let wrong = refused(
        dir.path(),
        &["finetune", "--out", "pre", "--resume", "--data", "train"],
    );
    assert!(
        wrong.contains("is a pre-training: resume it with `trainer run --out pre --resume`"),
        "{wrong}"
    );
}

#[test]
fn bad_input_is_refused_by_name() {
    let dir = with_data();
    let finetune = |more: &[&str]| {
        refused(
            dir.path(),
            &[
                &["finetune", "--config", "light.toml", "--steps", "2"],
                more,
            ]
            .concat(),
        )
    };
    let with_weights = |data: &str, more: &[&str]| {
        finetune(&[&["--weights", "pre", "--data", data], more].concat())
    };
    let mut told = vec![
        finetune(&["--weights", "nowhere", "--data", "train"]),
        finetune(&["--weights", "train", "--data", "train"]),
        with_weights("train", &["--val", "train"]),
    ];
    // No labels; some; one class; classes that training does not know; a set that holds nothing of
    // a class.
    let clips = small_clips(6);
    let unlabelled: Vec<TestClip> = clips
        .iter()
        .filter(|clip| clip.meta.label.is_none())
        .cloned()
        .collect();
    write_shards(&dir.path().join("unlabelled"), &unlabelled);
    told.push(with_weights("unlabelled", &[]));
    write_shards(&dir.path().join("some"), &clips);
    told.push(with_weights("some", &[]));
    write_labelled_shards(
        &dir.path().join("others"),
        &["dark", "purple"],
        &[("x", "purple"), ("y", "dark")],
    );
    told.push(with_weights("train", &["--val", "others"]));
    let one = dir.path().join("one");
    write_labelled_shards(&one, &["dark", "bright"], &[("x", "dark"), ("y", "dark")]);
    let manifest = fs::read_to_string(one.join("manifest.json"))
        .expect("a manifest")
        .replace("\"dark\",\"bright\"", "\"dark\"");
    fs::write(one.join("manifest.json"), manifest).expect("written");
    told.push(with_weights("one", &[]));
    // Clips that are shorter than the model takes them.
    let short: Vec<TestClip> = (0..2)
        .map(|seed| TestClip::moving(2 * seed, 4, 40, 36))
        .collect();
    write_shards(&dir.path().join("short"), &short);
    told.push(with_weights("short", &[]));
    // A pre-training knows no classes.
    told.push(refused(
        dir.path(),
        &["eval", "--weights", "pre", "--data", "val"],
    ));
    told.push(refused(
        dir.path(),
        &[
            "embed",
            "--weights",
            "pre",
            "--data",
            "val",
            "--query",
            "no-such-video",
        ],
    ));
    told.push(refused(
        dir.path(),
        &[
            "embed",
            "--weights",
            "pre",
            "--data",
            "val",
            "--tokens",
            "--per",
            "video",
        ],
    ));
    // Checkpoints that were spoiled: of two the older is taken; if none is valid, the run ends.
    let checkpoint = |step: &str| {
        dir.path()
            .join("pre/checkpoints")
            .join(step)
            .join("model.safetensors")
    };
    let bytes = fs::read(checkpoint("step-000004")).expect("weights");
    fs::write(checkpoint("step-000004"), &bytes[..bytes.len() - 1]).expect("written");
    told.push(with_weights("train", &[]));
    told.push(finetune(&[
        "--weights",
        "pre/checkpoints/step-000004",
        "--data",
        "train",
    ]));
    insta::assert_snapshot!("bad-input", told.join("\n\n"));
    assert!(!dir.path().join("runs").exists(), "nothing was begun");
}

#[test]
fn a_class_with_a_single_video_is_trained_on_and_named() {
    let dir = with_data();
    write_labelled_shards(
        &dir.path().join("few"),
        &["dark", "bright"],
        &[("a", "dark"), ("b", "bright"), ("c", "bright")],
    );
    let arguments = [
        "finetune",
        "--weights",
        "pre",
        "--data",
        "few",
        "--config",
        "light.toml",
        "--steps",
        "2",
        "--out",
        "few-run",
    ];
    let output = trainer(dir.path(), &arguments);
    assert!(output.status.success(), "{}", shown(&output));
    let said = messages(&output);
    assert!(
        said.contains("2 classes; 4 clips of 2 videos to train on, 2 of 1 held out for validation"),
        "{said}"
    );
    assert!(
        said.contains("warning: only one video, so none held out for validation: dark"),
        "{said}"
    );
    // Classes may come from folders of videos, too, where these are evaluated.
    fs::create_dir_all(dir.path().join("videos/dark")).expect("a folder");
    fs::create_dir_all(dir.path().join("videos/purple")).expect("a folder");
    write_video(
        &dir.path().join("videos/dark/one.mp4"),
        1,
        40,
        30,
        FrameSize {
            width: 48,
            height: 32,
        },
    );
    let report: EvalReport = json(
        dir.path(),
        &[
            "eval",
            "--weights",
            "few-run",
            "--data",
            "videos",
            "--views",
            "3x1",
        ],
    );
    assert_eq!(
        (report.clips.clips, report.videos.clips, report.views),
        (1, 1, [3, 1]),
        "40 frames are ten of a clip: three windows of eight"
    );
    write_video(
        &dir.path().join("videos/purple/two.mp4"),
        2,
        40,
        30,
        FrameSize {
            width: 48,
            height: 32,
        },
    );
    let error = refused(
        dir.path(),
        &["eval", "--weights", "few-run", "--data", "videos"],
    );
    assert!(error.contains("have no label"), "{error}");
}

#[test]
fn probes_learn_on_features_that_stay() {
    let dir = with_data();
    let arguments = [
        "finetune",
        "--weights",
        "pre",
        "--data",
        "train",
        "--val",
        "val",
        "--freeze",
        "--out",
        "probe",
    ];
    let report: ProbeReport = json(dir.path(), &arguments);
    for scores in [&report.linear, &report.attentive] {
        assert_eq!(
            (scores.train.clips, scores.validation.expect("clips").clips),
            (36, 18)
        );
        assert!(scores.validation.expect("clips").top1 > 0.8, "{report:?}");
    }
    // The linear probe is a classifier: the same head on the same features.
    let eval: EvalReport = json(
        dir.path(),
        &["eval", "--weights", &report.classifier, "--data", "val"],
    );
    let validation = report.linear.validation.expect("clips");
    assert_eq!(eval.clips.top1, validation.top1);
    assert!(
        (eval.clips.loss - validation.loss).abs() < 1e-4,
        "{} for {}",
        eval.clips.loss,
        validation.loss
    );
    // And the encoder is the one that it was.
    let features = |weights: &str, out: &str| {
        let _: EmbedReport = json(
            dir.path(),
            &["embed", "--weights", weights, "--data", "val", "--out", out],
        );
        fs::read(dir.path().join(out)).expect("features").len()
    };
    assert!(features("pre", "a.parquet").abs_diff(features("probe/linear", "b.parquet")) < 200);
    let rows = |file: &str| feature_rows(&read(&dir.path().join(file)));
    assert_eq!(rows("a.parquet"), rows("b.parquet"));
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file"))
        .expect("Parquet")
        .build()
        .expect("a reader");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

fn feature_rows(rows: &RecordBatch) -> Vec<Vec<f32>> {
    let column = rows
        .column_by_name("feature")
        .expect("features")
        .as_fixed_size_list();
    (0..rows.num_rows())
        .map(|row| {
            column
                .value(row)
                .as_primitive::<Float32Type>()
                .values()
                .to_vec()
        })
        .collect()
}

#[test]
fn ctrl_c_ends_inference_and_leaves_no_file() {
    let dir = with_data();
    // More views than anybody waits for.
    let embed = [
        "embed",
        "--weights",
        "pre",
        "--data",
        "val",
        "--views",
        "1x1000",
        "--out",
        "f.parquet",
    ];
    let mut child = command(dir.path(), &embed)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let files = || {
        fs::read_dir(dir.path())
            .expect("a folder")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("f.parquet"))
            .count()
    };
    while files() == 0 && child.try_wait().expect("a state").is_none() {
        std::thread::yield_now();
    }
    assert!(signal(child.id(), "INT"));
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    assert!(
        messages(&output).contains("stopped; nothing was written"),
        "{}",
        shown(&output)
    );
    assert_eq!(files(), 0, "no part of a file is left");
}

#[test]
fn features_have_a_row_a_clip_or_a_video() {
    let dir = with_data();
    let embed = ["embed", "--weights", "pre", "--data", "val"];
    let report: EmbedReport = json(
        dir.path(),
        &[
            &embed[..],
            &[
                "--out",
                "clips.parquet",
                "--tokens",
                "--query",
                "dark-11",
                "--neighbours",
                "3",
            ],
        ]
        .concat(),
    );
    assert_eq!(
        (report.rows, report.width, report.tokens, report.skipped),
        (18, 24, 4 * 16, 0)
    );
    let rows = read(&dir.path().join("clips.parquet"));
    let text = |name: &str, row: usize| {
        rows.column_by_name(name)
            .expect("a column")
            .as_string::<i32>()
            .value(row)
            .to_owned()
    };
    assert_eq!(
        (text("video", 5), text("class", 5), text("class", 17)),
        (
            "dark-12.mp4".to_owned(),
            "dark".to_owned(),
            "bright".to_owned()
        )
    );
    assert_eq!(
        rows.column_by_name("clip")
            .expect("a column")
            .as_primitive::<UInt32Type>()
            .value(5),
        1
    );
    assert_eq!(
        rows.column_by_name("label")
            .expect("a column")
            .as_primitive::<Int32Type>()
            .value(17),
        2
    );
    let last = rows
        .column_by_name("last_second")
        .expect("a column")
        .as_primitive::<Float64Type>()
        .value(0);
    assert!((last - 7.0 * 0.133_333).abs() < 1e-3, "{last}");
    let tokens = rows
        .column_by_name("tokens")
        .expect("tokens")
        .as_fixed_size_list();
    assert_eq!(tokens.value(0).len(), 64 * 24);

    // The nearest clips are of other videos, and there is a picture.
    let [query] = report.queries.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(
        (query.query.video.as_str(), query.nearest.len()),
        ("dark-11.mp4", 3)
    );
    assert!(query.nearest.iter().all(|near| near.video != "dark-11.mp4"));
    assert!(
        query
            .nearest
            .windows(2)
            .all(|pair| pair[0].similarity >= pair[1].similarity)
    );
    image::open(dir.path().join("clips.png")).expect("a picture");

    let report: EmbedReport = json(
        dir.path(),
        &[&embed[..], &["--out", "videos.parquet", "--per", "video"]].concat(),
    );
    assert_eq!(report.rows, 9);
    let pooled = read(&dir.path().join("videos.parquet"));
    assert!(pooled.column_by_name("clip").expect("a column").is_null(0));
    let (of_clips, of_videos) = (feature_rows(&rows), feature_rows(&pooled));
    for (at, of_video) in of_videos.iter().enumerate() {
        for (value, (a, b)) in of_video
            .iter()
            .zip(of_clips[2 * at].iter().zip(&of_clips[2 * at + 1]))
        {
            assert!(
                (value - f32::midpoint(*a, *b)).abs() < 1e-5,
                "the mean of the video's clips"
            );
        }
    }

    // A video that is not among the data can be asked about; it is no row.
    write_video(
        &dir.path().join("stranger.mp4"),
        7,
        40,
        30,
        FrameSize {
            width: 48,
            height: 32,
        },
    );
    let report: EmbedReport = json(
        dir.path(),
        &[
            &embed[..],
            &["--out", "more.parquet", "--query", "stranger.mp4"],
        ]
        .concat(),
    );
    assert_eq!(
        (report.rows, report.queries[0].query.video.as_str()),
        (18, "stranger.mp4")
    );
    // Videos need no shards.
    let report: EmbedReport = json(
        dir.path(),
        &[
            "embed",
            "--weights",
            "pre",
            "--data",
            "stranger.mp4",
            "--out",
            "live.parquet",
        ],
    );
    assert_eq!(report.rows, 1);
}
