//! The masked autoencoder's loss and gradients: the forward and backward of [`crate::model::Mae`], by hand.
//!
//! Encoder rows are `[clips][class, visible tokens]`. Decoder rows are `[clips][class, visible tokens, predicted tokens]`: attention does not see the order of
//! tokens, positions are added to each, and so nothing is shuffled back, and what is predicted lies side by side.

use super::block::{self, Gradients, Kept, Scratch, Tokens, Weights, affine, affine_backward, weight_gradient};
use super::element::Element;
use super::layout::{BlockLayout, ClassLayout, MaeLayout, PositionsLayout};
use super::product::add;
use super::rows::{Statistics, column_sums, layer_norm, layer_norm_backward};
use super::simd::vectorised;
use crate::model::{MaeConfig, PATCH_EPSILON};
use half::bf16;
use pipeline::mask::Masks;
use pipeline::transform::{MEAN, STD};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Values of a batch as the loader gives them.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Samples, which are normalised here.
    U8(&'a [u8]),
    /// Normalised.
    F32(&'a [f32]),
    /// Normalised.
    Bf16(&'a [bf16]),
}

/// What a model sees of a batch, and what it is to predict: the loader's patches.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    /// Which tokens.
    pub masks: Masks<'a>,
    /// `[clips, visible, 3 * tubelet * patch * patch]`
    pub visible: Values<'a>,
    /// `[clips, predicted, values of the target]`
    pub target: Values<'a>,
}

/// How long the parts of a step took.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTimes {
    /// Embedding and encoder, forward.
    pub encoder: Duration,
    /// Decoder and loss, forward.
    pub decoder: Duration,
    /// Decoder, backward.
    pub decoder_backward: Duration,
    /// Encoder, backward.
    pub encoder_backward: Duration,
    /// Clipping, weights and moments.
    pub optimizer: Duration,
}

/// A stack of blocks, with what its forward keeps.
#[derive(Debug, Default)]
struct Stack<T> {
    /// The residual stream before each block, and after the last: `[rows, width]` each.
    streams: Vec<Vec<f32>>,
    kept: Vec<Kept<T>>,
}

impl<T: Element> Stack<T> {
    fn new(depth: usize, recomputes: bool) -> Self {
        let kept = if recomputes { 1 } else { depth };
        Self { streams: (0..=depth).map(|_| Vec::new()).collect(), kept: (0..kept).map(|_| Kept::default()).collect() }
    }

    /// The first stream to the last, of which each clip's first `left_out` tokens are left out.
    fn forward(&mut self, blocks: &[BlockLayout], weights: Weights<'_, T>, tokens: Tokens, scratch: &mut Scratch<T>) {
        let last = self.kept.len() - 1;
        for (at, block) in blocks.iter().enumerate() {
            let [x, to] = self.streams.get_disjoint_mut([at, at + 1]).expect("a stream before and after each block");
            let tokens = of_block(tokens, at, blocks.len());
            to.resize(x.len() / tokens.all * (tokens.all - tokens.left_out), 0.0);
            block::forward(block, weights, tokens, x, Some(to), &mut self.kept[at.min(last)], scratch);
        }
    }

    /// From `gradient`, that of the last stream, that of the first, in place.
    fn backward(
        &mut self,
        blocks: &[BlockLayout],
        weights: Weights<'_, T>,
        tokens: Tokens,
        gradient: &mut Vec<f32>,
        scratch: &mut Scratch<T>,
        gradients: &mut Gradients<'_>,
    ) {
        let recomputes = self.kept.len() < blocks.len();
        for (at, block) in blocks.iter().enumerate().rev() {
            let (x, kept) = (&self.streams[at], &mut self.kept[if recomputes { 0 } else { at }]);
            let tokens = of_block(tokens, at, blocks.len());
            if recomputes && at + 1 < blocks.len() {
                block::forward(block, weights, tokens, x, None, kept, scratch);
            }
            block::backward(block, weights, tokens, x, gradient, kept, scratch, gradients);
        }
    }

    fn result(&self) -> &[f32] {
        self.streams.last().expect("the first stream at least")
    }
}

/// All but the last block make all tokens.
const fn of_block(tokens: Tokens, at: usize, blocks: usize) -> Tokens {
    if at + 1 == blocks { tokens } else { Tokens { left_out: 0, ..tokens } }
}

