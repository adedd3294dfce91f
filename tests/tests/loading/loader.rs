//! Batches are the same for any number of threads and ranks, loading can resume anywhere, and ends
//! cleanly.

use pipeline::loader::batch::{Batch, Form, ValueType};
use pipeline::loader::{LoadError, Loader, LoaderOptions, Rank, examples};
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::sampling::order::{Cursor, SampleId};
use pipeline::sampling::sample::Views;
use pipeline::shard::{ShardError, ShardSet};
use pipeline::source::{Source, SourceError, WeightedSource};
use pipeline::transform::TargetForm;
use schemas::geometry::PatchGrid;
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::{
    TestClip, clip_pixels, damage_clip, loader_options, options, ran_alone, shard_sources,
    write_shards_with,
};

const CLIPS: u64 = 11;

type Sources = Arc<[WeightedSource]>;

fn shards(dir: &Path) -> Sources {
    shards_of(dir, 0..CLIPS)
}

fn shards_of(dir: &Path, seeds: std::ops::Range<u64>) -> Sources {
    let clips: Vec<TestClip> = seeds
        .map(|seed| TestClip::moving(seed, 8, 50, 38 + seed as usize))
        .collect();
    let manifest = write_shards_with(dir, &clips, options(0, 40_000));
    assert!(manifest.shards.len() > 2, "several shards");
    shard_sources(dir)
}

fn batches(data: &Sources, options: LoaderOptions, count: usize) -> Vec<Batch> {
    let loader = Loader::new(Arc::clone(data), options).expect("a loader");
    loader
        .take(count)
        .map(|batch| batch.expect("a batch"))
        .collect()
}

/// Options that use much of a loader: repeats, patches, bytes.
fn rich_options(threads: usize) -> LoaderOptions {
    let mut options = LoaderOptions {
        repeat: 3,
        ..loader_options(threads)
    };
    options.format.form = Form::Patches {
        target: TargetForm::Pixels { slices: 1 },
    };
    options.format.values = ValueType::U8;
    options
}

/// The same of another target, and of half of what is masked.
fn varied_options(threads: usize) -> LoaderOptions {
    let mut options = rich_options(threads);
    options.format.form = Form::Patches {
        target: TargetForm::Hog { slices: 2 },
    };
    options.format.values = ValueType::Bf16;
    options.format.mask_rule = options.format.mask_rule.map(|rule| MaskRule {
        decoder_keep: 0.5,
        ..rule
    });
    options
}

#[test]
fn threads_and_prefetch_do_not_change_the_batches() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for options in [
        loader_options as fn(usize) -> LoaderOptions,
        rich_options,
        varied_options,
    ] {
        let expected = batches(&data, options(1), 9);
        for (threads, prefetch) in [(2, 3), (4, 7), (5, 1), (5, 16)] {
            let got = batches(
                &data,
                LoaderOptions {
                    prefetch,
                    ..options(threads)
                },
                9,
            );
            assert!(
                got == expected,
                "{threads} threads, {prefetch} batches ahead"
            );
        }
        let other_seed = batches(
            &data,
            LoaderOptions {
                seed: 6,
                ..options(1)
            },
            9,
        );
        assert!(other_seed != expected);
    }
}

#[test]
fn waiting_before_the_next_batch_changes_nothing_but_who_waits() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let expected = batches(&data, rich_options(2), 9);
    let mut loader = Loader::new(Arc::clone(&data), rich_options(2)).expect("a loader");
    let mut got = Vec::new();
    while got.len() < expected.len() {
        if loader.wait(Duration::from_micros(100)) {
            let began = Instant::now();
            got.push(loader.next().expect("endless").expect("a batch"));
            assert!(began.elapsed() < Duration::from_secs(1));
        }
    }
    assert!(got == expected);
    // The wait counts as the batch's own: the first one takes longer than a look.
    assert!(
        got[0].wait >= Duration::from_micros(100),
        "{:?}",
        got[0].wait
    );
    // A single pass ends with an answer, too.
    let once = loader_options(1).once(Views::ONE);
    let mut loader = Loader::new(data, once).expect("a loader");
    while loader.wait(Duration::from_secs(5)) && loader.next().is_some() {}
    assert!(loader.wait(Duration::ZERO) && loader.next().is_none());
}

