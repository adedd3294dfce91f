//! Tensors as stored in files, before their names are interpreted.

use super::ConvertError;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use std::path::Path;

/// A problem with a file.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It cannot be read.
    Io(std::io::Error),
    /// Its contents are invalid.
    Invalid(String),
}

impl Problem {
    pub(crate) fn of(self, path: &Path) -> ConvertError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => ConvertError::Read { path, source },
            Self::Invalid(reason) => ConvertError::Invalid { path, reason },
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
    /// Bytes per value.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor as stored in a file.
#[derive(Debug)]
pub(crate) struct StoredTensor {
    pub(crate) dtype: StoredType,
    pub(crate) shape: Vec<usize>,
    /// The values, little-endian.
    pub(crate) bytes: Vec<u8>,
}

impl StoredTensor {
    /// Converts the values to f32.
    pub(crate) fn to_f32(&self) -> candle_core::Result<Tensor> {
        let pairs = || self.bytes.as_chunks::<2>().0.iter().copied();
        let values: Vec<f32> = match self.dtype {
            StoredType::F32 => self
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
            StoredType::F16 => pairs()
                .map(|bytes| f16::from_le_bytes(bytes).to_f32())
                .collect(),
            StoredType::Bf16 => pairs()
                .map(|bytes| bf16::from_le_bytes(bytes).to_f32())
                .collect(),
        };
        Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)
    }
}
