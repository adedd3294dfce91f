//! The mapping between the tensors of a format and ours. One table serves both directions.

use super::{Format, Model};
use crate::model::{
    ClassifierConfig, DecoderClassToken, MLP_RATIO, MaeConfig, PositionKind, TransformerConfig,
};
use candle_core::{DType, Device, Result, Tensor};
use std::collections::BTreeMap;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// How a file stores queries, keys and values. Versions of one code base differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QkvLayout {
    /// Whether the three weights are one tensor.
    pub(crate) joined: bool,
    /// Layout of the biases.
    pub(crate) biases: Biases,
}

/// How a file stores the biases of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Biases {
    /// All three, with the names of the weights.
    All,
    /// Queries and values only, with the names of the weights.
    NoKeys,
    /// `q_bias` and `v_bias`.
    Apart,
    /// No biases.
    None,
}

impl Format {
    /// The layout that an export writes.
    pub(crate) const fn qkv_layout(self) -> QkvLayout {
        match self {
            Self::MaeSt => QkvLayout {
                joined: false,
                biases: Biases::All,
            },
            Self::Pyslowfast => QkvLayout {
                joined: true,
                biases: Biases::All,
            },
            Self::Videomae => QkvLayout {
                joined: true,
                biases: Biases::Apart,
            },
            Self::Huggingface => QkvLayout {
                joined: false,
                biases: Biases::Apart,
            },
        }
    }
}

/// The mapping of one or several tensors.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    /// A tensor with another name in the format.
    Renamed {
        ours: String,
        theirs: String,
        shape: Vec<usize>,
    },
    /// Three of our tensors, of `shape` each, concatenated along the first dimension in the format.
    Joined {
        ours: [String; 3],
        theirs: String,
        shape: Vec<usize>,
    },
    /// A tensor that the format does not have, which is zero here.
    Absent {
        ours: String,
        shape: Vec<usize>,
        /// Whether its values do not affect results: a key's bias adds the same number to all
        /// scores of a query, which the softmax removes.
        has_no_effect: bool,
    },
}

/// A format's names for the parts of a model.
pub(crate) struct Names {
    pub(crate) patches: &'static str,
    /// Prefix before the index of a block.
    pub(crate) blocks: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) decoder_embed: &'static str,
    /// Prefix before the index of a decoder block.
    pub(crate) decoder_blocks: &'static str,
    pub(crate) pred: &'static str,
    pub(crate) head: &'static str,
    block: BlockNames,
}

