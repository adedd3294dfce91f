//! The loops of `color` and `target` for AVX2.

use super::color::{Matrix, Normalise};
use super::target::interleave_plainly;
use super::value::Value;
use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtepi16_epi32, _mm256_cvtepi32_ps,
    _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_set1_ps,
};

/// Pixels in a vector.
const LANES: usize = 8;

/// [`Normalise::row_plainly`], 8 pixels at a time: the same sums and products, none of them fused.
#[target_feature(enable = "avx2")]
pub(super) fn row<T: Value>(
    normalise: Normalise,
    [first, second, third]: [&[i16]; 3],
    [red, green, blue]: [&mut [T]; 3],
) {
    let width = red.len();
    let whole = width / LANES * LANES;
    let (black, white) = (
        _mm256_set1_ps(normalise.black),
        _mm256_set1_ps(normalise.white),
    );
    let load = |samples: &[i16], x: usize| {
        let samples = &samples[x..x + LANES];
        // SAFETY: `samples` has 8 numbers of 16 bits.
        _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(unsafe {
            _mm_loadu_si128(samples.as_ptr().cast())
        }))
    };
    let scaled = |value: __m256, gain: f32| _mm256_mul_ps(value, _mm256_set1_ps(gain));
    let store = |value: __m256, out: &mut [T], x: usize| {
        let value = _mm256_min_ps(_mm256_max_ps(value, black), white);
        let out = &mut out[x..x + LANES];
        // SAFETY: `out` has 8 values, and the CPU has AVX2.
        unsafe { T::store(value, out.as_mut_ptr()) };
    };
    for x in (0..whole).step_by(LANES) {
        match normalise.matrix {
            Matrix::Yuv {
                luma,
                offset,
                red_cr,
                green_cb,
                green_cr,
                blue_cb,
            } => {
                let y = _mm256_add_ps(scaled(load(first, x), luma), _mm256_set1_ps(offset));
                let (cb, cr) = (load(second, x), load(third, x));
                store(_mm256_add_ps(y, scaled(cr, red_cr)), red, x);
                store(
                    _mm256_add_ps(_mm256_add_ps(y, scaled(cb, green_cb)), scaled(cr, green_cr)),
                    green,
                    x,
                );
                store(_mm256_add_ps(y, scaled(cb, blue_cb)), blue, x);
            }
            Matrix::Rgb { gain, offset } => {
                let value = |samples: &[i16]| {
                    _mm256_add_ps(scaled(load(samples, x), gain), _mm256_set1_ps(offset))
                };
                store(value(first), red, x);
                store(value(second), green, x);
                store(value(third), blue, x);
            }
        }
    }
    let rest = [&first[whole..], &second[whole..], &third[whole..]];
    normalise.row_plainly(
        rest,
        [&mut red[whole..], &mut green[whole..], &mut blue[whole..]],
    );
}

/// [`interleave_plainly`], compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn interleave<T: Copy>(channels: [&[T]; 3], out: &mut [T]) {
    // Most patches have 16 columns: a constant length compiles to straight code.
    match (
        channels.map(<[T]>::first_chunk::<16>),
        out.first_chunk_mut::<48>(),
    ) {
        ([Some(red), Some(green), Some(blue)], Some(out)) if channels[0].len() == 16 => {
            interleave_plainly([red, green, blue], out)
        }
        (_, _) => interleave_plainly(channels, out),
    }
}
