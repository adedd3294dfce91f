//! A strip of frames of a clip under several masks: the original on top, and for each mask the
//! visible patches and the reconstruction.

use super::{GAP, GAP_COLOR, MaskedView, enlargement, percent};
use crate::plot::canvas::{self, Align, Letters};
use image::imageops::replace;
use image::{Rgb, RgbImage};

/// Minimum width of a frame.
const LEAST_FRAME: u32 = 112;

/// Margin on either side of a row's caption.
const MARGIN: u32 = 8;

const INK: Rgb<u8> = Rgb([36, 40, 46]);
const PALE_INK: Rgb<u8> = Rgb([110, 116, 125]);

/// Captions of the rows: a line, and a paler one below it.
fn captions(views: &[MaskedView]) -> Vec<[String; 2]> {
    let mut captions = vec![["original".to_owned(), String::new()]];
    for view in views {
        let ratio = percent(view.ratio);
        captions.push([format!("{ratio} % masked"), String::new()]);
        captions.push([
            "reconstruction".to_owned(),
            format!("from {}", percent(1.0 - view.ratio) + " %"),
        ]);
    }
    captions
}

/// Positions of the frames in a strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripLayout {
    /// Column of the first frame of each row.
    pub left: u32,
    /// Scale by which frames are enlarged.
    pub times: u32,
    /// Pixels from one frame to the next, horizontally and vertically.
    pub step: u32,
}

impl StripLayout {
    /// The layout of the strip of `views`.
    pub fn new(views: &[MaskedView]) -> Self {
        let widest = captions(views)
            .iter()
            .flatten()
            .map(|text| Letters::Small.width(text))
            .max()
            .unwrap_or(0);
        let size = views
            .first()
            .and_then(|view| view.original.first())
            .map_or(1, RgbImage::width);
        let times = enlargement(size, LEAST_FRAME);
        Self {
            left: widest + 2 * MARGIN,
            times,
            step: size * times + GAP as u32,
        }
    }
}

/// Draws views of the same clip: a row of its frames, then two rows per view.
///
/// # Panics
/// When the views have different numbers of frames, or there is none.
pub fn strip(views: &[MaskedView]) -> RgbImage {
    let layout = StripLayout::new(views);
    let captions = captions(views);
    let frames = views[0].original.len() as u32;
    let gap = GAP as u32;
    let mut picture = RgbImage::from_pixel(
        layout.left + frames * layout.step - gap,
        captions.len() as u32 * layout.step - gap,
        GAP_COLOR,
    );
    let views: Vec<MaskedView> = views
        .iter()
        .map(|view| view.enlarged(layout.times))
        .collect();
    let rows = std::iter::once(&views[0].original).chain(
        views
            .iter()
            .flat_map(|view| [&view.masked, &view.reconstruction]),
    );
    for ((row, top), [caption, below]) in
        rows.zip((0..).step_by(layout.step as usize)).zip(captions)
    {
        let middle = top + (layout.step - gap) / 2;
        let lines = if below.is_empty() { 1 } else { 2 };
        let text_top = middle.saturating_sub(lines * Letters::Small.height() / 2);
        let right = layout.left - MARGIN;
        canvas::text(
            &mut picture,
            (right, text_top),
            Align::Right,
            Letters::Small,
            INK,
            &caption,
        );
        canvas::text(
            &mut picture,
            (right, text_top + Letters::Small.height()),
            Align::Right,
            Letters::Small,
            PALE_INK,
            &below,
        );
        for (frame, left) in row
            .iter()
            .zip((layout.left..).step_by(layout.step as usize))
        {
            replace(&mut picture, frame, i64::from(left), i64::from(top));
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames of 40 x 40 pixels: every pixel encodes film, frame and position.
    fn film(number: u8) -> Vec<RgbImage> {
        (0..2)
            .map(|frame| {
                RgbImage::from_fn(40, 40, |x, y| Rgb([10 * number + frame, x as u8, y as u8]))
            })
            .collect()
    }

    #[test]
    fn rows_and_frames_lie_where_they_should() {
        let view = |ratio: f64, number: u8| MaskedView {
            ratio,
            original: film(1),
            masked: film(number),
            reconstruction: film(number + 1),
        };
        let views = [view(0.75, 2), view(0.975, 4)];
        let picture = strip(&views);
        let layout = StripLayout::new(&views);
        // At least 112 pixels: a scale of three.
        assert_eq!((layout.times, layout.step), (3, 122));
        assert!(
            layout.left > Letters::Small.width("reconstruction"),
            "room for the captions"
        );
        assert_eq!(
            picture.dimensions(),
            (layout.left + 2 * 122 - 2, 5 * 122 - 2)
        );
        for row in 0..5 {
            for frame in 0..2 {
                let left = layout.left + frame * 122;
                let top = row * 122;
                for (x, y) in [(0, 0), (59, 3), (119, 119)] {
                    let expected = Rgb([
                        10 * (row as u8 + 1) + frame as u8,
                        (x / 3) as u8,
                        (y / 3) as u8,
                    ]);
                    assert_eq!(
                        *picture.get_pixel(left + x, top + y),
                        expected,
                        "row {row}, frame {frame}, {x} {y}"
                    );
                }
            }
        }
        let has_ink = |rows: std::ops::Range<u32>| {
            rows.into_iter()
                .any(|y| (0..layout.left).any(|x| *picture.get_pixel(x, y) != GAP_COLOR))
        };
        assert!(
            (0..5).all(|row| has_ink(row * 122..row * 122 + 120)),
            "each row has its caption"
        );
        assert_eq!(
            captions(&views)[3..],
            [
                ["97.5 % masked".to_owned(), String::new()],
                ["reconstruction".to_owned(), "from 2.5 %".to_owned()]
            ]
        );
    }
}
