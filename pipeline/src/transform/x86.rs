//! The loops of `color` for AVX2. With the 16 lanes of AVX-512 they were not faster.
//!
//! To interleave three vectors, one of each channel, each is permuted once: a lane holds red in only
//! one of the three vectors of output, as the number of lanes is no multiple of three, so one
//! permuted vector has every red value in its lane of the output. Blends do the rest.
//!
//! Values of a batch are read when the caches have long forgotten them, so they are written past
//! the caches where they are aligned: a normal store would first read what it overwrites.

use super::color::{Matrix, Normalise};
use super::value::Value;
use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm_sfence, _mm256_add_ps, _mm256_blend_ps, _mm256_cvtepi16_epi32,
    _mm256_cvtepi32_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps,
    _mm256_permutevar8x32_ps, _mm256_set1_ps,
};

/// Values in a vector.
const LANES: usize = 8;

/// Which pixel's value of `channel` each lane holds before the blends.
const fn picks(channel: usize) -> [i32; LANES] {
    let mut picks = [0; LANES];
    let mut at = channel;
    while at < 3 * LANES {
        picks[at % LANES] = (at / 3) as i32;
        at += 3;
    }
    picks
}

/// The lanes of output vector `output` that hold values of `channel`, a bit for each.
const fn lanes(output: usize, channel: usize) -> i32 {
    let (mut mask, mut lane) = (0, 0);
    while lane < LANES {
        if (output * LANES + lane) % 3 == channel {
            mask |= 1 << lane;
        }
        lane += 1;
    }
    mask
}

/// The values of the pixels from `x` of a row, a vector for each channel: the sums and products of
/// [`Normalise::row_plainly`], none of them fused.
// No `map` of arrays here and below: it is not compiled for these instructions, so it would be
// called, with its vectors in memory.
///
/// With `ALIKE` all channels are normalised alike, as the first one: constants of three channels do
/// not fit into the registers.
#[inline]
#[target_feature(enable = "avx2")]
fn pixels<const ALIKE: bool>(
    normalise: Normalise,
    [first, second, third]: [&[i16]; 3],
    x: usize,
) -> (__m256, __m256, __m256) {
    let load = |samples: &[i16]| {
        let samples = &samples[x..x + LANES];
        // SAFETY: `samples` has 8 numbers of 16 bits.
        _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(unsafe {
            _mm_loadu_si128(samples.as_ptr().cast())
        }))
    };
    let (first, second, third) = (load(first), load(second), load(third));
    let scaled = |value, gain| _mm256_mul_ps(value, _mm256_set1_ps(gain));
    let of = |channel: usize| if ALIKE { 0 } else { channel };
    let (red, green, blue) = match normalise.matrix {
        Matrix::Yuv {
            luma,
            offset,
            red_cr,
            green_cb,
            green_cr,
            blue_cb,
        } => {
            let grey = |channel: usize| {
                _mm256_add_ps(
                    scaled(first, luma[channel]),
                    _mm256_set1_ps(offset[channel]),
                )
            };
            (
                _mm256_add_ps(grey(0), scaled(third, red_cr)),
                _mm256_add_ps(
                    _mm256_add_ps(grey(1), scaled(second, green_cb)),
                    scaled(third, green_cr),
                ),
                _mm256_add_ps(grey(2), scaled(second, blue_cb)),
            )
        }
        Matrix::Rgb { gain, offset } => {
            let value = |samples, channel: usize| {
                let channel = of(channel);
                _mm256_add_ps(
                    scaled(samples, gain[channel]),
                    _mm256_set1_ps(offset[channel]),
                )
            };
            (value(first, 0), value(second, 1), value(third, 2))
        }
    };
    let clamped = |value, channel: usize| {
        let black = _mm256_set1_ps(normalise.black[of(channel)]);
        let white = _mm256_set1_ps(normalise.white[of(channel)]);
        _mm256_min_ps(_mm256_max_ps(value, black), white)
    };
    (clamped(red, 0), clamped(green, 1), clamped(blue, 2))
}

/// The samples of `width` pixels from `start`.
#[inline(always)]
fn part([first, second, third]: [&[i16]; 3], start: usize, width: usize) -> [&[i16]; 3] {
    [
        &first[start..][..width],
        &second[start..][..width],
        &third[start..][..width],
    ]
}

/// Whether all vectors of rows of `width` values or pixels are aligned, the first at `out`.
fn is_aligned<T>(out: &[T], width: usize) -> bool {
    width.is_multiple_of(LANES) && out.as_ptr().addr().is_multiple_of(LANES * size_of::<T>())
}

/// Makes what was written past the caches visible to threads that later stores are visible to.
pub(super) fn fence() {
    // SAFETY: every CPU of 64 bits has the instruction.
    unsafe { _mm_sfence() };
}

