//! Every command but those of classifiers as a user runs it.

use crate::{command, messages, steps, trainer, with_shards};
use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::DecodeOptions;
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::report::{
    CurvesReport, ExchangeReport, LoaderReport, OperationFigures, RunReport, SparsityReport,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::{
    TestClip, children, has_ended, parse_report, shown, signal, small_config, write_shards,
};

/// The report of a run.
fn json(output: &Output) -> RunReport {
    parse_report(output)
}

/// Compares with the snapshot; what differs from run to run is replaced.
fn assert_shown(name: &str, output: &Output) {
    insta::with_settings!({ filters => vec![
        (r"\d+\.\d+ clips/s", "[SPEED]"),
        (r"\d+\.\d+ % of the time", "[SHARE] of the time"),
        (r"peak memory \d+ MB", "peak memory [MEMORY]"),
        (r"\d+ % waiting", "[SHARE] waiting"),
        (r"\d\d:\d\d:\d\d left", "[TIME] left"),
        // Losses depend on the machine's arithmetic.
        (r"loss \d+\.\d{4}", "loss [LOSS]"),
        (r"\d+\.\d{4} over", "[LOSS] over"),
        (r"grad norm \d+\.\d{3}", "grad norm [NORM]"),
        (r" +\n", "\n"),
    ] }, { insta::assert_snapshot!(name, shown(output)) });
}

#[test]
fn urls_that_cannot_be_used_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let local = "give a path in the local file system";
    for (arguments, expected) in [
        (&["run", "--data", "ftp://bucket/x"][..], "is not supported"),
        (&["run", "--data", "gs://=2"], "write gs://bucket/key"),
        (&["run", "--out", "s3://bucket/x"], local),
        (&["run", "--data", "s3://b/x", "--cache", "s3://b/x"], local),
        (
            &["embed", "--weights", "w", "--out", "s3://bucket/x.parquet"],
            local,
        ),
    ] {
        let said = trainer(dir.path(), arguments);
        let refused = said.status.code() == Some(1) && shown(&said).contains(expected);
        assert!(refused, "{arguments:?}: {}", shown(&said));
    }
    assert_eq!(
        fs::read_dir(dir.path()).expect("listed").count(),
        0,
        "nothing was made"
    );
}

#[test]
fn an_unknown_instruction_set_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = command(dir.path(), &["bench", "step", "--preset", "tiny"])
        .env("INSTRUCTION_SET", "avx9")
        .output()
        .expect("run");
    assert_shown("unknown-instruction-set", &output);
}

#[test]
fn every_command_has_help() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_shown("help", &trainer(dir.path(), &["--help"]));
    let commands: [&[&str]; 10] = [
        &["run"],
        &["curves"],
        &["finetune"],
        &["eval"],
        &["embed"],
        &["visualise"],
        &["import"],
        &["export"],
        &["bench", "loader"],
        &["bench", "sparsity"],
    ];
    for command in commands {
        assert_shown(
            &format!("help-{}", command.join("-")),
            &trainer(dir.path(), &[command, &["--help"]].concat()),
        );
    }
}

