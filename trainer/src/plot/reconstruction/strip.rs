//! A clip under several masks as one picture, frame by frame: the original on top, and for each mask what the encoder sees and what the model makes of it.

use super::{GAP, GAP_COLOR, Look, enlargement, percent};
use crate::plot::canvas::{self, Align, Letters};
use image::imageops::replace;
use image::{Rgb, RgbImage};

/// Frames are at least so wide.
const LEAST_FRAME: u32 = 112;

/// Room to either side of the text before a row.
const MARGIN: u32 = 8;

const INK: Rgb<u8> = Rgb([36, 40, 46]);
const PALE_INK: Rgb<u8> = Rgb([110, 116, 125]);

/// What each row of the strip of such ratios is: a line, and a paler one below it.
fn captions(looks: &[Look]) -> Vec<[String; 2]> {
    let mut captions = vec![["original".to_owned(), String::new()]];
    for look in looks {
        let ratio = percent(look.ratio);
        captions.push([format!("{ratio} % masked"), String::new()]);
        captions.push(["reconstruction".to_owned(), format!("from {}", percent(1.0 - look.ratio) + " %")]);
    }
    captions
}

/// Where the first frame of the strip's first row begins, by how much frames are enlarged, and pixels from one frame to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripLayout {
    /// Column of the first frames.
    pub left: u32,
    /// Pixels for each pixel of a frame, to the right and down.
    pub times: u32,
    /// Pixels from a frame to the next one, to the right and down.
    pub step: u32,
}

impl StripLayout {
    /// Of the strip of `looks`.
    pub fn new(looks: &[Look]) -> Self {
        let widest = captions(looks).iter().flatten().map(|text| Letters::Small.width(text)).max().unwrap_or(0);
        let size = looks.first().and_then(|look| look.original.first()).map_or(1, RgbImage::width);
        let times = enlargement(size, LEAST_FRAME);
        Self { left: widest + 2 * MARGIN, times, step: size * times + GAP as u32 }
    }
}

/// Draws looks of the same clip: a row of its frames, then for each look two rows.
///
/// # Panics
/// When the looks are of different clips, or there is none.
pub fn strip(looks: &[Look]) -> RgbImage {
    let layout = StripLayout::new(looks);
    let captions = captions(looks);
    let (frames, gap) = (looks[0].original.len() as u32, GAP as u32);
    let mut picture = RgbImage::from_pixel(layout.left + frames * layout.step - gap, captions.len() as u32 * layout.step - gap, GAP_COLOR);
    let looks: Vec<Look> = looks.iter().map(|look| look.enlarged(layout.times)).collect();
    let rows = std::iter::once(&looks[0].original).chain(looks.iter().flat_map(|look| [&look.masked, &look.reconstruction]));
    for ((row, top), [caption, below]) in rows.zip((0..).step_by(layout.step as usize)).zip(captions) {
        let middle = top + (layout.step - gap) / 2;
        let lines = if below.is_empty() { 1 } else { 2 };
        let text_top = middle.saturating_sub(lines * Letters::Small.height() / 2);
        let right = layout.left - MARGIN;
        canvas::text(&mut picture, (right, text_top), Align::Right, Letters::Small, INK, &caption);
        canvas::text(&mut picture, (right, text_top + Letters::Small.height()), Align::Right, Letters::Small, PALE_INK, &below);
        for (frame, left) in row.iter().zip((layout.left..).step_by(layout.step as usize)) {
            replace(&mut picture, frame, i64::from(left), i64::from(top));
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames of 40 x 40 pixels: every pixel says which film, frame and place it is of.
    fn film(number: u8) -> Vec<RgbImage> {
        (0..2).map(|frame| RgbImage::from_fn(40, 40, |x, y| Rgb([10 * number + frame, x as u8, y as u8]))).collect()
    }

    #[test]
    fn rows_and_frames_lie_where_they_should() {
        let look = |ratio: f64, number: u8| Look { ratio, original: film(1), masked: film(number), reconstruction: film(number + 1) };
        let looks = [look(0.75, 2), look(0.975, 4)];
        let (picture, layout) = (strip(&looks), StripLayout::new(&looks));
        // 112 pixels at least: three for each.
        assert_eq!((layout.times, layout.step), (3, 122));
        assert!(layout.left > Letters::Small.width("reconstruction"), "room for the captions");
        assert_eq!(picture.dimensions(), (layout.left + 2 * 122 - 2, 5 * 122 - 2));
        for row in 0..5 {
            for frame in 0..2 {
                let (left, top) = (layout.left + frame * 122, row * 122);
                for (x, y) in [(0, 0), (59, 3), (119, 119)] {
                    let expected = Rgb([10 * (row as u8 + 1) + frame as u8, (x / 3) as u8, (y / 3) as u8]);
                    assert_eq!(*picture.get_pixel(left + x, top + y), expected, "row {row}, frame {frame}, {x} {y}");
                }
            }
        }
        let has_ink =
            |rows: std::ops::Range<u32>| rows.into_iter().any(|y| (0..layout.left).any(|x| *picture.get_pixel(x, y) != GAP_COLOR));
        assert!((0..5).all(|row| has_ink(row * 122..row * 122 + 120)), "each row has its caption");
        assert_eq!(
            captions(&looks)[3..],
            [["97.5 % masked".to_owned(), String::new()], ["reconstruction".to_owned(), "from 2.5 %".to_owned()]]
        );
    }
}