/// Memory of forward and backward, used again from step to step.
#[derive(Debug)]
pub(crate) struct Machine<T> {
    config: MaeConfig,
    encoder: Stack<T>,
    decoder: Stack<T>,
    scratch: Scratch<T>,
    patches: Vec<T>,
    embedded: Vec<f32>,
    encoded: Vec<T>,
    encoded_statistics: Vec<Statistics>,
    decoded: Vec<T>,
    decoded_statistics: Vec<Statistics>,
    target: Vec<f32>,
    predicted: Vec<f32>,
    rounded: Vec<T>,
    stream_gradient: Vec<f32>,
    part_gradient: Vec<f32>,
}

/// Sizes of a batch.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    clips: usize,
    visible: usize,
    predicted: usize,
    class: usize,
}

impl Sizes {
    /// Of the encoder's result the cls token is left out.
    const fn encoder_tokens(self) -> Tokens {
        Tokens { all: self.class + self.visible, left_out: self.class }
    }

    /// Of the decoder's result those tokens are left out that the loss does not compare. Where nothing is masked it compares the visible ones.
    const fn decoder_tokens(self) -> Tokens {
        let left_out = self.class + if self.predicted == 0 { 0 } else { self.visible };
        Tokens { all: self.class + self.visible + self.predicted, left_out }
    }

    const fn compared(self) -> usize {
        if self.predicted == 0 { self.visible } else { self.predicted }
    }
}

impl<T: Element> Machine<T> {
    /// For a model; `recomputes` keeps the inputs of blocks only.
    pub(crate) fn new(config: MaeConfig, recomputes: bool) -> Self {
        Self {
            encoder: Stack::new(config.encoder.depth, recomputes),
            decoder: Stack::new(config.decoder.depth, recomputes),
            config,
            scratch: Scratch::default(),
            patches: Vec::new(),
            embedded: Vec::new(),
            encoded: Vec::new(),
            encoded_statistics: Vec::new(),
            decoded: Vec::new(),
            decoded_statistics: Vec::new(),
            target: Vec::new(),
            predicted: Vec::new(),
            rounded: Vec::new(),
            stream_gradient: Vec::new(),
            part_gradient: Vec::new(),
        }
    }

    fn sizes(&self, masks: Masks<'_>) -> Sizes {
        let class = usize::from(self.config.class_token);
        Sizes { clips: masks.len(), visible: masks.visible(), predicted: masks.predicted(), class }
    }

    /// Predictions of the predicted tokens, `[clips, predicted, values]`.
    pub(crate) fn predict(&mut self, layout: &MaeLayout, weights: Weights<'_, T>, masks: Masks<'_>, visible: Values<'_>) -> &[f32] {
        self.encode(layout, weights, masks, visible);
        self.decode(layout, weights, masks);
        &self.predicted
    }

    /// The loss of a batch; adds `share` times its gradients to `gradients`.
    pub(crate) fn step(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        batch: &Patches<'_>,
        share: f64,
        gradients: &mut Gradients<'_>,
        times: &mut StepTimes,
    ) -> f64 {
        let began = Instant::now();
        self.encode(layout, weights, batch.masks, batch.visible);
        let encoded = Instant::now();
        self.decode(layout, weights, batch.masks);
        let loss = self.compare(batch, share);
        let decoded = Instant::now();
        if !loss.is_finite() {
            return loss;
        }
        self.decode_backward(layout, weights, batch.masks, gradients);
        let between = Instant::now();
        self.encode_backward(layout, weights, batch.masks, gradients);
        times.encoder += encoded - began;
        times.decoder += decoded - encoded;
        times.decoder_backward += between - decoded;
        times.encoder_backward += between.elapsed();
        loss
    }

