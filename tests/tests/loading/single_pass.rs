//! A single pass of the loader over every clip, as evaluation needs it, and the split of videos.

use pipeline::loader::batch::{Form, Pixels};
use pipeline::loader::{LoadError, Loader, LoaderOptions, Rank};
use pipeline::sampling::sample::Views;
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tests::{TestClip, damage_clip, shard_sources, write_labelled_shards, write_shards};
use trainer::config::SplitConfig;
use trainer::data::classes::{self, ClassError, Split};

const GRID: PatchGrid = PatchGrid {
    frames: 6,
    size: 32,
    tubelet: 2,
    patch: 8,
};

fn shards(dir: &Path, clips: u64, frames: u32) -> Arc<[WeightedSource]> {
    let clips: Vec<TestClip> = (0..clips)
        .map(|seed| TestClip::moving(seed, frames, 60, 40))
        .collect();
    write_shards(dir, &clips);
    shard_sources(dir)
}

/// Clip and view of each sample of each batch.
type Batches = Vec<Vec<(u64, u32)>>;

/// Pixels by set, clip and view.
type PixelsOf = BTreeMap<(u32, u64, u32), Vec<u8>>;

/// The samples and pixels of a pass.
fn pass(data: &Arc<[WeightedSource]>, options: LoaderOptions) -> (Batches, PixelsOf) {
    let (mut order, mut pixels) = (Vec::new(), BTreeMap::new());
    for batch in Loader::new(Arc::clone(data), options).expect("a loader") {
        let batch = batch.expect("a batch");
        let (Pixels::Tokens(bytes) | Pixels::Clips(bytes)) = batch.pixels() else {
            panic!("whole clips")
        };
        assert_eq!(batch.masks().visible(), GRID.tokens());
        order.push(
            batch
                .samples
                .iter()
                .map(|sample| (sample.clip, sample.repeat))
                .collect(),
        );
        for (sample, bytes) in batch
            .samples
            .iter()
            .zip(bytes.chunks_exact(bytes.len() / batch.len()))
        {
            let earlier = pixels.insert((sample.set, sample.clip, sample.repeat), bytes.to_vec());
            assert!(earlier.is_none(), "each view once");
        }
    }
    (order, pixels)
}

#[test]
fn ranks_share_every_batch_of_a_pass() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path(), 20, 6);
    for of in [2, 3] {
        let clips_of = |number| {
            let options = LoaderOptions {
                rank: Rank { number, of },
                ..LoaderOptions::tokens(6, GRID).once(Views::ONE)
            };
            let (batches, _) = pass(&data, options);
            let clips = batches.into_iter();
            clips
                .map(|batch| batch.into_iter().map(|(clip, _)| clip).collect())
                .collect::<Vec<Vec<u64>>>()
        };
        let parts: Vec<Vec<Vec<u64>>> = (0..of).map(clips_of).collect();
        // The last batch has two clips, which are of the first rank.
        let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(counts, [vec![4], vec![3; of - 1]].concat());
        let batches = (0..4).flat_map(|batch| parts.iter().filter_map(move |part| part.get(batch)));
        let clips: Vec<u64> = batches.flatten().copied().collect();
        assert_eq!(clips, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn every_clip_comes_once_at_every_view_whatever_the_batches() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path(), 7, 10);
    let views = Views {
        temporal: 3,
        spatial: 2,
    };
    let options = |batch: usize, threads: usize| LoaderOptions {
        threads,
        prefetch: 4,
        ..LoaderOptions::tokens(batch, GRID).once(views)
    };
    let (order, first) = pass(&data, options(3, 1));
    // Two whole blocks and one of the clip that is left, each at all six views.
    let expected: Batches = [0..3, 3..6, 6..7]
        .into_iter()
        .flat_map(|clips| (0..6).map(move |view| clips.clone().map(|clip| (clip, view)).collect()))
        .collect();
    assert_eq!(order, expected);
    for (batch, threads) in [(1, 2), (4, 3), (7, 1), (50, 4)] {
        let (_, other) = pass(&data, options(batch, threads));
        assert!(other == first, "batches of {batch}");
    }
    // Windows and crops differ, and the first window's are those of the first frames.
    let of = |view: u32| &first[&(0, 2, view)];
    assert!((1..6).all(|view| of(view) != of(0)));
    let one = pass(&data, LoaderOptions::tokens(2, GRID).once(Views::ONE)).1;
    assert!(
        one.len() == 7 && (0..6).all(|view| one[&(0, 2, 0)] != *of(view)),
        "a single view is from the middle"
    );
}

