//! `shardtool stats`: statistics of a folder of shards.

use super::scores::ScoreTable;
use super::stats_picture;
use crate::cli::StatsArgs;
use crate::reading::{self, class, decoded_bytes};
use console::output::{self, count};
use schemas::report::{ScoreSpread, Spread, StatsReport};
use schemas::shard::{ClipMeta, Payload, Scores};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::ExitCode;

/// Maximum number of printed values of a column; the rarer ones are counted together.
const MAX_VALUES: usize = 12;

/// Runs the command.
///
/// # Errors
/// When the folder holds no valid build, or the picture cannot be written.
pub fn run(args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let set = reading::open(&args.dir)?;
    let mut report = empty_report(
        args.dir.display().to_string(),
        set.manifest().options.payload,
    );
    report.finished = set.manifest().finished;
    report.shards = set.shards().len() as u64;
    let choice = args.choose.choice();
    let chosen: HashSet<u64> = reading::choose(&set, &choice)?.into_iter().collect();
    let mut videos = BTreeSet::new();
    let mut clip_bytes: Vec<u64> = Vec::with_capacity(chosen.len());
    let mut scores = ScoreTable::default();
    let mut number = 0;
    for shard in set.shards() {
        for (entry, meta) in shard.clips().iter().zip(shard.metas()?) {
            if chosen.contains(&number) {
                clip_bytes.push(entry.stored_bytes() as u64);
                add_clip(&mut report, &meta);
                scores.add(number, &meta);
                videos.insert(meta.video);
            }
            number += 1;
        }
    }
    report.stored_bytes = if choice.is_all() {
        set.manifest().shards.iter().map(|shard| shard.bytes).sum()
    } else {
        clip_bytes.iter().sum()
    };
    clip_bytes.sort_unstable();
    scores.sort();
    report.scores = scores.spreads();
    report.videos = videos.len() as u64;
    report.clip_bytes = spread(&clip_bytes);
    report.ratio = if report.decoded_bytes == 0 {
        0.0
    } else {
        report.stored_bytes as f64 / report.decoded_bytes as f64
    };
    if let Some(path) = &args.picture {
        stats_picture::draw(&report, &clip_bytes, &scores, &set, path)?;
    }
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&render_report(&report))?;
    if let Some(path) = &args.picture {
        output::say(&format!("drawn to {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn empty_report(dir: String, payload: Payload) -> StatsReport {
    StatsReport {
        dir,
        finished: false,
        clips: 0,
        videos: 0,
        hours: 0.0,
        shards: 0,
        payload,
        stored_bytes: 0,
        decoded_bytes: 0,
        ratio: 0.0,
        clip_bytes: Spread::default(),
        classes: BTreeMap::new(),
        unlabelled: 0,
        splits: BTreeMap::new(),
        scores: BTreeMap::new(),
        resolutions: BTreeMap::new(),
        codecs: BTreeMap::new(),
        pixel_formats: BTreeMap::new(),
        color_ranges: BTreeMap::new(),
        color_matrices: BTreeMap::new(),
        color_transfers: BTreeMap::new(),
        pixel_aspects: BTreeMap::new(),
        repeated: 0,
        damaged: 0,
        deinterlaced: 0,
        rotated: 0,
        mirrored: 0,
    }
}

/// Adds a clip to the counts.
fn add_clip(report: &mut StatsReport, meta: &ClipMeta) {
    report.clips += 1;
    report.hours += footage_seconds(meta) / 3600.0;
    report.decoded_bytes += decoded_bytes(meta);
    match class(meta) {
        Some(class) => *report.classes.entry(class).or_default() += 1,
        None => report.unlabelled += 1,
    }
    if let Some(split) = &meta.split {
        *report.splits.entry(reading::printable(split)).or_default() += 1;
    }
    let mut count = |values: fn(&mut StatsReport) -> &mut BTreeMap<String, u64>, value: &str| {
        *values(report).entry(reading::printable(value)).or_default() += 1;
    };
    count(
        |report| &mut report.resolutions,
        &format!("{}x{}", meta.width, meta.height),
    );
    count(|report| &mut report.codecs, &meta.codec);
    count(|report| &mut report.pixel_formats, &meta.pixel_format);
    count(|report| &mut report.color_ranges, meta.color_range.name());
    count(
        |report| &mut report.color_matrices,
        meta.color_matrix.name(),
    );
    count(|report| &mut report.color_transfers, &meta.color_transfer);
    count(
        |report| &mut report.pixel_aspects,
        &reading::pixel_aspect(meta),
    );
    report.damaged += u64::from(meta.damaged);
    report.repeated += u64::from(meta.repeated_frames > 0);
    report.deinterlaced += u64::from(meta.deinterlaced);
    report.rotated += u64::from(meta.rotation != 0);
    report.mirrored += u64::from(meta.mirrored);
}

/// Returns the seconds of its video that a clip spans: the durations of its frames, except the
/// repeated ones at the end.
fn footage_seconds(meta: &ClipMeta) -> f64 {
    let frames = meta.frames.saturating_sub(meta.repeated_frames);
    match (meta.fps, meta.pts_ns.as_slice()) {
        (Some(fps), _) => f64::from(frames) * f64::from(meta.stride) / fps,
        // By the times of its frames; the last one counts with their mean duration.
        (None, [first, .., last]) if frames > 1 => {
            (last - first) as f64 / 1e9 * f64::from(frames) / f64::from(frames - 1)
        }
        (None, _) => 0.0,
    }
}

/// Returns the distribution of sorted numbers.
fn spread(sorted: &[u64]) -> Spread {
    let (&[min, ..], &[.., max]) = (sorted, sorted) else {
        return Spread::default();
    };
    let p95 = (sorted.len() * 95).div_ceil(100) - 1;
    let mean = sorted.iter().sum::<u64>() as f64 / sorted.len() as f64;
    Spread {
        min,
        median: sorted[sorted.len() / 2],
        mean,
        p95: sorted[p95],
        max,
    }
}

fn render_report(report: &StatsReport) -> String {
    let bytes = output::bytes;
    let spread = report.clip_bytes;
    let flags = [
        ("repeated frames", report.repeated),
        ("damaged frames", report.damaged),
        ("deinterlaced", report.deinterlaced),
        ("rotated", report.rotated),
        ("mirrored", report.mirrored),
    ];
    let lines = [
        (
            "clips",
            format!(
                "{} from {}, {}",
                report.clips,
                count(report.videos, "video"),
                render_footage(report.hours)
            ),
        ),
        (
            "bytes",
            format!(
                "{} in {} as {}, {} decoded: {:.0} %",
                bytes(report.stored_bytes),
                count(report.shards, "shard"),
                report.payload.name(),
                bytes(report.decoded_bytes),
                100.0 * report.ratio
            ),
        ),
        (
            "bytes per clip",
            format!(
                "min {}, median {}, mean {}, p95 {}, max {}",
                bytes(spread.min),
                bytes(spread.median),
                bytes(spread.mean as u64),
                bytes(spread.p95),
                bytes(spread.max)
            ),
        ),
        ("classes", render_values(&report.classes)),
        ("unlabelled", report.unlabelled.to_string()),
        ("splits", render_values(&report.splits)),
        ("sizes", render_values(&report.resolutions)),
        ("codecs", render_values(&report.codecs)),
        ("pixel formats", render_values(&report.pixel_formats)),
        ("ranges", render_values(&report.color_ranges)),
        ("matrices", render_values(&report.color_matrices)),
        ("transfers", render_values(&report.color_transfers)),
        ("pixel aspects", render_values(&report.pixel_aspects)),
        (
            "clips with",
            flags
                .map(|(name, clips)| format!("{name} {clips}"))
                .join(", "),
        ),
    ];
    let mut text = lines
        .map(|(name, value)| format!("{name:<15} {value}"))
        .join("\n");
    if !report.scores.is_empty() {
        text += "\nscores          min, p5, median, p95, max";
    }
    for name in Scores::NAMES {
        let Some(spread) = report.scores.get(name) else {
            continue;
        };
        let ScoreSpread {
            min,
            p05,
            median,
            p95,
            max,
            ..
        } = spread;
        text += &format!("\n  {name:<13} {min:.4}, {p05:.4}, {median:.4}, {p95:.4}, {max:.4}");
    }
    text
}

/// Renders a length, such as `2.50 hours of footage`; short ones in seconds.
fn render_footage(hours: f64) -> String {
    if hours < 0.1 {
        format!("{:.1} seconds of footage", hours * 3600.0)
    } else {
        format!("{hours:.2} hours of footage")
    }
}

/// Renders the most frequent values with their counts.
fn render_values(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let shown = most_frequent(counts, MAX_VALUES);
    shown
        .into_iter()
        .map(|(name, clips)| format!("{name} {clips}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The `most` most frequent values, in descending order; all others together are the last one of
/// them, where there are more.
pub fn most_frequent(counts: &BTreeMap<String, u64>, most: usize) -> Vec<(String, u64)> {
    let mut sorted: Vec<(String, u64)> = counts
        .iter()
        .map(|(name, &clips)| (name.clone(), clips))
        .collect();
    sorted.sort_by_key(|&(_, clips)| std::cmp::Reverse(clips));
    if sorted.len() > most {
        let others = sorted.split_off(most - 1);
        let clips = others.iter().map(|(_, clips)| clips).sum();
        sorted.push((format!("{} others", others.len()), clips));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_rank() {
        let numbers: Vec<u64> = (1..=100).collect();
        assert_eq!(
            spread(&numbers),
            Spread {
                min: 1,
                median: 51,
                mean: 50.5,
                p95: 95,
                max: 100
            }
        );
        assert_eq!(
            spread(&[7]),
            Spread {
                min: 7,
                median: 7,
                mean: 7.0,
                p95: 7,
                max: 7
            }
        );
        assert_eq!(spread(&[]), Spread::default());
    }

    #[test]
    fn rare_values_are_counted_together() {
        let counts = BTreeMap::from(
            [("a", 1), ("b", 5), ("c", 2), ("d", 1)].map(|(name, clips)| (name.to_owned(), clips)),
        );
        let expected =
            [("b", 5), ("c", 2), ("2 others", 2)].map(|(name, clips)| (name.to_owned(), clips));
        assert_eq!(most_frequent(&counts, 3), expected);
        assert_eq!(most_frequent(&counts, 4).len(), 4);
    }
}
