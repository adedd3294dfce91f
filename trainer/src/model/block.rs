//! The transformer block and its layers: linear, layer normalisation, attention.

use super::parameters::{Init, ParameterBuilder};
use crate::model::ops;
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// Size of an encoder or decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Values per token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; their number divides the width.
    pub heads: usize,
}

/// Width of the MLP's hidden layer over the block's width.
pub(crate) const MLP_RATIO: usize = 4;

#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        Self::with_init(parameters, name, inputs, outputs, Init::Xavier)
    }

    /// A layer whose weight is initialised by `init`, and whose bias is zero.
    pub(crate) fn with_init(
        parameters: &mut ParameterBuilder,
        name: &str,
        inputs: usize,
        outputs: usize,
        init: Init,
    ) -> Result<Self> {
        Ok(Self {
            weight: parameters.get(&format!("{name}.weight"), &[outputs, inputs], init)?,
            bias: parameters.get(&format!("{name}.bias"), &[outputs], Init::Zeros)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, &self.bias)
    }
}

#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<Self> {
        Ok(Self {
            weight: parameters.get(&format!("{name}.weight"), &[width], Init::Ones)?,
            bias: parameters.get(&format!("{name}.bias"), &[width], Init::Zeros)?,
            epsilon,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(
        parameters: &mut ParameterBuilder,
        name: &str,
        width: usize,
        heads: usize,
    ) -> Result<Self> {
        let mut linear =
            |part: &str| Linear::new(parameters, &format!("{name}.{part}"), width, width);
        Ok(Self {
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            proj: linear("proj")?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.proj.forward(&ops::attention(
            &self.q.forward(x)?,
            &self.k.forward(x)?,
            &self.v.forward(x)?,
            self.heads,
        )?)
    }
}

/// A pre-norm block: attention and MLP (exact GELU), each with a residual connection.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    pub(crate) fn new(
        parameters: &mut ParameterBuilder,
        name: &str,
        width: usize,
        heads: usize,
        norm_epsilon: f64,
    ) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(parameters, &format!("{name}.norm1"), width, norm_epsilon)?,
            attn: Attention::new(parameters, &format!("{name}.attn"), width, heads)?,
            norm2: LayerNorm::new(parameters, &format!("{name}.norm2"), width, norm_epsilon)?,
            fc1: Linear::new(
                parameters,
                &format!("{name}.mlp.fc1"),
                width,
                MLP_RATIO * width,
            )?,
            fc2: Linear::new(
                parameters,
                &format!("{name}.mlp.fc2"),
                MLP_RATIO * width,
                width,
            )?,
        })
    }

    /// `[clips, tokens, width]` to `[clips, tokens, width]`. `scales`, `[2, clips]`, multiplies the
    /// results of attention and of the MLP, clip by clip.
    pub(crate) fn forward(&self, x: &Tensor, scales: Option<&Tensor>) -> Result<Tensor> {
        let scaled = |branch: Tensor, at: usize| match scales {
            Some(scales) => {
                branch.broadcast_mul(&scales.get(at)?.reshape((scales.dim(1)?, 1, 1))?)
            }
            None => Ok(branch),
        };
        let x = (x + scaled(self.attn.forward(&self.norm1.forward(x)?)?, 0)?)?;
        let inner = self.fc1.forward(&self.norm2.forward(&x)?)?.gelu_erf()?;
        x + scaled(self.fc2.forward(&inner)?, 1)?
    }
}
