//! The decoder: places the mask token at masked positions, and predicts their content. It decodes
//! all tokens, or the visible and some of the masked ones.

use super::block::{Block, LayerNorm, Linear, TransformerConfig};
use super::config::MaeConfig;
use super::conventions::DecoderClassToken;
use super::embed::Positions;
use super::masking::Masking;
use super::parameters::{Init, ParameterBuilder};
use candle_core::{Result, Tensor};

#[derive(Debug)]
pub(crate) struct Decoder {
    embed: Linear,
    mask_token: Tensor,
    class: Class,
    positions: Positions,
    blocks: Vec<Block>,
    norm: LayerNorm,
    pred: Linear,
}

/// The decoder's cls token.
#[derive(Debug)]
enum Class {
    /// No cls token.
    None,
    /// `[1, 1, width]`
    Own(Tensor),
    /// The first of the encoded tokens.
    Encoded,
}

impl Decoder {
    pub(crate) fn new(parameters: &mut ParameterBuilder, config: &MaeConfig) -> Result<Self> {
        let MaeConfig {
            grid,
            class_token,
            conventions,
            ..
        } = *config;
        let TransformerConfig {
            width,
            depth,
            heads,
        } = config.decoder;
        let block = |i| {
            Block::new(
                parameters,
                &format!("decoder_blocks.{i}"),
                width,
                heads,
                conventions.norm_epsilon,
            )
        };
        let blocks = (0..depth).map(block).collect::<Result<_>>()?;
        Ok(Self {
            embed: Linear::new(parameters, "decoder_embed", config.encoder.width, width)?,
            mask_token: parameters.get("mask_token", &[1, 1, width], Init::Token)?,
            class: match (class_token, conventions.decoder_class_token) {
                (false, _) => Class::None,
                (true, DecoderClassToken::Own) => {
                    Class::Own(parameters.get("decoder_cls_token", &[1, 1, width], Init::Zeros)?)
                }
                (true, DecoderClassToken::Encoded) => Class::Encoded,
            },
            positions: Positions::new(
                parameters,
                "decoder_",
                config.decoder_positions(),
                class_token,
                grid,
                width,
            )?,
            blocks,
            norm: LayerNorm::new(
                parameters,
                "decoder_norm",
                width,
                conventions.decoder_norm_epsilon,
            )?,
            pred: Linear::new(parameters, "decoder_pred", width, config.target_values())?,
        })
    }

    /// Whether the decoder takes the encoded cls token before the visible tokens.
    pub(crate) const fn takes_class(&self) -> bool {
        matches!(self.class, Class::Encoded)
    }

    /// `[clips, visible, encoder width]`, with the cls token first if [`Self::takes_class`], to
    /// predictions of all decoded tokens, in their order: `[clips, decoded, values]`.
    pub(crate) fn forward(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.pred.forward(&self.decode(encoded, masking)?)
    }

    /// Predictions of the predicted tokens only: `[clips, predicted, values]`.
    pub(crate) fn forward_predicted(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let decoded = self.decode(encoded, masking)?;
        let (clips, tokens, width) = decoded.dims3()?;
        let predicted = decoded
            .reshape((clips * tokens, width))?
            .index_select(masking.predicted_rows(), 0)?;
        self.pred
            .forward(&predicted.reshape((clips, masking.predicted(), width))?)
    }

    /// `[clips, decoded, width]`: the decoder's last hidden state of each decoded token.
    fn decode(&self, encoded: &Tensor, masking: &Masking) -> Result<Tensor> {
        let clips = masking.clips();
        let visible = masking.visible();
        let decoded = masking.decoded();
        let width = self.mask_token.dim(2)?;
        // All masked positions share one mask token: the last row of the table from which every
        // position gathers its row.
        let embedded = self.embed.forward(encoded)?;
        let (class, embedded) = match &self.class {
            Class::None => (None, embedded),
            Class::Own(token) => (Some(token.clone()), embedded),
            Class::Encoded => (
                Some(embedded.narrow(1, 0, 1)?),
                embedded.narrow(1, 1, visible)?.contiguous()?,
            ),
        };
        let visible_rows = embedded.reshape((clips * visible, width))?;
        let table = Tensor::cat(&[&visible_rows, &self.mask_token.reshape((1, width))?], 0)?;
        let x = table
            .index_select(masking.decoder_rows(), 0)?
            .reshape((clips, decoded, width))?;
        let positions = self.positions.of_tokens()?;
        let x = match masking.decoded_tokens() {
            None => x.broadcast_add(&positions)?,
            Some(tokens) => {
                (x + positions
                    .index_select(tokens, 0)?
                    .reshape((clips, decoded, width))?)?
            }
        };
        let mut x = self.positions.prepend_class(class.as_ref(), x)?;
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        self.norm
            .forward(&x)?
            .narrow(1, usize::from(class.is_some()), decoded)?
            .contiguous()
    }
}
