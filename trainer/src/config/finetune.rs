//! Settings of fine-tuning, and its recipes.

use super::check::check;
use super::{
    CommonConfig, Config, ConfigError, Layer, ModelConfig, ObjectiveConfig, PretrainConfig,
};
use crate::model::{ClassifierConfig, TransformerConfig};
use crate::optim::{ParameterRule, layer_decay};
use pipeline::sampling::sample::Views;
use pipeline::transform::augment::{AugmentPolicy, Erasing, RandAugment};
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};
use toml::Value;

/// A named starting point of a fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Recipe {
    /// For a tiny encoder and few videos, in minutes on two CPU cores.
    Light,
    /// The reference's, for ViT-L on Kinetics-400.
    Paper,
}

impl Recipe {
    /// All recipes.
    pub const ALL: [Self; 2] = [Self::Light, Self::Paper];

    /// The default for an encoder of `width`: the reference's from ViT-Small on.
    pub const fn for_width(width: usize) -> Self {
        if width < 384 {
            Self::Light
        } else {
            Self::Paper
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Light => include_str!("../../presets/finetune/light.toml"),
            Self::Paper => include_str!("../../presets/finetune/paper.toml"),
        }
    }
}

/// Everything that decides what a fine-tuning computes.
pub type FinetuneConfig = Config<FinetuneObjective>;

/// Settings of fine-tuning alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneObjective {
    /// Weights that the encoder was initialised from; none for random initialisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// Class names in the order of their numbers.
    pub classes: Vec<String>,
    /// Layer decay and regularisation.
    pub recipe: RecipeConfig,
    /// Which videos are trained on.
    pub split: SplitConfig,
    /// When and how to validate.
    pub validation: ValidationConfig,
}

/// Layer decay and regularisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// Learning rate of a layer over that of the next ([`layer_decay::rule`]).
    pub layer_decay: f64,
    /// Stochastic depth (Huang et al. 2016): probability that a branch of the last block is dropped
    /// for a clip; from 0 for the first block, linearly.
    pub drop_path: f64,
    /// Dropout probability of the head's input.
    pub dropout: f64,
    /// Label smoothing: share of a label that is spread evenly over all classes (Szegedy et al.
    /// 2016).
    pub smoothing: f64,
    /// Both parameters of the Beta distribution from which the shares of two mixed clips are drawn
    /// (Zhang et al. 2018); 0 disables mixup.
    pub mixup: f64,
    /// The same for a box of one clip in another, in all frames (Yun et al. 2019).
    pub cutmix: f64,
    /// Probability of cutmix where mixup is enabled, too.
    pub switch: f64,
    /// Probability that a box of all frames is noise (Zhong et al. 2020).
    pub erasing: f64,
    /// Changes of colours and shapes, the same in all frames (Cubuk et al. 2020); none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
}

/// Which videos of each class are trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Share of each class's videos that is held out for validation, where no other data is given
    /// for it.
    pub holdout: f64,
    /// Maximum number of videos per class to train on, drawn by the seed; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub videos_per_class: Option<usize>,
    /// Whether each class is trained on as often as any other, whatever its number of clips.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub balance: bool,
}

/// When and how to validate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Steps between validations; there is always one after the last step.
    pub every: u64,
    /// [`Views::temporal`].
    pub temporal: usize,
    /// [`Views::spatial`].
    pub spatial: usize,
}

impl ValidationConfig {
    /// The views of each clip.
    pub const fn views(&self) -> Views {
        Views {
            temporal: self.temporal,
            spatial: self.spatial,
        }
    }
}

/// The part of a configuration that is given by the weights, or by a preset without weights.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderPart {
    /// Clips and patches.
    pub clip: PatchGrid,
    /// Positions and cls token.
    pub model: ModelConfig,
    /// The encoder.
    pub encoder: TransformerConfig,
}

impl From<&CommonConfig> for EncoderPart {
    fn from(config: &CommonConfig) -> Self {
        Self {
            clip: config.clip,
            model: config.model.clone(),
            encoder: config.encoder,
        }
    }
}

impl From<&PretrainConfig> for EncoderPart {
    fn from(config: &PretrainConfig) -> Self {
        Self::from(&config.common)
    }
}

impl EncoderPart {
    fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let value = |key: &str, value: Result<Value, toml::ser::Error>| {
            Layer::key(
                "the encoder's weights",
                key,
                value.expect("plain data becomes TOML"),
            )
        };
        Ok(vec![
            value("clip", Value::try_from(self.clip))?,
            value("model", Value::try_from(&self.model))?,
            value("encoder", Value::try_from(self.encoder))?,
        ])
    }
}

