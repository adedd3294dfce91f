//! Histograms of oriented gradients (Dalal and Triggs 2005), the target of MaskFeat (Wei et al.
//! 2022): the shapes in a patch, independent of its brightness.
//!
//! - Gradients by `[-1, 0, 1]` along rows and along columns, of each colour channel on its own.
//!   Beyond the frame's edge its pixels are reflected, the edge itself not repeated, so that a
//!   gradient across the edge is 0.
//! - Nine bins of orientation without sign, of 20 degrees each: bin 0 holds gradients along a row
//!   (0 to 20 degrees, from the positive x axis towards the positive y axis, which points down),
//!   bin 4 those along a column. Each pixel votes for one bin (hard binning, as in MaskFeat) with
//!   its gradient's magnitude.
//! - Cells of 8 x 8 pixels, or as large as a patch where a patch is no multiple of 8. Votes are not
//!   weighted by a window.
//! - The nine votes of a cell and channel are divided by their Euclidean norm. Where there is no
//!   gradient at all they are 0. So they do not depend on the scale and the mean of the pixels, and
//!   normalised pixels give the same.
//!
//! A patch has `cells x cells x 3 x 9` values, ordered row of cells, column of cells, channel (red,
//! green, blue), bin: 108 for a patch of 16 x 16.

/// Bins of orientation.
pub const BINS: usize = 9;

/// Height and width of a cell in pixels, where a patch is a multiple of it.
const CELL: usize = 8;

/// Values of a cell.
const CELL_VALUES: usize = 3 * BINS;

/// Sine and cosine of the angles at which bins 1 to 8 begin.
const BORDERS: [(f32, f32); BINS - 1] = [
    (0.342_020_14, 0.939_692_6),
    (0.642_787_6, 0.766_044_44),
    (0.866_025_4, 0.5),
    (0.984_807_7, 0.173_648_18),
    (0.984_807_7, -0.173_648_18),
    (0.866_025_4, -0.5),
    (0.642_787_6, -0.766_044_44),
    (0.342_020_14, -0.939_692_6),
];

/// Height and width of the cells of patches of `patch` pixels.
const fn cell(patch: usize) -> usize {
    if patch.is_multiple_of(CELL) {
        CELL
    } else {
        patch
    }
}

/// Values of a patch of `patch` x `patch` pixels.
pub const fn patch_values(patch: usize) -> usize {
    let cells = patch / cell(patch);
    cells * cells * CELL_VALUES
}

/// The histograms of a frame. Reuses its memory from frame to frame.
///
/// ```
/// use pipeline::transform::hog::{Hog, patch_values};
///
/// // A ramp along rows: all votes are for the first bin.
/// let plane: Vec<f32> = (0..16 * 16).map(|at| (at % 16) as f32).collect();
/// let mut hog = Hog::default();
/// hog.compute([&plane, &plane, &plane], 16, 8);
/// let values: Vec<f32> = hog.patch(1, 0).collect();
/// assert_eq!(values.len(), patch_values(8));
/// assert_eq!(values[..2], [1.0, 0.0]);
/// ```
#[derive(Debug, Default)]
pub struct Hog {
    /// Cells of a patch along a side, and of the frame.
    patch_cells: usize,
    frame_cells: usize,
    /// Of a row of pixels: gradients along the row, magnitudes, and bins.
    along: Vec<f32>,
    magnitudes: Vec<f32>,
    bins: Vec<u8>,
    /// `[cells, cells, 3, BINS]` of the frame.
    histograms: Vec<f32>,
}

