//! One step of training.

use super::TrainLoop;
use super::outcome::{Event, RunError};
use crate::cpu::Part;
use crate::ranks::{RanksError, SumTimes};
use pipeline::loader::batch::{Batch, Skipped};
use pipeline::loader::{LoadError, Loader};
use pipeline::sampling::order::{Cursor, SampleId};
use std::time::Duration;

/// The inputs and results of a step.
pub(super) struct Step {
    /// Learning rate.
    pub(super) lr: f64,
    /// Its batches, whose gradients are averaged.
    pub(super) batches: Vec<StepBatch>,
    /// Number of clips, of all ranks.
    pub(super) clips: usize,
    /// Global norm of the gradients before clipping; NaN where the loss is not finite.
    pub(super) grad_norm: f64,
    /// How long it waited for its batches.
    pub(super) wait: Duration,
    /// How long gradients were summed over ranks.
    pub(super) sums: SumTimes,
    /// The place in the data after it.
    pub(super) next: Cursor,
}

/// Loss of one batch of a step, and the samples of it that this rank has.
pub(super) struct StepBatch {
    pub(super) loss: f64,
    pub(super) samples: Vec<SampleId>,
}

impl Step {
    /// Mean loss of the batches.
    pub(super) fn loss(&self) -> f64 {
        self.batches.iter().map(|batch| batch.loss).sum::<f64>() / self.batches.len() as f64
    }

    pub(super) fn is_finite(&self) -> bool {
        self.loss().is_finite() && self.grad_norm.is_finite()
    }
}

impl TrainLoop<'_> {
    /// Takes one step at rate `lr`; `None` where the run is stopped while a rank waits for a batch.
    /// A step that is not finite changes nothing.
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
            clips: 0,
            grad_norm: f64::NAN,
            wait: Duration::ZERO,
            sums: SumTimes::default(),
            next: Cursor::default(),
        };
        while step.batches.len() < count {
            let batch = match loader.next().expect("a loader ends only after an error") {
                Err(LoadError::Interrupted) => None,
                batch => Some(batch?),
            };
            let clips = batch.as_ref().map_or(f64::NAN, |batch| batch.len() as f64);
            let skipped = batch.iter().flat_map(|batch| &batch.skipped);
            let skipped: Vec<&Skipped> = skipped.filter(|skipped| skipped.is_new).collect();
            let counts = self.ranks.gather(&[clips, skipped.len() as f64]);
            let sum = |of: usize| counts.iter().skip(of).step_by(2).sum::<f64>();
            let (clips, bad) = (sum(0), sum(1));
            if bad > 0.0 {
                self.count_skipped(&skipped)?;
            }
            let Some(batch) = batch.filter(|_| !clips.is_nan()) else {
                self.objective.learner_mut().discard();
                return Ok(None);
            };
            step.wait += batch.wait;
            step.next = batch.next;
            if clips == 0.0 {
                continue;
            }
            step.clips += clips as usize;
            let samples = batch.samples.clone();
            let loss = self.accumulate(batch, 1.0 / count as f64, &mut step)?;
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

    /// Counts the clips that ranks have skipped, each once, and reports them on rank 0.
    fn count_skipped(&mut self, own: &[&Skipped]) -> Result<(), RunError> {
        let own = own.iter();
        let own = own.map(|clip| (clip.sample.set, clip.sample.clip, &clip.reason));
        let own = serde_json::to_vec(&own.collect::<Vec<_>>()).expect("plain data becomes JSON");
        let limit = self.run.loading.max_bad;
        for of_rank in self.ranks.gather_bytes(&own) {
            let clips: Vec<(u32, u64, String)> =
                serde_json::from_slice(&of_rank).expect("as it was written");
            for (set, clip, reason) in clips {
                if !self.bad.insert((set, clip)) {
                    continue;
                }
                if self.ranks.is_root() {
                    (self.on_event)(Event::Skipped(&reason));
                }
                if self.bad.len() > limit {
                    let last = reason;
                    return Err(RanksError::TooManyBad { limit, last }.into());
                }
            }
        }
        Ok(())
    }

    /// Adds the gradients of a batch, of which this rank has a part, to those that wait. Returns
    /// the loss of the whole batch.
    fn accumulate(
        &mut self,
        mut batch: Batch,
        share: f64,
        step: &mut Step,
    ) -> Result<f64, RunError> {
        let data = &self.run.task.common().data;
        let ranks = self.ranks.count();
        if data.micro_batches == 1 && ranks == 1 {
            return Ok(self.objective.accumulate(batch, share)?);
        }
        let count = (data.micro_batches / ranks).max(1);
        let places = data.batch_size / ranks;
        let mut losses = Vec::with_capacity(2 * count);
        for index in 0..count {
            let places = places * index / count..places * (index + 1) / count;
            let weight = places.len() as f64 / data.batch_size as f64;
            let clips = batch.clips_at(places);
            let is_empty = clips.is_empty();
            let part = |buckets| Part::Micro {
                index,
                count,
                buckets,
            };
            let share = share * weight;
            let loss = if index + 1 < count || ranks == 1 {
                self.objective
                    .accumulate_part(&mut batch, clips, share, part(None))?
            } else {
                let objective = &mut self.objective;
                let (loss, times) = self.ranks.sum_while(|buckets| {
                    objective.accumulate_part(&mut batch, clips, share, part(Some(buckets)))
                });
                step.sums += times;
                loss?
            };
            let weight = if is_empty { 0.0 } else { weight };
            losses.extend([loss * weight, weight]);
        }
        self.objective.learner_mut().add_batch()?;
        // In the order of the micro-batches, whichever rank has them.
        let losses = self.ranks.gather(&losses);
        let sum = |of: usize| losses.iter().skip(of).step_by(2).sum::<f64>();
        Ok(sum(0) / sum(1))
    }
}
