//! RandAugment's operations on bytes.

use super::Operation;
use crate::transform::MEAN;

/// The value of pixels from beyond the edge of a frame.
const FILL: u8 = (MEAN * 255.0 + 0.5) as u8;

/// Bits of a factor's fraction.
const FACTOR_BITS: u32 = 16;

/// Bits of a place between two pixels, and a whole pixel of it. The product of two of them and a
/// byte fits into 32 bits.
const PLACE_BITS: u32 = 11;
const WHOLE: u32 = 1 << PLACE_BITS;

/// Applies operations to clips. Reuses its memory from clip to clip.
#[derive(Debug, Default)]
pub struct RandAugmenter {
    /// A frame of one channel, before the operation.
    before: Vec<u8>,
    /// A frame in grey.
    grey: Vec<u8>,
    /// Where the pixels of a frame come from: of each row the columns that come from inside of the
    /// frame, and of each pixel its place.
    inside: Vec<(usize, usize)>,
    taps: Vec<Tap>,
}

/// Where a pixel comes from: between four pixels.
#[derive(Debug, Clone, Copy)]
struct Tap {
    /// The upper left one.
    at: u32,
    /// How far from there to the right, and down, in [`WHOLE`]s.
    right: u16,
    down: u16,
}

impl RandAugmenter {
    /// Applies `operations` in their order to `clip`: `[3, frames, side, side]`, R'G'B'.
    ///
    /// # Panics
    /// When the clip has a different length.
    pub fn apply(&mut self, operations: &[Operation], clip: &mut [u8], frames: usize, side: usize) {
        assert_eq!(clip.len(), 3 * frames * side * side, "bytes of a clip");
        if clip.is_empty() {
            return;
        }
        for &operation in operations {
            self.apply_one(operation, clip, side);
        }
    }

    fn apply_one(&mut self, operation: Operation, clip: &mut [u8], side: usize) {
        let plane = side * side;
        let middle = side as f64 / 2.0;
        match operation {
            Operation::AutoContrast => clip
                .chunks_exact_mut(plane)
                .for_each(|plane| look_up(plane, &stretching(&histogram(plane)))),
            Operation::Equalize => clip
                .chunks_exact_mut(plane)
                .for_each(|plane| look_up(plane, &equalizing(&histogram(plane)))),
            Operation::Invert => look_up(clip, &table(|value| 255 - value)),
            Operation::Posterize { bits } => {
                let mask = if bits >= 8 { 255 } else { !(255u8 >> bits) };
                look_up(clip, &table(|value| value & mask));
            }
            Operation::Solarize { threshold } => {
                look_up(
                    clip,
                    &table(|value| {
                        if u16::from(value) < threshold {
                            value
                        } else {
                            255 - value
                        }
                    }),
                );
            }
            Operation::SolarizeAdd { add } => look_up(
                clip,
                &table(|value| {
                    if value < 128 {
                        value.saturating_add(add)
                    } else {
                        value
                    }
                }),
            ),
            Operation::Brightness { factor } => {
                look_up(clip, &table(|value| blend(0, value, fixed(factor))))
            }
            Operation::Contrast { factor } => {
                let [red, green, blue] = channels(clip);
                for ((red, green), blue) in planes(red, plane)
                    .zip(planes(green, plane))
                    .zip(planes(blue, plane))
                {
                    self.make_grey([red, green, blue]);
                    let sum: u64 = self.grey.iter().map(|&value| u64::from(value)).sum();
                    let mean = (sum as f64 / plane as f64 + 0.5) as u8;
                    let table = table(|value| blend(mean, value, fixed(factor)));
                    [red, green, blue]
                        .into_iter()
                        .for_each(|plane| look_up(plane, &table));
                }
            }
            Operation::Color { factor } => {
                let factor = fixed(factor);
                let [red, green, blue] = channels(clip);
                for ((red, green), blue) in planes(red, plane)
                    .zip(planes(green, plane))
                    .zip(planes(blue, plane))
                {
                    self.make_grey([red, green, blue]);
                    for plane in [red, green, blue] {
                        plane
                            .iter_mut()
                            .zip(&self.grey)
                            .for_each(|(value, &grey)| *value = blend(grey, *value, factor));
                    }
                }
            }
            Operation::Sharpness { factor } => {
                for plane in clip.chunks_exact_mut(plane) {
                    self.before.clear();
                    self.before.extend_from_slice(plane);
                    sharpen(&self.before, plane, side, fixed(factor));
                }
            }
            Operation::Rotate { degrees } => {
                let (sin, cos) = degrees.to_radians().sin_cos();
                let (across, along) = (middle * (1.0 - cos + sin), middle * (1.0 - sin - cos));
                self.place(clip, side, [cos, -sin, across, sin, cos, along]);
            }
            Operation::ShearX { factor } => {
                self.place(clip, side, [1.0, factor, 0.0, 0.0, 1.0, 0.0])
            }
            Operation::ShearY { factor } => {
                self.place(clip, side, [1.0, 0.0, 0.0, factor, 1.0, 0.0])
            }
            Operation::TranslateX { share } => {
                self.place(clip, side, [1.0, 0.0, share * side as f64, 0.0, 1.0, 0.0])
            }
            Operation::TranslateY { share } => {
                self.place(clip, side, [1.0, 0.0, 0.0, 0.0, 1.0, share * side as f64])
            }
        }
    }

