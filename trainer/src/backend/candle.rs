//! Learners whose forward pass and graph are candle's, with gradients and moments in tensors.

use super::values::NamedValues;
use super::{CLIPS, LearnerError, ModelOutput, PATCHES, Reconstruction, TOKENS, reconstruction};
use crate::config::{ComputeConfig, FinetuneConfig, PretrainConfig};
use crate::cpu::{Part, Precision};
use crate::data::Uploader;
use crate::data::targets::SoftTargets;
use crate::model::loss::cross_entropy;
use crate::model::{
    Classifier, ClassifierConfig, DeviceBatch, Encoded, Mae, MaeConfig, Parameters,
};
use crate::optim::AdamW;
use candle_core::{Device, Result, Tensor};
use pipeline::loader::batch::{Batch, Form};
use std::ops::Range;

/// What training adds to a model of candle's operations.
#[derive(Debug)]
pub struct CandleState {
    /// The model's own: a variable shares its memory with its copies.
    pub(super) parameters: Parameters,
    pub(super) optimizer: AdamW,
    pub(super) uploader: Uploader,
    /// The gradients that wait for an update, in the order of the parameters.
    pub(super) waiting: Option<Vec<Tensor>>,
    /// Sums of micro-batches of one batch: that of `2^n` of them at place `n`, as in
    /// [`crate::cpu`].
    sums: Vec<Vec<Tensor>>,
    /// The sum of all of them.
    batch: Vec<Tensor>,
    /// The same in memory of the host, where ranks sum it; empty for one rank.
    host: Vec<f32>,
}

impl CandleState {
    fn new(parameters: &Parameters, optimizer: AdamW, device: &Device) -> Result<Self> {
        Ok(Self {
            parameters: parameters.clone(),
            optimizer,
            uploader: Uploader::new(device)?,
            waiting: None,
            sums: Vec::new(),
            batch: Vec::new(),
            host: Vec::new(),
        })
    }

    /// Backward of a scalar loss, whose value is returned.
    fn accumulate(&mut self, loss: &Tensor, share: f64) -> Result<f64> {
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Ok(value);
        }
        let gradients = self.optimizer.gradients(&loss.backward()?)?;
        // A step of one batch has exactly its gradients.
        let shares: Vec<Tensor> = if share == 1.0 {
            gradients
        } else {
            gradients
                .into_iter()
                .map(|gradient| gradient * share)
                .collect::<Result<_>>()?
        };
        self.waiting = Some(match self.waiting.take() {
            None => shares,
            Some(waiting) => waiting
                .into_iter()
                .zip(shares)
                .map(|(sum, share)| sum + share)
                .collect::<Result<_>>()?,
        });
        Ok(value)
    }

    /// [`Self::accumulate`] of a part of a batch.
    fn accumulate_part<'a>(&'a mut self, loss: &Tensor, share: f64, part: Part<'a>) -> Result<f64> {
        if matches!(part, Part::Whole) {
            return self.accumulate(loss, share);
        }
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            self.accumulate_nothing(part)?;
            return Ok(value);
        }
        let gradients = self.optimizer.gradients(&loss.backward()?)?;
        let shares = gradients.iter().map(|gradient| gradient * share);
        self.take_part(shares.collect::<Result<_>>()?, part)?;
        Ok(value)
    }

    pub(super) fn accumulate_nothing<'a>(&'a mut self, part: Part<'a>) -> Result<()> {
        let zeros = self.parameters.iter();
        let zeros = zeros.map(|(_, parameter)| parameter.as_tensor().zeros_like());
        let zeros = zeros.collect::<Result<_>>()?;
        self.take_part(zeros, part)
    }

    /// Adds the gradients of a micro-batch to the tree of sums.
    fn take_part<'a>(&'a mut self, gradients: Vec<Tensor>, part: Part<'a>) -> Result<()> {
        let Part::Micro {
            index,
            count,
            buckets,
        } = part
        else {
            return Ok(());
        };
        let is_last = index + 1 == count;
        let mut sum = gradients;
        for (level, other) in self.sums.iter().enumerate() {
            let is_lower = level < index.trailing_ones() as usize;
            if is_lower || (is_last && index >> level & 1 == 1) {
                sum = added(other, &sum)?;
            }
        }
        if !is_last {
            let level = index.trailing_ones() as usize;
            match self.sums.get_mut(level) {
                Some(place) => *place = sum,
                None => self.sums.push(sum),
            }
            return Ok(());
        }
        self.batch = sum;
        if let Some(buckets) = buckets {
            self.host.clear();
            for tensor in &self.batch {
                self.host.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
            }
            // A receiver that is gone has failed, and says so itself.
            let _ = buckets.send(&mut self.host);
        }
        Ok(())
    }

    pub(super) fn add_batch(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        if !self.host.is_empty() {
            let mut values = self.host.as_slice();
            for tensor in &mut batch {
                let own = values
                    .split_off(..tensor.elem_count())
                    .expect("it has the values of all");
                *tensor = Tensor::from_slice(own, tensor.shape(), tensor.device())?;
            }
        }
        self.waiting = Some(match self.waiting.take() {
            None => batch,
            Some(waiting) => added(&waiting, &batch)?,
        });
        Ok(())
    }

    pub(super) fn update(&mut self, lr: f64) -> Result<f64> {
        match self.waiting.take() {
            Some(gradients) => self.optimizer.step_along(gradients, lr),
            None => Ok(f64::NAN),
        }
    }

    /// Lets `change` replace all weights and moments, which are those after `updates` updates.
    pub(super) fn replace(
        &mut self,
        updates: u64,
        change: &mut dyn FnMut(&mut [f32]),
    ) -> std::result::Result<(), LearnerError> {
        let mut changed = |tensor: &Tensor| {
            let mut values = tensor.flatten_all()?.to_vec1::<f32>()?;
            change(&mut values);
            Tensor::from_vec(values, tensor.shape(), tensor.device())
        };
        for (_, weight) in self.parameters.iter() {
            weight.set(&changed(weight.as_tensor())?)?;
        }
        let moments = self.optimizer.moments();
        let moments = moments
            .map(|(name, moment)| Ok((name, changed(moment)?)))
            .collect::<Result<_>>()?;
        Ok(self.optimizer.restore(moments, updates)?)
    }

    pub(super) fn weights(&self) -> Result<Vec<NamedValues<'_>>> {
        let weights = self.parameters.iter();
        weights
            .map(|(name, weight)| NamedValues::of_tensor(name.to_owned(), weight.as_tensor()))
            .collect()
    }

    pub(super) fn moments(&self) -> Result<Vec<NamedValues<'_>>> {
        self.optimizer
            .moments()
            .map(|(name, moment)| NamedValues::of_tensor(name, moment))
            .collect()
    }
}

