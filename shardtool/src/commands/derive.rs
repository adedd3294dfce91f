//! `shardtool filter` and `shardtool merge`: a manifest over the shards of other manifests, or
//! copies of the chosen clips.

use super::join;
use crate::cli::{DeriveArgs, FilterArgs, MergeArgs};
use crate::reading;
use anyhow::{Context, bail, ensure};
use console::output::{self, count};
use pipeline::atomic_file;
use pipeline::choice::Choice;
use pipeline::shard::{Shard, ShardSet, ShardSetWriter, index};
use pipeline::store::Url;
use schemas::manifest::{BuildOptions, Derived, MANIFEST_FILE, Manifest, ShardEntry, VIDEOS_FILE};
use schemas::report::DeriveReport;
use schemas::shard::{ClipMeta, FORMAT_VERSION};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

/// Runs `shardtool filter`.
///
/// # Errors
/// Those of [`derive()`].
pub fn filter(args: &FilterArgs) -> anyhow::Result<ExitCode> {
    let choice = args.choose.choice();
    ensure!(
        !choice.is_all(),
        "nothing is chosen: give --classes, --split, --where or --select"
    );
    derive(
        std::slice::from_ref(&args.dir),
        &choice,
        &args.out,
        &args.derive,
    )
}

/// Runs `shardtool merge`.
///
/// # Errors
/// Those of [`derive()`].
pub fn merge(args: &MergeArgs) -> anyhow::Result<ExitCode> {
    match (&args.plan, &args.out) {
        (Some(place), _) => join::merge(args, place),
        (None, Some(out)) => derive(&args.dirs, &Choice::default(), out, &args.derive),
        (None, None) => bail!("give --out"),
    }
}

/// The chosen clips of one folder.
struct Part {
    set: ShardSet,
    clips: Vec<u64>,
    /// The class number in the new manifest of each class number in the folder; none if they are
    /// the same.
    labels: Option<Vec<i32>>,
}

