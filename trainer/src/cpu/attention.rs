//! Attention (Vaswani et al. 2017) without a matrix of all tokens by all tokens, in the manner of
//! FlashAttention (Dao et al. 2022).
//!
//! The forward takes `LANES` queries at a time, 32 with AVX-512 and 16 without. Their scores with
//! all keys, `[keys][LANES]`, fit a core's cache. Queries are lanes, so the softmax over keys needs
//! no sums across lanes. It replaces the scores by weights in place, which are the right operand of
//! the gemm with the values. The result and each query's log-sum-exp are saved. The backward
//! recomputes the scores, some panels of `ROWS` keys at a time, and uses them while they are in the
//! innermost cache. Both assign each clip and head to one task.
//!
//! Tiles are those of the gemm, but 8 rows with AVX-512, not 12: heads are 32 or 64 wide, and 12
//! rows would leave an eighth of the tiles of their columns empty.

use super::element::Element;
use super::kernel::{Left, tiles};
use super::pack::{Operand, pack, steps};
use super::shared::Shared;
use super::simd::{InstructionSet, exp2, instruction_set, vectorised};
use super::team::{for_each, for_each_chunk};
use bytemuck::{cast_slice, cast_slice_mut};
use std::cell::RefCell;
use std::f32::consts::LOG2_E;

/// Keys per pass of the backward, whose buffers fit a core's cache.
const KEYS_AT_ONCE: usize = 512;

/// Panels of `ROWS` keys at a time, whose scores and gradients fit a core's innermost cache.
const PANELS_AT_ONCE: usize = 4;

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Tokens per clip.
    pub(crate) tokens: usize,
    /// The first tokens of each clip, which are keys and values only.
    pub(crate) key_only: usize,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Values per token and head.
    pub(crate) width: usize,
}

impl Heads {
    /// Values per token in all heads.
    const fn all(self) -> usize {
        self.heads * self.width
    }

    /// Queries per clip.
    const fn queries(self) -> usize {
        self.tokens - self.key_only
    }