#[test]
fn a_cursor_takes_the_sequence_up_anywhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for options in [loader_options as fn(usize) -> LoaderOptions, rich_options] {
        let whole = batches(&data, options(2), 8);
        for cut in 1..7 {
            let rest = batches(
                &data,
                LoaderOptions {
                    start: whole[cut - 1].next,
                    ..options(3)
                },
                8 - cut,
            );
            assert!(rest == whole[cut..], "cut after {cut} batches");
        }
    }
}

/// Samples, visible tokens and pixels of a batch.
type Content = (Vec<SampleId>, Vec<Vec<u32>>, Vec<f32>);

/// The parts of the ranks, put together.
fn merged(parts: &[Vec<Batch>]) -> Vec<Content> {
    (0..parts[0].len())
        .map(|at| {
            let parts = || parts.iter().map(|batches| &batches[at]);
            assert!(
                parts().all(|batch| batch.next == parts().next().expect("a rank").next),
                "all ranks are at one place"
            );
            let samples = parts().flat_map(|batch| batch.samples.clone()).collect();
            let masks = parts()
                .flat_map(|batch| {
                    batch
                        .masks()
                        .iter()
                        .map(|mask| mask.visible.to_vec())
                        .collect::<Vec<_>>()
                })
                .collect();
            (
                samples,
                masks,
                parts()
                    .flat_map(|batch| clip_pixels(batch).to_vec())
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn ranks_share_every_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for repeat in [1, 2] {
        let of = |ranks: usize, start: Cursor, count: usize| {
            let rank = |number| {
                batches(
                    &data,
                    LoaderOptions {
                        repeat,
                        rank: Rank { number, of: ranks },
                        start,
                        ..loader_options(2)
                    },
                    count,
                )
            };
            (0..ranks).map(rank).collect::<Vec<_>>()
        };
        let alone = of(1, Cursor::default(), 7);
        let expected = merged(&alone);
        for ranks in [2, 4] {
            assert!(
                merged(&of(ranks, Cursor::default(), 7)) == expected,
                "{ranks} ranks, repeat {repeat}"
            );
        }
        // Taken up by other ranks than it was begun with.
        for (cut, ranks) in [(2, 4), (3, 2), (5, 1)] {
            assert!(
                merged(&of(ranks, alone[0][cut - 1].next, 7 - cut)) == expected[cut..],
                "{ranks} ranks go on after {cut} batches"
            );
        }
    }
}

#[test]
fn every_epoch_has_every_clip_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    // Four epochs of eleven clips are eleven batches of four.
    let samples: Vec<_> = batches(&data, loader_options(2), 11)
        .into_iter()
        .flat_map(|batch| batch.samples)
        .collect();
    for epoch in 0..4 {
        let clips: BTreeSet<u64> = samples
            .iter()
            .filter(|sample| sample.epoch == epoch)
            .map(|sample| sample.clip)
            .collect();
        assert_eq!(clips, (0..CLIPS).collect());
    }
    assert_eq!(samples.len(), samples.iter().collect::<HashSet<_>>().len());
}

#[test]
fn repeats_of_a_clip_differ_and_never_meet_in_a_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let batches = batches(
        &data,
        LoaderOptions {
            repeat: 4,
            ..loader_options(3)
        },
        44,
    );
    let mut seen = HashSet::new();
    for batch in &batches {
        let clips: HashSet<(u64, u64)> = batch
            .samples
            .iter()
            .map(|sample| (sample.epoch, sample.clip))
            .collect();
        assert_eq!(clips.len(), batch.len(), "no two samples of one clip");
        seen.extend(batch.samples.iter().copied());
    }
    // Four epochs of eleven clips, four times each.
    assert_eq!(seen.len(), 4 * 11 * 4);
    assert!(
        (0..4).all(|repeat| seen.iter().filter(|sample| sample.repeat == repeat).count() == 44)
    );
    let first = |repeat: usize| {
        (
            batches[repeat].masks().iter().next().expect("a mask"),
            &clip_pixels(&batches[repeat])[..1000],
        )
    };
    for repeat in 1..4 {
        assert_eq!(
            batches[repeat].samples[0],
            SampleId {
                repeat: repeat as u32,
                ..batches[0].samples[0]
            }
        );
        assert!(
            first(repeat).0 != first(0).0 && first(repeat).1 != first(0).1,
            "another crop and another mask"
        );
    }
}

#[test]
fn data_sets_are_mixed_by_weight() {
    let dir = tempfile::tempdir().expect("a folder");
    let set = |name: &str, seeds| {
        shards_of(&dir.path().join(name), seeds);
        Source::Shards(ShardSet::open(&dir.path().join(name)).expect("shards"))
    };
    let of = |weights: [f64; 2]| -> Sources {
        let [first, second] = weights;
        [
            WeightedSource {
                weight: first,
                ..set("a", 0..CLIPS).into()
            },
            WeightedSource {
                weight: second,
                ..set("b", 20..26).into()
            },
        ]
        .into()
    };
    let data = of([3.0, 1.0]);
    let whole = batches(&data, loader_options(2), 256);
    let samples: Vec<SampleId> = whole
        .iter()
        .flat_map(|batch| batch.samples.clone())
        .collect();
    assert_eq!(
        samples.iter().filter(|sample| sample.set == 0).count(),
        768,
        "three of four in a whole period"
    );
    for (set, clips) in [(0, CLIPS), (1, 6)] {
        let epoch: BTreeSet<u64> = samples
            .iter()
            .filter(|sample| (sample.set, sample.epoch) == (set, 1))
            .map(|sample| sample.clip)
            .collect();
        assert_eq!(
            epoch,
            (0..clips).collect(),
            "every epoch of a set has all of its clips"
        );
    }
    for (batch, sample, label) in whole.iter().flat_map(|batch| {
        batch
            .samples
            .iter()
            .zip(&batch.labels)
            .map(move |(a, b)| (batch, a, b))
    }) {
        let seed = if sample.set == 0 {
            sample.clip
        } else {
            sample.clip + 20
        };
        assert_eq!(
            *label,
            seed.is_multiple_of(2).then_some(seed as i32),
            "{:?}",
            batch.next
        );
    }
    assert!(
        batches(
            &data,
            LoaderOptions {
                start: whole[99].next,
                ..loader_options(1)
            },
            5
        ) == whole[100..105]
    );
    let refused = |weight| {
        Loader::new(of([1.0, weight]), loader_options(1))
            .err()
            .expect("no weight")
            .to_string()
    };
    assert!(refused(0.0).contains("must be a number above 0") && refused(f64::NAN).contains("NaN"));
}

#[test]
fn a_batch_holds_what_it_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let options = loader_options(2);
    let grid = options.format.grid;
    for batch in batches(&data, options.clone(), 3) {
        assert_eq!(clip_pixels(&batch).len(), 4 * grid.clip_values());
        for (sample, label) in batch.samples.iter().zip(&batch.labels) {
            assert_eq!(
                *label,
                sample.clip.is_multiple_of(2).then_some(sample.clip as i32)
            );
        }
        assert_eq!(batch.masks().len(), 4);
        for mask in batch.masks().iter() {
            // int(48 * 0.1)
            assert_eq!((mask.visible.len(), mask.masked.len()), (4, 44));
            let all: BTreeSet<u32> = mask.visible.iter().chain(mask.masked).copied().collect();
            assert_eq!(all, (0..48).collect());
        }
        assert!(
            clip_pixels(&batch)
                .iter()
                .all(|value| (-2.001..=2.445).contains(value)),
            "normalised"
        );
    }
    // The same clip gets another crop and another mask in another epoch.
    let batches = batches(
        &data,
        LoaderOptions {
            batch_size: CLIPS as usize,
            ..options
        },
        2,
    );
    let of_clip_3 = |batch: &Batch| {
        let at = batch
            .samples
            .iter()
            .position(|sample| sample.clip == 3)
            .expect("every epoch has it");
        let visible = batch
            .masks()
            .iter()
            .nth(at)
            .expect("its mask")
            .visible
            .to_vec();
        (
            visible,
            clip_pixels(batch)[at * grid.clip_values()..][..grid.clip_values()].to_vec(),
        )
    };
    let (first, second) = (of_clip_3(&batches[0]), of_clip_3(&batches[1]));
    assert!(first.0 != second.0 && first.1 != second.1);
}