    fn encode(&mut self, layout: &MaeLayout, weights: Weights<'_, T>, masks: Masks<'_>, visible: Values<'_>) {
        let (sizes, width, values) = (self.sizes(masks), self.config.encoder.width, self.config.grid.tubelet_values());
        let rows = sizes.clips * sizes.visible;
        self.patches.resize(rows * values, T::default());
        convert(visible, &mut self.patches);
        self.embedded.resize(rows * width, 0.0);
        affine(&self.patches, weights, &layout.patch_embed, [rows, values, width], &mut self.embedded);
        let stream = &mut self.encoder.streams[0];
        let tokens = sizes.encoder_tokens();
        stream.resize(sizes.clips * tokens.all * width, 0.0);
        let positions = Positions { layout: &layout.positions, space: self.config.grid.space(), width };
        for ((clip, mask), stream) in masks.iter().enumerate().zip(stream.chunks_exact_mut(tokens.all * width)) {
            let (class, tokens) = stream.split_at_mut(sizes.class * width);
            set_class(weights.exact, layout.class.as_ref(), class);
            let embedded = self.embedded[clip * sizes.visible * width..].chunks_exact(width);
            for ((out, embedded), &token) in tokens.chunks_exact_mut(width).zip(embedded).zip(mask.visible) {
                positions.add(weights.exact, embedded, token, out);
            }
        }
        self.encoder.forward(&layout.blocks, weights, tokens, &mut self.scratch);
        self.encoded.resize(rows * width, T::default());
        self.encoded_statistics.resize(rows, Statistics::default());
        layer_norm(self.encoder.result(), weights.norm(&layout.norm), &mut self.encoded, &mut self.encoded_statistics);
    }

    fn decode(&mut self, layout: &MaeLayout, weights: Weights<'_, T>, masks: Masks<'_>) {
        let (sizes, inputs, width) = (self.sizes(masks), self.config.encoder.width, self.config.decoder.width);
        let rows = sizes.clips * sizes.visible;
        self.embedded.resize(rows * width, 0.0);
        affine(&self.encoded, weights, &layout.decoder_embed, [rows, inputs, width], &mut self.embedded);
        let stream = &mut self.decoder.streams[0];
        let tokens = sizes.decoder_tokens();
        stream.resize(sizes.clips * tokens.all * width, 0.0);
        let positions = Positions { layout: &layout.decoder_positions, space: self.config.grid.space(), width };
        let mask_token = &weights.exact[layout.mask_token.clone()];
        for ((clip, mask), stream) in masks.iter().enumerate().zip(stream.chunks_exact_mut(tokens.all * width)) {
            let (class, tokens) = stream.split_at_mut(sizes.class * width);
            set_class(weights.exact, layout.decoder_class.as_ref(), class);
            let embedded = self.embedded[clip * sizes.visible * width..].chunks_exact(width).take(sizes.visible);
            let values = embedded.zip(mask.visible).chain(std::iter::repeat(mask_token).zip(mask.predicted));
            for (out, (value, &token)) in tokens.chunks_exact_mut(width).zip(values) {
                positions.add(weights.exact, value, token, out);
            }
        }
        self.decoder.forward(&layout.decoder_blocks, weights, tokens, &mut self.scratch);
        let rows = sizes.clips * sizes.compared();
        self.decoded.resize(rows * width, T::default());
        self.decoded_statistics.resize(rows, Statistics::default());
        layer_norm(self.decoder.result(), weights.norm(&layout.decoder_norm), &mut self.decoded, &mut self.decoded_statistics);
        let outputs = self.config.target_values();
        self.predicted.resize(rows * outputs, 0.0);
        affine(&self.decoded, weights, &layout.decoder_pred, [rows, width, outputs], &mut self.predicted);
    }

    /// The loss; `share` times its gradient takes the predictions' place.
    fn compare(&mut self, batch: &Patches<'_>, share: f64) -> f64 {
        let (values, normalises) = (self.config.target_values(), self.config.normalise_target);
        self.target.resize(self.predicted.len(), 0.0);
        convert(batch.target, &mut self.target);
        let factor = (2.0 * share / self.predicted.len() as f64) as f32;
        let tokens = self.predicted.par_chunks_exact_mut(values).zip(self.target.par_chunks_exact_mut(values));
        let errors: Vec<f64> = tokens.map(|(predicted, target)| token_error(predicted, target, normalises, factor)).collect();
        errors.iter().sum::<f64>() / self.predicted.len() as f64
    }

