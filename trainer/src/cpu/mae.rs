//! The masked autoencoder's loss and gradients: the forward and backward of [`crate::model::Mae`],
//! by hand.
//!
//! Decoder rows are `[clips][class, visible tokens, predicted tokens]`. Attention does not depend
//! on the order of tokens, and each gets its position, so nothing is shuffled back and predicted
//! tokens are contiguous.

use super::block::{Scratch, Tokens, Weights, affine, affine_backward};
use super::element::Element;
use super::encoder::{Encoder, Pass, Positions, Values, class_backward, convert_from, set_class};
use super::gemm::add;
use super::gradients::Gradients;
use super::layout::MaeLayout;
use super::memory::resize;
use super::norm_gelu::{Statistics, layer_norm, layer_norm_backward};
use super::simd::vectorised;
use super::stack::{Blocks, BranchScales, Mode, Stack};
use super::team::for_each_chunk2;
use crate::model::{CHANNEL_EPSILON, MaeConfig, NormalisePer, PATCH_EPSILON};
use pipeline::sampling::mask::Masks;
use std::time::{Duration, Instant};

/// A batch of patches: the model's input and its target.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    /// The visible and the predicted tokens.
    pub masks: Masks<'a>,
    /// `[clips, visible, 3 * tubelet * patch * patch]`
    pub visible: Values<'a>,
    /// `[clips, predicted, values of the target]`
    pub target: Values<'a>,
}

/// Durations of the parts of a step.
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
    /// Clipping, and the update of weights and moments.
    pub optimizer: Duration,
}

/// Buffers of forward and backward, reused from step to step.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    config: MaeConfig,
    encoder: Encoder<T>,
    decoder: Stack<T>,
    scratch: Scratch<T>,
    embedded: Vec<f32>,
    encoded: Vec<T>,
    encoded_statistics: Vec<Statistics>,
    decoded: Vec<T>,
    decoded_statistics: Vec<Statistics>,
    predicted: Vec<f32>,
    rounded: Vec<T>,
    stream_gradient: Vec<f32>,
    part_gradient: Vec<f32>,
}

/// Tokens per task of the loss.
const TOKENS_AT_ONCE: usize = 32;

/// Sizes of a batch.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    clips: usize,
    visible: usize,
    predicted: usize,
    class: usize,
}

impl Sizes {
    /// Tokens of the decoder, whose result drops those without a loss. Where nothing is masked, the
    /// loss is over the visible ones.
    const fn decoder_tokens(self) -> Tokens {
        let dropped = self.class + if self.predicted == 0 { 0 } else { self.visible };
        Tokens {
            all: self.class + self.visible + self.predicted,
            dropped,
        }
    }

    /// Tokens per clip with a loss.
    const fn compared(self) -> usize {
        if self.predicted == 0 {
            self.visible
        } else {
            self.predicted
        }
    }
}

impl<T: Element> Workspace<T> {
    /// Creates the buffers of a model; with `recomputes`, only the inputs of blocks are saved.
    pub(crate) fn new(config: MaeConfig, recomputes: bool) -> Self {
        Self {
            encoder: Encoder::new(config.grid, config.encoder, config.class_token, recomputes),
            decoder: Stack::new(config.decoder.depth, recomputes),
            config,
            scratch: Scratch::default(),
            embedded: Vec::new(),
            encoded: Vec::new(),
            encoded_statistics: Vec::new(),
            decoded: Vec::new(),
            decoded_statistics: Vec::new(),
            predicted: Vec::new(),
            rounded: Vec::new(),
            stream_gradient: Vec::new(),
            part_gradient: Vec::new(),
        }
    }

    fn sizes(&self, masks: Masks<'_>) -> Sizes {
        let class = usize::from(self.config.class_token);
        Sizes {
            clips: masks.len(),
            visible: masks.visible(),
            predicted: masks.predicted(),
            class,
        }
    }

    /// Predictions of the predicted tokens, `[clips, predicted, values]`.
    pub(crate) fn predict(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        visible: Values<'_>,
    ) -> &[f32] {
        self.encode(layout, weights, masks, visible, Mode::Inference);
        self.decode(layout, weights, masks, Mode::Inference);
        &self.predicted
    }

    /// Computes the loss of a batch, and adds `share` times its gradients to `gradients`.
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
        self.encode(layout, weights, batch.masks, batch.visible, Mode::Training);
        let encoded = Instant::now();
        self.decode(layout, weights, batch.masks, Mode::Training);
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

