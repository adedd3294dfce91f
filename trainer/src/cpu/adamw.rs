//! AdamW with clipping by the global norm, in two passes over memory: one for the norm, one for
//! everything else.

use super::element::Element;
use super::simd::vectorised;
use super::team::for_each_chunk;
use crate::optim::{AdamWConfig, ParameterRule};
use std::ops::Range;

/// Values per task. The norm is summed in chunks of this size, so it does not depend on the number
/// of threads.
const AT_ONCE: usize = 1 << 16;

/// A range of values with the same rate and weight decay.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Its place among all values.
    pub(crate) range: Range<usize>,
    /// Its rate and weight decay.
    pub(crate) rule: ParameterRule,
}

/// The two moments of all values.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    pub(crate) steps: u64,
}

/// Constants of a step, the same for all values.
#[derive(Debug, Clone, Copy)]
struct Rates {
    clip: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// Bias correction of the square root of the second moment.
    correction: f32,
}

/// The values of one task.
struct Piece<'a, T> {
    weights: &'a mut [f32],
    rounded: &'a mut [T],
    gradients: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    decay: f32,
    /// Learning rate, with the bias correction of the first moment.
    rate: f32,
}

vectorised! {
    fn update_piece<T: Element>(piece: &mut Piece<'_, T>, rates: Rates) {
        let count = piece.weights.len();
        let weights = &mut piece.weights[..count];
        let gradients = &piece.gradients[..count];
        let first = &mut piece.first[..count];
        let second = &mut piece.second[..count];
        for at in 0..count {
            let gradient = gradients[at] * rates.clip;
            first[at] = first[at] * rates.beta1 + gradient * (1.0 - rates.beta1);
            second[at] = second[at] * rates.beta2 + gradient * gradient * (1.0 - rates.beta2);
            let root = second[at].sqrt() * rates.correction + rates.epsilon;
            weights[at] = weights[at] * piece.decay - first[at] / root * piece.rate;
        }
        if T::IS_ROUNDED {
            let rounded = piece.rounded.iter_mut().zip(weights);
            rounded.for_each(|(rounded, &mut weight)| *rounded = T::from_f32(weight));
        }
    }
}

vectorised! {
    fn squares(values: &[f32]) -> f64 {
        let mut parts = [0f64; 8];
        for values in values.chunks(8) {
            for (part, &value) in parts.iter_mut().zip(values) {
                *part += f64::from(value) * f64::from(value);
            }
        }
        parts.iter().sum()
    }
}

/// Euclidean norm of all values.
fn norm(values: &[f32]) -> f64 {
    let mut parts = vec![0.0; values.len().div_ceil(AT_ONCE)];
    for_each_chunk(&mut parts, 1, |at, part| {
        let first = at * AT_ONCE;
        part[0] = squares(&values[first..values.len().min(first + AT_ONCE)]);
    });
    parts.iter().sum::<f64>().sqrt()
}

/// Performs one step of AdamW (Loshchilov and Hutter 2019) at rate `lr`. Returns the norm of the
/// gradients before clipping; if it is not finite, nothing changes.
pub(crate) fn update<T: Element>(
    config: &AdamWConfig,
    groups: &[Group],
    lr: f64,
    weights: &mut [f32],
    rounded: &mut [T],
    gradients: &[f32],
    moments: &mut Moments,
) -> f64 {
    let norm = norm(gradients);
    if !norm.is_finite() {
        return norm;
    }
    moments.steps += 1;
    let AdamWConfig {
        betas: [beta1, beta2],
        epsilon,
        clip_norm,
        ..
    } = *config;
    let rates = Rates {
        clip: (clip_norm / (norm + 1e-6)).min(1.0) as f32,
        beta1: beta1 as f32,
        beta2: beta2 as f32,
        epsilon: epsilon as f32,
        correction: (1.0 - beta2.powf(moments.steps as f64)).powf(-0.5) as f32,
    };
    let correction1 = 1.0 - beta1.powf(moments.steps as f64);
    let mut weights = weights;
    let mut rounded = rounded;
    let mut gradients = gradients;
    let mut first = &mut moments.first[..];
    let mut second = &mut moments.second[..];
    let mut pieces = Vec::with_capacity(weights.len() / AT_ONCE + groups.len());
    for group in groups {
        let lr = lr * group.rule.rate;
        let decay = (1.0 - lr * group.rule.weight_decay) as f32;
        let rate = (lr / correction1) as f32;
        let mut remaining = group.range.len();
        while remaining > 0 {
            let count = remaining.min(AT_ONCE);
            remaining -= count;
            pieces.push(Piece {
                weights: weights.split_off_mut(..count).expect("groups cover all"),
                rounded: if T::IS_ROUNDED {
                    rounded.split_off_mut(..count).expect("groups cover all")
                } else {
                    &mut []
                },
                gradients: gradients.split_off(..count).expect("groups cover all"),
                first: first.split_off_mut(..count).expect("groups cover all"),
                second: second.split_off_mut(..count).expect("groups cover all"),
                decay,
                rate,
            });
        }
    }
    for_each_chunk(&mut pieces, 1, |_, piece| {
        update_piece(&mut piece[0], rates)
    });
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_that_are_not_finite_change_nothing() {
        let config = AdamWConfig {
            base_lr: 1.0,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
        };
        let groups = [Group {
            range: 0..3,
            rule: ParameterRule {
                rate: 1.0,
                weight_decay: 0.1,
            },
        }];
        for nonfinite in [f32::INFINITY, f32::NAN] {
            let mut weights = [1.0, 2.0, 3.0];
            let mut moments = Moments {
                first: vec![0.5; 3],
                second: vec![0.25; 3],
                steps: 7,
            };
            let step = |last: f32, weights: &mut [f32], moments: &mut Moments| {
                update::<f32>(
                    &config,
                    &groups,
                    0.1,
                    weights,
                    &mut [],
                    &[0.0, 1.0, last],
                    moments,
                )
            };
            assert!(!step(nonfinite, &mut weights, &mut moments).is_finite());
            assert_eq!(
                (
                    weights,
                    &moments.first[..],
                    &moments.second[..],
                    moments.steps
                ),
                ([1.0, 2.0, 3.0], &[0.5; 3][..], &[0.25; 3][..], 7)
            );
            assert_eq!(step(0.0, &mut weights, &mut moments), 1.0);
            assert!(weights[0] < 1.0 && moments.steps == 8);
        }
    }
}
