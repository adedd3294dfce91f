//! What a fine-tuning is told: the encoder as its weights have it, a recipe, the user's file over it, flags over both.

use super::check::{check, check_augmentation, check_model, check_optimizer, check_schedule, check_transformer};
use super::tables::{lay_over, parse_file, set};
use super::{CheckpointsConfig, ComputeConfig, Config, ConfigError, Length, ModelConfig, OnNonfinite, SafetyConfig, ScheduleConfig};
use crate::cpu::Precision;
use crate::model::{ClassifierConfig, TransformerConfig};
use crate::optim::layer_decay;
use crate::optim::{AdamWConfig, ParameterRule};
use pipeline::loader::batch::ValueType;
use pipeline::sampling::sample::{Augmentation, Views};
use pipeline::transform::augment::{AugmentPolicy, Erasing, RandAugment};
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A named way of fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Recipe {
    /// For a tiny encoder and few videos, in minutes on two CPU cores.
    Light,
    /// The reference's, for ViT-L on Kinetics-400.
    Paper,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Light, Self::Paper];

    /// The one for an encoder of `width`: the reference's from ViT-Small on.
    pub const fn for_width(width: usize) -> Self {
        if width < 384 { Self::Light } else { Self::Paper }
    }

    /// Its settings, as TOML.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Light => include_str!("../../presets/finetune/light.toml"),
            Self::Paper => include_str!("../../presets/finetune/paper.toml"),
        }
    }
}

/// Everything that decides what a fine-tuning computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    /// Tells these from the settings of a pre-training.
    pub task: FinetuneMark,
    /// Seed of the head's first weights, of order, crops, flips and all that is dropped or mixed.
    pub seed: u64,
    /// Weights that the encoder began with; none where it began by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// Class names in the order of their numbers.
    pub classes: Vec<String>,
    /// Training clips and their patches.
    pub clip: PatchGrid,
    /// Positions and cls token.
    pub model: ModelConfig,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// Rates by layer, and all that keeps a model from learning its clips by heart.
    pub recipe: RecipeConfig,
    /// Batches.
    pub data: FinetuneDataConfig,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Length and learning rate.
    pub schedule: ScheduleConfig,
    /// When to save.
    pub checkpoints: CheckpointsConfig,
    /// When to look at the clips that are kept for it.
    pub validation: ValidationConfig,
    /// What to do about steps that are not finite.
    #[serde(default)]
    pub safety: SafetyConfig,
    /// How it is computed.
    #[serde(default)]
    pub compute: ComputeConfig,
}

/// The word by which a file of fine-tuning is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinetuneMark {
    /// It is one.
    Finetune,
}

/// Rates by layer, and all that keeps a model from learning its clips by heart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// Learning rate of a layer over that of the next ([`layer_decay::rule`]).
    pub layer_decay: f64,
    /// Stochastic depth (Huang et al. 2016): probability that a branch of the last block is left out of a clip; from 0 for the first block, linearly.
    pub drop_path: f64,
    /// Probability that a value of the head's input is left out.
    pub dropout: f64,
    /// Share of a label that is spread evenly over all classes (Szegedy et al. 2016).
    pub smoothing: f64,
    /// Both parameters of the Beta distribution from which shares of two mixed clips are drawn (Zhang et al. 2018); 0 mixes none.
    pub mixup: f64,
    /// The same for a box of one clip in another, in all frames (Yun et al. 2019).
    pub cutmix: f64,
    /// Probability of cutmix, where there are both.
    pub switch: f64,
    /// Probability that a box of all frames is noise (Zhong et al. 2020).
    pub erasing: f64,
    /// Changes of colours and shapes, the same in all frames (Cubuk et al. 2020); none where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
}

/// Batches of a fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneDataConfig {
    /// Samples a batch.
    pub batch_size: usize,
    /// Batches a step: their gradients are averaged.
    pub accumulate: usize,
    /// Samples that are taken of a clip each time that it is read. They go to as many batches.
    pub repeat: usize,
    /// What the loader makes of pixels.
    pub values: ValueType,
    /// [`Augmentation::area`].
    pub area: [f64; 2],
    /// [`Augmentation::aspect`].
    pub aspect: [f64; 2],
    /// [`Augmentation::flip`].
    pub flip: f64,
    /// Share of each class's videos that are kept for validation, where no other data is given for it.
    pub holdout: f64,
    /// Videos of each class to train on, at most, drawn by the seed; all where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub videos_per_class: Option<usize>,
}

/// When to look at the clips that are kept for it, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Steps from one look to the next; there is always one after the last step.
    pub every: u64,
    /// [`Views::temporal`].
    pub temporal: usize,
    /// [`Views::spatial`].
    pub spatial: usize,
}

impl ValidationConfig {
    /// The views of each clip.
    pub const fn views(&self) -> Views {
        Views { temporal: self.temporal, spatial: self.spatial }
    }
}

