//! Whose weights these are, from their names; and the sizes of their model, from their shapes.

use super::rules::{Biases, Names, QkvLayout, Tensors};
use super::source::Source;
use super::{ConvertError, Format, Hints, Model};
use crate::config::TargetChoice;
use crate::model::{
    ClassifierConfig, Conventions, DecoderClassToken, MaeConfig, NormalisePer, PositionKind, TargetKind, TransformerConfig,
};
use schemas::geometry::{PatchGrid, TargetFrames};

/// Names that an error lists of weights that nobody knows.
const NAMES_SHOWN: usize = 6;

/// Whose weights have these names, and whether they are a classifier's; nothing where nobody is known who has such.
pub(crate) fn format(tensors: &Tensors) -> Option<(Format, bool)> {
    let any = |prefix: &str| tensors.keys().any(|name| name.starts_with(prefix));
    // The names of a format that others have too come last.
    let signs = [
        ("videomae.", "decoder.", Format::Huggingface, false),
        ("videomae.", "classifier.", Format::Huggingface, true),
        ("encoder.blocks.", "decoder.blocks.", Format::Videomae, false),
        ("blocks.", "pred_head.", Format::Pyslowfast, false),
        ("blocks.", "head.projection.", Format::Pyslowfast, true),
        ("blocks.", "decoder_blocks.", Format::MaeSt, false),
        ("blocks.", "fc_norm.", Format::Videomae, true),
        ("blocks.", "head.", Format::MaeSt, true),
    ];
    signs.into_iter().find(|(one, other, ..)| any(one) && any(other)).map(|(.., format, is_classifier)| (format, is_classifier))
}

/// The same, or why not.
pub(crate) fn known_format(source: &Source) -> Result<(Format, bool), ConvertError> {
    let names = || source.tensors.keys().take(NAMES_SHOWN).cloned().collect();
    format(&source.tensors).ok_or_else(|| ConvertError::Unrecognised { path: source.path.clone(), names: names() })
}

/// How a file spells queries, keys and values.
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
    QkvLayout { joined: any(joined), biases }
}

/// Sizes while they are found, and what is missing for them.
struct Sizes<'a> {
    source: &'a Source,
    problems: Vec<String>,
}

impl Sizes<'_> {
    /// The shape of a tensor, of `rank` dimensions; of ones where it has none such.
    fn shape(&mut self, name: &str, rank: usize) -> Vec<usize> {
        match self.source.tensors.get(name) {
            Some(tensor) if tensor.rank() == rank => return tensor.dims().to_vec(),
            Some(tensor) => self.problems.push(format!("{name} is {:?}, not of {rank} dimensions", tensor.dims())),
            None => self.problems.push(format!("{name} is missing")),
        }
        vec![1; rank]
    }

    /// One more than the greatest number that follows `prefix` and has something of a block behind it.
    fn depth(&self, prefix: &str) -> usize {
        let numbers = self.source.tensors.keys().filter_map(|name| {
            let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
            rest.contains('.').then(|| number.parse::<usize>().ok()).flatten()
        });
        // A number beyond all reason is one among names that are unknown.
        numbers.filter(|&number| number < self.source.tensors.len()).max().map_or(0, |greatest| greatest + 1)
    }

    fn has(&self, name: &str) -> bool {
        self.source.tensors.contains_key(name)
    }

    /// How positions are given under `prefix`, where their names begin with `prefixes`.
    fn positions(&self, prefixes: &[&str]) -> Option<PositionKind> {
        let has = |part: &str| prefixes.iter().any(|prefix| self.has(&format!("{prefix}pos_embed{part}")));
        if has("_spatial") || has("_temporal") { Some(PositionKind::Separable) } else { has("").then_some(PositionKind::Joint) }
    }
}

/// Widths with the heads that published models of a format have.
const fn usual_heads(format: Format, is_decoder: bool, width: usize) -> Option<usize> {
    match (format, is_decoder, width) {
        (_, false, 384) => Some(6),
        (_, false, 768) => Some(12),
        (_, false, 1024 | 1280) => Some(16),
        (Format::MaeSt, true, 512) => Some(16),
        (Format::Videomae, true, 192) => Some(3),
        (Format::Videomae, true, 384) => Some(6),
        (Format::Videomae, true, 512 | 640) => Some(8),
        // It takes one for every 64 values.
        (Format::Pyslowfast, true, width) if width >= 64 => Some(width / 64),
        _ => None,
    }
}

