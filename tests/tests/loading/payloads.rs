//! Clips stored as RGB and as H.264 come back as what they were, and train like exact ones.

use pipeline::frames::{Color, Frames};
use pipeline::loader::batch::Batch;
use pipeline::loader::{LoadError, Loader, LoaderOptions};
use pipeline::shard::{ClipReader, Shard, ShardError, ShardSet};
use pipeline::source::{SourceError, WeightedSource};
use pipeline::transform::picture::to_rgb;
use pipeline::video::gop::{GopDecoder, encode_gop};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ColorMatrix, ColorRange, Payload};
use std::path::Path;
use std::sync::Arc;
use tests::{
    TestClip, clip_pixels, damage_clip, loader_options, moving_frame, options, shard_sources,
    write_shards_with,
};

const COLOR: Color = Color {
    range: ColorRange::Limited,
    matrix: ColorMatrix::Bt601,
};

fn frames(count: u32, size: FrameSize) -> Vec<u8> {
    (0..count)
        .flat_map(|frame| moving_frame(3, f64::from(frame), size))
        .collect()
}

fn decoded(stream: &[u8], size: FrameSize, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    GopDecoder::new()
        .expect("a decoder")
        .decode(stream, size, count, &mut out)
        .expect("decoded");
    out
}

/// Peak signal to noise ratio in decibels.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2))
        .sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}

/// Types of the NAL units of a byte stream.
fn nal_types(stream: &[u8]) -> Vec<u8> {
    stream
        .windows(4)
        .filter(|window| window[..3] == [0, 0, 1])
        .map(|window| window[3] & 0x1f)
        .collect()
}

#[test]
fn a_clip_is_one_closed_group_of_pictures() {
    let size = FrameSize {
        width: 96,
        height: 64,
    };
    for count in [1, 2, 16, 64] {
        // A cut in the middle must not make another key frame.
        let mut clip = frames(count, size);
        let half = clip.len() / 2;
        clip[half..]
            .iter_mut()
            .for_each(|sample| *sample = 255 - *sample);
        let stream = encode_gop(&clip, size, COLOR, 18).expect("encoded");
        for again in 0..8 {
            assert!(
                stream == encode_gop(&clip, size, COLOR, 18).expect("encoded"),
                "{count} frames have other bytes when encoded again ({again})"
            );
        }
        let types = nal_types(&stream);
        let of = |wanted: &[u8]| types.iter().filter(|nal| wanted.contains(nal)).count() as u32;
        assert_eq!(
            (of(&[5]), of(&[1, 5]), of(&[9])),
            (1, count, count),
            "IDR pictures, pictures, delimiters of {count} frames"
        );
        assert!(psnr(&decoded(&stream, size, count as usize), &clip) > 40.0);
    }
}

#[test]
fn a_rate_factor_sets_quality_and_zero_loses_nothing() {
    let size = FrameSize {
        width: 160,
        height: 120,
    };
    let clip = TestClip::noise(1, 8, size.width, size.height).payload;
    let coded = |crf| {
        let stream = encode_gop(&clip, size, COLOR, crf).expect("encoded");
        (stream.len(), decoded(&stream, size, 8))
    };
    let (lossless, fine, coarse) = (coded(0), coded(18), coded(40));
    assert!(lossless.1 == clip, "equal to the sample");
    assert!(
        lossless.0 > fine.0 && fine.0 > 3 * coarse.0,
        "{} {} {} bytes",
        lossless.0,
        fine.0,
        coarse.0
    );
    assert!(psnr(&fine.1, &clip) > psnr(&coarse.1, &clip) + 10.0);
}

#[test]
fn sides_and_colours_of_any_kind_come_back() {
    for (width, height) in [(1, 1), (2, 3), (17, 5), (33, 51), (130, 2)] {
        let size = FrameSize { width, height };
        let clip = frames(5, size);
        for (range, matrix) in [
            (ColorRange::Limited, ColorMatrix::Bt601),
            (ColorRange::Full, ColorMatrix::Bt601),
            (ColorRange::Full, ColorMatrix::Bt709),
            (ColorRange::Limited, ColorMatrix::Bt2020),
        ] {
            let stream = encode_gop(&clip, size, Color { range, matrix }, 0).expect("encoded");
            assert!(
                decoded(&stream, size, 5) == clip,
                "{width}x{height}, {range:?}, {matrix:?}"
            );
        }
    }
}

#[test]
fn a_decoder_is_used_again_after_any_clip() {
    let mut decoder = GopDecoder::new().expect("a decoder");
    let (small, large) = (
        FrameSize {
            width: 48,
            height: 32,
        },
        FrameSize {
            width: 64,
            height: 80,
        },
    );
    let clips: Vec<_> = [(small, 16), (large, 3), (small, 40), (small, 16)]
        .map(|(size, count)| {
            (
                size,
                count as usize,
                encode_gop(&frames(count, size), size, COLOR, 0).expect("encoded"),
            )
        })
        .into();
    for (at, (size, count, stream)) in clips.iter().enumerate() {
        let mut out = Vec::new();
        // First a part of it, then bytes that are no clip, then the whole.
        decoder
            .decode(stream, *size, count / 2, &mut out)
            .expect("a part");
        assert!(out == frames(*count as u32 / 2, *size), "half of clip {at}");
        decoder
            .decode(b"not a stream", *size, 1, &mut Vec::new())
            .expect_err("no frames");
        decoder
            .decode(stream, *size, count + 1, &mut Vec::new())
            .expect_err("too few frames");
        decoder
            .decode(
                stream,
                FrameSize {
                    width: 16,
                    height: 16,
                },
                1,
                &mut Vec::new(),
            )
            .expect_err("another size");
        out.clear();
        decoder
            .decode(stream, *size, *count, &mut out)
            .expect("the whole");
        assert!(out == frames(*count as u32, *size), "clip {at}");
    }
}

