//! The training step on the CPU, by hand: what [`crate::model::Mae`] computes with candle's operations and its graph, with forward and backward of fused
//! operations over plain memory. The composed model is the definition; tests compare both.
//!
//! The rooms, from the processor up:
//! - `simd`, `element`, `kernel`, `pack`, `shared`: vectors, types, the innermost loop, and the order of operands;
//! - `product`, `attention`, `rows`: products of matrices, attention, and what is done to rows, each forward and backward;
//! - `layout`, `block`, `mae`: a model's values, its blocks, and the whole; `adamw`: their update; `noise`: batches to measure with.
//!
//! Results do not depend on the number of threads.

mod adamw;
mod attention;
mod block;
mod element;
mod kernel;
mod layout;
mod mae;
mod noise;
mod pack;
mod product;
mod rows;
mod shared;
mod simd;

pub use mae::{Patches, StepTimes, Values};
pub use noise::Noise;

use crate::model::{MaeConfig, Parameters};
use crate::optimizer::{AdamWConfig, decays};
use adamw::{Group, Moments};
use block::{Gradients, Weights};
use half::bf16;
use layout::MaeLayout;
use mae::Machine;
use pipeline::mask::Masks;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Type of the activations and of the weights as they are multiplied. Weights, moments, gradients, sums and the residual stream are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: half the memory traffic, and products of pairs where the processor has them.
    Bf16,
}

/// How a model is computed, as far as the results are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Threads.
    pub threads: usize,
    /// Keep only the inputs of blocks, and compute the rest once more in the backward: less memory, a third more time.
    pub recomputes: bool,
}

/// A model that trains on the CPU: its weights, gradients and moments.
#[derive(Debug)]
pub struct Fused {
    layout: MaeLayout,
    groups: Vec<Group>,
    optimizer: AdamWConfig,
    pool: ThreadPool,
    weights: Vec<f32>,
    gradients: Vec<f32>,
    /// Whether gradients wait for an update.
    waiting: bool,
    moments: Moments,
    times: StepTimes,
    typed: Typed,
}

/// What depends on the precision.
#[derive(Debug)]
enum Typed {
    F32(Box<Machine<f32>>),
    Bf16(Box<Machine<bf16>>, Vec<bf16>),
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

impl Fused {
    /// A model with the values of `parameters`, which are on the CPU, and moments at zero.
    ///
    /// # Errors
    /// When a parameter is missing: the composed model and this one have gone apart, a bug.
    pub fn new(
        config: MaeConfig,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        precision: Precision,
        resources: Resources,
    ) -> candle_core::Result<Self> {
        let layout = MaeLayout::new(&config);
        let pool = ThreadPoolBuilder::new().num_threads(resources.threads).thread_name(|at| format!("compute-{at}")).build();
        let count = layout.len();
        let groups =
            layout.entries.iter().map(|entry| Group { range: entry.range.clone(), decays: decays(&entry.name, entry.shape.len()) });
        let mut fused = Self {
            groups: groups.collect(),
            optimizer,
            pool: pool.map_err(candle_core::Error::wrap)?,
            weights: vec![0.0; count],
            gradients: vec![0.0; count],
            waiting: false,
            moments: Moments { first: vec![0.0; count], second: vec![0.0; count], steps: 0 },
            times: StepTimes::default(),
            typed: match precision {
                Precision::F32 => Typed::F32(Box::new(Machine::new(config, resources.recomputes))),
                Precision::Bf16 => Typed::Bf16(Box::new(Machine::new(config, resources.recomputes)), vec![bf16::ZERO; count]),
            },
            layout,
        };
        for (name, variable) in parameters.iter() {
            let entry = fused.layout.entries.iter().find(|entry| entry.name == name && entry.shape == variable.dims());
            let entry = entry.ok_or_else(|| candle_core::Error::Msg(format!("the fused model has no place for {name}")))?;
            let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            fused.weights[entry.range.clone()].copy_from_slice(&values);
        }
        if parameters.count() != count {
            return Err(candle_core::Error::Msg("the fused model has more parameters than it was given".to_owned()));
        }
        fused.round();
        Ok(fused)
    }

    fn round(&mut self) {
        if let Typed::Bf16(_, rounded) = &mut self.typed {
            element::round(&self.weights, rounded);
        }
    }

