//! Detects the format of weights from their names, and the sizes of their model from their shapes.

use super::rules::{Biases, Names, QkvLayout, Tensors};
use super::source::Source;
use super::{ConvertError, Format, Hints, Model};
use crate::model::{
    ClassifierConfig, Conventions, DecoderClassToken, MaeConfig, NormalisePer, PositionKind,
    TargetKind, TransformerConfig,
};
use schemas::geometry::{PatchGrid, TargetFrames};

/// Names that the error for an unknown format lists.
const NAMES_SHOWN: usize = 6;

/// The format with these names, and whether the weights are a classifier's; `None` if no format
/// matches.
fn match_names(tensors: &Tensors) -> Option<(Format, bool)> {
    let any = |prefix: &str| tensors.keys().any(|name| name.starts_with(prefix));
    // Formats whose names also occur in others come last.
    let patterns = [
        ("videomae.", "decoder.", Format::Huggingface, false),
        ("videomae.", "classifier.", Format::Huggingface, true),
        (
            "encoder.blocks.",
            "decoder.blocks.",
            Format::Videomae,
            false,
        ),
        ("blocks.", "pred_head.", Format::Pyslowfast, false),
        ("blocks.", "head.projection.", Format::Pyslowfast, true),
        ("blocks.", "decoder_blocks.", Format::MaeSt, false),
        ("blocks.", "fc_norm.", Format::Videomae, true),
        ("blocks.", "head.", Format::MaeSt, true),
    ];
    patterns
        .into_iter()
        .find(|(one, other, ..)| any(one) && any(other))
        .map(|(.., format, is_classifier)| (format, is_classifier))
}

/// Detects the format of a source, and whether its weights are a classifier's.
pub(crate) fn format(source: &Source) -> Result<(Format, bool), ConvertError> {
    let names = || source.tensors.keys().take(NAMES_SHOWN).cloned().collect();
    match_names(&source.tensors).ok_or_else(|| ConvertError::UnknownFormat {
        path: source.path.clone(),
        names: names(),
    })
}

/// Detects how a file stores queries, keys and values.
pub(crate) fn qkv_layout(tensors: &Tensors, format: Format) -> QkvLayout {
    let any = |ending: &str| tensors.keys().any(|name| name.ends_with(ending));
    let [q, k, joined] = match format {
        Format::Huggingface => [".query.bias", ".key.bias", ".qkv.weight"],
        _ => [".attn.q.bias", ".attn.k.bias", ".attn.qkv.weight"],
    };
    let biases = if any(".q_bias") || any(".v_bias") {
        Biases::Apart
    } else if any(k) || any(".qkv.bias") {
        Biases::All
    } else if any(q) {
        Biases::NoKeys
    } else {
        Biases::None
    };
    QkvLayout {
        joined: any(joined),
        biases,
    }
}

/// Reads sizes from shapes, and collects problems.
struct Sizes<'a> {
    source: &'a Source,
    problems: Vec<String>,
}