/// A format's names for the parts of a block.
struct BlockNames {
    norm1: &'static str,
    attention: &'static str,
    parts: [&'static str; 3],
    proj: &'static str,
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
}

const REFERENCE_BLOCK: BlockNames = BlockNames {
    norm1: "norm1",
    attention: "attn",
    parts: ["q", "k", "v"],
    proj: "attn.proj",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
};

impl Names {
    pub(crate) const fn of(format: Format, is_classifier: bool) -> Self {
        match (format, is_classifier) {
            (Format::MaeSt, _) => Self {
                patches: "patch_embed.proj",
                blocks: "blocks.",
                norm: "norm",
                decoder_embed: "decoder_embed",
                decoder_blocks: "decoder_blocks.",
                pred: "decoder_pred",
                head: "head",
                block: REFERENCE_BLOCK,
            },
            (Format::Pyslowfast, _) => Self {
                decoder_blocks: "pred_head.transforms.0.",
                pred: "pred_head.projections.0",
                head: "head.projection",
                ..Self::of(Format::MaeSt, is_classifier)
            },
            (Format::Videomae, false) => Self {
                patches: "encoder.patch_embed.proj",
                blocks: "encoder.blocks.",
                norm: "encoder.norm",
                decoder_embed: "encoder_to_decoder",
                decoder_blocks: "decoder.blocks.",
                pred: "decoder.head",
                head: "",
                block: REFERENCE_BLOCK,
            },
            (Format::Videomae, true) => Self {
                norm: "fc_norm",
                ..Self::of(Format::MaeSt, true)
            },
            (Format::Huggingface, _) => Self {
                patches: "videomae.embeddings.patch_embeddings.projection",
                blocks: "videomae.encoder.layer.",
                norm: if is_classifier {
                    "fc_norm"
                } else {
                    "videomae.layernorm"
                },
                decoder_embed: "encoder_to_decoder",
                decoder_blocks: "decoder.decoder_layers.",
                pred: "decoder.head",
                head: "classifier",
                block: BlockNames {
                    norm1: "layernorm_before",
                    attention: "attention.attention",
                    parts: ["query", "key", "value"],
                    proj: "attention.output.dense",
                    norm2: "layernorm_after",
                    fc1: "intermediate.dense",
                    fc2: "output.dense",
                },
            },
        }
    }
}

/// The rules for the weights of a model, in no particular order.
pub(crate) fn rules(format: Format, qkv_layout: QkvLayout, model: &Model) -> Vec<Rule> {
    match model {
        Model::Mae(config) => mae_rules(format, qkv_layout, config),
        Model::Classifier(config) => classifier_rules(format, qkv_layout, config),
    }
}

/// Builder of the rules.
struct Rules {
    rules: Vec<Rule>,
    qkv_layout: QkvLayout,
    names: Names,
}

fn classifier_rules(format: Format, qkv_layout: QkvLayout, config: &ClassifierConfig) -> Vec<Rule> {
    let ClassifierConfig {
        grid,
        encoder,
        positions,
        class_token,
        classes,
        ..
    } = *config;
    let mut rules = Rules {
        rules: Vec::new(),
        qkv_layout,
        names: Names::of(format, true),
    };
    rules.encoder(
        [encoder.width, 3, grid.tubelet, grid.patch, grid.patch],
        encoder,
    );
    rules.positions(
        "",
        "",
        positions,
        class_token,
        [grid.time(), grid.space()],
        encoder.width,
    );
    if class_token {
        rules.same("cls_token", &[1, 1, encoder.width]);
    }
    rules.layer("head", rules.names.head, &[classes, encoder.width]);
    rules.rules
}

fn mae_rules(format: Format, qkv_layout: QkvLayout, config: &MaeConfig) -> Vec<Rule> {
    let MaeConfig {
        grid,
        encoder,
        decoder,
        positions,
        class_token,
        ..
    } = *config;
    let mut rules = Rules {
        rules: Vec::new(),
        qkv_layout,
        names: Names::of(format, false),
    };
    rules.encoder(
        [encoder.width, 3, grid.tubelet, grid.patch, grid.patch],
        encoder,
    );
    let sides = [grid.time(), grid.space()];
    rules.positions("", "", positions, class_token, sides, encoder.width);
    if class_token {
        rules.same("cls_token", &[1, 1, encoder.width]);
        if config.conventions.decoder_class_token == DecoderClassToken::Own {
            rules.same("decoder_cls_token", &[1, 1, decoder.width]);
        }
    }
    let embed = rules.names.decoder_embed;
    match format {
        Format::MaeSt | Format::Pyslowfast => {
            rules.layer("decoder_embed", embed, &[decoder.width, encoder.width])
        }
        Format::Videomae | Format::Huggingface => {
            rules.renamed(
                "decoder_embed.weight".to_owned(),
                format!("{embed}.weight"),
                &[decoder.width, encoder.width],
            );
            let ours = "decoder_embed.bias".to_owned();
            rules.rules.push(Rule::Absent {
                ours,
                shape: vec![decoder.width],
                has_no_effect: false,
            });
        }
    }
    rules.same("mask_token", &[1, 1, decoder.width]);
    let decoder_positions = config.decoder_positions();
    // PySlowFast abbreviates the prefix if positions are separable.
    let prefix = if format == Format::Pyslowfast && decoder_positions == PositionKind::Separable {
        "dec_"
    } else {
        "decoder_"
    };
    rules.positions(
        "decoder_",
        prefix,
        decoder_positions,
        class_token,
        sides,
        decoder.width,
    );
    for at in 0..decoder.depth {
        rules.block(
            format!("decoder_blocks.{at}"),
            format!("{}{at}", rules.names.decoder_blocks),
            decoder.width,
        );
    }
    let norm = match format {
        Format::MaeSt => "decoder_norm".to_owned(),
        // The normalisation is the last of the transforms.
        Format::Pyslowfast => format!("{}{}", rules.names.decoder_blocks, decoder.depth),
        Format::Videomae | Format::Huggingface => "decoder.norm".to_owned(),
    };
    rules.layer("decoder_norm", &norm, &[decoder.width]);
    rules.layer(
        "decoder_pred",
        rules.names.pred,
        &[config.target_values(), decoder.width],
    );
    rules.rules
}

impl Rules {
    fn renamed(&mut self, ours: String, theirs: String, shape: &[usize]) {
        self.rules.push(Rule::Renamed {
            ours,
            theirs,
            shape: shape.to_vec(),
        });
    }

