//! Weights are written: a folder or a file that appears whole or not at all.

use super::rules::Tensors;
use crate::backend::NamedValues;
use crate::train::checkpoint::Stored;
use pipeline::atomic_file::{TEMPORARY_ENDING, sync_parent};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something is there.
    #[error("{} is there already; give another --out, or remove it", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// The disk is full, say.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Writes a folder of `model.safetensors` and of `texts` by their names.
///
/// # Errors
/// When it is there already, or cannot be written; nothing is then left of it.
pub fn write_folder(path: &Path, tensors: &Tensors, texts: &[(&str, String)]) -> Result<(), WriteError> {
    whole(path, |temporary| {
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

/// Writes a file of safetensors.
///
/// # Errors
/// When it is there already, or cannot be written; nothing is then left of it.
pub fn write_file(path: &Path, tensors: &Tensors) -> Result<(), WriteError> {
    whole(path, |temporary| {
        if let Some(parent) = temporary.parent() {
            fs::create_dir_all(parent)?;
        }
        write_tensors(temporary, tensors)
    })
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Lets `write` write under another name, and gives the result its own.
fn whole(path: &Path, write: impl FnOnce(&Path) -> Outcome) -> Result<(), WriteError> {
    if path.symlink_metadata().is_ok() {
        return Err(WriteError::Exists { path: path.to_owned() });
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
        WriteError::Write { path: path.to_owned(), source }
    })
}

/// Removes what an earlier process that was killed has left.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn write_tensors(path: &Path, tensors: &Tensors) -> Outcome {
    let values: Vec<NamedValues<'_>> =
        tensors.iter().map(|(name, tensor)| NamedValues::of_tensor(name.clone(), tensor)).collect::<Result<_, _>>()?;
    let views = values.iter().map(|named| (named.name.as_str(), Stored(named)));
    // transformers wants to be told whose tensors they are.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), path)?;
    let file = File::open(path)?;
    // safetensors makes its files readable for their owner only.
    let folder = fs::metadata(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")))?;
    let mut permissions = file.metadata()?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, std::os::unix::fs::PermissionsExt::mode(&folder.permissions()) & 0o666);
    fs::set_permissions(path, permissions)?;
    Ok(file.sync_all()?)
}
