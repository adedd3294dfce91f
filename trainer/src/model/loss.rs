//! Loss functions.

use crate::model::ops;
use candle_core::{D, Device, Result, Tensor};

/// Mean squared error of each token, averaged over the masked tokens of the whole batch:
/// `sum(loss * mask) / sum(mask)`.
///
/// `predicted` and `target` are `[clips, tokens, values]`, `mask` is `[clips, tokens]`: 1 for
/// masked tokens, 0 for others.
///
/// # Errors
/// When the shapes do not fit.
pub fn masked_mean_squared_error(
    predicted: &Tensor,
    target: &Tensor,
    mask: &Tensor,
) -> Result<Tensor> {
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

/// Cross entropy between `logits` `[clips, classes]` and the target distributions `targets`
/// `[clips, classes]`, averaged over the clips.
///
/// # Errors
/// When the shapes do not fit.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    (ops::log_softmax(logits)? * targets)?
        .sum(D::Minus1)?
        .mean_all()?
        .neg()
}

/// Target distributions `[labels, classes]` with label smoothing (Szegedy et al. 2016): `1 -
/// smoothing` at the label, plus `smoothing` spread evenly over all classes.
///
/// # Errors
/// When a label is not below `classes`.
pub fn smoothed_targets(
    labels: &[u32],
    classes: usize,
    smoothing: f64,
    device: &Device,
) -> Result<Tensor> {
    let mut targets = vec![(smoothing / classes as f64) as f32; labels.len() * classes];
    for (clip, &label) in labels.iter().enumerate() {
        if label as usize >= classes {
            candle_core::bail!("clip {clip} has label {label}, but there are {classes} classes");
        }
        targets[clip * classes + label as usize] =
            (1.0 - smoothing + smoothing / classes as f64) as f32;
    }
    Tensor::from_vec(targets, (labels.len(), classes), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_that_of_the_formula() {
        // import math; x = [2.0, -1.0, 0.5]; z = math.log(sum(map(math.exp, x))) q = [0.9 / 1 * 0 +
        // 0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3] -sum(q_i * (x_i - z)); and for equal logits log(3)
        let logits =
            Tensor::new(&[[2f32, -1.0, 0.5], [1e4, 1e4, 1e4]], &Device::Cpu).expect("logits");
        let targets = smoothed_targets(&[1, 2], 3, 0.1, &Device::Cpu).expect("targets");
        let loss = |clip: usize| {
            let one = |x: &Tensor| x.narrow(0, clip, 1).expect("a clip");
            cross_entropy(&one(&logits), &one(&targets))
                .and_then(|loss| loss.to_scalar::<f32>())
                .expect("a loss")
        };
        assert!((loss(0) - 3.091_311).abs() < 1e-5, "{}", loss(0));
        assert!((loss(1) - 3f32.ln()).abs() < 1e-6, "{}", loss(1));
        let both = cross_entropy(&logits, &targets)
            .and_then(|loss| loss.to_scalar::<f32>())
            .expect("a loss");
        assert!((both - f32::midpoint(loss(0), loss(1))).abs() < 1e-6);
        let error = smoothed_targets(&[0, 3], 3, 0.1, &Device::Cpu)
            .expect_err("no such class")
            .to_string();
        assert!(
            error.starts_with("clip 1 has label 3, but there are 3 classes"),
            "{error}"
        );
    }
}
