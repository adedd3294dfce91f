//! The place of each parameter among all values of a model.

use crate::model::{
    ClassifierConfig, MLP_RATIO, MaeConfig, PositionKind, TransformerConfig, sinusoid_table,
};
use schemas::geometry::PatchGrid;
use std::ops::Range;

/// A parameter.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its name in the reference implementation.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Its place among all values.
    pub(crate) range: Range<usize>,
}

impl Entry {
    /// Whether this is the weight of a linear layer.
    pub(crate) fn is_linear_weight(&self) -> bool {
        self.shape.len() > 1 && self.name.ends_with(".weight")
    }
}

/// A layer of weight and bias, which are adjacent.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    /// `[outputs, inputs]`, or `[width]` for a normalisation.
    pub(crate) weight: Range<usize>,
    /// `[outputs]`
    pub(crate) bias: Range<usize>,
}

impl Affine {
    /// The range of weight and bias.
    pub(crate) const fn both(&self) -> Range<usize> {
        self.weight.start..self.bias.end
    }
}

/// A layer normalisation.
#[derive(Debug, Clone)]
pub(crate) struct NormLayout {
    pub(crate) affine: Affine,
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

/// Parameters of a block.
#[derive(Debug)]
pub(crate) struct BlockLayout {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) norm1: NormLayout,
    /// Queries, keys and values as one layer of three times the width.
    pub(crate) qkv: Affine,
    pub(crate) proj: Affine,
    pub(crate) norm2: NormLayout,
    pub(crate) fc1: Affine,
    pub(crate) fc2: Affine,
}

/// Position embeddings of an encoder or decoder.
#[derive(Debug)]
pub(crate) enum PositionsLayout {
    /// One per place in a frame, and one per time step.
    Separable {
        spatial: Range<usize>,
        temporal: Range<usize>,
    },
    /// One per token.
    Joint(Range<usize>),
    /// One per token, `[tokens, width]`, without parameters.
    Fixed(Vec<f32>),
}

/// A cls token and its position.
#[derive(Debug)]
pub(crate) struct ClassLayout {
    pub(crate) token: Range<usize>,
    /// `None` where positions are fixed.
    pub(crate) position: Option<Range<usize>>,
}

/// Parameters of an encoder.
#[derive(Debug)]
pub(crate) struct EncoderLayout {
    pub(crate) patch_embed: Affine,
    pub(crate) positions: PositionsLayout,
    pub(crate) class: Option<ClassLayout>,
    pub(crate) blocks: Vec<BlockLayout>,
    pub(crate) norm: NormLayout,
}

/// Parameters of a classifier.
#[derive(Debug)]
pub(crate) struct ClassifierLayout {
    pub(crate) encoder: EncoderLayout,
    /// `None` for an encoder alone.
    pub(crate) head: Option<Affine>,
}

/// Parameters of a masked autoencoder.
#[derive(Debug)]
pub(crate) struct MaeLayout {
    pub(crate) encoder: EncoderLayout,
    pub(crate) decoder_embed: Affine,
    pub(crate) mask_token: Range<usize>,
    pub(crate) decoder_class: Option<ClassLayout>,
    pub(crate) decoder_positions: PositionsLayout,
    pub(crate) decoder_blocks: Vec<BlockLayout>,
    pub(crate) decoder_norm: NormLayout,
    pub(crate) decoder_pred: Affine,
}

/// Assigns places, one after the other.
#[derive(Default)]
struct Builder(Vec<Entry>);

impl Builder {
    fn get(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let start = self.0.last().map_or(0, |entry| entry.range.end);
        let range = start..start + shape.iter().product::<usize>();
        self.0.push(Entry {
            name,
            shape: shape.to_vec(),
            range: range.clone(),
        });
        range
    }

    fn affine(&mut self, name: &str, weight: &[usize]) -> Affine {
        Affine {
            weight: self.get(format!("{name}.weight"), weight),
            bias: self.get(format!("{name}.bias"), &weight[..1]),
        }
    }

    fn norm(&mut self, name: &str, width: usize, epsilon: f64) -> NormLayout {
        NormLayout {
            affine: self.affine(name, &[width]),
            epsilon: epsilon as f32,
        }
    }

    fn block(&mut self, name: &str, width: usize, heads: usize, norm_epsilon: f64) -> BlockLayout {
        let norm1 = self.norm(&format!("{name}.norm1"), width, norm_epsilon);
        let parts = ["q", "k", "v"];
        let mut joined = |what: &str, shape: &[usize]| {
            let ranges = parts.map(|part| self.get(format!("{name}.attn.{part}.{what}"), shape));
            ranges[0].start..ranges[2].end
        };
        let qkv = Affine {
            weight: joined("weight", &[width, width]),
            bias: joined("bias", &[width]),
        };
        BlockLayout {
            width,
            heads,
            norm1,
            qkv,
            proj: self.affine(&format!("{name}.attn.proj"), &[width, width]),
            norm2: self.norm(&format!("{name}.norm2"), width, norm_epsilon),
            fc1: self.affine(&format!("{name}.mlp.fc1"), &[MLP_RATIO * width, width]),
            fc2: self.affine(&format!("{name}.mlp.fc2"), &[width, MLP_RATIO * width]),
        }
    }

