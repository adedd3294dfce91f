//! A stack of transformer blocks.

use super::block::{self, Gradients, SavedActivations, Scratch, Tokens, Weights};
use super::element::Element;
use super::layout::BlockLayout;

/// A stack of blocks, with the activations that its forward saves.
#[derive(Debug, Default)]
pub(crate) struct Stack<T> {
    /// The residual stream before each block and after the last, `[rows, width]` each. In
    /// inference, two of them alternate.
    streams: Vec<Vec<f32>>,
    saved: Vec<SavedActivations<T>>,
    /// Index of the stream that holds the result of the last forward.
    last: usize,
}

/// Whether the forward saves activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A backward follows.
    Training,
    /// No backward follows.
    Inference,
}

/// Stochastic depth (Huang et al. 2016): factors for the result of each residual branch of each
/// block, clip by clip. `[blocks, 2, clips]`: 0 for a dropped branch, and 1 over the keep
/// probability for others; empty without stochastic depth.
#[derive(Debug, Clone, Copy, Default)]
pub struct BranchScales<'a>(pub &'a [f32]);

impl<'a> BranchScales<'a> {
    /// Factors of attention and MLP in block `at` of `blocks`.
    fn of_block(self, at: usize, blocks: usize) -> [&'a [f32]; 2] {
        let of_block = self.0.len() / blocks;
        let (attention, mlp) = self.0[at * of_block..(at + 1) * of_block].split_at(of_block / 2);
        [attention, mlp]
    }
}

impl<T: Element> Stack<T> {
    /// Creates a stack of `depth` blocks; with `recomputes`, only the inputs of blocks are saved.
    pub(crate) fn new(depth: usize, recomputes: bool) -> Self {
        let saved = if recomputes { 1 } else { depth };
        Self {
            streams: (0..=depth).map(|_| Vec::new()).collect(),
            saved: (0..saved).map(|_| SavedActivations::default()).collect(),
            last: depth,
        }
    }

    /// The input of the first block, to be filled.
    pub(crate) fn input(&mut self) -> &mut Vec<f32> {
        &mut self.streams[0]
    }

    /// Computes the result from the input. The result drops the first `tokens.dropped` tokens of
    /// each clip.
    pub(crate) fn forward(
        &mut self,
        blocks: &[BlockLayout],
        weights: Weights<'_, T>,
        tokens: Tokens,
        scales: BranchScales<'_>,
        mode: Mode,
        scratch: &mut Scratch<T>,
    ) {
        let (period, last_saved) = match mode {
            Mode::Training => (usize::MAX, self.saved.len() - 1),
            Mode::Inference => (2, 0),
        };
        for (at, block) in blocks.iter().enumerate() {
            let streams = [at % period, (at + 1) % period];
            let [x, to] = self.streams.get_disjoint_mut(streams).expect("a stream before and after each block");
            let tokens = of_block(tokens, at, blocks.len());
            to.resize(x.len() / tokens.all * (tokens.all - tokens.dropped), 0.0);
            let scales = scales.of_block(at, blocks.len());
            block::forward(block, weights, tokens, scales, x, Some(to), &mut self.saved[at.min(last_saved)], scratch);
        }
        self.last = blocks.len() % period;
    }

    /// Replaces `gradient`, that of the result, by that of the input.
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
            let x = &self.streams[at];
            let saved = &mut self.saved[if recomputes { 0 } else { at }];
            let tokens = of_block(tokens, at, blocks.len());
            let scales = scales.of_block(at, blocks.len());
            if recomputes && at + 1 < blocks.len() {
                block::forward(block, weights, tokens, scales, x, None, saved, scratch);
            }
            block::backward(block, weights, tokens, scales, x, gradient, saved, scratch, gradients);
        }
    }

    /// The residual stream after the last block.
    pub(crate) fn result(&self) -> &[f32] {
        &self.streams[self.last]
    }
}

/// Only the last block drops tokens.
const fn of_block(tokens: Tokens, at: usize, blocks: usize) -> Tokens {
    if at + 1 == blocks { tokens } else { Tokens { dropped: 0, ..tokens } }
}
