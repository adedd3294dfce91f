//! Packing of operands in the order in which the kernel reads them: panels of `[steps][width]`
//! lanes.

use super::element::Element;
use super::kernel;
use super::simd::vectorised;
use std::ops::Range;

/// A matrix as an operand of a gemm: the outer dimension remains in the result, the inner one is
/// summed over. One of the strides is 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a, T> {
    values: &'a [T],
    /// Stride of the outer dimension.
    outer: usize,
    /// Stride of the inner dimension.
    inner: usize,
}

impl<'a, T> Operand<'a, T> {
    /// A matrix with rows of `width` values, which are summed over: `x` and `w` in `x w^T`.
    pub(crate) const fn rows(values: &'a [T], width: usize) -> Self {
        Self {
            values,
            outer: width,
            inner: 1,
        }
    }

    /// A matrix with rows of `width` values, whose columns are summed over.
    pub(crate) const fn columns(values: &'a [T], width: usize) -> Self {
        Self {
            values,
            outer: 1,
            inner: width,
        }
    }

    /// The operand without the first `count` values of the inner dimension.
    pub(crate) fn after(self, count: usize) -> Self {
        Self {
            values: &self.values[(count * self.inner).min(self.values.len())..],
            ..self
        }
    }
}

/// Steps of the kernel for `inner` values.
pub(crate) fn steps<T: Element>(inner: usize) -> usize {
    inner.div_ceil(T::in_lane())
}

/// Packs the rows `outer` and `inner` values of `operand` into `panels`, `[panels][steps][WIDTH]`,
/// padded with zeros.
pub(crate) fn pack_panels<T: Element, const WIDTH: usize>(
    operand: Operand<'_, T>,
    outer: Range<usize>,
    inner: usize,
    panels: &mut [u32],
) {
    let size = steps::<T>(inner) * WIDTH;
    debug_assert!(
        panels.len() == outer.len().div_ceil(WIDTH) * size,
        "the size of panels"
    );
    let panel_rows = |panel: usize| {
        let first = outer.start + panel * WIDTH;
        first..(first + WIDTH).min(outer.end)
    };
    if size == 0 {
        return;
    }
    if operand.inner == 1 {
        for (panel, lanes) in panels.chunks_exact_mut(size).enumerate() {
            pack::<T, WIDTH>(operand, panel_rows(panel), inner, lanes);
        }
        return;
    }
    // Each row in memory has a part of every panel: read it once, while it is in the cache.
    for (block, first) in (0..inner).step_by(STEPS_AT_ONCE * T::in_lane()).enumerate() {
        let operand = operand.after(first);
        let inner = (STEPS_AT_ONCE * T::in_lane()).min(inner - first);
        for (panel, lanes) in panels.chunks_exact_mut(size).enumerate() {
            let lanes = &mut lanes[block * STEPS_AT_ONCE * WIDTH..][..steps::<T>(inner) * WIDTH];
            pack::<T, WIDTH>(operand, panel_rows(panel), inner, lanes);
        }
    }
}

/// Packs the rows `outer` (at most `WIDTH`) and `inner` values of `operand` into `panel`,
/// `[steps][WIDTH]`, padded with zeros.
pub(crate) fn pack<T: Element, const WIDTH: usize>(
    operand: Operand<'_, T>,
    outer: Range<usize>,
    inner: usize,
    panel: &mut [u32],
) {
    debug_assert!(
        outer.len() <= WIDTH && panel.len() == steps::<T>(inner) * WIDTH,
        "a panel's size"
    );
    if outer.len() < WIDTH {
        panel.fill(0);
    }
    match (operand.inner == 1, T::in_lane()) {
        (true, _) => {
            // Some steps of all rows at a time: their part of the panel stays in the innermost
            // cache.
            for (block, panel) in panel.chunks_mut(STEPS_AT_ONCE * WIDTH).enumerate() {
                let first = block * STEPS_AT_ONCE * T::in_lane();
                let inner = first..(first + STEPS_AT_ONCE * T::in_lane()).min(inner);
                let is_whole = inner.len() == STEPS_AT_ONCE * T::in_lane();
                for column in (0..outer.len()).step_by(8) {
                    let rows = 8.min(WIDTH - column);
                    let values =
                        &operand.values[(outer.start + column) * operand.outer + inner.start..];
                    if is_whole && column + rows <= outer.len() {
                        let panel = &mut panel[column..];
                        kernel::transpose(values, operand.outer, rows, panel, WIDTH);
                        continue;
                    }
                    for row in 0..rows.min(outer.len() - column) {
                        spread::<T, WIDTH>(
                            &values[row * operand.outer..][..inner.len()],
                            &mut panel[column + row..],
                        );
                    }
                }
            }
        }
        (false, 1) => {
            for (step, lanes) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let row = &operand.values[step * operand.inner..][outer.clone()];
                match (row.first_chunk::<WIDTH>(), lanes.first_chunk_mut::<WIDTH>()) {
                    // A constant length compiles to straight code, which matters for short rows.
                    (Some(row), Some(lanes)) => {
                        for at in 0..WIDTH {
                            lanes[at] = row[at].single();
                        }
                    }
                    _ => singles(row, lanes),
                }
            }
        }
        (false, _) => {
            for (step, lanes) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let row = |at: usize| &operand.values[at * operand.inner..][outer.clone()];
                if 2 * step + 1 < inner {
                    pairs(row(2 * step), row(2 * step + 1), lanes);
                } else {
                    lanes
                        .iter_mut()
                        .zip(row(2 * step))
                        .for_each(|(lane, &value)| *lane = value.pair(T::default()));
                }
            }
        }
    }
}

/// Steps that are packed at a time.
const STEPS_AT_ONCE: usize = 8;

/// Writes the values of one row to one column of a panel.
#[inline]
fn spread<T: Element, const WIDTH: usize>(values: &[T], column: &mut [u32]) {
    if T::in_lane() == 1 {
        for (step, &value) in values.iter().enumerate() {
            column[step * WIDTH] = value.single();
        }
    } else {
        let pairs = values.chunks_exact(2);
        if let [last] = pairs.remainder() {
            column[values.len() / 2 * WIDTH] = last.pair(T::default());
        }
        for (step, pair) in pairs.enumerate() {
            column[step * WIDTH] = pair[0].pair(pair[1]);
        }
    }
}

vectorised! {
    fn singles<T: Element>(values: &[T], lanes: &mut [u32]) {
        lanes.iter_mut().zip(values).for_each(|(lane, &value)| *lane = value.single());
    }
}

vectorised! {
    /// Interleaves two rows.
    fn pairs<T: Element>(first: &[T], second: &[T], lanes: &mut [u32]) {
        for ((lane, &first), &second) in lanes.iter_mut().zip(first).zip(second) {
            *lane = first.pair(second);
        }
    }
}
