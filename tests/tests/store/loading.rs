//! Shards in a store give the batches that local ones give, whatever happens on the way.

use crate::answers::environment;
use pipeline::loader::batch::Batch;
use pipeline::loader::{LoadError, Loader, LoaderOptions};
use pipeline::sampling::sample::Views;
use pipeline::shard::{CacheOptions, ShardError, ShardSet, index};
use pipeline::source::{Source, WeightedSource};
use schemas::manifest::{MANIFEST_FILE, Manifest};
use schemas::report::StoreFigures;
use schemas::shard::Payload;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::object_server::{Faults, ObjectServer};
use tests::{TestClip, loader_options, options, write_shards_with};

/// Clips of the data set.
const CLIPS: u64 = 24;

/// A folder of buckets: one data set in bucket `data`.
pub struct Store {
    dir: TempDir,
    pub server: ObjectServer,
}

impl Store {
    pub fn new(payload: Payload, level: i32) -> Self {
        let store = Self::without_index(payload, level);
        let shards = store.local();
        let mut manifest = pipeline::shard::read_manifest(&shards).expect("a manifest");
        manifest.index = Some(index::write(&shards, &manifest.shards).expect("an index"));
        write_manifest(&shards, &manifest);
        store
    }

    fn without_index(payload: Payload, level: i32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let clips: Vec<TestClip> = (0..CLIPS)
            .map(|seed| TestClip::moving(seed, 24, 128, 96))
            .collect();
        let mut options = options(level, 100_000);
        options.payload = payload;
        write_shards_with(&dir.path().join("data/set"), &clips, options);
        let server = ObjectServer::start(dir.path(), Faults::default());
        Self { dir, server }
    }

    pub fn local(&self) -> PathBuf {
        self.dir.path().join("data/set")
    }

    pub fn url(&self) -> PathBuf {
        format!("{}/data/set", self.server.url()).into()
    }

    pub fn cache(&self, bytes: Option<u64>) -> CacheOptions {
        CacheOptions {
            dir: self.dir.path().join("cache"),
            bytes,
        }
    }

    fn open(&self, cache: Option<&CacheOptions>) -> Result<ShardSet, ShardError> {
        ShardSet::open_with(&self.url(), cache)
    }

    /// The first batches of training from the store, and the traffic for them.
    fn batches(&self, cache: Option<&CacheOptions>, count: usize) -> (Vec<Batch>, StoreFigures) {
        let set = self.open(cache).expect("opened");
        let (batches, figures) = load(set, count);
        (batches.expect("loaded"), figures.expect("figures"))
    }

    /// The first batches of training from the folder.
    pub fn local_batches(&self, count: usize) -> Vec<Batch> {
        let set = ShardSet::open(&self.local()).expect("opened");
        load(set, count).0.expect("loaded")
    }

    /// Files of shards in the cache.
    pub fn cached_files(&self) -> Vec<PathBuf> {
        let sets = fs::read_dir(self.dir.path().join("cache"));
        let sets = sets.into_iter().flatten();
        let sets = sets.map(|entry| entry.expect("an entry").path());
        let files = sets.filter(|path| path.is_dir()).flat_map(|set| {
            let files = fs::read_dir(set).expect("a data set");
            files.map(|entry| entry.expect("an entry").path())
        });
        let is_shard = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('0'))
        };
        files.filter(is_shard).collect()
    }

    /// Parts of clips that count as cached.
    pub fn kept_parts(&self) -> u32 {
        let file = self
            .cached_files()
            .first()
            .map(|path| path.with_file_name("parts"));
        let bits = file
            .and_then(|file| fs::read(file).ok())
            .unwrap_or_default();
        bits.iter().map(|byte| byte.count_ones()).sum()
    }
}

fn write_manifest(dir: &Path, manifest: &Manifest) {
    let json = serde_json::to_vec(manifest).expect("JSON");
    fs::write(dir.join(MANIFEST_FILE), json).expect("written");
}

fn sources(set: ShardSet) -> Arc<[WeightedSource]> {
    [WeightedSource::from(Source::Shards(set))].into()
}

/// Batches of 4 clips with two windows of 6 of 24 frames each.
pub fn training() -> LoaderOptions {
    LoaderOptions {
        repeat: 2,
        ..loader_options(2)
    }
}

/// Batches of 4 whole clips, six in an epoch.
fn whole_clips() -> LoaderOptions {
    let mut grid = training().format.grid;
    grid.frames = 24;
    LoaderOptions::tokens(4, grid)
}

fn load(set: ShardSet, count: usize) -> (Result<Vec<Batch>, LoadError>, Option<StoreFigures>) {
    load_with(set, training(), count)
}

