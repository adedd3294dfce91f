//! From host to device: the only room where clips and masks become tensors.

use crate::model::Masking;
use candle_core::{Device, Result, Tensor};
use pipeline::loader::Batch;
use schemas::geometry::PatchGrid;

/// A batch on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// `[clips, 3, frames, size, size]`, f32, normalised RGB.
    pub clips: Tensor,
    /// Which tokens are visible.
    pub masking: Masking,
}

impl DeviceBatch {
    /// Takes a batch of clips of `grid` to the device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(batch: Batch, grid: PatchGrid, device: &Device) -> Result<Self> {
        let shape = (batch.masks.len(), 3, grid.frames, grid.size, grid.size);
        Ok(Self { clips: Tensor::from_slice(&batch.pixels, shape, device)?, masking: Masking::new(&batch.masks, device)? })
    }
}
