//! Batches are the same for any number of threads, can be taken up anywhere, and every way out is clean.

use pipeline::loader::{Batch, LoadError, Loader, LoaderOptions, examples};
use pipeline::mask::{MaskKind, MaskRule};
use pipeline::shard::{ShardError, ShardSet};
use schemas::geometry::PatchGrid;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tests::{TestClip, damage_clip, loader_options, options, write_shards_with};

const CLIPS: u64 = 11;

fn shards(dir: &Path) -> Arc<ShardSet> {
    let clips: Vec<TestClip> = (0..CLIPS).map(|seed| TestClip::moving(seed, 8, 50, 38 + seed as usize)).collect();
    write_shards_with(dir, &clips, options(0, 40_000));
    let set = ShardSet::open(dir).expect("opened");
    assert!(set.shards().len() > 2, "several shards");
    Arc::new(set)
}

fn batches(data: &Arc<ShardSet>, options: LoaderOptions, count: usize) -> Vec<Batch> {
    let loader = Loader::new(Arc::clone(data), options).expect("a loader");
    let batches = loader.take(count).map(|batch| Batch { wait: Default::default(), ..batch.expect("a batch") });
    batches.collect()
}

#[test]
fn threads_and_prefetch_do_not_change_the_batches() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let expected = batches(&data, loader_options(1), 9);
    for (threads, prefetch) in [(2, 3), (5, 1), (5, 16)] {
        let got = batches(&data, LoaderOptions { prefetch, ..loader_options(threads) }, 9);
        assert!(got == expected, "{threads} threads, {prefetch} batches ahead");
    }
    let other_seed = batches(&data, LoaderOptions { seed: 6, ..loader_options(1) }, 9);
    assert!(other_seed != expected);
}

#[test]
fn a_cursor_takes_the_sequence_up_anywhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let whole = batches(&data, loader_options(2), 8);
    for cut in [1, 3, 6] {
        let rest = batches(&data, LoaderOptions { start: whole[cut - 1].next, ..loader_options(3) }, 8 - cut);
        assert!(rest == whole[cut..], "cut after {cut} batches");
    }
}

#[test]
fn every_epoch_has_every_clip_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    // Four epochs of eleven clips are eleven batches of four.
    let samples: Vec<_> = batches(&data, loader_options(2), 11).into_iter().flat_map(|batch| batch.samples).collect();
    for epoch in 0..4 {
        let clips: BTreeSet<u64> = samples.iter().filter(|sample| sample.epoch == epoch).map(|sample| sample.clip).collect();
        assert_eq!(clips, (0..CLIPS).collect());
    }
    assert_eq!(samples.len(), samples.iter().collect::<std::collections::HashSet<_>>().len());
}

#[test]
fn a_batch_holds_what_it_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let options = loader_options(2);
    for batch in batches(&data, options.clone(), 3) {
        assert_eq!(batch.pixels.len(), 4 * options.grid.clip_values());
        for (sample, label) in batch.samples.iter().zip(&batch.labels) {
            assert_eq!(*label, sample.clip.is_multiple_of(2).then_some(sample.clip as i32));
        }
        for mask in &batch.masks {
            // int(48 * 0.1)
            assert_eq!((mask.visible.len(), mask.masked.len()), (4, 44));
            let all: BTreeSet<u32> = mask.visible.iter().chain(&mask.masked).copied().collect();
            assert_eq!(all, (0..48).collect());
        }
        assert!(batch.pixels.iter().all(|value| (-2.001..=2.445).contains(value)), "normalised");
    }
    // The same clip gets another crop and another mask in another epoch.
    let batches = batches(&data, LoaderOptions { batch_size: CLIPS as usize, ..options }, 2);
    let of_clip_3 = |batch: &Batch| {
        let at = batch.samples.iter().position(|sample| sample.clip == 3).expect("every epoch has it");
        let values = batch.pixels.len() / batch.samples.len();
        (batch.masks[at].clone(), batch.pixels[at * values..][..values].to_vec())
    };
    let (first, second) = (of_clip_3(&batches[0]), of_clip_3(&batches[1]));
    assert!(first.0 != second.0 && first.1 != second.1);
}

