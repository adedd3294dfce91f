//! Finds the files that entries name.
//!
//! - `names`: the paths that a name may mean.
//! - `index`: the files by their paths, ends of paths and names.

mod index;
mod names;

use super::check::key;
use super::{Bound, Entry, List, values};
use anyhow::{anyhow, ensure};
use index::{Index, Query};
use names::Places;
use std::borrow::Cow;
use std::collections::HashMap;

/// Maximum number of files that an error names.
const MAX_EXAMPLES: usize = 3;

/// A file that a list may name.
pub use pipeline::video::discover::VideoFile as Candidate;

/// A file that a list names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number among the candidates.
    pub file: usize,
    /// The entries that name it, in their order.
    pub entries: Vec<usize>,
}

/// The files that the entries of a list name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The files, in the order of the candidates.
    pub videos: Vec<Listed>,
    /// Entries without a file.
    pub missing: Vec<usize>,
    /// Entries whose file was cut out of the video that they name ([`Entry::cut`]), in order.
    pub trimmed: Vec<usize>,
    /// Number of entries that were dropped because an earlier one has the same file, segment and
    /// label under another name.
    pub repeated: u64,
}

impl Found {
    /// Returns start and end of entry `index` in its file.
    pub fn segment(&self, list: &List, index: usize) -> (Option<Bound>, Option<Bound>) {
        segment(
            &list.entries[index],
            self.trimmed.binary_search(&index).is_ok(),
        )
    }
}

/// Finds the files that the entries of `list` name. The most specific name counts: the path below
/// the folder searched, an absolute path, or the path from the list's own folder; then the end of
/// the path; then each of them with another extension or none; and last a path of which only the
/// end exists below the folder searched.
///
/// # Errors
/// When a name means several files, none of which lies in a folder of the entry's class or split;
/// when one segment belongs to several splits.
pub fn find(list: &List, candidates: &[Candidate]) -> anyhow::Result<Found> {
    let places = Places::new(&list.files, candidates);
    let mut queries = Queries::default();
    let mut asked = Vec::with_capacity(list.entries.len());
    for entry in &list.entries {
        let cut = entry.cut.as_ref();
        let cut = cut.map(|cut| queries.add(entry, &cut.name, list, &places));
        asked.push((cut, queries.add(entry, &entry.name, list, &places)));
    }
    let mut index = Index::new(candidates);
    let mut hits = index.find(&queries.queries);
    index.find_ends(&queries.queries, &mut hits);
    let mut found = Found::default();
    let mut files: Vec<Vec<usize>> = vec![Vec::new(); candidates.len()];
    let mut folders: HashMap<usize, Folders> = HashMap::new();
    let mut shortened: HashMap<usize, (usize, usize)> = HashMap::new();
    for (number, (cut, whole)) in asked.into_iter().enumerate() {
        // A file of the segment alone is more specific than that of its video.
        let cut = cut.filter(|&query| !hits[query].files.is_empty());
        let query = cut.unwrap_or(whole);
        let hit = &hits[query];
        let Some(&first) = hit.files.first() else {
            found.missing.push(number);
            continue;
        };
        let file = if hit.files.len() == 1 {
            first
        } else {
            let folders = folders
                .entry(query)
                .or_insert_with(|| Folders::new(&hit.files, &index));
            let chosen = folders.choose(&list.entries[number], &hit.files);
            chosen.map_err(|files| ambiguity(list, number, &files, candidates))?
        };
        if hit.is_end {
            let (other, line) = *shortened.entry(file).or_insert((query, number));
            ensure!(
                other == query || queries.queries[other].name == queries.queries[query].name,
                "{} names {} and {} {}, but both can only be {}: search the folder that holds both",
                list.place(line),
                list.entries[line].name,
                list.place(number),
                list.entries[number].name,
                candidates[file].path.display()
            );
        }
        if cut.is_some() {
            found.trimmed.push(number);
        }
        files[file].push(number);
    }
    for (file, entries) in files.into_iter().enumerate() {
        let given = entries.len();
        let entries = unique(list, &found, entries)?;
        found.repeated += (given - entries.len()) as u64;
        if !entries.is_empty() {
            found.videos.push(Listed { file, entries });
        }
    }
    Ok(found)
}

