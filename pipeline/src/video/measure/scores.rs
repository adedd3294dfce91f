//! Scores of a stored clip, by which clips are chosen: motion, sharpness, brightness, borders, and
//! hashes by which similar clips are found.
//!
//! All are computed from luma. Codes of limited range (16 to 235) are mapped to 0 to 255, so that
//! scores of both ranges are alike.

use super::motion::MotionMeter;
use super::phash::{WORDS, phash};
use super::shrink::{LEVEL, Levels, Plane, shrink};
use schemas::geometry::FrameSize;
use schemas::shard::{PHASH_WORDS, Scores};

/// Long side in pixels of the small pictures that motion and brightness are measured on.
const SMALL_SIDE: usize = 64;

/// Least short side in pixels of these pictures. Below, blocks do not fit.
const SMALL_SHORT_SIDE: usize = 16;

/// Short side in pixels that larger frames are shrunk to before sharpness is measured.
const SHARP_SIDE: usize = 128;

/// Number of squares of the Laplacian that are summed in 32 bits: each is at most 1020 squared.
const SQUARES: usize = 1024;

/// Level up to which a pixel is black: a tenth of the range, as in ffmpeg's `blackdetect`.
const BLACK_LEVEL: f64 = 25.5;

/// A frame is black if at most one of this many pixels is not.
const BLACK_PIXELS: usize = 50;

/// Level up to which a pixel of a border is dark, as in ffmpeg's `cropdetect`.
const BORDER_LEVEL: f64 = 24.0;

/// A line belongs to a border if at most one of this many pixels is not dark.
const BORDER_PIXELS: usize = 50;

/// A frame is frozen if its mean difference, times this, is below the range from black to white, as
/// in ffmpeg's `freezedetect`.
const FROZEN_PART: u64 = 1000;

/// Parts of the pixels that are darker and brighter than the range of brightness: one of this many.
const RANGE_PART: u64 = 20;

/// Returns the largest number of different bits of the corresponding hashes of two clips, 0 to 256.
/// Words that only one of them has are ignored.
pub fn distance(a: &[u64], b: &[u64]) -> u32 {
    let hashes = a.chunks(WORDS).zip(b.chunks(WORDS));
    let distances = hashes.map(|(a, b)| {
        let words = a.iter().zip(b);
        words.map(|(a, b)| (a ^ b).count_ones()).sum()
    });
    distances.max().unwrap_or(0)
}

/// The hashes of three frames, one after the other.
fn hashes(frames: [[u64; WORDS]; 3]) -> [u64; PHASH_WORDS] {
    let mut words = [0; PHASH_WORDS];
    words.copy_from_slice(frames.as_flattened());
    words
}

/// Computes the scores of a clip of `frames` in I420, one after the other. Bytes after the last
/// whole frame are ignored. Without a frame, all scores are zero.
pub fn scores(frames: &[u8], size: FrameSize, full_range: bool, cut: f32) -> Scores {
    let levels = Levels::new(full_range);
    let lumas: Vec<&[u8]> = match size.luma_bytes() {
        0 => Vec::new(),
        pixels => {
            let frames = frames.chunks_exact(size.frame_bytes());
            frames.map(|frame| &frame[..pixels]).collect()
        }
    };
    let (Some(&first), Some(&last)) = (lumas.first(), lumas.last()) else {
        return Scores {
            cut,
            ..Scores::default()
        };
    };
    let chosen = [first, lumas[lumas.len() / 2], last];
    let small = small_size(size);
    let mut meter = MotionMeter::default();
    let mut brightness = Brightness::default();
    let mut motion = 0.0;
    for luma in &lumas {
        let plane = shrink(luma, size, small, levels);
        motion += meter.push(&plane).unwrap_or(0.0);
        brightness.add(&plane);
    }
    let pairs = lumas.len() - 1;
    let frozen = lumas.windows(2);
    let frozen = frozen.filter(|pair| is_frozen(pair[0], pair[1], size.width, levels));
    let black = lumas
        .iter()
        .filter(|luma| is_black(luma, size.width, levels));
    let share = |part: usize, whole: usize| part as f32 / whole.max(1) as f32;
    let sharpness = chosen.map(|luma| sharpness(luma, size, levels));
    Scores {
        motion: (motion / (pairs.max(1) * (small.width + small.height)) as f64) as f32,
        sharpness: (sharpness.iter().sum::<f64>() / 3.0) as f32,
        luma_mean: brightness.mean() as f32,
        luma_range: brightness.range() as f32,
        black: share(black.count(), lumas.len()),
        frozen: share(frozen.count(), pairs),
        letterbox: letterbox(&lumas, size, levels) as f32,
        cut,
        phash: hashes(chosen.map(|luma| phash(luma, size, levels))),
    }
}

