//! `shardtool build --dry-run`: counts the clips and bytes of a build without decoding.

use crate::cli::BuildCommand;
use crate::fan_out::fan_out;
use crate::inputs::{Input, Inputs};
use crate::protocol::{Failure, Reply, Task};
use crate::scratch::Scratch;
use crate::worker;
use anyhow::Context;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, Sender};
use pipeline::shard::payload::DEFAULT_CRF;
use pipeline::video::VideoProbe;
use pipeline::video::clips::segment_ticks;
use pipeline::video::discover::VideoFile;
use pipeline::video::ticks::{Timeline, clips_in_holes, span_ticks, starts_in};
use pipeline::worker::{Ending, Reported, Supervisor};
use schemas::manifest::{BuildOptions, Rejected, ShortVideo};
use schemas::report::DryRunReport;
use schemas::shard::Payload;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Returns the typical ratio of stored to decoded bytes (I420), measured on real footage; for
/// estimates only.
fn typical_ratio(options: &BuildOptions) -> f64 {
    match (options.payload, options.level) {
        (Payload::I420 | Payload::I420Delta, 0) => 1.0,
        (Payload::I420, _) => 0.5,
        (Payload::I420Delta, _) => 0.35,
        (Payload::Rgb, 0) => 2.0,
        (Payload::Rgb, _) => 1.3,
        // Six steps of the rate factor halve the bytes, approximately.
        (Payload::H264, _) => {
            0.03 * ((18.0 - f64::from(options.crf.unwrap_or(DEFAULT_CRF))) / 6.0).exp2()
        }
    }
}

/// Counts the clips and bytes of a build, from the packets of each video.
///
/// # Errors
/// When no worker can be started, or the free space of the disk cannot be read.
pub fn run(
    command: &BuildCommand,
    options: &BuildOptions,
    found: Inputs,
) -> anyhow::Result<ExitCode> {
    let args = &command.build;
    let coverage = found.coverage;
    let videos = &found.inputs;
    let coverage_lines = coverage.render();
    let mut report = DryRunReport {
        out: args.out.display().to_string(),
        videos: 0,
        video_seconds: 0.0,
        clips: 0,
        gap_clips: 0,
        decoded_bytes: 0,
        estimated_bytes: 0,
        free_bytes: free_bytes(&args.out)?,
        rejected: found.rejected,
        not_video: found.not_video,
        unlabelled: coverage.unlabelled,
        unlabelled_examples: coverage.unlabelled_examples,
        unmatched_labels: coverage.unmatched,
        unmatched_label_examples: coverage.unmatched_examples,
    };
    let progress = Progress::new(videos.len() as u64, "{pos}/{len} videos");
    // There is nothing to finish: Ctrl-C ends the program at once.
    let supervisor = worker::supervisors(args.timeout, Arc::default())?;
    let objects = videos.iter().map(|video| video.file.object.as_ref());
    let dir = args.scratch();
    let scratch = Scratch::new(&dir, args.scratch_size, objects.collect());
    let work =
        |supervisor: &mut Supervisor, &(index, video): &(usize, &Input), results: &Sender<_>| {
            let probed = scratch.wait(index).and_then(|download| {
                probe(supervisor, &video.file, download, options, args.timeout)
            });
            scratch.remove(index);
            // The receiver is gone only when the command itself has failed.
            let _ = results.send(probed);
        };
    let numbered: Vec<_> = videos.iter().enumerate().collect();
    let take = |&(_, video): &(usize, &Input), results: Receiver<anyhow::Result<_>>| {
        match results.recv()?? {
            Ok(probe) => add_probe(&mut report, options, video, &probe),
            Err(reason) => {
                let rejected = Rejected::file(video.name(), reason);
                progress.say(&format!("rejected {}: {}", rejected.path, rejected.reason));
                report.rejected.push(rejected);
            }
        }
        progress.advance(1, count(report.clips, "clip"));
        Ok(())
    };
    scratch.run(|| fan_out(&numbered, args.jobs(), 1, supervisor, work, take))?;
    progress.finish();
    report.estimated_bytes = (report.decoded_bytes as f64 * typical_ratio(options)) as u64;
    if command.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&render_report(&report, &coverage_lines))?;
    }
    Ok(ExitCode::from(u8::from(
        command.strict && !report.rejected.is_empty(),
    )))
}

/// Renders the report as text, with the lines of the labels' coverage.
fn render_report(report: &DryRunReport, coverage_lines: &[String]) -> String {
    let mut text = format!(
        "{} of {:.1} s would give {}: {} decoded, about {} stored; {} free in {}\n{} rejected, {} \
         skipped: not video",
        count(report.videos, "video"),
        report.video_seconds,
        count(report.clips, "clip"),
        output::bytes(report.decoded_bytes),
        output::bytes(report.estimated_bytes),
        output::bytes(report.free_bytes),
        report.out,
        count(report.rejected.len() as u64, "file"),
        count(report.not_video, "file"),
    );
    coverage_lines
        .iter()
        .for_each(|line| text += &format!("\n{line}"));
    text
}

/// Has a worker count the packets of a video; the inner error is why it cannot.
pub(super) fn probe(
    supervisor: &mut Supervisor,
    video: &VideoFile,
    download: Option<PathBuf>,
    options: &BuildOptions,
    timeout: f64,
) -> anyhow::Result<Result<VideoProbe, String>> {
    let task = Task::Probe {
        path: video.path.clone(),
        download,
        options: options.clone(),
        timeout,
    };
    let mut probe = Err("its packets were not counted".to_owned());
    let ending = supervisor.run(&task, |reply: Reply, _| {
        Ok(match reply {
            Reply::Probed(found) => {
                probe = Ok(found);
                Reported::Done
            }
            _ => Reported::More,
        })
    })?;
    Ok(match ending {
        Ending::Done | Ending::Stopped => probe,
        Ending::Failed(Failure { reason, .. }) | Ending::Lost(reason) => Err(reason),
    })
}

/// Adds the counts of a video with the result `probe` of probing it.
fn add_probe(report: &mut DryRunReport, options: &BuildOptions, video: &Input, probe: &VideoProbe) {
    let timeline = Timeline::of(options, probe);
    let span = span_ticks(options);
    let mut clips = 0;
    for listed in &video.segments {
        let stretches = timeline.stretches_of(segment_ticks(listed.segment, options, probe));
        let fits = stretches
            .iter()
            .any(|stretch| stretch.end - stretch.start >= span);
        if fits || options.short == ShortVideo::Repeat {
            clips += starts_in(options, &stretches).len() as u64;
        }
    }
    let size = probe.shape.stored_size(options);
    report.videos += 1;
    report.video_seconds += probe.seconds();
    report.clips += clips;
    report.gap_clips += clips_in_holes(options, &timeline);
    report.decoded_bytes += clips * u64::from(options.frames) * size.frame_bytes() as u64;
}

/// Returns the free bytes on the disk where `folder` is or would be created.
fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() {
        Path::new(".")
    } else {
        existing
    };
    let status = rustix::fs::statvfs(existing)
        .with_context(|| format!("cannot read the free space of {}", existing.display()))?;
    Ok(status.f_bavail * status.f_frsize)
}
