//! What a run is told: a preset, the user's file over it, flags over both; resolved to one [`Config`], which the run keeps.

use crate::cpu::Precision;
use crate::model::{Conventions, DecoderClassToken, MaeConfig, NormalisePer, PositionKind, TargetKind, TransformerConfig};
use crate::optim::AdamWConfig;
use crate::optim::Schedule;
use pipeline::live::LiveSpan;
use pipeline::loader::batch::ValueType;
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::sampling::sample::Augmentation;
use schemas::geometry::{GridError, PatchGrid, TargetFrames};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

mod check;
mod finetune;
mod tables;
mod task;

pub use finetune::{
    EncoderPart, FinetuneConfig, FinetuneDataConfig, FinetuneMark, FinetuneOverrides, Recipe, RecipeConfig, ValidationConfig,
};
pub use task::Task;

use check::{check, check_augmentation, check_model, check_optimizer, check_schedule, check_transformer};
use tables::{compare, lay_over, parse_file, set};

/// A named starting point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Learns visibly on two CPU cores in minutes.
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

    /// Its settings, as TOML.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tiny => include_str!("../../presets/tiny.toml"),
            Self::Small => include_str!("../../presets/small.toml"),
            Self::Base => include_str!("../../presets/base.toml"),
            Self::Large => include_str!("../../presets/large.toml"),
            Self::Huge => include_str!("../../presets/huge.toml"),
        }
    }
}

/// Everything that decides what a run computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of the first weights, of order, crops, flips and masks.
    pub seed: u64,
    /// Training clips and their patches.
    pub clip: PatchGrid,
    /// What encoder and decoder share.
    #[serde(default)]
    pub model: ModelConfig,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// How much is hidden, and how much of that is predicted.
    pub masking: MaskRule,
    /// What is predicted.
    pub target: TargetConfig,
    /// Batches.
    pub data: DataConfig,
    /// Clips of videos that were not built into shards.
    #[serde(default)]
    pub live: LiveConfig,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Length and learning rate.
    pub schedule: ScheduleConfig,
    /// When to save.
    pub checkpoints: CheckpointsConfig,
    /// What to do about steps that are not finite.
    #[serde(default)]
    pub safety: SafetyConfig,
    /// How it is computed.
    #[serde(default)]
    pub compute: ComputeConfig,
}

/// What encoder and decoder share. What is not said is the paper's choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// How positions are given.
    pub positions: PositionKind,
    /// Whether both have a cls token.
    pub class_token: bool,
    /// [`Conventions::norm_epsilon`].
    pub norm_epsilon: f64,
    /// [`Conventions::decoder_norm_epsilon`].
    pub decoder_norm_epsilon: f64,
    /// [`Conventions::head_norm_epsilon`].
    pub head_norm_epsilon: f64,
    /// [`Conventions::decoder_positions`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_positions: Option<PositionKind>,
    /// [`Conventions::decoder_class_token`].
    pub decoder_class_token: DecoderClassToken,
}

impl ModelConfig {
    /// Other code bases' ways, as far as they do not concern the target.
    pub const fn conventions(&self) -> Conventions {
        Conventions {
            norm_epsilon: self.norm_epsilon,
            decoder_norm_epsilon: self.decoder_norm_epsilon,
            head_norm_epsilon: self.head_norm_epsilon,
            decoder_positions: self.decoder_positions,
            decoder_class_token: self.decoder_class_token,
            normalise_per: NormalisePer::Patch,
            target_frames: TargetFrames::Spread,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        let Conventions { norm_epsilon, decoder_norm_epsilon, head_norm_epsilon, decoder_positions, decoder_class_token, .. } =
            Conventions::default();
        Self {
            positions: PositionKind::Separable,
            class_token: true,
            norm_epsilon,
            decoder_norm_epsilon,
            head_norm_epsilon,
            decoder_positions,
            decoder_class_token,
        }
    }
}

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Of each frame.
    #[serde(default)]
    pub kind: TargetKind,
    /// Frames of each tubelet that are predicted.
    pub slices: usize,
    /// Whether the pixels of each patch are normalised by its own mean and variance. Histograms are normalised by themselves, cell by cell.
    pub normalise: bool,
    /// What is normalised by itself: a patch, or each channel of it as in VideoMAE.
    #[serde(default)]
    pub normalise_per: NormalisePer,
    /// Which frames are predicted.
    #[serde(default)]
    pub frames: TargetFrames,
}

/// Batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Clips a batch.
    pub batch_size: usize,
    /// Batches a step: their gradients are averaged, as if they were one batch.
    #[serde(default = "once")]
    pub accumulate: usize,
    /// Samples (window, crop, flip and mask) that are taken of a clip each time that it is read. They go to as many batches.
    #[serde(default = "once")]
    pub repeat: usize,
    /// What the loader makes of pixels. `u8` is a quarter of `f32`'s bytes to a GPU, and rounds crops to 8 bits.
    #[serde(default = "single_precision")]
    pub values: ValueType,
    /// [`Augmentation::area`].
    pub area: [f64; 2],
    /// [`Augmentation::aspect`].
    pub aspect: [f64; 2],
    /// [`Augmentation::flip`].
    pub flip: f64,
}

/// Clips of videos that are decoded while training. Shards have all of this behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveConfig {
    /// How much of a video a clip is: `clip` cuts it back to back into training clips, as `shardtool build` does; `video` draws windows from all of it, one each
    /// time that the video's turn comes.
    pub span: LiveSpan,
    /// Ticks a second of the sampling grid.
    pub fps: f64,
    /// Ticks from one frame of a clip to the next.
    pub stride: u32,
    /// Frames are scaled down until their short side has this many pixels.
    pub short_side: u32,
}

impl Default for LiveConfig {
    /// As `shardtool build` has it.
    fn default() -> Self {
        Self { span: LiveSpan::Clip, fps: 30.0, stride: 4, short_side: 256 }
    }
}

const fn once() -> usize {
    1
}

const fn single_precision() -> ValueType {
    ValueType::F32
}

/// How a step is computed on the processor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeConfig {
    /// Type of activations and of weights as they are multiplied. Sums, master weights and moments are f32.
    pub dtype: Precision,
    /// Keep only the inputs of blocks for the backward, and compute the rest again: less memory, a third more time, the same results.
    pub recompute: bool,
}

/// Length and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// How long to train.
    pub length: Length,
    /// Share of the steps over which the learning rate rises.
    pub warmup: f64,
}

/// How long to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// So many steps.
    Steps(u64),
    /// So many passes over the data.
    Epochs(f64),
}

/// When to save.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointsConfig {
    /// Steps from one checkpoint to the next; the last step always gives one.
    pub every: u64,
    /// Latest checkpoints that are kept.
    pub keep: usize,
}

/// What to do about steps whose loss or gradients are not finite. Such a step never changes weights or moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafetyConfig {
    /// Stop, or go on without it.
    pub on_nonfinite: OnNonfinite,
    /// Steps that may be gone on without in the whole run.
    pub max_nonfinite: u64,
    /// And one after the other: weights that have gone bad give no finite loss any more.
    pub max_nonfinite_in_a_row: u64,
}

impl Default for SafetyConfig {
    fn default() -> Self {
        Self { on_nonfinite: OnNonfinite::Stop, max_nonfinite: 100, max_nonfinite_in_a_row: 10 }
    }
}

/// What to do about a step whose loss or gradients are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// The run ends with an error.
    Stop,
    /// The step counts, and changes nothing.
    Skip,
}

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
    /// The file is no TOML, or has a key that does not exist, or a value of another kind.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
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
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        wanted: String,
    },
}

/// Targets that the paper compares, by one word each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetChoice {
    /// Pixels as they are.
    Pixels,
    /// Pixels, each patch normalised by its own mean and variance: the paper's choice.
    Normalised,
    /// Histograms of oriented gradients.
    Hog,
}

