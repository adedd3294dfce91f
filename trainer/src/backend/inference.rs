//! What reads clips and learns nothing: an encoder, with a head or without.

use super::{LearnerError, ModelOutput, candle, cpu};
use crate::cpu::{CpuClassifier, Precision, Resources};
use crate::data::Uploader;
use crate::model::{Classifier, ClassifierConfig};
use crate::optim::{AdamWConfig, ParameterRule};
use candle_core::{Device, Tensor};
use pipeline::loader::batch::Batch;
use pipeline::loader::buffers::MemoryKind;
use std::collections::HashMap;

/// A model that reads clips.
#[derive(Debug)]
pub enum InferenceModel {
    /// Of candle's operations, on any device.
    CandleLearner {
        /// The model.
        model: Box<Classifier>,
        /// Takes batches to its device.
        uploader: Uploader,
    },
    /// Of fused operations, on the processor.
    CpuMae(Box<CpuClassifier>),
}

impl InferenceModel {
    /// A model of given weights, which are all its own. On the processor it uses so many threads.
    ///
    /// # Errors
    /// When a weight is missing or unknown or has another shape, or the device has no room for them.
    pub fn new(
        config: ClassifierConfig,
        weights: HashMap<String, Tensor>,
        device: &Device,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        let model = Classifier::from_tensors(config, weights, device)?;
        if !device.is_cpu() {
            if precision != Precision::F32 {
                return Err(LearnerError::ProcessorOnly { key: "dtype" });
            }
            return Ok(Self::CandleLearner { uploader: Uploader::new(device)?, model: Box::new(model) });
        }
        // It takes no step: nothing of this is used.
        let still = AdamWConfig { base_lr: 0.0, betas: [0.0; 2], epsilon: 1.0, weight_decay: 0.0, clip_norm: 1.0 };
        let rule = |_: &str, _| ParameterRule { rate: 0.0, weight_decay: 0.0 };
        let resources = Resources { threads, recomputes: true };
        Ok(Self::CpuMae(Box::new(CpuClassifier::new(config, model.parameters(), still, rule, precision, resources)?)))
    }

    /// Where the loader is to make batches.
    pub fn memory(&self) -> MemoryKind {
        match self {
            Self::CandleLearner { uploader, .. } => uploader.memory(),
            Self::CpuMae(_) => MemoryKind::Host,
        }
    }

    /// What the model makes of a batch of [`pipeline::loader::batch::Form::Tokens`]; with `tokens` also of each token.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the batch has another form.
    pub fn read(&mut self, batch: Batch, tokens: bool) -> Result<ModelOutput, LearnerError> {
        match self {
            Self::CandleLearner { model, uploader } => Ok(candle::read(model, &uploader.upload(batch)?, tokens)?),
            Self::CpuMae(model) => Ok(cpu::read(model, &batch, tokens)),
        }
    }
}
