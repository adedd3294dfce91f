//! A model's values on the CPU: weights, the gradients that wait for a step, and the optimiser's moments.

use super::adamw::{self, Group, Moments};
use super::block::{Gradients, Weights};
use super::element::{self, Element};
use super::layout::Entry;
use super::{Precision, bf16};
use crate::model::Parameters;
use crate::optim::{AdamWConfig, ParameterRule};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// All values of a model, one parameter after the other.
#[derive(Debug)]
pub struct Store {
    entries: Vec<Entry>,
    groups: Vec<Group>,
    optimizer: AdamWConfig,
    pool: ThreadPool,
    weights: Vec<f32>,
    /// The weights as products take them, where that is not as they are.
    rounded: Vec<bf16>,
    gradients: Vec<f32>,
    /// Whether gradients wait for an update.
    waiting: bool,
    moments: Moments,
}

/// One parameter's values: name, shape, and what belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The reference's name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values.
    pub values: &'a [f32],
}

/// Types in which products take weights.
pub(crate) trait Rounded: Element {
    /// The weights of a store.
    fn weights<'a>(exact: &'a [f32], rounded: &'a [bf16]) -> Weights<'a, Self>;
}

impl Rounded for f32 {
    fn weights<'a>(exact: &'a [f32], _: &'a [bf16]) -> Weights<'a, Self> {
        Weights { exact, rounded: exact }
    }
}

impl Rounded for bf16 {
    fn weights<'a>(exact: &'a [f32], rounded: &'a [bf16]) -> Weights<'a, Self> {
        Weights { exact, rounded }
    }
}

impl Store {
    /// The values of `parameters`, which are on the CPU, in the places that `entries` say; moments at zero.
    pub(crate) fn new(
        entries: Vec<Entry>,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
        precision: Precision,
        threads: usize,
    ) -> candle_core::Result<Self> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("compute-{at}")).build();
        let count = entries.last().map_or(0, |entry| entry.range.end);
        let groups = entries.iter().map(|entry| Group { range: entry.range.clone(), rule: rule(&entry.name, entry.shape.len()) });
        let mut store = Self {
            groups: groups.collect(),
            optimizer,
            pool: pool.map_err(candle_core::Error::wrap)?,
            weights: vec![0.0; count],
            rounded: vec![bf16::ZERO; if precision == Precision::Bf16 { count } else { 0 }],
            gradients: vec![0.0; count],
            waiting: false,
            moments: Moments { first: vec![0.0; count], second: vec![0.0; count], steps: 0 },
            entries,
        };
        for (name, variable) in parameters.iter() {
            let entry = store.entries.iter().find(|entry| entry.name == name && entry.shape == variable.dims());
            let entry = entry.ok_or_else(|| candle_core::Error::Msg(format!("the fused model has no place for {name}")))?;
            let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            store.weights[entry.range.clone()].copy_from_slice(&values);
        }
        if parameters.count() != count {
            return Err(candle_core::Error::Msg("the fused model has more parameters than it was given".to_owned()));
        }
        if precision == Precision::Bf16 {
            element::round(&store.weights, &mut store.rounded);
        }
        Ok(store)
    }

    /// Lets `step` add to the gradients that wait, unless the loss that it gives is not finite.
    pub(crate) fn accumulate<T: Rounded>(&mut self, step: impl FnOnce(Weights<'_, T>, &mut Gradients<'_>) -> f64 + Send) -> f64 {
        let Self { entries, pool, weights, rounded, gradients, waiting, .. } = self;
        if !*waiting {
            // Those of linear layers' weights, nearly all, are written over.
            entries.iter().filter(|entry| !entry.is_product()).for_each(|entry| gradients[entry.range.clone()].fill(0.0));
        }
        let mut gradients = Gradients { values: gradients, adds: *waiting };
        let loss = pool.install(|| step(T::weights(weights, rounded), &mut gradients));
        *waiting |= loss.is_finite();
        loss
    }

    /// What `compute` makes of the weights.
    pub(crate) fn read<T: Rounded, R: Send>(&self, compute: impl FnOnce(Weights<'_, T>) -> R + Send) -> R {
        self.pool.install(|| compute(T::weights(&self.weights, &self.rounded)))
    }

    /// One step of the optimiser at rate `lr` along the gradients that wait, which are then forgotten. Gives their global norm before clipping. When that is not
    /// finite, weights and moments stay; without gradients it is NaN.
    pub fn update(&mut self, lr: f64) -> f64 {
        let Self { groups, optimizer, pool, weights, rounded, gradients, waiting, moments, .. } = self;
        if !std::mem::take(waiting) {
            return f64::NAN;
        }
        pool.install(|| {
            if rounded.is_empty() {
                adamw::update::<f32>(optimizer, groups, lr, weights, &mut [], gradients, moments)
            } else {
                adamw::update(optimizer, groups, lr, weights, rounded, gradients, moments)
            }
        })
    }

    /// Forgets the gradients that wait.
    pub const fn discard(&mut self) {
        self.waiting = false;
    }

    /// Steps of the optimiser.
    pub const fn steps(&self) -> u64 {
        self.moments.steps
    }

    /// Trainable values in all.
    pub const fn count(&self) -> usize {
        self.weights.len()
    }

    /// Goes on after `updates` steps of the optimiser: `fill` is asked for the two moments of each weight by name, shape and place, weights in the order of their
    /// names.
    pub fn restore(&mut self, updates: u64, mut fill: impl FnMut(&str, &[usize], &mut [f32])) {
        let Self { entries, moments, .. } = self;
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            fill(&format!("first/{}", entry.name), &entry.shape, &mut moments.first[entry.range.clone()]);
            fill(&format!("second/{}", entry.name), &entry.shape, &mut moments.second[entry.range.clone()]);
        }
        moments.steps = updates;
    }

    /// The weights.
    pub fn weights(&self) -> impl Iterator<Item = View<'_>> {
        self.views(&self.weights)
    }

    /// The gradients that wait for an update.
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
        self.entries.iter().map(|entry| View { name: &entry.name, shape: &entry.shape, values: &values[entry.range.clone()] })
    }
}
