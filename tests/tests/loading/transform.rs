//! Training clips against what the reference would make: RGB frames by ffmpeg, then a bilinear crop
//! in double precision.

use pipeline::frames::{Color, Frames};
use pipeline::sampling::order::{Purpose, stream};
use pipeline::sampling::sample::{Augmentation, View};
use pipeline::transform::{ClipView, MEAN, STD, Transform};
use pipeline::video::clips::ClipDecoder;
use pipeline::video::decode::DecodeOptions;
use schemas::geometry::FrameSize;
use schemas::shard::{ColorMatrix, ColorRange};
use std::io::Write;
use std::process::{Command, Stdio};
use tests::{options, real_videos};

const SIDE: usize = 112;

/// The frames as 8-bit RGB, by the ffmpeg command line.
fn ffmpeg_rgb(planes: &[u8], size: FrameSize, color: Color) -> Vec<u8> {
    let range = if color.range == ColorRange::Full {
        "full"
    } else {
        "limited"
    };
    let matrix = if color.matrix == ColorMatrix::Bt709 {
        "bt709"
    } else {
        "bt601"
    };
    let filter = format!(
        "scale=in_range={range}:in_color_matrix={matrix}:flags=bilinear+accurate_rnd+full_chroma_int,format=rgb24"
    );
    let mut child = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "yuv420p",
            "-s",
            &format!("{}x{}", size.width, size.height),
            "-i",
            "-",
        ])
        .args(["-vf", &filter, "-f", "rawvideo", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg runs; scripts/system-packages.sh installs it");
    let (mut input, planes) = (child.stdin.take().expect("piped"), planes.to_vec());
    let writer = std::thread::spawn(move || input.write_all(&planes).expect("ffmpeg reads"));
    let output = child.wait_with_output().expect("ended");
    writer.join().expect("written");
    output.stdout
}

/// The view of one frame, `[3, SIDE, SIDE]` in 0..=255: bilinear, sample centres at half pixels,
/// clamped to the crop.
fn cropped(frame: &[u8], width: usize, view: View) -> Vec<f64> {
    let crop = view.crop;
    let lie = |start: usize, length: usize, at: usize| {
        let position = start as f64 + (at as f64 + 0.5) * length as f64 / SIDE as f64 - 0.5;
        position.clamp(start as f64, (start + length - 1) as f64)
    };
    let mut out = Vec::with_capacity(3 * SIDE * SIDE);
    for channel in 0..3 {
        for y in 0..SIDE {
            for x in 0..SIDE {
                let (x, y) = (
                    lie(
                        crop.left,
                        crop.width,
                        if view.flip { SIDE - 1 - x } else { x },
                    ),
                    lie(crop.top, crop.height, y),
                );
                let (left, top) = (x as usize, y as usize);
                let (right, bottom) = (
                    (left + 1).min(crop.left + crop.width - 1),
                    (top + 1).min(crop.top + crop.height - 1),
                );
                let sample = |x: usize, y: usize| f64::from(frame[3 * (y * width + x) + channel]);
                let row = |y: usize| {
                    sample(left, y) + (sample(right, y) - sample(left, y)) * (x - left as f64)
                };
                out.push(row(top) + (row(bottom) - row(top)) * (y - top as f64));
            }
        }
    }
    out
}

#[test]
fn real_clips_are_close_to_a_crop_of_rgb_frames() {
    for path in real_videos("real") {
        let mut decoder = ClipDecoder::open(&path, &options(3, 1 << 28), DecodeOptions::default())
            .expect("opened");
        let clip = decoder.next_clip().expect("decoded").expect("a clip");
        let source = decoder.source();
        let (size, color) = (
            source.size,
            Color {
                range: source.color_range,
                matrix: source.color_matrix,
            },
        );
        let rgb = ffmpeg_rgb(&clip.data, size, color);
        assert_eq!(rgb.len(), 16 * 3 * size.width * size.height);
        for draw in 0..4 {
            let view = Augmentation::default().draw(
                &mut stream(Purpose::Augment, 0, 0, draw),
                16,
                1,
                size,
            );
            let mut out = vec![0f32; 3 * SIDE * SIDE];
            let frames = Frames::I420(&clip.data, color);
            Transform::default().clip(ClipView { frames, size, view }, 1, SIDE, &mut out);
            let frame = &rgb[view.first_frame * 3 * size.width * size.height..];
            let squares = out
                .iter()
                .zip(cropped(frame, size.width, view))
                .map(|(&got, wanted)| {
                    let got = (f64::from(got) * f64::from(STD) + f64::from(MEAN)) * 255.0;
                    (got - wanted).powi(2)
                });
            let psnr = 10.0 * (255.0 * 255.0 * out.len() as f64 / squares.sum::<f64>()).log10();
            println!("{}: {psnr:.1} dB", path.display());
            assert!(psnr > 40.0, "{}, view {draw}: {psnr} dB", path.display());
        }
    }
}