impl Hog {
    /// Computes the histograms of a frame of three planes, red, green and blue, of `side` x `side`
    /// pixels and patches of `patch` x `patch`.
    ///
    /// # Panics
    /// When a plane has a different size, or patches do not tile it.
    pub fn compute(&mut self, planes: [&[f32]; 3], side: usize, patch: usize) {
        assert!(
            patch > 0
                && side.is_multiple_of(patch)
                && planes.iter().all(|plane| plane.len() == side * side),
            "patches tile the planes"
        );
        let cell = cell(patch);
        (self.patch_cells, self.frame_cells) = (patch / cell, side / cell);
        self.along.resize(side, 0.0);
        self.magnitudes.resize(side, 0.0);
        self.bins.resize(side, 0);
        self.histograms.clear();
        self.histograms
            .resize(self.frame_cells * self.frame_cells * CELL_VALUES, 0.0);
        for (channel, plane) in planes.into_iter().enumerate() {
            for y in 0..side {
                self.row(plane, y, side);
                let cells = self.histograms[y / cell * self.frame_cells * CELL_VALUES..]
                    .chunks_exact_mut(CELL_VALUES);
                for ((histogram, magnitudes), bins) in cells
                    .zip(self.magnitudes.chunks_exact(cell))
                    .zip(self.bins.chunks_exact(cell))
                {
                    let histogram = &mut histogram[channel * BINS..][..BINS];
                    magnitudes
                        .iter()
                        .zip(bins)
                        .for_each(|(magnitude, &bin)| histogram[usize::from(bin)] += magnitude);
                }
            }
        }
        for histogram in self.histograms.chunks_exact_mut(BINS) {
            let norm = histogram
                .iter()
                .map(|votes| votes * votes)
                .sum::<f32>()
                .sqrt();
            if norm > 0.0 {
                histogram.iter_mut().for_each(|votes| *votes /= norm);
            }
        }
    }

    /// Magnitudes and bins of row `y`.
    fn row(&mut self, plane: &[f32], y: usize, side: usize) {
        let row = |y: usize| &plane[y * side..][..side];
        let this = row(y);
        self.along[0] = 0.0;
        self.along[side - 1] = 0.0;
        for (out, around) in self.along.iter_mut().skip(1).zip(this.windows(3)) {
            *out = around[2] - around[0];
        }
        // At the first and the last row the one on the other side is reflected.
        let (above, below) = if y == 0 || y + 1 == side {
            (this, this)
        } else {
            (row(y - 1), row(y + 1))
        };
        let outputs = self.magnitudes.iter_mut().zip(&mut self.bins);
        for (((magnitude, bin), &along), (above, below)) in
            outputs.zip(&self.along).zip(above.iter().zip(below))
        {
            let across = below - above;
            *magnitude = (along * along + across * across).sqrt();
            *bin = bin_of(along, across);
        }
    }

    /// The values of the patch in row `row` and column `column` of patches, in their order.
    pub fn patch(&self, row: usize, column: usize) -> impl Iterator<Item = f32> {
        let line = move |cell: usize| {
            let first =
                (row * self.patch_cells + cell) * self.frame_cells + column * self.patch_cells;
            &self.histograms[first * CELL_VALUES..][..self.patch_cells * CELL_VALUES]
        };
        (0..self.patch_cells).flat_map(line).copied()
    }
}

