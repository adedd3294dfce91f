//! What the loader gives to Rust, for the tests of the Python package.
//!
//!     loader-oracle make DIR PAYLOAD CLIPS
//!     loader-oracle hashes DIR JSON
//!
//! `make` writes shards of synthetic clips of 12 frames of 96x64 pixels; clip `i` has class `i % 3`.
//! `hashes` prints a line for each batch: where the next one begins, hashes of the pixels and of the
//! target, and the clips. JSON has what a loader needs: `form`, `dtype`, `mask_kind`, `mask_ratio`,
//! `repeat`, `seed`, `rank`, `world_size`, `batch_size`, `count`.

use pipeline::loader::batch::{Batch, Form, Pixels, ValueType};
use pipeline::loader::{Loader, LoaderOptions, Rank};
use pipeline::sampling::mask::MaskRule;
use pipeline::transform::{Normalisation, TargetForm};
use schemas::geometry::PatchGrid;
use schemas::shard::Payload;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use tests::{TestClip, options, shard_sources, write_shards_with};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    form: String,
    dtype: ValueTypeName,
    mask_kind: String,
    mask_ratio: f64,
    repeat: usize,
    seed: u64,
    rank: usize,
    world_size: usize,
    batch_size: usize,
    count: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ValueTypeName {
    Uint8,
    Float32,
    Bfloat16,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", dir, payload, clips] => {
            make(Path::new(dir), payload, clips.parse().expect("a number"));
        }
        ["hashes", dir, json] => {
            hashes(
                Path::new(dir),
                &serde_json::from_str(json).expect("settings"),
            );
        }
        _ => panic!("loader-oracle make DIR PAYLOAD CLIPS, or hashes DIR JSON"),
    }
}

fn make(dir: &Path, payload: &str, clips: u64) {
    let mut options = options(3, 200_000);
    options.payload = Payload::from_name(payload).expect("a payload");
    let clip = |seed: u64| {
        let mut clip = TestClip::moving(seed, 12, 96, 64);
        clip.meta.label = Some((seed % 3) as i32);
        clip
    };
    let clips: Vec<TestClip> = (0..clips).map(clip).collect();
    write_shards_with(dir, &clips, options);
}

fn named<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(name.into()).expect("a name")
}

fn hashes(dir: &Path, settings: &Settings) {
    let grid = PatchGrid {
        frames: 8,
        size: 32,
        tubelet: 2,
        patch: 8,
    };
    let mask = MaskRule::new(named(&settings.mask_kind), settings.mask_ratio);
    let mut options = LoaderOptions {
        repeat: settings.repeat,
        seed: settings.seed,
        rank: Rank {
            number: settings.rank,
            of: settings.world_size,
        },
        normalisation: Normalisation::IMAGENET,
        ..LoaderOptions::new(settings.batch_size, grid, mask)
    };
    options.format.values = match settings.dtype {
        ValueTypeName::Uint8 => ValueType::U8,
        ValueTypeName::Float32 => ValueType::F32,
        ValueTypeName::Bfloat16 => ValueType::Bf16,
    };
    options.format.form = match settings.form.as_str() {
        "clips" => Form::Clips,
        _ => Form::Patches {
            target: TargetForm::Pixels { slices: 2 },
        },
    };
    let loader = Loader::new(shard_sources(dir), options).expect("a loader");
    for batch in loader.take(settings.count) {
        println!("{}", line(&batch.expect("a batch")));
    }
}

fn line(batch: &Batch) -> String {
    let (pixels, target): (&[u8], &[u8]) = match batch.pixels() {
        Pixels::Clips(bytes) | Pixels::Tokens(bytes) => (bytes, &[]),
        Pixels::Patches { visible, target } => (visible, target),
    };
    let mut masked = vec![1u8; batch.len() * batch.masks().tokens()];
    let rows = masked.chunks_exact_mut(batch.masks().tokens());
    for (mask, row) in batch.masks().iter().zip(rows) {
        mask.visible
            .iter()
            .for_each(|&token| row[token as usize] = 0);
    }
    let clips: Vec<u64> = batch.samples.iter().map(|sample| sample.clip).collect();
    serde_json::json!({
        "position": batch.next.samples,
        "pixels": format!("{:016x}", xxh3_64(pixels)),
        "target": format!("{:016x}", xxh3_64(target)),
        "masked": format!("{:016x}", xxh3_64(&masked)),
        "clips": clips,
        "labels": batch.labels,
    })
    .to_string()
}
