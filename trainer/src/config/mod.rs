//! The configuration of a run: a preset or recipe, the user's file over it, flags over both.
//!
//! A setting is a key of [`CommonConfig`] or of its objective, with its default in
//! `presets/*.toml` and its limits in `check`. [`Layer`]s are laid over each other and parsed into
//! one [`Config`], which the run keeps in its folder as `config.toml`.

use schemas::geometry::GridError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

mod check;
mod common;
mod finetune;
mod layers;
mod pretrain;
#[cfg(test)]
mod tests;

pub use common::{
    CheckpointsConfig, CommonConfig, ComputeConfig, DataConfig, Length, ModelConfig, OnNonfinite,
    SafetyConfig, ScheduleConfig,
};
pub use finetune::{
    EncoderPart, FinetuneConfig, FinetuneObjective, Recipe, RecipeConfig, SplitConfig,
    ValidationConfig,
};
pub use layers::{Layer, parse_value};
pub use pretrain::{LiveConfig, Preset, PretrainConfig, PretrainObjective, TargetConfig};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A layer is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{layer}: {message}")]
    Parse {
        /// Which file, flag or preset.
        layer: String,
        /// What and where.
        message: String,
    },
    /// Clips and patches do not fit.
    #[error("clips and patches do not fit")]
    Grid(#[from] GridError),
    /// A value is out of its range.
    #[error("{key} is {value}; it must be {wanted}")]
    Value {
        /// The key, with its table.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        wanted: String,
    },
}

impl ConfigError {
    fn parse(layer: String, error: &toml::de::Error) -> Self {
        Self::Parse {
            layer,
            message: error.to_string().trim().to_owned(),
        }
    }
}

/// Settings of one objective, beside the common ones.
pub trait ObjectiveConfig: Clone + Serialize + DeserializeOwned {
    /// The value of the key `task` in a file that is of this objective.
    const NAME: &str;
    /// The command of `trainer` that has it.
    const COMMAND: &str;

    /// Checks the values of the objective's own keys.
    ///
    /// # Errors
    /// When one is out of its range.
    fn check(config: &Config<Self>) -> Result<(), ConfigError>;
}

/// Everything that decides what a run computes: [`PretrainConfig`] or [`FinetuneConfig`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config<O> {
    /// Settings of every training.
    #[serde(flatten)]
    pub common: CommonConfig,
    /// Settings of the objective alone.
    #[serde(flatten)]
    pub objective: O,
}

impl<O: ObjectiveConfig> Config<O> {
    /// The same with `layers` laid over it, checked.
    ///
    /// # Errors
    /// When a layer has an unknown key or a value of the wrong type, or the result is invalid.
    pub fn with(&self, layers: &[Layer]) -> Result<Self, ConfigError> {
        Self::from_layers(Layer::text("the configuration", &self.to_toml())?, layers)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check_common(&self.common)?;
        O::check(self)
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.table()).expect("plain data becomes TOML")
    }

    /// Keys on which two configurations differ: `schedule.length: steps = 300, not steps = 500`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mine = Value::Table(self.table());
        layers::compare("", &mine, &Value::Table(other.table()), &mut differences);
        differences
    }

    /// [`Self::differences`] that change what is computed. When a run saves, what it does about
    /// failures and how much it recomputes may differ.
    pub fn differences_that_matter(&self, other: &Self) -> Vec<String> {
        let mut other = other.clone();
        other.common.checkpoints = self.common.checkpoints.clone();
        other.common.safety = self.common.safety.clone();
        other.common.compute.gradient_checkpointing = self.common.compute.gradient_checkpointing;
        self.differences(&other)
    }

    fn from_layers(base: Layer, layers: &[Layer]) -> Result<Self, ConfigError> {
        let config = base.resolve(layers, Self::parse)?;
        config.check()?;
        Ok(config)
    }

    fn parse(mut table: Table) -> Result<Self, String> {
        let task = table.remove("task");
        if task.is_some_and(|task| task.as_str() != Some(O::NAME)) {
            return Err(format!("not a configuration of `trainer {}`", O::COMMAND));
        }
        let (common, objective): (Table, Table) = table
            .into_iter()
            .partition(|(key, _)| CommonConfig::KEYS.contains(&key.as_str()));
        let message = |error: toml::de::Error| error.to_string().trim().to_owned();
        Ok(Self {
            objective: objective.try_into().map_err(message)?,
            common: common.try_into().map_err(message)?,
        })
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.insert("task".to_owned(), Value::from(O::NAME));
        table.extend(Table::try_from(self).expect("plain data becomes TOML"));
        table
    }
}

/// What a run is for, with everything that decides what it computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Masked autoencoding.
    Pretrain(Box<PretrainConfig>),
    /// Classification.
    Finetune(Box<FinetuneConfig>),
}

impl Task {
    /// Reads a configuration that a run has written.
    ///
    /// # Errors
    /// When it cannot be read or is invalid.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_layer(Layer::file(path)?)
    }

    /// Parses a whole configuration, checked.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::from_layer(Layer::text("the configuration", text)?)
    }

    fn from_layer(layer: Layer) -> Result<Self, ConfigError> {
        // The files of a pre-training had no such key before version 0.2.
        match layer.string("task") {
            Some(FinetuneObjective::NAME) => {
                FinetuneConfig::from_layers(layer, &[]).map(Self::from)
            }
            _ => PretrainConfig::from_layers(layer, &[]).map(Self::from),
        }
    }

    /// The settings of every training.
    pub const fn common(&self) -> &CommonConfig {
        match self {
            Self::Pretrain(config) => &config.common,
            Self::Finetune(config) => &config.common,
        }
    }

    /// The same with another random seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        match &mut self {
            Self::Pretrain(config) => config.common.seed = seed,
            Self::Finetune(config) => config.common.seed = seed,
        }
        self
    }

    /// [`Config::differences_that_matter`]; between objectives, that alone.
    pub fn differences_that_matter(&self, other: &Self) -> Vec<String> {
        match (self, other) {
            (Self::Pretrain(mine), Self::Pretrain(other)) => mine.differences_that_matter(other),
            (Self::Finetune(mine), Self::Finetune(other)) => mine.differences_that_matter(other),
            _ => vec![format!("task: {}, not {}", self.name(), other.name())],
        }
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Pretrain(config) => config.to_toml(),
            Self::Finetune(config) => config.to_toml(),
        }
    }

    /// Its name in text.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pretrain(_) => "pre-training",
            Self::Finetune(_) => "fine-tuning",
        }
    }
}

impl From<PretrainConfig> for Task {
    fn from(config: PretrainConfig) -> Self {
        Self::Pretrain(Box::new(config))
    }
}

impl From<FinetuneConfig> for Task {
    fn from(config: FinetuneConfig) -> Self {
        Self::Finetune(Box::new(config))
    }
}
