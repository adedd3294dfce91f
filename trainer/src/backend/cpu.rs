//! The models of [`crate::cpu`] as learners: built from a configuration, and fed with the loader's
//! batches as they lie in its memory.

use super::reconstruction::{Reconstruction, reconstruction};
use super::{CLIPS, LearnerError, ModelOutput, PATCHES, TOKENS};
use crate::config::{FinetuneConfig, PretrainConfig};
use crate::cpu::{self, CpuClassifier, CpuMae, Patches, Resources, Store};
use crate::data::Uploader;
use crate::model::{Classifier, DecoderClassToken, Mae, MaeConfig, ParameterError};
use candle_core::{Device, Tensor};
use pipeline::loader::batch::{Batch, Pixels, ValueType, values};
use pipeline::sampling::mask::Masks;
use std::collections::HashMap;
use std::ops::Range;

/// An autoencoder with the weights of `model`, which is on the CPU, computed on `threads` threads.
///
/// # Errors
/// [`LearnerError::EncodedClassToken`] when the decoder takes the encoder's cls token.
pub fn cpu_mae(
    model: &Mae,
    config: &PretrainConfig,
    threads: usize,
) -> Result<CpuMae, LearnerError> {
    let MaeConfig {
        class_token,
        conventions,
        ..
    } = *model.config();
    if class_token && conventions.decoder_class_token == DecoderClassToken::Encoded {
        return Err(LearnerError::EncodedClassToken);
    }
    let resources = Resources {
        threads,
        recomputes: config.common.compute.gradient_checkpointing,
    };
    let optimizer = config.common.optimizer.clone();
    let precision = config.common.compute.dtype;
    Ok(CpuMae::new(
        *model.config(),
        model.parameters(),
        optimizer,
        precision,
        resources,
    )?)
}

pub(super) fn cpu_classifier(
    model: &Classifier,
    config: &FinetuneConfig,
    threads: usize,
) -> Result<CpuClassifier, LearnerError> {
    let resources = Resources {
        threads,
        recomputes: config.common.compute.gradient_checkpointing,
    };
    let rule = |name: &str, rank| config.rule(name, rank);
    let optimizer = config.common.optimizer.clone();
    let precision = config.common.compute.dtype;
    Ok(CpuClassifier::new(
        *model.config(),
        model.parameters(),
        optimizer,
        rule,
        precision,
        resources,
    )?)
}

/// Continues after `updates` updates with stored moments.
pub(super) fn restore(
    store: &mut Store,
    mut moments: HashMap<String, Tensor>,
    updates: u64,
) -> Result<(), LearnerError> {
    let mut problems = Vec::new();
    let mut failed = None;
    store.restore(updates, |name, shape, values| match moments.remove(name) {
        Some(stored) if stored.dims() == shape => {
            match stored.flatten_all().and_then(|flat| flat.to_vec1::<f32>()) {
                Ok(stored) => values.copy_from_slice(&stored),
                Err(error) => failed = Some(error),
            }
        }
        Some(stored) => problems.push(format!("{name} is {:?}, not {shape:?}", stored.dims())),
        None => problems.push(format!("{name} is missing")),
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut unknown: Vec<String> = moments
        .into_keys()
        .map(|name| format!("{name} is not part of it"))
        .collect();
    unknown.sort_unstable();
    problems.append(&mut unknown);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ParameterError::Moments { problems }.into())
    }
}

/// Reconstructs a batch of whole clips, clip by clip, so that a picture takes no more memory than a
/// training step.
pub(super) fn reconstruct(
    model: &mut CpuMae,
    batch: Batch,
) -> Result<Reconstruction, LearnerError> {
    let config = *model.config();
    let rows: Vec<Vec<u32>> = batch
        .masks()
        .iter()
        .map(|mask| [mask.visible, mask.masked].concat())
        .collect();
    let visible = batch.masks().visible();
    let batch = Uploader::new(&Device::Cpu)?.upload(batch)?;
    let clips = batch
        .clips()
        .ok_or(LearnerError::BatchForm { expected: CLIPS })?;
    let patches = config.patches(clips)?[0].to_vec3::<f32>()?;
    let tokens = config.grid.tokens();
    let values = config.target_values();
    let mut predicted = vec![0f32; rows.len() * tokens * values];
    for ((row, patches), predicted) in rows
        .iter()
        .zip(&patches)
        .zip(predicted.chunks_exact_mut(tokens * values))
    {
        let (seen, masked) = row.split_at(visible);
        let seen: Vec<f32> = seen
            .iter()
            .flat_map(|&token| patches[token as usize].iter().copied())
            .collect();
        let of_masked = model.predict(Masks::new(row, tokens, visible), cpu::Values::F32(&seen));
        for (&token, of_token) in masked.iter().zip(of_masked.chunks_exact(values)) {
            predicted[token as usize * values..][..values].copy_from_slice(of_token);
        }
    }
    let predicted = Tensor::from_vec(predicted, (rows.len(), tokens, values), &Device::Cpu)?;
    Ok(reconstruction(&config, clips, predicted)?)
}

/// The outputs of a model for a batch of [`pipeline::loader::batch::Form::Tokens`]; `with_tokens`
/// requests those of each token.
///
/// # Errors
/// [`LearnerError::BatchForm`] for another form.
pub(super) fn infer(
    model: &mut CpuClassifier,
    batch: &Batch,
    with_tokens: bool,
) -> Result<ModelOutput, LearnerError> {
    let cpu::Encoded {
        features,
        tokens,
        logits,
    } = model.infer(batch.masks(), tokens(batch, 0..batch.len())?, with_tokens);
    Ok(ModelOutput {
        features: features.to_vec(),
        tokens: tokens.to_vec(),
        logits: logits.to_vec(),
    })
}

/// The patches of some clips of a batch of [`pipeline::loader::batch::Form::Patches`], where they lie in the
/// loader's memory.
///
/// # Errors
/// [`LearnerError::BatchForm`] for another form.
pub fn patches(batch: &Batch, clips: Range<usize>) -> Result<Patches<'_>, LearnerError> {
    let Pixels::Patches { visible, target } = batch.pixels() else {
        return Err(LearnerError::BatchForm { expected: PATCHES });
    };
    Ok(Patches {
        masks: batch.masks().of(clips.clone()),
        visible: typed(batch, clips.clone(), visible),
        target: typed(batch, clips, target),
    })
}

/// The tokens of some clips of a batch of [`pipeline::loader::batch::Form::Tokens`], where they lie in the
/// loader's memory.
///
/// # Errors
/// [`LearnerError::BatchForm`] for another form.
pub(super) fn tokens(batch: &Batch, clips: Range<usize>) -> Result<cpu::Values<'_>, LearnerError> {
    let Pixels::Tokens(pixels) = batch.pixels() else {
        return Err(LearnerError::BatchForm { expected: TOKENS });
    };
    Ok(typed(batch, clips, pixels))
}

fn typed<'a>(batch: &Batch, clips: Range<usize>, bytes: &'a [u8]) -> cpu::Values<'a> {
    let of_clip = bytes.len() / batch.len().max(1);
    let bytes = &bytes[clips.start * of_clip..clips.end * of_clip];
    match batch.format.values {
        ValueType::U8 => cpu::Values::U8(bytes),
        ValueType::F32 => cpu::Values::F32(values(bytes)),
        ValueType::Bf16 => cpu::Values::Bf16(values(bytes)),
    }
}
