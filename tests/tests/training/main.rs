//! Models and their training: against the reference, CPU against candle, runs, and weights of other
//! code bases.

mod classifier;
mod convert;
mod cpu_step;
mod parity;
mod pretraining;
mod tensorboard;
