//! What learns, behind one type: weights, the gradients that wait for a step, and the optimiser's moments, wherever and however they are computed.
//!
//! The loop knows nothing of tensors: it hands batches in, asks for a step, and has the values written down.

use crate::checkpoint::Loaded;
use crate::config::Config;
use crate::data::{DeviceBatch, Uploader};
use crate::fused::{self, Fused, Patches, Precision, Resources};
use crate::model::{Mae, MaeConfig, ParameterError, TargetKind};
use crate::optimizer::AdamW;
use candle_core::{DType, Device, Storage, StorageRef, Tensor};
use pipeline::batch::{Batch, Pixels, ValueType, values};
use pipeline::buffers::MemoryKind;
use pipeline::mask::Masks;
use std::collections::HashMap;
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
    Composed(Box<Composed>),
    /// Of fused operations, on the processor: several times as fast, with the same results.
    Fused(Box<FusedLearner>),
}

/// A batch where a learner computes.
#[derive(Debug)]
pub enum Uploaded {
    /// As tensors on the device.
    Device(DeviceBatch),
    /// In the loader's own memory.
    Host(Batch),
}

/// What a model makes of whole clips.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[clips, tokens, values]`: the frames that are predicted, normalised RGB; values ordered frame, row, column, channel.
    pub truth: Tensor,
    /// The same, predicted; none of histograms, which are no picture. Mean and deviation of normalised patches are borrowed from the true ones: the model has no other.
    pub predicted: Option<Tensor>,
    /// What the model itself predicts, where its target is normalised patch by patch; none where it predicts pixels as they are.
    pub normalised: Option<NormalisedPatches>,
}

/// Patches as a model predicts them, and what was normalised away.
#[derive(Debug)]
pub struct NormalisedPatches {
    /// `[clips, tokens, values]`: predictions in the scale of normalised patches.
    pub predicted: Tensor,
    /// `[clips, tokens, 1]`: mean of each true patch.
    pub mean: Tensor,
    /// `[clips, tokens, 1]`: standard deviation of each true patch.
    pub deviation: Tensor,
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

    fn of_view(name: String, view: fused::View<'a>) -> Self {
        Self { name, shape: view.shape, values: Values::Slice(view.values) }
    }
}

/// In the order of their names.
fn sorted<'a>(values: impl Iterator<Item = NamedValues<'a>>) -> Vec<NamedValues<'a>> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    values
}

/// A batch's patches, as they lie in the loader's memory.
///
/// # Panics
/// When the batch is of whole clips.
pub fn patches(batch: &Batch) -> Patches<'_> {
    let typed = |bytes| match batch.format.values {
        ValueType::U8 => fused::Values::U8(bytes),
        ValueType::F32 => fused::Values::F32(values(bytes)),
        ValueType::Bf16 => fused::Values::Bf16(values(bytes)),
    };
    let Pixels::Patches { visible, target } = batch.pixels() else { panic!("training is on patches") };
    Patches { masks: batch.masks(), visible: typed(visible), target: typed(target) }
}