    fn decode_backward(&mut self, layout: &MaeLayout, weights: Weights<'_, T>, masks: Masks<'_>, gradients: &mut Gradients<'_>) {
        let (sizes, width) = (self.sizes(masks), self.config.decoder.width);
        let (rows, tokens) = (sizes.clips * sizes.compared(), sizes.decoder_tokens());
        let of_predicted = T::operand(&self.predicted, &mut self.rounded);
        self.part_gradient.resize(rows * width, 0.0);
        affine_backward(of_predicted, &self.decoded, weights, &layout.decoder_pred, rows, &mut self.part_gradient, gradients);

        self.stream_gradient.clear();
        self.stream_gradient.resize(rows * width, 0.0);
        let (norm, of_norm) = (&weights.exact[layout.decoder_norm.weight.clone()], &mut gradients.values[layout.decoder_norm.both()]);
        let statistics = &self.decoded_statistics;
        layer_norm_backward(&self.part_gradient, self.decoder.result(), statistics, norm, &mut self.stream_gradient, of_norm);
        self.decoder.backward(&layout.decoder_blocks, weights, tokens, &mut self.stream_gradient, &mut self.scratch, gradients);

        let positions = Positions { layout: &layout.decoder_positions, space: self.config.grid.space(), width };
        self.part_gradient.clear();
        for (mask, gradient) in masks.iter().zip(self.stream_gradient.chunks_exact(tokens.all * width)) {
            let (class, of_tokens) = gradient.split_at(sizes.class * width);
            class_backward(class, layout.decoder_class.as_ref(), gradients);
            for (gradient, &token) in of_tokens.chunks_exact(width).zip(mask.visible.iter().chain(mask.predicted)) {
                positions.backward(gradient, token, gradients);
            }
            let (of_visible, of_masked) = of_tokens.split_at(sizes.visible * width);
            self.part_gradient.extend_from_slice(of_visible);
            of_masked.chunks_exact(width).for_each(|gradient| add(gradient, &mut gradients.values[layout.mask_token.clone()]));
        }
    }

    /// Goes on from the gradient of [`Self::decode`]'s embedded tokens.
    fn encode_backward(&mut self, layout: &MaeLayout, weights: Weights<'_, T>, masks: Masks<'_>, gradients: &mut Gradients<'_>) {
        let (sizes, width) = (self.sizes(masks), self.config.encoder.width);
        let (rows, tokens) = (sizes.clips * sizes.visible, sizes.encoder_tokens());
        let of_embedded = T::operand(&self.part_gradient, &mut self.rounded);
        let of_encoded = &mut self.embedded;
        of_encoded.resize(rows * width, 0.0);
        affine_backward(of_embedded, &self.encoded, weights, &layout.decoder_embed, rows, of_encoded, gradients);

        let (norm, of_norm) = (&weights.exact[layout.norm.weight.clone()], &mut gradients.values[layout.norm.both()]);
        self.stream_gradient.clear();
        self.stream_gradient.resize(rows * width, 0.0);
        let statistics = &self.encoded_statistics;
        layer_norm_backward(of_encoded, self.encoder.result(), statistics, norm, &mut self.stream_gradient, of_norm);
        self.encoder.backward(&layout.blocks, weights, tokens, &mut self.stream_gradient, &mut self.scratch, gradients);

        let positions = Positions { layout: &layout.positions, space: self.config.grid.space(), width };
        self.part_gradient.clear();
        for (mask, gradient) in masks.iter().zip(self.stream_gradient.chunks_exact(tokens.all * width)) {
            let (class, of_tokens) = gradient.split_at(sizes.class * width);
            class_backward(class, layout.class.as_ref(), gradients);
            for (gradient, &token) in of_tokens.chunks_exact(width).zip(mask.visible) {
                positions.backward(gradient, token, gradients);
            }
            self.part_gradient.extend_from_slice(of_tokens);
        }
        let of_embedded = T::operand(&self.part_gradient, &mut self.rounded);
        column_sums(of_embedded, &mut gradients.values[layout.patch_embed.bias.clone()]);
        weight_gradient(of_embedded, &self.patches, &layout.patch_embed, rows, gradients);
    }
}

/// Learned positions of tokens.
struct Positions<'a> {
    layout: &'a PositionsLayout,
    space: usize,
    width: usize,
}

