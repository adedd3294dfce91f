//! A learner of fused operations.

use super::reconstruction::{Reconstruction, reconstruction};
use super::{LearnerError, ModelOutput, SoftTargets};
use crate::config::{FinetuneConfig, PretrainConfig};
use crate::cpu::{self as kernels, BranchScales, CpuClassifier, CpuMae, Labelled, Patches, Resources, Store};
use crate::data::Uploader;
use crate::model::{Classifier, DecoderClassToken, Mae, MaeConfig, ParameterError};
use candle_core::{Device, Tensor};
use pipeline::loader::batch::{Batch, Pixels, ValueType, values};
use pipeline::sampling::mask::Masks;
use std::collections::HashMap;

/// A learner of fused operations.
#[derive(Debug)]
pub enum CpuLearner {
    /// An autoencoder.
    Mae {
        /// What decides its shapes.
        config: MaeConfig,
        /// The model.
        model: Box<CpuMae>,
    },
    /// A classifier.
    Classifier(Box<CpuClassifier>),
}

impl CpuLearner {
    pub(super) fn mae(model: &Mae, config: &PretrainConfig, threads: usize) -> Result<Self, LearnerError> {
        let MaeConfig { class_token, conventions, .. } = *model.config();
        if class_token && conventions.decoder_class_token == DecoderClassToken::Encoded {
            return Err(LearnerError::EncodedClassToken);
        }
        let resources = Resources { threads, recomputes: config.common.compute.gradient_checkpointing };
        let fused =
            CpuMae::new(*model.config(), model.parameters(), config.common.optimizer.clone(), config.common.compute.dtype, resources)?;
        Ok(Self::Mae { config: *model.config(), model: Box::new(fused) })
    }

    pub(super) fn classifier(model: &Classifier, config: &FinetuneConfig, threads: usize) -> Result<Self, LearnerError> {
        let resources = Resources { threads, recomputes: config.common.compute.gradient_checkpointing };
        let rule = |name: &str, rank| config.rule(name, rank);
        let (optimizer, precision) = (config.common.optimizer.clone(), config.common.compute.dtype);
        let fused = CpuClassifier::new(*model.config(), model.parameters(), optimizer, rule, precision, resources)?;
        Ok(Self::Classifier(Box::new(fused)))
    }

    pub(super) const fn store(&self) -> &Store {
        match self {
            Self::Mae { model, .. } => model.store(),
            Self::Classifier(model) => model.store(),
        }
    }

    pub(super) const fn store_mut(&mut self) -> &mut Store {
        match self {
            Self::Mae { model, .. } => model.store_mut(),
            Self::Classifier(model) => model.store_mut(),
        }
    }

    pub(super) fn accumulate(&mut self, batch: &Batch, soft_targets: Option<&SoftTargets>, share: f64) -> f64 {
        match (self, soft_targets) {
            (Self::Mae { model, .. }, _) => model.accumulate(&patches(batch), share),
            (Self::Classifier(model), Some(soft_targets)) => {
                let SoftTargets { targets, branches, dropout } = soft_targets;
                let (masks, pixels) = (batch.masks(), tokens(batch));
                model.accumulate(&Labelled { masks, pixels, targets, branches: BranchScales(branches), dropout }, share)
            }
            (Self::Classifier(_), None) => unreachable!("a classifier's batch is uploaded with its soft_targets"),
        }
    }

    /// Goes on with stored moments.
    pub(super) fn restore(&mut self, mut moments: HashMap<String, Tensor>, updates: u64) -> Result<(), LearnerError> {
        let (mut problems, mut failed) = (Vec::new(), None);
        self.store_mut().restore(updates, |name, shape, values| match moments.remove(name) {
            Some(stored) if stored.dims() == shape => match stored.flatten_all().and_then(|flat| flat.to_vec1::<f32>()) {
                Ok(stored) => values.copy_from_slice(&stored),
                Err(error) => failed = Some(error),
            },
            Some(stored) => problems.push(format!("{name} is {:?}, not {shape:?}", stored.dims())),
            None => problems.push(format!("{name} is missing")),
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let mut left: Vec<String> = moments.into_keys().map(|name| format!("{name} is not part of it")).collect();
        left.sort_unstable();
        problems.append(&mut left);
        if problems.is_empty() { Ok(()) } else { Err(ParameterError::Moments { problems }.into()) }
    }
}

/// Clip by clip, so that a picture takes no more memory than a step.
pub(super) fn reconstruct(model: &mut CpuMae, config: MaeConfig, batch: Batch) -> Result<Reconstruction, LearnerError> {
    let rows: Vec<Vec<u32>> = batch.masks().iter().map(|mask| [mask.visible, mask.masked].concat()).collect();
    let visible = batch.masks().visible();
    let batch = Uploader::new(&Device::Cpu)?.upload(batch)?;
    let clips = batch.clips();
    let patches = config.patches(clips)?[0].to_vec3::<f32>()?;
    let (tokens, values) = (config.grid.tokens(), config.target_values());
    let mut predicted = vec![0f32; rows.len() * tokens * values];
    for ((row, patches), predicted) in rows.iter().zip(&patches).zip(predicted.chunks_exact_mut(tokens * values)) {
        let (seen, masked) = row.split_at(visible);
        let seen: Vec<f32> = seen.iter().flat_map(|&token| patches[token as usize].iter().copied()).collect();
        let of_masked = model.predict(Masks::new(row, tokens, visible), kernels::Values::F32(&seen));
        for (&token, of_token) in masked.iter().zip(of_masked.chunks_exact(values)) {
            predicted[token as usize * values..][..values].copy_from_slice(of_token);
        }
    }
    let predicted = Tensor::from_vec(predicted, (rows.len(), tokens, values), &Device::Cpu)?;
    Ok(reconstruction(&config, clips, predicted)?)
}

/// What a classifier makes of a batch of [`pipeline::loader::batch::Form::Tokens`].
pub(super) fn read(model: &mut CpuClassifier, batch: &Batch, with_tokens: bool) -> ModelOutput {
    let kernels::Encoded { features, tokens: of_tokens, logits } = model.infer(batch.masks(), tokens(batch), with_tokens);
    ModelOutput { features: features.to_vec(), tokens: of_tokens.to_vec(), logits: logits.to_vec() }
}

/// A batch's patches, as they lie in the loader's memory.
///
/// # Panics
/// When the batch is of whole clips.
pub fn patches(batch: &Batch) -> Patches<'_> {
    let Pixels::Patches { visible, target } = batch.pixels() else { panic!("pre-training is on patches") };
    Patches { masks: batch.masks(), visible: typed(batch, visible), target: typed(batch, target) }
}

/// A batch's tokens, as they lie in the loader's memory.
fn tokens(batch: &Batch) -> kernels::Values<'_> {
    let Pixels::Tokens(pixels) = batch.pixels() else { panic!("a classifier takes all tokens of its clips") };
    typed(batch, pixels)
}

fn typed<'a>(batch: &Batch, bytes: &'a [u8]) -> kernels::Values<'a> {
    match batch.format.values {
        ValueType::U8 => kernels::Values::U8(bytes),
        ValueType::F32 => kernels::Values::F32(values(bytes)),
        ValueType::Bf16 => kernels::Values::Bf16(values(bytes)),
    }
}
