//! The micro-kernel of every gemm: a tile of 8 rows and 32 lanes, summed over steps in registers.
//!
//! Most of the `unsafe` code of `cpu` is here. A step is one value of the summed dimension, or a
//! pair of bf16. All instruction sets sum in the same order; those with fused multiply-add round
//! once per step.

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

/// Layout of the left operand of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// `[steps][8]`, packed.
    Packed,
    /// `[8][LANES]`, where the step is the column: a strip of a right operand, read across.
    Across,
}

/// Computes `count` tiles `sums[i][j] = sum over steps of left[i][step] * right[step][j]`, with
/// `right` `[steps][32]` and the `left` of each tile in `layout`. With `adds`, adds them to `sums`,
/// `[count][8][32]`. Lanes are values of f32, or pairs of bf16 where [`Element::in_lane`] is 2.
///
/// # Panics
/// When an operand is too short.
#[inline]
pub(crate) fn tiles<T: Element>(
    count: usize,
    steps: usize,
    layout: Left,
    left: &[u32],
    right: &[u32],
    adds: bool,
    sums: &mut [f32],
) {
    let distance = match layout {
        Left::Packed => steps * ROWS,
        Left::Across => ROWS * LANES,
    };
    assert!(
        layout == Left::Packed || steps <= LANES,
        "a strip has {LANES} columns"
    );
    assert!(
        left.len() >= count * distance
            && right.len() >= steps * LANES
            && sums.len() >= count * ROWS * LANES,
        "operands of {steps} steps"
    );
    let shape = Shape {
        count,
        steps,
        distance,
        adds,
    };
    let left = left.as_ptr();
    let right = right.as_ptr();
    let sums = sums.as_mut_ptr();
    // SAFETY: the lengths are checked, the CPU has the instructions, and 4-byte lanes are f32 or
    // pairs, according to the element type.
    unsafe {
        match (isa(), layout) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Packed) if T::in_lane() == 2 => {
                avx512_pairs::<1, ROWS>(shape, left, right, sums)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Left::Across) if T::in_lane() == 2 => {
                avx512_pairs::<LANES, 1>(shape, left, right, sums)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Packed) => {
                avx512::<1, ROWS>(shape, left.cast(), right.cast(), sums)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Left::Across) => {
                avx512::<LANES, 1>(shape, left.cast(), right.cast(), sums)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Packed) => avx2::<1, ROWS>(shape, left.cast(), right.cast(), sums),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Left::Across) => avx2::<LANES, 1>(shape, left.cast(), right.cast(), sums),
            (_, Left::Packed) => plain::<1, ROWS>(shape, left.cast(), right.cast(), sums),
            (_, Left::Across) => plain::<LANES, 1>(shape, left.cast(), right.cast(), sums),
        }
    }
}

/// Sizes of the operands.
#[derive(Debug, Clone, Copy)]
struct Shape {
    count: usize,
    steps: usize,
    /// Distance from the left operand of one tile to that of the next.
    distance: usize,
    adds: bool,
}

/// `ROW` and `STEP` are the distances between consecutive rows and steps of `left`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROW: usize, const STEP: usize>(
    shape: Shape,
    left: *const f32,
    right: *const f32,
    sums: *mut f32,
) {
    let Shape {
        count,
        steps,
        distance,
        adds,
    } = shape;
    for at in 0..count {
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let left = left.add(at * distance);
            let sums = sums.add(at * ROWS * LANES);
            let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
            if adds {
                for (row, tile) in tile.iter_mut().enumerate() {
                    *tile = [
                        _mm512_loadu_ps(sums.add(row * LANES)),
                        _mm512_loadu_ps(sums.add(row * LANES + 16)),
                    ];
                }
            }
            for step in 0..steps {
                let right = right.add(step * LANES);
                let low = _mm512_loadu_ps(right);
                let high = _mm512_loadu_ps(right.add(16));
                for (row, tile) in tile.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*left.add(row * ROW + step * STEP));
                    *tile = [
                        _mm512_fmadd_ps(value, low, tile[0]),
                        _mm512_fmadd_ps(value, high, tile[1]),
                    ];
                }
            }
            for (row, tile) in tile.into_iter().enumerate() {
                _mm512_storeu_ps(sums.add(row * LANES), tile[0]);
                _mm512_storeu_ps(sums.add(row * LANES + 16), tile[1]);
            }
        }
    }
}