#[test]
fn a_run_leaves_all_that_it_promises() {
    let dir = with_shards(5, 4);
    assert_shown(
        "run",
        &trainer(
            dir.path(),
            &["run", "--config", "small.toml", "--steps", "5"],
        ),
    );
    let run = dir.path().join("runs/tiny-1");
    let metrics = steps(&run);
    assert_eq!(
        metrics.iter().map(|step| step.step).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(
        metrics.iter().all(|step| step.loss.is_finite()
            && step.grad_norm > 0.0
            && step.clips_per_second > 0.0)
    );
    let weights = candle_core::safetensors::load(
        run.join("checkpoints/step-000005/model.safetensors"),
        &candle_core::Device::Cpu,
    );
    assert_eq!(
        weights.expect("weights")["patch_embed.proj.weight"].dims(),
        [24, 3, 2, 8, 8]
    );
    let picture = image::open(run.join("reconstruction.png")).expect("a picture");
    // Three clips of four rows; four predicted frames of 32 pixels, with gaps of 2.
    assert_eq!(
        (picture.width(), picture.height()),
        (4 * 34 - 2, 12 * 34 - 2)
    );
    assert!(image::open(run.join("curves.png")).is_ok_and(|curves| curves.width() > 1000));
    let page = fs::read_to_string(run.join("report.html")).expect("a report");
    let config = fs::read_to_string(run.join("config.toml")).expect("a configuration");
    assert!(
        page.contains("<h1>tiny-1</h1>")
            && page.contains(&config.replace('"', "&quot;"))
            && page.contains("the frames")
    );
    assert_eq!(
        page.matches("base64,").count(),
        2,
        "curves and reconstruction"
    );
    assert_eq!(
        fs::read_dir(run.join("tensorboard"))
            .expect("a folder")
            .count(),
        1
    );

    // The next run gets the next number; the same seed gives the same losses.
    let report = json(&trainer(
        dir.path(),
        &[
            "run",
            "--config",
            "small.toml",
            "--steps",
            "5",
            "--loader-threads",
            "3",
            "--json",
        ],
    ));
    assert_eq!(
        (report.out.as_str(), report.resumed_from, report.steps),
        ("runs/tiny-2", 0, 5)
    );
    let losses = |run: &Path| {
        steps(run)
            .into_iter()
            .map(|step| step.loss)
            .collect::<Vec<_>>()
    };
    assert_eq!(losses(&run), losses(&dir.path().join("runs/tiny-2")));
    assert!(
        report.finished && report.nonfinite == 0 && report.peak_memory_bytes > 1 << 20,
        "{report:?}"
    );
    assert!((report.first_loss - losses(&run).iter().sum::<f64>() / 5.0).abs() < 1e-12);
}

#[test]
fn runs_are_compared_by_their_curves() {
    let dir = with_shards(5, 4);
    for (out, seed) in [("runs/a", "1"), ("runs/b", "2")] {
        assert!(
            trainer(
                dir.path(),
                &[
                    "run",
                    "--config",
                    "small.toml",
                    "--steps",
                    "12",
                    "--seed",
                    seed,
                    "--out",
                    out
                ]
            )
            .status
            .success()
        );
    }
    let runs = ["curves", "runs/a", "runs/b/"];
    assert_shown(
        "curves",
        &trainer(
            dir.path(),
            &[runs.as_slice(), &["--html", "both.html"]].concat(),
        ),
    );
    assert!(image::open(dir.path().join("curves.png")).is_ok());
    assert!(
        fs::read_to_string(dir.path().join("both.html"))
            .expect("a report")
            .contains("<h1>a, b</h1>")
    );

    let output = trainer(
        dir.path(),
        &[runs.as_slice(), &["--out", "ab.png", "--json"]].concat(),
    );
    let report: CurvesReport = serde_json::from_slice(&output.stdout).expect("the report's JSON");
    assert_eq!(
        (
            report.picture.as_str(),
            report.html.as_deref(),
            report.runs.len()
        ),
        ("ab.png", None, 2)
    );
    let last = steps(&dir.path().join("runs/b"))
        .iter()
        .rev()
        .take(10)
        .map(|step| step.loss)
        .sum::<f64>()
        / 10.0;
    assert!(
        report.runs[1].name == "b"
            && report.runs[1].steps == 12
            && (report.runs[1].last_loss - last).abs() < 1e-12,
        "{report:?}"
    );

    assert_shown("curves-without-a-run", &trainer(dir.path(), &["curves"]));
    assert_shown(
        "curves-of-no-run",
        &trainer(dir.path(), &["curves", "runs/a", "runs/c"]),
    );
    let metrics = dir.path().join("runs/b/metrics.jsonl");
    let lines = fs::read_to_string(&metrics).expect("metrics");
    fs::write(&metrics, lines.replacen("\"step\":7,", "\"step\":7 ", 1)).expect("written");
    assert_shown("curves-of-spoiled-metrics", &trainer(dir.path(), &runs));
    fs::write(&metrics, "").expect("written");
    assert_shown("curves-of-no-step", &trainer(dir.path(), &runs));
    assert_shown(
        "curves-nowhere",
        &trainer(
            dir.path(),
            &["curves", "runs/a", "--out", "no/such/folder.png"],
        ),
    );
}

#[test]
fn a_run_is_neither_overwritten_nor_changed() {
    let dir = with_shards(5, 4);
    let run = |more: &[&str]| {
        trainer(
            dir.path(),
            &[&["run", "--config", "small.toml", "--out", "a"], more].concat(),
        )
    };
    assert!(run(&["--steps", "2"]).status.success());
    assert_shown("run-into-a-folder-that-is-taken", &run(&["--steps", "2"]));
    assert_shown(
        "resume-with-another-configuration",
        &run(&["--resume", "--seed", "3", "--steps", "9"]),
    );
    assert_shown(
        "resume-of-nothing",
        &trainer(dir.path(), &["run", "--resume"]),
    );
    assert_shown(
        "resume-of-another-folder",
        &trainer(dir.path(), &["run", "--resume", "--out", "shards"]),
    );
}

/// A folder with two small videos in `videos`, and a small configuration.
fn with_videos() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("a folder");
    for seed in 0..2 {
        tests::write_video(
            &dir.path().join(format!("videos/{seed}.mp4")),
            seed,
            80,
            30,
            FrameSize {
                width: 48,
                height: 40,
            },
        );
    }
    fs::write(dir.path().join("small.toml"), small_config(1, 4)).expect("written");
    dir
}