#[test]
fn examples_are_the_clips_as_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let grid = PatchGrid {
        frames: 8,
        size: 38,
        tubelet: 2,
        patch: 19,
    };
    let batch =
        examples(&data, grid, MaskRule::new(MaskKind::Random, 0.5), 0, 100).expect("examples");
    assert_eq!(
        batch
            .samples
            .iter()
            .map(|sample| sample.clip)
            .collect::<Vec<_>>(),
        (0..CLIPS).collect::<Vec<_>>()
    );
    // Clip 0 is 50 x 38: its central square is not resized, so a grey of its luma comes out as it
    // went in.
    let clip = TestClip::moving(0, 8, 50, 38);
    let frame = &clip.payload[..50 * 38];
    let pixels = &clip_pixels(&batch)[..grid.clip_values()];
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let stored = mean(&mut (0..38 * 38).map(|at| f64::from(frame[at / 38 * 50 + at % 38 + 6])));
    // Y' = 16 + 219 (0.299 R' + 0.587 G' + 0.114 B')
    let channel = |channel: usize| {
        mean(
            &mut pixels[channel * 8 * 38 * 38..][..38 * 38]
                .iter()
                .map(|&value| f64::from(value) * 0.225 + 0.45),
        )
    };
    let luma = 16.0 + 219.0 * (0.299 * channel(0) + 0.587 * channel(1) + 0.114 * channel(2));
    assert!((luma - stored).abs() < 0.01, "{luma} for {stored}");
}

