//! A transformer block, forward and backward.

use super::attention::{self, Heads};
use super::element::Element;
use super::gemm::{Part, add_gemm, gemm, gemm2};
use super::layout::{Affine, BlockLayout, NormLayout};
use super::norm_gelu::{Norm, Statistics, add_bias, add_residual, column_sums, gelu, gelu_backward, layer_norm, layer_norm_backward};
use super::pack::Operand;

/// A model's values: exact, and as the products take them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a, T> {
    pub(crate) exact: &'a [f32],
    pub(crate) rounded: &'a [T],
}

impl<'a, T> Weights<'a, T> {
    /// Weight, bias and epsilon of a normalisation.
    pub(crate) fn norm(self, layer: &NormLayout) -> Norm<'a> {
        let NormLayout { affine, epsilon } = layer;
        Norm { weight: &self.exact[affine.weight.clone()], bias: self.bias(affine), epsilon: *epsilon }
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

/// A model's gradients, which a backward adds to or, the first of a step, writes.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    pub(crate) values: &'a mut [f32],
    /// Whether those of weights of linear layers are there already; where they are not, those of all others are zero.
    pub(crate) adds: bool,
}

/// What the forward keeps for the backward, beside the input.
#[derive(Debug, Default)]
pub(crate) struct SavedActivations<T> {
    /// `[rows, 3 * width]`
    qkv: Vec<T>,
    /// `[clips, heads, queries]`
    log_sums: Vec<f32>,
    /// `[left, width]`: the result of attention.
    attended: Vec<T>,
    /// `[left, width]`: the residual stream between attention and MLP.
    middle: Vec<f32>,
    /// `[left, inner width]`: the MLP's inner layer before GELU.
    inner: Vec<T>,
}

/// Memory that all blocks use in turn.
#[derive(Debug, Default)]
pub(crate) struct Scratch<T> {
    statistics: Vec<Statistics>,
    /// `[rows, width]`: a normalised input.
    normed: Vec<T>,
    /// `[rows, inner width]`: the inner layer after GELU; in the backward, the gradient before it, and that of queries, keys and values.
    wide: Vec<T>,
    /// `[rows, width]`: a rounded gradient.
    rounded: Vec<T>,
    /// `[rows, width]`: the gradient of a scaled branch.
    scaled: Vec<f32>,
    /// `[rows, width]`: the gradient of attention's result.
    attended: Vec<T>,
    /// `[rows, width]`: the gradient of a normalised input.
    normed_gradient: Vec<f32>,
    /// `[rows, width]`: the gradient of an input some of whose tokens are left out of the result.
    stream_gradient: Vec<f32>,
}

/// The tokens of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    /// Of each clip.
    pub(crate) all: usize,
    /// Of these the first ones, of which nobody reads the block's result: they are keys and values only.
    pub(crate) left_out: usize,
}

impl Tokens {
    /// Of each clip in the result.
    const fn left(self) -> usize {
        self.all - self.left_out
    }

    /// The input's row of a row of the result.
    const fn row(self, of_result: usize) -> usize {
        of_result / self.left() * self.all + self.left_out + of_result % self.left()
    }
}

/// `length` values, whatever they are.
fn sized<T: Copy + Default>(values: &mut Vec<T>, length: usize) -> &mut [T] {
    values.resize(length, T::default());
    values
}

