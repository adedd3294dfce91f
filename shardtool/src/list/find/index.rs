//! The files by their paths, ends of paths and names.

use super::Candidate;
use crate::list::values::{Kind, split_extension};
use std::borrow::Cow;
use std::collections::HashMap;

/// What a name in a list may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name, without `.`, `..` and leading slashes.
    pub name: String,
    /// Whole paths of files that it may mean.
    pub exact: Vec<String>,
    /// Whether these go before the path below the folder searched.
    pub is_exact: bool,
}

/// The files that a name means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hits {
    /// The files that it means equally well.
    pub files: Vec<usize>,
    /// Whether only the end of the name is their path.
    pub is_end: bool,
}

/// How well a file fits a name, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It has the path that was meant for sure.
    Exact,
    /// It has this path below the folder searched.
    Path,
    /// It has this path below the folder of the list.
    BesideList,
    /// Its path ends so.
    End,
    /// It is a video, and its path has another extension or none.
    OtherPath,
    /// It is a video, and its path ends so but for the extension.
    OtherEnd,
    /// It has one of these paths without its extension, which is unknown.
    UnknownPath,
    /// Its path ends so without its extension, which is unknown.
    UnknownEnd,
}

/// A file whose path, or its end, is wanted.
#[derive(Debug, Clone, Copy)]
struct Hit {
    /// Its number.
    file: usize,
    /// Whether the whole path is.
    is_path: bool,
    /// Of what kind the file is, if its extension is not part of what is wanted.
    shortened: Option<Kind>,
}

/// The files in which names are searched.
pub struct Index<'a> {
    /// The path of each file below the folder searched.
    paths: Vec<Cow<'a, str>>,
}

/// The paths that are wanted, and the files that have them.
#[derive(Default)]
struct Wanted<'q> {
    /// Number of each path.
    numbers: HashMap<&'q str, usize>,
    /// The files that have it.
    hits: Vec<Vec<Hit>>,
}

impl<'q> Wanted<'q> {
    /// Adds a path.
    fn add(&mut self, path: &'q str) {
        let next = self.hits.len();
        if *self.numbers.entry(path).or_insert(next) == next {
            self.hits.push(Vec::new());
        }
    }

    /// Adds a path, and the same without the extension of a video.
    fn add_both(&mut self, path: &'q str) {
        self.add(path);
        if let Some(stem) = stem(path) {
            self.add(stem);
        }
    }

    /// Notes that a file has this path, if it is wanted.
    fn push(&mut self, path: &str, hit: Hit) {
        if let Some(&number) = self.numbers.get(path) {
            self.hits[number].push(hit);
        }
    }

    /// Returns the files that have this path.
    fn hits(&self, path: &str) -> &[Hit] {
        match self.numbers.get(path) {
            Some(&number) => &self.hits[number],
            None => &[],
        }
    }

    /// Calls `use_hit` for all files that have `path` or the same without extension, and says
    /// whether the extension differs.
    fn visit(&self, path: &str, mut use_hit: impl FnMut(Hit, bool)) {
        for &hit in self.hits(path) {
            use_hit(hit, hit.shortened.is_some());
        }
        for &hit in stem(path).map_or(&[][..], |stem| self.hits(stem)) {
            use_hit(hit, true);
        }
    }
}

impl<'a> Index<'a> {
    /// Returns the index of `candidates`.
    pub fn new(candidates: &'a [Candidate]) -> Self {
        let path = |candidate: &'a Candidate| candidate.relative.to_string_lossy();
        Self {
            paths: candidates.iter().map(path).collect(),
        }
    }

    /// Iterates over the names of the folders in which a file lies.
    pub fn folders(&self, file: usize) -> impl Iterator<Item = &str> {
        let (folders, _) = self.paths[file].rsplit_once('/').unwrap_or_default();
        folders.split('/').filter(|folder| !folder.is_empty())
    }

