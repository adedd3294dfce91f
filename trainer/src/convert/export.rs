//! Our weights become another code base's.

use super::fold::{self, Normalisation};
use super::rules::{Tensors, rules, to_theirs};
use super::{ConvertError, Format, Model, huggingface};
use crate::model::{
    ClassifierConfig, Conventions, DecoderClassToken, LAYER_NORM_EPSILON, MaeConfig, NormalisePer, PositionKind, TargetKind,
    TransformerConfig,
};
use pipeline::transform::{MEAN, STD};
use schemas::geometry::TargetFrames;
use serde_json::Value;

/// Weights to be written.
#[derive(Debug)]
pub struct Exported {
    /// The weights, under their names, f32.
    pub tensors: Tensors,
    /// Files that lie beside them, by name.
    pub files: Vec<(&'static str, Value)>,
    /// What the user has to know: what was folded or left out, and what the format does not say.
    pub notes: Vec<String>,
}

/// Makes `tensors`, the weights of `model`, those of `format`. `classes` are the names of a classifier's classes.
///
/// # Errors
/// When the format has no place for the model, or the weights are not the model's; all reasons are named.
pub fn export(model: &Model, classes: Option<&[String]>, mut tensors: Tensors, format: Format) -> Result<Exported, ConvertError> {
    let no_place = |reasons| ConvertError::NoPlace { format, reasons };
    let reasons = match format {
        Format::MaeSt => reasons_of_mae_st(model),
        Format::Pyslowfast => reasons_of_pyslowfast(model),
        Format::Videomae | Format::Huggingface => reasons_of_videomae(model),
    };
    if !reasons.is_empty() {
        return Err(no_place(reasons));
    }
    let mut notes = notes(model, format);
    if matches!(format, Format::Videomae | Format::Huggingface) {
        fold::normalisation(&mut tensors, Normalisation::OURS, Normalisation::IMAGENET)?;
        notes.push("our mean and deviation of pixels are folded into the patch embedding, which takes ImageNet's".to_owned());
        if let Model::Mae(config) = model {
            if !config.normalise_target {
                fold::predictions(&mut tensors, f64::from(STD), f64::from(MEAN))?;
                notes.push("predictions of normalised pixels are folded into those of pixels in [0, 1]".to_owned());
            }
            match fold::decoder_bias(&mut tensors)? {
                Some(0.0) => {}
                Some(greatest) => notes.push(format!(
                    "the bias of decoder_embed has no place there: it is folded into that of the normalisation after the encoder, whose outputs it shifts, by \
                     {greatest:.3e} at most"
                )),
                None => {
                    let reason = "decoder_embed.bias is not zero, and its weight cannot make it: the decoder is wider than the encoder, or nearly singular";
                    return Err(no_place(vec![reason.to_owned()]));
                }
            }
        }
    }
    let tensors = to_theirs(&rules(format, format.qkv_layout(), model), tensors)?.map_err(no_place)?;
    let files = if format == Format::Huggingface { huggingface::write(model, classes).to_vec() } else { Vec::new() };
    Ok(Exported { tensors, files, notes })
}

const NO_SINUSOID: &str = "model.positions = \"sinusoid\": it has only learned positions";
const NO_HISTOGRAMS: &str = "target.kind = \"hog\": it predicts pixels";

fn reasons_of_mae_st(model: &Model) -> Vec<String> {
    let mut reasons = Vec::new();
    match model {
        Model::Classifier(config) => reasons.extend((config.positions == PositionKind::Sinusoid).then_some(NO_SINUSOID)),
        Model::Mae(config) => {
            reasons.extend((config.positions == PositionKind::Sinusoid).then_some(NO_SINUSOID));
            let is_another = config.decoder_positions() != config.positions;
            reasons.extend(is_another.then_some("model.decoder_positions: its decoder has positions as its encoder"));
            let is_encoded = config.class_token && config.conventions.decoder_class_token == DecoderClassToken::Encoded;
            reasons.extend(is_encoded.then_some("model.decoder_class_token = \"encoded\": its decoder has a cls token of its own"));
            reasons.extend((config.target == TargetKind::Hog).then_some(NO_HISTOGRAMS));
        }
    }
    reasons.into_iter().map(str::to_owned).collect()
}

fn reasons_of_pyslowfast(model: &Model) -> Vec<String> {
    let mut reasons = Vec::new();
    match model {
        Model::Classifier(config) => reasons.extend((config.positions == PositionKind::Sinusoid).then(|| NO_SINUSOID.to_owned())),
        Model::Mae(config) => {
            let is_sinusoid = [config.positions, config.decoder_positions()].contains(&PositionKind::Sinusoid);
            reasons.extend(is_sinusoid.then(|| NO_SINUSOID.to_owned()));
            let has_own = config.class_token && config.conventions.decoder_class_token == DecoderClassToken::Own;
            reasons.extend(has_own.then(|| "model.decoder_class_token = \"own\": its decoder takes the encoder's cls token".to_owned()));
            let TransformerConfig { width, heads, .. } = config.decoder;
            let has_others = heads * 64 != width;
            reasons
                .extend(has_others.then(|| format!("decoder.heads = {heads} of width {width}: its decoder has one for every 64 values")));
            let (slices, tubelet) = (config.slices, config.grid.tubelet);
            let has_some = slices != 1 && slices != tubelet;
            reasons.extend(has_some.then(|| format!("target.slices = {slices}: it predicts one frame of a tubelet, or all {tubelet}")));
            reasons.extend((config.target == TargetKind::Hog).then(|| NO_HISTOGRAMS.to_owned()));
        }
    }
    reasons
}

/// VideoMAE's, and transformers', which is its twin.
fn reasons_of_videomae(model: &Model) -> Vec<String> {
    let (positions, class_token) = match model {
        Model::Mae(config) => (config.positions, config.class_token),
        Model::Classifier(config) => (config.positions, config.class_token),
    };
    let mut reasons = Vec::new();
    let is_learned = |positions| positions != PositionKind::Sinusoid;
    reasons.extend(is_learned(positions).then(|| "model.positions are learned: it has only \"sinusoid\"".to_owned()));
    reasons.extend(class_token.then(|| "model.class_token = true: it has no cls token".to_owned()));
    if let Model::Mae(config) = model {
        let is_learned = !is_learned(positions) && is_learned(config.decoder_positions());
        reasons.extend(is_learned.then(|| "model.decoder_positions are learned: it has only \"sinusoid\"".to_owned()));
        let (slices, tubelet) = (config.slices, config.grid.tubelet);
        reasons.extend((slices != tubelet).then(|| format!("target.slices = {slices}: it predicts all {tubelet} frames of a tubelet")));
        reasons.extend((config.target == TargetKind::Hog).then(|| NO_HISTOGRAMS.to_owned()));
    }
    reasons
}

/// What a format cannot say, and does in its own way.
fn notes(model: &Model, format: Format) -> Vec<String> {
    let mut notes = Vec::new();
    let fixed = if format == Format::Huggingface { huggingface::FIXED_EPSILON } else { LAYER_NORM_EPSILON };
    let (conventions, last, heads) = match model {
        Model::Mae(MaeConfig { conventions, encoder, decoder, .. }) => {
            (conventions, ("decoder_norm_epsilon", conventions.decoder_norm_epsilon), vec![encoder.heads, decoder.heads])
        }
        Model::Classifier(ClassifierConfig { conventions, encoder, .. }) => {
            (conventions, ("head_norm_epsilon", conventions.head_norm_epsilon), vec![encoder.heads])
        }
    };
    let Conventions { norm_epsilon, normalise_per, target_frames, .. } = *conventions;
    let said = if format == Format::Huggingface { norm_epsilon } else { fixed };
    for (key, value, theirs) in [("norm_epsilon", norm_epsilon, said), (last.0, last.1, fixed)] {
        if value != theirs {
            notes.push(format!("model.{key} is {value:e} here, and {theirs:e} there"));
        }
    }
    if let Model::Mae(config) = model {
        let theirs = if matches!(format, Format::Videomae | Format::Huggingface) { NormalisePer::Channel } else { NormalisePer::Patch };
        if config.normalise_target && normalise_per != theirs {
            notes.push(
                "their target is normalised in another way (target.normalise_per): the predictions are the same, their loss is not"
                    .to_owned(),
            );
        }
        let theirs = if format == Format::Pyslowfast { TargetFrames::Strided } else { TargetFrames::Spread };
        if config.slices != config.grid.tubelet && target_frames != theirs {
            notes.push("their target has other frames (target.frames): the predictions are of ours".to_owned());
        }
    }
    if format != Format::Huggingface {
        let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
        notes.push(format!("the file does not say how many heads there are: {}", heads.join(" in the encoder, in the decoder ")));
    }
    notes
}
