//! Sources to batches: worker threads behind an iterator of `Result<Batch>`.
//!
//! ```text
//! order ──> tasks ──> workers: read, decode, transform into their slots of a group ──> finished groups ──> batches in order
//!   ^                                                                                                          │
//!   └──────────────────────── one more group when the last batch of one was handed out ────────────────────────┘
//! ```
//!
//! A group is what is read at a time for one batch, or for as many batches as clips have repeats ([`crate::sampling::order`]). A task is one clip of a group: whoever does
//! it writes all repeats of this clip, each into its slot of its batch. The last worker that lets go of a group sends it on.
//!
//! A bounded number of groups is on the way, by [`LoaderOptions::prefetch`] and [`LoaderOptions::memory_bytes`]. Both channels have room for all that
//! can be in them, so no worker ever waits to send, and nothing can deadlock: the user waits for workers, workers for tasks only. What a batch holds depends on
//! the seed and its number, never on which worker made it or when.

pub mod batch;
pub mod buffers;
mod options;

use crate::loader::batch::{Batch, BatchFormat, Skipped};
use crate::loader::buffers::{BatchMut, Buffer, MemoryKind, Ring};
use crate::sampling::mask::{MaskRule, MaskScratch};
use crate::sampling::order::{Cursor, Order, Purpose, SampleId};
use crate::sampling::sample::{View, central_view};
use crate::source::{ClipBytes, ClipInfo, SourceError, SourceReader, WeightedSource};
use crate::stats::{Consumption, Counters, Stage, StageClock};
use crate::transform::Transform;
use crate::transform::augment::Augmenter;
use crate::worker::panic_message;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};
use schemas::geometry::PatchGrid;
use schemas::report::LoaderFigures;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use options::check;
pub use options::{DEFAULT_MAX_BAD, DEFAULT_MEMORY_BYTES, LoadError, LoaderOptions, Pass, Rank};

/// How much more the loader's threads yield to others than usual threads do (`nice`): they work ahead, and whoever computes has to be done now.
const NICENESS: i32 = 5;

/// Buffers beyond those on the way: the batch in use, and those that a device is still copying from.
const SPARE_BUFFERS: usize = 3;

/// How long one wait for a batch lasts before it is seen whether the user wants to stop.
const LISTEN_EVERY: Duration = Duration::from_millis(50);

/// What all workers share.
struct Shared {
    sources: Arc<[WeightedSource]>,
    options: LoaderOptions,
    counters: Counters,
    /// The loader is going.
    stop: Arc<AtomicBool>,
}

/// As many batches as clips have repeats, on the way.
struct ReadGroup {
    number: u64,
    /// Repeat of the first of `batches`: others were handed out before the loader began.
    first_repeat: usize,
    batches: Vec<BatchMut>,
    /// What became of each clip, by its slot.
    outcomes: Vec<Mutex<Outcome>>,
}

/// What became of a clip.
enum Outcome {
    /// Nothing yet.
    Open,
    /// All repeats are in their slots.
    Done(SampleId, Option<i32>),
    /// It cannot be read.
    Failed(SampleId, LoadError),
}

/// One clip to load.
struct Task {
    group: Arc<ReadGroup>,
    slot: usize,
    sample: SampleId,
}

/// An iterator over batches: endless, or, with [`Pass::Once`], until every clip was seen. After an error it ends. Dropped, it stops and joins its threads.
pub struct Loader {
    shared: Arc<Shared>,
    order: Order,
    ring: Ring,
    tasks: Option<Sender<Task>>,
    /// The workers' end of the tasks, to take them back.
    waiting: Receiver<Task>,
    finished: Receiver<ReadGroup>,
    /// Blocks that came before their turn.
    early: HashMap<u64, ReadGroup>,
    /// Batches of the group in hand.
    ready: VecDeque<Batch>,
    next_block: u64,
    issued_blocks: u64,
    bad: HashSet<(u32, u64)>,
    /// Clips that failed since the last one that did not.
    bad_in_a_row: usize,
    workers: Vec<JoinHandle<()>>,
    failed: bool,
    consumption: Consumption,
}

