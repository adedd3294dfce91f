//! Trained weights: of a run, of one of its checkpoints, or of an imported folder.

use crate::backend::{InferenceModel, LearnerError};
use crate::config::{CommonConfig, ConfigError, PretrainConfig, Task};
use crate::cpu::Precision;
use crate::log::CONFIG_FILE;
use crate::model::{ClassifierConfig, Mae, ParameterError};
use crate::train::checkpoint::{
    self, CHECKPOINTS_DIR, CheckpointError, InvalidCheckpoint, MODEL_FILE,
};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Weights with their configuration.
#[derive(Debug)]
pub struct Weights {
    /// The checkpoint or folder that they are from.
    pub path: PathBuf,
    /// What they were made for.
    pub task: Task,
    /// The values, f32 on the host, under our names.
    pub tensors: HashMap<String, Tensor>,
    /// Newer checkpoints of the same run that are damaged.
    pub skipped_checkpoints: Vec<InvalidCheckpoint>,
}

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// There are no weights at the path.
    #[error(
        "{} holds no weights: give the folder of a run (it has {CHECKPOINTS_DIR}/), a checkpoint \
         of it, or a folder that `trainer import` has made",
        path.display()
    )]
    None {
        /// What was given.
        path: PathBuf,
    },
    /// The run has no checkpoint yet, or no valid one.
    #[error(
        "none of the checkpoints of {} can be used{}",
        path.display(),
        render_invalid(invalid)
    )]
    NoneValid {
        /// The folder of the run.
        path: PathBuf,
        /// The checkpoints that there are.
        invalid: Vec<InvalidCheckpoint>,
    },
    /// The checkpoint is damaged.
    #[error("a checkpoint that cannot be used: {0}")]
    InvalidCheckpoint(#[from] InvalidCheckpoint),
    /// The folder of checkpoints cannot be read.
    #[error(transparent)]
    Folder(#[from] CheckpointError),
    /// The configuration beside the weights is not one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file of weights cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They are of the wrong kind.
    #[error("{} is of {kind}, {wanted}", path.display())]
    Kind {
        /// Where they are from.
        path: PathBuf,
        /// What they were made for.
        kind: &'static str,
        /// What is needed, and why.
        wanted: &'static str,
    },
    /// They do not fit what their configuration says.
    #[error("{}: {source}", path.display())]
    Parameters {
        /// Where they are from.
        path: PathBuf,
        /// What does not fit.
        source: ParameterError,
    },
}

/// A line for each invalid checkpoint.
fn render_invalid(invalid: &[InvalidCheckpoint]) -> String {
    if invalid.is_empty() {
        return ": there are none yet".to_owned();
    }
    invalid
        .iter()
        .map(|invalid| format!("\n  {invalid}"))
        .collect()
}

impl Weights {
    /// Opens the weights at `path`: the folder of a run, whose newest valid checkpoint is used; a
    /// checkpoint; or a folder of `config.toml` and `model.safetensors`.
    ///
    /// # Errors
    /// When there are none, or they are damaged.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        if path.join(CHECKPOINTS_DIR).is_dir() {
            let (newest, skipped_checkpoints) = checkpoint::newest_weights(path)?;
            return match newest {
                Some((path, task, tensors)) => Ok(Self {
                    path,
                    task,
                    tensors,
                    skipped_checkpoints,
                }),
                None => Err(WeightsError::NoneValid {
                    path: path.to_owned(),
                    invalid: skipped_checkpoints,
                }),
            };
        }
        let (model, config) = (path.join(MODEL_FILE), path.join(CONFIG_FILE));
        if checkpoint::is_checkpoint(path) {
            let (task, tensors) = checkpoint::weights(path)?;
            return Ok(Self {
                path: path.to_owned(),
                task,
                tensors,
                skipped_checkpoints: Vec::new(),
            });
        }
        if config.exists() && !model.exists() {
            return Err(WeightsError::NoneValid {
                path: path.to_owned(),
                invalid: Vec::new(),
            });
        }
        if !config.exists() || !model.exists() {
            return Err(WeightsError::None {
                path: path.to_owned(),
            });
        }
        let task = Task::read(&config)?;
        let tensors = checkpoint::read_safetensors(&model);
        let tensors = tensors.map_err(|error| WeightsError::File {
            path: model,
            reason: format!("is not a valid file of weights: {error}"),
        })?;
        Ok(Self {
            path: path.to_owned(),
            task,
            tensors,
            skipped_checkpoints: Vec::new(),
        })
    }

    /// The configuration of the pre-training that they are from, and the autoencoder.
    ///
    /// # Errors
    /// When they are a classifier's, or do not fit their configuration.
    pub fn mae(&self, device: &Device) -> Result<(&PretrainConfig, Mae), WeightsError> {
        let Task::Pretrain(config) = &self.task else {
            let wanted = "which has no decoder to reconstruct with: give the pre-training that it \
                          was initialised from";
            return Err(WeightsError::Kind {
                path: self.path.clone(),
                kind: "a classifier",
                wanted,
            });
        };
        let model =
            Mae::from_tensors(config.model(), self.tensors.clone(), device).map_err(|source| {
                WeightsError::Parameters {
                    path: self.path.clone(),
                    source,
                }
            })?;
        Ok((config, model))
    }

    /// A hash of names, shapes and values.
    ///
    /// # Errors
    /// When a value is not an f32.
    pub fn fingerprint(&self) -> candle_core::Result<u64> {
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort_unstable();
        let mut hasher = Xxh3::new();
        for name in names {
            let tensor = &self.tensors[name];
            hasher.update(format!("{name} {:?}", tensor.dims()).as_bytes());
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            hasher.update(bytemuck::cast_slice(&values));
        }
        Ok(hasher.digest())
    }

    /// The classes that they tell apart; none of a pre-training.
    pub fn classes(&self) -> &[String] {
        match &self.task {
            Task::Pretrain(_) => &[],
            Task::Finetune(config) => &config.objective.classes,
        }
    }

    /// Shapes of what reads clips with them: a classifier's, or an encoder's alone.
    pub fn classifier_config(&self) -> ClassifierConfig {
        let CommonConfig {
            clip,
            ref model,
            encoder,
            ..
        } = *self.task.common();
        let classes = self.classes().len();
        ClassifierConfig {
            grid: clip,
            encoder,
            positions: model.positions,
            class_token: model.class_token,
            classes,
            conventions: model.conventions(),
        }
    }

    /// The encoder's alone, as those of a pre-training.
    #[must_use]
    pub fn encoder_only(&self) -> Self {
        let of_encoder = |name: &str| {
            !name.starts_with("decoder_") && !name.starts_with("head.") && name != "mask_token"
        };
        let tensors = self
            .tensors
            .iter()
            .filter(|(name, _)| of_encoder(name))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let mut task = self.task.clone();
        if let Task::Finetune(config) = &mut task {
            config.objective.classes.clear();
        }
        Self {
            path: self.path.clone(),
            task,
            tensors,
            skipped_checkpoints: Vec::new(),
        }
    }

    /// The model for inference: a classifier, or of a pre-training the encoder alone.
    ///
    /// # Errors
    /// When they do not fit their configuration, or the device has no room for them.
    pub fn inference_model(
        &self,
        device: &Device,
        precision: Precision,
        threads: usize,
    ) -> Result<InferenceModel, LearnerError> {
        let tensors = if self.classes().is_empty() {
            self.encoder_only().tensors
        } else {
            self.tensors.clone()
        };
        InferenceModel::new(
            self.classifier_config(),
            tensors,
            device,
            precision,
            threads,
        )
    }
}
