//! Arguments of `shardtool build`.

use super::{local, named, place, positive};
use crate::labels::{FORMS, LabelSource};
use crate::list;
use crate::plan::Share;
use crate::split::SplitShares;
use clap::Args;
use console::output::parse_bytes;
use pipeline::shard::payload::DEFAULT_CRF;
use pipeline::shard::read_manifest;
use schemas::manifest::{
    BuildOptions, DEFAULT_GAP_SECONDS, Labelling, OnCorrupt, PixelAspect, Sampling, SceneDetector,
    ShortVideo, Tiling,
};
use schemas::shard::Payload;
use std::path::PathBuf;

const BUILD_EXAMPLES: &str = "\
Examples:
  shardtool build ./videos                               16 frames at stride 4 of 30 fps
  shardtool build ./videos --dry-run                     count clips and disk space only
  shardtool build ./videos --labels dirs --out ./train   class names from folders
  shardtool build ./videos --labels labels.csv           labels from a file, see below
  shardtool build a.mkv b.mov --every 10                 a clip every ten seconds
  shardtool build ./videos --list train.csv val.csv      what a list names, with its splits
  shardtool build ./films --scenes --split train=0.9,val=0.1
                                                         clips within scenes, two splits
  shardtool build ./videos --payload h264 --frames 64    long clips, small on disk";

/// Build shards of clips from videos.
///
/// Every video is decoded once, sampled by time into clips of --frames frames, scaled down, and
/// stored in zstd-compressed Parquet, as exact I420 by default. A file that cannot be decoded is
/// skipped and reported with the reason; it does not stop the build.
#[derive(Debug, Args)]
#[command(after_help = format!("{BUILD_EXAMPLES}\n\n{}\n\n{FORMS}", list::FORMS))]
pub struct BuildCommand {
    /// Video files, or folders to search for them; videos are recognized by content, not by name.
    /// URLs of stores, too (s3://bucket/videos): there, videos are recognized by their extension.
    #[arg(required_unless_present = "plan", value_name = "VIDEOS", value_parser = place())]
    pub videos: Vec<PathBuf>,
    /// How to build.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Build parts of the plan that `shardtool plan` has written into this folder or place in a
    /// store, into `parts` there.
    #[arg(
        long,
        value_name = "DIR",
        value_parser = place(),
        conflicts_with_all = OPTIONS_OF_A_PLAN,
    )]
    pub plan: Option<PathBuf>,
    /// Which parts: I, I + N, I + 2N and so on, of all parts, from 0. [default: I and N of a task
    /// of an array of Slurm, a Job of Kubernetes or an array job of AWS Batch, if this is one; else
    /// all parts].
    #[arg(long, value_name = "I/N", requires = "plan", value_parser = Share::parse)]
    pub part: Option<Share>,
    /// Only count clips, bytes and disk space; decode and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 1 if any file was rejected.
    #[arg(long)]
    pub strict: bool,
    /// Replace an existing build in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The arguments that a plan has decided.
const OPTIONS_OF_A_PLAN: [&str; 24] = [
    "videos",
    "out",
    "frames",
    "stride",
    "sample",
    "fps",
    "clips_per_video",
    "every",
    "short",
    "on_corrupt",
    "short_side",
    "pixel_aspect",
    "gap_seconds",
    "payload",
    "crf",
    "level",
    "shard_mb",
    "list",
    "list_label",
    "list_times",
    "labels",
    "scenes",
    "split",
    "dry_run",
];

/// Cut a build into parts, for many machines.
///
/// The plan is a file, plan.json in the output folder or place in a store: the videos of each part
/// with their labels, and the options. Machines build parts of it with `shardtool build --plan`, and
/// `shardtool merge --plan` joins them without copying. The bytes depend on the plan only.
#[derive(Debug, Args)]
#[command(after_help = format!("{PLAN_EXAMPLES}\n\n{}\n\n{FORMS}", list::FORMS))]
pub struct PlanArgs {
    /// Video files, folders to search for them, or URLs of stores.
    #[arg(required = true, value_name = "VIDEOS", value_parser = place())]
    pub videos: Vec<PathBuf>,
    /// How to build.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Number of parts [default: one for every --part-minutes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub parts: Option<u32>,
    /// Minutes of footage of a part. What is in stores is not looked at: there, a gigabyte counts
    /// as 30 minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 30.0, value_parser = positive)]
    pub part_minutes: f64,
    /// Replace an existing plan.
    #[arg(long)]
    pub force: bool,
}

