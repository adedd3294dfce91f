//! Labels and batches: the inputs and targets of a model.
//!
//! - [`classes`]: the class of each clip, and the split into training and validation videos.
//! - [`targets`]: soft targets of a classifier's batch, and its random scales of branches and
//!   dropout.
//! - [`Uploader`]: from host to device, the only place where clips and masks become tensors.

pub mod classes;
pub mod targets;
mod upload;

pub use upload::Uploader;