impl Loader {
    /// Starts loading from `sources`, mixed by their weights.
    ///
    /// # Errors
    /// When the options make no sense, a data set is empty or has too few frames a clip, or a thread cannot be started.
    pub fn new(sources: Arc<[WeightedSource]>, options: LoaderOptions) -> Result<Self, LoadError> {
        let groups = check(&sources, &options)?;
        let slots = options.batch_size / options.rank.of;
        let sets: Vec<(u64, f64)> = sources.iter().map(|set| (set.len() as u64, set.weight)).collect();
        let order = Order::new(&sets, options.seed);
        let ring = Ring::new(options.format.layout(slots), groups * options.repeat + SPARE_BUFFERS, options.memory.clone());
        let (tasks, waiting) = bounded(groups * slots);
        let (done, finished) = bounded(groups);
        let first_block = options.start.samples / (options.batch_size * options.repeat) as u64;
        let threads = options.threads;
        let shared = Arc::new(Shared { sources, options, counters: Counters::default(), stop: Arc::default() });
        let mut loader = Self {
            shared: Arc::clone(&shared),
            order,
            ring,
            tasks: Some(tasks),
            waiting,
            finished,
            early: HashMap::new(),
            ready: VecDeque::new(),
            next_block: first_block,
            issued_blocks: first_block,
            bad: HashSet::new(),
            bad_in_a_row: 0,
            workers: Vec::with_capacity(threads),
            failed: false,
            consumption: Consumption::new(),
        };
        for index in 0..threads {
            let (shared, waiting, done) = (Arc::clone(&shared), loader.waiting.clone(), done.clone());
            let worker = std::thread::Builder::new()
                .name(format!("loader-{index}"))
                .spawn(move || work(&shared, &waiting, &done))
                .map_err(LoadError::Thread)?;
            loader.workers.push(worker);
        }
        for _ in 0..groups {
            loader.issue()?;
        }
        Ok(loader)
    }

    /// What was measured so far.
    pub fn figures(&self) -> LoaderFigures {
        self.consumption.figures(&self.shared.counters, self.shared.options.threads)
    }

    /// Measures anew from now on, as after warming up.
    pub fn restart_figures(&mut self) {
        self.consumption.restart(&self.shared.counters);
    }

    /// Clips that are loaded in all; none where it goes on and on.
    fn clips(&self) -> Option<u64> {
        let all = || self.shared.sources.iter().map(|set| set.len() as u64).sum();
        matches!(self.shared.options.pass, Pass::Once(_)).then(all)
    }

    /// The sample that is draw number `draw`.
    fn draw(&mut self, draw: u64) -> SampleId {
        let sources = &self.shared.sources;
        match self.shared.options.pass {
            Pass::Training => {
                let sample = self.order.draw(draw);
                SampleId { clip: sources[sample.set as usize].number(sample.clip as usize) as u64, ..sample }
            }
            Pass::Once(_) => nth_clip(sources, draw as usize).1,
        }
    }

    /// Hands out the tasks of one more group, if there is one. There is always room for them.
    fn issue(&mut self) -> Result<(), LoadError> {
        let options = &self.shared.options;
        let Rank { number: rank, of: ranks } = options.rank;
        let block_samples = (options.batch_size * options.repeat) as u64;
        let number = self.issued_blocks;
        let left = self.clips().map_or(u64::MAX, |clips| clips.saturating_sub(number * options.batch_size as u64));
        let slots = (options.batch_size / ranks).min(usize::try_from(left).unwrap_or(usize::MAX));
        if slots == 0 {
            return Ok(());
        }
        let before = options.start.samples.saturating_sub(number * block_samples) as usize;
        let first_repeat = before / options.batch_size;
        let batches = (first_repeat..options.repeat).map(|_| self.ring.take()).collect::<Result<_, _>>().map_err(LoadError::NoMemory)?;
        let outcomes = (0..slots).map(|_| Mutex::new(Outcome::Open)).collect();
        let group = Arc::new(ReadGroup { number, first_repeat, batches, outcomes });
        let first_draw = number * options.batch_size as u64 + (rank * slots) as u64;
        // The last task takes the group itself along: were one left here, it could be the last to be let go of.
        for (slot, group) in std::iter::repeat_n(group, slots).enumerate() {
            let sample = self.draw(first_draw + slot as u64);
            self.shared.sources[sample.set as usize].source.fetch(sample.clip as usize);
            if let Some(tasks) = &self.tasks {
                // The workers live as long as this channel.
                let _ = tasks.send(Task { group, slot, sample });
            }
        }
        self.issued_blocks += 1;
        Ok(())
    }

