//! `shardtool duplicates`: groups clips that are nearly equal.

use super::sheet;
use crate::cli::DuplicatesArgs;
use crate::near::{self, Groups};
use crate::reading::{self, video_name};
use crate::{features, reading::start_seconds};
use anyhow::{Context, ensure};
use console::output::{self, count};
use pipeline::atomic_file;
use pipeline::shard::ShardSet;
use schemas::report::{DuplicateClip, DuplicateGroup, DuplicatesReport};
use schemas::shard::{ClipMeta, PHASH_WORDS};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Range of luma below which a clip is too flat to have a meaningful hash.
const MIN_LUMA_RANGE: f32 = 16.0;

/// Number of groups that are printed and drawn.
const SHOWN_GROUPS: usize = 20;

/// Number of clips of a group that are drawn.
const DRAWN_CLIPS: usize = 4;

/// Runs the command.
///
/// # Errors
/// When the folder holds no valid build, its clips have no hashes, or a file cannot be read or
/// written.
pub fn run(args: &DuplicatesArgs) -> anyhow::Result<ExitCode> {
    let set = reading::open(&args.dir)?;
    let chosen = reading::choose(&set, &args.choose.choice())?;
    let clips = clips(&set, &chosen)?;
    // Clips of one video resemble each other: the same camera, the same place.
    let may_pair =
        |one: usize, other: usize| args.within || clips[one].1.video != clips[other].1.video;
    let (groups, flat) = match &args.features {
        Some(file) => {
            let features = features::read(file, clips.iter().map(|(_, meta)| meta))?;
            let groups = near::by_features(&features, args.similarity, may_pair);
            (groups, 0)
        }
        None => {
            let hashes = hashes(&clips, &args.dir)?;
            let flat = hashes.iter().filter(|hash| hash.is_none()).count();
            (near::by_hash(&hashes, args.distance, may_pair), flat)
        }
    };
    let report = report(args, &clips, &groups, flat);
    if let Some(path) = &args.keep {
        write_kept(path, &clips, &groups)?;
    }
    if let Some(path) = &args.sheet {
        draw(&set, &report, path)?;
    }
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&render_report(&report))?;
    if let Some(path) = &args.keep {
        output::say(&format!(
            "clips without their duplicates: {}; use it with --select",
            path.display()
        ));
    }
    if let Some(path) = report.sheet {
        output::say(&format!("drawn to {path}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The chosen clips with their numbers.
fn clips(set: &ShardSet, chosen: &[u64]) -> anyhow::Result<Vec<(u64, ClipMeta)>> {
    let mut clips = Vec::with_capacity(chosen.len());
    let mut chosen = chosen.iter().copied().peekable();
    let mut number = 0;
    for shard in set.shards() {
        for meta in shard.metas()? {
            if chosen.next_if_eq(&number).is_some() {
                clips.push((number, meta));
            }
            number += 1;
        }
    }
    Ok(clips)
}

/// The hash of each clip; none if the clip is too flat to have one.
fn hashes(
    clips: &[(u64, ClipMeta)],
    dir: &Path,
) -> anyhow::Result<Vec<Option<[u64; PHASH_WORDS]>>> {
    clips
        .iter()
        .map(|(number, meta)| {
            let scores = meta.scores.with_context(|| {
                format!(
                    "clip {number} of {} has no perceptual hash: it was built before format \
                     version 5; build it again, or give --features",
                    dir.display()
                )
            })?;
            Ok((scores.luma_range >= MIN_LUMA_RANGE).then_some(scores.phash))
        })
        .collect()
}

fn report(
    args: &DuplicatesArgs,
    clips: &[(u64, ClipMeta)],
    groups: &Groups,
    flat: usize,
) -> DuplicatesReport {
    let clip = |&(index, distance): &(usize, f64)| {
        let (number, meta) = &clips[index];
        DuplicateClip {
            number: *number,
            video: meta.video.clone(),
            clip: meta.clip,
            second: start_seconds(meta),
            distance,
        }
    };
    let groups: Vec<DuplicateGroup> = groups
        .members()
        .iter()
        .map(|group| DuplicateGroup {
            clips: group.iter().map(clip).collect(),
        })
        .collect();
    DuplicatesReport {
        dir: args.dir.display().to_string(),
        clips: clips.len() as u64,
        duplicates: groups
            .iter()
            .map(|group| group.clips.len() as u64 - 1)
            .sum(),
        flat: flat as u64,
        by: if args.features.is_some() {
            "features"
        } else {
            "hash"
        }
        .to_owned(),
        groups,
        sheet: args.sheet.as_ref().map(|path| path.display().to_string()),
    }
}

fn render_report(report: &DuplicatesReport) -> String {
    let mut text = format!(
        "{} in {} of near-equal clips, of {}",
        count(report.duplicates, "duplicate"),
        count(report.groups.len() as u64, "group"),
        count(report.clips, "clip")
    );
    if report.flat > 0 {
        let flat = count(report.flat, "clip");
        let _ = write!(
            text,
            "; {flat} too flat to compare (luma_range < {MIN_LUMA_RANGE})"
        );
    }
    for (number, group) in report.groups.iter().enumerate().take(SHOWN_GROUPS) {
        let _ = write!(text, "\n\ngroup {number}");
        for clip in &group.clips {
            let video = reading::printable(&clip.video);
            let _ = write!(
                text,
                "\n  clip {:>6}  {video}  {:.3} s  distance {}",
                clip.number, clip.second, clip.distance
            );
        }
    }
    if let Some(more @ 1..) = report.groups.len().checked_sub(SHOWN_GROUPS) {
        let _ = write!(text, "\n\nand {more} more groups; --json lists all");
    }
    text
}

/// Writes the numbers of the clips that are no duplicates, and of the first clip of each group.
fn write_kept(path: &Path, clips: &[(u64, ClipMeta)], groups: &Groups) -> anyhow::Result<()> {
    let dropped = groups.dropped();
    let mut text = "number\n".to_owned();
    for (index, (number, _)) in clips.iter().enumerate() {
        if !dropped.contains(&index) {
            let _ = writeln!(text, "{number}");
        }
    }
    atomic_file::write(path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Draws the first clips of the first groups.
fn draw(set: &ShardSet, report: &DuplicatesReport, path: &Path) -> anyhow::Result<()> {
    ensure!(!report.groups.is_empty(), "there are no duplicates to draw");
    let mut rows = Vec::new();
    for (number, group) in report.groups.iter().enumerate().take(SHOWN_GROUPS) {
        for clip in group.clips.iter().take(DRAWN_CLIPS) {
            let inspected = reading::clips(set, &[clip.number])?;
            for one in inspected {
                let caption = format!(
                    "group {number}  clip {}  {}  {:.3} s  distance {}",
                    clip.number,
                    video_name(&one.meta),
                    clip.second,
                    clip.distance
                );
                rows.push((caption, one));
            }
        }
    }
    sheet::draw_captioned(set, &rows, path)
}
