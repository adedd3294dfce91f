//! Checkpoints: folders that are written atomically, and verified by length and hash when read.
//!
//! ```text
//! checkpoints/step-000300/model.safetensors      weights under the reference's names
//!                         optimizer.safetensors  the two moments of each
//!                         state.json             step, place in the data, configuration, and
//!                                                length and hash of the other files; written last
//! ```
//!
//! A checkpoint that is damaged, or does not fit the run, is never used, removed or overwritten:
//! where one of the same step must be written, it is renamed to `step-000300.damaged`.

use crate::backend::{Learner, LearnerError, NamedValues};
use crate::config::Task;
use candle_core::{Device, Tensor};
use pipeline::atomic_file::{TEMPORARY_ENDING, sync_parent};
use pipeline::sampling::order::Cursor;
use safetensors::tensor::{Metadata, View};
use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Folder of the checkpoints inside the folder of a run.
pub const CHECKPOINTS_DIR: &str = "checkpoints";

/// Name of the file of weights.
pub const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";

/// Suffix of a damaged checkpoint that was moved aside.
const DAMAGED_ENDING: &str = ".damaged";

/// Bytes per read.
const BLOCK_BYTES: usize = 1 << 20;

/// Why checkpoints cannot be written or listed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be written. The earlier ones are still there.
    #[error("cannot save {}: {source}; the checkpoints before it are as they were", path.display())]
    Save {
        /// Which checkpoint.
        path: PathBuf,
        /// Why not: a full disk, say.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder of checkpoints cannot be read, or an old checkpoint not removed.
    #[error("cannot tidy up {}: {source}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A checkpoint that a run cannot resume from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct InvalidCheckpoint {
    /// Which checkpoint.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// The state of a run between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Steps among them that changed nothing because their loss or gradients were not finite.
    pub nonfinite: u64,
    /// Consecutive steps of this kind at the end.
    pub nonfinite_in_a_row: u64,
    /// Place in the data.
    pub cursor: Cursor,
    /// Number of clips in the data, which the place depends on.
    pub clips: u64,
    /// Fingerprint of the data ([`pipeline::source::fingerprint`]); none in old checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<u64>,
}

impl RunState {
    /// The state of a new run on `clips` clips.
    pub fn new(clips: u64) -> Self {
        Self {
            step: 0,
            nonfinite: 0,
            nonfinite_in_a_row: 0,
            cursor: Cursor::default(),
            clips,
            data: None,
        }
    }

    /// Steps that have changed the weights: the optimizer's own count.
    pub const fn updates(&self) -> u64 {
        self.step.saturating_sub(self.nonfinite)
    }
}

/// The contents of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    state: RunState,
    /// The configuration, as TOML.
    config: String,
    /// The other files by name.
    files: BTreeMap<String, Content>,
    /// Hash of the three above as compact JSON.
    xxh3: u64,
}

/// Length and hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    bytes: u64,
    xxh3: u64,
}

impl StateFile {
    fn new(
        state: RunState,
        config: String,
        files: BTreeMap<String, Content>,
    ) -> serde_json::Result<Self> {
        let mut new = Self {
            state,
            config,
            files,
            xxh3: 0,
        };
        new.xxh3 = new.hash()?;
        Ok(new)
    }

    fn hash(&self) -> serde_json::Result<u64> {
        Ok(xxh3_64(&serde_json::to_vec(&(
            &self.state,
            &self.config,
            &self.files,
        ))?))
    }
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    task: Task,
    /// Those that cannot be used and are not touched.
    invalid: Vec<PathBuf>,
}

impl Checkpoints {
    /// The checkpoints of the run in the folder `run`, configured by `task`.
    pub fn new(run: &Path, task: &Task) -> Self {
        Self {
            dir: run.join(CHECKPOINTS_DIR),
            task: task.clone(),
            invalid: Vec::new(),
        }
    }

    /// Writes a checkpoint, and removes the oldest beyond those to keep. Returns its path.
    ///
    /// # Errors
    /// When it cannot be written. The earlier checkpoints are not touched.
    pub fn save(&self, learner: &dyn Learner, state: RunState) -> Result<PathBuf, CheckpointError> {
        let path = self.dir.join(format!("step-{:06}", state.step));
        let temporary = self
            .dir
            .join(format!("step-{:06}{TEMPORARY_ENDING}", state.step));
        if let Err(source) = self.write(&temporary, &path, learner, state) {
            // The first failure is the one to report.
            let _ = fs::remove_dir_all(&temporary);
            return Err(CheckpointError::Save { path, source });
        }
        self.tidy()?;
        Ok(path)
    }