    /// Converts a frame to grey, by the luma of ITU-R 601 as Pillow rounds it.
    fn make_grey(&mut self, [red, green, blue]: [&[u8]; 3]) {
        self.grey.resize(red.len(), 0);
        for (((grey, &red), &green), &blue) in self.grey.iter_mut().zip(red).zip(green).zip(blue) {
            *grey = ((u32::from(red) * 19595
                + u32::from(green) * 38470
                + u32::from(blue) * 7471
                + 0x8000)
                >> 16) as u8;
        }
    }

    /// Warps all frames: the pixel at `(x, y)` becomes the one at `(a x + b y + c, d x + e y + f)`,
    /// interpolated bilinearly.
    fn place(&mut self, clip: &mut [u8], side: usize, matrix: [f64; 6]) {
        self.make_taps(side, matrix);
        let (next, below) = if side > 1 { (1, side) } else { (0, 0) };
        for plane in clip.chunks_exact_mut(side * side) {
            self.before.clear();
            self.before.extend_from_slice(plane);
            let before = &self.before[..];
            for ((row, taps), &(first, end)) in plane
                .chunks_exact_mut(side)
                .zip(self.taps.chunks_exact(side))
                .zip(&self.inside)
            {
                row[..first].fill(FILL);
                row[end..].fill(FILL);
                for (value, tap) in row[first..end].iter_mut().zip(&taps[first..end]) {
                    let at = tap.at as usize;
                    let (right, down) = (u32::from(tap.right), u32::from(tap.down));
                    let pixel = |at: usize| u32::from(before[at]);
                    let upper = pixel(at) * (WHOLE - right) + pixel(at + next) * right;
                    let lower =
                        pixel(at + below) * (WHOLE - right) + pixel(at + below + next) * right;
                    *value = ((upper * (WHOLE - down) + lower * down + (1 << (2 * PLACE_BITS - 1)))
                        >> (2 * PLACE_BITS)) as u8;
                }
            }
        }
    }

    fn make_taps(&mut self, side: usize, [a, b, c, d, e, f]: [f64; 6]) {
        self.taps.clear();
        self.inside.clear();
        let is_inside = |place: f64| (0.0..side as f64).contains(&place);
        for y in 0..side {
            let (mut first, mut end) = (side, side);
            let y = y as f64 + 0.5;
            for column in 0..side {
                let x = column as f64 + 0.5;
                let (x, y) = (a * x + b * y + c, d * x + e * y + f);
                // The inside of a row is one stretch: a frame is convex.
                if is_inside(x) && is_inside(y) {
                    first = first.min(column);
                    end = column + 1;
                }
                let ((left, right), (top, down)) = (between(x, side), between(y, side));
                self.taps.push(Tap {
                    at: (top * side + left) as u32,
                    right,
                    down,
                });
            }
            self.inside.push((first, end));
        }
    }
}

