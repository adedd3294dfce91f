//! A masked autoencoder that is pre-trained.

use super::candle::CandleMae;
use super::learner::{Learner, SavedLearner, State, StateMut, restore};
use super::{LearnerError, Reconstruction, cpu};
use crate::config::PretrainConfig;
use crate::cpu::{CpuMae, Part};
use crate::model::{Mae, MaeConfig};
use candle_core::Device;
use pipeline::loader::batch::Batch;
use std::ops::Range;

/// A masked autoencoder with its gradients and moments.
#[derive(Debug)]
pub enum MaeLearner {
    /// By hand on the CPU: several times as fast as candle there, with the same results.
    Cpu(Box<CpuMae>),
    /// By candle, on any device.
    Candle(Box<CandleMae>),
}

impl MaeLearner {
    /// A learner with random weights, drawn by the configuration's seed. On the CPU it computes on
    /// `threads` threads, whose number does not affect the results.
    ///
    /// # Errors
    /// When the device has no room for it, or a setting does not fit the device.
    pub fn new(
        config: &PretrainConfig,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        Self::from_model(
            Mae::seeded(config.model(), config.common.seed, device)?,
            config,
            device,
            threads,
        )
    }

    /// A learner that continues from a checkpoint.
    ///
    /// # Errors
    /// When weights or moments do not fit the configuration, each named; and as [`Self::new`].
    pub fn resumed(
        config: &PretrainConfig,
        saved: SavedLearner,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        let model = Mae::from_tensors(config.model(), saved.weights, device)?;
        let mut learner = Self::from_model(model, config, device, threads)?;
        restore(&mut learner, saved.moments, saved.updates)?;
        Ok(learner)
    }

    /// A learner with the weights of `model`, which is on `device`, and moments at zero.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_model(
        model: Mae,
        config: &PretrainConfig,
        device: &Device,
        threads: usize,
    ) -> Result<Self, LearnerError> {
        if device.is_cpu() {
            Ok(Self::Cpu(Box::new(cpu::cpu_mae(&model, config, threads)?)))
        } else {
            Self::candle(model, config, device)
        }
    }

    /// A learner that computes by candle, also on the CPU.
    ///
    /// # Errors
    /// When the device has no room for it, or a setting is for the CPU implementation only.
    pub fn candle(
        model: Mae,
        config: &PretrainConfig,
        device: &Device,
    ) -> Result<Self, LearnerError> {
        Ok(Self::Candle(Box::new(CandleMae::new(
            model, config, device,
        )?)))
    }

    /// The shapes of the model.
    pub fn config(&self) -> &MaeConfig {
        match self {
            Self::Cpu(model) => model.config(),
            Self::Candle(learner) => learner.config(),
        }
    }

    /// Forward and backward of a batch of [`pipeline::loader::batch::Form::Patches`]; adds `share`
    /// times its gradients to those that wait for the next update. Returns its loss; where that is
    /// not finite, no gradients are added.
    ///
    /// # Errors
    /// [`LearnerError::BatchForm`] for another form, or when the device fails.
    pub fn accumulate(&mut self, batch: Batch, share: f64) -> Result<f64, LearnerError> {
        match self {
            Self::Cpu(model) => {
                let clips = 0..batch.len();
                Ok(model.accumulate(&cpu::patches(&batch, clips)?, share))
            }
            Self::Candle(learner) => learner.accumulate(batch, share),
        }
    }

    /// [`Self::accumulate`] of some clips of a batch, as `part` of it.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    pub fn accumulate_part<'a>(
        &'a mut self,
        batch: &Batch,
        clips: Range<usize>,
        share: f64,
        part: Part<'a>,
    ) -> Result<f64, LearnerError> {
        match self {
            Self::Cpu(model) => {
                let patches = cpu::patches(batch, clips)?;
                Ok(model.accumulate_part(&patches, share, part))
            }
            Self::Candle(learner) => learner.accumulate_part(batch, clips, share, part),
        }
    }

    /// Reconstructs a batch of whole clips, [`pipeline::loader::batch::Form::Clips`], from their
    /// visible patches.
    ///
    /// # Errors
    /// [`LearnerError::BatchForm`] for another form, or when the device fails.
    pub fn reconstruct(&mut self, batch: Batch) -> Result<Reconstruction, LearnerError> {
        match self {
            Self::Cpu(model) => cpu::reconstruct(model, batch),
            Self::Candle(learner) => learner.reconstruct(batch),
        }
    }
}

impl Learner for MaeLearner {
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
