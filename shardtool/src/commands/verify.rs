//! `shardtool verify`: checks that the files on disk are what was built.
//!
//! First the shards, one thread each: size, the hash of all bytes but the frames, and only then the
//! footer, which is trusted from there on; and the hash of the stored frames. Then the clips of all
//! shards that could be opened, a few per thread.

use crate::cli::VerifyArgs;
use crate::fan_out::fan_out;
use crate::journal::xxh3_hex;
use crate::reading;
use anyhow::Context;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::Sender;
use pipeline::all_cores;
use pipeline::shard::check::{ArrowReader, check_pixels};
use pipeline::shard::read_manifest;
use pipeline::shard::{ClipReader, Shard, ShardError};
use pipeline::store::{self, StoreError, Url};
use pipeline::video::discover::io_reason;
use schemas::manifest::{
    INDEX_FILE, Manifest, REJECTED_FILE, ShardEntry, VIDEOS_FILE, VideoRecord,
};
use schemas::report::{Problem, VerifyReport};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Number of clips that a thread checks at a time.
const CHUNK_CLIPS: usize = 16;

/// Remedy for a shard that is not what was built.
const RESTORE: &str =
    "restore this file from a copy, or rebuild all shards: `shardtool build` with --force";

/// Remedy for a list of videos that does not match.
const VIDEOS_REMEDY: &str = "the shards are usable without it; before you add videos to this \
                             build, restore it or rebuild with --force";

/// Remedy for a list of rejected files that does not match.
const REJECTED_REMEDY: &str =
    "the shards are usable without it; the same `shardtool build` command rewrites it";

/// Remedy for an index that does not match.
const INDEX_REMEDY: &str = "the shards are usable in a local folder without it, and not in a store; \
                            `shardtool index` writes it again";

/// The problem of a list whose hash is not that of the manifest.
const OTHER_BYTES: &str = "its bytes are not those that the build wrote";

/// Runs the command.
///
/// # Errors
/// When there is no manifest to compare with.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let manifest = read_manifest(&args.dir)?;
    reading::note_unfinished(&args.dir, &manifest);
    let mut problems = Vec::new();
    let clips = match Url::of(&args.dir) {
        None => {
            let shards = open_shards(&args.dir, &manifest, &mut problems)?;
            check_clips(args, &manifest, &shards, &mut problems)?
        }
        Some(url) => check_store(args, &url?, &manifest, &mut problems)?,
    };
    problems.extend(check_index(&args.dir, &manifest));
    problems.extend(check_counts(&manifest));
    problems.extend(unnamed_shards(&args.dir, &manifest)?);
    problems.extend(check_videos(&args.dir, &manifest));
    problems.extend(check_rejected(&args.dir, &manifest));
    // In the order of the manifest's shards; other files come last.
    let index = |file: &str| manifest.shards.iter().position(|shard| shard.file == file);
    problems.sort_by_key(|problem| index(&problem.file).unwrap_or(usize::MAX));
    let report = VerifyReport {
        dir: args.dir.display().to_string(),
        finished: manifest.finished,
        deep: args.deep,
        shards: manifest.shards.len() as u64,
        clips,
        bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
        problems,
        seconds: began.elapsed().as_secs_f64(),
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(&render_report(&report))?;
    }
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}

/// Downloads the shards at `url`, one at a time, and checks each. Returns the number of their clips.
fn check_store(
    args: &VerifyArgs,
    url: &Url,
    manifest: &Manifest,
    problems: &mut Vec<Problem>,
) -> anyhow::Result<u64> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (mut clips, mut first_clip) = (0, 0);
    for entry in &manifest.shards {
        let local = ShardEntry {
            file: "shard".to_owned(),
            ..entry.clone()
        };
        let path = scratch.path().join(&local.file);
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let downloaded = store::download(&url.join(&entry.file)?, None, &file, &mut |_| Ok(()));
        let mut found = Vec::new();
        match downloaded {
            Ok(_) => {
                let one = Manifest {
                    shards: vec![local],
                    ..manifest.clone()
                };
                let shards = open_shards(scratch.path(), &one, &mut found)?;
                clips += check_clips(args, &one, &shards, &mut found)?;
            }
            Err(error) if error.is_not_found() => {
                found.push(problem(&entry.file, "it is missing".to_owned(), RESTORE));
            }
            Err(error) => return Err(error.into()),
        }
        problems.extend(found.into_iter().map(|problem| Problem {
            file: entry.file.clone(),
            clip: problem.clip.map(|clip| clip + first_clip),
            ..problem
        }));
        first_clip += entry.clips;
    }
    Ok(clips)
}

