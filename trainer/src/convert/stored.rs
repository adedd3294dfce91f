//! Tensors as files have them, before anything is known of their names.

use super::ConvertError;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use std::path::Path;

/// What can be wrong with a file.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The system does not give it.
    Io(std::io::Error),
    /// It is not what it seems to be.
    Spoiled(String),
}

impl Problem {
    pub(crate) fn of(self, path: &Path) -> ConvertError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => ConvertError::Read { path, source },
            Self::Spoiled(reason) => ConvertError::Spoiled { path, reason },
        }
    }
}

/// Type of stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredType {
    F32,
    F16,
    Bf16,
}

impl StoredType {
    /// Bytes of a value.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor as a file has it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) stored: StoredType,
    pub(crate) shape: Vec<usize>,
    /// Its values, little-endian.
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    /// Its values as f32.
    pub(crate) fn widened(&self) -> candle_core::Result<Tensor> {
        let pairs = || self.bytes.as_chunks::<2>().0.iter().copied();
        let values: Vec<f32> = match self.stored {
            StoredType::F32 => self.bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            StoredType::F16 => pairs().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            StoredType::Bf16 => pairs().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        };
        Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)
    }
}
