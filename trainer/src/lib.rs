//! Pre-trains a video ViT by masked autoencoding (Feichtenhofer et al. 2022, "Masked Autoencoders
//! As Spatiotemporal Learners"), and uses what it has learned.
//!
//! The rooms, from the bottom up; none uses one below it in this list:
//! - [`model`]: embedding, blocks, encoder, decoder, the autoencoder and the classifier, as graphs
//!   of candle's operations; the loss; FLOPs.
//! - [`optim`]: AdamW, learning rate schedule, rates by layer.
//! - [`cpu`]: the same model and optimizer by hand for the CPU, several times as fast.
//! - [`config`]: presets, the user's file and flags, resolved to one configuration.
//! - [`data`]: classes and soft targets; a batch of the loader becomes tensors, the only crossing
//!   from host to device.
//! - [`backend`]: what learns and what only infers, on the CPU or by candle, behind one type each.
//! - [`eval`]: every clip once; scores, features and nearest neighbours.
//! - [`plot`]: pictures. [`log`]: metrics, TensorBoard, curves and the report of a run.
//! - [`train`]: the train loop, its run folder, checkpoints and non-finite steps.
//! - [`convert`]: weights from and for other code bases.
//! - [`study`]: the paper's findings in small.

pub mod backend;
pub mod config;
pub mod convert;
pub mod cpu;
pub mod data;
pub mod eval;
pub mod log;
pub mod model;
pub mod optim;
pub mod plot;
pub mod ranks;
pub mod study;
pub mod train;
