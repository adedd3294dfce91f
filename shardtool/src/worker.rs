//! The worker process: decodes one video at a time and sends its clips, compressed.

use crate::protocol::{BuildTask, ClipFlags, Failure, Reply, Task};
use anyhow::Context;
use pipeline::frames::Color;
use pipeline::shard::page;
use pipeline::shard::payload;
use pipeline::video;
use pipeline::video::clips::{Clip, ClipDecoder, ClipPlanner, ClipSource, Fault, FaultKind, Step};
use pipeline::video::decode::DecodeOptions;
use pipeline::video::discover::{self, io_reason, path_name};
use pipeline::video::measure;
use pipeline::video::media::{LocalVideo, Media};
use pipeline::worker::{self, Supervisor, WorkerError, WorkerProgram};
use schemas::manifest::{BuildOptions, OnCorrupt};
use schemas::shard::{ClipMeta, ColorRange, Scores};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

type End = worker::End<Failure>;
type Replies = worker::Replies<Reply>;

/// Does tasks until the build gives no more.
///
/// # Errors
/// Those of [`worker::serve`].
pub fn run() -> Result<(), WorkerError> {
    worker::serve(|task, replies| match task {
        Task::Build(task) => build(replies, &task),
        Task::Probe {
            path,
            download,
            options,
            timeout,
        } => {
            let timeout = Duration::from_secs_f64(timeout);
            let path = bytes_of(&path, &download)?;
            let local = Media::of(path).and_then(|media| LocalVideo::open(path, &media));
            let local = local.map_err(|error| failed(io_reason(&error)))?;
            let probe = video::probe(local.path(), &options, timeout).map_err(failed)?;
            Ok(replies.send(&Reply::Probed(probe))?)
        }
    })
}

/// Returns a function that makes supervisors of this program itself, started as a worker that may
/// make no progress for `timeout` seconds. Once `stop` is set, they wait no longer.
///
/// # Errors
/// When this program's own file cannot be found.
pub fn supervisors(timeout: f64, stop: Arc<AtomicBool>) -> anyhow::Result<impl Fn() -> Supervisor> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let program = WorkerProgram {
        path,
        argument: crate::cli::WORKER.to_owned(),
    };
    Ok(move || {
        Supervisor::new(
            program.clone(),
            Duration::from_secs_f64(timeout),
            Arc::clone(&stop),
        )
    })
}

fn failed(reason: impl ToString) -> End {
    End::Failed(reason.to_string().into())
}

/// Returns the path by which the bytes of the video at `path` are read. What was downloaded is known
/// by its name only, and must be a video.
fn bytes_of<'a>(path: &'a Path, download: &'a Option<PathBuf>) -> Result<&'a Path, End> {
    let Some(download) = download else {
        return Ok(path);
    };
    match discover::refusal(download) {
        Some(reason) => Err(failed(reason)),
        None => Ok(download),
    }
}

fn build(replies: &mut Replies, task: &BuildTask) -> Result<(), End> {
    let BuildTask { path, options, .. } = task;
    let bytes = bytes_of(path, &task.download)?;
    let timeout = Duration::from_secs_f64(task.timeout);
    let decode = DecodeOptions::of_build(task.threads, timeout, options);
    let media = Media::of(bytes).map_err(|error| failed(io_reason(&error)))?;
    let blake3 = hash(replies, bytes, &media)?;
    replies.send(&Reply::Identity {
        blake3: blake3.clone(),
    })?;
    let local = LocalVideo::open(bytes, &media).map_err(|error| failed(io_reason(&error)))?;
    if matches!(options.on_corrupt, OnCorrupt::Skip | OnCorrupt::Fail) {
        refuse_damage(replies, local.path(), options, decode)?;
    }
    let mut planner =
        ClipPlanner::new(local.path(), options, decode, &task.segments).map_err(failed)?;
    while planner.step().map_err(failed)? {
        replies.alive()?;
    }
    let mut decoder = ClipDecoder::open_planned(local.path(), options, decode, planner.finish())
        .map_err(failed)?;
    let mut valid = 0;
    let mut damaged = Vec::new();
    loop {
        replies.alive()?;
        match decoder.step() {
            Ok(Step::Frame) => {}
            Ok(Step::Clip(clip)) if clip.damaged && options.on_corrupt != OnCorrupt::Keep => {
                damaged.push(clip.pts_ns);
            }
            Ok(Step::Clip(clip)) => {
                valid += 1;
                if valid <= task.skip {
                    let decoded_bytes = clip.data.len() as u64;
                    let meta = clip_meta(path, &blake3, options, decoder.source(), clip, None);
                    replies.send(&Reply::Skipped {
                        flags: ClipFlags::of(&meta),
                        decoded_bytes,
                    })?;
                } else {
                    send_clip(replies, path, &blake3, options, decoder.source(), clip)?;
                }
            }
            Ok(Step::End) => break,
            Err(error) => {
                let end = decoder.end_seconds();
                let seconds = (valid > 0).then_some((end, end));
                return Err(End::Failed(Failure {
                    seconds,
                    ..error.to_string().into()
                }));
            }
        }
    }
    Ok(replies.send(&Reply::Built {
        faults: charge(decoder.faults(), &damaged),
        cuts: options.scenes.map(|_| decoder.cuts()),
    })?)
}

