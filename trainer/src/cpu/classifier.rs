//! The classifier's logits, loss and gradients: the forward and backward of
//! [`crate::model::Classifier`], by hand.

use super::block::{Scratch, Weights, affine, affine_backward};
use super::element::Element;
use super::encoder::{Encoder, Pass, Values};
use super::gradients::Gradients;
use super::layout::ClassifierLayout;
use super::memory::resize;
use super::norm_gelu::{Statistics, layer_norm, layer_norm_backward};
use super::stack::{BranchScales, Mode};
use super::team::for_each_chunk;
use crate::model::ClassifierConfig;
use pipeline::sampling::mask::Masks;

/// A batch of whole clips with soft targets.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Masks under which all tokens are visible.
    pub masks: Masks<'a>,
    /// `[clips, tokens, 3 * tubelet * patch * patch]`
    pub pixels: Values<'a>,
    /// `[clips, classes]`: target distributions over the classes.
    pub targets: &'a [f32],
    /// Factors of the residual branches.
    pub branches: BranchScales<'a>,
    /// Factors for dropout of the head's input, `[clips, width]`; empty without dropout.
    pub dropout: &'a [f32],
}

/// Outputs of a classifier.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// `[clips, width]`: the mean of the tokens without the cls token, after the encoder's last
    /// layer normalisation: the head's input.
    pub features: &'a [f32],
    /// `[clips, tokens, width]`: each token after the same layer normalisation; empty if not
    /// requested.
    pub tokens: &'a [f32],
    /// `[clips, classes]`; empty for an encoder alone.
    pub logits: &'a [f32],
}

/// Buffers of forward and backward, reused from step to step.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    config: ClassifierConfig,
    encoder: Encoder<T>,
    scratch: Scratch<T>,
    pooled: Vec<f32>,
    statistics: Vec<Statistics>,
    features: Vec<f32>,
    head_input: Vec<T>,
    tokens: Vec<f32>,
    token_statistics: Vec<Statistics>,
    logits: Vec<f32>,
    rounded: Vec<T>,
    features_gradient: Vec<f32>,
    pooled_gradient: Vec<f32>,
    stream_gradient: Vec<f32>,
}

impl<T: Element> Workspace<T> {
    /// Creates the buffers of a model; with `recomputes`, only the inputs of blocks are saved.
    pub(crate) fn new(config: ClassifierConfig, recomputes: bool) -> Self {
        Self {
            encoder: Encoder::new(config.grid, config.encoder, config.class_token, recomputes),
            config,
            scratch: Scratch::default(),
            pooled: Vec::new(),
            statistics: Vec::new(),
            features: Vec::new(),
            head_input: Vec::new(),
            tokens: Vec::new(),
            token_statistics: Vec::new(),
            logits: Vec::new(),
            rounded: Vec::new(),
            features_gradient: Vec::new(),
            pooled_gradient: Vec::new(),
            stream_gradient: Vec::new(),
        }
    }

