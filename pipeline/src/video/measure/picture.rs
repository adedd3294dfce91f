//! Small pictures: hue, saturation and value at a fixed grid of points of a frame, for finding
//! cuts.
//!
//! PySceneDetect shrinks a frame to 256 pixels on its long side, by linear interpolation between
//! the four pixels around each point, before it compares frames. A mean over all those points
//! changes little if only some are taken, so this samples a grid of [`COLUMNS`] x [`ROWS`] of them,
//! each at exactly the place and with the weights that it has there. Little more than the rows that
//! the grid lies on is read. All pictures have the same points, so frames of different sizes can be
//! compared, too.
//!
//! Sums of `f32` are rounded alike on every CPU: nothing is reordered or fused.

use schemas::shard::ColorMatrix;

/// Number of points in a row of the grid.
pub const COLUMNS: usize = 64;

/// Number of rows of the grid.
pub const ROWS: usize = 36;

/// Number of points of the grid.
pub const POINTS: usize = COLUMNS * ROWS;

/// Length in pixels of the long side that PySceneDetect shrinks larger frames to.
const LONG_SIDE: usize = 256;

/// One as a weight of interpolation. Sums of 8-bit values with two such weights fit 16 bits.
const WEIGHT_ONE: u16 = 16;

/// `1.5 * 2^23`: an `f32` of at most 2^22 that this is added to is rounded to a whole number.
const ROUNDER: f32 = 12_582_912.0;

/// A row of one component at the points of the grid, of 0 to 255.
type Row = [u8; COLUMNS];

/// One component (Y, U or V; R, G or B) of a decoded frame.
#[derive(Debug, Clone, Copy)]
pub struct Component<'a> {
    /// The bytes from the first value of the component on.
    pub data: &'a [u8],
    /// Number of bytes from one row to the next.
    pub row_bytes: usize,
    /// Number of bytes from one value to the next in a row.
    pub pixel_bytes: usize,
    /// Number of values in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of bits of a value. Values that end above bit 8 are in two bytes, little-endian.
    pub bits: u32,
    /// Number of bits below a value.
    pub shift: u32,
}

/// What the components of a frame mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    /// Luma and two colour differences.
    Yuv {
        /// The coefficients.
        matrix: ColorMatrix,
        /// Whether all values are used, instead of 16 to 235 (luma) and 16 to 240 of 255.
        full_range: bool,
    },
    /// Red, green and blue, of full range.
    Rgb,
    /// Luma only, of full range. Only the first component is read.
    Gray,
}

/// Hue, saturation and value of the points of a frame. Before the first [`sample`](Self::sample),
/// all are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallPicture {
    /// The hues of all points, 0 to 179 (half degrees), then the saturations and the values, 0 to
    /// 255: the units of OpenCV's 8-bit HSV.
    hsv: Vec<u8>,
}

impl Default for SmallPicture {
    fn default() -> Self {
        Self {
            hsv: vec![0; 3 * POINTS],
        }
    }
}

