//! Reads fixtures (`fixtures/README.md`), whichever they are: their settings are in their own
//! metadata.

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use schemas::geometry::PatchGrid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use trainer::model::{
    ClassifierConfig, Conventions, MaeConfig, PositionKind, TargetKind, TransformerConfig,
};
use trainer::optim::AdamWConfig;

/// The reference's weights, inputs and results.
pub struct Fixture {
    /// Name of the file, without its ending.
    pub name: String,
    /// All tensors.
    pub tensors: HashMap<String, Tensor>,
    /// The metadata.
    pub metadata: HashMap<String, String>,
    /// What the results are of.
    pub model: Model,
}

/// What a fixture is about.
pub enum Model {
    /// Pre-training.
    Autoencoder(MaeConfig),
    /// Fine-tuning, with the smoothing of its labels.
    Classifier(ClassifierConfig, f64),
}

/// How the steps of a trajectory are done.
#[derive(Debug, PartialEq)]
pub struct Recipe {
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Share of the tokens that are masked; none where the metadata does not say.
    pub ratio: Option<f64>,
    /// Steps of warm-up before half a cosine; none where the metadata does not say.
    pub warmup: Option<u64>,
}

/// The files of `dir` that are fixtures, sorted.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        fs::read_dir(dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|ending| ending == "safetensors")
    });
    files.sort_unstable();
    if files.is_empty() {
        Err(format!(
            "{} holds no fixture (*.safetensors)",
            dir.display()
        ))
    } else {
        Ok(files)
    }
}

impl Fixture {
    /// Reads one; says what is wrong with it, or what of it this model cannot be.
    pub fn read(path: &Path) -> Result<Self, String> {
        let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(|error| of_file(&error))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| of_file(&error))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| of_file(&error))?;
        let text = metadata
            .get("config")
            .ok_or_else(|| of_file(&"its metadata has no `config`"))?;
        let config = serde_json::from_str(text)
            .map_err(|error| of_file(&format!("its `config` is no JSON: {error}")))?;
        let model = model(&config, &metadata, &tensors).map_err(|error| of_file(&error))?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let fixture = Self {
            name,
            tensors,
            metadata,
            model,
        };
        fixture.check_batch().map_err(|error| of_file(&error))?;
        Ok(fixture)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        self.tensors
            .get(name)
            .ok_or_else(|| format!("{} lacks {name}", self.name))
    }

    /// The tensors whose names begin so, by the rest of their names.
    pub fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
            })
            .collect()
    }

    /// The ratios of which there are results, as they are written.
    pub fn ratios(&self) -> BTreeSet<String> {
        let ratio = |name: &String| Some(name.strip_prefix("ratio")?.split_once('/')?.0.to_owned());
        self.tensors.keys().filter_map(ratio).collect()
    }

    fn check_batch(&self) -> Result<(), String> {
        let clips = self.tensor("input")?.dims()[0];
        match self
            .metadata
            .get("batch")
            .map(|batch| batch.trim().parse::<usize>())
        {
            None => Ok(()),
            Some(Ok(batch)) if clips == batch => Ok(()),
            Some(_) => Err(format!(
                "its metadata says batch {}, and `input` has {clips} clips",
                self.metadata["batch"]
            )),
        }
    }
}

