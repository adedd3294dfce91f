//! `shardtool plan`: cuts a build into parts; `shardtool merge --plan`: joins them.

use super::dry_run;
use crate::cli::{MergeArgs, PlanArgs};
use crate::fan_out::fan_out;
use crate::inputs::{self, Input};
use crate::journal::xxh3_hex;
use crate::plan::{Known, PLAN_FILE, Plan};
use crate::publish;
use crate::worker;
use anyhow::{Context, ensure};
use console::interrupt;
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, Sender};
use pipeline::shard::index::IndexWriter;
use pipeline::shard::{ShardError, ShardSet, payload, read_manifest};
use pipeline::store;
use pipeline::video;
use pipeline::worker::Supervisor;
use rustix::fs::{FlockOperation, flock};
use schemas::manifest::{
    BuildOptions, INDEX_FILE, MANIFEST_FILE, Manifest, REJECTED_FILE, Rejected, VIDEOS_FILE,
    VideoRecord,
};
use schemas::report::DeriveReport;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes of videos in a store that count as [`STORED_MINUTES`] minutes: they are not looked at.
const STORED_BYTES: f64 = 1e9;

/// See [`STORED_BYTES`].
const STORED_MINUTES: f64 = 30.0;

/// Missing parts that are named in full, at most.
const NAMED_PARTS: usize = 20;