    fn positions(
        &mut self,
        prefix: &str,
        grid: PatchGrid,
        kind: PositionKind,
        has_class: bool,
        width: usize,
    ) -> (PositionsLayout, Option<ClassLayout>) {
        let classes = usize::from(has_class);
        let mut get = |part: &str, shape: &[usize]| self.get(format!("{prefix}{part}"), shape);
        let (positions, class) = match kind {
            PositionKind::Separable => {
                let spatial = get("pos_embed_spatial", &[1, grid.space(), width]);
                let temporal = get("pos_embed_temporal", &[1, grid.time(), width]);
                let class = has_class.then(|| get("pos_embed_class", &[1, 1, width]));
                (PositionsLayout::Separable { spatial, temporal }, class)
            }
            PositionKind::Joint => {
                let all = get("pos_embed", &[1, classes + grid.tokens(), width]);
                let first = all.start + classes * width;
                (
                    PositionsLayout::Joint(first..all.end),
                    has_class.then_some(all.start..first),
                )
            }
            PositionKind::Sinusoid => (
                PositionsLayout::Fixed(sinusoid_table(grid.tokens(), width)),
                None,
            ),
        };
        let class = has_class.then(|| ClassLayout {
            token: get("cls_token", &[1, 1, width]),
            position: class,
        });
        (positions, class)
    }

    fn encoder(
        &mut self,
        grid: PatchGrid,
        encoder: TransformerConfig,
        positions: PositionKind,
        has_class: bool,
        [norm_epsilon, last_epsilon]: [f64; 2],
    ) -> EncoderLayout {
        let TransformerConfig {
            width,
            depth,
            heads,
        } = encoder;
        let patch_embed = self.affine(
            "patch_embed.proj",
            &[width, 3, grid.tubelet, grid.patch, grid.patch],
        );
        let (positions, class) = self.positions("", grid, positions, has_class, width);
        let blocks = (0..depth)
            .map(|at| self.block(&format!("blocks.{at}"), width, heads, norm_epsilon))
            .collect();
        EncoderLayout {
            patch_embed,
            positions,
            class,
            blocks,
            norm: self.norm("norm", width, last_epsilon),
        }
    }
}

impl ClassifierLayout {
    /// The layout of a model, and its parameters in the order of their places.
    pub(crate) fn new(config: &ClassifierConfig) -> (Self, Vec<Entry>) {
        let mut builder = Builder::default();
        let epsilons = [
            config.conventions.norm_epsilon,
            config.conventions.head_norm_epsilon,
        ];
        let encoder = builder.encoder(
            config.grid,
            config.encoder,
            config.positions,
            config.class_token,
            epsilons,
        );
        let head = (config.classes > 0)
            .then(|| builder.affine("head", &[config.classes, config.encoder.width]));
        (Self { encoder, head }, builder.0)
    }
}

impl MaeLayout {
    /// The layout of a model, and its parameters in the order of their places.
    pub(crate) fn new(config: &MaeConfig) -> (Self, Vec<Entry>) {
        let MaeConfig {
            grid,
            decoder,
            class_token,
            conventions,
            ..
        } = *config;
        let mut builder = Builder::default();
        let encoder = builder.encoder(
            grid,
            config.encoder,
            config.positions,
            class_token,
            [conventions.norm_epsilon; 2],
        );
        let decoder_embed = builder.affine("decoder_embed", &[decoder.width, config.encoder.width]);
        let mask_token = builder.get("mask_token".to_owned(), &[1, 1, decoder.width]);
        let positions = config.decoder_positions();
        let (decoder_positions, decoder_class) =
            builder.positions("decoder_", grid, positions, class_token, decoder.width);
        let decoder_block = |at| {
            builder.block(
                &format!("decoder_blocks.{at}"),
                decoder.width,
                decoder.heads,
                conventions.norm_epsilon,
            )
        };
        let decoder_blocks = (0..decoder.depth).map(decoder_block).collect();
        let decoder_norm = builder.norm(
            "decoder_norm",
            decoder.width,
            conventions.decoder_norm_epsilon,
        );
        let decoder_pred = builder.affine("decoder_pred", &[config.target_values(), decoder.width]);
        let layout = Self {
            encoder,
            decoder_embed,
            mask_token,
            decoder_class,
            decoder_positions,
            decoder_blocks,
            decoder_norm,
            decoder_pred,
        };
        (layout, builder.0)
    }
}
