//! The values of a learner, as a checkpoint stores them.

use crate::cpu;
use candle_core::{DType, Storage, StorageRef, Tensor};
use std::ops::{Deref, Range};

/// One tensor of a learner, to be saved.
#[derive(Debug)]
pub struct NamedValues<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values in row-major order.
    pub values: Values<'a>,
}

/// Values on the host: the learner's own, or a copy where those are on a device.
#[derive(Debug)]
pub enum Values<'a> {
    /// The learner's own.
    Slice(&'a [f32]),
    /// A part of a tensor's own memory, locked against writing.
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
                Storage::Cpu(storage) => &storage
                    .as_slice::<f32>()
                    .expect("`of_tensor` locks tensors of f32 only")[range.clone()],
                _ => unreachable!("`of_tensor` locks tensors on the host only"),
            },
            Self::Copied(values) => values,
        }
    }
}

impl<'a> NamedValues<'a> {
    /// The values of an f32 tensor, without a copy where it is contiguous and on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_tensor(name: String, tensor: &'a Tensor) -> candle_core::Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let values = match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(_), Some((start, end))) if tensor.dtype() == DType::F32 => {
                Values::Locked(storage, start..end)
            }
            _ => {
                drop(storage);
                Values::Copied(tensor.flatten_all()?.to_vec1::<f32>()?)
            }
        };
        Ok(Self {
            name,
            shape: tensor.dims(),
            values,
        })
    }

    pub(super) fn of_view(name: String, view: cpu::View<'a>) -> Self {
        Self {
            name,
            shape: view.shape,
            values: Values::Slice(view.values),
        }
    }
}

/// In the order of their names.
pub(super) fn sorted<'a>(values: impl Iterator<Item = NamedValues<'a>>) -> Vec<NamedValues<'a>> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    values
}
