//! What learns, behind one type: weights, the gradients that wait for a step, and the optimiser's moments, wherever and however they are computed.
//!
//! The loop knows nothing of tensors: it hands batches in, asks for a step, and has the values written down.

use crate::checkpoint::Loaded;
use crate::config::Config;
use crate::data::{DeviceBatch, DevicePixels, Uploader};
use crate::model::{Mae, MaeConfig, ParameterError};
use crate::optimizer::AdamW;
use candle_core::{DType, Device, Storage, StorageRef, Tensor};
use pipeline::batch::Batch;
use pipeline::buffers::MemoryKind;
use std::ops::{Deref, Range};

/// Why something cannot be learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// Stored weights or moments do not fit the model.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The device.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What learns: weights, their gradients and the optimiser's moments, on one device.
#[derive(Debug)]
pub enum Learner {
    /// Of candle's operations, on any device.
    Composed(Box<Composed>),
}

/// A batch where a learner computes.
#[derive(Debug)]
pub enum Uploaded {
    /// As tensors on the device.
    Device(DeviceBatch),
}

/// What a model makes of whole clips, in the scale of their pixels.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[clips, tokens, values]`: the frames that are predicted, normalised RGB; values ordered frame, row, column, channel.
    pub truth: Tensor,
    /// The same, predicted. Mean and deviation of normalised patches are borrowed from the true ones: the model has no other.
    pub predicted: Tensor,
}

/// One tensor of a learner, to be written down.
#[derive(Debug)]
pub struct NamedValues<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values, the last dimension's side by side.
    pub values: Values<'a>,
}

/// Values on the host: those that the learner has, or a copy where it has them on a device.
#[derive(Debug)]
pub enum Values<'a> {
    /// The learner's own.
    Slice(&'a [f32]),
    /// A part of a tensor's own memory, in which nothing is written meanwhile.
    Locked(StorageRef<'a>, Range<usize>),
    /// A copy.
    Copied(Vec<f32>),
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Slice(values) => values,
            Self::Locked(storage, range) => match &**storage {
                Storage::Cpu(storage) => &storage.as_slice::<f32>().expect("seen to be f32 when it was locked")[range.clone()],
                _ => unreachable!("seen to be on the host when it was locked"),
            },
            Self::Copied(values) => values,
        }
    }
}

impl<'a> NamedValues<'a> {
    /// The values of a tensor of f32: without a copy where it is contiguous on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_tensor(name: String, tensor: &'a Tensor) -> candle_core::Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let values = match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(_), Some((start, end))) if tensor.dtype() == DType::F32 => Values::Locked(storage, start..end),
            _ => {
                drop(storage);
                Values::Copied(tensor.flatten_all()?.to_vec1::<f32>()?)
            }
        };
        Ok(Self { name, shape: tensor.dims(), values })
    }
}

