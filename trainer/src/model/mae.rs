//! The masked autoencoder: encoder and decoder joined, and the target that it learns.

use super::block::TransformerConfig;
use super::decoder::Decoder;
use super::embed::{PositionKind, channel_first_patches, channel_last_patches};
use super::encoder::Encoder;
use super::masking::Masking;
use super::parameters::{ParameterBuilder, ParameterError, Parameters};
use crate::data::{DeviceBatch, DevicePixels};
use crate::loss::{masked_mean_squared_error, mean_squared_error};
use candle_core::{D, Device, Result, Tensor};
use pipeline::hog::Hog;
use pipeline::transform::TargetForm;
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Added to a patch's variance when its pixels are normalised, as in the reference.
pub(crate) const PATCH_EPSILON: f64 = 1e-6;

/// What decides the model's shapes and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaeConfig {
    /// Clips and patches.
    pub grid: PatchGrid,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// How positions are learned: separable in the paper.
    pub positions: PositionKind,
    /// Whether encoder and decoder have a cls token: yes in the paper.
    pub class_token: bool,
    /// What is predicted of a masked token: pixels in the paper.
    pub target: TargetKind,
    /// Frames of each tubelet that are predicted: 1 in the paper.
    pub slices: usize,
    /// Whether the pixels of each patch are predicted normalised by the patch's own mean and variance. Histograms are not.
    pub normalise_target: bool,
}

/// What is predicted of a masked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Its pixels.
    #[default]
    Pixels,
    /// Histograms of oriented gradients ([`pipeline::hog`]).
    Hog,
}

impl MaeConfig {
    /// Frames that are predicted: [`PatchGrid::target_frames`].
    pub fn target_frames(&self) -> Vec<u32> {
        self.grid.target_frames(self.slices).map(|frame| frame as u32).collect()
    }

    /// All patches of clips `[clips, 3, frames, size, size]`: as the encoder sees them, `[clips, tokens, 3 * tubelet * patch * patch]`, and the pixels of the frames
    /// that are predicted, `[clips, tokens, slices * patch * patch * 3]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn patches(&self, clips: &Tensor) -> Result<[Tensor; 2]> {
        let frames = Tensor::new(self.target_frames(), clips.device())?;
        let target = channel_last_patches(&clips.index_select(&frames, 2)?, self.grid, self.slices)?;
        Ok([channel_first_patches(clips, self.grid)?, target])
    }

    /// The target as the loader makes it.
    pub const fn target_form(&self) -> TargetForm {
        match self.target {
            TargetKind::Pixels => TargetForm::Pixels { slices: self.slices },
            TargetKind::Hog => TargetForm::Hog { slices: self.slices },
        }
    }

    /// Values that are predicted of a token.
    pub const fn target_values(&self) -> usize {
        self.target_form().values(self.grid)
    }
}

/// What the model has to predict: [`Mae::target`].
#[derive(Debug, Clone)]
pub struct Target {
    /// `[clips, tokens, values]`: pixels ordered frame, row, column, channel, or histograms as [`TargetForm::Hog`] orders them.
    pub values: Tensor,
    /// `[clips, tokens, 1]`: mean and standard deviation that were normalised away; none for raw pixels and for histograms.
    pub statistics: Option<(Tensor, Tensor)>,
}

impl Target {
    /// Undoes the patches' normalisation: predictions in the scale of the clip's pixels. The model does not predict mean and deviation, so they
    /// are borrowed from the true patches.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn denormalise(&self, predicted: &Tensor) -> Result<Tensor> {
        match &self.statistics {
            None => Ok(predicted.clone()),
            Some((mean, deviation)) => predicted.broadcast_mul(deviation)?.broadcast_add(mean),
        }
    }
}

/// A masked autoencoder of video clips.
#[derive(Debug)]
pub struct Mae {
    config: MaeConfig,
    parameters: Parameters,
    encoder: Encoder,
    decoder: Decoder,
}