/// Returns the size of the small pictures, with about the same ratio of the sides.
fn small_size(size: FrameSize) -> FrameSize {
    let long = size.width.max(size.height);
    let side = |side: usize| {
        let side = (2 * side * SMALL_SIDE + long) / (2 * long);
        side.max(SMALL_SHORT_SIDE)
    };
    FrameSize {
        width: side(size.width),
        height: side(size.height),
    }
}

/// Levels of all frames of a clip.
#[derive(Debug, Default)]
struct Brightness {
    /// Number of pixels of each level, in units of a plane.
    counts: Vec<u64>,
}

impl Brightness {
    fn add(&mut self, plane: &Plane) {
        self.counts.resize(usize::from(255 * LEVEL) + 1, 0);
        for &level in &plane.pixels {
            self.counts[usize::from(level)] += 1;
        }
    }

    fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn mean(&self) -> f64 {
        let levels = self.counts.iter().zip(0..);
        let sum: u64 = levels.map(|(count, level)| count * level).sum();
        sum as f64 / self.pixels().max(1) as f64 / f64::from(LEVEL)
    }

    /// Returns the difference of two percentiles. A percentile is the least level that the given
    /// part of the pixels does not exceed.
    fn range(&self) -> f64 {
        let pixels = self.pixels();
        let percentile = |part: u64| {
            let mut below = 0;
            self.counts.iter().position(|count| {
                below += count;
                below * RANGE_PART >= pixels * part
            })
        };
        let (low, high) = (percentile(1), percentile(RANGE_PART - 1));
        (high.unwrap_or(0) - low.unwrap_or(0)) as f64 / f64::from(LEVEL)
    }
}

fn sharpness(luma: &[u8], size: FrameSize, levels: Levels) -> f64 {
    let short = size.width.min(size.height);
    let side = |side: usize| {
        if short > SHARP_SIDE {
            (2 * side * SHARP_SIDE + short) / (2 * short)
        } else {
            side
        }
    };
    let small = FrameSize {
        width: side(size.width),
        height: side(size.height),
    };
    laplacian_variance(&shrink(luma, size, small, levels))
}

/// Returns the variance of the Laplacian of the pixels, rounded to whole levels.
fn laplacian_variance(plane: &Plane) -> f64 {
    let pixels = plane.pixels.iter();
    let levels: Vec<i16> = pixels
        .map(|&level| ((level + LEVEL / 2) / LEVEL) as i16)
        .collect();
    let (width, height) = (plane.width, plane.height);
    // The pixel before the first one is the second one, and so on.
    let mirrored = |index: usize, length: usize| {
        let before = if index == 0 { 1 } else { index - 1 };
        let after = if index + 1 == length {
            index.max(1) - 1
        } else {
            index + 1
        };
        (before.min(length - 1), after)
    };
    let mut laplacian = vec![0_i16; width];
    let (mut sum, mut squares) = (0_i64, 0_i64);
    for y in 0..height {
        let row = |y: usize| &levels[y * width..][..width];
        let (above, below) = mirrored(y, height);
        let (row, above, below) = (row(y), row(above), row(below));
        if width > 2 {
            let inner = &mut laplacian[1..width - 1];
            let beside = row.iter().zip(&row[2..]);
            let vertical = above[1..].iter().zip(&below[1..]).zip(&row[1..]);
            for ((value, (left, right)), ((above, below), middle)) in
                inner.iter_mut().zip(beside).zip(vertical)
            {
                *value = left + right + above + below - 4 * middle;
            }
        }
        for x in [0, width - 1] {
            let (left, right) = mirrored(x, width);
            laplacian[x] = row[left] + row[right] + above[x] + below[x] - 4 * row[x];
        }
        for values in laplacian.chunks(SQUARES) {
            let values = values.iter().map(|&value| i32::from(value));
            sum += i64::from(values.clone().sum::<i32>());
            squares += i64::from(values.map(|value| value * value).sum::<i32>());
        }
    }
    let count = (width * height) as f64;
    let mean = sum as f64 / count;
    squares as f64 / count - mean * mean
}

