//! What all learners share, whatever they learn and wherever they compute.

use super::candle::CandleState;
use super::values::{NamedValues, sorted};
use super::{LearnerError, cpu};
use crate::cpu::{Part, Store};
use candle_core::Tensor;
use pipeline::loader::buffers::MemoryKind;
use std::collections::HashMap;

/// Weights, the gradients that wait for an update, and the optimizer's moments.
pub trait Learner {
    /// The values, wherever they are.
    fn state(&self) -> State<'_>;

    /// The values, to be changed.
    fn state_mut(&mut self) -> StateMut<'_>;

    /// The memory in which the loader should make batches.
    fn memory(&self) -> MemoryKind {
        match self.state() {
            State::Cpu(_) => MemoryKind::Host,
            State::Candle(state) => state.uploader.memory(),
        }
    }

    /// Clips the gradients, takes a step along them at learning rate `lr`, and clears them. Returns
    /// their global norm before clipping; where that is not finite, no weight and no moment
    /// changes. Without gradients the norm is NaN.
    ///
    /// # Errors
    /// When the device fails.
    fn update(&mut self, lr: f64) -> Result<f64, LearnerError> {
        match self.state_mut() {
            StateMut::Cpu(store) => Ok(store.update(lr)),
            StateMut::Candle(state) => Ok(state.update(lr)?),
        }
    }

    /// Takes a part of a batch that has no clips: gradients of 0.
    ///
    /// # Errors
    /// When the device fails.
    fn accumulate_nothing<'a>(&'a mut self, part: Part<'a>) -> Result<(), LearnerError> {
        match self.state_mut() {
            StateMut::Cpu(store) => store.accumulate_nothing(part),
            StateMut::Candle(state) => state.accumulate_nothing(part)?,
        }
        Ok(())
    }

    /// Adds the gradients of a batch, whose parts were accumulated, to those that wait.
    ///
    /// # Errors
    /// When the device fails.
    fn add_batch(&mut self) -> Result<(), LearnerError> {
        match self.state_mut() {
            StateMut::Cpu(store) => store.add_batch(),
            StateMut::Candle(state) => state.add_batch()?,
        }
        Ok(())
    }

    /// Lets `change` replace all weights and moments, which are those after `updates` updates.
    ///
    /// # Errors
    /// When the device fails.
    fn replace(
        &mut self,
        updates: u64,
        change: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), LearnerError> {
        match self.state_mut() {
            StateMut::Cpu(store) => store.replace(updates, change),
            StateMut::Candle(state) => state.replace(updates, change)?,
        }
        Ok(())
    }

    /// Discards the gradients that wait.
    fn discard(&mut self) {
        match self.state_mut() {
            StateMut::Cpu(store) => store.discard(),
            StateMut::Candle(state) => state.waiting = None,
        }
    }

    /// Updates that have changed the weights since the run began: the optimizer's own count.
    fn updates(&self) -> u64 {
        match self.state() {
            State::Cpu(store) => store.steps(),
            State::Candle(state) => state.optimizer.steps(),
        }
    }

    /// Number of trainable values.
    fn parameter_count(&self) -> usize {
        match self.state() {
            State::Cpu(store) => store.count(),
            State::Candle(state) => state.parameters.count(),
        }
    }

    /// The weights under the reference's names, ordered by name.
    ///
    /// # Errors
    /// When the device fails.
    fn weights(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self.state() {
            State::Cpu(store) => {
                Ok(sorted(store.weights().map(|view| {
                    NamedValues::of_view(view.name.to_owned(), view)
                })))
            }
            State::Candle(state) => Ok(state.weights()?),
        }
    }

    /// The moments of each weight, as `first/NAME` and `second/NAME`.
    ///
    /// # Errors
    /// When the device fails.
    fn moments(&self) -> Result<Vec<NamedValues<'_>>, LearnerError> {
        match self.state() {
            State::Cpu(store) => {
                let first = store
                    .first_moments()
                    .map(|view| NamedValues::of_view(format!("first/{}", view.name), view));
                let second = store
                    .second_moments()
                    .map(|view| NamedValues::of_view(format!("second/{}", view.name), view));
                Ok(sorted(first.chain(second)))
            }
            State::Candle(state) => Ok(state.moments()?),
        }
    }
}

/// Where the values of a learner are.
#[derive(Debug, Clone, Copy)]
pub enum State<'a> {
    /// In plain memory.
    Cpu(&'a Store),
    /// In tensors.
    Candle(&'a CandleState),
}

/// [`State`], to be changed.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// In plain memory.
    Cpu(&'a mut Store),
    /// In tensors.
    Candle(&'a mut CandleState),
}

/// A learner as a checkpoint holds it.
#[derive(Debug)]
pub struct SavedLearner {
    /// Weights under the reference's names.
    pub weights: HashMap<String, Tensor>,
    /// The moments of each, as `first/NAME` and `second/NAME`.
    pub moments: HashMap<String, Tensor>,
    /// [`Learner::updates`].
    pub updates: u64,
}

/// Continues after `updates` updates with stored moments.
pub(super) fn restore(
    learner: &mut dyn Learner,
    moments: HashMap<String, Tensor>,
    updates: u64,
) -> Result<(), LearnerError> {
    match learner.state_mut() {
        StateMut::Cpu(store) => cpu::restore(store, moments, updates),
        StateMut::Candle(state) => Ok(state.optimizer.restore(moments, updates)?),
    }
}