/// `x`, `[clips, tokens, width]`, to the block's result `to`, `[clips, left, width]`. Without `to`, only what the backward needs is made. The results of attention
/// and MLP are scaled clip by clip ([`super::stack::BranchScales`]).
pub(crate) fn forward<T: Element>(
    layout: &BlockLayout,
    weights: Weights<'_, T>,
    tokens: Tokens,
    [of_attention, of_mlp]: [&[f32]; 2],
    x: &[f32],
    to: Option<&mut [f32]>,
    saved: &mut SavedActivations<T>,
    scratch: &mut Scratch<T>,
) {
    let BlockLayout { width, heads, .. } = *layout;
    let (rows, wider) = (x.len() / width, layout.fc1.bias.len());
    let left = rows / tokens.all * tokens.left();
    let sizes = Heads { tokens: tokens.all, unasked: tokens.left_out, heads, width: width / heads };
    let normed = sized(&mut scratch.normed, rows * width);
    let statistics = sized(&mut scratch.statistics, rows);

    layer_norm(x, weights.norm(&layout.norm1), normed, statistics);
    let qkv = sized(&mut saved.qkv, rows * 3 * width);
    affine(normed, weights, &layout.qkv, [rows, width, 3 * width], qkv);
    let attended = sized(&mut saved.attended, left * width);
    attention::forward(sizes, qkv, attended, sized(&mut saved.log_sums, left * heads));
    let middle = sized(&mut saved.middle, left * width);
    let scale = |scales: &[f32], row: usize| scales.get(row / tokens.left()).copied().unwrap_or(1.0);
    let (x_row, attention_scale) = (|row: usize| &x[tokens.row(row) * width..], |row| scale(of_attention, row));
    residual(attended, weights, &layout.proj, [left, width, width], x_row, attention_scale, middle);

    let (normed, statistics) = (&mut normed[..left * width], &mut statistics[..left]);
    layer_norm(middle, weights.norm(&layout.norm2), normed, statistics);
    let (inner, active) = (sized(&mut saved.inner, left * wider), sized(&mut scratch.wide, left * wider));
    let (right, bias) = (Operand::rows(weights.weight(&layout.fc1), width), weights.bias(&layout.fc1));
    gemm2(Operand::rows(normed, width), right, [left, width, wider], inner, active, |part| {
        gelu(part.sums, &bias[part.column..], part.out, part.second);
    });
    if let Some(to) = to {
        let mlp_scale = |row| scale(of_mlp, row);
        residual(active, weights, &layout.fc2, [left, wider, width], |row| &middle[row * width..], mlp_scale, to);
    }
}

/// From `gradient`, that of the block's result, that of `x`, in its place; adds to those of the weights.
pub(crate) fn backward<T: Element>(
    layout: &BlockLayout,
    weights: Weights<'_, T>,
    tokens: Tokens,
    [of_attention, of_mlp]: [&[f32]; 2],
    x: &[f32],
    gradient: &mut Vec<f32>,
    saved: &mut SavedActivations<T>,
    scratch: &mut Scratch<T>,
    gradients: &mut Gradients<'_>,
) {
    let BlockLayout { width, heads, .. } = *layout;
    let (rows, wider) = (x.len() / width, layout.fc1.bias.len());
    let left = rows / tokens.all * tokens.left();
    let sizes = Heads { tokens: tokens.all, unasked: tokens.left_out, heads, width: width / heads };
    // The MLP.
    let normed = sized(&mut scratch.normed, left * width);
    let statistics = sized(&mut scratch.statistics, left);
    let wide = sized(&mut scratch.wide, left * wider);
    let of_branch = scaled(gradient, of_mlp, &mut scratch.scaled);
    column_sums(of_branch, &mut gradients.values[layout.fc2.bias.clone()]);
    let of_result = T::operand(of_branch, &mut scratch.rounded);
    // The weight's columns are summed over: W as it lies, not transposed.
    let right = Operand::columns(weights.weight(&layout.fc2), wider);
    gemm2(Operand::rows(of_result, width), right, [left, width, wider], wide, &mut saved.inner, |part| {
        gelu_backward(part.sums, part.second, part.out);
    });
    weight_gradient(of_result, &saved.inner, &layout.fc2, left, gradients);
    layer_norm(&saved.middle, weights.norm(&layout.norm2), normed, statistics);
    let normed_gradient = sized(&mut scratch.normed_gradient, left * width);
    affine_backward(wide, normed, weights, &layout.fc1, left, normed_gradient, gradients);
    let (norm2, of_norm2) = (&weights.exact[layout.norm2.affine.weight.clone()], &mut gradients.values[layout.norm2.affine.both()]);
    layer_norm_backward(normed_gradient, &saved.middle, statistics, norm2, gradient, of_norm2);

    // Attention.
    let of_middle = T::operand(scaled(gradient, of_attention, &mut scratch.scaled), &mut scratch.rounded);
    let of_attended = sized(&mut scratch.attended, left * width);
    column_sums(of_middle, &mut gradients.values[layout.proj.bias.clone()]);
    weight_gradient(of_middle, &saved.attended, &layout.proj, left, gradients);
    let right = Operand::columns(weights.weight(&layout.proj), width);
    gemm(Operand::rows(of_middle, width), right, [left, width, width], of_attended, |part| super::element::round(part.sums, part.out));
    let of_qkv = sized(&mut scratch.wide, rows * 3 * width);
    attention::backward(sizes, &saved.qkv, &saved.attended, &saved.log_sums, of_attended, of_qkv);
    if tokens.left_out > 0 {
        let stream = &mut scratch.stream_gradient;
        stream.clear();
        for of_clip in gradient.chunks_exact(tokens.left() * width) {
            stream.extend(std::iter::repeat_n(0.0, tokens.left_out * width));
            stream.extend_from_slice(of_clip);
        }
        std::mem::swap(gradient, stream);
    }
    let normed = sized(&mut scratch.normed, rows * width);
    let statistics = sized(&mut scratch.statistics, rows);
    layer_norm(x, weights.norm(&layout.norm1), normed, statistics);
    let normed_gradient = sized(&mut scratch.normed_gradient, rows * width);
    affine_backward(of_qkv, normed, weights, &layout.qkv, rows, normed_gradient, gradients);
    let (norm1, of_norm1) = (&weights.exact[layout.norm1.affine.weight.clone()], &mut gradients.values[layout.norm1.affine.both()]);
    layer_norm_backward(normed_gradient, x, statistics, norm1, gradient, of_norm1);
}

