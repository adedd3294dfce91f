//! The native half of the Python package `clipfeed`: data sets, loaders and batches without policy.
//! Epochs, ranks, states and errors' classes are Python's half, `python/clipfeed/`.
//!
//! - `data`: open data sets, single clips of them, loaders over them.
//! - `live`: videos in place of shards.
//! - `options`: the settings of a loader, from a dict.
//! - `loader`: batches, waited for without the GIL.
//! - `batch`: what is in one; `array`: memory that numpy uses without a copy.
//! - `errors`: errors as the package's exceptions.

mod array;
mod batch;
mod data;
mod errors;
mod live;
mod loader;
mod options;

/// The module.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use super::array::Array;
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::data::Data;
    #[pymodule_export]
    use super::live::decode;
    #[pymodule_export]
    use super::loader::Loader;

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Whether videos, and H.264 in shards, can be read.
    #[pymodule_export]
    const HAS_VIDEO: bool = cfg!(feature = "video");
}
