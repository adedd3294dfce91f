//! Area averages: each pixel of the small picture is the mean of the part of the large one that it
//! covers.

use schemas::geometry::FrameSize;

/// Units per level of the pixels of a [`Plane`].
pub const LEVEL: u16 = 16;

/// Number of parts of a pixel that borders of pixels of the small picture are rounded down to.
const PART: usize = 256;

/// The level of white in a [`Plane`].
const WHITE: f64 = (255 * LEVEL) as f64;

/// `2^52`: a number of at most this that it is added to is rounded to a whole number, which is then
/// in the lowest bits.
const ROUNDER: f64 = 4_503_599_627_370_496.0;

/// Largest number of rows of bytes whose sum fits 16 bits.
const ROWS_IN_16_BITS: usize = 257;

/// What the codes of luma stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    full_range: bool,
}

impl Levels {
    /// `full_range`: whether black is 0 and white 255, instead of 16 and 235.
    pub const fn new(full_range: bool) -> Self {
        Self { full_range }
    }

    /// Returns the code of black.
    pub const fn black(self) -> u8 {
        if self.full_range { 0 } else { 16 }
    }

    /// Returns the number of codes from black to white.
    pub const fn range(self) -> u8 {
        if self.full_range { 255 } else { 219 }
    }

    /// Returns the largest code that is not above `level`, 0 to 255 of 255.
    pub const fn code_of(self, level: f64) -> u8 {
        (self.black() as f64 + level * self.range() as f64 / 255.0) as u8
    }
}

/// The luma of a picture, of full range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Number of pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The pixels of all rows, 0 (black) to 255 times [`LEVEL`] (white).
    pub pixels: Vec<u16>,
}

/// Pixels of an axis of the large picture that one of the small picture covers.
#[derive(Debug, Clone, Default)]
struct Cover {
    /// First pixel, if only a part of it is covered, and that part, of [`PART`].
    head: Option<(usize, usize)>,
    /// The pixels that are covered as a whole.
    start: usize,
    end: usize,
    /// Last pixel, if only a part of it is covered, and that part.
    tail: Option<(usize, usize)>,
    /// Length covered, in parts of a pixel.
    length: usize,
}

/// Returns what each of the `small` pixels of an axis covers of `length` pixels.
fn covers(length: usize, small: usize) -> Vec<Cover> {
    let border = |index: usize| index * length * PART / small;
    let cover = |index| {
        let (from, to) = (border(index), border(index + 1));
        let (first, last) = (from / PART, to / PART);
        let mut cover = Cover {
            start: from.div_ceil(PART),
            end: last,
            length: to - from,
            ..Cover::default()
        };
        if first == last {
            cover.start = last;
            cover.head = Some((first, to - from));
            return cover;
        }
        cover.head = (from % PART > 0).then_some((first, PART - from % PART));
        cover.tail = (to % PART > 0).then_some((last, to % PART));
        cover
    };
    (0..small).map(cover).collect()
}

/// Shrinks (or enlarges) the `luma` of a frame of `size` to `small`. Nothing may be empty.
pub fn shrink(luma: &[u8], size: FrameSize, small: FrameSize, levels: Levels) -> Plane {
    let border = |index: usize| index * size.width * PART / small.width;
    let borders: Vec<(usize, u64)> = (1..=small.width)
        .map(|index| (border(index) / PART, (border(index) % PART) as u64))
        .collect();
    let gain = f64::from(LEVEL) * 255.0 / f64::from(levels.range());
    let gains: Vec<f64> = (0..small.width)
        .map(|index| gain / (border(index + 1) - border(index)) as f64)
        .collect();
    let offset = f64::from(levels.black()) * gain;
    let mut sums = Sums::new(size.width);
    let mut row_sums = vec![0.0; small.width];
    let mut pixels = vec![0; small.width * small.height];
    let covers = covers(size.height, small.height);
    for (row, cover) in pixels.chunks_exact_mut(small.width).zip(covers) {
        sums.add(luma, &cover);
        sums.split(&borders, &mut row_sums);
        let row_gain = 1.0 / cover.length as f64;
        for ((pixel, &sum), &gain) in row.iter_mut().zip(&row_sums).zip(&gains) {
            let level = sum * (gain * row_gain) - offset;
            let level = if level > 0.0 { level } else { 0.0 };
            let level = if level < WHITE { level } else { WHITE };
            *pixel = (level + ROUNDER).to_bits() as u16;
        }
    }
    Plane {
        width: small.width,
        height: small.height,
        pixels,
    }
}

/// Sums of the columns of some rows.
struct Sums {
    short: Vec<u16>,
    /// The sums, in parts of a pixel.
    total: Vec<u32>,
    /// The sums of the totals of all columns before each column, and of all columns.
    before: Vec<u64>,
}