const PLAN_EXAMPLES: &str = "\
Examples:
  shardtool plan s3://bucket/videos --out s3://bucket/train --payload h264
  shardtool build --plan s3://bucket/train --part 0/8    on the first of eight machines
  shardtool merge --plan s3://bucket/train               once all parts are built
With Slurm: sbatch --array=0-7 deploy/slurm.sbatch s3://bucket/train";

/// Options and resources of a build.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Output folder of the shards, or its URL in a store.
    #[arg(long, value_name = "DIR", default_value = "./shards", value_parser = place())]
    pub out: PathBuf,
    /// Number of frames per clip.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=4096),
    )]
    pub frames: u32,
    /// Number of ticks between two frames of a clip.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=4096),
    )]
    pub stride: u32,
    /// Sample by time, at --fps ticks per second, or by frames: each frame of the source is a tick,
    /// whatever its time.
    #[arg(
        long,
        value_name = "time|frames",
        default_value = "time",
        value_parser = ["time", "frames"],
    )]
    pub sample: String,
    /// Ticks per second; videos of other rates are resampled by time.
    #[arg(long, value_name = "RATE", default_value_t = 30.0, value_parser = positive)]
    pub fps: f64,
    /// Number of clips per video, evenly spaced.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "every",
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub clips_per_video: Option<u32>,
    /// Seconds between the starts of clips [default: clips back to back].
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub every: Option<f64>,
    /// What to do with a video that is shorter than a clip: repeat its last frame, or skip it.
    #[arg(
        long,
        value_name = "repeat|skip",
        default_value = "repeat",
        value_parser = named(ShortVideo::NAMES, ShortVideo::from_name),
    )]
    pub short: ShortVideo,
    /// What to do with a video that is damaged in parts: skip it, keep its undamaged clips, keep
    /// all its clips and mark the damaged ones in the column "damaged", or fail: stop the build.
    #[arg(
        long,
        value_name = "skip|keep-good|keep|fail",
        default_value = "keep-good",
        value_parser = named(OnCorrupt::NAMES, OnCorrupt::from_name),
    )]
    pub on_corrupt: OnCorrupt,
    /// Scale frames down to this many pixels on the short side; smaller frames keep their size.
    #[arg(
        long,
        value_name = "PIXELS",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(16..=8192),
    )]
    pub short_side: u32,
    /// What to do with pixels that are not square (PAL, NTSC, HDV): scale frames to square pixels,
    /// as players do, or keep frames as they are coded. The ratio is stored in either case.
    #[arg(
        long,
        value_name = "square|keep",
        default_value = "square",
        value_parser = named(PixelAspect::NAMES, PixelAspect::from_name)
    )]
    pub pixel_aspect: PixelAspect,
    /// Skip clips that would hold a frame for longer than this because no other follows, and report
    /// the gaps. "inf" skips none.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = DEFAULT_GAP_SECONDS,
        value_parser = gap_seconds,
    )]
    pub gap_seconds: f64,
    /// Storage format of frames: differences of exact planes, the planes themselves (half as many
    /// bytes again), RGB (four times the bytes, for other readers), or a short H.264 stream per
    /// clip (about 12 times smaller, lossy) [default: i420-delta; i420 with --level 0, and where a
    /// build with it is continued].
    #[arg(
        long,
        value_name = "i420-delta|i420|rgb|h264",
        value_parser = named(Payload::NAMES, Payload::from_name),
    )]
    pub payload: Option<Payload>,
    /// Quality of --payload h264: x264's constant rate factor, 0 (lossless) to 50 [default: 18].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub crf: Option<u32>,
    /// zstd level, 1 to 19; 0 is no compression [default: 3, and 0 with --payload h264].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    pub level: Option<i32>,
    /// Size of a shard in megabytes, at which it is closed.
    #[arg(
        long,
        value_name = "MB",
        default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(1..=16384),
    )]
    pub shard_mb: u64,
    /// Build only the videos, and segments of videos, that these files list; with a label, a split
    /// and times for each, where the files have them (see below). Several files are one list.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        conflicts_with = "labels",
        value_parser = place(),
    )]
    pub list: Vec<PathBuf>,
    /// Column of the list that holds the labels.
    #[arg(long, value_name = "COLUMN", requires = "list")]
    pub list_label: Option<String>,
    /// Whether to use the times of the list; where files are cut to the listed segments already,
    /// ignore them.
    #[arg(
        long,
        value_name = "use|ignore",
        default_value = "use",
        requires = "list",
        value_parser = ["use", "ignore"],
    )]
    pub list_times: String,
    /// Source of labels: "none", "dirs" (the name of each file's folder), "members" (the .cls or
    /// .json file beside each video in its tar archive, as in WebDataset), or a file with one line
    /// per video: "path,label", "path label", or columns with a header (see below).
    #[arg(
        long,
        value_name = "none|dirs|members|FILE",
        default_value = "none",
        value_parser = LabelSource::parse,
    )]
    pub labels: LabelSource,
    /// Find cuts between scenes; no clip straddles one. "adaptive" compares the change between two
    /// frames with those around it, "content" with a threshold.
    #[arg(
        long,
        value_name = "adaptive|content",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "adaptive",
        value_parser = named(SceneDetector::NAMES, SceneDetector::from_name),
    )]
    pub scenes: Option<SceneDetector>,
    /// Assign each video to a split by the hash of its bytes, with these shares:
    /// train=0.9,val=0.1. Videos keep their split when others are added. See `--data DIR:SPLIT` of
    /// trainer.
    #[arg(long, value_name = "NAME=SHARE,...", value_parser = SplitShares::parse)]
    pub split: Option<SplitShares>,
    /// Number of videos to decode at a time [default: number of cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Folder for what is on its way from a store or to one [default: that of temporary files].
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub scratch: Option<PathBuf>,
    /// Size of the videos from stores that are in the scratch folder at a time; a single video may
    /// be larger.
    #[arg(long, value_name = "SIZE", default_value = "8GB", value_parser = parse_bytes)]
    pub scratch_size: u64,
    /// Give up on a video after this many seconds without progress.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = positive)]
    pub timeout: f64,
}

