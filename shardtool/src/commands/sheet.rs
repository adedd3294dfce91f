//! The contact sheet of `shardtool inspect`: one row per clip.

use crate::drawing::{BLACK, LETTER, blank, paste, save, text, text_width};
use crate::reading::{class, for_each_frame, size, start_seconds, video_name};
use anyhow::ensure;
use pipeline::shard::ShardSet;
use pipeline::transform::picture::{size_within, to_rgb};
use schemas::report::InspectedClip;
use std::path::Path;

/// Maximum number of frames per clip.
const MAX_FRAMES: usize = 8;

/// Maximum number of clips on a sheet.
const MAX_CLIPS: usize = 500;

/// Maximum width of a frame, to which larger frames are scaled down.
const FRAME_WIDTH: usize = 192;

/// Maximum height of a frame.
const FRAME_HEIGHT: usize = 128;

/// Space between frames, and around lines of text, in pixels.
const GAP: u32 = 4;

/// Height of a caption.
const CAPTION: u32 = LETTER + 2 * GAP;

/// Draws `clips` to the PNG file `path`: for each clip a caption with its index, video, class and
/// start, then up to 8 frames, evenly spaced from the first to the last.
///
/// # Errors
/// When there are too many clips or none, one of them is damaged, or the file cannot be written.
pub fn draw(set: &ShardSet, clips: &[InspectedClip], path: &Path) -> anyhow::Result<()> {
    ensure!(!clips.is_empty(), "there is no clip to draw");
    ensure!(
        clips.len() <= MAX_CLIPS,
        "a sheet holds up to {MAX_CLIPS} clips, not {}; select fewer",
        clips.len()
    );
    let rows: Vec<(String, InspectedClip)> = clips
        .iter()
        .map(|clip| (caption(clip), clip.clone()))
        .collect();
    draw_captioned(set, &rows, path)
}

/// Draws clips as [`draw`], each with a caption of its own.
///
/// # Errors
/// Those of [`draw`].
pub fn draw_captioned(
    set: &ShardSet,
    clips: &[(String, InspectedClip)],
    path: &Path,
) -> anyhow::Result<()> {
    let rows: Vec<Row> = clips
        .iter()
        .map(|(caption, clip)| Row::of(caption, clip))
        .collect();
    let width = rows.iter().map(Row::width).max().unwrap_or(1);
    let height = rows.iter().map(Row::height).sum();
    let mut sheet = blank(width, height)?;
    let mut top = 0;
    for (row, (_, clip)) in rows.iter().zip(clips) {
        text(&mut sheet, (GAP, top + GAP), 1, BLACK, &row.caption);
        for_each_frame(set, clip, |number, frame| {
            // No frame is drawn twice, also of a short clip, so an index is found once.
            if let Some(column) = row.frames.iter().position(|&chosen| chosen == number) {
                let pixels = to_rgb(frame, size(&clip.meta), row.size.0, row.size.1);
                let left = GAP + column as u32 * (row.size.0 as u32 + GAP);
                paste(
                    &mut sheet,
                    (left, top + CAPTION),
                    &pixels,
                    row.size.0 as u32,
                );
            }
            Ok(())
        })?;
        top += row.height();
    }
    save(&sheet, path)
}

/// Index, video, class and start of a clip.
fn caption(clip: &InspectedClip) -> String {
    let meta = &clip.meta;
    let class = class(meta).map_or(String::new(), |class| format!("  {class}"));
    format!(
        "{}  {}{class}  {:.3} s",
        clip.clip,
        video_name(meta),
        start_seconds(meta)
    )
}

/// The layout of the row of a clip.
struct Row {
    caption: String,
    /// Indices of the frames to draw.
    frames: Vec<usize>,
    /// Size of a drawn frame.
    size: (usize, usize),
}

impl Row {
    fn of(caption: &str, clip: &InspectedClip) -> Self {
        let meta = &clip.meta;
        Self {
            caption: caption.to_owned(),
            frames: evenly_spaced(meta.frames as usize, MAX_FRAMES),
            size: size_within(size(meta), FRAME_WIDTH, FRAME_HEIGHT),
        }
    }

    fn width(&self) -> u32 {
        let frames = self.frames.len() as u32 * (self.size.0 as u32 + GAP) + GAP;
        frames.max(text_width(&self.caption, 1) + 2 * GAP)
    }

    fn height(&self) -> u32 {
        CAPTION + self.size.1 as u32 + GAP
    }
}

/// Returns up to `most` of the numbers 0 to `count - 1`, evenly spaced, including the first and the
/// last.
fn evenly_spaced(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most)
        .map(|at| (at * (count - 1) + (most - 1) / 2) / (most - 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_evenly_spaced_from_the_first_to_the_last() {
        assert_eq!(evenly_spaced(16, 8), [0, 2, 4, 6, 9, 11, 13, 15]);
        assert_eq!(evenly_spaced(3, 8), [0, 1, 2]);
        assert_eq!(evenly_spaced(9, 8), [0, 1, 2, 3, 5, 6, 7, 8]);
    }
}
