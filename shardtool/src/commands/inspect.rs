//! `shardtool inspect`: lists and draws clips.

use super::sheet;
use crate::cli::InspectArgs;
use crate::reading::{self, class, pixel_aspect, printable, start_seconds, video_name};
use console::output::{self, count};
use pipeline::sampling::order::Order;
use schemas::report::{InspectReport, InspectedClip};
use schemas::shard::{ClipMeta, Scores};
use std::process::ExitCode;

/// Runs the command.
///
/// # Errors
/// When the folder holds no valid build, a clip does not exist, or the sheet cannot be written.
pub fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let set = reading::open(&args.dir)?;
    let chosen = reading::choose(&set, &args.choose.choice())?;
    let clips = reading::clips(&set, &select(args, &chosen))?;
    if let Some(path) = &args.sheet {
        sheet::draw(&set, &clips, path)?;
    }
    let report = InspectReport {
        dir: args.dir.display().to_string(),
        finished: set.manifest().finished,
        all_clips: chosen.len() as u64,
        clips,
        sheet: args.sheet.as_ref().map(|path| path.display().to_string()),
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if report.clips.is_empty() {
        output::print("no clips")?;
    } else if args.clips.is_empty() {
        output::print(&render_table(&report.clips))?;
    } else {
        let all: Vec<String> = report.clips.iter().map(render_details).collect();
        output::print(&all.join("\n\n"))?;
    }
    let shown = report.clips.len() as u64;
    let all = report.all_clips;
    if args.clips.is_empty() && args.sample.is_none() && shown < all {
        output::say(&format!(
            "the first {shown} of {}; --limit {all} shows all",
            count(all, "clip")
        ));
    }
    if let Some(path) = report.sheet {
        output::say(&format!("drawn to {path}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the numbers of the selected ones of the `chosen` clips, in order.
fn select(args: &InspectArgs, chosen: &[u64]) -> Vec<u64> {
    let all = chosen.len() as u64;
    let mut numbers: Vec<u64> = match args.sample {
        _ if !args.clips.is_empty() => args.clips.clone(),
        Some(sample) if all > 0 => {
            let mut order = Order::new(&[(all, 1.0)], args.seed);
            (0..sample.min(all))
                .map(|draw| chosen[order.draw(draw).clip as usize])
                .collect()
        }
        _ => chosen.iter().copied().take(args.limit as usize).collect(),
    };
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Renders a table with one line per clip.
fn render_table(clips: &[InspectedClip]) -> String {
    let mut rows = vec![
        [
            "clip", "video", "no.", "class", "frames", "size", "start", "codec", "stored",
        ]
        .map(str::to_owned),
    ];
    for clip in clips {
        let meta = &clip.meta;
        rows.push([
            clip.clip.to_string(),
            video_name(meta),
            meta.clip.to_string(),
            class(meta).unwrap_or_else(|| "-".to_owned()),
            meta.frames.to_string(),
            format!("{}x{}", meta.width, meta.height),
            format!("{:.3} s", start_seconds(meta)),
            printable(&meta.codec),
            output::bytes(clip.stored_bytes),
        ]);
    }
    // Text is aligned to the left, numbers to the right.
    let is_text = [false, true, false, true, false, false, false, true, false];
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..is_text.len()).map(width).collect();
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths).zip(is_text);
        let cells = cells.map(|((cell, &width), is_text)| {
            if is_text {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Renders the details of a clip, one per line.
fn render_details(clip: &InspectedClip) -> String {
    let meta = &clip.meta;
    let mut orientation = format!("rotated by {} degrees", meta.rotation);
    if meta.mirrored {
        orientation = format!("mirrored, then {orientation}");
    }
    let sampling = match meta.fps {
        Some(fps) => format!(
            "every {} at {fps} ticks per second",
            ordinal(meta.stride, "tick")
        ),
        None => format!("every {} of the source", ordinal(meta.stride, "frame")),
    };
    let times: Vec<String> = meta
        .pts_ns
        .iter()
        .map(|&pts| format!("{:.3}", pts as f64 / 1e9))
        .collect();
    let lines = [
        ("clip", clip.clip.to_string()),
        ("stored in", format!("{}, row {}", clip.shard, clip.row)),
        ("video", printable(&meta.video)),
        ("video BLAKE3", meta.video_blake3.clone()),
        ("no. in video", meta.clip.to_string()),
        (
            "class",
            meta.class.as_deref().map_or("none".to_owned(), printable),
        ),
        (
            "label",
            meta.label
                .map_or("none".to_owned(), |label| label.to_string()),
        ),
        (
            "split",
            meta.split.as_deref().map_or("none".to_owned(), printable),
        ),
        ("segment", render_segment(meta)),
        (
            "scene",
            meta.scene
                .map_or("unknown".to_owned(), |scene| scene.to_string()),
        ),
        (
            "frames",
            format!(
                "{} of {}x{}, {sampling}",
                meta.frames, meta.width, meta.height
            ),
        ),
        ("repeated", format!("{} at the end", meta.repeated_frames)),
        (
            "damaged",
            if meta.damaged { "yes" } else { "no" }.to_owned(),
        ),
        ("times", format!("{} s", times.join(" "))),
        (
            "source",
            format!(
                "{}x{} {} {}",
                meta.source_width,
                meta.source_height,
                printable(&meta.codec),
                printable(&meta.pixel_format)
            ),
        ),
        ("decoder", printable(&meta.decoder)),
        ("pixel aspect", pixel_aspect(meta)),
        ("orientation", orientation),
        (
            "deinterlaced",
            if meta.deinterlaced { "yes" } else { "no" }.to_owned(),
        ),
        (
            "colour",
            format!(
                "{} range, {}, transfer {}, primaries {}",
                meta.color_range.name(),
                meta.color_matrix.name(),
                meta.color_transfer,
                meta.color_primaries
            ),
        ),
        (
            "scores",
            meta.scores
                .as_ref()
                .map_or("unknown".to_owned(), render_scores),
        ),
        (
            "payload",
            format!("{}, XXH3-64 {:016x}", meta.payload.name(), meta.data_xxh3),
        ),
        (
            "bytes",
            format!(
                "{} stored, {} decoded",
                output::bytes(clip.stored_bytes),
                output::bytes(clip.decoded_bytes)
            ),
        ),
    ];
    lines
        .map(|(name, value)| format!("{name:<13} {value}"))
        .join("\n")
}

/// Renders the listed segment of a clip: `P01_11_105, 12.50 to 14.00 s`.
fn render_segment(meta: &ClipMeta) -> String {
    let seconds = match (meta.segment_start, meta.segment_end) {
        (None, None) => None,
        (start, None) => Some(format!("from {:.2} s", start.unwrap_or(0.0))),
        (start, Some(end)) => Some(format!("{:.2} to {end:.2} s", start.unwrap_or(0.0))),
    };
    let parts: Vec<String> = [meta.segment.as_deref().map(printable), seconds]
        .into_iter()
        .flatten()
        .collect();
    if parts.is_empty() {
        "the whole video".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Renders the scores of a clip that are numbers: `motion 0.0012, sharpness 130.8461, ...`.
fn render_scores(scores: &Scores) -> String {
    let named = Scores::NAMES.iter().zip(scores.numbers());
    let parts: Vec<String> = named
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect();
    parts.join(", ")
}

/// Renders `tick`, `2nd tick`, `3rd tick`, ...
fn ordinal(number: u32, unit: &str) -> String {
    match (number % 10, number % 100) {
        _ if number == 1 => unit.to_owned(),
        (1, tens) if tens != 11 => format!("{number}st {unit}"),
        (2, tens) if tens != 12 => format!("{number}nd {unit}"),
        (3, tens) if tens != 13 => format!("{number}rd {unit}"),
        _ => format!("{number}th {unit}"),
    }
}
