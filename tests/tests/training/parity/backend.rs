//! The implementations of a training step that are compared with the reference.

use candle_core::{Device, Result, Tensor};
use pipeline::sampling::mask::Masks;
use schemas::geometry::PatchGrid;
use std::collections::{BTreeMap, HashMap};
use trainer::cpu::{
    BranchScales, CpuClassifier, CpuMae, Labelled, Patches, Precision, Resources, Values, View,
};
use trainer::model::loss::masked_mean_squared_error;
use trainer::model::{Classifier, Mae, MaeConfig, Masking};
use trainer::model::{DeviceBatch, DevicePixels};
use trainer::optim::{AdamWConfig, ParameterRule};

/// An implementation of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// candle's operations, on whole clips; predicts every token.
    Clips,
    /// candle's operations, on the patches that the loader makes.
    Patches,
    /// The code for the CPU, on the same patches: what training does there.
    CpuMae,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Clips, Self::Patches, Self::CpuMae];

    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clips => "clips",
            Self::Patches => "patches",
            Self::CpuMae => "cpu",
        }
    }
}

/// What a step comes to, before the optimiser.
pub struct Computed {
    /// `[clips, tokens, values]`, or of the masked tokens only, ascending,
    /// `[clips, masked, values]`; none where a backend never holds them.
    pub predictions: Option<Tensor>,
    /// The loss.
    pub loss: f64,
    /// Of every parameter, in its shape.
    pub gradients: BTreeMap<String, Tensor>,
}

/// One forward and backward pass of `backend`: weights under the reference's names, `clips`
/// `[clips, 3, frames, size, size]`, normalised RGB.
pub fn run(
    backend: Backend,
    config: &MaeConfig,
    weights: &HashMap<String, Tensor>,
    clips: &Tensor,
    masks: Masks<'_>,
) -> Result<Computed> {
    let model = Mae::from_tensors(*config, weights.clone(), &Device::Cpu)
        .map_err(candle_core::Error::wrap)?;
    let masking = Masking::new(masks, &Device::Cpu)?;
    let (predictions, loss) = match backend {
        Backend::Clips => {
            let predictions = model.forward(clips, &masking)?;
            let loss = masked_mean_squared_error(
                &predictions,
                &config.target_of_clips(clips)?.values,
                masking.mask(),
            )?;
            (predictions, loss)
        }
        Backend::Patches => {
            let [visible, target] = patches(clips, config, masks)?;
            let predictions = model.forward_patches(&visible, &masking)?;
            let pixels = DevicePixels::Patches { visible, target };
            (predictions, model.loss(&DeviceBatch { pixels, masking })?)
        }
        Backend::CpuMae => return cpu_mae(&model, clips, masks),
    };
    let gradients = loss.backward()?;
    let gradient = |(name, variable): (&str, &candle_core::Var)| {
        let gradient = gradients.get(variable).cloned();
        Ok((
            name.to_owned(),
            gradient.ok_or_else(|| candle_core::Error::Msg(format!("{name} has no gradient")))?,
        ))
    };
    let gradients = model
        .parameters()
        .iter()
        .map(gradient)
        .collect::<Result<_>>()?;
    Ok(Computed {
        predictions: Some(predictions),
        loss: f64::from(loss.to_scalar::<f32>()?),
        gradients,
    })
}

/// Tokens of each clip of `[clips, tokens, values]`.
pub fn tokens(x: &Tensor, of_clips: &[&[u32]]) -> Result<Tensor> {
    let clips = of_clips.iter().enumerate().map(|(clip, tokens)| {
        x.get(clip)?
            .index_select(&Tensor::new(*tokens, x.device())?, 0)
    });
    Tensor::stack(&clips.collect::<Result<Vec<_>>>()?, 0)
}

/// The patches that the loader would make of clips: the visible ones, and the raw pixels of the
/// masked ones.
fn patches(clips: &Tensor, config: &MaeConfig, masks: Masks<'_>) -> Result<[Tensor; 2]> {
    let (visible, masked): (Vec<&[u32]>, Vec<&[u32]>) =
        masks.iter().map(|mask| (mask.visible, mask.masked)).unzip();
    let [all, target] = config.patches(clips)?;
    Ok([tokens(&all, &visible)?, tokens(&target, &masked)?])
}

