//! A hand-written training step for the CPU. It computes the same as [`crate::model`] does with
//! candle's operations and graph, with fused operations, forward and backward, on plain memory. The
//! candle model is the definition; tests compare both.
//!
//! Modules, from the CPU up:
//! - `team`, `shared`, `memory`: threads, and the memory that they write;
//! - `simd`, `element`, `vector`, `kernel`, `pack`: instruction sets, types, the micro-kernel, and
//!   the packing of operands;
//! - `gemm`, `attention`, `norm_gelu`: gemms, attention, layer normalisation and GELU, each forward
//!   and backward;
//! - `layout`, `store`, `adamw`: the places of a model's parameters, their values, and their
//!   update;
//! - `gradients`: where gradients go when they are complete; sums of micro-batches;
//! - `block`, `stack`, `encoder`: a block, a stack of blocks, and the encoder; `mae`, `classifier`:
//!   whole models;
//! - `random_batch`: batches for benchmarks and tests.
//!
//! Results do not depend on the number of threads.

mod adamw;
mod attention;
mod block;
mod classifier;
mod element;
mod encoder;
mod gemm;
mod gradients;
mod kernel;
mod layout;
mod mae;
mod memory;
mod norm_gelu;
mod pack;
mod random_batch;
mod shared;
mod simd;
mod stack;
mod store;
mod team;
mod vector;

pub use classifier::{Encoded, Labelled};
pub use encoder::Values;
pub use gradients::Part;
pub use mae::{Patches, StepTimes};
pub use random_batch::RandomBatch;
pub use stack::BranchScales;
pub use store::{Store, View};

use crate::model::{ClassifierConfig, MaeConfig, Parameters};
use crate::optim::{AdamWConfig, ParameterRule, decays};
use half::bf16;
use layout::{ClassifierLayout, MaeLayout};
use pipeline::sampling::mask::Masks;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Type of the activations and of the weights in gemms. Master weights, moments, gradients, sums
/// and the residual stream are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: half the memory traffic, and faster gemms where the CPU supports bf16.
    Bf16,
}

/// Settings of the computation that do not affect the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Number of threads.
    pub threads: usize,
    /// Gradient checkpointing: save only the inputs of blocks, and recompute the rest in the
    /// backward. Less memory, a third more time.
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

/// A classifier that trains on the CPU; with 0 classes, an encoder alone, for inference.
#[derive(Debug)]
pub struct CpuClassifier {
    layout: ClassifierLayout,
    store: Store,
    workspace: Typed<classifier::Workspace<f32>, classifier::Workspace<bf16>>,
}

/// A value whose type depends on the precision.
#[derive(Debug)]
enum Typed<A, B> {
    F32(Box<A>),
    Bf16(Box<B>),
}

impl CpuMae {
    /// Creates a model with the values of `parameters`, which are on the CPU, and moments of zero.
    ///
    /// # Errors
    /// When a parameter is missing: the candle model and this one differ, which is a bug.
    pub fn new(
        config: MaeConfig,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        precision: Precision,
        resources: Resources,
    ) -> candle_core::Result<Self> {
        let (layout, entries) = MaeLayout::new(&config);
        let weight_decay = optimizer.weight_decay;
        let rule = |name: &str, rank| ParameterRule {
            rate: 1.0,
            weight_decay: if decays(name, rank) {
                weight_decay
            } else {
                0.0
            },
        };
        let store = Store::new(
            entries,
            parameters,
            optimizer,
            rule,
            precision,
            resources.threads,
        )?;
        let workspace = match precision {
            Precision::F32 => {
                Typed::F32(Box::new(mae::Workspace::new(config, resources.recomputes)))
            }
            Precision::Bf16 => {
                Typed::Bf16(Box::new(mae::Workspace::new(config, resources.recomputes)))
            }
        };
        Ok(Self {
            config,
            layout,
            store,
            workspace,
            times: StepTimes::default(),
        })
    }

    /// Runs forward and backward on a batch: returns its loss, and adds `share` times its gradients
    /// to those accumulated for [`Self::update`]. A loss that is not finite adds nothing.
    ///
    /// # Panics
    /// When the batch does not have the model's sizes.
    pub fn accumulate(&mut self, batch: &Patches<'_>, share: f64) -> f64 {
        self.accumulate_part(batch, share, Part::Whole)
    }

