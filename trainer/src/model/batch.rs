//! What the model takes: a batch on a device.

use super::masking::Masking;
use candle_core::Tensor;

/// A batch on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// Its pixels.
    pub pixels: DevicePixels,
    /// Which tokens are visible, and which are predicted.
    pub masking: Masking,
}

impl DeviceBatch {
    /// The pixels of whole clips: `[clips, 3, frames, size, size]`.
    ///
    /// # Panics
    /// When the batch is of patches.
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
    /// The same tubelet by tubelet: `[clips, tokens, 3 * tubelet * patch * patch]`.
    Tokens(Tensor),
    /// What the model sees and what it is to predict.
    Patches {
        /// `[clips, visible, 3 * tubelet * patch * patch]`
        visible: Tensor,
        /// `[clips, predicted, values]`: pixels, `slices * patch * patch * 3` of them, or histograms; see [`pipeline::transform::TargetForm`].
        target: Tensor,
    },
}
