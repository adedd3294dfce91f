//! Labels and batches: what the model is given, and where.
//!
//! - [`classes`]: which clip is of which class, and which videos are trained on.
//! - [`targets`]: soft targets of a classifier's batch, and what of the model is dropped for it.
//! - [`Uploader`]: from host to device, the only place where clips and masks become tensors.

pub mod classes;
pub mod targets;
mod upload;

pub use upload::Uploader;
