//! PyTorch checkpoints: a zip archive with a pickle, which describes the tensors, and a file of
//! values per storage.
//!
//! candle parses the pickle. Its contents are interpreted here, not by candle's checkpoint reader,
//! which silently skips what it does not know: no tensor may be skipped.

use super::stored::{Problem, StoredTensor, StoredType};
use candle_core::pickle::{Object, Stack};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// Keys under which training scripts store a model's weights.
const STATE_KEYS: [&str; 6] = [
    "model_state",
    "model",
    "module",
    "state_dict",
    "model_state_dict",
    "model_ema",
];

/// First bytes of files written by `torch.save` before PyTorch 1.6.
const LEGACY_BEGINNING: [u8; 5] = [0x80, 0x02, 0x8a, 0x0a, 0x6c];

/// Whether a file with these first bytes was written before PyTorch 1.6, which introduced zip
/// archives.
pub(crate) fn is_legacy(beginning: &[u8]) -> bool {
    beginning.starts_with(&LEGACY_BEGINNING)
}

/// A tensor as described by the pickle.
struct PickledTensor {
    /// Name of the file in the archive that holds its values.
    storage: String,
    dtype: StoredType,
    /// Number of values in the storage.
    count: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Reads the tensors of a model's state in the checkpoint at `path`.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Problem> {
    let file = File::open(path).map_err(Problem::Io)?;
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|error| Problem::Invalid(format!("its zip archive is damaged: {error}")))?;
    let names: Vec<String> = zip
        .file_names()
        .map(|name| name.map(|name| name.into_owned()))
        .collect::<Result<_, _>>()
        .map_err(invalid)?;
    let no_checkpoint = || {
        Problem::Invalid(
            "it is a zip archive, but not a PyTorch checkpoint: it has no data.pkl".to_owned(),
        )
    };
    let folder = names
        .iter()
        .find_map(|name| name.strip_suffix("/data.pkl"))
        .ok_or_else(no_checkpoint)?
        .to_owned();
    if names.contains(&format!("{folder}/byteorder"))
        && entry(&mut zip, &format!("{folder}/byteorder"))? != b"little"
    {
        return Err(Problem::Invalid(
            "it was written on a big-endian machine; load and save it again on a little-endian one"
                .to_owned(),
        ));
    }
    let pickle = entry(&mut zip, &format!("{folder}/data.pkl"))?;
    let mut stack = Stack::empty();
    stack.read_loop(&mut pickle.as_slice()).map_err(invalid)?;
    let state = state(stack.finalize().map_err(invalid)?)?;

    let mut tensors = BTreeMap::new();
    let mut latest = (String::new(), Vec::new());
    for (name, described) in state {
        let described = described.map_err(|reason| Problem::Invalid(format!("{name} {reason}")))?;
        // Tensors often share a storage; those that do are adjacent.
        if latest.0 != described.storage {
            latest = (
                described.storage.clone(),
                entry(&mut zip, &format!("{folder}/data/{}", described.storage))?,
            );
        }
        let bytes = described
            .gather(&latest.1)
            .map_err(|reason| Problem::Invalid(format!("{name} {reason}")))?;
        tensors.insert(
            name,
            StoredTensor {
                dtype: described.dtype,
                shape: described.shape,
                bytes,
            },
        );
    }
    Ok(tensors)
}

fn invalid(error: impl std::fmt::Display) -> Problem {
    Problem::Invalid(error.to_string())
}

