//! Pictures of reconstructions.
//!
//! - Here: the picture of a run ([`reconstruction`]), and the frames of a clip under a mask
//!   ([`masked_view`]).
//! - [`strip`](mod@strip): a clip under several masks, frame by frame, as in the paper's figures.
//! - [`animation`]: the same as GIF and H.264.

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

/// Number of visible patches from which mean and deviation of a masked patch are estimated.
const NEIGHBOURS: usize = 8;

/// Descriptions of the rows of [`reconstruction`]'s picture, for a model that predicts `target`,
/// normalised patch by patch or not.
pub const fn rows(target: TargetKind, normalised: bool) -> &'static [&'static str] {
    match (target, normalised) {
        (TargetKind::Pixels, true) => &[
            "the frames",
            "the visible patches",
            "the reconstruction with the visible patches; mean and contrast of each masked patch \
             are those of the true patch",
            "the reconstruction with the visible patches; mean and contrast of each masked patch \
             are those of the nearest visible patches",
        ],
        (TargetKind::Pixels, false) => &[
            "the frames",
            "the visible patches",
            "the reconstruction with the visible patches",
        ],
        (TargetKind::Hog, _) => &[
            "the frames",
            "the visible patches (predicted histograms of gradients cannot be drawn)",
        ],
    }
}

/// Draws the [`rows`] of each clip of a batch, for the frames that the model predicts.
///
/// A model of normalised patches does not predict their mean and deviation. The third row takes
/// them from the true patches. The fourth estimates them from the visible patches, so that nothing
/// in it depends on masked pixels. Histograms of gradients cannot be drawn: a clip then has the
/// first two rows only.
///
/// # Errors
/// When the batch is not of whole clips, or the device fails.
///
/// # Panics
/// When not all masked tokens of the batch are predicted.
pub fn reconstruction(learner: &mut MaeLearner, batch: Batch) -> Result<RgbImage, LearnerError> {
    let config = *learner.config();
    let masked: Vec<Vec<u32>> = batch
        .masks()
        .iter()
        .map(|mask| mask.masked.to_vec())
        .collect();
    let tiles = tiles(&learner.reconstruct(batch)?, config.grid, &masked)?;

    let mut films = Vec::new();
    for (clip, masked) in masked.iter().enumerate() {
        films.push(film(&config, &tiles.truth[clip], &[]));
        films.push(film(&config, &tiles.truth[clip], masked));
        films.extend(
            [&tiles.with_true, &tiles.with_estimated]
                .into_iter()
                .flatten()
                .map(|tokens| film(&config, &tokens[clip], &[])),
        );
    }
    let span = |tiles: usize| (tiles * (config.grid.size + GAP) - GAP) as u32;
    let mut picture = RgbImage::from_pixel(
        span(config.target_frames().len()),
        span(films.len()),
        GAP_COLOR,
    );
    for (row, film) in films.iter().enumerate() {
        for (column, frame) in film.iter().enumerate() {
            let place = |tile: usize| (tile * (config.grid.size + GAP)) as i64;
            replace(&mut picture, frame, place(column), place(row));
        }
    }
    Ok(picture)
}

/// Source of the mean and contrast of masked patches, if the model predicts normalised ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Contrast {
    /// The true patches, which the model does not see.
    True,
    /// The nearest visible patches.
    Visible,
}

/// The predicted frames of a clip under one mask.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedView {
    /// The mask ratio.
    pub ratio: f64,
    /// The original frames, the same under any mask.
    pub original: Vec<RgbImage>,
    /// The frames with masked patches in grey.
    pub masked: Vec<RgbImage>,
    /// The reconstruction, with the visible patches.
    pub reconstruction: Vec<RgbImage>,
}

