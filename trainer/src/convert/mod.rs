//! Converts weights from and to other code bases. Every name is accounted for, or nothing is
//! written.
//!
//! Modules, in the order of an import:
//! - `source`: reads a file or folder to tensors by name; `pickle` reads PyTorch checkpoints;
//!   `stored` has the tensors that both return.
//! - `detect`: the format from names, and the sizes of the model from shapes.
//! - `huggingface`: the configuration files of transformers.
//! - `rules`: the mapping between their tensors and ours. One table serves both directions, so an
//!   export is the inverse of an import.
//! - `fold`: differences between formats that weights can express: the normalisation of pixels, a
//!   bias that a format does not have.
//! - [`import`](import()) and [`export`](export()) combine these; `write` writes files atomically.

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

use crate::config::{ConfigError, Task};
use crate::model::{ClassifierConfig, MaeConfig};
use schemas::geometry::PatchGrid;
use std::path::PathBuf;

/// Format of weights: the code base whose names they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// facebookresearch/mae_st, which has the same names as ours.
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

/// The model of some weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// A masked autoencoder.
    Mae(MaeConfig),
    /// A classifier.
    Classifier(ClassifierConfig),
}

impl Model {
    /// Sizes of clips and patches.
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

/// Properties of a model that its weights do not store.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// Heads of the encoder.
    pub heads: Option<usize>,
    /// Heads of the decoder.
    pub decoder_heads: Option<usize>,
    /// Frames per clip.
    pub frames: Option<usize>,
    /// Height and width of a clip.
    pub size: Option<usize>,
    /// Whether a masked autoencoder predicts pixels normalised by patch, or as they are.
    pub normalise_target: Option<bool>,
    /// Names of a classifier's classes, in their order.
    pub classes: Option<Vec<String>>,
}

/// Maximum number of problems that an error lists; the others are counted.
const MOST_PROBLEMS: usize = 20;

/// An error of an import or export.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is invalid.
    #[error("cannot read {}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The names match no known format.
    #[error(
        "{} has weights of an unknown format (known: mae_st, PySlowFast, VideoMAE, Hugging Face \
         VideoMAE); its first names: {}",
        path.display(),
        names.join(", ")
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Some of its names.
        names: Vec<String>,
    },
    /// Names, shapes or types do not match the format.
    #[error(
        "{} looks like {format} weights, but does not fit: {}",
        path.display(),
        render_problems(problems)
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The format of its names.
        format: Format,
        /// One problem per name.
        problems: Vec<String>,
    },
    /// The weights do not store a property of the model.
    #[error("{} does not specify {what}; set it with {flag}", path.display())]
    Unspecified {
        /// The file.
        path: PathBuf,
        /// The property.
        what: String,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The number of class names differs from the rows of the head.
    #[error("{named} class names are given, but the head of {} has {found} \
             classes", path.display())]
    Classes {
        /// The file.
        path: PathBuf,
        /// Number of names.
        named: usize,
        /// Rows of the head.
        found: usize,
    },
    /// The weights do not give a valid configuration.
    #[error("the weights do not give a valid configuration")]
    Config(#[from] ConfigError),
    /// A format cannot represent a model.
    #[error("{format} cannot represent this model: {}", render_problems(reasons))]
    Unsupported {
        /// The format.
        format: Format,
        /// The unsupported properties.
        reasons: Vec<String>,
    },
    /// candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Joins the first problems, and counts the others.
fn render_problems(problems: &[String]) -> String {
    let (first, more) = problems.split_at(problems.len().min(MOST_PROBLEMS));
    let mut text = first.join("; ");
    if !more.is_empty() {
        text.push_str(&format!("; and {} more", more.len()));
    }
    text
}
