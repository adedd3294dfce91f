//! Folds of labelled videos: parts of equal rights, each of which is validated on once.

use super::StudyError;
use pipeline::choice::{Choice, choose, splits};
use pipeline::source::{Source, WeightedSource};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// With fewer splits than this, they are the usual ones of training and validation.
const FEWEST_SPLITS: usize = 3;

/// The folds of `sets` of labelled shards: where all of them are in the same three splits or more,
/// one per split. Otherwise `count` blocks: the videos of each class, in the order of their paths,
/// are cut into as many parts of equal size, as neighbours are often of the same scene.
///
/// # Errors
/// When the data are no shards, cannot be read, or a fold would be empty.
pub fn folds(
    sets: &[WeightedSource],
    count: usize,
) -> Result<Vec<Vec<WeightedSource>>, StudyError> {
    let mut common: Option<BTreeSet<String>> = None;
    for set in sets {
        let Source::Shards(shards) = &*set.source else {
            return Err(StudyError::NoShards {
                path: set.source.dir().to_owned(),
            });
        };
        let own = splits(shards)?;
        common = Some(match common {
            Some(common) if common == own => common,
            Some(_) => BTreeSet::new(),
            None => own,
        });
    }
    let common = common.unwrap_or_default();
    let folds = if common.len() >= FEWEST_SPLITS {
        let of_split = |split: &String| of_split(sets, split);
        common.iter().map(of_split).collect::<Result<Vec<_>, _>>()?
    } else {
        blocks(sets, count)?
    };
    let is_empty = |fold: &Vec<WeightedSource>| fold.iter().all(WeightedSource::is_empty);
    if folds.len() < 2 || folds.iter().any(is_empty) {
        return Err(StudyError::FewVideos { folds: count });
    }
    Ok(folds)
}

/// The clips of `sets` in one split.
fn of_split(sets: &[WeightedSource], split: &str) -> Result<Vec<WeightedSource>, StudyError> {
    let mut fold = Vec::new();
    for set in sets {
        let Source::Shards(shards) = &*set.source else {
            continue;
        };
        let choice = Choice {
            split: vec![split.to_owned()],
            ..Choice::default()
        };
        fold.push(with_clips(set, choose(&choice, shards)?.clips));
    }
    Ok(fold)
}

/// `count` blocks of videos.
fn blocks(sets: &[WeightedSource], count: usize) -> Result<Vec<Vec<WeightedSource>>, StudyError> {
    let mut folds = vec![Vec::new(); count];
    for set in sets {
        let catalogue = set
            .source
            .catalogue()
            .map_err(crate::data::classes::ClassError::from)?;
        // Of each class its videos by path.
        let mut of_class: BTreeMap<Option<i32>, BTreeSet<(&str, u32)>> = BTreeMap::new();
        for (clip, origin) in catalogue.clips.iter().enumerate() {
            let path = &*catalogue.videos[origin.video as usize].path;
            let videos = of_class.entry(set.source.clip(clip).label).or_default();
            videos.insert((path, origin.video));
        }
        let mut fold_of = vec![0; catalogue.videos.len()];
        for videos in of_class.values() {
            for (at, &(_, video)) in videos.iter().enumerate() {
                fold_of[video as usize] = at * count / videos.len();
            }
        }
        for (fold, sets) in folds.iter_mut().enumerate() {
            let clips = (0..catalogue.clips.len() as u32)
                .filter(|&clip| fold_of[catalogue.clips[clip as usize].video as usize] == fold);
            sets.push(with_clips(set, clips.collect()));
        }
    }
    Ok(folds)
}

/// The clips of `set` that are among `clips`.
fn with_clips(set: &WeightedSource, mut clips: Vec<u32>) -> WeightedSource {
    if let Some(chosen) = &set.chosen {
        let chosen: BTreeSet<u32> = chosen.iter().copied().collect();
        clips.retain(|clip| chosen.contains(clip));
    }
    WeightedSource {
        chosen: Some(Arc::from(clips)),
        ..set.clone()
    }
}
