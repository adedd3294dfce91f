//! A batch's masks on the device.

use candle_core::{Device, Result, Tensor};
use pipeline::mask::Masks;

/// The masks of a batch, as the row numbers that the model gathers by.
#[derive(Debug, Clone)]
pub struct Masking {
    clips: usize,
    visible: usize,
    visible_tokens: Tensor,
    visible_rows: Tensor,
    masked_rows: Tensor,
    decoder_rows: Tensor,
    mask: Tensor,
}

impl Masking {
    /// Masks of a batch, on `device`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(masks: Masks<'_>, device: &Device) -> Result<Self> {
        let (clips, visible, tokens) = (masks.len(), masks.visible(), masks.tokens());
        let mask_token_row = (clips * visible) as u32;
        let (mut visible_tokens, mut visible_rows) = (Vec::with_capacity(clips * visible), Vec::with_capacity(clips * visible));
        let mut masked_rows = Vec::with_capacity(clips * (tokens - visible));
        let (mut decoder_rows, mut masked) = (vec![mask_token_row; clips * tokens], vec![1f32; clips * tokens]);
        for (clip, mask) in masks.iter().enumerate() {
            let row = |token: u32| (clip * tokens) as u32 + token;
            visible_tokens.extend_from_slice(mask.visible);
            visible_rows.extend(mask.visible.iter().map(|&token| row(token)));
            masked_rows.extend(mask.masked.iter().map(|&token| row(token)));
            for (at, &token) in mask.visible.iter().enumerate() {
                decoder_rows[row(token) as usize] = (clip * visible + at) as u32;
                masked[row(token) as usize] = 0.0;
            }
        }
        Ok(Self {
            clips,
            visible,
            visible_tokens: Tensor::new(visible_tokens, device)?,
            visible_rows: Tensor::new(visible_rows, device)?,
            masked_rows: Tensor::new(masked_rows, device)?,
            decoder_rows: Tensor::new(decoder_rows, device)?,
            mask: Tensor::from_vec(masked, (clips, tokens), device)?,
        })
    }

    /// No masks at all: every token of `clips` clips of `tokens` tokens is visible.
    ///
    /// # Errors
    /// When the device fails.
    pub fn all_visible(clips: usize, tokens: usize, device: &Device) -> Result<Self> {
        let rows: Vec<u32> = (0..clips).flat_map(|_| 0..tokens as u32).collect();
        Self::new(Masks::new(&rows, tokens, tokens), device)
    }

    /// Whether every token is visible.
    pub fn hides_nothing(&self) -> bool {
        self.visible_rows.elem_count() == self.decoder_rows.elem_count()
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

    /// `[clips * masked]`, u32: the masked tokens of each clip, as rows of `[clips * tokens, ..]`.
    pub(crate) const fn masked_rows(&self) -> &Tensor {
        &self.masked_rows
    }

    /// `[clips * tokens]`, u32: for each token of the decoder its row among the `clips * visible` encoded ones, or the row after these, which is
    /// the mask token's.
    pub(crate) const fn decoder_rows(&self) -> &Tensor {
        &self.decoder_rows
    }
}
