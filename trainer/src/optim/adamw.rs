//! AdamW with clipping by the global norm.
//!
//! candle's AdamW has one weight decay for all parameters and hides its moments, which an exact
//! resume needs.

use crate::model::{ParameterError, Parameters};
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Settings of the optimizer. The presets have the reference implementation's values for
/// pre-training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Learning rate for 256 clips per step. A run scales it in proportion to its clips per step:
    /// those of all batches whose gradients it averages.
    pub base_lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay, multiplied by the learning rate; none for biases and other one-dimensional
    /// tensors.
    pub weight_decay: f64,
    /// Maximum global norm of the gradients.
    pub clip_norm: f64,
}

/// Learning rate and weight decay of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterRule {
    /// Factor on the learning rate of the step.
    pub rate: f64,
    /// Weight decay, multiplied by the parameter's learning rate.
    pub weight_decay: f64,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    variable: Var,
    rule: ParameterRule,
    first: Tensor,
    second: Tensor,
}

/// AdamW (Loshchilov and Hutter 2019): decoupled weight decay, and bias-corrected moments.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<Parameter>,
    steps: u64,
}

impl AdamW {
    /// Creates an optimizer of `parameters` at step 0: one rate for all, and weight decay except
    /// for biases and other one-dimensional tensors.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(parameters: &Parameters, config: AdamWConfig) -> Result<Self> {
        let weight_decay = config.weight_decay;
        Self::with_rules(parameters, config, |name, rank| ParameterRule {
            rate: 1.0,
            weight_decay: if decays(name, rank) {
                weight_decay
            } else {
                0.0
            },
        })
    }

    /// Creates an optimizer with a rule per parameter, by name and number of dimensions: layer-wise
    /// rates, for example ([`crate::optim::layer_decay::rule`]).
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn with_rules(
        parameters: &Parameters,
        config: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
    ) -> Result<Self> {
        let parameter = |(name, variable): (&str, &Var)| {
            Ok(Parameter {
                name: name.to_owned(),
                variable: variable.clone(),
                rule: rule(name, variable.rank()),
                first: variable.zeros_like()?,
                second: variable.zeros_like()?,
            })
        };
        Ok(Self {
            config,
            parameters: parameters.iter().map(parameter).collect::<Result<_>>()?,
            steps: 0,
        })
    }

    /// Performs one step along `gradients` at rate `lr`. Returns the global norm of the gradients
    /// before clipping; if it is not finite, nothing changes.
    ///
    /// # Errors
    /// When a parameter has no gradient: the graph is cut, which is a bug.
    pub fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<f64> {
        self.step_along(self.gradients(gradients)?, lr)
    }

    /// The gradients of the parameters, in their order.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn gradients(&self, gradients: &GradStore) -> Result<Vec<Tensor>> {
        self.parameters
            .iter()
            .map(|parameter| gradient(parameter, gradients))
            .collect()
    }

    /// [`Self::step`] with gradients in the order of the parameters.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step_along(&mut self, gradients: Vec<Tensor>, lr: f64) -> Result<f64> {
        let AdamWConfig {
            betas: [beta1, beta2],
            epsilon,
            clip_norm,
            ..
        } = self.config;
        let squares: Vec<Tensor> = gradients
            .iter()
            .map(|gradient| gradient.sqr()?.sum_all())
            .collect::<Result<_>>()?;
        let norm = f64::from(Tensor::stack(&squares, 0)?.sum_all()?.to_scalar::<f32>()?).sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = (clip_norm / (norm + 1e-6)).min(1.0);
        self.steps += 1;
        let correction1 = 1.0 - beta1.powf(self.steps as f64);
        let correction2 = 1.0 - beta2.powf(self.steps as f64);
        for (parameter, gradient) in self.parameters.iter_mut().zip(gradients) {
            let gradient = (gradient * clip)?;
            parameter.first = ((&parameter.first * beta1)? + (&gradient * (1.0 - beta1))?)?;
            parameter.second = ((&parameter.second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let root = ((parameter.second.sqrt()? * correction2.powf(-0.5))? + epsilon)?;
            let ParameterRule { rate, weight_decay } = parameter.rule;
            let lr = lr * rate;
            let update = ((&parameter.first / root)? * (lr / correction1))?;
            let decay = 1.0 - lr * weight_decay;
            let value = parameter.variable.as_detached_tensor();
            parameter.variable.set(&((value * decay)? - update)?)?;
        }
        Ok(norm)
    }

    /// Number of steps performed.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments, named `first/NAME` and `second/NAME` for each parameter.
    pub fn moments(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.parameters.iter().flat_map(|p| {
            [
                (format!("first/{}", p.name), &p.first),
                (format!("second/{}", p.name), &p.second),
            ]
        })
    }

    /// Restores [`Self::moments`] as they were after `steps` steps.
    ///
    /// # Errors
    /// [`ParameterError::Moments`] when a moment is missing, has another shape, or belongs to no
    /// parameter.
    pub fn restore(
        &mut self,
        mut moments: HashMap<String, Tensor>,
        steps: u64,
    ) -> std::result::Result<(), ParameterError> {
        let mut problems = Vec::new();
        for parameter in &mut self.parameters {
            let device = parameter.variable.device().clone();
            for (prefix, moment) in [
                ("first", &mut parameter.first),
                ("second", &mut parameter.second),
            ] {
                let name = format!("{prefix}/{}", parameter.name);
                match moments.remove(&name) {
                    Some(stored) if stored.dims() == moment.dims() => {
                        *moment = stored.to_dtype(DType::F32)?.to_device(&device)?
                    }
                    Some(stored) => problems.push(format!(
                        "{name} is {:?}, not {:?}",
                        stored.dims(),
                        moment.dims()
                    )),
                    None => problems.push(format!("{name} is missing")),
                }
            }
        }
        let mut unknown: Vec<String> = moments
            .into_keys()
            .map(|name| format!("{name} is not part of it"))
            .collect();
        unknown.sort_unstable();
        problems.append(&mut unknown);
        self.steps = steps;
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ParameterError::Moments { problems })
        }
    }
}

