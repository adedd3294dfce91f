//! What a run trains for: its learner, with all that depends on whether it pre-trains or
//! fine-tunes.

use super::Run;
use super::loading::{Loading, classifier_options, loader_options};
use super::outcome::{Event, OnEvent, RunError};
use crate::backend::{ClassifierLearner, Learner, LearnerError, MaeLearner, SavedLearner};
use crate::config::{FinetuneConfig, PretrainConfig, Task};
use crate::cpu::Part;
use crate::data::targets::SoftTargets;
use crate::eval::{self, EvaluateError, Scores};
use crate::log::{PICTURE_TAG, RunLog};
use crate::plot::reconstruction;
use crate::ranks::Ranks;
use pipeline::loader::batch::Batch;
use pipeline::loader::{self, LoadError, LoaderOptions};
use pipeline::sampling::order::Cursor;
use pipeline::source::WeightedSource;
use schemas::report::ValidationMetrics;
use std::ops::Range;
use std::sync::Arc;

/// Number of clips in the picture.
const PICTURE_CLIPS: usize = 3;

/// What a run trains for.
pub(super) enum Objective<'a> {
    /// An autoencoder reconstructs masked clips; pictures show how well.
    Pretraining {
        config: &'a PretrainConfig,
        learner: MaeLearner,
    },
    /// A classifier learns labels; validation on other clips shows how well.
    FineTuning {
        config: &'a FinetuneConfig,
        learner: ClassifierLearner,
        validation: Option<&'a Arc<[WeightedSource]>>,
    },
}

impl<'a> Objective<'a> {
    /// The objective of a new run.
    ///
    /// # Errors
    /// When initial weights do not fit, or the device cannot hold the learner.
    pub(super) fn new(run: &'a Run) -> Result<Self, LearnerError> {
        let Run {
            task,
            device,
            compute_threads: threads,
            ..
        } = run;
        match task {
            Task::Pretrain(config) => {
                let learner = MaeLearner::new(config, device, *threads)?;
                Ok(Self::Pretraining { config, learner })
            }
            Task::Finetune(config) => {
                let init_weights = run.init_weights.clone();
                let learner = ClassifierLearner::new(config, init_weights, device, *threads)?;
                Ok(Self::FineTuning {
                    config,
                    learner,
                    validation: run.validation.as_ref(),
                })
            }
        }
    }

    /// The objective of a run that continues from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint does not fit the configuration, or the device cannot hold the learner.
    pub(super) fn resumed(run: &'a Run, saved: SavedLearner) -> Result<Self, LearnerError> {
        let Run {
            task,
            device,
            compute_threads: threads,
            ..
        } = run;
        match task {
            Task::Pretrain(config) => {
                let learner = MaeLearner::resumed(config, saved, device, *threads)?;
                Ok(Self::Pretraining { config, learner })
            }
            Task::Finetune(config) => {
                let learner = ClassifierLearner::resumed(config, saved, device, *threads)?;
                Ok(Self::FineTuning {
                    config,
                    learner,
                    validation: run.validation.as_ref(),
                })
            }
        }
    }

    /// The learner, as far as all learners are alike.
    pub(super) const fn learner(&self) -> &dyn Learner {
        match self {
            Self::Pretraining { learner, .. } => learner,
            Self::FineTuning { learner, .. } => learner,
        }
    }

    /// [`Self::learner`], to be changed.
    pub(super) const fn learner_mut(&mut self) -> &mut dyn Learner {
        match self {
            Self::Pretraining { learner, .. } => learner,
            Self::FineTuning { learner, .. } => learner,
        }
    }

    /// Options for training batches in the learner's memory, from `start` in the data.
    pub(super) fn loader_options(&self, loading: Loading, start: Cursor) -> LoaderOptions {
        let options = match self {
            Self::Pretraining { config, .. } => loader_options(config, loading, start),
            Self::FineTuning { config, .. } => classifier_options(config, loading, start),
        };
        LoaderOptions {
            memory: self.learner().memory(),
            ..options
        }
    }