    fn same(&mut self, name: &str, shape: &[usize]) {
        self.renamed(name.to_owned(), name.to_owned(), shape);
    }

    /// Adds weight and bias of a layer.
    fn layer(&mut self, ours: &str, theirs: &str, weight: &[usize]) {
        self.renamed(format!("{ours}.weight"), format!("{theirs}.weight"), weight);
        self.renamed(
            format!("{ours}.bias"),
            format!("{theirs}.bias"),
            &weight[..1],
        );
    }

    fn encoder(
        &mut self,
        patches: [usize; 5],
        TransformerConfig { width, depth, .. }: TransformerConfig,
    ) {
        self.layer("patch_embed.proj", self.names.patches, &patches);
        for at in 0..depth {
            self.block(
                format!("blocks.{at}"),
                format!("{}{at}", self.names.blocks),
                width,
            );
        }
        self.layer("norm", self.names.norm, &[width]);
    }

    fn positions(
        &mut self,
        ours: &str,
        theirs: &str,
        kind: PositionKind,
        has_class: bool,
        [time, space]: [usize; 2],
        width: usize,
    ) {
        let mut table = |part: &str, tokens: usize| {
            self.renamed(
                format!("{ours}pos_embed{part}"),
                format!("{theirs}pos_embed{part}"),
                &[1, tokens, width],
            );
        };
        match kind {
            PositionKind::Separable => {
                table("_spatial", space);
                table("_temporal", time);
                if has_class {
                    table("_class", 1);
                }
            }
            PositionKind::Joint => table("", usize::from(has_class) + time * space),
            PositionKind::Sinusoid => {}
        }
    }

    fn block(&mut self, ours: String, theirs: String, width: usize) {
        let BlockNames {
            norm1,
            attention,
            parts,
            proj,
            norm2,
            fc1,
            fc2,
        } = self.names.block;
        self.layer(
            &format!("{ours}.norm1"),
            &format!("{theirs}.{norm1}"),
            &[width],
        );
        let attention = format!("{theirs}.{attention}");
        let mine = |what: &str| ["q", "k", "v"].map(|part| format!("{ours}.attn.{part}.{what}"));
        if self.qkv_layout.joined {
            let theirs = format!("{attention}.qkv.weight");
            self.rules.push(Rule::Joined {
                ours: mine("weight"),
                theirs,
                shape: vec![width, width],
            });
        } else {
            for (ours, part) in mine("weight").into_iter().zip(parts) {
                self.renamed(ours, format!("{attention}.{part}.weight"), &[width, width]);
            }
        }
        if self.qkv_layout
            == (QkvLayout {
                joined: true,
                biases: Biases::All,
            })
        {
            self.rules.push(Rule::Joined {
                ours: mine("bias"),
                theirs: format!("{attention}.qkv.bias"),
                shape: vec![width],
            });
        } else {
            for ((ours, part), short) in mine("bias").into_iter().zip(parts).zip(["q", "k", "v"]) {
                let beside = format!("{attention}.{part}.bias");
                match self.qkv_layout.biases {
                    Biases::All => self.renamed(ours, beside, &[width]),
                    Biases::NoKeys if short != "k" => self.renamed(ours, beside, &[width]),
                    Biases::Apart if short != "k" => {
                        self.renamed(ours, format!("{attention}.{short}_bias"), &[width])
                    }
                    _ => self.rules.push(Rule::Absent {
                        ours,
                        shape: vec![width],
                        has_no_effect: short == "k",
                    }),
                }
            }
        }
        self.layer(
            &format!("{ours}.attn.proj"),
            &format!("{theirs}.{proj}"),
            &[width, width],
        );
        self.layer(
            &format!("{ours}.norm2"),
            &format!("{theirs}.{norm2}"),
            &[width],
        );
        self.layer(
            &format!("{ours}.mlp.fc1"),
            &format!("{theirs}.{fc1}"),
            &[MLP_RATIO * width, width],
        );
        self.layer(
            &format!("{ours}.mlp.fc2"),
            &format!("{theirs}.{fc2}"),
            &[width, MLP_RATIO * width],
        );
    }
}

/// Takes tensors from a map, and records those that do not fit.
struct Taker {
    tensors: Tensors,
    problems: Vec<String>,
}

impl Taker {
    fn take(&mut self, name: &str, shape: &[usize]) -> Option<Tensor> {
        match self.tensors.remove(name) {
            Some(tensor) if tensor.dims() == shape => return Some(tensor),
            Some(tensor) => self
                .problems
                .push(format!("{name} is {:?}, not {shape:?}", tensor.dims())),
            None => self.problems.push(format!("{name} is missing")),
        }
        None
    }

