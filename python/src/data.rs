//! Open data sets.

use crate::array::Array;
use crate::errors::{of_choice, of_load, of_shard, of_source, option};
use crate::live::{self, Live};
use crate::loader::Loader;
use crate::options::Options;
use pipeline::choice::{Choice, choose};
use pipeline::frames::Frames;
use pipeline::loader;
use pipeline::shard::{CacheOptions, ClipReader, ShardSet};
use pipeline::source::{Source, WeightedSource, fingerprint};
use pipeline::store::Url;
use pipeline::transform::picture::to_rgb;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use schemas::geometry::FrameSize;
use schemas::manifest::MANIFEST_FILE;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Data sets, mixed by their weights.
#[pyclass(frozen)]
pub struct Data {
    sets: Arc<[WeightedSource]>,
    /// Number of the first clip of each.
    firsts: Arc<[u64]>,
    /// Reads single clips.
    reader: Mutex<ClipReader>,
}

impl Data {
    /// The data set of clip `number` of all, and its number there.
    fn locate(&self, number: u64) -> (usize, usize) {
        let set = self.firsts.partition_point(|&first| first <= number) - 1;
        (set, (number - self.firsts[set]) as usize)
    }

    /// The part of each data set that a rank reads.
    fn share(&self, rank: loader::Rank) -> Arc<[WeightedSource]> {
        let part = |set: &WeightedSource| {
            let end = |number| set.len() * number / rank.of;
            let numbers = end(rank.number)..end(rank.number + 1);
            let chosen = numbers.map(|index| set.number(index) as u32);
            WeightedSource {
                chosen: Some(chosen.collect()),
                ..set.clone()
            }
        };
        self.sets.iter().map(part).collect()
    }
}

#[pymethods]
impl Data {
    /// Opens the data sets at `paths`, folders or URLs, and chooses clips by `condition` and
    /// `splits`. Bytes of `cache` without a number are nine tenths of what is free. With `live`, a
    /// path without shards is one of videos.
    #[new]
    fn open(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        weights: Vec<f64>,
        condition: Option<String>,
        splits: Vec<String>,
        cache: Option<(PathBuf, Option<u64>)>,
        live: Option<Live>,
    ) -> PyResult<Self> {
        let choice = Choice {
            condition,
            split: splits,
            ..Choice::default()
        };
        let cache = cache.map(|(dir, bytes)| CacheOptions { dir, bytes });
        let mut sets = Vec::new();
        let mut firsts = Vec::new();
        let mut clips = 0;
        for (path, weight) in paths.into_iter().zip(weights) {
            let is_local = Url::of(&path).is_none();
            let is_videos = is_local && path.exists() && !path.join(MANIFEST_FILE).exists();
            let source = match &live {
                Some(live) if is_videos => live::open(py, &path, live)?,
                _ => {
                    let set = py.detach(|| ShardSet::open_with(&path, cache.as_ref()));
                    Source::Shards(set.map_err(|error| of_shard(py, &error))?)
                }
            };
            let chosen = match &source {
                _ if choice.is_all() => None,
                Source::Shards(set) => {
                    let chosen = py.detach(|| choose(&choice, set));
                    Some(chosen.map_err(|error| of_choice(py, &error))?.clips.into())
                }
                Source::Live(_) => {
                    let message = "where and split are for shards, which have columns";
                    return Err(option(py, message));
                }
            };
            firsts.push(clips);
            clips += source.len() as u64;
            sets.push(WeightedSource {
                weight,
                chosen,
                ..source.into()
            });
        }
        Ok(Self {
            sets: sets.into(),
            firsts: firsts.into(),
            reader: Mutex::default(),
        })
    }

    /// Clips that are used.
    fn __len__(&self) -> usize {
        self.sets.iter().map(WeightedSource::len).sum()
    }

    /// Identifies the clips that are used, their order, weights and classes.
    fn fingerprint(&self) -> String {
        format!("{:016x}", fingerprint(&self.sets))
    }