/// [`avx512`] for pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs<const ROW: usize, const STEP: usize>(
    shape: Shape,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    let Shape {
        count,
        steps,
        distance,
        adds,
    } = shape;
    for at in 0..count {
        // SAFETY: the caller has checked the lengths; vectors of the same size hold any bits.
        unsafe {
            let left = left.add(at * distance);
            let sums = sums.add(at * ROWS * LANES);
            let pairs = |vector: __m512i| std::mem::transmute::<__m512i, __m512bh>(vector);
            let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
            if adds {
                for (row, tile) in tile.iter_mut().enumerate() {
                    *tile = [
                        _mm512_loadu_ps(sums.add(row * LANES)),
                        _mm512_loadu_ps(sums.add(row * LANES + 16)),
                    ];
                }
            }
            for step in 0..steps {
                let right = right.add(step * LANES);
                let low = pairs(_mm512_loadu_si512(right.cast()));
                let high = pairs(_mm512_loadu_si512(right.add(16).cast()));
                for (row, tile) in tile.iter_mut().enumerate() {
                    let value = pairs(_mm512_set1_epi32(
                        (*left.add(row * ROW + step * STEP)).cast_signed(),
                    ));
                    *tile = [
                        _mm512_dpbf16_ps(tile[0], value, low),
                        _mm512_dpbf16_ps(tile[1], value, high),
                    ];
                }
            }
            for (row, tile) in tile.into_iter().enumerate() {
                _mm512_storeu_ps(sums.add(row * LANES), tile[0]);
                _mm512_storeu_ps(sums.add(row * LANES + 16), tile[1]);
            }
        }
    }
}

/// Computes a tile in quarters of 4 rows and 16 lanes each, which is what 16 registers hold.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROW: usize, const STEP: usize>(
    shape: Shape,
    left: *const f32,
    right: *const f32,
    sums: *mut f32,
) {
    let Shape {
        count,
        steps,
        distance,
        adds,
    } = shape;
    for quarter in 0..4 * count {
        let at = quarter / 4;
        let first_row = quarter / 2 % 2 * 4;
        let first_lane = quarter % 2 * 16;
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let left = left.add(at * distance);
            let sums = sums.add((at * ROWS + first_row) * LANES + first_lane);
            let mut tile = [[_mm256_setzero_ps(); 2]; 4];
            if adds {
                for (row, tile) in tile.iter_mut().enumerate() {
                    *tile = [
                        _mm256_loadu_ps(sums.add(row * LANES)),
                        _mm256_loadu_ps(sums.add(row * LANES + 8)),
                    ];
                }
            }
            for step in 0..steps {
                let right = right.add(step * LANES + first_lane);
                let low = _mm256_loadu_ps(right);
                let high = _mm256_loadu_ps(right.add(8));
                for (row, tile) in tile.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*left.add((first_row + row) * ROW + step * STEP));
                    *tile = [
                        _mm256_fmadd_ps(value, low, tile[0]),
                        _mm256_fmadd_ps(value, high, tile[1]),
                    ];
                }
            }
            for (row, tile) in tile.into_iter().enumerate() {
                _mm256_storeu_ps(sums.add(row * LANES), tile[0]);
                _mm256_storeu_ps(sums.add(row * LANES + 8), tile[1]);
            }
        }
    }
}

unsafe fn plain<const ROW: usize, const STEP: usize>(
    shape: Shape,
    left: *const f32,
    right: *const f32,
    sums: *mut f32,
) {
    let Shape {
        count,
        steps,
        distance,
        adds,
    } = shape;
    for row in 0..count * ROWS {
        let at = row / ROWS;
        let row = row % ROWS;
        // SAFETY: the caller has checked the lengths.
        unsafe {
            let left = left.add(at * distance);
            let sums = sums.add(at * ROWS * LANES);
            let sums = std::slice::from_raw_parts_mut(sums.add(row * LANES), LANES);
            if !adds {
                sums.fill(0.0);
            }
            for step in 0..steps {
                let value = *left.add(row * ROW + step * STEP);
                let right = std::slice::from_raw_parts(right.add(step * LANES), LANES);
                sums.iter_mut()
                    .zip(right)
                    .for_each(|(sum, &right)| *sum += value * right);
            }
        }
    }
}

