//! Attention (Vaswani et al. 2017) without a matrix of all tokens by all tokens, in the manner of
//! FlashAttention (Dao et al. 2022).
//!
//! The forward takes `LANES` queries at a time, 32 with AVX-512 and 16 without, and some keys, whose
//! scores, `[keys][LANES]`, fit the innermost cache. Queries are lanes, so the softmax over keys
//! needs no sums across lanes. Weights replace the scores in place, and are the right operand of
//! the gemm with the values. Where later keys have a greater score, sums and results so far are
//! scaled down (Milakov and Gimelshein 2018). The result and each query's log-sum-exp are saved.
//! The backward recomputes the scores of some keys and [`ACROSS`] queries. Both assign each clip
//! and head to one task.
//!
//! Tiles are those of the gemm, but 8 rows with AVX-512, not 12: heads are 32 or 64 wide, and 12
//! rows would leave an eighth of the tiles of their columns empty.

use super::element::Element;
use super::kernel::{ACROSS, Left, Tiles, tiles};
use super::norm_gelu::sum;
use super::pack::{Operand, pack_panels, steps};
use super::shared::Shared;
use super::simd::{InstructionSet, exp2, instruction_set, vectorised};
use super::team::{for_each, for_each_chunk};
use bytemuck::cast_slice;
use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Keys at a time in the forward: a multiple of the rows of all tiles, and of a pair.
const FORWARD_KEYS: usize = 192;

/// Keys at a time in the backward: likewise.
const BACKWARD_KEYS: usize = 48;

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

/// Buffers of a thread: some stay in the innermost cache, and those of all keys in its core's
/// cache or the next. Packed operands are named by the matrix, and by what is summed over.
#[derive(Default)]
struct Scratch {
    keys_by_width: Vec<u32>,
    keys_by_key: Vec<u32>,
    values_by_width: Vec<u32>,
    values_by_key: Vec<u32>,
    queries_by_width: Vec<u32>,
    queries_by_query: Vec<u32>,
    gradients_by_width: Vec<u32>,
    gradients_by_query: Vec<u32>,
    /// Scores, and the weights that replace them.
    scores: Vec<f32>,
    /// Gradients of the weights, and those of the scores, which replace them.
    slopes: Vec<f32>,
    /// Slopes as a right operand, in which keys are summed over.
    slopes_by_key: Vec<u32>,
    /// Strips of pairs.
    weight_strips: Vec<u32>,
    slope_strips: Vec<u32>,
    result: Vec<f32>,
    query_gradient: Vec<f32>,
    key_gradient: Vec<f32>,
    value_gradient: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Packs `outer` rows of an operand into panels of `WIDTH`.
fn panels<T: Element, const WIDTH: usize>(
    operand: Operand<'_, T>,
    outer: Range<usize>,
    inner: usize,
    out: &mut Vec<u32>,
) {
    out.resize(outer.len().div_ceil(WIDTH) * WIDTH * steps::<T>(inner), 0);
    pack_panels::<T, WIDTH>(operand, outer, inner, out);
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
                keys_by_width: keys,
                values_by_key: values,
                queries_by_width: query,
                scores,
                result,
                ..
            } = scratch;
            let (wide, long) = (steps::<T>(width), steps::<T>(tokens));
            let [queries_of, keys_of, values_of] = [0, 1, 2].map(|part| sizes.of(qkv, job, part));
            panels::<T, ROWS>(Operand::rows(keys_of, 3 * all), 0..tokens, width, keys);
            panels::<T, ROWS>(
                Operand::columns(values_of, 3 * all),
                0..width,
                tokens,
                values,
            );
            scores.resize(FORWARD_KEYS * LANES, 0.0);
            let result_values = width.next_multiple_of(ROWS) * LANES;
            result.resize(result_values, 0.0);
            for first in (0..sizes.queries()).step_by(LANES) {
                let queries = first..(first + LANES).min(sizes.queries());
                let operand = Operand::rows(queries_of, 3 * all);
                panels::<T, LANES>(operand, queries.clone(), width, query);
                let mut softmax = Softmax::<LANES>::NONE;
                for first_key in (0..tokens).step_by(FORWARD_KEYS) {
                    let count = FORWARD_KEYS.min(tokens - first_key);
                    let of_keys = Tiles::packed::<ROWS, LANES>(count.div_ceil(ROWS), wide, false);
                    let keys = &keys[first_key * wide..];
                    tiles::<T, ROWS, LANES>(&of_keys, keys, query, scores);
                    let before = &mut result[..if first_key > 0 { result_values } else { 0 }];
                    weights::<T, LANES>(scores, count, factor, &mut softmax, before);
                    let of_values = Tiles {
                        distance: long * ROWS,
                        ..Tiles::packed::<ROWS, LANES>(
                            width.div_ceil(ROWS),
                            steps::<T>(count),
                            first_key > 0,
                        )
                    };
                    let values = &values[first_key / T::in_lane() * ROWS..];
                    tiles::<T, ROWS, LANES>(&of_values, values, cast_slice(scores), result);
                }
                for (lane, query) in queries.enumerate() {
                    log_sums[query] = softmax.greatest[lane] + softmax.sums[lane].log2();
                    let row = job / heads * sizes.queries() + query;
                    // SAFETY: the columns of a head and the tokens of a clip are written by one
                    // task only.
                    let out = unsafe { out.part(row, job % heads * width, width) };
                    let share = softmax.sums[lane].recip();
                    for (column, out) in out.iter_mut().enumerate() {
                        *out = T::from_f32(result[column * LANES + lane] * share);
                    }
                }
            }
        });
    });
}