    /// What is worth knowing about reading the data.
    fn notes(&self) -> Vec<String> {
        let note = |set: &WeightedSource| match &*set.source {
            Source::Shards(shards) => shards.note(),
            Source::Live(_) => None,
        };
        self.sets.iter().filter_map(note).collect()
    }

    /// Numbers of the clips that are used, as i64.
    fn clip_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyByteArray> {
        let mut bytes = Vec::new();
        for (set, first) in self.sets.iter().zip(&*self.firsts) {
            for index in 0..set.len() {
                let number = *first + set.number(index) as u64;
                bytes.extend((number as i64).to_ne_bytes());
            }
        }
        PyByteArray::new(py, &bytes)
    }

    /// Classes of the clips that are used, as i64, -1 for none.
    fn labels<'py>(&self, py: Python<'py>) -> Bound<'py, PyByteArray> {
        let mut bytes = Vec::new();
        for set in &*self.sets {
            for index in 0..set.len() {
                let label = set.clip(set.number(index)).label;
                bytes.extend(label.map_or(-1, i64::from).to_ne_bytes());
            }
        }
        PyByteArray::new(py, &bytes)
    }

    /// A loader over the data.
    fn loader(&self, py: Python<'_>, options: Options) -> PyResult<Loader> {
        let read = options.read(py)?;
        let sets = match options.share() {
            Some(rank) => self.share(rank),
            None => Arc::clone(&self.sets),
        };
        let loader = py.detach(|| loader::Loader::new(sets, read));
        let loader = loader.map_err(|error| of_load(py, &error))?;
        Ok(Loader::new(loader, Arc::clone(&self.firsts)))
    }

    /// All frames of clip `number` as RGB, `[frames, 3, height, width]`, and its class.
    fn clip(&self, py: Python<'_>, number: u64) -> PyResult<(Array, i64)> {
        let (set, row) = self.locate(number);
        let Source::Shards(shards) = &*self.sets[set].source else {
            return Err(option(py, "only clips of shards are read one by one"));
        };
        let (shard, row) = shards.locate(row);
        let clip = shard.clips()[row];
        let pixels = py.detach(|| {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            let frames = reader.frames(shard, row, clip.frames)?;
            Ok(planar(frames, clip.size))
        });
        let pixels =
            pixels.map_err(|error: pipeline::shard::ShardError| of_source(py, &error.into()))?;
        let shape = vec![clip.frames, 3, clip.size.height, clip.size.width];
        Ok((
            Array::of_bytes(pixels, shape),
            clip.label.map_or(-1, i64::from),
        ))
    }

    /// What each data set holds, as JSON.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let mut all = Vec::new();
        for set in &*self.sets {
            let Source::Shards(shards) = &*set.source else {
                continue;
            };
            let manifest = shards.manifest();
            let sizes: BTreeSet<(usize, usize)> = (0..shards.len())
                .map(|clip| set.clip(clip).size)
                .map(|size| (size.width, size.height))
                .collect();
            let options = serde_json::to_value(&manifest.options)
                .map_err(|error| option(py, &error.to_string()))?;
            all.push(serde_json::json!({
                "data": shards.dir(),
                "clips": shards.len(),
                "videos": manifest.videos,
                "shards": manifest.shards.len(),
                "bytes": manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>(),
                "frames": (0..shards.len()).map(|clip| set.clip(clip).frames).max(),
                "sizes": sizes,
                "payload": options["payload"],
                "classes": manifest.classes,
                "finished": manifest.finished,
                "created_by": manifest.created_by,
                "options": options,
            }));
        }
        Ok(serde_json::Value::from(all).to_string())
    }
}

/// Frames as RGB, `[frames, 3, height, width]`.
fn planar(frames: Frames<'_>, size: FrameSize) -> Vec<u8> {
    let area = size.width * size.height;
    let mut out = Vec::new();
    for frame in frames.each(size) {
        let rgb = to_rgb(frame, size, size.width, size.height);
        let start = out.len();
        out.resize(start + 3 * area, 0);
        let (red, rest) = out[start..].split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        for (index, pixel) in rgb.chunks_exact(3).enumerate() {
            (red[index], green[index], blue[index]) = (pixel[0], pixel[1], pixel[2]);
        }
    }
    out
}