/// Runs `shardtool plan`.
///
/// # Errors
/// When there are no videos, or the plan cannot be written.
pub fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    video::init()?;
    let options = args.build.options(args.force)?;
    payload::check(&options)?;
    let place = args.build.out.as_path();
    let found = inputs::find(&args.videos, &args.build)?;
    let rejected = found.rejected.clone();
    let coverage = found.coverage.render();
    let (inputs, classes) = found.number(&[]);
    let minutes = minutes(args, &options, &inputs)?;
    let all: f64 = minutes.iter().sum();
    let parts = args.parts.map_or_else(
        || (all / args.part_minutes).ceil() as usize,
        |parts| parts as usize,
    );
    let videos = inputs.len() as u64;
    let is_stored = inputs.iter().any(|input| input.file.object.is_some());
    let weighted = inputs.into_iter().zip(minutes).collect();
    let plan = Plan::cut(options, classes, rejected, weighted, parts)?;
    let json = plan.to_json()?;
    write(place, &json, args.force)?;
    coverage.iter().for_each(|line| output::say(line));
    let known = Known::read(place)?;
    output::print(&format!(
        "{} of {}{:.1} minutes in {}: {}\nnext: {}   and so on, or an array of a scheduler\n\
         then: shardtool merge --plan {}",
        count(videos, "video"),
        if is_stored { "about " } else { "" },
        all,
        count(u64::from(known.parts()), "part"),
        place.join(PLAN_FILE).display(),
        known.command(0),
        place.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the plan, unless there is another one.
fn write(place: &Path, json: &[u8], force: bool) -> anyhow::Result<()> {
    let path = place.join(PLAN_FILE);
    let mut before = Vec::new();
    let is_there = match store::open_file(&path) {
        Ok(mut file) => file.read_to_end(&mut before).is_ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if before == json {
        return Ok(());
    }
    ensure!(
        force || !is_there,
        "{} is another plan; give another --out, or --force to replace it (its parts are then of no \
         use)",
        path.display()
    );
    if store::Url::of(place).is_none() {
        fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    }
    publish::write(place, PLAN_FILE, json.to_vec())
}

/// Minutes of footage of each video, as far as they can be told.
fn minutes(args: &PlanArgs, options: &BuildOptions, inputs: &[Input]) -> anyhow::Result<Vec<f64>> {
    let progress = Progress::new(inputs.len() as u64, "{pos}/{len} videos");
    // There is nothing to finish: Ctrl-C ends the program at once.
    let supervisor = worker::supervisors(args.build.timeout, Arc::default())?;
    let work = |supervisor: &mut Supervisor, input: &Input, results: &Sender<_>| {
        let minutes = match &input.file.object {
            Some(object) => Ok(object.bytes as f64 / STORED_BYTES * STORED_MINUTES),
            None => {
                let timeout = args.build.timeout;
                let probed = dry_run::probe(supervisor, &input.file, None, options, timeout);
                // A video that cannot be read is rejected when its part is built.
                probed.map(|probe| probe.map_or(0.0, |probe| probe.seconds() / 60.0))
            }
        };
        // The receiver is gone only when the command itself has failed.
        let _ = results.send(minutes);
    };
    let mut all = Vec::with_capacity(inputs.len());
    let take = |_: &Input, results: Receiver<anyhow::Result<f64>>| {
        all.push(results.recv()??);
        progress.advance(1, String::new());
        Ok(())
    };
    fan_out(inputs, args.build.jobs(), 1, supervisor, work, take)?;
    progress.finish();
    Ok(all)
}

/// Why a part that is there is of no use.
const BY_ANOTHER_PLAN: &str = "was built by another plan, or with other options";

/// What is joined.
#[derive(Default)]
struct Joined {
    manifests: Vec<Manifest>,
    /// Lines of the list of videos.
    videos: Vec<u8>,
    rejected: Vec<Rejected>,
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
        rejected: known.plan.rejected.clone(),
        ..Joined::default()
    };
    let mut missing = Vec::new();
    let progress = Progress::new(u64::from(known.parts()), "{pos}/{len} parts");
    for part in 0..known.parts() {
        if let Some(reason) = add(&mut joined, &known, part)? {
            missing.push((part, reason));
        }
        progress.advance(1, String::new());
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

/// Adds part `part`; returns why it cannot be used, if it cannot.
fn add(joined: &mut Joined, known: &Known, part: u32) -> anyhow::Result<Option<String>> {
    let place = known.part_place(part);
    let manifest = match read_manifest(&place) {
        Ok(manifest) => manifest,
        Err(ShardError::NoManifest { .. }) => return Ok(Some("is missing".to_owned())),
        Err(error) => return Err(error.into()),
    };
    if manifest.plan != Some(known.entry(Some(part))) || manifest.options != known.plan.options {
        return Ok(Some(BY_ANOTHER_PLAN.to_owned()));
    }
    if !manifest.finished {
        let clips = count(manifest.clips, "clip");
        return Ok(Some(format!("is incomplete, with {clips} so far")));
    }
    let mut videos = Vec::new();
    let path = place.join(VIDEOS_FILE);
    store::open_file(&path)
        .and_then(|mut file| file.read_to_end(&mut videos))
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        manifest.videos_xxh3.as_ref() == Some(&xxh3_hex(&videos)),
        "{} is not what the build wrote; build part {part} again with --force",
        path.display()
    );
    for line in videos
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let record: VideoRecord = serde_json::from_slice(line)?;
        joined.rejected.extend(record.rejected);
    }
    joined.videos.extend(videos);
    joined.manifests.push(manifest);
    Ok(None)
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
    let mut index = IndexWriter::new(&place.join(INDEX_FILE))?;
    let mut shards = Vec::new();
    for (part, manifest) in (0..).zip(&joined.manifests) {
        let set = ShardSet::open(&known.part_place(part))?;
        for (shard, entry) in set.shards().iter().zip(&manifest.shards) {
            index.push(shard)?;
            let mut entry = entry.clone();
            entry.file = format!("{}/{}", Known::part_name(part), entry.file);
            shards.push(entry);
        }
    }
    let (index, index_entry) = index.finish()?;
    let mut rejected = Vec::new();
    for line in &joined.rejected {
        serde_json::to_writer(&mut rejected, line)?;
        rejected.push(b'\n');
    }
    let first = joined.manifests.first().context("a plan has parts")?;
    let manifest = Manifest {
        finished: true,
        clips: shards.iter().map(|shard| shard.clips).sum(),
        shards,
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