    /// Outputs for `pixels`; those of each token only if `tokens` is set.
    pub(crate) fn infer(
        &mut self,
        layout: &ClassifierLayout,
        weights: Weights<'_, T>,
        masks: Masks<'_>,
        pixels: Values<'_>,
        tokens: bool,
    ) -> Encoded<'_> {
        let batch = Labelled {
            masks,
            pixels,
            targets: &[],
            branches: BranchScales::default(),
            dropout: &[],
        };
        self.forward(layout, weights, &batch, Mode::Inference);
        let rows = if tokens {
            masks.len() * masks.tokens()
        } else {
            0
        };
        resize(&mut self.tokens, rows * self.config.encoder.width);
        resize(&mut self.token_statistics, rows);
        if tokens {
            layer_norm(
                self.encoder.result(),
                weights.norm(&layout.encoder.norm),
                &mut self.tokens,
                &mut self.token_statistics,
            );
        }
        Encoded {
            features: &self.features,
            tokens: &self.tokens,
            logits: &self.logits,
        }
    }

    /// Computes the loss of a batch, and adds `share` times its gradients to `gradients`.
    pub(crate) fn step(
        &mut self,
        layout: &ClassifierLayout,
        weights: Weights<'_, T>,
        batch: &Labelled<'_>,
        share: f64,
        gradients: &mut Gradients<'_>,
    ) -> f64 {
        self.forward(layout, weights, batch, Mode::Training);
        let loss = self.compare(batch.targets, share);
        if loss.is_finite() {
            self.backward(layout, weights, batch, gradients);
        }
        loss
    }

    fn forward(
        &mut self,
        layout: &ClassifierLayout,
        weights: Weights<'_, T>,
        batch: &Labelled<'_>,
        mode: Mode,
    ) {
        let Labelled {
            masks,
            pixels,
            branches: scales,
            dropout,
            ..
        } = *batch;
        assert_eq!(
            masks.visible(),
            self.config.grid.tokens(),
            "a classifier takes all tokens"
        );
        let clips = masks.len();
        let width = self.config.encoder.width;
        let pass = Pass {
            layout: &layout.encoder,
            weights,
            masks,
            scales,
        };
        self.encoder.forward(pass, pixels, mode, &mut self.scratch);
        resize(&mut self.pooled, clips * width);
        let of_clip = masks.visible() * width;
        let stream = self.encoder.result();
        for_each_chunk(&mut self.pooled, width, |clip, pooled| {
            mean_row(&stream[clip * of_clip..][..of_clip], pooled);
        });
        resize(&mut self.features, clips * width);
        resize(&mut self.statistics, clips);
        layer_norm(
            &self.pooled,
            weights.norm(&layout.encoder.norm),
            &mut self.features,
            &mut self.statistics,
        );
        let Some(head) = &layout.head else { return };
        self.head_input.clear();
        if dropout.is_empty() {
            self.head_input
                .extend(self.features.iter().map(|&value| T::from_f32(value)));
        } else {
            self.head_input.extend(
                self.features
                    .iter()
                    .zip(dropout)
                    .map(|(&value, &scale)| T::from_f32(value * scale)),
            );
        }
        resize(&mut self.logits, clips * self.config.classes);
        affine(
            &self.head_input,
            weights,
            head,
            [clips, width, self.config.classes],
            &mut self.logits,
        );
    }

    /// Computes the cross entropy, averaged over the clips, and replaces the logits by `share`
    /// times their gradient.
    fn compare(&mut self, targets: &[f32], share: f64) -> f64 {
        let classes = self.config.classes;
        let clips = self.logits.len() / classes;
        let mut loss = 0.0;
        for (logits, targets) in self
            .logits
            .chunks_exact_mut(classes)
            .zip(targets.chunks_exact(classes))
        {
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits
                .iter()
                .map(|&logit| f64::from(logit - greatest).exp())
                .sum();
            let log_sum = sum.ln() + f64::from(greatest);
            loss -= logits
                .iter()
                .zip(targets)
                .map(|(&logit, &target)| f64::from(target) * (f64::from(logit) - log_sum))
                .sum::<f64>();
            let of_targets: f64 = targets.iter().copied().map(f64::from).sum();
            for (logit, &target) in logits.iter_mut().zip(targets) {
                let probability = (f64::from(*logit) - log_sum).exp();
                *logit =
                    ((probability * of_targets - f64::from(target)) * share / clips as f64) as f32;
            }
        }
        loss / clips as f64
    }

    fn backward(
        &mut self,
        layout: &ClassifierLayout,
        weights: Weights<'_, T>,
        batch: &Labelled<'_>,
        gradients: &mut Gradients<'_>,
    ) {
        let masks = batch.masks;
        let width = self.config.encoder.width;
        let head = layout
            .head
            .as_ref()
            .expect("only a classifier with a head has a loss");
        let of_logits = T::operand(&self.logits, &mut self.rounded);
        resize(&mut self.features_gradient, masks.len() * width);
        affine_backward(
            of_logits,
            &self.head_input,
            weights,
            head,
            masks.len(),
            &mut self.features_gradient,
            gradients,
        );
        self.features_gradient
            .iter_mut()
            .zip(batch.dropout)
            .for_each(|(gradient, &scale)| *gradient *= scale);

        let norm = &layout.encoder.norm.affine;
        let weight = &weights.exact[norm.weight.clone()];
        let of_norm = &mut gradients.values[norm.both()];
        self.pooled_gradient.clear();
        resize(&mut self.pooled_gradient, masks.len() * width);
        layer_norm_backward(
            &self.features_gradient,
            &self.pooled,
            &self.statistics,
            weight,
            &mut self.pooled_gradient,
            of_norm,
        );

        let tokens = masks.visible();
        resize(&mut self.stream_gradient, masks.len() * tokens * width);
        let pooled = &self.pooled_gradient;
        for_each_chunk(&mut self.stream_gradient, tokens * width, |clip, stream| {
            let pooled = &pooled[clip * width..][..width];
            for token in stream.chunks_exact_mut(width) {
                token
                    .iter_mut()
                    .zip(pooled)
                    .for_each(|(token, &pooled)| *token = pooled / tokens as f32);
            }
        });
        let gradient = &mut self.stream_gradient;
        let pass = Pass {
            layout: &layout.encoder,
            weights,
            masks,
            scales: batch.branches,
        };
        self.encoder
            .backward(pass, gradient, &mut self.scratch, gradients);
    }
}

/// Computes the mean of the rows of `x`, each as long as `mean`.
fn mean_row(x: &[f32], mean: &mut [f32]) {
    let count = x.len() / mean.len();
    mean.fill(0.0);
    for row in x.chunks_exact(mean.len()) {
        super::gemm::add(row, mean);
    }
    mean.iter_mut().for_each(|mean| *mean /= count as f32);
}