fn shards(
    dir: &Path,
    payload: Payload,
    crf: Option<u32>,
    stored_frames: u32,
) -> Arc<[WeightedSource]> {
    let clips: Vec<TestClip> = (0..6)
        .map(|seed| TestClip::moving(seed, stored_frames, 97, 65 + seed as usize))
        .collect();
    let level = if payload == Payload::H264 { 0 } else { 3 };
    write_shards_with(
        dir,
        &clips,
        BuildOptions {
            payload,
            crf,
            frames: stored_frames,
            ..options(level, 1 << 20)
        },
    );
    shard_sources(dir)
}

fn batches(data: &Arc<[WeightedSource]>) -> Vec<Batch> {
    let loader = Loader::new(Arc::clone(data), loader_options(2)).expect("a loader");
    loader
        .take(5)
        .map(|batch| batch.expect("a batch"))
        .collect()
}

/// The greatest difference of two batches' pixels, in 8-bit steps.
fn difference(a: &[Batch], b: &[Batch]) -> f32 {
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(
            (&a.samples, a.masks(), &a.labels),
            (&b.samples, b.masks(), &b.labels)
        );
        clip_pixels(a).iter().zip(clip_pixels(b))
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) * 0.225 * 255.0
}

#[test]
fn all_payloads_train_alike_also_when_stored_clips_are_longer() {
    for stored_frames in [8, 64] {
        let dir = tempfile::tempdir().expect("a folder");
        let of = |name: &str, payload, crf| {
            batches(&shards(&dir.path().join(name), payload, crf, stored_frames))
        };
        let exact = of("i420", Payload::I420, None);
        assert_eq!(
            difference(&exact, &of("delta", Payload::I420Delta, None)),
            0.0,
            "{stored_frames} frames as differences"
        );
        assert_eq!(
            difference(&exact, &of("lossless", Payload::H264, Some(0))),
            0.0,
            "{stored_frames} frames without loss"
        );
        let rgb = difference(&exact, &of("rgb", Payload::Rgb, None));
        // Rounded to 8 bits once more, and chroma interpolated to pixels first.
        assert!(
            rgb > 0.0 && rgb < 2.5,
            "RGB of {stored_frames} frames differs by {rgb} steps"
        );
        let h264 = difference(&exact, &of("h264", Payload::H264, Some(10)));
        assert!(
            h264 > 0.0 && h264 < 12.0,
            "H.264 of {stored_frames} frames differs by {h264} steps"
        );
    }
}

#[test]
fn rgb_is_what_training_would_see_of_each_frame() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(shards(dir.path(), Payload::Rgb, None, 8));
    let data = ShardSet::open(dir.path()).expect("opened");
    let clip = TestClip::moving(2, 8, 97, 67);
    let (shard, row) = data.locate(2);
    let (size, mut reader) = (
        FrameSize {
            width: 97,
            height: 67,
        },
        ClipReader::default(),
    );
    let Frames::Rgb(stored) = reader.frames(shard, row, 8).expect("read") else {
        panic!("RGB")
    };
    let expected: Vec<u8> = Frames::I420(&clip.payload, COLOR)
        .each(size)
        .flat_map(|frame| to_rgb(frame, size, 97, 67))
        .collect();
    assert!(stored == expected);
}

#[test]
fn damage_to_a_payload_names_the_clip() {
    for payload in [Payload::Rgb, Payload::H264] {
        let dir = tempfile::tempdir().expect("a folder");
        drop(shards(dir.path(), payload, None, 8));
        let path = ShardSet::open(dir.path()).expect("opened").shards()[0]
            .path()
            .to_owned();
        damage_clip(&path, 1);
        let shard = Shard::open(&path).expect("the footer is whole");
        let mut reader = ClipReader::default();
        reader
            .frames(&shard, 0, 8)
            .expect("the first clip is valid");
        let error = reader.frames(&shard, 1, 8).expect_err("damaged");
        assert!(
            matches!(&error, ShardError::Damaged { path: named, row: 1, .. } if *named == path),
            "{error}"
        );
        let options = LoaderOptions {
            max_bad: 0,
            ..loader_options(2)
        };
        let error = Loader::new(shard_sources(dir.path()), options)
            .expect("a loader")
            .find_map(Result::err);
        let Some(LoadError::TooManyBad { last, .. }) = error else {
            panic!("an epoch meets every clip")
        };
        assert!(
            matches!(
                *last,
                SourceError::Shard(ShardError::Damaged { row: 1, .. })
            ),
            "{last}"
        );
    }
}

#[test]
fn a_payload_that_does_not_hold_its_frames_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    // Stored under a valid hash: eight frames of H.264, where the row says nine.
    let clip = TestClip::moving(1, 8, 64, 48);
    let options = BuildOptions {
        payload: Payload::H264,
        frames: 8,
        ..options(0, 1 << 20)
    };
    let meta = schemas::shard::ClipMeta {
        frames: 9,
        ..clip.meta.clone()
    };
    write_shards_with(
        dir.path(),
        &[TestClip {
            meta,
            payload: clip.payload,
        }],
        options,
    );
    let data = ShardSet::open(dir.path()).expect("opened");
    let (shard, row) = data.locate(0);
    let mut reader = ClipReader::default();
    reader
        .frames(shard, row, 8)
        .expect("eight frames are there");
    let error = reader.frames(shard, row, 9).expect_err("refused");
    assert!(
        matches!(&error, ShardError::Undecodable { row: 0, .. })
            && error.to_string().contains("8 of 9 frames"),
        "{error}"
    );
}
