//! The events of a run, its outcome, and why it may stop.

use super::checkpoint::{CheckpointError, InvalidCheckpoint};
use super::run_folder::FolderError;
use crate::backend::LearnerError;
use crate::eval::EvaluateError;
use crate::log::LogError;
use crate::ranks::RanksError;
use pipeline::loader::LoadError;
use pipeline::sampling::order::SampleId;
use schemas::report::{NonfiniteStep, StepMetrics, ValidationMetrics};
use std::io;
use std::path::{Path, PathBuf};

/// An event of a run in progress.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done; with the number of steps of the whole run.
    Step(&'a StepMetrics, u64),
    /// A clip cannot be read, for this reason, and was skipped for the first time.
    Skipped(&'a str),
    /// A checkpoint cannot be used and is not touched; the run resumes from the one before it.
    InvalidCheckpoint(&'a InvalidCheckpoint),
    /// Loss or gradients of a step were not finite, and it changed nothing; it is recorded in the
    /// file.
    Nonfinite(&'a NonfiniteStep, &'a Path),
}

/// Takes the events of a run.
pub(super) type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>);

/// The state of a run when it ended or was stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Step at which this process began.
    pub resumed_from: u64,
    /// Steps done in all.
    pub steps: u64,
    /// Steps of the whole run.
    pub all_steps: u64,
    /// Steps that changed nothing because they were not finite.
    pub nonfinite: u64,
    /// Number of trainable values.
    pub parameters: usize,
    /// The last checkpoint; none where the run was stopped before its first step was done.
    pub checkpoint: Option<PathBuf>,
    /// The picture of a pre-training; none where the run was stopped.
    pub picture: Option<PathBuf>,
    /// Metrics of a fine-tuning's last validation.
    pub validation: Option<ValidationMetrics>,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// None of the checkpoints can be used.
    #[error(
        "no checkpoint in {} can be used, and nothing was changed; put a valid copy in place, or \
         start a new run with another --out:\n  {}",
        dir.display(),
        invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    NoneValid {
        /// The run's folder.
        dir: PathBuf,
        /// All of them, the latest first.
        invalid: Vec<InvalidCheckpoint>,
    },
    /// The ranks.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// Ranks cannot share a batch.
    #[error(
        "{count} ranks cannot share batches of {batch_size} clips evenly: set data.batch_size \
         (--batch-size) to a multiple of {count}"
    )]
    UnevenBatch {
        /// Samples of a batch.
        batch_size: usize,
        /// Number of ranks.
        count: usize,
    },
    /// The device.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The run's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The loss or the gradients' norm is not finite.
    #[error(
        "step {step}: loss {loss}, gradient norm {grad_norm}. Nothing was changed or deleted{}. \
         Its clips and the configuration are in {}. A resumed run reaches the \
         same step: --resume --on-nonfinite skip continues without it; if others follow, the \
         learning rate (optimizer.base_lr) is too high",
        last_checkpoint(checkpoint.as_deref()),
        file.display()
    )]
    Nonfinite {
        /// The step that failed.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradients' norm.
        grad_norm: f64,
        /// Its samples.
        samples: Vec<SampleId>,
        /// The file in which it is recorded.
        file: PathBuf,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// More such steps than may be skipped.
    #[error(
        "step {step}: loss and gradients were not finite in more than {limit} steps{} ({key}). The \
         weights are probably spoiled: start anew at a lower learning \
         rate (optimizer.base_lr){}. The steps are in {}",
        if *in_a_row { " in a row" } else { "" },
        last_checkpoint(checkpoint.as_deref()),
        file.display()
    )]
    TooManyNonfinite {
        /// The last of them.
        step: u64,
        /// The key of the configuration that sets the limit.
        key: &'static str,
        /// The limit.
        limit: u64,
        /// Whether the limit is on consecutive steps.
        in_a_row: bool,
        /// The file in which they are recorded.
        file: PathBuf,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// The run was started with other data.
    #[error(
        "the run was started with other data, of {began} clips, and this has {now}: resume with \
         the same data, or start a new run"
    )]
    OtherData {
        /// Clips when the run began.
        began: u64,
        /// Clips now.
        now: u64,
    },
    /// Validation failed.
    #[error("validation: {0}")]
    Validation(#[from] EvaluateError),
    /// Metrics, pictures or the report.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another file of the run cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl RunError {
    /// Whether all ranks have it at the same moment.
    pub const fn is_of_all_ranks(&self) -> bool {
        matches!(
            self,
            Self::Ranks(_)
                | Self::Validation(EvaluateError::Ranks(_))
                | Self::UnevenBatch { .. }
                | Self::Nonfinite { .. }
                | Self::TooManyNonfinite { .. }
        )
    }
}

fn last_checkpoint(path: Option<&Path>) -> String {
    path.map_or(String::new(), |path| {
        format!("; the last checkpoint is {}", path.display())
    })
}