    /// Returns the files that each query means: those that fit best.
    pub fn find(&mut self, queries: &[Query]) -> Vec<Hits> {
        let mut wanted = Wanted::default();
        for query in queries {
            wanted.add_both(&query.name);
            query.exact.iter().for_each(|path| wanted.add_both(path));
        }
        for (file, path) in self.paths.iter().enumerate() {
            let (short, kind) = split_extension(path);
            let starts = path.match_indices('/').map(|(at, _)| at + 1);
            for start in [0].into_iter().chain(starts) {
                let mut hit = Hit {
                    file,
                    is_path: start == 0,
                    shortened: None,
                };
                wanted.push(&path[start..], hit);
                if kind != Kind::Other && start < short.len() && short.len() < path.len() {
                    hit.shortened = Some(kind);
                    wanted.push(&short[start..], hit);
                }
            }
        }
        let hits = queries.iter().map(|query| self.best(query, &wanted));
        hits.collect()
    }

    /// Returns the files that fit a query best.
    fn best(&self, query: &Query, wanted: &Wanted) -> Hits {
        let mut best: Option<Fit> = None;
        let mut files: Vec<usize> = Vec::new();
        let mut add = |fit: Fit, file: usize| {
            if best.is_none_or(|best| fit < best) {
                best = Some(fit);
                files.clear();
            }
            if best == Some(fit) {
                files.push(file);
            }
        };
        for path in &query.exact {
            wanted.visit(path, |hit, is_other| {
                if !hit.is_path {
                    return;
                }
                let fit = match (is_other, query.is_exact) {
                    (false, true) => Fit::Exact,
                    (false, false) => Fit::BesideList,
                    (true, _) => self.other(hit, Fit::OtherPath, Fit::UnknownPath),
                };
                add(fit, hit.file);
            });
        }
        wanted.visit(&query.name, |hit, is_other| {
            let fit = match (is_other, hit.is_path) {
                (false, true) => Fit::Path,
                (false, false) => Fit::End,
                (true, true) => self.other(hit, Fit::OtherPath, Fit::UnknownPath),
                (true, false) => self.other(hit, Fit::OtherEnd, Fit::UnknownEnd),
            };
            add(fit, hit.file);
        });
        files.sort_unstable();
        files.dedup();
        Hits {
            files,
            is_end: false,
        }
    }

    /// Returns how a file with another extension fits: better if it is a video.
    fn other(&self, hit: Hit, video: Fit, unknown: Fit) -> Fit {
        match hit.shortened {
            Some(Kind::Video) => video,
            _ => unknown,
        }
    }

    /// Finds files for queries without any: those whose whole path is the end of the name.
    pub fn find_ends(&mut self, queries: &[Query], hits: &mut [Hits]) {
        let mut wanted = Wanted::default();
        let is_open = |hits: &Hits| hits.files.is_empty();
        for (query, _) in queries.iter().zip(&*hits).filter(|(_, hits)| is_open(hits)) {
            ends(&query.name).for_each(|end| wanted.add_both(end));
        }
        if wanted.numbers.is_empty() {
            return;
        }
        for (file, path) in self.paths.iter().enumerate() {
            let (short, kind) = split_extension(path);
            let mut hit = Hit {
                file,
                is_path: true,
                shortened: None,
            };
            wanted.push(path, hit);
            if kind != Kind::Other && short.len() < path.len() {
                hit.shortened = Some(kind);
                wanted.push(short, hit);
            }
        }
        for (query, hits) in queries.iter().zip(hits).filter(|(_, hits)| is_open(hits)) {
            for end in ends(&query.name) {
                let query = Query {
                    name: end.to_owned(),
                    exact: Vec::new(),
                    is_exact: false,
                };
                *hits = self.best(&query, &wanted);
                hits.is_end = true;
                if !hits.files.is_empty() {
                    break;
                }
            }
        }
    }
}

/// Iterates over the ends of a path, the longest first, without the path itself.
fn ends(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[at + 1..])
}

/// Returns the path without its extension, if that is one of videos.
fn stem(path: &str) -> Option<&str> {
    let (stem, kind) = split_extension(path);
    (kind == Kind::Video).then_some(stem)
}
