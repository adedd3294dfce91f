//! `shardtool merge --plan`: joins the parts of a plan into one data set, without copying them.

use crate::cli::MergeArgs;
use crate::journal::xxh3_hex;
use crate::plan::{Known, PLAN_FILE};
use crate::publish;
use anyhow::{Context, anyhow, ensure};
use console::interrupt;
use console::output::{self, count};
use console::progress::Progress;
use pipeline::shard::index::IndexWriter;
use pipeline::shard::{ShardError, ShardSet, read_manifest};
use pipeline::store;
use rustix::fs::{FlockOperation, flock};
use schemas::manifest::{
    INDEX_FILE, MANIFEST_FILE, Manifest, REJECTED_FILE, Rejected, ShardEntry, VIDEOS_FILE,
    VideoRecord,
};
use schemas::report::DeriveReport;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::thread::ScopedJoinHandle;

/// Missing parts that are named in full, at most.
const NAMED_PARTS: usize = 20;

/// Parts that are read at a time.
const PARTS_AT_ONCE: usize = 32;

/// Why a part that is there is of no use.
const BY_ANOTHER_PLAN: &str = "was built by another plan, or with other options";

/// What is joined.
struct Joined {
    manifests: Vec<Manifest>,
    /// With their places in parts.
    shards: Vec<ShardEntry>,
    index: IndexWriter,
    /// Lines of the list of videos.
    videos: Vec<u8>,
    rejected: Vec<Rejected>,
}

/// A part that is complete.
struct Part {
    set: ShardSet,
    /// Its list of videos.
    videos: Vec<u8>,
}

