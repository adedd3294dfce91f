//! What learns, behind one type: weights, the gradients that wait for a step, and the optimiser's moments, wherever and however they are computed.
//!
//! The loop knows nothing of tensors: it hands batches in, asks for a step, and has the values written down.

mod candle;
mod cpu;
mod inference;
mod reconstruction;
mod values;

pub use candle::CandleLearner;
pub use cpu::{CpuLearner, patches};
pub use inference::InferenceModel;
pub(crate) use reconstruction::reconstruction;
pub use reconstruction::{NormalisedPatches, Reconstruction};
pub use values::{NamedValues, Values};

use crate::config::{PretrainConfig, Task};
use crate::cpu::Precision;
use crate::data::targets::SoftTargets;
use crate::model::DeviceBatch;
use crate::model::{Classifier, Mae, MaeConfig, ParameterError};
use candle::Model;
use candle_core::{Device, Tensor};
use pipeline::loader::batch::Batch;
use pipeline::loader::buffers::MemoryKind;
use std::collections::HashMap;
use values::sorted;

/// Why something cannot be learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// Stored weights or moments do not fit the model.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The device.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The fused operations let no cls token through the decoder.
    #[error(
        "model.decoder_class_token is \"encoded\", which has no training on the processor: set it to \"own\", or use --device cuda (such weights can be imported, \
         exported, and fine-tuned as they are: an encoder needs no decoder)"
    )]
    EncodedClassToken,
    /// A setting that the device does not have.
    #[error("compute.{key} is for the processor; leave it out, or use --device cpu")]
    ProcessorOnly {
        /// Which setting.
        key: &'static str,
    },
}

/// What learns: weights, their gradients and the optimiser's moments, on one device.
#[derive(Debug)]
pub enum Learner {
    /// Of candle's operations, on any device.
    CandleLearner(Box<CandleLearner>),
    /// Of fused operations, on the processor: several times as fast, with the same results.
    CpuMae(Box<CpuLearner>),
}

/// A batch where a learner computes, and, for a classifier, what it is to learn of it.
#[derive(Debug)]
pub enum Uploaded {
    /// As tensors on the device.
    Device(DeviceBatch, Option<SoftTargets>),
    /// In the loader's own memory.
    Host(Batch, Option<SoftTargets>),
}

/// What a classifier makes of the clips of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOutput {
    /// `[clips, width]`: the mean of the tokens without the cls token, normalised by the encoder's last layer: the head's input.
    pub features: Vec<f32>,
    /// `[clips, tokens, width]`: each token, normalised by the same layer; nothing where it was not asked for.
    pub tokens: Vec<f32>,
    /// `[clips, classes]`; nothing of an encoder alone.
    pub logits: Vec<f32>,
}

impl Learner {
    /// A learner that begins as the task's seed says; a classifier whose encoder has the weights `start`, where there are some. On the processor it uses so many
    /// threads, whose number changes nothing in the results.
    ///
    /// # Errors
    /// When the weights do not fit, or the device has no room for it.
    pub fn new(task: &Task, start: Option<HashMap<String, Tensor>>, device: &Device, threads: usize) -> Result<Self, LearnerError> {
        match task {
            Task::Pretrain(config) => Self::of_mae(Mae::seeded(config.model(), config.common.seed, device)?, config, device, threads),
            Task::Finetune(config) => {
                let model = match start {
                    Some(weights) => Classifier::from_pretrained(config.classifier(), weights, config.common.seed, device)?,
                    None => Classifier::seeded(config.classifier(), config.common.seed, device)?,
                };
                Self::of_classifier(model, task, device, threads)
            }
        }
    }

    /// A learner that goes on from a checkpoint: from `weights`, and the `moments` of each, as `first/NAME` and `second/NAME`, after so many `updates`.
    ///
    /// # Errors
    /// When the checkpoint's weights or moments do not fit the configuration, each named, or the device has no room for them.
    pub fn resumed(
        task: &Task,
        weights: HashMap<String, Tensor>,
        moments: HashMap<String, Tensor>,
        updates: u64,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        let mut learner = match task {
            Task::Pretrain(config) => Self::of_mae(Mae::from_tensors(config.model(), weights, device)?, config, device, threads)?,
            Task::Finetune(config) => {
                Self::of_classifier(Classifier::from_tensors(config.classifier(), weights, device)?, task, device, threads)?
            }
        };
        match &mut learner {
            Self::CandleLearner(composed) => composed.optimizer.restore(moments, updates)?,
            Self::CpuMae(fused) => fused.restore(moments, updates)?,
        }
        Ok(learner)
    }

