//! `shardtool build`: videos to shards.
//!
//! Workers decode, sample and compress, one video each at a time; this thread appends the compressed clips in the order of the videos, so that
//! the shards are the same for any number of workers.

use crate::cli::BuildArgs;
use crate::discover::{VideoFile, discover};
use crate::fan_out::fan_out;
use crate::labels::{Label, label};
use crate::output::{self, Progress, count};
use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use pipeline::atomic_file::{self, TEMPORARY_ENDING};
use pipeline::shard::{EncodedClip, ShardSetWriter, page};
use pipeline::video::clips::{Clip, ClipDecoder, ClipSource, clip_starts, video_ticks};
use pipeline::video::decode::DecodeOptions;
use pipeline::video::{self, VideoProbe};
use schemas::manifest::{BuildOptions, MANIFEST_FILE, Manifest, REJECTED_FILE, Rejected};
use schemas::report::{BuildReport, DryRunReport};
use schemas::shard::{ClipMeta, FORMAT_VERSION};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Compressed clips that wait for their turn, for each video in flight.
const QUEUED_CLIPS: usize = 16;

/// Stored over decoded bytes of I420 with zstd, as measured on real footage; for estimates only.
const USUAL_RATIO: f64 = 0.45;

/// A video and its label: the unit of work.
struct Source {
    file: VideoFile,
    label: Label,
}

/// What a worker says of its video.
enum Message {
    Clip(Box<ClipMeta>, EncodedClip),
    Failed(String),
}

/// Runs the command.
///
/// # Errors
/// What the user can mend: no videos, a folder that is taken, a full disk.
pub fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    video::init()?;
    let options = args.options()?;
    let discovered = discover(&args.videos);
    for rejected in &discovered.rejected {
        output::say(&format!("rejected {}: {}", rejected.path, rejected.reason));
    }
    if discovered.videos.is_empty() {
        bail!("no video among {}", count(discovered.rejected.len() as u64 + discovered.not_video, "file"));
    }
    let labels = label(&discovered.videos, &args.labels)?;
    let sources: Vec<Source> = discovered.videos.into_iter().zip(labels.labels).map(|(file, label)| Source { file, label }).collect();
    if args.dry_run {
        return dry_run(args, &options, &sources, discovered.rejected, discovered.not_video);
    }

    let began = Instant::now();
    prepare_folder(&args.out, args.force)?;
    let mut build = Build {
        args,
        writer: ShardSetWriter::new(&args.out, options.clone(), Vec::new()),
        progress: Progress::new(sources.len() as u64, "videos"),
        rejected: discovered.rejected,
        contents: BTreeSet::new(),
        videos: 0,
        clips: 0,
        padded_clips: 0,
        decoded_bytes: 0,
    };
    let jobs = args.jobs();
    // With fewer videos than cores, the decoders themselves use the rest.
    let decode = DecodeOptions { threads: (jobs / sources.len()).max(1) as u32, timeout: Duration::from_secs_f64(args.timeout) };
    let work = |source: &Source, messages: &Sender<Message>| {
        if let Err(error) = build_video(source, &options, decode, messages) {
            // Nobody listens any more only when the build itself has failed.
            let _ = messages.send(Message::Failed(format!("{error:#}")));
        }
    };
    fan_out(&sources, jobs, QUEUED_CLIPS, work, |source, messages| build.take(source, messages))?;
    let Build { writer, progress, rejected, videos, clips, padded_clips, decoded_bytes, .. } = build;
    progress.finish();
    if clips == 0 {
        bail!("none of {} gave a clip", count(sources.len() as u64, "video"));
    }
    let shards = writer.finish()?;
    let stored_bytes = shards.iter().map(|shard| shard.bytes).sum();
    let shard_count = shards.len() as u64;
    write_rejected(&args.out, &rejected)?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        created_by: concat!("shardtool ", env!("CARGO_PKG_VERSION")).to_owned(),
        options,
        classes: labels.classes.clone(),
        shards,
        clips,
        videos,
        finished: true,
        open_video: None,
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    atomic_file::write(&args.out.join(MANIFEST_FILE), &json).context("cannot write the manifest")?;

    let report = BuildReport {
        out: args.out.display().to_string(),
        videos,
        clips,
        damaged_clips: 0,
        known_videos: 0,
        removed_videos: Vec::new(),
        padded_clips,
        shards: shard_count,
        stored_bytes,
        decoded_bytes,
        not_video: discovered.not_video,
        unlabelled: labels.unlabelled,
        classes: labels.classes,
        seconds: began.elapsed().as_secs_f64(),
        rejected,
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&summary(&report))?;
    }
    Ok(ExitCode::from(u8::from(args.strict && !report.rejected.is_empty())))
}

