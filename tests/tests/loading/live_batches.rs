//! Live video through the loader: the batches of its shards, and an end that is clean whatever the
//! decoders do.

use pipeline::live::{LiveOptions, LiveSet, LiveSpan};
use pipeline::loader::batch::{Form, ValueType};
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::source::{Source, WeightedSource, fingerprint};
use pipeline::transform::TargetForm;
use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::DecodeOptions;
use pipeline::worker::WorkerProgram;
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::{
    TestClip, children, loader_options, options, ran_alone, shard_sources, signal,
    write_shards_with, write_video,
};

/// Three videos in `dir`/videos, of which one is shorter than a clip.
fn videos(dir: &Path) -> PathBuf {
    let videos = dir.join("videos");
    fs::create_dir_all(&videos).expect("a folder");
    for (seed, frames) in [(0, 75), (1, 12), (2, 101)] {
        write_video(
            &videos.join(format!("{seed}.mp4")),
            seed,
            frames,
            30,
            FrameSize {
                width: 64,
                height: 48 + 2 * seed as usize,
            },
        );
    }
    videos
}

fn live(videos: &Path, span: LiveSpan) -> Arc<[WeightedSource]> {
    let worker = WorkerProgram {
        path: env!("CARGO_BIN_EXE_live-worker").into(),
        argument: String::new(),
    };
    let live = LiveOptions {
        frames: 6,
        span,
        ..LiveOptions::new(worker)
    };
    [WeightedSource::from(Source::Live(
        LiveSet::open(&[videos.to_owned()], live, |_, _| ()).expect("videos"),
    ))]
    .into()
}

/// Shards of the same videos, as a build makes them.
fn shards(videos: &Path, dir: &Path) -> Arc<[WeightedSource]> {
    let build = BuildOptions {
        frames: 6,
        ..options(3, 1 << 20)
    };
    let mut paths: Vec<PathBuf> = fs::read_dir(videos)
        .expect("a list")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let mut clips = Vec::new();
    for path in paths {
        let mut decoder =
            ClipDecoder::open(&path, &build, DecodeOptions::default()).expect("opened");
        while let Some(clip) = decoder.next_clip().expect("decoded") {
            let source = decoder.source();
            let mut test = TestClip::moving(1, 6, source.size.width, source.size.height);
            (test.meta.color_range, test.meta.color_matrix) =
                (source.color_range, source.color_matrix);
            test.payload = clip.data;
            clips.push(test);
        }
    }
    write_shards_with(dir, &clips, build);
    shard_sources(dir)
}

fn rich_options(threads: usize) -> LoaderOptions {
    let mut options = LoaderOptions {
        repeat: 3,
        ..loader_options(threads)
    };
    options.format.form = Form::Patches {
        target: TargetForm::Pixels { slices: 2 },
    };
    options.format.values = ValueType::Bf16;
    options
}

#[test]
fn live_video_gives_the_batches_of_its_shards() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = videos(dir.path());
    let (live, shards) = (
        live(&videos, LiveSpan::Clip),
        shards(&videos, &dir.path().join("shards")),
    );
    assert_eq!(live[0].source.len(), shards[0].source.len());
    assert_eq!(live[0].source.len(), 3 + 1 + 4);
    for options in [loader_options as fn(usize) -> LoaderOptions, rich_options] {
        let of = |data: &Arc<[WeightedSource]>, threads| {
            let loader = Loader::new(Arc::clone(data), options(threads)).expect("a loader");
            loader
                .take(7)
                .map(|batch| batch.expect("a batch"))
                .collect::<Vec<_>>()
        };
        let stored = of(&shards, 2);
        assert!(of(&live, 1) == stored && of(&live, 3) == stored);
    }
}

#[test]
fn whole_videos_give_windows_anywhere_in_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = live(&videos(dir.path()), LiveSpan::Video);
    assert_eq!(data[0].source.len(), 3, "a video is a clip");
    let loader = Loader::new(
        Arc::clone(&data),
        LoaderOptions {
            repeat: 4,
            ..loader_options(2)
        },
    )
    .expect("a loader");
    let batches: Vec<_> = loader
        .take(12)
        .map(|batch| batch.expect("a batch"))
        .collect();
    let pixels: HashSet<Vec<u8>> = batches
        .iter()
        .flat_map(|batch| tests::clip_pixels(batch).chunks(batch.format.grid.clip_values()))
        .map(|clip| clip.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    assert_eq!(pixels.len(), 48, "no two samples are alike");
}

#[test]
fn a_video_that_disappears_is_skipped_and_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = videos(dir.path());
    let data = live(&videos, LiveSpan::Clip);
    fs::remove_file(videos.join("1.mp4")).expect("removed");
    let batches: Vec<_> = Loader::new(data, loader_options(2))
        .expect("a loader")
        .take(2)
        .map(|batch| batch.expect("a batch"))
        .collect();
    let skipped: Vec<_> = batches.iter().flat_map(|batch| &batch.skipped).collect();
    assert_eq!((skipped.len(), batches[0].len() + batches[1].len()), (1, 7));
    assert!(
        skipped[0].reason.contains("1.mp4") && skipped[0].reason.contains("no such file"),
        "{}",
        skipped[0].reason
    );
}

#[test]
fn videos_are_identified_by_name_and_size_and_not_by_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = videos(dir.path());
    let of = |videos: &Path| fingerprint(&live(videos, LiveSpan::Clip));
    let first = of(&videos);
    let moved = dir.path().join("moved");
    fs::rename(&videos, &moved).expect("moved");
    assert_eq!(of(&moved), first);
    fs::rename(moved.join("2.mp4"), moved.join("3.mp4")).expect("renamed");
    assert_ne!(of(&moved), first);
    // As many clips, of another video.
    fs::remove_file(moved.join("3.mp4")).expect("removed");
    write_video(
        &moved.join("2.mp4"),
        7,
        101,
        30,
        FrameSize {
            width: 64,
            height: 52,
        },
    );
    assert_ne!(of(&moved), first);
    let data = live(&moved, LiveSpan::Clip);
    let weighing = |weights: [f64; 2]| {
        fingerprint(&weights.map(|weight| WeightedSource {
            weight,
            ..data[0].clone()
        }))
    };
    assert_ne!(weighing([1.0, 0.5]), weighing([0.5, 1.0]));
}

#[test]
fn a_loader_whose_decoders_hang_ends_within_a_second() {
    if ran_alone("live_batches::a_loader_whose_decoders_hang_ends_within_a_second") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = live(&videos(dir.path()), LiveSpan::Video);
    let mut loader = Loader::new(
        data,
        LoaderOptions {
            prefetch: 100,
            ..loader_options(3)
        },
    )
    .expect("a loader");
    loader.next().expect("endless").expect("a batch");
    // In the midst of what is to be made ahead.
    let workers = children(std::process::id());
    assert!(!workers.is_empty());
    assert!(workers.iter().all(|&worker| signal(worker, "STOP")));
    let began = Instant::now();
    drop(loader);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        began.elapsed()
    );
    assert!(
        children(std::process::id()).is_empty(),
        "no process is left"
    );
}