#[test]
fn videos_train_as_their_shards_do() {
    let dir = with_videos();
    // What a build would store: 8 frames at stride 4 of 30 a second, back to back.
    let build = BuildOptions {
        frames: 8,
        ..tests::options(3, 1 << 28)
    };
    let mut clips = Vec::new();
    for seed in 0..2 {
        let path = dir.path().join(format!("videos/{seed}.mp4"));
        let mut decoder =
            ClipDecoder::open(&path, &build, DecodeOptions::default()).expect("opened");
        while let Some(clip) = decoder.next_clip().expect("decoded") {
            let mut test = TestClip {
                payload: clip.data,
                ..TestClip::moving(1, 8, 48, 40)
            };
            (test.meta.color_range, test.meta.color_matrix) =
                (decoder.source().color_range, decoder.source().color_matrix);
            clips.push(test);
        }
    }
    write_shards(&dir.path().join("shards"), &clips);
    let run = |data: &str, out: &str| {
        json(&trainer(
            dir.path(),
            &[
                "run",
                "--config",
                "small.toml",
                "--data",
                data,
                "--out",
                out,
                "--steps",
                "6",
                "--repeat",
                "2",
                "--json",
            ],
        ))
    };
    let (live, stored) = (run("videos", "live"), run("shards", "stored"));
    assert_eq!(
        (live.steps, live.first_loss, live.skipped),
        (6, stored.first_loss, 0)
    );
    let weights = |run: &str| {
        fs::read(
            dir.path()
                .join(run)
                .join("checkpoints/step-000006/model.safetensors"),
        )
        .expect("weights")
    };
    assert!(
        weights("live") == weights("stored"),
        "the same weights to the bit"
    );
    // Both together, by weight.
    let mixed = [
        "run",
        "--config",
        "small.toml",
        "--data",
        "videos=3",
        "--data",
        "shards",
        "--steps",
        "4",
        "--json",
    ];
    assert_eq!(json(&trainer(dir.path(), &mixed)).steps, 4);
}

