//! Computation on a GPU against the CPU. Built with the feature `cuda` only, and needs a GPU:
//! `cargo test --release -p trainer --features cuda --test cuda`.
#![cfg(feature = "cuda")]

use candle_core::{Device, Tensor};
use pipeline::loader::batch::{Form, ValueType};
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::sampling::mask::{MaskKind, MaskRule};
use schemas::geometry::PatchGrid;
use schemas::report::{EmbedReport, EvalReport, RunReport, StepMetrics};
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tests::{
    TestClip, json_lines, parse_report, shard_sources, small_config, write_labelled_shards,
    write_shards,
};
use trainer::data::Uploader;
use trainer::model::DevicePixels;

fn trainer<T: DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    parse_report(
        &command
            .current_dir(dir)
            .args(arguments)
            .arg("--json")
            .output()
            .expect("run"),
    )
}

fn steps(run: &Path) -> Vec<StepMetrics> {
    json_lines(&run.join("metrics.jsonl"))
}

/// Two runs have the same losses and gradients, up to `tolerance` of them, at every step.
fn assert_alike(one: &Path, other: &Path, tolerance: f64) {
    let (one, other) = (steps(one), steps(other));
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        for (name, one_value, other_value) in [
            ("loss", one.loss, other.loss),
            ("gradient", one.grad_norm, other.grad_norm),
        ] {
            assert!(
                (one_value - other_value).abs() <= tolerance * one_value.abs(),
                "step {}: {name} {one_value}, not {other_value}",
                one.step
            );
        }
    }
}

/// A folder with labelled shards in `train` and `val`, and configurations of a small model:
/// `f32.toml` and `u8.toml`.
fn with_data() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let classes = ["dark", "bright"];
    for (folder, numbers) in [("train", 0..8), ("val", 10..14)] {
        let names: Vec<(String, &str)> = classes
            .iter()
            .flat_map(|&class| {
                numbers
                    .clone()
                    .map(move |number| (format!("{class}-{number}"), class))
            })
            .collect();
        let videos: Vec<(&str, &str)> = names
            .iter()
            .map(|(name, class)| (name.as_str(), *class))
            .collect();
        write_labelled_shards(&dir.path().join(folder), &classes, &videos);
    }
    for values in ["f32", "u8"] {
        let text = small_config(2, 10).replace("[data]", &format!("[data]\nvalues = \"{values}\""));
        fs::write(dir.path().join(format!("{values}.toml")), text).expect("written");
    }
    dir
}

/// Copies run on a stream of their own, beside computations that are behind, from buffers and into
/// memory that are used again.
#[test]
fn every_batch_arrives_as_it_was_loaded() {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..24)
        .map(|seed| TestClip::noise(seed, 8, 72, 64))
        .collect();
    write_shards(dir.path(), &clips);
    let device = Device::new_cuda(0).expect("a GPU");
    let uploader = Uploader::new(&device).expect("a stream");
    let grid = PatchGrid {
        frames: 8,
        size: 64,
        tubelet: 2,
        patch: 16,
    };
    for values in [ValueType::U8, ValueType::F32] {
        let mut options = LoaderOptions::new(16, grid, MaskRule::new(MaskKind::Random, 0.5));
        (options.threads, options.format.values, options.format.form) = (4, values, Form::Clips);
        let on_host = Loader::new(
            shard_sources(dir.path()),
            LoaderOptions {
                memory: Uploader::new(&Device::Cpu).expect("host").memory(),
                ..options.clone()
            },
        );
        let pinned = Loader::new(
            shard_sources(dir.path()),
            LoaderOptions {
                memory: uploader.memory(),
                ..options
            },
        );
        let work = Tensor::ones((2048, 2048), candle_core::DType::F32, &device).expect("a matrix");
        let mut late: Vec<(Tensor, Tensor)> = Vec::new();
        for (host, pinned) in on_host
            .expect("a loader")
            .zip(pinned.expect("a loader"))
            .take(300)
        {
            let host = Uploader::new(&Device::Cpu)
                .expect("host")
                .upload(host.expect("a batch"))
                .expect("tensors");
            // So that the device is behind when the copy begins, and the buffer is wanted again.
            for _ in 0..4 {
                work.matmul(&work).expect("a product");
            }
            let uploaded = uploader.upload(pinned.expect("a batch")).expect("tensors");
            let (DevicePixels::Clips(host), DevicePixels::Clips(device)) =
                (host.pixels, uploaded.pixels)
            else {
                panic!("whole clips")
            };
            late.push((host, device));
            if late.len() == 10 {
                for (host, device) in late.drain(..) {
                    let difference = (host - device.to_device(&Device::Cpu).expect("a copy"))
                        .and_then(|difference| difference.abs()?.max_all());
                    let difference = difference
                        .and_then(|difference| difference.to_scalar::<f32>())
                        .expect("a number");
                    assert!(difference < 1e-5, "{values:?}: {difference}");
                }
            }
        }
    }
}

