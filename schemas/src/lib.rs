//! What the product writes down, and the geometry that all of it shares.
//!
//! Nothing here reads or writes a file: the crates that do (`pipeline` for shards, `shardtool` for manifests and reports, `trainer`
//! for metrics) take the shapes, names and versions from this one place.

/// The names of a closed set of values, as they are stored and typed.
macro_rules! names {
    ($type:ty { $($variant:path => $name:literal),+ $(,)? }) => {
        impl $type {
            /// All names.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name of this value.
            pub const fn name(self) -> &'static str {
                match self { $($variant => $name),+ }
            }

            /// The value of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some($variant),)+ _ => None }
            }
        }
    };
}

pub mod geometry;
pub mod manifest;
pub mod report;
pub mod shard;
