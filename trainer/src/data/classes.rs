//! Classes: their names, the class of each clip, and the split of videos into training and
//! validation. A split is by whole videos, identified by their content.

use crate::config::SplitConfig;
use pipeline::sampling::order::{Purpose, stream};
use pipeline::source::{Catalogue, Source, SourceError, WeightedSource};
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of items that a message names; the others are counted.
const NAMED: usize = 5;

/// Why clips have no class, or videos no split.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// A shard cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There are no labels.
    #[error(
        "{}: {unlabelled} of {clips} clips have no label: build the shards with `shardtool build \
         VIDEOS \
         --labels dirs` (classes from folder names), or --labels FILE; videos that are read \
         without \
         shards must lie in folders named after the classes",
        path.display()
    )]
    Unlabelled {
        /// Which data set.
        path: PathBuf,
        /// Clips without a label.
        unlabelled: usize,
        /// All its clips.
        clips: usize,
    },
    /// Classes come from shards.
    #[error("{} holds videos: fine-tuning takes labels from shards; `shardtool build {0} --labels \
             dirs` makes them", path.display())]
    NotShards {
        /// Which data set.
        path: PathBuf,
    },
    /// Classes that the model or the training data does not have.
    #[error("{}: {}; its classes must be among: {}", path.display(), listed("classes that are not \
        known: ", unknown), listed("", known))]
    Unknown {
        /// Which data set.
        path: PathBuf,
        /// The unknown ones.
        unknown: Vec<String>,
        /// The known ones.
        known: Vec<String>,
    },
    /// The same video is in both.
    #[error(
        "{} of the validation videos are also trained on (equal bytes): {}; build the two from \
         different \
         videos, or omit --val to hold some out (split.holdout)",
        videos.len(),
        listed("", videos)
    )]
    Overlap {
        /// The videos, as the validation data names them.
        videos: Vec<String>,
    },
    /// There would be nothing to train on.
    #[error("there is no clip to train on: {reason}")]
    Nothing {
        /// Why not.
        reason: String,
    },
}

/// Names with commas between them: the first few.
fn listed(intro: &str, names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{intro}{shown}{tail}")
}

/// Clips to train on and clips to look at.
#[derive(Debug)]
pub struct Split {
    /// To train on.
    pub train: Arc<[WeightedSource]>,
    /// To look at; none where no video is kept for that.
    pub validation: Option<Arc<[WeightedSource]>>,
    /// Videos of each class that are trained on, and that are kept.
    pub videos: Vec<[usize; 2]>,
}

/// Classes of shards, by the numbers of their labels: the names that the build gave them, or the
/// numbers where it gave none.
///
/// # Errors
/// When the data are no shards, or have no labels.
pub fn of_shards(source: &Source) -> Result<Vec<String>, ClassError> {
    let Source::Shards(shards) = source else {
        return Err(ClassError::NotShards {
            path: source.dir().to_owned(),
        });
    };
    let labels = || (0..source.len()).map(|clip| source.clip(clip).label);
    let unlabelled = labels().filter(Option::is_none).count();
    let classes = &shards.manifest().classes;
    let greatest = labels().flatten().max();
    match greatest {
        Some(greatest)
            if unlabelled < source.len()
                && !classes.is_empty()
                && (greatest as usize) < classes.len() =>
        {
            Ok(classes.clone())
        }
        Some(greatest) if classes.is_empty() => {
            Ok((0..=greatest).map(|label| label.to_string()).collect())
        }
        _ => Err(ClassError::Unlabelled {
            path: source.dir().to_owned(),
            unlabelled,
            clips: source.len(),
        }),
    }
}

/// All classes of several sets of shards, sorted by name where they differ from set to set.
///
/// # Errors
/// As [`of_shards`].
pub fn of_all(sets: &[WeightedSource]) -> Result<Vec<String>, ClassError> {
    let lists: Vec<Vec<String>> = sets
        .iter()
        .map(|set| of_shards(&set.source))
        .collect::<Result<_, _>>()?;
    match lists.split_first() {
        Some((first, rest)) if rest.iter().all(|list| list == first) => Ok(first.clone()),
        _ => Ok(lists
            .into_iter()
            .flatten()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()),
    }
}

/// Gives every clip of `sets` its number among `classes`: of shards by the names of their own
/// classes, of videos by the name of their folder. With `required`, every clip must have one.
///
/// # Errors
/// When a class is not among them, or a clip has no label and must have one.
pub fn number(
    sets: Vec<WeightedSource>,
    classes: &[String],
    required: bool,
) -> Result<Vec<WeightedSource>, ClassError> {
    let numbers: HashMap<&str, i32> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut numbered = Vec::with_capacity(sets.len());
    for set in sets {
        let path = set.source.dir().to_owned();
        let labels: Vec<Option<i32>> = match &*set.source {
            Source::Shards(_) => {
                let own = of_shards(&set.source)
                    .or_else(|error| if required { Err(error) } else { Ok(Vec::new()) })?;
                // Clips that are not used may be of other classes.
                let mut used: Vec<Option<&String>> = vec![None; set.source.len()];
                for clip in (0..set.len()).map(|index| set.number(index)) {
                    let label = set.source.clip(clip).label;
                    used[clip] = label.and_then(|label| own.get(label as usize));
                }
                let unknown: BTreeSet<&str> = used
                    .iter()
                    .copied()
                    .flatten()
                    .map(String::as_str)
                    .filter(|class| !numbers.contains_key(class))
                    .collect();
                if !unknown.is_empty() {
                    let unknown = unknown.into_iter().map(str::to_owned).collect();
                    return Err(ClassError::Unknown {
                        path,
                        unknown,
                        known: classes.to_vec(),
                    });
                }
                used.into_iter()
                    .map(|class| class.map(|class| numbers[class.as_str()]))
                    .collect()
            }
            Source::Live(videos) => (0..videos.len())
                .map(|clip| folder(videos.path(clip)).and_then(|name| numbers.get(name).copied()))
                .collect(),
        };
        let taken = (0..set.len()).map(|index| labels[set.number(index)]);
        let unlabelled = taken.filter(Option::is_none).count();
        if required && unlabelled > 0 {
            return Err(ClassError::Unlabelled {
                path,
                unlabelled,
                clips: set.len(),
            });
        }
        numbered.push(WeightedSource {
            labels: Some(labels.into()),
            ..set
        });
    }
    Ok(numbered)
}

fn folder(video: &Path) -> Option<&str> {
    video.parent()?.file_name()?.to_str()
}

/// The identity of a video: the hash of its bytes, or its path if it has no hash.
fn identity(catalogue: &Catalogue, video: u32) -> &str {
    let video = &catalogue.videos[video as usize];
    video.blake3.as_deref().unwrap_or(&video.path)
}

fn catalogues(sets: &[WeightedSource]) -> Result<Vec<Catalogue>, ClassError> {
    Ok(sets
        .iter()
        .map(|set| set.source.catalogue())
        .collect::<Result<_, _>>()?)
}

/// Splits numbered sets by video. Of the videos of each of `classes`, in an order drawn by `seed`,
/// the first share `config.holdout`, rounded, is held out for validation: at least one video if
/// there are two or more, and never all. Of the others at most `config.videos_per_class` are trained on.
/// With `validation`, that is used instead, and none is held out. With `config.balance`, there is a
/// set per class to train on.
///
/// Equal videos under several names count as one. A smaller `videos_per_class` takes some of the
/// videos that a larger one takes.
///
/// # Errors
/// When a shard cannot be read, a video is in both, or none is left to train on.
pub fn split(
    sets: Vec<WeightedSource>,
    validation: Option<Vec<WeightedSource>>,
    classes: &[String],
    config: &SplitConfig,
    seed: u64,
) -> Result<Split, ClassError> {
    let SplitConfig {
        holdout,
        videos_per_class: per_class,
        balance,
    } = *config;
    let catalogues = catalogues(&sets)?;
    // Of each class its videos by identity.
    let mut of_class: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); classes.len()];
    for (set, catalogue) in sets.iter().zip(&catalogues) {
        for number in (0..set.len()).map(|index| set.number(index)) {
            if let Some(label) = set.clip(number).label {
                of_class[label as usize].insert(identity(catalogue, catalogue.clips[number].video));
            }
        }
    }
    let holdout = if validation.is_some() { 0.0 } else { holdout };
    let (mut kept, mut trained, mut videos) = (HashSet::new(), HashSet::new(), Vec::new());
    for (class, of_class) in of_class.into_iter().enumerate() {
        let mut shuffled: Vec<&str> = of_class.into_iter().collect();
        shuffled.shuffle(&mut stream(Purpose::Split, seed, 0, class as u64));
        let wanted = (holdout * shuffled.len() as f64).round() as usize;
        let least = usize::from(holdout > 0.0);
        let keep = wanted.max(least).min(shuffled.len().saturating_sub(1));
        let (keep, train) = shuffled.split_at(keep);
        let train = &train[..train.len().min(per_class.unwrap_or(usize::MAX))];
        videos.push([train.len(), keep.len()]);
        kept.extend(keep.iter().copied());
        trained.extend(train.iter().copied());
    }
    // A video under two classes may be kept for one of them: then it is trained on for none.
    trained.retain(|video| !kept.contains(video));
    let chosen = |videos: &HashSet<&str>| -> Vec<WeightedSource> {
        let chosen = sets.iter().zip(&catalogues).filter_map(|(set, catalogue)| {
            let of_set = (0..set.len()).map(|index| set.number(index) as u32);
            let chosen: Arc<[u32]> = of_set
                .filter(|&clip| {
                    videos.contains(identity(catalogue, catalogue.clips[clip as usize].video))
                })
                .collect();
            (!chosen.is_empty()).then(|| WeightedSource {
                chosen: Some(chosen),
                ..set.clone()
            })
        });
        chosen.collect()
    };
    let train = chosen(&trained);
    if train.is_empty() {
        let reason = format!(
            "of {} videos none is left after the split; lower data.holdout",
            kept.len()
        );
        return Err(ClassError::Nothing { reason });
    }
    let validation = match validation {
        Some(validation) => {
            refuse_overlap(&trained, &validation)?;
            Some(validation)
        }
        None => Some(chosen(&kept)).filter(|kept| !kept.is_empty()),
    };
    Ok(Split {
        train: if balance {
            balanced(&train)
        } else {
            train.into()
        },
        validation: validation.map(Into::into),
        videos,
    })
}

/// The clips of numbered sets as one set per class, with weights by which each class is drawn as
/// often as any other, and each of its clips as often as any other of them.
fn balanced(sets: &[WeightedSource]) -> Arc<[WeightedSource]> {
    let mut of_class: BTreeMap<Option<i32>, Vec<WeightedSource>> = BTreeMap::new();
    for set in sets {
        let mut clips: BTreeMap<Option<i32>, Vec<u32>> = BTreeMap::new();
        for number in (0..set.len()).map(|index| set.number(index)) {
            let label = set.clip(number).label;
            clips.entry(label).or_default().push(number as u32);
        }
        for (label, clips) in clips {
            let part = WeightedSource {
                chosen: Some(clips.into()),
                ..set.clone()
            };
            of_class.entry(label).or_default().push(part);
        }
    }
    let mut balanced = Vec::new();
    for parts in of_class.into_values() {
        let all: usize = parts.iter().map(WeightedSource::len).sum();
        balanced.extend(parts.into_iter().map(|part| WeightedSource {
            weight: part.len() as f64 / all as f64,
            ..part
        }));
    }
    balanced.into()
}

/// Refuses videos for validation that are among the `trained`.
fn refuse_overlap(
    trained: &HashSet<&str>,
    validation: &[WeightedSource],
) -> Result<(), ClassError> {
    let catalogues = catalogues(validation)?;
    let mut videos = BTreeMap::new();
    for (catalogue, set) in catalogues.iter().zip(validation) {
        for video in (0..set.len()).map(|index| catalogue.clips[set.number(index)].video) {
            if trained.contains(identity(catalogue, video)) {
                videos.insert(&catalogue.videos[video as usize].path, ());
            }
        }
    }
    if videos.is_empty() {
        Ok(())
    } else {
        Err(ClassError::Overlap {
            videos: videos.into_keys().cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::shard::synthetic;

    #[test]
    fn every_class_is_drawn_as_often_and_each_of_its_clips() {
        let dir = tempfile::tempdir().expect("a folder");
        let shards = synthetic::write(dir.path(), 8).expect("shards");
        let labels = [0, 0, 0, 1, 0, 1, 0, 0].map(Some);
        let all = WeightedSource {
            labels: Some(labels.into()),
            ..Source::Shards(shards).into()
        };
        let part = |clips: &[u32]| WeightedSource {
            chosen: Some(clips.into()),
            ..all.clone()
        };
        // Three clips of class 0 and one of class 1, then two and one; clip 7 is in neither.
        let sets = balanced(&[part(&[0, 1, 2, 3]), part(&[4, 5, 6])]);
        let found: Vec<(Vec<u32>, f64)> = sets
            .iter()
            .map(|set| (set.chosen.clone().expect("some").to_vec(), set.weight))
            .collect();
        let expected = [
            (vec![0, 1, 2], 0.6),
            (vec![4, 6], 0.4),
            (vec![3], 0.5),
            (vec![5], 0.5),
        ];
        assert_eq!(found, expected);
    }
}
