//! The runs of a study: pre-trainings, fine-tunings and probes, each in its own folder.

use super::arm::{Measure, Pretraining};
use super::{Progress, Settings, StudyError};
use crate::config::{FinetuneConfig, Task};
use crate::data::classes::{ClassError, Split};
use crate::eval::videos::{VideoPrediction, VideoScores};
use crate::eval::{EvaluateError, infer_all};
use crate::log::CONFIG_FILE;
use crate::ranks::Ranks;
use crate::train::probes::{AttentiveProbe, Features, LinearProbe, extract};
use crate::train::weights::Weights;
use crate::train::{self, Event, Run};
use candle_core::Device;
use pipeline::loader::LoaderOptions;
use pipeline::sampling::sample::Views;
use pipeline::source::{self, Catalogue, WeightedSource};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// File of the predictions of a finished evaluation, in its folder.
const PREDICTIONS_FILE: &str = "predictions.json";

/// Clips per batch of inference.
const BATCH: usize = 4;

/// The predictions of an evaluation, by the name of the measure.
pub(super) type Predictions = BTreeMap<String, Vec<VideoPrediction>>;

/// An evaluation of an encoder.
pub(super) struct Evaluation {
    /// Of the fine-tuning; of a probe its clips and classes.
    pub(super) config: FinetuneConfig,
    /// Name of the pre-training that it starts from, if there is one.
    pub(super) start: Option<String>,
    pub(super) measure: Measure,
    pub(super) split: Split,
}

impl Evaluation {
    /// Hash of the clips that are trained on and of those that are predicted.
    fn fingerprint(&self) -> String {
        let sets = self
            .split
            .train
            .iter()
            .chain(self.split.validation.iter().flat_map(|sets| sets.iter()));
        let sets: Vec<WeightedSource> = sets.cloned().collect();
        format!("{:016x}", source::fingerprint(&sets))
    }
}

/// The predictions of a finished evaluation, and the hash of its clips.
#[derive(Serialize, Deserialize)]
struct Saved {
    data: String,
    predictions: Predictions,
}

/// Runs trainings in folders of a study.
pub(super) struct Runs<'a, R> {
    settings: &'a Settings,
    report: &'a R,
    began: AtomicUsize,
    all: usize,
}