/// What the settings of a fixture come to; those that this model cannot have are named, all of
/// them.
fn model(
    config: &Value,
    metadata: &HashMap<String, String>,
    tensors: &HashMap<String, Tensor>,
) -> Result<Model, String> {
    let mut settings = Settings {
        config,
        problems: Vec::new(),
    };
    let grid = PatchGrid {
        frames: settings.number("num_frames"),
        size: settings.number("img_size"),
        tubelet: settings.number("t_patch_size"),
        patch: settings.number("patch_size"),
    };
    let encoder = TransformerConfig {
        width: settings.number("embed_dim"),
        depth: settings.number("depth"),
        heads: settings.number("num_heads"),
    };
    settings.only("no_qkv_bias", &Value::from(false));
    // The paper's choice where it is not given.
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(true);
    let class_token = flag("cls_embed");
    let positions = if flag("sep_pos_embed") {
        PositionKind::Separable
    } else {
        PositionKind::Joint
    };
    for (key, only) in [("mlp_ratio", 4.0), ("in_chans", 3.0)] {
        settings.only(key, &Value::from(only));
    }
    if settings.problems.is_empty()
        && let Err(error) = grid.validate()
    {
        settings.problems.push(error.to_string());
    }
    let model = if config.get("num_classes").is_some() || tensors.contains_key("logits") {
        let classes = settings.number("num_classes");
        for key in ["dropout", "dropout_rate", "drop_path_rate"] {
            settings.only(key, &Value::from(0.0));
        }
        let text = metadata
            .iter()
            .filter(|(key, _)| key.contains("smoothing") || *key == "loss");
        let smoothing = text
            .filter_map(|(key, value)| {
                numbers_after(&format!("{key} {value}"), &["smoothing"])
                    .first()
                    .copied()
            })
            .next();
        Model::Classifier(
            ClassifierConfig {
                grid,
                encoder,
                positions,
                class_token,
                classes,
                conventions: Conventions::default(),
            },
            smoothing.unwrap_or(0.0),
        )
    } else {
        let decoder = TransformerConfig {
            width: settings.number("decoder_embed_dim"),
            depth: settings.number("decoder_depth"),
            heads: settings.number("decoder_num_heads"),
        };
        let predicted = settings.number("pred_t_dim");
        let normalise_target = config
            .get("norm_pix_loss")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let slices = if settings.problems.is_empty() {
            predicted / grid.time()
        } else {
            1
        };
        if settings.problems.is_empty()
            && (!predicted.is_multiple_of(grid.time()) || !(1..=grid.tubelet).contains(&slices))
        {
            settings.problems.push(format!(
                "pred_t_dim = {predicted} (the model predicts as many frames of each \
                               of the {} steps)",
                grid.time()
            ));
        }
        Model::Autoencoder(MaeConfig {
            grid,
            encoder,
            decoder,
            positions,
            class_token,
            target: TargetKind::Pixels,
            slices,
            normalise_target,
            conventions: Conventions::default(),
        })
    };
    if settings.problems.is_empty() {
        Ok(model)
    } else {
        Err(format!(
            "the model cannot have these settings: {}",
            settings.problems.join("; ")
        ))
    }
}

/// Settings while they are read, and what is wrong with them.
struct Settings<'a> {
    config: &'a Value,
    problems: Vec<String>,
}

impl Settings<'_> {
    /// A whole number above 0.
    fn number(&mut self, key: &str) -> usize {
        match self.config.get(key) {
            Some(value) => value
                .as_u64()
                .filter(|&number| number > 0)
                .unwrap_or_else(|| {
                    self.problems
                        .push(format!("{key} = {value} (a whole number above 0)"));
                    1
                }) as usize,
            None => {
                self.problems.push(format!("{key} is missing"));
                1
            }
        }
    }

    /// A setting that may be missing, and has only one valid value.
    fn only(&mut self, key: &str, only: &Value) {
        let is_same =
            |value: &Value| value == only || (value.is_number() && value.as_f64() == only.as_f64());
        if let Some(value) = self.config.get(key).filter(|value| !is_same(value)) {
            self.problems.push(format!("{key} = {value} (only {only})"));
        }
    }
}

impl Recipe {
    /// Reads a description, a sentence or JSON: `betas 0.9/0.95, eps 1e-8`, or
    /// `{"betas": [0.9, 0.95], "eps": 1e-8}`. What it does not say is the paper's.
    pub fn parse(text: &str) -> Self {
        let first = |words: &[&str]| numbers_after(text, words).first().copied();
        let betas = match numbers_after(text, &["betas"])[..] {
            [first, second, ..] => [first, second],
            _ => [0.9, 0.95],
        };
        Self {
            optimizer: AdamWConfig {
                base_lr: 0.0,
                betas,
                epsilon: first(&["eps", "epsilon"]).unwrap_or(1e-8),
                weight_decay: first(&["decay"]).unwrap_or(0.05),
                clip_norm: first(&["clip", "clipping"]).unwrap_or(0.02),
            },
            ratio: first(&["ratio"]),
            warmup: first(&["warmup"]).map(|steps| steps as u64),
        }
    }
}

