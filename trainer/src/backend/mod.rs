//! Learners: models with the gradients and the optimizer's moments that training adds to them.
//!
//! [`MaeLearner`] pre-trains and [`ClassifierLearner`] fine-tunes, each either by hand on the CPU
//! ([`crate::cpu`]) or by candle on any device. [`Learner`] is what both share; [`InferenceModel`]
//! computes outputs and learns nothing.
//!
//! The train loop knows nothing of tensors: it passes in batches, asks for a step, and has the
//! values saved.

mod candle;
mod classifier;
mod cpu;
mod inference;
mod learner;
mod mae;
mod reconstruction;
mod values;

pub use candle::{CandleClassifier, CandleMae, CandleState};
pub use classifier::ClassifierLearner;
pub use cpu::{cpu_mae, patches};
pub use inference::InferenceModel;
pub use learner::{Learner, SavedLearner, State, StateMut};
pub use mae::MaeLearner;
pub(crate) use reconstruction::reconstruction;
pub use reconstruction::{NormalisedPatches, Reconstruction};
pub use values::{NamedValues, Values};

use crate::data::targets::UnlabelledClip;
use crate::model::ParameterError;

/// Why a learner or a model cannot be built, or cannot compute.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// Stored weights or moments do not fit the model.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A batch has another form than the model takes.
    #[error("this model takes a batch of {expected}, and the batch has another form")]
    BatchForm {
        /// The form that it takes.
        expected: &'static str,
    },
    /// A classifier cannot learn from the batch.
    #[error(transparent)]
    Unlabelled(#[from] UnlabelledClip),
    /// The CPU implementation passes no cls token from the encoder through the decoder.
    #[error(
        "model.decoder_class_token is \"encoded\", which cannot be trained on the CPU: set it to \
         \"own\", or use --device cuda (such weights can be imported, exported, and fine-tuned as \
         they are: an encoder needs no decoder)"
    )]
    EncodedClassToken,
    /// A setting that only the CPU implementation has.
    #[error("compute.{key} is for the CPU only; remove it, or use --device cpu")]
    CpuOnly {
        /// Which setting.
        key: &'static str,
    },
}

/// Names of [`pipeline::loader::batch::Form`]s for [`LearnerError::BatchForm`].
const CLIPS: &str = "whole clips";
const TOKENS: &str = "all tokens of its clips";
const PATCHES: &str = "visible patches and their target";

/// The outputs of a classifier, or of an encoder alone, for the clips of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOutput {
    /// `[clips, width]`: the mean of the tokens without the cls token, then the encoder's last
    /// layer normalisation: the input of the head.
    pub features: Vec<f32>,
    /// `[clips, tokens, width]`: each token after the same layer normalisation; empty unless
    /// requested.
    pub tokens: Vec<f32>,
    /// `[clips, classes]`; empty for an encoder alone.
    pub logits: Vec<f32>,
}
