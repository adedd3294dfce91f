//! Models that compute outputs and learn nothing: an encoder, with a head or without.

use super::{LearnerError, ModelOutput, candle, cpu};
use crate::cpu::{CpuClassifier, Precision, Resources};
use crate::data::Uploader;
use crate::model::{Classifier, ClassifierConfig};
use crate::optim::{AdamWConfig, ParameterRule};
use candle_core::{Device, Tensor};
use pipeline::loader::batch::Batch;
use pipeline::loader::buffers::MemoryKind;
use std::collections::HashMap;

/// A model for inference.
#[derive(Debug)]
pub enum InferenceModel {
    /// By hand on the CPU.
    Cpu(Box<CpuClassifier>),
    /// By candle, on any device.
    Candle {
        /// The model.
        model: Box<Classifier>,
        /// Copies batches to its device.
        uploader: Uploader,
    },
}

impl InferenceModel {
    /// A model with the given weights, which must be all that it has and no others. On the CPU it
    /// computes on `threads` threads.
    ///
    /// # Errors
    /// When a weight is missing, unknown or of another shape, the device has no room for them, or
    /// `precision` is not for the device.
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
                return Err(LearnerError::CpuOnly { key: "dtype" });
            }
            return Ok(Self::Candle {
                uploader: Uploader::new(device)?,
                model: Box::new(model),
            });
        }
        // It takes no step: nothing of this is used.
        let optimizer = AdamWConfig {
            base_lr: 0.0,
            betas: [0.0; 2],
            epsilon: 1.0,
            weight_decay: 0.0,
            clip_norm: 1.0,
        };
        let rule = |_: &str, _| ParameterRule {
            rate: 0.0,
            weight_decay: 0.0,
        };
        let resources = Resources {
            threads,
            recomputes: true,
        };
        let model = CpuClassifier::new(
            config,
            model.parameters(),
            optimizer,
            rule,
            precision,
            resources,
        )?;
        Ok(Self::Cpu(Box::new(model)))
    }

    /// The memory in which the loader should make batches.
    pub fn memory(&self) -> MemoryKind {
        match self {
            Self::Cpu(_) => MemoryKind::Host,
            Self::Candle { uploader, .. } => uploader.memory(),
        }
    }

    /// The outputs for a batch of [`pipeline::loader::batch::Form::Tokens`]; `tokens` requests
    /// those of each token.
    ///
    /// # Errors
    /// [`LearnerError::BatchForm`] for another form, or when the device fails.
    pub fn infer(&mut self, batch: Batch, tokens: bool) -> Result<ModelOutput, LearnerError> {
        match self {
            Self::Cpu(model) => cpu::infer(model, &batch, tokens),
            Self::Candle { model, uploader } => candle::infer(model, uploader, batch, tokens),
        }
    }
}
