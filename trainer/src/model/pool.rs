//! Heads on the features of a frozen encoder.

use super::block::{LayerNorm, Linear};
use super::conventions::LAYER_NORM_EPSILON;
use super::parameters::{Init, ParameterBuilder, Parameters};
use crate::model::ops;
use candle_core::{Device, Error, Result, Tensor};

/// A linear head.
#[derive(Debug)]
pub struct Head(Linear);

impl Head {
    /// Creates a head with random weights drawn from `seed`: `head.weight` and `head.bias`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn seeded(width: usize, classes: usize, seed: u64) -> Result<(Self, Parameters)> {
        let mut builder = ParameterBuilder::seeded(seed, &Device::Cpu);
        let head = Linear::with_init(&mut builder, "head", width, classes, Init::Head)?;
        Ok((Self(head), builder.finish().map_err(Error::wrap)?))
    }

    /// Logits `[clips, classes]` of `[clips, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.0.forward(features)
    }
}

/// Attention of one learned query to the tokens of a clip, and a linear head on the result
/// (attentive probing: Yu et al. 2022, Bardes et al. 2024).
#[derive(Debug)]
pub struct AttentivePool {
    query: Tensor,
    norm: LayerNorm,
    k: Linear,
    v: Linear,
    proj: Linear,
    pooled_norm: LayerNorm,
    head: Linear,
    heads: usize,
}

impl AttentivePool {
    /// Creates a head with random weights drawn from `seed`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn seeded(
        width: usize,
        heads: usize,
        classes: usize,
        seed: u64,
    ) -> Result<(Self, Parameters)> {
        let mut builder = ParameterBuilder::seeded(seed, &Device::Cpu);
        let pool = Self {
            query: builder.get("query", &[1, 1, width], Init::Token)?,
            norm: LayerNorm::new(&mut builder, "norm", width, LAYER_NORM_EPSILON)?,
            k: Linear::new(&mut builder, "k", width, width)?,
            v: Linear::new(&mut builder, "v", width, width)?,
            proj: Linear::new(&mut builder, "proj", width, width)?,
            pooled_norm: LayerNorm::new(&mut builder, "pooled_norm", width, LAYER_NORM_EPSILON)?,
            head: Linear::with_init(&mut builder, "head", width, classes, Init::Head)?,
            heads,
        };
        Ok((pool, builder.finish().map_err(Error::wrap)?))
    }

    /// Logits `[clips, classes]` of `[clips, tokens, width]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (clips, _, width) = tokens.dims3()?;
        let tokens = self.norm.forward(tokens)?;
        let query = self.query.broadcast_as((clips, 1, width))?.contiguous()?;
        let pooled = ops::attention(
            &query,
            &self.k.forward(&tokens)?,
            &self.v.forward(&tokens)?,
            self.heads,
        )?;
        self.head.forward(
            &self
                .pooled_norm
                .forward(&self.proj.forward(&pooled)?)?
                .squeeze(1)?,
        )
    }
}