/// `x w^T + b`, rounded.
pub(crate) fn affine<T: Element, O: Element>(
    x: &[T],
    weights: Weights<'_, T>,
    layer: &Affine,
    [rows, inputs, outputs]: [usize; 3],
    out: &mut [O],
) {
    let (right, bias) = (Operand::rows(weights.weight(layer), inputs), weights.bias(layer));
    gemm(Operand::rows(x, inputs), right, [rows, inputs, outputs], out, |Part { column, sums, out, .. }| {
        add_bias(sums, &bias[column..], out);
    });
}

/// `values`, each clip's times its scale; themselves where there are no scales.
fn scaled<'a>(values: &'a [f32], scales: &[f32], to: &'a mut Vec<f32>) -> &'a [f32] {
    if scales.is_empty() {
        return values;
    }
    let of_clip = values.len() / scales.len();
    to.resize(values.len(), 0.0);
    for ((to, values), &scale) in to.chunks_exact_mut(of_clip).zip(values.chunks_exact(of_clip)).zip(scales) {
        to.iter_mut().zip(values).for_each(|(to, &value)| *to = value * scale);
    }
    to
}

/// `x + scale * (y w^T + b)`, where `x` and `scale` give rows.
fn residual<'x, T: Element>(
    y: &[T],
    weights: Weights<'_, T>,
    layer: &Affine,
    [rows, inputs, outputs]: [usize; 3],
    x: impl Fn(usize) -> &'x [f32] + Sync,
    scale: impl Fn(usize) -> f32 + Sync,
    out: &mut [f32],
) {
    let (right, bias) = (Operand::rows(weights.weight(layer), inputs), weights.bias(layer));
    gemm(Operand::rows(y, inputs), right, [rows, inputs, outputs], out, |Part { row, column, sums, out, .. }| {
        add_residual(&x(row)[column..], scale(row), sums, &bias[column..], out);
    });
}

/// Backward of [`affine`]: from `gradient`, that of the result, that of `x` into `to`; adds to those of weight and bias.
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
    gemm(Operand::rows(gradient, outputs), right, [rows, outputs, inputs], to, |part| part.out.copy_from_slice(part.sums));
}

/// `gradient^T x`, the gradient of a linear layer's weight.
pub(crate) fn weight_gradient<T: Element>(gradient: &[T], x: &[T], layer: &Affine, rows: usize, gradients: &mut Gradients<'_>) {
    let outputs = layer.bias.len();
    let inputs = layer.weight.len() / outputs;
    let shape = [outputs, rows, inputs];
    let (left, right) = (Operand::columns(gradient, outputs), Operand::columns(x, inputs));
    add_gemm(left, right, shape, gradients.adds, &mut gradients.values[layer.weight.clone()]);
}
