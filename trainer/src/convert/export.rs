//! Exports weights to the formats of other code bases.

use super::fold::{self, Normalisation};
use super::rules::{Tensors, rules, to_theirs};
use super::{ConvertError, Format, Model, huggingface};
use crate::model::{
    ClassifierConfig, Conventions, DecoderClassToken, LAYER_NORM_EPSILON, MaeConfig, NormalisePer,
    PositionKind, TargetKind, TransformerConfig,
};
use pipeline::transform::{MEAN, STD};
use schemas::geometry::TargetFrames;
use serde_json::Value;

/// Exported weights.
#[derive(Debug)]
pub struct Exported {
    /// The weights, f32, under the names of the format.
    pub tensors: Tensors,
    /// Other files of the format, by name.
    pub files: Vec<(&'static str, Value)>,
    /// Notes for the user: what was folded or dropped, and what the format does not store.
    pub notes: Vec<String>,
}

/// Converts `tensors`, the weights of `model`, to `format`. `classes` are the names of a
/// classifier's classes.
///
/// # Errors
/// When the format cannot represent the model, or the weights do not fit the model; the error lists
/// all reasons.
pub fn export(
    model: &Model,
    classes: Option<&[String]>,
    mut tensors: Tensors,
    format: Format,
) -> Result<Exported, ConvertError> {
    let unsupported = |reasons| ConvertError::Unsupported { format, reasons };
    let reasons = match format {
        Format::MaeSt => unsupported_by_mae_st(model),
        Format::Pyslowfast => unsupported_by_pyslowfast(model),
        Format::Videomae | Format::Huggingface => unsupported_by_videomae(model),
    };
    if !reasons.is_empty() {
        return Err(unsupported(reasons));
    }
    let mut notes = notes(model, format);
    if matches!(format, Format::Videomae | Format::Huggingface) {
        fold::normalisation(&mut tensors, Normalisation::OURS, Normalisation::IMAGENET)?;
        notes.push(
            "our pixel mean and deviation are folded into the patch embedding, which \
                    expects ImageNet's"
                .to_owned(),
        );
        if let Model::Mae(config) = model {
            if !config.normalise_target {
                fold::predictions(&mut tensors, f64::from(STD), f64::from(MEAN))?;
                notes.push(
                    "predictions of normalised pixels are folded into those of pixels in [0, 1]"
                        .to_owned(),
                );
            }
            match fold::decoder_bias(&mut tensors)? {
                Some(0.0) => {}
                Some(greatest) => notes.push(format!(
                    "the format has no bias of decoder_embed: it is folded into the bias of the \
                     normalisation after the encoder, which shifts its outputs by at \
                     most {greatest:.3e}"
                )),
                None => {
                    let reason = "decoder_embed.bias is not zero and cannot be folded: the decoder \
                                  is wider than the encoder, or the weight is nearly singular";
                    return Err(unsupported(vec![reason.to_owned()]));
                }
            }
        }
    }
    let tensors =
        to_theirs(&rules(format, format.qkv_layout(), model), tensors)?.map_err(unsupported)?;
    let files = if format == Format::Huggingface {
        huggingface::write(model, classes).to_vec()
    } else {
        Vec::new()
    };
    Ok(Exported {
        tensors,
        files,
        notes,
    })
}

const NO_SINUSOID: &str = "model.positions = \"sinusoid\": it has only learned positions";
const NO_HISTOGRAMS: &str = "target.kind = \"hog\": it predicts pixels";

fn unsupported_by_mae_st(model: &Model) -> Vec<String> {
    let mut reasons = Vec::new();
    match model {
        Model::Classifier(config) => {
            reasons.extend((config.positions == PositionKind::Sinusoid).then_some(NO_SINUSOID))
        }
        Model::Mae(config) => {
            reasons.extend((config.positions == PositionKind::Sinusoid).then_some(NO_SINUSOID));
            let is_another = config.decoder_positions() != config.positions;
            reasons.extend(is_another.then_some(
                "model.decoder_positions: its decoder has the same \
                kind of positions as its encoder",
            ));
            let is_encoded = config.class_token
                && config.conventions.decoder_class_token == DecoderClassToken::Encoded;
            reasons.extend(is_encoded.then_some(
                "model.decoder_class_token = \"encoded\": its decoder has a cls token of its own",
            ));
            reasons.extend((config.target == TargetKind::Hog).then_some(NO_HISTOGRAMS));
        }
    }
    reasons.into_iter().map(str::to_owned).collect()
}

fn unsupported_by_pyslowfast(model: &Model) -> Vec<String> {
    let mut reasons = Vec::new();
    match model {
        Model::Classifier(config) => reasons
            .extend((config.positions == PositionKind::Sinusoid).then(|| NO_SINUSOID.to_owned())),
        Model::Mae(config) => {
            let is_sinusoid =
                [config.positions, config.decoder_positions()].contains(&PositionKind::Sinusoid);
            reasons.extend(is_sinusoid.then(|| NO_SINUSOID.to_owned()));
            let has_own = config.class_token
                && config.conventions.decoder_class_token == DecoderClassToken::Own;
            reasons.extend(has_own.then(|| {
                "model.decoder_class_token = \"own\": its decoder takes the encoder's cls token"
                    .to_owned()
            }));
            let TransformerConfig { width, heads, .. } = config.decoder;
            let has_others = heads * 64 != width;
            reasons.extend(has_others.then(|| {
                format!(
                    "decoder.heads = {heads} of width {width}: its \
                    decoder has one for every 64 values"
                )
            }));
            let slices = config.slices;
            let tubelet = config.grid.tubelet;
            let has_some = slices != 1 && slices != tubelet;
            reasons.extend(has_some.then(|| {
                format!(
                    "target.slices = {slices}: it predicts one frame of a tubelet, or all {tubelet}"
                )
            }));
            reasons.extend((config.target == TargetKind::Hog).then(|| NO_HISTOGRAMS.to_owned()));
        }
    }
    reasons
}

/// What VideoMAE and transformers do not support.
fn unsupported_by_videomae(model: &Model) -> Vec<String> {
    let (positions, class_token) = match model {
        Model::Mae(config) => (config.positions, config.class_token),
        Model::Classifier(config) => (config.positions, config.class_token),
    };
    let mut reasons = Vec::new();
    let is_learned = |positions| positions != PositionKind::Sinusoid;
    reasons.extend(
        is_learned(positions)
            .then(|| "model.positions are learned: it has only \"sinusoid\"".to_owned()),
    );
    reasons.extend(class_token.then(|| "model.class_token = true: it has no cls token".to_owned()));
    if let Model::Mae(config) = model {
        let is_learned = !is_learned(positions) && is_learned(config.decoder_positions());
        reasons.extend(
            is_learned.then(|| {
                "model.decoder_positions are learned: it has only \"sinusoid\"".to_owned()
            }),
        );
        let slices = config.slices;
        let tubelet = config.grid.tubelet;
        reasons.extend((slices != tubelet).then(|| {
            format!("target.slices = {slices}: it predicts all {tubelet} frames of a tubelet")
        }));
        reasons.extend((config.target == TargetKind::Hog).then(|| NO_HISTOGRAMS.to_owned()));
    }
    reasons
}

/// Notes on what a format does not store, or does differently.
fn notes(model: &Model, format: Format) -> Vec<String> {
    let mut notes = Vec::new();
    let fixed = if format == Format::Huggingface {
        huggingface::FIXED_EPSILON
    } else {
        LAYER_NORM_EPSILON
    };
    let (conventions, last, heads) = match model {
        Model::Mae(MaeConfig {
            conventions,
            encoder,
            decoder,
            ..
        }) => (
            conventions,
            ("decoder_norm_epsilon", conventions.decoder_norm_epsilon),
            vec![encoder.heads, decoder.heads],
        ),
        Model::Classifier(ClassifierConfig {
            conventions,
            encoder,
            ..
        }) => (
            conventions,
            ("head_norm_epsilon", conventions.head_norm_epsilon),
            vec![encoder.heads],
        ),
    };
    let Conventions {
        norm_epsilon,
        normalise_per,
        target_frames,
        ..
    } = *conventions;
    let stored = if format == Format::Huggingface {
        norm_epsilon
    } else {
        fixed
    };
    for (key, value, theirs) in [
        ("norm_epsilon", norm_epsilon, stored),
        (last.0, last.1, fixed),
    ] {
        if value != theirs {
            notes.push(format!(
                "model.{key} is {value:e} here, but {theirs:e} in the format"
            ));
        }
    }
    if let Model::Mae(config) = model {
        let theirs = if matches!(format, Format::Videomae | Format::Huggingface) {
            NormalisePer::Channel
        } else {
            NormalisePer::Patch
        };
        if config.normalise_target && normalise_per != theirs {
            notes.push(
                "the format normalises the target differently (target.normalise_per): predictions \
                 are the same, the loss is not"
                    .to_owned(),
            );
        }
        let theirs = if format == Format::Pyslowfast {
            TargetFrames::Strided
        } else {
            TargetFrames::Spread
        };
        if config.slices != config.grid.tubelet && target_frames != theirs {
            notes.push(
                "the format predicts other frames (target.frames): these weights predict ours"
                    .to_owned(),
            );
        }
    }
    if format != Format::Huggingface {
        let heads: Vec<String> = heads
            .iter()
            .zip(["encoder", "decoder"])
            .map(|(heads, part)| format!("{heads} in the {part}"))
            .collect();
        notes.push(format!(
            "the file does not store the number of heads: {}",
            heads.join(", ")
        ));
    }
    notes
}