impl Sizes<'_> {
    /// The shape of a tensor of `rank` dimensions; records a problem and returns ones if there is
    /// none.
    fn shape(&mut self, name: &str, rank: usize) -> Vec<usize> {
        match self.source.tensors.get(name) {
            Some(tensor) if tensor.rank() == rank => return tensor.dims().to_vec(),
            Some(tensor) => self.problems.push(format!(
                "{name} is {:?}, not of {rank} dimensions",
                tensor.dims()
            )),
            None => self.problems.push(format!("{name} is missing")),
        }
        vec![1; rank]
    }

    /// Number of blocks: one more than the greatest index after `prefix` that is followed by names
    /// of a block.
    fn depth(&self, prefix: &str) -> usize {
        let numbers = self.source.tensors.keys().filter_map(|name| {
            let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
            rest.contains('.')
                .then(|| number.parse::<usize>().ok())
                .flatten()
        });
        // An absurdly large index belongs to an unknown name.
        numbers
            .filter(|&number| number < self.source.tensors.len())
            .max()
            .map_or(0, |greatest| greatest + 1)
    }

    /// Fails if there are problems.
    fn finish(&self, format: Format) -> Result<(), ConvertError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ConvertError::Mismatch {
            path: self.source.path.clone(),
            format,
            problems: self.problems.clone(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.source.tensors.contains_key(name)
    }

    /// Kind of position embeddings, whose names start with one of `prefixes`.
    fn positions(&self, prefixes: &[&str]) -> Option<PositionKind> {
        let has = |part: &str| {
            prefixes
                .iter()
                .any(|prefix| self.has(&format!("{prefix}pos_embed{part}")))
        };
        if has("_spatial") || has("_temporal") {
            Some(PositionKind::Separable)
        } else {
            has("").then_some(PositionKind::Joint)
        }
    }
}

/// Number of heads of published models of a format, by width.
const fn usual_heads(format: Format, is_decoder: bool, width: usize) -> Option<usize> {
    match (format, is_decoder, width) {
        (_, false, 384) => Some(6),
        (_, false, 768) => Some(12),
        (_, false, 1024 | 1280) => Some(16),
        (Format::MaeSt, true, 512) => Some(16),
        (Format::Videomae, true, 192) => Some(3),
        (Format::Videomae, true, 384) => Some(6),
        (Format::Videomae, true, 512 | 640) => Some(8),
        // One head per 64 values.
        (Format::Pyslowfast, true, width) if width >= 64 => Some(width / 64),
        _ => None,
    }
}

/// Derives the model from the shapes of its weights, for formats without a configuration.
pub(crate) fn model(
    source: &Source,
    format: Format,
    is_classifier: bool,
    hints: &Hints,
) -> Result<Model, ConvertError> {
    let names = Names::of(format, is_classifier);
    let mut sizes = Sizes {
        source,
        problems: Vec::new(),
    };
    let patches = sizes.shape(&format!("{}.weight", names.patches), 5);
    if sizes.problems.is_empty()
        && (patches[1] != 3 || patches[3] != patches[4] || patches.contains(&0))
    {
        sizes.problems.push(format!(
            "{}.weight is {patches:?}, not of three channels and square patches",
            names.patches
        ));
    }
    let class_token = sizes.has("cls_token");
    let positions = match format {
        Format::Videomae | Format::Huggingface => PositionKind::Sinusoid,
        Format::MaeSt | Format::Pyslowfast => {
            sizes.positions(&[""]).unwrap_or(PositionKind::Separable)
        }
    };
    let grid = grid(&mut sizes, &patches, positions, class_token, hints)?;
    let width = patches[0];
    let heads = |is_decoder, width, hint: Option<usize>| {
        let (part, flag) = if is_decoder {
            ("decoder", "--decoder-heads")
        } else {
            ("encoder", "--heads")
        };
        let heads = hint.or_else(|| usual_heads(format, is_decoder, width));
        heads.ok_or_else(|| {
            unspecified(
                source,
                format!("how many heads its {part} of width {width} has"),
                flag,
            )
        })
    };
    let depth = sizes.depth(names.blocks);
    if is_classifier {
        let classes = sizes.shape(&format!("{}.weight", names.head), 2)[0];
        sizes.finish(format)?;
        let encoder = TransformerConfig {
            width,
            depth,
            heads: heads(false, width, hints.heads)?,
        };
        let conventions = Conventions::default();
        return Ok(Model::Classifier(ClassifierConfig {
            grid,
            encoder,
            positions,
            class_token,
            classes,
            conventions,
        }));
    }
    let decoder_width = sizes.shape("mask_token", 3)[2];
    let outputs = sizes.shape(&format!("{}.bias", names.pred), 1)[0];
    let decoder_positions = match format {
        Format::MaeSt => sizes.positions(&["decoder_"]),
        Format::Pyslowfast => sizes.positions(&["dec_", "decoder_"]),
        Format::Videomae | Format::Huggingface => None,
    };
    let decoder_depth = sizes.depth(names.decoder_blocks);
    let of_frame = grid.target_values(1);
    if sizes.problems.is_empty()
        && (!outputs.is_multiple_of(of_frame)
            || !(1..=grid.tubelet).contains(&(outputs / of_frame)))
    {
        let problem = format!(
            "{}.bias has {outputs} values, which is not a number of frames of {of_frame} values",
            names.pred
        );
        sizes.problems.push(problem);
    }
    sizes.finish(format)?;
    let is_slowfast = format == Format::Pyslowfast;
    Ok(Model::Mae(MaeConfig {
        grid,
        encoder: TransformerConfig {
            width,
            depth,
            heads: heads(false, width, hints.heads)?,
        },
        decoder: TransformerConfig {
            width: decoder_width,
            depth: decoder_depth,
            heads: heads(true, decoder_width, hints.decoder_heads)?,
        },
        positions,
        class_token,
        target: TargetKind::Pixels,
        slices: outputs / of_frame,
        normalise_target: hints.normalise_target.unwrap_or(true),
        conventions: Conventions {
            decoder_positions: decoder_positions.filter(|&kind| kind != positions),
            decoder_class_token: if is_slowfast {
                DecoderClassToken::Encoded
            } else {
                DecoderClassToken::Own
            },
            normalise_per: if format == Format::Videomae {
                NormalisePer::Channel
            } else {
                NormalisePer::Patch
            },
            target_frames: if is_slowfast {
                TargetFrames::Strided
            } else {
                TargetFrames::Spread
            },
            ..Conventions::default()
        },
    }))
}

