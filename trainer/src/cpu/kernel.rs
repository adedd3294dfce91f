//! The micro-kernel of every gemm: a tile of sums, summed over steps in registers.
//!
//! Most of the `unsafe` code of `cpu` is here. A step is one value of the summed dimension, or a
//! pair of bf16. All instruction sets sum in the same order; those with fused multiply-add round
//! once per step.
//!
//! The size of a tile depends on the number of registers: 6 rows of two vectors fill the 16 of
//! AVX2, 12 rows of two vectors most of the 32 of AVX-512. Larger tiles do not stay in registers;
//! smaller ones load more per multiplication: with AVX2, 4 rows reach 87 % of the rate of 6 (one
//! thread of a Sapphire Rapids, operands in its caches).

use super::element::Element;
use super::simd::{InstructionSet, instruction_set, prefetch};
#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};
use super::vector::{Plain, Vector};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Columns of a strip: how many steps [`Left::Across`] has at most.
pub(crate) const ACROSS: usize = 64;

/// Layout of the left operand of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// `[steps][ROWS]`, packed.
    Packed,
    /// `[ROWS][ACROSS]`, where the step is the column: a strip of a right operand, read across.
    Across,
}

/// Tiles that share their right operand, `[steps][lanes]`. The left operands lie one after the
/// other, `distance` lanes apart; so do the sums, `[count][ROWS][width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiles {
    pub(crate) count: usize,
    pub(crate) steps: usize,
    pub(crate) layout: Left,
    /// Distance from the left operand of one tile to that of the next.
    pub(crate) distance: usize,
    /// Distance from one step of the right operand to the next.
    pub(crate) lanes: usize,
    /// Distance from one row of sums to the next.
    pub(crate) width: usize,
    /// Whether to add to the sums.
    pub(crate) adds: bool,
}

impl Tiles {
    /// Packed operands with no space between them.
    pub(crate) const fn packed<const ROWS: usize, const LANES: usize>(
        count: usize,
        steps: usize,
        adds: bool,
    ) -> Self {
        Self {
            count,
            steps,
            layout: Left::Packed,
            distance: steps * ROWS,
            lanes: LANES,
            width: LANES,
            adds,
        }
    }
}

/// The kernel for a layout: its distances are constants, so that addresses cost no instructions.
macro_rules! choose {
    ($kernel:ident, $rows:ident, $lanes:ident, $layout:ident, $right:ident) => {
        match ($layout, $right == $lanes) {
            (Left::Packed, true) => $kernel::<$rows, 1, $rows, $lanes>,
            (Left::Packed, false) => $kernel::<$rows, 1, $rows, ACROSS>,
            (Left::Across, _) => $kernel::<$rows, ACROSS, 1, $lanes>,
        }
    };
}

/// Computes tiles `sums[i][j] = sum over steps of left[i][step] * right[step][j]`, or adds them to
/// `sums`; see [`Tiles`]. Lanes are values of f32, or pairs of bf16 where [`Element::in_lane`] is
/// 2. `LANES` is 32 with AVX-512, and 16 without.
///
/// # Panics
/// When an operand is too short.
#[inline]
pub(crate) fn tiles<T: Element, const ROWS: usize, const LANES: usize>(
    tiles: &Tiles,
    left: &[u32],
    right: &[u32],
    sums: &mut [f32],
) {
    let Tiles {
        count,
        steps,
        layout,
        distance,
        lanes,
        width,
        ..
    } = *tiles;
    let Some(others) = count.checked_sub(1) else {
        return;
    };
    let left_lanes = match layout {
        Left::Packed => steps * ROWS,
        Left::Across => (ROWS - 1) * ACROSS + steps,
    };
    let right_lanes = steps.saturating_sub(1) * lanes + LANES.min(steps * LANES);
    let all_sums = (count * ROWS - 1) * width + LANES;
    assert!(
        left.len() >= others * distance + left_lanes
            && right.len() >= right_lanes
            && sums.len() >= all_sums
            && (layout == Left::Packed || steps <= ACROSS)
            && width >= LANES
            && (lanes == LANES || lanes == ACROSS && layout == Left::Packed),
        "operands of {tiles:?}"
    );
    let left = left.as_ptr();
    let right = right.as_ptr();
    let sums = sums.as_mut_ptr();
    let function: unsafe fn(&Tiles, *const u32, *const u32, *mut f32) =
        match (instruction_set(), LANES) {
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512Bf16, 32) if T::in_lane() == 2 => {
                choose!(avx512_pairs, ROWS, LANES, layout, lanes)
            }
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx512 | InstructionSet::Avx512Bf16, 32) => {
                choose!(avx512, ROWS, LANES, layout, lanes)
            }
            #[cfg(target_arch = "x86_64")]
            (InstructionSet::Avx2, 16) => choose!(avx2, ROWS, LANES, layout, lanes),
            (_, 16) => choose!(plain, ROWS, LANES, layout, lanes),
            _ => unreachable!("tiles have the lanes of the instruction set"),
        };
    // SAFETY: the lengths are checked, the CPU has the instructions, and 4-byte lanes are f32 or
    // pairs, according to the element type.
    unsafe { function(tiles, left, right, sums) }
}

