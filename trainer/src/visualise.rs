//! Pictures of what a model reconstructs.

use crate::learner::{Learner, LearnerError, Reconstruction};
use crate::model::{MaeConfig, TargetKind};
use image::{Rgb, RgbImage};
use pipeline::batch::Batch;
use pipeline::transform::denormalise;

/// Pixels between tiles.
const GAP: usize = 2;

/// Colour of masked patches and of the gaps.
const MASKED: Rgb<u8> = Rgb([96, 96, 96]);
const GAP_COLOR: Rgb<u8> = Rgb([255, 255, 255]);

/// Draws a batch, three rows a clip: its frames, the frames as the encoder sees them, and the reconstruction with the visible patches pasted in.
/// The frames are those that the model predicts.
///
/// Where the model predicts normalised patches, their mean and deviation are borrowed from the true ones: it has no other. Where it predicts histograms of
/// gradients there is no picture of them: a clip then has the first two rows only.
///
/// # Errors
/// When the device fails.
///
/// # Panics
/// When the batch is not of whole clips, or not all of its masked tokens are predicted.
pub fn reconstruction(learner: &Learner, batch: Batch) -> Result<RgbImage, LearnerError> {
    let config = learner.model_config();
    let masked: Vec<Vec<u32>> = batch.masks().iter().map(|mask| mask.masked.to_vec()).collect();
    let Reconstruction { truth, predicted } = learner.reconstruct(batch)?;
    let truth = truth.to_vec3::<f32>()?;
    let predicted = predicted.map(|predicted| predicted.to_vec3::<f32>()).transpose()?;
    let rows = rows_of_a_clip(config.target);

    let (size, frames) = (config.grid.size, config.target_frames().len());
    let span = |tiles: usize| (tiles * (size + GAP) - GAP) as u32;
    let mut picture = RgbImage::from_pixel(span(frames), span(rows * masked.len()), GAP_COLOR);
    for (clip, masked) in masked.iter().enumerate() {
        draw_row(&mut picture, config, rows * clip, &truth[clip], &[]);
        draw_row(&mut picture, config, rows * clip + 1, &truth[clip], masked);
        if let Some(predicted) = &predicted {
            // The predicted values where masked, the true ones elsewhere.
            let mut pasted = truth[clip].clone();
            masked.iter().for_each(|&token| pasted[token as usize].clone_from(&predicted[clip][token as usize]));
            draw_row(&mut picture, config, rows * clip + 2, &pasted, &[]);
        }
    }
    Ok(picture)
}

/// Rows of each clip in a picture of a model that predicts `target`.
const fn rows_of_a_clip(target: TargetKind) -> usize {
    match target {
        TargetKind::Pixels => 3,
        TargetKind::Hog => 2,
    }
}

/// Draws the tokens of one clip as a row of frames; those in `hidden` are left grey.
fn draw_row(picture: &mut RgbImage, config: &MaeConfig, row: usize, tokens: &[Vec<f32>], hidden: &[u32]) {
    let (grid, slices) = (config.grid, config.slices);
    for (token, values) in tokens.iter().enumerate() {
        let is_hidden = hidden.binary_search(&(token as u32)).is_ok();
        let (time, place) = (token / grid.space(), token % grid.space());
        let (top, left) = (place / grid.side() * grid.patch, place % grid.side() * grid.patch);
        for (at, rgb) in values.chunks_exact(3).enumerate() {
            let (slice, pixel) = (at / (grid.patch * grid.patch), at % (grid.patch * grid.patch));
            let frame = time * slices + slice;
            let x = frame * (grid.size + GAP) + left + pixel % grid.patch;
            let y = row * (grid.size + GAP) + top + pixel / grid.patch;
            let color = if is_hidden { MASKED } else { Rgb([denormalise(rgb[0]), denormalise(rgb[1]), denormalise(rgb[2])]) };
            picture.put_pixel(x as u32, y as u32, color);
        }
    }
}
