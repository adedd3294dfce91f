//! Motion between two small pictures: block matching with a precision of parts of a pixel.
//!
//! Each block of 8 x 8 pixels is first placed by the gradient method of Lucas and Kanade (1981):
//! the shift is the least-squares solution of `difference = gradient * shift + offset`. The offset
//! takes up changes of brightness. Where that leaves much of the difference, the block is searched
//! for in steps of 4, 2 and 1 pixels, and the best place is refined by the gradient method.
//!
//! Noise alone must not count as motion. A shift is accepted only if it reduces the difference by
//! more than chance would: by an F-test of the two parameters for the gradient method, and by a
//! fixed ratio for the search, which is the best of many. Blocks without texture thus do not move.

use super::shrink::{LEVEL, Plane};

/// Length in pixels of the sides of a block.
const BLOCK: usize = 8;

/// Number of pixels of a block.
const PIXELS: f64 = (BLOCK * BLOCK) as f64;

/// Number of pixels on either side that a slope is computed from.
const REACH: usize = 2;

/// Units per level of the pixels that are compared.
const UNIT: u16 = 4;

/// Least F-value of an accepted shift. By chance it occurs in one of 100 blocks.
const MIN_F: f64 = 5.0;

/// Variance, in levels squared, that is always expected, of rounding and compression.
const NOISE: f64 = 0.0625;

/// Squared gradient, in levels squared per pixel, that is added so that blocks with hardly any
/// texture do not move far.
const RIDGE: f64 = 0.01;

/// Largest shift in pixels that the gradient method is trusted with.
const MAX_GRADIENT_SHIFT: f64 = 1.5;

/// Variance of the difference, in levels squared, from which on a block is searched for.
const SEARCH_VARIANCE: f64 = 1.0;

/// Part of the difference that must be left for a block to be searched for.
const SEARCH_PART: f64 = 0.1;

/// Part of the difference that a search must get below.
const FOUND_PART: f64 = 0.3;

/// Steps of the search, in pixels.
const STEPS: [isize; 3] = [4, 2, 1];

/// The steps to all sides.
const SIDES: [(isize, isize); 8] = [
    (-1, -1),
    (0, -1),
    (1, -1),
    (-1, 0),
    (1, 0),
    (-1, 1),
    (0, 1),
    (1, 1),
];

/// A shift by whole pixels to the right and down.
type Shift = (isize, isize);

/// Measures motion between successive pictures of one size.
#[derive(Debug, Default)]
pub struct MotionMeter {
    last: Option<Picture>,
    /// Shifts by whole pixels of the blocks of the last pair, in order.
    shifts: Vec<Shift>,
}

impl MotionMeter {
    /// Takes the next picture. Returns the mean length in pixels of the shifts of its blocks, or
    /// `None` for the first picture. Pictures with a side of less than 12 pixels have no blocks.
    pub fn push(&mut self, plane: &Plane) -> Option<f64> {
        let next = Picture::new(plane);
        let last = self.last.replace(next)?;
        let next = self.last.as_ref()?;
        let pair = Pair { last: &last, next };
        let blocks = |length: usize| length.saturating_sub(2 * REACH) / BLOCK;
        let (columns, rows) = (blocks(last.width), blocks(last.height));
        if columns * rows == 0 {
            return Some(0.0);
        }
        self.shifts.resize(columns * rows, (0, 0));
        let left = (last.width - columns * BLOCK) / 2;
        let top = (last.height - rows * BLOCK) / 2;
        let mut sum = 0.0;
        for index in 0..columns * rows {
            let (x, y) = (index % columns, index / columns);
            let block = (left + x * BLOCK, top + y * BLOCK);
            let beside = if x > 0 { index - 1 } else { index };
            let above = if y > 0 { index - columns } else { index };
            let guesses = [index, beside, above].map(|block| self.shifts[block]);
            let (shift, length) = pair.motion(block, guesses);
            self.shifts[index] = shift;
            sum += length;
        }
        Some(sum / (columns * rows) as f64)
    }
}

