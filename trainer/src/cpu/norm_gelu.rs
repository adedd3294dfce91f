//! Layer normalisation, biases and GELU on rows, and the column sums of their gradients.

use super::element::Element;
use super::simd::{exp2, vectorised};
use super::team::{for_each_chunk, for_each_chunk2};

/// Rows per task.
const ROWS_AT_ONCE: usize = 64;

/// Partial sums of a row: they let the compiler use vectors, and fix the order of summation for all
/// instruction sets.
const PARTS: usize = 16;

/// Sum of `value(i)` for all `i` below `count`, in [`PARTS`] partial sums.
#[inline(always)]
pub(crate) fn sum(count: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut parts = [0f32; PARTS];
    let whole = count / PARTS * PARTS;
    for first in (0..whole).step_by(PARTS) {
        for (part, sum) in parts.iter_mut().enumerate() {
            *sum += value(first + part);
        }
    }
    for at in whole..count {
        parts[at - whole] += value(at);
    }
    parts.iter().sum()
}

/// Parameters of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    /// `[width]`
    pub(crate) weight: &'a [f32],
    /// `[width]`
    pub(crate) bias: &'a [f32],
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

/// Mean and reciprocal standard deviation of a row.
pub(crate) type Statistics = [f32; 2];

vectorised! {
    /// Normalises one row; returns its statistics.
    fn normalise_row<T: Element>(x: &[f32], norm: Norm<'_>, out: &mut [T]) -> Statistics {
        let width = out.len();
        let x = &x[..out.len()];
        let mean = sum(width, |at| x[at]) / width as f32;
        let variance = sum(width, |at| (x[at] - mean) * (x[at] - mean)) / width as f32;
        let scale = 1.0 / (variance + norm.epsilon).sqrt();
        for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(norm.weight).zip(norm.bias) {
            *out = T::from_f32((x - mean) * scale * weight + bias);
        }
        [mean, scale]
    }
}

/// Layer normalisation (Ba et al. 2016) of the rows of `x`; writes their statistics.
pub(crate) fn layer_norm<T: Element>(
    x: &[f32],
    norm: Norm<'_>,
    out: &mut [T],
    statistics: &mut [Statistics],
) {
    let width = norm.weight.len();
    for_each_chunk2(
        out,
        ROWS_AT_ONCE * width,
        statistics,
        ROWS_AT_ONCE,
        |at, out, statistics| {
            let x = &x[at * ROWS_AT_ONCE * width..];
            let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
            for ((out, x), statistics) in rows.zip(statistics) {
                *statistics = normalise_row(x, norm, out);
            }
        },
    );
}

vectorised! {
    /// Backward of one row; adds to the gradient `to` of `x`, and to those of weight and bias in
    /// `sums`.
    fn normalise_row_backward(
        gradient: &[f32],
        x: &[f32],
        statistics: Statistics,
        weight: &[f32],
        to: &mut [f32],
        sums: &mut [f32]
    ) {
        let [mean, scale] = statistics;
        let width = weight.len();
        let gradient = &gradient[..width];
        let x = &x[..width];
        let to = &mut to[..width];
        let normal = |at: usize| (x[at] - mean) * scale;
        let mean_gradient = sum(width, |at| gradient[at] * weight[at]) / width as f32;
        let mean_along = sum(width, |at| gradient[at] * weight[at] * normal(at)) / width as f32;
        let (weight_sums, bias_sums) = sums.split_at_mut(width);
        for at in 0..width {
            let normal = normal(at);
            to[at] += scale * (gradient[at] * weight[at] - mean_gradient - normal * mean_along);
            weight_sums[at] += gradient[at] * normal;
            bias_sums[at] += gradient[at];
        }
    }
}