/// The build as the appending thread sees it.
struct Build<'a> {
    args: &'a BuildArgs,
    writer: ShardSetWriter,
    progress: Progress,
    rejected: Vec<Rejected>,
    /// Hashes of the videos so far.
    contents: BTreeSet<String>,
    videos: u64,
    clips: u64,
    padded_clips: u64,
    decoded_bytes: u64,
}

impl Build<'_> {
    /// Appends the clips of one video as they come.
    fn take(&mut self, source: &Source, messages: crossbeam_channel::Receiver<Message>) -> anyhow::Result<()> {
        let mut clips = 0;
        for message in messages {
            match message {
                Message::Clip(meta, clip) => {
                    clips += 1;
                    self.padded_clips += u64::from(meta.repeated_frames > 0);
                    self.decoded_bytes += (clip.uncompressed_bytes - page::LENGTH_BYTES) as u64;
                    if clips == 1 && !self.contents.insert(meta.video_blake3.clone()) {
                        self.progress.line(&format!("note: {} has the same content as another video; both are kept", meta.video));
                    }
                    self.writer.push(*meta, clip)?;
                }
                Message::Failed(reason) => {
                    let kept = if clips == 0 { String::new() } else { format!(" (after {}, which are kept)", count(clips, "clip")) };
                    let rejected = Rejected::file(source.file.path.display(), reason + &kept);
                    self.progress.line(&format!("rejected {}: {}", rejected.path, rejected.reason));
                    self.rejected.push(rejected);
                }
            }
        }
        self.clips += clips;
        self.videos += u64::from(clips > 0);
        self.progress.advance(format!("{} into {}", count(self.clips, "clip"), self.args.out.display()));
        Ok(())
    }
}

/// A worker's part: decodes one video and sends its clips, compressed.
fn build_video(source: &Source, options: &BuildOptions, decode: DecodeOptions, messages: &Sender<Message>) -> anyhow::Result<()> {
    let path = &source.file.path;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    let hash = hasher.finalize().to_hex().to_string();
    let mut decoder = ClipDecoder::open(path, options, decode)?;
    while let Some(clip) = decoder.next_clip()? {
        let encoded = page::encode(&clip.data, options.level)?;
        let meta = clip_meta(source, &hash, options, decoder.source(), clip);
        if messages.send(Message::Clip(Box::new(meta), encoded)).is_err() {
            break;
        }
    }
    Ok(())
}

fn clip_meta(source: &Source, hash: &str, options: &BuildOptions, video: &ClipSource, clip: Clip) -> ClipMeta {
    ClipMeta {
        video: source.file.path.to_string_lossy().into_owned(),
        video_blake3: hash.to_owned(),
        clip: clip.index,
        label: source.label.number,
        class: source.label.class.clone(),
        frames: options.frames,
        stride: options.stride,
        fps: options.sampling.fps(),
        width: video.size.width as u32,
        height: video.size.height as u32,
        pts_ns: clip.pts_ns,
        repeated_frames: clip.repeated_frames,
        source_width: video.source_size.width as u32,
        source_height: video.source_size.height as u32,
        rotation: video.orientation.rotation,
        mirrored: video.orientation.mirrored,
        deinterlaced: false,
        pixel_format: video.pixel_format.to_owned(),
        color_range: video.color_range,
        color_matrix: video.color_matrix,
        codec: video.codec.clone(),
        decoder: video.decoder.clone(),
        payload: options.payload,
        // The writer knows it from the encoded clip.
        data_xxh3: 0,
    }
}