/// The sums of tensors, one by one.
fn added(first: &[Tensor], second: &[Tensor]) -> Result<Vec<Tensor>> {
    first.iter().zip(second).map(|(a, b)| a + b).collect()
}

/// An autoencoder that trains by candle.
#[derive(Debug)]
pub struct CandleMae {
    model: Mae,
    pub(super) state: CandleState,
}

impl CandleMae {
    pub(super) fn new(
        model: Mae,
        config: &PretrainConfig,
        device: &Device,
    ) -> std::result::Result<Self, LearnerError> {
        check_compute(&config.common.compute)?;
        let optimizer = AdamW::new(model.parameters(), config.common.optimizer.clone())?;
        let state = CandleState::new(model.parameters(), optimizer, device)?;
        Ok(Self { model, state })
    }

    pub(super) const fn config(&self) -> &MaeConfig {
        self.model.config()
    }

    pub(super) fn accumulate(
        &mut self,
        batch: Batch,
        share: f64,
    ) -> std::result::Result<f64, LearnerError> {
        if !matches!(batch.format.form, Form::Patches { .. }) {
            return Err(LearnerError::BatchForm { expected: PATCHES });
        }
        let batch = self.state.uploader.upload(batch)?;
        let loss = self.model.loss(&batch)?;
        Ok(self.state.accumulate(&loss, share)?)
    }

    pub(super) fn accumulate_part<'a>(
        &'a mut self,
        batch: &Batch,
        clips: Range<usize>,
        share: f64,
        part: Part<'a>,
    ) -> std::result::Result<f64, LearnerError> {
        if !matches!(batch.format.form, Form::Patches { .. }) {
            return Err(LearnerError::BatchForm { expected: PATCHES });
        }
        let loss = self
            .model
            .loss(&self.state.uploader.upload_clips(batch, clips)?)?;
        Ok(self.state.accumulate_part(&loss, share, part)?)
    }

    pub(super) fn reconstruct(
        &self,
        batch: Batch,
    ) -> std::result::Result<Reconstruction, LearnerError> {
        let batch = self.state.uploader.upload(batch)?;
        let clips = batch
            .clips()
            .ok_or(LearnerError::BatchForm { expected: CLIPS })?;
        let predicted = self.model.forward(clips, &batch.masking)?;
        Ok(reconstruction(self.model.config(), clips, predicted)?)
    }
}