/// The first batches, and the traffic for them.
pub fn load_with(
    set: ShardSet,
    options: LoaderOptions,
    count: usize,
) -> (Result<Vec<Batch>, LoadError>, Option<StoreFigures>) {
    let mut loader = Loader::new(sources(set), options).expect("a loader");
    let batches = (&mut loader).take(count).collect();
    (batches, loader.figures().store)
}

/// Batches of an epoch: each clip is read once for two of them.
pub const EPOCH: usize = 12;

#[test]
fn batches_from_a_store_are_those_of_the_folder() {
    let _guard = environment(&[]);
    let stored = [
        (Payload::I420, 3),
        (Payload::I420, 0),
        (Payload::I420Delta, 3),
        (Payload::H264, 0),
    ];
    for (payload, level) in stored {
        let store = Store::new(payload, level);
        let local = store.local_batches(3 * EPOCH);
        let (remote, figures) = store.batches(None, 3 * EPOCH);
        assert_eq!(remote, local, "{payload:?} {level}");
        assert_eq!((figures.hits, figures.repeated), (0, 0));
        let cache = store.cache(None);
        for _ in 0..2 {
            let (cached, _) = store.batches(Some(&cache), 3 * EPOCH);
            assert_eq!(cached, local, "{payload:?} {level} with a cache");
        }
        // All parts of all clips, once, and then nothing.
        let whole = LoaderOptions {
            format: LoaderOptions::tokens(4, training().format.grid).format,
            ..training()
        }
        .once(Views {
            temporal: 4,
            spatial: 1,
        });
        for (pass, is_cached) in [(0, false), (1, true)] {
            let set = store.open(Some(&cache)).expect("opened");
            let mut loader = Loader::new(sources(set), whole.clone()).expect("a loader");
            let batches: Vec<_> = (&mut loader).map(|batch| batch.expect("a batch")).collect();
            assert_eq!(batches.len(), 4 * EPOCH / 2);
            let figures = loader.figures().store.expect("figures");
            assert!(!is_cached || figures.hit_rate == 1.0, "{pass}: {figures:?}");
        }
        let before = store.server.requests().gets;
        let (warm, figures) = store.batches(Some(&cache), 2 * EPOCH);
        assert_eq!(warm, local[..2 * EPOCH]);
        assert_eq!((figures.misses, figures.hit_rate), (0, 1.0));
        assert_eq!(
            store.server.requests().gets - before,
            2,
            "manifest and index"
        );
    }
}

#[test]
fn a_data_set_without_an_index_is_read_as_well() {
    let _guard = environment(&[]);
    let store = Store::without_index(Payload::I420, 3);
    let (remote, _) = store.batches(None, EPOCH);
    assert_eq!(remote, store.local_batches(EPOCH));
}

#[test]
fn columns_of_the_index_are_those_of_the_shards() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let (remote, local) = (
        store.open(None).expect("opened"),
        ShardSet::open(&store.local()).expect("opened"),
    );
    assert!(local.shards().len() > 2, "{}", local.shards().len());
    for (one, other) in remote.shards().iter().zip(local.shards()) {
        assert_eq!(one.metas().expect("read"), other.metas().expect("read"));
        assert_eq!(
            one.schema().expect("read"),
            data_free(&other.schema().expect("read"))
        );
        let names = ["video", "frames", "label"].into();
        assert_eq!(
            one.columns(&names).expect("read"),
            other.columns(&names).expect("read")
        );
        assert_eq!(one.clips(), other.clips());
    }
}

fn data_free(schema: &arrow::datatypes::Schema) -> Arc<arrow::datatypes::Schema> {
    let fields = schema.fields().iter();
    let fields = fields.filter(|field| field.name() != "data").cloned();
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

#[test]
fn what_goes_wrong_on_the_way_is_fetched_again() {
    let _guard = environment(&[("STORE_STALL_SECONDS", "1")]);
    let store = Store::new(Payload::I420, 3);
    let local = store.local_batches(2 * EPOCH);
    let faults = [
        Faults {
            error_every: Some((3, 503)),
            ..Faults::default()
        },
        Faults {
            short_every: Some(3),
            ..Faults::default()
        },
        Faults {
            wrong_every: Some(17),
            only: Some("shard".to_owned()),
            ..Faults::default()
        },
        Faults {
            stall_every: Some(20),
            only: Some("shard".to_owned()),
            ..Faults::default()
        },
    ];
    for fault in faults {
        store.server.set(fault.clone());
        let (remote, figures) = store.batches(None, 2 * EPOCH);
        assert_eq!(remote, local, "{fault:?}");
        let is_wrong = fault.wrong_every.is_some();
        assert_eq!(figures.repeated > 0, is_wrong, "{figures:?}");
        assert!(is_wrong || figures.retries > 0, "{figures:?}");
    }
}

#[test]
fn a_clip_that_stays_wrong_is_damaged_and_skipped() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    store.server.set(Faults {
        wrong_every: Some(1),
        only: Some("shard-00001".to_owned()),
        ..Faults::default()
    });
    let cache = store.cache(None);
    let (batches, figures) = store.batches(Some(&cache), EPOCH);
    let skipped: Vec<_> = batches.iter().flat_map(|batch| &batch.skipped).collect();
    assert!(!skipped.is_empty());
    for skipped in skipped {
        let reason = &skipped.reason;
        assert!(
            reason.contains("shard-00001.parquet is damaged"),
            "{reason}"
        );
    }
    assert!(figures.repeated > 0);
    // Nothing of it was kept.
    store.server.set(Faults::default());
    let (batches, _) = store.batches(Some(&cache), EPOCH);
    assert_eq!(batches, store.local_batches(EPOCH));
}