/// Of each query, the greatest score so far, times the factor, and the sum of weights relative to
/// it.
struct Softmax<const LANES: usize> {
    greatest: [f32; LANES],
    sums: [f32; LANES],
}

impl<const LANES: usize> Softmax<LANES> {
    /// Of no scores.
    const NONE: Self = Self {
        greatest: [f32::NEG_INFINITY; LANES],
        sums: [0.0; LANES],
    };
}

vectorised! {
    /// Replaces the scores of `keys` by weights, `[steps][LANES]`, and adds them to `softmax`.
    /// Scales down the sums and results of earlier keys. Scores of NaN become weights of NaN, so
    /// that the loss shows them.
    fn weights<T: Element, const LANES: usize>(
        scores: &mut [f32],
        keys: usize,
        factor: f32,
        softmax: &mut Softmax<LANES>,
        result: &mut [f32],
    ) {
        // Two rows at a time: each waits for the one before it.
        let mut greatest = [[f32::NEG_INFINITY; LANES]; 2];
        for rows in scores[..keys * LANES].chunks(2 * LANES) {
            for (greatest, row) in greatest.iter_mut().zip(rows.chunks_exact(LANES)) {
                for (greatest, &score) in greatest.iter_mut().zip(row) {
                    *greatest = if score > *greatest { score } else { *greatest };
                }
            }
        }
        let [mut greatest, second] = greatest;
        for (greatest, second) in greatest.iter_mut().zip(second) {
            *greatest = if second > *greatest { second } else { *greatest };
        }
        let mut shrink = [0f32; LANES];
        let mut sums = softmax.sums;
        for lane in 0..LANES {
            let (before, now) = (softmax.greatest[lane], greatest[lane] * factor);
            greatest[lane] = if now > before { now } else { before };
            shrink[lane] = exp2(before - greatest[lane]);
            sums[lane] *= shrink[lane];
        }
        for row in result.chunks_exact_mut(LANES) {
            row.iter_mut().zip(&shrink).for_each(|(result, shrink)| *result *= shrink);
        }
        let in_lane = T::in_lane();
        for (step, first) in (0..keys).step_by(in_lane).enumerate() {
            // One or two keys per step; an odd last key is paired with a weight of zero.
            let mut rows = [[0f32; LANES]; 2];
            for (key, row) in (first..keys.min(first + in_lane)).zip(&mut rows) {
                let scores = &scores[key * LANES..][..LANES];
                for lane in 0..LANES {
                    let weight = exp2(scores[lane].mul_add(factor, -greatest[lane]));
                    sums[lane] += weight;
                    row[lane] = T::from_f32(weight).to_f32();
                }
            }
            let out = &mut scores[step * LANES..][..LANES];
            for lane in 0..LANES {
                out[lane] = match in_lane {
                    1 => rows[0][lane],
                    _ => f32::from_bits(T::rounded_pair(rows[0][lane], rows[1][lane])),
                };
            }
        }
        *softmax = Softmax { greatest, sums };
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
        key_only,
        heads,
        width,
    } = sizes;
    let all = sizes.all();
    let to = Shared::new(to, 3 * all);
    for_each(log_sums.len() / sizes.queries(), |job| {
        let first_row = job / heads * tokens;
        let first_column = job % heads * width;
        // Rows of the result and its gradient, from a query of this clip and head on.
        let from = |query: usize| (job / heads * sizes.queries() + query) * all + first_column;
        let log_sums = &log_sums[job * sizes.queries()..][..sizes.queries()];
        SCRATCH.with_borrow_mut(|scratch| {
            pack_keys::<T, ROWS, LANES>(sizes, qkv, job, scratch);
            for first in (0..sizes.queries()).step_by(ACROSS) {
                let queries = first..(first + ACROSS).min(sizes.queries());
                let mut per_query = [[0.0; ACROSS]; 2];
                let [log_sums_of, along] = &mut per_query;
                log_sums_of[..queries.len()].copy_from_slice(&log_sums[queries.clone()]);
                for (along, query) in along.iter_mut().zip(queries.clone()) {
                    let out = &out[from(query)..][..width];
                    let gradient = &gradient[from(query)..][..width];
                    *along = sum(width, |at| out[at].to_f32() * gradient[at].to_f32());
                }
                let gradient = &gradient[from(first)..];
                backward_of_queries::<T, ROWS, LANES>(
                    sizes,
                    [sizes.of(qkv, job, 0), gradient],
                    queries.clone(),
                    &per_query,
                    scratch,
                );
                for (lane, query) in queries.enumerate() {
                    let row = first_row + key_only + query;
                    // SAFETY: the columns of a head and the tokens of a clip are written by one
                    // task only.
                    let to = unsafe { to.part(row, first_column, width) };
                    let panel = lane / LANES * width.next_multiple_of(ROWS) * LANES;
                    let values = &scratch.query_gradient[panel + lane % LANES..];
                    for (to, &value) in to.iter_mut().zip(values.iter().step_by(LANES)) {
                        *to = T::from_f32(value);
                    }
                }
            }
            for token in 0..key_only {
                // SAFETY: as above.
                unsafe { to.part(first_row + token, first_column, width) }.fill(T::default());
            }
            for (part, gradient) in [(1, &scratch.key_gradient), (2, &scratch.value_gradient)] {
                let rows = gradient.chunks_exact(LANES);
                let padded = tokens.next_multiple_of(ROWS);
                for (at, values) in rows.enumerate().filter(|(at, _)| at % padded < tokens) {
                    let column = at / padded * LANES;
                    let columns = LANES.min(width - column);
                    let first_column = part * all + first_column + column;
                    // SAFETY: as above.
                    let to = unsafe { to.part(first_row + at % padded, first_column, columns) };
                    super::element::round(values, to);
                }
            }
        });
    });
}