    fn scale(self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// Part `part` (0 queries, 1 keys, 2 values) of the clip and head of `job`, in rows of `3 *
    /// all` values.
    fn of<T>(self, qkv: &[T], job: usize, part: usize) -> &[T] {
        let clip = job / self.heads;
        let head = job % self.heads;
        let first = clip * self.tokens + if part == 0 { self.key_only } else { 0 };
        &qkv[first * 3 * self.all() + part * self.all() + head * self.width..]
    }
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    keys: Vec<u32>,
    values: Vec<u32>,
    keys_across: Vec<u32>,
    scores: Vec<u32>,
    query: Vec<u32>,
    query_across: Vec<u32>,
    gradient: Vec<u32>,
    gradient_across: Vec<u32>,
    key_gradient: Vec<f32>,
    value_gradient: Vec<f32>,
    query_gradient: Vec<f32>,
    /// For each query, the dot product of its result and the result's gradient.
    along: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Packs `outer` rows of an operand into panels of `WIDTH`.
fn panels<T: Element, const WIDTH: usize>(
    operand: Operand<'_, T>,
    outer: std::ops::Range<usize>,
    inner: usize,
    out: &mut Vec<u32>,
) {
    let size = steps::<T>(inner) * WIDTH;
    out.resize(outer.len().div_ceil(WIDTH) * size, 0);
    for (panel, lanes) in out.chunks_exact_mut(size).enumerate() {
        let first = outer.start + panel * WIDTH;
        pack::<T, WIDTH>(operand, first..(first + WIDTH).min(outer.end), inner, lanes);
    }
}

/// Computes `softmax(q k^T / sqrt(width)) v` of every clip and head. `qkv` is `[clips, tokens, 3 *
/// all]`, `out` `[clips, queries, all]`, and `log_sums` `[clips, heads, queries]`: for each query
/// the base-2 logarithm of the sum of its exponentials.
pub(crate) fn forward<T: Element>(sizes: Heads, qkv: &[T], out: &mut [T], log_sums: &mut [f32]) {
    match instruction_set() {
        InstructionSet::Plain | InstructionSet::Avx2 => {
            forward_in_tiles::<T, 6, 16>(sizes, qkv, out, log_sums);
        }
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => {
            forward_in_tiles::<T, 8, 32>(sizes, qkv, out, log_sums);
        }
    }
}

/// [`forward`] with tiles of one size.
fn forward_in_tiles<T: Element, const ROWS: usize, const LANES: usize>(
    sizes: Heads,
    qkv: &[T],
    out: &mut [T],
    log_sums: &mut [f32],
) {
    let Heads {
        tokens,
        heads,
        width,
        ..
    } = sizes;
    let all = sizes.all();
    let factor = sizes.scale() * LOG2_E;
    let out = Shared::new(out, all);
    for_each_chunk(log_sums, sizes.queries(), |job, log_sums| {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch {
                keys,
                values,
                scores,
                query,
                ..
            } = scratch;
            let (wide, long) = (steps::<T>(width), steps::<T>(tokens));
            panels::<T, ROWS>(
                Operand::rows(sizes.of(qkv, job, 1), 3 * all),
                0..tokens,
                width,
                keys,
            );
            panels::<T, ROWS>(
                Operand::columns(sizes.of(qkv, job, 2), 3 * all),
                0..width,
                tokens,
                values,
            );
            scores.resize(tokens.next_multiple_of(2 * ROWS) * LANES, 0);
            query.resize(wide * LANES, 0);
            for first in (0..sizes.queries()).step_by(LANES) {
                let queries = first..(first + LANES).min(sizes.queries());
                pack::<T, LANES>(
                    Operand::rows(sizes.of(qkv, job, 0), 3 * all),
                    queries.clone(),
                    width,
                    query,
                );
                tiles::<T, ROWS, LANES>(
                    tokens.div_ceil(ROWS),
                    wide,
                    Left::Packed,
                    keys,
                    query,
                    false,
                    cast_slice_mut(scores),
                );
                let [greatest, sums] = weights::<T, LANES>(scores, tokens, factor);
                for (lane, query) in queries.clone().enumerate() {
                    log_sums[query] = greatest[lane] + sums[lane].log2();
                }
                let shares = sums.map(f32::recip);
                let mut result = [[0.0; LANES]; ROWS];
                for (panel, values) in values.chunks_exact(long * ROWS).enumerate() {
                    tiles::<T, ROWS, LANES>(
                        1,
                        long,
                        Left::Packed,
                        values,
                        scores,
                        false,
                        result.as_flattened_mut(),
                    );
                    let column = panel * ROWS;
                    let columns = ROWS.min(width - column);
                    for (lane, query) in queries.clone().enumerate() {
                        let row = job / heads * sizes.queries() + query;
                        // SAFETY: the columns of a head and the tokens of a clip are written by
                        // one task only.
                        let out = unsafe { out.part(row, job % heads * width + column, columns) };
                        for (at, out) in out.iter_mut().enumerate() {
                            *out = T::from_f32(result[at][lane] * shares[lane]);
                        }
                    }
                }
            }
        });
    });
}

vectorised! {
    /// Replaces the scores of `keys` by weights, `[steps][LANES]`. Returns the maximum of each
    /// query, times `factor`, and the sum of its weights.
    fn weights<T: Element, const LANES: usize>(
        scores: &mut [u32],
        keys: usize,
        factor: f32
    ) -> [[f32; LANES]; 2] {
        let mut greatest = [f32::NEG_INFINITY; LANES];
        for row in scores.chunks_exact(LANES).take(keys) {
            for (greatest, &score) in greatest.iter_mut().zip(row) {
                let score = f32::from_bits(score);
                // NaN is kept, so that the loss shows it.
                *greatest = if score <= *greatest { *greatest } else { score };
            }
        }
        greatest.iter_mut().for_each(|greatest| *greatest *= factor);
        let in_lane = T::in_lane();
        let mut sums = [0f32; LANES];
        for (step, first) in (0..keys).step_by(in_lane).enumerate() {
            // One or two keys per step; an odd last key is paired with a weight of zero.
            let mut rows = [[0f32; LANES]; 2];
            for (key, row) in (first..keys.min(first + in_lane)).zip(&mut rows) {
                let scores = &scores[key * LANES..][..LANES];
                for lane in 0..LANES {
                    let weight = exp2(f32::from_bits(scores[lane]) * factor - greatest[lane]);
                    sums[lane] += weight;
                    row[lane] = T::from_f32(weight).to_f32();
                }
            }
            let out = &mut scores[step * LANES..][..LANES];
            for lane in 0..LANES {
                out[lane] = match in_lane {
                    1 => rows[0][lane].to_bits(),
                    _ => T::rounded_pair(rows[0][lane], rows[1][lane]),
                };
            }
        }
        [greatest, sums]
    }
}

