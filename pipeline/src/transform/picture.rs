//! One stored frame as an 8-bit RGB picture, computed like training clips.

use crate::frames::Frames;
use crate::sampling::sample::{Crop, View};
use crate::simd::instruction_set;
use crate::transform::resample::Resampler;
use crate::transform::{ClipView, Normalisation, Normalise, denormalise};
use schemas::geometry::FrameSize;

/// Converts `frame`, a single one of `size`, to `width` x `height` pixels of R'G'B': three bytes
/// per pixel, row after row. At the frame's own size pixels are copied (chroma is interpolated); at
/// others they are interpolated as for training clips.
///
/// # Panics
/// When `frame` is not one frame of `size`, or a side of either size is 0.
///
/// ```
/// use pipeline::frames::Frames;
/// use pipeline::transform::picture::{size_within, to_rgb};
/// use schemas::geometry::FrameSize;
///
/// let size = FrameSize { width: 456, height: 256 };
/// let (width, height) = size_within(size, 192, 128);
/// let frame = vec![90; 3 * 456 * 256];
/// let thumbnail = to_rgb(Frames::Rgb(&frame), size, width, height);
/// assert_eq!(thumbnail.len(), 3 * 192 * 108);
/// ```
pub fn to_rgb(frame: Frames<'_>, size: FrameSize, width: usize, height: usize) -> Vec<u8> {
    assert_eq!(
        frame.bytes().len(),
        frame.frame_bytes(size),
        "bytes of a frame"
    );
    let crop = Crop {
        left: 0,
        top: 0,
        width: size.width,
        height: size.height,
    };
    let view = View {
        first_frame: 0,
        crop,
        flip: false,
    };
    let mut resampler = Resampler::default();
    resampler.begin_clip(
        ClipView {
            frames: frame,
            size,
            view,
        },
        width,
        height,
    );
    let normalise = Normalise::new::<f32>(frame, Normalisation::default(), instruction_set());
    let [mut red, mut green, mut blue] = [(); 3].map(|()| vec![0f32; width]);
    let mut out = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        normalise.row(
            resampler.rows(frame.bytes(), y..y + 1, std::slice::from_ref(&(0..width))),
            [&mut red, &mut green, &mut blue],
        );
        out.extend(
            red.iter()
                .zip(&green)
                .zip(&blue)
                .flat_map(|((&red, &green), &blue)| [red, green, blue].map(denormalise)),
        );
    }
    out
}

/// The largest size of the same aspect that fits into `width` x `height`, not larger than `size`,
/// and no side less than a pixel.
pub fn size_within(size: FrameSize, width: usize, height: usize) -> (usize, usize) {
    let scale = (width as f64 / size.width as f64)
        .min(height as f64 / size.height as f64)
        .min(1.0);
    let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (scaled(size.width), scaled(size.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Color;
    use crate::transform::Transform;
    use schemas::shard::{ColorMatrix, ColorRange};

    #[test]
    fn a_picture_is_what_training_sees() {
        let size = FrameSize {
            width: 6,
            height: 6,
        };
        let frame: Vec<u8> = (0..size.frame_bytes())
            .map(|at| (60 + 37 * at % 140) as u8)
            .collect();
        let frame = Frames::I420(
            &frame,
            Color {
                range: ColorRange::Limited,
                matrix: ColorMatrix::Bt709,
            },
        );
        for side in [3, 6, 11] {
            let view = View {
                first_frame: 0,
                crop: Crop {
                    left: 0,
                    top: 0,
                    width: 6,
                    height: 6,
                },
                flip: false,
            };
            let mut clip = vec![0f32; 3 * side * side];
            Transform::default().clip(
                ClipView {
                    frames: frame,
                    size,
                    view,
                },
                1,
                side,
                &mut clip,
            );
            let picture = to_rgb(frame, size, side, side);
            for (pixel, rgb) in picture.chunks_exact(3).enumerate() {
                for (channel, &value) in rgb.iter().enumerate() {
                    assert_eq!(
                        value,
                        denormalise(clip[channel * side * side + pixel]),
                        "pixel {pixel} at side {side}"
                    );
                }
            }
        }
    }

    #[test]
    fn grey_keeps_its_value_at_the_frames_own_size() {
        let size = FrameSize {
            width: 5,
            height: 3,
        };
        let frame: Vec<u8> = (0..15).map(|at| at * 17).chain([128; 12]).collect();
        let picture = to_rgb(
            Frames::I420(
                &frame,
                Color {
                    range: ColorRange::Full,
                    matrix: ColorMatrix::Bt601,
                },
            ),
            size,
            5,
            3,
        );
        let expected: Vec<u8> = (0..15).flat_map(|at| [at * 17; 3]).collect();
        assert_eq!(picture, expected);
        assert_eq!(
            to_rgb(Frames::Rgb(&picture), size, 5, 3),
            picture,
            "RGB is what it is"
        );
    }

    #[test]
    fn sizes_keep_their_aspect_and_never_grow() {
        assert_eq!(
            size_within(
                FrameSize {
                    width: 456,
                    height: 256
                },
                192,
                128
            ),
            (192, 108)
        );
        assert_eq!(
            size_within(
                FrameSize {
                    width: 256,
                    height: 456
                },
                192,
                128
            ),
            (72, 128)
        );
        assert_eq!(
            size_within(
                FrameSize {
                    width: 64,
                    height: 48
                },
                192,
                128
            ),
            (64, 48)
        );
        assert_eq!(
            size_within(
                FrameSize {
                    width: 10_000,
                    height: 1
                },
                100,
                100
            ),
            (100, 1)
        );
    }
}