/// Packs keys and values for the backward, and clears their gradients, `[blocks of LANES
/// columns][keys][LANES]`.
fn pack_keys<T: Element, const ROWS: usize, const LANES: usize>(
    sizes: Heads,
    qkv: &[T],
    job: usize,
    scratch: &mut Scratch,
) {
    let Heads { tokens, width, .. } = sizes;
    let row = 3 * sizes.all();
    let [keys, values] = [1, 2].map(|part| sizes.of(qkv, job, part));
    let (by_width, by_key) = (Operand::rows(keys, row), Operand::columns(keys, row));
    panels::<T, ROWS>(by_width, 0..tokens, width, &mut scratch.keys_by_width);
    panels::<T, ROWS>(by_key, 0..width, tokens, &mut scratch.keys_by_key);
    let by_width = Operand::rows(values, row);
    panels::<T, ROWS>(by_width, 0..tokens, width, &mut scratch.values_by_width);
    for gradient in [&mut scratch.key_gradient, &mut scratch.value_gradient] {
        gradient.clear();
        gradient.resize(
            width.next_multiple_of(LANES) * tokens.next_multiple_of(ROWS),
            0.0,
        );
    }
}

/// The backward of at most [`ACROSS`] queries: writes their gradients to the scratch, `[panels of
/// LANES queries][width][LANES]`, and adds their contribution to the gradients of keys and values.
/// `rows` are the queries and the gradients of their results; `per_query` are `log_sums`, and the
/// dot products of results and their gradients.
fn backward_of_queries<T: Element, const ROWS: usize, const LANES: usize>(
    sizes: Heads,
    [query_rows, gradient]: [&[T]; 2],
    queries: Range<usize>,
    per_query: &[[f32; ACROSS]; 2],
    scratch: &mut Scratch,
) {
    let Heads { tokens, width, .. } = sizes;
    let all = sizes.all();
    let (count, scale) = (queries.len(), sizes.scale());
    let query_panels = count.div_ceil(LANES);
    let [wide, across, long] = [width, count, tokens].map(steps::<T>);
    let query_rows = &query_rows[queries.start * 3 * all..];
    let of_queries = (
        Operand::rows(query_rows, 3 * all),
        Operand::columns(query_rows, 3 * all),
    );
    panels::<T, LANES>(of_queries.0, 0..count, width, &mut scratch.queries_by_width);
    panels::<T, LANES>(of_queries.1, 0..width, count, &mut scratch.queries_by_query);
    let of_gradient = (
        Operand::rows(gradient, all),
        Operand::columns(gradient, all),
    );
    panels::<T, LANES>(
        of_gradient.0,
        0..count,
        width,
        &mut scratch.gradients_by_width,
    );
    panels::<T, LANES>(
        of_gradient.1,
        0..width,
        count,
        &mut scratch.gradients_by_query,
    );
    for buffer in [&mut scratch.scores, &mut scratch.slopes] {
        buffer.resize(buffer.len().max(BACKWARD_KEYS * ACROSS), 0.0);
    }
    for buffer in [
        &mut scratch.weight_strips,
        &mut scratch.slope_strips,
        &mut scratch.slopes_by_key,
    ] {
        buffer.resize(BACKWARD_KEYS * ACROSS, 0);
    }
    let panel_values = width.next_multiple_of(ROWS) * LANES;
    scratch.query_gradient.clear();
    scratch
        .query_gradient
        .resize(query_panels * panel_values, 0.0);
    for first_key in (0..tokens).step_by(BACKWARD_KEYS) {
        let keys = BACKWARD_KEYS.min(tokens - first_key);
        let rows = keys.next_multiple_of(ROWS);
        let scores_of_keys = Tiles {
            width: ACROSS,
            ..Tiles::packed::<ROWS, LANES>(rows / ROWS, wide, false)
        };
        for panel in 0..query_panels {
            for (left, right, sums) in [
                (
                    &scratch.keys_by_width,
                    &scratch.queries_by_width,
                    &mut scratch.scores,
                ),
                (
                    &scratch.values_by_width,
                    &scratch.gradients_by_width,
                    &mut scratch.slopes,
                ),
            ] {
                let left = &left[first_key * wide..];
                let right = &right[panel * wide * LANES..];
                tiles::<T, ROWS, LANES>(&scores_of_keys, left, right, &mut sums[panel * LANES..]);
            }
        }
        slopes_of_scores::<T>(
            [
                &mut scratch.scores[..rows * ACROSS],
                &mut scratch.slopes[..rows * ACROSS],
            ],
            [scale * LOG2_E, scale],
            per_query,
            [keys, query_panels * LANES],
            [&mut scratch.weight_strips, &mut scratch.slope_strips],
            &mut scratch.slopes_by_key,
        );
        let [weights, slopes, slopes_by_key]: [&[u32]; 3] = if T::in_lane() == 1 {
            let slopes = cast_slice(&scratch.slopes);
            [cast_slice(&scratch.scores), slopes, slopes]
        } else {
            [
                &scratch.weight_strips,
                &scratch.slope_strips,
                &scratch.slopes_by_key,
            ]
        };
        let across_queries = Tiles {
            layout: Left::Across,
            distance: ROWS * ACROSS,
            ..Tiles::packed::<ROWS, LANES>(rows / ROWS, across, true)
        };
        for block in 0..width.div_ceil(LANES) {
            let at = (block * tokens.next_multiple_of(ROWS) + first_key) * LANES;
            for (left, right, sums) in [
                (slopes, &scratch.queries_by_query, &mut scratch.key_gradient),
                (
                    weights,
                    &scratch.gradients_by_query,
                    &mut scratch.value_gradient,
                ),
            ] {
                let right = &right[block * across * LANES..];
                tiles::<T, ROWS, LANES>(&across_queries, left, right, &mut sums[at..]);
            }
        }
        let over_keys = Tiles {
            distance: long * ROWS,
            lanes: ACROSS,
            ..Tiles::packed::<ROWS, LANES>(width.div_ceil(ROWS), steps::<T>(keys), true)
        };
        let left = &scratch.keys_by_key[first_key / T::in_lane() * ROWS..];
        let gradients = scratch.query_gradient.chunks_exact_mut(panel_values);
        for (panel, sums) in gradients.enumerate() {
            tiles::<T, ROWS, LANES>(&over_keys, left, &slopes_by_key[panel * LANES..], sums);
        }
    }
}

