//! The corpus of odd files, built by the program: what a dry run counts is what a build gives, and
//! each file has the outcome that the table says.

use crate::shardtool;
use schemas::manifest::Rejected;
use schemas::report::{BuildReport, DryRunReport};
use std::collections::HashMap;
use std::path::Path;
use tests::corpus::{CORPUS, Expect, Group, generate};
use tests::parse_report;

fn build<T: serde::de::DeserializeOwned>(dir: &Path, arguments: &[&str]) -> T {
    let common = [
        "build", "videos", "--frames", "8", "--stride", "3", "--json",
    ];
    parse_report(&shardtool(dir, &[&common, arguments].concat()))
}

#[test]
fn every_file_has_its_outcome() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = dir.path().join("videos");
    generate(
        &videos,
        std::thread::available_parallelism().map_or(2, usize::from),
    );
    // What others are made of, and what is no video by name either, is only counted.
    let is_named = |case: &tests::corpus::Case| case.group != Group::Material;
    for case in CORPUS.iter().filter(|case| !is_named(case)) {
        std::fs::remove_file(videos.join(case.name)).expect("removed");
    }
    let built: BuildReport = build(dir.path(), &["--out", "shards"]);
    let counted: DryRunReport = build(dir.path(), &["--dry-run", "--out", "other"]);
    let by_name = |rejected: &[Rejected]| -> HashMap<String, String> {
        let whole = rejected
            .iter()
            .filter(|rejected| rejected.seconds.is_none());
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        whole
            .map(|rejected| (name(&rejected.path), rejected.reason.clone()))
            .collect()
    };
    let (left_out, not_counted) = (by_name(&built.rejected), by_name(&counted.rejected));
    let mut wrong = Vec::new();
    for case in CORPUS.iter().filter(|case| is_named(case)) {
        for (command, found) in [("build", &left_out), ("dry run", &not_counted)] {
            match (case.expect, found.get(case.name)) {
                (Expect::Rejected(reason), Some(found)) if !found.contains(reason) => {
                    wrong.push(format!(
                        "{}, {command}: \"{found}\", not \"{reason}\"",
                        case.name
                    ));
                }
                (Expect::Rejected(_), _) | (_, None) => {}
                (_, Some(found)) => wrong.push(format!("{}, {command}: {found}", case.name)),
            }
        }
    }
    // Sound and still pictures that are called so are no video by name either.
    let refused = CORPUS
        .iter()
        .filter(|case| matches!(case.expect, Expect::Rejected(_)))
        .count() as u64;
    assert_eq!(
        left_out.len() as u64 + built.not_video,
        refused,
        "{left_out:?}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        (built.clips, built.gap_clips),
        (counted.clips, counted.gap_clips),
        "built, counted"
    );
    assert_eq!((built.damaged_clips, built.damaged_videos), (0, 0));
    assert!(built.videos >= 60 && built.gap_clips > 0, "{built:?}");
}
