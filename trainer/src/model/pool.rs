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
///
/// With a single query no token has to be scaled, shifted or projected: `q (W x) = (q W) x`, and
/// the sum of `a (W x)` over tokens is `W` times the sum of `a x`. Biases of the scores would add the
/// same to all of them.
#[derive(Debug)]
pub struct AttentivePool {
    query: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    k: Tensor,
    v: Tensor,
    v_bias: Tensor,
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
            norm: builder.get("norm.weight", &[width], Init::Ones)?,
            norm_bias: builder.get("norm.bias", &[width], Init::Zeros)?,
            k: builder.get("k.weight", &[width, width], Init::Xavier)?,
            v: builder.get("v.weight", &[width, width], Init::Xavier)?,
            v_bias: builder.get("v.bias", &[width], Init::Zeros)?,
            proj: Linear::new(&mut builder, "proj", width, width)?,
            pooled_norm: LayerNorm::new(&mut builder, "pooled_norm", width, LAYER_NORM_EPSILON)?,
            head: Linear::with_init(&mut builder, "head", width, classes, Init::Head)?,
            heads,
        };
        Ok((pool, builder.finish().map_err(Error::wrap)?))
    }

    /// Logits `[clips, classes]` of `[clips, tokens, width]`, tokens that [`normalise`] has been
    /// applied to.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (clips, count, width) = tokens.dims3()?;
        let (heads, of_head) = (self.heads, width / self.heads);
        let by_head = |weight: &Tensor| weight.reshape((heads, of_head, width));
        let query = self.query.reshape((heads, 1, of_head))?;
        let query = (query * (of_head as f64).powf(-0.5))?.matmul(&by_head(&self.k)?)?;
        let query = query.reshape((heads, width))?.broadcast_mul(&self.norm)?;
        let scores = tokens
            .reshape((clips * count, width))?
            .matmul(&query.t()?)?
            .reshape((clips, count, heads))?
            .transpose(1, 2)?
            .contiguous()?;
        // One mean of the tokens per head.
        let means = ops::softmax(&scores)?.matmul(tokens)?;
        let means = means.broadcast_mul(&self.norm)?;
        let means = means.broadcast_add(&self.norm_bias)?;
        let means = means.transpose(0, 1)?.contiguous()?;
        let pooled = means
            .matmul(&by_head(&self.v)?.t()?)?
            .transpose(0, 1)?
            .reshape((clips, width))?
            .broadcast_add(&self.v_bias)?;
        self.head
            .forward(&self.pooled_norm.forward(&self.proj.forward(&pooled)?)?)
    }
}

/// Normalises a token to mean 0 and variance 1: layer normalisation up to its weight and bias.
pub fn normalise(token: &mut [f32]) {
    let count = token.len() as f32;
    let mean = token.iter().sum::<f32>() / count;
    token.iter_mut().for_each(|value| *value -= mean);
    let variance = token.iter().map(|value| value * value).sum::<f32>() / count;
    let scale = 1.0 / (variance + LAYER_NORM_EPSILON as f32).sqrt();
    token.iter_mut().for_each(|value| *value *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of attention as it is usually computed, with k and v of each token.
    fn of_projected_tokens(pool: &AttentivePool, tokens: &Tensor) -> Result<Tensor> {
        let (clips, _, width) = tokens.dims3()?;
        let tokens = ops::layer_norm(tokens, &pool.norm, &pool.norm_bias, LAYER_NORM_EPSILON)?;
        let query = pool.query.broadcast_as((clips, 1, width))?.contiguous()?;
        let k = tokens.broadcast_matmul(&pool.k.t()?)?;
        let v = tokens.broadcast_matmul(&pool.v.t()?)?;
        let v = v.broadcast_add(&pool.v_bias)?;
        let pooled = ops::attention(&query, &k, &v, pool.heads)?.squeeze(1)?;
        let pooled = pool.pooled_norm.forward(&pool.proj.forward(&pooled)?)?;
        pool.head.forward(&pooled)
    }

    #[test]
    fn logits_are_those_of_attention_to_projected_tokens() -> Result<()> {
        let (pool, parameters) = AttentivePool::seeded(12, 3, 4, 7)?;
        // Biases begin at zero, and weights of attention near uniform.
        for (_, variable) in parameters.iter() {
            let random = Tensor::randn(0f32, 1.0, variable.shape(), &Device::Cpu)?;
            variable.set(&random)?;
        }
        let tokens = Tensor::randn(0f32, 1.0, (2, 5, 12), &Device::Cpu)?;
        let mut normal = tokens.flatten_all()?.to_vec1::<f32>()?;
        normal.chunks_exact_mut(12).for_each(normalise);
        let normal = Tensor::from_vec(normal, tokens.shape(), &Device::Cpu)?;
        let logits = pool.forward(&normal)?.to_vec2::<f32>()?.concat();
        let expected = of_projected_tokens(&pool, &tokens)?;
        let expected = expected.to_vec2::<f32>()?.concat();
        assert_eq!(logits.len(), 8);
        for (logit, expected) in logits.iter().zip(&expected) {
            assert!((logit - expected).abs() < 1e-4, "{logits:?} {expected:?}");
        }
        Ok(())
    }
}
