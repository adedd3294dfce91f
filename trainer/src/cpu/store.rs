//! A model's weights, accumulated gradients and optimizer moments on the CPU.

use super::adamw::{self, Group, Moments};
use super::block::Weights;
use super::element::{self, Element};
use super::gradients::{self, Gradients, Part, Sink, Sums, add_all};
use super::layout::Entry;
use super::memory::{resize, zeros};
use super::team::Team;
use super::{Precision, bf16};
use crate::model::Parameters;
use crate::optim::{AdamWConfig, ParameterRule};

/// Weights, gradients and moments of a model, one parameter after the other.
#[derive(Debug)]
pub struct Store {
    entries: Vec<Entry>,
    groups: Vec<Group>,
    optimizer: AdamWConfig,
    team: Team,
    weights: Vec<f32>,
    /// The weights in bf16, if gemms take them so; else empty.
    rounded: Vec<bf16>,
    gradients: Vec<f32>,
    /// Gradients of a batch of several micro-batches, where others wait; empty until then.
    batch: Vec<f32>,
    sums: Sums,
    /// First values of the buckets in which gradients are summed over ranks.
    buckets: Vec<usize>,
    /// Whether gradients are accumulated.
    has_gradients: bool,
    moments: Moments,
}

/// One parameter: its name, shape and values.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its name in the reference implementation.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values.
    pub values: &'a [f32],
}

/// Types of the weights in gemms.
pub(crate) trait Rounded: Element {
    /// The weights of a store.
    fn weights<'a>(exact: &'a [f32], rounded: &'a [bf16]) -> Weights<'a, Self>;
}

impl Rounded for f32 {
    fn weights<'a>(exact: &'a [f32], _: &'a [bf16]) -> Weights<'a, Self> {
        Weights {
            exact,
            rounded: exact,
        }
    }
}

impl Rounded for bf16 {
    fn weights<'a>(exact: &'a [f32], rounded: &'a [bf16]) -> Weights<'a, Self> {
        Weights { exact, rounded }
    }
}

impl Store {
    /// Creates a store with the values of `parameters`, which are on the CPU, at the places of
    /// `entries`, and moments of zero.
    pub(crate) fn new(
        entries: Vec<Entry>,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
        precision: Precision,
        threads: usize,
    ) -> candle_core::Result<Self> {
        let count = entries.last().map_or(0, |entry| entry.range.end);
        let groups = entries.iter().map(|entry| Group {
            range: entry.range.clone(),
            rule: rule(&entry.name, entry.shape.len()),
        });
        let mut store = Self {
            groups: groups.collect(),
            optimizer,
            team: Team::new(threads)?,
            weights: zeros(count),
            rounded: match precision {
                Precision::F32 => Vec::new(),
                Precision::Bf16 => zeros(count),
            },
            gradients: zeros(count),
            batch: Vec::new(),
            sums: Sums::default(),
            buckets: gradients::buckets(entries.iter().map(|entry| entry.range.clone())),
            has_gradients: false,
            moments: Moments {
                first: zeros(count),
                second: zeros(count),
                steps: 0,
            },
            entries,
        };
        for (name, variable) in parameters.iter() {
            let entry = store
                .entries
                .iter()
                .find(|entry| entry.name == name && entry.shape == variable.dims());
            let entry = entry.ok_or_else(|| {
                candle_core::Error::Msg(format!("the CPU model has no parameter {name}"))
            })?;
            let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            store.weights[entry.range.clone()].copy_from_slice(&values);
        }
        if parameters.count() != count {
            return Err(candle_core::Error::Msg(
                "the CPU model has more parameters than were given".to_owned(),
            ));
        }
        if precision == Precision::Bf16 {
            element::round(&store.weights, &mut store.rounded);
        }
        Ok(store)
    }