impl Positions<'_> {
    /// `out = value + position of token`
    fn add(&self, weights: &[f32], value: &[f32], token: u32, out: &mut [f32]) {
        let (token, width) = (token as usize, self.width);
        match self.layout {
            PositionsLayout::Separable { spatial, temporal } => {
                let spatial = &weights[spatial.start + token % self.space * width..][..width];
                let temporal = &weights[temporal.start + token / self.space * width..][..width];
                for (((out, &value), &spatial), &temporal) in out.iter_mut().zip(value).zip(spatial).zip(temporal) {
                    *out = value + (spatial + temporal);
                }
            }
            PositionsLayout::Joint(table) => {
                let position = &weights[table.start + token * width..][..width];
                out.iter_mut().zip(value).zip(position).for_each(|((out, &value), &position)| *out = value + position);
            }
        }
    }

    fn backward(&self, gradient: &[f32], token: u32, gradients: &mut Gradients<'_>) {
        let (token, width) = (token as usize, self.width);
        match self.layout {
            PositionsLayout::Separable { spatial, temporal } => {
                add(gradient, &mut gradients.values[spatial.start + token % self.space * width..][..width]);
                add(gradient, &mut gradients.values[temporal.start + token / self.space * width..][..width]);
            }
            PositionsLayout::Joint(table) => add(gradient, &mut gradients.values[table.start + token * width..][..width]),
        }
    }
}

/// `out = cls token + its position`, where there is one.
fn set_class(weights: &[f32], class: Option<&ClassLayout>, out: &mut [f32]) {
    let Some(class) = class else { return };
    let (token, position) = (&weights[class.token.clone()], &weights[class.position.clone()]);
    out.iter_mut().zip(token).zip(position).for_each(|((out, &token), &position)| *out = token + position);
}

fn class_backward(gradient: &[f32], class: Option<&ClassLayout>, gradients: &mut Gradients<'_>) {
    let Some(class) = class else { return };
    add(gradient, &mut gradients.values[class.token.clone()]);
    add(gradient, &mut gradients.values[class.position.clone()]);
}

/// Values of one task of [`convert`].
const CONVERTED_AT_ONCE: usize = 1 << 15;

/// A batch's values as normalised ones.
fn convert<T: Element>(values: Values<'_>, out: &mut [T]) {
    let chunks = out.par_chunks_mut(CONVERTED_AT_ONCE);
    match values {
        Values::U8(values) => chunks.zip(values.par_chunks(CONVERTED_AT_ONCE)).for_each(|(out, values)| normalise(values, out)),
        Values::F32(values) => {
            chunks.zip(values.par_chunks(CONVERTED_AT_ONCE)).for_each(|(out, values)| super::element::round(values, out))
        }
        Values::Bf16(values) => chunks.zip(values.par_chunks(CONVERTED_AT_ONCE)).for_each(|(out, values)| widen(values, out)),
    }
}

vectorised! {
    fn normalise<T: Element>(values: &[u8], out: &mut [T]) {
        let (scale, offset) = (1.0 / (255.0 * STD), -MEAN / STD);
        out.iter_mut().zip(values).for_each(|(out, &value)| *out = T::from_f32(f32::from(value) * scale + offset));
    }
}

vectorised! {
    fn widen<T: Element>(values: &[bf16], out: &mut [T]) {
        out.iter_mut().zip(values).for_each(|(out, &value)| *out = T::from_f32(Element::to_f32(value)));
    }
}

vectorised! {
    /// Sum of the squared errors of one token, and `factor` times each error in place of the prediction.
    fn token_error(predicted: &mut [f32], target: &mut [f32], normalises: bool, factor: f32) -> f64 {
        if normalises {
            let count = target.len();
            let mean = super::rows::sum(count, |at| target[at]) / count as f32;
            let variance = super::rows::sum(count, |at| (target[at] - mean) * (target[at] - mean)) / (count - 1) as f32;
            let scale = 1.0 / (variance + PATCH_EPSILON as f32).sqrt();
            target.iter_mut().for_each(|value| *value = (*value - mean) * scale);
        }
        let squares = super::rows::sum(predicted.len(), |at| (predicted[at] - target[at]) * (predicted[at] - target[at]));
        predicted.iter_mut().zip(target).for_each(|(predicted, &mut target)| *predicted = (*predicted - target) * factor);
        f64::from(squares)
    }
}
