//! Drawn masks: the lists of visible, masked and predicted tokens.

use std::ops::Range;

/// The masks of a batch, all with the same number of visible and of predicted tokens. Visible
/// tokens are ascending: the encoder's result does not depend on their order, and memory is read in
/// order.
///
/// ```
/// use pipeline::sampling::mask::{Masks, from_noise};
///
/// let mut tokens = [0; 5];
/// from_noise(&[0.5, 0.1, 0.9, 0.2, 0.0], 2, &mut tokens);
/// let masks = Masks::new(&tokens, 5, 2);
/// assert_eq!(masks.len(), 1);
/// assert_eq!(masks.get(0).visible, [1, 4]);
/// assert_eq!(masks.get(0).predicted, [0, 2, 3]);
/// assert_eq!(masks.predicting(1).get(0).predicted, [0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks<'a> {
    /// `[clips, tokens]`: of each clip the visible tokens, then the predicted ones, then the
    /// others.
    rows: &'a [u32],
    tokens: usize,
    visible: usize,
    predicted: usize,
}

/// The mask of one clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask<'a> {
    /// Visible tokens, ascending.
    pub visible: &'a [u32],
    /// Masked tokens: those that are predicted, then those that the decoder drops, both ascending.
    pub masked: &'a [u32],
    /// Masked tokens that the decoder predicts and the loss counts, ascending: the first of
    /// `masked`.
    pub predicted: &'a [u32],
}

impl<'a> Mask<'a> {
    /// The mask of a clip's `tokens` as [`draw`](super::MaskRule::draw) writes them: the first
    /// `visible` are visible, the next `predicted` are predicted.
    ///
    /// # Panics
    /// When there are fewer tokens.
    pub fn new(tokens: &'a [u32], visible: usize, predicted: usize) -> Self {
        let (visible, masked) = tokens.split_at(visible);
        Self {
            visible,
            masked,
            predicted: &masked[..predicted],
        }
    }
}

impl<'a> Masks<'a> {
    /// The masks of `rows`, `[clips, tokens]`, as [`draw`](super::MaskRule::draw) and
    /// [`from_noise`](super::from_noise) write them, with `visible` visible tokens each. All others
    /// are predicted.
    ///
    /// # Panics
    /// When there are no tokens, or `rows` is not a multiple of them.
    pub fn new(rows: &'a [u32], tokens: usize, visible: usize) -> Self {
        assert!(
            rows.len().is_multiple_of(tokens) && visible <= tokens,
            "{} tokens of clips of {tokens}",
            rows.len()
        );
        Self {
            rows,
            tokens,
            visible,
            predicted: tokens - visible,
        }
    }

    /// The same masks, with only the first `predicted` masked tokens predicted.
    ///
    /// # Panics
    /// When there are fewer masked tokens.
    pub fn predicting(self, predicted: usize) -> Self {
        assert!(
            predicted <= self.tokens - self.visible,
            "{predicted} of {} masked tokens",
            self.tokens - self.visible
        );
        Self { predicted, ..self }
    }

    /// The masks of `clips` alone.
    ///
    /// # Panics
    /// When there are no such clips.
    pub fn of(self, clips: Range<usize>) -> Self {
        let rows = &self.rows[clips.start * self.tokens..clips.end * self.tokens];
        Self { rows, ..self }
    }

    /// Tokens of a clip.
    pub const fn tokens(self) -> usize {
        self.tokens
    }

    /// Visible tokens of a clip.
    pub const fn visible(self) -> usize {
        self.visible
    }

    /// Predicted tokens of a clip.
    pub const fn predicted(self) -> usize {
        self.predicted
    }

    /// Number of clips.
    pub const fn len(self) -> usize {
        self.rows.len() / self.tokens
    }

    /// Whether there are no clips.
    pub const fn is_empty(self) -> bool {
        self.rows.is_empty()
    }

    /// The mask of clip `clip`.
    ///
    /// # Panics
    /// When there is no such clip.
    pub fn get(self, clip: usize) -> Mask<'a> {
        Mask::new(
            &self.rows[clip * self.tokens..(clip + 1) * self.tokens],
            self.visible,
            self.predicted,
        )
    }

    /// Each clip's mask.
    pub fn iter(self) -> impl Iterator<Item = Mask<'a>> {
        self.rows
            .chunks_exact(self.tokens)
            .map(move |row| Mask::new(row, self.visible, self.predicted))
    }
}
