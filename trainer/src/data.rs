//! From host to device: the only room where clips and masks become tensors.

use crate::model::Masking;
use candle_core::{DType, Device, Result, Tensor};
use pipeline::batch::{Batch, Pixels, ValueType, values};
use pipeline::transform::{MEAN, STD};

/// A batch on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// Its pixels.
    pub pixels: DevicePixels,
    /// Which tokens are visible.
    pub masking: Masking,
}

/// Pixels on the device, f32, normalised RGB.
#[derive(Debug)]
pub enum DevicePixels {
    /// `[clips, 3, frames, size, size]`
    Clips(Tensor),
    /// What the model sees and what it is to predict.
    Patches {
        /// `[clips, visible, 3 * tubelet * patch * patch]`
        visible: Tensor,
        /// `[clips, masked, slices * patch * patch * 3]`
        target: Tensor,
    },
}

impl DeviceBatch {
    /// Takes a batch to the device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(batch: Batch, device: &Device) -> Result<Self> {
        let (grid, clips, masks) = (batch.format.grid, batch.len(), batch.masks());
        let tensor = |bytes: &[u8], shape: &[usize]| normalised(bytes, batch.format.values, shape, device);
        let pixels = match batch.pixels() {
            Pixels::Clips(bytes) => DevicePixels::Clips(tensor(bytes, &[clips, 3, grid.frames, grid.size, grid.size])?),
            Pixels::Patches { visible, target } => {
                let masked = masks.tokens() - masks.visible();
                DevicePixels::Patches {
                    visible: tensor(visible, &[clips, masks.visible(), grid.tubelet_values()])?,
                    target: tensor(target, &[clips, masked, target.len() / batch.format.values.bytes() / (clips * masked)])?,
                }
            }
        };
        Ok(Self { pixels, masking: Masking::new(masks, device)? })
    }
}

/// Values of type `kind` as normalised f32 on the device. Bytes are normalised there.
fn normalised(bytes: &[u8], kind: ValueType, shape: &[usize], device: &Device) -> Result<Tensor> {
    match kind {
        ValueType::F32 => Tensor::from_slice(values::<f32>(bytes), shape, device),
        ValueType::Bf16 => Tensor::from_slice(values::<half::bf16>(bytes), shape, device)?.to_dtype(DType::F32),
        ValueType::U8 => {
            let (mean, std) = (f64::from(MEAN), f64::from(STD));
            Tensor::from_slice(bytes, shape, device)?.to_dtype(DType::F32)?.affine(1.0 / (255.0 * std), -mean / std)
        }
    }
}
