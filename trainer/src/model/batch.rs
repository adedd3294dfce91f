//! Model inputs: a batch of clips and masks on a device.

use super::masking::Masking;
use candle_core::Tensor;

/// A batch on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// The pixels.
    pub pixels: DevicePixels,
    /// The visible and the predicted tokens of each clip.
    pub masking: Masking,
}

impl DeviceBatch {
    /// The pixels of whole clips: `[clips, 3, frames, size, size]`.
    ///
    /// # Panics
    /// When the batch holds patches.
    pub fn clips(&self) -> &Tensor {
        match &self.pixels {
            DevicePixels::Clips(clips) => clips,
            DevicePixels::Patches { .. } | DevicePixels::Tokens(_) => panic!("the batch is of patches"),
        }
    }
}

/// Pixels on the device, f32, normalised RGB.
#[derive(Debug)]
pub enum DevicePixels {
    /// `[clips, 3, frames, size, size]`
    Clips(Tensor),
    /// The same values, tubelet by tubelet: `[clips, tokens, 3 * tubelet * patch * patch]`.
    Tokens(Tensor),
    /// The model's input and its target.
    Patches {
        /// `[clips, visible, 3 * tubelet * patch * patch]`
        visible: Tensor,
        /// `[clips, predicted, values]`: pixels, `slices * patch * patch * 3` of them, or
        /// histograms; see [`pipeline::transform::TargetForm`].
        target: Tensor,
    },
}
