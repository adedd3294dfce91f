//! The innermost loop of every gemm: a tile of 8 rows and 32 lanes, summed over steps in registers.
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

/// Of `count` tiles `sums[i][j] = sum over steps of left[i][step] * right[step][j]`, with `right` `[steps][32]` and each tile's `left` as `layout` says; added to
/// what is in `sums`, `[count][8][32]`, if `adds`. Lanes are values of f32, or pairs of bf16 where [`Element::in_lane`] says so.
///
/// # Panics
/// When an operand is too short.
#[inline]
pub(crate) fn tiles<T: Element>(count: usize, steps: usize, layout: Left, left: &[u32], right: &[u32], adds: bool, sums: &mut [f32]) {
    let distance = match layout {
        Left::Packed => steps * ROWS,
        Left::Across => ROWS * LANES,
    };
    assert!(layout == Left::Packed || steps <= LANES, "a strip has {LANES} columns");
    assert!(
        left.len() >= count * distance && right.len() >= steps * LANES && sums.len() >= count * ROWS * LANES,
        "operands of {steps} steps"
    );
    let shape = Shape { count, steps, distance, adds };
    let (left, right, sums) = (left.as_ptr(), right.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the lengths have been checked, the processor has the instructions, and 4-byte lanes are f32 or pairs as the element says.
    unsafe {
        match (isa(), layout) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Packed) if T::in_lane() == 2 => avx512_pairs::<1, ROWS>(shape, left, right, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Across) if T::in_lane() == 2 => avx512_pairs::<LANES, 1>(shape, left, right, sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Packed) => avx512::<1, ROWS>(shape, left.cast(), right.cast(), sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Across) => avx512::<LANES, 1>(shape, left.cast(), right.cast(), sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Packed) => avx2::<1, ROWS>(shape, left.cast(), right.cast(), sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Across) => avx2::<LANES, 1>(shape, left.cast(), right.cast(), sums),
            (_, Left::Packed) => plain::<1, ROWS>(shape, left.cast(), right.cast(), sums),
            (_, Left::Across) => plain::<LANES, 1>(shape, left.cast(), right.cast(), sums),
        }
    }
}

/// What is summed.
#[derive(Debug, Clone, Copy)]
struct Shape {
    count: usize,
    steps: usize,
    /// From the left operand of one tile to that of the next.
    distance: usize,
    adds: bool,
}

/// `ROW` and `STEP` are the distances from one row, and one step, of `left` to the next.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROW: usize, const STEP: usize>(shape: Shape, left: *const f32, right: *const f32, sums: *mut f32) {
    let Shape { count, steps, distance, adds } = shape;
    for at in 0..count {
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let (left, sums) = (left.add(at * distance), sums.add(at * ROWS * LANES));
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
}

