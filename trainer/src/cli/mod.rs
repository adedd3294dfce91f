//! Arguments of the commands.

mod bench;
mod classify;
mod convert;
pub mod progress;
mod settings;
mod study;
pub mod usage;
mod visualise;

pub use bench::{
    Bench, BenchLoaderArgs, BenchScalingArgs, BenchSparsityArgs, BenchStepArgs, Consumer, FormArg,
    StepArgs,
};
pub use classify::{EmbedArgs, EvalArgs, FinetuneArgs, Per, ReadArgs, SpanArg};
pub use convert::{ExportArgs, ImportArgs};
pub use settings::{BenchFlags, FinetuneFlags, RunFlags, Settings};
pub use study::{Questions, StudyArgs};
pub use visualise::VisualiseArgs;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Arg, Args, Parser, Subcommand};
use console::output::parse_bytes;
use pipeline::loader::{DEFAULT_MAX_BAD, DEFAULT_MEMORY_BYTES};
use pipeline::sampling::mask::MaskKind;
use pipeline::shard::CacheOptions;
use pipeline::store::{self, local_path};
use std::path::PathBuf;
use trainer::config::Preset;
use trainer::train::Loading;

/// Pre-train video ViTs by masked autoencoding on shards of clips, and use them.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Start here:
  shardtool build ./videos        build shards of your own folder of videos into ./shards
  trainer run                     train a tiny model on them, in minutes on a laptop
  trainer embed --weights runs/tiny-1 --sheet nearest.png
                                  nearest neighbours by its features"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pre-train a masked autoencoder.
    ///
    /// Writes into the run folder: config.toml (everything that decides what is computed),
    /// metrics.jsonl (one line per step), tensorboard/ (the same and all pictures, for
    /// TensorBoard), checkpoints/ (the latest ones, each complete), with each of them
    /// reconstruction.png (frames, the same masked, and their reconstruction), and at the end
    /// curves.png and report.html (figures, curves, picture and configuration in one file).
    ///
    /// Ctrl-C ends the run after the current step, with a checkpoint and exit code 130; a second
    /// one ends it at once. If the run is killed, --resume continues from the last checkpoint,
    /// exactly.
    Run(Box<RunArgs>),
    /// Fine-tune a classifier from a pre-trained encoder.
    ///
    /// The encoder sees all tokens of a clip; their mean, normalised, goes into a new head. Class
    /// names come from the shards. Of each class some videos are held out for validation, unless
    /// --val is given. The run folder is like that of `trainer run`, resumed and plotted alike.
    Finetune(Box<FinetuneArgs>),
    /// Evaluate a classifier.
    ///
    /// Reads every clip once, at the same views each time. Probabilities are averaged over the
    /// views of a clip, and over the clips of a video. Prints top-1 and top-5 accuracy of clips and
    /// of videos, and the same per class.
    Eval(Box<EvalArgs>),
    /// Extract features and find nearest neighbours.
    ///
    /// Writes a Parquet file: video, clip, times, label, class, and the feature: the mean of the
    /// encoder's tokens, normalised by its last layer.
    Embed(Box<EmbedArgs>),
    /// Draw reconstructions of a clip at several mask ratios.
    ///
    /// Takes any clip of shards, or any time of a video, masks it, and lets the autoencoder
    /// reconstruct it. Writes a strip of frames (PNG), and the same as an animation (GIF and MP4):
    /// the original, its visible patches, and the reconstruction with the visible patches pasted
    /// in.
    Visualise(Box<VisualiseArgs>),
    /// Reproduce a finding of the paper at small scale.
    ///
    /// Runs every arm with several seeds: a pre-training, a fine-tuning after it, and the accuracy
    /// on clips that neither has seen. Writes a table with the spread over the seeds, and a plot.
    /// Each run has its folder, with its configuration and metrics. Finished runs are not repeated:
    /// the same command continues a study that was killed.
    Study(Box<StudyArgs>),
    /// Import weights of another code base: mae_st, PySlowFast, VideoMAE, Hugging Face
    /// transformers.
    ///
    /// Pre-trained models and classifiers. Writes a folder that finetune, eval, embed and export
    /// take as --weights.
    Import(ImportArgs),
    /// Export weights for another code base.
    Export(ExportArgs),
    /// Plot the curves of one or several runs.
    ///
    /// Loss, learning rate, gradient norm, clips per second and time spent waiting for data, by
    /// step, of all runs over each other. Unfinished runs are drawn up to their last step.
    Curves(CurvesArgs),
    /// Measure how fast this machine loads and trains.
    #[command(subcommand)]
    Bench(Bench),
    /// Decode videos for another process of this program.
    #[command(name = DECODE_WORKER, hide = true)]
    DecodeWorker,
}

