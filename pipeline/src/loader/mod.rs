//! Sources to batches: worker threads behind an iterator of `Result<Batch>`.
//!
//! ```text
//! order ──> tasks ──> workers: read, decode, transform ──> finished groups ──> batches in order
//!   ^                 into their slots of a group                                   │
//!   └────────── one more group when the last batch of a group is handed out ────────┘
//! ```
//!
//! A group is what is read at a time for one batch, or for as many batches as clips have repeats
//! ([`crate::sampling::order`]). A task is one clip of a group: its worker writes all repeats of
//! the clip, each into its slot of its batch. The last worker to release a group sends it on.
//!
//! [`LoaderOptions::prefetch`] and [`LoaderOptions::memory_bytes`] bound the number of groups in
//! flight. Both channels have room for all that can be in them, so no worker ever waits to send,
//! and nothing can deadlock: the user waits for workers, workers for tasks only. What a batch holds
//! depends on the seed and its number, never on which worker made it or when.
//!
//! - [`batch`]: what a batch holds. [`buffers`]: the memory of batches. `options`: settings and
//!   their checks. `upcoming`: which clips come next. `worker`: the body of a thread. `examples`:
//!   single batches without threads.

pub mod batch;
pub mod buffers;
mod examples;
mod options;
mod upcoming;
mod worker;