#[test]
fn pre_training_follows_the_cpu() {
    let dir = with_data();
    let run = |name: &str, more: &[&str]| {
        let report: RunReport = trainer(
            dir.path(),
            &[
                &[
                    "run", "--data", "train", "--steps", "30", "--seed", "3", "--out", name,
                ],
                more,
            ]
            .concat(),
        );
        assert_eq!(report.steps, 30);
        dir.path().join(name)
    };
    let on_cpu = run("cpu", &["--config", "f32.toml"]);
    for values in ["f32", "u8"] {
        let config = format!("{values}.toml");
        assert_alike(
            &on_cpu,
            &run(values, &["--config", &config, "--device", "cuda"]),
            1e-3,
        );
    }
    // Interrupted after 20 steps: it goes on as if it had not been.
    fs::remove_dir_all(dir.path().join("u8/checkpoints/step-000030")).expect("removed");
    let resumed: RunReport = trainer(
        dir.path(),
        &[
            "run", "--data", "train", "--out", "u8", "--resume", "--device", "cuda",
        ],
    );
    assert_eq!((resumed.resumed_from, resumed.steps), (20, 30));
    assert_alike(&on_cpu, &dir.path().join("u8"), 1e-3);
}

#[test]
fn classifiers_and_features_follow_the_cpu() {
    let dir = with_data();
    let _: RunReport = trainer(
        dir.path(),
        &[
            "run", "--data", "train", "--config", "f32.toml", "--steps", "10", "--out", "pre",
        ],
    );
    let finetune = |name: &str, device: &str| -> RunReport {
        let weights = [
            "finetune",
            "--weights",
            "pre",
            "--data",
            "train",
            "--val",
            "val",
            "--steps",
            "20",
            "--batch-size",
            "4",
        ];
        trainer(
            dir.path(),
            &[
                &weights[..],
                &["--lr", "0.02", "--device", device, "--out", name],
            ]
            .concat(),
        )
    };
    let (on_cpu, on_gpu) = (finetune("ft-cpu", "cpu"), finetune("ft-gpu", "cuda"));
    assert_alike(&dir.path().join("ft-cpu"), &dir.path().join("ft-gpu"), 5e-3);
    assert_eq!(
        on_cpu.validation.map(|validation| validation.clips),
        on_gpu.validation.map(|validation| validation.clips)
    );
    let eval = |device: &str| -> EvalReport {
        trainer(
            dir.path(),
            &[
                "eval",
                "--weights",
                "ft-cpu",
                "--data",
                "val",
                "--device",
                device,
            ],
        )
    };
    let (on_cpu, on_gpu) = (eval("cpu"), eval("cuda"));
    assert_eq!(on_cpu.confusion, on_gpu.confusion);
    assert!(
        (on_cpu.clips.loss - on_gpu.clips.loss).abs() < 1e-4,
        "{} for {}",
        on_gpu.clips.loss,
        on_cpu.clips.loss
    );
    let report: EmbedReport = trainer(
        dir.path(),
        &[
            "embed",
            "--weights",
            "pre",
            "--data",
            "val",
            "--device",
            "cuda",
            "--out",
            "features.parquet",
        ],
    );
    assert_eq!(report.rows, 16);
}
