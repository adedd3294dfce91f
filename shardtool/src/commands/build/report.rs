//! The report of a build, and its messages.

use super::resume::Plan;
use crate::journal::Journal;
use crate::labels::Coverage;
use console::output::{self, count};
use pipeline::video::clips::FaultKind;
use schemas::manifest::{REJECTED_FILE, Rejected, VideoRecord};
use schemas::report::BuildReport;
use std::path::Path;
use std::time::Instant;

/// Renders the line about a rejected file or part of a file.
pub(super) fn render_rejected(rejected: &Rejected) -> String {
    match (rejected.seconds, rejected.clips) {
        (Some((from, to)), Some(clips)) => {
            let skipped = if clips == 0 {
                "no clips".to_owned()
            } else {
                count(clips, "clip")
            };
            format!(
                "{} from {from:.2} to {to:.2} s: {}; {skipped} skipped",
                rejected.path, rejected.reason
            )
        }
        _ => format!("rejected {}: {}", rejected.path, rejected.reason),
    }
}

/// Whether frames of a video are damaged.
pub(super) fn is_damaged(record: &VideoRecord) -> bool {
    record.damaged_clips > 0
        || record
            .rejected
            .iter()
            .any(|line| line.kind == Some(FaultKind::Damage))
}

/// Renders advice on a build in which most videos are damaged; empty for other builds.
pub(super) fn render_damage_advice(damaged: u64, videos: u64) -> String {
    if damaged * 2 <= videos || damaged == 0 {
        return String::new();
    }
    format!(
        "most videos ({damaged} of {videos}) are damaged: if they play without faults elsewhere, \
         please report \
         it; --on-corrupt keep keeps all clips and marks the damaged ones in a column\n"
    )
}

/// Renders the context of an error that has stopped a build.
pub(super) fn render_failure(out: &Path, journal: &Journal) -> String {
    match journal.manifest.shards.len() as u64 {
        0 => format!("the build into {} has failed", out.display()),
        shards => format!(
            "the build into {} has stopped; {} are complete and usable, and the same command \
             resumes the build",
            out.display(),
            count(shards, "shard")
        ),
    }
}

/// Renders the message after a clean stop.
pub(super) fn render_stop(out: &Path, journal: &Journal) -> String {
    let shards = count(journal.manifest.shards.len() as u64, "shard");
    format!(
        "stopped: {shards} of {} are complete; run the same command again to resume",
        out.display()
    )
}

/// Makes the report of a complete build.
pub(super) fn make_report(
    out: &Path,
    journal: &Journal,
    plan: Plan,
    rejected: Vec<Rejected>,
    not_video: u64,
    coverage: Coverage,
    began: Instant,
) -> BuildReport {
    let records = journal.completed();
    let sum =
        |get: fn(&VideoRecord) -> u64| records.values().map(|record| get(record)).sum::<u64>();
    let manifest = &journal.manifest;
    let skipped = |kinds: &[FaultKind]| {
        let is_of = |line: &&Rejected| line.kind.is_some_and(|kind| kinds.contains(&kind));
        let lines = rejected.iter().filter(is_of);
        lines.filter_map(|line| line.clips).sum::<u64>()
    };
    BuildReport {
        out: out.display().to_string(),
        videos: sum(|record| u64::from(record.clips > 0)),
        clips: manifest.clips,
        damaged_clips: skipped(&[FaultKind::Damage, FaultKind::CutShort]),
        damaged_videos: records.values().filter(|record| is_damaged(record)).count() as u64,
        kept_damaged_clips: sum(|record| record.damaged_clips),
        gap_clips: skipped(&[FaultKind::Gap]),
        hdr_videos: sum(|record| u64::from(record.hdr)),
        padded_clips: sum(|record| record.padded_clips),
        shards: manifest.shards.len() as u64,
        stored_bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
        decoded_bytes: sum(|record| record.decoded_bytes),
        known_videos: plan.completed,
        removed_videos: plan.removed,
        rejected,
        not_video,
        unlabelled: coverage.unlabelled,
        unlabelled_examples: coverage.unlabelled_examples,
        unmatched_labels: coverage.unmatched,
        unmatched_label_examples: coverage.unmatched_examples,
        classes: manifest.classes.clone(),
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// Renders the report as text, with the lines of the labels' coverage.
pub(super) fn render_report(report: &BuildReport, coverage_lines: &[String]) -> String {
    let mut text = format!(
        "{} from {} in {}: {} stored, {} decoded, {:.1} s\n",
        count(report.clips, "clip"),
        count(report.videos, "video"),
        count(report.shards, "shard"),
        output::bytes(report.stored_bytes),
        output::bytes(report.decoded_bytes),
        report.seconds
    );
    if report.known_videos > 0 {
        text += &format!(
            "{} completed in an earlier run\n",
            count(report.known_videos, "video")
        );
    }
    if report.padded_clips > 0 {
        let clips = count(report.padded_clips, "clip");
        text +=
            &format!("{clips} padded with the last frame of a video that is shorter than a clip\n");
    }
    if report.damaged_clips > 0 {
        text += &format!("{} skipped: damaged\n", count(report.damaged_clips, "clip"));
    }
    if report.kept_damaged_clips > 0 {
        let clips = count(report.kept_damaged_clips, "clip");
        text += &format!("{clips} kept with damaged frames (column \"damaged\")\n");
    }
    if report.gap_clips > 0 {
        text += &format!(
            "{} skipped: in gaps without frames\n",
            count(report.gap_clips, "clip")
        );
    }
    if report.hdr_videos > 0 {
        text += &format!(
            "{} of high dynamic range, stored as decoded: flat and dark compared with standard \
             video \
             (column \"color_transfer\")\n",
            count(report.hdr_videos, "video")
        );
    }
    text += &render_damage_advice(
        report.damaged_videos,
        report.damaged_videos.max(report.videos),
    );
    if !report.rejected.is_empty() {
        let parts = report.rejected.len();
        text += &format!(
            "{parts} rejected (files or parts of files): see {}/{REJECTED_FILE}\n",
            report.out
        );
    }
    if report.not_video > 0 {
        text += &format!("{} skipped: not video\n", count(report.not_video, "file"));
    }
    coverage_lines
        .iter()
        .for_each(|line| text += &format!("{line}\n"));
    text + &format!("next: trainer run --data {}", report.out)
}

/// Renders the report of a part of a plan as a line.
pub(super) fn render_part(report: &BuildReport, part: u32, parts: u32) -> String {
    let known = match report.known_videos {
        0 => String::new(),
        known => format!(" ({known} built before)"),
    };
    let rejected = match report.rejected.len() {
        0 => String::new(),
        rejected => format!(", {rejected} rejected"),
    };
    format!(
        "part {part} of {parts}: {} from {}{known} in {}, {}{rejected}, {:.1} s: {}",
        count(report.clips, "clip"),
        count(report.videos, "video"),
        count(report.shards, "shard"),
        output::bytes(report.stored_bytes),
        report.seconds,
        report.out
    )
}