/// A classifier that trains by candle.
#[derive(Debug)]
pub struct CandleClassifier {
    model: Classifier,
    pub(super) state: CandleState,
}

impl CandleClassifier {
    pub(super) fn new(
        model: Classifier,
        config: &FinetuneConfig,
        device: &Device,
    ) -> std::result::Result<Self, LearnerError> {
        check_compute(&config.common.compute)?;
        let rule = |name: &str, rank| config.rule(name, rank);
        let optimizer =
            AdamW::with_rules(model.parameters(), config.common.optimizer.clone(), rule)?;
        let state = CandleState::new(model.parameters(), optimizer, device)?;
        Ok(Self { model, state })
    }

    pub(super) fn accumulate(
        &mut self,
        batch: Batch,
        soft_targets: &SoftTargets,
        share: f64,
    ) -> std::result::Result<f64, LearnerError> {
        let batch = self.state.uploader.upload(batch)?;
        let loss = self.loss(tokens(&batch)?, soft_targets)?;
        Ok(self.state.accumulate(&loss, share)?)
    }

    pub(super) fn accumulate_part<'a>(
        &'a mut self,
        batch: &Batch,
        clips: Range<usize>,
        soft_targets: &SoftTargets,
        share: f64,
        part: Part<'a>,
    ) -> std::result::Result<f64, LearnerError> {
        let batch = self.state.uploader.upload_clips(batch, clips)?;
        let loss = self.loss(tokens(&batch)?, soft_targets)?;
        Ok(self.state.accumulate_part(&loss, share, part)?)
    }

    /// The loss of clips, `[clips, tokens, 3 * tubelet * patch * patch]`.
    fn loss(&self, patches: &Tensor, soft_targets: &SoftTargets) -> Result<Tensor> {
        let ClassifierConfig {
            encoder, classes, ..
        } = *self.model.config();
        let clips = patches.dim(0)?;
        let device = patches.device();
        let scales = |values: &[f32], shape: &[usize]| match values {
            [] => Ok(None),
            values => Tensor::from_slice(values, shape, device).map(Some),
        };
        let branches = scales(&soft_targets.branches, &[encoder.depth, 2, clips])?;
        let dropout = scales(&soft_targets.dropout, &[clips, encoder.width])?;
        let logits = self
            .model
            .logits(patches, branches.as_ref(), dropout.as_ref())?;
        cross_entropy(
            &logits,
            &Tensor::from_slice(&soft_targets.targets, (clips, classes), device)?,
        )
    }

    pub(super) fn infer(&self, batch: Batch) -> std::result::Result<ModelOutput, LearnerError> {
        infer(&self.model, &self.state.uploader, batch, false)
    }
}

/// The outputs of a model for a batch of [`pipeline::loader::batch::Form::Tokens`]; `with_tokens`
/// requests those of each token.
///
/// # Errors
/// [`LearnerError::BatchForm`] for another form, or when the device fails.
pub(super) fn infer(
    model: &Classifier,
    uploader: &Uploader,
    batch: Batch,
    with_tokens: bool,
) -> std::result::Result<ModelOutput, LearnerError> {
    let batch = uploader.upload(batch)?;
    let outputs = model.infer(tokens(&batch)?)?;
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let Encoded {
        features,
        tokens,
        logits,
    } = outputs;
    Ok(ModelOutput {
        features: values(&features)?,
        tokens: if with_tokens {
            values(&tokens)?
        } else {
            Vec::new()
        },
        logits: logits.as_ref().map_or(Ok(Vec::new()), values)?,
    })
}

fn tokens(batch: &DeviceBatch) -> std::result::Result<&Tensor, LearnerError> {
    batch
        .tokens()
        .ok_or(LearnerError::BatchForm { expected: TOKENS })
}

/// Refuses settings that only the CPU implementation has.
fn check_compute(compute: &ComputeConfig) -> std::result::Result<(), LearnerError> {
    let is_rounded = compute.dtype != Precision::F32;
    let settings = [
        ("dtype", is_rounded),
        ("gradient_checkpointing", compute.gradient_checkpointing),
    ];
    for (key, is_set) in settings {
        if is_set {
            return Err(LearnerError::CpuOnly { key });
        }
    }
    Ok(())
}