/// Name of the command that other processes of this program start.
pub const DECODE_WORKER: &str = "decode-worker";

/// How clips are loaded.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Loader threads [default: half of the cores, at most 8; all cores where nothing trains].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub loader_threads: Option<u32>,
    /// Memory for prefetched batches, in MiB.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = (DEFAULT_MEMORY_BYTES >> 20) as u32,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub loader_memory: u32,
    /// Damaged or undecodable clips before loading stops. Each is reported and skipped.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_BAD)]
    pub max_bad: usize,
    /// Keep what is fetched of data in stores in this folder, on a local disk; processes of one
    /// machine share it.
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub cache: Option<PathBuf>,
    /// Size of the cache, such as 500GB [default: nine tenths of the free space].
    #[arg(long, value_name = "SIZE", requires = "cache", value_parser = parse_bytes)]
    pub cache_size: Option<u64>,
}

/// Takes the arguments of [`LoadArgs`] out of a command's help.
fn hide_loading(arg: Arg) -> Arg {
    let is_loading =
        ["loader_threads", "loader_memory", "max_bad"].contains(&arg.get_id().as_str());
    if is_loading { arg.hide(true) } else { arg }
}

impl LoadArgs {
    /// The loader settings, with `threads` threads where no number was given.
    pub fn loading(&self, threads: usize) -> Loading {
        Loading {
            threads: self
                .loader_threads
                .map_or(threads, |threads| threads as usize),
            memory_bytes: (self.loader_memory as usize) << 20,
            max_bad: self.max_bad,
        }
    }

    /// Where to keep what is fetched.
    pub fn cache(&self) -> Option<CacheOptions> {
        self.cache.as_ref().map(|dir| CacheOptions {
            dir: dir.clone(),
            bytes: self.cache_size,
        })
    }
}

/// Which tokens are masked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MaskKindArg {
    /// Each by itself: the paper's choice.
    Random,
    /// A place in the frame through all of time.
    Tube,
    /// Whole time steps.
    Frame,
    /// Boxes.
    Block,
}

impl From<MaskKindArg> for MaskKind {
    fn from(kind: MaskKindArg) -> Self {
        match kind {
            MaskKindArg::Random => Self::Random,
            MaskKindArg::Tube => Self::Tube,
            MaskKindArg::Frame => Self::Frame,
            MaskKindArg::Block => Self::Block,
        }
    }
}

/// One data set among several.
#[derive(Debug, Clone, PartialEq)]
pub struct DataArg {
    /// Folder of shards or videos.
    pub path: PathBuf,
    /// The split that is used; all of the data if none.
    pub split: Option<String>,
    /// Its share, relative to the others'.
    pub weight: f64,
}

impl DataArg {
    /// All of the data at `path`.
    pub fn all(path: PathBuf) -> Self {
        Self {
            path,
            split: None,
            weight: 1.0,
        }
    }

