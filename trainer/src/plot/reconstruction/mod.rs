//! Pictures of what a model reconstructs.
//!
//! - Here: a run's own picture ([`reconstruction`]), and what of a clip is drawn under a mask ([`look`]).
//! - [`strip`](mod@strip): a clip under several masks, frame by frame, as the paper's figures.
//! - [`animation`]: the same, moving: GIF and H.264.

pub mod animation;
pub mod strip;

use crate::backend::{LearnerError, MaeLearner, NormalisedPatches, Reconstruction};
use crate::model::{MaeConfig, TargetKind};
use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};
use pipeline::loader::batch::Batch;
use pipeline::transform::denormalise;
use schemas::geometry::PatchGrid;

/// Pixels between tiles.
const GAP: usize = 2;

/// Colour of masked patches and of the gaps.
const MASKED: Rgb<u8> = Rgb([96, 96, 96]);
const GAP_COLOR: Rgb<u8> = Rgb([255, 255, 255]);

/// Visible patches of whose mean and deviation those of a masked patch are guessed.
const NEIGHBOURS: usize = 8;

/// What the rows of [`reconstruction`]'s picture are, for a model that predicts `target`, normalised patch by patch or not.
pub const fn rows(target: TargetKind, normalised: bool) -> &'static [&'static str] {
    match (target, normalised) {
        (TargetKind::Pixels, true) => &[
            "its frames",
            "what the encoder sees of them",
            "the reconstruction, the visible patches pasted in; mean and contrast of each masked patch are borrowed from the true one",
            "the same without borrowing: mean and contrast are those of the nearest visible patches",
        ],
        (TargetKind::Pixels, false) => {
            &["its frames", "what the encoder sees of them", "the reconstruction, the visible patches pasted in"]
        }
        (TargetKind::Hog, _) => {
            &["its frames", "what the encoder sees of them (histograms of gradients, which are predicted, are no picture)"]
        }
    }
}

/// Draws a batch, for each clip the [`rows`]. The frames are those that the model predicts.
///
/// Where the model predicts normalised patches, it does not predict their mean and deviation. The third row borrows them from the true patches. The fourth guesses
/// them from the visible patches, so that nothing in it comes from what the model is not shown. Where it predicts histograms of gradients there is no picture of
/// them: a clip then has the first two rows only.
///
/// # Errors
/// When the batch is not of whole clips, or the device fails.
///
/// # Panics
/// When not all masked tokens of the batch are predicted.
pub fn reconstruction(learner: &mut MaeLearner, batch: Batch) -> Result<RgbImage, LearnerError> {
    let config = *learner.config();
    let masked: Vec<Vec<u32>> = batch.masks().iter().map(|mask| mask.masked.to_vec()).collect();
    let tiles = tiles(&learner.reconstruct(batch)?, config.grid, &masked)?;

    let mut films = Vec::new();
    for (clip, masked) in masked.iter().enumerate() {
        films.push(film(&config, &tiles.truth[clip], &[]));
        films.push(film(&config, &tiles.truth[clip], masked));
        films.extend([&tiles.borrowing, &tiles.own].into_iter().flatten().map(|tokens| film(&config, &tokens[clip], &[])));
    }
    let span = |tiles: usize| (tiles * (config.grid.size + GAP) - GAP) as u32;
    let mut picture = RgbImage::from_pixel(span(config.target_frames().len()), span(films.len()), GAP_COLOR);
    for (row, film) in films.iter().enumerate() {
        for (column, frame) in film.iter().enumerate() {
            let place = |tile: usize| (tile * (config.grid.size + GAP)) as i64;
            replace(&mut picture, frame, place(column), place(row));
        }
    }
    Ok(picture)
}

/// Whose mean and deviation masked patches get, where the model predicts normalised ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Contrast {
    /// Those of the true patches, which the model is not shown.
    True,
    /// Those of the nearest visible patches.
    Visible,
}

/// A clip under one mask: the frames that the model predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Share of the tokens that was asked to be masked.
    pub ratio: f64,
    /// The frames as they are: the same under any mask.
    pub original: Vec<RgbImage>,
    /// The same, masked patches grey.
    pub masked: Vec<RgbImage>,
    /// What the model makes of them, visible patches pasted in.
    pub reconstruction: Vec<RgbImage>,
}

