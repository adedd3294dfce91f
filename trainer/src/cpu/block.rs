//! The transformer block, forward and backward.

use super::attention::{self, Heads};
use super::element::Element;
use super::gemm::{Part, add_gemm, gemm, gemm2};
use super::gradients::Gradients;
use super::layout::{Affine, BlockLayout, NormLayout};
use super::memory::resize;
use super::norm_gelu::{
    Norm, Statistics, add_bias, add_residual, column_sums, gelu, gelu_backward, layer_norm,
    layer_norm_backward,
};
use super::pack::Operand;

/// A model's weights: exact, and in the type that the gemms take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a, T> {
    pub(crate) exact: &'a [f32],
    pub(crate) rounded: &'a [T],
}

impl<'a, T> Weights<'a, T> {
    /// Weight, bias and epsilon of a layer normalisation.
    pub(crate) fn norm(self, layer: &NormLayout) -> Norm<'a> {
        let NormLayout { affine, epsilon } = layer;
        Norm {
            weight: &self.exact[affine.weight.clone()],
            bias: self.bias(affine),
            epsilon: *epsilon,
        }
    }

    /// The bias of a layer.
    pub(crate) fn bias(self, layer: &Affine) -> &'a [f32] {
        &self.exact[layer.bias.clone()]
    }

    /// The weight of a layer, `[outputs, inputs]`.
    pub(crate) fn weight(self, layer: &Affine) -> &'a [T] {
        &self.rounded[layer.weight.clone()]
    }
}

/// What the forward saves for the backward, besides the input.
#[derive(Debug, Default)]
pub(crate) struct SavedActivations<T> {
    /// `[rows, 3 * width]`
    qkv: Vec<T>,
    /// `[clips, heads, queries]`
    log_sums: Vec<f32>,
    /// `[kept rows, width]`: the result of attention.
    attended: Vec<T>,
    /// `[kept rows, width]`: the residual stream between attention and MLP.
    middle: Vec<f32>,
    /// `[kept rows, hidden width]`: the MLP's hidden layer before GELU.
    inner: Vec<T>,
}

/// Buffers that all blocks share.
#[derive(Debug, Default)]
pub(crate) struct Scratch<T> {
    statistics: Vec<Statistics>,
    /// `[rows, width]`: a normalised input.
    normed: Vec<T>,
    /// `[rows, hidden width]`: the hidden layer after GELU; in the backward, its gradient before
    /// GELU, and the gradient of queries, keys and values.
    wide: Vec<T>,
    /// `[rows, width]`: a rounded gradient.
    rounded: Vec<T>,
    /// `[rows, width]`: the gradient of a scaled residual branch.
    scaled: Vec<f32>,
    /// `[rows, width]`: the gradient of attention's result.
    attended: Vec<T>,
    /// `[rows, width]`: the gradient of a normalised input.
    normed_gradient: Vec<f32>,
    /// `[rows, width]`: the gradient of an input some of whose tokens are dropped from the result.
    stream_gradient: Vec<f32>,
}

/// Tokens per clip in a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    /// Tokens of the input.
    pub(crate) all: usize,
    /// The first tokens, whose results are not used: they are keys and values only.
    pub(crate) dropped: usize,
}

impl Tokens {
    /// Tokens of the result.
    pub(crate) const fn kept(self) -> usize {
        self.all - self.dropped
    }

    /// The row of the input for a row of the result.
    const fn row(self, of_result: usize) -> usize {
        of_result / self.kept() * self.all + self.dropped + of_result % self.kept()
    }
}

/// A block of a model, and how it is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a, T> {
    pub(crate) layout: &'a BlockLayout,
    pub(crate) weights: Weights<'a, T>,
    pub(crate) tokens: Tokens,
    /// Scales of attention's and the MLP's results, clip by clip
    /// ([`super::stack::BranchScales`]).
    pub(crate) scales: [&'a [f32]; 2],
}

