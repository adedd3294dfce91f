//! What can be typed.

mod bench;
mod classify;
mod convert;
pub mod progress;
mod study;
pub mod usage;
mod visualise;

pub use bench::{Bench, BenchLoaderArgs, BenchSparsityArgs, BenchStepArgs, Consumer, FormArg};
pub use classify::{EmbedArgs, EvalArgs, FinetuneArgs, Per, ReadArgs, SpanArg};
pub use convert::{ExportArgs, ImportArgs};
pub use study::StudyArgs;
pub use visualise::VisualiseArgs;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use pipeline::all_cores;
use pipeline::loader::{DEFAULT_MAX_BAD, DEFAULT_MEMORY_BYTES};
use pipeline::sampling::mask::MaskKind;
use pipeline::video::discover::local_path;
use std::path::PathBuf;
use trainer::config::{OnNonfinite, Overrides, Preset, TargetChoice};
use trainer::cpu::Precision;
use trainer::model::PositionKind;
use trainer::train::Loading;

/// Pre-trains a video ViT by masked autoencoding on shards of clips, and uses what it has learned.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Start here:
  shardtool build ./videos        build shards of your own folder of videos into ./shards
  trainer run                     train a tiny model on them, in minutes on a laptop
  trainer embed --weights runs/tiny-1 --sheet nearest.png
                                  what it finds alike"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pre-train a masked autoencoder.
    ///
    /// Writes into the run's folder: config.toml (everything that decides what is computed), metrics.jsonl (a line a step), tensorboard/ (the same and all
    /// pictures, for TensorBoard), checkpoints/ (the latest ones, each whole), with each of them reconstruction.png (frames, the same masked, and what the
    /// model makes of them), and at the end curves.png and report.html (figures, curves, picture and configuration in one file).
    ///
    /// Ctrl-C ends the run after the step in hand, with a checkpoint and exit code 130; a second one ends it at once. Kill it, and --resume goes on from the last
    /// checkpoint, exactly.
    Run(Box<RunArgs>),
    /// Train a classifier from a pre-trained encoder.
    ///
    /// The encoder sees all tokens of a clip; the mean of them, normalised, goes into a new head. Class names come from the shards. Of each class some videos are
    /// kept to look at, or --val says which. The run's folder is like that of `trainer run`, resumed and drawn alike.
    Finetune(Box<FinetuneArgs>),
    /// How right a classifier is.
    ///
    /// Every clip is read once, at the same views each time; probabilities are averaged over a clip's views, and over the clips of a video. Prints the share of
    /// clips and of videos that are told right (top-1, top-5), and the same by class.
    Eval(Box<EvalArgs>),
    /// Features of clips, and the nearest clips to one.
    ///
    /// Writes a Parquet file: video, clip, times, label, class, and the feature, the mean of the encoder's tokens, normalised by its last layer.
    Embed(Box<EmbedArgs>),
    /// Draw what a model makes of a clip, at several mask ratios.
    ///
    /// Takes any clip of shards, or any place in a video, masks it, and has the autoencoder reconstruct it. Writes a strip of frames (PNG), and the same moving (GIF and
    /// MP4): the original, what the model sees of it, and the reconstruction, the visible patches pasted in.
    Visualise(Box<VisualiseArgs>),
    /// Repeat a finding of the paper in small.
    ///
    /// Every kind of run with several seeds: a pre-training, a fine-tuning after it, and the accuracy on clips that neither has seen; as a table with the spread over
    /// the seeds, and as a plot. Each run has its folder, with its configuration and metrics. Runs that are done are not done again: kill it, and the same command
    /// goes on.
    Study(Box<StudyArgs>),
    /// Read weights of another code base: mae_st, PySlowFast, VideoMAE, Hugging Face transformers.
    ///
    /// Pre-trained models and classifiers. Writes a folder that finetune, eval, embed and export take as --weights.
    Import(ImportArgs),
    /// Write weights for another code base.
    Export(ExportArgs),
    /// Draw the curves of one or several runs.
    ///
    /// Loss, learning rate, gradient norm, clips a second and time spent waiting for data, by step, of all runs over each other. Runs that still go on are drawn
    /// as far as they are.
    Curves(CurvesArgs),
    /// Measure how fast this machine loads, and trains.
    #[command(subcommand)]
    Bench(Bench),
    /// Decodes for another process of this program.
    #[command(name = DECODE_WORKER, hide = true)]
    DecodeWorker,
}

/// Name of the command that other processes of this program start.
pub const DECODE_WORKER: &str = "decode-worker";

