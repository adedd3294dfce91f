//! Stored frames to a training clip: crop, resize, colour, normalise, in one pass over the output.
//!
//! The result is what the reference computes on RGB frames: a bilinear resize of the crop without antialias (sample centres at half
//! pixels, clamped to the crop), then `(x / 255 - 0.45) / 0.225`. Here planes are interpolated first ([`crate::transform::resample`]) and turned to RGB afterwards;
//! the two steps are linear, so only rounding, clamping and the chroma's own interpolation differ. Chroma is taken as H.264 places it by default: level
//! with the even columns of luma, and between its rows.
//!
//! Of a masked clip only the patches that are asked for are made: at 90 % masking with one target slice, 55 % of the pixels.

pub mod augment;
pub mod hog;
pub mod picture;
pub mod resample;

use self::hog::Hog;
use crate::frames::{Color, Frames};
use crate::sampling::mask::Mask;
use crate::sampling::sample::View;
use crate::transform::resample::{CENTRE, Resampler, SCALE, has_vectors};
use half::bf16;
use schemas::geometry::{FrameSize, PatchGrid, TargetFrames};
use schemas::shard::{ColorMatrix, ColorRange};
use std::ops::Range;

/// Mean of the normalisation, of values in 0..=1.
pub const MEAN: f32 = 0.45;

/// Standard deviation of the normalisation.
pub const STD: f32 = 0.225;

/// What a value of a training clip may be: `f32` and [`bf16`] are normalised, `u8` are R'G'B' samples, to be normalised where they are used.
pub trait Value: bytemuck::Pod + private::Value {}

impl Value for f32 {}
impl Value for bf16 {}
impl Value for u8 {}

mod private {
    use super::{MEAN, STD};
    use half::bf16;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::{
        __m256, _mm_packus_epi16, _mm_packus_epi32, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi32, _mm256_and_si256,
        _mm256_castps_si256, _mm256_castsi256_si128, _mm256_cvtps_epi32, _mm256_extracti128_si256, _mm256_set1_epi32, _mm256_srli_epi32,
        _mm256_storeu_ps,
    };

    pub trait Value: Sized {
        /// A sample `x` of 0..=255 is made as `(x / 255 - mean) / std`.
        const MEAN_AND_STD: (f32, f32);

        /// Of a value that lies in the range of what samples become.
        fn from_f32(value: f32) -> Self;

        /// Of a normalised value, whatever it is.
        fn from_normalised(value: f32) -> Self {
            Self::from_f32(value)
        }

        /// Writes [`Self::from_f32`] of each of 8 values.
        ///
        /// # Safety
        /// `out` must have room for them, and the processor AVX2.
        #[cfg(target_arch = "x86_64")]
        unsafe fn store(values: __m256, out: *mut Self);
    }

    impl Value for f32 {
        const MEAN_AND_STD: (f32, f32) = (MEAN, STD);

        fn from_f32(value: f32) -> Self {
            value
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn store(values: __m256, out: *mut Self) {
            // SAFETY: the caller has room for 8 floats.
            unsafe { _mm256_storeu_ps(out, values) };
        }
    }

    impl Value for bf16 {
        const MEAN_AND_STD: (f32, f32) = (MEAN, STD);

        /// Rounded to the nearest, half-way cases to even; there are no NaNs to mind.
        fn from_f32(value: f32) -> Self {
            let bits = value.to_bits();
            Self::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn store(values: __m256, out: *mut Self) {
            let bits = _mm256_castps_si256(values);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let upper = _mm256_srli_epi32::<16>(rounded);
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper));
            // SAFETY: the caller has room for 8 values of 16 bits.
            unsafe { _mm_storeu_si128(out.cast(), halves) };
        }
    }

    impl Value for u8 {
        const MEAN_AND_STD: (f32, f32) = (0.0, 1.0 / 255.0);

        /// Rounded to the nearest, half-way cases to even.
        fn from_f32(value: f32) -> Self {
            value.round_ties_even() as Self
        }

        fn from_normalised(value: f32) -> Self {
            super::denormalise(value)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn store(values: __m256, out: *mut Self) {
            let numbers = _mm256_cvtps_epi32(values);
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers));
            // SAFETY: the caller has room for 8 bytes.
            unsafe { _mm_storel_epi64(out.cast(), _mm_packus_epi16(halves, halves)) };
        }
    }
}