impl Look {
    /// The same, each pixel as `times` x `times` of them.
    #[must_use]
    pub fn enlarged(&self, times: u32) -> Self {
        let larger = |film: &[RgbImage]| {
            let frames = film.iter().map(|frame| resize(frame, frame.width() * times, frame.height() * times, FilterType::Nearest));
            frames.collect::<Vec<_>>()
        };
        Self {
            ratio: self.ratio,
            original: larger(&self.original),
            masked: larger(&self.masked),
            reconstruction: larger(&self.reconstruction),
        }
    }
}

/// What the model makes of a batch of one clip.
///
/// None where the model predicts histograms of gradients, which are no picture.
///
/// # Errors
/// When the batch is not of whole clips, or the device fails.
///
/// # Panics
/// When the batch is not of one clip, or not all of its masked tokens are predicted.
pub fn look(learner: &mut MaeLearner, batch: Batch, contrast: Contrast) -> Result<Option<Look>, LearnerError> {
    assert_eq!(batch.len(), 1, "clips of the batch");
    let (config, ratio) = (*learner.config(), batch.format.mask_rule.map_or(0.0, |rule| rule.ratio));
    let masked: Vec<Vec<u32>> = batch.masks().iter().map(|mask| mask.masked.to_vec()).collect();
    let Tiles { truth, borrowing, own } = tiles(&learner.reconstruct(batch)?, config.grid, &masked)?;
    let of_masked = match contrast {
        Contrast::True => borrowing,
        Contrast::Visible => own.or(borrowing),
    };
    Ok(of_masked.map(|reconstruction| Look {
        ratio,
        original: film(&config, &truth[0], &[]),
        masked: film(&config, &truth[0], &masked[0]),
        reconstruction: film(&config, &reconstruction[0], &[]),
    }))
}

