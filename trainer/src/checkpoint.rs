//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! checkpoints/step-000300/model.safetensors      weights under the reference's names
//!                         optimizer.safetensors  the two moments of each
//!                         state.json             step and place in the data
//! ```

use crate::model::Parameters;
use crate::optimizer::AdamW;
use candle_core::{Device, Tensor};
use pipeline::atomic_file::{TEMPORARY_ENDING, sync_parent};
use pipeline::order::Cursor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be written. The earlier ones are still there.
    #[error("cannot save {}: {source}", path.display())]
    Save {
        /// Which checkpoint.
        path: PathBuf,
        /// Why not: a full disk, say.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}; move {} away to go on from the checkpoint before it", file.display(), path.display())]
    Load {
        /// Which checkpoint.
        path: PathBuf,
        /// Which file of it.
        file: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder of checkpoints cannot be read, or an old checkpoint not removed.
    #[error("cannot tidy up {}: {source}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Place in the data.
    pub cursor: Cursor,
    /// Clips of the data, which the place depends on.
    pub clips: u64,
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints of the run in `run`, of which the latest `keep` are kept.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { dir: run.join("checkpoints"), keep }
    }

    /// Writes a checkpoint and removes those that are too old.
    ///
    /// # Errors
    /// When the disk is full, say. The earlier checkpoints are then still there.
    pub fn save(&self, parameters: &Parameters, optimizer: &AdamW, state: RunState) -> Result<PathBuf, CheckpointError> {
        let path = self.dir.join(format!("step-{:06}", state.step));
        let temporary = self.dir.join(format!("step-{:06}{TEMPORARY_ENDING}", state.step));
        if let Err(source) = write(&temporary, &path, parameters, optimizer, state) {
            // The first failure is the one to report.
            let _ = fs::remove_dir_all(&temporary);
            return Err(CheckpointError::Save { path, source });
        }
        for (_, old) in self.list()?.into_iter().rev().skip(self.keep) {
            fs::remove_dir_all(&old).map_err(|source| CheckpointError::Folder { path: old, source })?;
        }
        Ok(path)
    }

    /// The latest checkpoint.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn latest(&self) -> Result<Option<PathBuf>, CheckpointError> {
        Ok(self.list()?.pop().map(|(_, path)| path))
    }

    /// Whole checkpoints, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let failed = |source| CheckpointError::Folder { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn write(
    temporary: &Path,
    path: &Path,
    parameters: &Parameters,
    optimizer: &AdamW,
    state: RunState,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    remove_if_there(temporary)?;
    fs::create_dir_all(temporary)?;
    let weights: HashMap<_, _> = parameters.iter().map(|(name, variable)| (name.to_owned(), variable.as_tensor().clone())).collect();
    candle_core::safetensors::save(&weights, temporary.join(MODEL_FILE))?;
    candle_core::safetensors::save(&optimizer.state(), temporary.join(OPTIMIZER_FILE))?;
    fs::write(temporary.join(STATE_FILE), serde_json::to_vec_pretty(&state)?)?;
    for file in [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE] {
        File::open(temporary.join(file))?.sync_all()?;
    }
    File::open(temporary)?.sync_all()?;
    // A checkpoint of this step is there only when a resumed run comes past it again; it is the same one.
    remove_if_there(path)?;
    fs::rename(temporary, path)?;
    Ok(sync_parent(path)?)
}

fn remove_if_there(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Loaded {
    /// Weights by name.
    pub weights: HashMap<String, Tensor>,
    /// Moments, for [`AdamW::restore`].
    pub optimizer: HashMap<String, Tensor>,
    /// Where the run stood.
    pub state: RunState,
}

/// Reads the checkpoint in `path`.
///
/// # Errors
/// When a file of it is missing or damaged.
pub fn load(path: &Path, device: &Device) -> Result<Loaded, CheckpointError> {
    let failed = |file: &str, source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Load {
        path: path.to_owned(),
        file: path.join(file),
        source,
    };
    let tensors = |file: &str| candle_core::safetensors::load(path.join(file), device).map_err(|error| failed(file, error.into()));
    let state = fs::read(path.join(STATE_FILE)).map_err(|error| failed(STATE_FILE, error.into()))?;
    Ok(Loaded {
        weights: tensors(MODEL_FILE)?,
        optimizer: tensors(OPTIMIZER_FILE)?,
        state: serde_json::from_slice(&state).map_err(|error| failed(STATE_FILE, error.into()))?,
    })
}