/// Decodes the whole video, without keeping its clips, and fails if any of it is damaged.
fn refuse_damage(
    replies: &mut Replies,
    path: &Path,
    options: &BuildOptions,
    decode: DecodeOptions,
) -> Result<(), End> {
    let mut decoder = ClipDecoder::open(path, options, decode).map_err(failed)?;
    while decoder.step().map_err(failed)? != Step::End {
        replies.alive()?;
    }
    match decoder.faults().into_iter().find(is_damage) {
        None => Ok(()),
        Some(Fault {
            seconds, reason, ..
        }) => {
            let stops_build = options.on_corrupt == OnCorrupt::Fail;
            Err(End::Failed(Failure {
                reason,
                seconds: Some(seconds),
                stops_build,
            }))
        }
    }
}

/// BLAKE3 of the video's bytes, in hex.
fn hash(replies: &mut Replies, path: &Path, media: &Media) -> Result<String, End> {
    let mut hasher = blake3::Hasher::new();
    let mut gone = None;
    let read = media.read(path, |block| {
        hasher.update(block);
        replies
            .alive()
            .inspect_err(|error| gone = Some(error.kind()))
    });
    match (gone, read) {
        (Some(kind), _) => Err(End::Gone(kind.into())),
        (None, Err(error)) => Err(failed(io_reason(&error))),
        (None, Ok(())) => Ok(hasher.finalize().to_hex().to_string()),
    }
}

fn send_clip(
    replies: &mut Replies,
    path: &Path,
    blake3: &str,
    options: &BuildOptions,
    video: &ClipSource,
    clip: Clip,
) -> Result<(), End> {
    let color = Color {
        range: video.color_range,
        matrix: video.color_matrix,
    };
    let is_full = video.color_range == ColorRange::Full;
    let scores = measure::scores::scores(&clip.data, video.size, is_full, clip.cut);
    let segment = clip.segment;
    let payload = payload::encode(&clip.data, video.size, color, options).map_err(failed)?;
    let encoded =
        page::encode(&payload, options.payload, options.frames, options.level).map_err(failed)?;
    let reply = Reply::Clip {
        meta: Box::new(clip_meta(path, blake3, options, video, clip, Some(scores))),
        segment,
        uncompressed_bytes: encoded.uncompressed_bytes,
        xxh3: encoded.xxh3,
        parts: encoded.parts,
        stored_bytes: encoded.body.len(),
    };
    Ok(replies.send_with(&reply, [encoded.body.as_slice()])?)
}

/// Counts each skipped clip, given by the times of its frames, with the first fault that it
/// overlaps.
fn charge(faults: Vec<Fault>, damaged: &[Vec<i64>]) -> Vec<Fault> {
    let mut charged = faults;
    for times in damaged {
        let last = times.last().map_or(f64::MAX, |&ns| ns as f64 / 1e9);
        let first = times.first().map_or(0.0, |&ns| ns as f64 / 1e9);
        let touches = |fault: &Fault| fault.seconds.1 >= first && fault.seconds.0 <= last;
        let touching = charged
            .iter()
            .position(|fault| is_damage(fault) && touches(fault));
        let before = charged
            .iter()
            .rposition(|fault| is_damage(fault) && fault.seconds.0 <= last);
        if let Some(index) = touching
            .or(before)
            .or_else(|| charged.iter().position(is_damage))
        {
            charged[index].clips += 1;
        }
    }
    charged
}

/// Whether the fault is one of the file's bytes.
fn is_damage(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Damage | FaultKind::CutShort)
}

fn clip_meta(
    path: &Path,
    blake3: &str,
    options: &BuildOptions,
    video: &ClipSource,
    clip: Clip,
    scores: Option<Scores>,
) -> ClipMeta {
    ClipMeta {
        video: path_name(path),
        video_blake3: blake3.to_owned(),
        clip: clip.index,
        // The build knows the labels and the list.
        label: None,
        class: None,
        split: None,
        segment: None,
        segment_start: None,
        segment_end: None,
        scene: options.scenes.map(|_| clip.scene),
        frames: options.frames,
        stride: options.stride,
        fps: options.sampling.fps(),
        width: video.size.width as u32,
        height: video.size.height as u32,
        pts_ns: clip.pts_ns,
        repeated_frames: clip.repeated_frames,
        damaged: clip.damaged,
        source_width: video.shape.size.width as u32,
        source_height: video.shape.size.height as u32,
        pixel_aspect_num: video.shape.pixel_aspect.num,
        pixel_aspect_den: video.shape.pixel_aspect.den,
        rotation: video.shape.orientation.rotation,
        mirrored: video.shape.orientation.mirrored,
        deinterlaced: video.deinterlaced,
        pixel_format: video.pixel_format.to_owned(),
        color_range: video.color_range,
        color_matrix: video.color_matrix,
        color_transfer: video.color_transfer.to_owned(),
        color_primaries: video.color_primaries.to_owned(),
        codec: video.codec.clone(),
        decoder: video.decoder.clone(),
        scores,
        payload: options.payload,
        // The writer computes it from the encoded clip.
        data_xxh3: 0,
    }
}