#[test]
fn examples_are_the_clips_as_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let grid = PatchGrid { frames: 8, size: 38, tubelet: 2, patch: 19 };
    let batch = examples(&data, grid, MaskRule { kind: MaskKind::Random, ratio: 0.5 }, 0, 100).expect("examples");
    assert_eq!(batch.samples.iter().map(|sample| sample.clip).collect::<Vec<_>>(), (0..CLIPS).collect::<Vec<_>>());
    // Clip 0 is 50 x 38: its central square is not resized, so a grey of its luma comes out as it went in.
    let clip = TestClip::moving(0, 8, 50, 38);
    let frame = &clip.payload[..50 * 38];
    let pixels = &batch.pixels[..grid.clip_values()];
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let stored = mean(&mut (0..38 * 38).map(|at| f64::from(frame[at / 38 * 50 + at % 38 + 6])));
    // Y' = 16 + 219 (0.299 R' + 0.587 G' + 0.114 B')
    let channel =
        |channel: usize| mean(&mut pixels[channel * 8 * 38 * 38..][..38 * 38].iter().map(|&value| f64::from(value) * 0.225 + 0.45));
    let luma = 16.0 + 219.0 * (0.299 * channel(0) + 0.587 * channel(1) + 0.114 * channel(2));
    assert!((luma - stored).abs() < 0.01, "{luma} for {stored}");
}

#[test]
fn a_damaged_clip_ends_the_iterator_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let manifest = {
        let data = shards(dir.path());
        data.manifest().clone()
    };
    let path = dir.path().join(&manifest.shards[1].file);
    damage_clip(&path, 1);
    let data = Arc::new(ShardSet::open(dir.path()).expect("the footers are whole"));
    for threads in [1, 3] {
        let mut loader = Loader::new(Arc::clone(&data), loader_options(threads)).expect("a loader");
        let error = loader.by_ref().find_map(Result::err).expect("one epoch meets every clip");
        let LoadError::Shard(ShardError::Damaged { path: named, row, .. }) = error else { panic!("{error}") };
        assert_eq!((&named, row), (&path, 1));
        assert!(loader.next().is_none(), "after an error it ends");
    }
}

#[test]
fn a_loader_dropped_early_takes_its_threads_along() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for taken in [0, 1, 5] {
        let mut loader = Loader::new(Arc::clone(&data), loader_options(4)).expect("a loader");
        assert_eq!(loader.by_ref().take(taken).filter(Result::is_ok).count(), taken);
        drop(loader);
        assert_eq!(Arc::strong_count(&data), 1, "no thread holds the data any more");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let refused = |options: LoaderOptions| Loader::new(Arc::clone(&data), options).err().expect("refused").to_string();
    let grid = loader_options(1).grid;
    let message = refused(LoaderOptions { grid: PatchGrid { frames: 16, ..grid }, ..loader_options(1) });
    assert!(message.contains("8 frames, training wants 16") && message.contains("--frames 16"), "{message}");
    let message = refused(LoaderOptions { grid: PatchGrid { size: 30, ..grid }, ..loader_options(1) });
    assert!(message.contains("size = 30 is not a multiple of patch = 8"), "{message}");
    for options in [
        LoaderOptions { batch_size: 0, ..loader_options(1) },
        LoaderOptions { mask_rule: MaskRule { kind: MaskKind::Random, ratio: 0.99 }, ..loader_options(1) },
        LoaderOptions { prefetch: 0, ..loader_options(1) },
        LoaderOptions { threads: 0, ..loader_options(1) },
    ] {
        assert!(!refused(options).is_empty());
    }
}
