//! Several processes on one cache, and processes that are killed while they write it.

use crate::answers::environment;
use crate::loading::{EPOCH, Store, load_with, training};
use pipeline::loader::LoaderOptions;
use pipeline::shard::{CacheOptions, ShardSet};
use schemas::shard::Payload;
use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::object_server::Faults;
use tests::shown;

/// Names of what a process is told.
const URL: &str = "STORE_TEST_URL";
const LOCAL: &str = "STORE_TEST_LOCAL";
const CACHE: &str = "STORE_TEST_CACHE";
const SEED: &str = "STORE_TEST_SEED";

/// Loads some epochs through the cache, and compares them with those of the folder.
#[test]
#[ignore = "a process that the other tests start"]
fn one_of_several() {
    let _guard = environment(&[]);
    let value = |name: &str| env::var_os(name).expect("started by another test");
    let cache = CacheOptions {
        dir: PathBuf::from(value(CACHE)),
        bytes: None,
    };
    let seed = value(SEED).to_str().and_then(|seed| seed.parse().ok());
    let options = || LoaderOptions {
        seed: seed.expect("a number"),
        ..training()
    };
    let set = ShardSet::open_with(&PathBuf::from(value(URL)), Some(&cache)).expect("opened");
    let (remote, figures) = load_with(set, options(), 3 * EPOCH);
    let local = ShardSet::open(&PathBuf::from(value(LOCAL))).expect("opened");
    let (local, _) = load_with(local, options(), 3 * EPOCH);
    assert_eq!(remote.expect("loaded"), local.expect("loaded"));
    assert_eq!(figures.expect("figures").repeated, 0);
}

/// Starts [`one_of_several`].
fn start(store: &Store, cache: &CacheOptions, seed: u64) -> Child {
    let mut command = Command::new(env::current_exe().expect("this test"));
    command
        .args(["processes::one_of_several", "--exact", "--ignored"])
        .env(URL, store.url())
        .env(LOCAL, store.local())
        .env(CACHE, &cache.dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("started")
}

#[test]
fn processes_on_one_cache_read_what_the_others_fetched() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 0);
    let cache = store.cache(None);
    let children: Vec<_> = (0..4).map(|seed| start(&store, &cache, seed)).collect();
    for child in children {
        let output = child.wait_with_output().expect("ended");
        let said = shown(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }
    // Nothing is left to fetch for a fifth process with the order of one of them.
    let set = ShardSet::open_with(&store.url(), Some(&cache)).expect("opened");
    let (_, figures) = load_with(set, training(), EPOCH);
    let figures = figures.expect("figures");
    assert!(figures.hits > figures.misses, "{figures:?}");
}

#[test]
fn processes_that_are_killed_leave_nothing_wrong_in_the_cache() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 0);
    // Slow enough that each process is at work on its first epoch when it is killed.
    store.server.set(Faults {
        bytes_per_second: Some(2_000_000),
        only: Some("shard".to_owned()),
        ..Faults::default()
    });
    let cache = store.cache(None);
    let mut kept = 0;
    for round in 0..10 {
        let mut child = start(&store, &cache, round);
        let began = Instant::now();
        while store.kept_parts() == kept && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().expect("killed");
        let status = child.wait().expect("ended");
        assert!(
            store.kept_parts() > kept && !status.success(),
            "killed at its work: round {round}, {kept} parts, then {}",
            store.kept_parts()
        );
        kept = store.kept_parts();
    }
    store.server.set(Faults::default());
    let set = ShardSet::open_with(&store.url(), Some(&cache)).expect("opened");
    let (batches, figures) = load_with(set, training(), 2 * EPOCH);
    assert_eq!(batches.expect("loaded"), store.local_batches(2 * EPOCH));
    let figures = figures.expect("figures");
    assert!(figures.hits > 0 && figures.repeated == 0, "{figures:?}");
}
