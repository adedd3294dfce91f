//! From host to device: the only module where clips and masks become tensors.

use crate::model::{DeviceBatch, DevicePixels, Masking};
use candle_core::{DType, Device, Result, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{
    Storage,
    cuda_backend::cudarc::driver::{CudaEvent, CudaStream},
    cuda_backend::{CudaDevice, CudaStorage, WrapErr},
    op::BackpropOp,
};
use pipeline::loader::batch::{Batch, BatchFormat, Form, Pixels, ValueType, values};
#[cfg(feature = "cuda")]
use pipeline::loader::buffers::Copying;
use pipeline::loader::buffers::MemoryKind;
use pipeline::sampling::mask::Masks;
use pipeline::transform::{MEAN, STD};
use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// Copies batches to a device.
///
/// Bytes for a GPU are copied on a stream of their own: the loader's buffers are pinned, a copy
/// runs beside the computation, and its buffer returns to the loader when it has ended.
#[derive(Debug)]
pub struct Uploader {
    device: Device,
    #[cfg(feature = "cuda")]
    copies: Option<Arc<CudaStream>>,
}

impl Uploader {
    /// An uploader to `device`.
    ///
    /// # Errors
    /// When no stream can be created on the device.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            copies: match device {
                Device::Cuda(cuda) => Some(cuda.cuda_stream().context().new_stream().w()?),
                _ => None,
            },
        })
    }

    /// The memory in which the loader should make batches.
    pub fn memory(&self) -> MemoryKind {
        #[cfg(feature = "cuda")]
        if let Some(copies) = &self.copies {
            return MemoryKind::Pinned(Arc::clone(copies.context()));
        }
        MemoryKind::Host
    }

    /// Copies a batch to the device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn upload(&self, batch: Batch) -> Result<DeviceBatch> {
        let format = batch.format;
        let masking = Masking::new(batch.masks(), &self.device)?;
        let shapes = shapes(&batch.format, batch.masks());
        device_batch(&format, self.tensors(batch, &shapes)?, masking)
    }

    /// Copies some clips of a batch to the device, and waits for the copy.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn upload_clips(&self, batch: &Batch, clips: Range<usize>) -> Result<DeviceBatch> {
        let masks = batch.masks().of(clips.clone());
        let shapes = shapes(&batch.format, masks);
        let tensors = self.slices(batch, clips, &shapes)?;
        device_batch(&batch.format, tensors, Masking::new(masks, &self.device)?)
    }

    /// The parts of a batch that hold pixels, in their shapes, not yet normalised.
    fn tensors(&self, batch: Batch, shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if let (Some(copies), Device::Cuda(cuda), ValueType::U8) =
            (&self.copies, &self.device, batch.format.values)
            && batch.buffer.pinned().is_some()
        {
            return copied(copies, cuda, batch, shapes);
        }
        let clips = 0..batch.len();
        self.slices(&batch, clips, shapes)
    }

    /// The pixels of some clips of a batch, in the shapes of these clips, not yet normalised.
    fn slices(
        &self,
        batch: &Batch,
        clips: Range<usize>,
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>> {
        let parts = match batch.pixels() {
            Pixels::Clips(pixels) | Pixels::Tokens(pixels) => vec![pixels],
            Pixels::Patches { visible, target } => vec![visible, target],
        };
        let tensor = |(bytes, shape): (&[u8], &Vec<usize>)| {
            let of_clip = shape[1..].iter().product::<usize>() * batch.format.values.bytes();
            let bytes = &bytes[clips.start * of_clip..clips.end * of_clip];
            match batch.format.values {
                ValueType::U8 => Tensor::from_slice(bytes, shape.as_slice(), &self.device),
                ValueType::F32 => {
                    Tensor::from_slice(values::<f32>(bytes), shape.as_slice(), &self.device)
                }
                ValueType::Bf16 => {
                    Tensor::from_slice(values::<half::bf16>(bytes), shape.as_slice(), &self.device)
                }
            }
        };
        parts.into_iter().zip(shapes).map(tensor).collect()
    }
}

/// Shapes of the parts of a batch that hold pixels, of the clips of `masks`.
fn shapes(format: &BatchFormat, masks: Masks<'_>) -> Vec<Vec<usize>> {
    let (grid, clips) = (format.grid, masks.len());
    match format.form {
        Form::Clips => vec![vec![clips, 3, grid.frames, grid.size, grid.size]],
        Form::Tokens => vec![vec![clips, grid.tokens(), grid.tubelet_values()]],
        Form::Patches { target } => {
            vec![
                vec![clips, masks.visible(), grid.tubelet_values()],
                vec![clips, masks.predicted(), target.values(grid)],
            ]
        }
    }
}

/// A batch of its parts, which are not normalised yet.
fn device_batch(
    format: &BatchFormat,
    tensors: Vec<Tensor>,
    masking: Masking,
) -> Result<DeviceBatch> {
    let mut tensors = tensors
        .into_iter()
        .map(|tensor| normalised(tensor, format.values));
    let mut next = || tensors.next().expect("a tensor of each shape");
    let pixels = match format.form {
        Form::Clips => DevicePixels::Clips(next()?),
        Form::Tokens => DevicePixels::Tokens(next()?),
        Form::Patches { .. } => DevicePixels::Patches {
            visible: next()?,
            target: next()?,
        },
    };
    Ok(DeviceBatch { pixels, masking })
}

/// Values of type `values` as normalised f32. Bytes are normalised here, on the device.
fn normalised(tensor: Tensor, values: ValueType) -> Result<Tensor> {
    match values {
        ValueType::F32 => Ok(tensor),
        ValueType::Bf16 => tensor.to_dtype(DType::F32),
        ValueType::U8 => {
            let mean = f64::from(MEAN);
            let std = f64::from(STD);
            tensor
                .to_dtype(DType::F32)?
                .affine(1.0 / (255.0 * std), -mean / std)
        }
    }
}

/// A batch of bytes, copied whole on the stream of copies, and split on the device.
#[cfg(feature = "cuda")]
fn copied(
    copies: &Arc<CudaStream>,
    cuda: &CudaDevice,
    batch: Batch,
    shapes: &[Vec<usize>],
) -> Result<Vec<Tensor>> {
    let layout = batch.buffer.layout().clone();
    let clips = batch.len();
    let pinned = batch
        .buffer
        .pinned()
        .expect("the caller has checked that it is pinned");
    // SAFETY: the copy below writes all of it, and nothing reads it before.
    let mut bytes = unsafe { copies.alloc::<u8>(pinned.len()) }.w()?;
    copies.memcpy_htod(pinned, &mut bytes).w()?;
    let copy = copies.record_event(None).w()?;
    // The computation that follows waits for the copy; the host does not.
    cuda.cuda_stream().wait(&copy).w()?;
    batch.buffer.lend(Box::new(Copy(copy)));
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(bytes, cuda.clone()));
    let whole = Tensor::from_storage(storage, layout.bytes(), BackpropOp::none(), false);
    let pixels = shapes.iter().enumerate().map(|(part, shape)| {
        let range = layout.range(part + 1, clips);
        whole
            .narrow(0, range.start, range.len())?
            .reshape(shape.as_slice())
    });
    pixels.collect()
}

/// A copy in progress, by the event that marks its end.
#[cfg(feature = "cuda")]
struct Copy(CudaEvent);

#[cfg(feature = "cuda")]
impl Copying for Copy {
    fn is_done(&self) -> bool {
        self.0.is_complete()
    }

    fn wait(&self) {
        // A device that has failed no longer reads the buffer.
        let _ = self.0.synchronize();
    }
}
