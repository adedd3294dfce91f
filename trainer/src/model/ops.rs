//! Operations composed of candle's differentiable ones.
//!
//! `candle_nn`'s `LayerNorm` and `softmax_last_dim` run fused kernels without a backward, which cut
//! the graph silently; these do not.

use candle_core::{D, Result, Tensor};

/// `x W^T + b` over the last dimension: `[.., in]` to `[.., out]`, with `weight` `[out, in]` and
/// `bias` `[out]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / weight.dim(1)?;
    let product = x.reshape((rows, weight.dim(1)?))?.matmul(&weight.t()?)?;
    if let Some(last) = shape.last_mut() {
        *last = weight.dim(0)?;
    }
    product.broadcast_add(bias)?.reshape(shape)
}

/// Layer normalisation over the last dimension, with the biased variance (Ba et al. 2016).
///
/// # Errors
/// When the shapes do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + epsilon)?.sqrt()?)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

/// Softmax over the last dimension. The maximum is subtracted first, as a constant: it changes
/// neither result nor gradient.
///
/// # Errors
/// When the device fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let exponential = x
        .broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    exponential.broadcast_div(&exponential.sum_keepdim(D::Minus1)?)
}

/// [`softmax`] of one row on the host, in double precision.
pub fn softmax_of(row: &[f32]) -> Vec<f32> {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = row
        .iter()
        .map(|&value| f64::from(value - greatest).exp())
        .collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials
        .into_iter()
        .map(|exponential| (exponential / sum) as f32)
        .collect()
}

/// Logarithm of [`softmax`], without underflow.
///
/// # Errors
/// When the device fails.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// Attention of `heads` heads (Vaswani et al. 2017): `softmax(q k^T / sqrt(width of a head)) v`,
/// with `k` and `v` `[clips, tokens, width]`, and `q` `[clips, queries, width]`.
///
/// # Errors
/// When the width is not a multiple of `heads`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (clips, queries, width) = q.dims3()?;
    let split = |x: &Tensor| {
        x.reshape((clips, x.dim(1)?, heads, width / heads))?
            .transpose(1, 2)?
            .contiguous()
    };
    let scale = ((width / heads) as f64).powf(-0.5);
    let scores = (split(q)? * scale)?.matmul(&split(k)?.t()?)?;
    softmax(&scores)?
        .matmul(&split(v)?)?
        .transpose(1, 2)?
        .reshape((clips, queries, width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use pipeline::sampling::order::{Purpose, stream};
    use rand::RngExt;

    fn random(index: u64, shape: &[usize]) -> Tensor {
        let mut rng = stream(Purpose::Init, 1, 0, index);
        let values: Vec<f64> = (0..shape.iter().product())
            .map(|_| rng.random::<f64>() * 2.0 - 1.0)
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
    }

    /// Compares the gradients of `sum(weights * f(inputs))` with central differences, in f64
    /// (candle's gelu has constants of f32 precision).
    fn check_gradients(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(index, shape)| random(index as u64, shape))
            .collect();
        let weights = random(99, f(&inputs).expect("computed").dims());
        let value = |inputs: &[Tensor]| f(inputs)?.mul(&weights)?.sum_all();
        let variables: Vec<Var> = inputs
            .iter()
            .map(|input| Var::from_tensor(input).expect("a variable"))
            .collect();
        let tensors: Vec<Tensor> = variables
            .iter()
            .map(|variable| variable.as_tensor().clone())
            .collect();
        let gradients = value(&tensors)
            .and_then(|loss| loss.backward())
            .expect("gradients");
        for (which, input) in inputs.iter().enumerate() {
            let gradient = gradients
                .get(&tensors[which])
                .expect("the graph is whole")
                .flatten_all()
                .expect("flat");
            let gradient = gradient.to_vec1::<f64>().expect("values");
            let flat = input
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f64>())
                .expect("values");
            for at in 0..flat.len() {
                let moved = |by: f64| {
                    let mut values = flat.clone();
                    values[at] += by;
                    let mut inputs = inputs.clone();
                    inputs[which] =
                        Tensor::from_vec(values, input.shape(), &Device::Cpu).expect("a tensor");
                    value(&inputs)
                        .and_then(|value| value.to_scalar::<f64>())
                        .expect("a value")
                };
                let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!(
                    (gradient[at] - difference).abs() < 1e-6,
                    "input {which}, value {at}: {} for {difference}",
                    gradient[at]
                );
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[&[2, 3, 5], &[4, 5], &[4]], |x| {
            linear(&x[0], &x[1], &x[2])
        });
        check_gradients(&[&[2, 3, 5], &[5], &[5]], |x| {
            layer_norm(&x[0], &x[1], &x[2], 1e-6)
        });
        check_gradients(&[&[3, 4]], |x| softmax(&x[0]));
        check_gradients(&[&[3, 4]], |x| log_softmax(&x[0]));
        check_gradients(&[&[2, 3, 6], &[2, 3, 6], &[2, 3, 6]], |x| {
            attention(&x[0], &x[1], &x[2], 2)
        });
        check_gradients(&[&[3, 4]], |x| x[0].gelu_erf());
    }

    #[test]
    fn softmax_of_large_numbers_is_finite() {
        let x = Tensor::new(&[[1e4f32, 1e4, -1e4]], &Device::Cpu).expect("a tensor");
        let y = softmax(&x)
            .and_then(|y| y.to_vec2::<f32>())
            .expect("computed");
        assert_eq!(y, [[0.5, 0.5, 0.0]]);
    }
}
