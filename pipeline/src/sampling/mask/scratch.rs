//! How masks of each kind are drawn.

use rand::{Rng, RngExt};
use schemas::geometry::PatchGrid;
use std::ops::Range;

/// Height and width of a running cell, in patches.
const CELL: usize = 2;

/// Patches of a running cell, and the period of its pattern in time steps.
const CELL_PLACES: usize = CELL * CELL;

/// The mask of given noise: the `keep` tokens of smallest noise stay visible (`argsort`; equal
/// noise keeps the order of tokens). Writes them to `tokens`, then the masked ones, both ascending.
///
/// # Panics
/// When `tokens` is not as long as `noise`, or `keep` is more.
pub fn from_noise(noise: &[f32], keep: usize, tokens: &mut [u32]) {
    let mut scratch = MaskScratch::default();
    scratch.keep_least(noise.iter().copied(), keep);
    scratch.list(keep, tokens);
}

/// Reused memory for drawing masks.
#[derive(Debug, Default)]
pub struct MaskScratch {
    /// Noise in the upper half, with a rank in its two highest bits; the token in the lower half.
    keys: Vec<u64>,
    pub(super) is_masked: Vec<bool>,
    visible: Vec<u32>,
    /// Of each running cell, the patch of rank 0 in the first time step.
    starts: Vec<u8>,
}

impl MaskScratch {
    /// Masks all of `all` places but `keep`, drawn uniformly.
    pub(super) fn random(&mut self, rng: &mut impl Rng, all: usize, keep: usize) {
        self.keep_least((0..all).map(|_| rng.random::<f32>()), keep);
    }

    fn keep_least(&mut self, noise: impl Iterator<Item = f32>, keep: usize) {
        self.keys.clear();
        // Noise is not negative, so its bit patterns are ordered like its values.
        self.keys.extend(
            noise
                .zip(0u64..)
                .map(|(noise, token)| u64::from(noise.to_bits()) << 32 | token),
        );
        self.is_masked.clear();
        self.is_masked.resize(self.keys.len(), true);
        if keep > 0 {
            let (below, &mut last, _) = self.keys.select_nth_unstable(keep - 1);
            for key in below.iter().copied().chain([last]) {
                self.is_masked[key as u32 as usize] = false;
            }
        }
    }

    /// Masks box after box until `keep` tokens are left. Each box holds a token that was visible;
    /// the last one stops where enough are masked.
    pub(super) fn blocks(&mut self, rng: &mut impl Rng, grid: PatchGrid, keep: usize) {
        let Self {
            is_masked, visible, ..
        } = self;
        let sides = [grid.time(), grid.side(), grid.side()];
        visible.clear();
        visible.extend(0..grid.tokens() as u32);
        is_masked.clear();
        is_masked.resize(grid.tokens(), false);
        while visible.len() > keep {
            let token = visible[rng.random_range(0..visible.len())] as usize;
            let place = [
                token / grid.space(),
                token % grid.space() / grid.side(),
                token % grid.side(),
            ];
            let mut around = |axis: usize| -> Range<usize> {
                let length = rng.random_range(1..=sides[axis].div_ceil(2));
                // Uniform over the ranges of this length that hold the token and lie in the clip.
                let (first, last) = (
                    (place[axis] + 1).saturating_sub(length),
                    place[axis].min(sides[axis] - length),
                );
                let start = rng.random_range(first..=last);
                start..start + length
            };
            let (times, rows, columns) = (around(0), around(1), around(2));
            let mut left = visible.len() - keep;
            for time in times {
                for row in rows.clone() {
                    for column in columns.clone() {
                        let token =
                            &mut is_masked[time * grid.space() + row * grid.side() + column];
                        if left > 0 && !*token {
                            *token = true;
                            left -= 1;
                        }
                    }
                }
            }
            visible.retain(|&token| !is_masked[token as usize]);
        }
    }

    /// Moves the `predicted` tokens that running cells choose to the front of `masked`; those and
    /// the others are ascending.
    pub(super) fn run_cells(
        &mut self,
        rng: &mut impl Rng,
        grid: PatchGrid,
        predicted: usize,
        masked: &mut [u32],
    ) {
        let cells = grid.side().div_ceil(CELL);
        self.starts.clear();
        self.starts
            .extend((0..cells * cells).map(|_| rng.random_range(0..CELL_PLACES as u8)));
        self.keys.clear();
        for &token in &*masked {
            let (time, place) = (token as usize / grid.space(), token as usize % grid.space());
            let (row, column) = (place / grid.side(), place % grid.side());
            let start = usize::from(self.starts[row / CELL * cells + column / CELL]);
            let rank = running_rank(row % CELL, column % CELL, start, time) as u64;
            // Noise is below 1: the two highest bits of its pattern are free.
            self.keys.push(
                rank << 62 | u64::from(rng.random::<f32>().to_bits()) << 32 | u64::from(token),
            );
        }
        self.keys.select_nth_unstable(predicted);
        for (token, &key) in masked.iter_mut().zip(&self.keys) {
            *token = key as u32;
        }
        let (predicted, dropped) = masked.split_at_mut(predicted);
        predicted.sort_unstable();
        dropped.sort_unstable();
    }

    /// Writes the `visible` tokens that are not masked, then those that are.
    pub(super) fn list(&self, visible: usize, tokens: &mut [u32]) {
        assert_eq!(
            tokens.len(),
            self.is_masked.len(),
            "a place for every token"
        );
        let (mut next_visible, mut next_masked) = (0, visible);
        for (token, &is_masked) in self.is_masked.iter().enumerate() {
            let next = if is_masked {
                &mut next_masked
            } else {
                &mut next_visible
            };
            tokens[*next] = token as u32;
            *next += 1;
        }
    }
}

/// Rank of a patch of a running cell, counted clockwise from `start`, which moves on by one patch
/// per time step.
const fn running_rank(row: usize, column: usize, start: usize, time: usize) -> usize {
    let clockwise = if row == 0 {
        column
    } else {
        CELL_PLACES - 1 - column
    };
    (clockwise + CELL_PLACES - (start + time) % CELL_PLACES) % CELL_PLACES
}
