//! What an autoencoder makes of whole clips.

use crate::model::{MaeConfig, TargetKind};
use candle_core::Tensor;

/// What a model makes of whole clips.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[clips, tokens, values]`: the frames that are predicted, normalised RGB; values ordered frame, row, column, channel.
    pub truth: Tensor,
    /// The same, predicted; none of histograms, which are no picture. Mean and deviation of normalised patches are borrowed from the true ones: the model has no other.
    pub predicted: Option<Tensor>,
    /// What the model itself predicts, where its target is normalised patch by patch; none where it predicts pixels as they are.
    pub normalised: Option<NormalisedPatches>,
}

/// Patches as a model predicts them, and what was normalised away.
#[derive(Debug)]
pub struct NormalisedPatches {
    /// `[clips, tokens, values]`: predictions in the scale of normalised patches.
    pub predicted: Tensor,
    /// `[clips, tokens, 1]`: mean of each true patch; `[clips, tokens, 3]` where channels are normalised each by itself.
    pub mean: Tensor,
    /// Standard deviation of each true patch, of the same shape.
    pub deviation: Tensor,
}

/// What predictions of clips, `[clips, tokens, values]`, look like; visible tokens need none. Clips are `[clips, 3, frames, size, size]`, normalised RGB.
pub(crate) fn reconstruction(config: &MaeConfig, clips: &Tensor, predicted: Tensor) -> candle_core::Result<Reconstruction> {
    let truth = config.pixels(clips)?;
    if config.target == TargetKind::Hog {
        return Ok(Reconstruction { truth, predicted: None, normalised: None });
    }
    let target = config.target_of_patches(&truth)?;
    let borrowing = target.denormalise(&predicted)?;
    let normalised = target.statistics.map(|(mean, deviation)| NormalisedPatches { predicted, mean, deviation });
    Ok(Reconstruction { truth, predicted: Some(borrowing), normalised })
}
