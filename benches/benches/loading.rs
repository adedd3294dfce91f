//! What it costs to bring a stored clip to the trainer: reading, transforming, and whole batches.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pipeline::frames::Frames;
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::mask::{MaskKind, MaskRule};
use pipeline::order::{Cursor, Purpose, stream};
use pipeline::sample::Augmentation;
use pipeline::shard::{ClipReader, ShardSet};
use pipeline::transform::transform;
use schemas::geometry::PatchGrid;
use schemas::manifest::BuildOptions;
use schemas::shard::Payload;
use std::hint::black_box;
use std::sync::Arc;
use tests::{TestClip, options, write_shards, write_shards_with};

/// The paper's clips.
const GRID: PatchGrid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };

/// A usual stored size: 16:9 scaled to a short side of 256.
const STORED: (usize, usize) = (456, 256);

fn loading(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..16).map(|seed| TestClip::moving(seed, 16, STORED.0, STORED.1)).collect();
    write_shards(dir.path(), &clips);
    let data = Arc::new(ShardSet::open(dir.path()).expect("shards"));
    let mut group = criterion.benchmark_group("loading");

    let (shard, row) = data.locate(3);
    let entry = shard.clips()[row];
    group.throughput(Throughput::Bytes(clips[3].payload.len() as u64));
    for payload in [Payload::I420, Payload::Rgb, Payload::H264] {
        let dir = tempfile::tempdir().expect("a folder");
        let level = if payload == Payload::H264 { 0 } else { 3 };
        write_shards_with(dir.path(), &clips[3..4], BuildOptions { payload, ..options(level, 1 << 28) });
        let data = ShardSet::open(dir.path()).expect("shards");
        let (shard, mut reader) = (&data.shards()[0], ClipReader::default());
        let name = format!("read {}", payload.name());
        group.bench_function(name, |bench| bench.iter(|| black_box(reader.frames(shard, 0, 16).expect("a clip").bytes().len())));
    }

    let mut pixels = vec![0.0; GRID.clip_values()];
    let view = Augmentation::default().draw(&mut stream(Purpose::Augment, 0, 0, 0), 16, 16, entry.size);
    group.throughput(Throughput::Elements(1));
    group.bench_function("transform", |bench| {
        bench.iter(|| {
            let frames = Frames::I420(&clips[3].payload, entry.color);
            transform(frames, entry.size, view, GRID.frames, GRID.size, &mut pixels);
        });
    });

    let options = LoaderOptions {
        batch_size: 4,
        grid: GRID,
        mask_rule: MaskRule { kind: MaskKind::Random, ratio: 0.9 },
        augmentation: Augmentation::default(),
        seed: 0,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        prefetch: 4,
        start: Cursor::default(),
    };
    group.throughput(Throughput::Elements(options.batch_size as u64));
    let mut loader = Loader::new(Arc::clone(&data), options).expect("a loader");
    group.bench_function("batch of 4, all cores", |bench| bench.iter(|| black_box(loader.next().expect("endless").expect("a batch").next)));
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