/// Computes the block's result `to`, `[clips, kept, width]`, from `x`, `[clips, tokens, width]`.
/// Without `to`, computes only what the backward needs.
pub(crate) fn forward<T: Element>(
    block: Block<'_, T>,
    x: &[f32],
    to: Option<&mut [f32]>,
    saved: &mut SavedActivations<T>,
    scratch: &mut Scratch<T>,
) {
    let Block {
        layout,
        weights,
        tokens,
        scales: [of_attention, of_mlp],
    } = block;
    let BlockLayout { width, heads, .. } = *layout;
    let rows = x.len() / width;
    let hidden = layout.fc1.bias.len();
    let kept = rows / tokens.all * tokens.kept();
    let sizes = Heads {
        tokens: tokens.all,
        key_only: tokens.dropped,
        heads,
        width: width / heads,
    };
    let normed = resize(&mut scratch.normed, rows * width);
    let statistics = resize(&mut scratch.statistics, rows);

    layer_norm(x, weights.norm(&layout.norm1), normed, statistics);
    let qkv = resize(&mut saved.qkv, rows * 3 * width);
    affine(normed, weights, &layout.qkv, [rows, width, 3 * width], qkv);
    let attended = resize(&mut saved.attended, kept * width);
    attention::forward(
        sizes,
        qkv,
        attended,
        resize(&mut saved.log_sums, kept * heads),
    );
    let middle = resize(&mut saved.middle, kept * width);
    let scale =
        |scales: &[f32], row: usize| scales.get(row / tokens.kept()).copied().unwrap_or(1.0);
    let (x_row, attention_scale) = (
        |row: usize| &x[tokens.row(row) * width..],
        |row| scale(of_attention, row),
    );
    residual(
        attended,
        weights,
        &layout.proj,
        [kept, width, width],
        x_row,
        attention_scale,
        middle,
    );

    let normed = &mut normed[..kept * width];
    let statistics = &mut statistics[..kept];
    layer_norm(middle, weights.norm(&layout.norm2), normed, statistics);
    let inner = resize(&mut saved.inner, kept * hidden);
    let active = resize(&mut scratch.wide, kept * hidden);
    let right = Operand::rows(weights.weight(&layout.fc1), width);
    let bias = weights.bias(&layout.fc1);
    gemm2(
        Operand::rows(normed, width),
        right,
        [kept, width, hidden],
        inner,
        active,
        |part| {
            gelu(part.sums, &bias[part.column..], part.out, part.second);
        },
    );
    if let Some(to) = to {
        let mlp_scale = |row| scale(of_mlp, row);
        residual(
            active,
            weights,
            &layout.fc2,
            [kept, hidden, width],
            |row| &middle[row * width..],
            mlp_scale,
            to,
        );
    }
}

/// Replaces `gradient`, the gradient of the block's result, by that of `x`, and adds to the
/// gradients of the weights.
pub(crate) fn backward<T: Element>(
    block: Block<'_, T>,
    x: &[f32],
    gradient: &mut Vec<f32>,
    saved: &mut SavedActivations<T>,
    scratch: &mut Scratch<T>,
    gradients: &mut Gradients<'_>,
) {
    let Block {
        layout,
        weights,
        tokens,
        scales: [of_attention, of_mlp],
    } = block;
    let BlockLayout { width, heads, .. } = *layout;
    let rows = x.len() / width;
    let hidden = layout.fc1.bias.len();
    let kept = rows / tokens.all * tokens.kept();
    let sizes = Heads {
        tokens: tokens.all,
        key_only: tokens.dropped,
        heads,
        width: width / heads,
    };
    // The MLP.
    let normed = resize(&mut scratch.normed, kept * width);
    let statistics = resize(&mut scratch.statistics, kept);
    let wide = resize(&mut scratch.wide, kept * hidden);
    let of_branch = scaled(gradient, of_mlp, &mut scratch.scaled);
    column_sums(of_branch, &mut gradients.values[layout.fc2.bias.clone()]);
    let of_result = T::operand(of_branch, &mut scratch.rounded);
    // The columns of the weight are summed over: W as stored, not transposed.
    let right = Operand::columns(weights.weight(&layout.fc2), hidden);
    gemm2(
        Operand::rows(of_result, width),
        right,
        [kept, width, hidden],
        wide,
        &mut saved.inner,
        |part| {
            gelu_backward(part.sums, part.second, part.out);
        },
    );
    weight_gradient(of_result, &saved.inner, &layout.fc2, kept, gradients);
    layer_norm(
        &saved.middle,
        weights.norm(&layout.norm2),
        normed,
        statistics,
    );
    let normed_gradient = resize(&mut scratch.normed_gradient, kept * width);
    affine_backward(
        wide,
        normed,
        weights,
        &layout.fc1,
        kept,
        normed_gradient,
        gradients,
    );
    let norm2 = &weights.exact[layout.norm2.affine.weight.clone()];
    let of_norm2 = &mut gradients.values[layout.norm2.affine.both()];
    layer_norm_backward(
        normed_gradient,
        &saved.middle,
        statistics,
        norm2,
        gradient,
        of_norm2,
    );

    // Attention.
    let of_middle = T::operand(
        scaled(gradient, of_attention, &mut scratch.scaled),
        &mut scratch.rounded,
    );
    let of_attended = resize(&mut scratch.attended, kept * width);
    column_sums(of_middle, &mut gradients.values[layout.proj.bias.clone()]);
    weight_gradient(of_middle, &saved.attended, &layout.proj, kept, gradients);
    let right = Operand::columns(weights.weight(&layout.proj), width);
    gemm(
        Operand::rows(of_middle, width),
        right,
        [kept, width, width],
        of_attended,
        |part| super::element::round(part.sums, part.out),
    );
    let of_qkv = resize(&mut scratch.wide, rows * 3 * width);
    attention::backward(
        sizes,
        &saved.qkv,
        &saved.attended,
        &saved.log_sums,
        of_attended,
        of_qkv,
    );
    if tokens.dropped > 0 {
        let stream = &mut scratch.stream_gradient;
        stream.clear();
        for of_clip in gradient.chunks_exact(tokens.kept() * width) {
            stream.extend(std::iter::repeat_n(0.0, tokens.dropped * width));
            stream.extend_from_slice(of_clip);
        }
        std::mem::swap(gradient, stream);
    }
    let normed = resize(&mut scratch.normed, rows * width);
    let statistics = resize(&mut scratch.statistics, rows);
    layer_norm(x, weights.norm(&layout.norm1), normed, statistics);
    let normed_gradient = resize(&mut scratch.normed_gradient, rows * width);
    affine_backward(
        of_qkv,
        normed,
        weights,
        &layout.qkv,
        rows,
        normed_gradient,
        gradients,
    );
    let norm1 = &weights.exact[layout.norm1.affine.weight.clone()];
    let of_norm1 = &mut gradients.values[layout.norm1.affine.both()];
    layer_norm_backward(normed_gradient, x, statistics, norm1, gradient, of_norm1);
}

