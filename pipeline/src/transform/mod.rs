//! Stored frames to a training clip: crop, resize, colour, normalise, in one pass over the output.
//!
//! The result is that of the usual transform of RGB frames: a bilinear resize of the crop without
//! antialias (sample centres at half pixels, clamped to the crop), then `(x / 255 - mean) / std`,
//! 0.45 and 0.225 unless others are given.
//! Here planes are interpolated first ([`resample`]) and converted to RGB afterwards (`color`); the
//! two steps are linear, so only rounding, clamping and the interpolation of chroma differ. Chroma
//! is where H.264 places it by default: level with the even columns of luma, and between its rows.
//!
//! Of a masked clip only the patches in use are computed (`target`): at 90 % masking with one
//! target slice, 55 % of the pixels.
//!
//! - `value`: the types of values, and the normalisation. `x86`: the loops for AVX2.
//! - [`hog`]: histograms of gradients as a target. [`augment`]: RandAugment and random erasing.
//! - [`picture`]: frames as RGB pictures.

pub mod augment;
mod color;
pub mod hog;
pub mod picture;
pub mod resample;
mod target;
mod value;
#[cfg(target_arch = "x86_64")]
mod x86;

use self::hog::Hog;
use self::resample::Resampler;
use self::target::{Band, Place};
use crate::frames::Frames;
use crate::sampling::mask::Mask;
use crate::sampling::sample::View;
use crate::simd::{InstructionSet, instruction_set};
use schemas::geometry::{FrameSize, PatchGrid, TargetFrames};
use std::ops::Range;

pub(crate) use self::color::Normalise;
pub use self::target::{PatchesMut, TargetForm};
pub(crate) use self::value::from_normalised;
pub use self::value::{MEAN, Normalisation, STD, Value, denormalise};

/// What training uses of a stored clip: its frames, their size, and the window, crop and flip.
#[derive(Debug, Clone, Copy)]
pub struct ClipView<'a> {
    /// The stored frames.
    pub frames: Frames<'a>,
    /// Size of a stored frame.
    pub size: FrameSize,
    /// What is taken of them.
    pub view: View,
}

impl<'a> ClipView<'a> {
    /// The bytes of each of the `count` frames of the window; fewer where the clip ends before.
    fn window(self, count: usize) -> impl Iterator<Item = &'a [u8]> {
        self.frames
            .each(self.size)
            .skip(self.view.first_frame)
            .take(count)
            .map(Frames::bytes)
    }
}

/// Makes training clips. Reuses its memory from clip to clip.
///
/// ```
/// use pipeline::frames::{Color, Frames};
/// use pipeline::sampling::sample::central_view;
/// use pipeline::transform::{ClipView, Transform, denormalise};
/// use schemas::geometry::FrameSize;
/// use schemas::shard::{ColorMatrix, ColorRange};
///
/// let size = FrameSize { width: 64, height: 48 };
/// let color = Color { range: ColorRange::Full, matrix: ColorMatrix::Bt709 };
/// // Four grey frames.
/// let bytes = vec![128; 4 * size.frame_bytes()];
/// let clip = ClipView { frames: Frames::I420(&bytes, color), size, view: central_view(size) };
///
/// let mut out = vec![0f32; 3 * 4 * 32 * 32];
/// Transform::default().clip(clip, 4, 32, &mut out);
/// assert!(out.iter().all(|&value| denormalise(value) == 128));
/// ```
#[derive(Debug)]
pub struct Transform {
    set: InstructionSet,
    /// How values are normalised.
    pub normalisation: Normalisation,
    resampler: Resampler,
    /// Where each token's pixels go.
    places: Vec<Place>,
    /// The columns that are computed, in the current rows and in those before them.
    spans: Vec<Range<usize>>,
    previous: Vec<Range<usize>>,
    /// A frame of the three channels, for targets of gradients.
    frame: Vec<f32>,
    hog: Hog,
}

impl Default for Transform {
    fn default() -> Self {
        Self::new(instruction_set())
    }
}

