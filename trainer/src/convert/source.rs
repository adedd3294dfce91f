//! A file or folder of weights becomes tensors by name, and what lies beside them.

use super::rules::Tensors;
use super::stored::{Problem, Stored, StoredType};
use super::{ConvertError, pickle};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Weights as they were found.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file that has them.
    pub(crate) path: PathBuf,
    /// Of f32.
    pub(crate) tensors: Tensors,
    /// transformers' `config.json`, where it lies beside.
    pub(crate) config: Option<Value>,
    /// transformers' `preprocessor_config.json`.
    pub(crate) preprocessor: Option<Value>,
    /// What the user has to know of them.
    pub(crate) notes: Vec<String>,
}

/// Names of weights in a folder of transformers, the preferred first.
const FOLDER_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Reads a file of weights, or a folder of transformers'.
pub(crate) fn read(path: &Path) -> Result<Source, ConvertError> {
    let (folder, file) = if path.is_dir() {
        let file = FOLDER_FILES.iter().map(|name| path.join(name)).find(|file| file.exists()).ok_or_else(|| {
            let parts = ["model.safetensors.index.json", "pytorch_model.bin.index.json"].iter().any(|name| path.join(name).exists());
            let reason = if parts {
                "its weights are in several files; join them, as by loading and saving them with max_shard_size=\"100GB\""
            } else {
                "it is a folder with neither model.safetensors nor pytorch_model.bin"
            };
            Problem::Spoiled(reason.to_owned()).of(path)
        })?;
        (path.to_owned(), file)
    } else {
        (path.parent().unwrap_or_else(|| Path::new("")).to_owned(), path.to_owned())
    };
    let stored = read_file(&file).map_err(|problem| problem.of(&file))?;
    let mut notes = Vec::new();
    for (kind, name) in [(StoredType::F16, "f16"), (StoredType::Bf16, "bf16")] {
        let count = stored.values().filter(|tensor| tensor.stored == kind).count();
        if count > 0 {
            notes.push(format!("{count} of {} tensors are {name}, and were widened to f32", stored.len()));
        }
    }
    let tensors = stored.iter().map(|(name, tensor)| Ok((name.clone(), tensor.widened()?))).collect::<candle_core::Result<_>>()?;
    Ok(Source {
        tensors: without_prefix(tensors, "module."),
        config: beside(&folder.join("config.json"))?,
        preprocessor: beside(&folder.join("preprocessor_config.json"))?,
        path: file,
        notes,
    })
}

/// Training on several devices puts a prefix before every name.
fn without_prefix(tensors: Tensors, prefix: &str) -> Tensors {
    if !tensors.keys().all(|name| name.starts_with(prefix)) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
}

fn beside(path: &Path) -> Result<Option<Value>, ConvertError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| Problem::Io(error).of(path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Problem::Spoiled(error.to_string()).of(path))
}

fn read_file(path: &Path) -> Result<BTreeMap<String, Stored>, Problem> {
    let mut beginning = Vec::new();
    File::open(path).and_then(|file| file.take(16).read_to_end(&mut beginning)).map_err(Problem::Io)?;
    if beginning.starts_with(b"PK\x03\x04") {
        return pickle::read(path);
    }
    if pickle::is_legacy(&beginning) {
        let reason = "it was written by a PyTorch before 1.6; torch.load it, and torch.save it again";
        return Err(Problem::Spoiled(reason.to_owned()));
    }
    if beginning.get(8) != Some(&b'{') {
        return Err(Problem::Spoiled("it is neither safetensors nor a checkpoint of PyTorch".to_owned()));
    }
    let bytes = fs::read(path).map_err(Problem::Io)?;
    let spoiled = |error: safetensors::SafeTensorError| Problem::Spoiled(format!("its safetensors are not whole: {error}"));
    let (mut tensors, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, view) in SafeTensors::deserialize(&bytes).map_err(spoiled)?.iter() {
        let stored = match view.dtype() {
            Dtype::F32 => StoredType::F32,
            Dtype::F16 => StoredType::F16,
            Dtype::BF16 => StoredType::Bf16,
            other => {
                problems.push(format!("{name} is of {other:?}: weights are of F32, F16 or BF16"));
                continue;
            }
        };
        tensors.insert(name.to_owned(), Stored { stored, shape: view.shape().to_vec(), bytes: view.data().to_vec() });
    }
    problems.sort_unstable();
    if problems.is_empty() { Ok(tensors) } else { Err(Problem::Spoiled(super::bounded(&problems))) }
}
