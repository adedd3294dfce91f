//! Multi-threaded gemm, with an epilogue on each tile of the result while it is in cache.
//!
//! The operand with fewer rows is packed once, by all threads; the other is divided into tasks,
//! each of which packs its own part, a block of the summed dimension at a time, and multiplies it
//! by all panels of the first. A sum runs over its whole dimension in one order, so results do not
//! depend on the number of threads.

use super::element::Element;
use super::kernel::{self, Tiles};
use super::memory::resize;
use super::pack::{Operand, pack_panels, steps};
use super::shared::Shared;
use super::simd::{InstructionSet, instruction_set, vectorised};
use super::team::{for_each, for_each_chunk, threads};
use std::cell::RefCell;
use std::ops::Range;

/// Steps of a block: a panel of the right operand stays in the innermost cache while it is
/// multiplied by those of the left one.
const BLOCK: usize = 512;

/// Bytes of a block that a task packs: they stay in its core's cache.
const TASK_BYTES: usize = 256 << 10;

/// Bytes that all threads pack at a time.
const COMMON_BYTES: usize = 16 << 20;

/// Longest sum in one pass of [`add_gemm`].
const MOST_INNER: usize = 4096;

/// Tasks per thread: a thread that was held up leaves the rest to the others.
const TASKS: usize = 3;

/// Panels that a thread packs at a time for all tasks.
const PANELS: usize = 4;

thread_local! {
    static COMMON_PANELS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static OWN_PANELS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
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
    let out = Shared::new(out, columns);
    let second = Shared::new(second, columns);
    let multiply = |rows: Range<usize>,
                    columns: Range<usize>,
                    [left, right]: [Panels<'_>; 2],
                    block: Block| {
        SUMS.with_borrow_mut(|sums| {
            let tile = ROWS * LANES;
            // Sums that one block completes take turns in one tile.
            let distance = if block.is_whole() { 0 } else { tile };
            let count = rows.len().div_ceil(ROWS) * columns.len().div_ceil(LANES);
            let mut sums = enough(sums, tile + count * distance);
            let tiles = Tiles::packed::<ROWS, LANES>(1, block.steps, !block.is_first);
            for (panel, column) in columns.clone().step_by(LANES).enumerate() {
                let right = right.panel(panel);
                let width = LANES.min(columns.end - column);
                for (panel, first) in rows.clone().step_by(ROWS).enumerate() {
                    let left = left.panel(panel);
                    let rows = first..rows.end.min(first + ROWS);
                    if block.is_last {
                        for row in rows.clone() {
                            out.prefetch(row, column, width);
                            second.prefetch(row, column, width);
                        }
                    }
                    kernel::tiles::<T, ROWS, LANES>(&tiles, left, right, sums);
                    if block.is_last {
                        for (sums, row) in sums.chunks_exact(LANES).zip(rows) {
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
                    sums = &mut sums[distance..];
                }
            }
        });
    };
    if rows < columns {
        let operands = [left, right];
        in_tasks::<T, ROWS, LANES>(
            operands,
            [rows, columns],
            inner,
            |[rows, columns], [left, right], block| {
                multiply(rows, columns, [left, right], block);
            },
        );
    } else {
        let operands = [right, left];
        in_tasks::<T, LANES, ROWS>(
            operands,
            [columns, rows],
            inner,
            |[columns, rows], [right, left], block| {
                multiply(rows, columns, [left, right], block);
            },
        );
    }
}

/// Panels of an operand, from the first step of a block on.
#[derive(Clone, Copy)]
struct Panels<'a> {
    lanes: &'a [u32],
    /// Distance from one panel to the next.
    distance: usize,
}

impl<'a> Panels<'a> {
    fn panel(self, at: usize) -> &'a [u32] {
        &self.lanes[at * self.distance..]
    }
}

/// A block of the summed dimension.
#[derive(Clone, Copy)]
struct Block {
    steps: usize,
    is_first: bool,
    is_last: bool,
}

impl Block {
    const fn is_whole(self) -> bool {
        self.is_first && self.is_last
    }
}

/// Packs two operands with sums over `inner` values and calls `multiply`, for each task and block,
/// with the rows of both operands and their panels. All tasks share the panels of the first, of
/// `COMMON` rows; each packs its own panels of the second, of `OWN` rows.
fn in_tasks<T: Element, const COMMON: usize, const OWN: usize>(
    [common, own]: [Operand<'_, T>; 2],
    [common_rows, own_rows]: [usize; 2],
    inner: usize,
    multiply: impl Fn([Range<usize>; 2], [Panels<'_>; 2], Block) + Sync,
) {
    let steps = steps::<T>(inner);
    let per_panel = 4 * steps.max(1) * COMMON;
    let common_at_once = (COMMON_BYTES / per_panel).max(1) * COMMON;
    let panels = own_rows.div_ceil(OWN);
    let most_panels = (TASK_BYTES / (4 * BLOCK.min(steps.max(1)) * OWN)).max(1);
    let tasks = panels
        .div_ceil(most_panels)
        .max(1)
        .next_multiple_of(TASKS * threads());
    let own_at_once = panels.div_ceil(tasks) * OWN;
    let mut packed = COMMON_PANELS.take();
    for first in (0..common_rows).step_by(common_at_once) {
        let of_common = first..common_rows.min(first + common_at_once);
        let packed = enough(
            &mut packed,
            of_common.len().div_ceil(COMMON) * COMMON * steps,
        );
        for_each_chunk(packed, PANELS * COMMON * steps, |chunk, panels| {
            let first = first + chunk * PANELS * COMMON;
            let rows = first..of_common.end.min(first + PANELS * COMMON);
            pack_panels::<T, COMMON>(common, rows, inner, panels);
        });
        for_each(own_rows.div_ceil(own_at_once), |task| {
            let of_own = task * own_at_once..own_rows.min((task + 1) * own_at_once);
            OWN_PANELS.with_borrow_mut(|own_panels| {
                for first in (0..steps.max(1)).step_by(BLOCK) {
                    let block = BLOCK.min(steps - first);
                    let values = T::in_lane() * first..inner.min(T::in_lane() * (first + block));
                    let own_panels = enough(own_panels, of_own.len().div_ceil(OWN) * OWN * block);
                    pack_panels::<T, OWN>(
                        own.after(values.start),
                        of_own.clone(),
                        values.len(),
                        own_panels,
                    );
                    let common = Panels {
                        lanes: &packed[first * COMMON..],
                        distance: steps * COMMON,
                    };
                    let own = Panels {
                        lanes: own_panels,
                        distance: block * OWN,
                    };
                    let block = Block {
                        steps: block,
                        is_first: first == 0,
                        is_last: first + block == steps,
                    };
                    multiply([of_common.clone(), of_own.clone()], [common, own], block);
                }
            });
        });
    }
    COMMON_PANELS.set(packed);
}

/// At least `length` values, of which the first are used.
fn enough<V: Copy + Default>(values: &mut Vec<V>, length: usize) -> &mut [V] {
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
