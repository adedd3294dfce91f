//! Trainable tensors by name, and their initialisation.

use candle_core::{DType, Device, Result, Tensor, Var};
use pipeline::sampling::order::{Purpose, stream};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use std::collections::{BTreeMap, HashMap};
use xxhash_rust::xxh3::xxh3_64;

/// Standard deviation of the initial cls token and mask token, and of learned positions unless
/// another is given, as in the reference implementation.
pub(crate) const TOKEN_STD: f64 = 0.02;

/// Standard deviation of a classifier's initial head, as in the reference implementation's
/// fine-tuning.
const HEAD_STD: f32 = 2e-5;

/// Initialisation of a parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with standard deviation 0.02.
    Token,
    /// Normal with the standard deviation of positions.
    Position,
    /// Normal with standard deviation 2e-5.
    Head,
    /// Uniform in ±sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010), of the tensor flattened
    /// to `[fan out, fan in]`.
    Xavier,
    /// Uniform in ±1 / sqrt(fan in): the bias of a convolution in PyTorch.
    ConvolutionBias {
        /// Inputs per output.
        fan_in: usize,
    },
}

/// Weights that do not fit the model.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// Names or shapes differ.
    #[error("the weights do not fit this model: {}", problems.join("; "))]
    Mismatch {
        /// One per parameter that is missing, has another shape, or does not belong to the model.
        problems: Vec<String>,
    },
    /// Names or shapes of the optimizer's moments differ.
    #[error("the optimizer's moments do not fit this model: {}", problems.join("; "))]
    Moments {
        /// One per moment that is missing, has another shape, or belongs to no parameter.
        problems: Vec<String>,
    },
    /// candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Source of the values while a model is built.
#[derive(Debug)]
enum Source {
    /// Random values drawn from a seed.
    Seed(u64),
    /// Existing tensors; those that the model has taken are removed.
    Tensors(HashMap<String, Tensor>),
}

/// Creates the parameters of a model, one by one, and keeps all of them.
#[derive(Debug)]
pub(crate) struct ParameterBuilder {
    source: Source,
    device: Device,
    /// Standard deviation of the initial positions.
    pub(crate) position_std: f64,
    variables: BTreeMap<String, Var>,
    problems: Vec<String>,
}

impl ParameterBuilder {
    pub(crate) fn seeded(seed: u64, device: &Device) -> Self {
        Self {
            source: Source::Seed(seed),
            device: device.clone(),
            position_std: TOKEN_STD,
            variables: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    pub(crate) fn from_tensors(values: HashMap<String, Tensor>, device: &Device) -> Self {
        Self {
            source: Source::Tensors(values),
            device: device.clone(),
            position_std: TOKEN_STD,
            variables: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// The device of the parameters.
    pub(crate) const fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter `name`, f32. Tensors that do not fit are recorded, and reported by
    /// [`Self::finish`].
    pub(crate) fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let value = match &mut self.source {
            Source::Seed(seed) => {
                let values = initial(*seed, name, shape, init, self.position_std);
                Tensor::from_vec(values, shape, &self.device)?
            }
            Source::Tensors(values) => match values.remove(name) {
                Some(value) if value.dims() == shape => {
                    value.to_dtype(DType::F32)?.to_device(&self.device)?
                }
                Some(value) => {
                    self.problems
                        .push(format!("{name} is {:?}, not {shape:?}", value.dims()));
                    Tensor::zeros(shape, DType::F32, &self.device)?
                }
                None => {
                    self.problems.push(format!("{name} is missing"));
                    Tensor::zeros(shape, DType::F32, &self.device)?
                }
            },
        };
        let variable = Var::from_tensor(&value)?;
        let tensor = variable.as_tensor().clone();
        let earlier = self.variables.insert(name.to_owned(), variable);
        debug_assert!(earlier.is_none(), "{name} is created twice");
        Ok(tensor)
    }

    /// All parameters that were created.
    pub(crate) fn finish(mut self) -> std::result::Result<Parameters, ParameterError> {
        if let Source::Tensors(values) = self.source {
            let mut unknown: Vec<String> = values
                .into_keys()
                .map(|name| format!("{name} is not part of it"))
                .collect();
            unknown.sort_unstable();
            self.problems.append(&mut unknown);
        }
        if self.problems.is_empty() {
            Ok(Parameters(self.variables))
        } else {
            Err(ParameterError::Mismatch {
                problems: self.problems,
            })
        }
    }
}

/// The initial value of a parameter: a pure function of seed and name.
fn initial(seed: u64, name: &str, shape: &[usize], init: Init, position_std: f64) -> Vec<f32> {
    let mut rng = stream(Purpose::Init, seed, 0, xxh3_64(name.as_bytes()));
    let count = shape.iter().product::<usize>();
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Token => normal(&mut rng, count, TOKEN_STD as f32),
        Init::Position => normal(&mut rng, count, position_std as f32),
        Init::Head => normal(&mut rng, count, HEAD_STD),
        Init::Xavier => {
            let fan_out = shape[0];
            uniform(
                &mut rng,
                count,
                (6.0 / (fan_out + count / fan_out) as f32).sqrt(),
            )
        }
        Init::ConvolutionBias { fan_in } => uniform(&mut rng, count, 1.0 / (fan_in as f32).sqrt()),
    }
}

fn normal(rng: &mut impl Rng, count: usize, deviation: f32) -> Vec<f32> {
    (0..count)
        .map(|_| deviation * <StandardNormal as Distribution<f32>>::sample(&StandardNormal, rng))
        .collect()
}

fn uniform(rng: &mut impl Rng, count: usize, bound: f32) -> Vec<f32> {
    (0..count)
        .map(|_| rng.random_range(-bound..=bound))
        .collect()
}

/// The trainable tensors of a model, ordered by name (so in the same order in every process).
#[derive(Debug, Clone)]
pub struct Parameters(BTreeMap<String, Var>);

impl Parameters {
    /// Names and variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.0
            .iter()
            .map(|(name, variable)| (name.as_str(), variable))
    }

    /// Total number of trainable values.
    pub fn count(&self) -> usize {
        self.0.values().map(|variable| variable.elem_count()).sum()
    }
}
