//! The picture of `shardtool stats`: a histogram of bytes per clip, bar charts of classes and
//! sizes, and a histogram of each score with example clips at its ends.

use super::scores::ScoreTable;
use super::stats::most_frequent;
use crate::drawing::{BLACK, GREY, LETTER, blank, fill, paste, save, text, text_width};
use crate::reading;
use console::output::{self, count};
use image::{Rgb, RgbImage};
use pipeline::shard::ShardSet;
use pipeline::transform::picture::{size_within, to_rgb};
use schemas::report::StatsReport;
use std::path::Path;

/// Width of the picture in pixels.
const WIDTH: u32 = 960;

/// Margin in pixels.
const MARGIN: u32 = 24;

/// Scale of all text.
const SCALE: u32 = 2;

/// Height of a line of text or a bar, with its spacing.
const LINE: u32 = SCALE * LETTER + 8;

/// Number of bins of the histogram.
const BINS: usize = 32;

/// Height of the tallest bin in pixels.
const BIN_HEIGHT: u32 = 160;

/// Maximum number of bars per chart.
const MAX_BARS: usize = 24;

/// Maximum number of letters of a bar's name.
const MAX_LETTERS: usize = 24;

/// Number of examples at each end of a score's histogram, and their largest size.
const EXAMPLES: usize = 2;
const EXAMPLE_WIDTH: u32 = 132;
const EXAMPLE_HEIGHT: u32 = 100;
const EXAMPLE_GAP: u32 = 8;

/// Height of a score's histogram with its captions.
const SCORE_HEIGHT: u32 = EXAMPLE_HEIGHT + 2 * LINE;

const COLOR: Rgb<u8> = Rgb([52, 101, 164]);

/// Draws `report`, whose clips have the sorted sizes `clip_bytes`, to the PNG file `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(
    report: &StatsReport,
    clip_bytes: &[u64],
    scores: &ScoreTable,
    set: &ShardSet,
    path: &Path,
) -> anyhow::Result<()> {
    let mut classes = most_frequent(&report.classes, MAX_BARS);
    if report.unlabelled > 0 {
        classes.push(("without a label".to_owned(), report.unlabelled));
    }
    let sizes = most_frequent(&report.resolutions, MAX_BARS);
    let bars_height = |bars: &[(String, u64)]| (bars.len() as u32 + 2) * LINE;
    let score_rows = scores.columns().count() as u32;
    let height = 2 * MARGIN
        + 2 * LINE
        + BIN_HEIGHT
        + 2 * LINE
        + bars_height(&classes)
        + bars_height(&sizes)
        + score_rows * SCORE_HEIGHT;
    let mut picture = blank(WIDTH, height)?;
    let mut top = MARGIN;
    let clips = count(report.clips, "clip");
    let videos = count(report.videos, "video");
    let title = format!(
        "{clips} from {videos}, {}",
        output::bytes(report.stored_bytes)
    );
    text(&mut picture, (MARGIN, top), SCALE, BLACK, &title);
    top += 2 * LINE;
    top = histogram(&mut picture, top, clip_bytes);
    top = bars(&mut picture, top, "clips per class", &classes);
    top = bars(&mut picture, top, "clips per size", &sizes);
    for (name, sorted) in scores.columns() {
        score(&mut picture, top, name, sorted, set)?;
        top += SCORE_HEIGHT;
    }
    save(&picture, path)
}