/// Where clips are, and how they are loaded.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Threads that load clips [default: half of the cores, 8 at most; all cores where nothing trains].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub loader_threads: Option<u32>,
    /// Memory for batches that are made ahead, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = (DEFAULT_MEMORY_BYTES >> 20) as u32, value_parser = clap::value_parser!(u32).range(1..))]
    pub loader_memory: u32,
    /// Clips that may be damaged or undecodable before loading stops. Each is named and left out.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_BAD)]
    pub max_bad: usize,
}

impl LoadArgs {
    /// What they come to, with `threads` threads where no number was given.
    pub fn loading(&self, threads: usize) -> Loading {
        Loading {
            threads: self.loader_threads.map_or(threads, |threads| threads as usize),
            memory_bytes: (self.loader_memory as usize) << 20,
            max_bad: self.max_bad,
        }
    }
}

/// What the paper varies: each changes one key of the preset, and the whole is checked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and clips [default: the preset's]")]
pub struct ModelArgs {
    /// Frames of a training clip; 1, with --tubelet 1, for still pictures.
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Frames of a tubelet.
    #[arg(long, value_name = "N")]
    pub tubelet: Option<usize>,
    /// Height and width of a training clip.
    #[arg(long, value_name = "PIXELS")]
    pub size: Option<usize>,
    /// Share of the tokens that the encoder does not see.
    #[arg(long, value_name = "SHARE")]
    pub mask_ratio: Option<f64>,
    /// Which tokens are masked together.
    #[arg(long, value_enum)]
    pub mask_kind: Option<MaskKindArg>,
    /// Share of the masked tokens that the decoder takes and predicts, by running cells (VideoMAE V2: 0.5).
    #[arg(long, value_name = "SHARE")]
    pub decoder_keep: Option<f64>,
    /// Width of the decoder.
    #[arg(long, value_name = "N")]
    pub decoder_width: Option<usize>,
    /// Blocks of the decoder.
    #[arg(long, value_name = "N")]
    pub decoder_depth: Option<usize>,
    /// Heads of the decoder.
    #[arg(long, value_name = "N")]
    pub decoder_heads: Option<usize>,
    /// What is predicted.
    #[arg(long, value_enum)]
    pub target: Option<TargetChoice>,
    /// Frames of each tubelet that are predicted.
    #[arg(long, value_name = "N")]
    pub slices: Option<usize>,
    /// How positions are learned.
    #[arg(long, value_enum)]
    pub positions: Option<PositionKind>,
    /// With a cls token.
    #[arg(long, overrides_with = "no_class_token")]
    pub class_token: bool,
    /// Without a cls token.
    #[arg(long, overrides_with = "class_token")]
    pub no_class_token: bool,
    /// Least and greatest share of the frame that a crop covers.
    #[arg(long, value_name = "MIN,MAX", value_parser = pair)]
    pub crop_area: Option<[f64; 2]>,
    /// Probability of a flip left to right.
    #[arg(long, value_name = "P")]
    pub flip: Option<f64>,
}

impl ModelArgs {
    /// What they change in a configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            mask_ratio: self.mask_ratio,
            mask_kind: self.mask_kind.map(MaskKind::from),
            decoder_keep: self.decoder_keep,
            decoder_width: self.decoder_width,
            decoder_depth: self.decoder_depth,
            decoder_heads: self.decoder_heads,
            target: self.target,
            slices: self.slices,
            positions: self.positions,
            class_token: (self.class_token || self.no_class_token).then_some(self.class_token),
            frames: self.frames,
            tubelet: self.tubelet,
            size: self.size,
            crop_area: self.crop_area,
            flip: self.flip,
            ..Overrides::default()
        }
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

/// `MIN,MAX`.
fn pair(text: &str) -> Result<[f64; 2], String> {
    let numbers = text.split_once(',').and_then(|(least, most)| Some([least.trim().parse().ok()?, most.trim().parse().ok()?]));
    numbers.ok_or("two numbers, as 0.5,1".to_owned())
}

/// One data set among several.
#[derive(Debug, Clone, PartialEq)]
pub struct DataArg {
    /// Folder of shards or videos.
    pub path: PathBuf,
    /// Its share, relative to the others'.
    pub weight: f64,
}

impl DataArg {
    /// `PATH`, or `PATH=WEIGHT`.
    fn parse(text: &str) -> Result<Self, String> {
        let (path, weight) = match text.rsplit_once('=').map(|(path, weight)| (path, weight.parse::<f64>())) {
            Some((_, Ok(weight))) if !weight.is_finite() || weight <= 0.0 => {
                return Err(format!("the weight {weight} is not a number above 0"));
            }
            Some((path, Ok(weight))) => (path, weight),
            _ => (text, 1.0),
        };
        let path = local_path(path.into()).map_err(|error| error.to_string())?;
        Ok(Self { path, weight })
    }
}

