//! Clips to tokens: patches and position embeddings.

use super::parameters::{Init, ParameterBuilder};
use candle_core::{Result, Tensor};
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};

/// Splits `[clips, 3, frames, size, size]` into `[clips, tokens, values]`, with the values of a
/// token ordered channel, frame, row, column: the order of a 3-D convolution's kernel.
pub(crate) fn channel_first_patches(clips: &Tensor, grid: PatchGrid) -> Result<Tensor> {
    let count = clips.dim(0)?;
    split(clips, grid, grid.tubelet)?
        .permute(vec![0, 2, 4, 6, 1, 3, 5, 7])?
        .reshape((count, grid.tokens(), grid.tubelet_values()))
}

/// Splits `[clips, 3, time * slices, size, size]` into `[clips, tokens, slices * patch * patch *
/// 3]`, with the values of a token ordered frame, row, column, channel: the order of the reference
/// implementation's target.
pub(crate) fn channel_last_patches(
    clips: &Tensor,
    grid: PatchGrid,
    slices: usize,
) -> Result<Tensor> {
    let count = clips.dim(0)?;
    let values = 3 * slices * grid.patch * grid.patch;
    split(clips, grid, slices)?
        .permute(vec![0, 2, 4, 6, 3, 5, 7, 1])?
        .reshape((count, grid.tokens(), values))
}

/// `[clips, 3, time, frames of a token, rows, rows of a token, columns, columns of a token]`
fn split(clips: &Tensor, grid: PatchGrid, slices: usize) -> Result<Tensor> {
    clips.reshape(vec![
        clips.dim(0)?,
        3,
        grid.time(),
        slices,
        grid.side(),
        grid.patch,
        grid.side(),
        grid.patch,
    ])
}

/// Kind of position embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PositionKind {
    /// Learned, the sum of one per place in a frame and one per time step: the paper's choice.
    #[default]
    Separable,
    /// Learned, one per token.
    Joint,
    /// Fixed sines and cosines of the token's index: VideoMAE's choice. A cls token has none.
    Sinusoid,
}

/// Sines and cosines (Vaswani et al. 2017) of the indices of `tokens` tokens, `[tokens, width]`:
/// `sin(token / 10000^(i / width))` for even `i`, followed by the cosine of the same angle.
/// Computed in double precision.
pub(crate) fn sinusoid_table(tokens: usize, width: usize) -> Vec<f32> {
    let value = |token: usize, at: usize| {
        let angle = token as f64 / 10_000f64.powf((at / 2 * 2) as f64 / width as f64);
        if at.is_multiple_of(2) {
            angle.sin()
        } else {
            angle.cos()
        }
    };
    (0..tokens)
        .flat_map(|token| (0..width).map(move |at| value(token, at) as f32))
        .collect()
}

/// Position embeddings of the tokens, and of the cls token if there is one.
#[derive(Debug)]
pub(crate) enum Positions {
    /// `[1, space, width]`, `[1, time, width]` and `[1, 1, width]`.
    Separable {
        spatial: Tensor,
        temporal: Tensor,
        class: Option<Tensor>,
    },
    /// `[1, tokens, width]`; with a cls token `[1, 1 + tokens, width]`, whose position comes first.
    Joint { table: Tensor, has_class: bool },
    /// `[tokens, width]`; not a parameter.
    Sinusoid { table: Tensor },
}

impl Positions {
    /// Creates positions named `{prefix}pos_embed_spatial` and so on, or `{prefix}pos_embed`.
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        prefix: &str,
        kind: PositionKind,
        has_class: bool,
        grid: PatchGrid,
        width: usize,
    ) -> Result<Self> {
        let mut get = |part: &str, tokens: usize| {
            parameters.get(
                &format!("{prefix}pos_embed{part}"),
                &[1, tokens, width],
                Init::Position,
            )
        };
        Ok(match kind {
            PositionKind::Separable => Self::Separable {
                spatial: get("_spatial", grid.space())?,
                temporal: get("_temporal", grid.time())?,
                class: if has_class {
                    Some(get("_class", 1)?)
                } else {
                    None
                },
            },
            PositionKind::Joint => Self::Joint {
                table: get("", usize::from(has_class) + grid.tokens())?,
                has_class,
            },
            PositionKind::Sinusoid => {
                let table = sinusoid_table(grid.tokens(), width);
                Self::Sinusoid {
                    table: Tensor::from_vec(table, (grid.tokens(), width), parameters.device())?,
                }
            }
        })
    }

    /// Positions of the tokens, `[tokens, width]`.
    pub(crate) fn of_tokens(&self) -> Result<Tensor> {
        match self {
            Self::Separable {
                spatial, temporal, ..
            } => {
                let (_, space, width) = spatial.dims3()?;
                let time = temporal.dim(1)?;
                let spatial = spatial.broadcast_as((time, space, width))?;
                let temporal = temporal.reshape((time, 1, width))?;
                spatial
                    .broadcast_add(&temporal)?
                    .reshape((time * space, width))
            }
            Self::Joint { table, has_class } => {
                let first = usize::from(*has_class);
                table.narrow(1, first, table.dim(1)? - first)?.squeeze(0)
            }
            Self::Sinusoid { table } => Ok(table.clone()),
        }
    }

    /// Position of the cls token, `[1, 1, width]`, if there is one.
    pub(crate) fn of_class(&self) -> Result<Option<Tensor>> {
        match self {
            Self::Separable { class, .. } => Ok(class.clone()),
            Self::Joint { table, has_class } => {
                has_class.then(|| table.narrow(1, 0, 1)).transpose()
            }
            Self::Sinusoid { .. } => Ok(None),
        }
    }

    /// Adds its position to the cls token, `[1 or clips, 1, width]`, and prepends it to `tokens`,
    /// `[clips, tokens, width]`, if there is one.
    pub(crate) fn prepend_class(
        &self,
        class_token: Option<&Tensor>,
        tokens: Tensor,
    ) -> Result<Tensor> {
        let Some(class_token) = class_token else {
            return Ok(tokens);
        };
        let (clips, _, width) = tokens.dims3()?;
        let class = match self.of_class()? {
            Some(position) => class_token.broadcast_add(&position)?,
            None => class_token.clone(),
        };
        Tensor::cat(&[&class.broadcast_as((clips, 1, width))?, &tokens], 1)
    }
}