impl SmallPicture {
    /// Samples a frame of `components`. The first component gives the size of the frame; the
    /// others may be smaller. Values beyond the end of the data are taken as 0.
    pub fn sample(&mut self, components: [Component<'_>; 3], colors: Colors) {
        let (width, height) = (components[0].width, components[0].height);
        if components.iter().any(Component::is_empty) {
            self.hsv.fill(0);
            return;
        }
        let long_side = width.max(height);
        let columns: [Tap; COLUMNS] = taps(width, small_length(width, long_side));
        let rows: [Tap; ROWS] = taps(height, small_length(height, long_side));
        let readers = components.map(|component| Reader::new(component, (width, height), &columns));
        let yuv = match colors {
            Colors::Yuv { matrix, full_range } => Some(YuvToRgb::new(matrix, full_range)),
            Colors::Rgb | Colors::Gray => None,
        };
        let (hues, rest) = self.hsv.split_at_mut(POINTS);
        let (saturations, values) = rest.split_at_mut(POINTS);
        let outputs = hues
            .chunks_exact_mut(COLUMNS)
            .zip(saturations.chunks_exact_mut(COLUMNS))
            .zip(values.chunks_exact_mut(COLUMNS));
        let mut points = [[0; COLUMNS]; 3];
        for (((hues, saturations), values), row) in outputs.zip(rows) {
            readers[0].read(row, height, &mut points[0]);
            match colors {
                Colors::Gray => {
                    hues.fill(0);
                    saturations.fill(0);
                    values.copy_from_slice(&points[0]);
                    continue;
                }
                Colors::Rgb => {
                    readers[1].read(row, height, &mut points[1]);
                    readers[2].read(row, height, &mut points[2]);
                }
                Colors::Yuv { .. } => {
                    readers[1].read(row, height, &mut points[1]);
                    readers[2].read(row, height, &mut points[2]);
                    if let Some(yuv) = &yuv {
                        yuv.convert(&mut points);
                    }
                }
            }
            hsv_of_row(&points, hues, saturations, values);
        }
    }

    /// Returns the hue, 0 to 179 (half degrees), saturation and value, 0 to 255, of the point in
    /// `column` and `row`, or `None` outside of the grid.
    pub fn hsv(&self, column: usize, row: usize) -> Option<[u8; 3]> {
        (column < COLUMNS && row < ROWS)
            .then(|| [0, 1, 2].map(|channel| self.hsv[channel * POINTS + row * COLUMNS + column]))
    }

    /// Returns the mean of the absolute changes of hue, saturation and value from `other` to this,
    /// 0 to 230. This is PySceneDetect's content value; as there, hues 179 and 0 are far apart.
    pub fn change_from(&self, other: &Self) -> f64 {
        let sum: u64 = self
            .hsv
            .chunks(COLUMNS)
            .zip(other.hsv.chunks(COLUMNS))
            .map(|(row, other)| {
                let differences = row.iter().zip(other);
                u64::from(
                    differences
                        .map(|(&a, &b)| u32::from(a.abs_diff(b)))
                        .sum::<u32>(),
                )
            })
            .sum();
        sum as f64 / (3 * POINTS) as f64
    }

    /// Makes this equal to `other`.
    pub fn copy_from(&mut self, other: &Self) {
        self.hsv.copy_from_slice(&other.hsv);
    }
}

impl Component<'_> {
    fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Whether a value takes two bytes.
    fn is_wide(&self) -> bool {
        self.bits + self.shift > 8
    }

    fn row(&self, row: usize) -> &[u8] {
        self.data.get(row * self.row_bytes..).unwrap_or(&[])
    }
}

/// Where a point lies between two pixels of an axis.
#[derive(Debug, Clone, Copy, Default)]
struct Tap {
    /// Pixel before or at the point.
    first: usize,
    /// Pixel after it.
    second: usize,
    /// Weight of the second, of [`WEIGHT_ONE`].
    weight: u16,
}

/// Returns the length that PySceneDetect shrinks an axis of `length` pixels to, if the longer axis
/// has `long_side`.
fn small_length(length: usize, long_side: usize) -> usize {
    if long_side <= LONG_SIDE {
        return length;
    }
    ((2 * length * LONG_SIDE + long_side) / (2 * long_side)).max(1)
}

/// Returns `N` points evenly out of the `small` points that an axis of `length` pixels is shrunk
/// to. The centre of pixel `i` is at `i + 0.5`, as in OpenCV.
fn taps<const N: usize>(length: usize, small: usize) -> [Tap; N] {
    std::array::from_fn(|point| {
        let index = (2 * point + 1) * small / (2 * N);
        // Not negative: `small` is at most `length`.
        let position = (2 * index + 1) * length - small;
        let first = (position / (2 * small)).min(length - 1);
        Tap {
            first,
            second: (first + 1).min(length - 1),
            weight: (position % (2 * small) * usize::from(WEIGHT_ONE) / (2 * small)) as u16,
        }
    })
}

