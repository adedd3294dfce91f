//! The masked autoencoder, and the classifier that its encoder becomes. Parameters have the reference's names and shapes.

mod block;
mod classifier;
mod decoder;
mod embed;
mod encoder;
mod mae;
mod masking;
mod parameters;
mod pool;
mod target;

pub use block::TransformerConfig;
pub(crate) use block::{LAYER_NORM_EPSILON, MLP_RATIO};
pub use classifier::{Classifier, ClassifierConfig, Reading};
pub use embed::PositionKind;
pub use mae::{Mae, MaeConfig, TargetKind};
pub use masking::Masking;
pub use parameters::{ParameterError, Parameters};
pub use pool::{AttentivePool, Head};
pub(crate) use target::PATCH_EPSILON;
pub use target::Target;