/// Draws the histogram of bytes per clip. Returns the top of the next drawing.
fn histogram(picture: &mut RgbImage, top: u32, sorted: &[u64]) -> u32 {
    let min = sorted.first().copied().unwrap_or(0);
    let max = sorted.last().copied().unwrap_or(0);
    let mut bins = [0u64; BINS];
    for &bytes in sorted {
        bins[bin(bytes, min, max)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    let bottom = top + BIN_HEIGHT;
    let step = (WIDTH - 2 * MARGIN) / BINS as u32;
    for (at, &clips) in (0..).zip(&bins) {
        let height = length(clips, most, BIN_HEIGHT);
        fill(
            picture,
            (MARGIN + at * step, bottom - height),
            (step - 2, height),
            COLOR,
        );
    }
    let right = MARGIN + BINS as u32 * step - 2;
    fill(picture, (MARGIN, bottom), (right - MARGIN, 2), BLACK);
    let low = output::bytes(min);
    let high = output::bytes(max);
    let line = bottom + 8;
    text(picture, (MARGIN, line), SCALE, BLACK, &low);
    text(
        picture,
        (right.saturating_sub(text_width(&high, SCALE)), line),
        SCALE,
        BLACK,
        &high,
    );
    let name = format!("bytes per clip, up to {} per bar", count(most, "clip"));
    text(
        picture,
        ((WIDTH - text_width(&name, SCALE)) / 2, line),
        SCALE,
        GREY,
        &name,
    );
    bottom + 2 * LINE
}

/// Draws the histogram of a score between examples: the clips with the lowest values to its left,
/// those with the highest to its right, each with its middle frame.
fn score(
    picture: &mut RgbImage,
    top: u32,
    name: &str,
    sorted: &[(f32, u64)],
    set: &ShardSet,
) -> anyhow::Result<()> {
    let (min, max) = (sorted[0].0, sorted[sorted.len() - 1].0);
    let mut bins = [0u64; BINS];
    for &(value, _) in sorted {
        let share = f64::from(value - min) / f64::from((max - min).max(f32::MIN_POSITIVE));
        bins[((share * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let most = bins.iter().copied().max().unwrap_or(0).max(1);
    let side = EXAMPLES as u32 * (EXAMPLE_WIDTH + EXAMPLE_GAP);
    let left = MARGIN + side;
    let step = (WIDTH - 2 * left) / BINS as u32;
    let bottom = top + EXAMPLE_HEIGHT;
    for (at, &clips) in (0..).zip(&bins) {
        let height = length(clips, most, EXAMPLE_HEIGHT - LINE);
        let place = (left + at * step, bottom - height);
        fill(picture, place, (step - 1, height), COLOR);
    }
    fill(picture, (left, bottom), (BINS as u32 * step, 2), BLACK);
    text(picture, (left, top), SCALE, GREY, name);
    let line = bottom + 4;
    let label = |value: f32| format!("{value:.4}");
    text(picture, (left, line), 1, BLACK, &label(min));
    let high = label(max);
    let right = left + BINS as u32 * step;
    let end = right.saturating_sub(text_width(&high, 1));
    text(picture, (end, line), 1, BLACK, &high);
    let count = EXAMPLES.min(sorted.len());
    let lowest = sorted[..count].iter().enumerate();
    let highest = sorted[sorted.len() - count..].iter().enumerate();
    let lowest = lowest.map(|(at, clip)| (MARGIN, at, clip));
    let highest = highest.map(|(at, clip)| (right + EXAMPLE_GAP, at, clip));
    for (from, at, &(value, number)) in lowest.chain(highest) {
        let place = (from + at as u32 * (EXAMPLE_WIDTH + EXAMPLE_GAP), top);
        example(picture, place, number, set)?;
        let caption = format!("{number}: {value:.4}");
        text(picture, (place.0, line), 1, GREY, &caption);
    }
    Ok(())
}

/// Draws the middle frame of clip `number`.
fn example(
    picture: &mut RgbImage,
    place: (u32, u32),
    number: u64,
    set: &ShardSet,
) -> anyhow::Result<()> {
    for clip in reading::clips(set, &[number])? {
        let size = reading::size(&clip.meta);
        let (width, height) = size_within(size, EXAMPLE_WIDTH as usize, EXAMPLE_HEIGHT as usize);
        let middle = clip.meta.frames as usize / 2;
        reading::for_each_frame(set, &clip, |index, frame| {
            if index == middle {
                let pixels = to_rgb(frame, size, width, height);
                paste(picture, place, &pixels, width as u32);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Returns the bin of `bytes` in the histogram from `min` to `max`.
fn bin(bytes: u64, min: u64, max: u64) -> usize {
    let share = (bytes - min) as f64 / (max - min).max(1) as f64;
    ((share * BINS as f64) as usize).min(BINS - 1)
}

/// Draws a bar chart. Returns the top of the next drawing.
fn bars(picture: &mut RgbImage, top: u32, title: &str, values: &[(String, u64)]) -> u32 {
    text(picture, (MARGIN, top), SCALE, GREY, title);
    let names: Vec<String> = values.iter().map(|(name, _)| shortened(name)).collect();
    let left = MARGIN
        + names
            .iter()
            .map(|name| text_width(name, SCALE))
            .max()
            .unwrap_or(0)
        + 8;
    let most = values
        .iter()
        .map(|&(_, clips)| clips)
        .max()
        .unwrap_or(0)
        .max(1);
    let longest = WIDTH - MARGIN - left - text_width(&most.to_string(), SCALE) - 8;
    let mut line = top + LINE;
    for (name, &(_, clips)) in names.iter().zip(values) {
        let length = length(clips, most, longest);
        text(picture, (MARGIN, line), SCALE, BLACK, name);
        fill(picture, (left, line), (length, SCALE * LETTER), COLOR);
        text(
            picture,
            (left + length + 8, line),
            SCALE,
            BLACK,
            &clips.to_string(),
        );
        line += LINE;
    }
    line + LINE
}

/// Returns the length of a bar in pixels: at least one if there is a clip.
fn length(clips: u64, most: u64, longest: u32) -> u32 {
    let length = (clips as f64 / most as f64 * f64::from(longest)).round() as u32;
    if clips > 0 { length.max(1) } else { 0 }
}

/// Shortens a long name in its middle.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= MAX_LETTERS {
        return name.to_owned();
    }
    let half = (MAX_LETTERS - 2) / 2;
    letters[..half]
        .iter()
        .chain(&['.', '.'])
        .chain(&letters[letters.len() - half..])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_bin() {
        assert_eq!(
            (
                bin(10, 10, 20),
                bin(20, 10, 20),
                bin(15, 10, 20),
                bin(7, 7, 7)
            ),
            (0, BINS - 1, BINS / 2, 0)
        );
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(shortened("clockwise"), "clockwise");
        assert_eq!(
            shortened("a very long name of a class of motion"),
            "a very long..s of motion"
        );
    }
}
