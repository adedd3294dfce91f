//! Pre-trains a video ViT by masked autoencoding (Feichtenhofer et al. 2022, "Masked Autoencoders As Spatiotemporal Learners").
//!
//! The rooms, in the order in which data flows:
//! - [`config`]: presets, the user's file and flags, resolved to one [`config::Config`].
//! - [`data`]: a batch of the loader becomes tensors; the only crossing from host to device.
//! - [`model`]: embedding, blocks, encoder, decoder, and the autoencoder that joins them, from the [`ops`] below them.
//! - [`loss`], [`optimizer`], [`layer_decay`], [`schedule`]: one training step's arithmetic; [`operations`] counts it.
//! - [`fused`]: that step on the processor, by hand and several times as fast.
//! - [`learner`]: what learns, behind one type.
//! - [`checkpoint`]: what a run needs to go on; [`folder`]: where it is; [`nonfinite`]: what went wrong; [`engine`]: the loop that uses all of it.
//! - [`exchange`]: weights of other code bases, read and written.
//! - [`visualise`]: pictures of what a model reconstructs; [`log`]: all by which a user sees a run.

pub mod checkpoint;
pub mod classes;
pub mod config;
pub mod data;
pub mod engine;
pub mod evaluate;
pub mod exchange;
pub mod features;
pub mod folder;
pub mod fused;
pub mod layer_decay;
pub mod learner;
pub mod lesson;
pub mod log;
pub mod loss;
pub mod model;
pub mod neighbours;
pub mod nonfinite;
pub mod operations;
pub mod ops;
pub mod optimizer;
pub mod probes;
pub mod schedule;
pub mod study;
pub mod visualise;
pub mod weights;
