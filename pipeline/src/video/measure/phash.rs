//! Perceptual hashes of pictures, in the manner of PDQ (Facebook, 2019): 256 bits, each of which
//! says whether the picture has more of a pattern of low frequency than of the median pattern.
//!
//! The picture is shrunk to 64 x 64 and transformed by the discrete cosine transform (type II).
//! Unlike PDQ's, the small picture is an area average, and all is computed in integers. Hashes of
//! one picture that was scaled, encoded or made a little brighter differ by at most 31 bits as a
//! rule, those of other pictures by about 128.

use super::shrink::{LEVEL, Levels, Plane, shrink};
use schemas::geometry::FrameSize;

/// Number of words of a hash.
pub const WORDS: usize = 4;

/// Length in pixels of the sides of the small picture.
const SIDE: usize = 64;

/// Number of frequencies in each direction: 1 to 16 half waves across the picture.
const FREQUENCIES: usize = 16;

/// `cos(pi * i / 128)` times 4096, rounded, for `i` of 0 to 64.
const COSINES: [i16; 65] = [
    4096, 4095, 4091, 4085, 4076, 4065, 4052, 4036, 4017, 3996, 3973, 3948, 3920, 3889, 3857, 3822,
    3784, 3745, 3703, 3659, 3612, 3564, 3513, 3461, 3406, 3349, 3290, 3229, 3166, 3102, 3035, 2967,
    2896, 2824, 2751, 2675, 2598, 2520, 2440, 2359, 2276, 2191, 2106, 2019, 1931, 1842, 1751, 1660,
    1567, 1474, 1380, 1285, 1189, 1092, 995, 897, 799, 700, 601, 501, 401, 301, 201, 101, 0,
];

/// Patterns of the transform along one side: `cos(pi * frequency * (2 * pixel + 1) / 128)` times
/// 4096, for frequencies from 1 on.
const PATTERNS: [[i16; SIDE]; FREQUENCIES] = patterns();

const fn patterns() -> [[i16; SIDE]; FREQUENCIES] {
    let mut patterns = [[0; SIDE]; FREQUENCIES];
    let mut frequency = 0;
    while frequency < FREQUENCIES {
        let mut pixel = 0;
        while pixel < SIDE {
            // The cosine is even and repeats after 256 steps; its second quarter is negative.
            let step = (frequency + 1) * (2 * pixel + 1) % 256;
            let step = if step > 128 { 256 - step } else { step };
            patterns[frequency][pixel] = if step > 64 {
                -COSINES[128 - step]
            } else {
                COSINES[step]
            };
            pixel += 1;
        }
        frequency += 1;
    }
    patterns
}

/// Returns the hash of the `luma` of a frame of `size`. That of a picture of one colour is zero.
pub fn phash(luma: &[u8], size: FrameSize, levels: Levels) -> [u64; WORDS] {
    let small = FrameSize {
        width: SIDE,
        height: SIDE,
    };
    let coefficients = transform(&shrink(luma, size, small, levels));
    let mut sorted = coefficients;
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2 - 1];
    let mut hash = [0; WORDS];
    for (index, &coefficient) in coefficients.iter().enumerate() {
        hash[index / 64] |= u64::from(coefficient > median) << (index % 64);
    }
    hash
}

/// Returns the coefficients of all frequencies across, for each frequency down.
fn transform(plane: &Plane) -> [i64; FREQUENCIES * FREQUENCIES] {
    let middle = i32::from(255 * LEVEL / 2);
    let pixels = plane.pixels.iter();
    let pixels: Vec<i16> = pixels
        .map(|&level| (i32::from(level) - middle) as i16)
        .collect();
    let mut coefficients = [0; FREQUENCIES * FREQUENCIES];
    for (pattern, row) in PATTERNS
        .iter()
        .zip(coefficients.chunks_exact_mut(FREQUENCIES))
    {
        // At most 64 * 2040 * 4096, which fits.
        let mut columns = [0_i32; SIDE];
        for (&factor, pixels) in pattern.iter().zip(pixels.chunks_exact(SIDE)) {
            for (sum, &pixel) in columns.iter_mut().zip(pixels) {
                *sum += i32::from(factor) * i32::from(pixel);
            }
        }
        for (coefficient, pattern) in row.iter_mut().zip(&PATTERNS) {
            let products = pattern.iter().zip(&columns);
            *coefficient = products
                .map(|(&factor, &sum)| i64::from(factor) * i64::from(sum))
                .sum();
        }
    }
    coefficients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_orthogonal_cosines() {
        assert_eq!(PATTERNS[0][0], 4095, "cos(pi / 128)");
        assert_eq!(PATTERNS[0][63], -4095);
        assert_eq!(PATTERNS[15][0], COSINES[16]);
        for (index, a) in PATTERNS.iter().enumerate() {
            for (other, b) in PATTERNS.iter().enumerate() {
                let products = a.iter().zip(b);
                let sum: i64 = products.map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
                let expected = if index == other { 32 * 4096 * 4096 } else { 0 };
                assert!((sum - expected).abs() < 200_000, "{index} {other} {sum}");
            }
        }
    }

    #[test]
    fn a_pattern_is_its_own_coefficient() {
        let level = |at: usize| (PATTERNS[2][at % SIDE] / 32 + 128) as u8;
        let luma: Vec<u8> = (0..SIDE * SIDE).map(level).collect();
        let size = FrameSize {
            width: SIDE,
            height: SIDE,
        };
        // Of the rows alike, only frequency 0 down is not zero, which no hash has.
        let plane = shrink(&luma, size, size, Levels::new(true));
        let tallest = transform(&plane).into_iter().map(i64::abs).max();
        assert!(tallest < Some(1 << 31), "{tallest:?}");
        let product =
            |at: usize| i32::from(PATTERNS[2][at % SIDE]) * i32::from(PATTERNS[4][at / SIDE]);
        let luma: Vec<u8> = (0..SIDE * SIDE)
            .map(|at| (product(at) / (4096 * 34) + 128) as u8)
            .collect();
        let coefficients = transform(&shrink(&luma, size, size, Levels::new(true)));
        let largest = (0..coefficients.len()).max_by_key(|&index| coefficients[index].abs());
        assert_eq!(largest, Some(4 * FREQUENCIES + 2));
    }
}
