//! Stored frames to a training clip: crop, resize, colour, normalise, in one pass over the output.
//!
//! The result is what the reference computes on RGB frames: a bilinear resize of the crop without antialias (sample centres at half
//! pixels, clamped to the crop), then `(x / 255 - 0.45) / 0.225`. Here planes are interpolated first and turned to RGB afterwards; the two
//! steps are linear, so only rounding, clamping and the chroma's own interpolation differ. Chroma is taken as H.264 places it by default: level with
//! the even columns of luma, and between its rows.

use crate::frames::{Color, Frames};
use crate::sample::{Crop, View};
use schemas::geometry::I420;
use schemas::shard::{ColorMatrix, ColorRange};

/// Mean of the normalisation, of values in 0..=1.
pub const MEAN: f32 = 0.45;

/// Standard deviation of the normalisation.
pub const STD: f32 = 0.225;

/// The range of normalised values. Y'CbCr can name colours beyond it, which 8-bit RGB has no room for.
const BLACK: f32 = -MEAN / STD;
const WHITE: f32 = (1.0 - MEAN) / STD;

/// How Y'CbCr samples become normalised R'G'B': an affine map, with the normalisation folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ToRgb {
    luma: f32,
    luma_offset: f32,
    red_cr: f32,
    green_cb: f32,
    green_cr: f32,
    blue_cb: f32,
}

impl ToRgb {
    /// ITU-T H.273: `R = Y + 2(1-Kr)Cr`, `B = Y + 2(1-Kb)Cb`, and G from `Y = Kr R + Kg G + Kb B`; limited range has 219 steps of luma
    /// from 16 and 224 of chroma, full range 255.
    fn new(color: Color) -> Self {
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
        let (mean, std) = (f64::from(MEAN), f64::from(STD));
        let chroma = |gain: f64| (gain / chroma_steps / std) as f32;
        Self {
            luma: (1.0 / luma_steps / std) as f32,
            luma_offset: ((-luma_zero / luma_steps - mean) / std) as f32,
            red_cr: chroma(2.0 * (1.0 - kr)),
            green_cb: chroma(-2.0 * (1.0 - kb) * kb / kg),
            green_cr: chroma(-2.0 * (1.0 - kr) * kr / kg),
            blue_cb: chroma(2.0 * (1.0 - kb)),
        }
    }

    /// Normalised R'G'B' of one pixel, clamped to what 8 bits have room for.
    #[inline]
    fn apply(self, luma: f32, cb: f32, cr: f32) -> [f32; 3] {
        let luma = self.luma * luma + self.luma_offset;
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        [luma + self.red_cr * cr, luma + self.green_cb * cb + self.green_cr * cr, luma + self.blue_cb * cb]
            .map(|value| value.clamp(BLACK, WHITE))
    }
}

/// For one output column or row: the two input samples that it lies between, and the weight of the second.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

impl Tap {
    /// Taps at `positions` (0 is the centre of sample 0), clamped to the samples `low..=high`.
    fn at(position: f64, low: usize, high: usize) -> Self {
        let position = position.clamp(low as f64, high as f64);
        let first = position.floor() as usize;
        Self { first, second: (first + 1).min(high), weight: (position - first as f64) as f32 }
    }
}

/// The taps of one axis, for luma and for chroma.
#[derive(Debug)]
struct Axis {
    luma: Vec<Tap>,
    chroma: Vec<Tap>,
}

impl Axis {
    /// Taps along a row.
    fn columns(start: usize, length: usize, size: usize, flip: bool) -> Self {
        Self::new(start, length, size, flip, 0.0)
    }

    /// Taps along a column.
    fn rows(start: usize, length: usize, size: usize) -> Self {
        Self::new(start, length, size, false, 0.5)
    }

    /// Taps of `size` outputs over the crop `start..start + length`. A chroma sample `c` lies at luma position `2 c + chroma_offset`.
    fn new(start: usize, length: usize, size: usize, flip: bool, chroma_offset: f64) -> Self {
        let scale = length as f64 / size as f64;
        let end = start + length - 1;
        let position = |output: usize| {
            let output = if flip { size - 1 - output } else { output };
            (start as f64 + (output as f64 + 0.5) * scale - 0.5).clamp(start as f64, end as f64)
        };
        let luma = (0..size).map(|output| Tap::at(position(output), start, end)).collect();
        let chroma = (0..size).map(|output| Tap::at((position(output) - chroma_offset) / 2.0, start / 2, end / 2)).collect();
        Self { luma, chroma }
    }
}

