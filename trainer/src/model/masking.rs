//! A batch's masks on the device.

use candle_core::{Device, Result, Tensor};
use pipeline::sampling::mask::Masks;

/// The masks of a batch, as the row indices by which the model gathers.
#[derive(Debug, Clone)]
pub struct Masking {
    clips: usize,
    visible: usize,
    predicted: usize,
    visible_tokens: Tensor,
    visible_rows: Tensor,
    predicted_rows: Tensor,
    decoder_rows: Tensor,
    decoded: Option<Decoded>,
    mask: Tensor,
}

/// The decoded tokens, where the decoder does not take all.
#[derive(Debug, Clone)]
struct Decoded {
    /// `[clips * decoded]`: token indices of each clip, ascending.
    tokens: Tensor,
    /// The same tokens as rows of `[clips * tokens, ..]`.
    rows: Tensor,
}

impl Masking {
    /// Uploads the masks of a batch to `device`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(masks: Masks<'_>, device: &Device) -> Result<Self> {
        let clips = masks.len();
        let visible = masks.visible();
        let predicted = masks.predicted();
        let tokens = masks.tokens();
        let decoded = visible + predicted;
        let mask_token_row = (clips * visible) as u32;
        let mut visible_tokens = Vec::with_capacity(clips * visible);
        let mut visible_rows = Vec::with_capacity(clips * visible);
        let mut predicted_rows = Vec::with_capacity(clips * predicted);
        let mut decoder_rows = Vec::with_capacity(clips * decoded);
        let mut loss_mask = Vec::with_capacity(clips * decoded);
        let mut decoded_tokens = Vec::with_capacity(clips * decoded);
        let mut decoded_rows = Vec::with_capacity(clips * decoded);
        // The decoded tokens of a clip, with the index among the visible ones where visible.
        let mut places: Vec<(u32, Option<u32>)> = Vec::with_capacity(decoded);
        for (clip, mask) in masks.iter().enumerate() {
            let row = |token: u32| (clip * tokens) as u32 + token;
            visible_tokens.extend_from_slice(mask.visible);
            visible_rows.extend(mask.visible.iter().map(|&token| row(token)));
            let visible_places = mask
                .visible
                .iter()
                .zip(0u32..)
                .map(|(&token, number)| (token, Some(number)));
            places.clear();
            places.extend(visible_places.chain(mask.predicted.iter().map(|&token| (token, None))));
            places.sort_unstable_by_key(|&(token, _)| token);
            for (at, &(token, number)) in places.iter().enumerate() {
                decoded_tokens.push(token);
                decoded_rows.push(row(token));
                match number {
                    Some(number) => decoder_rows.push((clip * visible) as u32 + number),
                    None => {
                        decoder_rows.push(mask_token_row);
                        predicted_rows.push((clip * decoded + at) as u32);
                    }
                }
                loss_mask.push(if number.is_some() { 0f32 } else { 1.0 });
            }
        }
        let decodes_some = decoded < tokens;
        Ok(Self {
            clips,
            visible,
            predicted,
            visible_tokens: Tensor::new(visible_tokens, device)?,
            visible_rows: Tensor::new(visible_rows, device)?,
            predicted_rows: Tensor::new(predicted_rows, device)?,
            decoder_rows: Tensor::new(decoder_rows, device)?,
            decoded: if decodes_some {
                Some(Decoded {
                    tokens: Tensor::new(decoded_tokens, device)?,
                    rows: Tensor::new(decoded_rows, device)?,
                })
            } else {
                None
            },
            mask: Tensor::from_vec(loss_mask, (clips, decoded), device)?,
        })
    }

    /// Masks nothing: every one of the `tokens` tokens of `clips` clips is visible.
    ///
    /// # Errors
    /// When the device fails.
    pub fn all_visible(clips: usize, tokens: usize, device: &Device) -> Result<Self> {
        let rows: Vec<u32> = (0..clips).flat_map(|_| 0..tokens as u32).collect();
        Self::new(Masks::new(&rows, tokens, tokens), device)
    }

    /// Whether every token is visible.
    pub fn hides_nothing(&self) -> bool {
        self.predicted == 0
    }

    /// Clips per batch.
    pub const fn clips(&self) -> usize {
        self.clips
    }

    /// Visible tokens per clip.
    pub const fn visible(&self) -> usize {
        self.visible
    }

    /// Predicted tokens per clip: the masked ones that the decoder takes.
    pub const fn predicted(&self) -> usize {
        self.predicted
    }

    /// Decoded tokens per clip: the visible and the predicted ones.
    pub const fn decoded(&self) -> usize {
        self.visible + self.predicted
    }

    /// `[clips, decoded]`, f32: 0 for visible, 1 for predicted. Where all masked tokens are
    /// predicted, `decoded` is all tokens.
    pub const fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// Selects the decoded tokens of `[clips, tokens, values]`, in their order: `[clips, decoded,
    /// values]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn select_decoded(&self, x: &Tensor) -> Result<Tensor> {
        let Some(decoded) = &self.decoded else {
            return Ok(x.clone());
        };
        let (clips, tokens, values) = x.dims3()?;
        x.reshape((clips * tokens, values))?
            .index_select(&decoded.rows, 0)?
            .reshape((clips, self.decoded(), values))
    }

    /// `[clips * visible]`, u32: indices of the visible tokens of each clip.
    pub(crate) const fn visible_tokens(&self) -> &Tensor {
        &self.visible_tokens
    }

    /// `[clips * visible]`, u32: the visible tokens as rows of `[clips * tokens, ..]`.
    pub(crate) const fn visible_rows(&self) -> &Tensor {
        &self.visible_rows
    }

    /// `[clips * predicted]`, u32: the predicted tokens as rows of `[clips * decoded, ..]`.
    pub(crate) const fn predicted_rows(&self) -> &Tensor {
        &self.predicted_rows
    }

    /// `[clips * decoded]`, u32: indices of the decoded tokens of each clip, ascending; `None`
    /// where all are decoded.
    pub(crate) fn decoded_tokens(&self) -> Option<&Tensor> {
        self.decoded.as_ref().map(|decoded| &decoded.tokens)
    }

    /// `[clips * decoded]`, u32: for each decoded token its row among the `clips * visible` encoded
    /// ones, or the row after these, which holds the mask token.
    pub(crate) const fn decoder_rows(&self) -> &Tensor {
        &self.decoder_rows
    }
}