/// Backward of [`layer_norm`]: from `gradient`, that of its result, adds to `to`, the gradient of
/// `x`, and to those of weight and bias.
pub(crate) fn layer_norm_backward(
    gradient: &[f32],
    x: &[f32],
    statistics: &[Statistics],
    weight: &[f32],
    to: &mut [f32],
    parameters: &mut [f32],
) {
    let width = weight.len();
    let rows = statistics.len();
    let at_once = rows.div_ceil(MOST_PARTS).max(1);
    let mut sums = vec![0f32; rows.div_ceil(at_once) * 2 * width];
    for_each_chunk2(
        to,
        at_once * width,
        &mut sums,
        2 * width,
        |part, to, sums| {
            for (at, to) in to.chunks_exact_mut(width).enumerate() {
                let row = part * at_once + at;
                let gradient = &gradient[row * width..][..width];
                let x = &x[row * width..][..width];
                normalise_row_backward(gradient, x, statistics[row], weight, to, sums);
            }
        },
    );
    sums.chunks_exact(2 * width)
        .for_each(|sums| super::gemm::add(sums, parameters));
}

/// Maximum number of partial sums over rows: a constant, so that results do not depend on the
/// number of threads.
const MOST_PARTS: usize = 16;

/// Columns per task of [`column_sums`].
const COLUMNS_AT_ONCE: usize = 64;

vectorised! {
    fn add_row<T: Element>(row: &[T], sums: &mut [f32]) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += value.to_f32());
    }
}

/// Adds the sum over the rows of `x` to `sums`, which is as long as a row: the gradient of a bias.
pub(crate) fn column_sums<T: Element>(x: &[T], sums: &mut [f32]) {
    let width = sums.len();
    for_each_chunk(sums, COLUMNS_AT_ONCE, |chunk, sums| {
        let first = chunk * COLUMNS_AT_ONCE;
        for row in x.chunks_exact(width) {
            add_row(&row[first..first + sums.len()], sums);
        }
    });
}

/// The cumulative distribution function of the normal distribution at `x`, and its density times
/// `x`.
///
/// Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7; its exponential is that of the
/// density, so it is computed once.
#[inline(always)]
fn normal_distribution(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let exponential = exp2(x * x * (-0.5 * std::f32::consts::LOG2_E));
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut polynomial = 1.061_405_4;
    for coefficient in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        polynomial = f32::mul_add(polynomial, t, coefficient);
    }
    let tail = 0.5 * polynomial * exponential;
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, x * exponential * (1.0 / 2.506_628_3))
}

vectorised! {
    /// The MLP's hidden layer: `inner = sums + bias`, rounded, and `active = GELU(inner)`
    /// (Hendrycks and Gimpel 2016, exact form).
    pub(crate) fn gelu<T: Element>(sums: &[f32], bias: &[f32], inner: &mut [T], active: &mut [T]) {
        for (((inner, active), &sum), &bias) in inner.iter_mut().zip(active).zip(sums).zip(bias) {
            *inner = T::from_f32(sum + bias);
            let x = inner.to_f32();
            *active = T::from_f32(x * normal_distribution(x).0);
        }
    }
}

vectorised! {
    /// Backward of [`gelu`]: from the gradient `sums` of `active`, writes that of `inner` to `out`,
    /// and replaces `inner` by `active`.
    pub(crate) fn gelu_backward<T: Element>(sums: &[f32], inner: &mut [T], out: &mut [T]) {
        for ((inner, out), &sum) in inner.iter_mut().zip(out).zip(sums) {
            let x = inner.to_f32();
            let (below, density) = normal_distribution(x);
            *out = T::from_f32(sum * (below + density));
            *inner = T::from_f32(x * below);
        }
    }
}

vectorised! {
    /// Computes `out = sums + bias`.
    pub(crate) fn add_bias<T: Element>(sums: &[f32], bias: &[f32], out: &mut [T]) {
        for ((out, &sum), &bias) in out.iter_mut().zip(sums).zip(bias) {
            *out = T::from_f32(sum + bias);
        }
    }
}

vectorised! {
    /// Computes `out = x + scale * (sums + bias)`, a residual connection.
    pub(crate) fn add_residual(x: &[f32], scale: f32, sums: &[f32], bias: &[f32], out: &mut [f32]) {
        for (((out, &x), &sum), &bias) in out.iter_mut().zip(x).zip(sums).zip(bias) {
            *out = x + scale * (sum + bias);
        }
    }
}
