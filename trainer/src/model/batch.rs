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
    /// `None` for another form.
    pub const fn clips(&self) -> Option<&Tensor> {
        match &self.pixels {
            DevicePixels::Clips(clips) => Some(clips),
            DevicePixels::Patches { .. } | DevicePixels::Tokens(_) => None,
        }
    }

    /// All tokens, [`DevicePixels::Tokens`]; `None` for another form.
    pub const fn tokens(&self) -> Option<&Tensor> {
        match &self.pixels {
            DevicePixels::Tokens(tokens) => Some(tokens),
            DevicePixels::Clips(_) | DevicePixels::Patches { .. } => None,
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
