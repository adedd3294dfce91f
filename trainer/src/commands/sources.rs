//! From what the user names to sources of clips.

use crate::cli::{DECODE_WORKER, DataArg};
use anyhow::{Context, bail, ensure};
use console::output;
use console::progress::Progress;
use pipeline::choice::{Choice, choose};
use pipeline::live::{LiveOptions, LiveSet};
use pipeline::shard::{CacheOptions, ShardSet};
use pipeline::source::{Source, WeightedSource};
use pipeline::store::Url;
use pipeline::video::discover::numbered_pictures;
use pipeline::video::{self, Content, sniff};
use pipeline::worker::WorkerProgram;
use schemas::manifest::{MANIFEST_FILE, Sampling};
use std::fs;
use std::path::Path;
use trainer::config::LiveConfig;

/// Maximum number of rejected files that are named; the others are counted.
const NAMED_REJECTS: usize = 5;

/// Opens all data sets ([`open_all`]), and uses the clips that `choice` chooses ([`choose_from`]).
///
/// # Errors
/// As the two.
pub fn open(
    data: &[DataArg],
    choice: &Choice,
    live: &LiveConfig,
    frames: usize,
    cache: Option<&CacheOptions>,
) -> anyhow::Result<Vec<WeightedSource>> {
    choose_from(open_all(data, live, frames, cache)?, data, choice)
}

/// Opens all data sets: shards where a folder holds a build, videos otherwise. What is fetched of
/// shards in stores is kept in `cache`.
///
/// # Errors
/// When one of them is neither.
pub fn open_all(
    data: &[DataArg],
    live: &LiveConfig,
    frames: usize,
    cache: Option<&CacheOptions>,
) -> anyhow::Result<Vec<WeightedSource>> {
    data.iter()
        .map(|DataArg { path, weight, .. }| {
            let is_remote = Url::of(path).is_some();
            let source = if is_remote || path.join(MANIFEST_FILE).exists() {
                let shards = ShardSet::open_with(path, cache)?;
                shards.note().iter().for_each(|note| output::say(note));
                Source::Shards(shards)
            } else {
                ensure!(
                    path.exists(),
                    "there is no {}; `shardtool build VIDEOS --out {0}` makes shards",
                    path.display()
                );
                ensure!(
                    may_hold_videos(path)?,
                    "{} holds neither shards (it has no {MANIFEST_FILE}) nor videos",
                    path.display()
                );
                Source::Live(open_live(path, live, frames)?)
            };
            Ok(WeightedSource {
                weight: *weight,
                ..source.into()
            })
        })
        .collect()
}

/// The clips of `sets`, the data sets of `data`, that `choice` chooses; says how many that are. The
/// split of a data set takes the place of those of `choice`.
///
/// # Errors
/// When the choice is invalid or leaves no clip of a data set, and when there is one for videos.
pub fn choose_from(
    sets: Vec<WeightedSource>,
    data: &[DataArg],
    choice: &Choice,
) -> anyhow::Result<Vec<WeightedSource>> {
    let mut chosen = Vec::with_capacity(sets.len());
    for (set, DataArg { path, split, .. }) in sets.into_iter().zip(data) {
        let mut choice = choice.clone();
        if let Some(split) = split {
            choice.split = vec![split.clone()];
        }
        if choice.is_all() {
            chosen.push(set);
            continue;
        }
        let Source::Shards(shards) = &*set.source else {
            bail!(
                "{} holds videos: clips are chosen by the columns of shards; `shardtool build {0}` \
                 makes them",
                path.display()
            );
        };
        let found = choose(&choice, shards)?;
        output::say(&format!("{}: {}", path.display(), found.render()));
        chosen.push(WeightedSource {
            chosen: Some(found.clips.into()),
            ..set
        });
    }
    Ok(chosen)
}

/// Clips in all of them.
pub fn clips(sources: &[WeightedSource]) -> u64 {
    sources.iter().map(|set| set.len() as u64).sum()
}

/// Whether this is a video or an archive, or a folder with one in it, with folders or with numbered
/// pictures.
fn may_hold_videos(path: &Path) -> anyhow::Result<bool> {
    video::init()?;
    let is_video = |path: &Path| {
        let is_one = |content| matches!(content, Content::Video(_) | Content::Archive);
        sniff(path).is_ok_and(is_one)
    };
    let is_pictures = numbered_pictures(path).is_ok_and(|pictures| pictures.len() > 1);
    Ok(match fs::read_dir(path) {
        Ok(entries) => {
            is_pictures
                || entries
                    .flatten()
                    .any(|entry| entry.path().is_dir() || is_video(&entry.path()))
        }
        Err(_) => is_video(path),
    })
}

fn open_live(path: &Path, live: &LiveConfig, frames: usize) -> anyhow::Result<LiveSet> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let options = LiveOptions {
        sampling: Sampling::TicksPerSecond(live.fps),
        stride: live.stride,
        frames,
        span: live.span,
        short_side: live.short_side,
        ..LiveOptions::new(WorkerProgram {
            path: program,
            argument: DECODE_WORKER.to_owned(),
        })
    };
    let progress = Progress::new(0, "counting frames of video {pos}/{len}");
    let set = LiveSet::open(&[path.to_owned()], options, |done, all| {
        progress.set(done as u64, all as u64, String::new())
    });
    progress.finish();
    let set = set?;
    for rejected in set.rejected().iter().take(NAMED_REJECTS) {
        output::say(&format!(
            "warning: skipped: {}: {}",
            rejected.path, rejected.reason
        ));
    }
    if let Some(more @ 1..) = set.rejected().len().checked_sub(NAMED_REJECTS) {
        output::say(&format!(
            "warning: and {more} more files that cannot be used; `shardtool build {} --dry-run` \
             names them",
            path.display()
        ));
    }
    ensure!(
        !set.is_empty(),
        "{} holds no video that can be decoded",
        path.display()
    );
    Ok(set)
}
