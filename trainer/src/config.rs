//! What a run is told: a preset, the user's file over it, flags over both; resolved to one [`Config`], which the run keeps.

use crate::fused::Precision;
use crate::model::{MaeConfig, TransformerConfig};
use crate::optimizer::AdamWConfig;
use crate::schedule::Schedule;
use pipeline::batch::ValueType;
use pipeline::live::LiveSpan;
use pipeline::mask::MaskRule;
use pipeline::sample::Augmentation;
use schemas::geometry::{GridError, PatchGrid};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

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
            Self::Tiny => include_str!("../presets/tiny.toml"),
            Self::Small => include_str!("../presets/small.toml"),
            Self::Base => include_str!("../presets/base.toml"),
            Self::Large => include_str!("../presets/large.toml"),
            Self::Huge => include_str!("../presets/huge.toml"),
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
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// How much is hidden.
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

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Frames of each tubelet that are predicted.
    pub slices: usize,
    /// Whether each patch is normalised by its own mean and variance.
    pub normalise: bool,
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

/// What the user has set on the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Length in steps.
    pub steps: Option<u64>,
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
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            let error = |error: toml::de::Error| ConfigError::Parse { path: path.to_owned(), message: error.to_string().trim().to_owned() };
            lay_over(&mut table, text.parse().map_err(error)?);
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
        self.data.batch_size = flags.batch_size.unwrap_or(self.data.batch_size);
        self.data.accumulate = flags.accumulate.unwrap_or(self.data.accumulate);
        self.safety.on_nonfinite = flags.on_nonfinite.unwrap_or(self.safety.on_nonfinite);
        self.data.repeat = flags.repeat.unwrap_or(self.data.repeat);
        self.seed = flags.seed.unwrap_or(self.seed);
        self.compute.dtype = flags.dtype.unwrap_or(self.compute.dtype);
        self.compute.recompute |= flags.recompute;
        self.check()?;
        Ok(self)
    }

    /// Reads a configuration that [`Self::to_toml`] has written.
    ///
    /// # Errors
    /// When it cannot be read or has been spoiled.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let error = |error: toml::de::Error| ConfigError::Parse { path: path.to_owned(), message: error.to_string().trim().to_owned() };
        let config: Self = toml::from_str(&text).map_err(error)?;
        config.check()?;
        Ok(config)
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain data becomes TOML")
    }

    /// Keys on which two configurations differ: `schedule.length: steps = 300, not steps = 500`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let table = |config: &Self| Table::try_from(config).expect("plain data becomes TOML");
        let mut differences = Vec::new();
        compare("", &Value::Table(table(self)), &Value::Table(table(other)), &mut differences);
        differences
    }

    /// [`Self::differences`] in what is computed: not in when it is saved, and what is done when it fails.
    pub fn differences_that_matter(&self, other: &Self) -> Vec<String> {
        self.differences(&Self {
            checkpoints: self.checkpoints.clone(),
            safety: self.safety.clone(),
            compute: ComputeConfig { recompute: self.compute.recompute, ..other.compute },
            ..other.clone()
        })
    }

    /// The model's part.
    pub const fn model(&self) -> MaeConfig {
        MaeConfig {
            grid: self.clip,
            encoder: self.encoder,
            decoder: self.decoder,
            slices: self.target.slices,
            normalise_target: self.target.normalise,
        }
    }

    /// The loader's ranges of crops and flips.
    pub const fn augmentation(&self) -> Augmentation {
        Augmentation { area: self.data.area, aspect: self.data.aspect, flip: self.data.flip }
    }

    /// The learning rate's course over data of `clips` clips.
    pub fn schedule(&self, clips: u64) -> Schedule {
        let clips_per_step = self.data.batch_size as f64 * self.data.accumulate as f64;
        let steps = match self.schedule.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => ((epochs * clips as f64 / clips_per_step).ceil() as u64).max(1),
        };
        Schedule {
            peak: self.optimizer.base_lr * clips_per_step / 256.0,
            warmup_steps: (self.schedule.warmup * steps as f64).round() as u64,
            steps,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.clip.validate()?;
        for (key, transformer) in [("encoder", self.encoder), ("decoder", self.decoder)] {
            let TransformerConfig { width, depth, heads } = transformer;
            let key = |encoder, decoder| if key == "encoder" { encoder } else { decoder };
            check(key("encoder.depth", "decoder.depth"), depth, depth > 0, "at least 1")?;
            check(key("encoder.heads", "decoder.heads"), heads, heads > 0, "at least 1")?;
            let divides = width > 0 && width.is_multiple_of(heads);
            check(key("encoder.width", "decoder.width"), width, divides, format!("a multiple of heads = {heads}"))?;
        }
        let leaves_both = self.masking.visible(self.clip).is_some();
        let wanted = format!("such that of {} tokens some are visible and some are masked", self.clip.tokens());
        check("masking.ratio", self.masking.ratio, leaves_both, wanted)?;
        let (slices, tubelet) = (self.target.slices, self.clip.tubelet);
        check("target.slices", slices, (1..=tubelet).contains(&slices), format!("from 1 to clip.tubelet = {tubelet}"))?;
        let values = self.model().target_values();
        check("target.normalise", self.target.normalise, !self.target.normalise || values > 1, "false for patches of a single value")?;

        let data = &self.data;
        check("data.batch_size", data.batch_size, data.batch_size > 0, "at least 1")?;
        check("data.accumulate", data.accumulate, data.accumulate > 0, "at least 1")?;
        check("data.repeat", data.repeat, data.repeat > 0, "at least 1")?;
        let is_range = |[least, most]: [f64; 2], limit: f64| least > 0.0 && least <= most && most <= limit;
        check("data.area", format!("{:?}", data.area), is_range(data.area, 1.0), "a least and a greatest value in (0, 1]")?;
        check("data.aspect", format!("{:?}", data.aspect), is_range(data.aspect, f64::MAX), "a least and a greatest value above 0")?;
        check("data.flip", data.flip, (0.0..=1.0).contains(&data.flip), "a probability")?;

        let live = &self.live;
        check("live.fps", live.fps, live.fps.is_finite() && live.fps > 0.0, "a number above 0")?;
        check("live.stride", live.stride, live.stride > 0, "at least 1")?;
        check("live.short_side", live.short_side, live.short_side > 0, "at least 1")?;

        let AdamWConfig { base_lr, betas, epsilon, weight_decay, clip_norm } = self.optimizer;
        let finite = |value: f64| value.is_finite() && value > 0.0;
        check("optimizer.base_lr", base_lr, finite(base_lr), "a number above 0")?;
        check("optimizer.betas", format!("{betas:?}"), betas.iter().all(|beta| (0.0..1.0).contains(beta)), "two numbers in [0, 1)")?;
        check("optimizer.epsilon", epsilon, finite(epsilon), "a number above 0")?;
        check("optimizer.weight_decay", weight_decay, weight_decay.is_finite() && weight_decay >= 0.0, "0 or more")?;
        check("optimizer.clip_norm", clip_norm, clip_norm > 0.0, "a number above 0; inf does not clip")?;

        match self.schedule.length {
            Length::Steps(steps) => check("schedule.length", format!("steps = {steps}"), steps > 0, "at least one step")?,
            Length::Epochs(epochs) => check("schedule.length", format!("epochs = {epochs}"), finite(epochs), "more than 0 epochs")?,
        }
        check("schedule.warmup", self.schedule.warmup, (0.0..=1.0).contains(&self.schedule.warmup), "a share of the steps, 0 to 1")?;
        check("checkpoints.every", self.checkpoints.every, self.checkpoints.every > 0, "at least 1")?;
        check("checkpoints.keep", self.checkpoints.keep, self.checkpoints.keep > 0, "at least 1")
    }
}

