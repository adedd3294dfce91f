//! Shards to batches: worker threads behind an iterator of `Result<Batch>`.
//!
//! ```text
//! tickets ──> workers (read, decompress, crop, mask) ──> finished batches ──> the iterator puts them in order
//!    ^                                                                             │
//!    └─────────────────────── one more for each batch handed out ──────────────────┘
//! ```
//!
//! A ticket is the number of a batch to make. At most [`LoaderOptions::prefetch`] tickets are out at a time, so that many batches exist
//! beside the one in use, and no queue ever blocks a worker: both have room for every ticket. What a batch holds depends on the seed and its
//! number only, never on which worker made it or when.

use crate::mask::{Mask, MaskRule};
use crate::order::{Cursor, Purpose, SampleId, SampleOrder, stream};
use crate::ring::{Buffer, Ring};
use crate::sample::{Augmentation, View, central_view};
use crate::shard::{ClipEntry, ClipReader, ShardError, ShardSet};
use crate::transform::transform;
use crossbeam_channel::{Receiver, Sender, bounded};
use schemas::geometry::{GridError, PatchGrid};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What batches to make, and how.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Clips a batch.
    pub batch_size: usize,
    /// Frames and size of a training clip, and its patches.
    pub grid: PatchGrid,
    /// How masks are drawn.
    pub mask_rule: MaskRule,
    /// Ranges of crops and flips.
    pub augmentation: Augmentation,
    /// Seed of order, crops, flips and masks.
    pub seed: u64,
    /// Worker threads.
    pub threads: usize,
    /// Batches made ahead.
    pub prefetch: usize,
    /// Where to begin.
    pub start: Cursor,
}

/// Why a batch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A shard, or a clip in it, cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The patches do not fit the clip.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// There is nothing to load.
    #[error("{} holds no clips", path.display())]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
    /// A stored clip is shorter than a training clip.
    #[error("the clips in {} have {stored} frames, training wants {wanted}: build shards with --frames {wanted}, or train on {stored}", path.display())]
    TooFewFrames {
        /// Which shard.
        path: PathBuf,
        /// Frames stored.
        stored: usize,
        /// Frames wanted.
        wanted: usize,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// A worker panicked: a bug.
    #[error("a loader thread panicked: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start a loader thread: {0}")]
    Thread(std::io::Error),
}

/// One batch of training clips.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Which samples these are, in order.
    pub samples: Vec<SampleId>,
    /// `[clips, 3, frames, size, size]`, RGB, normalised.
    pub pixels: Buffer,
    /// One mask a clip, all with the same number of visible tokens.
    pub masks: Vec<Mask>,
    /// Class number of each clip.
    pub labels: Vec<Option<i32>>,
    /// Where the next batch begins.
    pub next: Cursor,
    /// How long the caller had to wait for this batch.
    pub wait: Duration,
}

/// What all workers share.
struct Shared {
    data: Arc<ShardSet>,
    options: LoaderOptions,
    buffers: Ring,
}

type Finished = (u64, Result<Batch, LoadError>);

/// An endless iterator over batches. After an error it ends. Dropped, it stops and joins its threads.
pub struct Loader {
    tickets: Option<Sender<u64>>,
    /// The workers' end of the tickets, to take them back.
    waiting: Receiver<u64>,
    finished: Receiver<Finished>,
    /// Batches that came before their turn.
    early: HashMap<u64, Result<Batch, LoadError>>,
    next: u64,
    issued: u64,
    workers: Vec<JoinHandle<()>>,
    failed: bool,
}

impl Loader {
    /// Starts loading from `data`.
    ///
    /// # Errors
    /// When the options make no sense, the data is empty or has too few frames a clip, or a thread cannot be started.
    pub fn new(data: Arc<ShardSet>, options: LoaderOptions) -> Result<Self, LoadError> {
        check(&data, &options)?;
        let (threads, prefetch) = (options.threads, options.prefetch);
        let buffers = Ring::new(options.batch_size * options.grid.clip_values());
        let shared = Arc::new(Shared { data, options, buffers });
        let (tickets, waiting) = bounded(prefetch);
        let (done, finished) = bounded(prefetch);
        let mut loader = Self {
            tickets: Some(tickets),
            waiting,
            finished,
            early: HashMap::new(),
            next: 0,
            issued: 0,
            workers: Vec::with_capacity(threads),
            failed: false,
        };
        for index in 0..threads {
            let (shared, waiting, done) = (Arc::clone(&shared), loader.waiting.clone(), done.clone());
            let worker = std::thread::Builder::new()
                .name(format!("loader-{index}"))
                .spawn(move || work(&shared, &waiting, &done))
                .map_err(LoadError::Thread)?;
            loader.workers.push(worker);
        }
        for _ in 0..prefetch {
            loader.issue();
        }
        Ok(loader)
    }

    /// Hands out one more ticket. There is always room for it.
    fn issue(&mut self) {
        if let Some(tickets) = &self.tickets
            && tickets.send(self.issued).is_ok()
        {
            self.issued += 1;
        }
    }

