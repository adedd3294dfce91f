//! The formats of all files and reports, and the geometry of frames and patches.
//!
//! Nothing here reads or writes a file: the crates that do (`pipeline` for shards, `shardtool` for
//! manifests and reports, `trainer` for metrics) take the types, names and versions from here.
//!
//! - [`geometry`]: sizes of frames, and the grid of patches.
//! - [`shard`]: the columns of a shard.
//! - [`manifest`]: the manifest of a build, and the lists beside it.
//! - [`choice`]: which clips of a data set to use.
//! - [`report`]: the JSON that commands print, and the lines of metrics.

/// Defines the names of a closed set of values, by which they are stored and given as flags.
macro_rules! names {
    ($type:ty { $($variant:path => $name:literal),+ $(,)? }) => {
        impl $type {
            /// All names.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Returns the name of the value.
            pub const fn name(self) -> &'static str {
                match self { $($variant => $name),+ }
            }

            /// Returns the value of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some($variant),)+ _ => None }
            }
        }
    };
}

pub mod choice;
pub mod geometry;
pub mod manifest;
pub mod report;
pub mod shard;