/// The pixel of a row of `side` before the position `at`, and how far the position lies from its
/// centre towards the next one's. Beyond the first and last centres the row is constant.
fn between(at: f64, side: usize) -> (usize, u16) {
    let place = (at - 0.5).clamp(0.0, (side - 1) as f64);
    let before = (place as usize).min(side.saturating_sub(2));
    (
        before,
        ((place - before as f64) * f64::from(WHOLE) + 0.5) as u16,
    )
}

/// The three channels of a clip.
fn channels(clip: &mut [u8]) -> [&mut [u8]; 3] {
    let (red, rest) = clip.split_at_mut(clip.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    [red, green, blue]
}

/// The frames of a channel.
fn planes(channel: &mut [u8], plane: usize) -> impl Iterator<Item = &mut [u8]> {
    channel.chunks_exact_mut(plane)
}

/// The table of a function of values.
fn table(of: impl Fn(u8) -> u8) -> [u8; 256] {
    std::array::from_fn(|value| of(value as u8))
}

fn look_up(values: &mut [u8], table: &[u8; 256]) {
    values
        .iter_mut()
        .for_each(|value| *value = table[usize::from(*value)]);
}

/// How often each value occurs.
fn histogram(values: &[u8]) -> [u32; 256] {
    let mut counts = [0; 256];
    values
        .iter()
        .for_each(|&value| counts[usize::from(value)] += 1);
    counts
}

/// The table that stretches a channel with this histogram to 0..=255. A channel of one value does
/// not change.
fn stretching(histogram: &[u32; 256]) -> [u8; 256] {
    let least = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    let greatest = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
    if greatest <= least {
        return table(|value| value);
    }
    let scale = 255.0 / (greatest - least) as f64;
    // In this order, and truncated, as in Pillow: the bytes are the same.
    table(|value| (f64::from(value) * scale + -(least as f64) * scale) as u8)
}

/// The table that makes the values of a channel with this histogram equally frequent. A channel of
/// one value does not change.
fn equalizing(histogram: &[u32; 256]) -> [u8; 256] {
    let last = histogram
        .iter()
        .rev()
        .find(|&&count| count > 0)
        .copied()
        .unwrap_or(0);
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return table(|value| value);
    }
    let mut before = step / 2;
    histogram.map(|count| {
        let value = before / step;
        before += count;
        value.min(255) as u8
    })
}

/// A factor with [`FACTOR_BITS`] bits of fraction.
fn fixed(factor: f64) -> i32 {
    (factor * f64::from(1 << FACTOR_BITS)).round() as i32
}

/// Blends `from`, at a factor of 0, and `to`, at 1; extrapolates beyond. Rounds down, as Pillow
/// does.
#[inline(always)]
fn blend(from: u8, to: u8, factor: i32) -> u8 {
    let (from, to) = (i32::from(from), i32::from(to));
    (from + ((factor * (to - from)) >> FACTOR_BITS)).clamp(0, 255) as u8
}

