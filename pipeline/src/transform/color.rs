//! Resampled samples of Y'CbCr or R'G'B' to values of R'G'B': colour and normalisation in one
//! affine map.

use super::resample::{CENTRE, SCALE};
use super::value::Value;
use crate::frames::{Color, Frames};
use crate::simd::InstructionSet;
use schemas::shard::{ColorMatrix, ColorRange};

/// How resampled samples become values: an affine map, with the normalisation and the samples'
/// scale folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalise {
    pub(super) matrix: Matrix,
    /// The range of values. Y'CbCr can express colours beyond it, which 8-bit RGB cannot.
    pub(super) black: f32,
    pub(super) white: f32,
    /// Instructions to use, which the CPU has.
    set: InstructionSet,
}

/// Pixels that [`Normalise::interleaved_plainly`] converts before it interleaves them.
const CHUNK: usize = 16;

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
    /// The map from frames like `frames` to values of type `T`, by instructions of `set`, which the
    /// CPU must have.
    pub(crate) fn new<T: Value>(frames: Frames<'_>, set: InstructionSet) -> Self {
        assert!(set <= InstructionSet::best(), "the CPU has {set:?}");
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
            set,
        }
    }

    /// Converts a row of samples to a row of each channel of `out`, clamped to the range of 8 bits.
    pub(crate) fn row<T: Value>(self, samples: [&[i16]; 3], out: [&mut [T]; 3]) {
        #[cfg(target_arch = "x86_64")]
        if self.set >= InstructionSet::Avx2 {
            // SAFETY: the CPU has `set`.
            return unsafe { super::x86::row(self, samples, out) };
        }
        self.row_plainly(samples, out);
    }

    /// Converts the rows of a patch, `stride` samples apart, to the rows of each channel of `out`,
    /// each of `width` values. Other threads see them after [`Self::finish`].
    pub(super) fn planes<T: Value>(
        self,
        samples: [&[i16]; 3],
        stride: usize,
        width: usize,
        out: [&mut [T]; 3],
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.set >= InstructionSet::Avx2 {
            // SAFETY: the CPU has `set`.
            return unsafe { super::x86::planes(self, samples, stride, width, out) };
        }
        let [red, green, blue] = out;
        let rows = red.chunks_exact_mut(width);
        let rows = rows.zip(green.chunks_exact_mut(width));
        for (y, ((red, green), blue)) in rows.zip(blue.chunks_exact_mut(width)).enumerate() {
            let samples = samples.map(|part| &part[y * stride..][..width]);
            self.row_plainly(samples, [red, green, blue]);
        }
    }

    /// Converts the rows of a patch, `stride` samples apart, to the rows of `out`, each of `width`
    /// pixels of three values. Other threads see them after [`Self::finish`].
    pub(super) fn interleaved<T: Value>(
        self,
        samples: [&[i16]; 3],
        stride: usize,
        width: usize,
        out: &mut [T],
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.set >= InstructionSet::Avx2 {
            // SAFETY: the CPU has `set`.
            return unsafe { super::x86::interleaved(self, samples, stride, width, out) };
        }
        for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
            let samples = samples.map(|part| &part[y * stride..][..width]);
            self.interleaved_plainly(samples, out);
        }
    }

    /// Ends the writing of a sample.
    pub(super) fn finish(self) {
        #[cfg(target_arch = "x86_64")]
        if self.set >= InstructionSet::Avx2 {
            super::x86::fence();
        }
    }

    /// Converts a row of samples to pixels of three values.
    pub(super) fn interleaved_plainly<T: Value>(self, samples: [&[i16]; 3], out: &mut [T]) {
        let mut channels = [[T::zeroed(); CHUNK]; 3];
        for (at, out) in out.chunks_mut(3 * CHUNK).enumerate() {
            let count = out.len() / 3;
            let samples = samples.map(|samples| &samples[at * CHUNK..][..count]);
            let mut rows = channels.each_mut().map(|channel| &mut channel[..count]);
            self.row_plainly(samples, rows.each_mut().map(|row| &mut **row));
            for (x, out) in out.chunks_exact_mut(3).enumerate() {
                out.iter_mut()
                    .zip(&rows)
                    .for_each(|(out, row)| *out = row[x]);
            }
        }
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
        let width = samples[0].len();
        let [mut red, mut green, mut blue] = [(); 3].map(|()| vec![T::zeroed(); width]);
        let plain = Normalise::new::<T>(frames, InstructionSet::Plain);
        plain.row_plainly(samples, [&mut red, &mut green, &mut blue]);
        let pixels: Vec<T> = (0..width)
            .flat_map(|x| [red[x], green[x], blue[x]])
            .collect();
        for set in InstructionSet::supported() {
            let normalise = Normalise::new::<T>(frames, set);
            let mut rows = [(); 3].map(|()| vec![T::zeroed(); width]);
            normalise.row(samples, rows.each_mut().map(Vec::as_mut_slice));
            assert!(rows == [&red, &green, &blue].map(Clone::clone), "{set:?}");
            // As one row, and as two of a part; `shift` makes an address that is not aligned.
            let side = width.div_ceil(3);
            for (stride, side, height) in [(width, width, 1), (width - side, side, 2)] {
                for shift in [0, 1] {
                    let mut out = vec![T::zeroed(); shift + 3 * height * side];
                    normalise.interleaved(samples, stride, side, &mut out[shift..]);
                    let mut planes = [(); 3].map(|()| vec![T::zeroed(); shift + height * side]);
                    normalise.planes(
                        samples,
                        stride,
                        side,
                        planes.each_mut().map(|plane| &mut plane[shift..]),
                    );
                    normalise.finish();
                    for y in 0..height {
                        let expected = &pixels[3 * y * stride..][..3 * side];
                        assert_eq!(
                            &out[shift + 3 * y * side..][..3 * side],
                            expected,
                            "{set:?}"
                        );
                        for (x, pixel) in expected.chunks_exact(3).enumerate() {
                            let at = shift + y * side + x;
                            assert!(
                                planes
                                    .iter()
                                    .zip(pixel)
                                    .all(|(plane, value)| plane[at] == *value)
                            );
                        }
                    }
                }
            }
        }
    }
}