/// Backward of [`forward`]: from `gradient`, the gradient of `out`, computes the gradient of `qkv`
/// into `to`.
pub(crate) fn backward<T: Element>(
    sizes: Heads,
    qkv: &[T],
    out: &[T],
    log_sums: &[f32],
    gradient: &[T],
    to: &mut [T],
) {
    match instruction_set() {
        InstructionSet::Plain | InstructionSet::Avx2 => {
            backward_in_tiles::<T, 6, 16>(sizes, qkv, out, log_sums, gradient, to);
        }
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => {
            backward_in_tiles::<T, 8, 32>(sizes, qkv, out, log_sums, gradient, to);
        }
    }
}

/// [`backward`] with tiles of one size.
fn backward_in_tiles<T: Element, const ROWS: usize, const LANES: usize>(
    sizes: Heads,
    qkv: &[T],
    out: &[T],
    log_sums: &[f32],
    gradient: &[T],
    to: &mut [T],
) {
    let Heads {
        tokens,
        heads,
        width,
        ..
    } = sizes;
    let all = sizes.all();
    let to = Shared::new(to, 3 * all);
    for_each(log_sums.len() / sizes.queries(), |job| {
        let log_sums = &log_sums[job * sizes.queries()..][..sizes.queries()];
        SCRATCH.with_borrow_mut(|scratch| {
            let first_row = job / heads * tokens;
            let first_column = job % heads * width;
            let of_head = |x: &[T], query: usize| {
                (job / heads * sizes.queries() + query) * all + first_column..x.len()
            };
            let along = |query: usize| -> f32 {
                let out = &out[of_head(out, query)][..width];
                let gradient = &gradient[of_head(gradient, query)][..width];
                out.iter()
                    .zip(gradient)
                    .map(|(out, gradient)| out.to_f32() * gradient.to_f32())
                    .sum()
            };
            let panel_values = width.div_ceil(ROWS) * ROWS * LANES;
            scratch.query_gradient.clear();
            scratch
                .query_gradient
                .resize(sizes.queries().div_ceil(LANES) * panel_values, 0.0);
            scratch.along.clear();
            scratch.along.extend((0..sizes.queries()).map(along));
            for first_key in (0..tokens).step_by(KEYS_AT_ONCE) {
                let keys = first_key..(first_key + KEYS_AT_ONCE).min(tokens);
                let gradient = &gradient[of_head(gradient, 0)];
                backward_of_keys::<T, ROWS, LANES>(
                    sizes,
                    qkv,
                    job,
                    gradient,
                    log_sums,
                    keys.clone(),
                    scratch,
                );
                for (part, of_keys) in [(1, &scratch.key_gradient), (2, &scratch.value_gradient)] {
                    let padded = keys.len().next_multiple_of(ROWS);
                    for (block, of_keys) in of_keys.chunks_exact(padded * LANES).enumerate() {
                        let column = block * LANES;
                        for (values, key) in of_keys.chunks_exact(LANES).zip(keys.clone()) {
                            let columns = LANES.min(width - column);
                            // SAFETY: the columns of a head and the tokens of a clip are
                            // written by one task only.
                            let to = unsafe {
                                to.part(
                                    first_row + key,
                                    part * all + first_column + column,
                                    columns,
                                )
                            };
                            super::element::round(values, to);
                        }
                    }
                }
            }
            for token in 0..sizes.key_only {
                // SAFETY: as above.
                unsafe { to.part(first_row + token, first_column, width) }.fill(T::default());
            }
            for (panel, values) in scratch
                .query_gradient
                .chunks_exact(panel_values)
                .enumerate()
            {
                for (lane, query) in
                    (panel * LANES..sizes.queries().min((panel + 1) * LANES)).enumerate()
                {
                    // SAFETY: as above.
                    let to =
                        unsafe { to.part(first_row + sizes.key_only + query, first_column, width) };
                    to.iter_mut()
                        .enumerate()
                        .for_each(|(at, to)| *to = T::from_f32(values[at * LANES + lane]));
                }
            }
        });
    });
}

