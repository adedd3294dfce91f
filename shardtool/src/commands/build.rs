//! `shardtool build`: builds shards from videos.
//!
//! Worker processes decode, sample and compress one video each at a time. This process appends the
//! compressed clips in the order of the videos, so that the shards are the same for any number of
//! workers, and keeps the journal.
//!
//! - `plan`: which videos are complete, and which are left to do.
//! - `supervise`: one video in a worker process.
//! - `report`: the report, and messages.

mod plan;
mod report;
mod supervise;

use super::dry_run;
use crate::cli::BuildArgs;
use crate::fan_out::fan_out;
use crate::inputs;
use crate::journal::Journal;
use crate::protocol::{BuildTask, ClipFlags, Task};
use crate::reading;
use crate::split;
use crate::worker;
use anyhow::{bail, ensure};
use console::interrupt;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pipeline::shard::ShardSetWriter;
use pipeline::shard::payload;
use pipeline::video;
use pipeline::worker::Supervisor;
use plan::{Plan, Source, size_and_time};
use report::{
    is_damaged, make_report, render_damage_advice, render_failure, render_rejected, render_report,
    render_stop,
};
use schemas::manifest::{BuildOptions, OpenVideo, Rejected, VideoRecord};
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
pub fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    video::init()?;
    interrupt::listen()?;
    let options = args.options()?;
    payload::check(&options)?;
    let found = inputs::find(args)?;
    if args.dry_run {
        return dry_run::run(args, &options, found);
    }

    let began = Instant::now();
    let mut journal = Journal::open(&args.out, &options, args.force)?;
    let rejected = found.rejected.clone();
    let (not_video, coverage) = (found.not_video, found.coverage.clone());
    let (inputs, classes) = found.number(&journal.manifest.classes);
    journal.classes = classes;
    let plan = Plan::new(&journal, inputs)?;
    for path in &plan.removed {
        output::say(&format!(
            "note: {path} no longer exists; its clips stay in the shards"
        ));
    }
    let writer = ShardSetWriter::new(&args.out, options.clone(), journal.manifest.shards.clone());
    let progress = Progress::new(plan.sources.len() as u64, "{pos}/{len} videos");
    let content_hashes = journal
        .completed()
        .values()
        .map(|record| record.blake3.clone())
        .collect();
    let mut build = Build {
        args,
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
                output::say(&render_stop(args, &journal));
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
            return Err(error.context(render_failure(args, &journal)));
        }
    };
    let coverage_lines = coverage.render();
    let report = make_report(args, &journal, plan, rejected, not_video, coverage, began);
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&render_report(&report, &coverage_lines))?;
    }
    Ok(ExitCode::from(u8::from(
        args.strict && !report.rejected.is_empty(),
    )))
}

/// The state of the thread that appends clips.
struct Build<'a> {
    args: &'a BuildArgs,
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
        let work = |supervisor: &mut Supervisor, source: &Source, messages: &Sender<Message>| {
            let task = Task::Build(BuildTask {
                path: source.input.file.path.clone(),
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
        };
        fan_out(
            sources,
            jobs,
            queued_clips(options),
            supervisor,
            work,
            |source, messages| self.append_clips(source, &messages),
        )?;
        if self.journal.clips() == 0 {
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
                self.args.out.display()
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