/// What the weights, or a preset where there are none, say of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderPart {
    /// Clips and patches.
    pub clip: PatchGrid,
    /// Positions and cls token.
    pub model: ModelConfig,
    /// Its size.
    pub encoder: TransformerConfig,
}

impl From<&Config> for EncoderPart {
    fn from(config: &Config) -> Self {
        Self { clip: config.clip, model: config.model.clone(), encoder: config.encoder }
    }
}

impl From<&FinetuneConfig> for EncoderPart {
    fn from(config: &FinetuneConfig) -> Self {
        Self { clip: config.clip, model: config.model.clone(), encoder: config.encoder }
    }
}

/// What the user has set on the command line.
#[derive(Debug, Clone, Default)]
pub struct FinetuneOverrides {
    /// Length in steps.
    pub steps: Option<u64>,
    /// Length in passes over the data.
    pub epochs: Option<f64>,
    /// Learning rate for 256 samples a step.
    pub base_lr: Option<f64>,
    /// Samples a batch.
    pub batch_size: Option<usize>,
    /// Batches a step.
    pub accumulate: Option<usize>,
    /// Samples of each reading of a clip.
    pub repeat: Option<usize>,
    /// [`FinetuneDataConfig::flip`].
    pub flip: Option<f64>,
    /// [`FinetuneDataConfig::holdout`].
    pub holdout: Option<f64>,
    /// [`FinetuneDataConfig::videos_per_class`].
    pub videos_per_class: Option<usize>,
    /// Seed.
    pub seed: Option<u64>,
    /// What to do about steps that are not finite.
    pub on_nonfinite: Option<OnNonfinite>,
    /// Type of activations.
    pub dtype: Option<Precision>,
    /// Whether the backward computes again what the forward had.
    pub recompute: bool,
}

impl FinetuneConfig {
    /// `recipe` for an encoder and `classes`, with the tables of `file` laid over it, and the flags over both. Checked.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown key, or the result makes no sense.
    pub fn resolve(
        recipe: Recipe,
        encoder: &EncoderPart,
        init_from: Option<String>,
        classes: Vec<String>,
        file: Option<&Path>,
        flags: &FinetuneOverrides,
    ) -> Result<Self, ConfigError> {
        let mut table: Table = recipe.text().parse().expect("recipes are TOML");
        table.insert("task".to_owned(), Value::String("finetune".to_owned()));
        table.insert("seed".to_owned(), Value::Integer(0));
        let mut part = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
        part("classes", Value::from(classes));
        part("clip", Value::try_from(encoder.clip).expect("plain data becomes TOML"));
        part("model", Value::try_from(&encoder.model).expect("plain data becomes TOML"));
        part("encoder", Value::try_from(encoder.encoder).expect("plain data becomes TOML"));
        if let Some(weights) = init_from {
            part("init_from", Value::String(weights));
        }
        let mut source = PathBuf::from("the recipe");
        if let Some(path) = file {
            lay_over(&mut table, parse_file(path)?);
            source = path.to_owned();
        }
        let parsed = Self::deserialize(Value::Table(table));
        let config = parsed.map_err(|error| ConfigError::Parse { path: source, message: error.to_string().trim().to_owned() })?;
        config.with(flags)
    }

    /// The same with what the flags change. Checked.
    ///
    /// # Errors
    /// When the result makes no sense.
    pub fn with(mut self, flags: &FinetuneOverrides) -> Result<Self, ConfigError> {
        if let Some(steps) = flags.steps {
            self.schedule.length = Length::Steps(steps);
        }
        if let Some(epochs) = flags.epochs {
            self.schedule.length = Length::Epochs(epochs);
        }
        set(&mut self.optimizer.base_lr, flags.base_lr);
        set(&mut self.data.batch_size, flags.batch_size);
        set(&mut self.data.accumulate, flags.accumulate);
        set(&mut self.data.repeat, flags.repeat);
        set(&mut self.data.flip, flags.flip);
        set(&mut self.data.holdout, flags.holdout);
        set(&mut self.seed, flags.seed);
        set(&mut self.safety.on_nonfinite, flags.on_nonfinite);
        set(&mut self.compute.dtype, flags.dtype);
        self.compute.recompute |= flags.recompute;
        if flags.videos_per_class.is_some() {
            self.data.videos_per_class = flags.videos_per_class;
        }
        self.check()?;
        Ok(self)
    }

    /// What of it is the encoder's, the cls token's and the head's.
    pub const fn classifier(&self) -> ClassifierConfig {
        ClassifierConfig {
            grid: self.clip,
            encoder: self.encoder,
            positions: self.model.positions,
            class_token: self.model.class_token,
            classes: self.classes.len(),
            conventions: self.model.conventions(),
        }
    }

    /// The loader's ranges of crops and flips.
    pub const fn augmentation(&self) -> Augmentation {
        Augmentation { area: self.data.area, aspect: self.data.aspect, flip: self.data.flip }
    }

    /// How the loader changes the look of samples.
    pub fn augment_policy(&self) -> AugmentPolicy {
        let probability = self.recipe.erasing;
        AugmentPolicy { rand_augment: self.recipe.rand_augment, erasing: (probability > 0.0).then_some(Erasing { probability }) }
    }

