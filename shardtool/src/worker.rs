//! The worker process: decodes one video at a time and sends its clips, compressed.
//!
//! A decoder is native code that eats whatever lies in the folder. Here, its crash or hang costs one video.

use crate::protocol::{AboutClip, Reply, Task};
use crate::stop;
use anyhow::{Context, bail};
use pipeline::frames::Color;
use pipeline::shard::page;
use pipeline::shard::payload;
use pipeline::video::clips::{Clip, ClipDecoder, ClipSource, Fault, FaultKind, Step};
use pipeline::video::decode::DecodeOptions;
use pipeline::video::discover::{io_reason, path_name};
use pipeline::video::{self};
use pipeline::worker::process::{Supervisor, WorkerProgram, become_worker, receive, send};
use schemas::manifest::{BuildOptions, OnCorrupt};
use schemas::shard::ClipMeta;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a worker says that there is progress, at most.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// Works until nobody gives a task any more.
///
/// # Errors
/// When GStreamer is missing, or the build does not speak as this program does.
pub fn run() -> anyhow::Result<ExitCode> {
    let replies = become_worker().context("cannot become a worker")?;
    video::init()?;
    let mut worker = Worker { replies: BufWriter::with_capacity(1 << 16, replies), last_sign: Instant::now() };
    let mut tasks = io::stdin().lock();
    while let Some(task) = receive::<Task>(&mut tasks)? {
        worker.work(task)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes supervisors of workers that may make no progress for `timeout` seconds: this program itself, started as a worker.
///
/// # Errors
/// When this program's own file cannot be found.
pub fn supervisors(timeout: f64) -> anyhow::Result<impl Fn() -> Supervisor> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let program = WorkerProgram { path, argument: crate::cli::WORKER.to_owned() };
    Ok(move || Supervisor::new(program.clone(), Duration::from_secs_f64(timeout), stop::flag()))
}

struct Worker {
    replies: BufWriter<File>,
    last_sign: Instant,
}

/// Why a task ended early.
enum End {
    /// The video's fault.
    Failed(Box<Reply>),
    /// The build has gone.
    Gone(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

fn failed(reason: impl ToString) -> End {
    End::Failed(Box::new(Reply::Failed { reason: reason.to_string(), seconds: None, stops_build: false }))
}

impl Worker {
    fn work(&mut self, task: Task) -> anyhow::Result<()> {
        let result = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Build { path, options, threads, timeout, skip } => {
                let decode = DecodeOptions { threads, timeout: Duration::from_secs_f64(timeout) };
                self.build(&path_of(path), &options, decode, skip)
            }
            Task::Probe { path, options, timeout } => {
                let timeout = Duration::from_secs_f64(timeout);
                let probe = video::probe(&path_of(path), &options, timeout).map_err(failed)?;
                Ok(send(&mut self.replies, &Reply::Probed(probe))?)
            }
        }));
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(End::Failed(reply))) => Ok(send(&mut self.replies, &reply)?),
            Ok(Err(End::Gone(error))) => Err(error.into()),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let reason = format!("this program has a bug: {text}");
                send(&mut self.replies, &Reply::Failed { reason, seconds: None, stops_build: false })?;
                bail!("panicked")
            }
        }
    }

    /// Says now and then that there is progress.
    fn alive(&mut self) -> io::Result<()> {
        if self.last_sign.elapsed() < ALIVE_EVERY {
            return Ok(());
        }
        self.last_sign = Instant::now();
        send(&mut self.replies, &Reply::Alive)
    }

    fn build(&mut self, path: &Path, options: &BuildOptions, decode: DecodeOptions, skip: u64) -> Result<(), End> {
        let blake3 = self.hash(path)?;
        send(&mut self.replies, &Reply::Identity { blake3: blake3.clone() })?;
        if matches!(options.on_corrupt, OnCorrupt::Skip | OnCorrupt::Fail) {
            self.refuse_damage(path, options, decode)?;
        }
        let mut decoder = ClipDecoder::open(path, options, decode).map_err(failed)?;
        let (mut sound, mut damaged) = (0, Vec::new());
        loop {
            self.alive()?;
            match decoder.step() {
                Ok(Step::Frame) => {}
                Ok(Step::Clip(clip)) if clip.damaged && options.on_corrupt != OnCorrupt::Keep => {
                    damaged.push(clip.pts_ns);
                }
                Ok(Step::Clip(clip)) => {
                    sound += 1;
                    if sound <= skip {
                        let decoded_bytes = clip.data.len() as u64;
                        let about = AboutClip::of(&clip_meta(path, &blake3, options, decoder.source(), clip));
                        send(&mut self.replies, &Reply::Skipped { about, decoded_bytes })?;
                    } else {
                        self.send_clip(path, &blake3, options, decoder.source(), clip)?;
                    }
                }
                Ok(Step::End) => break,
                Err(error) => {
                    let end = decoder.end_seconds();
                    let seconds = (sound > 0).then_some((end, end));
                    let reason = error.to_string();
                    return Err(End::Failed(Box::new(Reply::Failed { reason, seconds, stops_build: false })));
                }
            }
        }
        Ok(send(&mut self.replies, &Reply::Built { faults: charge(decoder.faults(), &damaged) })?)
    }

    /// Decodes the whole video and keeps nothing, to see whether anything is wrong with it.
    fn refuse_damage(&mut self, path: &Path, options: &BuildOptions, decode: DecodeOptions) -> Result<(), End> {
        let mut decoder = ClipDecoder::open(path, options, decode).map_err(failed)?;
        while decoder.step().map_err(failed)? != Step::End {
            self.alive()?;
        }
        match decoder.faults().into_iter().find(|fault| fault.kind != FaultKind::Gap) {
            None => Ok(()),
            Some(Fault { seconds, reason, .. }) => {
                let stops_build = options.on_corrupt == OnCorrupt::Fail;
                Err(End::Failed(Box::new(Reply::Failed { reason, seconds: Some(seconds), stops_build })))
            }
        }
    }

    fn hash(&mut self, path: &Path) -> Result<String, End> {
        let mut file = File::open(path).map_err(|error| failed(io_reason(&error)))?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; 1 << 20];
        loop {
            self.alive()?;
            match file.read(&mut block) {
                Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
                Ok(bytes) => drop(hasher.update(&block[..bytes])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(io_reason(&error))),
            }
        }
    }

    fn send_clip(&mut self, path: &Path, blake3: &str, options: &BuildOptions, video: &ClipSource, clip: Clip) -> Result<(), End> {
        let color = Color { range: video.color_range, matrix: video.color_matrix };
        let payload = payload::encode(&clip.data, video.size, color, options).map_err(failed)?;
        let encoded = page::encode(&payload, options.level).map_err(failed)?;
        let reply = Reply::Clip {
            meta: Box::new(clip_meta(path, blake3, options, video, clip)),
            uncompressed_bytes: encoded.uncompressed_bytes,
            xxh3: encoded.xxh3,
            stored_bytes: encoded.body.len(),
        };
        send(&mut self.replies, &reply)?;
        self.replies.write_all(&encoded.body)?;
        self.last_sign = Instant::now();
        Ok(self.replies.flush()?)
    }
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// Charges each clip that is left out to the first fault that touches it.
fn charge(faults: Vec<Fault>, damaged: &[Vec<i64>]) -> Vec<Fault> {
    let mut charged = faults;
    let damages = |fault: &Fault| fault.kind != FaultKind::Gap;
    for times in damaged {
        let last = times.last().map_or(f64::MAX, |&ns| ns as f64 / 1e9);
        let first = times.first().map_or(0.0, |&ns| ns as f64 / 1e9);
        let touches = |fault: &Fault| fault.seconds.1 >= first && fault.seconds.0 <= last;
        let touching = charged.iter().position(|fault| damages(fault) && touches(fault));
        let before = charged.iter().rposition(|fault| damages(fault) && fault.seconds.0 <= last);
        if let Some(index) = touching.or(before).or_else(|| charged.iter().position(damages)) {
            charged[index].clips += 1;
        }
    }
    charged
}

fn clip_meta(path: &Path, blake3: &str, options: &BuildOptions, video: &ClipSource, clip: Clip) -> ClipMeta {
    ClipMeta {
        video: path_name(path),
        video_blake3: blake3.to_owned(),
        clip: clip.index,
        // The build knows the labels.
        label: None,
        class: None,
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
        payload: options.payload,
        // The writer knows it from the encoded clip.
        data_xxh3: 0,
    }
}