impl Learner {
    /// A learner that begins as the configuration's seed says.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(config: &Config, device: &Device) -> Result<Self, LearnerError> {
        let model = Mae::seeded(config.model(), config.seed, device)?;
        Ok(Self::Composed(Box::new(Composed::new(model, config, device)?)))
    }

    /// A learner that goes on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint's weights or moments do not fit the configuration, each named, or the device has no room for them.
    pub fn resumed(config: &Config, loaded: Loaded, device: &Device) -> Result<Self, LearnerError> {
        let model = Mae::given(config.model(), loaded.weights, device)?;
        let mut composed = Composed::new(model, config, device)?;
        composed.optimizer.restore(loaded.moments, loaded.state.updates())?;
        Ok(Self::Composed(Box::new(composed)))
    }

    /// Where the loader is to make batches.
    pub fn memory(&self) -> MemoryKind {
        match self {
            Self::Composed(composed) => composed.uploader.memory(),
        }
    }

    /// Takes a batch to where it is computed.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn upload(&self, batch: Batch) -> Result<Uploaded, LearnerError> {
        match self {
            Self::Composed(composed) => Ok(Uploaded::Device(composed.uploader.upload(batch)?)),
        }
    }

    /// Forward and backward of a batch; adds `share` times its gradients to those that wait for the next update. Gives its loss; where that is not finite, there are
    /// no gradients to add.
    ///
    /// # Errors
    /// When the device fails.
    pub fn accumulate(&mut self, batch: Batch, share: f64) -> Result<f64, LearnerError> {
        let batch = self.upload(batch)?;
        self.accumulate_uploaded(&batch, share)
    }

    /// [`Self::accumulate`], of a batch that is there already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn accumulate_uploaded(&mut self, batch: &Uploaded, share: f64) -> Result<f64, LearnerError> {
        match (self, batch) {
            (Self::Composed(composed), Uploaded::Device(batch)) => Ok(composed.accumulate(batch, share)?),
        }
    }

    /// Clips the gradients, takes a step along them at rate `lr`, and clears them. Gives their global norm before clipping; when that is not finite, no weight and
    /// no moment is changed. Without gradients the norm is NaN.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update(&mut self, lr: f64) -> Result<f64, LearnerError> {
        match self {
            Self::Composed(composed) => match composed.waiting.take() {
                Some(gradients) => Ok(composed.optimizer.step_along(gradients, lr)?),
                None => Ok(f64::NAN),
            },
        }
    }

    /// Forgets the gradients that wait.
    pub fn discard(&mut self) {
        match self {
            Self::Composed(composed) => composed.waiting = None,
        }
    }

    /// Updates that have changed the weights since the run began: the optimiser's own count.
    pub const fn updates(&self) -> u64 {
        match self {
            Self::Composed(composed) => composed.optimizer.steps(),
        }
    }

    /// Trainable values.
    pub fn parameter_count(&self) -> usize {
        match self {
            Self::Composed(composed) => composed.model.parameters().count(),
        }
    }

    /// The weights, under the reference's names, in the order of their names.
    ///
    /// # Errors
    /// When the device fails.
    pub fn weights(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self {
            Self::Composed(composed) => {
                let weights = composed.model.parameters().iter();
                Ok(weights.map(|(name, weight)| NamedValues::of_tensor(name.to_owned(), weight.as_tensor())).collect::<Result<_, _>>()?)
            }
        }
    }

    /// The moments of each weight, as `first/NAME` and `second/NAME`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn moments(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self {
            Self::Composed(composed) => {
                let moments = composed.optimizer.moments();
                Ok(moments.map(|(name, moment)| NamedValues::of_tensor(name, moment)).collect::<Result<_, _>>()?)
            }
        }
    }

    /// What decides the model's shapes.
    pub const fn model_config(&self) -> &MaeConfig {
        match self {
            Self::Composed(composed) => composed.model.config(),
        }
    }

    /// What the model makes of a batch of whole clips.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the batch is not of whole clips.
    pub fn reconstruct(&self, batch: Batch) -> Result<Reconstruction, LearnerError> {
        match self {
            Self::Composed(composed) => Ok(composed.reconstruct(batch)?),
        }
    }
}

/// A learner of candle's operations: its graph is taken back by candle, and its gradients are tensors.
#[derive(Debug)]
pub struct Composed {
    model: Mae,
    optimizer: AdamW,
    uploader: Uploader,
    /// The gradients that wait, in the order of the parameters.
    waiting: Option<Vec<Tensor>>,
}

impl Composed {
    fn new(model: Mae, config: &Config, device: &Device) -> Result<Self, LearnerError> {
        let optimizer = AdamW::new(model.parameters(), config.optimizer.clone())?;
        Ok(Self { model, optimizer, uploader: Uploader::new(device)?, waiting: None })
    }

    fn accumulate(&mut self, batch: &DeviceBatch, share: f64) -> candle_core::Result<f64> {
        let loss = self.model.loss(batch)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Ok(value);
        }
        let gradients = self.optimizer.gradients(&loss.backward()?)?;
        // A step of one batch has exactly its gradients.
        let shares: Vec<Tensor> =
            if share == 1.0 { gradients } else { gradients.into_iter().map(|gradient| gradient * share).collect::<Result<_, _>>()? };
        self.waiting = Some(match self.waiting.take() {
            None => shares,
            Some(waiting) => waiting.into_iter().zip(shares).map(|(sum, share)| sum + share).collect::<Result<_, _>>()?,
        });
        Ok(value)
    }

    fn reconstruct(&self, batch: Batch) -> candle_core::Result<Reconstruction> {
        let batch = self.uploader.upload(batch)?;
        let DevicePixels::Clips(clips) = &batch.pixels else { panic!("a reconstruction is of whole clips") };
        let target = self.model.target(clips)?;
        let predicted = target.denormalise(&self.model.forward(clips, &batch.masking)?)?;
        Ok(Reconstruction { truth: target.denormalise(&target.values)?, predicted })
    }
}