/// What the user has set on the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Length in steps.
    pub steps: Option<u64>,
    /// Length in passes over the data.
    pub epochs: Option<f64>,
    /// Learning rate for 256 clips a step.
    pub base_lr: Option<f64>,
    /// [`MaskRule::ratio`].
    pub mask_ratio: Option<f64>,
    /// [`MaskRule::kind`].
    pub mask_kind: Option<MaskKind>,
    /// [`MaskRule::decoder_keep`].
    pub decoder_keep: Option<f64>,
    /// Width of the decoder.
    pub decoder_width: Option<usize>,
    /// Depth of the decoder.
    pub decoder_depth: Option<usize>,
    /// Heads of the decoder.
    pub decoder_heads: Option<usize>,
    /// [`TargetConfig::kind`] and [`TargetConfig::normalise`].
    pub target: Option<TargetChoice>,
    /// [`TargetConfig::slices`].
    pub slices: Option<usize>,
    /// [`ModelConfig::positions`].
    pub positions: Option<PositionKind>,
    /// [`ModelConfig::class_token`].
    pub class_token: Option<bool>,
    /// [`PatchGrid::frames`].
    pub frames: Option<usize>,
    /// [`PatchGrid::tubelet`].
    pub tubelet: Option<usize>,
    /// [`PatchGrid::size`].
    pub size: Option<usize>,
    /// [`DataConfig::area`].
    pub crop_area: Option<[f64; 2]>,
    /// [`DataConfig::flip`].
    pub flip: Option<f64>,
    /// Clips a batch.
    pub batch_size: Option<usize>,
    /// Batches a step.
    pub accumulate: Option<usize>,
    /// Samples of each reading of a clip.
    pub repeat: Option<usize>,
    /// Seed.
    pub seed: Option<u64>,
    /// What to do about steps that are not finite.
    pub on_nonfinite: Option<OnNonfinite>,
    /// Type of activations.
    pub dtype: Option<Precision>,
    /// Whether the backward computes again what the forward had; where this is not said, as before.
    pub recompute: bool,
}

impl Config {
    /// `preset`, with the tables of `file` laid over it, and the flags over both. Checked.
    ///
    /// # Errors
    /// When the file cannot be read, has an unknown key, or the result makes no sense.
    pub fn resolve(preset: Preset, file: Option<&Path>, flags: &Overrides) -> Result<Self, ConfigError> {
        let mut table: Table = preset.text().parse().expect("presets are TOML");
        let mut source = PathBuf::from(format!("preset {}", preset.name()));
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
    pub fn with(mut self, flags: &Overrides) -> Result<Self, ConfigError> {
        if let Some(steps) = flags.steps {
            self.schedule.length = Length::Steps(steps);
        }
        if let Some(epochs) = flags.epochs {
            self.schedule.length = Length::Epochs(epochs);
        }
        if let Some(target) = flags.target {
            self.target.kind = if target == TargetChoice::Hog { TargetKind::Hog } else { TargetKind::Pixels };
            self.target.normalise = target == TargetChoice::Normalised;
        }
        set(&mut self.data.batch_size, flags.batch_size);
        set(&mut self.data.accumulate, flags.accumulate);
        set(&mut self.data.repeat, flags.repeat);
        set(&mut self.data.area, flags.crop_area);
        set(&mut self.data.flip, flags.flip);
        set(&mut self.safety.on_nonfinite, flags.on_nonfinite);
        set(&mut self.compute.dtype, flags.dtype);
        self.compute.recompute |= flags.recompute;
        set(&mut self.seed, flags.seed);
        set(&mut self.optimizer.base_lr, flags.base_lr);
        set(&mut self.masking.ratio, flags.mask_ratio);
        set(&mut self.masking.kind, flags.mask_kind);
        set(&mut self.masking.decoder_keep, flags.decoder_keep);
        set(&mut self.decoder.width, flags.decoder_width);
        set(&mut self.decoder.depth, flags.decoder_depth);
        set(&mut self.decoder.heads, flags.decoder_heads);
        set(&mut self.target.slices, flags.slices);
        set(&mut self.model.positions, flags.positions);
        set(&mut self.model.class_token, flags.class_token);
        set(&mut self.clip.frames, flags.frames);
        set(&mut self.clip.tubelet, flags.tubelet);
        set(&mut self.clip.size, flags.size);
        self.check()?;
        Ok(self)
    }

    /// Keys on which two configurations differ: `schedule.length: steps = 300, not steps = 500`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let table = |config: &Self| Table::try_from(config).expect("plain data becomes TOML");
        let mut differences = Vec::new();
        compare("", &Value::Table(table(self)), &Value::Table(table(other)), &mut differences);
        differences
    }

