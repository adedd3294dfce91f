//! A contact sheet of clips and of those that are nearest to them.

use crate::plot::canvas::{self, Align, Area, Letters};
use image::{Rgb, RgbImage};
use pipeline::loader::batch::{Form, Pixels, ValueType};
use pipeline::loader::{LoadError, Loader, LoaderOptions};
use pipeline::sampling::sample::Views;
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Side of a frame, and frames that are shown of a clip: its first and its last.
const SIDE: usize = 112;
const FRAMES: u32 = 2;

const GAP: u32 = 10;
const MARGIN: u32 = 16;
/// Room for two lines under each clip.
const CAPTION: u32 = 40;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const QUERY: Rgb<u8> = Rgb([0, 114, 178]);

/// A clip of the sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Number of its data set.
    pub set: usize,
    /// Number of it in its source.
    pub clip: usize,
    /// Its video.
    pub video: String,
    /// Where in the video it begins, in seconds.
    pub second: f64,
    /// Its class, where it has one.
    pub class: Option<String>,
    /// How near it is to the first of its row; none of that one.
    pub similarity: Option<f32>,
}

/// Draws rows of clips of `data`, of which the first of each is the one that was asked about. A clip is shown by the first and the last of `frames` frames.
///
/// # Errors
/// When the clips cannot be read.
pub fn sheet(data: &[WeightedSource], frames: usize, rows: &[Vec<Shown>]) -> Result<RgbImage, LoadError> {
    let pictures = pictures(data, frames, rows)?;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let (width, height) = (FRAMES * SIDE as u32, SIDE as u32 + CAPTION);
    let place = |column: u32, row: u32| (MARGIN + column * (width + GAP), MARGIN + row * (height + GAP));
    let (right, bottom) = place(columns, rows.len() as u32);
    let mut sheet = RgbImage::from_pixel(right + MARGIN, bottom + MARGIN, PAPER);
    for (row, number) in rows.iter().zip(0..) {
        for (shown, column) in row.iter().zip(0..) {
            let (left, top) = place(column, number);
            let is_query = shown.similarity.is_none();
            if is_query {
                canvas::fill(&mut sheet, Area { left: left - 4, top: top - 4, width: width + 8, height: SIDE as u32 + 8 }, QUERY);
            }
            if let Some(picture) = pictures.get(&(shown.set, shown.clip)) {
                image::imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
            }
            let first = match (shown.similarity, &shown.class) {
                (Some(similarity), Some(class)) => format!("{similarity:.2} {class}"),
                (Some(similarity), None) => format!("{similarity:.2}"),
                (None, Some(class)) => class.clone(),
                (None, None) => "nearest to".to_owned(),
            };
            let second = format!("{} {:.0}s", file_name(&shown.video), shown.second);
            for (line, top) in [(first, top + SIDE as u32 + 5), (second, top + SIDE as u32 + 5 + Letters::Small.height())] {
                let line = ending(&line, width);
                canvas::text(&mut sheet, (left, top), Align::Left, Letters::Small, if is_query { QUERY } else { INK }, &line);
            }
        }
    }
    Ok(sheet)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// As much of the end of a text as fits.
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

/// First and last frame of each clip, side by side, by set and number.
fn pictures(data: &[WeightedSource], frames: usize, rows: &[Vec<Shown>]) -> Result<HashMap<(usize, usize), RgbImage>, LoadError> {
    let wanted: BTreeSet<(usize, usize)> = rows.iter().flatten().map(|shown| (shown.set, shown.clip)).collect();
    let mut pictures = HashMap::new();
    for (set, source) in data.iter().enumerate() {
        let chosen: Arc<[u32]> = wanted.iter().filter(|(of, _)| *of == set).map(|&(_, clip)| clip as u32).collect();
        if chosen.is_empty() {
            continue;
        }
        let grid = PatchGrid { frames, size: SIDE, tubelet: 1, patch: SIDE };
        let mut options = LoaderOptions::tokens(1, grid).once(Views::ONE);
        (options.format.form, options.format.values, options.max_bad) = (Form::Clips, ValueType::U8, usize::MAX - 1);
        let chosen = WeightedSource { chosen: Some(chosen), ..source.clone() };
        for batch in Loader::new([chosen].into(), options)? {
            let batch = batch?;
            let Pixels::Clips(pixels) = batch.pixels() else { unreachable!("whole clips were asked for") };
            let mut picture = RgbImage::new(FRAMES * SIDE as u32, SIDE as u32);
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let frame = if (x as usize) < SIDE { 0 } else { frames - 1 };
                let at = frame * SIDE * SIDE + y as usize * SIDE + x as usize % SIDE;
                pixel.0 = std::array::from_fn(|channel| pixels[channel * frames * SIDE * SIDE + at]);
            }
            pictures.insert((set, batch.samples[0].clip as usize), picture);
        }
    }
    Ok(pictures)
}
