//! One step of training.

use super::TrainLoop;
use super::outcome::{Event, RunError};
use pipeline::loader::{LoadError, Loader};
use pipeline::sampling::order::{Cursor, SampleId};
use std::time::Duration;

/// The inputs and results of a step.
pub(super) struct Step {
    /// Learning rate.
    pub(super) lr: f64,
    /// Its batches, whose gradients are averaged.
    pub(super) batches: Vec<StepBatch>,
    /// Global norm of the gradients before clipping; NaN where the loss is not finite.
    pub(super) grad_norm: f64,
    /// How long it waited for its batches.
    pub(super) wait: Duration,
    /// The place in the data after it.
    pub(super) next: Cursor,
}

/// Loss and samples of one batch of a step.
pub(super) struct StepBatch {
    pub(super) loss: f64,
    pub(super) samples: Vec<SampleId>,
}

impl Step {
    /// Mean loss of the batches.
    pub(super) fn loss(&self) -> f64 {
        self.batches.iter().map(|batch| batch.loss).sum::<f64>() / self.batches.len() as f64
    }

    /// Number of clips.
    pub(super) fn clips(&self) -> usize {
        self.batches.iter().map(|batch| batch.samples.len()).sum()
    }

    pub(super) fn is_finite(&self) -> bool {
        self.loss().is_finite() && self.grad_norm.is_finite()
    }
}

impl TrainLoop<'_> {
    /// Takes one step at rate `lr`; `None` where the run is stopped while it waits for a batch. A
    /// step that is not finite changes nothing.
    pub(super) fn take_step(
        &mut self,
        loader: &mut Loader,
        lr: f64,
    ) -> Result<Option<Step>, RunError> {
        let count = self.run.task.common().data.grad_accum;
        let batches = Vec::with_capacity(count);
        let mut step = Step {
            lr,
            batches,
            grad_norm: f64::NAN,
            wait: Duration::ZERO,
            next: Cursor::default(),
        };
        for _ in 0..count {
            let batch = match loader.next().expect("a loader ends only after an error") {
                Err(LoadError::Interrupted) => {
                    self.objective.learner_mut().discard();
                    return Ok(None);
                }
                batch => batch?,
            };
            for skipped in batch.skipped.iter().filter(|skipped| skipped.is_new) {
                (self.on_event)(Event::Skipped(skipped));
            }
            step.wait += batch.wait;
            step.next = batch.next;
            let samples = batch.samples.clone();
            let loss = self.objective.accumulate(batch, 1.0 / count as f64)?;
            step.batches.push(StepBatch { loss, samples });
        }
        let learner = self.objective.learner_mut();
        if step.loss().is_finite() {
            step.grad_norm = learner.update(lr)?;
        } else {
            learner.discard();
        }
        Ok(Some(step))
    }
}