/// Checks the index, if there is one.
fn check_index(dir: &Path, manifest: &Manifest) -> Option<Problem> {
    let entry = manifest.index.as_ref()?;
    let bytes = match read(dir, INDEX_FILE) {
        Ok(bytes) => bytes,
        Err(error) => return Some(unreadable(INDEX_FILE, &error, INDEX_REMEDY)),
    };
    let is_whole = bytes.len() as u64 == entry.bytes && xxh3_hex(&bytes) == entry.xxh3;
    (!is_whole).then(|| problem(INDEX_FILE, OTHER_BYTES.to_owned(), INDEX_REMEDY))
}

/// Reads a file beside the shards.
fn read(dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store::open_file(&dir.join(name))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A shard that could be opened.
struct Opened {
    shard: Shard,
    /// The error of its stored frames, if they are damaged: often a damaged clip gives a more
    /// specific one.
    stored_pixels: Option<ShardError>,
}

/// Opens all shards. Those that cannot be opened are `None`, and reported as problems.
fn open_shards(
    dir: &Path,
    manifest: &Manifest,
    problems: &mut Vec<Problem>,
) -> anyhow::Result<Vec<Option<Opened>>> {
    let mut shards = Vec::with_capacity(manifest.shards.len());
    let progress = Progress::new(manifest.shards.len() as u64, "{pos}/{len} shards");
    let work = |(): &mut (), entry: &ShardEntry, results: &Sender<_>| {
        let open = || {
            let shard = Shard::open_as_listed(dir, entry)?;
            Ok(Opened {
                shard,
                stored_pixels: check_pixels(dir, entry).err(),
            })
        };
        // The receiver is gone only when the whole command has failed.
        let _ = results.send(open());
    };
    let take = |entry: &ShardEntry,
                results: crossbeam_channel::Receiver<Result<Opened, ShardError>>| {
        match results.recv().context("a worker has died")? {
            Ok(opened) => shards.push(Some(opened)),
            Err(error) => {
                shards.push(None);
                problems.push(problem(&entry.file, render_error(&error), RESTORE));
            }
        }
        progress.advance(1, count(problems.len() as u64, "problem"));
        Ok(())
    };
    fan_out(&manifest.shards, all_cores(), 1, || (), work, take)?;
    progress.finish();
    Ok(shards)
}

/// Some clips of a shard: the unit of work.
struct Chunk<'a> {
    entry: &'a ShardEntry,
    opened: &'a Opened,
    /// Index of the shard's first clip among all clips.
    first_clip: u64,
    rows: Range<usize>,
}

/// Reads every clip of the opened shards. Returns their number.
fn check_clips(
    args: &VerifyArgs,
    manifest: &Manifest,
    shards: &[Option<Opened>],
    problems: &mut Vec<Problem>,
) -> anyhow::Result<u64> {
    let mut chunks = Vec::new();
    let mut first_clip = 0;
    let mut clips = 0;
    for (entry, opened) in manifest.shards.iter().zip(shards) {
        if let Some(opened) = opened {
            let rows = opened.shard.clips().len();
            clips += rows as u64;
            let starts = (0..rows).step_by(CHUNK_CLIPS);
            chunks.extend(starts.map(|start| Chunk {
                entry,
                opened,
                first_clip,
                rows: start..rows.min(start + CHUNK_CLIPS),
            }));
        }
        first_clip += entry.clips;
    }
    let progress = Progress::new(clips, "{pos}/{len} clips");
    let work = |reader: &mut ClipReader, chunk: &Chunk, results: &Sender<Option<String>>| {
        let arrow = if args.deep {
            Some(ArrowReader::open(&chunk.opened.shard))
        } else {
            None
        };
        for row in chunk.rows.clone() {
            let result = check_clip(reader, chunk.opened, row, arrow.as_ref());
            if results.send(result.err()).is_err() {
                break;
            }
        }
    };
    let mut damaged_shards = Vec::new();
    let take = |chunk: &Chunk, results: crossbeam_channel::Receiver<Option<String>>| {
        for row in chunk.rows.clone() {
            if let Some(what) = results.recv().context("a worker has died")? {
                damaged_shards.push(chunk.entry.file.clone());
                let clip = chunk.first_clip + row as u64;
                let place = Problem {
                    row: Some(row as u64),
                    clip: Some(clip),
                    ..problem(&chunk.entry.file, what, RESTORE)
                };
                problems.push(place);
            }
            progress.advance(1, count(problems.len() as u64, "problem"));
        }
        Ok(())
    };
    fan_out(
        &chunks,
        all_cores(),
        CHUNK_CLIPS,
        ClipReader::default,
        work,
        take,
    )?;
    progress.finish();
    for (entry, opened) in manifest.shards.iter().zip(shards) {
        let error = opened
            .as_ref()
            .and_then(|opened| opened.stored_pixels.as_ref());
        if let Some(error) = error.filter(|_| !damaged_shards.contains(&entry.file)) {
            let error = render_error(error);
            let what = format!(
                "{error}, although each of its clips is what was built: bytes around the frames \
                 differ"
            );
            problems.push(problem(&entry.file, what, RESTORE));
        }
    }
    Ok(clips)
}