#[test]
fn tokens_are_the_clips_pixels_in_another_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path(), 2, 6);
    let tokens = pass(&data, LoaderOptions::tokens(2, GRID).once(Views::ONE)).1;
    let mut options = LoaderOptions::tokens(2, GRID).once(Views::ONE);
    options.format.form = Form::Clips;
    let clips = pass(&data, options).1;
    let values = |bytes: &[u8]| {
        bytes
            .chunks_exact(4)
            .map(|value| f32::from_le_bytes(value.try_into().expect("four")))
            .collect::<Vec<f32>>()
    };
    let (tokens, clip) = (values(&tokens[&(0, 1, 0)]), values(&clips[&(0, 1, 0)]));
    for (at, value) in clip.iter().enumerate() {
        let (x, y, frame, channel) = (at % 32, at / 32 % 32, at / 1024 % 6, at / 1024 / 6);
        let token = frame / 2 * 16 + y / 8 * 4 + x / 8;
        let within = ((channel * 2 + frame % 2) * 8 + y % 8) * 8 + x % 8;
        assert_eq!(*value, tokens[token * GRID.tubelet_values() + within]);
    }
}

#[test]
fn chosen_clips_alone_come_under_their_own_numbers_and_labels() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = shards(dir.path(), 6, 6);
    let labels: Arc<[Option<i32>]> = (0..6).map(|clip| Some(10 + clip)).collect();
    let chosen = WeightedSource {
        chosen: Some([5, 1].into()),
        labels: Some(labels),
        ..data[0].clone()
    };
    let both: Arc<[WeightedSource]> = [chosen.clone(), data[0].clone()].into();
    let batches: Vec<_> = Loader::new(both, LoaderOptions::tokens(3, GRID).once(Views::ONE))
        .expect("a loader")
        .map(|batch| batch.expect("a batch"))
        .collect();
    let seen: Vec<(u32, u64, Option<i32>)> = batches
        .iter()
        .flat_map(|batch| {
            batch
                .samples
                .iter()
                .zip(&batch.labels)
                .map(|(sample, &label)| (sample.set, sample.clip, label))
        })
        .collect();
    assert_eq!(
        seen[..4],
        [
            (0, 5, Some(15)),
            (0, 1, Some(11)),
            (1, 0, Some(0)),
            (1, 1, None)
        ]
    );
    assert_eq!(seen.len(), 8);
    // Training draws from them, too.
    let training = Loader::new([chosen].into(), LoaderOptions::tokens(2, GRID))
        .expect("a loader")
        .take(3);
    let clips: Vec<u64> = training
        .flat_map(|batch| {
            batch
                .expect("a batch")
                .samples
                .iter()
                .map(|sample| sample.clip)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        clips
            .chunks_exact(2)
            .all(|epoch| epoch.iter().collect::<BTreeSet<_>>() == [1, 5].iter().collect()),
        "{clips:?}"
    );
}

#[test]
fn a_clip_that_cannot_be_read_is_skipped_at_all_views() {
    let dir = tempfile::tempdir().expect("a folder");
    shards(dir.path(), 5, 6);
    damage_clip(&dir.path().join("shard-00000.parquet"), 2);
    let data = shard_sources(dir.path());
    let options = LoaderOptions::tokens(3, GRID).once(Views {
        temporal: 1,
        spatial: 3,
    });
    let batches: Vec<_> = Loader::new(Arc::clone(&data), options.clone())
        .expect("a loader")
        .map(|batch| batch.expect("a batch"))
        .collect();
    assert_eq!(
        batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(),
        [2, 2, 2, 2, 2, 2]
    );
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.skipped.len())
            .sum::<usize>(),
        1,
        "it is reported once"
    );
    let strict = Loader::new(
        data,
        LoaderOptions {
            max_bad: 0,
            ..options
        },
    )
    .expect("a loader")
    .find_map(Result::err);
    assert!(
        matches!(strict, Some(LoadError::TooManyBad { limit: 0, .. })),
        "{strict:?}"
    );
}