impl std::fmt::Display for DataArg {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.weight == 1.0 { Ok(()) } else { write!(formatter, "={}", self.weight) }
    }
}

/// A path that is not a URL.
fn local() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(local_path)
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&number: &f64| number.is_finite() && number > 0.0).ok_or("a number above 0".to_owned())
}

/// Length, rate and batches of a training.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Train for so many steps.
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Train for so many passes over the data.
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Learning rate for 256 clips a step; that of the run is in proportion to its clips a step. In fine-tuning, every sample of a clip counts as one.
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// Clips a batch.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Batches a step. Their gradients are averaged: a step of N times the clips in the memory of one batch.
    #[arg(long, value_name = "N")]
    pub accumulate: Option<usize>,
    /// Samples (window, crop, flip, mask or look) that are taken of a clip each time that it is read; they go to as many batches.
    #[arg(long, value_name = "R")]
    pub repeat: Option<usize>,
    /// Seed of all chance: first weights, order, crops, flips, masks, and what is dropped, mixed or kept for validation.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What to do about a step whose loss or gradients are not finite: stop, or skip it. It never changes a weight, and its clips are written to nonfinite.jsonl
    /// [default: stop].
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_nonfinite: Option<OnNonfinite>,
    /// Go on with a run from its last sound checkpoint; the result is that of an uninterrupted run.
    #[arg(long)]
    pub resume: bool,
}

/// Where and how to compute.
#[derive(Debug, Args)]
pub struct ComputeArgs {
    /// Where to compute: cpu, cuda, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = DeviceChoice::parse)]
    pub device: DeviceChoice,
    /// Type of activations on the processor: f32, or bf16, which is faster where the processor multiplies it. Master weights, moments and sums are f32.
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,
    /// Threads that compute on the processor [default: all cores]. Results do not depend on their number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

impl ComputeArgs {
    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(all_cores, |threads| threads as usize)
    }
}

/// What `trainer run` can be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer run                                            the tiny preset on ./shards, into runs/tiny-1
  trainer run --data ./train --preset base --out runs/b  ViT-Base with the paper's recipe
  trainer run --config my.toml                           my.toml's keys over the preset's
  trainer run --out runs/b --resume                      go on with runs/b from its last checkpoint
  trainer run --batch-size 8 --accumulate 8              steps of 64 clips, in the memory of 8

A config file holds any of the keys that a run's config.toml shows, for example:
  [clip]
  size = 160
  [schedule]
  length = { epochs = 100.0 }   # or { steps = 5000 }")]
pub struct RunArgs {
    /// Folder of shards that `shardtool build` has finished, or of videos, which are then decoded while training. Given several times, all are mixed: alike,
    /// or by weight with PATH=WEIGHT.
    #[arg(long, value_name = "PATH", default_value = "./shards", value_parser = DataArg::parse)]
    pub data: Vec<DataArg>,
    /// Where to start from [default: tiny].
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML file whose keys replace the preset's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the run [default: runs/PRESET-N, the next free N; with --resume, the last one].
    #[arg(long, value_name = "DIR", value_parser = local())]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    /// Length, rate and batches.
    pub train: TrainArgs,
    #[command(flatten)]
    /// Where and how to compute.
    pub compute: ComputeArgs,
    /// Keep less for the backward and compute it again: less memory, a third more time, the same results.
    #[arg(long)]
    pub recompute: bool,
    #[command(flatten)]
    /// How clips are loaded.
    pub load: LoadArgs,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    /// What the paper varies.
    pub model: ModelArgs,
}

impl RunArgs {
    /// What the flags change in a configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            steps: self.train.steps,
            epochs: self.train.epochs,
            base_lr: self.train.lr,
            batch_size: self.train.batch_size,
            accumulate: self.train.accumulate,
            repeat: self.train.repeat,
            seed: self.train.seed,
            on_nonfinite: self.train.on_nonfinite,
            dtype: self.compute.dtype,
            recompute: self.recompute,
            ..self.model.overrides()
        }
    }
}

/// What `trainer curves` can be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trainer curves runs/tiny-1                               into ./curves.png
  trainer curves runs/a runs/b --out ab.png                two runs to compare
  trainer curves runs/a runs/b --html ab.html              and a page that has their pictures, too")]
pub struct CurvesArgs {
    /// Folders of runs.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The picture, a PNG.
    #[arg(long, value_name = "FILE", default_value = "./curves.png", value_parser = local())]
    pub out: PathBuf,
    /// Also write a report, one HTML file that needs no other.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print figures of the runs as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Threads that load while all cores train.
pub fn loader_threads_beside_training() -> usize {
    (all_cores() / 2).clamp(1, 8)
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
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
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda).ok_or("cpu, cuda or cuda:N".to_owned()),
        }
    }
}
