//! `shardtool plan`: cuts a build into parts, which `shardtool merge --plan` joins.

use super::dry_run;
use crate::cli::PlanArgs;
use crate::fan_out::fan_out;
use crate::inputs::{self, Input};
use crate::plan::{Known, PLAN_FILE, Plan};
use crate::publish;
use crate::worker;
use anyhow::{Context, ensure};
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::{Receiver, Sender};
use pipeline::shard::payload;
use pipeline::store;
use pipeline::video;
use pipeline::worker::Supervisor;
use schemas::manifest::BuildOptions;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes of videos in a store that count as [`STORED_MINUTES`] minutes: they are not looked at.
const STORED_BYTES: f64 = 1e9;

/// See [`STORED_BYTES`].
const STORED_MINUTES: f64 = 30.0;

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