#[test]
fn still_pictures_train_from_shards_and_from_video() {
    let dir = with_videos();
    let still = [
        "run",
        "--config",
        "small.toml",
        "--frames",
        "1",
        "--tubelet",
        "1",
        "--mask-ratio",
        "0.75",
        "--steps",
        "3",
        "--json",
    ];
    // Shards of single frames, as `shardtool build --frames 1` makes them, and of longer clips, of
    // which windows of one frame are taken.
    let clips = |frames: u32| {
        (0..5)
            .map(|seed| TestClip::moving(seed, frames, 40, 36))
            .collect::<Vec<_>>()
    };
    tests::write_shards_with(
        &dir.path().join("single"),
        &clips(1),
        BuildOptions {
            frames: 1,
            ..tests::options(3, 1 << 28)
        },
    );
    write_shards(&dir.path().join("longer"), &clips(8));
    for data in ["single", "longer", "videos"] {
        let report = json(&trainer(
            dir.path(),
            &[
                still.as_slice(),
                &["--data", data, "--out", &format!("of-{data}")],
            ]
            .concat(),
        ));
        assert_eq!((report.steps, report.skipped), (3, 0), "{data}");
        assert!(report.last_loss.is_finite());
        let picture =
            image::open(dir.path().join(report.picture.expect("a picture"))).expect("a picture");
        // One frame a clip: three rows each.
        assert_eq!(picture.width(), 32, "{data}");
        assert_eq!((picture.height() + 2) % (3 * 34), 0, "{data}");
        let weights = candle_core::safetensors::load(
            dir.path()
                .join(report.checkpoint.expect("a checkpoint"))
                .join("model.safetensors"),
            &candle_core::Device::Cpu,
        );
        assert_eq!(
            weights.expect("weights")["patch_embed.proj.weight"].dims(),
            [24, 3, 1, 8, 8]
        );
    }
}

#[test]
fn what_the_paper_varies_can_be_set_by_flags() {
    let dir = with_shards(5, 4);
    let flags = [
        "--mask-ratio",
        "0.8",
        "--mask-kind",
        "tube",
        "--decoder-keep",
        "0.5",
        "--decoder-width",
        "16",
        "--decoder-depth",
        "2",
        "--decoder-heads",
        "4",
        "--target",
        "hog",
        "--slices",
        "2",
        "--positions",
        "joint",
        "--no-class-token",
        "--frames",
        "4",
        "--size",
        "40",
        "--crop-area",
        "0.3,0.9",
        "--flip",
        "0",
        "--lr",
        "0.01",
        "--epochs",
        "1.5",
    ];
    let run = |more: &[&str]| {
        trainer(
            dir.path(),
            &[
                ["run", "--config", "small.toml", "--out", "a"].as_slice(),
                more,
            ]
            .concat(),
        )
    };
    let report = json(&run(&[flags.as_slice(), &["--json"]].concat()));
    // 1.5 times 5 clips, by 2.
    assert_eq!(report.steps, 4);
    insta::assert_snapshot!(
        "config-of-all-flags",
        fs::read_to_string(dir.path().join("a/config.toml")).expect("its configuration")
    );
    let weights = candle_core::safetensors::load(
        dir.path()
            .join(report.checkpoint.expect("a checkpoint"))
            .join("model.safetensors"),
        &candle_core::Device::Cpu,
    );
    let weights = weights.expect("weights");
    // 2 time steps of 25 places; 2 slices of one cell of 27 values.
    assert_eq!(
        (
            weights["pos_embed"].dims(),
            weights["decoder_pred.weight"].dims()
        ),
        ([1, 50, 24].as_slice(), [54, 16].as_slice())
    );
    assert!(!weights.contains_key("cls_token"));
    // Two rows a clip: histograms are no picture.
    let picture = image::open(dir.path().join("a/reconstruction.png")).expect("a picture");
    assert_eq!(
        (picture.width(), picture.height()),
        (4 * 42 - 2, 6 * 42 - 2)
    );
    // The same flags go on with it, others do not.
    assert_eq!(
        json(&run(&[flags.as_slice(), &["--resume", "--json"]].concat())).resumed_from,
        4
    );
    assert_shown(
        "resume-with-another-model",
        &run(&["--resume", "--class-token", "--decoder-keep", "0.25"]),
    );
}

