//! The training step on the CPU, by hand: what [`crate::model::Mae`] computes with candle's operations and its graph, with forward and backward of fused
//! operations over plain memory. The composed model is the definition; tests compare both.
//!
//! The rooms, from the processor up:
//! - `simd`, `element`, `kernel`, `pack`, `shared`: vectors, types, the innermost loop, and the order of operands;
//! - `gemm`, `attention`, `rows`: products of matrices, attention, and what is done to rows, each forward and backward;
//! - `layout`, `store`, `adamw`: where a model's values lie, the values, and their update;
//! - `block`, `stack`, `encoder`: blocks, one after the other, and with what comes before them; `mae`, `classifier`: whole models;
//! - `noise`: batches to measure with.
//!
//! Results do not depend on the number of threads.

mod adamw;
mod attention;
mod block;
mod classifier;
mod element;
mod encoder;
mod gemm;
mod kernel;
mod layout;
mod mae;
mod noise;
mod norm_gelu;
mod pack;
mod shared;
mod simd;
mod stack;
mod store;

pub use classifier::{Encoded, Labelled};
pub use encoder::Values;
pub use mae::{Patches, StepTimes};
pub use noise::Noise;
pub use stack::BranchScales;
pub use store::{Store, View};

use crate::model::{ClassifierConfig, MaeConfig, Parameters};
use crate::optim::{AdamWConfig, ParameterRule, decays};
use half::bf16;
use layout::{ClassifierLayout, MaeLayout};
use pipeline::sampling::mask::Masks;
use rayon::ThreadPoolBuilder;
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

/// A masked autoencoder that trains on the CPU.
#[derive(Debug)]
pub struct CpuMae {
    config: MaeConfig,
    layout: MaeLayout,
    store: Store,
    workspace: Typed<mae::Workspace<f32>, mae::Workspace<bf16>>,
    times: StepTimes,
}

/// A classifier that trains on the CPU; without classes an encoder alone, which reads clips.
#[derive(Debug)]
pub struct CpuClassifier {
    layout: ClassifierLayout,
    store: Store,
    workspace: Typed<classifier::Workspace<f32>, classifier::Workspace<bf16>>,
}

/// What depends on the precision.
#[derive(Debug)]
enum Typed<A, B> {
    F32(Box<A>),
    Bf16(Box<B>),
}

impl CpuMae {
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
        let (layout, entries) = MaeLayout::new(&config);
        let weight_decay = optimizer.weight_decay;
        let rule = |name: &str, rank| ParameterRule { rate: 1.0, weight_decay: if decays(name, rank) { weight_decay } else { 0.0 } };
        let store = Store::new(entries, parameters, optimizer, rule, precision, resources.threads)?;
        let workspace = match precision {
            Precision::F32 => Typed::F32(Box::new(mae::Workspace::new(config, resources.recomputes))),
            Precision::Bf16 => Typed::Bf16(Box::new(mae::Workspace::new(config, resources.recomputes))),
        };
        Ok(Self { config, layout, store, workspace, times: StepTimes::default() })
    }

    /// Forward and backward of a batch: gives its loss, and adds `share` times its gradients to those that wait for [`Self::update`]. A loss that is not finite
    /// adds nothing.
    ///
    /// # Panics
    /// When the batch has other sizes than the model.
    pub fn accumulate(&mut self, batch: &Patches<'_>, share: f64) -> f64 {
        let Self { layout, store, workspace, times, .. } = self;
        match workspace {
            Typed::F32(workspace) => store.accumulate(|weights, gradients| workspace.step(layout, weights, batch, share, gradients, times)),
            Typed::Bf16(workspace) => {
                store.accumulate(|weights, gradients| workspace.step(layout, weights, batch, share, gradients, times))
            }
        }
    }

    /// One step of the optimiser at rate `lr` along the gradients that wait, which are then forgotten. Gives their global norm before clipping. When that is not
    /// finite, weights and moments stay; without gradients it is NaN.
    pub fn update(&mut self, lr: f64) -> f64 {
        let began = Instant::now();
        let norm = self.store.update(lr);
        self.times.optimizer += began.elapsed();
        norm
    }

    /// The shapes of the model.
    pub const fn config(&self) -> &MaeConfig {
        &self.config
    }

    /// Predictions `[clips, predicted, values]` of the predicted tokens.
    ///
    /// # Panics
    /// When the batch has other sizes than the model.
    pub fn predict(&mut self, masks: Masks<'_>, visible: Values<'_>) -> &[f32] {
        let Self { layout, store, workspace, .. } = self;
        match workspace {
            Typed::F32(workspace) => store.read(|weights| workspace.predict(layout, weights, masks, visible)),
            Typed::Bf16(workspace) => store.read(|weights| workspace.predict(layout, weights, masks, visible)),
        }
    }

    /// How long the parts of the steps took since this was last asked.
    pub fn take_times(&mut self) -> StepTimes {
        std::mem::take(&mut self.times)
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Its values, to be changed.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl CpuClassifier {
    /// A model with the values of `parameters`, which are on the CPU, and moments at zero. `rule` gives rate and decay for a name and a number of dimensions.
    ///
    /// # Errors
    /// When a parameter is missing: the composed model and this one have gone apart, a bug.
    pub fn new(
        config: ClassifierConfig,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
        precision: Precision,
        resources: Resources,
    ) -> candle_core::Result<Self> {
        let (layout, entries) = ClassifierLayout::new(&config);
        let store = Store::new(entries, parameters, optimizer, rule, precision, resources.threads)?;
        let workspace = match precision {
            Precision::F32 => Typed::F32(Box::new(classifier::Workspace::new(config, resources.recomputes))),
            Precision::Bf16 => Typed::Bf16(Box::new(classifier::Workspace::new(config, resources.recomputes))),
        };
        Ok(Self { layout, store, workspace })
    }

    /// Forward and backward of a batch: gives its loss, and adds `share` times its gradients to those that wait for [`Store::update`]. A loss that is not finite
    /// adds nothing.
    ///
    /// # Panics
    /// When the batch has other sizes than the model, or the model is an encoder alone.
    pub fn accumulate(&mut self, batch: &Labelled<'_>, share: f64) -> f64 {
        let Self { layout, store, workspace } = self;
        match workspace {
            Typed::F32(workspace) => store.accumulate(|weights, gradients| workspace.step(layout, weights, batch, share, gradients)),
            Typed::Bf16(workspace) => store.accumulate(|weights, gradients| workspace.step(layout, weights, batch, share, gradients)),
        }
    }

    /// What the model makes of whole clips, as [`Labelled::pixels`] has them. With `tokens`, also what it makes of every token.
    ///
    /// # Panics
    /// When the batch has other sizes than the model.
    pub fn read(&mut self, masks: Masks<'_>, pixels: Values<'_>, tokens: bool) -> Encoded<'_> {
        let Self { layout, store, workspace } = self;
        match workspace {
            Typed::F32(workspace) => store.read(|weights| workspace.read(layout, weights, masks, pixels, tokens)),
            Typed::Bf16(workspace) => store.read(|weights| workspace.read(layout, weights, masks, pixels, tokens)),
        }
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Its values, to be changed.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// What one large matrix gemm reaches on this workspace, in 10^9 operations a second: the median of several.
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
                gemm::gemm(left, right, SHAPE, &mut out, |part| part.out.copy_from_slice(part.sums));
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
