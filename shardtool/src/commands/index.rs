//! `shardtool index`: writes the index of a data set that has none.

use crate::cli::IndexArgs;
use crate::publish;
use anyhow::{Context, ensure};
use console::output::{self, count};
use pipeline::shard::{index, read_manifest};
use pipeline::store::{self, Url};
use schemas::manifest::{INDEX_FILE, MANIFEST_FILE, Manifest};
use std::process::ExitCode;

/// Runs the command.
///
/// # Errors
/// When a shard cannot be read, or the index cannot be written.
pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let place = args.dir.as_path();
    let etag = match Url::of(place) {
        None => None,
        Some(url) => store::head(&url?.join(MANIFEST_FILE)?)
            .ok()
            .and_then(|found| found.etag),
    };
    let manifest = read_manifest(place)?;
    ensure!(
        manifest.finished,
        "the build in {} is incomplete; it writes the index when it finishes",
        place.display()
    );
    let entry = match Url::of(place) {
        None => index::write(place, &manifest.shards)?,
        Some(url) => {
            let (bytes, entry) = index::of_store(&url?, &manifest.shards)?;
            publish::write(place, INDEX_FILE, bytes)?;
            entry
        }
    };
    let bytes = entry.bytes;
    let manifest = Manifest {
        index: Some(entry),
        ..manifest
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    match Url::of(place) {
        None => publish::write(place, MANIFEST_FILE, json)?,
        Some(url) => {
            let object = url?.join(MANIFEST_FILE)?;
            store::replace(&object, json.into(), etag.as_deref())
                .context("the data set has changed meanwhile")?;
        }
    }
    output::print(&format!(
        "{} of {} in {}: {}",
        count(manifest.clips, "clip"),
        count(manifest.shards.len() as u64, "shard"),
        place.join(INDEX_FILE).display(),
        output::bytes(bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}