    /// Forward and backward of a training batch; adds `share` times its gradients to those that
    /// wait for the next update. Returns its loss; where that is not finite, no gradients are
    /// added.
    ///
    /// # Errors
    /// When a clip has no label and needs one, or the device fails.
    pub(super) fn accumulate(&mut self, mut batch: Batch, share: f64) -> Result<f64, LearnerError> {
        match self {
            Self::Pretraining { learner, .. } => learner.accumulate(batch, share),
            Self::FineTuning {
                config, learner, ..
            } => {
                let clips = 0..batch.len();
                let soft_targets = SoftTargets::new(config, &mut batch, clips)?;
                learner.accumulate(batch, &soft_targets, share)
            }
        }
    }

    /// [`Self::accumulate`] of some clips of a batch, as `part` of it; of no clips, the loss has no
    /// meaning.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    pub(super) fn accumulate_part<'b>(
        &'b mut self,
        batch: &mut Batch,
        clips: Range<usize>,
        share: f64,
        part: Part<'b>,
    ) -> Result<f64, LearnerError> {
        if clips.is_empty() {
            self.learner_mut().accumulate_nothing(part)?;
            return Ok(0.0);
        }
        match self {
            Self::Pretraining { learner, .. } => learner.accumulate_part(batch, clips, share, part),
            Self::FineTuning {
                config, learner, ..
            } => {
                let soft_targets = SoftTargets::new(config, batch, clips.clone())?;
                learner.accumulate_part(batch, clips, &soft_targets, share, part)
            }
        }
    }

    /// Whether to validate after step `step` of `steps`.
    pub(super) const fn validation_is_due(&self, step: u64, steps: u64) -> bool {
        match self {
            Self::Pretraining { .. } => false,
            Self::FineTuning { config, .. } => {
                step == steps || step.is_multiple_of(config.objective.validation.every)
            }
        }
    }

    /// Evaluates a classifier on its validation clips, with all ranks; rank 0 gets the metrics. `None`
    /// where there are no clips, or the run is stopped meanwhile.
    ///
    /// # Errors
    /// When too many clips are bad, or the device fails.
    pub(super) fn validate(
        &mut self,
        run: &Run,
        ranks: &Ranks,
        on_event: OnEvent<'_>,
    ) -> Result<Option<ValidationMetrics>, RunError> {
        let Self::FineTuning {
            config,
            learner,
            validation: Some(clips),
        } = self
        else {
            return Ok(None);
        };
        let options = classifier_options(config, run.loading, Cursor::default())
            .once(config.objective.validation.views());
        let options = LoaderOptions {
            memory: learner.memory(),
            interrupt: Arc::clone(&run.stop),
            ..options
        };
        let mut scores = Scores::new(config.objective.classes.len());
        let evaluated = eval::infer_all(
            ranks,
            clips,
            options,
            |batch| learner.infer(batch),
            |clips| {
                clips
                    .iter()
                    .for_each(|clip| scores.add(&clip.probabilities, clip.label));
                Ok(())
            },
            |reason| on_event(Event::Skipped(reason)),
        );
        match evaluated {
            Err(EvaluateError::Load(LoadError::Interrupted)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(ranks.is_root().then(|| scores.metrics())),
        }
    }

    /// Whether [`Self::draw`] draws a picture.
    pub(super) const fn has_picture(&self) -> bool {
        matches!(self, Self::Pretraining { .. })
    }

    /// Logs a picture of the same few clips as an autoencoder reconstructs them after step `step`.
    ///
    /// # Errors
    /// When the clips cannot be read, the device fails, or the picture cannot be written.
    pub(super) fn draw(&mut self, run: &Run, step: u64, log: &mut RunLog) -> Result<(), RunError> {
        let Self::Pretraining { config, learner } = self else {
            return Ok(());
        };
        let examples = loader::examples(
            &run.data,
            config.common.clip,
            config.objective.masking,
            config.common.seed,
            PICTURE_CLIPS,
        )?;
        let picture = reconstruction::reconstruction(learner, examples)?;
        Ok(log.picture(step, &picture, PICTURE_TAG)?)
    }
}