/// Whether two frames differ by less than 0.001 of the range, on average.
fn is_frozen(a: &[u8], b: &[u8], width: usize, levels: Levels) -> bool {
    let limit = u64::from(levels.range()) * a.len() as u64;
    let mut sum = 0_u64;
    // Frames that move are left after a few rows.
    a.chunks(width).zip(b.chunks(width)).all(|(a, b)| {
        let codes = a.iter().zip(b);
        sum += u64::from(codes.map(|(&a, &b)| u32::from(a.abs_diff(b))).sum::<u32>());
        sum * FROZEN_PART < limit
    })
}

/// Whether at least 98 % of the pixels are black.
fn is_black(luma: &[u8], width: usize, levels: Levels) -> bool {
    let limit = levels.code_of(BLACK_LEVEL);
    let mut bright = 0;
    luma.chunks(width).all(|row| {
        bright += above(row, limit);
        bright * BLACK_PIXELS <= luma.len()
    })
}

/// Returns the number of codes above `limit`.
fn above(codes: &[u8], limit: u8) -> usize {
    // Counts of 8 bits are summed the fastest.
    let parts = codes.chunks(255).map(|codes| {
        let counts = codes.iter().map(|&code| u8::from(code > limit));
        usize::from(counts.sum::<u8>())
    });
    parts.sum()
}

/// Returns the share of the picture that is dark borders in all frames.
fn letterbox(lumas: &[&[u8]], size: FrameSize, levels: Levels) -> f64 {
    let limit = levels.code_of(BORDER_LEVEL);
    let mut borders: Option<Borders> = None;
    for luma in lumas {
        // Dark frames have no borders of their own.
        if let Some(found) = Borders::find(luma, size, limit) {
            borders = Some(borders.map_or(found, |borders| borders.common(found)));
        }
    }
    let Some(borders) = borders else {
        return 1.0;
    };
    let width = size.width.saturating_sub(borders.left + borders.right);
    let height = size.height.saturating_sub(borders.top + borders.bottom);
    1.0 - (width * height) as f64 / size.luma_bytes() as f64
}

/// Numbers of dark rows and columns at the sides of a frame.
#[derive(Debug, Clone, Copy)]
struct Borders {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Borders {
    /// Finds the borders of a frame, or `None` if all its rows or columns are dark.
    fn find(luma: &[u8], size: FrameSize, limit: u8) -> Option<Self> {
        let FrameSize { width, height } = size;
        let is_bright = |row: &[u8]| above(row, limit) * BORDER_PIXELS > width;
        let top = luma.chunks_exact(width).position(is_bright)?;
        let bottom = luma.chunks_exact(width).rev().position(is_bright)?;
        let is_bright = |count: usize| count * BORDER_PIXELS > height;
        let mut borders = Self {
            top,
            bottom,
            left: 0,
            right: 0,
        };
        let column = |x: usize| {
            let codes = luma[x..].iter().step_by(width);
            codes.filter(|&&code| code > limit).count()
        };
        // Most frames have no borders at the sides.
        if is_bright(column(0)) && is_bright(column(width - 1)) {
            return Some(borders);
        }
        let mut counts = vec![0_usize; width];
        // Counts of 8 bits are summed the fastest.
        let mut short = vec![0_u8; width];
        for rows in luma.chunks(255 * width) {
            short.fill(0);
            for row in rows.chunks_exact(width) {
                for (count, &code) in short.iter_mut().zip(row) {
                    *count += u8::from(code > limit);
                }
            }
            for (count, &short) in counts.iter_mut().zip(&short) {
                *count += usize::from(short);
            }
        }
        borders.left = counts.iter().copied().position(is_bright)?;
        borders.right = counts.iter().rev().copied().position(is_bright)?;
        Some(borders)
    }