    /// An autoencoder as it is, to look at what it reconstructs, or to go on with.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn of_mae(model: Mae, config: &PretrainConfig, device: &Device, threads: usize) -> Result<Self, LearnerError> {
        if device.is_cpu() {
            Ok(Self::CpuMae(Box::new(CpuLearner::mae(&model, config, threads)?)))
        } else {
            Self::composed(model, config, device)
        }
    }

    fn of_classifier(model: Classifier, task: &Task, device: &Device, threads: usize) -> Result<Self, LearnerError> {
        let Task::Finetune(config) = task else { unreachable!("a classifier is fine-tuned") };
        if device.is_cpu() {
            return Ok(Self::CpuMae(Box::new(CpuLearner::classifier(&model, config, threads)?)));
        }
        refuse_processors_own(task)?;
        Ok(Self::CandleLearner(Box::new(CandleLearner::classifier(model, config, device)?)))
    }

    /// A learner of candle's operations, whatever the device.
    ///
    /// # Errors
    /// When the device has no room for it, or the configuration asks for what only the fused one has.
    pub fn composed(model: Mae, config: &PretrainConfig, device: &Device) -> Result<Self, LearnerError> {
        refuse_processors_own(&config.clone().into())?;
        Ok(Self::CandleLearner(Box::new(CandleLearner::mae(model, config, device)?)))
    }

    /// Where the loader is to make batches.
    pub fn memory(&self) -> MemoryKind {
        match self {
            Self::CandleLearner(composed) => composed.uploader.memory(),
            Self::CpuMae(_) => MemoryKind::Host,
        }
    }

    /// Takes a batch to where it is computed; a classifier's with what it is to learn of it.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn upload(&self, batch: Batch, soft_targets: Option<SoftTargets>) -> Result<Uploaded, LearnerError> {
        match self {
            Self::CandleLearner(composed) => Ok(Uploaded::Device(composed.uploader.upload(batch)?, soft_targets)),
            Self::CpuMae(_) => Ok(Uploaded::Host(batch, soft_targets)),
        }
    }

    /// Forward and backward of a batch; adds `share` times its gradients to those that wait for the next update. Gives its loss; where that is not
    /// finite, there are no gradients to add.
    ///
    /// # Errors
    /// When the device fails.
    pub fn accumulate(&mut self, batch: Batch, soft_targets: Option<SoftTargets>, share: f64) -> Result<f64, LearnerError> {
        let batch = self.upload(batch, soft_targets)?;
        self.accumulate_uploaded(&batch, share)
    }

    /// [`Self::accumulate`], of a batch that is there already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn accumulate_uploaded(&mut self, batch: &Uploaded, share: f64) -> Result<f64, LearnerError> {
        match (self, batch) {
            (Self::CandleLearner(composed), Uploaded::Device(batch, soft_targets)) => {
                Ok(composed.accumulate(batch, soft_targets.as_ref(), share)?)
            }
            (Self::CpuMae(fused), Uploaded::Host(batch, soft_targets)) => Ok(fused.accumulate(batch, soft_targets.as_ref(), share)),
            (_, _) => unreachable!("a batch is uploaded by the learner that computes it"),
        }
    }

    /// Clips the gradients, takes a step along them at rate `lr`, and clears them. Gives their global norm before clipping; when that is not finite,
    /// no weight and no moment is changed. Without gradients the norm is NaN.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update(&mut self, lr: f64) -> Result<f64, LearnerError> {
        match self {
            Self::CandleLearner(composed) => match composed.waiting.take() {
                Some(gradients) => Ok(composed.optimizer.step_along(gradients, lr)?),
                None => Ok(f64::NAN),
            },
            Self::CpuMae(fused) => Ok(fused.store_mut().update(lr)),
        }
    }

    /// Forgets the gradients that wait.
    pub fn discard(&mut self) {
        match self {
            Self::CandleLearner(composed) => composed.waiting = None,
            Self::CpuMae(fused) => fused.store_mut().discard(),
        }
    }

    /// Updates that have changed the weights since the run began: the optimiser's own count.
    pub const fn updates(&self) -> u64 {
        match self {
            Self::CandleLearner(composed) => composed.optimizer.steps(),
            Self::CpuMae(fused) => fused.store().steps(),
        }
    }

    /// Trainable values.
    pub fn parameter_count(&self) -> usize {
        match self {
            Self::CandleLearner(composed) => composed.model.parameters().count(),
            Self::CpuMae(fused) => fused.store().count(),
        }
    }

    /// The weights, under the reference's names, in the order of their names.
    ///
    /// # Errors
    /// When the device fails.
    pub fn weights(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self {
            Self::CandleLearner(composed) => {
                let weights = composed.model.parameters().iter();
                Ok(weights.map(|(name, weight)| NamedValues::of_tensor(name.to_owned(), weight.as_tensor())).collect::<Result<_, _>>()?)
            }
            Self::CpuMae(fused) => Ok(sorted(fused.store().weights().map(|view| NamedValues::of_view(view.name.to_owned(), view)))),
        }
    }

    /// The moments of each weight, as `first/NAME` and `second/NAME`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn moments(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self {
            Self::CandleLearner(composed) => {
                let moments = composed.optimizer.moments();
                Ok(moments.map(|(name, moment)| NamedValues::of_tensor(name, moment)).collect::<Result<_, _>>()?)
            }
            Self::CpuMae(fused) => {
                let store = fused.store();
                let first = store.first_moments().map(|view| NamedValues::of_view(format!("first/{}", view.name), view));
                let second = store.second_moments().map(|view| NamedValues::of_view(format!("second/{}", view.name), view));
                Ok(sorted(first.chain(second)))
            }
        }
    }

    /// What decides an autoencoder's shapes.
    ///
    /// # Panics
    /// When this is a classifier.
    pub const fn model_config(&self) -> &MaeConfig {
        match self {
            Self::CandleLearner(composed) => match &composed.model {
                Model::Mae(model) => model.config(),
                Model::Classifier(_) => panic!("a classifier reconstructs nothing"),
            },
            Self::CpuMae(fused) => match &**fused {
                CpuLearner::Mae { config, .. } => config,
                CpuLearner::Classifier(_) => panic!("a classifier reconstructs nothing"),
            },
        }
    }

    /// What an autoencoder makes of a batch of whole clips.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the batch is not of whole clips, or this is a classifier.
    pub fn reconstruct(&mut self, batch: Batch) -> Result<Reconstruction, LearnerError> {
        match self {
            Self::CandleLearner(composed) => {
                let CandleLearner { model: Model::Mae(model), uploader, .. } = &**composed else {
                    panic!("a classifier reconstructs nothing")
                };
                let batch = uploader.upload(batch)?;
                let predicted = model.forward(batch.clips(), &batch.masking)?;
                Ok(reconstruction(model.config(), batch.clips(), predicted)?)
            }
            Self::CpuMae(learner) => {
                let CpuLearner::Mae { config, model } = &mut **learner else { panic!("a classifier reconstructs nothing") };
                cpu::reconstruct(model, *config, batch)
            }
        }
    }

    /// What a classifier makes of a batch of [`pipeline::loader::batch::Form::Tokens`].
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the batch has another form, or this is an autoencoder.
    pub fn read(&mut self, batch: Batch) -> Result<ModelOutput, LearnerError> {
        match self {
            Self::CandleLearner(composed) => {
                let CandleLearner { model: Model::Classifier(model), uploader, .. } = &**composed else {
                    panic!("an autoencoder has no logits")
                };
                Ok(candle::read(model, &uploader.upload(batch)?, false)?)
            }
            Self::CpuMae(learner) => {
                let CpuLearner::Classifier(model) = &mut **learner else { panic!("an autoencoder has no logits") };
                Ok(cpu::read(model, &batch, false))
            }
        }
    }
}

/// Settings that only the fused learner has.
fn refuse_processors_own(task: &Task) -> Result<(), LearnerError> {
    let compute = &task.common().compute;
    for (key, is_set) in [("dtype", compute.dtype != Precision::F32), ("gradient_checkpointing", compute.gradient_checkpointing)] {
        if is_set {
            return Err(LearnerError::ProcessorOnly { key });
        }
    }
    Ok(())
}