    /// The model's part.
    pub const fn model(&self) -> MaeConfig {
        MaeConfig {
            grid: self.clip,
            encoder: self.encoder,
            decoder: self.decoder,
            positions: self.model.positions,
            class_token: self.model.class_token,
            target: self.target.kind,
            slices: self.target.slices,
            normalise_target: self.target.normalise,
            conventions: Conventions {
                normalise_per: self.target.normalise_per,
                target_frames: self.target.frames,
                ..self.model.conventions()
            },
        }
    }

    /// The loader's ranges of crops and flips.
    pub const fn augmentation(&self) -> Augmentation {
        Augmentation { area: self.data.area, aspect: self.data.aspect, flip: self.data.flip }
    }

    /// The learning rate's course over data of `clips` clips.
    pub fn schedule(&self, clips: u64) -> Schedule {
        let clips_per_step = self.data.batch_size as f64 * self.data.accumulate as f64;
        schedule(&self.schedule, self.optimizer.base_lr, clips_per_step, clips)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.clip.validate()?;
        check_transformer(["encoder.depth", "encoder.heads", "encoder.width"], self.encoder)?;
        check_transformer(["decoder.depth", "decoder.heads", "decoder.width"], self.decoder)?;
        let leaves_both = self.masking.visible(self.clip).is_some();
        let wanted = format!("such that of {} tokens some are visible and some are masked", self.clip.tokens());
        check("masking.ratio", self.masking.ratio, leaves_both, wanted)?;
        let wanted = format!("above 0 and at most 1, and such that of {} tokens some are predicted", self.clip.tokens());
        check("masking.decoder_keep", self.masking.decoder_keep, self.masking.predicted(self.clip).is_some(), wanted)?;
        let (slices, tubelet) = (self.target.slices, self.clip.tubelet);
        check("target.slices", slices, (1..=tubelet).contains(&slices), format!("from 1 to clip.tubelet = {tubelet}"))?;
        let data = &self.data;
        if self.target.kind == TargetKind::Hog {
            let wanted = "false with target.kind = \"hog\", whose cells are normalised one by one; --target hog sets both";
            check("target.normalise", self.target.normalise, !self.target.normalise, wanted)?;
            check(
                "data.values",
                "\"u8\"",
                data.values != ValueType::U8,
                "\"f32\" or \"bf16\" with target.kind = \"hog\": shares of votes are no bytes",
            )?;
        }
        let values = self.model().target_values() / if self.target.normalise_per == NormalisePer::Channel { 3 } else { 1 };
        check("target.normalise", self.target.normalise, !self.target.normalise || values > 1, "false for patches of a single value")?;
        if self.target.kind == TargetKind::Hog {
            let is_spread = self.target.frames == TargetFrames::Spread;
            check("target.frames", "\"strided\"", is_spread, "\"spread\" with target.kind = \"hog\"")?;
        }
        check_model(&self.model)?;

        check("data.batch_size", data.batch_size, data.batch_size > 0, "at least 1")?;
        check("data.accumulate", data.accumulate, data.accumulate > 0, "at least 1")?;
        check("data.repeat", data.repeat, data.repeat > 0, "at least 1")?;
        check_augmentation(&self.augmentation())?;

        let live = &self.live;
        check("live.fps", live.fps, live.fps.is_finite() && live.fps > 0.0, "a number above 0")?;
        check("live.stride", live.stride, live.stride > 0, "at least 1")?;
        check("live.short_side", live.short_side, live.short_side > 0, "at least 1")?;

        check_optimizer(&self.optimizer)?;
        check_schedule(&self.schedule, &self.checkpoints)
    }
}

