//! `shardtool build`: builds shards from videos.
//!
//! Worker processes decode, sample and compress one video each at a time. This process appends the
//! compressed clips in the order of the videos, so that the shards are the same for any number of
//! workers, and keeps the journal.
//!
//! - `resume`: which videos are complete, and which are left to do.
//! - `supervise`: one video in a worker process.
//! - `report`: the report, and messages.

mod report;
mod resume;
mod supervise;

use super::dry_run;
use crate::cli::{BuildArgs, BuildCommand};
use crate::fan_out::fan_out;
use crate::inputs::{self, Input};
use crate::journal::{Journal, Target};
use crate::labels::Coverage;
use crate::plan::{self, Known, Share};
use crate::protocol::{BuildTask, ClipFlags, Task};
use crate::reading;
use crate::scratch::Scratch;
use crate::split;
use crate::worker;
use anyhow::{bail, ensure};
use console::interrupt;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pipeline::shard::ShardSetWriter;
use pipeline::shard::payload;
use pipeline::store;
use pipeline::video;
use pipeline::worker::Supervisor;
use report::{
    is_damaged, make_report, render_damage_advice, render_failure, render_part, render_rejected,
    render_report, render_stop,
};
use resume::{Plan, Source, size_and_time};
use schemas::manifest::{BuildOptions, OpenVideo, Rejected, VideoRecord};
use schemas::report::BuildReport;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use supervise::{Message, queued_clips, supervise};

/// Duration of one wait for a worker. A request to stop is checked between waits.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// Errors of the user's input or environment: no videos, a folder that is in use, a full disk.
pub fn run(args: &BuildCommand) -> anyhow::Result<ExitCode> {
    video::init()?;
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    if let Some(place) = &args.plan {
        return run_parts(args, &Known::read(place)?);
    }
    let options = args.build.options(args.force)?;
    payload::check(&options)?;
    let found = inputs::find(&args.videos, &args.build)?;
    if args.dry_run {
        return dry_run::run(args, &options, found);
    }
    let target = Target {
        place: args.build.out.clone(),
        plan: None,
    };
    let (not_video, coverage) = (found.not_video, found.coverage.clone());
    let rejected = found.rejected.clone();
    let work = Work {
        target,
        options,
        rejected,
        not_video,
        coverage,
    };
    let Some((report, coverage_lines)) = build(args, work, |known| found.number(known))? else {
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&render_report(&report, &coverage_lines))?;
    }
    Ok(ExitCode::from(u8::from(
        args.strict && !report.rejected.is_empty(),
    )))
}

/// Builds the parts of a plan that are this machine's.
fn run_parts(args: &BuildCommand, known: &Known) -> anyhow::Result<ExitCode> {
    payload::check(&known.plan.options)?;
    let parts = Share::parts(args.part, known.parts())?;
    let mut reports = Vec::new();
    for &part in &parts {
        let videos = &known.plan.parts[part as usize].videos;
        let inputs = videos
            .iter()
            .map(plan::Video::input)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let work = Work {
            target: Target {
                place: known.part_place(part),
                plan: Some(known.entry(Some(part))),
            },
            options: known.plan.options.clone(),
            rejected: Vec::new(),
            not_video: 0,
            coverage: Coverage::default(),
        };
        let classes = known.plan.classes.clone();
        let Some((report, _)) = build(args, work, |_| (inputs, classes))? else {
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        };
        if !args.json {
            output::print(&render_part(&report, part, known.parts()))?;
        }
        reports.push(report);
    }
    if args.json {
        output::print(&serde_json::to_string_pretty(&reports)?)?;
    } else if parts.is_empty() {
        let all = count(u64::from(known.parts()), "part");
        output::print(&format!("nothing to do: the plan has {all}"))?;
    }
    let is_rejected = reports.iter().any(|report| !report.rejected.is_empty());
    Ok(ExitCode::from(u8::from(args.strict && is_rejected)))
}

/// What is built, besides the inputs.
struct Work {
    target: Target,
    options: BuildOptions,
    /// Files that are not used.
    rejected: Vec<Rejected>,
    not_video: u64,
    coverage: Coverage,
}