fn check(key: &'static str, value: impl ToString, good: bool, wanted: impl Into<String>) -> Result<(), ConfigError> {
    if good { Ok(()) } else { Err(ConfigError::Value { key, value: value.to_string(), wanted: wanted.into() }) }
}

/// Lays the values of `over` onto `table`, table by table. `length` is replaced as a whole: it has one key or the other.
fn lay_over(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) if key != "length" => lay_over(under, over),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

fn compare(key: &str, mine: &Value, other: &Value, differences: &mut Vec<String>) {
    match (mine, other) {
        (Value::Table(mine), Value::Table(other)) if mine.keys().eq(other.keys()) => {
            for (name, value) in mine {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&key, value, &other[name], differences);
            }
        }
        _ if mine == other => {}
        _ => differences.push(format!("{key}: {}, not {}", plain(mine), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Table(table) => table.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
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
            let again: Config = toml::from_str(&config.to_toml()).expect("its own TOML");
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
        assert_eq!(fails("[target]\nslices = 3"), "target.slices is 3; it must be from 1 to clip.tubelet = 2");
        assert!(fails("[encoder]\nwidht = 5").contains("unknown field `widht`"));
        assert!(fails("[encoder\n").starts_with("FILE: TOML parse error at line 1"));
        assert!(fails("[schedule]\nlength = { hours = 5 }").contains("unknown variant `hours`"));
        assert_eq!(fails("[schedule]\nlength = { steps = 0 }"), "schedule.length is steps = 0; it must be at least one step");
    }
}