impl<'a, R: Fn(&str, Progress<'_>) + Sync> Runs<'a, R> {
    /// Of `all` runs, none of which has begun.
    pub(super) const fn new(settings: &'a Settings, report: &'a R, all: usize) -> Self {
        Self {
            settings,
            report,
            began: AtomicUsize::new(0),
            all,
        }
    }

    /// Pre-trains on `data`.
    pub(super) fn pretrain(
        &self,
        name: &str,
        pretraining: &Pretraining,
        seed: u64,
        data: Arc<[WeightedSource]>,
    ) -> Result<(), StudyError> {
        self.begin(name);
        let mut config = pretraining.config.clone();
        self.settings.set_flip(&mut config.common);
        let task = Task::from(config).with_seed(pretraining.seed(seed));
        let dir = self.prepare(name, &task)?;
        self.train(name, dir, task, data, None)?;
        (self.report)(name, Progress::Ends);
        Ok(())
    }

    /// Trains a classifier, or probes of an encoder, and predicts the classes of the validation
    /// videos.
    pub(super) fn evaluate(
        &self,
        name: &str,
        evaluation: Evaluation,
    ) -> Result<Predictions, StudyError> {
        self.begin(name);
        let task = Task::from(evaluation.config.clone());
        let dir = self.prepare(name, &task)?;
        let file = dir.join(PREDICTIONS_FILE);
        let data = evaluation.fingerprint();
        let saved = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok());
        let predictions = match saved {
            Some(saved) if saved.data == data => saved.predictions,
            Some(_) => return Err(StudyError::OtherData { path: dir }),
            None => {
                let predictions = match evaluation.measure {
                    Measure::FineTuned { .. } => self.fine_tune(name, &dir, task, evaluation)?,
                    Measure::Linear | Measure::Attentive => self.probe(&dir, evaluation)?,
                };
                let saved = Saved { data, predictions };
                let json = serde_json::to_vec(&saved).expect("plain data becomes JSON");
                let written = pipeline::atomic_file::write(&file, &json);
                written.map_err(|source| StudyError::Write { path: file, source })?;
                saved.predictions
            }
        };
        (self.report)(name, Progress::Ends);
        Ok(predictions)
    }

    fn begin(&self, name: &str) {
        let number = self.began.fetch_add(1, Ordering::Relaxed) + 1;
        (self.report)(name, Progress::Begins(number, self.all));
    }

    /// Creates the folder of a run with its configuration. Where it exists, its configuration must
    /// be the same.
    fn prepare(&self, name: &str, task: &Task) -> Result<PathBuf, StudyError> {
        let dir = self.settings.out.join(name);
        let write = |source| StudyError::Write {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(write)?;
        let config = dir.join(CONFIG_FILE);
        if let Ok(saved) = Task::read(&config) {
            let differences = task.differences_that_matter(&saved);
            if !differences.is_empty() {
                return Err(StudyError::OtherSettings {
                    path: dir,
                    differences,
                });
            }
        }
        pipeline::atomic_file::write(&config, task.to_toml().as_bytes()).map_err(write)?;
        Ok(dir)
    }

    /// Trains to the end of the run.
    fn train(
        &self,
        name: &str,
        dir: PathBuf,
        task: Task,
        data: Arc<[WeightedSource]>,
        start: Option<HashMap<String, candle_core::Tensor>>,
    ) -> Result<(), StudyError> {
        let run = Run {
            task,
            data,
            validation: None,
            init_weights: start,
            dir: dir.clone(),
            device: Device::Cpu,
            compute_threads: self.threads(),
            loading: self.settings.loading,
            stop: Arc::clone(&self.settings.stop),
        };
        let on_event = |event: Event<'_>| (self.report)(name, Progress::Event(event));
        let outcome = train::train(&run, on_event).map_err(|source| StudyError::Run {
            path: dir,
            source: Box::new(source),
        })?;
        if outcome.steps < outcome.all_steps || self.settings.stop.load(Ordering::SeqCst) {
            return Err(StudyError::Stopped);
        }
        Ok(())
    }

    /// Compute threads of one run.
    fn threads(&self) -> usize {
        (self.settings.threads / self.settings.jobs).max(1)
    }

    fn weights_of(&self, run: &str) -> Result<Weights, StudyError> {
        Ok(Weights::open(&self.settings.out.join(run))?)
    }

    fn fine_tune(
        &self,
        name: &str,
        dir: &Path,
        task: Task,
        evaluation: Evaluation,
    ) -> Result<Predictions, StudyError> {
        let Evaluation {
            config,
            start,
            measure,
            split,
        } = evaluation;
        let start = start.map(|run| self.weights_of(&run)).transpose()?;
        let start = start.map(|weights| weights.tensors);
        self.train(name, dir.to_owned(), task, split.train, start)?;
        let data = split.validation.expect("the videos of a fold");
        let failed = |source| evaluate_error(dir, source);
        let dtype = config.common.compute.dtype;
        let weights = self.weights_of(name)?;
        let model = weights.inference_model(&Device::Cpu, dtype, self.threads());
        let mut model = model.map_err(|error| failed(error.into()))?;
        let mut videos = VideoScores::new(catalogues(&data)?);
        let take = |clips: Vec<crate::eval::ClipOutput>| {
            clips.iter().for_each(|clip| videos.add_output(clip));
            Ok(())
        };
        let options = self.options(&config).once(Views::ONE);
        let infer = |batch| model.infer(batch, false);
        let ranks = Ranks::alone();
        let on_skipped = |reason: &str| self.skipped(name, reason);
        infer_all(&ranks, &data, options, infer, take, on_skipped).map_err(failed)?;
        Ok(BTreeMap::from([(
            measure.name().to_owned(),
            videos.finish(),
        )]))
    }

    fn probe(&self, dir: &Path, evaluation: Evaluation) -> Result<Predictions, StudyError> {
        let Evaluation {
            config,
            start,
            split,
            ..
        } = evaluation;
        let failed = |source| evaluate_error(dir, source);
        let tensor =
            |error: candle_core::Error| evaluate_error(dir, EvaluateError::Learner(error.into()));
        let weights = self.weights_of(&start.expect("a probe is of a pre-training"))?;
        let dtype = config.common.compute.dtype;
        let encoder = weights.encoder_only();
        let encoder = encoder.inference_model(&Device::Cpu, dtype, self.threads());
        let mut encoder = encoder.map_err(|error| failed(error.into()))?;
        let width = config.common.encoder.width;
        let mut features = |data: &Arc<[WeightedSource]>| -> Result<Features, StudyError> {
            let parts = (&Ranks::alone(), &mut encoder);
            let options = self.options(&config);
            let on_skipped = |reason: &str| self.skipped(&dir.display().to_string(), reason);
            let features = extract(parts, (dir, width), data, options, |_| {}, on_skipped);
            Ok(features.map_err(failed)?.expect("one rank has all"))
        };
        let data = split.validation.expect("the videos of a fold");
        let (train, validation) = (features(&split.train)?, features(&data)?);
        let linear = LinearProbe::train(&train, &config).map_err(tensor)?;
        let attentive = AttentiveProbe::train(&train, &config, |_, _| {});
        let attentive = attentive.map_err(tensor)?;
        let of_clips = [
            (Measure::Linear, linear.probabilities(&validation)),
            (
                Measure::Attentive,
                attentive.probabilities(&validation).map_err(tensor)?,
            ),
        ];
        let catalogues = catalogues(&data)?;
        let videos = |(measure, of_clips): (Measure, Vec<Vec<f32>>)| {
            let videos = validation.videos(&of_clips, catalogues.clone());
            (measure.name().to_owned(), videos)
        };
        Ok(of_clips.into_iter().map(videos).collect())
    }

    /// Options for one pass over clips.
    fn options(&self, config: &FinetuneConfig) -> LoaderOptions {
        LoaderOptions {
            interrupt: Arc::clone(&self.settings.stop),
            frame_order: config.common.data.frame_order,
            ..self.settings.loading.options(BATCH, config.common.clip)
        }
    }

    fn skipped(&self, name: &str, reason: &str) {
        (self.report)(name, Progress::Event(Event::Skipped(reason)));
    }
}

/// An evaluation that failed, or was stopped.
fn evaluate_error(dir: &Path, source: EvaluateError) -> StudyError {
    match source {
        EvaluateError::Load(pipeline::loader::LoadError::Interrupted) => StudyError::Stopped,
        source => StudyError::Evaluate {
            path: dir.to_owned(),
            source: Box::new(source),
        },
    }
}

fn catalogues(sets: &[WeightedSource]) -> Result<Vec<Catalogue>, StudyError> {
    let all = sets.iter().map(|set| set.source.catalogue());
    Ok(all.collect::<Result<_, _>>().map_err(ClassError::from)?)
}