/// The backward of some keys: writes their gradients and those of their values to the scratch,
/// `[blocks of LANES columns][keys][LANES]`, and adds their contribution to the gradients of the
/// queries there, `[panels of LANES queries][width][LANES]`.
fn backward_of_keys<T: Element, const ROWS: usize, const LANES: usize>(
    sizes: Heads,
    qkv: &[T],
    job: usize,
    gradient: &[T],
    log_sums: &[f32],
    keys: std::ops::Range<usize>,
    scratch: &mut Scratch,
) {
    let width = sizes.width;
    let all = sizes.all();
    let scale = sizes.scale();
    let (wide, count, padded) = (
        steps::<T>(width),
        keys.len(),
        keys.len().next_multiple_of(ROWS),
    );
    let (long, across, blocks) = (steps::<T>(count), steps::<T>(LANES), width.div_ceil(LANES));
    let [queries_of, keys_of, values_of] = [0, 1, 2].map(|part| sizes.of(qkv, job, part));
    panels::<T, ROWS>(
        Operand::rows(keys_of, 3 * all),
        keys.clone(),
        width,
        &mut scratch.keys,
    );
    panels::<T, ROWS>(
        Operand::rows(values_of, 3 * all),
        keys.clone(),
        width,
        &mut scratch.values,
    );
    panels::<T, ROWS>(
        Operand::columns(&keys_of[keys.start * 3 * all..], 3 * all),
        0..width,
        count,
        &mut scratch.keys_across,
    );
    for of_keys in [&mut scratch.key_gradient, &mut scratch.value_gradient] {
        of_keys.clear();
        of_keys.resize(blocks * padded * LANES, 0.0);
    }
    scratch
        .scores
        .resize((padded.next_multiple_of(2 * ROWS)) * LANES, 0);
    scratch.query.resize(wide * LANES, 0);
    scratch.gradient.resize(wide * LANES, 0);
    let panel_values = width.div_ceil(ROWS) * ROWS * LANES;
    for (first, query_gradient) in (0..sizes.queries())
        .step_by(LANES)
        .zip(scratch.query_gradient.chunks_exact_mut(panel_values))
    {
        let queries = first..(first + LANES).min(sizes.queries());
        let per_query = |values: &[f32]| -> [f32; LANES] {
            std::array::from_fn(|lane| values.get(first + lane).copied().unwrap_or_default())
        };
        let log_sums = per_query(log_sums);
        let along = per_query(&scratch.along);
        pack::<T, LANES>(
            Operand::rows(queries_of, 3 * all),
            queries.clone(),
            width,
            &mut scratch.query,
        );
        pack::<T, LANES>(
            Operand::rows(gradient, all),
            queries.clone(),
            width,
            &mut scratch.gradient,
        );
        let query_rows = Operand::columns(&queries_of[first * 3 * all..], 3 * all);
        panels::<T, LANES>(
            query_rows,
            0..width,
            queries.len(),
            &mut scratch.query_across,
        );
        panels::<T, LANES>(
            Operand::columns(&gradient[first * all..], all),
            0..width,
            queries.len(),
            &mut scratch.gradient_across,
        );
        let across_used = steps::<T>(queries.len());
        debug_assert!(across_used <= across, "a panel of queries");
        let [mut scores, mut slopes] = [[[[0f32; LANES]; ROWS]; PANELS_AT_ONCE]; 2];
        let scores = scores.as_flattened_mut().as_flattened_mut();
        let slopes = slopes.as_flattened_mut().as_flattened_mut();
        let [mut weights_across, mut slopes_across] = [[[[0u32; LANES]; ROWS]; PANELS_AT_ONCE]; 2];
        let weights_across = weights_across.as_flattened_mut().as_flattened_mut();
        let slopes_across = slopes_across.as_flattened_mut().as_flattened_mut();
        let panels = padded / ROWS;
        for first_panel in (0..panels).step_by(PANELS_AT_ONCE) {
            let at_once = PANELS_AT_ONCE.min(panels - first_panel);
            let keys = &scratch.keys[first_panel * wide * ROWS..];
            let values = &scratch.values[first_panel * wide * ROWS..];
            tiles::<T, ROWS, LANES>(
                at_once,
                wide,
                Left::Packed,
                keys,
                &scratch.query,
                false,
                scores,
            );
            tiles::<T, ROWS, LANES>(
                at_once,
                wide,
                Left::Packed,
                values,
                &scratch.gradient,
                false,
                slopes,
            );
            let rows = at_once * ROWS;
            let used = rows.min(count - first_panel * ROWS);
            let right = &mut scratch.scores[first_panel * ROWS / T::in_lane() * LANES..]
                [..rows / T::in_lane() * LANES];
            let of_rows = ..rows * LANES;
            let strips = [&mut weights_across[of_rows], &mut slopes_across[of_rows]];
            let factors = [scale * LOG2_E, scale];
            slopes_of_scores::<T, LANES>(
                &mut scores[of_rows],
                &mut slopes[of_rows],
                factors,
                [&log_sums, &along],
                used,
                strips,
                right,
            );
            let [weights, slopes] = if T::in_lane() == 1 {
                [cast_slice(&*scores), cast_slice(&*slopes)]
            } else {
                [&*weights_across, &*slopes_across]
            };
            for block in 0..blocks {
                let at = (block * padded + first_panel * ROWS) * LANES;
                let queries = &scratch.query_across[block * across_used * LANES..];
                let gradients = &scratch.gradient_across[block * across_used * LANES..];
                tiles::<T, ROWS, LANES>(
                    at_once,
                    across_used,
                    Left::Across,
                    slopes,
                    queries,
                    true,
                    &mut scratch.key_gradient[at..],
                );
                tiles::<T, ROWS, LANES>(
                    at_once,
                    across_used,
                    Left::Across,
                    weights,
                    gradients,
                    true,
                    &mut scratch.value_gradient[at..],
                );
            }
        }
        for (panel, query_gradient) in query_gradient.chunks_exact_mut(ROWS * LANES).enumerate() {
            let keys = &scratch.keys_across[panel * long * ROWS..];
            tiles::<T, ROWS, LANES>(
                1,
                long,
                Left::Packed,
                keys,
                &scratch.scores,
                true,
                query_gradient,
            );
        }
    }
}