impl Learner {
    /// A learner that begins as the configuration's seed says. On the processor it uses so many threads, whose number changes nothing in the results.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(config: &Config, device: &Device, threads: usize) -> Result<Self, LearnerError> {
        let model = Mae::seeded(config.model(), config.seed, device)?;
        if device.is_cpu() {
            Ok(Self::Fused(Box::new(FusedLearner::new(&model, config, threads)?)))
        } else {
            Self::composed(model, config, device)
        }
    }

    /// A learner of candle's operations, whatever the device.
    ///
    /// # Errors
    /// When the device has no room for it, or the configuration asks for what only the fused one has.
    pub fn composed(model: Mae, config: &Config, device: &Device) -> Result<Self, LearnerError> {
        for (key, is_set) in [("dtype", config.compute.dtype != Precision::F32), ("recompute", config.compute.recompute)] {
            if is_set {
                return Err(LearnerError::ProcessorOnly { key });
            }
        }
        Ok(Self::Composed(Box::new(Composed::new(model, config, device)?)))
    }

    /// A learner that goes on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint's weights or moments do not fit the configuration, each named, or the device has no room for them.
    pub fn resumed(config: &Config, loaded: Loaded, device: &Device, threads: usize) -> Result<Self, LearnerError> {
        let model = Mae::given(config.model(), loaded.weights, device)?;
        if device.is_cpu() {
            let mut learner = FusedLearner::new(&model, config, threads)?;
            learner.restore(loaded.moments, loaded.state.updates())?;
            return Ok(Self::Fused(Box::new(learner)));
        }
        let mut learner = Self::composed(model, config, device)?;
        if let Self::Composed(composed) = &mut learner {
            composed.optimizer.restore(loaded.moments, loaded.state.updates())?;
        }
        Ok(learner)
    }

    /// Where the loader is to make batches.
    pub fn memory(&self) -> MemoryKind {
        match self {
            Self::Composed(composed) => composed.uploader.memory(),
            Self::Fused(_) => MemoryKind::Host,
        }
    }

    /// Takes a batch to where it is computed.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn upload(&self, batch: Batch) -> Result<Uploaded, LearnerError> {
        match self {
            Self::Composed(composed) => Ok(Uploaded::Device(composed.uploader.upload(batch)?)),
            Self::Fused(_) => Ok(Uploaded::Host(batch)),
        }
    }

    /// Forward and backward of a batch; adds `share` times its gradients to those that wait for the next update. Gives its loss; where that is not
    /// finite, there are no gradients to add.
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
            (Self::Fused(learner), Uploaded::Host(batch)) => Ok(learner.fused.accumulate(&patches(batch), share)),
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
            Self::Composed(composed) => match composed.waiting.take() {
                Some(gradients) => Ok(composed.optimizer.step_along(gradients, lr)?),
                None => Ok(f64::NAN),
            },
            Self::Fused(learner) => Ok(learner.fused.update(lr)),
        }
    }

    /// Forgets the gradients that wait.
    pub fn discard(&mut self) {
        match self {
            Self::Composed(composed) => composed.waiting = None,
            Self::Fused(learner) => learner.fused.discard(),
        }
    }

    /// Updates that have changed the weights since the run began: the optimiser's own count.
    pub const fn updates(&self) -> u64 {
        match self {
            Self::Composed(composed) => composed.optimizer.steps(),
            Self::Fused(learner) => learner.fused.steps(),
        }
    }

    /// Trainable values.
    pub fn parameter_count(&self) -> usize {
        match self {
            Self::Composed(composed) => composed.model.parameters().count(),
            Self::Fused(learner) => learner.fused.count(),
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
            Self::Fused(learner) => Ok(sorted(learner.fused.weights().map(|view| NamedValues::of_view(view.name.to_owned(), view)))),
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
            Self::Fused(learner) => {
                let first = learner.fused.first_moments().map(|view| NamedValues::of_view(format!("first/{}", view.name), view));
                let second = learner.fused.second_moments().map(|view| NamedValues::of_view(format!("second/{}", view.name), view));
                Ok(sorted(first.chain(second)))
            }
        }
    }

    /// What decides the model's shapes.
    pub const fn model_config(&self) -> &MaeConfig {
        match self {
            Self::Composed(composed) => composed.model.config(),
            Self::Fused(learner) => &learner.config,
        }
    }

    /// What the model makes of a batch of whole clips.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When the batch is not of whole clips.
    pub fn reconstruct(&mut self, batch: Batch) -> Result<Reconstruction, LearnerError> {
        match self {
            Self::Composed(composed) => {
                let Composed { model, uploader, .. } = &**composed;
                let batch = uploader.upload(batch)?;
                let predicted = model.forward(batch.clips(), &batch.masking)?;
                Ok(reconstruction(model.config(), batch.clips(), predicted)?)
            }
            Self::Fused(learner) => learner.reconstruct(batch),
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
}

/// A learner of fused operations.
#[derive(Debug)]
pub struct FusedLearner {
    config: MaeConfig,
    fused: Fused,
}

impl FusedLearner {
    fn new(model: &Mae, config: &Config, threads: usize) -> Result<Self, LearnerError> {
        let resources = Resources { threads, recomputes: config.compute.recompute };
        let fused = Fused::new(*model.config(), model.parameters(), config.optimizer.clone(), config.compute.dtype, resources)?;
        Ok(Self { config: *model.config(), fused })
    }

    /// Goes on with stored moments.
    fn restore(&mut self, mut moments: HashMap<String, Tensor>, updates: u64) -> Result<(), LearnerError> {
        let (mut problems, mut failed) = (Vec::new(), None);
        self.fused.restore(updates, |name, shape, values| match moments.remove(name) {
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

    /// Clip by clip, so that a picture takes no more memory than a step.
    fn reconstruct(&mut self, batch: Batch) -> Result<Reconstruction, LearnerError> {
        let config = self.config;
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
            let of_masked = self.fused.predict(Masks::new(row, tokens, visible), fused::Values::F32(&seen));
            for (&token, of_token) in masked.iter().zip(of_masked.chunks_exact(values)) {
                predicted[token as usize * values..][..values].copy_from_slice(of_token);
            }
        }
        let predicted = Tensor::from_vec(predicted, (rows.len(), tokens, values), &Device::Cpu)?;
        Ok(reconstruction(&config, clips, predicted)?)
    }
}

/// What predictions of clips, `[clips, tokens, values]`, look like; visible tokens need none. Clips are `[clips, 3, frames, size, size]`, normalised RGB.
pub(crate) fn reconstruction(config: &MaeConfig, clips: &Tensor, predicted: Tensor) -> candle_core::Result<Reconstruction> {
    let truth = config.pixels(clips)?;
    if config.target == TargetKind::Hog {
        return Ok(Reconstruction { truth, predicted: None, normalised: None });
    }
    let target = config.target_of_patches(&truth)?;
    let borrowing = target.denormalise(&predicted)?;
    let normalised = target.statistics.map(|(mean, deviation)| NormalisedPatches { predicted, mean, deviation });
    Ok(Reconstruction { truth, predicted: Some(borrowing), normalised })
}