/// Reads one component at the points of the grid.
struct Reader<'a> {
    component: Component<'a>,
    /// Offsets in bytes of the two pixels around each point of a row.
    offsets: [[usize; COLUMNS]; 2],
    /// Weights of the second of these pixels, of [`WEIGHT_ONE`].
    weights: [u16; COLUMNS],
    /// Whether the nearest row is taken instead of two. A large frame's colour differences in every
    /// other row are smooth, and most of the time is spent in waiting for memory.
    takes_one_row: bool,
}

impl<'a> Reader<'a> {
    /// `width` and `height` are those of the frame, which `columns` are in.
    fn new(
        component: Component<'a>,
        (width, height): (usize, usize),
        columns: &[Tap; COLUMNS],
    ) -> Self {
        let offset = |column| scaled(column, component.width, width) * component.pixel_bytes;
        Self {
            component,
            offsets: [
                columns.map(|tap| offset(tap.first)),
                columns.map(|tap| offset(tap.second)),
            ],
            weights: columns.map(|tap| tap.weight),
            takes_one_row: component.height < height && width.max(height) >= 2 * LONG_SIDE,
        }
    }

    /// Reads a row of points by linear interpolation. `height` is that of the frame, which `row`
    /// is in.
    fn read(&self, row: Tap, height: usize, points: &mut Row) {
        let [left, right] = &self.offsets;
        let line = |row| {
            self.component
                .row(scaled(row, self.component.height, height))
        };
        let is_second = self.takes_one_row && row.weight > WEIGHT_ONE / 2;
        let first = line(if is_second { row.second } else { row.first });
        let (mut upper_left, mut upper_right) = ([0; COLUMNS], [0; COLUMNS]);
        self.gather(first, left, &mut upper_left);
        self.gather(first, right, &mut upper_right);
        if row.weight == 0 || self.takes_one_row {
            mix(&upper_left, &upper_right, &self.weights, points);
            return;
        }
        let second = line(row.second);
        let (mut lower_left, mut lower_right) = ([0; COLUMNS], [0; COLUMNS]);
        self.gather(second, left, &mut lower_left);
        self.gather(second, right, &mut lower_right);
        let upper = upper_left.iter().zip(&upper_right);
        let lower = lower_left.iter().zip(&lower_right);
        let weights = points.iter_mut().zip(&self.weights);
        for (((a, b), (c, d)), (point, across)) in upper.zip(lower).zip(weights) {
            let above = u16::from(*a) * (WEIGHT_ONE - across) + u16::from(*b) * across;
            let below = u16::from(*c) * (WEIGHT_ONE - across) + u16::from(*d) * across;
            let sum = above * (WEIGHT_ONE - row.weight) + below * row.weight;
            const ONE: u16 = WEIGHT_ONE * WEIGHT_ONE;
            *point = ((sum + ONE / 2) / ONE) as u8;
        }
    }

    /// Reads the values at `offsets` in a row, as 0 to 255.
    fn gather(&self, row: &[u8], offsets: &[usize; COLUMNS], values: &mut Row) {
        let Component { bits, shift, .. } = self.component;
        let pairs = values.iter_mut().zip(offsets);
        if bits == 8 && shift == 0 {
            for (value, &offset) in pairs {
                *value = row.get(offset).copied().unwrap_or(0);
            }
            return;
        }
        let bits = bits.min(16);
        let mask = (1 << bits) - 1;
        let (down, up) = (bits.saturating_sub(8), 8_u32.saturating_sub(bits));
        let is_wide = self.component.is_wide();
        for (value, &offset) in pairs {
            let low = row.get(offset).map_or(0, |&byte| u32::from(byte));
            let next = row.get(offset + 1).filter(|_| is_wide);
            let both = next.map_or(0, |&byte| u32::from(byte)) << 8 | low;
            *value = ((both >> shift & mask) >> down << up) as u8;
        }
    }
}

/// Returns the place in a component of `own` values a row (or column) of what is at `pixel` of the
/// `frame` pixels of the frame.
fn scaled(pixel: usize, own: usize, frame: usize) -> usize {
    if own == frame {
        pixel
    } else {
        pixel * own / frame
    }
}