fn unspecified(source: &Source, what: String, flag: &'static str) -> ConvertError {
    ConvertError::Unspecified {
        path: source.path.clone(),
        what,
        flag,
    }
}

/// Derives sizes of clips and patches from the shape of the patch embedding's weight and from the
/// position embeddings.
fn grid(
    sizes: &mut Sizes<'_>,
    patches: &[usize],
    positions: PositionKind,
    class_token: bool,
    hints: &Hints,
) -> Result<PatchGrid, ConvertError> {
    let tubelet = patches[2];
    let patch = patches[3].max(1);
    let (time, space) = match positions {
        PositionKind::Separable => {
            let spatial = sizes.shape("pos_embed_spatial", 3);
            let temporal = sizes.shape("pos_embed_temporal", 3);
            (temporal[1], spatial[1])
        }
        PositionKind::Joint => {
            let tokens = sizes.shape("pos_embed", 3)[1].saturating_sub(usize::from(class_token));
            let time = hints.frames.unwrap_or(USUAL_FRAMES) / tubelet.max(1);
            if sizes.problems.is_empty() && (time == 0 || !tokens.is_multiple_of(time)) {
                let what = format!("how its {tokens} positions are split into frames");
                return Err(unspecified(sizes.source, what, "--frames"));
            }
            (time, tokens / time.max(1))
        }
        PositionKind::Sinusoid => {
            let side = hints.size.unwrap_or(USUAL_SIZE) / patch;
            (
                hints.frames.unwrap_or(USUAL_FRAMES) / tubelet.max(1),
                side * side,
            )
        }
    };
    let side = space.isqrt();
    if sizes.problems.is_empty() && side * side != space {
        let what = format!("how its {space} positions per frame form a square");
        return Err(unspecified(sizes.source, what, "--frames"));
    }
    Ok(PatchGrid {
        frames: time * tubelet,
        size: side * patch,
        tubelet,
        patch,
    })
}

/// Frames and size of all published models, for weights that do not specify them.
const USUAL_FRAMES: usize = 16;
const USUAL_SIZE: usize = 224;
