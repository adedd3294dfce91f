//! The innermost loop of every product: a tile of 8 rows and 32 lanes, summed over steps in registers.
//!
//! The room of unsafe of the fused operations. A step is one value of the summed dimension, or a pair of bf16. All instruction sets sum in the same order;
//! those with fused multiply-add round once a step.

use super::element::Element;
use super::simd::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows of a tile.
pub(crate) const ROWS: usize = 8;
/// Lanes of a tile.
pub(crate) const LANES: usize = 32;

/// A tile of sums.
pub(crate) type Tile = [f32; ROWS * LANES];

/// Where the left operand of a tile lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// `[steps][8]`: packed.
    Packed,
    /// `[8][LANES]`, the step being the column: a strip of a right operand, read across.
    Across,
}

/// `sums[i][j] = sum over steps of left[i][step] * right[step][j]`, with `right` `[steps][32]` and `left` as `layout` says; added to what is in `sums` if
/// `adds`. `sums` has [`LANES`] columns. Lanes are values of f32, or pairs of bf16 where [`Element::in_lane`] says so.
///
/// # Panics
/// When an operand is too short.
#[inline]
pub(crate) fn tile<T: Element>(steps: usize, layout: Left, left: &[u32], right: &[u32], adds: bool, sums: &mut [f32]) {
    let read = match layout {
        Left::Packed => steps * ROWS,
        Left::Across => (ROWS - 1) * LANES + steps.min(LANES),
    };
    assert!(left.len() >= read && right.len() >= steps * LANES && sums.len() >= ROWS * LANES, "operands of {steps} steps");
    assert!(layout == Left::Packed || steps <= LANES, "a strip has {LANES} columns");
    let (left, right, sums) = (left.as_ptr(), right.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the lengths have been checked, the processor has the instructions, and 4-byte lanes are f32 or pairs as the element says.
    unsafe {
        match (isa(), layout) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Packed) if T::in_lane() == 2 => avx512_pairs::<1, ROWS>(steps, left, right, adds, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Across) if T::in_lane() == 2 => avx512_pairs::<LANES, 1>(steps, left, right, adds, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Packed) => avx512::<1, ROWS>(steps, left.cast(), right.cast(), adds, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Across) => avx512::<LANES, 1>(steps, left.cast(), right.cast(), adds, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Packed) => avx2::<1, ROWS>(steps, left.cast(), right.cast(), adds, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Across) => avx2::<LANES, 1>(steps, left.cast(), right.cast(), adds, sums),
            (_, Left::Packed) => plain::<1, ROWS>(steps, left.cast(), right.cast(), adds, sums),
            (_, Left::Across) => plain::<LANES, 1>(steps, left.cast(), right.cast(), adds, sums),
        }
    }
}

/// `ROW` and `STEP` are the distances from one row, and one step, of `left` to the next.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROW: usize, const STEP: usize>(steps: usize, left: *const f32, right: *const f32, adds: bool, sums: *mut f32) {
    // SAFETY: the caller has checked the lengths.
    unsafe {
        let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
        if adds {
            for (row, tile) in tile.iter_mut().enumerate() {
                *tile = [_mm512_loadu_ps(sums.add(row * LANES)), _mm512_loadu_ps(sums.add(row * LANES + 16))];
            }
        }
        for step in 0..steps {
            let right = right.add(step * LANES);
            let (low, high) = (_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(16)));
            for (row, tile) in tile.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*left.add(row * ROW + step * STEP));
                *tile = [_mm512_fmadd_ps(value, low, tile[0]), _mm512_fmadd_ps(value, high, tile[1])];
            }
        }
        for (row, tile) in tile.into_iter().enumerate() {
            _mm512_storeu_ps(sums.add(row * LANES), tile[0]);
            _mm512_storeu_ps(sums.add(row * LANES + 16), tile[1]);
        }
    }
}

/// The same of pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs<const ROW: usize, const STEP: usize>(steps: usize, left: *const u32, right: *const u32, adds: bool, sums: *mut f32) {
    // SAFETY: the caller has checked the lengths; vectors of the same size hold any bits.
    unsafe {
        let pairs = |vector: __m512i| std::mem::transmute::<__m512i, __m512bh>(vector);
        let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
        if adds {
            for (row, tile) in tile.iter_mut().enumerate() {
                *tile = [_mm512_loadu_ps(sums.add(row * LANES)), _mm512_loadu_ps(sums.add(row * LANES + 16))];
            }
        }
        for step in 0..steps {
            let right = right.add(step * LANES);
            let (low, high) = (pairs(_mm512_loadu_si512(right.cast())), pairs(_mm512_loadu_si512(right.add(16).cast())));
            for (row, tile) in tile.iter_mut().enumerate() {
                let value = pairs(_mm512_set1_epi32((*left.add(row * ROW + step * STEP)).cast_signed()));
                *tile = [_mm512_dpbf16_ps(tile[0], value, low), _mm512_dpbf16_ps(tile[1], value, high)];
            }
        }
        for (row, tile) in tile.into_iter().enumerate() {
            _mm512_storeu_ps(sums.add(row * LANES), tile[0]);
            _mm512_storeu_ps(sums.add(row * LANES + 16), tile[1]);
        }
    }
}

/// Quarters of the tile, 4 rows and 16 lanes each: 16 registers hold no more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROW: usize, const STEP: usize>(steps: usize, left: *const f32, right: *const f32, adds: bool, sums: *mut f32) {
    for quarter in 0..4 {
        let (first_row, first_lane) = (quarter / 2 * 4, quarter % 2 * 16);
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let sums = sums.add(first_row * LANES + first_lane);
            let mut tile = [[_mm256_setzero_ps(); 2]; 4];
            if adds {
                for (row, tile) in tile.iter_mut().enumerate() {
                    *tile = [_mm256_loadu_ps(sums.add(row * LANES)), _mm256_loadu_ps(sums.add(row * LANES + 8))];
                }
            }
            for step in 0..steps {
                let right = right.add(step * LANES + first_lane);
                let (low, high) = (_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(8)));
                for (row, tile) in tile.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*left.add((first_row + row) * ROW + step * STEP));
                    *tile = [_mm256_fmadd_ps(value, low, tile[0]), _mm256_fmadd_ps(value, high, tile[1])];
                }
            }
            for (row, tile) in tile.into_iter().enumerate() {
                _mm256_storeu_ps(sums.add(row * LANES), tile[0]);
                _mm256_storeu_ps(sums.add(row * LANES + 8), tile[1]);
            }
        }
    }
}

unsafe fn plain<const ROW: usize, const STEP: usize>(steps: usize, left: *const f32, right: *const f32, adds: bool, sums: *mut f32) {
    for row in 0..ROWS {
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let sums = std::slice::from_raw_parts_mut(sums.add(row * LANES), LANES);
            if !adds {
                sums.fill(0.0);
            }
            for step in 0..steps {
                let (value, right) = (*left.add(row * ROW + step * STEP), std::slice::from_raw_parts(right.add(step * LANES), LANES));
                sums.iter_mut().zip(right).for_each(|(sum, &right)| *sum += value * right);
            }
        }
    }
}
