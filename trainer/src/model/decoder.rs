//! The decoder: fills the masked places with the mask token, and predicts what is there. It takes all places, or the visible and some of the masked ones.

use super::block::{Block, LayerNorm, Linear, TransformerConfig};
use super::embed::Positions;
use super::mae::MaeConfig;
use super::masking::Masking;
use super::parameters::{Init, ParameterBuilder};
use candle_core::{Result, Tensor};

#[derive(Debug)]
pub(crate) struct Decoder {
    embed: Linear,
    mask_token: Tensor,
    cls_token: Option<Tensor>,
    positions: Positions,
    blocks: Vec<Block>,
    norm: LayerNorm,
    pred: Linear,
}

impl Decoder {
    pub(crate) fn new(parameters: &mut ParameterBuilder, config: &MaeConfig) -> Result<Self> {
        let MaeConfig { grid, positions, class_token, .. } = *config;
        let TransformerConfig { width, depth, heads } = config.decoder;
        let block = |i| Block::new(parameters, &format!("decoder_blocks.{i}"), width, heads);
        let blocks = (0..depth).map(block).collect::<Result<_>>()?;
        Ok(Self {
            embed: Linear::new(parameters, "decoder_embed", config.encoder.width, width)?,
            mask_token: parameters.get("mask_token", &[1, 1, width], Init::Token)?,
            cls_token: class_token.then(|| parameters.get("decoder_cls_token", &[1, 1, width], Init::Zeros)).transpose()?,
            positions: Positions::new(parameters, "decoder_", positions, class_token, grid, width)?,
            blocks,
            norm: LayerNorm::new(parameters, "decoder_norm", width)?,
            pred: Linear::new(parameters, "decoder_pred", width, config.target_values())?,
        })
    }

    /// `[clips, visible, encoder's width]` to predictions of all tokens that the decoder takes, in their order: `[clips, decoded, values]`.
    pub(crate) fn forward(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.pred.forward(&self.decode(encoded, masking)?)
    }

    /// The same of the predicted tokens only: `[clips, predicted, values]`.
    pub(crate) fn forward_predicted(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let decoded = self.decode(encoded, masking)?;
        let (clips, tokens, width) = decoded.dims3()?;
        let predicted = decoded.reshape((clips * tokens, width))?.index_select(masking.predicted_rows(), 0)?;
        self.pred.forward(&predicted.reshape((clips, masking.predicted(), width))?)
    }

    /// `[clips, decoded, width]`: what each token that the decoder takes is to be predicted from.
    fn decode(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let (clips, visible, decoded) = (masking.clips(), masking.visible(), masking.decoded());
        let width = self.mask_token.dim(2)?;
        // One mask token serves all masked places: it is the last row of the table that every place takes its row from.
        let visible_rows = self.embed.forward(encoded)?.reshape((clips * visible, width))?;
        let table = Tensor::cat(&[&visible_rows, &self.mask_token.reshape((1, width))?], 0)?;
        let x = table.index_select(masking.decoder_rows(), 0)?.reshape((clips, decoded, width))?;
        let positions = self.positions.of_tokens()?;
        let x = match masking.decoded_tokens() {
            None => x.broadcast_add(&positions)?,
            Some(tokens) => (x + positions.index_select(tokens, 0)?.reshape((clips, decoded, width))?)?,
        };
        let mut x = self.positions.prepend_class(self.cls_token.as_ref(), x)?;
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        self.norm.forward(&x)?.narrow(1, usize::from(self.cls_token.is_some()), decoded)?.contiguous()
    }
}