impl Sums {
    fn new(width: usize) -> Self {
        Self {
            short: vec![0; width],
            total: vec![0; width],
            before: vec![0; width + 1],
        }
    }

    /// Replaces the sums by those of the `rows` of `luma`.
    fn add(&mut self, luma: &[u8], rows: &Cover) {
        let width = self.total.len();
        let row = |row: usize| &luma[row * width..][..width];
        self.total.fill(0);
        // Sums of 16 bits take half the time, and two rows at once less than one by one.
        for (index, weight) in [rows.head, rows.tail].into_iter().flatten() {
            for (short, &code) in self.short.iter_mut().zip(row(index)) {
                *short = u16::from(code) * weight as u16;
            }
            self.add_short(1);
        }
        let mut next = rows.start;
        while next < rows.end {
            let end = rows.end.min(next + ROWS_IN_16_BITS);
            self.short.fill(0);
            while next + 1 < end {
                let pair = row(next).iter().zip(row(next + 1));
                for (short, (&a, &b)) in self.short.iter_mut().zip(pair) {
                    *short += u16::from(a) + u16::from(b);
                }
                next += 2;
            }
            if next < end {
                for (short, &code) in self.short.iter_mut().zip(row(next)) {
                    *short += u16::from(code);
                }
                next += 1;
            }
            self.add_short(PART as u32);
        }
    }

    /// Adds the short sums, each of `parts` parts of a pixel, to the total.
    fn add_short(&mut self, parts: u32) {
        for (total, &short) in self.total.iter_mut().zip(&self.short) {
            *total += u32::from(short) * parts;
        }
    }

    /// Sums the columns up to each of the `borders`, from the one before. A border is a column and
    /// the parts of it that are before the border.
    fn split(&mut self, borders: &[(usize, u64)], sums: &mut [f64]) {
        let mut sum = 0;
        for (before, &total) in self.before[1..].iter_mut().zip(&self.total) {
            sum += u64::from(total);
            *before = sum;
        }
        let mut last = 0;
        for (sum, &(column, parts)) in sums.iter_mut().zip(borders) {
            // Nothing is beyond the last border.
            let total = self.total.get(column).copied().unwrap_or(0);
            let before = self.before[column] * PART as u64 + u64::from(total) * parts;
            *sum = (before - last) as i64 as f64;
            last = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(luma: &[u8], (width, height): (usize, usize), small: (usize, usize)) -> Vec<f64> {
        let size = FrameSize { width, height };
        let (width, height) = small;
        let small = FrameSize { width, height };
        let plane = shrink(luma, size, small, Levels::new(true));
        assert_eq!((plane.width, plane.height), (width, height));
        let pixels = plane.pixels.iter();
        pixels
            .map(|&level| f64::from(level) / f64::from(LEVEL))
            .collect()
    }

    #[test]
    fn pixels_are_means_of_what_they_cover() {
        assert_eq!(shrunk(&[10, 30, 50, 70], (4, 1), (2, 1)), [20.0, 60.0]);
        assert_eq!(shrunk(&[10, 30, 50, 70], (1, 4), (1, 2)), [20.0, 60.0]);
        assert_eq!(shrunk(&[0, 80, 160, 240], (2, 2), (1, 1)), [120.0]);
        // One and a half pixels each: 10 and half of 40.
        assert_eq!(shrunk(&[10, 40, 70], (3, 1), (2, 1)), [20.0, 60.0]);
        assert_eq!(shrunk(&[10, 40, 70], (1, 3), (1, 2)), [20.0, 60.0]);
        assert_eq!(
            shrunk(&[8, 16], (2, 1), (4, 1)),
            [8.0, 8.0, 16.0, 16.0],
            "enlarged"
        );
        assert_eq!(shrunk(&[8, 16], (1, 2), (1, 4)), [8.0, 8.0, 16.0, 16.0]);
        let all: Vec<u8> = (0..=255).cycle().take(256 * 600).collect();
        assert_eq!(
            shrunk(&all, (256, 600), (1, 1)),
            [127.5],
            "more rows than 16 bits sum"
        );
        assert_eq!(shrunk(&[255; 3 * 2000], (3, 2000), (2, 3)), [255.0; 6]);
    }

    #[test]
    fn limited_range_is_stretched_and_clamped() {
        let size = FrameSize {
            width: 5,
            height: 1,
        };
        let plane = shrink(&[0, 16, 89, 235, 255], size, size, Levels::new(false));
        assert_eq!(plane.pixels, [0, 0, 85 * 16, 255 * 16, 255 * 16]);
        assert_eq!(Levels::new(false).code_of(25.5), 37);
        assert_eq!(Levels::new(true).code_of(25.5), 25);
    }
}
