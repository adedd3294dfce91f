//! The implementations of a training step that are compared with the reference.

use candle_core::{Device, Result, Tensor};
use pipeline::mask::Masks;
use std::collections::{BTreeMap, HashMap};
use trainer::data::{DeviceBatch, DevicePixels};
use trainer::loss::masked_mean_squared_error;
use trainer::model::{Mae, MaeConfig, Masking};

/// An implementation of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// candle's operations, on whole clips; predicts every token.
    Clips,
    /// candle's operations, on the patches that the loader makes: what training does.
    Patches,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Clips, Self::Patches];

    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clips => "clips",
            Self::Patches => "patches",
        }
    }
}

/// What a step comes to, before the optimiser.
pub struct Computed {
    /// `[clips, tokens, values]`, or of the masked tokens only, ascending, `[clips, masked, values]`; none where an engine never holds them.
    pub predictions: Option<Tensor>,
    /// The loss.
    pub loss: f64,
    /// Of every parameter, in its shape.
    pub gradients: BTreeMap<String, Tensor>,
}

/// One forward and backward pass of `engine`: weights under the reference's names, `clips` `[clips, 3, frames, size, size]`, normalised RGB.
pub fn run(engine: Engine, config: &MaeConfig, weights: &HashMap<String, Tensor>, clips: &Tensor, masks: Masks<'_>) -> Result<Computed> {
    let model = Mae::given(*config, weights.clone(), &Device::Cpu).map_err(candle_core::Error::wrap)?;
    let masking = Masking::new(masks, &Device::Cpu)?;
    let (predictions, loss) = match engine {
        Engine::Clips => {
            let predictions = model.forward(clips, &masking)?;
            let loss = masked_mean_squared_error(&predictions, &model.target(clips)?.values, masking.mask())?;
            (predictions, loss)
        }
        Engine::Patches => {
            let (visible, masked): (Vec<&[u32]>, Vec<&[u32]>) = masks.iter().map(|mask| (mask.visible, mask.masked)).unzip();
            // Raw pixels are the target of a model that does not normalise.
            let raw = Mae::given(MaeConfig { normalise_target: false, ..*config }, weights.clone(), &Device::Cpu);
            let target = raw.map_err(candle_core::Error::wrap)?.target(clips)?.values;
            let visible = tokens(&patches(clips, config)?, &visible)?;
            let predictions = model.forward_patches(&visible, &masking)?;
            let pixels = DevicePixels::Patches { visible, target: tokens(&target, &masked)? };
            (predictions, model.loss(&DeviceBatch { pixels, masking })?)
        }
    };
    let gradients = loss.backward()?;
    let gradient = |(name, variable): (&str, &candle_core::Var)| {
        let gradient = gradients.get(variable).cloned();
        Ok((name.to_owned(), gradient.ok_or_else(|| candle_core::Error::Msg(format!("{name} has no gradient")))?))
    };
    let gradients = model.parameters().iter().map(gradient).collect::<Result<_>>()?;
    Ok(Computed { predictions: Some(predictions), loss: f64::from(loss.to_scalar::<f32>()?), gradients })
}

/// Tokens of each clip of `[clips, tokens, values]`.
pub fn tokens(x: &Tensor, of_clips: &[&[u32]]) -> Result<Tensor> {
    let clips = of_clips.iter().enumerate().map(|(clip, tokens)| x.get(clip)?.index_select(&Tensor::new(*tokens, x.device())?, 0));
    Tensor::stack(&clips.collect::<Result<Vec<_>>>()?, 0)
}

/// Clips cut as the kernel of a 3-D convolution sees them: `[clips, tokens, 3 * tubelet * patch * patch]`.
fn patches(clips: &Tensor, config: &MaeConfig) -> Result<Tensor> {
    let grid = config.grid;
    let (count, time, side, patch) = (clips.dim(0)?, grid.time(), grid.side(), grid.patch);
    let split = clips.reshape(vec![count, 3, time, grid.tubelet, side, patch, side, patch])?;
    split.permute(vec![0, 2, 4, 6, 1, 3, 5, 7])?.reshape((count, grid.tokens(), grid.tubelet_values()))
}
