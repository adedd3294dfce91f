//! A path as its bytes, for `#[serde(with = "path_bytes")]`: the name of a file need not be UTF-8.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Writes a path.
///
/// # Errors
/// Those of `serializer`.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().as_bytes().serialize(serializer)
}

/// Reads a path.
///
/// # Errors
/// Those of `deserializer`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Vec::deserialize(deserializer).map(|bytes| OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Task {
        #[serde(with = "super")]
        path: PathBuf,
    }

    #[test]
    fn every_path_is_read_as_it_was_written() {
        for name in [b"film.mp4".as_slice(), b"not \xff UTF-8\n", b""] {
            let task = Task {
                path: OsString::from_vec(name.to_vec()).into(),
            };
            let line = serde_json::to_string(&task).expect("bytes become JSON");
            assert_eq!(
                serde_json::from_str::<Task>(&line).expect("the same JSON"),
                task
            );
        }
    }
}
