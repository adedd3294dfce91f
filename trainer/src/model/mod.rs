//! The masked autoencoder. Parameters have the reference's names and shapes.

mod block;
mod decoder;
mod embed;
mod encoder;
mod mae;
mod parameters;

pub use mae::{Mae, MaeConfig, Masking, TransformerConfig};
pub use parameters::{ParameterError, Parameters};