    /// The next batch; none after the last.
    fn receive(&mut self) -> Result<Option<Batch>, LoadError> {
        let began = Instant::now();
        let was_ready = self.ready.len() + (self.early.len() + self.finished.len()) * self.shared.options.repeat;
        while self.ready.is_empty() {
            if self.next_block == self.issued_blocks {
                return Ok(None);
            }
            let group = loop {
                if let Some(group) = self.early.remove(&self.next_block) {
                    break group;
                }
                match self.finished.recv_timeout(LISTEN_EVERY) {
                    Ok(group) => drop(self.early.insert(group.number, group)),
                    Err(RecvTimeoutError::Timeout) if self.shared.options.interrupt.load(Ordering::SeqCst) => {
                        return Err(LoadError::Interrupted);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(LoadError::Panic { message: "all loader threads have ended".to_owned() });
                    }
                }
            };
            self.next_block += 1;
            self.unpack(group)?;
            if self.ready.is_empty() {
                self.issue()?;
            }
        }
        let wait = began.elapsed();
        let batch = self.ready.pop_front().expect("it is not empty");
        if self.ready.is_empty() {
            self.issue()?;
        }
        self.consumption.batch(
            &self.shared.counters,
            wait,
            batch.len(),
            self.shared.options.format.grid.frames,
            batch.skipped.len(),
            was_ready,
        );
        Ok(Some(Batch { wait, ..batch }))
    }

    /// Makes the batches of a group ready, without the clips that failed.
    fn unpack(&mut self, group: ReadGroup) -> Result<(), LoadError> {
        let options = &self.shared.options;
        let (mut samples, mut labels, mut skipped, mut gaps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let slots = group.outcomes.len();
        for (slot, outcome) in group.outcomes.into_iter().enumerate() {
            match outcome.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Outcome::Done(sample, label) => {
                    self.bad_in_a_row = 0;
                    samples.push(sample);
                    labels.push(label);
                }
                Outcome::Failed(sample, LoadError::Source(error)) if error.is_of_one_clip() => {
                    self.bad_in_a_row += 1;
                    let clips = self.shared.sources.iter().map(WeightedSource::len).sum();
                    let is_new = self.bad.insert((sample.set, sample.clip));
                    if self.bad_in_a_row >= clips {
                        return Err(LoadError::AllBad { clips, last: Box::new(error) });
                    }
                    if self.bad.len() > options.max_bad {
                        return Err(LoadError::TooManyBad { limit: options.max_bad, last: Box::new(error) });
                    }
                    gaps.push(slot);
                    skipped.push(Skipped { sample, reason: error.to_string(), is_new });
                }
                Outcome::Failed(_, error) => return Err(error),
                Outcome::Open => return Err(LoadError::Panic { message: "a loader thread has left a clip undone".to_owned() }),
            }
        }
        let block_start = group.number * (options.batch_size * options.repeat) as u64;
        for (repeat, filling) in (group.first_repeat..).zip(group.batches) {
            let mut buffer: Buffer = filling.finish();
            buffer.truncate(slots);
            gaps.iter().rev().for_each(|&slot| buffer.remove(slot));
            if samples.is_empty() {
                continue;
            }
            let repeated = |sample: &SampleId| SampleId { repeat: repeat as u32, ..*sample };
            self.ready.push_back(Batch {
                format: options.format,
                samples: samples.iter().map(repeated).collect(),
                labels: labels.clone(),
                // They are told once.
                skipped: std::mem::take(&mut skipped),
                buffer,
                next: Cursor { samples: block_start + ((repeat + 1) * options.batch_size) as u64 },
                wait: Duration::ZERO,
            });
        }
        Ok(())
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
        // Workers end when no task can come any more. None is blocked: the finished channel has room for every group that is out. Tasks that wait are taken back
        // first, so that each worker finishes its clip in hand and no other.
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tasks = None;
        while self.waiting.try_recv().is_ok() {}
        for worker in self.workers.drain(..) {
            // A worker catches its own panics.
            let _ = worker.join();
        }
    }
}

/// What a worker uses again from clip to clip.
struct Worker {
    reader: SourceReader,
    transform: Transform,
    augmenter: Augmenter,
    scratch: MaskScratch,
    views: Vec<View>,
    starts: Vec<usize>,
}