/// [`Normalise::planes`], 8 pixels at a time.
#[target_feature(enable = "avx2")]
pub(super) fn planes<T: Value>(
    normalise: Normalise,
    samples: [&[i16]; 3],
    stride: usize,
    width: usize,
    out: [&mut [T]; 3],
) {
    let is_aligned = out.iter().all(|out| is_aligned(out, width));
    match (is_aligned, normalise.is_alike()) {
        (true, true) => write_planes::<T, true, true>(normalise, samples, stride, width, out),
        (true, false) => write_planes::<T, true, false>(normalise, samples, stride, width, out),
        (false, true) => write_planes::<T, false, true>(normalise, samples, stride, width, out),
        (false, false) => write_planes::<T, false, false>(normalise, samples, stride, width, out),
    }
}

/// [`Normalise::row`], 8 pixels at a time.
#[target_feature(enable = "avx2")]
pub(super) fn row<T: Value>(normalise: Normalise, samples: [&[i16]; 3], out: [&mut [T]; 3]) {
    write_planes::<T, false, false>(normalise, samples, 0, out[0].len(), out);
}

#[inline]
#[target_feature(enable = "avx2")]
fn write_planes<T: Value, const STREAM: bool, const ALIKE: bool>(
    normalise: Normalise,
    samples: [&[i16]; 3],
    stride: usize,
    width: usize,
    [red, green, blue]: [&mut [T]; 3],
) {
    let whole = width / LANES * LANES;
    let store = |values: __m256, out: &mut [T]| {
        let out: &mut [T; LANES] = out.first_chunk_mut().expect("a vector of values");
        // SAFETY: `out` has 8 values, aligned if `STREAM`, and the CPU has AVX2.
        unsafe { T::store::<STREAM>(values, out.as_mut_ptr()) };
    };
    let rows = red.chunks_exact_mut(width);
    let rows = rows.zip(green.chunks_exact_mut(width));
    for (y, ((red, green), blue)) in rows.zip(blue.chunks_exact_mut(width)).enumerate() {
        let samples = part(samples, y * stride, width);
        for x in (0..whole).step_by(LANES) {
            let (reds, greens, blues) = pixels::<ALIKE>(normalise, samples, x);
            store(reds, &mut red[x..]);
            store(greens, &mut green[x..]);
            store(blues, &mut blue[x..]);
        }
        if whole < width {
            normalise.row_plainly(
                part(samples, whole, width - whole),
                [&mut red[whole..], &mut green[whole..], &mut blue[whole..]],
            );
        }
    }
}

/// [`Normalise::interleaved`], 8 pixels at a time.
#[target_feature(enable = "avx2")]
pub(super) fn interleaved<T: Value>(
    normalise: Normalise,
    samples: [&[i16]; 3],
    stride: usize,
    width: usize,
    out: &mut [T],
) {
    match (is_aligned(out, width), normalise.is_alike()) {
        (true, true) => write_interleaved::<T, true, true>(normalise, samples, stride, width, out),
        (true, false) => {
            write_interleaved::<T, true, false>(normalise, samples, stride, width, out)
        }
        (false, true) => {
            write_interleaved::<T, false, true>(normalise, samples, stride, width, out)
        }
        (false, false) => {
            write_interleaved::<T, false, false>(normalise, samples, stride, width, out);
        }
    }
}

#[target_feature(enable = "avx2")]
fn write_interleaved<T: Value, const STREAM: bool, const ALIKE: bool>(
    normalise: Normalise,
    samples: [&[i16]; 3],
    stride: usize,
    width: usize,
    out: &mut [T],
) {
    let load = |picks: &[i32; LANES]| {
        // SAFETY: `picks` has 8 numbers of 32 bits.
        unsafe { _mm256_loadu_si256(picks.as_ptr().cast()) }
    };
    let reds = load(const { &picks(0) });
    let greens = load(const { &picks(1) });
    let blues = load(const { &picks(2) });
    for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
        let samples = part(samples, y * stride, width);
        let (outs, rest) = out.as_chunks_mut::<{ 3 * LANES }>();
        let whole = LANES * outs.len();
        for (at, out) in outs.iter_mut().enumerate() {
            let (red, green, blue) = pixels::<ALIKE>(normalise, samples, LANES * at);
            let red = _mm256_permutevar8x32_ps(red, reds);
            let green = _mm256_permutevar8x32_ps(green, greens);
            let blue = _mm256_permutevar8x32_ps(blue, blues);
            macro_rules! blend {
                ($output:literal) => {
                    _mm256_blend_ps::<{ lanes($output, 2) }>(
                        _mm256_blend_ps::<{ lanes($output, 1) }>(red, green),
                        blue,
                    )
                };
            }
            let vectors = [blend!(0), blend!(1), blend!(2)];
            for (values, out) in vectors.into_iter().zip(out.chunks_exact_mut(LANES)) {
                // SAFETY: `out` has 8 values, aligned if `STREAM`, and the CPU has AVX2.
                unsafe { T::store::<STREAM>(values, out.as_mut_ptr()) };
            }
        }
        if whole < width {
            normalise.interleaved_plainly(part(samples, whole, width - whole), rest);
        }
    }
}
