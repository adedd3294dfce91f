//! Whole clips as an autoencoder reconstructs them.

use crate::model::{MaeConfig, TargetKind};
use candle_core::Tensor;

/// Whole clips, true and predicted.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[clips, tokens, values]`: the true frames that the model predicts, normalised RGB; values
    /// ordered frame, row, column, channel.
    pub truth: Tensor,
    /// The same, predicted; none where the model predicts histograms, which are no picture. Mean
    /// and deviation of normalised patches are those of the true ones: the model predicts none.
    pub predicted: Option<Tensor>,
    /// The predictions themselves where the target is normalised patch by patch; none where the
    /// model predicts unnormalised pixels.
    pub normalised: Option<NormalisedPatches>,
}

/// Patches as a model predicts them, with the statistics that normalisation removed.
#[derive(Debug)]
pub struct NormalisedPatches {
    /// `[clips, tokens, values]`: predictions in the scale of normalised patches.
    pub predicted: Tensor,
    /// `[clips, tokens, 1]`: mean of each true patch; `[clips, tokens, 3]` where each channel is
    /// normalised by itself.
    pub mean: Tensor,
    /// Standard deviation of each true patch, of the same shape.
    pub deviation: Tensor,
}

/// The reconstruction of `clips`, `[clips, 3, frames, size, size]`, normalised RGB, from
/// predictions, `[clips, tokens, values]`, whose values at visible tokens are not used.
pub(crate) fn reconstruction(
    config: &MaeConfig,
    clips: &Tensor,
    predicted: Tensor,
) -> candle_core::Result<Reconstruction> {
    let truth = config.pixels(clips)?;
    if config.target == TargetKind::Hog {
        return Ok(Reconstruction {
            truth,
            predicted: None,
            normalised: None,
        });
    }
    let target = config.target_of_patches(&truth)?;
    let denormalised = target.denormalise(&predicted)?;
    let normalised = target
        .statistics
        .map(|(mean, deviation)| NormalisedPatches {
            predicted,
            mean,
            deviation,
        });
    Ok(Reconstruction {
        truth,
        predicted: Some(denormalised),
        normalised,
    })
}
