//! Weights of other code bases: read to ours, and written from ours. Every name is accounted for, or nothing is written.
//!
//! The rooms, in the order in which an import goes:
//! - `source`: a file or folder becomes tensors by name; `pickle` reads PyTorch's; `stored` is what both find.
//! - `recognise`: whose they are, from their names, and the model's sizes, from their shapes.
//! - `huggingface`: the configuration that transformers keeps beside its weights.
//! - `rules`: which of their tensors is which of ours. One table for both directions, so that an export is an import backwards.
//! - `fold`: what formats differ in and weights can express: the normalisation of pixels, a bias that a format has no place for.
//! - [`import`](import()) and [`export`](export()): all of it; `write`: what is made of it appears whole.

mod detect;
mod export;
mod fold;
mod huggingface;
mod import;
mod pickle;
mod rules;
mod source;
mod stored;
mod write;

pub use export::{Exported, export};
pub use import::{Imported, import};
pub use rules::Tensors;
pub use write::{WriteError, write_file, write_folder};

use crate::config::{ConfigError, TargetChoice, Task};
use crate::model::{ClassifierConfig, MaeConfig};
use schemas::geometry::PatchGrid;
use std::path::PathBuf;

/// Whose names weights have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// facebookresearch/mae_st, whose names are ours.
    MaeSt,
    /// facebookresearch/SlowFast.
    Pyslowfast,
    /// MCG-NJU/VideoMAE.
    Videomae,
    /// Hugging Face transformers: VideoMAEForPreTraining and VideoMAEForVideoClassification.
    Huggingface,
}

impl std::fmt::Display for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::MaeSt => "mae_st",
            Self::Pyslowfast => "PySlowFast",
            Self::Videomae => "VideoMAE",
            Self::Huggingface => "Hugging Face",
        })
    }
}

/// The model that weights are of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// A masked autoencoder.
    Mae(MaeConfig),
    /// A classifier.
    Classifier(ClassifierConfig),
}

impl Model {
    /// Clips and patches.
    pub const fn grid(&self) -> PatchGrid {
        match self {
            Self::Mae(config) => config.grid,
            Self::Classifier(config) => config.grid,
        }
    }
}

impl From<&Task> for Model {
    fn from(task: &Task) -> Self {
        match task {
            Task::Pretrain(config) => Self::Mae(config.model()),
            Task::Finetune(config) => Self::Classifier(config.classifier()),
        }
    }
}

/// What weights do not say of their model.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Heads of the encoder.
    pub heads: Option<usize>,
    /// Heads of the decoder.
    pub decoder_heads: Option<usize>,
    /// Frames of a clip.
    pub frames: Option<usize>,
    /// Height and width of a clip.
    pub size: Option<usize>,
    /// What a masked autoencoder predicts.
    pub target: Option<TargetChoice>,
    /// Names of a classifier's classes, in their order.
    pub classes: Option<Vec<String>>,
}

/// Problems that an error names; of the others it has the number.
const MOST_PROBLEMS: usize = 20;

/// Why weights cannot be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what it seems to be.
    #[error("cannot read {}: {reason}", path.display())]
    Spoiled {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The names are of no format.
    #[error(
        "{} has weights of no format that is known (mae_st, PySlowFast, VideoMAE, Hugging Face VideoMAE); its first names: {}",
        path.display(),
        names.join(", ")
    )]
    Unrecognised {
        /// Which file.
        path: PathBuf,
        /// Some of its names.
        names: Vec<String>,
    },
    /// Names, shapes or types are not those of the format.
    #[error("{} looks like {format} weights, but does not fit: {}", path.display(), bounded(problems))]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// Which format its names are of.
        format: Format,
        /// One for each name.
        problems: Vec<String>,
    },
    /// The weights do not say something.
    #[error("{} does not say {what}; say it with {flag}", path.display())]
    Unsaid {
        /// Which file.
        path: PathBuf,
        /// What.
        what: String,
        /// How to say it.
        flag: &'static str,
    },
    /// Names of classes and rows of a head are not as many.
    #[error("{named} classes are named, and the head of {} has {found}", path.display())]
    Classes {
        /// Which file.
        path: PathBuf,
        /// Names.
        named: usize,
        /// Rows.
        found: usize,
    },
    /// What the weights say makes no configuration.
    #[error("the weights make no configuration that can be used")]
    Config(#[from] ConfigError),
    /// A format has no place for a model.
    #[error("{format} has no place for this model: {}", bounded(reasons))]
    NoPlace {
        /// Which format.
        format: Format,
        /// Why not.
        reasons: Vec<String>,
    },
    /// candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The first problems, and how many more there are.
fn bounded(problems: &[String]) -> String {
    let (first, more) = problems.split_at(problems.len().min(MOST_PROBLEMS));
    let mut text = first.join("; ");
    if !more.is_empty() {
        text.push_str(&format!("; and {} more", more.len()));
    }
    text
}