    fn encode(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        visible: Values<'_>,
        mode: Mode,
    ) {
        let pass = Pass {
            layout: &layout.encoder,
            weights,
            masks,
            scales: BranchScales::default(),
        };
        self.encoder.forward(pass, visible, mode, &mut self.scratch);
        let rows = masks.len() * masks.visible();
        resize(&mut self.encoded, rows * self.config.encoder.width);
        resize(&mut self.encoded_statistics, rows);
        layer_norm(
            self.encoder.result(),
            weights.norm(&layout.encoder.norm),
            &mut self.encoded,
            &mut self.encoded_statistics,
        );
    }

    fn decode(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        mode: Mode,
    ) {
        let sizes = self.sizes(masks);
        let inputs = self.config.encoder.width;
        let width = self.config.decoder.width;
        let rows = sizes.clips * sizes.visible;
        resize(&mut self.embedded, rows * width);
        affine(
            &self.encoded,
            weights,
            &layout.decoder_embed,
            [rows, inputs, width],
            &mut self.embedded,
        );
        let stream = self.decoder.input();
        let tokens = sizes.decoder_tokens();
        resize(stream, sizes.clips * tokens.all * width);
        let positions = Positions {
            layout: &layout.decoder_positions,
            space: self.config.grid.space(),
            width,
        };
        let mask_token = &weights.exact[layout.mask_token.clone()];
        for ((clip, mask), stream) in masks
            .iter()
            .enumerate()
            .zip(stream.chunks_exact_mut(tokens.all * width))
        {
            let (class, tokens) = stream.split_at_mut(sizes.class * width);
            set_class(weights.exact, layout.decoder_class.as_ref(), class);
            let embedded = self.embedded[clip * sizes.visible * width..]
                .chunks_exact(width)
                .take(sizes.visible);
            let values = embedded
                .zip(mask.visible)
                .chain(std::iter::repeat(mask_token).zip(mask.predicted));
            for (out, (value, &token)) in tokens.chunks_exact_mut(width).zip(values) {
                positions.add(weights.exact, value, token, out);
            }
        }
        let scales = BranchScales::default();
        let blocks = Blocks {
            layouts: &layout.decoder_blocks,
            weights,
            tokens,
            scales,
        };
        self.decoder.forward(blocks, mode, &mut self.scratch);
        let rows = sizes.clips * sizes.compared();
        resize(&mut self.decoded, rows * width);
        resize(&mut self.decoded_statistics, rows);
        layer_norm(
            self.decoder.result(),
            weights.norm(&layout.decoder_norm),
            &mut self.decoded,
            &mut self.decoded_statistics,
        );
        let outputs = self.config.target_values();
        resize(&mut self.predicted, rows * outputs);
        affine(
            &self.decoded,
            weights,
            &layout.decoder_pred,
            [rows, width, outputs],
            &mut self.predicted,
        );
    }

    /// Computes the loss, and replaces the predictions by `share` times their gradient.
    fn compare(&mut self, batch: &Patches<'_>, share: f64) -> f64 {
        let values = self.config.target_values();
        let per = self.config.conventions.normalise_per;
        let per = self.config.normalise_target.then_some(per);
        let factor = (2.0 * share / self.predicted.len() as f64) as f32;
        let mut errors = vec![0.0; self.predicted.len() / values];
        for_each_chunk2(
            &mut self.predicted,
            TOKENS_AT_ONCE * values,
            &mut errors,
            TOKENS_AT_ONCE,
            |at, predicted, errors| {
                let mut target = vec![0f32; values];
                let predicted = predicted.chunks_exact_mut(values);
                for (token, (predicted, error)) in predicted.zip(errors).enumerate() {
                    let first = (at * TOKENS_AT_ONCE + token) * values;
                    convert_from(batch.target, first, &mut target);
                    if per == Some(NormalisePer::Channel) {
                        normalise_channels(&mut target);
                    }
                    let normalises = per == Some(NormalisePer::Patch);
                    *error = token_error(predicted, &mut target, normalises, factor);
                }
            },
        );
        errors.iter().sum::<f64>() / self.predicted.len() as f64
    }

