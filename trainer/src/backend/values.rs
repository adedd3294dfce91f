//! A learner's values, as a checkpoint writes them down.

use crate::cpu;
use candle_core::{DType, Storage, StorageRef, Tensor};
use std::ops::{Deref, Range};

/// One tensor of a learner, to be written down.
#[derive(Debug)]
pub struct NamedValues<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values, the last dimension's side by side.
    pub values: Values<'a>,
}

/// Values on the host: those that the learner has, or a copy where it has them on a device.
#[derive(Debug)]
pub enum Values<'a> {
    /// The learner's own.
    Slice(&'a [f32]),
    /// A part of a tensor's own memory, in which nothing is written meanwhile.
    Locked(StorageRef<'a>, Range<usize>),
    /// A copy.
    Copied(Vec<f32>),
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Slice(values) => values,
            Self::Locked(storage, range) => match &**storage {
                Storage::Cpu(storage) => &storage.as_slice::<f32>().expect("seen to be f32 when it was locked")[range.clone()],
                _ => unreachable!("seen to be on the host when it was locked"),
            },
            Self::Copied(values) => values,
        }
    }
}

impl<'a> NamedValues<'a> {
    /// The values of a tensor of f32: without a copy where it is contiguous on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_tensor(name: String, tensor: &'a Tensor) -> candle_core::Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let values = match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(_), Some((start, end))) if tensor.dtype() == DType::F32 => Values::Locked(storage, start..end),
            _ => {
                drop(storage);
                Values::Copied(tensor.flatten_all()?.to_vec1::<f32>()?)
            }
        };
        Ok(Self { name, shape: tensor.dims(), values })
    }

    pub(super) fn of_view(name: String, view: cpu::View<'a>) -> Self {
        Self { name, shape: view.shape, values: Values::Slice(view.values) }
    }
}

/// In the order of their names.
pub(super) fn sorted<'a>(values: impl Iterator<Item = NamedValues<'a>>) -> Vec<NamedValues<'a>> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    values
}
