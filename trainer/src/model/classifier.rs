//! The encoder with a classification head, for fine-tuning; with 0 classes, the encoder alone.

use super::block::{Linear, TransformerConfig};
use super::conventions::Conventions;
use super::embed::{PositionKind, channel_first_patches};
use super::encoder::Encoder;
use super::masking::Masking;
use super::parameters::{Init, ParameterBuilder, ParameterError, Parameters};
use candle_core::{Device, Result, Tensor};
use schemas::geometry::PatchGrid;
use std::collections::HashMap;

/// Shapes and conventions of a classifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassifierConfig {
    /// Sizes of clips and patches.
    pub grid: PatchGrid,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// Kind of position embeddings.
    pub positions: PositionKind,
    /// Whether the encoder has a cls token.
    pub class_token: bool,
    /// Number of classes; 0 for the encoder alone, without a head.
    pub classes: usize,
    /// Conventions of other code bases, of which only those of the encoder apply.
    pub conventions: Conventions,
}

/// An encoder of all tokens, and a linear head on their mean.
///
/// The encoder's parameters have the same names as in [`super::Mae`]; the head's are `head.weight`
/// and `head.bias`.
#[derive(Debug)]
pub struct Classifier {
    config: ClassifierConfig,
    parameters: Parameters,
    encoder: Encoder,
    head: Option<Linear>,
}

/// Outputs of a classifier.
#[derive(Debug)]
pub struct Encoded {
    /// `[clips, width]`: the mean of the encoded tokens without the cls token, after the encoder's
    /// last layer normalisation: the head's input.
    pub features: Tensor,
    /// `[clips, tokens, width]`: each token after the same layer normalisation.
    pub tokens: Tensor,
    /// `[clips, classes]`; `None` for an encoder alone.
    pub logits: Option<Tensor>,
}