    /// Runs `step`, which adds to the gradients of `part`, unless the loss that it returns is not
    /// finite.
    pub(crate) fn accumulate<'a, T: Rounded>(
        &'a mut self,
        part: Part<'a>,
        step: impl FnOnce(Weights<'_, T>, &mut Gradients<'_>) -> f64 + Send,
    ) -> f64 {
        let Self {
            entries,
            team,
            weights,
            rounded,
            gradients,
            batch,
            sums,
            buckets,
            has_gradients,
            ..
        } = self;
        let (adds, gradients) = match part {
            Part::Whole => (*has_gradients, gradients),
            Part::Micro { .. } if *has_gradients => (false, batch),
            Part::Micro { .. } => (false, gradients),
        };
        resize(gradients, weights.len());
        if !adds {
            // The weights of linear layers, nearly all values, are overwritten.
            entries
                .iter()
                .filter(|entry| !entry.is_linear_weight())
                .for_each(|entry| gradients[entry.range.clone()].fill(0.0));
        }
        let weights = T::weights(weights, rounded);
        match part {
            Part::Whole => {
                let mut gradients = Gradients {
                    values: gradients,
                    adds,
                    sink: None,
                };
                let loss = team.install(|| step(weights, &mut gradients));
                *has_gradients |= loss.is_finite();
                loss
            }
            Part::Micro { index, count, .. } if index + 1 < count => team.install(|| {
                let mut of_one = Gradients {
                    values: &mut *gradients,
                    adds,
                    sink: None,
                };
                let loss = step(weights, &mut of_one);
                drop(of_one);
                sums.push(index, gradients);
                loss
            }),
            Part::Micro {
                count,
                buckets: out,
                ..
            } => {
                let sink = Sink {
                    buckets: buckets.clone(),
                    sums: sums.rest(count),
                    out,
                };
                let mut gradients = Gradients {
                    values: gradients,
                    adds,
                    sink: Some(sink),
                };
                team.install(|| {
                    let loss = step(weights, &mut gradients);
                    // What is left; all, where there was no backward.
                    gradients.complete(0);
                    loss
                })
            }
        }
    }

    /// Takes a part of a batch that has no clips: gradients of 0.
    pub fn accumulate_nothing<'a>(&'a mut self, part: Part<'a>) {
        self.accumulate::<f32>(part, |_, gradients| {
            gradients.values.fill(0.0);
            0.0
        });
    }

    /// Adds the gradients of a batch, whose micro-batches were accumulated, to those that wait.
    pub fn add_batch(&mut self) {
        if self.has_gradients {
            let (batch, gradients) = (&mut self.batch, &mut self.gradients);
            self.team.install(|| add_all(batch, gradients));
        }
        self.has_gradients = true;
    }

    /// Runs `compute` on the weights.
    pub(crate) fn read<T: Rounded, R>(&self, compute: impl FnOnce(Weights<'_, T>) -> R) -> R {
        self.team
            .install(|| compute(T::weights(&self.weights, &self.rounded)))
    }

    /// Performs one step of the optimizer at rate `lr` with the accumulated gradients, and clears
    /// them. Returns their global norm before clipping. If it is not finite, weights and moments do
    /// not change; without gradients it is NaN.
    pub fn update(&mut self, lr: f64) -> f64 {
        let Self {
            groups,
            optimizer,
            team,
            weights,
            rounded,
            gradients,
            has_gradients,
            moments,
            ..
        } = self;
        if !std::mem::take(has_gradients) {
            return f64::NAN;
        }
        team.install(|| {
            if rounded.is_empty() {
                adamw::update::<f32>(optimizer, groups, lr, weights, &mut [], gradients, moments)
            } else {
                adamw::update(optimizer, groups, lr, weights, rounded, gradients, moments)
            }
        })
    }

    /// Discards the accumulated gradients.
    pub const fn discard(&mut self) {
        self.has_gradients = false;
    }

    /// Number of optimizer steps performed.
    pub const fn steps(&self) -> u64 {
        self.moments.steps
    }

    /// Total number of trainable values.
    pub const fn count(&self) -> usize {
        self.weights.len()
    }

    /// Lets `change` replace all weights and moments, which are those after `updates` steps.
    pub fn replace(&mut self, updates: u64, change: &mut dyn FnMut(&mut [f32])) {
        change(&mut self.weights);
        change(&mut self.moments.first);
        change(&mut self.moments.second);
        self.moments.steps = updates;
        if !self.rounded.is_empty() {
            element::round(&self.weights, &mut self.rounded);
        }
    }

    /// Restores the moments as they were after `updates` steps of the optimizer: `fill` is called
    /// with name, shape and values of the two moments of each weight, in the order of the names.
    pub fn restore(&mut self, updates: u64, mut fill: impl FnMut(&str, &[usize], &mut [f32])) {
        let Self {
            entries, moments, ..
        } = self;
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            fill(
                &format!("first/{}", entry.name),
                &entry.shape,
                &mut moments.first[entry.range.clone()],
            );
            fill(
                &format!("second/{}", entry.name),
                &entry.shape,
                &mut moments.second[entry.range.clone()],
            );
        }
        moments.steps = updates;
    }

    /// The weights.
    pub fn weights(&self) -> impl Iterator<Item = View<'_>> {
        self.views(&self.weights)
    }

    /// The accumulated gradients.
    pub fn gradients(&self) -> impl Iterator<Item = View<'_>> {
        self.views(&self.gradients)
    }

    /// The first moments.
    pub fn first_moments(&self) -> impl Iterator<Item = View<'_>> {
        self.views(&self.moments.first)
    }

    /// The second moments.
    pub fn second_moments(&self) -> impl Iterator<Item = View<'_>> {
        self.views(&self.moments.second)
    }

    fn views<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = View<'a>> {
        self.entries.iter().map(|entry| View {
            name: &entry.name,
            shape: &entry.shape,
            values: &values[entry.range.clone()],
        })
    }
}
