//! Places that users name: paths, or URLs of stores.

use super::{StoreError, Url, UrlError, read};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// A URL where only a local path can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a URL: give a path in the local file system")]
pub struct NotLocal(String);

/// Returns `path` if it can be used: a local path, or a URL of a store that is known.
///
/// # Errors
/// When it is a URL that cannot be used.
pub fn place(path: PathBuf) -> Result<PathBuf, UrlError> {
    match Url::of(&path) {
        None => Ok(path),
        Some(url) => Ok(PathBuf::from(url?.to_string())),
    }
}

/// Returns `path` unless it is a URL, which would otherwise be taken for a local folder.
///
/// # Errors
/// When it is a URL.
pub fn local_path(path: PathBuf) -> Result<PathBuf, NotLocal> {
    match Url::of(&path) {
        None => Ok(path),
        Some(_) => Err(NotLocal(path.to_string_lossy().into_owned())),
    }
}

/// Opens the file at `path`. An object of a store is read as a whole into a file without a name.
///
/// # Errors
/// When it cannot be read.
pub fn open_file(path: &Path) -> io::Result<File> {
    let Some(url) = Url::of(path) else {
        return File::open(path);
    };
    let url = url.map_err(StoreError::from)?;
    let contents = read(&url)?;
    let mut file = tempfile::tempfile()?;
    file.write_all(&contents.bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for path in [
            "videos", "./s3://x", "/a://b", "1a://b", "://b", "a:b", "s3:/x",
        ] {
            assert_eq!(local_path(path.into()), Ok(path.into()));
            assert_eq!(place(path.into()), Ok(path.into()));
        }
        for url in [
            "s3://bucket/x",
            "gs://b",
            "az://container/d",
            "https://host/v.mp4",
        ] {
            assert_eq!(place(url.into()), Ok(url.into()));
            let error = local_path(url.into()).expect_err("a URL").to_string();
            assert!(error.starts_with(&format!("{url} is a URL: ")), "{error}");
        }
        let error = place("file:///data/a.mp4".into()).expect_err("of no store");
        assert!(
            error
                .to_string()
                .contains("give the local path /data/a.mp4"),
            "{error}"
        );
    }
}