/// Builds the inputs that `number` gives, with the names of the classes, for the classes that the
/// folder knows. Returns the report and the lines of the labels' coverage; none if the user has
/// stopped it.
fn build(
    command: &BuildCommand,
    work: Work,
    number: impl FnOnce(&[String]) -> (Vec<Input>, Vec<String>),
) -> anyhow::Result<Option<(BuildReport, Vec<String>)>> {
    let began = Instant::now();
    let args = &command.build;
    let Work {
        target,
        options,
        rejected,
        not_video,
        coverage,
    } = work;
    let mut journal = Journal::open(&target, &options, &args.scratch(), command.force)?;
    let out = target.place.as_path();
    let (inputs, classes) = number(&journal.manifest.classes);
    journal.classes = classes;
    let plan = Plan::new(&journal, inputs)?;
    for path in &plan.removed {
        output::say(&format!(
            "note: {path} no longer exists; its clips stay in the shards"
        ));
    }
    let finished = journal.manifest.shards.clone();
    let writer = ShardSetWriter::new(journal.dir(), options.clone(), finished);
    let progress = Progress::new(plan.sources.len() as u64, "{pos}/{len} videos");
    let content_hashes = journal
        .completed()
        .values()
        .map(|record| record.blake3.clone())
        .collect();
    let mut build = Build {
        args,
        target: &target,
        options: &options,
        journal,
        writer,
        progress,
        content_hashes,
    };
    let result = build.run(&plan.sources, &rejected);
    let Build {
        mut journal,
        progress,
        ..
    } = build;
    progress.finish();
    let rejected = match result {
        Ok(all) => all,
        Err(error) => {
            // The files rejected so far are worth knowing. An error of writing them is not the
            // first one.
            let _ = journal.write_rejected(&rejected);
            if interrupt::requested() {
                output::say(&render_stop(out, &journal));
                return Ok(None);
            }
            return Err(error.context(render_failure(out, &journal)));
        }
    };
    let coverage_lines = coverage.render();
    let report = make_report(out, &journal, plan, rejected, not_video, coverage, began);
    Ok(Some((report, coverage_lines)))
}

/// The state of the thread that appends clips.
struct Build<'a> {
    args: &'a BuildArgs,
    target: &'a Target,
    options: &'a BuildOptions,
    journal: Journal,
    writer: ShardSetWriter,
    progress: Progress,
    /// Hashes of the contents of the videos so far.
    content_hashes: BTreeSet<String>,
}

