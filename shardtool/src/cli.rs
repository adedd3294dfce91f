//! What can be typed.

use crate::labels::{FORMS, LabelSource};
use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use pipeline::shard::payload::DEFAULT_CRF;
use pipeline::video::discover::local_path;
use schemas::manifest::{BuildOptions, DEFAULT_GAP_SECONDS, OnCorrupt, PixelAspect, Sampling, ShortVideo, Tiling};
use schemas::shard::Payload;
use std::path::PathBuf;

/// Name of the command that a build starts its worker processes with.
pub const WORKER: &str = "decode-worker";

/// Turns raw video into zstd-compressed Parquet shards of frame-sampled clips.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Start here:
  shardtool synth ./videos                 make a small labelled set of videos to play with
  shardtool build ./videos                 build shards of your own folder of videos into ./shards
  trainer run --data ./shards              train on them"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build shards of clips from videos.
    Build(BuildArgs),
    /// Write a small labelled set of real H.264 videos of moving shapes.
    Synth(SynthArgs),
    /// Check every byte of a folder of shards.
    Verify(VerifyArgs),
    /// List the clips of a folder of shards, or draw them.
    Inspect(InspectArgs),
    /// Count what is in a folder of shards.
    Stats(StatsArgs),
    /// Write one clip as a video or as pictures.
    Export(ExportArgs),
    /// Print a script that completes commands and flags in your shell.
    Completions(CompletionsArgs),
    /// Decode what a build says on standard input.
    #[command(name = WORKER, hide = true)]
    DecodeWorker,
}

const BUILD_EXAMPLES: &str = "\
Examples:
  shardtool build ./videos                               16 frames at stride 4 of 30 fps
  shardtool build ./videos --dry-run                     how many clips, how much disk
  shardtool build ./videos --labels dirs --out ./train   folders name the classes
  shardtool build ./videos --labels labels.csv           a file names them, as shown below
  shardtool build a.mkv b.mov --every 10                 a clip every ten seconds
  shardtool build ./videos --payload h264 --frames 64    long clips, small on disk";

/// Build shards of clips from videos.
///
/// Every video is decoded once, sampled by time into clips of --frames frames, scaled down, and stored in zstd-compressed
/// Parquet, as exact I420 if not asked for otherwise. A file that cannot be decoded is named with its reason and left out; it does not stop the build.
#[derive(Debug, Args)]
#[command(after_help = format!("{BUILD_EXAMPLES}\n\n{FORMS}"))]
pub struct BuildArgs {
    /// Video files, or folders that are searched for them; what is video is decided by content, not by name.
    #[arg(required = true, value_name = "VIDEOS", value_parser = local())]
    pub videos: Vec<PathBuf>,
    /// Folder to write the shards to.
    #[arg(long, value_name = "DIR", default_value = "./shards", value_parser = local())]
    pub out: PathBuf,
    /// Frames a clip.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub frames: u32,
    /// Ticks between two frames of a clip.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub stride: u32,
    /// What a tick is: a moment, --fps of them a second, or a frame of the source, whatever its time.
    #[arg(long, value_name = "time|frames", default_value = "time", value_parser = ["time", "frames"])]
    pub sample: String,
    /// Ticks a second: videos of other rates are resampled by time.
    #[arg(long, value_name = "RATE", default_value_t = 30.0, value_parser = positive)]
    pub fps: f64,
    /// So many clips from each video, spread evenly.
    #[arg(long, value_name = "N", conflicts_with = "every", value_parser = clap::value_parser!(u32).range(1..))]
    pub clips_per_video: Option<u32>,
    /// A clip every so many seconds [default: clips back to back].
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub every: Option<f64>,
    /// What becomes of a video that is shorter than a clip: repeat its last frame, or skip it.
    #[arg(long, value_name = "repeat|skip", default_value = "repeat", value_parser = named(ShortVideo::NAMES, ShortVideo::from_name))]
    pub short: ShortVideo,
    /// What becomes of a video with damaged parts: skip it, keep its clips that are undamaged, keep all its clips
    /// and mark the damaged ones in their column, or fail: stop the build.
    #[arg(long, value_name = "skip|keep-good|keep|fail", default_value = "keep-good", value_parser = named(OnCorrupt::NAMES, OnCorrupt::from_name))]
    pub on_corrupt: OnCorrupt,
    /// Scale frames down until their short side has this many pixels; never up.
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=8192))]
    pub short_side: u32,
    /// What becomes of pixels that are not square (PAL, NTSC, HDV): scale frames to square ones, as players show
    /// them, or keep frames as they are coded. Either way the ratio is a column.
    #[arg(
        long,
        value_name = "square|keep",
        default_value = "square",
        value_parser = named(PixelAspect::NAMES, PixelAspect::from_name)
    )]
    pub pixel_aspect: PixelAspect,
    /// Leave out clips that would hold a frame for longer than this, because no other comes: gaps are named.
    /// "inf" leaves none out.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_GAP_SECONDS, value_parser = gap_seconds)]
    pub gap_seconds: f64,
    /// How frames are stored: exact planes, RGB (twice the size, for other readers), or each clip as a short H.264 stream (some 17 times smaller,
    /// not exact).
    #[arg(long, value_name = "i420|rgb|h264", default_value = "i420", value_parser = named(Payload::NAMES, Payload::from_name))]
    pub payload: Payload,
    /// Quality of --payload h264: x264's constant rate factor, 0 (without loss) to 50 [default: 18].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub crf: Option<u32>,
    /// zstd level, 1 to 19; 0 stores without compression [default: 3, and 0 with --payload h264].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    pub level: Option<i32>,
    /// Close a shard when it has this many megabytes.
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=16384))]
    pub shard_mb: u64,
    /// Where labels come from: "none", "dirs" (the name of each file's folder), or a file with a line for each video: "path,label", "path label", or columns
    /// with a header (see below).
    #[arg(long, value_name = "none|dirs|FILE", default_value = "none", value_parser = LabelSource::parse)]
    pub labels: LabelSource,
    /// Videos decoded at a time [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Give up a video that makes no progress for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = positive)]
    pub timeout: f64,
    /// Only count: clips, bytes, disk needed. Nothing is decoded or written.
    #[arg(long)]
    pub dry_run: bool,
    /// Exit with 1 if any file was rejected.
    #[arg(long)]
    pub strict: bool,
    /// Replace a build that is already in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