#[test]
fn a_store_that_goes_away_for_a_minute_is_waited_for() {
    let _guard = environment(&[("STORE_RETRY_SECONDS", "")]);
    let store = Store::new(Payload::I420, 3);
    let local = store.local_batches(2 * EPOCH);
    let set = store.open(None).expect("opened");
    let loader = Loader::new(sources(set), training()).expect("a loader");
    let mut batches = Vec::new();
    std::thread::scope(|scope| {
        for (number, batch) in loader.take(2 * EPOCH).enumerate() {
            batches.push(batch.expect("a batch"));
            if number == 2 {
                store.server.set(Faults {
                    away: true,
                    ..Faults::default()
                });
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(60));
                    store.server.set(Faults::default());
                });
            }
        }
    });
    assert_eq!(batches, local);
}

#[test]
fn a_store_that_stays_away_ends_loading_with_advice() {
    let _guard = environment(&[("STORE_RETRY_SECONDS", "1")]);
    let store = Store::new(Payload::I420, 3);
    let set = store.open(None).expect("opened");
    store.server.set(Faults {
        away: true,
        ..Faults::default()
    });
    let began = Instant::now();
    let error = load(set, EPOCH).0.expect_err("away").to_string();
    assert!(error.contains("gave up after 1 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_object_that_is_replaced_ends_loading() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let set = store.open(None).expect("opened");
    let mut loader = Loader::new(sources(set), training()).expect("a loader");
    loader.next().expect("endless").expect("a batch");
    store.server.set(Faults {
        new_etags: 1,
        ..Faults::default()
    });
    let error = loader.find_map(Result::err).expect("replaced").to_string();
    assert!(error.contains("the object was replaced"), "{error}");
}

#[test]
fn a_denied_key_and_a_missing_data_set_are_named() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let missing = format!("{}/data/nothing", store.server.url());
    let error = ShardSet::open(Path::new(&missing)).expect_err("missing");
    assert!(matches!(error, ShardError::NoManifest { .. }), "{error}");
    store.server.set(Faults {
        deny: true,
        ..Faults::default()
    });
    let error = store.open(None).expect_err("denied").to_string();
    assert!(error.contains("access denied"), "{error}");
}

#[test]
fn dropping_a_loader_does_not_wait_for_the_store() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let set = store.open(None).expect("opened");
    store.server.set(Faults {
        delay: Duration::from_secs(20),
        ..Faults::default()
    });
    let interrupt = Arc::new(AtomicBool::new(false));
    let options = LoaderOptions {
        interrupt: Arc::clone(&interrupt),
        ..training()
    };
    let began = Instant::now();
    let mut loader = Loader::new(sources(set), options).expect("a loader");
    interrupt.store(true, Ordering::SeqCst);
    let result = loader.next().expect("endless");
    assert!(matches!(result, Err(LoadError::Interrupted)));
    drop(loader);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_cache_of_half_the_data_keeps_half_of_it() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 0);
    let shards = fs::read_dir(store.local()).expect("a folder");
    let bytes: u64 = shards
        .map(|entry| entry.expect("an entry").metadata().expect("a file").len())
        .sum();
    let cache = store.cache(Some(bytes / 2));
    // So that each has the same bytes each time.
    let options = whole_clips();
    let set = store.open(Some(&cache)).expect("opened");
    let mut loader = Loader::new(sources(set), options).expect("a loader");
    for epoch in 0..4 {
        loader.restart_figures();
        for _ in 0..EPOCH / 2 {
            loader.next().expect("endless").expect("a batch");
        }
        let figures = loader.figures().store.expect("figures");
        // The loader is some batches ahead.
        if epoch > 1 {
            assert!(
                (0.4..0.6).contains(&figures.hit_rate),
                "{epoch}: {figures:?}"
            );
        }
        assert!(epoch < 1 || figures.is_cache_full);
    }
    let kept: u64 = store
        .cached_files()
        .iter()
        .map(|path| disk_bytes(path))
        .sum();
    assert!(kept <= bytes / 2 + 64 * 4096, "{kept} of {bytes}");
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("a file").blocks() * 512
}

