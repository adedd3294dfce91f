//! Draws rectangles, frames and text on a picture.

use anyhow::{Context, ensure};
use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{ImageFormat, Rgb, RgbImage};
use pipeline::atomic_file::AtomicFile;
use std::io::{Cursor, Write};
use std::path::Path;

/// Side of a letter at scale 1, in pixels.
pub const LETTER: u32 = 8;

/// Black.
pub const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
/// White.
pub const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
/// Grey, for secondary text.
pub const GREY: Rgb<u8> = Rgb([120, 120, 120]);

/// Maximum number of pixels of a picture: 256 MB of memory.
const MAX_PIXELS: u64 = 1 << 26;

/// Creates a white picture.
///
/// # Errors
/// When the picture would be too large.
pub fn blank(width: u32, height: u32) -> anyhow::Result<RgbImage> {
    ensure!(
        u64::from(width) * u64::from(height) <= MAX_PIXELS,
        "a picture of {width}x{height} would be too large; select fewer clips, or write one file \
         per frame"
    );
    Ok(RgbImage::from_pixel(width, height, WHITE))
}

/// Fills a rectangle, clipped to the picture.
pub fn fill(
    picture: &mut RgbImage,
    (left, top): (u32, u32),
    (width, height): (u32, u32),
    color: Rgb<u8>,
) {
    for y in top..top.saturating_add(height).min(picture.height()) {
        for x in left..left.saturating_add(width).min(picture.width()) {
            picture.put_pixel(x, y, color);
        }
    }
}

/// Copies `pixels`, three bytes each, of a frame that is `width` pixels wide, clipped to the
/// picture.
pub fn paste(picture: &mut RgbImage, (left, top): (u32, u32), pixels: &[u8], width: u32) {
    for (at, rgb) in (0..).zip(pixels.chunks_exact(3)) {
        if let Some(pixel) = picture.get_pixel_mut_checked(left + at % width, top + at / width) {
            pixel.0.copy_from_slice(rgb);
        }
    }
}

/// Returns the width of `text` in pixels.
pub fn text_width(text: &str, scale: u32) -> u32 {
    text.chars().count() as u32 * LETTER * scale
}

/// Writes `text` on one line, clipped to the picture. Letters that the font lacks become question
/// marks.
pub fn text(
    picture: &mut RgbImage,
    (left, top): (u32, u32),
    scale: u32,
    color: Rgb<u8>,
    text: &str,
) {
    for (letter, number) in text.chars().zip(0..) {
        let rows = BASIC_FONTS
            .get(letter)
            .or_else(|| LATIN_FONTS.get(letter))
            .or_else(|| BASIC_FONTS.get('?'))
            .unwrap_or_default();
        for (y, bits) in (0..).zip(rows) {
            // The lowest bit is the leftmost pixel.
            for x in (0..LETTER).filter(|x| bits >> x & 1 == 1) {
                fill(
                    picture,
                    (left + scale * (number * LETTER + x), top + scale * y),
                    (scale, scale),
                    color,
                );
            }
        }
    }
}

/// Writes a picture as a PNG file, which appears complete or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn save(picture: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png)?;
    let write = || {
        let mut file = AtomicFile::create(path)?;
        file.write_all(png.get_ref())?;
        file.commit()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_upright_and_stay_inside() {
        let mut picture = blank(20, 8).expect("small");
        text(&mut picture, (0, 0), 1, BLACK, "L界 and beyond the edge");
        let row = |y: u32, range: std::ops::Range<u32>| {
            range
                .map(|x| {
                    if picture.get_pixel(x, y) == &BLACK {
                        '#'
                    } else {
                        '.'
                    }
                })
                .collect::<String>()
        };
        assert_eq!(row(0, 0..8), "####....");
        assert_eq!(row(6, 0..8), "#######.");
        let mut question = blank(8, 8).expect("small");
        text(&mut question, (0, 0), 1, BLACK, "?");
        assert!(
            (0..8).all(|y| (0..8).all(|x| picture.get_pixel(8 + x, y) == question.get_pixel(x, y)))
        );
    }

    #[test]
    fn huge_pictures_are_refused() {
        assert!(blank(u32::MAX, u32::MAX).is_err());
    }
}
