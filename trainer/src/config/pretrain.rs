//! Settings of masked autoencoding, and the presets.

use super::check::{check, check_transformer};
use super::{CommonConfig, Config, ConfigError, Layer, ObjectiveConfig};
use crate::model::{Conventions, MaeConfig, NormalisePer, TargetKind, TransformerConfig};
use pipeline::live::LiveSpan;
use pipeline::loader::batch::ValueType;
use pipeline::sampling::mask::MaskRule;
use schemas::geometry::TargetFrames;
use serde::{Deserialize, Serialize};

/// A named starting point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Trains in minutes on two CPU cores.
    Tiny,
    /// ViT-Small, the paper's recipe.
    Small,
    /// ViT-Base, the paper's recipe.
    Base,
    /// ViT-Large, the paper's recipe.
    Large,
    /// ViT-Huge, the paper's recipe.
    Huge,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 5] = [Self::Tiny, Self::Small, Self::Base, Self::Large, Self::Huge];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Base => "base",
            Self::Large => "large",
            Self::Huge => "huge",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Tiny => include_str!("../../presets/tiny.toml"),
            Self::Small => include_str!("../../presets/small.toml"),
            Self::Base => include_str!("../../presets/base.toml"),
            Self::Large => include_str!("../../presets/large.toml"),
            Self::Huge => include_str!("../../presets/huge.toml"),
        }
    }
}

/// Everything that decides what a pre-training computes.
pub type PretrainConfig = Config<PretrainObjective>;

/// Settings of masked autoencoding alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainObjective {
    /// The decoder.
    pub decoder: TransformerConfig,
    /// Which tokens are masked, and which of those are predicted.
    pub masking: MaskRule,
    /// What is predicted.
    pub target: TargetConfig,
    /// Clips of videos that were not built into shards.
    #[serde(default)]
    pub live: LiveConfig,
}

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Pixels or histograms of oriented gradients.
    #[serde(default)]
    pub kind: TargetKind,
    /// Frames per tubelet that are predicted.
    pub pred_frames: usize,
    /// Whether the pixels of each patch are normalised by its own mean and variance. Histograms are
    /// normalised by themselves, cell by cell.
    pub normalise: bool,
    /// What is normalised by itself: a patch, or each channel of it as in VideoMAE.
    #[serde(default)]
    pub normalise_per: NormalisePer,
    /// Which frames are predicted.
    #[serde(default)]
    pub frames: TargetFrames,
}

/// Clips of videos that are decoded while training. Shards have all of this behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveConfig {
    /// How much of a video a clip is: `clip` cuts it back to back into training clips, as
    /// `shardtool build` does; `video` draws a window from all of it each time that the video's
    /// turn comes.
    pub span: LiveSpan,
    /// Ticks per second of the sampling grid.
    pub fps: f64,
    /// Ticks from one frame of a clip to the next.
    pub stride: u32,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
}

impl Default for LiveConfig {
    /// The defaults of `shardtool build`.
    fn default() -> Self {
        Self {
            span: LiveSpan::Clip,
            fps: 30.0,
            stride: 4,
            short_side: 256,
        }
    }
}

impl PretrainConfig {
    /// The settings of `preset` with `layers` laid over them, checked.
    ///
    /// # Errors
    /// When a layer has an unknown key or a value of the wrong type, or the result is invalid.
    pub fn resolve(preset: Preset, layers: &[Layer]) -> Result<Self, ConfigError> {
        let base = Layer::text(format!("preset {}", preset.name()), preset.text())?;
        Self::from_layers(base, layers)
    }

    /// Shapes of the model.
    pub const fn model(&self) -> MaeConfig {
        let CommonConfig { clip, encoder, .. } = self.common;
        let PretrainObjective {
            decoder,
            ref target,
            ..
        } = self.objective;
        MaeConfig {
            grid: clip,
            encoder,
            decoder,
            positions: self.common.model.positions,
            class_token: self.common.model.class_token,
            target: target.kind,
            slices: target.pred_frames,
            normalise_target: target.normalise,
            conventions: Conventions {
                normalise_per: target.normalise_per,
                target_frames: target.frames,
                ..self.common.model.conventions()
            },
        }
    }
}

impl ObjectiveConfig for PretrainObjective {
    const NAME: &str = "pretrain";
    const COMMAND: &str = "run";

    fn check(config: &PretrainConfig) -> Result<(), ConfigError> {
        let Config { common, objective } = config;
        let grid = common.clip;
        let masking = &objective.masking;
        check_transformer("decoder", objective.decoder)?;
        check(
            "masking.ratio",
            masking.ratio,
            masking.visible(grid).is_some(),
            || {
                format!(
                    "such that of {} tokens some are visible and some are masked",
                    grid.tokens()
                )
            },
        )?;
        check(
            "masking.decoder_keep",
            masking.decoder_keep,
            masking.predicted(grid).is_some(),
            || {
                let tokens = grid.tokens();
                format!(
                    "above 0 and at most 1, and such that of {tokens} tokens some are predicted"
                )
            },
        )?;
        check_target(config)?;
        let live = &objective.live;
        let is_rate = live.fps.is_finite() && live.fps > 0.0;
        check("live.fps", live.fps, is_rate, || "a number above 0")?;
        check("live.stride", live.stride, live.stride > 0, || "at least 1")?;
        check(
            "live.short_side",
            live.short_side,
            live.short_side > 0,
            || "at least 1",
        )
    }
}

fn check_target(config: &PretrainConfig) -> Result<(), ConfigError> {
    let target = &config.objective.target;
    let tubelet = config.common.clip.tubelet;
    let fits = (1..=tubelet).contains(&target.pred_frames);
    check("target.pred_frames", target.pred_frames, fits, || {
        format!("from 1 to clip.tubelet = {tubelet}")
    })?;
    let is_hog = target.kind == TargetKind::Hog;
    check(
        "target.normalise",
        target.normalise,
        !(is_hog && target.normalise),
        || {
            "false with target.kind = \"hog\", whose cells are normalised one by one; --target hog \
         sets both"
        },
    )?;
    let is_u8 = config.common.data.values == ValueType::U8;
    check(
        "data.values",
        "\"u8\"",
        !(is_hog && is_u8),
        || "\"f32\" or \"bf16\" with target.kind = \"hog\": shares of votes are no bytes",
    )?;
    let channels = if target.normalise_per == NormalisePer::Channel {
        3
    } else {
        1
    };
    let is_single = config.model().target_values() / channels <= 1;
    check(
        "target.normalise",
        target.normalise,
        !(target.normalise && is_single),
        || "false for patches of a single value",
    )?;
    let is_strided = target.frames != TargetFrames::Spread;
    check(
        "target.frames",
        "\"strided\"",
        !(is_hog && is_strided),
        || "\"spread\" with target.kind = \"hog\"",
    )
}
