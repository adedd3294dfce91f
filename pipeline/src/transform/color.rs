//! Resampled samples of Y'CbCr or R'G'B' to values of R'G'B': colour and normalisation in one
//! affine map.

use super::resample::{CENTRE, SCALE};
use super::value::{Normalisation, Value};
use crate::frames::{Color, Frames};
use crate::simd::InstructionSet;
use schemas::shard::{ColorMatrix, ColorRange};

/// How resampled samples become values: an affine map, with the normalisation and the samples'
/// scale folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalise {
    pub(super) matrix: Matrix,
    /// The range of values of each channel. Y'CbCr can express colours beyond it, which 8-bit RGB
    /// cannot.
    pub(super) black: [f32; 3],
    pub(super) white: [f32; 3],
    /// Whether all channels are normalised alike.
    is_alike: bool,
    /// Instructions to use, which the CPU has.
    set: InstructionSet,
}

/// Pixels that [`Normalise::interleaved_plainly`] converts before it interleaves them.
const CHUNK: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Matrix {
    /// From Y'CbCr.
    Yuv {
        luma: [f32; 3],
        offset: [f32; 3],
        red_cr: f32,
        green_cb: f32,
        green_cr: f32,
        blue_cb: f32,
    },
    /// From R'G'B'.
    Rgb { gain: [f32; 3], offset: [f32; 3] },
}

impl Normalise {
    /// The map from frames like `frames` to values of type `T`, by instructions of `set`, which the
    /// CPU must have.
    pub(crate) fn new<T: Value>(
        frames: Frames<'_>,
        normalisation: Normalisation,
        set: InstructionSet,
    ) -> Self {
        assert!(set <= InstructionSet::best(), "the CPU has {set:?}");
        let normalisation = T::normalisation(normalisation);
        let matrix = match frames {
            Frames::I420(_, color) => Matrix::yuv(color, normalisation),
            Frames::Rgb(_) => {
                let (gain, offset) = affine(0.0, 255.0, normalisation);
                Matrix::Rgb { gain, offset }
            }
        };
        let Normalisation { mean, std } = normalisation;
        let of = |value: f32| std::array::from_fn(|channel| (value - mean[channel]) / std[channel]);
        Self {
            matrix,
            black: of(0.0),
            white: of(1.0),
            is_alike: mean == [mean[0]; 3] && std == [std[0]; 3],
            set,
        }
    }

    /// Whether all channels are normalised alike.
    pub(super) const fn is_alike(self) -> bool {
        self.is_alike
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
        let value = |channel: usize, value: f32| {
            T::from_f32(value.clamp(self.black[channel], self.white[channel]))
        };
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
                    let y = f32::from(first[x]);
                    let (cb, cr) = (f32::from(second[x]), f32::from(third[x]));
                    let grey = |channel: usize| y * luma[channel] + offset[channel];
                    red[x] = value(0, grey(0) + red_cr * cr);
                    green[x] = value(1, grey(1) + green_cb * cb + green_cr * cr);
                    blue[x] = value(2, grey(2) + blue_cb * cb);
                }
            }
            Matrix::Rgb { gain, offset } => {
                let channels = [(first, red), (second, green), (third, blue)];
                for (channel, (samples, out)) in channels.into_iter().enumerate() {
                    for x in 0..width {
                        let sample = f32::from(samples[x]);
                        out[x] = value(channel, sample * gain[channel] + offset[channel]);
                    }
                }
            }
        }
    }
}

impl Matrix {
    /// ITU-T H.273: `R = Y + 2(1-Kr)Cr`, `B = Y + 2(1-Kb)Cb`, and G from `Y = Kr R + Kg G + Kb B`;
    /// limited range has 219 steps of luma from 16 and 224 of chroma, full range 255.
    fn yuv(color: Color, normalisation: Normalisation) -> Self {
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
        let (luma, offset) = affine(luma_zero, luma_steps, normalisation);
        let chroma = |channel: usize, gain: f64| {
            let std = f64::from(normalisation.std[channel]);
            (gain / chroma_steps / std / f64::from(SCALE)) as f32
        };
        Self::Yuv {
            luma,
            offset,
            red_cr: chroma(0, 2.0 * (1.0 - kr)),
            green_cb: chroma(1, -2.0 * (1.0 - kb) * kb / kg),
            green_cr: chroma(1, -2.0 * (1.0 - kr) * kr / kg),
            blue_cb: chroma(2, 2.0 * (1.0 - kb)),
        }
    }
}

/// Gain and offset of each channel, from resampled samples to values: `zero` is black, and white is
/// `steps` above it.
fn affine(zero: f64, steps: f64, normalisation: Normalisation) -> ([f32; 3], [f32; 3]) {
    let centre = (f64::from(CENTRE) - zero) / steps;
    let mean = normalisation.mean.map(f64::from);
    let std = normalisation.std.map(f64::from);
    (
        std.map(|std| (1.0 / steps / std / f64::from(SCALE)) as f32),
        std::array::from_fn(|channel| ((centre - mean[channel]) / std[channel]) as f32),
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
                for normalisation in [Normalisation::default(), Normalisation::IMAGENET] {
                    check_row::<f32>(frames, normalisation, samples);
                    check_row::<bf16>(frames, normalisation, samples);
                    check_row::<u8>(frames, normalisation, samples);
                }
            }
        }
    }

    #[test]
    fn each_channel_has_its_own_normalisation() {
        // Pure green of full range.
        let samples = [150u8, 44, 21].map(|byte| [(i16::from(byte) - 128) * 128]);
        let frames = Frames::I420(&[], FULL);
        let values = |normalisation: Normalisation| {
            let mut out = [[0f32]; 3];
            Normalise::new::<f32>(frames, normalisation, InstructionSet::Plain).row(
                samples.each_ref().map(<[i16; 1]>::as_slice),
                out.each_mut().map(<[f32; 1]>::as_mut_slice),
            );
            out.map(|[value]| value)
        };
        let plain = values(Normalisation::default()).map(|value| value * 0.225 + 0.45);
        let Normalisation { mean, std } = Normalisation::IMAGENET;
        for (channel, value) in values(Normalisation::IMAGENET).into_iter().enumerate() {
            let expected = (plain[channel] - mean[channel]) / std[channel];
            assert!(
                (value - expected).abs() < 1e-5,
                "{channel}: {value}, {expected}"
            );
        }
    }

    fn check_row<T: Value + PartialEq + std::fmt::Debug>(
        frames: Frames<'_>,
        normalisation: Normalisation,
        samples: [&[i16]; 3],
    ) {
        let width = samples[0].len();
        let [mut red, mut green, mut blue] = [(); 3].map(|()| vec![T::zeroed(); width]);
        let plain = Normalise::new::<T>(frames, normalisation, InstructionSet::Plain);
        plain.row_plainly(samples, [&mut red, &mut green, &mut blue]);
        let pixels: Vec<T> = (0..width)
            .flat_map(|x| [red[x], green[x], blue[x]])
            .collect();
        for set in InstructionSet::supported() {
            let normalise = Normalise::new::<T>(frames, normalisation, set);
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