/// The shards' files, in order.
fn files(data: &Sources) -> Vec<std::path::PathBuf> {
    let Source::Shards(shards) = &*data[0].source else {
        panic!("shards")
    };
    shards
        .shards()
        .iter()
        .map(|shard| shard.path().to_owned())
        .collect()
}

#[test]
fn a_damaged_clip_is_skipped_named_and_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let intact = shards(dir.path());
    let path = files(&intact)[1].clone();
    let whole = batches(
        &intact,
        LoaderOptions {
            repeat: 2,
            ..loader_options(2)
        },
        22,
    );
    damage_clip(&path, 1);
    let data = shard_sources(dir.path());
    for threads in [1, 3] {
        let options = LoaderOptions {
            repeat: 2,
            max_bad: 1,
            ..loader_options(threads)
        };
        let mut loader = Loader::new(Arc::clone(&data), options).expect("a loader");
        let got: Vec<Batch> = loader
            .by_ref()
            .take(22)
            .map(|batch| batch.expect("one bad clip is allowed"))
            .collect();
        let bad = got
            .iter()
            .flat_map(|batch| &batch.skipped)
            .map(|skipped| skipped.sample.clip)
            .collect::<HashSet<_>>();
        assert_eq!(bad.len(), 1, "one clip is bad");
        let skipped: Vec<_> = got.iter().flat_map(|batch| &batch.skipped).collect();
        assert_eq!(
            skipped
                .iter()
                .map(|skipped| skipped.is_new)
                .collect::<Vec<_>>(),
            [true, false, false, false],
            "once in each of four epochs"
        );
        let named = format!("clip 1 of {} is damaged", path.display());
        assert!(
            skipped
                .iter()
                .all(|skipped| skipped.reason.starts_with(&named)),
            "{}",
            skipped[0].reason
        );
        assert_eq!(loader.figures().skipped, 4);
        for (got, whole) in got.iter().zip(&whole) {
            // All others are there, with their own pixels and masks.
            let kept: Vec<usize> = (0..4)
                .filter(|&at| !bad.contains(&whole.samples[at].clip))
                .collect();
            assert_eq!(
                got.samples,
                kept.iter().map(|&at| whole.samples[at]).collect::<Vec<_>>()
            );
            assert_eq!(got.next, whole.next);
            let values = clip_pixels(whole).len() / 4;
            for (place, &at) in kept.iter().enumerate() {
                assert_eq!(
                    clip_pixels(got)[place * values..][..values],
                    clip_pixels(whole)[at * values..][..values]
                );
                assert_eq!(got.masks().iter().nth(place), whole.masks().iter().nth(at));
            }
        }
    }
}

#[test]
fn too_many_damaged_clips_end_the_iterator() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = files(&shards(dir.path()))[1].clone();
    damage_clip(&path, 1);
    damage_clip(&path, 0);
    let data = shard_sources(dir.path());
    for (threads, max_bad) in [(1, 0), (3, 0), (3, 1)] {
        let mut loader = Loader::new(
            Arc::clone(&data),
            LoaderOptions {
                max_bad,
                ..loader_options(threads)
            },
        )
        .expect("a loader");
        let error = loader
            .by_ref()
            .find_map(Result::err)
            .expect("one epoch meets every clip");
        let LoadError::TooManyBad { limit, last } = error else {
            panic!("{error}")
        };
        let SourceError::Shard(ShardError::Damaged { path: named, .. }) = *last else {
            panic!("{last}")
        };
        assert_eq!((limit, &named), (max_bad, &path));
        assert!(loader.next().is_none(), "after an error it ends");
    }
    // Where nothing is left, nothing is waited for.
    for path in files(&data) {
        let clips = tests::data_pages(&path).len();
        (0..clips).for_each(|row| {
            if path != files(&data)[1] || row > 1 {
                damage_clip(&path, row)
            }
        });
    }
    let mut loader = Loader::new(shard_sources(dir.path()), loader_options(2)).expect("a loader");
    let error = loader
        .next()
        .expect("an end")
        .expect_err("every clip is damaged");
    assert!(
        matches!(error, LoadError::AllBad { clips: 11, .. }),
        "{error}"
    );
}