/// The model that weights of one of the formats without a configuration are of.
pub(crate) fn model(source: &Source, format: Format, is_classifier: bool, hints: &Hints) -> Result<Model, ConvertError> {
    let names = Names::of(format, is_classifier);
    let mut sizes = Sizes { source, problems: Vec::new() };
    let patches = sizes.shape(&format!("{}.weight", names.patches), 5);
    let (width, tubelet, patch) = (patches[0], patches[2], patches[3].max(1));
    if sizes.problems.is_empty() && (patches[1] != 3 || patches[3] != patches[4] || patches.contains(&0)) {
        sizes.problems.push(format!("{}.weight is {patches:?}, not of three channels and square patches", names.patches));
    }
    let class_token = sizes.has("cls_token");
    let positions = match format {
        Format::Videomae | Format::Huggingface => PositionKind::Sinusoid,
        Format::MaeSt | Format::Pyslowfast => sizes.positions(&[""]).unwrap_or(PositionKind::Separable),
    };
    let unsaid = |what: String, flag| ConvertError::Unsaid { path: source.path.clone(), what, flag };
    let (time, space) = match positions {
        PositionKind::Separable => {
            let (spatial, temporal) = (sizes.shape("pos_embed_spatial", 3), sizes.shape("pos_embed_temporal", 3));
            (temporal[1], spatial[1])
        }
        PositionKind::Joint => {
            let tokens = sizes.shape("pos_embed", 3)[1].saturating_sub(usize::from(class_token));
            let time = hints.frames.unwrap_or(USUAL_FRAMES) / tubelet.max(1);
            if sizes.problems.is_empty() && (time == 0 || !tokens.is_multiple_of(time)) {
                return Err(unsaid(format!("how its {tokens} positions are those of frames"), "--frames"));
            }
            (time, tokens / time.max(1))
        }
        PositionKind::Sinusoid => {
            let side = hints.size.unwrap_or(USUAL_SIZE) / patch;
            (hints.frames.unwrap_or(USUAL_FRAMES) / tubelet.max(1), side * side)
        }
    };
    let side = space.isqrt();
    if sizes.problems.is_empty() && side * side != space {
        return Err(unsaid(format!("how its {space} places are those of a square"), "--frames"));
    }
    let grid = PatchGrid { frames: time * tubelet, size: side * patch, tubelet, patch };
    let heads = |is_decoder, width, hint: Option<usize>| {
        let (what, flag) = if is_decoder { ("decoder", "--decoder-heads") } else { ("encoder", "--heads") };
        let heads = hint.or_else(|| usual_heads(format, is_decoder, width));
        heads.ok_or_else(|| unsaid(format!("how many heads its {what} of width {width} has"), flag))
    };
    let of_blocks = |width, depth, heads| TransformerConfig { width, depth, heads };
    let depth = sizes.depth(names.blocks);
    if is_classifier {
        let classes = sizes.shape(&format!("{}.weight", names.head), 2)[0];
        let problems = sizes.problems;
        if !problems.is_empty() {
            return Err(ConvertError::Mismatch { path: source.path.clone(), format, problems });
        }
        let encoder = of_blocks(width, depth, heads(false, width, hints.heads)?);
        return Ok(Model::Classifier(ClassifierConfig {
            grid,
            encoder,
            positions,
            class_token,
            classes,
            conventions: Conventions::default(),
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
    if sizes.problems.is_empty() && (!outputs.is_multiple_of(of_frame) || !(1..=tubelet).contains(&(outputs / of_frame))) {
        sizes.problems.push(format!("{}.bias has {outputs} values, which are no frames of {of_frame}", names.pred));
    }
    let problems = sizes.problems;
    if !problems.is_empty() {
        return Err(ConvertError::Mismatch { path: source.path.clone(), format, problems });
    }
    let (slices, target) = (outputs / of_frame, hints.target.unwrap_or(TargetChoice::Normalised));
    let is_slowfast = format == Format::Pyslowfast;
    Ok(Model::Mae(MaeConfig {
        grid,
        encoder: of_blocks(width, depth, heads(false, width, hints.heads)?),
        decoder: of_blocks(decoder_width, decoder_depth, heads(true, decoder_width, hints.decoder_heads)?),
        positions,
        class_token,
        target: TargetKind::Pixels,
        slices,
        normalise_target: target == TargetChoice::Normalised,
        conventions: Conventions {
            decoder_positions: decoder_positions.filter(|&kind| kind != positions),
            decoder_class_token: if is_slowfast { DecoderClassToken::Encoded } else { DecoderClassToken::Own },
            normalise_per: if format == Format::Videomae { NormalisePer::Channel } else { NormalisePer::Patch },
            target_frames: if is_slowfast { TargetFrames::Strided } else { TargetFrames::Spread },
            ..Conventions::default()
        },
    }))
}

/// Frames and size of all published models, for weights that do not say them.
const USUAL_FRAMES: usize = 16;
const USUAL_SIZE: usize = 224;