    /// [`Self::accumulate`] of a part of a batch.
    ///
    /// # Panics
    /// When it does not have the model's sizes.
    pub fn accumulate_part<'a>(
        &'a mut self,
        batch: &Patches<'_>,
        share: f64,
        part: Part<'a>,
    ) -> f64 {
        let Self {
            layout,
            store,
            workspace,
            times,
            ..
        } = self;
        match workspace {
            Typed::F32(workspace) => store.accumulate(part, |weights, gradients| {
                workspace.step(layout, weights, batch, share, gradients, times)
            }),
            Typed::Bf16(workspace) => store.accumulate(part, |weights, gradients| {
                workspace.step(layout, weights, batch, share, gradients, times)
            }),
        }
    }

    /// Performs one step of the optimizer at rate `lr` with the accumulated gradients, and clears
    /// them. Returns their global norm before clipping. If it is not finite, weights and moments do
    /// not change; without gradients it is NaN.
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

    /// Predictions of the predicted tokens, `[clips, predicted, values]`.
    ///
    /// # Panics
    /// When the batch does not have the model's sizes.
    pub fn predict(&mut self, masks: Masks<'_>, visible: Values<'_>) -> &[f32] {
        let Self {
            layout,
            store,
            workspace,
            ..
        } = self;
        match workspace {
            Typed::F32(workspace) => {
                store.read(|weights| workspace.predict(layout, weights, masks, visible))
            }
            Typed::Bf16(workspace) => {
                store.read(|weights| workspace.predict(layout, weights, masks, visible))
            }
        }
    }

    /// Returns the durations of the parts of all steps since the last call.
    pub fn take_times(&mut self) -> StepTimes {
        std::mem::take(&mut self.times)
    }

    /// The weights, gradients and moments.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The weights, gradients and moments, mutable.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl CpuClassifier {
    /// Creates a model with the values of `parameters`, which are on the CPU, and moments of zero.
    /// `rule` maps a name and a number of dimensions to rate and weight decay.
    ///
    /// # Errors
    /// When a parameter is missing: the candle model and this one differ, which is a bug.
    pub fn new(
        config: ClassifierConfig,
        parameters: &Parameters,
        optimizer: AdamWConfig,
        rule: impl Fn(&str, usize) -> ParameterRule,
        precision: Precision,
        resources: Resources,
    ) -> candle_core::Result<Self> {
        let (layout, entries) = ClassifierLayout::new(&config);
        let store = Store::new(
            entries,
            parameters,
            optimizer,
            rule,
            precision,
            resources.threads,
        )?;
        let workspace = match precision {
            Precision::F32 => Typed::F32(Box::new(classifier::Workspace::new(
                config,
                resources.recomputes,
            ))),
            Precision::Bf16 => Typed::Bf16(Box::new(classifier::Workspace::new(
                config,
                resources.recomputes,
            ))),
        };
        Ok(Self {
            layout,
            store,
            workspace,
        })
    }

    /// Runs forward and backward on a batch: returns its loss, and adds `share` times its gradients
    /// to those accumulated for [`Store::update`]. A loss that is not finite adds nothing.
    ///
    /// # Panics
    /// When the batch does not have the model's sizes, or the model is an encoder alone.
    pub fn accumulate(&mut self, batch: &Labelled<'_>, share: f64) -> f64 {
        self.accumulate_part(batch, share, Part::Whole)
    }

    /// [`Self::accumulate`] of a part of a batch.
    ///
    /// # Panics
    /// As [`Self::accumulate`].
    pub fn accumulate_part<'a>(
        &'a mut self,
        batch: &Labelled<'_>,
        share: f64,
        part: Part<'a>,
    ) -> f64 {
        let Self {
            layout,
            store,
            workspace,
        } = self;
        match workspace {
            Typed::F32(workspace) => store.accumulate(part, |weights, gradients| {
                workspace.step(layout, weights, batch, share, gradients)
            }),
            Typed::Bf16(workspace) => store.accumulate(part, |weights, gradients| {
                workspace.step(layout, weights, batch, share, gradients)
            }),
        }
    }

    /// Outputs for whole clips, in the form of [`Labelled::pixels`]. With `tokens`, also those of
    /// every token.
    ///
    /// # Panics
    /// When the batch does not have the model's sizes.
    pub fn infer(&mut self, masks: Masks<'_>, pixels: Values<'_>, tokens: bool) -> Encoded<'_> {
        let Self {
            layout,
            store,
            workspace,
        } = self;
        match workspace {
            Typed::F32(workspace) => {
                store.read(|weights| workspace.infer(layout, weights, masks, pixels, tokens))
            }
            Typed::Bf16(workspace) => {
                store.read(|weights| workspace.infer(layout, weights, masks, pixels, tokens))
            }
        }
    }

    /// The weights, gradients and moments.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The weights, gradients and moments, mutable.
    pub const fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// Speed of one large gemm on this machine, in GFLOP/s: the median of several.
pub fn gemm_rate(precision: Precision, threads: usize) -> f64 {
    fn rate<T: element::Element>() -> f64 {
        const SHAPE: [usize; 3] = [3136, 512, 2048];
        let [rows, inner, columns] = SHAPE;
        let matrix = |count: usize| {
            (0..count)
                .map(|at| T::from_f32((at % 17) as f32 * 0.1 - 0.8))
                .collect::<Vec<_>>()
        };
        let left = matrix(rows * inner);
        let right = matrix(columns * inner);
        let mut out = vec![0f32; rows * columns];
        let mut seconds: Vec<f64> = (0..REPETITIONS)
            .map(|_| {
                let began = Instant::now();
                let left = pack::Operand::rows(&left, inner);
                let right = pack::Operand::rows(&right, inner);
                gemm::gemm(left, right, SHAPE, &mut out, |part| {
                    part.out.copy_from_slice(part.sums)
                });
                began.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        2e-9 * (rows * inner * columns) as f64 / seconds[REPETITIONS / 2]
    }
    const REPETITIONS: usize = 15;
    team::Team::new(threads).map_or(f64::NAN, |team| {
        team.install(|| match precision {
            Precision::F32 => rate::<f32>(),
            Precision::Bf16 => rate::<bf16>(),
        })
    })
}