/// Pixels to compare.
#[derive(Debug)]
struct Picture {
    width: usize,
    height: usize,
    /// Levels, in parts of [`UNIT`].
    pixels: Vec<i16>,
}

impl Picture {
    fn new(plane: &Plane) -> Self {
        let pixels = plane.pixels.iter();
        Self {
            width: plane.width,
            height: plane.height,
            pixels: pixels
                .map(|&level| (level / (LEVEL / UNIT)) as i16)
                .collect(),
        }
    }

    /// Returns the row of a block from the pixel `(x, y)` on.
    fn row(&self, x: usize, y: usize) -> &[i16; BLOCK] {
        self.pixels
            .get(y * self.width + x..)
            .and_then(<[i16]>::first_chunk)
            .unwrap_or(&[0; BLOCK])
    }

    /// Returns whether all pixels of the block at `(x, y)` have the neighbours that [`slope`]
    /// needs.
    fn has(&self, x: usize, y: usize) -> bool {
        let is_inside = |at: usize, length| at >= REACH && at + BLOCK + REACH <= length;
        is_inside(x, self.width) && is_inside(y, self.height)
    }
}

/// What the gradient method finds.
struct Fit {
    /// Shift in pixels to the right and down.
    shift: (f64, f64),
    /// Sum of the squares of the differences from their mean, in squared levels.
    before: f64,
    /// The same after the shift.
    after: f64,
}

/// Two successive pictures.
struct Pair<'a> {
    last: &'a Picture,
    next: &'a Picture,
}

impl Pair<'_> {
    /// Returns by how much the block at `(x, y)` moves: by whole pixels, and the length of the
    /// exact shift.
    fn motion(&self, block: (usize, usize), guesses: [Shift; 3]) -> (Shift, f64) {
        let still = self.fit(block, block);
        let (left, still_length) = if still.is_sure() {
            (still.after, length(still.shift))
        } else {
            (still.before, 0.0)
        };
        if left > SEARCH_VARIANCE * PIXELS && left > SEARCH_PART * still.before {
            let shift = self.search(block, guesses);
            if let Some(target) = self.target(block, shift).filter(|_| shift != (0, 0)) {
                let found = self.fit(block, target);
                if found.after + NOISE * PIXELS < FOUND_PART * left {
                    let rest = if found.is_sure() {
                        found.shift
                    } else {
                        (0.0, 0.0)
                    };
                    let exact = (shift.0 as f64 + rest.0, shift.1 as f64 + rest.1);
                    return (shift, length(exact));
                }
            }
        }
        ((0, 0), still_length)
    }

    /// Returns where the block at `(x, y)` is after a shift, or `None` if that is too close to the
    /// border.
    fn target(&self, (x, y): (usize, usize), shift: Shift) -> Option<(usize, usize)> {
        let (x, y) = (
            x.checked_add_signed(shift.0)?,
            y.checked_add_signed(shift.1)?,
        );
        self.next.has(x, y).then_some((x, y))
    }

    /// Returns the shift by whole pixels that leaves the least difference.
    fn search(&self, block: (usize, usize), guesses: [Shift; 3]) -> Shift {
        let mut best = (0, 0);
        let mut least = self.difference(block, block);
        let mut attempt = |shift: Shift, best: &mut Shift| {
            if let Some(target) = self.target(block, shift) {
                let difference = self.difference(block, target);
                if difference < least {
                    (*best, least) = (shift, difference);
                }
            }
        };
        for guess in guesses {
            attempt(guess, &mut best);
        }
        for step in STEPS {
            let centre = best;
            for (right, down) in SIDES {
                attempt((centre.0 + right * step, centre.1 + down * step), &mut best);
            }
        }
        best
    }

    /// Returns the sum of the squares of the differences from their mean of two blocks, times the
    /// number of pixels.
    fn difference(&self, block: (usize, usize), target: (usize, usize)) -> i64 {
        let (mut sum, mut squares) = (0, 0);
        for row in 0..BLOCK {
            let last = self.last.row(block.0, block.1 + row);
            let next = self.next.row(target.0, target.1 + row);
            for (&last, &next) in last.iter().zip(next) {
                let difference = next - last;
                sum += i32::from(difference);
                squares += i32::from(difference) * i32::from(difference);
            }
        }
        i64::from(squares) * (BLOCK * BLOCK) as i64 - i64::from(sum) * i64::from(sum)
    }

    /// Fits the shift that remains between a block of the last picture and one of the next.
    fn fit(&self, block: (usize, usize), target: (usize, usize)) -> Fit {
        let mut sums = [0_i32; 9];
        for row in 0..BLOCK {
            let (last_y, next_y) = (block.1 + row, target.1 + row);
            let last = |x: usize, y: usize| {
                let (x, y) = (block.0 + x - REACH, last_y + y - REACH);
                self.last.row(x, y)
            };
            let next = |x: usize, y: usize| {
                let (x, y) = (target.0 + x - REACH, next_y + y - REACH);
                self.next.row(x, y)
            };
            let last_across = [0, 1, 3, 4].map(|x| last(x, REACH));
            let next_across = [0, 1, 3, 4].map(|x| next(x, REACH));
            let last_down = [0, 1, 3, 4].map(|y| last(REACH, y));
            let next_down = [0, 1, 3, 4].map(|y| next(REACH, y));
            let (last, next) = (last(REACH, REACH), next(REACH, REACH));
            for x in 0..BLOCK {
                let right = (slope(last_across, x) + slope(next_across, x)) >> 2;
                let down = (slope(last_down, x) + slope(next_down, x)) >> 2;
                let difference = next[x] - last[x];
                let [right, down, difference] = [right, down, difference].map(i32::from);
                sums[0] += right;
                sums[1] += down;
                sums[2] += difference;
                sums[3] += right * right;
                sums[4] += right * down;
                sums[5] += down * down;
                sums[6] += right * difference;
                sums[7] += down * difference;
                sums[8] += difference * difference;
            }
        }
        Fit::of(sums)
    }
}

