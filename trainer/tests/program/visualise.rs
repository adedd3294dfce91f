//! `trainer visualise` as a user runs it, and its files read back.

use crate::{small_clips, trainer};
use candle_core::{Device, Tensor};
use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, Rgb, RgbImage};
use schemas::geometry::FrameSize;
use schemas::report::VisualiseReport;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tests::{ffmpeg_frames, shown, small_config, write_shards, write_video};
use trainer::config::{EncoderPart, FinetuneConfig, Preset, PretrainConfig, Recipe, Task};
use trainer::plot::reconstruction::animation;

fn visualise(dir: &Path, arguments: &[&str]) -> Output {
    trainer(dir, &[&["visualise"], arguments].concat())
}

fn report(output: &Output) -> VisualiseReport {
    tests::parse_report(output)
}

/// A folder with shards in `shards`, of which the last clip repeats three frames, and a run of two
/// steps in `run`.
fn with_run(flags: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let mut clips = small_clips(5);
    clips[4].meta.repeated_frames = 3;
    write_shards(&dir.path().join("shards"), &clips);
    fs::write(dir.path().join("small.toml"), small_config(1, 4)).expect("written");
    let output = trainer(
        dir.path(),
        &[
            &[
                "run",
                "--config",
                "small.toml",
                "--steps",
                "2",
                "--out",
                "run",
            ],
            flags,
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", shown(&output));
    dir
}

fn decoded_gif(path: &Path) -> Vec<image::Frame> {
    let decoder =
        GifDecoder::new(BufReader::new(File::open(path).expect("a file"))).expect("a GIF");
    decoder.into_frames().collect_frames().expect("frames")
}

#[test]
fn a_clip_is_drawn_at_several_ratios() {
    let dir = with_run(&[]);
    let flags = [
        "--weights",
        "run",
        "--clip",
        "1",
        "--mask-ratio",
        "0.75,0.5",
        "--out",
        "out",
    ];
    insta::assert_snapshot!("shards", shown(&visualise(dir.path(), &flags)));
    let out = dir.path().join("out");

    // Four predicted frames of 32 pixels, each as 4 x 4, with gaps of 2; a row of frames and two
    // for each ratio.
    let strip = image::open(out.join("strip.png"))
        .expect("a picture")
        .into_rgb8();
    let left = strip.width() + 2 - 4 * 130;
    assert_eq!(strip.height(), 5 * 130 - 2);
    for (row, masked) in [(1, 48), (3, 32)] {
        let mut grey = 0;
        for (frame, place) in (0..4).flat_map(|frame| (0..16).map(move |place| (frame, place))) {
            let corner = (left + frame * 130 + place % 4 * 32, place / 4 * 32);
            let patch = |row: u32| {
                let pixels = (0..32 * 32)
                    .map(|at| *strip.get_pixel(corner.0 + at % 32, row * 130 + corner.1 + at / 32));
                pixels.collect::<Vec<Rgb<u8>>>()
            };
            let (original, seen, made) = (patch(0), patch(row), patch(row + 1));
            if seen.iter().all(|pixel| pixel.0 == [96; 3]) {
                grey += 1;
                assert!(
                    made != original && made != seen,
                    "frame {frame}, patch {place} is reconstructed"
                );
            } else {
                assert!(
                    seen == original && made == original,
                    "frame {frame}, patch {place} is visible"
                );
            }
        }
        assert_eq!(grey, masked, "masked tokens of 64");
    }

    let frames = decoded_gif(&out.join("animation.gif"));
    // Stride 4 at 30 frames a second, one frame of each tubelet of two: 3.75 a second.
    assert!(
        frames.len() == 4
            && frames
                .iter()
                .all(|frame| frame.delay().numer_denom_ms() == (270, 1)),
        "{}",
        frames.len()
    );
    let (width, height) = frames[0].buffer().dimensions();
    let size = FrameSize {
        width: width as usize,
        height: height as usize,
    };
    let bytes = ffmpeg_frames(&out.join("animation.mp4"), &[]);
    assert_eq!(
        bytes.len(),
        4 * animation::mp4_rounds(4, 3.75) * size.frame_bytes()
    );

    // The same seed draws the same, another one other masks; one file alone is written where that
    // is asked for.
    let again = |seed: &str| {
        let out = format!("{seed}.png");
        let flags = [&flags[..6], &["--seed", seed, "--out", &out, "--json"]].concat();
        let report = report(&visualise(dir.path(), &flags));
        assert_eq!(report.files, [out.as_str()]);
        image::open(dir.path().join(out))
            .expect("a picture")
            .into_rgb8()
    };
    assert!(again("0") == strip && again("1") != strip);
}

#[test]
fn masks_are_of_the_kind_that_is_asked_for() {
    let dir = with_run(&[]);
    let flags = [
        "--weights",
        "run/checkpoints/step-000002",
        "--mask-kind",
        "tube",
        "--mask-ratio",
        "0.9",
        "--out",
        "tube.gif",
        "--json",
    ];
    let report = report(&visualise(dir.path(), &flags));
    // Of 16 places 14 are masked, at all four times. The clip is the one in the middle.
    let look = &report.looks[0];
    assert_eq!(
        (
            report.mask_kind.as_str(),
            report.clip,
            look.visible,
            look.masked
        ),
        ("tube", 2, 8, 56)
    );
    assert_eq!(
        (
            report.video.as_deref(),
            report.frames,
            report.repeated_frames
        ),
        (Some("video-2.mp4"), 4, 0)
    );
}

#[test]
fn any_place_of_a_video_is_drawn_and_a_short_one_filled_up() {
    let dir = with_run(&[]);
    write_video(
        &dir.path().join("long.mp4"),
        3,
        90,
        30,
        FrameSize {
            width: 64,
            height: 48,
        },
    );
    write_video(
        &dir.path().join("short.mp4"),
        4,
        14,
        30,
        FrameSize {
            width: 64,
            height: 48,
        },
    );
    let of = |flags: &[&str]| {
        report(&visualise(
            dir.path(),
            &[&["--weights", "run", "--out", "o.png", "--json"], flags].concat(),
        ))
    };
    let at = of(&["--data", "long.mp4", "--at", "1.0"]);
    // Frames lie 4 / 30 s apart: the eighth begins at 1.07 s.
    assert!(
        at.repeated_frames == 0 && (at.second - 8.0 * 4.0 / 30.0).abs() < 1e-9,
        "{at:?}"
    );
    // 23 frames: the last eight begin with frame 15.
    assert!((of(&["--data", "long.mp4", "--at", "2.9"]).second - 2.0).abs() < 1e-9);
    // Three seconds are two clips of 32 ticks.
    assert!((of(&["--data", "long.mp4", "--clip", "1"]).second - 32.0 / 30.0).abs() < 1e-9);
    insta::assert_snapshot!(
        "short-video",
        shown(&visualise(
            dir.path(),
            &["--weights", "run", "--data", "short.mp4", "--out", "o.png"]
        ))
    );
    insta::assert_snapshot!(
        "short-clip",
        shown(&visualise(
            dir.path(),
            &["--weights", "run", "--clip", "4", "--out", "o.png"]
        ))
    );

    insta::assert_snapshot!(
        "beyond-the-end",
        shown(&visualise(
            dir.path(),
            &["--weights", "run", "--data", "long.mp4", "--at", "9"]
        ))
    );
    insta::assert_snapshot!(
        "place-in-shards",
        shown(&visualise(dir.path(), &["--weights", "run", "--at", "1"]))
    );
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    fs::rename(dir.path().join("long.mp4"), videos.join("long.mp4")).expect("moved");
    fs::rename(dir.path().join("short.mp4"), videos.join("short.mp4")).expect("moved");
    insta::assert_snapshot!(
        "place-in-videos",
        shown(&visualise(
            dir.path(),
            &["--weights", "run", "--data", "videos", "--at", "1"]
        ))
    );
}

#[test]
fn what_cannot_be_drawn_is_refused_by_name() {
    let dir = with_run(&[]);
    let refused = |name: &str, flags: &[&str]| {
        insta::assert_snapshot!(
            name,
            shown(&visualise(
                dir.path(),
                &[&["--weights", "run"], flags].concat()
            ))
        );
    };
    refused("ratio-of-nothing-visible", &["--mask-ratio", "0.75,0.999"]);
    refused(
        "ratio-of-nothing-masked",
        &["--mask-kind", "frame", "--mask-ratio", "0.2"],
    );
    refused("ratio-in-percent", &["--mask-ratio", "90"]);
    refused("clip-beyond-the-last", &["--clip", "5"]);
    refused("other-ending", &["--out", "picture.jpg"]);
    refused("folder-that-is-not-there", &["--out", "no/such/folder.mp4"]);
    refused("no-data", &["--data", "nowhere"]);
    assert!(
        !dir.path().join("picture.jpg").exists() && !dir.path().join("reconstruction").exists()
    );
    insta::assert_snapshot!(
        "no-weights",
        shown(&visualise(dir.path(), &["--weights", "shards"]))
    );

    let classifier = dir.path().join("classifier");
    fs::create_dir(&classifier).expect("made");
    let config = PretrainConfig::resolve(Preset::Tiny, &[]).expect("a preset");
    let classes = vec!["cat".to_owned(), "dog".to_owned()];
    let config = FinetuneConfig::resolve(
        Recipe::Light,
        &EncoderPart::from(&config),
        None,
        classes,
        &[],
    );
    fs::write(
        classifier.join("config.toml"),
        Task::from(config.expect("a recipe")).to_toml(),
    )
    .expect("written");
    let tensors = HashMap::from([(
        "head.bias",
        Tensor::new(&[0f32, 1.0], &Device::Cpu).expect("values"),
    )]);
    candle_core::safetensors::save(&tensors, classifier.join("model.safetensors"))
        .expect("written");
    insta::assert_snapshot!(
        "classifier",
        shown(&visualise(dir.path(), &["--weights", "classifier"]))
    );
}

#[test]
fn histograms_are_no_picture() {
    let dir = with_run(&["--target", "hog"]);
    insta::assert_snapshot!(
        "histograms",
        shown(&visualise(dir.path(), &["--weights", "run"]))
    );
}

#[test]
fn contrast_may_come_from_what_is_visible() {
    let dir = with_run(&[]);
    let strip = |contrast: &str| {
        let out = format!("{contrast}.png");
        report(&visualise(
            dir.path(),
            &[
                "--weights",
                "run",
                "--contrast",
                contrast,
                "--out",
                &out,
                "--json",
            ],
        ));
        image::open(dir.path().join(out))
            .expect("a picture")
            .into_rgb8()
    };
    let (of_truth, of_visible) = (strip("true"), strip("visible"));
    assert_eq!(of_truth.dimensions(), of_visible.dimensions());
    let rows = |picture: &RgbImage, row: u32| {
        (row * 130..row * 130 + 128)
            .flat_map(|y| (0..picture.width()).map(move |x| (x, y)))
            .map(|(x, y)| *picture.get_pixel(x, y))
            .collect::<Vec<_>>()
    };
    assert!(
        (0..2).all(|row| rows(&of_truth, row) == rows(&of_visible, row)),
        "frames and masks are the same"
    );
    assert!(rows(&of_truth, 2) != rows(&of_visible, 2));
}

#[test]
fn animations_decode_to_the_frames_that_they_were_made_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let colors = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
    let frames: Vec<RgbImage> = colors
        .iter()
        .map(|&color| RgbImage::from_pixel(32, 16, Rgb(color)))
        .collect();
    let gif = dir.path().join("a.gif");
    fs::write(&gif, animation::gif(&frames, 8.0).expect("encoded")).expect("written");
    let decoded = decoded_gif(&gif);
    assert_eq!(decoded.len(), 3);
    for (frame, color) in decoded.iter().zip(colors) {
        assert!(
            frame.buffer().pixels().all(|pixel| pixel.0[..3]
                .iter()
                .zip(color)
                .all(|(&a, b)| a.abs_diff(b) <= 2)),
            "{color:?}"
        );
        // 12.5 hundredths of a second are 13, or 12.
        assert_eq!(frame.delay().numer_denom_ms(), (130, 1));
    }
    let mp4 = dir.path().join("a.mp4");
    animation::mp4(&mp4, &frames, 8.0).expect("encoded");
    // Six seconds at least: 48 frames, 16 times the three.
    let bytes = ffmpeg_frames(&mp4, &[]);
    let size = FrameSize {
        width: 32,
        height: 16,
    };
    assert_eq!(
        (animation::mp4_rounds(3, 8.0), bytes.len()),
        (16, 48 * size.frame_bytes())
    );
    // Y'CbCr of the primaries by H.273's formulas, rounded to 8 bits.
    for (frame, expected) in bytes.chunks(size.frame_bytes()).zip(
        [[81, 90, 240], [145, 54, 34], [41, 240, 110]]
            .iter()
            .cycle(),
    ) {
        let middle = [
            frame[32 * 8 + 16],
            frame[32 * 16 + 16 * 4 + 8],
            frame[32 * 16 + 16 * 8 + 16 * 4 + 8],
        ];
        assert!(
            middle
                .iter()
                .zip(expected)
                .all(|(&a, &b): (&u8, &u8)| a.abs_diff(b) <= 3),
            "{middle:?} for {expected:?}"
        );
    }
}