use self::batch::{Batch, Skipped};
use self::buffers::{BatchMut, Buffer, Ring};
use crate::sampling::order::{Cursor, SampleId};
use crate::shard::ShardError;
use crate::simd;
use crate::source::{SourceError, WeightedSource};
use crate::stats::{Consumption, Counters, Delivered};
use crate::store::{self, StoreError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use schemas::report::{LoaderFigures, StoreFigures};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use examples::{example, examples};
use options::check;
pub use options::{DEFAULT_MAX_BAD, DEFAULT_MEMORY_BYTES, LoadError, LoaderOptions, Pass, Rank};
use upcoming::Upcoming;

/// Buffers beyond those in flight: the batch in use, and those that a device is still copying from.
const SPARE_BUFFERS: usize = 3;

/// How long one wait for a batch lasts before [`LoaderOptions::interrupt`] is read again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What all workers share.
struct Shared {
    sources: Arc<[WeightedSource]>,
    options: LoaderOptions,
    upcoming: Mutex<Upcoming>,
    counters: Counters,
    /// Set when the loader is dropped.
    stop: Arc<AtomicBool>,
}

impl Shared {
    fn upcoming(&self) -> MutexGuard<'_, Upcoming> {
        // Draws depend on their number alone.
        self.upcoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group in flight: as many batches as clips have repeats.
struct ReadGroup {
    number: u64,
    /// Repeat of the first of `batches`: earlier ones were handed out before the loader began.
    first_repeat: usize,
    batches: Vec<BatchMut>,
    /// What became of each clip, by its slot.
    outcomes: Vec<Mutex<Outcome>>,
}

/// What became of a clip.
enum Outcome {
    /// Nothing yet.
    Open,
    /// All repeats are in their slots. With the clip's class.
    Done(SampleId, Option<i32>),
    /// The clip cannot be read.
    Failed(SampleId, LoadError),
}

/// One clip to load.
struct Task {
    group: Arc<ReadGroup>,
    slot: usize,
    sample: SampleId,
}

/// An iterator over batches: endless, or, with [`Pass::Once`], until every clip was loaded. It ends
/// after an error. Dropping it stops and joins its threads.
///
/// ```
/// use pipeline::loader::{Loader, LoaderOptions};
/// use pipeline::sampling::sample::Views;
/// # use pipeline::source::{Source, WeightedSource};
/// # use schemas::geometry::PatchGrid;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = pipeline::shard::synthetic::write(dir.path(), 10)?;
/// # let source = WeightedSource::from(Source::Shards(data));
/// # let grid = PatchGrid { frames: 8, size: 32, tubelet: 2, patch: 8 };
/// // One pass over all clips, whole and unmasked, in batches of 4.
/// let options = LoaderOptions { threads: 2, ..LoaderOptions::tokens(4, grid).once(Views::ONE) };
/// let mut loader = Loader::new([source].into(), options)?;
/// let mut clips = Vec::new();
/// for batch in &mut loader {
///     clips.extend(batch?.samples.iter().map(|sample| sample.clip));
/// }
/// assert_eq!(clips, (0..10).collect::<Vec<_>>());
/// println!("{:.0} clips/s", loader.figures().clips_per_second);
/// # Ok(()) }
/// ```
pub struct Loader {
    shared: Arc<Shared>,
    ring: Ring,
    tasks: Option<Sender<Task>>,
    /// The workers' end of the tasks, to take them back.
    waiting: Receiver<Task>,
    finished: Receiver<ReadGroup>,
    /// Groups that were finished before their turn.
    early: HashMap<u64, ReadGroup>,
    /// Batches of the group in hand.
    ready: VecDeque<Batch>,
    next_group: u64,
    issued_groups: u64,
    bad: HashSet<(u32, u64)>,
    /// Clips that failed since the last one that did not.
    bad_in_a_row: usize,
    workers: Vec<JoinHandle<()>>,
    failed: bool,
    /// Since when the user waits for the next batch, and how many were ready then.
    asked: Option<(Instant, usize)>,
    consumption: Consumption,
    /// Traffic with stores before what is measured.
    store_before: StoreFigures,
}

impl Loader {
    /// Starts loading from `sources`, mixed by their weights.
    ///
    /// # Errors
    /// When an option is invalid, a data set is empty or its clips have too few frames, a thread
    /// cannot be started, or `INSTRUCTION_SET` is invalid.
    pub fn new(sources: Arc<[WeightedSource]>, options: LoaderOptions) -> Result<Self, LoadError> {
        let groups = check(&sources, &options)?;
        simd::chosen()?;
        let slots = options.batch_size / options.rank.of;
        let layout = options.format.layout(slots);
        let ring = Ring::new(
            layout,
            groups * options.repeat + SPARE_BUFFERS,
            options.memory.clone(),
        );
        let (tasks, waiting) = bounded(groups * slots);
        let (done, finished) = bounded(groups);
        let first_group = options.start.samples / (options.batch_size * options.repeat) as u64;
        let threads = options.threads;
        let upcoming = Upcoming::new(&sources, options.seed, first_group);
        let shared = Arc::new(Shared {
            upcoming: Mutex::new(upcoming),
            sources,
            options,
            counters: Counters::default(),
            stop: Arc::default(),
        });
        let mut loader = Self {
            shared: Arc::clone(&shared),
            ring,
            tasks: Some(tasks),
            waiting,
            finished,
            early: HashMap::new(),
            ready: VecDeque::new(),
            next_group: first_group,
            issued_groups: first_group,
            bad: HashSet::new(),
            bad_in_a_row: 0,
            workers: Vec::with_capacity(threads),
            failed: false,
            asked: None,
            consumption: Consumption::new(),
            store_before: store_figures(&shared.sources).unwrap_or_default(),
        };
        for index in 0..threads {
            let shared = Arc::clone(&shared);
            let waiting = loader.waiting.clone();
            let done = done.clone();
            let worker = std::thread::Builder::new()
                .name(format!("loader-{index}"))
                .spawn(move || worker::run(&shared, &waiting, &done))
                .map_err(LoadError::Thread)?;
            loader.workers.push(worker);
        }
        for _ in 0..groups {
            loader.issue()?;
            let mut upcoming = shared.upcoming();
            upcoming.announce_ahead(&shared.sources, &shared.options);
        }
        Ok(loader)
    }

    /// What was measured up to now.
    pub fn figures(&self) -> LoaderFigures {
        let shared = &self.shared;
        let figures = self
            .consumption
            .figures(&shared.counters, shared.options.threads);
        let store = store_figures(&shared.sources).map(|now| {
            let before = &self.store_before;
            let (hits, misses) = (now.hits - before.hits, now.misses - before.misses);
            StoreFigures {
                requests: now.requests - before.requests,
                retries: now.retries - before.retries,
                bytes: now.bytes - before.bytes,
                hits,
                misses,
                repeated: now.repeated - before.repeated,
                is_cache_full: now.is_cache_full,
                hit_rate: hits as f64 / (hits + misses).max(1) as f64,
            }
        });
        LoaderFigures { store, ..figures }
    }

    /// Resets what is measured, as after a warm-up.
    pub fn restart_figures(&mut self) {
        self.consumption.restart(&self.shared.counters);
        self.store_before = store_figures(&self.shared.sources).unwrap_or_default();
    }

    /// Sends the tasks of one more group, if there is one. The channel always has room for them.
    fn issue(&mut self) -> Result<(), LoadError> {
        let shared = &self.shared;
        let samples = shared.upcoming().take(&shared.sources, &shared.options);
        // None are left after the last group of a single pass.
        if samples.is_empty() {
            return Ok(());
        }
        let slots = samples.len();
        let number = self.issued_groups;
        let first_repeat = shared.options.first_repeat(number);
        let batches = (first_repeat..shared.options.repeat).map(|_| self.ring.take());
        let batches = batches
            .collect::<Result<_, _>>()
            .map_err(LoadError::NoMemory)?;
        let outcomes = (0..slots).map(|_| Mutex::new(Outcome::Open)).collect();
        let group = Arc::new(ReadGroup {
            number,
            first_repeat,
            batches,
            outcomes,
        });
        // The last task takes the group itself: a reference kept here could be the last to go.
        let groups = std::iter::repeat_n(group, slots);
        for ((slot, sample), group) in samples.into_iter().enumerate().zip(groups) {
            if let Some(tasks) = &self.tasks {
                // The workers live as long as this channel.
                let _ = tasks.send(Task {
                    group,
                    slot,
                    sample,
                });
            }
        }
        self.issued_groups += 1;
        Ok(())
    }

    /// Waits for the next batch, for `duration` at most. Returns whether the iterator has an answer
    /// now; it need not be a batch.
    ///
    /// The time counts as waiting for the next batch, as if the iterator itself had been asked.
    pub fn wait(&mut self, duration: Duration) -> bool {
        self.ask();
        let deadline = Instant::now() + duration;
        loop {
            let is_end = self.failed || self.next_group == self.issued_groups;
            if is_end || !self.ready.is_empty() || self.early.contains_key(&self.next_group) {
                return true;
            }
            match self.finished.recv_deadline(deadline) {
                Ok(group) => drop(self.early.insert(group.number, group)),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// Since when the user waits for the next batch, and how many were ready then.
    fn ask(&mut self) -> (Instant, usize) {
        let groups_ready = self.early.len() + self.finished.len();
        let ready = self.ready.len() + groups_ready * self.shared.options.repeat;
        *self.asked.get_or_insert_with(|| (Instant::now(), ready))
    }

    /// The next batch; none after the last.
    fn receive(&mut self) -> Result<Option<Batch>, LoadError> {
        let (began, ready) = self.ask();
        while self.ready.is_empty() {
            if self.next_group == self.issued_groups {
                return Ok(None);
            }
            let group = self.wait_for_group()?;
            self.next_group += 1;
            self.unpack(group)?;
            if self.ready.is_empty() {
                self.issue()?;
            }
        }
        let wait = began.elapsed();
        self.asked = None;
        let batch = self.ready.pop_front().expect("it is not empty");
        if self.ready.is_empty() {
            self.issue()?;
        }
        let delivered = Delivered {
            wait,
            clips: batch.len(),
            frames: self.shared.options.format.grid.frames,
            skipped: batch.skipped.len(),
            ready,
        };
        self.consumption.batch(&self.shared.counters, delivered);
        Ok(Some(Batch { wait, ..batch }))
    }

    /// Waits until group `self.next_group` is finished.
    fn wait_for_group(&mut self) -> Result<ReadGroup, LoadError> {
        loop {
            if let Some(group) = self.early.remove(&self.next_group) {
                return Ok(group);
            }
            match self.finished.recv_timeout(POLL_INTERVAL) {
                Ok(group) => drop(self.early.insert(group.number, group)),
                Err(RecvTimeoutError::Timeout)
                    if self.shared.options.interrupt.load(Ordering::SeqCst) =>
                {
                    return Err(LoadError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(LoadError::Panic {
                        message: "all loader threads have ended".to_owned(),
                    });
                }
            }
        }
    }

    /// Makes the batches of a group ready, without the clips that failed.
    fn unpack(&mut self, group: ReadGroup) -> Result<(), LoadError> {
        let mut samples = Vec::new();
        let mut labels = Vec::new();
        let mut skipped = Vec::new();
        let mut gaps = Vec::new();
        let slots = group.outcomes.len();
        for (slot, outcome) in group.outcomes.into_iter().enumerate() {
            match outcome.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Outcome::Done(sample, label) => {
                    self.bad_in_a_row = 0;
                    samples.push(sample);
                    labels.push(label);
                }
                Outcome::Failed(sample, error) => {
                    gaps.push(slot);
                    skipped.push(self.skip(sample, error)?);
                }
                Outcome::Open => {
                    return Err(LoadError::Panic {
                        message: "a loader thread has not finished a clip".to_owned(),
                    });
                }
            }
        }
        let options = &self.shared.options;
        let group_start = group.number * (options.batch_size * options.repeat) as u64;
        for (repeat, batch) in (group.first_repeat..).zip(group.batches) {
            let mut buffer: Buffer = batch.finish();
            buffer.truncate(slots);
            gaps.iter().rev().for_each(|&slot| buffer.remove(slot));
            if samples.is_empty() && !options.keeps_empty {
                continue;
            }
            let repeated = |sample: &SampleId| SampleId {
                repeat: repeat as u32,
                ..*sample
            };
            self.ready.push_back(Batch {
                format: options.format,
                samples: samples.iter().map(repeated).collect(),
                labels: labels.clone(),
                gaps: gaps.clone(),
                // The first batch of the group reports them.
                skipped: std::mem::take(&mut skipped),
                buffer,
                next: Cursor {
                    samples: group_start + ((repeat + 1) * options.batch_size) as u64,
                },
                wait: Duration::ZERO,
            });
        }
        Ok(())
    }

    /// Counts a clip that cannot be read; an error where loading must not go on.
    fn skip(&mut self, sample: SampleId, error: LoadError) -> Result<Skipped, LoadError> {
        let error = match error {
            LoadError::Source(error) if error.is_of_one_clip() => error,
            LoadError::Source(SourceError::Shard(ShardError::Store(StoreError::Interrupted))) => {
                return Err(LoadError::Interrupted);
            }
            other => return Err(other),
        };
        self.bad_in_a_row += 1;
        let clips = self.shared.sources.iter().map(WeightedSource::len).sum();
        let is_new = self.bad.insert((sample.set, sample.clip));
        if self.bad_in_a_row >= clips {
            return Err(LoadError::AllBad {
                clips,
                last: Box::new(error),
            });
        }
        let limit = self.shared.options.max_bad;
        if self.bad.len() > limit {
            return Err(LoadError::TooManyBad {
                limit,
                last: Box::new(error),
            });
        }
        Ok(Skipped {
            sample,
            reason: error.to_string(),
            is_new,
        })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.receive();
        self.failed = result.is_err();
        result.transpose()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Workers end when no more task can come. None is blocked: the finished channel has room
        // for every group in flight. Waiting tasks are taken back first, so that each worker
        // finishes its clip in hand and no other.
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tasks = None;
        while self.waiting.try_recv().is_ok() {}
        for worker in self.workers.drain(..) {
            // A worker catches its own panics.
            let _ = worker.join();
        }
    }
}

/// Checks that batches can be made with these options, without making any.
///
/// # Errors
/// As [`Loader::new`].
pub fn check_options(sources: &[WeightedSource], options: &LoaderOptions) -> Result<(), LoadError> {
    check(sources, options).map(|_| ())
}

/// Traffic with stores up to now; none where all of the data is local.
fn store_figures(sources: &[WeightedSource]) -> Option<StoreFigures> {
    let counts = sources.iter();
    let counts = counts.filter_map(|set| set.source.remote_counts());
    let traffic = store::traffic();
    let none = StoreFigures {
        requests: traffic.requests,
        retries: traffic.retries,
        bytes: traffic.bytes_read,
        ..StoreFigures::default()
    };
    counts.fold(None, |sum, counts| {
        let sum = sum.unwrap_or(none);
        Some(StoreFigures {
            hits: sum.hits + counts.hits,
            misses: sum.misses + counts.misses,
            repeated: sum.repeated + counts.repeated,
            is_cache_full: sum.is_cache_full || counts.is_cache_full,
            ..sum
        })
    })
}