impl Fit {
    /// Solves the normal equations, given the sums of the gradients to the right and down, and of
    /// the difference, and of their products.
    fn of(sums: [i32; 9]) -> Self {
        let unit = f64::from(UNIT);
        // Slopes of both pictures, each times 6, were divided by 4.
        let gradient = unit * 3.0;
        let sums = sums.map(f64::from);
        let [r, d, t] = [sums[0] / gradient, sums[1] / gradient, sums[2] / unit];
        let centred = |product: f64, scale: f64, a: f64, b: f64| product / scale - a * b / PIXELS;
        let rr = centred(sums[3], gradient * gradient, r, r) + RIDGE * PIXELS;
        let rd = centred(sums[4], gradient * gradient, r, d);
        let dd = centred(sums[5], gradient * gradient, d, d) + RIDGE * PIXELS;
        let rt = centred(sums[6], gradient * unit, r, t);
        let dt = centred(sums[7], gradient * unit, d, t);
        let before = centred(sums[8], unit * unit, t, t);
        // Positive: both parts of the diagonal are.
        let determinant = rr * dd - rd * rd;
        let shift = (
            (rd * dt - dd * rt) / determinant,
            (rd * rt - rr * dt) / determinant,
        );
        let explained = -(shift.0 * rt + shift.1 * dt);
        let after = before - explained;
        Self {
            shift,
            before,
            after: if after > 0.0 { after } else { 0.0 },
        }
    }

    /// Whether the shift is more than chance.
    fn is_sure(&self) -> bool {
        let explained = (self.before - self.after) / 2.0;
        let noise = (self.after + NOISE * PIXELS) / (PIXELS - 3.0);
        explained >= MIN_F * noise && length(self.shift) <= MAX_GRADIENT_SHIFT
    }
}

/// Returns 6 times the slope at a pixel, at most 9180, given the rows two before, one before, one
/// after and two after it. With two rows only, slopes of fine texture would be too flat, and shifts
/// too long.
fn slope([before, left, right, after]: [&[i16; BLOCK]; 4], x: usize) -> i16 {
    (8 * (right[x] - left[x]) - (after[x] - before[x])) >> 1
}

fn length((right, down): (f64, f64)) -> f64 {
    (right * right + down * down).sqrt()
}