/// Vectors per row of a tile.
const VECTORS: usize = 2;

/// Steps per pass of a kernel's loop.
const UNROLLED: usize = 4;

/// Steps between the prefetch of a right operand and its use: some hundred cycles.
const PREFETCHED: usize = 16;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize, const ROW: usize, const STEP: usize, const RIGHT: usize>(
    tiles: &Tiles,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    // SAFETY: as for the caller.
    unsafe { tiles_of::<Avx512<false>, ROWS, ROWS, ROW, STEP, RIGHT>(tiles, left, right, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs<
    const ROWS: usize,
    const ROW: usize,
    const STEP: usize,
    const RIGHT: usize,
>(
    tiles: &Tiles,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    // SAFETY: as for the caller.
    unsafe { tiles_of::<Avx512<true>, ROWS, ROWS, ROW, STEP, RIGHT>(tiles, left, right, sums) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize, const ROW: usize, const STEP: usize, const RIGHT: usize>(
    tiles: &Tiles,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    // SAFETY: as for the caller.
    unsafe { tiles_of::<Avx2, ROWS, ROWS, ROW, STEP, RIGHT>(tiles, left, right, sums) }
}

/// Two rows at a time are what the registers of SSE2 hold.
unsafe fn plain<const ROWS: usize, const ROW: usize, const STEP: usize, const RIGHT: usize>(
    tiles: &Tiles,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    // SAFETY: as for the caller.
    unsafe { tiles_of::<Plain, ROWS, 2, ROW, STEP, RIGHT>(tiles, left, right, sums) }
}

/// Computes tiles of `ROWS` rows, `AT_ONCE` rows at a time. `ROW` and `STEP` are the distances
/// between consecutive rows and steps of `left`. Loops and no closures, which would not be
/// compiled for the caller's instructions.
///
/// # Safety
/// The operands have the lengths that `tiles` says, and the caller has the instructions of `V`.
#[inline(always)]
unsafe fn tiles_of<
    V: Vector,
    const ROWS: usize,
    const AT_ONCE: usize,
    const ROW: usize,
    const STEP: usize,
    const RIGHT: usize,
>(
    tiles: &Tiles,
    left: *const u32,
    right: *const u32,
    sums: *mut f32,
) {
    let groups = ROWS / AT_ONCE;
    for group in 0..tiles.count * groups {
        let at = group / groups;
        let first_row = group % groups * AT_ONCE;
        // SAFETY: as for the caller.
        unsafe {
            let mut left = left.add(at * tiles.distance + first_row * ROW);
            let mut right = right;
            let sums = sums.add((at * ROWS + first_row) * tiles.width);
            let mut tile = [[V::zero(); VECTORS]; AT_ONCE];
            if tiles.adds {
                for (row, tile) in tile.iter_mut().enumerate() {
                    for (vector, tile) in tile.iter_mut().enumerate() {
                        *tile = V::load(sums.add(row * tiles.width + vector * V::LANES));
                    }
                }
            }
            for _ in 0..tiles.steps / UNROLLED {
                for _ in 0..UNROLLED {
                    add_step::<V, AT_ONCE, ROW, RIGHT>(left, right, &mut tile);
                    left = left.wrapping_add(STEP);
                    right = right.wrapping_add(RIGHT);
                }
            }
            for _ in 0..tiles.steps % UNROLLED {
                add_step::<V, AT_ONCE, ROW, RIGHT>(left, right, &mut tile);
                left = left.wrapping_add(STEP);
                right = right.wrapping_add(RIGHT);
            }
            for (row, tile) in tile.into_iter().enumerate() {
                for (vector, tile) in tile.into_iter().enumerate() {
                    tile.store(sums.add(row * tiles.width + vector * V::LANES));
                }
            }
        }
    }
}

/// Adds the products of one step to a tile.
#[inline(always)]
unsafe fn add_step<V: Vector, const ROWS: usize, const ROW: usize, const RIGHT: usize>(
    left: *const u32,
    right: *const u32,
    tile: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: as for the caller.
    unsafe {
        let mut factors = [V::load_factor(right); VECTORS];
        for (vector, factor) in factors.iter_mut().enumerate() {
            let right = right.wrapping_add(vector * V::LANES);
            *factor = V::load_factor(right);
            prefetch(right.wrapping_add(PREFETCHED * RIGHT));
        }
        for (row, tile) in tile.iter_mut().enumerate() {
            let value = V::splat(left.wrapping_add(row * ROW));
            for (tile, &factor) in tile.iter_mut().zip(&factors) {
                *tile = tile.add_product(value, factor);
            }
        }
    }
}

/// Transposes eight lanes of each of `rows` rows, 4, 6 or 8, to `[8 lanes][rows]`: rows start
/// `from` values apart in `values`, and `to` lanes apart in `out`.
///
/// # Panics
/// When either is too short.
#[inline]
pub(crate) fn transpose<T: Element>(
    values: &[T],
    from: usize,
    rows: usize,
    out: &mut [u32],
    to: usize,
) {
    let in_lane = T::in_lane();
    assert!(
        values.len() >= (rows - 1) * from + 8 * in_lane && out.len() >= 7 * to + rows,
        "{rows} rows of eight lanes"
    );
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx2 {
        let function: unsafe fn(*const T, usize, *mut f32, usize) = match rows {
            4 => transpose_avx2::<T, 4>,
            6 => transpose_avx2::<T, 6>,
            8 => transpose_avx2::<T, 8>,
            _ => unreachable!("rows of a tile"),
        };
        // SAFETY: the lengths are checked, and the CPU has AVX2.
        return unsafe { function(values.as_ptr(), from, out.as_mut_ptr().cast(), to) };
    }
    for (row, column) in (0..rows).flat_map(|row| (0..8).map(move |column| (row, column))) {
        let at = row * from + column * in_lane;
        out[column * to + row] = if in_lane == 1 {
            values[at].single()
        } else {
            values[at].pair(values[at + 1])
        };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2<T: Element, const ROWS: usize>(
    values: *const T,
    from: usize,
    out: *mut f32,
    to: usize,
) {
    // SAFETY: the caller has checked the lengths.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (row, lanes) in rows.iter_mut().enumerate().take(ROWS) {
            let values = values.add(row * from);
            *lanes = if size_of::<T>() * T::in_lane() == size_of::<u32>() {
                _mm256_loadu_ps(values.cast())
            } else {
                // A bf16 is the upper half of an f32.
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            };
        }
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
            for (column, lanes) in [
                (column, _mm256_permute2f128_ps::<0x20>(top, bottom)),
                (column + 4, _mm256_permute2f128_ps::<0x31>(top, bottom)),
            ] {
                let out = out.add(column * to);
                if ROWS == 8 {
                    _mm256_storeu_ps(out, lanes);
                    continue;
                }
                _mm_storeu_ps(out, _mm256_castps256_ps128(lanes));
                if ROWS == 6 {
                    let last = _mm256_extractf128_ps::<1>(lanes);
                    _mm_storel_pd(out.add(4).cast(), _mm_castps_pd(last));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::InstructionSet;
    use half::bf16;
    use pipeline::sampling::order::{Purpose, stream};
    use rand::RngExt;

    /// Runs a check with the tiles of each kind of kernel that the instruction set in use has.
    macro_rules! for_each_tile {
        ($check:ident) => {
            if instruction_set() >= InstructionSet::Avx512 {
                $check::<12, 32>();
                $check::<8, 32>();
            } else {
                $check::<6, 16>();
            }
        };
    }

    #[test]
    fn tiles_are_sums_of_products() {
        fn check<const ROWS: usize, const LANES: usize>() {
            let mut rng = stream(Purpose::Synth, 1, 2, 3);
            let packed = |count, steps, adds| Tiles::packed::<ROWS, LANES>(count, steps, adds);
            for of_tiles in [
                packed(1, 0, false),
                packed(2, 1, true),
                packed(3, 77, false),
                Tiles {
                    distance: 90 * ROWS,
                    lanes: ACROSS,
                    ..packed(3, 77, true)
                },
                Tiles {
                    width: ACROSS,
                    ..packed(2, 33, false)
                },
                Tiles {
                    layout: Left::Across,
                    distance: ROWS * ACROSS,
                    ..packed(2, 63, true)
                },
            ] {
                let Tiles {
                    count,
                    steps,
                    layout,
                    distance,
                    lanes,
                    width,
                    adds,
                } = of_tiles;
                let mut noise = |count: usize| {
                    (0..count)
                        .map(|_| rng.random::<f32>() - 0.5)
                        .collect::<Vec<_>>()
                };
                let left = noise(count * distance);
                let right = noise(steps * lanes);
                let before = noise(count * ROWS * width);
                let bits = |values: &[f32]| {
                    values
                        .iter()
                        .map(|value| value.to_bits())
                        .collect::<Vec<_>>()
                };
                let mut sums = before.clone();
                tiles::<f32, ROWS, LANES>(&of_tiles, &bits(&left), &bits(&right), &mut sums);
                for (at, (&sum, &before)) in sums.iter().zip(&before).enumerate() {
                    let tile = at / (ROWS * width);
                    let row = at / width % ROWS;
                    let lane = at % width;
                    let left = |step: usize| match layout {
                        Left::Packed => left[tile * distance + step * ROWS + row],
                        Left::Across => left[tile * distance + row * ACROSS + step],
                    };
                    if lane >= LANES {
                        assert_eq!(sum, before, "beyond the tile");
                        continue;
                    }
                    let products = (0..steps)
                        .map(|step| f64::from(left(step)) * f64::from(right[step * lanes + lane]));
                    let before = if adds { f64::from(before) } else { 0.0 };
                    let expected = products.sum::<f64>() + before;
                    assert!(
                        (f64::from(sum) - expected).abs() < 1e-5,
                        "{ROWS}x{LANES}, {of_tiles:?}: {sum} for {expected}"
                    );
                }
            }
        }
        for_each_tile!(check);
    }

    #[test]
    fn pairs_are_summed_as_their_values() {
        fn check<const ROWS: usize, const LANES: usize>() {
            let mut rng = stream(Purpose::Synth, 4, 5, 6);
            let steps = 19;
            let mut lanes = |count: usize| {
                let values: Vec<[bf16; 2]> = (0..count)
                    .map(|_| [0; 2].map(|_| <bf16 as Element>::from_f32(rng.random::<f32>() - 0.5)))
                    .collect();
                let lanes: Vec<u32> = values
                    .iter()
                    .map(|&[first, second]| match bf16::in_lane() {
                        2 => first.pair(second),
                        _ => first.single(),
                    })
                    .collect();
                (values, lanes)
            };
            let (left, left_lanes) = lanes(steps * ROWS);
            let (right, right_lanes) = lanes(steps * LANES);
            let mut sums = [[0f32; LANES]; ROWS];
            tiles::<bf16, ROWS, LANES>(
                &Tiles::packed::<ROWS, LANES>(1, steps, false),
                &left_lanes,
                &right_lanes,
                sums.as_flattened_mut(),
            );
            for (row, lane) in (0..ROWS).flat_map(|row| (0..LANES).map(move |lane| (row, lane))) {
                let product = |step: usize, which: usize| {
                    left[step * ROWS + row][which].to_f64()
                        * right[step * LANES + lane][which].to_f64()
                };
                let expected: f64 = (0..steps)
                    .flat_map(|step| (0..bf16::in_lane()).map(move |which| (step, which)))
                    .map(|(step, which)| product(step, which))
                    .sum();
                let sum = f64::from(sums[row][lane]);
                assert!((sum - expected).abs() < 1e-4, "{sum} for {expected}");
            }
        }
        for_each_tile!(check);
    }

    #[test]
    fn rows_are_transposed() {
        fn check<T: Element>(rows: usize, from: usize) {
            let values: Vec<T> = (0..8 * from as u32)
                .map(|at| T::from_f32((at % 251) as f32))
                .collect();
            let mut out = vec![0; 7 * 9 + rows];
            transpose(&values, from, rows, &mut out, 9);
            for (at, &lane) in out.iter().enumerate() {
                let row = at % 9;
                let column = at / 9;
                let value = row * from + column * T::in_lane();
                let expected = match T::in_lane() {
                    _ if row >= rows => 0,
                    1 => values[value].single(),
                    _ => values[value].pair(values[value + 1]),
                };
                assert_eq!(lane, expected, "{rows} rows, row {row}, column {column}");
            }
        }
        for rows in [4, 6, 8] {
            check::<f32>(rows, 13);
            check::<bf16>(rows, 19);
        }
    }
}