impl Build<'_> {
    /// Builds `sources`. Returns all rejected files and parts of files, `not_video` first.
    fn run(&mut self, sources: &[Source], not_video: &[Rejected]) -> anyhow::Result<Vec<Rejected>> {
        if sources.is_empty() && self.journal.manifest.finished {
            let shards = self.journal.manifest.shards.clone();
            return self.journal.finish(&shards, not_video);
        }
        let jobs = self.args.jobs();
        // With fewer videos than cores, each decoder uses several.
        let threads = (jobs / sources.len().max(1)).max(1) as u32;
        let timeout = self.args.timeout;
        let options = self.options;
        let supervisor = worker::supervisors(timeout, interrupt::flag())?;
        let objects = sources
            .iter()
            .map(|source| source.input.file.object.as_ref());
        let dir = self.args.scratch();
        let scratch = Scratch::new(&dir, self.args.scratch_size, objects.collect());
        let work = |supervisor: &mut Supervisor,
                    &(index, source): &(usize, &Source),
                    messages: &Sender<Message>| {
            let download = match scratch.wait(index) {
                Ok(download) => download,
                // A video that cannot be had is no bad video: the build stops, and can be resumed.
                Err(error) => {
                    let _ = messages.send(Message::Fatal(output::render_error(&error)));
                    return;
                }
            };
            let task = Task::Build(BuildTask {
                path: source.input.file.path.clone(),
                download,
                segments: source
                    .input
                    .segments
                    .iter()
                    .map(|listed| listed.segment)
                    .collect(),
                options: options.clone(),
                threads,
                timeout,
                skip: source.skip,
            });
            supervise(supervisor, &task, source, messages);
            scratch.remove(index);
        };
        let numbered: Vec<_> = sources.iter().enumerate().collect();
        let take = |&(_, source): &(usize, &Source), messages: Receiver<Message>| {
            self.append_clips(source, &messages)
        };
        let queued = queued_clips(options);
        scratch.run(|| fan_out(&numbered, jobs, queued, supervisor, work, take))?;
        // A part of a plan may be without clips.
        if self.journal.clips() == 0 && self.target.plan.is_none() {
            let records = self.journal.completed();
            let damaged = records.values().filter(|record| is_damaged(record)).count() as u64;
            let advice = render_damage_advice(damaged, records.len() as u64);
            let videos = count(sources.len() as u64, "video");
            bail!(
                "no clips in {videos}{}{}",
                if advice.is_empty() { "" } else { ": " },
                advice.trim_end()
            );
        }
        self.writer.finish()?;
        let shards = self.writer.finished().to_vec();
        self.journal.finish(&shards, not_video)
    }

    /// Appends the clips of one video as they arrive.
    fn append_clips(
        &mut self,
        source: &Source,
        messages: &Receiver<Message>,
    ) -> anyhow::Result<()> {
        let (bytes, modified_ns) = size_and_time(source);
        let label = source.input.label();
        let mut record = VideoRecord {
            path: source.name(),
            bytes,
            modified_ns,
            blake3: String::new(),
            label: label.number,
            class: label.class,
            list_xxh3: source.input.list_xxh3(),
            cuts: None,
            clips: 0,
            padded_clips: 0,
            damaged_clips: 0,
            hdr: false,
            decoded_bytes: 0,
            rejected: Vec::new(),
        };
        loop {
            let message = match messages.recv_timeout(POLL) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if !interrupt::requested() => continue,
                Err(_) => bail!("stopped"),
            };
            match message {
                Message::Identity(blake3) => record.blake3 = self.check_content(source, blake3)?,
                Message::Skipped {
                    flags,
                    decoded_bytes,
                } => count_clip(&mut record, flags, decoded_bytes),
                Message::Cuts(cuts) => record.cuts = Some(cuts),
                Message::Clip(mut meta, segment, clip) => {
                    let listed = &source.input.segments[segment as usize];
                    meta.label = listed.label.number;
                    meta.class = listed.label.class.clone();
                    meta.split = listed
                        .split
                        .clone()
                        .or_else(|| split::of_video(&self.options.split, &record.blake3));
                    meta.segment = listed.name.clone();
                    (meta.segment_start, meta.segment_end) = listed.seconds();
                    count_clip(
                        &mut record,
                        ClipFlags::of(&meta),
                        reading::decoded_bytes(&meta),
                    );
                    if self.writer.push(*meta, clip)? {
                        let open_video = OpenVideo {
                            path: record.path.clone(),
                            blake3: record.blake3.clone(),
                            clips: record.clips,
                        };
                        self.journal
                            .commit(self.writer.finished(), Some(open_video))?;
                    }
                }
                Message::Rejected(rejected) => {
                    self.progress.say(&render_rejected(&rejected));
                    record.rejected.push(rejected);
                }
                Message::Fatal(reason) => bail!("{reason}"),
                Message::Done => break,
            }
        }
        self.journal.record(record);
        self.progress.advance(
            1,
            format!(
                "{} into {}",
                count(self.journal.clips(), "clip"),
                self.target.place.display()
            ),
        );
        Ok(())
    }

    /// Checks that the content of a partly built video has not changed, and notes contents that
    /// occur twice.
    fn check_content(&mut self, source: &Source, blake3: String) -> anyhow::Result<String> {
        let open = self
            .journal
            .manifest
            .open_video
            .as_ref()
            .filter(|open| source.skip > 0 && open.path == source.name());
        ensure!(
            open.is_none_or(|open| open.blake3 == blake3),
            "{}, at which the build was stopped, has different content now; restore it, or rebuild \
             with --force",
            source.name()
        );
        if open.is_none() && !self.content_hashes.insert(blake3.clone()) {
            self.progress.say(&format!(
                "note: {} has the same content as another video; both are kept",
                source.name()
            ));
        }
        Ok(blake3)
    }
}

fn count_clip(record: &mut VideoRecord, flags: ClipFlags, decoded_bytes: u64) {
    record.clips += 1;
    record.padded_clips += u64::from(flags.padded);
    record.damaged_clips += u64::from(flags.damaged);
    record.hdr |= flags.hdr;
    record.decoded_bytes += decoded_bytes;
}
