//! Weights of another code base become ours.

use super::fold::{self, Normalisation};
use super::rules::{Tensors, rules, to_ours};
use super::{ConvertError, Format, Hints, Model, detect, huggingface, source};
use crate::config::{
    ConfigError, EncoderPart, FinetuneConfig, ModelConfig, Preset, PretrainConfig, PretrainObjective, Recipe, TargetConfig, Task,
};
use crate::model::{Classifier, ClassifierConfig, Mae, MaeConfig};
use candle_core::Device;
use pipeline::sampling::mask::MaskKind;
use pipeline::transform::{MEAN, STD};
use std::path::Path;

/// Weights that were read.
#[derive(Debug)]
pub struct Imported {
    /// Whose they were.
    pub format: Format,
    /// The model that they are of.
    pub model: Model,
    /// The weights, under our names, f32.
    pub tensors: Tensors,
    /// The names of a classifier's classes, where they are known.
    pub classes: Option<Vec<String>>,
    /// What the user has to know: what was widened, folded or filled in.
    pub notes: Vec<String>,
}

/// Tokens of a clip beyond which a file says nothing that can be meant: fixed positions, say, are computed for as many as it says.
const MOST_TOKENS: usize = 1 << 20;

/// Reads the file or folder at `path`: safetensors, a checkpoint of PyTorch, or a folder of transformers.
///
/// # Errors
/// When it cannot be read, is of no known format, or any name, shape or type is not what the format and the model have; all such are named.
pub fn import(path: &Path, hints: &Hints) -> Result<Imported, ConvertError> {
    let mut source = source::read(path)?;
    let (format, is_classifier) = detect::known_format(&source)?;
    let qkv_layout = detect::qkv_layout(&source.tensors, format);
    let (model, named, normalisation) = match format {
        Format::Huggingface => huggingface::read(&source, is_classifier)?,
        Format::Videomae => (detect::model(&source, format, is_classifier, hints)?, None, Normalisation::IMAGENET),
        Format::MaeSt | Format::Pyslowfast => (detect::model(&source, format, is_classifier, hints)?, None, Normalisation::OURS),
    };
    let path = source.path;
    let tokens = model.grid().tokens();
    if tokens > MOST_TOKENS {
        return Err(ConvertError::Spoiled { path, reason: format!("its clips would have {tokens} tokens, more than {MOST_TOKENS}") });
    }
    let mismatch = |problems| ConvertError::Mismatch { path: path.clone(), format, problems };
    let tensors = std::mem::take(&mut source.tensors);
    let mut tensors = to_ours(&rules(format, qkv_layout, &model), tensors)?.map_err(mismatch)?;
    let mut notes = source.notes;

    let classes = hints.classes.clone().or(named);
    if let (Model::Classifier(config), Some(classes)) = (&model, &classes)
        && classes.len() != config.classes
    {
        return Err(ConvertError::Classes { path, named: classes.len(), found: config.classes });
    }
    if normalisation != Normalisation::OURS {
        fold::normalisation(&mut tensors, normalisation, Normalisation::OURS)?;
        let Normalisation { mean, std } = normalisation;
        notes.push(format!("their mean {mean:?} and deviation {std:?} of pixels are folded into the patch embedding, which takes ours"));
        if let Model::Mae(MaeConfig { normalise_target: false, .. }) = &model {
            // They predict pixels in [0, 1], we normalised ones.
            fold::predictions(&mut tensors, 1.0 / f64::from(STD), -f64::from(MEAN) / f64::from(STD))?;
            notes.push(
                "their predictions of pixels in [0, 1] are folded into those of normalised pixels; losses are 1 / 0.225² times theirs"
                    .to_owned(),
            );
        }
    }
    // What the rules give is what the model asks for, or the rules are wrong.
    let built = match &model {
        Model::Mae(config) => Mae::given(*config, tensors.clone().into_iter().collect(), &Device::Cpu).map(drop),
        Model::Classifier(config) => Classifier::given(*config, tensors.clone().into_iter().collect(), &Device::Cpu).map(drop),
    };
    built.map_err(|error| mismatch(vec![error.to_string()]))?;
    if format != Format::Huggingface {
        notes.push(unsaid(&model));
    }
    if matches!(model, Model::Classifier(_)) && classes.is_none() {
        notes.push("the names of its classes are not known: they are numbers; --classes FILE names them".to_owned());
    }
    Ok(Imported { format, model, tensors, classes, notes })
}

/// What such weights do not say, and was taken from the user or from published models.
fn unsaid(model: &Model) -> String {
    let heads = match model {
        Model::Mae(config) => {
            let target = if config.normalise_target { "normalised" } else { "raw" };
            format!("{} and {} heads, and a target of {target} pixels", config.encoder.heads, config.decoder.heads)
        }
        Model::Classifier(config) => format!("{} heads", config.encoder.heads),
    };
    format!("the weights do not say it, and it was taken so: {heads}")
}

/// The base preset, with the shapes of the weights.
fn pretraining(format: Format, model: &MaeConfig) -> Result<PretrainConfig, ConfigError> {
    let mut config = PretrainConfig::resolve(Preset::Base, &[])?;
    let conventions = model.conventions;
    config.common.clip = model.grid;
    config.common.encoder = model.encoder;
    config.common.model = ModelConfig::of(model.positions, model.class_token, conventions);
    let PretrainObjective { decoder, masking, target, .. } = &mut config.objective;
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
    /// The whole configuration: the base preset, or a recipe of fine-tuning, with what the weights say laid over it. `from` names the weights.
    ///
    /// # Errors
    /// When it cannot be trained: masks, say, leave nothing visible of very few tokens.
    pub fn task(&self, from: &str) -> Result<Task, ConfigError> {
        match &self.model {
            Model::Mae(model) => pretraining(self.format, model).map(Task::from),
            Model::Classifier(model) => {
                let ClassifierConfig { grid, encoder, positions, class_token, classes, conventions } = *model;
                let part = EncoderPart { clip: grid, model: ModelConfig::of(positions, class_token, conventions), encoder };
                let names = self.classes.clone().unwrap_or_else(|| (0..classes).map(|class| class.to_string()).collect());
                let recipe = Recipe::for_width(encoder.width);
                FinetuneConfig::resolve(recipe, &part, Some(from.to_owned()), names, &[]).map(Task::from)
            }
        }
    }
}
