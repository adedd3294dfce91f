//! Batches.

use crate::array::{Array, Owner, kind};
use crate::errors::option;
use pipeline::loader::batch::{self, Form};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::sync::Arc;

/// Parts of a batch's buffer.
const PIXELS: usize = 1;
const TARGET: usize = 2;

/// A batch. Its memory goes back to the loader when the last array of it is gone.
#[pyclass(frozen)]
pub struct Batch {
    batch: Arc<batch::Batch>,
    /// Addresses and bytes of the pixels and of the target.
    parts: [(usize, usize); 2],
    /// Number of the first clip of each data set.
    firsts: Arc<[u64]>,
}

impl Batch {
    /// A batch of data sets whose clips are counted from `firsts` on.
    pub fn new(mut batch: batch::Batch, firsts: Arc<[u64]>) -> Self {
        let parts = [PIXELS, TARGET].map(|part| {
            let bytes = batch.buffer.part_mut(part);
            (bytes.as_mut_ptr() as usize, bytes.len())
        });
        Self {
            batch: Arc::new(batch),
            parts,
            firsts,
        }
    }

    fn array(&self, part: usize, shape: Vec<usize>) -> Array {
        let owner = Owner::Batch(Arc::clone(&self.batch));
        let (address, _) = self.parts[part];
        Array::new(owner, address, shape, kind(self.batch.format.values))
    }

    fn clip_id(&self, sample: pipeline::sampling::order::SampleId) -> u64 {
        self.firsts[sample.set as usize] + sample.clip
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.batch.len()
    }

    /// All pixels, or those of the visible tokens.
    fn pixels(&self) -> Array {
        let grid = self.batch.format.grid;
        let shape = match self.batch.format.form {
            Form::Clips => vec![3, grid.frames, grid.size, grid.size],
            Form::Tokens => vec![grid.tokens(), 3, grid.tubelet, grid.patch, grid.patch],
            Form::Patches { .. } => vec![
                self.batch.format.visible(),
                3,
                grid.tubelet,
                grid.patch,
                grid.patch,
            ],
        };
        self.array(0, [vec![self.batch.len()], shape].concat())
    }

    /// The target of the masked tokens; none with all pixels.
    fn target(&self) -> Option<Array> {
        let grid = self.batch.format.grid;
        let Form::Patches { target } = self.batch.format.form else {
            return None;
        };
        let shape = vec![
            self.batch.len(),
            self.batch.format.predicted(),
            target.slices(),
            grid.patch,
            grid.patch,
            3,
        ];
        Some(self.array(1, shape))
    }

    /// For each clip and token a byte: 1 if it is masked.
    fn masked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let masks = self.batch.masks();
        PyByteArray::new_with(py, self.batch.len() * masks.tokens(), |bytes| {
            bytes.fill(1);
            for (mask, row) in masks.iter().zip(bytes.chunks_exact_mut(masks.tokens())) {
                mask.visible
                    .iter()
                    .for_each(|&token| row[token as usize] = 0);
            }
            Ok(())
        })
    }

    /// Of each clip the visible tokens, ascending, as i64.
    fn visible_index<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let count = self
            .batch
            .masks()
            .iter()
            .map(|mask| mask.visible.len())
            .sum();
        let tokens = self.batch.masks().iter().flat_map(|mask| mask.visible);
        integers(py, count, tokens.map(|&token| i64::from(token)))
    }

    /// Of each clip the masked tokens, ascending, as i64.
    fn masked_index<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let count = self
            .batch
            .masks()
            .iter()
            .map(|mask| mask.masked.len())
            .sum();
        let tokens = self.batch.masks().iter().flat_map(|mask| mask.masked);
        integers(py, count, tokens.map(|&token| i64::from(token)))
    }

    /// Classes as i64, -1 for none.
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let labels = self.batch.labels.iter();
        integers(
            py,
            labels.len(),
            labels.map(|label| label.map_or(-1, i64::from)),
        )
    }

    /// Whether all clips have a class.
    fn is_labelled(&self) -> bool {
        self.batch.labels.iter().all(Option::is_some)
    }

    /// Numbers of the clips as i64.
    fn clip_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let samples = self.batch.samples.iter();
        integers(
            py,
            samples.len(),
            samples.map(|&sample| self.clip_id(sample) as i64),
        )
    }

    /// Clips that could not be read, and why not.
    fn skipped(&self) -> Vec<(u64, &str)> {
        let skipped = self.batch.skipped.iter();
        skipped
            .map(|one| (self.clip_id(one.sample), one.reason.as_str()))
            .collect()
    }

    /// Samples from the start of training to the end of this batch, of all ranks.
    fn position(&self) -> u64 {
        self.batch.next.samples
    }

    /// Copies the pixels (`part` 0) or the target (1) to `address`, where `bytes` bytes are free.
    fn copy_to(&self, py: Python<'_>, part: usize, address: usize, bytes: usize) -> PyResult<()> {
        let (from, wanted) = self.parts[part];
        if bytes != wanted {
            let message = format!("`out` has {bytes} bytes, the batch {wanted}");
            return Err(option(py, &message));
        }
        py.detach(|| {
            // SAFETY: the batch has `wanted` bytes at `from` for as long as it lives, and the
            // caller vouches for as many at `address`, which it keeps during the call.
            unsafe { std::ptr::copy(from as *const u8, address as *mut u8, bytes) };
        });
        Ok(())
    }
}

/// `count` values as bytes, written once.
fn integers<'py>(
    py: Python<'py>,
    count: usize,
    values: impl Iterator<Item = i64>,
) -> PyResult<Bound<'py, PyByteArray>> {
    PyByteArray::new_with(py, count * size_of::<i64>(), |bytes| {
        for (bytes, value) in bytes.chunks_exact_mut(size_of::<i64>()).zip(values) {
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(())
    })
}