vectorised! {
    /// From scores `s` and the gradients `g` of the weights, of some keys by `LANES` queries,
    /// computes the weights `p = 2^(factor s - log_sum)` and the gradients of the scores, `scale p
    /// (g - along)`, in place. Where lanes are pairs, both are also written as strips that are read
    /// across. The gradients are also written as rows of a right operand. Rows from `used` on are
    /// zero.
    fn slopes_of_scores<T: Element, const LANES: usize>(
        scores: &mut [f32],
        slopes: &mut [f32],
        factors: [f32; 2],
        per_query: [&[f32; LANES]; 2],
        used: usize,
        strips: [&mut [u32]; 2],
        right: &mut [u32],
    ) {
        let [log_sums, along] = per_query;
        let [weights_across, slopes_across] = strips;
        let [factor, scale] = factors;
        scores[used * LANES..].fill(0.0);
        slopes[used * LANES..].fill(0.0);
        let used_scores = scores[..used * LANES].chunks_exact_mut(LANES);
        for (scores, slopes) in used_scores.zip(slopes.chunks_exact_mut(LANES)) {
            for lane in 0..LANES {
                let weight = exp2(scores[lane] * factor - log_sums[lane]);
                let slope = scale * weight * (slopes[lane] - along[lane]);
                scores[lane] = T::from_f32(weight).to_f32();
                slopes[lane] = T::from_f32(slope).to_f32();
            }
        }
        if T::in_lane() == 1 {
            for (slope, right) in slopes.iter().zip(right) {
                *right = slope.to_bits();
            }
        } else {
            for (values, strip) in [(&*scores, weights_across), (&*slopes, slopes_across)] {
                let strips = strip.chunks_exact_mut(LANES);
                for (values, strip) in values.chunks_exact(LANES).zip(strips) {
                    T::rounded_pairs(values, &mut strip[..LANES / 2]);
                }
            }
            let rights = right.chunks_exact_mut(LANES);
            for (slopes, right) in slopes.chunks_exact(2 * LANES).zip(rights) {
                for lane in 0..LANES {
                    right[lane] = T::rounded_pair(slopes[lane], slopes[LANES + lane]);
                }
            }
        }
    }
}