    /// Forward and backward of a batch: gives its loss, and adds `share` times its gradients to those that wait for [`Self::update`]. A loss that is not finite
    /// adds nothing.
    ///
    /// # Panics
    /// When the batch has other sizes than the model.
    pub fn accumulate(&mut self, batch: &Patches<'_>, share: f64) -> f64 {
        let Self { layout, pool, weights, gradients, waiting, times, typed, .. } = self;
        if !*waiting {
            // Those of linear layers' weights, nearly all, are written over.
            layout.entries.iter().filter(|entry| !entry.is_product()).for_each(|entry| gradients[entry.range.clone()].fill(0.0));
        }
        let mut gradients = Gradients { values: gradients, adds: *waiting };
        let gradients = &mut gradients;
        let loss = pool.install(|| match typed {
            Typed::F32(machine) => machine.step(layout, Weights { exact: weights, rounded: weights }, batch, share, gradients, times),
            Typed::Bf16(machine, rounded) => machine.step(layout, Weights { exact: weights, rounded }, batch, share, gradients, times),
        });
        *waiting |= loss.is_finite();
        loss
    }

    /// One step of the optimiser at rate `lr` along the gradients that wait, which are then forgotten. Gives their global norm before clipping. When that is not
    /// finite, weights and moments stay; without gradients it is NaN.
    pub fn update(&mut self, lr: f64) -> f64 {
        let Self { groups, optimizer, pool, weights, gradients, waiting, moments, times, typed, .. } = self;
        if !std::mem::take(waiting) {
            return f64::NAN;
        }
        let began = Instant::now();
        let norm = pool.install(|| match typed {
            Typed::F32(_) => adamw::update::<f32>(optimizer, groups, lr, weights, &mut [], gradients, moments),
            Typed::Bf16(_, rounded) => adamw::update(optimizer, groups, lr, weights, rounded, gradients, moments),
        });
        times.optimizer += began.elapsed();
        norm
    }

    /// Forgets the gradients that wait.
    pub const fn discard(&mut self) {
        self.waiting = false;
    }

    /// Predictions `[clips, predicted, values]` of the predicted tokens.
    ///
    /// # Panics
    /// When the batch has other sizes than the model.
    pub fn predict(&mut self, masks: Masks<'_>, visible: Values<'_>) -> &[f32] {
        let Self { layout, pool, weights, typed, .. } = self;
        pool.install(|| match typed {
            Typed::F32(machine) => machine.predict(layout, Weights { exact: weights, rounded: weights }, masks, visible),
            Typed::Bf16(machine, rounded) => machine.predict(layout, Weights { exact: weights, rounded }, masks, visible),
        })
    }

    /// How long the parts of the steps took since this was last asked.
    pub fn take_times(&mut self) -> StepTimes {
        std::mem::take(&mut self.times)
    }

    /// Steps of the optimiser.
    pub const fn steps(&self) -> u64 {
        self.moments.steps
    }

    /// Trainable values in all.
    pub fn count(&self) -> usize {
        self.layout.len()
    }

    /// Goes on after `updates` steps of the optimiser: `fill` is asked for the two moments of each weight by name, shape and place, weights in the order of their
    /// names.
    pub fn restore(&mut self, updates: u64, mut fill: impl FnMut(&str, &[usize], &mut [f32])) {
        let Self { layout, moments, .. } = self;
        let mut entries: Vec<_> = layout.entries.iter().collect();
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
        self.layout.entries.iter().map(|entry| View { name: &entry.name, shape: &entry.shape, values: &values[entry.range.clone()] })
    }
}

/// What one large matrix product reaches on this machine, in 10^9 operations a second: the median of several.
pub fn matrix_product_rate(precision: Precision, threads: usize) -> f64 {
    fn rate<T: element::Element>() -> f64 {
        const SHAPE: [usize; 3] = [3136, 512, 2048];
        let [rows, inner, columns] = SHAPE;
        let matrix = |count: usize| (0..count).map(|at| T::from_f32((at % 17) as f32 * 0.1 - 0.8)).collect::<Vec<_>>();
        let (left, right, mut out) = (matrix(rows * inner), matrix(columns * inner), vec![0f32; rows * columns]);
        let mut seconds: Vec<f64> = (0..PRODUCTS)
            .map(|_| {
                let began = Instant::now();
                let (left, right) = (pack::Operand::rows(&left, inner), pack::Operand::rows(&right, inner));
                product::product(left, right, SHAPE, &mut out, |part| part.out.copy_from_slice(part.sums));
                began.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        2e-9 * (rows * inner * columns) as f64 / seconds[PRODUCTS / 2]
    }
    const PRODUCTS: usize = 15;
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_or(f64::NAN, |pool| {
        pool.install(|| match precision {
            Precision::F32 => rate::<f32>(),
            Precision::Bf16 => rate::<bf16>(),
        })
    })
}