/// Makes the folder ready for a new build.
fn prepare_folder(out: &Path, force: bool) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut earlier = Vec::new();
    for entry in fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_shard = name.starts_with("shard-") && name.ends_with(".parquet");
        if name.ends_with(TEMPORARY_ENDING) && name.starts_with("shard-") {
            // Nobody else's: a build that was killed leaves it.
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        } else if is_shard || name == MANIFEST_FILE || name == REJECTED_FILE {
            earlier.push(path);
        }
    }
    if earlier.is_empty() {
        return Ok(());
    }
    if !force {
        let state = if earlier.iter().any(|path| path.ends_with(MANIFEST_FILE)) { "a finished build" } else { "an unfinished build" };
        bail!("{} already holds {state}; give another --out, or --force to replace it", out.display());
    }
    // The manifest goes first: without it, nobody takes what is left for a finished build.
    earlier.sort_by_key(|path| !path.ends_with(MANIFEST_FILE));
    for path in earlier {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn write_rejected(out: &Path, rejected: &[Rejected]) -> anyhow::Result<()> {
    let lines: Vec<String> = rejected.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    atomic_file::write(&out.join(REJECTED_FILE), text.as_bytes()).context("cannot write the list of rejected files")
}

fn summary(report: &BuildReport) -> String {
    let mut text = format!(
        "{} from {} in {}: {} stored, {} decoded, {:.1} s\n",
        count(report.clips, "clip"),
        count(report.videos, "video"),
        count(report.shards, "shard"),
        output::bytes(report.stored_bytes),
        output::bytes(report.decoded_bytes),
        report.seconds
    );
    if report.padded_clips > 0 {
        text += &format!("{} padded with the last frame of a video that is shorter than a clip\n", count(report.padded_clips, "clip"));
    }
    if !report.rejected.is_empty() {
        text += &format!("{} rejected, with reasons in {}/{REJECTED_FILE}\n", count(report.rejected.len() as u64, "file"), report.out);
    }
    if report.not_video > 0 {
        text += &format!("{} left out: not video\n", count(report.not_video, "file"));
    }
    if report.unlabelled > 0 {
        text += &format!("{} without a label\n", count(report.unlabelled, "video"));
    }
    text + &format!("next: trainer run --data {}", report.out)
}

/// Counts what a build would give, from the packets of each video.
fn dry_run(
    args: &BuildArgs,
    options: &BuildOptions,
    sources: &[Source],
    rejected: Vec<Rejected>,
    not_video: u64,
) -> anyhow::Result<ExitCode> {
    let mut report = DryRunReport {
        out: args.out.display().to_string(),
        videos: 0,
        video_seconds: 0.0,
        clips: 0,
        decoded_bytes: 0,
        estimated_bytes: 0,
        free_bytes: free_bytes(&args.out)?,
        rejected,
        not_video,
    };
    let mut progress = Progress::new(sources.len() as u64, "videos");
    let timeout = Duration::from_secs_f64(args.timeout);
    let work = |source: &Source, results: &Sender<_>| drop(results.send(video::probe(&source.file.path, timeout)));
    fan_out(sources, args.jobs(), 1, work, |source, results| {
        match results.recv()? {
            Ok(probe) => add_probe(&mut report, options, &probe),
            Err(error) => {
                let path = source.file.path.display().to_string();
                progress.line(&format!("rejected {path}: {error}"));
                report.rejected.push(Rejected::file(path, error));
            }
        }
        progress.advance(count(report.clips, "clip"));
        Ok(())
    })?;
    progress.finish();
    let ratio = if options.level == 0 { 1.0 } else { USUAL_RATIO };
    report.estimated_bytes = (report.decoded_bytes as f64 * ratio) as u64;
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&format!(
            "{} of {:.1} s would give {}: {} decoded, about {} stored; {} are free in {}\n{} rejected, {} left out: not video",
            count(report.videos, "video"),
            report.video_seconds,
            count(report.clips, "clip"),
            output::bytes(report.decoded_bytes),
            output::bytes(report.estimated_bytes),
            output::bytes(report.free_bytes),
            report.out,
            count(report.rejected.len() as u64, "file"),
            count(report.not_video, "file"),
        ))?;
    }
    Ok(ExitCode::from(u8::from(args.strict && !report.rejected.is_empty())))
}

fn add_probe(report: &mut DryRunReport, options: &BuildOptions, probe: &VideoProbe) {
    let clips = clip_starts(options, video_ticks(options, probe)).len() as u64;
    let size = probe.orientation.upright_size(probe.size).scaled_to_short_side(options.short_side as usize);
    report.videos += 1;
    report.video_seconds += probe.seconds();
    report.clips += clips;
    report.decoded_bytes += clips * u64::from(options.frames) * size.frame_bytes() as u64;
}

/// Bytes free where `folder` is or would be made.
fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let status = rustix::fs::statvfs(existing).with_context(|| format!("cannot ask for the free space of {}", existing.display()))?;
    Ok(status.f_bavail * status.f_frsize)
}
