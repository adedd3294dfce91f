//! From host to device: the only room where clips and masks become tensors.

use crate::model::{DeviceBatch, DevicePixels, Masking};
use candle_core::{DType, Device, Result, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{
    Storage,
    cuda_backend::cudarc::driver::{CudaEvent, CudaStream},
    cuda_backend::{CudaDevice, CudaStorage, WrapErr},
    op::BackpropOp,
};
use pipeline::loader::batch::{Batch, Form, Pixels, ValueType, values};
#[cfg(feature = "cuda")]
use pipeline::loader::buffers::Copying;
use pipeline::loader::buffers::MemoryKind;
use pipeline::transform::{MEAN, STD};
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// Takes batches to a device.
///
/// To a GPU, bytes go by a stream of copies of their own: the loader's buffers are pinned, a copy runs beside the computation, and its buffer goes back to
/// the loader when it has ended.
#[derive(Debug)]
pub struct Uploader {
    device: Device,
    #[cfg(feature = "cuda")]
    copies: Option<Arc<CudaStream>>,
}

impl Uploader {
    /// To `device`.
    ///
    /// # Errors
    /// When the device gives no stream.
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

    /// Where the loader is to make the batches.
    pub fn memory(&self) -> MemoryKind {
        #[cfg(feature = "cuda")]
        if let Some(copies) = &self.copies {
            return MemoryKind::Pinned(Arc::clone(copies.context()));
        }
        MemoryKind::Host
    }

    /// Takes a batch to the device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn upload(&self, batch: Batch) -> Result<DeviceBatch> {
        let (grid, clips, kind, form) = (batch.format.grid, batch.len(), batch.format.values, batch.format.form);
        let masks = batch.masks();
        let (visible, predicted) = (masks.visible(), masks.predicted());
        let masking = Masking::new(masks, &self.device)?;
        let shapes = match form {
            Form::Clips => vec![vec![clips, 3, grid.frames, grid.size, grid.size]],
            Form::Tokens => vec![vec![clips, grid.tokens(), grid.tubelet_values()]],
            Form::Patches { target } => vec![vec![clips, visible, grid.tubelet_values()], vec![clips, predicted, target.values(grid)]],
        };
        let mut tensors = self.tensors(batch, &shapes)?.into_iter().map(|tensor| normalised(tensor, kind));
        let mut next = || tensors.next().expect("a tensor of each shape");
        let pixels = match form {
            Form::Clips => DevicePixels::Clips(next()?),
            Form::Tokens => DevicePixels::Tokens(next()?),
            Form::Patches { .. } => DevicePixels::Patches { visible: next()?, target: next()? },
        };
        Ok(DeviceBatch { pixels, masking })
    }

    /// The parts of a batch that hold pixels, in their shapes, as they are.
    fn tensors(&self, batch: Batch, shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if let (Some(copies), Device::Cuda(cuda), ValueType::U8) = (&self.copies, &self.device, batch.format.values)
            && batch.buffer.pinned().is_some()
        {
            return copied(copies, cuda, batch, shapes);
        }
        let parts = match batch.pixels() {
            Pixels::Clips(pixels) | Pixels::Tokens(pixels) => vec![pixels],
            Pixels::Patches { visible, target } => vec![visible, target],
        };
        let tensor = |(bytes, shape): (&[u8], &Vec<usize>)| match batch.format.values {
            ValueType::U8 => Tensor::from_slice(bytes, shape.as_slice(), &self.device),
            ValueType::F32 => Tensor::from_slice(values::<f32>(bytes), shape.as_slice(), &self.device),
            ValueType::Bf16 => Tensor::from_slice(values::<half::bf16>(bytes), shape.as_slice(), &self.device),
        };
        parts.into_iter().zip(shapes).map(tensor).collect()
    }
}

/// Values of type `kind` as normalised f32. Bytes are normalised here, on the device.
fn normalised(tensor: Tensor, kind: ValueType) -> Result<Tensor> {
    match kind {
        ValueType::F32 => Ok(tensor),
        ValueType::Bf16 => tensor.to_dtype(DType::F32),
        ValueType::U8 => {
            let (mean, std) = (f64::from(MEAN), f64::from(STD));
            tensor.to_dtype(DType::F32)?.affine(1.0 / (255.0 * std), -mean / std)
        }
    }
}

/// A batch of bytes, copied whole by the stream of copies, and cut on the device.
#[cfg(feature = "cuda")]
fn copied(copies: &Arc<CudaStream>, cuda: &CudaDevice, batch: Batch, shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
    let (layout, clips) = (batch.buffer.layout().clone(), batch.len());
    let pinned = batch.buffer.pinned().expect("the caller has seen that it is pinned");
    // SAFETY: all of it is copied to before anything reads it.
    let mut bytes = unsafe { copies.alloc::<u8>(pinned.len()) }.w()?;
    copies.memcpy_htod(pinned, &mut bytes).w()?;
    let copy = copies.record_event(None).w()?;
    // What is computed from now on waits for the copy; the host does not.
    cuda.cuda_stream().wait(&copy).w()?;
    batch.buffer.lend(Box::new(Copy(copy)));
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(bytes, cuda.clone()));
    let whole = Tensor::from_storage(storage, layout.bytes(), BackpropOp::none(), false);
    let pixels = shapes.iter().enumerate().map(|(part, shape)| {
        let range = layout.range(part + 1, clips);
        whole.narrow(0, range.start, range.len())?.reshape(shape.as_slice())
    });
    pixels.collect()
}

/// A copy on its way, by the event that marks its end.
#[cfg(feature = "cuda")]
struct Copy(CudaEvent);

#[cfg(feature = "cuda")]
impl Copying for Copy {
    fn is_done(&self) -> bool {
        self.0.is_complete()
    }

    fn wait(&self) {
        // A device that has failed reads nothing any more.
        let _ = self.0.synchronize();
    }
}