/// Returns start and end of a segment in its file.
fn segment(entry: &Entry, is_trimmed: bool) -> (Option<Bound>, Option<Bound>) {
    match &entry.cut {
        Some(cut) if is_trimmed => (cut.start, cut.end),
        _ => (entry.start, entry.end),
    }
}

/// Returns the entries of one file without repetitions.
fn unique(list: &List, found: &Found, entries: Vec<usize>) -> anyhow::Result<Vec<usize>> {
    let mut kept: Vec<usize> = Vec::with_capacity(entries.len());
    let mut first_of = HashMap::with_capacity(entries.len());
    let mut seen = HashMap::with_capacity(entries.len());
    for index in entries {
        let (start, end) = found.segment(list, index);
        let times = (key(start), key(end));
        let entry = &list.entries[index];
        let first = *first_of.entry(times).or_insert(index);
        let other = &list.entries[first];
        if let (Some(one), Some(two)) = (&other.split, &entry.split) {
            ensure!(
                one == two,
                "{} ({}) and {} ({}) are one segment with the splits {one} and {two}: what is \
                 trained on would be tested on",
                list.place(first),
                other.name,
                list.place(index),
                entry.name
            );
        }
        if seen.insert((times, entry.label.as_deref()), ()).is_none() {
            kept.push(index);
        }
    }
    Ok(kept)
}

/// The names that are searched, each once per folder of list files.
#[derive(Default)]
struct Queries {
    /// What each of them may mean.
    queries: Vec<Query>,
    /// Number of each query by the folder of its list file and the name.
    numbers: HashMap<(usize, String), usize>,
}

impl Queries {
    /// Returns the number of the query for `name`.
    fn add(&mut self, entry: &Entry, name: &str, list: &List, places: &Places) -> usize {
        let key = (places.folder(entry.file), name.to_owned());
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let form = list.recognised[entry.file].form;
        self.queries.push(places.query(entry.file, name, form));
        self.numbers.insert(key, self.queries.len() - 1);
        self.queries.len() - 1
    }
}

/// The files that one name means, by the folders in which they lie.
struct Folders {
    /// Files in order, by the names of their folders, and of the splits that folders have.
    by_folder: HashMap<String, Vec<usize>>,
}

impl Folders {
    /// Returns the folders of `files`.
    fn new(files: &[usize], index: &Index) -> Self {
        let mut by_folder: HashMap<String, Vec<usize>> = HashMap::new();
        for &file in files {
            let mut folders: Vec<String> = index.folders(file).map(class_name).collect();
            let splits = index.folders(file).filter_map(values::known_split);
            folders.extend(splits.map(|split| format!("split/{split}")));
            folders.sort_unstable();
            folders.dedup();
            for folder in folders {
                by_folder.entry(folder).or_default().push(file);
            }
        }
        Self { by_folder }
    }

    /// Chooses one of `files`: the one in a folder of the entry's class or split.
    ///
    /// # Errors
    /// With the files between which the folders do not decide.
    fn choose(&self, entry: &Entry, files: &[usize]) -> Result<usize, Vec<usize>> {
        let class = entry.label.as_deref().map(class_name);
        let split = entry.split.as_ref().map(|split| format!("split/{split}"));
        let mut left = Cow::Borrowed(files);
        for folder in [class, split].into_iter().flatten() {
            let Some(inside) = self.by_folder.get(&folder) else {
                continue;
            };
            if left.len() == files.len() {
                left = Cow::Borrowed(inside);
            } else {
                let mut both = left.to_vec();
                both.retain(|file| inside.binary_search(file).is_ok());
                left = if both.is_empty() { left } else { both.into() };
            }
            if let [file] = left.as_ref() {
                return Ok(*file);
            }
        }
        Err(left.into_owned())
    }
}

/// Returns the name of a class or of its folder for comparison.
fn class_name(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

/// Returns the error of an entry that may mean any of `files`.
fn ambiguity(
    list: &List,
    entry: usize,
    files: &[usize],
    candidates: &[Candidate],
) -> anyhow::Error {
    let name = |&file: &usize| candidates[file].relative.display().to_string();
    let names: Vec<String> = files.iter().take(MAX_EXAMPLES).map(name).collect();
    let more = match files.len().saturating_sub(MAX_EXAMPLES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    anyhow!(
        "{} names {}, which may be {}{more}: write more of its path, or search a folder that holds \
         only one of them",
        list.place(entry),
        list.entries[entry].name,
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