impl BuildArgs {
    /// The options that decide what is in the shards.
    ///
    /// # Errors
    /// When --every is less than a tick, or --crf is given to a payload that has none.
    pub fn options(&self) -> anyhow::Result<BuildOptions> {
        let is_h264 = self.payload == Payload::H264;
        anyhow::ensure!(
            is_h264 || self.crf.is_none(),
            "--crf is the quality of --payload h264; --payload {} has none: leave one of them out",
            self.payload.name()
        );
        let mut options = BuildOptions {
            frames: self.frames,
            stride: self.stride,
            sampling: if self.samples_frames() { Sampling::SourceFrames } else { Sampling::TicksPerSecond(self.fps) },
            tiling: Tiling::BackToBack,
            short: self.short,
            on_corrupt: self.on_corrupt,
            short_side: self.short_side,
            pixel_aspect: self.pixel_aspect,
            gap_seconds: Some(self.gap_seconds).filter(|seconds| seconds.is_finite()),
            payload: self.payload,
            crf: is_h264.then(|| self.crf.unwrap_or(DEFAULT_CRF)),
            // H.264 is as small as it gets.
            level: self.level.unwrap_or(if is_h264 { 0 } else { 3 }),
            labels: self.labels.kind(),
            shard_bytes: self.shard_mb * 1_000_000,
        };
        if let Some(seconds) = self.every {
            options.tiling = Tiling::EverySeconds(seconds);
            anyhow::ensure!(
                !self.samples_frames(),
                "--every counts seconds, --sample frames does not; leave one of them out, or use --clips-per-video"
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

    fn samples_frames(&self) -> bool {
        self.sample == "frames"
    }

    /// Videos decoded at a time.
    pub fn jobs(&self) -> usize {
        self.jobs.map_or_else(pipeline::all_cores, |jobs| jobs as usize)
    }
}

/// Write a small labelled set of real H.264 videos of moving shapes.
///
/// One folder for each motion: right, left, down, up, clockwise, counterclockwise, grow, shrink. Shapes, textures, places and sizes are drawn
/// alike for all classes, and each class is another one's reverse in time, so that a single frame does not tell the class.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool synth ./videos                         64 videos of 8 classes, 160x160, 4 seconds
  shardtool synth ./videos --videos 400 --seed 7   more of them, and others
  shardtool synth ./videos --shapes 6              more that moves: motion is learned sooner
  shardtool build ./videos --labels dirs           build shards of them, with labels")]
pub struct SynthArgs {
    /// Folder to write to; it must be empty or not exist.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Videos in all.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub videos: u32,
    /// Classes: the first so many of the list above.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub classes: u32,
    /// Width and height in pixels, even.
    #[arg(long, value_name = "PIXELS", default_value_t = 160, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub size: u32,
    /// Shapes in a video, at most: the more there are, the more of the picture moves.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub shapes: u32,
    /// Length of each video.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0, value_parser = positive)]
    pub seconds: f64,
    /// Another seed gives other videos; the same seed the same ones.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Check every byte of a folder of shards.
///
/// Compares each shard with the manifest, and each clip with the hash that was stored with it. All that is wrong is listed, with its file,
/// its row and what to do; the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool verify ./shards            is what is on disk what was built?
  shardtool verify ./shards --deep     the same, and a second opinion: every clip through Parquet's own reader, decoded to frames")]
pub struct VerifyArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Also read every clip with Parquet's own reader, and decode it to frames.
    #[arg(long)]
    pub deep: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// List the clips of a folder of shards, or draw them.
///
/// Clips are numbered from 0 through all shards, in the order in which they are stored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool inspect ./shards                                     a table of the first 20 clips
  shardtool inspect ./shards --clip 7                            all that is known about clip 7
  shardtool inspect ./shards --sample 10 --sheet sheet.png       a contact sheet of ten clips drawn by chance")]
pub struct InspectArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Say all that is known about this clip; may be given several times.
    #[arg(long = "clip", value_name = "N", conflicts_with_all = ["sample", "limit"])]
    pub clips: Vec<u64>,
    /// So many clips, drawn by chance.
    #[arg(long, value_name = "N", conflicts_with = "limit", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,
    /// Another seed draws other clips; the same seed the same ones.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// So many clips, from the first one on.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Draw the chosen clips to this PNG file: a row a clip, up to 8 of its frames. A file that is there is replaced.
    #[arg(long, value_name = "OUT.png")]
    pub sheet: Option<PathBuf>,
    /// Print the clips as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Count what is in a folder of shards.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool stats ./shards                        clips, videos, hours, bytes, classes, sizes, codecs
  shardtool stats ./shards --picture stats.png    the same, drawn: bytes per clip, classes, sizes
  shardtool stats ./shards --json                 for a script")]
pub struct StatsArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Draw bytes per clip, classes and sizes to this PNG file. A file that is there is replaced.
    #[arg(long, value_name = "OUT.png")]
    pub picture: Option<PathBuf>,
    /// Print the counts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Write one clip as a video or as pictures.
///
/// A name that ends in .mp4 becomes an H.264 video at the clip's own rate, one that ends in .png all frames in one picture, and one without an
/// ending a folder with a PNG file for each frame. Odd sides of a video are made even by repeating the last row or column.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool export ./shards --clip 7 clip.mp4     a video to play
  shardtool export ./shards --clip 7 clip.png     all frames in one picture
  shardtool export ./shards --clip 7 frames       frames/frame-0000.png and on, pixel for pixel")]
pub struct ExportArgs {
    /// Folder of shards.
    #[arg(value_name = "DIR", value_parser = local())]
    pub dir: PathBuf,
    /// Number of the clip, as `shardtool inspect` shows it.
    #[arg(long, value_name = "N")]
    pub clip: u64,
    /// A file that ends in .mp4 or .png, or a folder.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Replace what is already there.
    #[arg(long)]
    pub force: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Print a script that completes commands and flags in your shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shardtool completions bash > ~/.local/share/bash-completion/completions/shardtool
  shardtool completions zsh > ~/.zfunc/_shardtool       with ~/.zfunc in your fpath
  shardtool completions fish > ~/.config/fish/completions/shardtool.fish")]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// A value out of a closed set of names.
fn named<T: Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
    from_name: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).map(move |name| from_name(&name).expect("one of the names"))
}

/// A path that is not a URL.
fn local() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(local_path)
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("not a number greater than 0".to_owned()),
    }
}

/// A number of seconds, or `inf` for no limit.
fn gap_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Ok(seconds),
        _ => Err("not a number of seconds, nor \"inf\"".to_owned()),
    }
}
