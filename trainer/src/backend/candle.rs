//! A learner of candle's operations.

use super::{LearnerError, ModelOutput, SoftTargets};
use crate::config::{FinetuneConfig, PretrainConfig};
use crate::data::Uploader;
use crate::model::{Classifier, Encoded, Mae, Parameters};
use crate::model::{DeviceBatch, DevicePixels};
use crate::optim::AdamW;
use crate::{model, model::loss};
use candle_core::{Device, Result, Tensor};

/// A learner of candle's operations: its graph is taken back by candle, and its gradients are tensors.
#[derive(Debug)]
pub struct CandleLearner {
    pub(super) model: Model,
    pub(super) optimizer: AdamW,
    pub(super) uploader: Uploader,
    /// The gradients that wait, in the order of the parameters.
    pub(super) waiting: Option<Vec<Tensor>>,
}

/// What learns.
#[derive(Debug)]
pub(super) enum Model {
    Mae(Mae),
    Classifier(Classifier),
}

impl Model {
    pub(super) const fn parameters(&self) -> &Parameters {
        match self {
            Self::Mae(model) => model.parameters(),
            Self::Classifier(model) => model.parameters(),
        }
    }
}

impl CandleLearner {
    pub(super) fn mae(model: Mae, config: &PretrainConfig, device: &Device) -> std::result::Result<Self, LearnerError> {
        let optimizer = AdamW::new(model.parameters(), config.common.optimizer.clone())?;
        Ok(Self { model: Model::Mae(model), optimizer, uploader: Uploader::new(device)?, waiting: None })
    }

    pub(super) fn classifier(model: Classifier, config: &FinetuneConfig, device: &Device) -> std::result::Result<Self, LearnerError> {
        let optimizer = AdamW::with_rules(model.parameters(), config.common.optimizer.clone(), |name, rank| config.rule(name, rank))?;
        Ok(Self { model: Model::Classifier(model), optimizer, uploader: Uploader::new(device)?, waiting: None })
    }

    pub(super) fn accumulate(&mut self, batch: &DeviceBatch, soft_targets: Option<&SoftTargets>, share: f64) -> Result<f64> {
        let loss = match (&self.model, soft_targets) {
            (Model::Mae(model), _) => model.loss(batch)?,
            (Model::Classifier(model), Some(soft_targets)) => classifier_loss(model, batch, soft_targets)?,
            (Model::Classifier(_), None) => candle_core::bail!("a classifier's batch says what is to be learned of it"),
        };
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Ok(value);
        }
        let gradients = self.optimizer.gradients(&loss.backward()?)?;
        // A step of one batch has exactly its gradients.
        let shares: Vec<Tensor> =
            if share == 1.0 { gradients } else { gradients.into_iter().map(|gradient| gradient * share).collect::<Result<_>>()? };
        self.waiting = Some(match self.waiting.take() {
            None => shares,
            Some(waiting) => waiting.into_iter().zip(shares).map(|(sum, share)| sum + share).collect::<Result<_>>()?,
        });
        Ok(value)
    }
}

/// The loss of a batch of [`pipeline::loader::batch::Form::Tokens`].
///
/// # Errors
/// When the shapes do not fit.
pub(super) fn classifier_loss(model: &Classifier, batch: &DeviceBatch, soft_targets: &SoftTargets) -> Result<Tensor> {
    let model::ClassifierConfig { encoder, classes, .. } = *model.config();
    let (patches, clips) = (patches(batch)?, batch.masking.clips());
    let device = patches.device();
    let scales = |values: &[f32], shape: &[usize]| match values {
        [] => Ok(None),
        values => Tensor::from_slice(values, shape, device).map(Some),
    };
    let branches = scales(&soft_targets.branches, &[encoder.depth, 2, clips])?;
    let dropout = scales(&soft_targets.dropout, &[clips, encoder.width])?;
    let logits = model.logits(patches, branches.as_ref(), dropout.as_ref())?;
    loss::cross_entropy(&logits, &Tensor::from_slice(&soft_targets.targets, (clips, classes), device)?)
}

/// What a classifier makes of a batch of [`pipeline::loader::batch::Form::Tokens`].
///
/// # Errors
/// When the device fails.
pub(super) fn read(model: &Classifier, batch: &DeviceBatch, tokens: bool) -> Result<ModelOutput> {
    let Encoded { features, tokens: of_tokens, logits } = model.infer(patches(batch)?)?;
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok(ModelOutput {
        features: values(&features)?,
        tokens: if tokens { values(&of_tokens)? } else { Vec::new() },
        logits: logits.as_ref().map_or(Ok(Vec::new()), values)?,
    })
}

fn patches(batch: &DeviceBatch) -> Result<&Tensor> {
    match &batch.pixels {
        DevicePixels::Tokens(patches) => Ok(patches),
        _ => candle_core::bail!("a classifier takes all tokens of its clips"),
    }
}