    /// `PATH`, `PATH:SPLIT`, or either with `=WEIGHT`.
    fn parse(text: &str) -> Result<Self, String> {
        let (path, weight) = match text
            .rsplit_once('=')
            .map(|(path, weight)| (path, weight.parse::<f64>()))
        {
            Some((_, Ok(weight))) if !weight.is_finite() || weight <= 0.0 => {
                return Err(format!("the weight {weight} is not a number above 0"));
            }
            Some((path, Ok(weight))) => (path, weight),
            _ => (text, 1.0),
        };
        let whole = store::place(path.into()).map_err(|error| error.to_string())?;
        // A path may hold a colon.
        let (path, split) = match path.rsplit_once(':') {
            Some((path, split)) if !whole.exists() && !split.is_empty() && !split.contains('/') => {
                (path.into(), Some(split.to_owned()))
            }
            _ => (whole, None),
        };
        Ok(Self {
            path,
            split,
            weight,
        })
    }
}

impl std::fmt::Display for DataArg {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if let Some(split) = &self.split {
            write!(formatter, ":{split}")?;
        }
        if self.weight == 1.0 {
            Ok(())
        } else {
            write!(formatter, "={}", self.weight)
        }
    }
}

/// A path that is not a URL.
fn local() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(local_path)
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&number: &f64| number.is_finite() && number > 0.0)
        .ok_or("a number above 0".to_owned())
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct ComputeArgs {
    /// Device: cpu, cuda, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = DeviceChoice::parse)]
    pub device: DeviceChoice,
    /// Compute threads on the CPU [default: physical cores]. Results do not depend on their number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

impl ComputeArgs {
    /// Threads that compute, `default` where no number was given.
    pub fn threads(&self, default: usize) -> usize {
        self.threads.map_or(default, |threads| threads as usize)
    }
}

/// Arguments of `trainer run`.
#[derive(Debug, Args)]
#[command(
    mut_args(hide_loading),
    after_help = settings::render_help::<RunFlags>("\
Examples:
  trainer run                                            the tiny preset on ./shards
  trainer run --data ./train --preset base --out runs/b  ViT-Base with the paper's recipe
  trainer run --config my.toml                           my.toml's keys over the preset's
  trainer run --data ./train --out runs/b --resume       resume runs/b from its last checkpoint
  trainer run --batch-size 8 --grad-accum 8              steps of 64 clips, in the memory of 8
  trainer run --set masking.kind=tube --set data.area='[0.3, 1.0]'

A config file holds any of the keys that a run's config.toml shows, for example:
  [clip]
  size = 160
  [schedule]
  length = { epochs = 100.0 }   # or { steps = 5000 }")
)]
pub struct RunArgs {
    /// Folder of shards or of videos, which are then decoded while training; one split of shards
    /// with PATH:SPLIT. Given several times, all are mixed: evenly, or by weight with PATH=WEIGHT.
    #[arg(long, value_name = "PATH", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Preset to start from [default: tiny].
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keys that replace both.
    #[command(flatten)]
    pub settings: Settings<RunFlags>,
    /// Folder of the run [default: runs/PRESET-N, the next free N; with --resume, the last one].
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: Option<PathBuf>,
    /// Resume a run from its last valid checkpoint; the result is that of an uninterrupted run.
    #[arg(long)]
    pub resume: bool,
    /// Where to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// How clips are loaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `trainer curves`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer curves runs/tiny-1                               into ./curves.png
  trainer curves runs/a runs/b --out ab.png                two runs to compare
  trainer curves runs/a runs/b --html ab.html              and a page with their pictures")]
pub struct CurvesArgs {
    /// Run folders.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The plot, a PNG.
    #[arg(long, value_name = "FILE", default_value = "./curves.png", value_parser = local())]
    pub out: PathBuf,
    /// Also write a self-contained HTML report.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Loader threads beside a training on all of `cores`.
pub fn loader_threads_beside_training(cores: usize) -> usize {
    (cores / 2).clamp(1, 8)
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    Cpu,
    /// A GPU, by number.
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or("cpu, cuda or cuda:N".to_owned()),
        }
    }
}
