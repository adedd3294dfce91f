//! The encoder, from patches to the residual stream after the last block, and its backward.
//!
//! Rows are `[clips][class, visible tokens]`; the result does not have the cls token.

use super::block::{Scratch, Tokens, Weights, affine, weight_gradient};
use super::element::Element;
use super::gemm::add;
use super::gradients::Gradients;
use super::layout::{ClassLayout, EncoderLayout, PositionsLayout};
use super::memory::resize;
use super::norm_gelu::column_sums;
use super::simd::vectorised;
use super::stack::{Blocks, BranchScales, Mode, Stack};
use super::team::for_each_chunk;
use crate::model::TransformerConfig;
use half::bf16;
use pipeline::sampling::mask::Masks;
use pipeline::transform::{MEAN, STD};
use schemas::geometry::PatchGrid;

/// Values of a batch in the type that the loader produces.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Samples from 0 to 255, which are normalised here.
    U8(&'a [u8]),
    /// Normalised.
    F32(&'a [f32]),
    /// Normalised.
    Bf16(&'a [bf16]),
}

/// Buffers of an encoder, reused from step to step.
#[derive(Debug)]
pub(crate) struct Encoder<T> {
    grid: PatchGrid,
    width: usize,
    has_class: bool,
    stack: Stack<T>,
    patches: Vec<T>,
    embedded: Vec<f32>,
    /// The gradient of the embedded patches; `rounded` is the same in the type of the gemms.
    gradient: Vec<f32>,
    rounded: Vec<T>,
}

/// The encoder of a model, and the batch that it is run on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a, T> {
    pub(crate) layout: &'a EncoderLayout,
    pub(crate) weights: Weights<'a, T>,
    pub(crate) masks: Masks<'a>,
    pub(crate) scales: BranchScales<'a>,
}

impl<'a, T> Pass<'a, T> {
    /// The encoder's blocks, on `tokens` per clip.
    fn blocks(self, tokens: Tokens) -> Blocks<'a, T> {
        Blocks {
            layouts: &self.layout.blocks,
            weights: self.weights,
            tokens,
            scales: self.scales,
        }
    }
}

impl<T: Element> Encoder<T> {
    pub(crate) fn new(
        grid: PatchGrid,
        config: TransformerConfig,
        has_class: bool,
        recomputes: bool,
    ) -> Self {
        Self {
            grid,
            width: config.width,
            has_class,
            stack: Stack::new(config.depth, recomputes),
            patches: Vec::new(),
            embedded: Vec::new(),
            gradient: Vec::new(),
            rounded: Vec::new(),
        }
    }

    const fn tokens(&self, masks: Masks<'_>) -> Tokens {
        let class = self.has_class as usize;
        Tokens {
            all: class + masks.visible(),
            dropped: class,
        }
    }

    /// Computes [`Self::result`] from `visible`, `[clips, visible, values]`.
    pub(crate) fn forward(
        &mut self,
        pass: Pass<'_, T>,
        visible: Values<'_>,
        mode: Mode,
        scratch: &mut Scratch<T>,
    ) {
        let Pass {
            layout,
            weights,
            masks,
            ..
        } = pass;
        let width = self.width;
        let values = self.grid.tubelet_values();
        let rows = masks.len() * masks.visible();
        resize(&mut self.patches, rows * values);
        convert(visible, &mut self.patches);
        resize(&mut self.embedded, rows * width);
        affine(
            &self.patches,
            weights,
            &layout.patch_embed,
            [rows, values, width],
            &mut self.embedded,
        );
        let tokens = self.tokens(masks);
        let stream = self.stack.input();
        resize(stream, masks.len() * tokens.all * width);
        let positions = Positions {
            layout: &layout.positions,
            space: self.grid.space(),
            width,
        };
        let of_clip = masks.visible() * width;
        for_each_chunk(stream, tokens.all * width, |clip, stream| {
            let embedded = &self.embedded[clip * of_clip..][..of_clip];
            let (class, tokens) = stream.split_at_mut(tokens.dropped * width);
            set_class(weights.exact, layout.class.as_ref(), class);
            for ((out, embedded), &token) in tokens
                .chunks_exact_mut(width)
                .zip(embedded.chunks_exact(width))
                .zip(masks.get(clip).visible)
            {
                positions.add(weights.exact, embedded, token, out);
            }
        });
        self.stack.forward(pass.blocks(tokens), mode, scratch);
    }

    /// The residual stream after the last block, `[clips, visible, width]`.
    pub(crate) fn result(&self) -> &[f32] {
        self.stack.result()
    }