impl Mae {
    /// A model that begins as `seed` says.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn seeded(config: MaeConfig, seed: u64, device: &Device) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::seeded(seed, device))
    }

    /// A model of given parameters, under the reference's names.
    ///
    /// # Errors
    /// [`ParameterError::Mismatch`] when a name is missing or unknown, or a shape differs.
    pub fn given(config: MaeConfig, values: HashMap<String, Tensor>, device: &Device) -> std::result::Result<Self, ParameterError> {
        Self::build(config, ParameterBuilder::given(values, device))
    }

    fn build(config: MaeConfig, mut builder: ParameterBuilder) -> std::result::Result<Self, ParameterError> {
        let encoder = Encoder::new(&mut builder, config.grid, config.encoder, config.positions, config.class_token)?;
        let decoder = Decoder::new(&mut builder, &config)?;
        Ok(Self { config, parameters: builder.finish()?, encoder, decoder })
    }

    /// The trainable tensors.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What decides the shapes.
    pub const fn config(&self) -> &MaeConfig {
        &self.config
    }

    /// Predictions for `[clips, 3, frames, size, size]`, normalised RGB, of which only the visible patches are seen. They are of the tokens that the decoder takes,
    /// `[clips, decoded, values]`: of all where all masked tokens are predicted.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, clips: &Tensor, masking: &Masking) -> Result<Tensor> {
        let (grid, count) = (self.config.grid, clips.dim(0)?);
        let patches = channel_first_patches(clips, grid)?.reshape((count * grid.tokens(), grid.tubelet_values()))?;
        let visible = patches.index_select(masking.visible_rows(), 0)?;
        self.decoder.forward(&self.encoder.forward(&visible, masking)?, masking)
    }

    /// Predictions of the predicted tokens, `[clips, predicted, values]`, from the visible patches alone: `[clips, visible, 3, tubelet, patch, patch]`, normalised
    /// RGB, as [`pipeline::batch::Form::Patches`] has them.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_patches(&self, visible: &Tensor, masking: &Masking) -> Result<Tensor> {
        self.decoder.forward_predicted(&self.encoder.forward(visible, masking)?, masking)
    }

    /// The target for `clips`, as [`Self::forward`] takes them, of all tokens.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target(&self, clips: &Tensor) -> Result<Target> {
        match self.config.target {
            TargetKind::Pixels => self.target_of_patches(&self.pixels(clips)?),
            TargetKind::Hog => self.target_of_patches(&self.histograms(clips)?),
        }
    }

    /// The pixels of the frames that are predicted, `[clips, tokens, slices * patch * patch * 3]`, of clips as [`Self::forward`] takes them.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn pixels(&self, clips: &Tensor) -> Result<Tensor> {
        channel_last_patches(&self.predicted_frames(clips)?, self.config.grid, self.config.slices)
    }

    /// `[clips, 3, time * slices, size, size]`
    fn predicted_frames(&self, clips: &Tensor) -> Result<Tensor> {
        clips.index_select(&Tensor::new(self.config.target_frames(), clips.device())?, 2)
    }

    /// Histograms of the frames that are predicted, `[clips, tokens, values]`. They are made on the host, by the loader's code: batches of patches bring their own.
    fn histograms(&self, clips: &Tensor) -> Result<Tensor> {
        let MaeConfig { grid, slices, .. } = self.config;
        let frames = self.predicted_frames(clips)?;
        let (count, area, targets) = (clips.dim(0)?, grid.size * grid.size, grid.time() * slices);
        let pixels = frames.flatten_all()?.to_vec1::<f32>()?;
        let (values, mut hog) = (self.config.target_values(), Hog::default());
        let mut out = vec![0f32; count * grid.tokens() * values];
        for (clip, target) in (0..count).flat_map(|clip| (0..targets).map(move |target| (clip, target))) {
            let plane = |channel: usize| &pixels[((clip * 3 + channel) * targets + target) * area..][..area];
            hog.compute([plane(0), plane(1), plane(2)], grid.size, grid.patch);
            for place in 0..grid.space() {
                let token = clip * grid.tokens() + target / slices * grid.space() + place;
                let out = &mut out[token * values + target % slices * (values / slices)..];
                out.iter_mut().zip(hog.patch(place / grid.side(), place % grid.side())).for_each(|(out, value)| *out = value);
            }
        }
        Tensor::from_vec(out, (count, grid.tokens(), values), clips.device())
    }

    /// The target of patches of which the loader gives `values`, `[clips, tokens, values]`: all of a clip, or the predicted ones.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target_of_patches(&self, values: &Tensor) -> Result<Target> {
        if !self.config.normalise_target {
            return Ok(Target { values: values.clone(), statistics: None });
        }
        let mean = values.mean_keepdim(D::Minus1)?;
        let deviation = (values.var_keepdim(D::Minus1)? + PATCH_EPSILON)?.sqrt()?;
        let values = values.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        Ok(Target { values, statistics: Some((mean, deviation)) })
    }

    /// The loss of a batch, whichever form it has: mean squared error over its predicted tokens, or over all of them where nothing is masked
    /// ([`Masking::all_visible`], which only whole clips can have).
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn loss(&self, batch: &DeviceBatch) -> Result<Tensor> {
        let masking = &batch.masking;
        match &batch.pixels {
            DevicePixels::Clips(clips) if masking.hides_nothing() => {
                mean_squared_error(&self.forward(clips, masking)?, &self.target(clips)?.values)
            }
            DevicePixels::Clips(clips) => {
                let target = masking.select_decoded(&self.target(clips)?.values)?;
                masked_mean_squared_error(&self.forward(clips, masking)?, &target, masking.mask())
            }
            DevicePixels::Patches { visible, target } => {
                mean_squared_error(&self.forward_patches(visible, masking)?, &self.target_of_patches(target)?.values)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: MaeConfig = MaeConfig {
        grid: PatchGrid { frames: 16, size: 32, tubelet: 2, patch: 16 },
        encoder: TransformerConfig { width: 12, depth: 1, heads: 2 },
        decoder: TransformerConfig { width: 8, depth: 1, heads: 2 },
        positions: PositionKind::Separable,
        class_token: true,
        target: TargetKind::Pixels,
        slices: 1,
        normalise_target: true,
    };

    #[test]
    fn target_frames_are_those_of_the_reference() {
        // torch.linspace(0, 15, 8).long(), torch.linspace(0, 15, 16).long(), torch.linspace(0, 7, 4).long()
        assert_eq!(SMALL.target_frames(), [0, 2, 4, 6, 8, 10, 12, 15]);
        assert_eq!(MaeConfig { slices: 2, ..SMALL }.target_frames(), (0..16).collect::<Vec<_>>());
        let short = MaeConfig { grid: PatchGrid { frames: 8, ..SMALL.grid }, ..SMALL };
        assert_eq!(short.target_frames(), [0, 2, 4, 7]);
        let still = MaeConfig { grid: PatchGrid { frames: 2, ..SMALL.grid }, ..SMALL };
        assert_eq!(still.target_frames(), [0]);
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let device = Device::Cpu;
        let model = Mae::seeded(SMALL, 1, &device).expect("a model");
        let mut values: HashMap<String, Tensor> =
            model.parameters().iter().map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor())).collect();
        Mae::given(SMALL, values.clone(), &device).expect("its own weights fit");
        values.remove("norm.bias");
        values.insert("cls_token".to_owned(), Tensor::zeros((1, 1, 3), candle_core::DType::F32, &device).expect("a tensor"));
        values.insert("head.weight".to_owned(), Tensor::zeros(3, candle_core::DType::F32, &device).expect("a tensor"));
        let error = Mae::given(SMALL, values, &device).expect_err("three do not fit").to_string();
        assert_eq!(
            error,
            "the weights do not fit this model: cls_token is [1, 1, 3], not [1, 1, 12]; norm.bias is missing; head.weight is not part of it"
        );
    }

    #[test]
    fn the_model_begins_as_the_reference_does() {
        let model = Mae::seeded(SMALL, 1, &Device::Cpu).expect("a model");
        let again = Mae::seeded(SMALL, 1, &Device::Cpu).expect("a model");
        let values = |model: &Mae, name: &str| {
            let (_, variable) = model.parameters().iter().find(|(known, _)| *known == name).expect("a parameter");
            variable.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("values")
        };
        let greatest = |name: &str| values(&model, name).into_iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        assert!(values(&model, "decoder_cls_token").iter().all(|&value| value == 0.0));
        assert!(values(&model, "blocks.0.norm1.weight").iter().all(|&value| value == 1.0));
        assert!(values(&model, "blocks.0.mlp.fc1.bias").iter().all(|&value| value == 0.0));
        // Xavier bounds: sqrt(6 / (fan in + fan out)), with the patch embedding flattened to [12, 1536].
        for (name, fans) in [("patch_embed.proj.weight", 12 + 1536), ("blocks.0.mlp.fc1.weight", 12 + 48)] {
            let bound = (6.0 / fans as f32).sqrt();
            assert!(greatest(name) <= bound && greatest(name) > 0.95 * bound, "{name}: {} of {bound}", greatest(name));
        }
        assert!(greatest("patch_embed.proj.bias") <= 1.0 / 1536f32.sqrt() && greatest("patch_embed.proj.bias") > 0.0);
        let spatial = values(&model, "pos_embed_spatial");
        let deviation = (spatial.iter().map(|value| value * value).sum::<f32>() / spatial.len() as f32).sqrt();
        assert!((0.012..0.028).contains(&deviation), "{deviation} for 0.02");
        for (name, _) in model.parameters().iter() {
            assert_eq!(values(&model, name), values(&again, name));
        }
        assert_ne!(spatial, values(&Mae::seeded(SMALL, 2, &Device::Cpu).expect("a model"), "pos_embed_spatial"));
    }
}