/// Bin of the gradient `(x, y)`: how many borders its angle, without sign, has reached. It compares
/// the gradient with each border, so no angle is computed.
fn bin_of(x: f32, y: f32) -> u8 {
    // The opposite gradient has the same orientation; 180 degrees are 0.
    let (x, y) = if y < 0.0 || (y == 0.0 && x < 0.0) {
        (-x, -y)
    } else {
        (x, y)
    };
    BORDERS
        .iter()
        .map(|&(sine, cosine)| u8::from(cosine * y - sine * x >= 0.0))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use rand::RngExt;
    use std::f64::consts::PI;

    /// The same, straightforwardly, in double precision: `[side / patch, side / patch, values of a
    /// patch]`.
    fn plainly(planes: [&[f32]; 3], side: usize, patch: usize) -> Vec<f64> {
        let cell = if patch.is_multiple_of(8) { 8 } else { patch };
        let last = side as isize - 1;
        let reflect =
            |at: isize| (if at > last { 2 * last - at } else { at.abs() }).clamp(0, last) as usize;
        let pixel = |channel: usize, y: isize, x: isize| {
            f64::from(planes[channel][reflect(y) * side + reflect(x)])
        };
        let mut values = Vec::new();
        for (patch_row, patch_column) in
            (0..side / patch).flat_map(|row| (0..side / patch).map(move |column| (row, column)))
        {
            for (cell_row, cell_column) in
                (0..patch / cell).flat_map(|row| (0..patch / cell).map(move |column| (row, column)))
            {
                for channel in 0..3 {
                    let mut votes = [0f64; 9];
                    for (y, x) in (0..cell).flat_map(|y| (0..cell).map(move |x| (y, x))) {
                        let y = (patch_row * patch + cell_row * cell + y) as isize;
                        let x = (patch_column * patch + cell_column * cell + x) as isize;
                        let along = pixel(channel, y, x + 1) - pixel(channel, y, x - 1);
                        let across = pixel(channel, y + 1, x) - pixel(channel, y - 1, x);
                        let angle = across.atan2(along).rem_euclid(PI);
                        votes[(angle / PI * 9.0) as usize % 9] += along.hypot(across);
                    }
                    let norm = votes.iter().map(|vote| vote * vote).sum::<f64>().sqrt();
                    values.extend(votes.map(|vote| if norm > 0.0 { vote / norm } else { 0.0 }));
                }
            }
        }
        values
    }

    fn of(planes: [&[f32]; 3], side: usize, patch: usize) -> Vec<f32> {
        let mut hog = Hog::default();
        hog.compute(planes, side, patch);
        let count = side / patch;
        (0..count * count)
            .flat_map(|at| hog.patch(at / count, at % count).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn histograms_are_those_of_plain_double_precision() {
        let mut rng = stream(Purpose::Augment, 1, 1, 1);
        for (side, patch) in [
            (48, 16),
            (32, 8),
            (21, 7),
            (24, 12),
            (9, 3),
            (5, 5),
            (6, 1),
            (1, 1),
            (2, 2),
        ] {
            let noise: Vec<f32> = (0..3 * side * side)
                .map(|_| rng.random_range(-2.0..2.4))
                .collect();
            // As of 8-bit samples, with many equal neighbours.
            let flat: Vec<f32> = noise.iter().map(|value| value.round()).collect();
            for planes in [noise, flat] {
                let (red, rest) = planes.split_at(side * side);
                let (green, blue) = rest.split_at(side * side);
                let (got, wanted) = (
                    of([red, green, blue], side, patch),
                    plainly([red, green, blue], side, patch),
                );
                assert_eq!(
                    (got.len(), got.len()),
                    (wanted.len(), (side / patch).pow(2) * patch_values(patch)),
                    "{side} {patch}"
                );
                let worst = got
                    .iter()
                    .zip(wanted)
                    .map(|(&got, wanted)| (f64::from(got) - wanted).abs())
                    .fold(0.0, f64::max);
                assert!(worst < 1e-5, "side {side}, patch {patch}: {worst}");
            }
        }
        assert_eq!(
            [patch_values(16), patch_values(8), patch_values(14)],
            [108, 27, 27]
        );
    }

    /// A ramp whose gradient has the angle `degrees`, and what becomes of it away from the edges.
    fn bin_of_ramp(degrees: f64) -> usize {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let plane: Vec<f32> = (0..24 * 24)
            .map(|at| (cosine * f64::from(at % 24) + sine * f64::from(at / 24)) as f32)
            .collect();
        let mut hog = Hog::default();
        hog.compute([&plane, &plane, &plane], 24, 8);
        let central: Vec<f32> = hog.patch(1, 1).collect();
        assert!(central[..9] == central[9..18] && central[..9] == central[18..]);
        let bin = central[..9]
            .iter()
            .position(|&votes| votes > 0.99)
            .expect("all votes are for one bin");
        assert!(
            central[..9]
                .iter()
                .enumerate()
                .all(|(other, &votes)| other == bin || votes < 0.01),
            "{central:?}"
        );
        bin
    }

    #[test]
    fn a_gradient_that_turns_moves_on_through_the_bins() {
        for step in 0..18 {
            // The middle of a bin, twice around: the sign of a gradient does not count.
            assert_eq!(
                bin_of_ramp(f64::from(step) * 20.0 + 10.0),
                step as usize % 9,
                "at {} degrees",
                step * 20 + 10
            );
        }
        assert_eq!(
            [bin_of_ramp(0.0), bin_of_ramp(90.0), bin_of_ramp(180.0)],
            [0, 4, 0]
        );
    }

    #[test]
    fn brightness_and_contrast_do_not_matter_and_no_gradient_is_nothing() {
        let mut rng = stream(Purpose::Augment, 2, 2, 2);
        let plane: Vec<f32> = (0..16 * 16).map(|_| rng.random_range(0.0..1.0)).collect();
        let brighter: Vec<f32> = plane.iter().map(|value| 3.0 * value + 5.0).collect();
        let (first, second) = (
            of([&plane, &plane, &plane], 16, 16),
            of([&brighter, &brighter, &brighter], 16, 16),
        );
        assert!(first.iter().zip(&second).all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(
            of([&[0.7; 256], &[0.1; 256], &[0.0; 256]], 16, 16)
                .iter()
                .all(|&votes| votes == 0.0)
        );
    }
}