vectorised! {
    /// From scores `s` and the gradients `g` of the weights, of some keys by [`ACROSS`] queries,
    /// computes the weights `p = 2^(factor s - log_sum)` and the gradients of the scores, `scale p
    /// (g - along)`, in place. Where lanes are pairs, writes both as strips that are read across,
    /// and the gradients also as rows of a right operand. Only the first `used` keys and queries
    /// count; further rows are zero.
    fn slopes_of_scores<T: Element>(
        values: [&mut [f32]; 2],
        factors: [f32; 2],
        per_query: &[[f32; ACROSS]; 2],
        used: [usize; 2],
        strips: [&mut [u32]; 2],
        right: &mut [u32],
    ) {
        let [scores, slopes] = values;
        let [factor, scale] = factors;
        let [log_sums, along] = per_query;
        let [keys, queries] = used;
        scores[keys * ACROSS..].fill(0.0);
        slopes[keys * ACROSS..].fill(0.0);
        let rows = scores.chunks_exact_mut(ACROSS).zip(slopes.chunks_exact_mut(ACROSS));
        for (scores, slopes) in rows.take(keys) {
            let (scores, slopes) = (&mut scores[..queries], &mut slopes[..queries]);
            for query in 0..queries {
                let weight = exp2(scores[query].mul_add(factor, -log_sums[query]));
                let slope = scale * weight * (slopes[query] - along[query]);
                scores[query] = T::from_f32(weight).to_f32();
                slopes[query] = T::from_f32(slope).to_f32();
            }
        }
        if T::in_lane() == 1 {
            return;
        }
        for (values, strip) in [&*scores, &*slopes].into_iter().zip(strips) {
            let strips = strip.chunks_exact_mut(ACROSS);
            for (values, strip) in values.chunks_exact(ACROSS).zip(strips) {
                T::rounded_pairs(&values[..queries], &mut strip[..queries / 2]);
            }
        }
        let rights = right.chunks_exact_mut(ACROSS);
        for (slopes, right) in slopes.chunks_exact(2 * ACROSS).zip(rights) {
            for query in 0..queries {
                right[query] = T::rounded_pair(slopes[query], slopes[ACROSS + query]);
            }
        }
    }
}
