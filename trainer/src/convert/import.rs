//! Imports weights of other code bases.

use super::fold::{self, Normalisation};
use super::rules::{Tensors, rules, to_ours};
use super::{ConvertError, Format, Hints, Model, detect, huggingface, source};
use crate::config::{
    ConfigError, EncoderPart, FinetuneConfig, ModelConfig, Preset, PretrainConfig,
    PretrainObjective, Recipe, TargetConfig, Task,
};
use crate::model::{Classifier, ClassifierConfig, Mae, MaeConfig};
use candle_core::Device;
use pipeline::sampling::mask::MaskKind;
use pipeline::transform::{MEAN, STD};
use std::path::Path;

/// Imported weights.
#[derive(Debug)]
pub struct Imported {
    /// Their original format.
    pub format: Format,
    /// Their model.
    pub model: Model,
    /// The weights, f32, under our names.
    pub tensors: Tensors,
    /// The names of a classifier's classes, if known.
    pub classes: Option<Vec<String>>,
    /// Notes for the user: what was converted, folded or assumed.
    pub notes: Vec<String>,
}

/// Maximum number of tokens per clip. A file with more is invalid; fixed positions, for example,
/// would be computed for all of them.
const MOST_TOKENS: usize = 1 << 20;

/// Reads the file or folder at `path`: safetensors, a checkpoint of PyTorch, or a folder of
/// transformers.
///
/// # Errors
/// When it cannot be read, has an unknown format, or any name, shape or type does not match format
/// and model; the error lists all of them.
pub fn import(path: &Path, hints: &Hints) -> Result<Imported, ConvertError> {
    let mut source = source::read(path)?;
    let (format, is_classifier) = detect::format(&source)?;
    let qkv_layout = detect::qkv_layout(&source.tensors, format);
    let (model, named, normalisation) = match format {
        Format::Huggingface => huggingface::read(&source, is_classifier)?,
        Format::Videomae => (
            detect::model(&source, format, is_classifier, hints)?,
            None,
            Normalisation::IMAGENET,
        ),
        Format::MaeSt | Format::Pyslowfast => (
            detect::model(&source, format, is_classifier, hints)?,
            None,
            Normalisation::OURS,
        ),
    };
    let path = source.path;
    let tokens = model.grid().tokens();
    if tokens > MOST_TOKENS {
        return Err(ConvertError::Invalid {
            path,
            reason: format!("its clips would have {tokens} tokens, more than {MOST_TOKENS}"),
        });
    }
    let mismatch = |problems| ConvertError::Mismatch {
        path: path.clone(),
        format,
        problems,
    };
    let tensors = std::mem::take(&mut source.tensors);
    let mut tensors = to_ours(&rules(format, qkv_layout, &model), tensors)?.map_err(mismatch)?;
    let mut notes = source.notes;

    let classes = hints.classes.clone().or(named);
    if let (Model::Classifier(config), Some(classes)) = (&model, &classes)
        && classes.len() != config.classes
    {
        return Err(ConvertError::Classes {
            path,
            named: classes.len(),
            found: config.classes,
        });
    }
    if normalisation != Normalisation::OURS {
        fold::normalisation(&mut tensors, normalisation, Normalisation::OURS)?;
        let Normalisation { mean, std } = normalisation;
        notes.push(format!(
            "their pixel mean {mean:?} and deviation {std:?} are folded into the \
                            patch embedding, which expects ours"
        ));
        if let Model::Mae(MaeConfig {
            normalise_target: false,
            ..
        }) = &model
        {
            // Their predictions are pixels in [0, 1], ours are normalised ones.
            fold::predictions(
                &mut tensors,
                1.0 / f64::from(STD),
                -f64::from(MEAN) / f64::from(STD),
            )?;
            notes.push(
                "their predictions of pixels in [0, 1] are folded into those of normalised pixels; \
                 losses are 1 / 0.225² times theirs"
                    .to_owned(),
            );
        }
    }
    // A mismatch here would be a bug in the rules.
    let built = match &model {
        Model::Mae(config) => {
            Mae::from_tensors(*config, tensors.clone().into_iter().collect(), &Device::Cpu)
                .map(drop)
        }
        Model::Classifier(config) => {
            Classifier::from_tensors(*config, tensors.clone().into_iter().collect(), &Device::Cpu)
                .map(drop)
        }
    };
    built.map_err(|error| mismatch(vec![error.to_string()]))?;
    if format != Format::Huggingface {
        notes.push(assumptions(&model));
    }
    if matches!(model, Model::Classifier(_)) && classes.is_none() {
        notes.push(
            "class names are unknown, so classes are numbered; give names with --classes FILE"
                .to_owned(),
        );
    }
    Ok(Imported {
        format,
        model,
        tensors,
        classes,
        notes,
    })
}

/// Notes what the weights do not store, and was taken from the user or from published models.
fn assumptions(model: &Model) -> String {
    let assumed = match model {
        Model::Mae(config) => {
            let target = if config.normalise_target {
                "normalised"
            } else {
                "raw"
            };
            format!(
                "{} heads in the encoder, {} in the decoder, and a target of {target} pixels",
                config.encoder.heads, config.decoder.heads
            )
        }
        Model::Classifier(config) => format!("{} heads", config.encoder.heads),
    };
    format!("not stored in the weights, assumed: {assumed}")
}

/// The base preset with the sizes and conventions of the weights.
fn pretraining_config(format: Format, model: &MaeConfig) -> Result<PretrainConfig, ConfigError> {
    let mut config = PretrainConfig::resolve(Preset::Base, &[])?;
    let conventions = model.conventions;
    config.common.clip = model.grid;
    config.common.encoder = model.encoder;
    config.common.model = ModelConfig::of(model.positions, model.class_token, conventions);
    let PretrainObjective {
        decoder,
        masking,
        target,
        ..
    } = &mut config.objective;
    *decoder = model.decoder;
    *target = TargetConfig {
        kind: model.target,
        pred_frames: model.slices,
        normalise: model.normalise_target,
        normalise_per: conventions.normalise_per,
        frames: conventions.target_frames,
    };
    if matches!(format, Format::Videomae | Format::Huggingface) {
        masking.kind = MaskKind::Tube;
    }
    config.check()?;
    Ok(config)
}

impl Imported {
    /// The whole configuration: the base preset, or a recipe of fine-tuning, with the sizes and
    /// conventions of the weights. `from` is the name of the weights.
    ///
    /// # Errors
    /// When it cannot be trained: for example, if masks leave no token visible.
    pub fn task(&self, from: &str) -> Result<Task, ConfigError> {
        match &self.model {
            Model::Mae(model) => pretraining_config(self.format, model).map(Task::from),
            Model::Classifier(model) => {
                let ClassifierConfig {
                    grid,
                    encoder,
                    positions,
                    class_token,
                    classes,
                    conventions,
                } = *model;
                let part = EncoderPart {
                    clip: grid,
                    model: ModelConfig::of(positions, class_token, conventions),
                    encoder,
                };
                let names = self
                    .classes
                    .clone()
                    .unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
                let recipe = Recipe::for_width(encoder.width);
                FinetuneConfig::resolve(recipe, &part, Some(from.to_owned()), names, &[])
                    .map(Task::from)
            }
        }
    }
}
