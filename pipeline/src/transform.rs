//! Stored frames to a training clip: crop, resize, colour, normalise, in one pass over the output.
//!
//! The result is what the reference computes on RGB frames: a bilinear resize of the crop without antialias (sample centres at half
//! pixels, clamped to the crop), then `(x / 255 - 0.45) / 0.225`. Here planes are interpolated first ([`crate::resample`]) and turned to RGB afterwards;
//! the two steps are linear, so only rounding, clamping and the chroma's own interpolation differ. Chroma is taken as H.264 places it by default: level
//! with the even columns of luma, and between its rows.

use crate::frames::{Color, Frames};
use crate::resample::{CENTRE, Resampler, SCALE, has_vectors};
use crate::sample::View;
use schemas::geometry::I420;
use schemas::shard::{ColorMatrix, ColorRange};

/// Mean of the normalisation, of values in 0..=1.
pub const MEAN: f32 = 0.45;

/// Standard deviation of the normalisation.
pub const STD: f32 = 0.225;

/// The range of normalised values. Y'CbCr can name colours beyond it, which 8-bit RGB has no room for.
const BLACK: f32 = -MEAN / STD;
const WHITE: f32 = (1.0 - MEAN) / STD;

/// How resampled samples become normalised R'G'B': an affine map, with the normalisation and the samples' scale folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Normalise {
    /// Of Y'CbCr.
    Yuv { luma: f32, offset: f32, red_cr: f32, green_cb: f32, green_cr: f32, blue_cb: f32 },
    /// Of R'G'B'.
    Rgb { gain: f32, offset: f32 },
}

impl Normalise {
    /// For frames as `frames` are.
    pub(crate) fn new(frames: Frames<'_>) -> Self {
        match frames {
            Frames::I420(_, color) => Self::yuv(color),
            Frames::Rgb(_) => {
                let (gain, offset) = affine(0.0, 255.0);
                Self::Rgb { gain, offset }
            }
        }
    }

    /// ITU-T H.273: `R = Y + 2(1-Kr)Cr`, `B = Y + 2(1-Kb)Cb`, and G from `Y = Kr R + Kg G + Kb B`; limited range has 219 steps of luma
    /// from 16 and 224 of chroma, full range 255.
    fn yuv(color: Color) -> Self {
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
        let (luma, offset) = affine(luma_zero, luma_steps);
        let chroma = |gain: f64| (gain / chroma_steps / f64::from(STD) / f64::from(SCALE)) as f32;
        Self::Yuv {
            luma,
            offset,
            red_cr: chroma(2.0 * (1.0 - kr)),
            green_cb: chroma(-2.0 * (1.0 - kb) * kb / kg),
            green_cr: chroma(-2.0 * (1.0 - kr) * kr / kg),
            blue_cb: chroma(2.0 * (1.0 - kb)),
        }
    }

    /// Turns a row of samples into a row of each of `out`'s channels, clamped to what 8 bits have room for.
    pub(crate) fn row(self, samples: [&[i16]; 3], out: [&mut [f32]; 3]) {
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            // SAFETY: the processor has AVX2.
            return unsafe { self.row_with_avx2(samples, out) };
        }
        self.row_plainly(samples, out);
    }

    /// [`Self::row_plainly`], compiled for AVX2: sums and products are those of the plain one, none is fused.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn row_with_avx2(self, samples: [&[i16]; 3], out: [&mut [f32]; 3]) {
        self.row_plainly(samples, out);
    }

    #[inline(always)]
    fn row_plainly(self, samples: [&[i16]; 3], [red, green, blue]: [&mut [f32]; 3]) {
        let width = red.len();
        // Slices of one length, so that the loops below need no checks.
        let [first, second, third] = samples.map(|row| &row[..width]);
        let (green, blue) = (&mut green[..width], &mut blue[..width]);
        match self {
            Self::Yuv { luma, offset, red_cr, green_cb, green_cr, blue_cb } => {
                for x in 0..width {
                    let (y, cb, cr) = (f32::from(first[x]) * luma + offset, f32::from(second[x]), f32::from(third[x]));
                    red[x] = (y + red_cr * cr).clamp(BLACK, WHITE);
                    green[x] = (y + green_cb * cb + green_cr * cr).clamp(BLACK, WHITE);
                    blue[x] = (y + blue_cb * cb).clamp(BLACK, WHITE);
                }
            }
            Self::Rgb { gain, offset } => {
                for (samples, out) in [(first, red), (second, green), (third, blue)] {
                    for x in 0..width {
                        out[x] = f32::from(samples[x]) * gain + offset;
                    }
                }
            }
        }
    }
}

/// Gain and offset that normalise a resampled sample: `zero` is black, and white is `steps` above it.
fn affine(zero: f64, steps: f64) -> (f32, f32) {
    let (mean, std) = (f64::from(MEAN), f64::from(STD));
    let centre = (f64::from(CENTRE) - zero) / steps;
    ((1.0 / steps / std / f64::from(SCALE)) as f32, ((centre - mean) / std) as f32)
}

/// Writes the view of `clip`, whose frames are of `size`, to `out`, `[3, frames, side, side]`, RGB, normalised.
///
/// # Panics
/// When `out` has another length, or the clip has fewer frames than the view needs.
pub fn transform(clip: Frames<'_>, size: I420, view: View, frames: usize, side: usize, out: &mut [f32]) {
    assert_eq!(out.len(), 3 * frames * side * side, "values of a training clip");
    let mut resampler = Resampler::new(clip, size, view.crop, view.flip, side, side);
    let normalise = Normalise::new(clip);
    let (red, rest) = out.split_at_mut(frames * side * side);
    let (green, blue) = rest.split_at_mut(frames * side * side);
    let mut outputs = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
    for frame in clip.each(size).skip(view.first_frame).take(frames) {
        resampler.begin_frame();
        for y in 0..side {
            let ((red, green), blue) = outputs.next().expect("a row of output for each row");
            normalise.row(resampler.row(frame.bytes(), y), [red, green, blue]);
        }
    }
    assert!(outputs.next().is_none(), "the clip has fewer frames than the view needs");
}

