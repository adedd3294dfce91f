//! The encoder, which takes the visible tokens only.

use super::block::{Block, LayerNorm, TransformerConfig};
use super::embed::{PositionKind, Positions};
use super::masking::Masking;
use super::parameters::{Init, ParameterBuilder};
use crate::model::ops;
use candle_core::{Result, Tensor};
use schemas::geometry::PatchGrid;

#[derive(Debug)]
pub(crate) struct Encoder {
    proj_weight: Tensor,
    proj_bias: Tensor,
    positions: Positions,
    cls_token: Option<Tensor>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    grid: PatchGrid,
}

impl Encoder {
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        grid: PatchGrid,
        config: TransformerConfig,
        positions: PositionKind,
        class_token: bool,
        [norm_epsilon, last_epsilon]: [f64; 2],
    ) -> Result<Self> {
        let TransformerConfig {
            width,
            depth,
            heads,
        } = config;
        let kernel = [width, 3, grid.tubelet, grid.patch, grid.patch];
        let fan_in = grid.tubelet_values();
        Ok(Self {
            proj_weight: parameters.get("patch_embed.proj.weight", &kernel, Init::Xavier)?,
            proj_bias: parameters.get(
                "patch_embed.proj.bias",
                &[width],
                Init::ConvolutionBias { fan_in },
            )?,
            positions: Positions::new(parameters, "", positions, class_token, grid, width)?,
            cls_token: class_token
                .then(|| parameters.get("cls_token", &[1, 1, width], Init::Token))
                .transpose()?,
            blocks: (0..depth)
                .map(|i| {
                    Block::new(
                        parameters,
                        &format!("blocks.{i}"),
                        width,
                        heads,
                        norm_epsilon,
                    )
                })
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(parameters, "norm", width, last_epsilon)?,
            grid,
        })
    }

    /// Encodes the visible patches, `[clips, visible, values]` (ordered as in
    /// [`super::embed::channel_first_patches`]), to `[clips, visible, width]`, without the cls
    /// token.
    ///
    /// Masked patches are never embedded; the reference implementation embeds all of them first,
    /// with the same result.
    pub(crate) fn forward(&self, patches: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.normalise(&self.tokens(patches, masking, None)?)
    }

    /// Applies the last layer normalisation.
    pub(crate) fn normalise(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(x)
    }

    /// [`Self::forward`] without the last layer normalisation. `scales`, `[blocks, 2, clips]`,
    /// multiplies the residual branches of the blocks (stochastic depth, Huang et al. 2016).
    pub(crate) fn tokens(
        &self,
        patches: &Tensor,
        masking: &Masking,
        scales: Option<&Tensor>,
    ) -> Result<Tensor> {
        let x = self.all_tokens(patches, masking, scales)?;
        x.narrow(1, usize::from(self.cls_token.is_some()), masking.visible())?
            .contiguous()
    }

    /// [`Self::forward`] with the cls token first, if there is one: `[clips, 1 + visible, width]`.
    pub(crate) fn forward_all(&self, patches: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.normalise(&self.all_tokens(patches, masking, None)?)
    }

    fn all_tokens(
        &self,
        patches: &Tensor,
        masking: &Masking,
        scales: Option<&Tensor>,
    ) -> Result<Tensor> {
        let clips = masking.clips();
        let visible = masking.visible();
        let values = self.grid.tubelet_values();
        let patches = patches.reshape((clips * visible, values))?;
        let width = self.proj_bias.dim(0)?;
        let tokens = ops::linear(
            &patches,
            &self.proj_weight.reshape((width, values))?,
            &self.proj_bias,
        )?;
        let positions = self
            .positions
            .of_tokens()?
            .index_select(masking.visible_tokens(), 0)?;
        let tokens = (tokens + positions)?.reshape((clips, visible, width))?;
        let mut x = self
            .positions
            .prepend_class(self.cls_token.as_ref(), tokens)?;
        for (at, block) in self.blocks.iter().enumerate() {
            x = block.forward(
                &x,
                scales.map(|scales| scales.get(at)).transpose()?.as_ref(),
            )?;
        }
        Ok(x)
    }
}