    fn write(
        &self,
        temporary: &Path,
        path: &Path,
        learner: &dyn Learner,
        state: RunState,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // Not `create_dir_all`: where the folder of the run is gone, there is no run any more.
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        remove_if_there(temporary)?;
        fs::create_dir(temporary)?;
        let mut files = BTreeMap::new();
        for (name, values) in [
            (MODEL_FILE, learner.weights()?),
            (OPTIMIZER_FILE, learner.moments()?),
        ] {
            let file = temporary.join(name);
            let views = values
                .iter()
                .map(|named| (named.name.as_str(), Stored(named)));
            safetensors::serialize_to_file(views, None, &file).map_err(plain)?;
            File::open(&file)?.sync_all()?;
            files.insert(name.to_owned(), Content::of(&file)?);
        }
        let state = StateFile::new(state, self.task.to_toml(), files)?;
        let file = temporary.join(STATE_FILE);
        fs::write(&file, serde_json::to_vec_pretty(&state)?)?;
        File::open(&file)?.sync_all()?;
        // safetensors makes its files readable by their owner only.
        let permissions = fs::metadata(&file)?.permissions();
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            fs::set_permissions(temporary.join(name), permissions.clone())?;
        }
        File::open(temporary)?.sync_all()?;
        // One that is there is invalid, or the run would have resumed from it.
        move_aside(path)?;
        fs::rename(temporary, path)?;
        Ok(sync_parent(path)?)
    }

    /// Removes the oldest checkpoints, and partial ones that interrupted writes have left.
    fn tidy(&self) -> Result<(), CheckpointError> {
        let failed = |path: &Path, source| CheckpointError::Folder {
            path: path.to_owned(),
            source,
        };
        let valid: Vec<PathBuf> = self
            .newest_first()?
            .into_iter()
            .filter(|path| !self.invalid.contains(path))
            .collect();
        for old in valid.into_iter().skip(self.task.common().checkpoints.keep) {
            fs::remove_dir_all(&old).map_err(|source| failed(&old, source))?;
        }
        for entry in fs::read_dir(&self.dir).map_err(|source| failed(&self.dir, source))? {
            let path = entry.map_err(|source| failed(&self.dir, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name
                .strip_suffix(TEMPORARY_ENDING)
                .is_some_and(|name| number(name).is_some())
            {
                fs::remove_dir_all(&path).map_err(|source| failed(&path, source))?;
            }
        }
        Ok(())
    }

    /// Records that a checkpoint cannot be used.
    pub fn mark_invalid(&mut self, path: &Path) {
        self.invalid.push(path.to_owned());
    }

    /// The checkpoints, the latest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest_first(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        newest_first(&self.dir)
    }

    /// Reads a checkpoint of this run, to the host.
    ///
    /// # Errors
    /// When a file of it is missing or damaged, or it was made with another configuration.
    pub fn load(&self, path: &Path) -> Result<Loaded, InvalidCheckpoint> {
        let invalid = |reason: String| InvalidCheckpoint {
            path: path.to_owned(),
            reason,
        };
        let state = read_state(path).map_err(invalid)?;
        let task = Task::parse(&state.config)
            .map_err(|error| invalid(format!("its configuration: {error}")))?;
        let differences = task.differences_that_matter(&self.task);
        if !differences.is_empty() {
            return Err(invalid(format!(
                "it was made with another configuration: {}",
                differences.join("; ")
            )));
        }
        let tensors = |name: &str| {
            let content = state
                .files
                .get(name)
                .ok_or_else(|| invalid(format!("{STATE_FILE} does not name {name}")))?;
            read_tensors(&path.join(name), *content)
                .map_err(|reason| invalid(format!("{name} {reason}")))
        };
        Ok(Loaded {
            weights: tensors(MODEL_FILE)?,
            moments: tensors(OPTIMIZER_FILE)?,
            state: state.state,
        })
    }
}

/// The step in a checkpoint's name.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("step-")
        .filter(|step| step.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|step| step.parse().ok())
}

/// The checkpoints in the folder `dir`, the latest first.
fn newest_first(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let failed = |source| CheckpointError::Folder {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        found.extend(
            number(&path.file_name().unwrap_or_default().to_string_lossy())
                .map(|step| (step, path)),
        );
    }
    found.sort_unstable();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Renames a checkpoint that is in the way.
fn move_aside(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let aside = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(DAMAGED_ENDING);
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    let free = (1..)
        .map(aside)
        .find(|name| !name.exists())
        .expect("there are always more numbers");
    fs::rename(path, free)
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The I/O error inside a safetensors error, where there is one.
fn plain(error: SafeTensorError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        SafeTensorError::IoError(error) => error.into(),
        error => error.into(),
    }
}

/// A tensor as safetensors writes it.
pub(crate) struct Stored<'a>(pub(crate) &'a NamedValues<'a>);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(&self.0.values))
    }

    fn data_len(&self) -> usize {
        size_of_val(&*self.0.values)
    }
}

impl Content {
    /// Of the file at `path`.
    fn of(path: &Path) -> io::Result<Self> {
        let (mut file, mut hasher, mut bytes) = (File::open(path)?, Xxh3::new(), 0);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(Self {
                    bytes,
                    xxh3: hasher.digest(),
                });
            }
            hasher.update(&block[..read]);
            bytes += read as u64;
        }
    }
}