fn cpu_mae(model: &Mae, clips: &Tensor, masks: Masks<'_>) -> Result<Computed> {
    let resources = Resources {
        threads: 2,
        recomputes: false,
    };
    let mut cpu = CpuMae::new(
        *model.config(),
        model.parameters(),
        OPTIMIZER,
        Precision::F32,
        resources,
    )?;
    let [visible, target] = patches(clips, model.config(), masks)?;
    let [visible, target] = [
        visible.flatten_all()?.to_vec1::<f32>()?,
        target.flatten_all()?.to_vec1::<f32>()?,
    ];
    let batch = Patches {
        masks,
        visible: Values::F32(&visible),
        target: Values::F32(&target),
    };
    let predictions = Tensor::new(cpu.predict(masks, batch.visible), &Device::Cpu)?;
    let predictions = predictions.reshape((
        masks.len(),
        masks.predicted(),
        model.config().target_values(),
    ))?;
    let loss = cpu.accumulate(&batch, 1.0);
    let gradient = |view: View<'_>| {
        Ok((
            view.name.to_owned(),
            Tensor::from_slice(view.values, view.shape, &Device::Cpu)?,
        ))
    };
    let gradients = cpu
        .store()
        .gradients()
        .map(gradient)
        .collect::<Result<_>>()?;
    Ok(Computed {
        predictions: Some(predictions),
        loss,
        gradients,
    })
}

/// What the classifier of the CPU computes.
pub struct Classified {
    /// `[clips, classes]`
    pub logits: Tensor,
    /// Cross entropy.
    pub loss: f64,
    /// By name.
    pub gradients: BTreeMap<String, Tensor>,
}

/// Logits, loss and gradients of `clips`, `[clips, 3, frames, size, size]`, whose labels are the
/// distributions `targets`, by the classifier of the CPU.
pub fn cpu_classifier(model: &Classifier, clips: &Tensor, targets: &[f32]) -> Result<Classified> {
    let (config, count) = (*model.config(), clips.dim(0)?);
    let PatchGrid {
        frames,
        size,
        tubelet,
        patch,
    } = config.grid;
    let (time, side) = (frames / tubelet, size / patch);
    let cut = clips
        .reshape(vec![count, 3, time, tubelet, side, patch, side, patch])?
        .permute(vec![0, 2, 4, 6, 1, 3, 5, 7])?;
    let pixels = cut.flatten_all()?.to_vec1::<f32>()?;
    let tokens = config.grid.tokens();
    let rows: Vec<u32> = (0..count).flat_map(|_| 0..tokens as u32).collect();
    let (masks, pixels) = (Masks::new(&rows, tokens, tokens), Values::F32(&pixels));
    let rule = |_: &str, _| ParameterRule {
        rate: 1.0,
        weight_decay: 0.0,
    };
    let resources = Resources {
        threads: 2,
        recomputes: false,
    };
    let mut cpu = CpuClassifier::new(
        config,
        model.parameters(),
        OPTIMIZER,
        rule,
        Precision::F32,
        resources,
    )?;
    let logits = Tensor::from_slice(
        cpu.infer(masks, pixels, false).logits,
        (count, config.classes),
        &Device::Cpu,
    )?;
    let loss = cpu.accumulate(
        &Labelled {
            masks,
            pixels,
            targets,
            branches: BranchScales::default(),
            dropout: &[],
        },
        1.0,
    );
    let gradient = |view: View<'_>| {
        Ok((
            view.name.to_owned(),
            Tensor::from_slice(view.values, view.shape, &Device::Cpu)?,
        ))
    };
    let gradients = cpu
        .store()
        .gradients()
        .map(gradient)
        .collect::<Result<_>>()?;
    Ok(Classified {
        logits,
        loss,
        gradients,
    })
}

/// Nothing is updated here.
const OPTIMIZER: AdamWConfig = AdamWConfig {
    base_lr: 1e-3,
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weight_decay: 0.05,
    clip_norm: 0.02,
};