fn entry(zip: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<Vec<u8>, Problem> {
    let failed = |error: &dyn std::fmt::Display| Problem::Invalid(format!("{name} in it: {error}"));
    let mut bytes = Vec::new();
    zip.by_name(name)
        .map_err(|error| failed(&error))?
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// An entry of a model's state: its name, and its tensor or why it is not one.
type Entry = (String, Result<PickledTensor, String>);

/// Finds the entries of the model's state in a checkpoint.
fn state(root: Object) -> Result<Vec<Entry>, Problem> {
    let Object::Dict(mut entries) = root else {
        return Err(Problem::Invalid("it does not hold a dictionary".to_owned()));
    };
    for key in STATE_KEYS {
        let at = entries.iter().position(
            |entry| matches!(entry, (Object::Unicode(name), Object::Dict(_)) if name == key),
        );
        if let Some(at) = at
            && let (_, Object::Dict(state)) = entries.swap_remove(at)
        {
            entries = state;
            break;
        }
    }
    let mut state = Vec::new();
    for (name, value) in entries {
        let Object::Unicode(name) = name else {
            return Err(Problem::Invalid(
                "a name in its dictionary is not a string".to_owned(),
            ));
        };
        // Versions of layers, written by PyTorch.
        if name != "_metadata" {
            let described = PickledTensor::read(value)
                .ok_or_else(|| "is not a tensor".to_owned())
                .flatten();
            state.push((name, described));
        }
    }
    Ok(state)
}

impl PickledTensor {
    /// Interprets the call by which the pickle builds a tensor; `None` if it is another object.
    fn read(object: Object) -> Option<Result<Self, String>> {
        let (callable, arguments) = object.reduce().ok()?;
        let (module, class) = callable.class().ok()?;
        let arguments = arguments.tuple().ok()?;
        match (module.as_str(), class.as_str()) {
            ("torch._utils", "_rebuild_parameter") => Self::read(arguments.into_iter().next()?),
            ("torch._tensor", "_rebuild_from_type_v2") => {
                let mut arguments = arguments.into_iter();
                let (callable, _, inner) =
                    (arguments.next()?, arguments.next()?, arguments.next()?);
                Self::read(Object::Reduce {
                    callable: Box::new(callable),
                    args: Box::new(inner),
                })
            }
            ("torch._utils", "_rebuild_tensor_v2") => {
                let mut arguments = arguments.into_iter();
                let storage = arguments.next()?;
                let offset = arguments.next()?;
                let shape = arguments.next()?;
                let strides = arguments.next()?;
                let mut storage = storage
                    .persistent_load()
                    .ok()?
                    .tuple()
                    .ok()?
                    .into_iter()
                    .skip(1);
                let (class, key, _, count) = (
                    storage.next()?,
                    storage.next()?,
                    storage.next()?,
                    storage.next()?,
                );
                let (_, class) = class.class().ok()?;
                let dtype = match class.as_str() {
                    "FloatStorage" => StoredType::F32,
                    "HalfStorage" => StoredType::F16,
                    "BFloat16Storage" => StoredType::Bf16,
                    other => {
                        return Some(Err(format!(
                            "is a tensor of {other}: weights must be f32, f16 or bf16"
                        )));
                    }
                };
                Some(Ok(Self {
                    storage: key.unicode().ok()?,
                    dtype,
                    count: number(count)?,
                    offset: number(offset)?,
                    shape: numbers(shape)?,
                    strides: numbers(strides)?,
                }))
            }
            _ => None,
        }
    }

    /// Gathers the bytes of the tensor's values, in their order, from its storage.
    fn gather(&self, storage: &[u8]) -> Result<Vec<u8>, String> {
        let size = self.dtype.size();
        let too_short = || format!("needs more than the {} bytes of its storage", storage.len());
        if self.shape.len() != self.strides.len() {
            return Err("has different numbers of strides and dimensions".to_owned());
        }
        if self.count.checked_mul(size) != Some(storage.len()) {
            return Err(format!(
                "has {} bytes, not {} values",
                storage.len(),
                self.count
            ));
        }
        let values = self
            .shape
            .iter()
            .try_fold(1usize, |count, &side| count.checked_mul(side))
            .ok_or_else(too_short)?;
        if values == 0 {
            return Ok(Vec::new());
        }
        let last =
            self.shape
                .iter()
                .zip(&self.strides)
                .try_fold(self.offset, |last, (&side, &stride)| {
                    (side - 1)
                        .checked_mul(stride)
                        .and_then(|reach| last.checked_add(reach))
                });
        if last.is_none_or(|last| last >= self.count) || values > self.count {
            return Err(too_short());
        }
        let mut expected = 1;
        let is_contiguous = self
            .shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(&side, &stride)| {
                let follows = side == 1 || stride == expected;
                expected *= side;
                follows
            });
        if is_contiguous {
            return Ok(storage[self.offset * size..(self.offset + values) * size].to_vec());
        }
        let mut bytes = Vec::with_capacity(values * size);
        let mut place = vec![0; self.shape.len()];
        for _ in 0..values {
            let at = self.offset
                + place
                    .iter()
                    .zip(&self.strides)
                    .map(|(at, stride)| at * stride)
                    .sum::<usize>();
            bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for (at, &side) in place.iter_mut().zip(&self.shape).rev() {
                *at += 1;
                if *at < side {
                    break;
                }
                *at = 0;
            }
        }
        Ok(bytes)
    }
}

fn number(object: Object) -> Option<usize> {
    usize::try_from(object.int_or_long().ok()?).ok()
}

fn numbers(object: Object) -> Option<Vec<usize>> {
    object.tuple().ok()?.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(count: usize, offset: usize, shape: &[usize], strides: &[usize]) -> PickledTensor {
        let storage = String::new();
        let dtype = StoredType::F16;
        PickledTensor {
            storage,
            dtype,
            count,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    #[test]
    fn strided_tensors_are_put_in_order() {
        let storage: Vec<u8> = (0..8).flat_map(|value| [value, 100 + value]).collect();
        let values = |tensor: PickledTensor| {
            tensor
                .gather(&storage)
                .map(|bytes| bytes.iter().step_by(2).copied().collect::<Vec<u8>>())
        };
        assert_eq!(
            values(described(8, 1, &[2, 3], &[3, 1])),
            Ok(vec![1, 2, 3, 4, 5, 6])
        );
        assert_eq!(
            values(described(8, 0, &[2, 4], &[1, 2])),
            Ok(vec![0, 2, 4, 6, 1, 3, 5, 7])
        );
        assert_eq!(
            values(described(8, 0, &[1, 4], &[77, 1])),
            Ok(vec![0, 1, 2, 3])
        );
        assert_eq!(values(described(8, 0, &[0, 4], &[4, 1])), Ok(vec![]));
        for bad in [
            described(8, 3, &[2, 3], &[3, 1]),
            described(9, 0, &[2, 3], &[3, 1]),
            described(8, 0, &[2, 3], &[3]),
            described(8, 0, &[usize::MAX, 3], &[3, 1]),
            described(8, usize::MAX, &[2], &[usize::MAX]),
            described(8, 0, &[1 << 40], &[0]),
        ] {
            bad.gather(&storage).expect_err("it does not fit");
        }
    }
}