/// Resamples a crop of frames of one kind and size, a row of output at a time.
#[derive(Debug)]
pub(crate) struct Resampler {
    size: I420,
    /// None where frames are RGB already.
    to_rgb: Option<ToRgb>,
    columns: Axis,
    rows: Axis,
    /// A row of output before its columns are resampled: a plane each, or all three channels in the first.
    blended: [Vec<f32>; 3],
}

impl Resampler {
    /// Of `crop` of `frames`, which are of `size`, to `width` x `height`.
    pub(crate) fn new(frames: Frames<'_>, size: I420, crop: Crop, flip: bool, width: usize, height: usize) -> Self {
        let to_rgb = match frames {
            Frames::I420(_, color) => Some(ToRgb::new(color)),
            Frames::Rgb(_) => None,
        };
        let columns = Axis::columns(crop.left, crop.width, width, flip);
        let rows = Axis::rows(crop.top, crop.height, height);
        Self { size, to_rgb, columns, rows, blended: Default::default() }
    }

    /// Hands each pixel of row `y` of output, made of the bytes of one frame, to `put`, with its column: normalised R'G'B'.
    pub(crate) fn row(&mut self, frame: &[u8], y: usize, mut put: impl FnMut(usize, [f32; 3])) {
        let (size, luma_row, chroma_row) = (self.size, self.rows.luma[y], self.rows.chroma[y]);
        let Some(to_rgb) = self.to_rgb else {
            let [pixels, ..] = &mut self.blended;
            blend_rows(frame, 3 * size.width, luma_row, pixels);
            for (x, &tap) in self.columns.luma.iter().enumerate() {
                let channel = |channel: usize| between(pixels[3 * tap.first + channel], pixels[3 * tap.second + channel], tap.weight);
                put(x, [0, 1, 2].map(|at| (channel(at) / 255.0 - MEAN) / STD));
            }
            return;
        };
        for (plane, (row, tap)) in self.blended.iter_mut().zip([luma_row, chroma_row, chroma_row]).enumerate() {
            blend_rows(&frame[size.plane_range(plane)], size.plane_size(plane).0, tap, row);
        }
        let [luma, cb, cr] = &self.blended;
        for (x, (&luma_tap, &chroma_tap)) in self.columns.luma.iter().zip(&self.columns.chroma).enumerate() {
            put(x, to_rgb.apply(blend(luma, luma_tap), blend(cb, chroma_tap), blend(cr, chroma_tap)));
        }
    }
}

/// Writes the view of `clip`, whose frames are of `size`, to `out`, `[3, frames, side, side]`, RGB, normalised.
///
/// # Panics
/// When `out` has another length, or the clip has fewer frames than the view needs.
pub fn transform(clip: Frames<'_>, size: I420, view: View, frames: usize, side: usize, out: &mut [f32]) {
    assert_eq!(out.len(), 3 * frames * side * side, "values of a training clip");
    let mut resampler = Resampler::new(clip, size, view.crop, view.flip, side, side);
    let (red, rest) = out.split_at_mut(frames * side * side);
    let (green, blue) = rest.split_at_mut(frames * side * side);
    let mut outputs = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
    for frame in clip.bytes().chunks_exact(clip.frame_bytes(size)).skip(view.first_frame).take(frames) {
        for y in 0..side {
            let ((red, green), blue) = outputs.next().expect("a row of output for each row");
            resampler.row(frame, y, |x, rgb| [red[x], green[x], blue[x]] = rgb);
        }
    }
    assert!(outputs.next().is_none(), "the clip has fewer frames than the view needs");
}

/// The row between two rows of a plane.
fn blend_rows(plane: &[u8], width: usize, tap: Tap, out: &mut Vec<f32>) {
    let first = &plane[tap.first * width..][..width];
    let second = &plane[tap.second * width..][..width];
    out.clear();
    out.extend(first.iter().zip(second).map(|(&a, &b)| between(f32::from(a), f32::from(b), tap.weight)));
}

fn blend(row: &[f32], tap: Tap) -> f32 {
    between(row[tap.first], row[tap.second], tap.weight)
}

fn between(a: f32, b: f32, weight: f32) -> f32 {
    a + (b - a) * weight
}

/// A normalised value as the 8-bit sample that it came from, clamped.
pub fn denormalise(value: f32) -> u8 {
    ((value * STD + MEAN) * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

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