/// Names of the videos of a split's part, by class.
fn videos(sets: &[WeightedSource]) -> BTreeMap<i32, BTreeSet<String>> {
    let mut videos: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    for set in sets {
        let catalogue = set.source.catalogue().expect("a catalogue");
        for number in (0..set.len()).map(|index| set.number(index)) {
            let video = catalogue.videos[catalogue.clips[number].video as usize]
                .path
                .clone();
            videos
                .entry(set.clip(number).label.expect("a label"))
                .or_default()
                .insert(video);
        }
    }
    videos
}

fn split(sets: &[WeightedSource], holdout: f64, per_class: Option<usize>, seed: u64) -> Split {
    let names = classes::of_all(sets).expect("classes");
    let sets = classes::number(sets.to_vec(), &names, true).expect("numbered");
    let config = SplitConfig {
        holdout,
        videos_per_class: per_class,
        balance: false,
    };
    classes::split(sets, None, &names, &config, seed).expect("a split")
}

#[test]
fn videos_are_kept_whole_and_by_class() {
    let dir = tempfile::tempdir().expect("a folder");
    let names: Vec<String> = (0..10)
        .map(|number| format!("a{number}"))
        .chain((0..4).map(|number| format!("b{number}")))
        .chain(["c0".to_owned()])
        .collect();
    let all: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), &name[..1]))
        .collect();
    write_labelled_shards(dir.path(), &["a", "b", "c"], &all);
    let data = shard_sources(dir.path());
    let Split {
        train,
        validation,
        videos: counts,
    } = split(&data, 0.3, None, 1);
    assert_eq!(
        counts,
        [[7, 3], [3, 1], [1, 0]],
        "a single video is trained on"
    );
    let (train, kept) = (videos(&train), videos(&validation.expect("some are kept")));
    for (class, kept) in &kept {
        assert!(train[class].is_disjoint(kept), "no video is in both");
    }
    assert_eq!(
        train
            .values()
            .chain(kept.values())
            .map(BTreeSet::len)
            .sum::<usize>(),
        15,
        "and none is lost"
    );
    let again = split(&data, 0.3, None, 1);
    assert_eq!(videos(&again.train), train);
    assert_ne!(
        videos(&split(&data, 0.3, None, 2).train),
        train,
        "the seed decides"
    );
    // Fewer videos a class are some of more, and the same are kept.
    let fewer = split(&data, 0.3, Some(2), 1);
    assert_eq!(fewer.videos, [[2, 3], [2, 1], [1, 0]]);
    assert!(
        videos(&fewer.train)
            .iter()
            .all(|(class, fewer)| fewer.is_subset(&train[class]))
    );
    assert_eq!(videos(&fewer.validation.expect("some are kept")), kept);
    // Nothing is kept where nothing is to be.
    assert!(split(&data, 0.0, None, 1).validation.is_none());
}

#[test]
fn the_same_video_under_another_name_is_one_video() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = |name: &str, videos: &[(&str, &str)]| {
        write_labelled_shards(&dir.path().join(name), &["a", "b"], videos);
        shard_sources(&dir.path().join(name))
    };
    let train = folder("train", &[("x/one", "a"), ("x/two", "b"), ("x/three", "a")]);
    let val = folder("val", &[("y/four", "a"), ("y/one", "a"), ("y/five", "b")]);
    let names = classes::of_all(&train).expect("classes");
    let number = |sets: &Arc<[WeightedSource]>| {
        classes::number(sets.to_vec(), &names, true).expect("numbered")
    };
    let config = SplitConfig {
        holdout: 0.3,
        videos_per_class: None,
        balance: false,
    };
    let error = classes::split(number(&train), Some(number(&val)), &names, &config, 0)
        .expect_err("they overlap");
    let ClassError::Overlap { videos } = &error else {
        panic!("{error}")
    };
    assert_eq!(*videos, ["y/one.mp4"], "as the validation data names it");
    // Classes of other shards are known by name, whatever their numbers.
    write_labelled_shards(
        &dir.path().join("other"),
        &["b", "a"],
        &[("six", "a"), ("seven", "b")],
    );
    let other = number(&shard_sources(&dir.path().join("other")));
    assert_eq!(
        (0..4)
            .map(|clip| other[0].clip(clip).label)
            .collect::<Vec<_>>(),
        [Some(0), Some(0), Some(1), Some(1)]
    );
    let union = classes::of_all(&[
        train[0].clone(),
        shard_sources(&dir.path().join("other"))[0].clone(),
    ])
    .expect("classes");
    assert_eq!(union, ["a", "b"]);
}