/// A share as people say it: `90`, or `97.5`.
fn percent(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// By how much frames of `size` are enlarged, to be at least `least` wide: small models see small frames.
const fn enlargement(size: u32, least: u32) -> u32 {
    least.div_ceil(if size == 0 { 1 } else { size })
}

/// Values `[clip][token][value]`, normalised RGB.
type Tokens = Vec<Vec<Vec<f32>>>;

/// What the rows show.
struct Tiles {
    /// The true frames.
    truth: Tokens,
    /// Predictions where masked; with the true patches' mean and deviation where the model has none. None where the model predicts histograms.
    borrowing: Option<Tokens>,
    /// The same with mean and deviation from the visible patches; none where the model predicts pixels as they are.
    own: Option<Tokens>,
}

/// The rows of a reconstruction, of whose tokens `masked` are masked.
fn tiles(reconstruction: &Reconstruction, grid: PatchGrid, masked: &[Vec<u32>]) -> candle_core::Result<Tiles> {
    let Reconstruction { truth, predicted, normalised } = reconstruction;
    let truth = truth.to_vec3::<f32>()?;
    let Some(predicted) = predicted else { return Ok(Tiles { truth, borrowing: None, own: None }) };
    let (predicted, mut borrowing) = (predicted.to_vec3::<f32>()?, truth.clone());
    for (clip, masked) in masked.iter().enumerate() {
        masked.iter().for_each(|&token| borrowing[clip][token as usize].clone_from(&predicted[clip][token as usize]));
    }
    let borrowing = Some(borrowing);
    let Some(NormalisedPatches { predicted, mean, deviation }) = normalised else { return Ok(Tiles { truth, borrowing, own: None }) };
    let (channels, mean, deviation) = (mean.dim(2)?, mean.to_vec3::<f32>()?, deviation.to_vec3::<f32>()?);
    let (predicted, mut own) = (predicted.to_vec3::<f32>()?, truth.clone());
    for (clip, masked) in masked.iter().enumerate() {
        for (token, weights) in neighbours(grid, masked) {
            let guess = |of_patches: &[Vec<f32>]| -> Vec<f32> {
                (0..channels).map(|channel| weights.iter().map(|&(patch, weight)| weight * of_patches[patch][channel]).sum()).collect()
            };
            let (mean, deviation) = (guess(&mean[clip]), guess(&deviation[clip]));
            let values = predicted[clip][token].iter().enumerate();
            own[clip][token] = values.map(|(at, value)| value * deviation[at % channels] + mean[at % channels]).collect();
        }
    }
    Ok(Tiles { truth, borrowing, own: Some(own) })
}

/// For each masked token the nearest visible ones, with weights that sum to 1: by the inverse of the squared distance in the grid of tokens, where a step of time is as
/// far as one to the side.
fn neighbours(grid: PatchGrid, masked: &[u32]) -> impl Iterator<Item = (usize, Vec<(usize, f32)>)> {
    let place = move |token: usize| [token / grid.space(), token % grid.space() / grid.side(), token % grid.side()];
    let visible: Vec<usize> = (0..grid.tokens()).filter(|&token| masked.binary_search(&(token as u32)).is_err()).collect();
    masked.iter().map(move |&token| {
        let squared = |other: usize| place(token as usize).iter().zip(place(other)).map(|(&a, b)| a.abs_diff(b).pow(2)).sum::<usize>();
        let mut nearest: Vec<(usize, usize)> = visible.iter().map(|&other| (squared(other), other)).collect();
        nearest.sort_unstable();
        nearest.truncate(NEIGHBOURS);
        let sum: f32 = nearest.iter().map(|&(squared, _)| 1.0 / squared as f32).sum();
        (token as usize, nearest.into_iter().map(|(squared, other)| (other, 1.0 / squared as f32 / sum)).collect())
    })
}

/// Draws the tokens of one clip as the frames that they are of; those in `hidden` are left grey.
fn film(config: &MaeConfig, tokens: &[Vec<f32>], hidden: &[u32]) -> Vec<RgbImage> {
    let (grid, slices) = (config.grid, config.slices);
    let mut frames = vec![RgbImage::new(grid.size as u32, grid.size as u32); config.target_frames().len()];
    for (token, values) in tokens.iter().enumerate() {
        let is_hidden = hidden.binary_search(&(token as u32)).is_ok();
        let (time, place) = (token / grid.space(), token % grid.space());
        let (top, left) = (place / grid.side() * grid.patch, place % grid.side() * grid.patch);
        for (at, rgb) in values.chunks_exact(3).enumerate() {
            let (slice, pixel) = (at / (grid.patch * grid.patch), at % (grid.patch * grid.patch));
            let (x, y) = (left + pixel % grid.patch, top + pixel / grid.patch);
            let color = if is_hidden { MASKED } else { Rgb([denormalise(rgb[0]), denormalise(rgb[1]), denormalise(rgb[2])]) };
            frames[time * slices + slice].put_pixel(x as u32, y as u32, color);
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend;
    use crate::model::{Conventions, Mae, Masking, PositionKind, TransformerConfig};
    use candle_core::{Device, Tensor};
    use pipeline::sampling::mask::Masks;

    const GRID: PatchGrid = PatchGrid { frames: 4, size: 32, tubelet: 2, patch: 8 };

    fn model(normalise_target: bool) -> Mae {
        let transformer = TransformerConfig { width: 12, depth: 1, heads: 2 };
        let config = MaeConfig {
            grid: GRID,
            encoder: transformer,
            decoder: transformer,
            positions: PositionKind::Separable,
            class_token: true,
            target: TargetKind::Pixels,
            slices: 1,
            normalise_target,
            conventions: Conventions::default(),
        };
        Mae::seeded(config, 4, &Device::Cpu).expect("a model")
    }

    /// Two clips; every value of a token in `changed` is another one.
    fn clips(changed: &[Vec<u32>]) -> Tensor {
        let values = (0..2 * GRID.clip_values()).map(|at| {
            let (x, y, frame) = (at % GRID.size, at / GRID.size % GRID.size, at / GRID.size / GRID.size % GRID.frames);
            let token = frame / GRID.tubelet * GRID.space() + y / GRID.patch * GRID.side() + x / GRID.patch;
            let is_changed = changed.get(at / GRID.clip_values()).is_some_and(|tokens| tokens.contains(&(token as u32)));
            let value = (at * 7919 % 1013) as f32 / 500.0 - 1.0 + token as f32 / 20.0;
            if is_changed { 5.0 - 3.0 * value } else { value }
        });
        Tensor::from_vec(values.collect::<Vec<f32>>(), (2, 3, GRID.frames, GRID.size, GRID.size), &Device::Cpu).expect("clips")
    }

    /// Masks of two clips: the first shows every fourth token, the second every fourth from the third on.
    fn masks() -> (Masking, Vec<Vec<u32>>) {
        let tokens = GRID.tokens() as u32;
        let split = |first: u32| (0..tokens).partition::<Vec<u32>, _>(|token| token % 4 == first);
        let ((visible0, masked0), (visible1, masked1)) = (split(0), split(2));
        let rows = [visible0.as_slice(), &masked0, &visible1, &masked1].concat();
        (Masking::new(Masks::new(&rows, GRID.tokens(), visible0.len()), &Device::Cpu).expect("masks"), vec![masked0, masked1])
    }

    #[test]
    fn nothing_of_the_fourth_row_comes_from_masked_pixels() {
        let (model, (masking, masked)) = (model(true), masks());
        let of = |changed: &[Vec<u32>]| {
            let (clips, config) = (clips(changed), model.config());
            let predicted = model.forward(&clips, &masking).expect("computed");
            let reconstruction = backend::reconstruction(config, &clips, predicted).expect("drawn");
            tiles(&reconstruction, GRID, &masked).expect("read")
        };
        let (first, second) = (of(&[]), of(&masked));
        assert!(first.own.as_ref().expect("normalised") == second.own.as_ref().expect("normalised"), "the fourth row is the same");
        for (clip, masked) in masked.iter().enumerate() {
            for &token in masked {
                let token = token as usize;
                assert!(first.truth[clip][token] != second.truth[clip][token], "the pixels have changed");
                let borrowing = |tiles: &Tiles| tiles.borrowing.as_ref().expect("pixels")[clip][token].clone();
                assert!(borrowing(&first) != borrowing(&second), "the third row borrows");
            }
        }
        // What is visible is pasted, and shows.
        let own = first.own.expect("normalised");
        assert!((0..GRID.tokens()).step_by(4).all(|token| own[0][token] == first.truth[0][token]));
        let visible: Vec<u32> = (0..GRID.tokens() as u32).step_by(4).collect();
        assert!(of(&[visible]).own.expect("normalised")[0][1] != own[0][1], "visible pixels matter");
    }

    #[test]
    fn the_nearest_visible_patches_weigh_most() {
        // Two steps of time of 4x4 tokens; all but the tokens 0, 3 and 16 are masked: token 1 is 1 step from token 0, 2 from token 3, and 1 to the side and 1 in
        // time from token 16.
        let masked: Vec<u32> = (0..32).filter(|token| ![0, 3, 16].contains(token)).collect();
        let (token, weights) = neighbours(GRID, &masked).next().expect("the first masked token");
        let sum = 1.0 + 1.0 / 2.0 + 1.0 / 4.0;
        assert_eq!(token, 1);
        for ((patch, weight), (expected, inverse)) in weights.into_iter().zip([(0, 1.0), (16, 1.0 / 2.0), (3, 1.0 / 4.0)]) {
            assert_eq!(patch, expected);
            assert!((weight - inverse / sum).abs() < 1e-6, "{patch}: {weight}");
        }
    }

    #[test]
    fn raw_pixels_need_no_fourth_row() {
        let (masking, masked) = masks();
        let (model, clips) = (model(false), clips(&[]));
        let predicted = model.forward(&clips, &masking).expect("computed");
        let reconstruction = backend::reconstruction(model.config(), &clips, predicted).expect("drawn");
        let raw = tiles(&reconstruction, GRID, &masked).expect("read");
        assert!(raw.own.is_none() && rows(TargetKind::Pixels, false).len() == 3 && rows(TargetKind::Pixels, true).len() == 4);
    }
}