impl Worker {
    fn new(stop: &Arc<AtomicBool>) -> Self {
        Self {
            reader: SourceReader::new(Arc::clone(stop)),
            transform: Transform::default(),
            augmenter: Augmenter::default(),
            scratch: MaskScratch::default(),
            views: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// Reads a clip and writes it, as each of `views` says, to the slots of `batches`; `sample` is the first of as many repeats.
    fn load(
        &mut self,
        source: &WeightedSource,
        options: &LoaderOptions,
        sample: SampleId,
        slot: usize,
        batches: &[BatchMut],
        clock: &mut StageClock,
    ) -> Result<(ClipInfo, ClipBytes), SourceError> {
        let format = &options.format;
        self.starts.clear();
        self.starts.extend(self.views.iter().map(|view| view.first_frame));
        let info = source.clip(sample.clip as usize);
        let (loaded, bytes) = self.reader.load(&source.source, sample.clip as usize, format.grid.frames, &self.starts, clock)?;
        for (window, (filling, &view)) in batches.iter().zip(&self.views).enumerate() {
            let (frames, first_frame) = loaded.window(window, view.first_frame);
            let [tokens, pixels, target] = filling.slot(slot).expect("each slot is filled once");
            let tokens = BatchFormat::tokens(tokens);
            let sample = SampleId { repeat: sample.repeat + window as u32, ..sample };
            format.draw_mask(sample, options.seed, &mut self.scratch, tokens);
            let view = View { first_frame, ..view };
            if options.policy.is_plain() || options.pass != Pass::Training {
                format.write(&mut self.transform, frames, info.size, view, tokens, pixels, target);
            } else {
                let sample = (sample, options.seed);
                format.write_look(options.policy, &mut self.augmenter, sample, &mut self.transform, frames, info.size, view, pixels);
            }
        }
        clock.lap(Stage::Transform);
        Ok((info, bytes))
    }

    /// Does a task: draws the views of the clip's repeats, and loads them.
    fn work(&mut self, shared: &Shared, task: &Task) -> Result<Option<i32>, LoadError> {
        let options = &shared.options;
        let source = &shared.sources[task.sample.set as usize];
        let mut clock = StageClock::default();
        let cpu_before = thread_cpu();
        let first = SampleId { repeat: task.group.first_repeat as u32, ..task.sample };
        let info = source.clip(task.sample.clip as usize);
        let frames = options.format.grid.frames;
        let repeats = (first.repeat..).take(task.group.batches.len());
        self.views.clear();
        self.views.extend(repeats.map(|repeat| match options.pass {
            Pass::Training => {
                let mut rng = SampleId { repeat, ..first }.stream(Purpose::Augment, options.seed);
                options.augmentation.draw(&mut rng, info.frames, frames, info.size)
            }
            Pass::Once(views) => views.view(repeat as usize, info.frames, frames, info.size),
        }));
        let (info, bytes) = self.load(source, options, first, task.slot, &task.group.batches, &mut clock)?;
        shared.counters.clip(&clock, thread_cpu() - cpu_before, bytes.stored, bytes.decoded);
        Ok(info.label)
    }
}

/// A worker's life: tasks in, groups out, until either end is gone.
fn work(shared: &Shared, tasks: &Receiver<Task>, finished: &Sender<ReadGroup>) {
    // A wish: where it is not granted, all is as fast, only not as considerate.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let mut worker = Worker::new(&shared.stop);
    let mut free_since = Instant::now();
    for task in tasks {
        shared.counters.idle(free_since.elapsed());
        let result = catch_unwind(AssertUnwindSafe(|| worker.work(shared, &task))).unwrap_or_else(|panic| {
            // What it was doing is undone: begin anew.
            worker = Worker::new(&shared.stop);
            Err(LoadError::Panic { message: panic_message(&*panic) })
        });
        let Task { group, slot, sample } = task;
        let outcome = match result {
            Ok(label) => Outcome::Done(sample, label),
            Err(error) => Outcome::Failed(sample, error),
        };
        *group.outcomes[slot].lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        // The last one to let go of the group has it for itself.
        if let Some(group) = Arc::into_inner(group)
            && finished.send(group).is_err()
        {
            return;
        }
        free_since = Instant::now();
    }
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether batches can be made so, without making any.
///
/// # Errors
/// As [`Loader::new`].
pub fn check_options(sources: &[WeightedSource], options: &LoaderOptions) -> Result<(), LoadError> {
    check(sources, options).map(|_| ())
}

/// Up to `count` clips to look at, evenly spread over the data, whole: the central square of each, and a mask that no epoch of training has, all of whose masked
/// tokens are predicted. In place of one that cannot be read comes the next that can.
///
/// # Errors
/// When no clip can be read, or none of all with what has gone wrong.
pub fn examples(sources: &[WeightedSource], grid: PatchGrid, mask_rule: MaskRule, seed: u64, count: usize) -> Result<Batch, LoadError> {
    let all: usize = sources.iter().map(WeightedSource::len).sum();
    let count = count.min(all);
    let mask_rule = MaskRule { decoder_keep: 1.0, ..mask_rule };
    let options = LoaderOptions { seed, ..LoaderOptions::new(count, grid, mask_rule) };
    check(sources, &options)?;
    let mut worker = Worker::new(&Arc::default());
    let filling = Ring::new(options.format.layout(count), 1, MemoryKind::Host).take().map_err(LoadError::NoMemory)?;
    let (mut samples, mut labels) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for slot in 0..count {
        let mut bad = 0;
        let (sample, label) = loop {
            let (source, sample) = nth_clip(sources, ((2 * slot + 1) * all / (2 * count) + bad) % all);
            worker.views.clear();
            worker.views.push(central_view(source.clip(sample.clip as usize).size));
            match worker.load(source, &options, sample, slot, std::slice::from_ref(&filling), &mut StageClock::default()) {
                Ok((info, _)) => break (sample, info.label),
                Err(error) if error.is_of_one_clip() && bad + 1 < all => bad += 1,
                Err(error) => return Err(error.into()),
            }
        };
        samples.push(sample);
        labels.push(label);
    }
    let (buffer, format) = (filling.finish(), options.format);
    Ok(Batch { format, samples, labels, skipped: Vec::new(), buffer, next: Cursor::default(), wait: Duration::ZERO })
}

/// Clip `clip` of a source, to look at under several masks: whole, the central square of its frames from `first_frame` on. Gives a batch of this one clip for each of
/// `rules`, all of whose masked tokens are predicted.
///
/// # Errors
/// When the clip cannot be read, or a rule leaves no token visible or none masked.
///
/// # Panics
/// When there is no such clip, or it has too few frames after `first_frame`.
pub fn example(
    source: &WeightedSource,
    clip: usize,
    first_frame: usize,
    grid: PatchGrid,
    rules: &[MaskRule],
    seed: u64,
) -> Result<Vec<Batch>, LoadError> {
    let mut worker = Worker::new(&Arc::default());
    let sample = SampleId { set: 0, epoch: u64::MAX, clip: clip as u64, repeat: 0 };
    worker.views.push(View { first_frame, ..central_view(source.clip(clip).size) });
    let under = |&rule: &MaskRule| {
        let options = LoaderOptions { seed, ..LoaderOptions::new(1, grid, MaskRule { decoder_keep: 1.0, ..rule }) };
        check(std::slice::from_ref(source), &options)?;
        let filling = Ring::new(options.format.layout(1), 1, MemoryKind::Host).take().map_err(LoadError::NoMemory)?;
        let filled = std::slice::from_ref(&filling);
        let (info, _) = worker.load(source, &options, sample, 0, filled, &mut StageClock::default())?;
        let (buffer, format) = (filling.finish(), options.format);
        let (samples, labels) = (vec![sample], vec![info.label]);
        Ok(Batch { format, samples, labels, skipped: Vec::new(), buffer, next: Cursor::default(), wait: Duration::ZERO })
    };
    rules.iter().map(under).collect()
}

/// Clip `index` of all data sets one after the other, as no epoch of training has it.
fn nth_clip(sources: &[WeightedSource], mut index: usize) -> (&WeightedSource, SampleId) {
    for (source, set) in sources.iter().zip(0..) {
        if index < source.len() {
            return (source, SampleId { set, epoch: u64::MAX, clip: source.number(index) as u64, repeat: 0 });
        }
        index -= source.len();
    }
    panic!("there are not so many clips")
}
