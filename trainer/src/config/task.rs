//! What a run is for, and what the loop asks of its configuration.

use super::tables::compare;
use super::{CheckpointsConfig, ComputeConfig, Config, ConfigError, EncoderPart, FinetuneConfig, SafetyConfig, schedule};
use crate::optim::Schedule;
use std::path::Path;
use toml::{Table, Value};

/// What a run is for, with everything that decides what it computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Masked autoencoding.
    Pretrain(Box<Config>),
    /// Classification.
    Finetune(Box<FinetuneConfig>),
}

impl Task {
    /// Reads a configuration that a run has written.
    ///
    /// # Errors
    /// When it cannot be read or has been spoiled.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|error| match error {
            ConfigError::Parse { message, .. } => ConfigError::Parse { path: path.to_owned(), message },
            error => error,
        })
    }

    /// The configuration that `text` is, checked.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let error =
            |error: toml::de::Error| ConfigError::Parse { path: "the configuration".into(), message: error.to_string().trim().to_owned() };
        let table: Table = text.parse().map_err(error)?;
        if table.contains_key("task") {
            let config: FinetuneConfig = toml::from_str(text).map_err(error)?;
            config.check()?;
            return Ok(Self::Finetune(Box::new(config)));
        }
        let config: Config = toml::from_str(text).map_err(error)?;
        config.check()?;
        Ok(Self::Pretrain(Box::new(config)))
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Pretrain(config) => toml::to_string(config),
            Self::Finetune(config) => toml::to_string(config),
        }
        .expect("plain data becomes TOML")
    }

    /// Keys on which two differ in what is computed: `schedule.length: steps = 300, not steps = 500`. When it is saved and what is done when it fails may differ.
    pub fn differences_that_matter(&self, other: &Self) -> Vec<String> {
        let without = |task: &Self| {
            let mut task = task.clone();
            let (checkpoints, safety, compute) = match &mut task {
                Self::Pretrain(config) => (&mut config.checkpoints, &mut config.safety, &mut config.compute),
                Self::Finetune(config) => (&mut config.checkpoints, &mut config.safety, &mut config.compute),
            };
            *checkpoints = CheckpointsConfig { every: 1, keep: 1 };
            *safety = SafetyConfig::default();
            *compute = ComputeConfig { recompute: false, ..*compute };
            match &task {
                Self::Pretrain(config) => Table::try_from(config),
                Self::Finetune(config) => Table::try_from(config),
            }
            .expect("plain data becomes TOML")
        };
        let mut differences = Vec::new();
        compare("", &Value::Table(without(self)), &Value::Table(without(other)), &mut differences);
        differences
    }

    /// One word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pretrain(_) => "pre-training",
            Self::Finetune(_) => "fine-tuning",
        }
    }

    /// Seed of all chance.
    pub const fn seed(&self) -> u64 {
        match self {
            Self::Pretrain(config) => config.seed,
            Self::Finetune(config) => config.seed,
        }
    }

    /// What it says of the encoder.
    pub fn encoder(&self) -> EncoderPart {
        match self {
            Self::Pretrain(config) => (&**config).into(),
            Self::Finetune(config) => (&**config).into(),
        }
    }

    /// Batches a step.
    pub const fn accumulate(&self) -> usize {
        match self {
            Self::Pretrain(config) => config.data.accumulate,
            Self::Finetune(config) => config.data.accumulate,
        }
    }

    /// When to save.
    pub const fn checkpoints(&self) -> &CheckpointsConfig {
        match self {
            Self::Pretrain(config) => &config.checkpoints,
            Self::Finetune(config) => &config.checkpoints,
        }
    }

    /// What to do about steps that are not finite.
    pub fn safety(&self) -> SafetyConfig {
        match self {
            Self::Pretrain(config) => config.safety.clone(),
            Self::Finetune(config) => config.safety.clone(),
        }
    }

    /// How it is computed.
    pub const fn compute(&self) -> &ComputeConfig {
        match self {
            Self::Pretrain(config) => &config.compute,
            Self::Finetune(config) => &config.compute,
        }
    }

    /// The learning rate's course over data of `clips` clips. An epoch takes as many samples as there are clips.
    pub fn schedule(&self, clips: u64) -> Schedule {
        match self {
            Self::Pretrain(config) => config.schedule(clips),
            Self::Finetune(config) => {
                let samples = config.data.batch_size as f64 * config.data.accumulate as f64;
                schedule(&config.schedule, config.optimizer.base_lr, samples, clips)
            }
        }
    }
}

impl From<Config> for Task {
    fn from(config: Config) -> Self {
        Self::Pretrain(Box::new(config))
    }
}

impl From<FinetuneConfig> for Task {
    fn from(config: FinetuneConfig) -> Self {
        Self::Finetune(Box::new(config))
    }
}