/// Transposes eight lanes of each of eight rows to `[8 lanes][8 rows]`: rows start `from` values
/// apart in `values`, and `to` lanes apart in `out`.
///
/// # Panics
/// When either is too short.
#[inline]
pub(crate) fn transpose<T: Element>(values: &[T], from: usize, out: &mut [u32], to: usize) {
    let in_lane = T::in_lane();
    assert!(
        values.len() >= 7 * from + 8 * in_lane && out.len() >= 7 * to + 8,
        "eight rows of eight lanes"
    );
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx2 && size_of::<T>() * in_lane == size_of::<u32>() {
        // SAFETY: the lengths are checked, the CPU has AVX2, and a lane has the bytes of its
        // values.
        return unsafe {
            transpose_avx2(
                values.as_ptr().cast(),
                from * size_of::<T>(),
                out.as_mut_ptr().cast(),
                to,
            )
        };
    }
    for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
        let at = row * from + column * in_lane;
        out[column * to + row] = if in_lane == 1 {
            values[at].single()
        } else {
            values[at].pair(values[at + 1])
        };
    }
}

/// `from` is in bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2(values: *const u8, from: usize, out: *mut f32, to: usize) {
    // SAFETY: the caller has checked the lengths.
    unsafe {
        let rows: [__m256; 8] =
            std::array::from_fn(|row| _mm256_loadu_ps(values.add(row * from).cast()));
        // Interleave pairs, then groups of four, then halves.
        let pair = |at: usize| {
            [
                _mm256_unpacklo_ps(rows[at], rows[at + 1]),
                _mm256_unpackhi_ps(rows[at], rows[at + 1]),
            ]
        };
        let pairs = [pair(0), pair(2), pair(4), pair(6)];
        let four = |first: usize, which: usize| {
            let a = pairs[first][which];
            let b = pairs[first + 1][which];
            [
                _mm256_shuffle_ps::<0x44>(a, b),
                _mm256_shuffle_ps::<0xee>(a, b),
            ]
        };
        let top = [four(0, 0), four(0, 1)];
        let bottom = [four(2, 0), four(2, 1)];
        for column in 0..4 {
            let top = top[column / 2][column % 2];
            let bottom = bottom[column / 2][column % 2];
            _mm256_storeu_ps(
                out.add(column * to),
                _mm256_permute2f128_ps::<0x20>(top, bottom),
            );
            _mm256_storeu_ps(
                out.add((column + 4) * to),
                _mm256_permute2f128_ps::<0x31>(top, bottom),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use pipeline::sampling::order::{Purpose, stream};
    use rand::RngExt;

    /// Compares every version that the CPU supports with sums in f64.
    #[test]
    fn all_versions_sum_alike() {
        let mut rng = stream(Purpose::Synth, 1, 2, 3);
        for (steps, count, adds, layout) in [
            (0, 1, false, Left::Packed),
            (1, 2, true, Left::Packed),
            (77, 3, false, Left::Packed),
            (31, 2, true, Left::Across),
        ] {
            let distance = if layout == Left::Packed {
                steps * ROWS
            } else {
                ROWS * LANES
            };
            let mut noise = |count: usize| {
                (0..count)
                    .map(|_| rng.random::<f32>() - 0.5)
                    .collect::<Vec<_>>()
            };
            let left = noise(count * distance);
            let right = noise(steps * LANES);
            let before = noise(count * ROWS * LANES);
            let shape = Shape {
                count,
                steps,
                distance,
                adds,
            };
            let expected = |at: usize| {
                let tile = at / (ROWS * LANES);
                let row = at / LANES % ROWS;
                let lane = at % LANES;
                let left_of = |step: usize| {
                    left[tile * distance
                        + if layout == Left::Packed {
                            step * ROWS + row
                        } else {
                            row * LANES + step
                        }]
                };
                let products = (0..steps)
                    .map(|step| f64::from(left_of(step)) * f64::from(right[step * LANES + lane]));
                products.sum::<f64>() + if adds { f64::from(before[at]) } else { 0.0 }
            };
            let check = |what: &str, sums: &[f32]| {
                for (at, &sum) in sums.iter().enumerate() {
                    assert!(
                        (f64::from(sum) - expected(at)).abs() < 1e-5,
                        "{what}, {steps} steps: {sum} for {}",
                        expected(at)
                    );
                }
            };
            let run = |function: unsafe fn(Shape, *const f32, *const f32, *mut f32)| {
                let mut sums = before.clone();
                // SAFETY: the operands have the lengths of the shape, and the caller has checked
                // that the CPU has the instructions.
                unsafe { function(shape, left.as_ptr(), right.as_ptr(), sums.as_mut_ptr()) };
                sums
            };
            check(
                "plain",
                &run(if layout == Left::Packed {
                    plain::<1, ROWS>
                } else {
                    plain::<LANES, 1>
                }),
            );
            #[cfg(target_arch = "x86_64")]
            {
                if isa() >= Isa::Avx2 {
                    let function: unsafe fn(Shape, *const f32, *const f32, *mut f32) =
                        |shape, left, right, sums| {
                            // SAFETY: as for the caller.
                            unsafe { avx2::<1, ROWS>(shape, left, right, sums) }
                        };
                    let across: unsafe fn(Shape, *const f32, *const f32, *mut f32) =
                        |shape, left, right, sums| {
                            // SAFETY: as for the caller.
                            unsafe { avx2::<LANES, 1>(shape, left, right, sums) }
                        };
                    check(
                        "AVX2",
                        &run(if layout == Left::Packed {
                            function
                        } else {
                            across
                        }),
                    );
                }
            }
            let bits = |values: &[f32]| {
                values
                    .iter()
                    .map(|value| value.to_bits())
                    .collect::<Vec<_>>()
            };
            let mut sums = before.clone();
            tiles::<f32>(
                count,
                steps,
                layout,
                &bits(&left),
                &bits(&right),
                adds,
                &mut sums,
            );
            check("the best", &sums);
        }
    }

    #[test]
    fn pairs_are_summed_as_their_values() {
        let mut stream = stream(Purpose::Synth, 4, 5, 6);
        let (steps, mut rng) = (19, || stream.random::<f32>() - 0.5);
        let lanes = |rng: &mut dyn FnMut() -> f32, count: usize| {
            let values: Vec<[bf16; 2]> = (0..count)
                .map(|_| [0; 2].map(|_| <bf16 as Element>::from_f32(rng())))
                .collect();
            let lanes: Vec<u32> = values
                .iter()
                .map(|&[first, second]| {
                    if bf16::in_lane() == 2 {
                        first.pair(second)
                    } else {
                        first.single()
                    }
                })
                .collect();
            (values, lanes)
        };
        let (left, left_lanes) = lanes(&mut rng, steps * ROWS);
        let (right, right_lanes) = lanes(&mut rng, steps * LANES);
        let mut sums = [0f32; ROWS * LANES];
        tiles::<bf16>(
            1,
            steps,
            Left::Packed,
            &left_lanes,
            &right_lanes,
            false,
            &mut sums,
        );
        for (at, sum) in sums.into_iter().enumerate() {
            let row = at / LANES;
            let lane = at % LANES;
            let gemm = |step: usize, which: usize| {
                left[step * ROWS + row][which].to_f64() * right[step * LANES + lane][which].to_f64()
            };
            let expected: f64 = (0..steps)
                .map(|step| {
                    (0..bf16::in_lane())
                        .map(|which| gemm(step, which))
                        .sum::<f64>()
                })
                .sum();
            assert!(
                (f64::from(sum) - expected).abs() < 1e-4,
                "{sum} for {expected}"
            );
        }
    }

    #[test]
    fn rows_are_transposed() {
        fn check<T: Element>(from: usize) {
            let values: Vec<T> = (0..8 * from as u32)
                .map(|at| T::from_f32((at % 251) as f32))
                .collect();
            let mut out = vec![0; 7 * 9 + 8];
            transpose(&values, from, &mut out, 9);
            for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
                let at = row * from + column * T::in_lane();
                let expected = if T::in_lane() == 1 {
                    values[at].single()
                } else {
                    values[at].pair(values[at + 1])
                };
                assert_eq!(out[column * 9 + row], expected);
            }
        }
        check::<f32>(13);
        check::<bf16>(19);
    }
}
