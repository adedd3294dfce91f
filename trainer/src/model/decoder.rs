//! The decoder: fills the masked places with the mask token, and predicts the pixels of every token.

use super::block::{Block, LayerNorm, Linear, TransformerConfig};
use super::embed::Positions;
use super::masking::Masking;
use super::parameters::{Init, ParameterBuilder};
use candle_core::{Result, Tensor};
use schemas::geometry::PatchGrid;

#[derive(Debug)]
pub(crate) struct Decoder {
    embed: Linear,
    mask_token: Tensor,
    cls_token: Tensor,
    positions: Positions,
    blocks: Vec<Block>,
    norm: LayerNorm,
    pred: Linear,
    grid: PatchGrid,
}

impl Decoder {
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        grid: PatchGrid,
        encoder_width: usize,
        config: TransformerConfig,
        outputs: usize,
    ) -> Result<Self> {
        let TransformerConfig { width, depth, heads } = config;
        let block = |i| Block::new(parameters, &format!("decoder_blocks.{i}"), width, heads);
        let blocks = (0..depth).map(block).collect::<Result<_>>()?;
        Ok(Self {
            embed: Linear::new(parameters, "decoder_embed", encoder_width, width)?,
            mask_token: parameters.get("mask_token", &[1, 1, width], Init::Token)?,
            cls_token: parameters.get("decoder_cls_token", &[1, 1, width], Init::Zeros)?,
            positions: Positions::new(parameters, "decoder_", grid, width)?,
            blocks,
            norm: LayerNorm::new(parameters, "decoder_norm", width)?,
            pred: Linear::new(parameters, "decoder_pred", width, outputs)?,
            grid,
        })
    }

    /// `[clips, visible, encoder's width]` to predictions of all tokens, `[clips, tokens, values]`.
    pub(crate) fn forward(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.pred.forward(&self.decode(encoded, masking)?)
    }

    /// The same of the masked tokens only: `[clips, masked, values]`.
    pub(crate) fn forward_masked(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let decoded = self.decode(encoded, masking)?;
        let (clips, tokens, width) = decoded.dims3()?;
        let masked = decoded.reshape((clips * tokens, width))?.index_select(masking.masked_rows(), 0)?;
        self.pred.forward(&masked.reshape((clips, tokens - masking.visible(), width))?)
    }

    /// `[clips, tokens, width]`: what each token is to be predicted from.
    fn decode(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let (clips, visible, tokens) = (masking.clips(), masking.visible(), self.grid.tokens());
        let width = self.mask_token.dim(2)?;
        // One mask token serves all masked places: it is the last row of the table that every place takes its row from.
        let visible_rows = self.embed.forward(encoded)?.reshape((clips * visible, width))?;
        let table = Tensor::cat(&[&visible_rows, &self.mask_token.reshape((1, width))?], 0)?;
        let x = table.index_select(masking.decoder_rows(), 0)?.reshape((clips, tokens, width))?;
        let x = x.broadcast_add(&self.positions.of_tokens()?)?;
        let class = (&self.cls_token + self.positions.of_class())?.broadcast_as((clips, 1, width))?;
        let mut x = Tensor::cat(&[&class, &x], 1)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.norm.forward(&x)?.narrow(1, 1, tokens)?.contiguous()
    }
}