    fn receive(&mut self) -> Result<Batch, LoadError> {
        let began = Instant::now();
        let result = loop {
            if let Some(result) = self.early.remove(&self.next) {
                break result;
            }
            match self.finished.recv() {
                Ok((number, result)) => drop(self.early.insert(number, result)),
                Err(_) => break Err(LoadError::Panic { message: "all loader threads have ended".to_owned() }),
            }
        };
        let wait = began.elapsed();
        self.next += 1;
        self.issue();
        result.map(|batch| Batch { wait, ..batch })
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
        Some(result)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Workers end when no ticket can come any more. None is blocked: the finished channel has room for every ticket that is out.
        // Tickets that wait are taken back first, so that each worker finishes its batch in hand and no other.
        self.tickets = None;
        while self.waiting.try_recv().is_ok() {}
        for worker in self.workers.drain(..) {
            // A worker catches its own panics.
            let _ = worker.join();
        }
    }
}

fn check(data: &ShardSet, options: &LoaderOptions) -> Result<(), LoadError> {
    let grid = options.grid.validate()?;
    let at_least_one = [("batch size", options.batch_size), ("loader threads", options.threads), ("prefetch", options.prefetch)];
    if let Some((name, _)) = at_least_one.into_iter().find(|&(_, value)| value == 0) {
        return Err(LoadError::Option(format!("{name} is 0; it must be at least 1")));
    }
    if options.mask_rule.visible(grid).is_none() {
        let (ratio, tokens) = (options.mask_rule.ratio, grid.tokens());
        return Err(LoadError::Option(format!("mask ratio {ratio} does not leave some of {tokens} tokens visible and some masked")));
    }
    if data.is_empty() {
        return Err(LoadError::Empty { path: data.dir().to_owned() });
    }
    let wanted = grid.frames;
    for shard in data.shards() {
        if let Some(short) = shard.clips().iter().find(|clip| clip.frames < wanted) {
            return Err(LoadError::TooFewFrames { path: shard.path().to_owned(), stored: short.frames, wanted });
        }
    }
    Ok(())
}

/// A worker's life: tickets in, batches out, until either end is gone.
fn work(shared: &Shared, tickets: &Receiver<u64>, finished: &Sender<Finished>) {
    let order = SampleOrder::new(shared.data.len() as u64, shared.options.seed);
    let mut worker = Worker { reader: ClipReader::default(), order };
    for number in tickets {
        let result = catch_unwind(AssertUnwindSafe(|| worker.batch(shared, number))).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(LoadError::Panic { message })
        });
        if finished.send((number, result)).is_err() {
            return;
        }
    }
}

impl Batch {
    /// A batch without clips yet, with room for `clips` of them in `pixels`.
    fn new(clips: usize, pixels: Buffer, next: Cursor) -> Self {
        Self {
            samples: Vec::with_capacity(clips),
            pixels,
            masks: Vec::with_capacity(clips),
            labels: Vec::with_capacity(clips),
            next,
            wait: Duration::ZERO,
        }
    }

    /// Appends `sample`, seen as `view` says.
    fn push(
        &mut self,
        reader: &mut ClipReader,
        data: &ShardSet,
        sample: SampleId,
        grid: PatchGrid,
        view: impl FnOnce(&ClipEntry) -> View,
        mask: Mask,
    ) -> Result<(), ShardError> {
        let (shard, row) = data.locate(sample.clip as usize);
        let clip = &shard.clips()[row];
        let view = view(clip);
        // Frames after the view's last one need not be decoded.
        let stored = reader.frames(shard, row, view.first_frame + grid.frames)?;
        let place = self.samples.len() * grid.clip_values()..(self.samples.len() + 1) * grid.clip_values();
        transform(stored, clip.size, view, grid.frames, grid.size, &mut self.pixels[place]);
        self.masks.push(mask);
        self.labels.push(clip.label);
        self.samples.push(sample);
        Ok(())
    }
}

/// What a worker reuses from batch to batch.
struct Worker {
    reader: ClipReader,
    order: SampleOrder,
}

impl Worker {
    fn batch(&mut self, shared: &Shared, number: u64) -> Result<Batch, LoadError> {
        let options = &shared.options;
        let grid = options.grid;
        let first = options.start.samples + number * options.batch_size as u64;
        let next = Cursor { samples: first + options.batch_size as u64 };
        let mut batch = Batch::new(options.batch_size, shared.buffers.take(), next);
        for samples in first..next.samples {
            let sample = self.order.sample(Cursor { samples });
            let random = |purpose| stream(purpose, options.seed, sample.epoch, sample.clip);
            let view = |clip: &ClipEntry| options.augmentation.draw(&mut random(Purpose::Augment), clip.frames, grid.frames, clip.size);
            let mask = options.mask_rule.draw(&mut random(Purpose::Mask), grid);
            batch.push(&mut self.reader, &shared.data, sample, grid, view, mask)?;
        }
        Ok(batch)
    }
}

/// Up to `count` clips to look at, evenly spread over the data: the central square of each, and a mask that no epoch of training has.
///
/// # Errors
/// When a clip cannot be read.
pub fn examples(data: &ShardSet, grid: PatchGrid, mask_rule: MaskRule, seed: u64, count: usize) -> Result<Batch, LoadError> {
    let count = count.min(data.len());
    let mut reader = ClipReader::default();
    let mut batch = Batch::new(count, Ring::new(count * grid.clip_values()).take(), Cursor::default());
    for number in 0..count {
        let sample = SampleId { epoch: u64::MAX, clip: ((2 * number + 1) * data.len() / (2 * count)) as u64 };
        let mask = mask_rule.draw(&mut stream(Purpose::Mask, seed, sample.epoch, sample.clip), grid);
        batch.push(&mut reader, data, sample, grid, |clip| central_view(clip.size), mask)?;
    }
    Ok(batch)
}