    /// Rate and decay of the parameter `name` of `rank` dimensions.
    pub fn rule(&self, name: &str, rank: usize) -> ParameterRule {
        layer_decay::rule(name, rank, self.encoder.depth, self.recipe.layer_decay, self.optimizer.weight_decay)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.clip.validate()?;
        check_transformer(["encoder.depth", "encoder.heads", "encoder.width"], self.encoder)?;
        check_model(&self.model)?;
        check("classes", self.classes.len(), self.classes.len() > 1, "two or more: one class needs no classifier")?;
        let recipe = &self.recipe;
        let is_share = |value: f64| (0.0..1.0).contains(&value);
        check("recipe.layer_decay", recipe.layer_decay, recipe.layer_decay > 0.0 && recipe.layer_decay <= 1.0, "above 0 and at most 1")?;
        check("recipe.drop_path", recipe.drop_path, is_share(recipe.drop_path), "a probability below 1")?;
        check("recipe.dropout", recipe.dropout, is_share(recipe.dropout), "a probability below 1")?;
        check("recipe.smoothing", recipe.smoothing, is_share(recipe.smoothing), "a share below 1")?;
        for (key, value) in [("recipe.mixup", recipe.mixup), ("recipe.cutmix", recipe.cutmix)] {
            check(key, value, value.is_finite() && value >= 0.0, "0, or a parameter of the Beta distribution")?;
        }
        check("recipe.switch", recipe.switch, (0.0..=1.0).contains(&recipe.switch), "a probability")?;
        check("recipe.erasing", recipe.erasing, (0.0..=1.0).contains(&recipe.erasing), "a probability")?;
        if let Some(RandAugment { magnitude, deviation, .. }) = recipe.rand_augment {
            check("recipe.rand_augment.magnitude", magnitude, (0.0..=10.0).contains(&magnitude), "from 0 to 10")?;
            check("recipe.rand_augment.deviation", deviation, deviation.is_finite() && deviation >= 0.0, "0 or more")?;
        }
        let data = &self.data;
        check("data.batch_size", data.batch_size, data.batch_size > 0, "at least 1")?;
        check("data.accumulate", data.accumulate, data.accumulate > 0, "at least 1")?;
        check("data.repeat", data.repeat, data.repeat > 0, "at least 1")?;
        check_augmentation(&self.augmentation())?;
        check("data.holdout", data.holdout, is_share(data.holdout), "a share below 1")?;
        check("data.videos_per_class", data.videos_per_class.unwrap_or(1), data.videos_per_class != Some(0), "at least 1")?;
        check("validation.every", self.validation.every, self.validation.every > 0, "at least 1")?;
        check("validation.temporal", self.validation.temporal, self.validation.temporal > 0, "at least 1")?;
        check("validation.spatial", self.validation.spatial, self.validation.spatial > 0, "at least 1")?;
        check_optimizer(&self.optimizer)?;
        check_schedule(&self.schedule, &self.checkpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Preset, Task};

    #[test]
    fn every_recipe_is_sound_and_survives_its_own_file() {
        for (recipe, preset) in Recipe::ALL.into_iter().flat_map(|recipe| Preset::ALL.map(|preset| (recipe, preset))) {
            let encoder = EncoderPart::from(&Config::resolve(preset, None, &Overrides::default()).expect("a preset"));
            let classes = vec!["a".to_owned(), "b \"quoted\"".to_owned()];
            let flags = FinetuneOverrides { steps: Some(7), videos_per_class: Some(3), ..FinetuneOverrides::default() };
            let config = FinetuneConfig::resolve(recipe, &encoder, Some("runs/a".to_owned()), classes, None, &flags).expect("sound");
            let task = Task::Finetune(Box::new(config));
            assert_eq!(Task::parse(&task.to_toml()).expect("its own TOML"), task);
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let encoder = EncoderPart::from(&Config::resolve(Preset::Tiny, None, &Overrides::default()).expect("a preset"));
        let resolve = |classes: &[&str], flags: &FinetuneOverrides| {
            let classes = classes.iter().map(|&class| class.to_owned()).collect();
            FinetuneConfig::resolve(Recipe::Light, &encoder, None, classes, None, flags).map_err(|error| error.to_string())
        };
        let one_class = resolve(&["a"], &FinetuneOverrides::default()).expect_err("one class");
        assert_eq!(one_class, "classes is 1; it must be two or more: one class needs no classifier");
        let all_held = resolve(&["a", "b"], &FinetuneOverrides { holdout: Some(1.0), ..FinetuneOverrides::default() }).expect_err("all");
        assert_eq!(all_held, "data.holdout is 1; it must be a share below 1");
        let no_video = FinetuneOverrides { videos_per_class: Some(0), ..FinetuneOverrides::default() };
        assert_eq!(resolve(&["a", "b"], &no_video).expect_err("none"), "data.videos_per_class is 0; it must be at least 1");
    }
}
