//! Anti-aliased lines, boxes and text on a picture, with a built-in font.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Horizontal alignment of a text at a point, which is always at its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The point is the left end.
    Left,
    /// The point is the middle.
    Middle,
    /// The point is the right end.
    Right,
}

/// Size of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// For labels of axes.
    Small,
    /// For headings.
    Large,
}

impl Letters {
    const fn raster(self) -> RasterHeight {
        match self {
            Self::Small => RasterHeight::Size16,
            Self::Large => RasterHeight::Size20,
        }
    }

    /// Line height in pixels.
    pub const fn height(self) -> u32 {
        self.raster().val() as u32
    }

    /// Width of `text` in pixels.
    pub fn width(self, text: &str) -> u32 {
        text.chars().count() as u32 * get_raster_width(FontWeight::Regular, self.raster()) as u32
    }
}

/// Blends `color` into a pixel; does nothing outside the picture.
fn blend(picture: &mut RgbImage, (x, y): (u32, u32), color: Rgb<u8>, share: f32) {
    if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
        for (old, new) in pixel.0.iter_mut().zip(color.0) {
            *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * share).round() as u8;
        }
    }
}

/// Fills a rectangle.
pub fn fill(picture: &mut RgbImage, area: Area, color: Rgb<u8>) {
    for y in area.top..area.top + area.height {
        for x in area.left..area.left + area.width {
            blend(picture, (x, y), color, 1.0);
        }
    }
}

/// Draws `text` on one line. Characters that the font does not have become question marks.
pub fn text(
    picture: &mut RgbImage,
    (x, top): (u32, u32),
    align: Align,
    letters: Letters,
    color: Rgb<u8>,
    text: &str,
) {
    let width = letters.width(text);
    let mut left = match align {
        Align::Left => x,
        Align::Middle => x.saturating_sub(width / 2),
        Align::Right => x.saturating_sub(width),
    };
    for letter in text.chars() {
        let raster = |letter| get_raster(letter, FontWeight::Regular, letters.raster());
        let Some(glyph) = raster(letter).or_else(|| raster('?')) else {
            continue;
        };
        for (row, y) in glyph.rows().zip(top..) {
            row.iter()
                .zip(left..)
                .for_each(|(&share, x)| blend(picture, (x, y), color, f32::from(share) / 255.0));
        }
        left += glyph.width() as u32;
    }
}

/// Draws a line through `points`, in pixels from the picture's top left corner, clipped to `area`.
/// It is not darker where it crosses itself, and has gaps at points that are not finite.
pub fn line(
    picture: &mut RgbImage,
    area: Area,
    points: &[(f64, f64)],
    width: f64,
    color: Rgb<u8>,
    opacity: f32,
) {
    let columns = area.width as usize;
    let rows = area.height as usize;
    let mut coverage = vec![0f32; columns * rows];
    let reach = width / 2.0 + 0.5;
    let left = f64::from(area.left);
    let top = f64::from(area.top);
    let parts = points.split(|(x, y)| !x.is_finite() || !y.is_finite());
    let segments = parts.flat_map(|part| {
        let first = part.first().map(|&point| (point, point));
        first
            .into_iter()
            .chain(part.windows(2).map(|ends| (ends[0], ends[1])))
    });
    for ((x0, y0), (x1, y1)) in segments {
        let (x0, y0) = (x0 - left, y0 - top);
        let (x1, y1) = (x1 - left, y1 - top);
        let along_x = x1 - x0;
        let along_y = y1 - y0;
        let length = along_x * along_x + along_y * along_y;
        let span = |a: f64, b: f64, end: usize| {
            (a.min(b) - reach).floor().clamp(0.0, end as f64) as usize
                ..(a.max(b) + reach).ceil().clamp(0.0, end as f64) as usize
        };
        for row in span(y0, y1, rows) {
            for column in span(x0, x1, columns) {
                // Distance of the pixel's centre from the segment.
                let x = column as f64 + 0.5 - x0;
                let y = row as f64 + 0.5 - y0;
                let share = if length > 0.0 {
                    ((x * along_x + y * along_y) / length).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let distance = (x - share * along_x).hypot(y - share * along_y);
                let covered = &mut coverage[row * columns + column];
                *covered = covered.max((reach - distance).clamp(0.0, 1.0) as f32);
            }
        }
    }
    for (covered, at) in coverage.into_iter().zip(0..) {
        if covered > 0.0 {
            blend(
                picture,
                (area.left + at % area.width, area.top + at / area.width),
                color,
                covered * opacity,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Rgb<u8> = Rgb([0; 3]);

    fn blank() -> RgbImage {
        RgbImage::from_pixel(40, 40, Rgb([255; 3]))
    }

    #[test]
    fn a_line_goes_through_its_points_and_stays_in_its_area() {
        let mut picture = blank();
        let area = Area {
            left: 5,
            top: 5,
            width: 30,
            height: 30,
        };
        line(
            &mut picture,
            area,
            &[(-20.0, 20.5), (60.0, 20.5)],
            1.0,
            BLACK,
            1.0,
        );
        for (x, y, pixel) in picture.enumerate_pixels() {
            let inside = y == 20 && (5..35).contains(&x);
            assert_eq!(pixel.0[0], if inside { 0 } else { 255 }, "{x}, {y}");
        }
        // Shifted by half a pixel, two rows have half the ink each; a line that crosses itself is
        // not darker.
        let mut picture = blank();
        line(
            &mut picture,
            area,
            &[(10.0, 21.0), (30.0, 21.0), (10.0, 21.0)],
            1.0,
            BLACK,
            1.0,
        );
        assert_eq!(
            [19, 20, 21, 22].map(|y| picture.get_pixel(20, y).0[0]),
            [255, 128, 128, 255]
        );
        // Points that are not finite leave a gap.
        let mut picture = blank();
        line(
            &mut picture,
            area,
            &[
                (6.0, 20.5),
                (12.0, 20.5),
                (20.0, f64::NAN),
                (28.0, 20.5),
                (34.0, 20.5),
            ],
            1.0,
            BLACK,
            1.0,
        );
        assert_eq!(
            [8, 15, 20, 25, 31].map(|x| picture.get_pixel(x, 20).0[0]),
            [0, 255, 255, 255, 0]
        );
        // A single point is a dot.
        let mut picture = blank();
        line(&mut picture, area, &[(10.5, 10.5)], 1.0, BLACK, 1.0);
        assert_eq!(picture.pixels().filter(|pixel| pixel.0[0] == 0).count(), 1);
    }

    #[test]
    fn text_is_aligned_and_stays_inside() {
        let columns = |align| {
            let mut picture = blank();
            text(&mut picture, (20, 5), align, Letters::Small, BLACK, "H");
            let columns = picture
                .enumerate_pixels()
                .filter(|(_, _, pixel)| pixel.0[0] < 128)
                .map(|(x, _, _)| x);
            let columns: Vec<u32> = columns.collect();
            (
                *columns.iter().min().expect("ink"),
                *columns.iter().max().expect("ink"),
            )
        };
        assert!(columns(Align::Left).0 >= 20 && columns(Align::Right).1 < 20);
        let (first, last) = columns(Align::Middle);
        assert!(first < 20 && last >= 20);
        text(
            &mut blank(),
            (30, 35),
            Align::Left,
            Letters::Large,
            BLACK,
            "beyond the edge, 界",
        );
    }
}
