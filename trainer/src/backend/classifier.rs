//! A classifier that is fine-tuned.

use super::candle::CandleClassifier;
use super::learner::{Learner, SavedLearner, State, StateMut, restore};
use super::{LearnerError, ModelOutput, cpu};
use crate::config::FinetuneConfig;
use crate::cpu::{BranchScales, CpuClassifier, Labelled, Part};
use crate::data::targets::SoftTargets;
use crate::model::Classifier;
use candle_core::{Device, Tensor};
use pipeline::loader::batch::Batch;
use std::collections::HashMap;
use std::ops::Range;

/// A classifier of clips with its gradients and moments.
#[derive(Debug)]
pub enum ClassifierLearner {
    /// By hand on the CPU: several times as fast as candle there, with the same results.
    Cpu(Box<CpuClassifier>),
    /// By candle, on any device.
    Candle(Box<CandleClassifier>),
}

impl ClassifierLearner {
    /// A learner whose head is random, drawn by the configuration's seed, and whose encoder has the
    /// weights `init_weights`, or is random as well. On the CPU it computes on `threads` threads,
    /// whose number does not affect the results.
    ///
    /// # Errors
    /// When the weights do not fit, the device has no room for it, or a setting does not fit the
    /// device.
    pub fn new(
        config: &FinetuneConfig,
        init_weights: Option<HashMap<String, Tensor>>,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        let model = match init_weights {
            Some(weights) => Classifier::from_pretrained(
                config.classifier(),
                weights,
                config.common.seed,
                device,
            )?,
            None => Classifier::seeded(config.classifier(), config.common.seed, device)?,
        };
        Self::from_model(model, config, device, threads)
    }

    /// A learner that continues from a checkpoint.
    ///
    /// # Errors
    /// When weights or moments do not fit the configuration, each named; and as [`Self::new`].
    pub fn resumed(
        config: &FinetuneConfig,
        saved: SavedLearner,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        let model = Classifier::from_tensors(config.classifier(), saved.weights, device)?;
        let mut learner = Self::from_model(model, config, device, threads)?;
        restore(&mut learner, saved.moments, saved.updates)?;
        Ok(learner)
    }

    fn from_model(
        model: Classifier,
        config: &FinetuneConfig,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        if device.is_cpu() {
            Ok(Self::Cpu(Box::new(cpu::cpu_classifier(
                &model, config, threads,
            )?)))
        } else {
            Ok(Self::Candle(Box::new(CandleClassifier::new(
                model, config, device,
            )?)))
        }
    }

    /// Forward and backward of a batch of [`pipeline::loader::batch::Form::Tokens`]; adds `share`
    /// times its gradients to those that wait for the next update. Returns its loss; where that is
    /// not finite, no gradients are added.
    ///
    /// # Errors
    /// [`LearnerError::BatchForm`] for another form, or when the device fails.
    pub fn accumulate(
        &mut self,
        batch: Batch,
        soft_targets: &SoftTargets,
        share: f64,
    ) -> Result<f64, LearnerError> {
        match self {
            Self::Cpu(model) => {
                let clips = 0..batch.len();
                Ok(model.accumulate(&labelled(&batch, clips, soft_targets)?, share))
            }
            Self::Candle(learner) => learner.accumulate(batch, soft_targets, share),
        }
    }

    /// [`Self::accumulate`] of some clips of a batch, whose targets these are, as `part` of it.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    pub fn accumulate_part<'a>(
        &'a mut self,
        batch: &Batch,
        clips: Range<usize>,
        soft_targets: &SoftTargets,
        share: f64,
        part: Part<'a>,
    ) -> Result<f64, LearnerError> {
        match self {
            Self::Cpu(model) => {
                let labelled = labelled(batch, clips, soft_targets)?;
                Ok(model.accumulate_part(&labelled, share, part))
            }
            Self::Candle(learner) => {
                learner.accumulate_part(batch, clips, soft_targets, share, part)
            }
        }
    }

    /// Features and logits of a batch of [`pipeline::loader::batch::Form::Tokens`].
    ///
    /// # Errors
    /// [`LearnerError::BatchForm`] for another form, or when the device fails.
    pub fn infer(&mut self, batch: Batch) -> Result<ModelOutput, LearnerError> {
        match self {
            Self::Cpu(model) => cpu::infer(model, &batch, false),
            Self::Candle(learner) => learner.infer(batch),
        }
    }
}

/// Some clips of a batch, with their targets.
fn labelled<'a>(
    batch: &'a Batch,
    clips: Range<usize>,
    soft_targets: &'a SoftTargets,
) -> Result<Labelled<'a>, LearnerError> {
    Ok(Labelled {
        masks: batch.masks().of(clips.clone()),
        pixels: cpu::tokens(batch, clips)?,
        targets: &soft_targets.targets,
        branches: BranchScales(&soft_targets.branches),
        dropout: &soft_targets.dropout,
    })
}

impl Learner for ClassifierLearner {
    fn state(&self) -> State<'_> {
        match self {
            Self::Cpu(model) => State::Cpu(model.store()),
            Self::Candle(learner) => State::Candle(&learner.state),
        }
    }

    fn state_mut(&mut self) -> StateMut<'_> {
        match self {
            Self::Cpu(model) => StateMut::Cpu(model.store_mut()),
            Self::Candle(learner) => StateMut::Candle(&mut learner.state),
        }
    }
}
