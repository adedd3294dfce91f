//! Clips to tokens: cutting into patches, and positions.

use super::parameters::{Init, ParameterBuilder};
use candle_core::{Result, Tensor};
use schemas::geometry::PatchGrid;

/// Cuts `[clips, 3, frames, size, size]` into `[clips, tokens, values]`, the values of a token ordered channel, frame, row, column: that of the
/// kernel of a 3-D convolution.
pub(crate) fn channel_first_patches(clips: &Tensor, grid: PatchGrid) -> Result<Tensor> {
    let count = clips.dim(0)?;
    split(clips, grid, grid.tubelet)?.permute(vec![0, 2, 4, 6, 1, 3, 5, 7])?.reshape((count, grid.tokens(), grid.tubelet_values()))
}

/// Cuts `[clips, 3, time * slices, size, size]` into `[clips, tokens, slices * patch * patch * 3]`, the values of a token ordered frame, row,
/// column, channel: that of the reference's target.
pub(crate) fn channel_last_patches(clips: &Tensor, grid: PatchGrid, slices: usize) -> Result<Tensor> {
    let count = clips.dim(0)?;
    let values = 3 * slices * grid.patch * grid.patch;
    split(clips, grid, slices)?.permute(vec![0, 2, 4, 6, 3, 5, 7, 1])?.reshape((count, grid.tokens(), values))
}

/// `[clips, 3, time, frames of a token, rows, rows of a token, columns, columns of a token]`
fn split(clips: &Tensor, grid: PatchGrid, slices: usize) -> Result<Tensor> {
    clips.reshape(vec![clips.dim(0)?, 3, grid.time(), slices, grid.side(), grid.patch, grid.side(), grid.patch])
}

/// Learned positions, separable: one for each place in a frame, one for each moment, and one for the cls token.
#[derive(Debug)]
pub(crate) struct Positions {
    spatial: Tensor,
    temporal: Tensor,
    class: Tensor,
}

impl Positions {
    /// Positions under `{prefix}pos_embed_spatial` and so on.
    pub(crate) fn new(parameters: &mut ParameterBuilder, prefix: &str, grid: PatchGrid, width: usize) -> Result<Self> {
        let mut get = |part: &str, tokens: usize| parameters.get(&format!("{prefix}pos_embed_{part}"), &[1, tokens, width], Init::Token);
        Ok(Self { spatial: get("spatial", grid.space())?, temporal: get("temporal", grid.time())?, class: get("class", 1)? })
    }

    /// `[tokens, width]`, in the order of the tokens.
    pub(crate) fn of_tokens(&self) -> Result<Tensor> {
        let (_, space, width) = self.spatial.dims3()?;
        let time = self.temporal.dim(1)?;
        let spatial = self.spatial.broadcast_as((time, space, width))?;
        let temporal = self.temporal.reshape((time, 1, width))?;
        spatial.broadcast_add(&temporal)?.reshape((time * space, width))
    }

    /// `[1, 1, width]`, of the cls token.
    pub(crate) const fn of_class(&self) -> &Tensor {
        &self.class
    }
}