    fn decode_backward(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        gradients: &mut Gradients<'_>,
    ) {
        let sizes = self.sizes(masks);
        let width = self.config.decoder.width;
        let rows = sizes.clips * sizes.compared();
        let tokens = sizes.decoder_tokens();
        let of_predicted = T::operand(&self.predicted, &mut self.rounded);
        resize(&mut self.part_gradient, rows * width);
        affine_backward(
            of_predicted,
            &self.decoded,
            weights,
            &layout.decoder_pred,
            rows,
            &mut self.part_gradient,
            gradients,
        );

        self.stream_gradient.clear();
        self.stream_gradient.resize(rows * width, 0.0);
        let (norm, of_norm) = (
            &weights.exact[layout.decoder_norm.affine.weight.clone()],
            &mut gradients.values[layout.decoder_norm.affine.both()],
        );
        let statistics = &self.decoded_statistics;
        layer_norm_backward(
            &self.part_gradient,
            self.decoder.result(),
            statistics,
            norm,
            &mut self.stream_gradient,
            of_norm,
        );
        let scales = BranchScales::default();
        let gradient = &mut self.stream_gradient;
        let blocks = Blocks {
            layouts: &layout.decoder_blocks,
            weights,
            tokens,
            scales,
        };
        self.decoder
            .backward(blocks, gradient, &mut self.scratch, gradients);

        let positions = Positions {
            layout: &layout.decoder_positions,
            space: self.config.grid.space(),
            width,
        };
        self.part_gradient.clear();
        for (mask, gradient) in masks
            .iter()
            .zip(self.stream_gradient.chunks_exact(tokens.all * width))
        {
            let (class, of_tokens) = gradient.split_at(sizes.class * width);
            class_backward(class, layout.decoder_class.as_ref(), gradients);
            for (gradient, &token) in of_tokens
                .chunks_exact(width)
                .zip(mask.visible.iter().chain(mask.predicted))
            {
                positions.backward(gradient, token, gradients);
            }
            let (of_visible, of_masked) = of_tokens.split_at(sizes.visible * width);
            self.part_gradient.extend_from_slice(of_visible);
            of_masked.chunks_exact(width).for_each(|gradient| {
                add(gradient, &mut gradients.values[layout.mask_token.clone()])
            });
        }
    }

    /// Continues the backward from the gradient of the embedded tokens of [`Self::decode`].
    fn encode_backward(
        &mut self,
        layout: &MaeLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        gradients: &mut Gradients<'_>,
    ) {
        let sizes = self.sizes(masks);
        let width = self.config.encoder.width;
        let rows = sizes.clips * sizes.visible;
        let of_embedded = T::operand(&self.part_gradient, &mut self.rounded);
        let of_encoded = &mut self.embedded;
        resize(of_encoded, rows * width);
        affine_backward(
            of_embedded,
            &self.encoded,
            weights,
            &layout.decoder_embed,
            rows,
            of_encoded,
            gradients,
        );

        let norm = &layout.encoder.norm.affine;
        let (norm, of_norm) = (
            &weights.exact[norm.weight.clone()],
            &mut gradients.values[norm.both()],
        );
        self.stream_gradient.clear();
        self.stream_gradient.resize(rows * width, 0.0);
        let statistics = &self.encoded_statistics;
        layer_norm_backward(
            of_encoded,
            self.encoder.result(),
            statistics,
            norm,
            &mut self.stream_gradient,
            of_norm,
        );
        let scales = BranchScales::default();
        let gradient = &mut self.stream_gradient;
        let pass = Pass {
            layout: &layout.encoder,
            weights,
            masks,
            scales,
        };
        self.encoder
            .backward(pass, gradient, &mut self.scratch, gradients);
    }
}

/// Normalises each channel of a patch, with values ordered channel last, by its own mean and
/// deviation: [`NormalisePer::Channel`].
fn normalise_channels(target: &mut [f32]) {
    let count = target.len() / 3;
    for channel in 0..3 {
        let mean = super::norm_gelu::sum(count, |at| target[3 * at + channel]) / count as f32;
        let from_mean = |at: usize| target[3 * at + channel] - mean;
        let variance =
            super::norm_gelu::sum(count, |at| from_mean(at) * from_mean(at)) / (count - 1) as f32;
        let scale = 1.0 / (variance.sqrt() + CHANNEL_EPSILON as f32);
        target
            .iter_mut()
            .skip(channel)
            .step_by(3)
            .for_each(|value| *value = (*value - mean) * scale);
    }
}

vectorised! {
    /// Returns the sum of the squared errors of one token, and replaces each prediction by `factor`
    /// times its error.
    fn token_error(
        predicted: &mut [f32],
        target: &mut [f32],
        normalises: bool,
        factor: f32
    ) -> f64 {
        if normalises {
            let count = target.len();
            let mean = super::norm_gelu::sum(count, |at| target[at]) / count as f32;
            let squares =
                super::norm_gelu::sum(count, |at| (target[at] - mean) * (target[at] - mean));
            let variance = squares / (count - 1) as f32;
            let scale = 1.0 / (variance + PATCH_EPSILON as f32).sqrt();
            target.iter_mut().for_each(|value| *value = (*value - mean) * scale);
        }
        let squares = super::norm_gelu::sum(predicted.len(), |at| {
            (predicted[at] - target[at]) * (predicted[at] - target[at])
        });
        for (predicted, &mut target) in predicted.iter_mut().zip(target) {
            *predicted = (*predicted - target) * factor;
        }
        f64::from(squares)
    }
}