/// Interpolates between the pixels on the left and right of the points of a row.
fn mix(left: &Row, right: &Row, weights: &[u16; COLUMNS], points: &mut Row) {
    let pixels = left.iter().zip(right).zip(weights);
    for (point, ((a, b), across)) in points.iter_mut().zip(pixels) {
        let sum = u16::from(*a) * (WEIGHT_ONE - across) + u16::from(*b) * across;
        *point = ((sum + WEIGHT_ONE / 2) / WEIGHT_ONE) as u8;
    }
}

/// Converts YUV to RGB, both of 8 bits.
struct YuvToRgb {
    y_offset: f32,
    y_gain: f32,
    v_to_red: f32,
    u_to_green: f32,
    v_to_green: f32,
    u_to_blue: f32,
}

impl YuvToRgb {
    /// The coefficients follow from the shares of red and blue in luma (`kr` and `kb`):
    /// `R = Y + 2 (1 - kr) V`, `B = Y + 2 (1 - kb) U`, and G from `Y = kr R + kg G + kb B`.
    fn new(matrix: ColorMatrix, full_range: bool) -> Self {
        let (kr, kb) = match matrix {
            ColorMatrix::Bt601 => (0.299, 0.114),
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        let (y_offset, y_gain, gain) = if full_range {
            (0.0, 1.0, 1.0)
        } else {
            (16.0, 255.0 / 219.0, 255.0 / 224.0)
        };
        let (red, blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        Self {
            y_offset,
            y_gain,
            v_to_red: gain * red,
            u_to_green: gain * blue * kb / kg,
            v_to_green: gain * red * kr / kg,
            u_to_blue: gain * blue,
        }
    }

    fn convert(&self, [first, second, third]: &mut [Row; 3]) {
        for ((y, u), v) in first.iter_mut().zip(second).zip(third) {
            let luma = (f32::from(*y) - self.y_offset) * self.y_gain;
            let (u_level, v_level) = (f32::from(*u) - 128.0, f32::from(*v) - 128.0);
            *y = byte(luma + v_level * self.v_to_red);
            *u = byte(luma - u_level * self.u_to_green - v_level * self.v_to_green);
            *v = byte(luma + u_level * self.u_to_blue);
        }
    }
}

/// Rounds and clamps to 0 to 255.
fn byte(value: f32) -> u8 {
    // Unlike `f32::clamp` and `as u8`, without tests for NaN, which no SIMD instruction does.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    low_byte(value)
}

/// Rounds a number of 0 to 255.
fn low_byte(value: f32) -> u8 {
    // The whole number lies in the lowest bits of the mantissa.
    (value + ROUNDER).to_bits() as u8
}

/// Computes OpenCV's 8-bit HSV of a row of RGB points: `V = max`, `S = 255 (max - min) / max`, and
/// `H` in half degrees from red (0) over green (60) and blue (120).
fn hsv_of_row(
    [reds, greens, blues]: &[Row; 3],
    hues: &mut [u8],
    saturations: &mut [u8],
    values: &mut [u8],
) {
    let inputs = reds.iter().zip(greens).zip(blues);
    let outputs = hues.iter_mut().zip(saturations).zip(values);
    for (((hue, saturation), value), ((&red, &green), &blue)) in outputs.zip(inputs) {
        let max = red.max(green).max(blue);
        let spread = max - red.min(green).min(blue);
        let (r, g, b) = (f32::from(red), f32::from(green), f32::from(blue));
        let (high, range) = (f32::from(max), f32::from(spread));
        let sector = if high == r {
            g - b
        } else if high == g {
            b - r + 2.0 * range
        } else {
            r - g + 4.0 * range
        };
        // Grey has neither; the numerators are 0 then.
        let divisor = if range > 1.0 { range } else { 1.0 };
        let angle = 30.0 * sector / divisor + ROUNDER - ROUNDER;
        let turn = if angle < 0.0 { 180.0 } else { 0.0 };
        *hue = low_byte(angle + turn);
        *saturation = low_byte(255.0 * range / if high > 1.0 { high } else { 1.0 });
        *value = max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(data: &[u8], width: usize, height: usize) -> Component<'_> {
        Component {
            data,
            row_bytes: width,
            pixel_bytes: 1,
            width,
            height,
            bits: 8,
            shift: 0,
        }
    }

    fn sampled(components: [Component<'_>; 3], colors: Colors) -> SmallPicture {
        let mut picture = SmallPicture::default();
        picture.sample(components, colors);
        picture
    }

    /// Returns the hue, saturation and value of a frame of one colour.
    fn hsv_of(levels: [u8; 3], colors: Colors) -> [u8; 3] {
        let planes = levels.map(|level| vec![level; 16 * 8]);
        let components = [0, 1, 2].map(|index| plane(&planes[index], 16, 8));
        let picture = sampled(components, colors);
        let corner = picture.hsv(0, 0).expect("the first point");
        assert_eq!(picture.hsv(COLUMNS - 1, ROWS - 1), Some(corner));
        corner
    }

    /// Returns bytes without a pattern.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn hues_are_half_degrees() {
        let colors = [
            ([255, 0, 0], [0, 255, 255]),
            ([255, 255, 0], [30, 255, 255]),
            ([0, 255, 0], [60, 255, 255]),
            ([0, 0, 255], [120, 255, 255]),
            ([10, 200, 100], [74, 242, 200]),
            // -6 half degrees from red
            ([200, 0, 40], [174, 255, 200]),
            ([77, 77, 77], [0, 0, 77]),
            ([0, 0, 0], [0, 0, 0]),
        ];
        for (rgb, hsv) in colors {
            assert_eq!(hsv_of(rgb, Colors::Rgb), hsv, "{rgb:?}");
        }
        assert_eq!(hsv_of([90, 1, 2], Colors::Gray), [0, 0, 90]);
    }

    #[test]
    fn yuv_is_converted_by_its_matrix_and_range() {
        // Pure green, whose codes the recommendations give.
        let greens = [
            (ColorMatrix::Bt601, false, [145, 54, 34]),
            (ColorMatrix::Bt709, false, [173, 42, 26]),
            (ColorMatrix::Bt2020, false, [165, 47, 25]),
            (ColorMatrix::Bt601, true, [150, 44, 21]),
        ];
        for (matrix, full_range, yuv) in greens {
            let [hue, saturation, value] = hsv_of(yuv, Colors::Yuv { matrix, full_range });
            assert!(hue.abs_diff(60) <= 1, "{matrix:?} {hue}");
            assert!(saturation >= 252 && value >= 252, "{saturation} {value}");
        }
        let limited = Colors::Yuv {
            matrix: ColorMatrix::Bt709,
            full_range: false,
        };
        assert_eq!(hsv_of([16, 128, 128], limited), [0, 0, 0]);
        assert_eq!(hsv_of([235, 128, 128], limited), [0, 0, 255]);
    }

    #[test]
    fn points_lie_between_the_pixels() {
        // 512 pixels shrink to 256, so each point is in the middle of four pixels.
        let (width, height) = (512, 288);
        let columns: Vec<u8> = (0..width * height).map(|at| (at % 2 * 100) as u8).collect();
        let rows: Vec<u8> = (0..width * height)
            .map(|at| (at / width % 2 * 60) as u8)
            .collect();
        for (data, level) in [(columns, 50), (rows, 30)] {
            let picture = sampled([plane(&data, width, height); 3], Colors::Gray);
            assert_eq!(picture.hsv(37, 23), Some([0, 0, level]));
        }
        // 256 pixels do not shrink: points are pixels.
        let ramp: Vec<u8> = (0..256 * 144).map(|at| (at % 256) as u8).collect();
        let picture = sampled([plane(&ramp, 256, 144); 3], Colors::Gray);
        assert_eq!(picture.hsv(0, 0), Some([0, 0, 2]));
        assert_eq!(picture.hsv(COLUMNS - 1, 0), Some([0, 0, 254]));
        assert_eq!(picture.hsv(COLUMNS, 0), None);
    }

    #[test]
    fn layouts_of_one_frame_are_equal() {
        let (width, height) = (640, 360);
        let luma = noise(width * height);
        let chroma = noise(width * height / 2);
        let half =
            [0, 1].map(|at| -> Vec<u8> { chroma[at..].iter().copied().step_by(2).collect() });
        let colors = Colors::Yuv {
            matrix: ColorMatrix::Bt601,
            full_range: false,
        };
        let chroma_of = |data| plane(data, width / 2, height / 2);
        let i420 = sampled(
            [
                plane(&luma, width, height),
                chroma_of(&half[0]),
                chroma_of(&half[1]),
            ],
            colors,
        );
        let pairs = |data| Component {
            row_bytes: width,
            pixel_bytes: 2,
            ..chroma_of(data)
        };
        let nv12 = [
            plane(&luma, width, height),
            pairs(&chroma),
            pairs(&chroma[1..]),
        ];
        assert!(sampled(nv12, colors) == i420, "NV12");
        // Ten and sixteen bits, the former in the low bits or (P010) the high ones.
        for (bits, shift) in [(10, 0), (10, 6), (12, 0), (12, 4), (16, 0)] {
            let wide = |data: &[u8]| -> Vec<u8> {
                let values = data
                    .iter()
                    .map(|&byte| u16::from(byte) << (bits - 8) << shift);
                values.flat_map(u16::to_le_bytes).collect()
            };
            let [luma, u, v] = [&luma, &half[0], &half[1]].map(|data| wide(data));
            let component = |data, width, height| Component {
                row_bytes: 2 * width,
                pixel_bytes: 2,
                bits,
                shift,
                ..plane(data, width, height)
            };
            let components = [
                component(&luma, width, height),
                component(&u, width / 2, height / 2),
                component(&v, width / 2, height / 2),
            ];
            assert!(sampled(components, colors) == i420, "{bits} bits");
        }
    }

    #[test]
    fn changes_are_means_of_all_channels() {
        let of = |rgb: [u8; 3]| {
            let planes = rgb.map(|level| vec![level; 64]);
            sampled([0, 1, 2].map(|at| plane(&planes[at], 8, 8)), Colors::Rgb)
        };
        let (black, blue, gray) = (of([0; 3]), of([0, 0, 255]), of([30; 3]));
        assert_eq!(gray.change_from(&gray), 0.0);
        assert_eq!(gray.change_from(&black), 10.0);
        // Hue 120, saturation 255, value 255 less 30.
        assert_eq!(blue.change_from(&gray), (120.0 + 255.0 + 225.0) / 3.0);
    }

    #[test]
    fn sizes_hardly_matter() {
        let of = |width: usize, height: usize| {
            let slope = |at: usize| at % width * 200 / width + at / width * 50 / height;
            let data: Vec<u8> = (0..width * height).map(|at| slope(at) as u8).collect();
            sampled([plane(&data, width, height); 3], Colors::Gray)
        };
        let large = of(1920, 1080);
        for (width, height) in [(640, 360), (256, 144), (1280, 720)] {
            let change = of(width, height).change_from(&large);
            assert!(change < 0.5, "{width}x{height}: {change}");
        }
    }

    #[test]
    fn missing_data_is_zero() {
        let data = [9; 10];
        let short = plane(&data, 1920, 1080);
        let picture = sampled([short; 3], Colors::Rgb);
        assert_eq!(picture.hsv(COLUMNS - 1, ROWS - 1), Some([0; 3]));
        let wide = Component { bits: 16, ..short };
        assert_eq!(sampled([wide; 3], Colors::Gray).hsv(5, 5), Some([0; 3]));
        let mut picture = sampled([plane(&[50; 4], 2, 2); 3], Colors::Gray);
        assert_eq!(picture.hsv(0, 0), Some([0, 0, 50]));
        picture.sample([plane(&[], 0, 0); 3], Colors::Gray);
        assert_eq!(picture, SmallPicture::default());
    }
}