/// How resampled samples become values: an affine map, with the normalisation and the samples' scale folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalise {
    matrix: Matrix,
    /// The range of values. Y'CbCr can name colours beyond it, which 8-bit RGB has no room for.
    black: f32,
    white: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Matrix {
    /// Of Y'CbCr.
    Yuv { luma: f32, offset: f32, red_cr: f32, green_cb: f32, green_cr: f32, blue_cb: f32 },
    /// Of R'G'B'.
    Rgb { gain: f32, offset: f32 },
}

impl Normalise {
    /// For frames as `frames` are, to values of type `T`.
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
        Self { matrix, black: -mean / std, white: (1.0 - mean) / std }
    }

    /// Turns a row of samples into a row of each of `out`'s channels, clamped to what 8 bits have room for.
    pub(crate) fn row<T: Value>(self, samples: [&[i16]; 3], out: [&mut [T]; 3]) {
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::row(self, samples, out) };
        }
        self.row_plainly(samples, out);
    }

    fn row_plainly<T: Value>(self, samples: [&[i16]; 3], [red, green, blue]: [&mut [T]; 3]) {
        let width = red.len();
        // Slices of one length, so that the loops below need no checks.
        let [first, second, third] = samples.map(|row| &row[..width]);
        let (green, blue) = (&mut green[..width], &mut blue[..width]);
        let value = |value: f32| T::from_f32(value.clamp(self.black, self.white));
        match self.matrix {
            Matrix::Yuv { luma, offset, red_cr, green_cb, green_cr, blue_cb } => {
                for x in 0..width {
                    let (y, cb, cr) = (f32::from(first[x]) * luma + offset, f32::from(second[x]), f32::from(third[x]));
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
    /// ITU-T H.273: `R = Y + 2(1-Kr)Cr`, `B = Y + 2(1-Kb)Cb`, and G from `Y = Kr R + Kg G + Kb B`; limited range has 219 steps of luma
    /// from 16 and 224 of chroma, full range 255.
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

/// Gain and offset that bring a resampled sample to values of a `mean` and `std`: `zero` is black, and white is `steps` above it.
fn affine(zero: f64, steps: f64, (mean, std): (f64, f64)) -> (f32, f32) {
    let centre = (f64::from(CENTRE) - zero) / steps;
    ((1.0 / steps / std / f64::from(SCALE)) as f32, ((centre - mean) / std) as f32)
}

/// What the target holds of each token that is predicted, of the frames that [`PatchGrid::target_frames`] names, spread ones
/// where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// Pixels, `[slices, patch, patch, 3]`: the order of the reference's target.
    Pixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// The same of [`TargetFrames::Strided`] frames.
    StridedPixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// Histograms of oriented gradients ([`crate::transform::hog`]), `[slices, cells, cells, 3, 9]`. They are no samples: [`u8`] has no room for them.
    Hog {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
}

impl TargetForm {
    /// Frames of each tubelet that are predicted.
    pub const fn slices(self) -> usize {
        match self {
            Self::Pixels { slices } | Self::StridedPixels { slices } | Self::Hog { slices } => slices,
        }
    }

    /// Which frames are predicted.
    pub const fn frames(self) -> TargetFrames {
        match self {
            Self::Pixels { .. } | Self::Hog { .. } => TargetFrames::Spread,
            Self::StridedPixels { .. } => TargetFrames::Strided,
        }
    }

    /// Values of a token of `grid`.
    pub const fn values(self, grid: PatchGrid) -> usize {
        match self {
            Self::Pixels { slices } | Self::StridedPixels { slices } => grid.target_values(slices),
            Self::Hog { slices } => slices * hog::patch_values(grid.patch),
        }
    }
}

/// Makes training clips. Uses its memory again from clip to clip.
#[derive(Debug, Default)]
pub struct Transform {
    resampler: Resampler,
    /// Where each token's pixels go.
    places: Vec<Place>,
    /// The columns that are made, in the rows in hand and in those before them.
    spans: Vec<Range<usize>>,
    previous: Vec<Range<usize>>,
    /// A row of the three channels, of values of any type: none is larger.
    row: Vec<f32>,
    /// A frame of the three channels, where it is gradients that are predicted.
    frame: Vec<f32>,
    hog: Hog,
}

/// Where the pixels of a token go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To the visible ones, as number so and so.
    Visible(usize),
    /// To the predicted ones.
    Predicted(usize),
    /// Nowhere.
    LeftOut,
}

impl Transform {
    /// Writes the view of `clip`, whose frames are of `size`, to `out`: `[3, frames, side, side]`, RGB.
    ///
    /// # Panics
    /// When `out` has another length, or the clip has fewer frames than the view needs.
    pub fn clip<T: Value>(&mut self, clip: Frames<'_>, size: FrameSize, view: View, frames: usize, side: usize, out: &mut [T]) {
        assert_eq!(out.len(), 3 * frames * side * side, "values of a training clip");
        self.resampler.begin_clip(clip, size, view.crop, view.flip, side, side);
        let normalise = Normalise::new::<T>(clip);
        let (red, rest) = out.split_at_mut(frames * side * side);
        let (green, blue) = rest.split_at_mut(frames * side * side);
        let mut outputs = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
        for frame in clip.each(size).skip(view.first_frame).take(frames) {
            self.resampler.begin_rows();
            for y in 0..side {
                let ((red, green), blue) = outputs.next().expect("a row of output for each row");
                normalise.row(self.resampler.row(frame.bytes(), y, std::slice::from_ref(&(0..side))), [red, green, blue]);
            }
        }
        assert!(outputs.next().is_none(), "the clip has fewer frames than the view needs");
    }

    /// Writes of the same view only the patches that a masked autoencoder uses: to `visible` the tubelets that the encoder sees,
    /// `[visible tokens, 3, tubelet, patch, patch]` (the order of a 3-D convolution's kernel), and to `target` what the model predicts of each predicted token,
    /// as `form` says: `[predicted tokens, values]`. Each pixel is that of [`Self::clip`]; histograms are of such pixels in single precision, whatever `T` is.
    ///
    /// # Panics
    /// When an output has another length, or the clip has fewer frames than the view needs.
    pub fn patches<T: Value>(
        &mut self,
        clip: Frames<'_>,
        size: FrameSize,
        view: View,
        grid: PatchGrid,
        mask: Mask<'_>,
        form: TargetForm,
        visible: &mut [T],
        target: &mut [T],
    ) {
        assert_eq!(visible.len(), mask.visible.len() * grid.tubelet_values(), "values of the visible tubelets");
        assert_eq!(target.len(), mask.predicted.len() * form.values(grid), "values of the target");
        self.resampler.begin_clip(clip, size, view.crop, view.flip, grid.size, grid.size);
        self.places.clear();
        self.places.resize(grid.tokens(), Place::LeftOut);
        mask.visible.iter().enumerate().for_each(|(at, &token)| self.places[token as usize] = Place::Visible(at));
        mask.predicted.iter().enumerate().for_each(|(at, &token)| self.places[token as usize] = Place::Predicted(at));
        match form {
            TargetForm::Pixels { slices } | TargetForm::StridedPixels { slices } => {
                self.pixels(clip, size, view, grid, (slices, form.frames()), visible, target);
            }
            TargetForm::Hog { slices } => {
                self.pixels(clip, size, view, grid, (0, form.frames()), visible, &mut []);
                self.histograms(clip, size, view, grid, slices, target);
            }
        }
    }

    /// Writes of the same view all tubelets, `[tokens, 3, tubelet, patch, patch]`. Each pixel is that of [`Self::clip`].
    ///
    /// # Panics
    /// When `out` has another length, or the clip has fewer frames than the view needs.
    pub fn tokens<T: Value>(&mut self, clip: Frames<'_>, size: FrameSize, view: View, grid: PatchGrid, out: &mut [T]) {
        assert_eq!(out.len(), grid.clip_values(), "values of a training clip");
        self.resampler.begin_clip(clip, size, view.crop, view.flip, grid.size, grid.size);
        self.places.clear();
        self.places.extend((0..grid.tokens()).map(Place::Visible));
        self.pixels(clip, size, view, grid, (0, TargetFrames::Spread), out, &mut []);
    }

    /// Writes the pixels of the visible tubelets, and of `slices` frames of the predicted ones.
    fn pixels<T: Value>(
        &mut self,
        clip: Frames<'_>,
        size: FrameSize,
        view: View,
        grid: PatchGrid,
        (slices, kind): (usize, TargetFrames),
        visible: &mut [T],
        target: &mut [T],
    ) {
        let (side, patch) = (grid.size, grid.patch);
        let normalise = Normalise::new::<T>(clip);
        self.row.resize(3 * side, 0.0);
        let row: &mut [T] = &mut bytemuck::cast_slice_mut(&mut self.row)[..3 * side];
        let (red, rest) = row.split_at_mut(side);
        let (green, blue) = rest.split_at_mut(side);
        let mut targets = grid.target_frames(slices, kind).enumerate().peekable();
        let mut made = 0;
        for (number, frame) in clip.each(size).skip(view.first_frame).take(grid.frames).enumerate() {
            made += 1;
            self.previous.clear();
            // The target frames are in order, and no frame is predicted twice.
            let predicted = targets.next_if(|&(_, frame)| frame == number).map(|(target, _)| (target / slices, target % slices));
            for band in 0..grid.side() {
                let tokens = |time: usize| time * grid.space() + band * grid.side()..time * grid.space() + (band + 1) * grid.side();
                let seen = &self.places[tokens(number / grid.tubelet)];
                let compared = predicted.map(|(time, slice)| (&self.places[tokens(time)], slice));
                let is_seen = |column: usize| matches!(seen[column], Place::Visible(_));
                let is_compared = |column: usize| compared.is_some_and(|(places, _)| matches!(places[column], Place::Predicted(_)));
                self.spans.clear();
                for column in (0..grid.side()).filter(|&column| is_seen(column) || is_compared(column)) {
                    match self.spans.last_mut() {
                        Some(span) if span.end == column * patch => span.end += patch,
                        _ => self.spans.push(column * patch..(column + 1) * patch),
                    }
                }
                if self.spans != self.previous {
                    self.resampler.begin_rows();
                    self.previous.clone_from(&self.spans);
                }
                for y in 0..patch {
                    let samples = self.resampler.row(frame.bytes(), band * patch + y, &self.spans);
                    for span in &self.spans {
                        let samples = samples.map(|row| &row[span.clone()]);
                        normalise.row(samples, [&mut red[span.clone()], &mut green[span.clone()], &mut blue[span.clone()]]);
                    }
                    for column in 0..grid.side() {
                        let pixels = column * patch..(column + 1) * patch;
                        if let Place::Visible(at) = seen[column] {
                            let tubelet = &mut visible[at * grid.tubelet_values()..][..grid.tubelet_values()];
                            for (channel, row) in [&red, &green, &blue].into_iter().enumerate() {
                                let line = (channel * grid.tubelet + number % grid.tubelet) * patch + y;
                                tubelet[line * patch..][..patch].copy_from_slice(&row[pixels.clone()]);
                            }
                        }
                        if let Some((places, slice)) = compared
                            && let Place::Predicted(at) = places[column]
                        {
                            let line = at * grid.target_values(slices) + (slice * patch + y) * patch * 3;
                            interleave([&red[pixels.clone()], &green[pixels.clone()], &blue[pixels]], &mut target[line..][..3 * patch]);
                        }
                    }
                }
            }
        }
        assert_eq!(made, grid.frames, "the clip has fewer frames than the view needs");
    }

    /// Writes the histograms of `slices` frames of the predicted tokens.
    fn histograms<T: Value>(&mut self, clip: Frames<'_>, size: FrameSize, view: View, grid: PatchGrid, slices: usize, target: &mut [T]) {
        let side = grid.size;
        let normalise = Normalise::new::<f32>(clip);
        let slice_values = hog::patch_values(grid.patch);
        self.frame.resize(3 * side * side, 0.0);
        let mut targets = grid.target_frames(slices, TargetFrames::Spread).enumerate().peekable();
        for (number, frame) in clip.each(size).skip(view.first_frame).take(grid.frames).enumerate() {
            let Some((at, _)) = targets.next_if(|&(_, frame)| frame == number) else { continue };
            let (time, slice) = (at / slices, at % slices);
            let places = &self.places[time * grid.space()..(time + 1) * grid.space()];
            if !places.iter().any(|place| matches!(place, Place::Predicted(_))) {
                continue;
            }
            // A gradient looks beyond its patch: at 90 % masking hardly a pixel is not wanted.
            let (red, rest) = self.frame.split_at_mut(side * side);
            let (green, blue) = rest.split_at_mut(side * side);
            self.resampler.begin_rows();
            let rows = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
            for (y, ((red, green), blue)) in rows.enumerate() {
                normalise.row(self.resampler.row(frame.bytes(), y, std::slice::from_ref(&(0..side))), [red, green, blue]);
            }
            self.hog.compute([red, green, blue], side, grid.patch);
            for (place, token) in places.iter().enumerate() {
                if let Place::Predicted(at) = *token {
                    let out = &mut target[(at * slices + slice) * slice_values..][..slice_values];
                    let values = self.hog.patch(place / grid.side(), place % grid.side());
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = T::from_f32(value));
                }
            }
        }
    }
}

/// Writes pixels of three channels one after the other.
fn interleave<T: Copy>(channels: [&[T]; 3], out: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if has_vectors() {
        // SAFETY: the processor has AVX2.
        return unsafe { x86::interleave(channels, out) };
    }
    interleave_plainly(channels, out);
}

#[inline(always)]
fn interleave_plainly<T: Copy>([red, green, blue]: [&[T]; 3], out: &mut [T]) {
    // Lengths that the loop shares, so that it needs no checks.
    let count = red.len();
    let (green, blue, out) = (&green[..count], &blue[..count], &mut out[..3 * count]);
    for x in 0..count {
        out[3 * x] = red[x];
        out[3 * x + 1] = green[x];
        out[3 * x + 2] = blue[x];
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Matrix, Normalise, Value, interleave_plainly};
    use std::arch::x86_64::{
        __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtepi16_epi32, _mm256_cvtepi32_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps,
        _mm256_set1_ps,
    };

    /// Pixels in a vector.
    const LANES: usize = 8;

    /// [`Normalise::row_plainly`], 8 pixels at a time: sums and products are those of the plain one, none is fused.
    #[target_feature(enable = "avx2")]
    pub(super) fn row<T: Value>(normalise: Normalise, [first, second, third]: [&[i16]; 3], [red, green, blue]: [&mut [T]; 3]) {
        let width = red.len();
        let whole = width / LANES * LANES;
        let (black, white) = (_mm256_set1_ps(normalise.black), _mm256_set1_ps(normalise.white));
        let load = |samples: &[i16], x: usize| {
            let samples = &samples[x..x + LANES];
            // SAFETY: the address is that of 8 numbers of 16 bits.
            _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(samples.as_ptr().cast()) }))
        };
        let scaled = |value: __m256, gain: f32| _mm256_mul_ps(value, _mm256_set1_ps(gain));
        let store = |value: __m256, out: &mut [T], x: usize| {
            let value = _mm256_min_ps(_mm256_max_ps(value, black), white);
            let out = &mut out[x..x + LANES];
            // SAFETY: the address is that of 8 values, and the processor has AVX2.
            unsafe { T::store(value, out.as_mut_ptr()) };
        };
        for x in (0..whole).step_by(LANES) {
            match normalise.matrix {
                Matrix::Yuv { luma, offset, red_cr, green_cb, green_cr, blue_cb } => {
                    let y = _mm256_add_ps(scaled(load(first, x), luma), _mm256_set1_ps(offset));
                    let (cb, cr) = (load(second, x), load(third, x));
                    store(_mm256_add_ps(y, scaled(cr, red_cr)), red, x);
                    store(_mm256_add_ps(_mm256_add_ps(y, scaled(cb, green_cb)), scaled(cr, green_cr)), green, x);
                    store(_mm256_add_ps(y, scaled(cb, blue_cb)), blue, x);
                }
                Matrix::Rgb { gain, offset } => {
                    let value = |samples: &[i16]| _mm256_add_ps(scaled(load(samples, x), gain), _mm256_set1_ps(offset));
                    store(value(first), red, x);
                    store(value(second), green, x);
                    store(value(third), blue, x);
                }
            }
        }
        let rest = [&first[whole..], &second[whole..], &third[whole..]];
        normalise.row_plainly(rest, [&mut red[whole..], &mut green[whole..], &mut blue[whole..]]);
    }

    /// [`interleave_plainly`], compiled for AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn interleave<T: Copy>(channels: [&[T]; 3], out: &mut [T]) {
        // Most patches have 16 columns: a length that the compiler knows becomes straight code.
        match (channels.map(<[T]>::first_chunk::<16>), out.first_chunk_mut::<48>()) {
            ([Some(red), Some(green), Some(blue)], Some(out)) if channels[0].len() == 16 => interleave_plainly([red, green, blue], out),
            (_, _) => interleave_plainly(channels, out),
        }
    }
}

