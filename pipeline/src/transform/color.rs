//! Resampled samples of Y'CbCr or R'G'B' to values of R'G'B': colour and normalisation in one
//! affine map.

#[cfg(target_arch = "x86_64")]
use super::resample::has_vectors;
use super::resample::{CENTRE, SCALE};
use super::value::Value;
use crate::frames::{Color, Frames};
use schemas::shard::{ColorMatrix, ColorRange};

/// How resampled samples become values: an affine map, with the normalisation and the samples'
/// scale folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalise {
    pub(super) matrix: Matrix,
    /// The range of values. Y'CbCr can express colours beyond it, which 8-bit RGB cannot.
    pub(super) black: f32,
    pub(super) white: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Matrix {
    /// From Y'CbCr.
    Yuv {
        luma: f32,
        offset: f32,
        red_cr: f32,
        green_cb: f32,
        green_cr: f32,
        blue_cb: f32,
    },
    /// From R'G'B'.
    Rgb { gain: f32, offset: f32 },
}

impl Normalise {
    /// The map from frames like `frames` to values of type `T`.
    pub(crate) fn new<T: Value>(frames: Frames<'_>) -> Self {
        let (mean, std) = T::MEAN_AND_STD;
        let to_values = (f64::from(mean), f64::from(std));
        let matrix = match frames {
            Frames::I420(_, color) => Matrix::yuv(color, to_values),
            Frames::Rgb(_) => {
                let (gain, offset) = affine(0.0, 255.0, to_values);
                Matrix::Rgb { gain, offset }
            }
        };
        Self {
            matrix,
            black: -mean / std,
            white: (1.0 - mean) / std,
        }
    }

    /// Converts a row of samples to a row of each channel of `out`, clamped to the range of 8 bits.
    pub(crate) fn row<T: Value>(self, samples: [&[i16]; 3], out: [&mut [T]; 3]) {
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            // SAFETY: the CPU has AVX2.
            return unsafe { super::x86::row(self, samples, out) };
        }
        self.row_plainly(samples, out);
    }

    pub(super) fn row_plainly<T: Value>(
        self,
        samples: [&[i16]; 3],
        [red, green, blue]: [&mut [T]; 3],
    ) {
        let width = red.len();
        // Slices of one length, so that the loops below need no checks.
        let [first, second, third] = samples.map(|row| &row[..width]);
        let (green, blue) = (&mut green[..width], &mut blue[..width]);
        let value = |value: f32| T::from_f32(value.clamp(self.black, self.white));
        match self.matrix {
            Matrix::Yuv {
                luma,
                offset,
                red_cr,
                green_cb,
                green_cr,
                blue_cb,
            } => {
                for x in 0..width {
                    let (y, cb, cr) = (
                        f32::from(first[x]) * luma + offset,
                        f32::from(second[x]),
                        f32::from(third[x]),
                    );
                    red[x] = value(y + red_cr * cr);
                    green[x] = value(y + green_cb * cb + green_cr * cr);
                    blue[x] = value(y + blue_cb * cb);
                }
            }
            Matrix::Rgb { gain, offset } => {
                for (samples, out) in [(first, red), (second, green), (third, blue)] {
                    for x in 0..width {
                        out[x] = value(f32::from(samples[x]) * gain + offset);
                    }
                }
            }
        }
    }
}