/// Computes `x w^T + b`, rounded to the type of `out`.
pub(crate) fn affine<T: Element, O: Element>(
    x: &[T],
    weights: Weights<'_, T>,
    layer: &Affine,
    [rows, inputs, outputs]: [usize; 3],
    out: &mut [O],
) {
    let right = Operand::rows(weights.weight(layer), inputs);
    let bias = weights.bias(layer);
    gemm(
        Operand::rows(x, inputs),
        right,
        [rows, inputs, outputs],
        out,
        |Part {
             column, sums, out, ..
         }| {
            add_bias(sums, &bias[column..], out);
        },
    );
}

/// Multiplies the values of each clip by its scale; returns `values` itself if there are no scales.
fn scaled<'a>(values: &'a [f32], scales: &[f32], to: &'a mut Vec<f32>) -> &'a [f32] {
    if scales.is_empty() {
        return values;
    }
    let of_clip = values.len() / scales.len();
    resize(to, values.len());
    for ((to, values), &scale) in to
        .chunks_exact_mut(of_clip)
        .zip(values.chunks_exact(of_clip))
        .zip(scales)
    {
        to.iter_mut()
            .zip(values)
            .for_each(|(to, &value)| *to = value * scale);
    }
    to
}

/// Computes `x + scale * (y w^T + b)`, where `x` and `scale` take the index of a row.
fn residual<'x, T: Element>(
    y: &[T],
    weights: Weights<'_, T>,
    layer: &Affine,
    [rows, inputs, outputs]: [usize; 3],
    x: impl Fn(usize) -> &'x [f32] + Sync,
    scale: impl Fn(usize) -> f32 + Sync,
    out: &mut [f32],
) {
    let right = Operand::rows(weights.weight(layer), inputs);
    let bias = weights.bias(layer);
    gemm(
        Operand::rows(y, inputs),
        right,
        [rows, inputs, outputs],
        out,
        |Part {
             row,
             column,
             sums,
             out,
             ..
         }| {
            add_residual(&x(row)[column..], scale(row), sums, &bias[column..], out);
        },
    );
}

/// Backward of [`affine`]: from `gradient`, the gradient of the result, computes that of `x` into
/// `to`, and adds to those of weight and bias.
pub(crate) fn affine_backward<T: Element>(
    gradient: &[T],
    x: &[T],
    weights: Weights<'_, T>,
    layer: &Affine,
    rows: usize,
    to: &mut [f32],
    gradients: &mut Gradients<'_>,
) {
    let outputs = layer.bias.len();
    let inputs = layer.weight.len() / outputs;
    column_sums(gradient, &mut gradients.values[layer.bias.clone()]);
    weight_gradient(gradient, x, layer, rows, gradients);
    let right = Operand::columns(weights.weight(layer), inputs);
    gemm(
        Operand::rows(gradient, outputs),
        right,
        [rows, outputs, inputs],
        to,
        |part| part.out.copy_from_slice(part.sums),
    );
}

/// Adds `gradient^T x`, the gradient of a linear layer's weight.
pub(crate) fn weight_gradient<T: Element>(
    gradient: &[T],
    x: &[T],
    layer: &Affine,
    rows: usize,
    gradients: &mut Gradients<'_>,
) {
    let outputs = layer.bias.len();
    let inputs = layer.weight.len() / outputs;
    let shape = [outputs, rows, inputs];
    let left = Operand::columns(gradient, outputs);
    let right = Operand::columns(x, inputs);
    add_gemm(
        left,
        right,
        shape,
        gradients.adds,
        &mut gradients.values[layer.weight.clone()],
    );
}
