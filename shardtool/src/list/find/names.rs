//! The paths that a name in a list may mean.

use super::Candidate;
use super::index::Query;
use crate::list::Form;
use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf, absolute};

/// The folders to which names may be relative.
pub struct Places {
    /// The folders that were searched, by all their names.
    roots: Vec<PathBuf>,
    /// Folders of the list files, by all their names, each once.
    folders: Vec<Vec<PathBuf>>,
    /// The folder of each list file.
    folder_of: Vec<usize>,
}

impl Places {
    /// Returns the folders of list files, and of the searches that gave `candidates`.
    pub fn new(files: &[PathBuf], candidates: &[Candidate]) -> Self {
        let mut roots: Vec<&Path> = Vec::new();
        for candidate in candidates {
            let depth = candidate.relative.components().count();
            let root = candidate.path.ancestors().nth(depth);
            if let Some(root) = root.filter(|root| !roots.contains(root)) {
                roots.push(root);
            }
        }
        let mut numbers: HashMap<PathBuf, usize> = HashMap::new();
        let mut folders = Vec::new();
        let mut folder_of = Vec::with_capacity(files.len());
        for file in files {
            let folder = file.parent().unwrap_or(Path::new(""));
            let number = *numbers.entry(folder.to_owned()).or_insert(folders.len());
            if number == folders.len() {
                folders.push(spellings(folder));
            }
            folder_of.push(number);
        }
        Self {
            roots: roots.into_iter().flat_map(spellings).collect(),
            folders,
            folder_of,
        }
    }

    /// Returns the number of the folder of list file `file`.
    pub fn folder(&self, file: usize) -> usize {
        self.folder_of[file]
    }

    /// Returns what `name` may mean in list file `file`, which has the given form.
    pub fn query(&self, file: usize, name: &str, form: Form) -> Query {
        let path = normal(Path::new(name));
        let mut exact = Vec::new();
        if path.is_absolute() {
            exact.extend(self.below(&path));
        } else {
            let folders = &self.folders[self.folder_of[file]];
            let joined = folders.iter().map(|folder| normal(&folder.join(&path)));
            exact.extend(joined.filter_map(|path| self.below(&path)));
        }
        exact.dedup();
        Query {
            // Paths in metadata are relative to it.
            is_exact: path.is_absolute() || form == Form::HuggingFace,
            exact,
            name: path.to_string_lossy().trim_start_matches('/').to_owned(),
        }
    }

    /// Returns the part of an absolute path below a folder that was searched.
    fn below(&self, path: &Path) -> Option<String> {
        let below = |root: &PathBuf| path.strip_prefix(root).ok();
        let below = self.roots.iter().find_map(below)?;
        Some(below.to_string_lossy().into_owned())
    }
}

/// Returns the absolute path of a folder, as given and without links.
fn spellings(folder: &Path) -> Vec<PathBuf> {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let given = absolute(folder).ok().map(|path| normal(&path));
    let mut spellings: Vec<PathBuf> = given.into_iter().collect();
    spellings.extend(fs::canonicalize(folder));
    spellings.dedup();
    spellings
}

/// Removes `.`, `..` and doubled slashes from a path. Those `..` remain that lead above its
/// beginning.
fn normal(path: &Path) -> PathBuf {
    let mut parts: Vec<Component> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.into_iter().collect()
}