#[test]
fn a_run_of_a_version_with_fewer_keys_goes_on() {
    let dir = with_shards(5, 4);
    json(&trainer(
        dir.path(),
        &[
            "run",
            "--config",
            "small.toml",
            "--out",
            "a",
            "--steps",
            "4",
            "--set",
            "model.position_std=0.02", // what such a version computed with
            "--json",
        ],
    ));
    let path = dir.path().join("a/config.toml");
    let text = fs::read_to_string(&path).expect("its configuration");
    let keys = [
        "decoder_keep",
        "kind = \"pixels\"",
        "[model]",
        "positions",
        "class_token",
        "norm_epsilon",
        "decoder_norm_epsilon",
        "head_norm_epsilon",
    ];
    let keys = [
        &keys[..],
        &[
            "position_std",
            "decoder_class_token",
            "normalise_per",
            "frames = \"spread\"",
        ],
    ]
    .concat();
    let is_new = |line: &&str| keys.iter().any(|key| line.starts_with(key));
    assert_eq!(text.lines().filter(is_new).count(), keys.len(), "{text}");
    let old: String = text
        .lines()
        .filter(|line| !is_new(line))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&path, old).expect("written");
    let again = json(&trainer(
        dir.path(),
        &[
            "run",
            "--config",
            "small.toml",
            "--out",
            "a",
            "--steps",
            "4",
            "--resume",
            "--json",
        ],
    ));
    assert_eq!((again.resumed_from, again.steps), (4, 4));
}