/// Whether a parameter of `rank` dimensions decays in pre-training: as in the reference
/// implementation, all but biases and other one-dimensional ones.
pub(crate) fn decays(name: &str, rank: usize) -> bool {
    rank > 1 && !name.ends_with(".bias")
}

fn gradient(parameter: &Parameter, gradients: &GradStore) -> Result<Tensor> {
    let gradient = gradients.get(&parameter.variable);
    gradient.cloned().ok_or_else(|| {
        candle_core::Error::Msg(format!(
            "{} has no gradient: the graph is cut",
            parameter.name
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Classifier, ClassifierConfig, Conventions, PositionKind, TransformerConfig,
    };
    use candle_core::{DType, Device};
    use schemas::geometry::PatchGrid;

    #[test]
    fn each_parameter_has_its_own_rate_and_decay() {
        let grid = PatchGrid {
            frames: 2,
            size: 4,
            tubelet: 1,
            patch: 2,
        };
        let encoder = TransformerConfig {
            width: 4,
            depth: 1,
            heads: 2,
        };
        let positions = PositionKind::Separable;
        let config = ClassifierConfig {
            grid,
            encoder,
            positions,
            class_token: true,
            classes: 3,
            conventions: Conventions::default(),
        };
        let model = Classifier::seeded(config, 1, &Device::Cpu).expect("a model");
        // The optimizer updates variables in place, so copy them first.
        let before: Vec<Tensor> = model
            .parameters()
            .iter()
            .map(|(_, variable)| variable.copy().expect("a copy"))
            .collect();
        let settings = AdamWConfig {
            base_lr: 0.0,
            betas: [0.9, 0.95],
            epsilon: 1e-12,
            weight_decay: 0.0,
            clip_norm: f64::INFINITY,
        };
        let rule = |name: &str, rank: usize| ParameterRule {
            rate: if name.starts_with("head") { 1.0 } else { 0.5 },
            weight_decay: if rank > 1 { 0.1 } else { 0.0 },
        };
        let mut optimizer =
            AdamW::with_rules(model.parameters(), settings, rule).expect("an optimizer");
        let mut gradients = Var::zeros(1, DType::F32, &Device::Cpu)
            .and_then(|nothing| nothing.backward())
            .expect("a store");
        for (_, variable) in model.parameters().iter() {
            gradients.insert(variable, variable.ones_like().expect("ones"));
        }
        optimizer.step(&gradients, 0.25).expect("a step");
        for ((name, variable), before) in model.parameters().iter().zip(before) {
            // The first step of Adam is the rate, against the sign of the gradient.
            let lr = if name.starts_with("head") {
                0.25
            } else {
                0.125
            };
            let decay = if variable.rank() > 1 {
                1.0 - lr * 0.1
            } else {
                1.0
            };
            let off = (before * decay)
                .and_then(|kept| (kept - lr)? - variable.as_tensor())
                .and_then(|off| off.abs()?.max_all()?.to_scalar::<f32>());
            assert!(off.expect("a number") < 1e-6, "{name}");
        }
    }
}