/// The same of pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs<const ROW: usize, const STEP: usize>(shape: Shape, left: *const u32, right: *const u32, sums: *mut f32) {
    let Shape { count, steps, distance, adds } = shape;
    for at in 0..count {
        // SAFETY: the caller has checked the lengths; vectors of the same size hold any bits.
        unsafe {
            let (left, sums) = (left.add(at * distance), sums.add(at * ROWS * LANES));
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
}

/// Quarters of the tile, 4 rows and 16 lanes each: 16 registers hold no more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROW: usize, const STEP: usize>(shape: Shape, left: *const f32, right: *const f32, sums: *mut f32) {
    let Shape { count, steps, distance, adds } = shape;
    for quarter in 0..4 * count {
        let (at, first_row, first_lane) = (quarter / 4, quarter / 2 % 2 * 4, quarter % 2 * 16);
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let left = left.add(at * distance);
            let sums = sums.add((at * ROWS + first_row) * LANES + first_lane);
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

unsafe fn plain<const ROW: usize, const STEP: usize>(shape: Shape, left: *const f32, right: *const f32, sums: *mut f32) {
    let Shape { count, steps, distance, adds } = shape;
    for row in 0..count * ROWS {
        let (at, row) = (row / ROWS, row % ROWS);
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let (left, sums) = (left.add(at * distance), sums.add(at * ROWS * LANES));
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

/// Eight lanes of each of eight rows to `[8 lanes][8 rows]`: rows begin `from` values apart in `values`, and `to` lanes apart in `out`.
///
/// # Panics
/// When either is too short.
#[inline]
pub(crate) fn transpose<T: Element>(values: &[T], from: usize, out: &mut [u32], to: usize) {
    let in_lane = T::in_lane();
    assert!(values.len() >= 7 * from + 8 * in_lane && out.len() >= 7 * to + 8, "eight rows of eight lanes");
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx2 && size_of::<T>() * in_lane == size_of::<u32>() {
        // SAFETY: the lengths have been checked, the processor has AVX2, and a lane is the values' own bytes.
        return unsafe { transpose_avx2(values.as_ptr().cast(), from * size_of::<T>(), out.as_mut_ptr().cast(), to) };
    }
    for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
        let at = row * from + column * in_lane;
        out[column * to + row] = if in_lane == 1 { values[at].single() } else { values[at].pair(values[at + 1]) };
    }
}

/// `from` is in bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2(values: *const u8, from: usize, out: *mut f32, to: usize) {
    // SAFETY: the caller has checked the lengths.
    unsafe {
        let rows: [__m256; 8] = std::array::from_fn(|row| _mm256_loadu_ps(values.add(row * from).cast()));
        // Neighbours in pairs, then in fours, then in halves.
        let pair = |at: usize| [_mm256_unpacklo_ps(rows[at], rows[at + 1]), _mm256_unpackhi_ps(rows[at], rows[at + 1])];
        let pairs = [pair(0), pair(2), pair(4), pair(6)];
        let four = |first: usize, which: usize| {
            let (a, b) = (pairs[first][which], pairs[first + 1][which]);
            [_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b)]
        };
        let (top, bottom) = ([four(0, 0), four(0, 1)], [four(2, 0), four(2, 1)]);
        for column in 0..4 {
            let (top, bottom) = (top[column / 2][column % 2], bottom[column / 2][column % 2]);
            _mm256_storeu_ps(out.add(column * to), _mm256_permute2f128_ps::<0x20>(top, bottom));
            _mm256_storeu_ps(out.add((column + 4) * to), _mm256_permute2f128_ps::<0x31>(top, bottom));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use pipeline::sampling::order::{Purpose, stream};
    use rand::RngExt;

    /// Every version that the processor has, against sums in f64.
    #[test]
    fn all_versions_sum_alike() {
        let mut rng = stream(Purpose::Synth, 1, 2, 3);
        for (steps, count, adds, layout) in
            [(0, 1, false, Left::Packed), (1, 2, true, Left::Packed), (77, 3, false, Left::Packed), (31, 2, true, Left::Across)]
        {
            let distance = if layout == Left::Packed { steps * ROWS } else { ROWS * LANES };
            let mut noise = |count: usize| (0..count).map(|_| rng.random::<f32>() - 0.5).collect::<Vec<_>>();
            let (left, right, before) = (noise(count * distance), noise(steps * LANES), noise(count * ROWS * LANES));
            let shape = Shape { count, steps, distance, adds };
            let expected = |at: usize| {
                let (tile, row, lane) = (at / (ROWS * LANES), at / LANES % ROWS, at % LANES);
                let left_of =
                    |step: usize| left[tile * distance + if layout == Left::Packed { step * ROWS + row } else { row * LANES + step }];
                let products = (0..steps).map(|step| f64::from(left_of(step)) * f64::from(right[step * LANES + lane]));
                products.sum::<f64>() + if adds { f64::from(before[at]) } else { 0.0 }
            };
            let check = |what: &str, sums: &[f32]| {
                for (at, &sum) in sums.iter().enumerate() {
                    assert!((f64::from(sum) - expected(at)).abs() < 1e-5, "{what}, {steps} steps: {sum} for {}", expected(at));
                }
            };
            let run = |function: unsafe fn(Shape, *const f32, *const f32, *mut f32)| {
                let mut sums = before.clone();
                // SAFETY: the operands have the lengths that the shape says, and the caller has seen that the processor has the instructions.
                unsafe { function(shape, left.as_ptr(), right.as_ptr(), sums.as_mut_ptr()) };
                sums
            };
            check("plain", &run(if layout == Left::Packed { plain::<1, ROWS> } else { plain::<LANES, 1> }));
            #[cfg(target_arch = "x86_64")]
            {
                if isa() >= Isa::Avx2 {
                    let function: unsafe fn(Shape, *const f32, *const f32, *mut f32) = |shape, left, right, sums| {
                        // SAFETY: as for the caller.
                        unsafe { avx2::<1, ROWS>(shape, left, right, sums) }
                    };
                    let across: unsafe fn(Shape, *const f32, *const f32, *mut f32) = |shape, left, right, sums| {
                        // SAFETY: as for the caller.
                        unsafe { avx2::<LANES, 1>(shape, left, right, sums) }
                    };
                    check("AVX2", &run(if layout == Left::Packed { function } else { across }));
                }
            }
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let mut sums = before.clone();
            tiles::<f32>(count, steps, layout, &bits(&left), &bits(&right), adds, &mut sums);
            check("the best", &sums);
        }
    }

    #[test]
    fn pairs_are_summed_as_their_values() {
        let mut stream = stream(Purpose::Synth, 4, 5, 6);
        let (steps, mut rng) = (19, || stream.random::<f32>() - 0.5);
        let lanes = |rng: &mut dyn FnMut() -> f32, count: usize| {
            let values: Vec<[bf16; 2]> = (0..count).map(|_| [0; 2].map(|_| <bf16 as Element>::from_f32(rng()))).collect();
            let lanes: Vec<u32> =
                values.iter().map(|&[first, second]| if bf16::in_lane() == 2 { first.pair(second) } else { first.single() }).collect();
            (values, lanes)
        };
        let ((left, left_lanes), (right, right_lanes)) = (lanes(&mut rng, steps * ROWS), lanes(&mut rng, steps * LANES));
        let mut sums = [0f32; ROWS * LANES];
        tiles::<bf16>(1, steps, Left::Packed, &left_lanes, &right_lanes, false, &mut sums);
        for (at, sum) in sums.into_iter().enumerate() {
            let (row, lane) = (at / LANES, at % LANES);
            let gemm = |step: usize, which: usize| left[step * ROWS + row][which].to_f64() * right[step * LANES + lane][which].to_f64();
            let expected: f64 = (0..steps).map(|step| (0..bf16::in_lane()).map(|which| gemm(step, which)).sum::<f64>()).sum();
            assert!((f64::from(sum) - expected).abs() < 1e-4, "{sum} for {expected}");
        }
    }

    #[test]
    fn rows_are_transposed() {
        fn check<T: Element>(from: usize) {
            let values: Vec<T> = (0..8 * from as u32).map(|at| T::from_f32((at % 251) as f32)).collect();
            let mut out = vec![0; 7 * 9 + 8];
            transpose(&values, from, &mut out, 9);
            for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
                let at = row * from + column * T::in_lane();
                let expected = if T::in_lane() == 1 { values[at].single() } else { values[at].pair(values[at + 1]) };
                assert_eq!(out[column * 9 + row], expected);
            }
        }
        check::<f32>(13);
        check::<bf16>(19);
    }
}
