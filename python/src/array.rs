//! Memory of ours that numpy uses without a copy.

use pipeline::loader::batch::ValueType;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// What keeps the memory of an array: it lives as long as the array.
pub enum Owner {
    /// A batch.
    Batch(Arc<pipeline::loader::batch::Batch>),
    /// Bytes of the array alone.
    Bytes(Vec<u8>),
}

/// An array in memory, as `numpy.asarray` takes it (the array interface, version 3).
#[pyclass(frozen)]
pub struct Array {
    /// Held, not read: Python reads and writes by the address.
    _owner: Owner,
    address: usize,
    shape: Vec<usize>,
    kind: &'static str,
}

impl Array {
    /// An array of `shape` at `address`, in memory that `owner` keeps there.
    pub const fn new(owner: Owner, address: usize, shape: Vec<usize>, kind: &'static str) -> Self {
        Self {
            _owner: owner,
            address,
            shape,
            kind,
        }
    }

    /// An array of `shape` with `bytes` as its elements.
    pub fn of_bytes(mut bytes: Vec<u8>, shape: Vec<usize>) -> Self {
        let address = bytes.as_mut_ptr() as usize;
        Self::new(Owner::Bytes(bytes), address, shape, "|u1")
    }
}

#[pymethods]
impl Array {
    /// Address, shape and type of the elements.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", self.kind)?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        let is_read_only = false;
        interface.set_item("data", (self.address, is_read_only))?;
        Ok(interface)
    }
}

/// numpy's name for values; it has none for bfloat16, whose bits are given.
pub const fn kind(values: ValueType) -> &'static str {
    match values {
        ValueType::U8 => "|u1",
        ValueType::F32 => "<f4",
        ValueType::Bf16 => "<u2",
    }
}