/// Runs `shardtool merge --plan`.
///
/// # Errors
/// When the plan or a part cannot be read, or the result cannot be written.
pub fn merge(args: &MergeArgs, place: &Path) -> anyhow::Result<ExitCode> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let known = Known::read(place)?;
    let _lock = lock(place)?;
    let mut joined = Joined {
        manifests: Vec::new(),
        shards: Vec::new(),
        index: IndexWriter::new(&place.join(INDEX_FILE))?,
        videos: Vec::new(),
        rejected: known.plan.rejected.clone(),
    };
    let mut missing = Vec::new();
    let progress = Progress::new(u64::from(known.parts()), "{pos}/{len} parts");
    for first in (0..known.parts()).step_by(PARTS_AT_ONCE) {
        let end = known.parts().min(first + PARTS_AT_ONCE as u32);
        // In a store, what is read of a part is a matter of waiting.
        let found: Vec<_> = std::thread::scope(|scope| {
            let known = &known;
            let reads = (first..end).map(|part| scope.spawn(move || read_part(known, part)));
            let reads: Vec<_> = reads.collect();
            reads.into_iter().map(ScopedJoinHandle::join).collect()
        });
        for (part, found) in (first..end).zip(found) {
            match found.map_err(|_| anyhow!("a thread that reads has panicked"))?? {
                Ok(found) => joined.add(part, found)?,
                Err(reason) => missing.push((part, reason)),
            }
            progress.advance(1, String::new());
        }
    }
    progress.finish();
    if !missing.is_empty() {
        output::print(&render_missing(&known, &missing))?;
        return Ok(ExitCode::FAILURE);
    }
    let manifest = write_joined(place, &known, joined)?;
    let report = DeriveReport {
        out: place.display().to_string(),
        clips: manifest.clips,
        videos: manifest.videos,
        shards: manifest.shards.len() as u64,
        left_out: 0,
        copied: false,
    };
    output::print(&if args.derive.json {
        serde_json::to_string_pretty(&report)?
    } else {
        format!(
            "{} from {} in {}, of {}\nnext: trainer run --data {}",
            count(report.clips, "clip"),
            count(report.videos, "video"),
            count(report.shards, "shard"),
            count(u64::from(known.parts()), "part"),
            report.out
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Locks a local plan: one process joins at a time. Into a store, all of them write the same bytes.
fn lock(place: &Path) -> anyhow::Result<Option<File>> {
    if store::Url::of(place).is_some() {
        return Ok(None);
    }
    let path = place.join(PLAN_FILE);
    let plan = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(
        flock(&plan, FlockOperation::NonBlockingLockExclusive).is_ok(),
        "another merge is at work in {}; wait for it",
        place.display()
    );
    Ok(Some(plan))
}

/// Reads all of part `part` but its shards; or says why it cannot be used.
fn read_part(known: &Known, part: u32) -> anyhow::Result<Result<Part, String>> {
    let place = known.part_place(part);
    let manifest = match read_manifest(&place) {
        Ok(manifest) => manifest,
        Err(ShardError::NoManifest { .. }) => return Ok(Err("is missing".to_owned())),
        Err(error) => return Err(error.into()),
    };
    if manifest.plan != Some(known.entry(Some(part))) || manifest.options != known.plan.options {
        return Ok(Err(BY_ANOTHER_PLAN.to_owned()));
    }
    if !manifest.finished {
        let clips = count(manifest.clips, "clip");
        return Ok(Err(format!("is incomplete, with {clips} so far")));
    }
    let set = ShardSet::open_as(&place, manifest, None)?;
    let mut videos = Vec::new();
    let path = place.join(VIDEOS_FILE);
    store::open_file(&path)
        .and_then(|mut file| file.read_to_end(&mut videos))
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        set.manifest().videos_xxh3.as_ref() == Some(&xxh3_hex(&videos)),
        "{} is not what the build wrote; build part {part} again with --force",
        path.display()
    );
    Ok(Ok(Part { set, videos }))
}

impl Joined {
    fn add(&mut self, number: u32, part: Part) -> anyhow::Result<()> {
        let manifest = part.set.manifest();
        for (shard, entry) in part.set.shards().iter().zip(&manifest.shards) {
            self.index.push(shard)?;
            let mut entry = entry.clone();
            entry.file = format!("{}/{}", Known::part_name(number), entry.file);
            self.shards.push(entry);
        }
        for line in part.videos.split(|&byte| byte == b'\n') {
            if !line.is_empty() {
                let record: VideoRecord = serde_json::from_slice(line)?;
                self.rejected.extend(record.rejected);
            }
        }
        self.videos.extend(part.videos);
        self.manifests.push(manifest.clone());
        Ok(())
    }
}

fn render_missing(known: &Known, missing: &[(u32, String)]) -> String {
    let parts = count(missing.len() as u64, "part");
    let mut text = format!("{parts} of {} cannot be joined:\n", known.parts());
    for (part, reason) in missing.iter().take(NAMED_PARTS) {
        text += &format!("  {} {reason}\n", Known::part_name(*part));
    }
    if missing.len() > NAMED_PARTS {
        text += &format!("  and {} more\n", missing.len() - NAMED_PARTS);
    }
    text += "build them with\n";
    for (part, reason) in missing.iter().take(NAMED_PARTS) {
        let force = if reason == BY_ANOTHER_PLAN {
            " --force"
        } else {
            ""
        };
        text += &format!("  {}{force}\n", known.command(*part));
    }
    let numbers: Vec<String> = missing.iter().map(|(part, _)| part.to_string()).collect();
    text + &format!(
        "or with an array of Slurm (see deploy/): --array={}, of {} parts",
        numbers.join(","),
        known.parts()
    )
}

/// Writes the lists, the index and the manifest of all parts.
fn write_joined(place: &Path, known: &Known, joined: Joined) -> anyhow::Result<Manifest> {
    let (index, index_entry) = joined.index.finish()?;
    let mut rejected = Vec::new();
    for line in &joined.rejected {
        serde_json::to_writer(&mut rejected, line)?;
        rejected.push(b'\n');
    }
    let first = joined.manifests.first().context("a plan has parts")?;
    let manifest = Manifest {
        finished: true,
        clips: joined.shards.iter().map(|shard| shard.clips).sum(),
        shards: joined.shards,
        videos: joined.manifests.iter().map(|part| part.videos).sum(),
        videos_xxh3: Some(xxh3_hex(&joined.videos)),
        rejected_xxh3: Some(xxh3_hex(&rejected)),
        index: Some(index_entry),
        plan: Some(known.entry(None)),
        ..first.clone()
    };
    publish::write(place, VIDEOS_FILE, joined.videos)?;
    publish::write(place, REJECTED_FILE, rejected)?;
    publish::write(place, INDEX_FILE, index)?;
    publish::write(place, MANIFEST_FILE, serde_json::to_vec_pretty(&manifest)?)?;
    Ok(manifest)
}