impl BuildArgs {
    /// Returns the options that determine the contents of the shards. `force` replaces what the
    /// folder holds.
    ///
    /// # Errors
    /// When --every is less than a tick, or --crf is given to a payload that has none.
    pub fn options(&self, force: bool) -> anyhow::Result<BuildOptions> {
        let payload = self.payload.unwrap_or_else(|| self.default_payload(force));
        let is_h264 = payload == Payload::H264;
        anyhow::ensure!(
            is_h264 || self.crf.is_none(),
            "--crf is the quality of --payload h264; --payload {} has none: omit one of them",
            payload.name()
        );
        let mut options = BuildOptions {
            frames: self.frames,
            stride: self.stride,
            sampling: if self.samples_frames() {
                Sampling::SourceFrames
            } else {
                Sampling::TicksPerSecond(self.fps)
            },
            tiling: Tiling::BackToBack,
            short: self.short,
            on_corrupt: self.on_corrupt,
            short_side: self.short_side,
            pixel_aspect: self.pixel_aspect,
            gap_seconds: Some(self.gap_seconds).filter(|seconds| seconds.is_finite()),
            scenes: self.scenes,
            split: self.split.clone().map_or_else(Vec::new, |split| split.0),
            payload,
            crf: is_h264.then(|| self.crf.unwrap_or(DEFAULT_CRF)),
            // H.264 does not compress further.
            level: self.level.unwrap_or(if is_h264 { 0 } else { 3 }),
            labels: if self.list.is_empty() {
                self.labels.kind()
            } else {
                Labelling::List
            },
            shard_bytes: self.shard_mb * 1_000_000,
        };
        if let Some(seconds) = self.every {
            options.tiling = Tiling::EverySeconds(seconds);
            anyhow::ensure!(
                !self.samples_frames(),
                "--every counts seconds, --sample frames does not; omit one of them, or use \
                 --clips-per-video"
            );
            let ticks = seconds * self.fps;
            anyhow::ensure!(
                ticks >= 1.0,
                "--every {seconds} is less than one tick at --fps {}; give at least {}",
                self.fps,
                1.0 / self.fps
            );
        }
        if let Some(clips) = self.clips_per_video {
            options.tiling = Tiling::ClipsPerVideo(clips);
        }
        Ok(options)
    }

    /// The exact payload that is smallest, unless the folder has the one that was the default in
    /// version 0.1.
    fn default_payload(&self, force: bool) -> Payload {
        let before = read_manifest(&self.out).map(|manifest| manifest.options.payload);
        let continues = !force && matches!(before, Ok(Payload::I420));
        if continues || self.level == Some(0) {
            Payload::I420
        } else {
            Payload::I420Delta
        }
    }

    fn samples_frames(&self) -> bool {
        self.sample == "frames"
    }

    /// Returns the folder for what is on its way from a store or to one.
    pub fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Returns the number of videos to decode at a time.
    pub fn jobs(&self) -> usize {
        self.jobs
            .map_or_else(pipeline::all_cores, |jobs| jobs as usize)
    }
}

/// Parses a number of seconds, or `inf` for no limit.
fn gap_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Ok(seconds),
        _ => Err("not a number of seconds, nor \"inf\"".to_owned()),
    }
}
