//! A stack of transformer blocks.

use super::block::{self, Block, SavedActivations, Scratch, Tokens, Weights};
use super::element::Element;
use super::gradients::Gradients;
use super::layout::BlockLayout;
use super::memory::resize;

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

/// The blocks of a model, and how they are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks<'a, T> {
    pub(crate) layouts: &'a [BlockLayout],
    pub(crate) weights: Weights<'a, T>,
    /// Tokens of the last block: only it drops tokens.
    pub(crate) tokens: Tokens,
    pub(crate) scales: BranchScales<'a>,
}

impl<'a, T> Blocks<'a, T> {
    /// Block `at`.
    fn get(self, at: usize) -> Block<'a, T> {
        let count = self.layouts.len();
        let dropped = if at + 1 == count {
            self.tokens.dropped
        } else {
            0
        };
        Block {
            layout: &self.layouts[at],
            weights: self.weights,
            tokens: Tokens {
                dropped,
                ..self.tokens
            },
            scales: self.scales.of_block(at, count),
        }
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
    pub(crate) fn forward(&mut self, blocks: Blocks<'_, T>, mode: Mode, scratch: &mut Scratch<T>) {
        let count = blocks.layouts.len();
        let (period, last_saved) = match mode {
            Mode::Training => (usize::MAX, self.saved.len() - 1),
            Mode::Inference => (2, 0),
        };
        for at in 0..count {
            let streams = [at % period, (at + 1) % period];
            let [x, to] = self
                .streams
                .get_disjoint_mut(streams)
                .expect("a stream before and after each block");
            let block = blocks.get(at);
            resize(to, x.len() / block.tokens.all * block.tokens.kept());
            block::forward(
                block,
                x,
                Some(to),
                &mut self.saved[at.min(last_saved)],
                scratch,
            );
        }
        self.last = count % period;
    }

    /// Replaces `gradient`, that of the result, by that of the input.
    pub(crate) fn backward(
        &mut self,
        blocks: Blocks<'_, T>,
        gradient: &mut Vec<f32>,
        scratch: &mut Scratch<T>,
        gradients: &mut Gradients<'_>,
    ) {
        let count = blocks.layouts.len();
        let recomputes = self.saved.len() < count;
        for at in (0..count).rev() {
            let x = &self.streams[at];
            let saved = &mut self.saved[if recomputes { 0 } else { at }];
            let block = blocks.get(at);
            if recomputes && at + 1 < count {
                block::forward(block, x, None, saved, scratch);
            }
            block::backward(block, x, gradient, saved, scratch, gradients);
            // Its parameters begin with this norm, and all after it are complete.
            gradients.complete(blocks.layouts[at].norm1.affine.weight.start);
        }
    }

    /// The residual stream after the last block.
    pub(crate) fn result(&self) -> &[f32] {
        &self.streams[self.last]
    }
}