#[test]
fn a_shard_that_goes_or_is_cut_short_is_an_error_with_its_path() {
    for what in ["cut", "remove", "replace"] {
        let dir = tempfile::tempdir().expect("a folder");
        let data = shards(dir.path());
        let path = files(&data)[1].clone();
        let mut loader = Loader::new(
            Arc::clone(&data),
            LoaderOptions {
                prefetch: 1,
                ..loader_options(3)
            },
        )
        .expect("a loader");
        loader.next().expect("a batch").expect("all is well yet");
        match what {
            "cut" => File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(100))
                .expect("cut"),
            "remove" => fs::remove_file(&path).expect("removed"),
            _ => fs::copy(&path, dir.path().join("copy"))
                .and_then(|_| fs::rename(dir.path().join("copy"), &path))
                .expect("replaced"),
        }
        let error = loader
            .by_ref()
            .take(10)
            .find_map(Result::err)
            .expect("two epochs meet every shard");
        let LoadError::Source(SourceError::Shard(ShardError::Io {
            path: named,
            source,
            ..
        })) = &error
        else {
            panic!("{what}: {error}")
        };
        assert_eq!(named, &path);
        let expected = match what {
            "cut" => "it was cut short since it was opened",
            "remove" => "it is gone since it was opened",
            _ => "another file has taken its place",
        };
        assert!(source.to_string().contains(expected), "{source}");
    }
}

#[test]
fn a_loader_dropped_early_takes_its_threads_along() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for taken in [0, 1, 5] {
        let mut loader = Loader::new(
            Arc::clone(&data),
            LoaderOptions {
                prefetch: 7,
                ..loader_options(4)
            },
        )
        .expect("a loader");
        (0..taken).for_each(|_| drop(loader.next()));
        let began = Instant::now();
        drop(loader);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "it takes no second"
        );
        assert_eq!(
            Arc::strong_count(&data),
            1,
            "no thread holds the data any more"
        );
    }
}

#[test]
fn a_worker_that_panics_is_an_error_and_all_threads_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    for threads in [1, 4] {
        // No probability: drawing by it panics.
        let mut options = loader_options(threads);
        options.augmentation.flip = 2.0;
        let mut loader = Loader::new(Arc::clone(&data), options).expect("a loader");
        let error = loader.next().expect("an end").expect_err("a panic");
        assert!(
            matches!(&error, LoadError::Panic { message } if message.contains("p=2")),
            "{error}"
        );
        assert!(loader.next().is_none(), "after an error it ends");
        let began = Instant::now();
        drop(loader);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "it takes no second"
        );
        assert_eq!(
            Arc::strong_count(&data),
            1,
            "no thread holds the data any more"
        );
    }
}

