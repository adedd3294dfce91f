//! The masked autoencoder, and the classifier on its encoder. Parameters have the names and shapes
//! of the reference implementation.

mod batch;
mod block;
mod classifier;
mod config;
mod conventions;
mod decoder;
mod embed;
mod encoder;
pub mod flops;
pub mod loss;
mod mae;
mod masking;
pub mod ops;
mod parameters;
mod pool;
mod target;

pub use batch::{DeviceBatch, DevicePixels};
pub(crate) use block::MLP_RATIO;
pub use block::TransformerConfig;
pub use classifier::{Classifier, ClassifierConfig, Encoded};
pub use config::{MaeConfig, TargetKind};
pub(crate) use conventions::LAYER_NORM_EPSILON;
pub use conventions::{Conventions, DecoderClassToken, NormalisePer};
pub use embed::PositionKind;
pub(crate) use embed::sinusoid_table;
pub use mae::Mae;
pub use masking::Masking;
pub use parameters::{ParameterError, Parameters};
pub use pool::{AttentivePool, Head, normalise};
pub use target::Target;
pub(crate) use target::{CHANNEL_EPSILON, PATCH_EPSILON};