impl Matrix {
    /// ITU-T H.273: `R = Y + 2(1-Kr)Cr`, `B = Y + 2(1-Kb)Cb`, and G from `Y = Kr R + Kg G + Kb B`;
    /// limited range has 219 steps of luma from 16 and 224 of chroma, full range 255.
    fn yuv(color: Color, to_values: (f64, f64)) -> Self {
        let (kr, kb) = match color.matrix {
            ColorMatrix::Bt601 => (0.299, 0.114),
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        let (luma_zero, luma_steps, chroma_steps) = match color.range {
            ColorRange::Limited => (16.0, 219.0, 224.0),
            ColorRange::Full => (0.0, 255.0, 255.0),
        };
        let (luma, offset) = affine(luma_zero, luma_steps, to_values);
        let chroma = |gain: f64| (gain / chroma_steps / to_values.1 / f64::from(SCALE)) as f32;
        Self::Yuv {
            luma,
            offset,
            red_cr: chroma(2.0 * (1.0 - kr)),
            green_cb: chroma(-2.0 * (1.0 - kb) * kb / kg),
            green_cr: chroma(-2.0 * (1.0 - kr) * kr / kg),
            blue_cb: chroma(2.0 * (1.0 - kb)),
        }
    }
}

/// Gain and offset from resampled samples to values of a `mean` and `std`: `zero` is black, and
/// white is `steps` above it.
fn affine(zero: f64, steps: f64, (mean, std): (f64, f64)) -> (f32, f32) {
    let centre = (f64::from(CENTRE) - zero) / steps;
    (
        (1.0 / steps / std / f64::from(SCALE)) as f32,
        ((centre - mean) / std) as f32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use crate::transform::target::{interleave, interleave_plainly};
    use crate::transform::tests::{FULL, whole};
    use crate::transform::{ClipView, Transform, denormalise};
    use half::bf16;
    use rand::RngExt;
    use schemas::geometry::FrameSize;

    fn rgb(yuv: [u8; 3], range: ColorRange, matrix: ColorMatrix) -> [u8; 3] {
        let size = FrameSize {
            width: 2,
            height: 2,
        };
        let clip = [[yuv[0]; 4].as_slice(), &yuv[1..]].concat();
        let mut out = [0f32; 12];
        let frames = Frames::I420(&clip, Color { range, matrix });
        Transform::default().clip(
            ClipView {
                frames,
                size,
                view: whole(size),
            },
            1,
            2,
            &mut out,
        );
        [
            denormalise(out[0]),
            denormalise(out[4]),
            denormalise(out[8]),
        ]
    }

    #[test]
    fn primaries_come_out_in_their_colours() {
        // Y'CbCr of pure red, green, blue and white, from H.273's formulas rounded to 8 bits.
        let near = |got: [u8; 3], want: [u8; 3]| {
            assert!(
                got.iter().zip(want).all(|(&a, b)| a.abs_diff(b) <= 2),
                "{got:?} for {want:?}"
            )
        };
        near(
            rgb([81, 90, 240], ColorRange::Limited, ColorMatrix::Bt601),
            [255, 0, 0],
        );
        near(
            rgb([145, 54, 34], ColorRange::Limited, ColorMatrix::Bt601),
            [0, 255, 0],
        );
        near(
            rgb([41, 240, 110], ColorRange::Limited, ColorMatrix::Bt601),
            [0, 0, 255],
        );
        near(
            rgb([235, 128, 128], ColorRange::Limited, ColorMatrix::Bt709),
            [255, 255, 255],
        );
        near(
            rgb([63, 102, 240], ColorRange::Limited, ColorMatrix::Bt709),
            [255, 0, 0],
        );
        near(
            rgb([76, 85, 255], ColorRange::Full, ColorMatrix::Bt601),
            [255, 0, 0],
        );
        near(
            rgb([74, 97, 240], ColorRange::Limited, ColorMatrix::Bt2020),
            [255, 0, 0],
        );
    }

    #[test]
    fn vectors_compute_what_plain_loops_do() {
        let mut rng = stream(Purpose::Augment, 5, 6, 7);
        for width in [1, 7, 8, 16, 37, 224] {
            // All that resampling can give, its extremes included.
            let samples: Vec<i16> = (0..3 * width)
                .map(|_| [-16384, 16256, rng.random_range(-16384..=16256)][rng.random_range(0..3)])
                .collect();
            let samples = [
                &samples[..width],
                &samples[width..2 * width],
                &samples[2 * width..],
            ];
            for frames in [
                Frames::I420(&[], FULL),
                Frames::I420(
                    &[],
                    Color {
                        range: ColorRange::Limited,
                        ..FULL
                    },
                ),
                Frames::Rgb(&[]),
            ] {
                check_row::<f32>(frames, samples);
                check_row::<bf16>(frames, samples);
                check_row::<u8>(frames, samples);
            }
        }
    }

    fn check_row<T: Value + PartialEq + std::fmt::Debug>(frames: Frames<'_>, samples: [&[i16]; 3]) {
        let normalise = Normalise::new::<T>(frames);
        let rows = |row: &dyn Fn([&mut [T]; 3])| {
            let [mut red, mut green, mut blue] =
                samples.map(|samples| vec![T::zeroed(); samples.len()]);
            row([&mut red, &mut green, &mut blue]);
            let mut pixels = vec![T::zeroed(); 3 * red.len()];
            interleave([&red, &green, &blue], &mut pixels);
            let mut plain = vec![T::zeroed(); 3 * red.len()];
            interleave_plainly([&red, &green, &blue], &mut plain);
            assert_eq!(pixels, plain);
            pixels
        };
        assert_eq!(
            rows(&|out| normalise.row(samples, out)),
            rows(&|out| normalise.row_plainly(samples, out))
        );
    }
}
