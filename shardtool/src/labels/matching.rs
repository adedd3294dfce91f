//! Matches the lines of a label file with videos.

use super::names::{VideoNames, normal, shortened};
use super::parse::Line;
use anyhow::anyhow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Removes the lines that repeat an earlier one.
///
/// # Errors
/// When two lines give one path two labels.
pub fn unique(lines: Vec<Line>, file: &Path) -> anyhow::Result<Vec<Line>> {
    let mut by_path: HashMap<String, usize> = HashMap::with_capacity(lines.len());
    let mut unique: Vec<Line> = Vec::with_capacity(lines.len());
    for line in lines {
        let first = *by_path.entry(normal(&line.path)).or_insert(unique.len());
        match unique.get(first) {
            None => unique.push(line),
            Some(first) if first.label == line.label => {}
            Some(first) => return Err(conflict(first, &line, file)),
        }
    }
    Ok(unique)
}

/// Returns, for each video, the indices of the lines that name it: by an exact path, or else, among
/// the lines that match no video exactly, by a path without extension. The first of them counts; a
/// line may match several videos.
///
/// # Errors
/// When two lines give one video two labels, and neither applies to another video.
pub fn lines_of(
    lines: &[Line],
    names: &VideoNames,
    file: &Path,
) -> anyhow::Result<Vec<Vec<usize>>> {
    let paths = lines.iter().map(|line| normal(&line.path));
    let by_path: HashMap<String, usize> = paths.zip(0..).collect();
    let mut lines_of: Vec<Vec<usize>> = (0..names.len())
        .map(|video| hits(&names.exact(video), &by_path))
        .collect();
    let matched: HashSet<usize> = lines_of.iter().flatten().copied().collect();

    let mut by_short_path: HashMap<String, usize> = HashMap::new();
    let mut conflicts: HashMap<String, usize> = HashMap::new();
    let others = lines
        .iter()
        .enumerate()
        .filter(|(index, _)| !matched.contains(index));
    for (index, line) in others {
        for path in [normal(&line.path)]
            .into_iter()
            .chain(shortened(&line.path))
        {
            let first = *by_short_path.entry(path.clone()).or_insert(index);
            if lines[first].label != line.label {
                conflicts.insert(path, index);
            }
        }
    }
    for (video, lines_of) in lines_of.iter_mut().enumerate() {
        if !lines_of.is_empty() {
            continue;
        }
        let short = names.without_extension(video);
        *lines_of = hits(&short, &by_short_path);
        if let Some((path, &second)) = short.iter().find_map(|path| conflicts.get_key_value(path)) {
            return Err(conflict(&lines[by_short_path[path]], &lines[second], file));
        }
    }

    // A more specific line may override a line, but not for all of its videos.
    let used: HashSet<usize> = lines_of
        .iter()
        .filter_map(|lines| lines.first().copied())
        .collect();
    for indexes in &lines_of {
        let Some((&first, others)) = indexes.split_first() else {
            continue;
        };
        let is_overridden =
            |&&other: &&usize| !used.contains(&other) && lines[other].label != lines[first].label;
        if let Some(&other) = others.iter().find(is_overridden) {
            return Err(conflict(&lines[first], &lines[other], file));
        }
    }
    Ok(lines_of)
}

/// Returns the lines that have one of the paths, each once, in the order of the paths.
fn hits(paths: &[String], by_path: &HashMap<String, usize>) -> Vec<usize> {
    let mut hits = Vec::new();
    for &line in paths.iter().filter_map(|path| by_path.get(path)) {
        if !hits.contains(&line) {
            hits.push(line);
        }
    }
    hits
}

fn conflict(one: &Line, other: &Line, file: &Path) -> anyhow::Error {
    let (first, second) = if one.number < other.number {
        (one, other)
    } else {
        (other, one)
    };
    let label = |line: &Line| line.label.clone().unwrap_or_else(|| "none".to_owned());
    anyhow!(
        "lines {} and {} of {} give {} two labels: {} and {}",
        first.number,
        second.number,
        file.display(),
        first.path,
        label(first),
        label(second)
    )
}
