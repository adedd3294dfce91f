//! A batch's masks on the device.

use candle_core::{Device, Result, Tensor};
use pipeline::mask::Mask;

/// The masks of a batch, as the row numbers that the model gathers by.
#[derive(Debug, Clone)]
pub struct Masking {
    clips: usize,
    visible: usize,
    visible_tokens: Tensor,
    visible_rows: Tensor,
    decoder_rows: Tensor,
    mask: Tensor,
}

impl Masking {
    /// Masks of a batch, all with the same number of visible tokens.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(masks: &[Mask], device: &Device) -> Result<Self> {
        let clips = masks.len();
        let visible = masks.first().map_or(0, |mask| mask.visible.len());
        let tokens = visible + masks.first().map_or(0, |mask| mask.masked.len());
        let mask_token_row = (clips * visible) as u32;
        let (mut visible_tokens, mut visible_rows, mut decoder_rows, mut masked) = (vec![], vec![], vec![], vec![]);
        for (clip, mask) in masks.iter().enumerate() {
            debug_assert!(mask.visible.len() == visible && visible + mask.masked.len() == tokens, "masks of one size");
            visible_tokens.extend_from_slice(&mask.visible);
            visible_rows.extend(mask.visible.iter().map(|&token| (clip * tokens) as u32 + token));
            for row in mask.restore() {
                let is_visible = (row as usize) < visible;
                decoder_rows.push(if is_visible { (clip * visible) as u32 + row } else { mask_token_row });
                masked.push(if is_visible { 0.0f32 } else { 1.0 });
            }
        }
        Ok(Self {
            clips,
            visible,
            visible_tokens: Tensor::new(visible_tokens, device)?,
            visible_rows: Tensor::new(visible_rows, device)?,
            decoder_rows: Tensor::new(decoder_rows, device)?,
            mask: Tensor::from_vec(masked, (clips, tokens), device)?,
        })
    }

    /// Clips of the batch.
    pub const fn clips(&self) -> usize {
        self.clips
    }

    /// Visible tokens of each clip.
    pub const fn visible(&self) -> usize {
        self.visible
    }

    /// `[clips, tokens]`, f32: 0 visible, 1 masked.
    pub const fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// `[clips * visible]`, u32: the visible tokens of each clip.
    pub(crate) const fn visible_tokens(&self) -> &Tensor {
        &self.visible_tokens
    }

    /// `[clips * visible]`, u32: the same as rows of `[clips * tokens, ..]`.
    pub(crate) const fn visible_rows(&self) -> &Tensor {
        &self.visible_rows
    }

    /// `[clips * tokens]`, u32: for each token of the decoder its row among the `clips * visible` encoded ones, or the row after these, which is
    /// the mask token's.
    pub(crate) const fn decoder_rows(&self) -> &Tensor {
        &self.decoder_rows
    }
}