impl Transform {
    /// A transform that uses `set`, which the CPU must have.
    fn new(set: InstructionSet) -> Self {
        Self {
            set,
            normalisation: Normalisation::default(),
            resampler: Resampler::new(set),
            places: Vec::new(),
            spans: Vec::new(),
            previous: Vec::new(),
            frame: Vec::new(),
            hog: Hog::default(),
        }
    }

    /// Writes `frames` frames of `clip` to `out`: `[3, frames, side, side]`, RGB.
    ///
    /// # Panics
    /// When `out` has another length, or the clip has fewer frames than the view needs.
    pub fn clip<T: Value>(
        &mut self,
        clip: ClipView<'_>,
        frames: usize,
        side: usize,
        out: &mut [T],
    ) {
        assert_eq!(
            out.len(),
            3 * frames * side * side,
            "values of a training clip"
        );
        self.resampler.begin_clip(clip, side, side);
        let normalise = Normalise::new::<T>(clip.frames, self.normalisation, self.set);
        let (red, rest) = out.split_at_mut(frames * side * side);
        let (green, blue) = rest.split_at_mut(frames * side * side);
        let rows = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side));
        let mut outputs = rows.zip(blue.chunks_exact_mut(side));
        for frame in clip.window(frames) {
            self.resampler.begin_rows();
            for y in 0..side {
                let ((red, green), blue) = outputs.next().expect("a row of output for each row");
                let samples =
                    self.resampler
                        .rows(frame, y..y + 1, std::slice::from_ref(&(0..side)));
                normalise.planes(samples, 0, side, [red, green, blue]);
            }
        }
        normalise.finish();
        assert!(
            outputs.next().is_none(),
            "the clip has fewer frames than the view needs"
        );
    }

    /// Writes only the patches that a masked autoencoder uses: the tubelets that the encoder sees,
    /// and what the model predicts of each predicted token, as `form` says. Each pixel is that of
    /// [`Self::clip`]; histograms are of such pixels in single precision, whatever `T` is.
    ///
    /// # Panics
    /// When an output has another length, or the clip has fewer frames than the view needs.
    pub fn patches<T: Value>(
        &mut self,
        clip: ClipView<'_>,
        grid: PatchGrid,
        mask: Mask<'_>,
        form: TargetForm,
        out: PatchesMut<'_, T>,
    ) {
        let PatchesMut { visible, target } = out;
        assert_eq!(
            visible.len(),
            mask.visible.len() * grid.tubelet_values(),
            "values of the visible tubelets"
        );
        assert_eq!(
            target.len(),
            mask.predicted.len() * form.values(grid),
            "values of the target"
        );
        self.resampler.begin_clip(clip, grid.size, grid.size);
        self.places.clear();
        self.places.resize(grid.tokens(), Place::Nowhere);
        mask.visible
            .iter()
            .enumerate()
            .for_each(|(at, &token)| self.places[token as usize] = Place::Visible(at));
        mask.predicted
            .iter()
            .enumerate()
            .for_each(|(at, &token)| self.places[token as usize] = Place::Predicted(at));
        match form {
            TargetForm::Pixels { slices } | TargetForm::StridedPixels { slices } => {
                self.pixels(
                    clip,
                    grid,
                    (slices, form.frames()),
                    PatchesMut { visible, target },
                );
            }
            TargetForm::Hog { slices } => {
                self.pixels(
                    clip,
                    grid,
                    (0, form.frames()),
                    PatchesMut {
                        visible,
                        target: &mut [],
                    },
                );
                self.histograms(clip, grid, slices, target);
            }
        }
    }

    /// Writes all tubelets of `clip`, `[tokens, 3, tubelet, patch, patch]`. Each pixel is that of
    /// [`Self::clip`].
    ///
    /// # Panics
    /// When `out` has another length, or the clip has fewer frames than the view needs.
    pub fn tokens<T: Value>(&mut self, clip: ClipView<'_>, grid: PatchGrid, out: &mut [T]) {
        assert_eq!(out.len(), grid.clip_values(), "values of a training clip");
        self.resampler.begin_clip(clip, grid.size, grid.size);
        self.places.clear();
        self.places.extend((0..grid.tokens()).map(Place::Visible));
        self.pixels(
            clip,
            grid,
            (0, TargetFrames::Spread),
            PatchesMut {
                visible: out,
                target: &mut [],
            },
        );
    }

    /// Writes the pixels of the visible tubelets, and of `slices` frames of the predicted ones.
    fn pixels<T: Value>(
        &mut self,
        clip: ClipView<'_>,
        grid: PatchGrid,
        (slices, kind): (usize, TargetFrames),
        mut out: PatchesMut<'_, T>,
    ) {
        let patch = grid.patch;
        let normalise = Normalise::new::<T>(clip.frames, self.normalisation, self.set);
        let mut targets = grid.target_frames(slices, kind).enumerate().peekable();
        let mut made = 0;
        for (number, frame) in clip.window(grid.frames).enumerate() {
            made += 1;
            self.previous.clear();
            // The target frames are in order, and no frame is predicted twice.
            let target = targets
                .next_if(|&(_, frame)| frame == number)
                .map(|(target, _)| target);
            for row in 0..grid.side() {
                let band = Band::new(
                    &self.places,
                    grid,
                    number,
                    row,
                    target.map(|target| (target, slices)),
                );
                band.spans(&mut self.spans);
                if self.spans.is_empty() {
                    continue;
                }
                if self.spans != self.previous {
                    self.resampler.begin_rows();
                    self.previous.clone_from(&self.spans);
                }
                let rows = row * patch..(row + 1) * patch;
                let samples = self.resampler.rows(frame, rows, &self.spans);
                band.write(samples, normalise, &mut out);
            }
        }
        normalise.finish();
        assert_eq!(
            made, grid.frames,
            "the clip has fewer frames than the view needs"
        );
    }

    /// Writes the histograms of `slices` frames of the predicted tokens.
    fn histograms<T: Value>(
        &mut self,
        clip: ClipView<'_>,
        grid: PatchGrid,
        slices: usize,
        target: &mut [T],
    ) {
        let side = grid.size;
        let normalise = Normalise::new::<f32>(clip.frames, Normalisation::default(), self.set);
        let slice_values = hog::patch_values(grid.patch);
        self.frame.resize(3 * side * side, 0.0);
        let mut targets = grid
            .target_frames(slices, TargetFrames::Spread)
            .enumerate()
            .peekable();
        for (number, frame) in clip.window(grid.frames).enumerate() {
            let Some((at, _)) = targets.next_if(|&(_, frame)| frame == number) else {
                continue;
            };
            let (time, slice) = (at / slices, at % slices);
            let places = &self.places[time * grid.space()..(time + 1) * grid.space()];
            if !places
                .iter()
                .any(|place| matches!(place, Place::Predicted(_)))
            {
                continue;
            }
            // A gradient reads beyond its patch: at 90 % masking hardly any pixel is unused.
            let (red, rest) = self.frame.split_at_mut(side * side);
            let (green, blue) = rest.split_at_mut(side * side);
            self.resampler.begin_rows();
            let rows = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side));
            for (y, ((red, green), blue)) in rows.zip(blue.chunks_exact_mut(side)).enumerate() {
                let samples =
                    self.resampler
                        .rows(frame, y..y + 1, std::slice::from_ref(&(0..side)));
                normalise.row(samples, [red, green, blue]);
            }
            self.hog.compute([red, green, blue], side, grid.patch);
            for (place, token) in places.iter().enumerate() {
                if let Place::Predicted(at) = *token {
                    let out = &mut target[(at * slices + slice) * slice_values..][..slice_values];
                    let values = self.hog.patch(place / grid.side(), place % grid.side());
                    out.iter_mut()
                        .zip(values)
                        .for_each(|(out, value)| *out = T::from_f32(value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Color;
    use crate::sampling::mask::{MaskKind, MaskRule, MaskScratch, Masks};
    use crate::sampling::order::{Purpose, stream};
    use crate::sampling::sample::{Augmentation, Crop};
    use half::bf16;
    use rand::RngExt;
    use schemas::shard::{ColorMatrix, ColorRange};

    pub(super) const FULL: Color = Color {
        range: ColorRange::Full,
        matrix: ColorMatrix::Bt601,
    };

    pub(super) fn whole(size: FrameSize) -> View {
        View {
            first_frame: 0,
            crop: Crop {
                left: 0,
                top: 0,
                width: size.width,
                height: size.height,
            },
            flip: false,
        }
    }

    #[test]
    fn a_crop_is_resized_about_pixel_centres() {
        // PyTorch 2.13: F.interpolate(torch.arange(4.).reshape(1,1,1,4).expand(1,1,4,4),
        // size=(8,8), mode="bilinear")[0,0,0] -> 0.00 0.25 0.75 1.25 1.75 2.25 2.75 3.00 and
        // size=(2,2) -> 0.5 2.5 (no antialias).
        let size = FrameSize {
            width: 8,
            height: 8,
        };
        let luma: Vec<u8> = (0..64).map(|at| 40 + 10 * (at % 8) as u8).collect();
        let clip = [luma, vec![128; 32]].concat();
        let crop = Crop {
            left: 2,
            top: 2,
            width: 4,
            height: 4,
        };
        let first_row = |side: usize, flip: bool| {
            let mut out = vec![0f32; 3 * side * side];
            let view = View {
                first_frame: 0,
                crop,
                flip,
            };
            let frames = Frames::I420(&clip, FULL);
            Transform::default().clip(ClipView { frames, size, view }, 1, side, &mut out);
            out[..side]
                .iter()
                .map(|&value| ((value * STD + MEAN) * 255.0 - 60.0) / 10.0)
                .collect::<Vec<_>>()
        };
        let close = |got: Vec<f32>, want: &[f32]| {
            assert!(
                got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4),
                "{got:?}"
            );
        };
        close(
            first_row(8, false),
            &[0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0],
        );
        close(
            first_row(8, true),
            &[3.0, 2.75, 2.25, 1.75, 1.25, 0.75, 0.25, 0.0],
        );
        close(first_row(2, false), &[0.5, 2.5]);
    }

    #[test]
    fn the_frames_of_the_window_are_taken() {
        let size = FrameSize {
            width: 3,
            height: 3,
        };
        let clip: Vec<u8> = (0..4)
            .flat_map(|frame| [vec![50 * frame; 9], vec![128; 8]].concat())
            .collect();
        let mut out = vec![0f32; 3 * 2 * 16];
        let view = View {
            first_frame: 1,
            ..whole(size)
        };
        let frames = Frames::I420(&clip, FULL);
        Transform::default().clip(ClipView { frames, size, view }, 2, 4, &mut out);
        assert!(out[..16].iter().all(|&value| denormalise(value) == 50));
        assert!(out[16..32].iter().all(|&value| denormalise(value) == 100));
        assert!(
            out[64..80].iter().all(|&value| denormalise(value) == 50),
            "channel by channel, then frame by frame"
        );
    }

    #[test]
    fn rgb_is_cropped_and_resized_channel_by_channel() {
        // The same ramp as above in each channel, 10 and 20 higher from one to the next.
        let size = FrameSize {
            width: 8,
            height: 8,
        };
        let clip: Vec<u8> = (0..64)
            .flat_map(|at| [0, 10, 20].map(|channel| 40 + channel + 10 * (at % 8) as u8))
            .collect();
        let view = View {
            first_frame: 0,
            crop: Crop {
                left: 2,
                top: 2,
                width: 4,
                height: 4,
            },
            flip: true,
        };
        let mut out = vec![0f32; 3 * 2 * 2];
        let frames = Frames::Rgb(&clip);
        Transform::default().clip(ClipView { frames, size, view }, 1, 2, &mut out);
        let values: Vec<u8> = out.into_iter().map(denormalise).collect();
        assert_eq!(values, [85, 65, 85, 65, 95, 75, 95, 75, 105, 85, 105, 85]);
    }

    pub(super) fn random_clip(rng: &mut impl RngExt, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| rng.random()).collect()
    }

    /// Patches against the whole clip, for all value types, odd sizes, every kind of mask, one or
    /// more slices.
    #[test]
    fn patches_are_those_of_the_whole_clip() {
        let mut rng = stream(Purpose::Augment, 1, 2, 3);
        let mut transforms: Vec<_> = InstructionSet::supported().map(Transform::new).collect();
        let grids = [
            (
                PatchGrid {
                    frames: 16,
                    size: 64,
                    tubelet: 2,
                    patch: 16,
                },
                1,
            ),
            (
                PatchGrid {
                    frames: 16,
                    size: 64,
                    tubelet: 2,
                    patch: 16,
                },
                2,
            ),
            (
                PatchGrid {
                    frames: 6,
                    size: 30,
                    tubelet: 3,
                    patch: 5,
                },
                1,
            ),
            (
                PatchGrid {
                    frames: 3,
                    size: 21,
                    tubelet: 1,
                    patch: 7,
                },
                1,
            ),
            (
                PatchGrid {
                    frames: 1,
                    size: 8,
                    tubelet: 1,
                    patch: 2,
                },
                1,
            ),
        ];
        for (grid, slices) in grids {
            for kind in [MaskKind::Random, MaskKind::Tube, MaskKind::Block] {
                let size = FrameSize {
                    width: rng.random_range(20..90),
                    height: rng.random_range(20..60),
                };
                let bytes = random_clip(&mut rng, (grid.frames + 2) * 3 * size.width * size.height);
                let planes = Frames::I420(&bytes[..(grid.frames + 2) * size.frame_bytes()], FULL);
                let view =
                    Augmentation::default().draw(&mut rng, grid.frames + 2, grid.frames, size);
                let mut tokens = vec![0; grid.tokens()];
                let rule = MaskRule {
                    decoder_keep: [1.0, 0.5][slices - 1],
                    ..MaskRule::new(kind, 0.7)
                };
                rule.draw(&mut rng, grid, &mut MaskScratch::default(), &mut tokens);
                let masks = Masks::new(&tokens, grid.tokens(), rule.visible(grid).expect("a rule"));
                let masks = masks.predicting(rule.predicted(grid).expect("a rule"));
                let mask = masks.iter().next().expect("one clip");
                let forms = [
                    TargetForm::Pixels { slices },
                    TargetForm::StridedPixels { slices },
                ];
                for (frames, form) in [planes, Frames::Rgb(&bytes)]
                    .into_iter()
                    .flat_map(|frames| forms.map(|form| (frames, form)))
                {
                    let clip = ClipView { frames, size, view };
                    for transform in &mut transforms {
                        check_patches::<f32>(transform, clip, grid, mask, form);
                        check_patches::<bf16>(transform, clip, grid, mask, form);
                        check_patches::<u8>(transform, clip, grid, mask, form);
                    }
                }
            }
        }
    }

    fn check_patches<T: Value + PartialEq + std::fmt::Debug>(
        transform: &mut Transform,
        clip: ClipView<'_>,
        grid: PatchGrid,
        mask: Mask<'_>,
        form: TargetForm,
    ) {
        let slices = form.slices();
        let mut whole = vec![T::zeroed(); grid.clip_values()];
        Transform::new(InstructionSet::Plain).clip(clip, grid.frames, grid.size, &mut whole);
        let mut visible = vec![T::zeroed(); mask.visible.len() * grid.tubelet_values()];
        let mut target = vec![T::zeroed(); mask.predicted.len() * form.values(grid)];
        let out = PatchesMut {
            visible: &mut visible,
            target: &mut target,
        };
        transform.patches(clip, grid, mask, form, out);
        let pixel = |channel: usize, frame: usize, token: usize, y: usize, x: usize| {
            let place = token % grid.space();
            let (y, x) = (
                place / grid.side() * grid.patch + y,
                place % grid.side() * grid.patch + x,
            );
            whole[((channel * grid.frames + frame) * grid.size + y) * grid.size + x]
        };
        let mut seen = visible.iter();
        for &token in mask.visible {
            let token = token as usize;
            for channel in 0..3 {
                for frame in 0..grid.tubelet {
                    for (y, x) in (0..grid.patch).flat_map(|y| (0..grid.patch).map(move |x| (y, x)))
                    {
                        let frame = token / grid.space() * grid.tubelet + frame;
                        assert_eq!(
                            *seen.next().expect("a value"),
                            pixel(channel, frame, token, y, x)
                        );
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
                        assert_eq!(
                            *compared.next().expect("a value"),
                            pixel(channel, frame, token, y, x)
                        );
                    }
                }
            }
        }
    }

    /// Histograms of patches against those of the whole clip's frames, for odd sizes and crops; the
    /// visible pixels are what they are without.
    #[test]
    fn histograms_are_those_of_the_whole_clip() {
        let mut rng = stream(Purpose::Augment, 4, 5, 6);
        let mut transform = Transform::default();
        let grids = [
            (
                PatchGrid {
                    frames: 8,
                    size: 48,
                    tubelet: 2,
                    patch: 16,
                },
                1,
            ),
            (
                PatchGrid {
                    frames: 8,
                    size: 32,
                    tubelet: 4,
                    patch: 8,
                },
                3,
            ),
            (
                PatchGrid {
                    frames: 3,
                    size: 21,
                    tubelet: 1,
                    patch: 7,
                },
                1,
            ),
            (
                PatchGrid {
                    frames: 1,
                    size: 9,
                    tubelet: 1,
                    patch: 3,
                },
                1,
            ),
        ];
        for (grid, slices) in grids {
            let size = FrameSize {
                width: rng.random_range(20..90),
                height: rng.random_range(20..60),
            };
            let bytes = random_clip(&mut rng, (grid.frames + 2) * size.frame_bytes());
            let view = Augmentation::default().draw(&mut rng, grid.frames + 2, grid.frames, size);
            let clip = ClipView {
                frames: Frames::I420(&bytes, FULL),
                size,
                view,
            };
            let rule = MaskRule {
                decoder_keep: 0.6,
                ..MaskRule::new(MaskKind::Random, 0.7)
            };
            let mut tokens = vec![0; grid.tokens()];
            rule.draw(&mut rng, grid, &mut MaskScratch::default(), &mut tokens);
            let mask = Mask::new(
                &tokens,
                rule.visible(grid).expect("a rule"),
                rule.predicted(grid).expect("a rule"),
            );

            let form = TargetForm::Hog { slices };
            let mut visible = vec![0f32; mask.visible.len() * grid.tubelet_values()];
            let mut target = vec![0f32; mask.predicted.len() * form.values(grid)];
            let out = PatchesMut {
                visible: &mut visible,
                target: &mut target,
            };
            transform.patches(clip, grid, mask, form, out);
            let pixels = TargetForm::Pixels { slices };
            let (mut same, mut other) = (
                visible.clone(),
                vec![0f32; mask.predicted.len() * pixels.values(grid)],
            );
            same.fill(0.0);
            let out = PatchesMut {
                visible: &mut same,
                target: &mut other,
            };
            transform.patches(clip, grid, mask, pixels, out);
            assert_eq!(visible, same);
            let (mut halves, mut half_target) = (
                vec![bf16::ZERO; visible.len()],
                vec![bf16::ZERO; target.len()],
            );
            let out = PatchesMut {
                visible: &mut halves,
                target: &mut half_target,
            };
            transform.patches(clip, grid, mask, form, out);
            assert!(
                target
                    .iter()
                    .zip(half_target)
                    .all(|(&value, half)| half == bf16::from_f32(value)),
                "bf16 is rounded at the end"
            );

            let mut whole = vec![0f32; grid.clip_values()];
            transform.clip(clip, grid.frames, grid.size, &mut whole);
            let target_frames: Vec<usize> = grid.target_frames(slices, form.frames()).collect();
            let (mut hog, mut got) = (
                Hog::default(),
                target.chunks_exact(hog::patch_values(grid.patch)),
            );
            for &token in mask.predicted {
                let (time, place) = (token as usize / grid.space(), token as usize % grid.space());
                for slice in 0..slices {
                    let area = grid.size * grid.size;
                    let plane = |channel: usize| {
                        &whole[(channel * grid.frames + target_frames[time * slices + slice])
                            * area..][..area]
                    };
                    hog.compute([plane(0), plane(1), plane(2)], grid.size, grid.patch);
                    let wanted = hog.patch(place / grid.side(), place % grid.side());
                    assert!(
                        got.next().expect("a slice").iter().copied().eq(wanted),
                        "token {token} of {grid:?}"
                    );
                }
            }
        }
    }
}
