//! Reads a file or folder of weights to tensors by name, with the configuration files beside them.

use super::rules::Tensors;
use super::stored::{Problem, StoredTensor, StoredType};
use super::{ConvertError, pickle};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Weights as read, before conversion.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file that holds them.
    pub(crate) path: PathBuf,
    /// The tensors, f32.
    pub(crate) tensors: Tensors,
    /// `config.json` of transformers, if there is one beside the weights.
    pub(crate) config: Option<Value>,
    /// `preprocessor_config.json` of transformers, if there is one.
    pub(crate) preprocessor: Option<Value>,
    /// Notes for the user.
    pub(crate) notes: Vec<String>,
}

/// Names of files of weights in a folder of transformers, in order of preference.
const FOLDER_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Reads a file of weights, or a folder of transformers.
pub(crate) fn read(path: &Path) -> Result<Source, ConvertError> {
    let (folder, file) =
        if path.is_dir() {
            let mut candidates = FOLDER_FILES.iter().map(|name| path.join(name));
            let file = candidates.find(|file| file.exists()).ok_or_else(|| {
            let indices = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
            let is_sharded = indices.iter().any(|name| path.join(name).exists());
            let reason = if is_sharded {
                "its weights are split into several files; merge them by loading and saving the \
                 model with max_shard_size=\"100GB\""
            } else {
                "the folder has neither model.safetensors nor pytorch_model.bin"
            };
            Problem::Invalid(reason.to_owned()).of(path)
        })?;
            (path.to_owned(), file)
        } else {
            (
                path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
                path.to_owned(),
            )
        };
    let stored = read_tensors(&file).map_err(|problem| problem.of(&file))?;
    let mut notes = Vec::new();
    for (kind, name) in [(StoredType::F16, "f16"), (StoredType::Bf16, "bf16")] {
        let count = stored
            .values()
            .filter(|tensor| tensor.dtype == kind)
            .count();
        if count > 0 {
            notes.push(format!(
                "{count} of {} tensors are {name}, and were converted to f32",
                stored.len()
            ));
        }
    }
    let tensors = stored
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.to_f32()?)))
        .collect::<candle_core::Result<_>>()?;
    Ok(Source {
        tensors: without_prefix(tensors, "module."),
        config: read_json(&folder.join("config.json"))?,
        preprocessor: read_json(&folder.join("preprocessor_config.json"))?,
        path: file,
        notes,
    })
}

/// Removes the prefix that training on several devices puts before every name.
fn without_prefix(tensors: Tensors, prefix: &str) -> Tensors {
    if !tensors.keys().all(|name| name.starts_with(prefix)) {
        return tensors;
    }
    tensors
        .into_iter()
        .map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor))
        .collect()
}

fn read_json(path: &Path) -> Result<Option<Value>, ConvertError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| Problem::Io(error).of(path))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Problem::Invalid(error.to_string()).of(path))
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Problem> {
    let mut beginning = Vec::new();
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut beginning))
        .map_err(Problem::Io)?;
    if beginning.starts_with(b"PK\x03\x04") {
        return pickle::read(path);
    }
    if pickle::is_legacy(&beginning) {
        let reason = "it was written by PyTorch before 1.6; load it with torch.load, and save it \
                      again with torch.save";
        return Err(Problem::Invalid(reason.to_owned()));
    }
    if beginning.get(8) != Some(&b'{') {
        return Err(Problem::Invalid(
            "it is neither a safetensors file nor a PyTorch checkpoint".to_owned(),
        ));
    }
    let bytes = fs::read(path).map_err(Problem::Io)?;
    let invalid = |error: safetensors::SafeTensorError| {
        Problem::Invalid(format!("its safetensors are damaged: {error}"))
    };
    let mut tensors = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes).map_err(invalid)?.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => StoredType::F32,
            Dtype::F16 => StoredType::F16,
            Dtype::BF16 => StoredType::Bf16,
            other => {
                problems.push(format!(
                    "{name} is of {other:?}: weights must be F32, F16 or BF16"
                ));
                continue;
            }
        };
        tensors.insert(
            name.to_owned(),
            StoredTensor {
                dtype,
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            },
        );
    }
    problems.sort_unstable();
    if problems.is_empty() {
        Ok(tensors)
    } else {
        Err(Problem::Invalid(super::render_problems(&problems)))
    }
}
