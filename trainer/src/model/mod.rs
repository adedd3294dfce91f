//! The masked autoencoder, and the classifier that its encoder becomes. Parameters have the reference's names and shapes.

mod block;
mod classifier;
mod decoder;
mod embed;
mod encoder;
mod mae;
mod masking;
mod parameters;

pub(crate) use block::MLP_RATIO;
pub use block::TransformerConfig;
pub use classifier::{Classifier, ClassifierConfig};
pub use embed::PositionKind;
pub use mae::{Mae, MaeConfig, Target, TargetKind};
pub use masking::Masking;
pub use parameters::{ParameterError, Parameters};