    /// Reports unknown tensors, which are those that were not taken.
    fn finish(mut self) -> std::result::Result<(), Vec<String>> {
        self.problems.extend(
            self.tensors
                .into_keys()
                .map(|name| format!("{name} is not part of it")),
        );
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.problems)
        }
    }
}

/// Their tensors under our names, or all problems.
pub(crate) fn to_ours(
    rules: &[Rule],
    theirs: Tensors,
) -> Result<std::result::Result<Tensors, Vec<String>>> {
    let mut taker = Taker {
        tensors: theirs,
        problems: Vec::new(),
    };
    let mut ours_of = Tensors::new();
    for rule in rules {
        match rule {
            Rule::Renamed {
                ours,
                theirs,
                shape,
            } => {
                if let Some(tensor) = taker.take(theirs, shape) {
                    ours_of.insert(ours.clone(), tensor);
                }
            }
            Rule::Joined {
                ours,
                theirs,
                shape,
            } => {
                let mut joined = shape.clone();
                joined[0] *= ours.len();
                if let Some(tensor) = taker.take(theirs, &joined) {
                    for (name, part) in ours.iter().zip(tensor.chunk(ours.len(), 0)?) {
                        ours_of.insert(name.clone(), part.contiguous()?);
                    }
                }
            }
            Rule::Absent { ours, shape, .. } => {
                ours_of.insert(
                    ours.clone(),
                    Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?,
                );
            }
        }
    }
    Ok(taker.finish().map(|()| ours_of))
}

/// Our tensors under their names, or all problems.
pub(crate) fn to_theirs(
    rules: &[Rule],
    ours: Tensors,
) -> Result<std::result::Result<Tensors, Vec<String>>> {
    let mut taker = Taker {
        tensors: ours,
        problems: Vec::new(),
    };
    let mut theirs_of = Tensors::new();
    for rule in rules {
        match rule {
            Rule::Renamed {
                ours,
                theirs,
                shape,
            } => {
                if let Some(tensor) = taker.take(ours, shape) {
                    theirs_of.insert(theirs.clone(), tensor);
                }
            }
            Rule::Joined {
                ours,
                theirs,
                shape,
            } => {
                let parts: Vec<Tensor> = ours
                    .iter()
                    .filter_map(|name| taker.take(name, shape))
                    .collect();
                if parts.len() == ours.len() {
                    theirs_of.insert(theirs.clone(), Tensor::cat(&parts, 0)?);
                }
            }
            Rule::Absent {
                ours,
                shape,
                has_no_effect,
            } => {
                if let Some(tensor) = taker.take(ours, shape)
                    && !has_no_effect
                    && tensor
                        .flatten_all()?
                        .to_vec1::<f32>()?
                        .iter()
                        .any(|&value| value != 0.0)
                {
                    taker.problems.push(format!(
                        "{ours} is not zero, but the format does not have it"
                    ));
                }
            }
        }
    }
    Ok(taker.finish().map(|()| theirs_of))
}
