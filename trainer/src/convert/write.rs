//! Writes weights atomically, as a folder or a file.

use super::rules::Tensors;
use crate::backend::NamedValues;
use crate::train::checkpoint::Stored;
use pipeline::atomic_file::{TEMPORARY_ENDING, sync_parent};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// An error of writing weights.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path already exists.
    #[error("{} already exists; choose another --out, or remove it", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Writing failed, for example because the disk is full.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Writes a folder with `model.safetensors` and with `texts` under their names.
///
/// # Errors
/// When the path already exists, or cannot be written; then nothing is left behind.
pub fn write_folder(
    path: &Path,
    tensors: &Tensors,
    texts: &[(&str, String)],
) -> Result<(), WriteError> {
    atomically(path, |temporary| {
        fs::create_dir_all(temporary)?;
        for (name, text) in texts {
            let file = temporary.join(name);
            fs::write(&file, text)?;
            File::open(&file)?.sync_all()?;
        }
        write_tensors(&temporary.join("model.safetensors"), tensors)?;
        Ok(File::open(temporary)?.sync_all()?)
    })
}

/// Writes a safetensors file.
///
/// # Errors
/// When the path already exists, or cannot be written; then nothing is left behind.
pub fn write_file(path: &Path, tensors: &Tensors) -> Result<(), WriteError> {
    atomically(path, |temporary| {
        if let Some(parent) = temporary.parent() {
            fs::create_dir_all(parent)?;
        }
        write_tensors(temporary, tensors)
    })
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Calls `write` with a temporary path, and renames the result.
fn atomically(path: &Path, write: impl FnOnce(&Path) -> Outcome) -> Result<(), WriteError> {
    if path.symlink_metadata().is_ok() {
        return Err(WriteError::Exists {
            path: path.to_owned(),
        });
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_ENDING);
    let temporary = PathBuf::from(temporary);
    let outcome = remove(&temporary).map_err(Into::into).and_then(|()| {
        write(&temporary)?;
        fs::rename(&temporary, path)?;
        Ok(sync_parent(path)?)
    });
    outcome.map_err(|source| {
        // The first failure is the one to report.
        let _ = remove(&temporary);
        WriteError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Removes what a killed process has left behind.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn write_tensors(path: &Path, tensors: &Tensors) -> Outcome {
    let values: Vec<NamedValues<'_>> = tensors
        .iter()
        .map(|(name, tensor)| NamedValues::of_tensor(name.clone(), tensor))
        .collect::<Result<_, _>>()?;
    let views = values
        .iter()
        .map(|named| (named.name.as_str(), Stored(named)));
    // transformers requires this key.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), path)?;
    let file = File::open(path)?;
    // safetensors creates files that only their owner can read.
    let folder = fs::metadata(
        path.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new(".")),
    )?;
    let mut permissions = file.metadata()?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut permissions,
        std::os::unix::fs::PermissionsExt::mode(&folder.permissions()) & 0o666,
    );
    fs::set_permissions(path, permissions)?;
    Ok(file.sync_all()?)
}