    /// Adds the gradients of the weights, from `gradient`, that of the result.
    pub(crate) fn backward(
        &mut self,
        pass: Pass<'_, T>,
        gradient: &mut Vec<f32>,
        scratch: &mut Scratch<T>,
        gradients: &mut Gradients<'_>,
    ) {
        let Pass { layout, masks, .. } = pass;
        let width = self.width;
        let tokens = self.tokens(masks);
        self.stack
            .backward(pass.blocks(tokens), gradient, scratch, gradients);
        let positions = Positions {
            layout: &layout.positions,
            space: self.grid.space(),
            width,
        };
        self.gradient.clear();
        for (mask, gradient) in masks.iter().zip(gradient.chunks_exact(tokens.all * width)) {
            let (class, of_tokens) = gradient.split_at(tokens.dropped * width);
            class_backward(class, layout.class.as_ref(), gradients);
            for (gradient, &token) in of_tokens.chunks_exact(width).zip(mask.visible) {
                positions.backward(gradient, token, gradients);
            }
            self.gradient.extend_from_slice(of_tokens);
        }
        let of_embedded = T::operand(&self.gradient, &mut self.rounded);
        column_sums(
            of_embedded,
            &mut gradients.values[layout.patch_embed.bias.clone()],
        );
        weight_gradient(
            of_embedded,
            &self.patches,
            &layout.patch_embed,
            masks.len() * masks.visible(),
            gradients,
        );
    }
}

/// Position embeddings of tokens.
pub(crate) struct Positions<'a> {
    pub(crate) layout: &'a PositionsLayout,
    pub(crate) space: usize,
    pub(crate) width: usize,
}

impl Positions<'_> {
    /// Computes `out = value + position of token`.
    pub(crate) fn add(&self, weights: &[f32], value: &[f32], token: u32, out: &mut [f32]) {
        let token = token as usize;
        let width = self.width;
        match self.layout {
            PositionsLayout::Separable { spatial, temporal } => {
                let spatial = &weights[spatial.start + token % self.space * width..][..width];
                let temporal = &weights[temporal.start + token / self.space * width..][..width];
                for (((out, &value), &spatial), &temporal) in
                    out.iter_mut().zip(value).zip(spatial).zip(temporal)
                {
                    *out = value + (spatial + temporal);
                }
            }
            PositionsLayout::Joint(table) => {
                let position = &weights[table.start + token * width..][..width];
                out.iter_mut()
                    .zip(value)
                    .zip(position)
                    .for_each(|((out, &value), &position)| *out = value + position);
            }
            PositionsLayout::Fixed(table) => {
                let position = &table[token * width..][..width];
                out.iter_mut()
                    .zip(value)
                    .zip(position)
                    .for_each(|((out, &value), &position)| *out = value + position);
            }
        }
    }

    /// Adds `gradient`, that of one token, to the gradients of its position.
    pub(crate) fn backward(&self, gradient: &[f32], token: u32, gradients: &mut Gradients<'_>) {
        let token = token as usize;
        let width = self.width;
        match self.layout {
            PositionsLayout::Separable { spatial, temporal } => {
                add(
                    gradient,
                    &mut gradients.values[spatial.start + token % self.space * width..][..width],
                );
                add(
                    gradient,
                    &mut gradients.values[temporal.start + token / self.space * width..][..width],
                );
            }
            PositionsLayout::Joint(table) => add(
                gradient,
                &mut gradients.values[table.start + token * width..][..width],
            ),
            PositionsLayout::Fixed(_) => {}
        }
    }
}

/// Computes `out = cls token + its position`, if there is a cls token.
pub(crate) fn set_class(weights: &[f32], class: Option<&ClassLayout>, out: &mut [f32]) {
    let Some(class) = class else { return };
    out.copy_from_slice(&weights[class.token.clone()]);
    if let Some(position) = &class.position {
        add(&weights[position.clone()], out);
    }
}

/// Backward of [`set_class`].
pub(crate) fn class_backward(
    gradient: &[f32],
    class: Option<&ClassLayout>,
    gradients: &mut Gradients<'_>,
) {
    let Some(class) = class else { return };
    add(gradient, &mut gradients.values[class.token.clone()]);
    if let Some(position) = &class.position {
        add(gradient, &mut gradients.values[position.clone()]);
    }
}

/// Values per task of [`convert`].
const CONVERTED_AT_ONCE: usize = 1 << 15;

/// Converts the values of a batch to normalised ones of type `T`.
fn convert<T: Element>(values: Values<'_>, out: &mut [T]) {
    for_each_chunk(out, CONVERTED_AT_ONCE, |at, out| {
        convert_from(values, at * CONVERTED_AT_ONCE, out)
    });
}

/// Converts the values from `first` on, as many as `out` has.
pub(crate) fn convert_from<T: Element>(values: Values<'_>, first: usize, out: &mut [T]) {
    let range = first..first + out.len();
    match values {
        Values::U8(values) => normalise(&values[range], out),
        Values::F32(values) => super::element::round(&values[range], out),
        Values::Bf16(values) => widen(&values[range], out),
    }
}

vectorised! {
    fn normalise<T: Element>(values: &[u8], out: &mut [T]) {
        let scale = 1.0 / (255.0 * STD);
        let offset = -MEAN / STD;
        for (out, &value) in out.iter_mut().zip(values) {
            *out = T::from_f32(f32::from(value) * scale + offset);
        }
    }
}

vectorised! {
    fn widen<T: Element>(values: &[bf16], out: &mut [T]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = T::from_f32(Element::to_f32(value));
        }
    }
}
