//! Multi-threaded gemm, with an epilogue on each tile of the result while it is in cache.
//!
//! All threads pack the right operand once; each task packs some rows of the left one and
//! multiplies them with all panels. A sum runs over its whole dimension in one order, so results do
//! not depend on the number of threads.

use super::element::Element;
use super::kernel::{self, Left};
use super::memory::resize;
use super::pack::{Operand, pack, steps};
use super::shared::Shared;
use super::simd::{InstructionSet, instruction_set, vectorised};
use super::team::{for_each, for_each_chunk, threads};
use std::cell::RefCell;

/// Bytes of the left operand that a task packs: they stay in its core's cache.
const LEFT_BYTES: usize = 256 << 10;

/// Bytes of the right operand that are packed at a time.
const RIGHT_BYTES: usize = 8 << 20;

/// Longest sum in one pass of [`add_gemm`].
const MOST_INNER: usize = 4096;

/// Tasks per thread: a thread that was held up leaves the rest to the others.
const TASKS: usize = 3;

thread_local! {
    static LEFT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static RIGHT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Part of a row of a gemm's result: `sums`, from `column` of `row` on, and the same part of the
/// outputs.
pub(crate) struct Part<'a, A, B> {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) sums: &'a [f32],
    pub(crate) out: &'a mut [A],
    pub(crate) second: &'a mut [B],
}

/// Computes `left right^T`, `[rows, columns]` of sums over `inner` values, and calls the epilogue
/// `then` once for each part of the result. `out` has the shape of the result; so has `second`,
/// unless it is empty.
///
/// # Panics
/// When an output has the wrong size.
pub(crate) fn gemm2<T: Element, A: Send, B: Send>(
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    [rows, inner, columns]: [usize; 3],
    out: &mut [A],
    second: &mut [B],
    then: impl Fn(Part<'_, A, B>) + Sync,
) {
    assert!(
        out.len() == rows * columns && (second.is_empty() || second.len() == out.len()),
        "outputs of {rows} x {columns}"
    );
    match instruction_set() {
        InstructionSet::Plain | InstructionSet::Avx2 => {
            in_tiles::<T, A, B, 6, 16>(left, right, [rows, inner, columns], out, second, then);
        }
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => {
            in_tiles::<T, A, B, 12, 32>(left, right, [rows, inner, columns], out, second, then);
        }
    }
}

/// [`gemm2`] with tiles of one size.
fn in_tiles<T: Element, A: Send, B: Send, const ROWS: usize, const LANES: usize>(
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    [rows, inner, columns]: [usize; 3],
    out: &mut [A],
    second: &mut [B],
    then: impl Fn(Part<'_, A, B>) + Sync,
) {
    let steps = steps::<T>(inner);
    let out = Shared::new(out, columns);
    let second = Shared::new(second, columns);
    let columns_at_once = (RIGHT_BYTES / (4 * steps.max(1)) / LANES).max(1) * LANES;
    let most_rows = (LEFT_BYTES / (4 * steps.max(1)) / ROWS).max(1) * ROWS;
    let tasks = rows.div_ceil(most_rows).next_multiple_of(TASKS * threads());
    let rows_at_once = rows.div_ceil(tasks).next_multiple_of(ROWS);
    let mut packed_right = RIGHT.take();
    for first_column in (0..columns).step_by(columns_at_once) {
        let width = columns_at_once.min(columns - first_column);
        let packed_right = enough(&mut packed_right, width.div_ceil(LANES) * LANES * steps);
        for_each_chunk(packed_right, LANES * steps, |panel, lanes| {
            let first = first_column + panel * LANES;
            let last = (first + LANES).min(first_column + width);
            pack::<T, LANES>(right, first..last, inner, lanes);
        });
        for_each(rows.div_ceil(rows_at_once), |task| {
            let rows = task * rows_at_once..rows.min((task + 1) * rows_at_once);
            LEFT.with_borrow_mut(|packed_left| {
                let packed_left = enough(packed_left, rows.len().div_ceil(ROWS) * ROWS * steps);
                for (panel, lanes) in packed_left.chunks_exact_mut(ROWS * steps).enumerate() {
                    let first = rows.start + panel * ROWS;
                    pack::<T, ROWS>(left, first..(first + ROWS).min(rows.end), inner, lanes);
                }
                let mut tile = [[0.0; LANES]; ROWS];
                for (right_panel, right) in packed_right.chunks_exact(LANES * steps).enumerate() {
                    let column = first_column + right_panel * LANES;
                    let width = LANES.min(columns - column);
                    for (left_panel, left) in packed_left.chunks_exact(ROWS * steps).enumerate() {
                        let first = rows.start + left_panel * ROWS;
                        for row in first..rows.end.min(first + ROWS) {
                            out.prefetch(row, column, width);
                        }
                        kernel::tiles::<T, ROWS, LANES>(
                            1,
                            steps,
                            Left::Packed,
                            left,
                            right,
                            false,
                            tile.as_flattened_mut(),
                        );
                        for (sums, row) in tile.iter().zip(first..rows.end) {
                            // SAFETY: each part of the outputs is accessed by one task, once.
                            let (out, second) = unsafe {
                                (
                                    out.part(row, column, width),
                                    second.part(row, column, width),
                                )
                            };
                            then(Part {
                                row,
                                column,
                                sums: &sums[..width],
                                out,
                                second,
                            });
                        }
                    }
                }
            });
        });
    }
    RIGHT.set(packed_right);
}

/// At least `length` values, of which the first are used.
fn enough(values: &mut Vec<u32>, length: usize) -> &mut [u32] {
    if values.len() < length {
        resize(values, length);
    }
    &mut values[..length]
}

/// [`gemm2`] with one output.
pub(crate) fn gemm<T: Element, A: Send>(
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    shape: [usize; 3],
    out: &mut [A],
    then: impl Fn(Part<'_, A, ()>) + Sync,
) {
    gemm2(left, right, shape, out, &mut [], then);
}

/// Computes `left right^T` into `out`, or adds it to `out` if `adds`.
pub(crate) fn add_gemm<T: Element>(
    left: Operand<'_, T>,
    right: Operand<'_, T>,
    [rows, inner, columns]: [usize; 3],
    adds: bool,
    out: &mut [f32],
) {
    for first in (0..inner).step_by(MOST_INNER) {
        let shape = [rows, MOST_INNER.min(inner - first), columns];
        let left = left.after(first);
        let right = right.after(first);
        if adds || first > 0 {
            gemm(left, right, shape, out, |part| add(part.sums, part.out));
        } else {
            gemm(left, right, shape, out, |part| {
                part.out.copy_from_slice(part.sums)
            });
        }
    }
}

vectorised! {
    /// Computes `out += values`.
    pub(crate) fn add(values: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(values).for_each(|(out, &value)| *out += value);
    }
}