#[test]
fn a_damaged_cache_is_fetched_again() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let cache = store.cache(None);
    // Whole clips: what the loader reads ahead of the last batch is in the cache as well.
    let load = |set: Result<ShardSet, ShardError>| {
        let (batches, figures) = load_with(set.expect("opened"), whole_clips(), EPOCH);
        (batches.expect("loaded"), figures.unwrap_or_default())
    };
    let (local, _) = load(ShardSet::open(&store.local()));
    load(store.open(Some(&cache)));
    let damages: [fn(&Path); 3] = [
        |path| {
            let bytes = fs::read(path).expect("read").len();
            fs::write(path, vec![7; bytes]).expect("written");
        },
        |path| fs::write(path, [1; 100]).expect("written"),
        |path| fs::remove_file(path).expect("removed"),
    ];
    for damage in damages {
        store.cached_files().iter().for_each(|path| damage(path));
        let (batches, figures) = load(store.open(Some(&cache)));
        assert!(batches == local);
        assert!(figures.repeated > 0, "{figures:?}");
    }
    // It is whole again.
    let (batches, figures) = load(store.open(Some(&cache)));
    assert!(batches == local);
    assert_eq!((figures.repeated, figures.misses), (0, 0));
}

#[test]
fn a_process_that_was_killed_while_it_wrote_leaves_holes_only() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let cache = store.cache(None);
    store.batches(Some(&cache), 2);
    // What was being written when it was killed has no bit, whatever it holds.
    for path in store.cached_files() {
        let parts = path.with_file_name("parts");
        let bytes = fs::read(&parts).expect("read").len();
        fs::write(&parts, vec![0; bytes]).expect("written");
        let bytes = fs::read(&path).expect("read").len();
        fs::write(&path, vec![9; bytes]).expect("written");
    }
    let (batches, figures) = store.batches(Some(&cache), EPOCH);
    assert_eq!(batches, store.local_batches(EPOCH));
    assert_eq!(figures.repeated, 0);
}

#[test]
fn a_cache_holds_several_data_sets_and_drops_unused_ones_for_room() {
    let _guard = environment(&[]);
    let (one, other) = (Store::new(Payload::I420, 0), Store::new(Payload::H264, 0));
    let large = one.cache(None);
    one.batches(Some(&large), 2 * EPOCH);
    other.batches(Some(&large), 2 * EPOCH);
    let sets = || {
        let entries = fs::read_dir(&large.dir).expect("a cache");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.is_dir()).count()
    };
    assert_eq!(sets(), 2);
    // In use, it stays.
    let used = one.open(Some(&large)).expect("opened");
    let small = CacheOptions {
        bytes: Some(1_000_000),
        ..large.clone()
    };
    other.batches(Some(&small), EPOCH);
    assert_eq!(sets(), 2);
    drop(used);
    other.batches(Some(&small), EPOCH);
    assert_eq!(sets(), 1);
    let (batches, _) = one.batches(Some(&large), EPOCH);
    assert_eq!(batches, one.local_batches(EPOCH));
}

#[test]
fn folders_that_are_no_cache_are_refused() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let options = |dir: &Path| CacheOptions {
        dir: dir.to_owned(),
        bytes: None,
    };
    let error = store
        .open(Some(&options(&store.local())))
        .expect_err("videos");
    assert!(
        error
            .to_string()
            .contains("it holds files that are no cache"),
        "{error}"
    );
    let file = store.dir.path().join("file");
    fs::write(&file, "").expect("written");
    let error = store.open(Some(&options(&file))).expect_err("a file");
    assert!(matches!(error, ShardError::Cache { .. }), "{error}");
    let error = store
        .open(Some(&options(Path::new("/proc/nothing"))))
        .expect_err("read-only");
    assert!(matches!(error, ShardError::Cache { .. }), "{error}");
}

#[test]
fn a_damaged_index_is_named() {
    let _guard = environment(&[]);
    let store = Store::new(Payload::I420, 3);
    let path = store.local().join("index.parquet");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("written");
    let error = store.open(None).expect_err("damaged").to_string();
    assert!(error.contains("index.parquet is damaged"), "{error}");
}