/// The numbers that follow one of `words` in `text`, at most two other words later.
fn numbers_after(text: &str, words: &[&str]) -> Vec<f64> {
    let text = text.to_lowercase().replace("warm-up", "warmup");
    let parts: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && !".-+".contains(c))
        .collect();
    let parts: Vec<&str> = parts
        .into_iter()
        .flat_map(|part| part.split("norm-"))
        .filter(|part| !part.is_empty())
        .collect();
    let number = |part: &&str| {
        part.trim_end_matches('.')
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
    };
    let Some(at) = parts.iter().position(|part| words.contains(part)) else {
        return Vec::new();
    };
    let after = &parts[at + 1..];
    let skipped = after
        .iter()
        .take(2)
        .take_while(|part| number(part).is_none())
        .count();
    after[skipped..].iter().map_while(number).collect()
}

#[test]
fn parity_recipes_are_read_from_sentences_and_from_json() {
    let optimizer = AdamWConfig {
        base_lr: 0.0,
        betas: [0.8, 0.99],
        epsilon: 1e-7,
        weight_decay: 0.1,
        clip_norm: 0.5,
    };
    let expected = Recipe {
        optimizer,
        ratio: Some(0.6),
        warmup: Some(3),
    };
    let sentence = "8 AdamW steps, betas 0.8/0.99, eps 1e-7, weight decay 0.1 (0 for 1-D and \
                    *.bias), global-norm clip 0.5, mask ratio 0.6; \
                    lr = linear warm-up over 3 steps from 0, then half cosine; lr in traj/lr";
    assert_eq!(Recipe::parse(sentence), expected);
    let json = r#"{"betas": [0.8, 0.99], "eps": 1e-7, "weight_decay": 0.1, "clip_norm": 0.5, "mask_ratio": 0.6, "warmup_steps": 3}"#;
    assert_eq!(Recipe::parse(json), expected);
    assert_eq!(
        Recipe::parse("as usual").optimizer,
        AdamWConfig {
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip_norm: 0.02,
            ..optimizer_of_nothing()
        }
    );
    assert_eq!(Recipe::parse("as usual").ratio, None);
}

#[cfg(test)]
fn optimizer_of_nothing() -> AdamWConfig {
    Recipe::parse("").optimizer
}

#[test]
fn parity_settings_that_the_model_cannot_have_are_named() {
    let valid = serde_json::json!({
        "img_size": 32, "patch_size": 8, "num_frames": 8, "t_patch_size": 2, "embed_dim": 48, "depth": 2, "num_heads": 4,
        "decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 4, "norm_pix_loss": true, "pred_t_dim": 4,
        "mlp_ratio": 4, "cls_embed": true,
    });
    let problem = |key: &str, value: Value| {
        let mut config = valid.clone();
        config[key] = value;
        model(&config, &HashMap::new(), &HashMap::new()).map(|_| ())
    };
    assert_eq!(problem("seed", 7.into()), Ok(()));
    let named = |text: &str| Err(format!("the model cannot have these settings: {text}"));
    assert_eq!(problem("cls_embed", false.into()), Ok(()));
    assert_eq!(problem("sep_pos_embed", false.into()), Ok(()));
    assert_eq!(
        problem("no_qkv_bias", true.into()),
        named("no_qkv_bias = true (only false)")
    );
    assert_eq!(
        problem("mlp_ratio", 2.0.into()),
        named("mlp_ratio = 2.0 (only 4.0)")
    );
    assert_eq!(
        problem("depth", Value::Null),
        named("depth = null (a whole number above 0)")
    );
    assert_eq!(
        problem("pred_t_dim", 6.into()),
        named("pred_t_dim = 6 (the model predicts as many frames of each of the 4 steps)")
    );
    assert_eq!(
        problem("img_size", 30.into()),
        named("size = 30 is not a multiple of patch = 8; choose size = 32, or another patch")
    );
}

#[test]
fn parity_needs_fixtures() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(
        list(dir.path()),
        Err(format!(
            "{} holds no fixture (*.safetensors)",
            dir.path().display()
        ))
    );
    assert!(list(&dir.path().join("nowhere")).is_err());
}