#[test]
fn ctrl_c_ends_a_run_and_its_decoders() {
    let dir = with_videos();
    let mut child = command(
        dir.path(),
        &[
            "run",
            "--config",
            "small.toml",
            "--data",
            "videos",
            "--steps",
            "1000000",
        ],
    )
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .expect("run");
    let started = BufReader::new(child.stderr.take().expect("piped"))
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("step "));
    assert!(started.is_some(), "it trains");
    let decoders = children(child.id());
    assert!(
        !decoders.is_empty(),
        "videos are decoded by processes of their own"
    );
    let began = Instant::now();
    assert!(signal(child.id(), "INT"));
    assert!(!child.wait().expect("ended").success());
    while !decoders.iter().all(|&decoder| has_ended(decoder)) {
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "a decoder outlives its run"
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_loader_is_measured() {
    let dir = with_shards(5, 4);
    let bench = |arguments: &[&str]| {
        let common = [
            "bench",
            "loader",
            "--preset",
            "tiny",
            "--config",
            "small.toml",
            "--seconds",
            "0.3",
            "--json",
        ];
        let output = trainer(dir.path(), &[common.as_slice(), arguments].concat());
        parse_report::<LoaderReport>(&output)
    };
    let free = bench(&["--form", "clips", "--values", "u8", "--loader-threads", "3"]);
    assert_eq!(
        (
            free.form.as_str(),
            free.values.as_str(),
            free.threads,
            free.data_clips
        ),
        ("clips", "u8", 3, 5)
    );
    assert!(
        free.clips_per_second > 0.0 && free.loader.clips > 0 && free.peak_memory_bytes > 1 << 20,
        "{free:?}"
    );
    assert!(
        free.batch_wait_ms.p50 <= free.batch_wait_ms.p99
            && free.batch_wait_ms.p99 <= free.batch_wait_ms.max,
        "{free:?}"
    );
    assert!((0.0..=1.0).contains(&free.stall_fraction) && free.step.is_none());
    // Twenty clips a second are asked for, and no more are given.
    let slow = bench(&["--consumer", "rate:20"]);
    assert!(slow.clips_per_second < 30.0, "{slow:?}");
    let step = bench(&["--consumer", "step", "--repeat", "2"])
        .step
        .expect("steps");
    assert!(step.pairs > 0 && step.loaded_seconds > 0.0 && step.cached_seconds > 0.0);
    let table = trainer(
        dir.path(),
        &[
            "bench",
            "loader",
            "--preset",
            "tiny",
            "--config",
            "small.toml",
            "--seconds",
            "0.1",
        ],
    );
    let table = shown(&table);
    assert!(
        table.contains("exit code: 0")
            && table.contains("clips/s")
            && table.contains("this machine feeds"),
        "{table}"
    );
}

#[test]
fn what_masking_saves_is_measured() {
    let dir = with_shards(5, 4);
    let bench = |arguments: &[&str]| {
        let common = [
            "bench",
            "sparsity",
            "--preset",
            "tiny",
            "--config",
            "small.toml",
            "--batch-size",
            "2",
            "--steps",
            "2",
        ];
        let output = trainer(dir.path(), &[common.as_slice(), arguments].concat());
        assert!(output.status.success(), "{}", shown(&output));
        output
    };
    let report: SparsityReport =
        serde_json::from_slice(&bench(&["--data", "shards", "--json"]).stdout)
            .expect("the report's JSON");
    let SparsityReport {
        dense,
        sparse,
        gain,
        ..
    } = &report;
    assert_eq!(
        (report.preset.as_str(), report.batch_size, report.steps),
        ("tiny", 2, 2)
    );
    assert_eq!(report.data, ["shards"]);
    // 4 x 4 x 4 tokens of 2 x 8 x 8 pixels, of which 6 are visible; one block each of width 24; one
    // slice is predicted of each token.
    assert_eq!(
        (
            dense.tokens,
            dense.visible_tokens,
            sparse.tokens,
            sparse.visible_tokens
        ),
        (64, 64, 64, 6)
    );
    let linear = |tokens: u64| 12 * 24 * 24 * tokens;
    let attention = |tokens: u64| 2 * 24 * tokens * tokens;
    let operations = |visible: u64, predicted: u64| OperationFigures {
        patch_embedding: visible * 384 * 24,
        encoder_linear: linear(visible + 1),
        encoder_attention: attention(visible + 1),
        decoder_linear: linear(65) + visible * 24 * 24,
        decoder_attention: attention(65),
        prediction: predicted * 24 * 192,
    };
    assert_eq!(
        (dense.operations, sparse.operations),
        (operations(64, 64), operations(6, 58))
    );
    assert_eq!(
        (dense.forward_multiply_adds, dense.step_multiply_adds),
        (dense.operations.forward(), dense.operations.step())
    );
    assert!(
        (gain.multiply_adds
            - dense.operations.forward() as f64 / sparse.operations.forward() as f64)
            .abs()
            < 1e-12
    );
    let (dense_loaded, sparse_loaded) = (
        dense.loaded.expect("loaded"),
        sparse.loaded.expect("loaded"),
    );
    for speed in [dense.computed, sparse.computed, dense_loaded, sparse_loaded] {
        assert!(
            speed.step_seconds > 0.0
                && (speed.clips_per_second * speed.step_seconds - 2.0).abs() < 1e-9
                && speed.gflops > 0.0,
            "{speed:?}"
        );
    }
    assert!(
        (gain.computed - dense.computed.step_seconds / sparse.computed.step_seconds).abs() < 1e-9
    );
    assert!(
        (gain.loaded.expect("loaded") - dense_loaded.step_seconds / sparse_loaded.step_seconds)
            .abs()
            < 1e-9
    );
    assert!(report.paper.is_none(), "the paper has no such model");

    let alone: SparsityReport =
        serde_json::from_slice(&bench(&["--json"]).stdout).expect("the report's JSON");
    assert!(alone.data.is_empty() && alone.dense.loaded.is_none() && alone.gain.loaded.is_none());
    let table = shown(&bench(&["--data", "shards"]));
    assert!(
        table.contains("a step, computed")
            && table.contains("a step, with loading")
            && table.contains("6 of 64 tokens"),
        "{table}"
    );
    let nowhere = trainer(
        dir.path(),
        &["bench", "sparsity", "--preset", "tiny", "--data", "nowhere"],
    );
    assert!(
        shown(&nowhere).contains("exit code: 1") && shown(&nowhere).contains("there is no nowhere"),
        "{}",
        shown(&nowhere)
    );
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let dir = with_shards(5, 4);
    assert_shown(
        "run-without-data",
        &trainer(dir.path(), &["run", "--data", "nowhere"]),
    );
    assert_shown(
        "run-with-too-few-frames",
        &trainer(dir.path(), &["run", "--preset", "small", "--out", "b"]),
    );
    fs::write(dir.path().join("odd.toml"), "[clip]\nsize = 100\n").expect("written");
    assert_shown(
        "run-with-a-size-that-does-not-divide",
        &trainer(dir.path(), &["run", "--config", "odd.toml"]),
    );
    fs::write(dir.path().join("typo.toml"), "[encoder]\nwidht = 100\n").expect("written");
    assert_shown(
        "run-with-an-unknown-key",
        &trainer(dir.path(), &["run", "--config", "typo.toml"]),
    );
    assert_shown(
        "run-with-a-bad-weight",
        &trainer(dir.path(), &["run", "--data", "shards=0"]),
    );
    fs::create_dir(dir.path().join("empty")).expect("a folder");
    assert_shown(
        "run-with-an-empty-folder",
        &trainer(dir.path(), &["run", "--data", "empty"]),
    );
    fs::create_dir_all(dir.path().join("texts/below")).expect("a folder");
    fs::write(dir.path().join("texts/below/a.mp4"), "no video").expect("written");
    assert_shown(
        "run-without-a-video",
        &trainer(dir.path(), &["run", "--data", "texts"]),
    );
    assert_shown(
        "bench-of-too-little-memory",
        &trainer(
            dir.path(),
            &[
                "bench",
                "loader",
                "--preset",
                "tiny",
                "--config",
                "small.toml",
                "--batch-size",
                "900",
                "--loader-memory",
                "1",
            ],
        ),
    );
    assert_shown(
        "bench-with-a-bad-consumer",
        &trainer(dir.path(), &["bench", "loader", "--consumer", "gpu"]),
    );
    let small = |more: &[&str]| {
        trainer(
            dir.path(),
            &[["run", "--config", "small.toml"].as_slice(), more].concat(),
        )
    };
    assert_shown(
        "run-with-a-share-that-predicts-nothing",
        &small(&["--decoder-keep", "0"]),
    );
    assert_shown("run-with-an-odd-pair", &small(&["--crop-area", "0.5"]));
    assert_shown(
        "run-with-too-large-a-crop",
        &small(&["--crop-area", "0.5,1.5"]),
    );
    assert_shown(
        "run-of-one-frame-in-tubelets-of-two",
        &small(&["--frames", "1"]),
    );
    fs::write(dir.path().join("hog.toml"), "[target]\nkind = \"hog\"\n").expect("written");
    assert_shown(
        "run-of-normalised-histograms",
        &trainer(dir.path(), &["run", "--config", "hog.toml"]),
    );
    fs::write(dir.path().join("bytes.toml"), "[data]\nvalues = \"u8\"\n").expect("written");
    assert_shown(
        "run-of-histograms-as-bytes",
        &trainer(
            dir.path(),
            &["run", "--config", "bytes.toml", "--target", "hog"],
        ),
    );
    assert_shown(
        "run-with-a-bad-flag",
        &trainer(dir.path(), &["run", "--device", "gpu"]),
    );
    #[cfg(not(feature = "cuda"))]
    assert_shown(
        "run-on-a-gpu-without-support",
        &trainer(dir.path(), &["run", "--device", "cuda:0"]),
    );
}

#[test]
fn damaged_shards_are_named() {
    let dir = with_shards(5, 4);
    let path = dir.path().join("shards/shard-00000.parquet");
    let valid = fs::read(&path).expect("a shard");
    let run = || {
        trainer(
            dir.path(),
            &[
                "run",
                "--config",
                "small.toml",
                "--out",
                "a",
                "--steps",
                "50",
                "--max-bad",
                "0",
            ],
        )
    };
    tests::damage_clip(&path, 0);
    // It is skipped, named once, and counted.
    let left_out = trainer(
        dir.path(),
        &["run", "--config", "small.toml", "--steps", "10", "--json"],
    );
    let report = json(&left_out);
    let messages = messages(&left_out);
    // Ten steps of two clips are four epochs of five.
    assert_eq!(report.skipped, 4);
    assert_eq!(
        messages
            .matches("warning: skipped: clip 0 of ./shards/shard-00000.parquet is damaged")
            .count(),
        1,
        "{messages}"
    );
    let flipped = shown(&run());
    assert!(
        flipped.contains("exit code: 1")
            && flipped.contains("clip 0 of")
            && flipped.contains("shard-00000.parquet"),
        "{flipped}"
    );
    assert!(flipped.contains("at most 0 may be skipped"), "{flipped}");
    fs::remove_dir_all(dir.path().join("a")).expect("removed");
    fs::write(&path, &valid[..valid.len() / 2]).expect("written");
    let cut = shown(&run());
    assert!(
        cut.contains("exit code: 1") && cut.contains("shard-00000.parquet is damaged: it has"),
        "{cut}"
    );
    fs::remove_file(&path).expect("removed");
    let missing = shown(&run());
    assert!(
        missing.contains("exit code: 1")
            && missing.contains("cannot open")
            && missing.contains("shard-00000.parquet"),
        "{missing}"
    );
    assert!(!(flipped + &cut + &missing).contains("panicked"));
}

/// A folder with the tiny checkpoints of other code bases that are kept for tests.
fn with_foreign_weights() -> TempDir {
    let (dir, fixtures) = (
        tempfile::tempdir().expect("a folder"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/convert"),
    );
    fs::create_dir(dir.path().join("classification")).expect("made");
    for name in [
        "mae_st.pth",
        "mae_st_classifier.pth",
        "classification/config.json",
        "classification/model.safetensors",
    ] {
        fs::copy(fixtures.join(name), dir.path().join(name)).expect("copied");
    }
    dir
}

#[test]
fn weights_are_imported_and_exported() {
    let dir = with_foreign_weights();
    let import = |name: &str, out: &str, more: &[&str]| {
        trainer(
            dir.path(),
            &[&["import", name, "--out", out], more].concat(),
        )
    };
    let heads = ["--heads", "2", "--decoder-heads", "2"];
    assert_shown("import", &import("mae_st.pth", "ours", &heads));
    assert_shown(
        "import-of-a-classifier",
        &import("classification", "classifier", &[]),
    );
    assert_shown(
        "import-without-heads",
        &import("mae_st.pth", "nowhere", &[]),
    );
    assert_shown(
        "import-over-a-folder",
        &import("mae_st.pth", "ours", &heads),
    );
    fs::write(dir.path().join("classes.txt"), "one\ntwo\n\n").expect("written");
    assert_eq!(
        import(
            "mae_st_classifier.pth",
            "nowhere",
            &["--heads", "2", "--classes", "classes.txt"]
        )
        .status
        .code(),
        Some(1)
    );
    assert!(!dir.path().join("nowhere").exists());

    let export = |weights: &str, format: &str, out: &str| {
        trainer(
            dir.path(),
            &["export", weights, "--format", format, "--out", out],
        )
    };
    assert_shown("export", &export("ours", "mae-st", "back.safetensors"));
    assert_shown(
        "export-without-a-place",
        &export("ours", "huggingface", "there"),
    );
    assert_shown(
        "export-of-a-classifier",
        &export("classifier", "huggingface", "there"),
    );
    for name in [
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
    ] {
        assert!(dir.path().join("there").join(name).exists(), "{name}");
    }
    assert_shown(
        "export-of-nothing",
        &export("nowhere", "mae-st", "back.safetensors"),
    );
    // What came in goes out: the same tensors, in a file that says so little more.
    let again = trainer(
        dir.path(),
        &[
            &["import", "back.safetensors", "--out", "again", "--json"],
            &heads[..],
        ]
        .concat(),
    );
    assert!(again.status.success(), "{}", shown(&again));
    let report: ExchangeReport = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(
        (
            report.format.as_str(),
            report.from.as_str(),
            report.weights.as_str()
        ),
        ("mae_st", "back.safetensors", "again")
    );
    let read = |folder: &str| {
        fs::read(dir.path().join(folder).join("model.safetensors")).expect("weights")
    };
    assert!(read("ours") == read("again"));
}