/// A normalised value as a clip of `T` has it: clamped where that is bytes.
pub(crate) fn from_normalised<T: Value>(value: f32) -> T {
    T::from_normalised(value)
}

/// A normalised value as the 8-bit sample that it came from, clamped.
pub fn denormalise(value: f32) -> u8 {
    ((value * STD + MEAN) * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::mask::{MaskKind, MaskRule, MaskScratch, Masks};
    use crate::sampling::order::{Purpose, stream};
    use crate::sampling::sample::{Augmentation, Crop};
    use rand::RngExt;

    const FULL: Color = Color { range: ColorRange::Full, matrix: ColorMatrix::Bt601 };

    fn whole(size: FrameSize) -> View {
        View { first_frame: 0, crop: Crop { left: 0, top: 0, width: size.width, height: size.height }, flip: false }
    }

    fn rgb(yuv: [u8; 3], range: ColorRange, matrix: ColorMatrix) -> [u8; 3] {
        let size = FrameSize { width: 2, height: 2 };
        let clip = [[yuv[0]; 4].as_slice(), &yuv[1..]].concat();
        let mut out = [0f32; 12];
        Transform::default().clip(Frames::I420(&clip, Color { range, matrix }), size, whole(size), 1, 2, &mut out);
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
        let size = FrameSize { width: 8, height: 8 };
        let luma: Vec<u8> = (0..64).map(|at| 40 + 10 * (at % 8) as u8).collect();
        let clip = [luma, vec![128; 32]].concat();
        let crop = Crop { left: 2, top: 2, width: 4, height: 4 };
        let first_row = |side: usize, flip: bool| {
            let mut out = vec![0f32; 3 * side * side];
            let view = View { first_frame: 0, crop, flip };
            Transform::default().clip(Frames::I420(&clip, FULL), size, view, 1, side, &mut out);
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
        let size = FrameSize { width: 3, height: 3 };
        let clip: Vec<u8> = (0..4).flat_map(|frame| [vec![50 * frame; 9], vec![128; 8]].concat()).collect();
        let mut out = vec![0f32; 3 * 2 * 16];
        let view = View { first_frame: 1, ..whole(size) };
        Transform::default().clip(Frames::I420(&clip, FULL), size, view, 2, 4, &mut out);
        assert!(out[..16].iter().all(|&value| denormalise(value) == 50));
        assert!(out[16..32].iter().all(|&value| denormalise(value) == 100));
        assert!(out[64..80].iter().all(|&value| denormalise(value) == 50), "channel by channel, then frame by frame");
    }

    #[test]
    fn rgb_is_cropped_and_resized_channel_by_channel() {
        // The same ramp as above in each channel, 10 and 20 higher from one to the next.
        let size = FrameSize { width: 8, height: 8 };
        let clip: Vec<u8> = (0..64).flat_map(|at| [0, 10, 20].map(|channel| 40 + channel + 10 * (at % 8) as u8)).collect();
        let view = View { first_frame: 0, crop: Crop { left: 2, top: 2, width: 4, height: 4 }, flip: true };
        let mut out = vec![0f32; 3 * 2 * 2];
        Transform::default().clip(Frames::Rgb(&clip), size, view, 1, 2, &mut out);
        let values: Vec<u8> = out.into_iter().map(denormalise).collect();
        assert_eq!(values, [85, 65, 85, 65, 95, 75, 95, 75, 105, 85, 105, 85]);
    }

    fn random_clip(rng: &mut impl RngExt, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| rng.random()).collect()
    }

    /// Patches against the whole clip, for all value types, odd sizes, every kind of mask and one slice or several.
    #[test]
    fn patches_are_those_of_the_whole_clip() {
        let mut rng = stream(Purpose::Augment, 1, 2, 3);
        let mut transform = Transform::default();
        let grids = [
            (PatchGrid { frames: 16, size: 64, tubelet: 2, patch: 16 }, 1),
            (PatchGrid { frames: 16, size: 64, tubelet: 2, patch: 16 }, 2),
            (PatchGrid { frames: 6, size: 30, tubelet: 3, patch: 5 }, 1),
            (PatchGrid { frames: 3, size: 21, tubelet: 1, patch: 7 }, 1),
            (PatchGrid { frames: 1, size: 8, tubelet: 1, patch: 2 }, 1),
        ];
        for (grid, slices) in grids {
            for kind in [MaskKind::Random, MaskKind::Tube, MaskKind::Block] {
                let size = FrameSize { width: rng.random_range(20..90), height: rng.random_range(20..60) };
                let bytes = random_clip(&mut rng, (grid.frames + 2) * 3 * size.width * size.height);
                let planes = Frames::I420(&bytes[..(grid.frames + 2) * size.frame_bytes()], FULL);
                let view = Augmentation::default().draw(&mut rng, grid.frames + 2, grid.frames, size);
                let mut tokens = vec![0; grid.tokens()];
                let rule = MaskRule { decoder_keep: [1.0, 0.5][slices - 1], ..MaskRule::new(kind, 0.7) };
                rule.draw(&mut rng, grid, &mut MaskScratch::default(), &mut tokens);
                let masks = Masks::new(&tokens, grid.tokens(), rule.visible(grid).expect("a rule"));
                let masks = masks.predicting(rule.predicted(grid).expect("a rule"));
                let mask = masks.iter().next().expect("one clip");
                let forms = [TargetForm::Pixels { slices }, TargetForm::StridedPixels { slices }];
                for (frames, form) in [planes, Frames::Rgb(&bytes)].into_iter().flat_map(|frames| forms.map(|form| (frames, form))) {
                    check_patches::<f32>(&mut transform, frames, size, view, grid, mask, form);
                    check_patches::<bf16>(&mut transform, frames, size, view, grid, mask, form);
                    check_patches::<u8>(&mut transform, frames, size, view, grid, mask, form);
                }
            }
        }
    }

    fn check_patches<T: Value + PartialEq + std::fmt::Debug>(
        transform: &mut Transform,
        frames: Frames<'_>,
        size: FrameSize,
        view: View,
        grid: PatchGrid,
        mask: Mask<'_>,
        form: TargetForm,
    ) {
        let slices = form.slices();
        let mut whole = vec![T::zeroed(); grid.clip_values()];
        transform.clip(frames, size, view, grid.frames, grid.size, &mut whole);
        let mut visible = vec![T::zeroed(); mask.visible.len() * grid.tubelet_values()];
        let mut target = vec![T::zeroed(); mask.predicted.len() * form.values(grid)];
        transform.patches(frames, size, view, grid, mask, form, &mut visible, &mut target);
        let pixel = |channel: usize, frame: usize, token: usize, y: usize, x: usize| {
            let place = token % grid.space();
            let (y, x) = (place / grid.side() * grid.patch + y, place % grid.side() * grid.patch + x);
            whole[((channel * grid.frames + frame) * grid.size + y) * grid.size + x]
        };
        let mut seen = visible.iter();
        for &token in mask.visible {
            let token = token as usize;
            for channel in 0..3 {
                for frame in 0..grid.tubelet {
                    for (y, x) in (0..grid.patch).flat_map(|y| (0..grid.patch).map(move |x| (y, x))) {
                        let frame = token / grid.space() * grid.tubelet + frame;
                        assert_eq!(*seen.next().expect("a value"), pixel(channel, frame, token, y, x));
                    }
                }
            }
        }
        let mut compared = target.iter();
        let target_frames: Vec<usize> = grid.target_frames(slices, form.frames()).collect();
        for &token in mask.predicted {
            let token = token as usize;
            for slice in 0..slices {
                let frame = target_frames[token / grid.space() * slices + slice];
                for (y, x) in (0..grid.patch).flat_map(|y| (0..grid.patch).map(move |x| (y, x))) {
                    for channel in 0..3 {
                        assert_eq!(*compared.next().expect("a value"), pixel(channel, frame, token, y, x));
                    }
                }
            }
        }
    }

    /// Histograms of patches against those of the whole clip's frames, for odd sizes and crops; the visible pixels are what they are without.
    #[test]
    fn histograms_are_those_of_the_whole_clip() {
        let mut rng = stream(Purpose::Augment, 4, 5, 6);
        let mut transform = Transform::default();
        let grids = [
            (PatchGrid { frames: 8, size: 48, tubelet: 2, patch: 16 }, 1),
            (PatchGrid { frames: 8, size: 32, tubelet: 4, patch: 8 }, 3),
            (PatchGrid { frames: 3, size: 21, tubelet: 1, patch: 7 }, 1),
            (PatchGrid { frames: 1, size: 9, tubelet: 1, patch: 3 }, 1),
        ];
        for (grid, slices) in grids {
            let size = FrameSize { width: rng.random_range(20..90), height: rng.random_range(20..60) };
            let bytes = random_clip(&mut rng, (grid.frames + 2) * size.frame_bytes());
            let frames = Frames::I420(&bytes, FULL);
            let view = Augmentation::default().draw(&mut rng, grid.frames + 2, grid.frames, size);
            let rule = MaskRule { decoder_keep: 0.6, ..MaskRule::new(MaskKind::Random, 0.7) };
            let mut tokens = vec![0; grid.tokens()];
            rule.draw(&mut rng, grid, &mut MaskScratch::default(), &mut tokens);
            let mask = Mask::new(&tokens, rule.visible(grid).expect("a rule"), rule.predicted(grid).expect("a rule"));

            let form = TargetForm::Hog { slices };
            let mut visible = vec![0f32; mask.visible.len() * grid.tubelet_values()];
            let mut target = vec![0f32; mask.predicted.len() * form.values(grid)];
            transform.patches(frames, size, view, grid, mask, form, &mut visible, &mut target);
            let pixels = TargetForm::Pixels { slices };
            let (mut same, mut other) = (visible.clone(), vec![0f32; mask.predicted.len() * pixels.values(grid)]);
            same.fill(0.0);
            transform.patches(frames, size, view, grid, mask, pixels, &mut same, &mut other);
            assert_eq!(visible, same);
            let (mut halves, mut half_target) = (vec![bf16::ZERO; visible.len()], vec![bf16::ZERO; target.len()]);
            transform.patches(frames, size, view, grid, mask, form, &mut halves, &mut half_target);
            assert!(target.iter().zip(half_target).all(|(&value, half)| half == bf16::from_f32(value)), "bf16 is rounded at the end");

            let mut whole = vec![0f32; grid.clip_values()];
            transform.clip(frames, size, view, grid.frames, grid.size, &mut whole);
            let target_frames: Vec<usize> = grid.target_frames(slices, form.frames()).collect();
            let (mut hog, mut got) = (Hog::default(), target.chunks_exact(hog::patch_values(grid.patch)));
            for &token in mask.predicted {
                let (time, place) = (token as usize / grid.space(), token as usize % grid.space());
                for slice in 0..slices {
                    let area = grid.size * grid.size;
                    let plane = |channel: usize| &whole[(channel * grid.frames + target_frames[time * slices + slice]) * area..][..area];
                    hog.compute([plane(0), plane(1), plane(2)], grid.size, grid.patch);
                    let wanted = hog.patch(place / grid.side(), place % grid.side());
                    assert!(got.next().expect("a slice").iter().copied().eq(wanted), "token {token} of {grid:?}");
                }
            }
        }
    }

    #[test]
    fn vectors_compute_what_plain_loops_do() {
        let mut rng = stream(Purpose::Augment, 5, 6, 7);
        for width in [1, 7, 8, 16, 37, 224] {
            // All that resampling can give, its extremes included.
            let samples: Vec<i16> =
                (0..3 * width).map(|_| [-16384, 16256, rng.random_range(-16384..=16256)][rng.random_range(0..3)]).collect();
            let samples = [&samples[..width], &samples[width..2 * width], &samples[2 * width..]];
            for frames in [Frames::I420(&[], FULL), Frames::I420(&[], Color { range: ColorRange::Limited, ..FULL }), Frames::Rgb(&[])] {
                check_row::<f32>(frames, samples);
                check_row::<bf16>(frames, samples);
                check_row::<u8>(frames, samples);
            }
        }
    }

    fn check_row<T: Value + PartialEq + std::fmt::Debug>(frames: Frames<'_>, samples: [&[i16]; 3]) {
        let normalise = Normalise::new::<T>(frames);
        let rows = |row: &dyn Fn([&mut [T]; 3])| {
            let [mut red, mut green, mut blue] = samples.map(|samples| vec![T::zeroed(); samples.len()]);
            row([&mut red, &mut green, &mut blue]);
            let mut pixels = vec![T::zeroed(); 3 * red.len()];
            interleave([&red, &green, &blue], &mut pixels);
            let mut plain = vec![T::zeroed(); 3 * red.len()];
            interleave_plainly([&red, &green, &blue], &mut plain);
            assert_eq!(pixels, plain);
            pixels
        };
        assert_eq!(rows(&|out| normalise.row(samples, out)), rows(&|out| normalise.row_plainly(samples, out)));
    }

    #[test]
    fn bytes_and_bf16_are_the_floats_rounded() {
        let mut rng = stream(Purpose::Augment, 3, 2, 1);
        let size = FrameSize { width: 37, height: 29 };
        let bytes = random_clip(&mut rng, 3 * 3 * size.width * size.height);
        for frames in [Frames::I420(&bytes[..3 * size.frame_bytes()], FULL), Frames::Rgb(&bytes)] {
            let view = Augmentation::default().draw(&mut rng, 3, 2, size);
            let (mut transform, values) = (Transform::default(), 3 * 2 * 24 * 24);
            let (mut floats, mut halves, mut samples) = (vec![0f32; values], vec![bf16::ZERO; values], vec![0u8; values]);
            transform.clip(frames, size, view, 2, 24, &mut floats);
            transform.clip(frames, size, view, 2, 24, &mut halves);
            transform.clip(frames, size, view, 2, 24, &mut samples);
            for ((&float, half), sample) in floats.iter().zip(halves).zip(samples) {
                assert_eq!(half, bf16::from_f32(float));
                let exact = (f64::from(float) * f64::from(STD) + f64::from(MEAN)) * 255.0;
                assert!((f64::from(sample) - exact).abs() < 0.501, "{sample} for {exact}");
            }
        }
    }
}