impl FinetuneConfig {
    /// The settings of `recipe` for an encoder and `classes`, with `layers` laid over them,
    /// checked.
    ///
    /// # Errors
    /// When a layer has an unknown key or a value of the wrong type, or the result is invalid.
    pub fn resolve(
        recipe: Recipe,
        encoder: &EncoderPart,
        init_from: Option<String>,
        classes: Vec<String>,
        layers: &[Layer],
    ) -> Result<Self, ConfigError> {
        let mut base = Layer::text("the recipe", recipe.text())?;
        base.add(&Layer::key("the recipe", "seed", 0)?);
        base.add(&Layer::key("the data", "classes", classes)?);
        encoder.layers()?.iter().for_each(|layer| base.add(layer));
        if let Some(weights) = init_from {
            base.add(&Layer::key("the weights", "init_from", weights)?);
        }
        Self::from_layers(base, layers)
    }

    /// Shapes of the classifier.
    pub const fn classifier(&self) -> ClassifierConfig {
        let CommonConfig {
            clip,
            encoder,
            ref model,
            ..
        } = self.common;
        ClassifierConfig {
            grid: clip,
            encoder,
            positions: model.positions,
            class_token: model.class_token,
            classes: self.objective.classes.len(),
            conventions: model.conventions(),
        }
    }

    /// How the loader augments samples beyond crops and flips.
    pub fn augment_policy(&self) -> AugmentPolicy {
        let RecipeConfig {
            erasing: probability,
            rand_augment,
            ..
        } = self.objective.recipe;
        let erasing = (probability > 0.0).then_some(Erasing { probability });
        AugmentPolicy {
            rand_augment,
            erasing,
        }
    }

    /// Learning rate and weight decay of the parameter `name` of `rank` dimensions.
    pub fn rule(&self, name: &str, rank: usize) -> ParameterRule {
        let layer_decay = self.objective.recipe.layer_decay;
        let weight_decay = self.common.optimizer.weight_decay;
        layer_decay::rule(
            name,
            rank,
            self.common.encoder.depth,
            layer_decay,
            weight_decay,
        )
    }
}

impl ObjectiveConfig for FinetuneObjective {
    const NAME: &str = "finetune";
    const COMMAND: &str = "finetune";

    fn check(config: &FinetuneConfig) -> Result<(), ConfigError> {
        let FinetuneObjective {
            classes,
            recipe,
            split,
            validation,
            ..
        } = &config.objective;
        check(
            "classes",
            classes.len(),
            classes.len() > 1,
            || "two or more: one class needs no classifier",
        )?;
        check_recipe(recipe)?;
        let is_share = (0.0..1.0).contains(&split.holdout);
        check(
            "split.holdout",
            split.holdout,
            is_share,
            || "a share below 1",
        )?;
        let videos = split.videos_per_class;
        check(
            "split.videos_per_class",
            videos.unwrap_or(1),
            videos != Some(0),
            || "at least 1",
        )?;
        check(
            "validation.every",
            validation.every,
            validation.every > 0,
            || "at least 1",
        )?;
        let Views { temporal, spatial } = validation.views();
        check(
            "validation.temporal",
            temporal,
            temporal > 0,
            || "at least 1",
        )?;
        check("validation.spatial", spatial, spatial > 0, || "at least 1")
    }
}

fn check_recipe(recipe: &RecipeConfig) -> Result<(), ConfigError> {
    let decay = recipe.layer_decay;
    check(
        "recipe.layer_decay",
        decay,
        decay > 0.0 && decay <= 1.0,
        || "above 0 and at most 1",
    )?;
    for (key, value, wanted) in [
        (
            "recipe.drop_path",
            recipe.drop_path,
            "a probability below 1",
        ),
        ("recipe.dropout", recipe.dropout, "a probability below 1"),
        ("recipe.smoothing", recipe.smoothing, "a share below 1"),
    ] {
        check(key, value, (0.0..1.0).contains(&value), || wanted)?;
    }
    for (key, value) in [
        ("recipe.mixup", recipe.mixup),
        ("recipe.cutmix", recipe.cutmix),
    ] {
        check(
            key,
            value,
            value.is_finite() && value >= 0.0,
            || "0, or a parameter of the Beta distribution",
        )?;
    }
    for (key, value) in [
        ("recipe.switch", recipe.switch),
        ("recipe.erasing", recipe.erasing),
    ] {
        check(key, value, (0.0..=1.0).contains(&value), || "a probability")?;
    }
    let Some(RandAugment {
        magnitude,
        deviation,
        ..
    }) = recipe.rand_augment
    else {
        return Ok(());
    };
    let is_magnitude = (0.0..=10.0).contains(&magnitude);
    check(
        "recipe.rand_augment.magnitude",
        magnitude,
        is_magnitude,
        || "from 0 to 10",
    )?;
    let is_deviation = deviation.is_finite() && deviation >= 0.0;
    check(
        "recipe.rand_augment.deviation",
        deviation,
        is_deviation,
        || "0 or more",
    )
}