impl Classifier {
    /// Creates a classifier with random weights drawn from `seed`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn seeded(
        config: ClassifierConfig,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::seeded(seed, device))
    }

    /// Creates a classifier from tensors under the reference implementation's names.
    ///
    /// # Errors
    /// [`ParameterError::Mismatch`] when a name is missing or unknown, or a shape differs.
    pub fn from_tensors(
        config: ClassifierConfig,
        values: HashMap<String, Tensor>,
        device: &Device,
    ) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::from_tensors(values, device))
    }

    /// Creates a classifier from the weights of a pre-trained encoder, with a random head drawn
    /// from `seed`. Weights of an autoencoder's decoder or of another classifier's head are
    /// ignored.
    ///
    /// # Errors
    /// [`ParameterError::Mismatch`] when a weight of the encoder is missing or has another shape,
    /// or a weight belongs to neither encoder, decoder nor head.
    pub fn from_pretrained(
        config: ClassifierConfig,
        mut weights: HashMap<String, Tensor>,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, ParameterError> {
        weights.retain(|name, _| {
            !name.starts_with("decoder_") && !name.starts_with("head.") && name != "mask_token"
        });
        let seeded = Self::build(config, ParameterBuilder::seeded(seed, device))?;
        let head = seeded
            .parameters
            .iter()
            .filter(|(name, _)| name.starts_with("head."));
        weights
            .extend(head.map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor())));
        Self::from_tensors(config, weights, device)
    }

    fn build(
        config: ClassifierConfig,
        mut builder: ParameterBuilder,
    ) -> std::result::Result<Self, ParameterError> {
        builder.position_std = config.conventions.position_std;
        let epsilons = [
            config.conventions.norm_epsilon,
            config.conventions.head_norm_epsilon,
        ];
        let encoder = Encoder::new(
            &mut builder,
            config.grid,
            config.encoder,
            config.positions,
            config.class_token,
            epsilons,
        )?;
        let head = (config.classes > 0)
            .then(|| {
                Linear::with_init(
                    &mut builder,
                    "head",
                    config.encoder.width,
                    config.classes,
                    Init::Head,
                )
            })
            .transpose()?;
        Ok(Self {
            config,
            parameters: builder.finish()?,
            encoder,
            head,
        })
    }

    /// The trainable tensors.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The configuration.
    pub const fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Logits `[clips, classes]` of `[clips, 3, frames, size, size]`, normalised RGB: the mean of
    /// the encoded tokens without the cls token, then the encoder's last layer normalisation, then
    /// the head. No dropout.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, clips: &Tensor) -> Result<Tensor> {
        self.logits(&channel_first_patches(clips, self.config.grid)?, None, None)
    }

    /// Logits `[clips, classes]` in training, of clips in the form
    /// [`pipeline::loader::batch::Form::Tokens`], `[clips, tokens, 3 * tubelet * patch * patch]`:
    /// `scales`, `[blocks, 2, clips]`, multiplies the residual branches of the blocks, and
    /// `dropout`, `[clips, width]`, the head's input.
    ///
    /// # Errors
    /// When the shapes do not fit, or there is no head.
    pub fn logits(
        &self,
        patches: &Tensor,
        scales: Option<&Tensor>,
        dropout: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Some(head) = &self.head else {
            candle_core::bail!("an encoder alone has no logits")
        };
        let features = self
            .encoder
            .normalise(&self.tokens(patches, scales)?.mean(1)?)?;
        head.forward(&match dropout {
            Some(dropout) => (features * dropout)?,
            None => features,
        })
    }

    /// Features, tokens and logits of clips in the form [`pipeline::loader::batch::Form::Tokens`].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn infer(&self, patches: &Tensor) -> Result<Encoded> {
        let tokens = self.tokens(patches, None)?;
        let features = self.encoder.normalise(&tokens.mean(1)?)?;
        let logits = self
            .head
            .as_ref()
            .map(|head| head.forward(&features))
            .transpose()?;
        Ok(Encoded {
            features,
            tokens: self.encoder.normalise(&tokens)?,
            logits,
        })
    }

    fn tokens(&self, patches: &Tensor, scales: Option<&Tensor>) -> Result<Tensor> {
        let masking =
            Masking::all_visible(patches.dim(0)?, self.config.grid.tokens(), patches.device())?;
        self.encoder.tokens(patches, &masking, scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mae, MaeConfig, TargetKind};

    #[test]
    fn the_encoder_is_initialised_as_in_pre_training_and_the_head_near_zero() {
        let grid = PatchGrid {
            frames: 4,
            size: 8,
            tubelet: 2,
            patch: 4,
        };
        let encoder = TransformerConfig {
            width: 32,
            depth: 1,
            heads: 2,
        };
        let positions = PositionKind::Separable;
        let class_token = true;
        let config = ClassifierConfig {
            grid,
            encoder,
            positions,
            class_token,
            classes: 50,
            conventions: Conventions::default(),
        };
        let classifier = Classifier::seeded(config, 1, &Device::Cpu).expect("a model");
        let config = MaeConfig {
            grid,
            encoder,
            decoder: encoder,
            positions,
            class_token,
            target: TargetKind::Pixels,
            slices: 1,
            normalise_target: true,
            conventions: Conventions::default(),
        };
        let mae = Mae::seeded(config, 1, &Device::Cpu).expect("a model");
        let values = |variable: &candle_core::Var| {
            variable
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .expect("values")
        };
        let of_mae: HashMap<&str, Vec<f32>> = mae
            .parameters()
            .iter()
            .map(|(name, variable)| (name, values(variable)))
            .collect();
        for (name, variable) in classifier
            .parameters()
            .iter()
            .filter(|(name, _)| !name.starts_with("head."))
        {
            assert_eq!(Some(&values(variable)), of_mae.get(name), "{name}");
        }
        let (_, head) = classifier
            .parameters()
            .iter()
            .find(|(name, _)| *name == "head.weight")
            .expect("a head");
        let head = values(head);
        let deviation =
            (head.iter().map(|value| value * value).sum::<f32>() / head.len() as f32).sqrt();
        assert!(
            (1.8e-5..2.2e-5).contains(&deviation),
            "{deviation} for 2e-5"
        );
    }
}