/// Checks a clip. The error is its problem.
fn check_clip(
    reader: &mut ClipReader,
    opened: &Opened,
    row: usize,
    arrow: Option<&Result<ArrowReader, ShardError>>,
) -> Result<(), String> {
    reader
        .payload(&opened.shard, row)
        .map_err(|error| render_error(&error))?;
    if let Some(arrow) = arrow {
        let frames = opened.shard.clips()[row].frames;
        reader
            .frames(&opened.shard, row, frames)
            .map_err(|error| render_error(&error))?;
        let arrow = arrow.as_ref().map_err(render_error)?;
        arrow.check(row).map_err(|error| render_error(&error))?;
    }
    Ok(())
}

/// Checks that the manifest's own counts match.
fn check_counts(manifest: &Manifest) -> Option<Problem> {
    let sum: u64 = manifest.shards.iter().map(|shard| shard.clips).sum();
    let what = format!(
        "it counts {}, but its shards have {sum}",
        count(manifest.clips, "clip")
    );
    (sum != manifest.clips).then(|| problem(schemas::manifest::MANIFEST_FILE, what, RESTORE))
}

/// Finds shards in the folder that the manifest does not name.
fn unnamed_shards(dir: &Path, manifest: &Manifest) -> anyhow::Result<Vec<Problem>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let named = manifest.shards.iter().any(|shard| shard.file == name);
        if name.starts_with("shard-") && name.ends_with(".parquet") && !named {
            let remedy = if manifest.finished {
                "nothing reads it: remove it"
            } else {
                "a build that was stopped has left it, or one that is running has just written it: \
                 resume the build"
            };
            found.push(problem(
                &name,
                "the manifest does not name it".to_owned(),
                remedy,
            ));
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

/// Names of the files in a folder, or of the objects at a URL; none where they cannot be listed.
fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    if let Some(url) = Url::of(dir) {
        let url = url?;
        return match store::list(&url) {
            Ok(objects) => {
                let names = objects
                    .iter()
                    .filter_map(|object| url.relative(&object.url));
                Ok(names.collect())
            }
            Err(StoreError::Unlistable { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        };
    }
    let cannot = || format!("cannot read {}", dir.display());
    let entries = fs::read_dir(dir).with_context(cannot)?;
    let names = entries.map(|entry| {
        let name = entry.with_context(cannot)?.file_name();
        Ok(name.to_string_lossy().into_owned())
    });
    names.collect()
}

/// Checks the list of videos against the manifest. Older builds, whose manifest has no hash of it,
/// may lack it.
fn check_videos(dir: &Path, manifest: &Manifest) -> Vec<Problem> {
    let text = match read(dir, VIDEOS_FILE) {
        Ok(text) => text,
        Err(error) => {
            let may_lack =
                error.kind() == io::ErrorKind::NotFound && manifest.videos_xxh3.is_none();
            return if may_lack {
                Vec::new()
            } else {
                vec![unreadable(VIDEOS_FILE, &error, VIDEOS_REMEDY)]
            };
        }
    };
    let mut problems = Vec::new();
    let mut lines = 0;
    let mut bytes = 0;
    let mut clips = 0;
    // Lines beyond those that the manifest counts are from a build that was stopped.
    let wanted = usize::try_from(manifest.videos).unwrap_or(usize::MAX);
    for line in text.split_inclusive(|&byte| byte == b'\n').take(wanted) {
        lines += 1;
        bytes += line.len();
        match serde_json::from_slice::<VideoRecord>(line) {
            Ok(record) => clips += record.clips,
            Err(error) => problems.push(problem(
                VIDEOS_FILE,
                format!("line {lines} cannot be read: {error}"),
                VIDEOS_REMEDY,
            )),
        }
    }
    if lines < manifest.videos {
        let what = format!(
            "it has {}, the manifest says {}",
            count(lines, "line"),
            manifest.videos
        );
        problems.push(problem(VIDEOS_FILE, what, VIDEOS_REMEDY));
    }
    let expected = manifest
        .clips
        .saturating_sub(manifest.open_video.as_ref().map_or(0, |video| video.clips));
    if problems.is_empty() && clips != expected {
        let what = format!(
            "its videos have {}, the manifest says {expected}",
            count(clips, "clip")
        );
        problems.push(problem(VIDEOS_FILE, what, VIDEOS_REMEDY));
    }
    let differs = manifest
        .videos_xxh3
        .as_ref()
        .is_some_and(|xxh3| *xxh3 != xxh3_hex(&text[..bytes]));
    // Any other problem is more specific.
    if problems.is_empty() && differs {
        problems.push(problem(VIDEOS_FILE, OTHER_BYTES.to_owned(), VIDEOS_REMEDY));
    }
    problems
}

/// Checks that the list of rejected files is the one that the build wrote when it was complete.
fn check_rejected(dir: &Path, manifest: &Manifest) -> Option<Problem> {
    // Until then, a build may replace the list without the manifest.
    let xxh3 = manifest
        .rejected_xxh3
        .as_ref()
        .filter(|_| manifest.finished)?;
    match read(dir, REJECTED_FILE) {
        Ok(text) if xxh3_hex(&text) == *xxh3 => None,
        // A running build replaces the manifest before the list.
        Ok(_) if read_manifest(dir).is_ok_and(|now| now.rejected_xxh3.as_ref() != Some(xxh3)) => {
            None
        }
        Ok(_) => Some(problem(
            REJECTED_FILE,
            OTHER_BYTES.to_owned(),
            REJECTED_REMEDY,
        )),
        Err(error) => Some(unreadable(REJECTED_FILE, &error, REJECTED_REMEDY)),
    }
}

fn unreadable(file: &str, error: &io::Error, remedy: &str) -> Problem {
    problem(
        file,
        format!("it cannot be read: {}", io_reason(error)),
        remedy,
    )
}

fn problem(file: &str, what: String, remedy: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        row: None,
        clip: None,
        what,
        remedy: remedy.to_owned(),
    }
}

/// Renders an error without the file and the remedy, which a problem has apart.
fn render_error(error: &ShardError) -> String {
    match error {
        ShardError::Io {
            operation, source, ..
        } => format!("cannot {operation} it: {source}"),
        ShardError::Parquet {
            operation, source, ..
        } => format!("cannot {operation} it: {source}"),
        ShardError::NotAShard { reason, .. }
        | ShardError::DamagedShard { reason, .. }
        | ShardError::Damaged { reason, .. } => reason.clone(),
        ShardError::Undecodable { source, .. } => format!("it cannot be decoded: {source}"),
        error => error.to_string(),
    }
}

fn render_report(report: &VerifyReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let place = problem
            .row
            .zip(problem.clip)
            .map_or(String::new(), |(row, clip)| {
                format!(", row {row} (clip {clip})")
            });
        text += &format!(
            "{}{place}: {}\n  -> {}\n",
            reading::printable(&problem.file),
            problem.what,
            problem.remedy
        );
    }
    let read = format!(
        "{} of {} read{}, {}, {:.1} s",
        count(report.clips, "clip"),
        count(report.shards, "shard"),
        if report.deep {
            ", also by Parquet's own reader"
        } else {
            ""
        },
        output::bytes(report.bytes),
        report.seconds
    );
    match report.problems.len() as u64 {
        0 => format!("{text}{}: no problems ({read})", report.dir),
        problems => format!(
            "{text}{}: {} ({read})",
            report.dir,
            count(problems, "problem")
        ),
    }
}
