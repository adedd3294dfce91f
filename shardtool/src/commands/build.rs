//! `shardtool build`: videos to shards.
//!
//! Worker processes decode, sample and compress, one video each at a time; this process appends the compressed clips in the order of the videos,
//! so that the shards are the same for any number of workers, and writes down what is done.

use super::dry_run;
use crate::cli::BuildArgs;
use crate::fan_out::fan_out;
use crate::journal::Journal;
use crate::labels::{self, Coverage, Label};
use crate::protocol::{BuildTask, ClipFlags, Failure, Reply, Task};
use crate::reading;
use crate::worker;
use anyhow::{bail, ensure};
use console::interrupt;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pipeline::shard::payload;
use pipeline::shard::{EncodedClip, ShardSetWriter};
use pipeline::video;
use pipeline::video::clips::{Fault, FaultKind};
use pipeline::video::discover::{Discovered, VideoFile, discover, path_name};
use pipeline::worker::{Ending, Reported, Supervisor};
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, OpenVideo, REJECTED_FILE, Rejected, VideoRecord};
use schemas::report::BuildReport;
use schemas::shard::ClipMeta;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bytes of clips before compression that may wait for their turn, for each video in flight.
const QUEUED_BYTES: usize = 32 << 20;

/// How long one wait for a worker lasts before it is seen whether the build is to stop.
const POLL: Duration = Duration::from_millis(100);

/// A video and its label: the unit of work.
#[derive(Debug)]
struct Source {
    file: VideoFile,
    label: Label,
    /// Clips of it that finished shards hold already.
    skip: u64,
}

impl Source {
    fn name(&self) -> String {
        path_name(&self.file.path)
    }
}

/// What is said of a video.
enum Message {
    Identity(String),
    Skipped {
        flags: ClipFlags,
        decoded_bytes: u64,
    },
    Clip(Box<ClipMeta>, EncodedClip),
    Rejected(Rejected),
    /// The build is to stop, and why.
    Fatal(String),
    /// Nothing more comes.
    Done,
}

/// Runs the command.
///
/// # Errors
/// What the user can mend: no videos, a folder that is taken, a full disk.
pub fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    video::init()?;
    interrupt::listen()?;
    let options = args.options()?;
    payload::check(&options)?;
    let mut discovered = discover(&args.videos);
    for rejected in &discovered.rejected {
        output::say(&format!("rejected {}: {}", rejected.path, rejected.reason));
    }
    if discovered.videos.is_empty() {
        bail!("no video among {}", count(discovered.rejected.len() as u64 + discovered.not_video, "file"));
    }
    let videos = std::mem::take(&mut discovered.videos);
    let found = labels::find(&videos, &args.labels)?;
    let coverage = found.coverage.clone();
    if args.dry_run {
        return dry_run::run(args, &options, &videos, discovered, coverage);
    }

    let began = Instant::now();
    let mut journal = Journal::open(&args.out, &options, args.force)?;
    let labels = found.number(&journal.manifest.classes);
    journal.classes = labels.classes;
    let sources = videos.into_iter().zip(labels.labels).map(|(file, label)| Source { file, label, skip: 0 }).collect();
    let plan = Plan::new(&journal, sources)?;
    for path in &plan.removed {
        output::say(&format!("note: {path} is not there any more; its clips stay in the shards"));
    }
    let writer = ShardSetWriter::new(&args.out, options.clone(), journal.manifest.shards.clone());
    let progress = Progress::new(plan.sources.len() as u64, "{pos}/{len} videos");
    let contents = journal.known().values().map(|record| record.blake3.clone()).collect();
    let mut build = Build { args, options: &options, journal, writer, progress, contents };
    let result = build.run(&plan.sources, &discovered.rejected);
    let Build { mut journal, progress, .. } = build;
    progress.finish();
    let rejected = match result {
        Ok(rejected) => rejected,
        Err(error) => {
            // What was left out until then is worth knowing; that it cannot be written is not the first thing that went wrong.
            let _ = journal.write_rejected(&discovered.rejected);
            if interrupt::requested() {
                output::say(&stopped(args, &journal));
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
            return Err(error.context(unfinished(args, &journal)));
        }
    };
    let label_lines = coverage.lines();
    let report = report(args, &journal, rejected, &discovered, coverage, plan, began);
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&summary(&report, &label_lines))?;
    }
    Ok(ExitCode::from(u8::from(args.strict && !report.rejected.is_empty())))
}

/// What is left to do.
struct Plan {
    sources: Vec<Source>,
    /// Videos that are done.
    known: u64,
    /// Videos that are done, and no longer there.
    removed: Vec<String>,
}