#[test]
fn invalid_options_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let refused = |options: LoaderOptions| {
        Loader::new(Arc::clone(&data), options)
            .err()
            .expect("refused")
            .to_string()
    };
    let of_grid = |change: fn(&mut PatchGrid)| {
        let mut options = loader_options(1);
        change(&mut options.format.grid);
        options
    };
    let message = refused(of_grid(|grid| grid.frames = 16));
    assert!(
        message.contains("8 frames, training wants 16") && message.contains("--frames 16"),
        "{message}"
    );
    let message = refused(of_grid(|grid| grid.size = 30));
    assert!(
        message.contains("size = 30 is not a multiple of patch = 8"),
        "{message}"
    );
    let message = refused(LoaderOptions {
        rank: Rank { number: 0, of: 3 },
        ..loader_options(1)
    });
    assert!(
        message.contains("a batch of 4 clips cannot be shared by 3 ranks"),
        "{message}"
    );
    let message = refused(LoaderOptions {
        start: Cursor { samples: 6 },
        ..loader_options(1)
    });
    assert!(
        message.contains("sample 6 lies inside a batch of 4"),
        "{message}"
    );
    let message = refused(LoaderOptions {
        memory_bytes: 100_000,
        repeat: 2,
        ..loader_options(1)
    });
    assert!(
        message.contains("2 batches of") && message.contains("the limit is 100000 bytes"),
        "{message}"
    );
    let mut no_mask = loader_options(1);
    no_mask.format.mask_rule = Some(MaskRule::new(MaskKind::Random, 0.99));
    let mut slices = loader_options(1);
    slices.format.form = Form::Patches {
        target: TargetForm::Pixels { slices: 3 },
    };
    let mut nothing_predicted = loader_options(1);
    nothing_predicted.format.mask_rule = nothing_predicted.format.mask_rule.map(|rule| MaskRule {
        decoder_keep: 0.01,
        ..rule
    });
    let mut bytes_of_histograms = loader_options(1);
    bytes_of_histograms.format.form = Form::Patches {
        target: TargetForm::Hog { slices: 1 },
    };
    bytes_of_histograms.format.values = ValueType::U8;
    let message = refused(bytes_of_histograms);
    assert!(message.contains("choose --values f32 or bf16"), "{message}");
    for options in [
        no_mask,
        slices,
        nothing_predicted,
        LoaderOptions {
            batch_size: 0,
            ..loader_options(1)
        },
        LoaderOptions {
            repeat: 0,
            ..loader_options(1)
        },
        LoaderOptions {
            prefetch: 0,
            ..loader_options(1)
        },
        LoaderOptions {
            threads: 0,
            ..loader_options(1)
        },
        LoaderOptions {
            rank: Rank { number: 2, of: 2 },
            ..loader_options(1)
        },
        LoaderOptions {
            rank: Rank { number: 0, of: 0 },
            ..loader_options(1)
        },
    ] {
        assert!(!refused(options).is_empty());
    }
}

/// Lines `cursor hash` of batches from sample `first` on.
fn hashes(dir: &Path, first: &str, threads: usize, count: usize) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_batch-hashes"))
        .args([
            dir.as_os_str(),
            first.as_ref(),
            threads.to_string().as_ref(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
    let lines = BufReader::new(child.stdout.take().expect("piped"))
        .lines()
        .take(count)
        .map(|line| line.expect("a line"))
        .collect();
    // SIGKILL, wherever it is in its next batches.
    child.kill().expect("killed");
    child.wait().expect("ended");
    lines
}

#[test]
fn a_loader_that_is_killed_goes_on_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().expect("a folder");
    shards(dir.path());
    let whole = hashes(dir.path(), "0", 2, 60);
    let mut got: Vec<String> = Vec::new();
    for (kill, batches) in [4, 1, 7, 3, 2, 9, 5, 1, 6, 8].into_iter().enumerate() {
        let from = got
            .last()
            .map_or("0", |line| line.split_once(' ').expect("two words").0)
            .to_owned();
        got.extend(hashes(dir.path(), &from, 1 + kill % 4, batches));
    }
    assert_eq!(got, whole[..got.len()], "ten kills");
}

/// Threads, open files and memory in use (KiB), of this process.
fn resources() -> (usize, usize, u64) {
    let count = |dir: &str| fs::read_dir(dir).expect("a list").count();
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("memory in use");
    (
        count("/proc/self/task"),
        count("/proc/self/fd"),
        memory
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number"),
    )
}

#[test]
fn a_hundred_epochs_leave_nothing_behind() {
    if ran_alone("loader::a_hundred_epochs_leave_nothing_behind") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path());
    let (mut early, mut threads) = (None, None);
    for epoch in 1..=100 {
        // A loader of its own for each, which is dropped before its end in every third.
        let count = if epoch % 3 == 0 { 1 } else { 11 };
        let mut loader = Loader::new(Arc::clone(&data), rich_options(3)).expect("a loader");
        (0..count).for_each(|_| drop(loader.next().expect("endless").expect("a batch")));
        threads.get_or_insert(resources().0);
        assert_eq!(Some(resources().0), threads, "threads in epoch {epoch}");
        drop(loader);
        if epoch == 5 {
            early = Some(resources());
        }
    }
    let (early, late) = (early.expect("past"), resources());
    println!("threads, files and KiB after 5 and 100 epochs: {early:?} {late:?}");
    assert_eq!((early.0, early.1), (late.0, late.1), "threads and files");
    assert!(
        late.2 < early.2 + 4096,
        "memory went from {} to {} KiB",
        early.2,
        late.2
    );
}
