//! Pre-trains a video ViT by masked autoencoding (Feichtenhofer et al. 2022, "Masked Autoencoders As Spatiotemporal Learners"), and uses what it has learned.
//!
//! The rooms, in the order in which data flows:
//! - [`config`]: presets, the user's file and flags, resolved to what a run is for, [`config::Task`]: a pre-training or a fine-tuning.
//! - [`classes`]: which clip is of which class, and which videos are trained on; [`weights`]: what to begin with or to look at.
//! - [`data`]: a batch of the loader becomes tensors; the only crossing from host to device. [`lesson`]: what a classifier is to learn of it.
//! - [`model`]: embedding, blocks, encoder, decoder, the autoencoder and the classifier that join them, from the [`ops`] below them.
//! - [`loss`], [`optimizer`], [`layer_decay`], [`schedule`]: one training step's arithmetic; [`operations`] counts it.
//! - [`fused`]: that step on the processor, by hand and several times as fast.
//! - [`learner`]: what learns, behind one type, and what only reads.
//! - [`checkpoint`]: what a run needs to go on; [`folder`]: where it is; [`nonfinite`]: what went wrong; [`engine`]: the loop that uses all of it.
//! - [`evaluate`]: every clip once; [`features`] and [`neighbours`]: what is made of that; [`probes`]: heads on features that stay.
//! - [`exchange`]: weights from and for other code bases. [`study`]: the paper's findings in small.
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
