//! The masked autoencoder: encoder, decoder and loss.

use super::batch::{DeviceBatch, DevicePixels};
use super::config::MaeConfig;
use super::decoder::Decoder;
use super::embed::channel_first_patches;
use super::encoder::Encoder;
use super::masking::Masking;
use super::parameters::{ParameterBuilder, ParameterError, Parameters};
use crate::model::loss::{masked_mean_squared_error, mean_squared_error};
use candle_core::{Device, Result, Tensor};
use std::collections::HashMap;

/// A masked autoencoder of video clips.
#[derive(Debug)]
pub struct Mae {
    config: MaeConfig,
    parameters: Parameters,
    encoder: Encoder,
    decoder: Decoder,
}

impl Mae {
    /// Creates a model with random weights drawn from `seed`.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn seeded(
        config: MaeConfig,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::seeded(seed, device))
    }

    /// Creates a model from tensors under the reference implementation's names.
    ///
    /// # Errors
    /// [`ParameterError::Mismatch`] when a name is missing or unknown, or a shape differs.
    pub fn from_tensors(
        config: MaeConfig,
        values: HashMap<String, Tensor>,
        device: &Device,
    ) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::from_tensors(values, device))
    }

    fn build(
        config: MaeConfig,
        mut builder: ParameterBuilder,
    ) -> std::result::Result<Self, ParameterError> {
        builder.position_std = config.conventions.position_std;
        let epsilons = [config.conventions.norm_epsilon; 2];
        let encoder = Encoder::new(
            &mut builder,
            config.grid,
            config.encoder,
            config.positions,
            config.class_token,
            epsilons,
        )?;
        let decoder = Decoder::new(&mut builder, &config)?;
        Ok(Self {
            config,
            parameters: builder.finish()?,
            encoder,
            decoder,
        })
    }

    /// The trainable tensors.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The configuration.
    pub const fn config(&self) -> &MaeConfig {
        &self.config
    }

    /// Predictions for `[clips, 3, frames, size, size]`, normalised RGB, from the visible patches
    /// alone. Returns the decoded tokens, `[clips, decoded, values]`: all tokens where all masked
    /// ones are predicted.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, clips: &Tensor, masking: &Masking) -> Result<Tensor> {
        let grid = self.config.grid;
        let count = clips.dim(0)?;
        let patches = channel_first_patches(clips, grid)?
            .reshape((count * grid.tokens(), grid.tubelet_values()))?;
        let visible = patches.index_select(masking.visible_rows(), 0)?;
        self.decoder
            .forward(&self.encode(&visible, masking)?, masking)
    }

    /// Encodes the visible patches to the decoder's input.
    fn encode(&self, visible: &Tensor, masking: &Masking) -> Result<Tensor> {
        if self.decoder.takes_class() {
            self.encoder.forward_all(visible, masking)
        } else {
            self.encoder.forward(visible, masking)
        }
    }

    /// Encoded visible patches, `[clips, visible, width]`, of `[clips, 3, frames, size, size]`,
    /// normalised RGB, after the encoder's last layer normalisation and without the cls token:
    /// features for downstream use.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn features(&self, clips: &Tensor, masking: &Masking) -> Result<Tensor> {
        let grid = self.config.grid;
        let count = clips.dim(0)?;
        let patches = channel_first_patches(clips, grid)?
            .reshape((count * grid.tokens(), grid.tubelet_values()))?;
        self.encoder
            .forward(&patches.index_select(masking.visible_rows(), 0)?, masking)
    }

    /// Predictions of the predicted tokens, `[clips, predicted, values]`, from the visible patches,
    /// `[clips, visible, 3, tubelet, patch, patch]`, normalised RGB, in the form
    /// [`pipeline::loader::batch::Form::Patches`].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_patches(&self, visible: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.decoder
            .forward_predicted(&self.encode(visible, masking)?, masking)
    }

    /// The loss of a batch in either form: mean squared error over its predicted tokens, or over
    /// all tokens where nothing is masked ([`Masking::all_visible`], for whole clips only).
    ///
    /// # Errors
    /// When the shapes do not fit, or the batch has no target.
    pub fn loss(&self, batch: &DeviceBatch) -> Result<Tensor> {
        let masking = &batch.masking;
        match &batch.pixels {
            DevicePixels::Clips(clips) if masking.hides_nothing() => mean_squared_error(
                &self.forward(clips, masking)?,
                &self.config.target_of_clips(clips)?.values,
            ),
            DevicePixels::Clips(clips) => {
                let target = masking.select_decoded(&self.config.target_of_clips(clips)?.values)?;
                masked_mean_squared_error(&self.forward(clips, masking)?, &target, masking.mask())
            }
            DevicePixels::Patches { visible, target } => mean_squared_error(
                &self.forward_patches(visible, masking)?,
                &self.config.target_of_patches(target)?.values,
            ),
            DevicePixels::Tokens(_) => {
                candle_core::bail!("the batch of an autoencoder needs a target")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Conventions, DecoderClassToken, NormalisePer, PositionKind, TargetKind, TransformerConfig,
    };
    use schemas::geometry::{PatchGrid, TargetFrames};

    const SMALL: MaeConfig = MaeConfig {
        grid: PatchGrid {
            frames: 16,
            size: 32,
            tubelet: 2,
            patch: 16,
        },
        encoder: TransformerConfig {
            width: 12,
            depth: 1,
            heads: 2,
        },
        decoder: TransformerConfig {
            width: 8,
            depth: 1,
            heads: 2,
        },
        positions: PositionKind::Separable,
        class_token: true,
        target: TargetKind::Pixels,
        slices: 1,
        normalise_target: true,
        conventions: Conventions {
            norm_epsilon: 1e-6,
            decoder_norm_epsilon: 1e-6,
            head_norm_epsilon: 1e-6,
            decoder_positions: None,
            position_std: 0.02,
            decoder_class_token: DecoderClassToken::Own,
            normalise_per: NormalisePer::Patch,
            target_frames: TargetFrames::Spread,
        },
    };

    #[test]
    fn target_frames_are_those_of_the_reference() {
        // torch.linspace(0, 15, 8).long(), torch.linspace(0, 15, 16).long(), torch.linspace(0, 7,
        // 4).long()
        assert_eq!(SMALL.target_frames(), [0, 2, 4, 6, 8, 10, 12, 15]);
        assert_eq!(
            MaeConfig { slices: 2, ..SMALL }.target_frames(),
            (0..16).collect::<Vec<_>>()
        );
        let short = MaeConfig {
            grid: PatchGrid {
                frames: 8,
                ..SMALL.grid
            },
            ..SMALL
        };
        assert_eq!(short.target_frames(), [0, 2, 4, 7]);
        let still = MaeConfig {
            grid: PatchGrid {
                frames: 2,
                ..SMALL.grid
            },
            ..SMALL
        };
        assert_eq!(still.target_frames(), [0]);
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let device = Device::Cpu;
        let model = Mae::seeded(SMALL, 1, &device).expect("a model");
        let mut values: HashMap<String, Tensor> = model
            .parameters()
            .iter()
            .map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor()))
            .collect();
        Mae::from_tensors(SMALL, values.clone(), &device).expect("its own weights fit");
        values.remove("norm.bias");
        values.insert(
            "cls_token".to_owned(),
            Tensor::zeros((1, 1, 3), candle_core::DType::F32, &device).expect("a tensor"),
        );
        values.insert(
            "head.weight".to_owned(),
            Tensor::zeros(3, candle_core::DType::F32, &device).expect("a tensor"),
        );
        let error = Mae::from_tensors(SMALL, values, &device)
            .expect_err("three do not fit")
            .to_string();
        assert_eq!(
            error,
            "the weights do not fit this model: cls_token is [1, 1, 3], not [1, 1, 12]; norm.bias \
             is missing; head.weight is not part of it"
        );
    }

    #[test]
    fn the_model_begins_as_the_reference_does() {
        let model = Mae::seeded(SMALL, 1, &Device::Cpu).expect("a model");
        let again = Mae::seeded(SMALL, 1, &Device::Cpu).expect("a model");
        let values = |model: &Mae, name: &str| {
            let (_, variable) = model
                .parameters()
                .iter()
                .find(|(known, _)| *known == name)
                .expect("a parameter");
            variable
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .expect("values")
        };
        let greatest = |name: &str| {
            values(&model, name)
                .into_iter()
                .fold(0.0, |most: f32, value| most.max(value.abs()))
        };
        assert!(
            values(&model, "decoder_cls_token")
                .iter()
                .all(|&value| value == 0.0)
        );
        assert!(
            values(&model, "blocks.0.norm1.weight")
                .iter()
                .all(|&value| value == 1.0)
        );
        assert!(
            values(&model, "blocks.0.mlp.fc1.bias")
                .iter()
                .all(|&value| value == 0.0)
        );
        // Xavier bounds: sqrt(6 / (fan in + fan out)), with the patch embedding flattened to [12,
        // 1536].
        for (name, fans) in [
            ("patch_embed.proj.weight", 12 + 1536),
            ("blocks.0.mlp.fc1.weight", 12 + 48),
        ] {
            let bound = (6.0 / fans as f32).sqrt();
            assert!(
                greatest(name) <= bound && greatest(name) > 0.95 * bound,
                "{name}: {} of {bound}",
                greatest(name)
            );
        }
        assert!(
            greatest("patch_embed.proj.bias") <= 1.0 / 1536f32.sqrt()
                && greatest("patch_embed.proj.bias") > 0.0
        );
        let spatial = values(&model, "pos_embed_spatial");
        let deviation =
            (spatial.iter().map(|value| value * value).sum::<f32>() / spatial.len() as f32).sqrt();
        assert!((0.012..0.028).contains(&deviation), "{deviation} for 0.02");
        for (name, _) in model.parameters().iter() {
            assert_eq!(values(&model, name), values(&again, name));
        }
        assert_ne!(
            spatial,
            values(
                &Mae::seeded(SMALL, 2, &Device::Cpu).expect("a model"),
                "pos_embed_spatial"
            )
        );
    }
}
