//! The filter of `i420-delta`: each plane as its two-dimensional differences.
//!
//! A sample becomes itself minus its left neighbour, minus its upper one, plus the one above its
//! left, modulo 256, where samples outside of the plane are 0. What is left of real footage is
//! mostly small numbers, which an entropy coder alone makes smaller than zstd makes the samples,
//! and faster to read: few of them repeat, so there are hardly any matches to copy.
//!
//! Undoing it is a cumulative sum along both axes.

use schemas::geometry::FrameSize;

/// The differences of the planes of `frames`, I420 frames of `size`.
pub(super) fn apply(frames: &[u8], size: FrameSize) -> Vec<u8> {
    let mut out = vec![0; frames.len()];
    let frame_bytes = size.frame_bytes().max(1);
    for (frame, out) in frames
        .chunks_exact(frame_bytes)
        .zip(out.chunks_exact_mut(frame_bytes))
    {
        for plane in 0..3 {
            let (width, _) = size.plane_size(plane);
            let range = size.plane_range(plane);
            difference_plane(&frame[range.clone()], width, &mut out[range]);
        }
    }
    out
}

fn difference_plane(plane: &[u8], width: usize, out: &mut [u8]) {
    let mut above: &[u8] = &vec![0; width];
    for (row, out) in plane.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        out[0] = row[0].wrapping_sub(above[0]);
        let current = row.windows(2).zip(above.windows(2));
        for (out, (row, above)) in out[1..].iter_mut().zip(current) {
            let difference = |pair: &[u8]| pair[1].wrapping_sub(pair[0]);
            *out = difference(row).wrapping_sub(difference(above));
        }
        above = row;
    }
}

/// Turns differences into the `frames` that they are of, in place. Bytes after the last whole frame
/// stay as they are.
pub(super) fn undo(frames: &mut [u8], size: FrameSize) {
    for frame in frames.chunks_exact_mut(size.frame_bytes().max(1)) {
        for plane in 0..3 {
            let (width, _) = size.plane_size(plane);
            sum_plane(&mut frame[size.plane_range(plane)], width);
        }
    }
}

fn sum_plane(plane: &mut [u8], width: usize) {
    let mut rows = plane.chunks_exact_mut(width.max(1));
    let Some(mut above) = rows.next() else { return };
    sum_tail(above, &[], 0);
    for row in rows {
        sum_row(row, above);
        above = row;
    }
}

/// Adds up `row` from the left, and adds the row above.
fn sum_row(row: &mut [u8], above: &[u8]) {
    let (chunks, tail) = row.as_chunks_mut();
    let (above_chunks, above_tail) = above.as_chunks();
    let left = sum_chunks(chunks, above_chunks);
    sum_tail(tail, above_tail, left);
}

/// Adds up `row`, to the left of which the sum is `left`, and adds the samples above, 0 if there
/// are none.
fn sum_tail(row: &mut [u8], above: &[u8], left: u8) {
    let above = above.iter().copied().chain(std::iter::repeat(0));
    let mut sum = left;
    for (sample, above) in row.iter_mut().zip(above) {
        sum = sum.wrapping_add(*sample);
        *sample = sum.wrapping_add(above);
    }
}

/// [`sum_tail`] of whole chunks; returns the sum of all.
#[cfg(not(target_arch = "x86_64"))]
fn sum_chunks(row: &mut [[u8; 16]], above: &[[u8; 16]]) -> u8 {
    let mut left = 0;
    for (row, above) in row.iter_mut().zip(above) {
        let sum = row
            .iter()
            .fold(left, |sum: u8, &sample| sum.wrapping_add(sample));
        sum_tail(row, above, left);
        left = sum;
    }
    left
}

/// [`sum_tail`] of whole chunks; returns the sum of all.
#[cfg(target_arch = "x86_64")]
fn sum_chunks(row: &mut [[u8; 16]], above: &[[u8; 16]]) -> u8 {
    // SAFETY: SSE2 is part of every x86-64.
    unsafe { sum_chunks_sse2(row, above) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn sum_chunks_sse2(row: &mut [[u8; 16]], above: &[[u8; 16]]) -> u8 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cvtsi128_si32, _mm_setzero_si128, _mm_shufflehi_epi16,
        _mm_slli_si128, _mm_unpackhi_epi8, _mm_unpackhi_epi64,
    };
    // SAFETY: both are 16 bytes of which every value is valid.
    let load = |bytes: &[u8; 16]| unsafe { std::mem::transmute::<[u8; 16], __m128i>(*bytes) };
    let mut left = _mm_setzero_si128();
    for (row, above) in row.iter_mut().zip(above) {
        // Sums of 2, 4, 8 and 16 samples; the sum of all samples to the left is added last, so
        // that chunks wait for each other for a single addition.
        let mut sum = load(row);
        sum = _mm_add_epi8(sum, _mm_slli_si128::<1>(sum));
        sum = _mm_add_epi8(sum, _mm_slli_si128::<2>(sum));
        sum = _mm_add_epi8(sum, _mm_slli_si128::<4>(sum));
        sum = _mm_add_epi8(sum, _mm_slli_si128::<8>(sum));
        let samples = _mm_add_epi8(_mm_add_epi8(sum, left), load(above));
        // SAFETY: as above.
        *row = unsafe { std::mem::transmute::<__m128i, [u8; 16]>(samples) };
        // The last byte, 16 times.
        let last = _mm_unpackhi_epi8(sum, sum);
        let last = _mm_shufflehi_epi16::<0xff>(last);
        left = _mm_add_epi8(left, _mm_unpackhi_epi64(last, last));
    }
    _mm_cvtsi128_si32(left) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use rand::RngExt;

    #[test]
    fn sums_of_differences_are_the_samples() {
        let mut rng = stream(Purpose::Synth, 1, 0, 0);
        for width in (1..70).chain([255, 456]) {
            let size = FrameSize {
                width,
                height: 1 + width % 5,
            };
            let frames: Vec<u8> = (0..3 * size.frame_bytes()).map(|_| rng.random()).collect();
            let mut differences = apply(&frames, size);
            assert_ne!(differences, frames);
            undo(&mut differences, size);
            assert!(differences == frames, "{width} samples wide");
        }
    }

    #[test]
    fn a_difference_is_of_four_neighbours() {
        let size = FrameSize {
            width: 3,
            height: 2,
        };
        // Luma of 3x2, and chroma of 2x1 each.
        let frame = [10, 12, 11, 250, 1, 3, 100, 90, 7, 7];
        let expected = [10, 2, 255, 240, 5, 3, 100, 246, 7, 0];
        assert_eq!(apply(&frame, size), expected);
    }

    #[test]
    fn a_slope_leaves_nothing() {
        let size = FrameSize {
            width: 64,
            height: 32,
        };
        let mut frame: Vec<u8> = (0..size.luma_bytes())
            .map(|at| (3 * (at % 64) + 5 * (at / 64)) as u8)
            .collect();
        frame.resize(size.frame_bytes(), 128);
        let differences = apply(&frame, size);
        // The first row and column alone.
        let set = differences.iter().filter(|&&sample| sample != 0).count();
        assert_eq!(set, 63 + 31 + 2);
    }
}
