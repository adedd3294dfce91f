//! What is minimised.

use candle_core::{D, Result, Tensor};

/// Mean squared error of each token, averaged over the masked tokens of the whole batch: `sum(loss * mask) / sum(mask)`.
///
/// `predicted` and `target` are `[clips, tokens, values]`, `mask` is `[clips, tokens]`, 1 where masked.
///
/// # Errors
/// When the shapes do not fit.
pub fn masked_mean_squared_error(predicted: &Tensor, target: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let of_tokens = (predicted - target)?.sqr()?.mean(D::Minus1)?;
    (of_tokens * mask)?.sum_all()?.div(&mask.sum_all()?)
}

/// Mean squared error over all values.
///
/// # Errors
/// When the shapes do not fit.
pub fn mean_squared_error(predicted: &Tensor, target: &Tensor) -> Result<Tensor> {
    (predicted - target)?.sqr()?.mean_all()
}