    fn common(self, other: Self) -> Self {
        Self {
            top: self.top.min(other.top),
            bottom: self.bottom.min(other.bottom),
            left: self.left.min(other.left),
            right: self.right.min(other.right),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: FrameSize = FrameSize {
        width: 128,
        height: 72,
    };

    /// Returns a frame whose luma is `level(x, y)`.
    fn frame(size: FrameSize, level: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        let luma = (0..size.luma_bytes()).map(|at| level(at % size.width, at / size.width));
        let mut frame: Vec<u8> = luma.collect();
        frame.resize(size.frame_bytes(), 128);
        frame
    }

    /// Returns the scores of a clip whose frames are `level(frame, x, y)`, of full range.
    fn scores_of(
        size: FrameSize,
        frames: usize,
        level: impl Fn(usize, usize, usize) -> u8,
    ) -> Scores {
        let frames = (0..frames).map(|index| frame(size, |x, y| level(index, x, y)));
        scores(&frames.collect::<Vec<_>>().concat(), size, true, 0.0)
    }

    /// Returns -`amplitude` to `amplitude` without a pattern.
    fn noise(frame: usize, x: usize, y: usize, amplitude: i32) -> i32 {
        let mut state = (frame * 7919 + y * 104_729 + x * 1_299_709 + 1) as u64;
        for _ in 0..3 {
            state = (state ^ state >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        (state >> 40) as i32 % (2 * amplitude + 1) - amplitude
    }

    /// Returns the level of a smooth picture without a pattern at a point, in units of
    /// `1 / scale` pixels of a picture of 128 x 72.
    fn texture(seed: usize, x: f64, y: f64) -> f64 {
        let knot = |x: usize, y: usize| f64::from(noise(seed, x, y, 100)) + 128.0;
        let (x, y) = (x / 12.0 + 100.0, y / 12.0 + 100.0);
        let smooth = |part: f64| part * part * (3.0 - 2.0 * part);
        let (column, across) = (x as usize, smooth(x % 1.0));
        let (row, down) = (y as usize, smooth(y % 1.0));
        let line = |row| knot(column, row) * (1.0 - across) + knot(column + 1, row) * across;
        line(row) * (1.0 - down) + line(row + 1) * down
    }

    #[test]
    fn one_level_has_a_known_mean_and_nothing_else() {
        let of = |code: u8, full_range| {
            let frames = [frame(SIZE, |_, _| code), frame(SIZE, |_, _| code)].concat();
            scores(&frames, SIZE, full_range, 0.0)
        };
        let gray = of(100, true);
        assert_eq!(gray.luma_mean, 100.0);
        assert_eq!(
            (gray.motion, gray.sharpness, gray.luma_range),
            (0.0, 0.0, 0.0)
        );
        assert_eq!((gray.black, gray.frozen, gray.letterbox), (0.0, 1.0, 0.0));
        assert_eq!(gray.phash, [0; 12]);
        for (code, mean) in [(16, 0.0), (89, 85.0), (235, 255.0), (0, 0.0), (255, 255.0)] {
            assert_eq!(of(code, false).luma_mean, mean, "{code}");
        }
    }

    #[test]
    fn brightness_is_of_all_frames() {
        // A tenth of the columns, those on the left, is white in the second frame only.
        let of = |columns: usize| {
            scores_of(
                SIZE,
                2,
                |frame, x, _| {
                    if frame == 1 && x < columns { 255 } else { 55 }
                },
            )
        };
        let found = of(16);
        assert_eq!(found.luma_mean, 55.0 + 200.0 / 16.0);
        assert_eq!(found.luma_range, 200.0, "6 % are white");
        assert_eq!(of(12).luma_range, 0.0, "less than 5 % are white");
    }

    #[test]
    fn black_frames_are_counted() {
        let black = |code: u8, bright_rows: usize, full_range| {
            let dark = frame(SIZE, |_, y| if y < bright_rows { 200 } else { code });
            let clip = [dark, frame(SIZE, |_, _| 90)].concat();
            scores(&clip, SIZE, full_range, 0.0).black
        };
        assert_eq!(black(25, 0, true), 0.5);
        assert_eq!(black(26, 0, true), 0.0);
        assert_eq!(black(37, 0, false), 0.5);
        assert_eq!(black(38, 0, false), 0.0);
        assert_eq!(black(0, 1, true), 0.5, "1 of 72 rows is below 2 %");
        assert_eq!(black(0, 2, true), 0.0);
    }

    #[test]
    fn frozen_pairs_are_counted() {
        // The first rows change by one level in frames 1 and 3, not in 2.
        let frozen = |rows: usize, full_range| {
            let level = |index: usize| {
                move |_: usize, y: usize| 100 + u8::from(y < rows && [1, 2].contains(&index))
            };
            let clip: Vec<_> = (0..4).map(|index| frame(SIZE, level(index))).collect();
            scores(&clip.concat(), SIZE, full_range, 0.0).frozen
        };
        // 18 of 72 rows: 0.25 levels, of the 0.255 or 0.219 allowed.
        assert_eq!(frozen(18, true), 1.0);
        assert_eq!(frozen(19, true), 1.0 / 3.0);
        assert_eq!(frozen(18, false), 1.0 / 3.0);
        assert_eq!(frozen(15, false), 1.0);
    }

    #[test]
    fn letterboxes_are_the_borders_of_all_frames() {
        let of = |borders: [[usize; 4]; 2], dark: u8| {
            scores_of(SIZE, 3, |index, x, y| {
                let Some([top, bottom, left, right]) = borders.get(index) else {
                    return dark;
                };
                let inside = (*left..SIZE.width - right).contains(&x)
                    && (*top..SIZE.height - bottom).contains(&y);
                if inside { 180 } else { dark }
            })
            .letterbox
        };
        assert_eq!(of([[9, 9, 0, 0]; 2], 24), 0.25, "and a black frame");
        assert_eq!(of([[9, 9, 0, 0]; 2], 25), 0.0, "too bright");
        assert_eq!(of([[0, 0, 32, 0]; 2], 0), 0.25);
        assert_eq!(of([[0, 18, 0, 64]; 2], 0), 0.625);
        assert_eq!(of([[18, 0, 0, 0], [9, 9, 0, 0]], 0), 0.125, "of both");
        assert_eq!(of([[72, 0, 0, 0]; 2], 24), 1.0, "all black");
        let limited = frame(SIZE, |_, y| if y < 36 { 36 } else { 100 });
        assert_eq!(scores(&limited, SIZE, false, 0.0).letterbox, 0.5);
        assert_eq!(scores(&limited, SIZE, true, 0.0).letterbox, 0.0);
    }

    #[test]
    fn sharpness_is_the_variance_of_the_laplacian() {
        // Columns of 100 and 110: the Laplacian is 20 or -20 everywhere, also at the borders.
        let stripes = |_, x: usize, _| 100 + (x % 2 * 10) as u8;
        assert_eq!(scores_of(SIZE, 1, stripes).sharpness, 400.0);
        // One row of three pixels: -10 + 10 - 0 at the ends, 20 in the middle.
        let line = FrameSize {
            width: 3,
            height: 1,
        };
        let peak = |_, x: usize, _| if x == 1 { 100 } else { 110 };
        // 20 less, 20 more, 20 less: mean -20 / 3, mean square 400.
        let variance = 400.0 - (20.0_f32 / 3.0) * (20.0 / 3.0);
        assert!((scores_of(line, 1, peak).sharpness - variance).abs() < 0.01);
        // Half of the frames chosen are flat.
        let mixed = |index, x, y| {
            if index == 1 {
                stripes(index, x, y)
            } else {
                100
            }
        };
        assert!((scores_of(SIZE, 3, mixed).sharpness - 400.0 / 3.0).abs() < 0.01);
        // Twice the size, with pixels doubled, is shrunk to the same.
        let large = FrameSize {
            width: 512,
            height: 256,
        };
        let doubled = |_, x: usize, _| 100 + (x / 2 % 2 * 10) as u8;
        assert_eq!(scores_of(large, 1, doubled).sharpness, 400.0);
    }

    #[test]
    fn noise_does_not_move() {
        for amplitude in [2, 8, 25] {
            let still = scores_of(SIZE, 16, |index, x, y| {
                let level = texture(1, x as f64, y as f64) * 0.7 + 30.0;
                (level as i32 + noise(index + 9, x, y, amplitude)).clamp(0, 255) as u8
            });
            assert!(still.motion < 0.0005, "{amplitude}: {}", still.motion);
        }
        let snow = scores_of(SIZE, 16, |index, x, y| noise(index, x, y, 127) as u8);
        assert!(snow.motion < 0.0005, "{}", snow.motion);
        let flicker = scores_of(SIZE, 16, |index, x, y| {
            (texture(1, x as f64, y as f64) * 0.7) as u8 + (index % 4 * 10) as u8
        });
        assert!(flicker.motion < 0.0005, "{}", flicker.motion);
    }

    #[test]
    fn motion_is_a_share_of_the_size() {
        // Shifts per frame in pixels of 128 x 72.
        let large = FrameSize {
            width: 256,
            height: 144,
        };
        for (right, down) in [
            (0.25, 0.0),
            (1.0, 0.5),
            (-2.0, 1.0),
            (4.0, 0.0),
            (0.0, -9.0),
        ] {
            let of = |size: FrameSize, amplitude: i32| {
                let scale = 128.0 / size.width as f64;
                scores_of(size, 8, |index, x, y| {
                    let (x_now, y_now) = (x as f64 * scale, y as f64 * scale);
                    let time = index as f64;
                    let level = texture(3, x_now - right * time, y_now - down * time);
                    (level as i32 + noise(index, x, y, amplitude)).clamp(0, 255) as u8
                })
                .motion
            };
            let expected = (right * right + down * down).sqrt() as f32 / 200.0;
            for found in [of(SIZE, 0), of(SIZE, 2), of(large, 0)] {
                let ratio = found / expected;
                assert!((0.9..1.1).contains(&ratio), "({right}, {down}): {ratio}");
            }
        }
    }

    #[test]
    fn extreme_pictures_do_not_overflow() {
        let size = FrameSize {
            width: 64,
            height: 64,
        };
        for shift in 0..3 {
            let found = scores_of(size, 4, |index, x, y| {
                let along = if shift == 2 { x + y } else { x };
                255 * u8::from((along + index * shift) % 3 == 0)
            });
            assert!(found.motion.is_finite() && found.sharpness > 0.0);
        }
        let snow = scores_of(size, 4, |index, x, y| {
            255 * u8::from(noise(index, x, y, 100) > 0)
        });
        assert!(snow.motion < 0.001, "{}", snow.motion);
    }

    #[test]
    fn hashes_survive_scaling_and_brightness_and_tell_pictures_apart() {
        let of = |seed: usize, scale: usize, gain: f64, offset: f64| {
            let size = FrameSize {
                width: 128 * scale,
                height: 72 * scale,
            };
            let scale = scale as f64;
            scores_of(size, 1, |_, x, y| {
                let level = texture(seed, x as f64 / scale, y as f64 / scale);
                (level * gain + offset) as u8
            })
            .phash
        };
        let original = of(1, 1, 0.8, 10.0);
        assert_eq!(original.len(), 12);
        for other in [
            of(1, 2, 0.8, 10.0),
            of(1, 1, 0.8, 30.0),
            of(1, 3, 0.7, 10.0),
        ] {
            assert!(
                distance(&original, &other) <= 31,
                "{}",
                distance(&original, &other)
            );
        }
        for seed in 2..6 {
            let other = distance(&original, &of(seed, 1, 0.8, 10.0));
            assert!((90..166).contains(&other), "{other}");
        }
        let ones: u32 = original[..4].iter().map(|word| word.count_ones()).sum();
        assert_eq!(ones, 128, "half of the coefficients are above the median");
    }

    #[test]
    fn the_distance_is_the_largest_of_three() {
        let mut other = vec![0; 12];
        (other[1], other[4], other[11]) = (1, 7, 3);
        assert_eq!(distance(&[0; 12], &other), 3);
        assert_eq!(distance(&other, &other), 0);
        assert_eq!(distance(&[0; 4], &[u64::MAX; 4]), 256);
        assert_eq!(distance(&[], &other), 0);
    }

    #[test]
    fn any_size_has_scores() {
        for (width, height) in [
            (1, 1),
            (1, 50),
            (50, 1),
            (3, 2),
            (7, 400),
            (400, 7),
            (33, 17),
        ] {
            let size = FrameSize { width, height };
            let found = scores_of(size, 3, |_, _, _| 200);
            assert_eq!((found.luma_mean, found.frozen), (200.0, 1.0), "{size:?}");
            assert_eq!((found.motion, found.letterbox), (0.0, 0.0), "{size:?}");
            assert_eq!(found.phash.len(), 12);
        }
        let none = scores(&[], SIZE, true, 0.0);
        assert_eq!((none.black, none.phash.len()), (0.0, 12));
        let empty = FrameSize {
            width: 0,
            height: 9,
        };
        assert_eq!(scores(&[1; 9], empty, true, 0.0), none);
        let single = scores_of(SIZE, 1, |_, x, _| x as u8);
        assert_eq!((single.motion, single.frozen), (0.0, 0.0));
    }
}
