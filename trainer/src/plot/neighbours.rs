//! A contact sheet of clips and their nearest neighbours.

use crate::plot::canvas::{self, Align, Area, Letters};
use image::{Rgb, RgbImage};
use pipeline::loader::batch::{Form, Pixels, ValueType};
use pipeline::loader::{LoadError, Loader, LoaderOptions};
use pipeline::sampling::sample::Views;
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Size of a frame, and frames shown per clip: the first and the last.
const SIDE: usize = 112;
const FRAMES: u32 = 2;

const GAP: u32 = 10;
const MARGIN: u32 = 16;
/// Height of the two lines under each clip.
const CAPTION: u32 = 40;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const QUERY: Rgb<u8> = Rgb([0, 114, 178]);

/// A clip on the sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct SheetClip {
    /// Index of its data set.
    pub set: usize,
    /// Index of the clip in its source.
    pub clip: usize,
    /// Its video.
    pub video: String,
    /// Start of the clip in the video, in seconds.
    pub second: f64,
    /// Its class name, if labelled.
    pub class: Option<String>,
    /// Similarity to the first clip of the row; `None` for that clip.
    pub similarity: Option<f32>,
}

/// Draws rows of clips of `data`, each a query followed by its neighbours. A clip is shown by the
/// first and the last of `frames` frames.
///
/// # Errors
/// When the clips cannot be read.
pub fn sheet(
    data: &[WeightedSource],
    frames: usize,
    rows: &[Vec<SheetClip>],
) -> Result<RgbImage, LoadError> {
    let pictures = pictures(data, frames, rows)?;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let width = FRAMES * SIDE as u32;
    let height = SIDE as u32 + CAPTION;
    let place = |column: u32, row: u32| {
        (
            MARGIN + column * (width + GAP),
            MARGIN + row * (height + GAP),
        )
    };
    let (right, bottom) = place(columns, rows.len() as u32);
    let mut sheet = RgbImage::from_pixel(right + MARGIN, bottom + MARGIN, PAPER);
    for (row, number) in rows.iter().zip(0..) {
        for (clip, column) in row.iter().zip(0..) {
            let (left, top) = place(column, number);
            let is_query = clip.similarity.is_none();
            if is_query {
                canvas::fill(
                    &mut sheet,
                    Area {
                        left: left - 4,
                        top: top - 4,
                        width: width + 8,
                        height: SIDE as u32 + 8,
                    },
                    QUERY,
                );
            }
            if let Some(picture) = pictures.get(&(clip.set, clip.clip)) {
                image::imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
            }
            let first = match (clip.similarity, &clip.class) {
                (Some(similarity), Some(class)) => format!("{similarity:.2} {class}"),
                (Some(similarity), None) => format!("{similarity:.2}"),
                (None, Some(class)) => class.clone(),
                (None, None) => "query".to_owned(),
            };
            let second = format!("{} {:.0}s", file_name(&clip.video), clip.second);
            for (line, top) in [
                (first, top + SIDE as u32 + 5),
                (second, top + SIDE as u32 + 5 + Letters::Small.height()),
            ] {
                let line = ending(&line, width);
                canvas::text(
                    &mut sheet,
                    (left, top),
                    Align::Left,
                    Letters::Small,
                    if is_query { QUERY } else { INK },
                    &line,
                );
            }
        }
    }
    Ok(sheet)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The end of a text, as far as it fits.
fn ending(text: &str, width: u32) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let is_cut = Letters::Small.width(text) > width;
    while Letters::Small.width(&letters.iter().collect::<String>()) > width {
        letters.remove(0);
    }
    if is_cut && !letters.is_empty() {
        letters[0] = '…';
    }
    letters.into_iter().collect()
}

/// First and last frame of each clip, side by side, by indices of data set and clip.
fn pictures(
    data: &[WeightedSource],
    frames: usize,
    rows: &[Vec<SheetClip>],
) -> Result<HashMap<(usize, usize), RgbImage>, LoadError> {
    let wanted: BTreeSet<(usize, usize)> = rows
        .iter()
        .flatten()
        .map(|clip| (clip.set, clip.clip))
        .collect();
    let mut pictures = HashMap::new();
    for (set, source) in data.iter().enumerate() {
        let chosen: Arc<[u32]> = wanted
            .iter()
            .filter(|(of, _)| *of == set)
            .map(|&(_, clip)| clip as u32)
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let grid = PatchGrid {
            frames,
            size: SIDE,
            tubelet: 1,
            patch: SIDE,
        };
        let mut options = LoaderOptions::tokens(1, grid).once(Views::ONE);
        options.format.form = Form::Clips;
        options.format.values = ValueType::U8;
        options.max_bad = usize::MAX - 1;
        let chosen = WeightedSource {
            chosen: Some(chosen),
            ..source.clone()
        };
        for batch in Loader::new([chosen].into(), options)? {
            let batch = batch?;
            let Pixels::Clips(pixels) = batch.pixels() else {
                unreachable!("the form is clips")
            };
            let mut picture = RgbImage::new(FRAMES * SIDE as u32, SIDE as u32);
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let frame = if (x as usize) < SIDE { 0 } else { frames - 1 };
                let at = frame * SIDE * SIDE + y as usize * SIDE + x as usize % SIDE;
                pixel.0 =
                    std::array::from_fn(|channel| pixels[channel * frames * SIDE * SIDE + at]);
            }
            pictures.insert((set, batch.samples[0].clip as usize), picture);
        }
    }
    Ok(pictures)
}