/// The learning rate's course over data of `clips` clips, with `samples` samples a step.
fn schedule(config: &ScheduleConfig, base_lr: f64, samples: f64, clips: u64) -> Schedule {
    let steps = match config.length {
        Length::Steps(steps) => steps,
        Length::Epochs(epochs) => ((epochs * clips as f64 / samples).ceil() as u64).max(1),
    };
    Schedule { peak: base_lr * samples / 256.0, warmup_steps: (config.warmup * steps as f64).round() as u64, steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn resolve(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        let path = file.path().display().to_string();
        Config::resolve(Preset::Tiny, Some(file.path()), &Overrides::default()).map_err(|error| match error {
            ConfigError::Grid(error) => error.to_string(),
            error => error.to_string().replace(&path, "FILE"),
        })
    }

    #[test]
    fn every_preset_is_sound_and_survives_its_own_file() {
        for preset in Preset::ALL {
            let config = Config::resolve(preset, None, &Overrides::default()).expect("a sound preset");
            let again: Config = toml::from_str(&Task::from(config.clone()).to_toml()).expect("its own TOML");
            assert_eq!(config, again, "{preset:?}");
        }
    }

    #[test]
    fn the_papers_presets_have_the_papers_sizes() {
        // Table of the ViT paper and section 4 of Feichtenhofer et al. 2022.
        for (preset, size) in [(Preset::Base, (768, 12, 12)), (Preset::Large, (1024, 24, 16)), (Preset::Huge, (1280, 32, 16))] {
            let config = Config::resolve(preset, None, &Overrides::default()).expect("a sound preset");
            assert_eq!((config.encoder.width, config.encoder.depth, config.encoder.heads), size);
            assert_eq!((config.decoder.width, config.decoder.depth, config.decoder.heads), (512, 4, 16));
            assert_eq!(config.masking.visible(config.clip), Some(156));
            assert_eq!(config.model().target_values(), 768);
            assert_eq!(config.schedule.length, Length::Epochs(800.0));
            let schedule = config.schedule(240_000);
            assert_eq!((schedule.steps, schedule.warmup_steps), (24_000_000, 3_600_000));
            assert!((schedule.peak - 1.6e-3 * 8.0 / 256.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_file_is_laid_over_the_preset() {
        let config = resolve("[encoder]\ndepth = 7\n[schedule]\nlength = { epochs = 2.5 }\n").expect("sound");
        assert_eq!((config.encoder.depth, config.encoder.width), (7, 192));
        assert_eq!(config.schedule(1000).steps, 313, "2.5 * 1000 / 8, rounded up");
        let mut thrice = config.clone();
        thrice.data.accumulate = 3;
        assert_eq!(thrice.schedule(1000).steps, 105, "2.5 * 1000 / 24, rounded up");
        assert!((thrice.schedule(1000).peak - 3.0 * config.schedule(1000).peak).abs() < 1e-12);
        let flags = Overrides { steps: Some(5), ..Overrides::default() };
        let tiny = Config::resolve(Preset::Tiny, None, &flags).expect("sound");
        assert_eq!(tiny.schedule.length, Length::Steps(5));
        assert_eq!(config.differences(&tiny), ["encoder.depth: 7, not 4", "schedule.length: epochs = 2.5, not steps = 5"]);
    }

    #[test]
    fn variants_of_other_papers_fit_every_preset() {
        let variants = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/variants");
        let files: Vec<PathBuf> = std::fs::read_dir(variants).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(files.len(), 4);
        for (file, preset) in files.iter().flat_map(|file| Preset::ALL.map(|preset| (file, preset))) {
            let config = Config::resolve(preset, Some(file), &Overrides::default()).expect("sound");
            let plain = Config::resolve(preset, None, &Overrides::default()).expect("sound");
            assert!(!config.differences(&plain).is_empty());
        }
        let v2 = Config::resolve(
            Preset::Base,
            files.iter().find(|file| file.ends_with("videomae-v2.toml")).map(PathBuf::as_path),
            &Overrides::default(),
        );
        let v2 = v2.expect("sound");
        // 160 of 1568 visible, half of the others predicted, two frames of 16 x 16 pixels each.
        assert_eq!((v2.masking.visible(v2.clip), v2.masking.predicted(v2.clip), v2.model().target_values()), (Some(160), Some(704), 1536));
    }

    #[test]
    fn flags_change_what_the_paper_varies_and_survive_the_file() {
        let flags = Overrides {
            epochs: Some(3.0),
            base_lr: Some(0.002),
            mask_ratio: Some(0.75),
            mask_kind: Some(MaskKind::Block),
            decoder_keep: Some(0.5),
            decoder_width: Some(64),
            decoder_depth: Some(1),
            decoder_heads: Some(4),
            target: Some(TargetChoice::Hog),
            slices: Some(2),
            positions: Some(PositionKind::Joint),
            class_token: Some(false),
            frames: Some(8),
            tubelet: Some(4),
            size: Some(64),
            crop_area: Some([0.2, 0.8]),
            flip: Some(0.0),
            ..Overrides::default()
        };
        let config = Config::resolve(Preset::Tiny, None, &flags).expect("sound");
        let plain = Config::resolve(Preset::Tiny, None, &Overrides::default()).expect("sound");
        // Each flag changes its key and no other.
        assert_eq!(
            config.differences(&plain),
            [
                "clip.frames: 8, not 16",
                "clip.size: 64, not 112",
                "clip.tubelet: 4, not 2",
                "data.area: [0.2, 0.8], not [0.5, 1.0]",
                "data.flip: 0.0, not 0.5",
                "decoder.depth: 1, not 2",
                "decoder.heads: 4, not 3",
                "decoder.width: 64, not 96",
                "masking.decoder_keep: 0.5, not 1.0",
                "masking.kind: \"block\", not \"random\"",
                "masking.ratio: 0.75, not 0.9",
                "model.class_token: false, not true",
                "model.positions: \"joint\", not \"separable\"",
                "optimizer.base_lr: 0.002, not 0.032",
                "schedule.length: epochs = 3.0, not steps = 600",
                "target.kind: \"hog\", not \"pixels\"",
                "target.normalise: false, not true",
                "target.slices: 2, not 1",
            ]
        );
        assert_eq!(toml::from_str::<Config>(&Task::from(config.clone()).to_toml()).expect("its own TOML"), config);
        let choose = |target| {
            Config::resolve(Preset::Tiny, None, &Overrides { target: Some(target), ..Overrides::default() }).expect("sound").target
        };
        let (pixels, normalised) = (choose(TargetChoice::Pixels), choose(TargetChoice::Normalised));
        assert_eq!(
            (pixels.kind, pixels.normalise, normalised.kind, normalised.normalise),
            (TargetKind::Pixels, false, TargetKind::Pixels, true)
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let fails = |text: &str| resolve(text).expect_err("it does not fit");
        assert_eq!(fails("[clip]\nsize = 100"), "size = 100 is not a multiple of patch = 16; choose size = 96, or another patch");
        assert_eq!(fails("[encoder]\nheads = 5"), "encoder.width is 192; it must be a multiple of heads = 5");
        assert_eq!(
            fails("[masking]\nratio = 0.9999"),
            "masking.ratio is 0.9999; it must be such that of 392 tokens some are visible and some are masked"
        );
        assert!(
            fails("[masking]\nkind = \"tubes\"\nratio = 0.9")
                .contains("unknown variant `tubes`, expected one of `random`, `tube`, `frame`, `block`")
        );
        assert_eq!(
            fails("[masking]\ndecoder_keep = 0.001"),
            "masking.decoder_keep is 0.001; it must be above 0 and at most 1, and such that of 392 tokens some are predicted"
        );
        assert!(fails("[target]\nkind = \"hog\"").starts_with("target.normalise is true; it must be false with target.kind = \"hog\""));
        assert_eq!(
            fails("[target]\nkind = \"hog\"\nnormalise = false\n[data]\nvalues = \"u8\""),
            "data.values is \"u8\"; it must be \"f32\" or \"bf16\" with target.kind = \"hog\": shares of votes are no bytes"
        );
        assert!(
            fails("[model]\npositions = \"fixed\"").contains("unknown variant `fixed`, expected one of `separable`, `joint`, `sinusoid`")
        );
        assert_eq!(fails("[target]\nslices = 3"), "target.slices is 3; it must be from 1 to clip.tubelet = 2");
        assert!(fails("[encoder]\nwidht = 5").contains("unknown field `widht`"));
        assert!(fails("[encoder\n").starts_with("FILE: TOML parse error at line 1"));
        assert!(fails("[schedule]\nlength = { hours = 5 }").contains("unknown variant `hours`"));
        assert_eq!(fails("[schedule]\nlength = { steps = 0 }"), "schedule.length is steps = 0; it must be at least one step");
    }
}