/// Blends the smoothed frame and the frame: a smoothed pixel is the mean of the 3 x 3 pixels about
/// it, the central one counted five times. At the edge the frame does not change.
fn sharpen(before: &[u8], out: &mut [u8], side: usize, factor: i32) {
    if side < 3 {
        return;
    }
    let inner = side - 2;
    for y in 1..side - 1 {
        // Slices of one length, so that the loop needs no checks.
        let [above, this, below] = [y - 1, y, y + 1].map(|y| {
            let row = &before[y * side..][..side];
            [&row[..inner], &row[1..][..inner], &row[2..][..inner]]
        });
        let out = &mut out[y * side + 1..][..inner];
        for x in 0..inner {
            let three = |[left, middle, right]: [&[u8]; 3]| {
                u16::from(left[x]) + u16::from(middle[x]) + u16::from(right[x])
            };
            let sum = three(above) + three(this) + three(below) + 4 * u16::from(this[1][x]);
            // Half of 13 is no whole number: no sum lies between two means.
            out[x] = blend(((2 * sum + 13) / 26) as u8, this[1][x], factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{
        AutoContrast, Brightness, Color, Contrast, Equalize, Invert, Posterize, Rotate, Sharpness,
    };
    use Operation::{ShearX, ShearY, Solarize, SolarizeAdd, TranslateX, TranslateY};

    fn after(operation: Operation, clip: &[u8], frames: usize, side: usize) -> Vec<u8> {
        let mut clip = clip.to_vec();
        RandAugmenter::default().apply(&[operation], &mut clip, frames, side);
        clip
    }

    /// One of each kind.
    const ALL: [Operation; super::super::KINDS] = [
        AutoContrast,
        Equalize,
        Invert,
        Rotate { degrees: 21.0 },
        Posterize { bits: 2 },
        Solarize { threshold: 70 },
        SolarizeAdd { add: 77 },
        Color { factor: 0.37 },
        Contrast { factor: 1.63 },
        Brightness { factor: 1.63 },
        Sharpness { factor: 0.37 },
        ShearX { factor: 0.21 },
        ShearY { factor: -0.21 },
        TranslateX { share: 0.315 },
        TranslateY { share: -0.315 },
    ];

    /// A frame of 24 x 24 pixels: [`FIGURES`] is of this.
    fn frame() -> Vec<u8> {
        (0..3 * 24 * 24u64)
            .map(|at| (40 + ((at * 2_654_435_761) >> 13) % 128 + 20 * (at / 576)) as u8)
            .collect()
    }

    /// What Pillow 13.0 makes of [`frame`]:
    ///
    /// ```python
    /// at = np.arange(3 * 24 * 24, dtype=np.uint64)
    /// clip = (40 + (at * 2654435761 >> 13) % 128 + 20 * (at // 576)).astype(np.uint8).reshape(3, 24, 24)
    /// image = Image.fromarray(clip.transpose(1, 2, 0))
    /// number = lambda image: (np.asarray(image).transpose(2, 0, 1).reshape(-1).astype(np.int64) * (at.astype(np.int64) + 1)).sum()
    /// number(ImageOps.autocontrast(image)), number(ImageOps.equalize(image)), number(ImageOps.posterize(image, 3))
    /// number(ImageOps.solarize(image, 70)), number(ImageEnhance.Color(image).enhance(0.37))
    /// number(image.point([min(255, i + 77) if i < 128 else i for i in range(256)] * 3))
    /// ```
    const FIGURES: [(Operation, u64); 15] = [
        (AutoContrast, 190_052_689),
        (Equalize, 211_183_802),
        (Invert, 183_007_285),
        (Posterize { bits: 1 }, 102_945_408),
        (Posterize { bits: 3 }, 174_848_832),
        (Solarize { threshold: 70 }, 172_768_270),
        (SolarizeAdd { add: 77 }, 251_024_810),
        (Color { factor: 0.0 }, 179_220_465),
        (Color { factor: 0.37 }, 185_559_179),
        (Color { factor: 1.63 }, 208_798_955),
        (Contrast { factor: 0.37 }, 185_428_670),
        (Contrast { factor: 1.63 }, 208_883_860),
        (Brightness { factor: 1.63 }, 305_069_881),
        (Sharpness { factor: 0.37 }, 197_321_094),
        (Sharpness { factor: 1.63 }, 197_356_122),
    ];

    #[test]
    fn colours_are_those_of_pillow() {
        for (operation, figure) in FIGURES {
            let values = after(operation, &frame(), 1, 24);
            let number: u64 = (1..)
                .zip(values)
                .map(|(at, value)| at * u64::from(value))
                .sum();
            assert_eq!(number, figure, "{operation:?}");
        }
    }

    #[test]
    fn places_are_those_of_pillow() {
        // Pillow 13.0, red of the upper left 8 x 8 pixels of the same frame, rows 1 and 5:
        // image.rotate(21, BILINEAR, fillcolor=(115, 115, 115)), and image.transform(image.size,
        // AFFINE, matrix, BILINEAR, fillcolor=...) by (1, .21, 0, 0, 1, 0), (1, 0, 0, -.21, 1, 0),
        // (1, 0, .315 * 8, 0, 1, 0) and (1, 0, 0, 0, 1, -.315 * 8). It cuts off what is rounded
        // here.
        let figures: [(Operation, [[u8; 8]; 2]); 5] = [
            (
                Rotate { degrees: 21.0 },
                [
                    [106, 129, 107, 56, 111, 74, 114, 115],
                    [139, 105, 123, 125, 122, 110, 100, 67],
                ],
            ),
            (
                ShearX { factor: 0.21 },
                [
                    [85, 105, 76, 96, 68, 88, 60, 101],
                    [117, 156, 108, 148, 100, 140, 82, 115],
                ],
            ),
            (
                ShearY { factor: -0.21 },
                [
                    [64, 118, 111, 98, 145, 83, 142, 115],
                    [58, 99, 152, 79, 133, 79, 113, 113],
                ],
            ),
            (
                TranslateX { share: 0.315 },
                [
                    [89, 82, 81, 74, 72, 115, 115, 115],
                    [131, 130, 123, 122, 115, 115, 115, 115],
                ],
            ),
            (
                TranslateY { share: -0.315 },
                [[115; 8], [106, 105, 98, 97, 90, 149, 81, 141]],
            ),
        ];
        let corner: Vec<u8> = frame()
            .chunks(24)
            .enumerate()
            .filter(|(row, _)| row % 24 < 8)
            .flat_map(|(_, row)| row[..8].to_vec())
            .collect();
        for (operation, rows) in figures {
            let values = after(operation, &corner, 1, 8);
            for (y, row) in [1, 5].into_iter().zip(rows) {
                let got = &values[8 * y..][..8];
                assert!(
                    got.iter().zip(row).all(|(&a, b)| a.abs_diff(b) <= 1),
                    "{operation:?}, row {y}: {got:?} for {row:?}"
                );
            }
        }
    }

    #[test]
    fn small_cases_come_out_as_by_hand() {
        let of = |operation, red: [u8; 4]| {
            let clip = [red, [0; 4], [0; 4]].concat();
            after(operation, &clip, 1, 2)[..4].to_vec()
        };
        assert_eq!(of(AutoContrast, [50, 100, 150, 100]), [0, 127, 255, 127]);
        assert_eq!(of(Invert, [0, 1, 128, 255]), [255, 254, 127, 0]);
        assert_eq!(of(Posterize { bits: 2 }, [0, 63, 64, 255]), [0, 0, 64, 192]);
        assert_eq!(of(Posterize { bits: 0 }, [0, 63, 64, 255]), [0; 4]);
        assert_eq!(
            of(Solarize { threshold: 100 }, [0, 99, 100, 255]),
            [0, 99, 155, 0]
        );
        assert_eq!(
            of(SolarizeAdd { add: 110 }, [0, 127, 128, 255]),
            [110, 237, 128, 255]
        );
        assert_eq!(
            of(Brightness { factor: 1.5 }, [0, 101, 170, 171]),
            [0, 151, 255, 255]
        );
        assert_eq!(
            of(Brightness { factor: 0.5 }, [0, 101, 170, 171]),
            [0, 50, 85, 85]
        );
        // A quarter turn against the clock, and one column or row.
        assert_eq!(of(Rotate { degrees: 90.0 }, [1, 2, 3, 4]), [2, 4, 1, 3]);
        assert_eq!(
            of(TranslateX { share: 0.5 }, [1, 2, 3, 4]),
            [2, FILL, 4, FILL]
        );
        assert_eq!(
            of(TranslateY { share: -0.5 }, [1, 2, 3, 4]),
            [FILL, FILL, 1, 2]
        );
        // Row 0 by a quarter of a column, row 1 by three quarters.
        assert_eq!(
            of(ShearX { factor: 0.5 }, [0, 100, 0, 100]),
            [25, 100, 75, FILL]
        );
        assert_eq!(
            of(ShearY { factor: 0.5 }, [0, 0, 100, 100]),
            [25, 75, 100, FILL]
        );

        // Grey of (200, 100, 50) is 124.2; the mean of a frame's greys, half of which are that and
        // half 0, is 62.
        let clip = [[200, 0, 200, 0], [100, 0, 100, 0], [50, 0, 50, 0]].concat();
        assert_eq!(
            after(Color { factor: 0.0 }, &clip, 1, 2),
            [124, 0, 124, 0].repeat(3)
        );
        assert_eq!(after(Color { factor: 0.5 }, &clip, 1, 2)[..1], [162]);
        assert_eq!(after(Contrast { factor: 0.0 }, &clip, 1, 2), [62; 12]);
        assert_eq!(after(Contrast { factor: 0.5 }, &clip, 1, 2)[..2], [131, 31]);

        // 130 alone in the middle: 5 of 13 of it are left. The edge stays.
        let mut dot = [0; 27];
        dot[4] = 130;
        assert_eq!(
            after(Sharpness { factor: 0.0 }, &dot, 1, 3)[..9],
            [0, 0, 0, 0, 50, 0, 0, 0, 0]
        );
        assert_eq!(after(Sharpness { factor: 1.5 }, &dot, 1, 3)[4], 170);

        // 510 pixels of 1, 510 of 7 and 4 of 9, of 1024: a step is 1020 / 255 = 4 pixels, and a
        // value becomes the steps below it, half a one more.
        let channel: Vec<u8> = (0..1024)
            .map(|at| {
                if at < 510 {
                    1
                } else if at < 1020 {
                    7
                } else {
                    9
                }
            })
            .collect();
        let equal = after(Equalize, &channel.repeat(3), 1, 32);
        assert_eq!([equal[0], equal[600], equal[1023]], [0, 128, 255]);
    }

    #[test]
    fn magnitudes_of_nothing_change_nothing() {
        let clip = frame();
        for operation in [
            Rotate { degrees: 0.0 },
            Posterize { bits: 8 },
            Solarize { threshold: 256 },
            SolarizeAdd { add: 0 },
            Color { factor: 1.0 },
            Contrast { factor: 1.0 },
            Brightness { factor: 1.0 },
            Sharpness { factor: 1.0 },
            ShearX { factor: 0.0 },
            ShearY { factor: 0.0 },
            TranslateX { share: 0.0 },
            TranslateY { share: 0.0 },
        ] {
            assert!(after(operation, &clip, 1, 24) == clip, "{operation:?}");
        }
        for flat in [AutoContrast, Equalize] {
            assert_eq!(after(flat, &[7; 48], 1, 4), [7; 48], "{flat:?}");
        }
    }

    #[test]
    fn frames_are_changed_alike_and_by_themselves() {
        // Three frames, the middle one darker: the first and the last come out alike, and each as
        // it does alone.
        let one = frame();
        let dark: Vec<u8> = one.iter().map(|&value| value / 3).collect();
        let clip: Vec<u8> = (0..3)
            .flat_map(|channel| {
                [&one, &dark, &one]
                    .map(|frame| frame[channel * 576..][..576].to_vec())
                    .concat()
            })
            .collect();
        let mut augmenter = RandAugmenter::default();
        for operation in ALL {
            let mut together = clip.clone();
            augmenter.apply(&[operation], &mut together, 3, 24);
            let alone = [&one, &dark, &one].map(|frame| after(operation, frame, 1, 24));
            for (plane, values) in together.chunks(576).enumerate() {
                assert!(
                    values == &alone[plane % 3][plane / 3 * 576..][..576],
                    "{operation:?}, plane {plane}"
                );
            }
        }
    }

    #[test]
    fn operations_follow_one_another_and_odd_sizes_are_no_matter() {
        let mut augmenter = RandAugmenter::default();
        for (frames, side) in [(2, 7), (1, 1), (1, 2), (0, 4), (3, 0)] {
            let clip: Vec<u8> = (0..3 * frames * side * side)
                .map(|at| (at * 37 % 251) as u8)
                .collect();
            let mut together = clip.clone();
            augmenter.apply(&ALL, &mut together, frames, side);
            assert!(
                together
                    == ALL.into_iter().fold(clip, |clip, operation| after(
                        operation, &clip, frames, side
                    )),
                "{frames} {side}"
            );
        }
    }
}
