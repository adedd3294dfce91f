//! The settings of a loader, from a dict.

use crate::errors::option;
use pipeline::loader::batch::{BatchFormat, Form, ValueType};
use pipeline::loader::{LoaderOptions, Rank};
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::sampling::order::Cursor;
use pipeline::sampling::sample::{Augmentation, Views};
use pipeline::transform::{Normalisation, TargetForm};
use pyo3::prelude::*;
use schemas::geometry::PatchGrid;
use serde::de::DeserializeOwned;

/// As the arguments of `clipfeed.Loader`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Options {
    batch_size: usize,
    frames: usize,
    size: usize,
    tubelet: usize,
    patch: usize,
    mask_ratio: Option<f64>,
    mask_kind: String,
    form: String,
    dtype: String,
    mean: [f32; 3],
    std: [f32; 3],
    target_frames: Option<usize>,
    repeat: usize,
    shuffle: bool,
    seed: u64,
    rank: usize,
    world_size: usize,
    threads: Option<usize>,
    /// Processes that share this machine's cores.
    local_ranks: usize,
    prefetch: usize,
    memory: usize,
    area: [f64; 2],
    aspect: [f64; 2],
    flip: f64,
    max_bad: usize,
    /// Samples before the first batch.
    position: u64,
}

impl Options {
    /// The ranks, if each reads its own clips once, in order.
    pub fn share(&self) -> Option<Rank> {
        (!self.shuffle).then_some(Rank {
            number: self.rank,
            of: self.world_size,
        })
    }

    /// As the loader takes them.
    pub fn read(&self, py: Python<'_>) -> PyResult<LoaderOptions> {
        let grid = PatchGrid {
            frames: self.frames,
            size: self.size,
            tubelet: self.tubelet,
            patch: self.patch,
        };
        let kind: MaskKind = named(py, "mask_kind", &self.mask_kind)?;
        let values = match self.dtype.as_str() {
            "uint8" => ValueType::U8,
            "float32" => ValueType::F32,
            "bfloat16" => ValueType::Bf16,
            other => {
                let message = format!("dtype {other:?}: choose float32, bfloat16 or uint8");
                return Err(option(py, &message));
            }
        };
        let form = match self.form.as_str() {
            "clips" => Form::Clips,
            "patches" => Form::Patches {
                target: TargetForm::Pixels {
                    slices: self.target_frames.unwrap_or(self.tubelet),
                },
            },
            other => {
                let message = format!("form {other:?}: choose clips or patches");
                return Err(option(py, &message));
            }
        };
        self.check(py)?;
        let format = BatchFormat {
            grid,
            mask_rule: self.mask_ratio.map(|ratio| MaskRule::new(kind, ratio)),
            form,
            values,
        };
        let plain = LoaderOptions::tokens(self.batch_size, grid);
        let plain = if self.shuffle {
            plain
        } else {
            plain.once(Views::ONE)
        };
        Ok(LoaderOptions {
            format,
            batch_size: match self.share() {
                Some(_) => self.batch_size / self.world_size,
                None => self.batch_size,
            },
            repeat: self.repeat,
            augmentation: Augmentation {
                area: self.area,
                aspect: self.aspect,
                flip: self.flip,
            },
            normalisation: Normalisation {
                mean: self.mean,
                std: self.std,
            },
            seed: self.seed,
            rank: match self.share() {
                Some(_) => Rank::default(),
                None => Rank {
                    number: self.rank,
                    of: self.world_size,
                },
            },
            threads: self
                .threads
                .unwrap_or_else(|| (pipeline::all_cores() / self.local_ranks.max(1)).max(1)),
            prefetch: self.prefetch,
            memory_bytes: self.memory,
            max_bad: self.max_bad,
            start: Cursor {
                samples: self.position,
            },
            ..plain
        })
    }

    /// Checks what the loader takes for granted.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let is_range = |[least, most]: [f64; 2], limit: f64| {
            least > 0.0 && least <= most && most <= limit && most.is_finite()
        };
        let (rank, ranks) = (self.rank, self.world_size);
        let message = if !is_range(self.area, 1.0) {
            format!(
                "area {:?}: give two shares of the frame, above 0 and up to 1",
                self.area
            )
        } else if !is_range(self.aspect, f64::MAX) {
            format!(
                "aspect {:?}: give width over height, least and most",
                self.aspect
            )
        } else if !(0.0..=1.0).contains(&self.flip) {
            format!("flip {}: give a probability, from 0 to 1", self.flip)
        } else if rank >= ranks {
            format!("there is no rank {rank} of {ranks}: ranks are counted from 0")
        } else if !self.batch_size.is_multiple_of(ranks) {
            format!(
                "a batch of {} clips cannot be shared by {ranks} ranks: batch_size is that of all \
                 ranks together; choose a multiple",
                self.batch_size
            )
        } else if !self.shuffle && self.repeat != 1 {
            "repeat is for training: leave it at 1 where shuffle is off".to_owned()
        } else if self.target_frames.is_some() && self.form != "patches" {
            "target_frames is for the form \"patches\"".to_owned()
        } else {
            return Ok(());
        };
        Err(option(py, &message))
    }
}

/// One of the names of `T`.
fn named<T: DeserializeOwned>(py: Python<'_>, argument: &str, name: &str) -> PyResult<T> {
    serde_json::from_value(name.into()).map_err(|error| option(py, &format!("{argument}: {error}")))
}
