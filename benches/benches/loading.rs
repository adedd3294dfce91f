//! What it costs to bring a stored clip to the trainer: reading, transforming, and whole batches.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use pipeline::frames::Frames;
use pipeline::loader::batch::Form;
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::sampling::mask::{Mask, MaskKind, MaskRule, MaskScratch};
use pipeline::sampling::order::{Purpose, stream};
use pipeline::sampling::sample::Augmentation;
use pipeline::shard::{ClipReader, ShardSet};
use pipeline::source::{Source, WeightedSource};
use pipeline::transform::{ClipView, PatchesMut, TargetForm, Transform, Value};
use schemas::geometry::PatchGrid;
use schemas::manifest::BuildOptions;
use schemas::shard::Payload;
use std::hint::black_box;
use std::sync::Arc;
use tests::{TestClip, options, write_shards, write_shards_with};

/// The paper's clips.
const GRID: PatchGrid = PatchGrid {
    frames: 16,
    size: 224,
    tubelet: 2,
    patch: 16,
};

/// A usual stored size: 16:9 scaled to a short side of 256.
const STORED: (usize, usize) = (456, 256);

/// The paper's masks.
const MASK: MaskRule = MaskRule::new(MaskKind::Random, 0.9);

/// Times a clip as a whole, and the patches of it that training uses.
fn bench_transform<T: Value>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    clip: ClipView<'_>,
) {
    let mut transform = Transform::default();
    let mut pixels = vec![T::zeroed(); GRID.clip_values()];
    group.bench_function(format!("transform clip {name}"), |bench| {
        bench.iter(|| transform.clip(clip, GRID.frames, GRID.size, &mut pixels));
    });
    let mut tokens = vec![0; GRID.tokens()];
    MASK.draw(
        &mut stream(Purpose::Mask, 0, 0, 0),
        GRID,
        &mut MaskScratch::default(),
        &mut tokens,
    );
    let mask = Mask::new(
        &tokens,
        MASK.visible(GRID).expect("a rule"),
        MASK.predicted(GRID).expect("a rule"),
    );
    let form = TargetForm::Pixels { slices: 1 };
    let mut seen = vec![T::zeroed(); mask.visible.len() * GRID.tubelet_values()];
    let mut target = vec![T::zeroed(); mask.predicted.len() * form.values(GRID)];
    group.bench_function(format!("transform patches {name}"), |bench| {
        bench.iter(|| {
            let out = PatchesMut {
                visible: &mut seen,
                target: &mut target,
            };
            transform.patches(clip, GRID, mask, form, out);
        });
    });
}

fn loading(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..16)
        .map(|seed| TestClip::moving(seed, 16, STORED.0, STORED.1))
        .collect();
    write_shards(dir.path(), &clips);
    let data = ShardSet::open(dir.path()).expect("shards");
    let mut group = criterion.benchmark_group("loading");

    let (shard, row) = data.locate(3);
    let entry = shard.clips()[row];
    group.throughput(Throughput::Bytes(clips[3].payload.len() as u64));
    for payload in [Payload::I420, Payload::Rgb, Payload::H264] {
        let dir = tempfile::tempdir().expect("a folder");
        let level = if payload == Payload::H264 { 0 } else { 3 };
        write_shards_with(
            dir.path(),
            &clips[3..4],
            BuildOptions {
                payload,
                ..options(level, 1 << 28)
            },
        );
        let data = ShardSet::open(dir.path()).expect("shards");
        let (shard, mut reader) = (&data.shards()[0], ClipReader::default());
        let name = format!("read {}", payload.name());
        group.bench_function(name, |bench| {
            bench.iter(|| black_box(reader.frames(shard, 0, 16).expect("a clip").bytes().len()))
        });
    }

    let view =
        Augmentation::default().draw(&mut stream(Purpose::Augment, 0, 0, 0), 16, 16, entry.size);
    let frames = Frames::I420(&clips[3].payload, entry.color);
    let clip = ClipView {
        frames,
        size: entry.size,
        view,
    };
    group.throughput(Throughput::Elements(1));
    bench_transform::<f32>(&mut group, "f32", clip);
    bench_transform::<bf16>(&mut group, "bf16", clip);
    bench_transform::<u8>(&mut group, "u8", clip);

    for kind in [
        MaskKind::Random,
        MaskKind::Tube,
        MaskKind::Frame,
        MaskKind::Block,
    ] {
        let (mut rng, mut scratch, mut tokens) = (
            stream(Purpose::Mask, 0, 0, 0),
            MaskScratch::default(),
            vec![0; GRID.tokens()],
        );
        let rule = MaskRule::new(kind, 0.75);
        group.bench_function(format!("mask {kind:?}").to_lowercase(), |bench| {
            bench.iter(|| rule.draw(&mut rng, GRID, &mut scratch, &mut tokens))
        });
    }

    let data: Arc<[WeightedSource]> = [WeightedSource::from(Source::Shards(data))].into();
    for (name, form) in [
        ("clips", Form::Clips),
        (
            "patches",
            Form::Patches {
                target: TargetForm::Pixels { slices: 1 },
            },
        ),
    ] {
        let mut options = LoaderOptions {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            prefetch: 4,
            ..LoaderOptions::new(8, GRID, MASK)
        };
        options.format.form = form;
        group.throughput(Throughput::Elements(options.batch_size as u64));
        let mut loader = Loader::new(Arc::clone(&data), options).expect("a loader");
        group.bench_function(format!("batch of 8 as {name}, all cores"), |bench| {
            bench.iter(|| black_box(loader.next().expect("endless").expect("a batch").next));
        });
    }
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