/// A normalised value as the 8-bit sample that it came from, clamped.
pub fn denormalise(value: f32) -> u8 {
    ((value * STD + MEAN) * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Crop;

    const FULL: Color = Color { range: ColorRange::Full, matrix: ColorMatrix::Bt601 };

    fn whole(size: I420) -> View {
        View { first_frame: 0, crop: Crop { left: 0, top: 0, width: size.width, height: size.height }, flip: false }
    }

    fn rgb(yuv: [u8; 3], range: ColorRange, matrix: ColorMatrix) -> [u8; 3] {
        let size = I420 { width: 2, height: 2 };
        let clip = [[yuv[0]; 4].as_slice(), &yuv[1..]].concat();
        let mut out = [0.0; 12];
        transform(Frames::I420(&clip, Color { range, matrix }), size, whole(size), 1, 2, &mut out);
        [denormalise(out[0]), denormalise(out[4]), denormalise(out[8])]
    }

    #[test]
    fn primaries_come_out_in_their_colours() {
        // Y'CbCr of pure red, green, blue and white, from H.273's formulas rounded to 8 bits.
        let near = |got: [u8; 3], want: [u8; 3]| assert!(got.iter().zip(want).all(|(&a, b)| a.abs_diff(b) <= 2), "{got:?} for {want:?}");
        near(rgb([81, 90, 240], ColorRange::Limited, ColorMatrix::Bt601), [255, 0, 0]);
        near(rgb([145, 54, 34], ColorRange::Limited, ColorMatrix::Bt601), [0, 255, 0]);
        near(rgb([41, 240, 110], ColorRange::Limited, ColorMatrix::Bt601), [0, 0, 255]);
        near(rgb([235, 128, 128], ColorRange::Limited, ColorMatrix::Bt709), [255, 255, 255]);
        near(rgb([63, 102, 240], ColorRange::Limited, ColorMatrix::Bt709), [255, 0, 0]);
        near(rgb([76, 85, 255], ColorRange::Full, ColorMatrix::Bt601), [255, 0, 0]);
        near(rgb([74, 97, 240], ColorRange::Limited, ColorMatrix::Bt2020), [255, 0, 0]);
    }

    #[test]
    fn a_crop_is_resized_about_pixel_centres() {
        // PyTorch 2.13: F.interpolate(torch.arange(4.).reshape(1,1,1,4).expand(1,1,4,4), size=(8,8), mode="bilinear")[0,0,0]
        //   -> 0.00 0.25 0.75 1.25 1.75 2.25 2.75 3.00
        // and size=(2,2) -> 0.5 2.5 (no antialias).
        let size = I420 { width: 8, height: 8 };
        let luma: Vec<u8> = (0..64).map(|at| 40 + 10 * (at % 8) as u8).collect();
        let clip = [luma, vec![128; 32]].concat();
        let crop = Crop { left: 2, top: 2, width: 4, height: 4 };
        let first_row = |side: usize, flip: bool| {
            let mut out = vec![0.0; 3 * side * side];
            let view = View { first_frame: 0, crop, flip };
            transform(Frames::I420(&clip, FULL), size, view, 1, side, &mut out);
            out[..side].iter().map(|&value| ((value * STD + MEAN) * 255.0 - 60.0) / 10.0).collect::<Vec<_>>()
        };
        let close = |got: Vec<f32>, want: &[f32]| {
            assert!(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?}");
        };
        close(first_row(8, false), &[0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
        close(first_row(8, true), &[3.0, 2.75, 2.25, 1.75, 1.25, 0.75, 0.25, 0.0]);
        close(first_row(2, false), &[0.5, 2.5]);
    }

    #[test]
    fn the_frames_of_the_window_are_taken() {
        let size = I420 { width: 3, height: 3 };
        let clip: Vec<u8> = (0..4).flat_map(|frame| [vec![50 * frame; 9], vec![128; 8]].concat()).collect();
        let mut out = vec![0.0; 3 * 2 * 16];
        let view = View { first_frame: 1, ..whole(size) };
        transform(Frames::I420(&clip, FULL), size, view, 2, 4, &mut out);
        assert!(out[..16].iter().all(|&value| denormalise(value) == 50));
        assert!(out[16..32].iter().all(|&value| denormalise(value) == 100));
        assert!(out[64..80].iter().all(|&value| denormalise(value) == 50), "channel by channel, then frame by frame");
    }

    #[test]
    fn rgb_is_cropped_and_resized_channel_by_channel() {
        // The same ramp as above in each channel, 10 and 20 higher from one to the next.
        let size = I420 { width: 8, height: 8 };
        let clip: Vec<u8> = (0..64).flat_map(|at| [0, 10, 20].map(|channel| 40 + channel + 10 * (at % 8) as u8)).collect();
        let view = View { first_frame: 0, crop: Crop { left: 2, top: 2, width: 4, height: 4 }, flip: true };
        let mut out = vec![0.0; 3 * 2 * 2];
        transform(Frames::Rgb(&clip), size, view, 1, 2, &mut out);
        let values: Vec<u8> = out.into_iter().map(denormalise).collect();
        assert_eq!(values, [85, 65, 85, 65, 95, 75, 95, 75, 105, 85, 105, 85]);
    }
}