impl Plan {
    /// Compares the videos that there are with those that are done.
    fn new(journal: &Journal, sources: Vec<Source>) -> anyhow::Result<Self> {
        let mut done = journal.known();
        let (mut todo, mut known, mut changed) = (Vec::new(), 0, Vec::new());
        for source in sources {
            let Some(record) = done.remove(source.name().as_str()) else {
                todo.push(source);
                continue;
            };
            let same_label = (record.label, &record.class) == (source.label.number, &source.label.class);
            match (is_same_file(&source, record), same_label) {
                (true, true) => known += 1,
                // Of what gave nothing, nothing has to stay.
                _ if record.clips == 0 => todo.push(source),
                (false, _) => changed.push(format!("{} has another content", source.name())),
                (true, false) => changed.push(format!("{} has another label", source.name())),
            }
        }
        if let Some(open) = &journal.manifest.open_video {
            match todo.iter().position(|source| source.name() == open.path) {
                Some(index) => todo[..=index].rotate_right(1),
                None => changed.push(format!("{}, at which the build was stopped, is not there any more", open.path)),
            }
            todo.first_mut().into_iter().for_each(|source| source.skip = open.clips);
        }
        ensure!(
            changed.is_empty(),
            "since these shards were built, their videos have changed: {}; restore them, give another --out, or --force to build anew",
            changed.join("; ")
        );
        let removed = done.into_values().filter(|record| record.clips > 0).map(|record| record.path.clone()).collect();
        Ok(Self { sources: todo, known, removed })
    }
}

/// Whether the file is the one that was recorded: the same size and time, or else the same content.
fn is_same_file(source: &Source, record: &VideoRecord) -> bool {
    let (bytes, modified_ns) = size_and_time(source);
    if (bytes, modified_ns) == (record.bytes, record.modified_ns) {
        return true;
    }
    let mut hasher = blake3::Hasher::new();
    let hashed = fs::File::open(&source.file.path).and_then(|file| hasher.update_reader(file).map(drop));
    bytes == record.bytes && hashed.is_ok() && hasher.finalize().to_hex().as_str() == record.blake3
}

/// Size in bytes, and time of the last change in nanoseconds since 1970; zeros when the file is not there.
fn size_and_time(source: &Source) -> (u64, i64) {
    fs::metadata(&source.file.path).map_or((0, 0), |file| (file.len(), file.mtime() * 1_000_000_000 + file.mtime_nsec()))
}

/// The build as the appending thread sees it.
struct Build<'a> {
    args: &'a BuildArgs,
    options: &'a BuildOptions,
    journal: Journal,
    writer: ShardSetWriter,
    progress: Progress,
    /// Hashes of the videos so far.
    contents: std::collections::BTreeSet<String>,
}

