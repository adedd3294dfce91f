//! Blocks one after the other.

use super::block::{self, Gradients, SavedActivations, Scratch, Tokens, Weights};
use super::element::Element;
use super::layout::BlockLayout;

/// A stack of blocks, with what its forward keeps.
#[derive(Debug, Default)]
pub(crate) struct Stack<T> {
    /// The residual stream before each block, and after the last: `[rows, width]` each. Where no backward follows, two of them take turns.
    streams: Vec<Vec<f32>>,
    saved: Vec<SavedActivations<T>>,
    /// Which stream the last forward ended in.
    last: usize,
}

/// Whether a backward follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Backward,
    Nothing,
}

/// Stochastic depth (Huang et al. 2016): what the result of each branch of each block is multiplied by, clip by clip, before it is added to the stream.
/// `[blocks, 2, clips]`: 0 where it is left out, and 1 over the probability of the others where it is not; nothing where none is ever left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct BranchScales<'a>(pub &'a [f32]);

impl<'a> BranchScales<'a> {
    /// Attention's and the MLP's of block `at` of `blocks`.
    fn of_block(self, at: usize, blocks: usize) -> [&'a [f32]; 2] {
        let of_block = self.0.len() / blocks;
        let (attention, mlp) = self.0[at * of_block..(at + 1) * of_block].split_at(of_block / 2);
        [attention, mlp]
    }
}

impl<T: Element> Stack<T> {
    /// Of `depth` blocks; `recomputes` keeps the inputs of blocks only.
    pub(crate) fn new(depth: usize, recomputes: bool) -> Self {
        let saved = if recomputes { 1 } else { depth };
        Self {
            streams: (0..=depth).map(|_| Vec::new()).collect(),
            saved: (0..saved).map(|_| SavedActivations::default()).collect(),
            last: depth,
        }
    }

    /// The first stream, to be filled.
    pub(crate) fn input(&mut self) -> &mut Vec<f32> {
        &mut self.streams[0]
    }

    /// The first stream to the last, of which each clip's first `left_out` tokens are left out.
    pub(crate) fn forward(
        &mut self,
        blocks: &[BlockLayout],
        weights: Weights<'_, T>,
        tokens: Tokens,
        scales: BranchScales<'_>,
        mode: Mode,
        scratch: &mut Scratch<T>,
    ) {
        let (period, last_kept) = match mode {
            Mode::Backward => (usize::MAX, self.saved.len() - 1),
            Mode::Nothing => (2, 0),
        };
        for (at, block) in blocks.iter().enumerate() {
            let streams = [at % period, (at + 1) % period];
            let [x, to] = self.streams.get_disjoint_mut(streams).expect("a stream before and after each block");
            let tokens = of_block(tokens, at, blocks.len());
            to.resize(x.len() / tokens.all * (tokens.all - tokens.left_out), 0.0);
            let scales = scales.of_block(at, blocks.len());
            block::forward(block, weights, tokens, scales, x, Some(to), &mut self.saved[at.min(last_kept)], scratch);
        }
        self.last = blocks.len() % period;
    }

    /// From `gradient`, that of the last stream, that of the first, in place.
    pub(crate) fn backward(
        &mut self,
        blocks: &[BlockLayout],
        weights: Weights<'_, T>,
        tokens: Tokens,
        scales: BranchScales<'_>,
        gradient: &mut Vec<f32>,
        scratch: &mut Scratch<T>,
        gradients: &mut Gradients<'_>,
    ) {
        let recomputes = self.saved.len() < blocks.len();
        for (at, block) in blocks.iter().enumerate().rev() {
            let (x, saved) = (&self.streams[at], &mut self.saved[if recomputes { 0 } else { at }]);
            let tokens = of_block(tokens, at, blocks.len());
            let scales = scales.of_block(at, blocks.len());
            if recomputes && at + 1 < blocks.len() {
                block::forward(block, weights, tokens, scales, x, None, saved, scratch);
            }
            block::backward(block, weights, tokens, scales, x, gradient, saved, scratch, gradients);
        }
    }

    /// The stream after the last block.
    pub(crate) fn result(&self) -> &[f32] {
        &self.streams[self.last]
    }
}

/// All but the last block make all tokens.
const fn of_block(tokens: Tokens, at: usize, blocks: usize) -> Tokens {
    if at + 1 == blocks { tokens } else { Tokens { left_out: 0, ..tokens } }
}