/// A checkpoint in memory, on the host.
#[derive(Debug)]
pub struct Loaded {
    /// Weights by name.
    pub weights: HashMap<String, Tensor>,
    /// The moments of each, as `first/NAME` and `second/NAME`.
    pub moments: HashMap<String, Tensor>,
    /// The state of the run.
    pub state: RunState,
}

/// The configuration and the weights of a checkpoint, on the host.
///
/// # Errors
/// When a file of it is missing or damaged.
pub fn weights(path: &Path) -> Result<(Task, HashMap<String, Tensor>), InvalidCheckpoint> {
    let invalid = |reason: String| InvalidCheckpoint {
        path: path.to_owned(),
        reason,
    };
    let state = read_state(path).map_err(invalid)?;
    let task = Task::parse(&state.config)
        .map_err(|error| invalid(format!("its configuration: {error}")))?;
    let content = state
        .files
        .get(MODEL_FILE)
        .ok_or_else(|| invalid(format!("{STATE_FILE} does not name {MODEL_FILE}")))?;
    let tensors = read_tensors(&path.join(MODEL_FILE), *content)
        .map_err(|error| invalid(format!("{MODEL_FILE} {error}")))?;
    Ok((task, tensors))
}

/// Whether the folder `path` is a checkpoint, valid or not.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join(STATE_FILE).exists()
}

/// The latest valid checkpoint of the run in `run`, and the invalid ones after it.
///
/// # Errors
/// When the folder cannot be read.
pub fn newest_weights(
    run: &Path,
) -> Result<(Option<ValidWeights>, Vec<InvalidCheckpoint>), CheckpointError> {
    let mut invalid = Vec::new();
    for path in newest_first(&run.join(CHECKPOINTS_DIR))? {
        match weights(&path) {
            Ok((task, tensors)) => return Ok((Some((path, task, tensors)), invalid)),
            Err(reason) => invalid.push(reason),
        }
    }
    Ok((None, invalid))
}

/// A checkpoint, its configuration, and its weights.
pub type ValidWeights = (PathBuf, Task, HashMap<String, Tensor>);

/// Reads `state.json`; the error is the reason.
fn read_state(path: &Path) -> Result<StateFile, String> {
    let bytes = fs::read(path.join(STATE_FILE)).map_err(|error| unreadable(STATE_FILE, &error))?;
    let state: StateFile = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{STATE_FILE} is damaged: {error}"))?;
    let is_whole = state.hash().is_ok_and(|hash| hash == state.xxh3);
    if is_whole {
        Ok(state)
    } else {
        Err(format!("{STATE_FILE} is damaged: its hash is another"))
    }
}

fn unreadable(file: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("{file} is missing"),
        _ => format!("{file} cannot be read: {error}"),
    }
}

/// Reads the tensors of a file of length and hash `content`; the error is the reason without the
/// file's name.
fn read_tensors(path: &Path, content: Content) -> Result<HashMap<String, Tensor>, String> {
    let found =
        Content::of(path).map_err(|error| unreadable("", &error).trim_start().to_owned())?;
    if found.bytes != content.bytes {
        return Err(format!(
            "is damaged: it has {} bytes, not {}",
            found.bytes, content.bytes
        ));
    }
    if found.xxh3 != content.xxh3 {
        return Err("is damaged: its hash is another".to_owned());
    }
    read_safetensors(path).map_err(|error| format!("cannot be read: {error}"))
}

/// Reads a file of f32 tensors, one after the other.
pub(crate) fn read_safetensors(
    path: &Path,
) -> Result<HashMap<String, Tensor>, Box<dyn std::error::Error>> {
    let mut file = BufReader::with_capacity(BLOCK_BYTES, File::open(path)?);
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = vec![0; usize::try_from(u64::from_le_bytes(length))?];
    file.read_exact(&mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header)?;
    let mut tensors = HashMap::new();
    // The format has the tensors in the order of their offsets, without gaps.
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).ok_or("a tensor without a place")?;
        if info.dtype != Dtype::F32 {
            return Err(format!("{name} is of type {:?}, not F32", info.dtype).into());
        }
        let mut values = vec![0f32; info.shape.iter().product()];
        file.read_exact(bytemuck::cast_slice_mut(&mut values))?;
        tensors.insert(
            name,
            Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu)?,
        );
    }
    Ok(tensors)
}

/// Whether a learner cannot resume because of the checkpoint, not of the device.
pub fn is_unfit(error: &LearnerError) -> bool {
    matches!(
        error,
        LearnerError::Parameters(
            crate::model::ParameterError::Mismatch { .. }
                | crate::model::ParameterError::Moments { .. }
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_without_a_fingerprint_is_read_and_written_unchanged() {
        let before =
            r#"{"step":3,"nonfinite":0,"nonfinite_in_a_row":0,"cursor":{"samples":12},"clips":5}"#;
        let state: RunState = serde_json::from_str(before).expect("a state");
        assert_eq!(state.data, None);
        assert_eq!(
            serde_json::to_string(&state).expect("JSON"),
            before,
            "or its hash is another"
        );
    }
}