impl Build<'_> {
    /// Builds `sources`; returns all that was left out, `not_video` first.
    fn run(&mut self, sources: &[Source], not_video: &[Rejected]) -> anyhow::Result<Vec<Rejected>> {
        if sources.is_empty() && self.journal.manifest.finished {
            let shards = self.journal.manifest.shards.clone();
            return self.journal.finish(&shards, not_video);
        }
        let jobs = self.args.jobs();
        // With fewer videos than cores, the decoders themselves use the rest.
        let threads = (jobs / sources.len().max(1)).max(1) as u32;
        let timeout = self.args.timeout;
        let options = self.options;
        let supervisor = worker::supervisors(timeout, interrupt::flag())?;
        let work = |supervisor: &mut Supervisor, source: &Source, messages: &Sender<Message>| {
            let task =
                Task::Build(BuildTask { path: source.file.path.clone(), options: options.clone(), threads, timeout, skip: source.skip });
            supervise(supervisor, &task, source, messages);
        };
        fan_out(sources, jobs, queued_clips(options), supervisor, work, |source, messages| self.take(source, &messages))?;
        if self.journal.clips() == 0 {
            let records = self.journal.known();
            let damaged = records.values().filter(|record| is_damaged(record)).count() as u64;
            let all = records.len() as u64;
            let advice = mostly_damaged(damaged, all);
            let videos = count(sources.len() as u64, "video");
            bail!("none of {videos} gave a clip{}{}", if advice.is_empty() { "" } else { ": " }, advice.trim_end());
        }
        self.writer.finish()?;
        let shards = self.writer.finished().to_vec();
        self.journal.finish(&shards, not_video)
    }

    /// Appends the clips of one video as they come.
    fn take(&mut self, source: &Source, messages: &Receiver<Message>) -> anyhow::Result<()> {
        let (bytes, modified_ns) = size_and_time(source);
        let mut record = VideoRecord {
            path: source.name(),
            bytes,
            modified_ns,
            blake3: String::new(),
            label: source.label.number,
            class: source.label.class.clone(),
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
                Message::Identity(blake3) => record.blake3 = self.identify(source, blake3)?,
                Message::Skipped { flags, decoded_bytes } => count_clip(&mut record, flags, decoded_bytes),
                Message::Clip(mut meta, clip) => {
                    (meta.label, meta.class) = (record.label, record.class.clone());
                    count_clip(&mut record, ClipFlags::of(&meta), reading::decoded_bytes(&meta));
                    if self.writer.push(*meta, clip)? {
                        let open = OpenVideo { path: record.path.clone(), blake3: record.blake3.clone(), clips: record.clips };
                        self.journal.commit(self.writer.finished(), Some(open))?;
                    }
                }
                Message::Rejected(rejected) => {
                    self.progress.say(&rejection(&rejected));
                    record.rejected.push(rejected);
                }
                Message::Fatal(reason) => bail!("{reason}"),
                Message::Done => break,
            }
        }
        self.journal.record(record);
        self.progress.advance(1, format!("{} into {}", count(self.journal.clips(), "clip"), self.args.out.display()));
        Ok(())
    }

    fn identify(&mut self, source: &Source, blake3: String) -> anyhow::Result<String> {
        let open = self.journal.manifest.open_video.as_ref().filter(|open| source.skip > 0 && open.path == source.name());
        ensure!(
            open.is_none_or(|open| open.blake3 == blake3),
            "{}, at which the build was stopped, has another content now; restore it, or --force to build anew",
            source.name()
        );
        if open.is_none() && !self.contents.insert(blake3.clone()) {
            self.progress.say(&format!("note: {} has the same content as another video; both are kept", source.name()));
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

/// Clips that may wait, for each video in flight: as many as fit the budget, if frames are twice as long as wide.
fn queued_clips(options: &BuildOptions) -> usize {
    let side = options.short_side as usize;
    let clip_bytes = options.frames as usize * FrameSize { width: 2 * side, height: side }.frame_bytes();
    (QUEUED_BYTES / clip_bytes).clamp(1, 16)
}

/// Has a worker make the clips of one video, and passes on its replies.
fn supervise(supervisor: &mut Supervisor, task: &Task, source: &Source, messages: &Sender<Message>) {
    let mut clips = 0;
    // Nobody receives any more only when the build itself has failed.
    let ending = supervisor.run(task, |reply: Reply, bytes| {
        let message = match reply {
            Reply::Probed(_) => return Ok(Reported::More),
            Reply::Identity { blake3 } => Message::Identity(blake3),
            Reply::Skipped { flags, decoded_bytes } => {
                clips += 1;
                Message::Skipped { flags, decoded_bytes }
            }
            Reply::Clip { meta, uncompressed_bytes, xxh3, stored_bytes } => {
                clips += 1;
                let mut body = vec![0; stored_bytes];
                bytes.read_exact(&mut body)?;
                Message::Clip(meta, EncodedClip { body, uncompressed_bytes, xxh3 })
            }
            Reply::Built { faults } => {
                for Fault { seconds, reason, kind, clips } in faults {
                    let _ = messages.send(Message::Rejected(Rejected {
                        path: source.name(),
                        reason,
                        seconds: Some(seconds),
                        clips: Some(clips),
                        kind: Some(kind),
                    }));
                }
                return Ok(Reported::Done);
            }
        };
        messages.send(message).map_err(|_| io::ErrorKind::ConnectionAborted)?;
        Ok(Reported::More)
    });
    let reject = |reason: String, seconds| {
        let rejected = Rejected { seconds, ..Rejected::file(source.name(), after(reason, clips)) };
        let _ = messages.send(Message::Rejected(rejected));
    };
    let last = match ending {
        Ok(Ending::Done) => Message::Done,
        Ok(Ending::Failed(Failure { reason, seconds, stops_build: true })) => {
            let place = seconds.map_or(String::new(), |(from, _)| format!(" at {from:.2} s"));
            let advice = "--on-corrupt keep-good goes on without the damaged clips";
            Message::Fatal(format!("{} is damaged{place}: {reason}; {advice}", source.name()))
        }
        Ok(Ending::Failed(Failure { reason, seconds, .. })) => {
            reject(reason, seconds);
            Message::Done
        }
        Ok(Ending::Lost(reason)) => {
            reject(reason, None);
            Message::Done
        }
        Ok(Ending::Stopped) => return,
        Err(error) => Message::Fatal(error.to_string()),
    };
    let _ = messages.send(last);
}

/// The reason why a video ended, with the clips that came before.
fn after(reason: String, clips: u64) -> String {
    if clips == 0 { reason } else { format!("{reason} (after {}, kept)", count(clips, "clip")) }
}

fn rejection(rejected: &Rejected) -> String {
    match (rejected.seconds, rejected.clips) {
        (Some((from, to)), Some(clips)) => {
            let lost = if clips == 0 { "no clip lost".to_owned() } else { format!("{} left out", count(clips, "clip")) };
            format!("{} from {from:.2} to {to:.2} s: {}; {lost}", rejected.path, rejected.reason)
        }
        _ => format!("rejected {}: {}", rejected.path, rejected.reason),
    }
}

/// Whether frames of a video are damaged.
fn is_damaged(record: &VideoRecord) -> bool {
    record.damaged_clips > 0 || record.rejected.iter().any(|line| line.kind == Some(FaultKind::Damage))
}

/// What to make of a build in which most videos are damaged; empty for others.
fn mostly_damaged(damaged: u64, videos: u64) -> String {
    if damaged * 2 <= videos || damaged == 0 {
        return String::new();
    }
    format!(
        "most videos ({damaged} of {videos}) are called damaged: if they play without faults elsewhere, \
         --on-corrupt keep keeps all clips and marks these in a column (and please report it)\n"
    )
}

fn unfinished(args: &BuildArgs, journal: &Journal) -> String {
    match journal.manifest.shards.len() as u64 {
        0 => format!("the build into {} has failed", args.out.display()),
        shards => format!(
            "the build into {} has stopped; {} are whole and can be used, and the same command goes on from there",
            args.out.display(),
            count(shards, "shard")
        ),
    }
}

fn stopped(args: &BuildArgs, journal: &Journal) -> String {
    let shards = count(journal.manifest.shards.len() as u64, "shard");
    format!("stopped: {shards} of {} are whole; run the same command again to go on", args.out.display())
}

fn report(
    args: &BuildArgs,
    journal: &Journal,
    rejected: Vec<Rejected>,
    discovered: &Discovered,
    coverage: Coverage,
    plan: Plan,
    began: Instant,
) -> BuildReport {
    let records: BTreeMap<_, _> = journal.known();
    let sum = |get: fn(&VideoRecord) -> u64| records.values().map(|record| get(record)).sum::<u64>();
    let manifest = &journal.manifest;
    let left_out = |is_gap: bool| {
        let lines = rejected.iter().filter(move |line| (line.kind == Some(FaultKind::Gap)) == is_gap);
        lines.filter_map(|line| line.clips).sum::<u64>()
    };
    BuildReport {
        out: args.out.display().to_string(),
        videos: sum(|record| u64::from(record.clips > 0)),
        clips: manifest.clips,
        damaged_clips: left_out(false),
        damaged_videos: records.values().filter(|record| is_damaged(record)).count() as u64,
        kept_damaged_clips: sum(|record| record.damaged_clips),
        gap_clips: left_out(true),
        hdr_videos: sum(|record| u64::from(record.hdr)),
        padded_clips: sum(|record| record.padded_clips),
        shards: manifest.shards.len() as u64,
        stored_bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
        decoded_bytes: sum(|record| record.decoded_bytes),
        known_videos: plan.known,
        removed_videos: plan.removed,
        rejected,
        not_video: discovered.not_video,
        unlabelled: coverage.unlabelled,
        unlabelled_examples: coverage.unlabelled_examples,
        unmatched_labels: coverage.unmatched,
        unmatched_label_examples: coverage.unmatched_examples,
        classes: manifest.classes.clone(),
        seconds: began.elapsed().as_secs_f64(),
    }
}

fn summary(report: &BuildReport, label_lines: &[String]) -> String {
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
        text += &format!("{} done in an earlier run\n", count(report.known_videos, "video"));
    }
    if report.padded_clips > 0 {
        text += &format!("{} padded with the last frame of a video that is shorter than a clip\n", count(report.padded_clips, "clip"));
    }
    if report.damaged_clips > 0 {
        text += &format!("{} left out: damaged\n", count(report.damaged_clips, "clip"));
    }
    if report.kept_damaged_clips > 0 {
        text += &format!("{} kept with damaged frames: see their column \"damaged\"\n", count(report.kept_damaged_clips, "clip"));
    }
    if report.gap_clips > 0 {
        text += &format!("{} left out: in gaps without frames\n", count(report.gap_clips, "clip"));
    }
    if report.hdr_videos > 0 {
        text += &format!(
            "{} of high dynamic range, stored as decoded: flat and dark beside standard video (column \"color_transfer\")\n",
            count(report.hdr_videos, "video")
        );
    }
    text += &mostly_damaged(report.damaged_videos, report.damaged_videos.max(report.videos));
    if !report.rejected.is_empty() {
        let lines = report.rejected.len();
        text += &format!("{lines} rejected, whole files or parts of them, with reasons in {}/{REJECTED_FILE}\n", report.out);
    }
    if report.not_video > 0 {
        text += &format!("{} left out: not video\n", count(report.not_video, "file"));
    }
    label_lines.iter().for_each(|line| text += &format!("{line}\n"));
    text + &format!("next: trainer run --data {}", report.out)
}