/// Writes a manifest of the clips of `dirs` that `choice` chooses.
///
/// # Errors
/// When a folder cannot be read, the folders do not fit together, or the output exists already or
/// cannot be written.
fn derive(
    dirs: &[PathBuf],
    choice: &Choice,
    out: &Path,
    args: &DeriveArgs,
) -> anyhow::Result<ExitCode> {
    if let Some(url) = dirs.iter().find(|dir| Url::of(dir).is_some() && !args.copy) {
        bail!(
            "{} is in a store: --copy makes shards of the chosen clips here; to train on some \
             clips, give the same choice to `trainer run`",
            url.display()
        );
    }
    let taken = out.join(MANIFEST_FILE).exists();
    ensure!(
        args.force || !taken,
        "{} holds a data set already; give another --out, or --force to replace its manifest",
        out.display()
    );
    let is_input = |dir: &PathBuf| {
        let real = fs::canonicalize(out);
        real.is_ok_and(|out| fs::canonicalize(dir).is_ok_and(|dir| dir == out))
    };
    if let Some(dir) = dirs.iter().find(|dir| is_input(dir)) {
        bail!(
            "{} is both input and output; give another --out",
            dir.display()
        );
    }
    let mut parts = Vec::with_capacity(dirs.len());
    for dir in dirs {
        let set = reading::open(dir)?;
        let clips = reading::choose(&set, choice)?;
        parts.push(Part {
            set,
            clips,
            labels: None,
        });
    }
    check_options(&parts)?;
    let classes = join_classes(&mut parts)?;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    ensure!(
        !out.join(VIDEOS_FILE).exists(),
        "{} holds a build; give another --out",
        out.display()
    );
    // Copies of a row would not be known as such.
    let referred = refer(&parts, out)?;
    refuse_doubles(&referred)?;
    let shards = if args.copy {
        copy(&parts, out)?
    } else {
        referred
    };
    let index = index::write(out, &shards)?;
    let first = parts[0].set.manifest();
    let manifest = Manifest {
        format_version: if args.copy {
            FORMAT_VERSION
        } else {
            let versions = parts.iter().map(|part| part.set.manifest().format_version);
            versions.max().unwrap_or(FORMAT_VERSION)
        },
        created_by: concat!("shardtool ", env!("CARGO_PKG_VERSION")).to_owned(),
        finished: parts.iter().all(|part| part.set.manifest().finished),
        options: first.options.clone(),
        classes,
        clips: shards.iter().map(|shard| shard.clips).sum(),
        shards,
        videos: videos(&parts)?,
        open_video: None,
        videos_xxh3: None,
        rejected_xxh3: None,
        index: Some(index),
        plan: None,
        derived: Some(Box::new(Derived {
            from: dirs.iter().map(|dir| dir.display().to_string()).collect(),
            choice: choice.clone(),
            copied: args.copy,
        })),
    };
    let path = out.join(MANIFEST_FILE);
    atomic_file::write(&path, &serde_json::to_vec_pretty(&manifest)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let report = DeriveReport {
        out: out.display().to_string(),
        clips: manifest.clips,
        videos: manifest.videos,
        shards: manifest.shards.len() as u64,
        left_out: parts
            .iter()
            .map(|part| (part.set.len() - part.clips.len()) as u64)
            .sum(),
        copied: args.copy,
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn render_report(report: &DeriveReport) -> String {
    format!(
        "{} from {} in {}{}; {} left out\nnext: trainer run --data {}",
        count(report.clips, "clip"),
        count(report.videos, "video"),
        count(report.shards, "shard"),
        if report.copied { ", copied" } else { "" },
        count(report.left_out, "clip"),
        report.out
    )
}

/// Refuses folders whose clips differ in what a model sees of time. Notes other differences.
fn check_options(parts: &[Part]) -> anyhow::Result<()> {
    let Some((first, others)) = parts.split_first() else {
        bail!("give at least one folder of shards");
    };
    let one = &first.set.manifest().options;
    for part in others {
        let other = &part.set.manifest().options;
        let of_time = |options: &BuildOptions| (options.frames, options.stride, options.sampling);
        ensure!(
            of_time(one) == of_time(other),
            "the clips of {} and {} differ in time: {} frames at stride {} of {:?}, and {} at {} \
             of {:?}; mix them while training, with --data twice",
            first.set.dir().display(),
            part.set.dir().display(),
            one.frames,
            one.stride,
            one.sampling,
            other.frames,
            other.stride,
            other.sampling
        );
        if (one.payload, one.short_side) != (other.payload, other.short_side) {
            output::say(&format!(
                "note: {} holds {} of {} pixels, {} holds {} of {}",
                first.set.dir().display(),
                one.payload.name(),
                one.short_side,
                part.set.dir().display(),
                other.payload.name(),
                other.short_side
            ));
        }
    }
    Ok(())
}

/// Joins the classes of all folders: those of the first keep their numbers, and others follow.
fn join_classes(parts: &mut [Part]) -> anyhow::Result<Vec<String>> {
    let has_labels = |part: &Part| {
        let shards = part.set.shards().iter();
        let mut clips = shards.flat_map(Shard::clips);
        clips.any(|clip| clip.label.is_some())
    };
    let numbered = parts
        .iter()
        .find(|part| part.set.manifest().classes.is_empty() && has_labels(part));
    let named = parts
        .iter()
        .find(|part| !part.set.manifest().classes.is_empty());
    if let (Some(numbered), Some(named)) = (numbered, named) {
        bail!(
            "the classes of {} are numbers, those of {} have names: build one of them with the \
             labels of the other",
            numbered.set.dir().display(),
            named.set.dir().display()
        );
    }
    let mut classes: Vec<String> = Vec::new();
    let mut numbers: HashMap<String, i32> = HashMap::new();
    for part in parts {
        let own = part.set.manifest().classes.clone();
        let of_part: Vec<i32> = own
            .into_iter()
            .map(|class| {
                *numbers.entry(class.clone()).or_insert_with(|| {
                    classes.push(class);
                    classes.len() as i32 - 1
                })
            })
            .collect();
        let is_same = of_part.iter().zip(0..).all(|(&number, own)| number == own);
        part.labels = (!is_same).then_some(of_part);
    }
    Ok(classes)
}

/// The entries of the shards with chosen clips, where they are.
fn refer(parts: &[Part], out: &Path) -> anyhow::Result<Vec<ShardEntry>> {
    let mut entries = Vec::new();
    for part in parts {
        let mut chosen = part.clips.iter().copied().peekable();
        let mut first = 0;
        for (shard, entry) in part.set.shards().iter().zip(&part.set.manifest().shards) {
            let end = first + shard.clips().len() as u64;
            let mut rows = Vec::new();
            while let Some(clip) = chosen.next_if(|&clip| clip < end) {
                rows.push(shard.stored_row((clip - first) as usize) as u32);
            }
            first = end;
            if rows.is_empty() {
                continue;
            }
            let clips = rows.len() as u64;
            let ranges = ranges(&rows);
            let is_whole = clips == entry.clips && entry.rows.is_none();
            let labels = match (&entry.labels, &part.labels) {
                (Some(own), Some(new)) => {
                    let number = |&label: &i32| new.get(label as usize).copied().unwrap_or(label);
                    Some(own.iter().map(number).collect())
                }
                (own, new) => own.clone().or_else(|| new.clone()),
            };
            entries.push(ShardEntry {
                // What is in a store is copied: its name is for messages only.
                file: match Url::of(shard.path()) {
                    None => path_from(out, shard.path())?,
                    Some(_) => shard.path().display().to_string(),
                },
                clips,
                rows: (!is_whole).then_some(ranges),
                labels,
                ..entry.clone()
            });
        }
    }
    Ok(entries)
}

/// The ranges of sorted numbers that follow each other.
fn ranges(rows: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &row in rows {
        match ranges.last_mut() {
            Some((_, end)) if *end == row => *end += 1,
            _ => ranges.push((row, row + 1)),
        }
    }
    ranges
}

/// Copies the chosen clips, as they are compressed, into shards in `out`.
fn copy(parts: &[Part], out: &Path) -> anyhow::Result<Vec<ShardEntry>> {
    let mut finished = Vec::new();
    for part in parts {
        // Shards of one folder are compressed alike.
        let options = part.set.manifest().options.clone();
        let mut writer = ShardSetWriter::new(out, options, finished);
        let mut metas: (Option<&Path>, Vec<ClipMeta>) = (None, Vec::new());
        for &clip in &part.clips {
            let (shard, row) = part.set.locate(clip as usize);
            if metas.0 != Some(shard.path()) {
                metas = (Some(shard.path()), shard.metas()?);
            }
            let mut meta = metas.1[row].clone();
            if let (Some(labels), Some(label)) = (&part.labels, meta.label) {
                meta.label = labels.get(label as usize).copied();
            }
            writer.push(meta, shard.encoded(row)?)?;
        }
        finished = writer.finish()?.to_vec();
    }
    Ok(finished)
}

/// Refuses a row that is in the data set twice.
fn refuse_doubles(entries: &[ShardEntry]) -> anyhow::Result<()> {
    let mut seen: HashMap<(&str, &str), Vec<&ShardEntry>> = HashMap::new();
    for entry in entries {
        let same = seen
            .entry((&entry.index_xxh3, &entry.pixels_xxh3))
            .or_default();
        let overlaps = |other: &&&ShardEntry| match (&entry.rows, &other.rows) {
            (Some(one), Some(other)) => one
                .iter()
                .any(|a| other.iter().any(|b| a.0.max(b.0) < a.1.min(b.1))),
            _ => true,
        };
        if let Some(other) = same.iter().find(overlaps) {
            bail!(
                "{} and {} hold the same clips: each would be in the data set twice",
                other.file,
                entry.file
            );
        }
        same.push(entry);
    }
    Ok(())
}

/// Number of videos of the chosen clips.
fn videos(parts: &[Part]) -> anyhow::Result<u64> {
    let mut videos = BTreeSet::new();
    for part in parts {
        let chosen: BTreeSet<u64> = part.clips.iter().copied().collect();
        let mut number = 0;
        for shard in part.set.shards() {
            for meta in shard.metas()? {
                if chosen.contains(&number) {
                    videos.insert((meta.video, meta.video_blake3));
                }
                number += 1;
            }
        }
    }
    Ok(videos.len() as u64)
}

/// The path of `file` as seen from the folder `from`: relative, so that both can be moved together.
fn path_from(from: &Path, file: &Path) -> anyhow::Result<String> {
    let real = |path: &Path| {
        fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
    };
    let (from, file) = (real(from)?, real(file)?);
    let common = from
        .components()
        .zip(file.components())
        .take_while(|(one, other)| one == other)
        .count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(file.components().skip(common)).collect();
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_follow_each_other_are_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 6), (7, 9)]);
        assert_eq!(ranges(&[]), []);
    }

    #[test]
    fn paths_are_relative() {
        let dir = tempfile::tempdir().expect("a folder");
        let folders = ["a/b", "a/c"].map(|folder| dir.path().join(folder));
        for folder in &folders {
            fs::create_dir_all(folder).expect("made");
        }
        let file = folders[1].join("shard.parquet");
        fs::write(&file, "").expect("written");
        assert_eq!(
            path_from(&folders[0], &file).expect("a path"),
            "../c/shard.parquet"
        );
    }
}