impl MaskedView {
    /// The view, enlarged by `times`.
    #[must_use]
    pub fn enlarged(&self, times: u32) -> Self {
        let larger = |film: &[RgbImage]| {
            let frames = film.iter().map(|frame| {
                resize(
                    frame,
                    frame.width() * times,
                    frame.height() * times,
                    FilterType::Nearest,
                )
            });
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

/// Reconstructs a batch of one clip.
///
/// Returns `None` if the model predicts histograms of gradients, which cannot be drawn.
///
/// # Errors
/// When the batch is not of whole clips, or the device fails.
///
/// # Panics
/// When the batch is not of one clip, or not all of its masked tokens are predicted.
pub fn masked_view(
    learner: &mut MaeLearner,
    batch: Batch,
    contrast: Contrast,
) -> Result<Option<MaskedView>, LearnerError> {
    assert_eq!(batch.len(), 1, "clips of the batch");
    let config = *learner.config();
    let ratio = batch.format.mask_rule.map_or(0.0, |rule| rule.ratio);
    let masked: Vec<Vec<u32>> = batch
        .masks()
        .iter()
        .map(|mask| mask.masked.to_vec())
        .collect();
    let Tiles {
        truth,
        with_true,
        with_estimated,
    } = tiles(&learner.reconstruct(batch)?, config.grid, &masked)?;
    let of_masked = match contrast {
        Contrast::True => with_true,
        Contrast::Visible => with_estimated.or(with_true),
    };
    Ok(of_masked.map(|reconstruction| MaskedView {
        ratio,
        original: film(&config, &truth[0], &[]),
        masked: film(&config, &truth[0], &masked[0]),
        reconstruction: film(&config, &reconstruction[0], &[]),
    }))
}

/// A share in percent: `90`, or `97.5`.
fn percent(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Scale by which frames of width `size` become at least `least` wide.
const fn enlargement(size: u32, least: u32) -> u32 {
    least.div_ceil(if size == 0 { 1 } else { size })
}

/// Values `[clip][token][value]`, normalised RGB.
type Tokens = Vec<Vec<Vec<f32>>>;

/// The frames of the rows.
struct Tiles {
    /// The true frames.
    truth: Tokens,
    /// The frames with predictions at masked patches. Normalised predictions get mean and deviation
    /// of the true patches. `None` if the model predicts histograms.
    with_true: Option<Tokens>,
    /// The same with mean and deviation estimated from the visible patches; `None` if the model
    /// predicts raw pixels.
    with_estimated: Option<Tokens>,
}

/// The frames of a reconstruction whose tokens `masked` are masked.
fn tiles(
    reconstruction: &Reconstruction,
    grid: PatchGrid,
    masked: &[Vec<u32>],
) -> candle_core::Result<Tiles> {
    let Reconstruction {
        truth,
        predicted,
        normalised,
    } = reconstruction;
    let truth = truth.to_vec3::<f32>()?;
    let Some(predicted) = predicted else {
        return Ok(Tiles {
            truth,
            with_true: None,
            with_estimated: None,
        });
    };
    let (predicted, mut with_true) = (predicted.to_vec3::<f32>()?, truth.clone());
    for (clip, masked) in masked.iter().enumerate() {
        masked.iter().for_each(|&token| {
            with_true[clip][token as usize].clone_from(&predicted[clip][token as usize])
        });
    }
    let with_true = Some(with_true);
    let Some(NormalisedPatches {
        predicted,
        mean,
        deviation,
    }) = normalised
    else {
        return Ok(Tiles {
            truth,
            with_true,
            with_estimated: None,
        });
    };
    let (channels, mean, deviation) = (
        mean.dim(2)?,
        mean.to_vec3::<f32>()?,
        deviation.to_vec3::<f32>()?,
    );
    let (predicted, mut with_estimated) = (predicted.to_vec3::<f32>()?, truth.clone());
    for (clip, masked) in masked.iter().enumerate() {
        for (token, weights) in neighbours(grid, masked) {
            let estimate = |of_patches: &[Vec<f32>]| -> Vec<f32> {
                (0..channels)
                    .map(|channel| {
                        weights
                            .iter()
                            .map(|&(patch, weight)| weight * of_patches[patch][channel])
                            .sum()
                    })
                    .collect()
            };
            let mean = estimate(&mean[clip]);
            let deviation = estimate(&deviation[clip]);
            let values = predicted[clip][token].iter().enumerate();
            with_estimated[clip][token] = values
                .map(|(at, value)| value * deviation[at % channels] + mean[at % channels])
                .collect();
        }
    }
    Ok(Tiles {
        truth,
        with_true,
        with_estimated: Some(with_estimated),
    })
}

/// For each masked token the nearest visible ones, with weights that sum to 1, by the inverse of
/// the squared distance in the grid of tokens. One step in time counts as one in space.
fn neighbours(grid: PatchGrid, masked: &[u32]) -> impl Iterator<Item = (usize, Vec<(usize, f32)>)> {
    let place = move |token: usize| {
        [
            token / grid.space(),
            token % grid.space() / grid.side(),
            token % grid.side(),
        ]
    };
    let visible: Vec<usize> = (0..grid.tokens())
        .filter(|&token| masked.binary_search(&(token as u32)).is_err())
        .collect();
    masked.iter().map(move |&token| {
        let squared = |other: usize| {
            place(token as usize)
                .iter()
                .zip(place(other))
                .map(|(&a, b)| a.abs_diff(b).pow(2))
                .sum::<usize>()
        };
        let mut nearest: Vec<(usize, usize)> = visible
            .iter()
            .map(|&other| (squared(other), other))
            .collect();
        nearest.sort_unstable();
        nearest.truncate(NEIGHBOURS);
        let sum: f32 = nearest
            .iter()
            .map(|&(squared, _)| 1.0 / squared as f32)
            .sum();
        (
            token as usize,
            nearest
                .into_iter()
                .map(|(squared, other)| (other, 1.0 / squared as f32 / sum))
                .collect(),
        )
    })
}

/// Draws the tokens of one clip as frames; those in `hidden` are grey.
fn film(config: &MaeConfig, tokens: &[Vec<f32>], hidden: &[u32]) -> Vec<RgbImage> {
    let grid = config.grid;
    let slices = config.slices;
    let mut frames =
        vec![RgbImage::new(grid.size as u32, grid.size as u32); config.target_frames().len()];
    for (token, values) in tokens.iter().enumerate() {
        let is_hidden = hidden.binary_search(&(token as u32)).is_ok();
        let time = token / grid.space();
        let place = token % grid.space();
        let top = place / grid.side() * grid.patch;
        let left = place % grid.side() * grid.patch;
        for (at, rgb) in values.chunks_exact(3).enumerate() {
            let slice = at / (grid.patch * grid.patch);
            let pixel = at % (grid.patch * grid.patch);
            let x = left + pixel % grid.patch;
            let y = top + pixel / grid.patch;
            let color = if is_hidden {
                MASKED
            } else {
                Rgb([
                    denormalise(rgb[0]),
                    denormalise(rgb[1]),
                    denormalise(rgb[2]),
                ])
            };
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

    const GRID: PatchGrid = PatchGrid {
        frames: 4,
        size: 32,
        tubelet: 2,
        patch: 8,
    };

    fn model(normalise_target: bool) -> Mae {
        let transformer = TransformerConfig {
            width: 12,
            depth: 1,
            heads: 2,
        };
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

    /// Two clips; every value of a token in `changed` differs.
    fn clips(changed: &[Vec<u32>]) -> Tensor {
        let values = (0..2 * GRID.clip_values()).map(|at| {
            let x = at % GRID.size;
            let y = at / GRID.size % GRID.size;
            let frame = at / GRID.size / GRID.size % GRID.frames;
            let token =
                frame / GRID.tubelet * GRID.space() + y / GRID.patch * GRID.side() + x / GRID.patch;
            let is_changed = changed
                .get(at / GRID.clip_values())
                .is_some_and(|tokens| tokens.contains(&(token as u32)));
            let value = (at * 7919 % 1013) as f32 / 500.0 - 1.0 + token as f32 / 20.0;
            if is_changed { 5.0 - 3.0 * value } else { value }
        });
        Tensor::from_vec(
            values.collect::<Vec<f32>>(),
            (2, 3, GRID.frames, GRID.size, GRID.size),
            &Device::Cpu,
        )
        .expect("clips")
    }

    /// Masks of two clips: every fourth token of the first is visible, and every fourth from the
    /// third on of the second.
    fn masks() -> (Masking, Vec<Vec<u32>>) {
        let tokens = GRID.tokens() as u32;
        let split = |first: u32| (0..tokens).partition::<Vec<u32>, _>(|token| token % 4 == first);
        let (visible0, masked0) = split(0);
        let (visible1, masked1) = split(2);
        let rows = [visible0.as_slice(), &masked0, &visible1, &masked1].concat();
        (
            Masking::new(
                Masks::new(&rows, GRID.tokens(), visible0.len()),
                &Device::Cpu,
            )
            .expect("masks"),
            vec![masked0, masked1],
        )
    }

    #[test]
    fn nothing_of_the_fourth_row_comes_from_masked_pixels() {
        let model = model(true);
        let (masking, masked) = masks();
        let of = |changed: &[Vec<u32>]| {
            let clips = clips(changed);
            let config = model.config();
            let predicted = model.forward(&clips, &masking).expect("computed");
            let reconstruction = backend::reconstruction(config, &clips, predicted).expect("drawn");
            tiles(&reconstruction, GRID, &masked).expect("read")
        };
        let first = of(&[]);
        let second = of(&masked);
        assert!(
            first.with_estimated.as_ref().expect("normalised")
                == second.with_estimated.as_ref().expect("normalised"),
            "the fourth row is the same"
        );
        for (clip, masked) in masked.iter().enumerate() {
            for &token in masked {
                let token = token as usize;
                assert!(
                    first.truth[clip][token] != second.truth[clip][token],
                    "the pixels have changed"
                );
                let with_true =
                    |tiles: &Tiles| tiles.with_true.as_ref().expect("pixels")[clip][token].clone();
                assert!(
                    with_true(&first) != with_true(&second),
                    "the third row depends on masked pixels"
                );
            }
        }
        // Visible patches are shown unchanged, and affect the estimate.
        let with_estimated = first.with_estimated.expect("normalised");
        assert!(
            (0..GRID.tokens())
                .step_by(4)
                .all(|token| with_estimated[0][token] == first.truth[0][token])
        );
        let visible: Vec<u32> = (0..GRID.tokens() as u32).step_by(4).collect();
        assert!(
            of(&[visible]).with_estimated.expect("normalised")[0][1] != with_estimated[0][1],
            "visible pixels matter"
        );
    }

    #[test]
    fn the_nearest_visible_patches_weigh_most() {
        // Two steps of time of 4x4 tokens; all but the tokens 0, 3 and 16 are masked: token 1 is 1
        // step from token 0, 2 from token 3, and 1 to the side and 1 in time from token 16.
        let masked: Vec<u32> = (0..32)
            .filter(|token| ![0, 3, 16].contains(token))
            .collect();
        let (token, weights) = neighbours(GRID, &masked)
            .next()
            .expect("the first masked token");
        let sum = 1.0 + 1.0 / 2.0 + 1.0 / 4.0;
        assert_eq!(token, 1);
        for ((patch, weight), (expected, inverse)) in
            weights
                .into_iter()
                .zip([(0, 1.0), (16, 1.0 / 2.0), (3, 1.0 / 4.0)])
        {
            assert_eq!(patch, expected);
            assert!((weight - inverse / sum).abs() < 1e-6, "{patch}: {weight}");
        }
    }

    #[test]
    fn raw_pixels_need_no_fourth_row() {
        let (masking, masked) = masks();
        let model = model(false);
        let clips = clips(&[]);
        let predicted = model.forward(&clips, &masking).expect("computed");
        let reconstruction =
            backend::reconstruction(model.config(), &clips, predicted).expect("drawn");
        let raw = tiles(&reconstruction, GRID, &masked).expect("read");
        assert!(
            raw.with_estimated.is_none()
                && rows(TargetKind::Pixels, false).len() == 3
                && rows(TargetKind::Pixels, true).len() == 4
        );
    }
}
