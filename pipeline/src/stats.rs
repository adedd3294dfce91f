//! A loader's counters: where its threads spend their time, and how long its user waits.

use schemas::report::{LoaderFigures, LoaderLimit, StageFigures, WaitFigures};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a loader thread does with a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits for its bytes from a store, and keeps them in the cache.
    Fetch,
    /// Gets its bytes: maps, decompresses, checks the hash.
    Read,
    /// Decodes them to frames.
    Decode,
    /// Crops, resizes, converts, augments, and draws the mask.
    Transform,
}

const STAGES: usize = 4;

/// A thread's stopwatch: each lap is charged to a stage.
#[derive(Debug)]
pub struct StageClock {
    last: Instant,
    busy: [Duration; STAGES],
}

impl Default for StageClock {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            busy: [Duration::ZERO; STAGES],
        }
    }
}

impl StageClock {
    /// Charges the time since the last lap, or the start, to `stage`.
    pub fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.busy[stage as usize] += now - self.last;
        self.last = now;
    }
}

/// The counters that all threads of a loader share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    busy_ns: [AtomicU64; STAGES],
    /// Waiting for a task.
    idle_ns: AtomicU64,
    cpu_ns: AtomicU64,
    clips: AtomicU64,
    stored_bytes: AtomicU64,
    decoded_bytes: AtomicU64,
}

/// The counters' values at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    busy_ns: [u64; STAGES],
    idle_ns: u64,
    cpu_ns: u64,
    clips: u64,
    stored_bytes: u64,
    decoded_bytes: u64,
}

impl Counters {
    /// Counts the time that a thread waited for a task.
    pub(crate) fn idle(&self, waited: Duration) {
        add(&self.idle_ns, waited);
    }

    /// Counts a clip that a thread has finished.
    pub(crate) fn clip(
        &self,
        clock: &StageClock,
        cpu: Duration,
        stored_bytes: usize,
        decoded_bytes: usize,
    ) {
        self.busy_ns
            .iter()
            .zip(clock.busy)
            .for_each(|(counter, busy)| add(counter, busy));
        add(&self.cpu_ns, cpu);
        self.clips.fetch_add(1, Ordering::Relaxed);
        self.stored_bytes
            .fetch_add(stored_bytes as u64, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_add(decoded_bytes as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            busy_ns: self.busy_ns.each_ref().map(read),
            idle_ns: read(&self.idle_ns),
            cpu_ns: read(&self.cpu_ns),
            clips: read(&self.clips),
            stored_bytes: read(&self.stored_bytes),
            decoded_bytes: read(&self.decoded_bytes),
        }
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
}

/// Waits shorter than 2^FIRST_OCTAVE nanoseconds share a bin.
const FIRST_OCTAVE: u32 = 8;

/// Bins per doubling: a quantile is accurate to about 100 / 16 %.
const BINS_PER_OCTAVE: usize = 16;

/// Doublings, from a quarter of a microsecond to five hours.
const OCTAVES: usize = 36;

/// A histogram of waits, in constant memory.
#[derive(Debug, Clone)]
struct Waits {
    bins: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            bins: vec![0; OCTAVES * BINS_PER_OCTAVE],
            count: 0,
            sum: Duration::ZERO,
            max: Duration::ZERO,
        }
    }
}

impl Waits {
    fn push(&mut self, wait: Duration) {
        let octaves = (wait.as_nanos().max(1) as f64).log2() - f64::from(FIRST_OCTAVE);
        let bin = (octaves.max(0.0) * BINS_PER_OCTAVE as f64) as usize;
        self.bins[bin.min(OCTAVES * BINS_PER_OCTAVE - 1)] += 1;
        self.count += 1;
        self.sum += wait;
        self.max = self.max.max(wait);
    }

    /// A quantile of the waits, in milliseconds.
    fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (bin, &count) in self.bins.iter().enumerate() {
            seen += count;
            if count > 0 && seen >= wanted {
                let upper = f64::from(FIRST_OCTAVE) + (bin + 1) as f64 / BINS_PER_OCTAVE as f64;
                return (upper.exp2() / 1e6).min(self.max.as_secs_f64() * 1e3);
            }
        }
        0.0
    }
}

/// Counters of the user's side of a loader.
#[derive(Debug)]
pub(crate) struct Consumption {
    started: Instant,
    first_batch: Option<Duration>,
    /// Since when the rest is counted, and the threads' counters at that time.
    since: Instant,
    before: Counted,
    waits: Waits,
    clips: u64,
    frames: u64,
    /// Batches that were ready when one was asked for, summed over batches.
    ready: u64,
    skipped: u64,
}

/// A batch that is handed out.
pub(crate) struct Delivered {
    /// How long the user waited for it.
    pub(crate) wait: Duration,
    /// Its clips.
    pub(crate) clips: usize,
    /// Frames of each clip.
    pub(crate) frames: usize,
    /// Clips that are missing from it.
    pub(crate) skipped: usize,
    /// Batches that were ready when it was asked for.
    pub(crate) ready: usize,
}

/// When the user waits for less than this share of its time, the user is the limit.
const CONSUMER_LIMITS_BELOW: f64 = 0.02;

impl Consumption {
    /// Counters that start now.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let (waits, before) = (Waits::default(), Counted::default());
        Self {
            started: now,
            first_batch: None,
            since: now,
            before,
            waits,
            clips: 0,
            frames: 0,
            ready: 0,
            skipped: 0,
        }
    }

    /// Resets all counters but the time of the start.
    pub(crate) fn restart(&mut self, counters: &Counters) {
        *self = Self {
            started: self.started,
            first_batch: self.first_batch,
            before: counters.now(),
            ..Self::new()
        };
    }

    /// Counts a batch that is handed out.
    pub(crate) fn batch(&mut self, counters: &Counters, batch: Delivered) {
        if self.first_batch.is_none() {
            // The first batch takes the time of the start, which is reported on its own.
            self.first_batch = Some(self.started.elapsed());
            self.restart(counters);
            self.skipped += batch.skipped as u64;
            return;
        }
        self.waits.push(batch.wait);
        self.clips += batch.clips as u64;
        self.frames += (batch.clips * batch.frames) as u64;
        self.ready += batch.ready as u64;
        self.skipped += batch.skipped as u64;
    }

    /// All figures up to now, of a loader of `threads` threads.
    pub(crate) fn figures(&self, counters: &Counters, threads: usize) -> LoaderFigures {
        let (now, before, seconds) = (
            counters.now(),
            &self.before,
            self.since.elapsed().as_secs_f64(),
        );
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let of_threads = |ns: u64| per_second(ns as f64 / 1e9) / threads as f64;
        let clips_read = (now.clips - before.clips).max(1) as f64;
        let ms_per_clip = |ns: u64| ns as f64 / 1e6 / clips_read;
        let stage = |stage: Stage| {
            let busy_ns = now.busy_ns[stage as usize] - before.busy_ns[stage as usize];
            StageFigures {
                busy_fraction: of_threads(busy_ns),
                ms_per_clip: ms_per_clip(busy_ns),
            }
        };
        let (fetch, read, decode, transform) = (
            stage(Stage::Fetch),
            stage(Stage::Read),
            stage(Stage::Decode),
            stage(Stage::Transform),
        );
        let stages = [
            (fetch, LoaderLimit::Network),
            (read, LoaderLimit::Read),
            (decode, LoaderLimit::Decode),
            (transform, LoaderLimit::Transform),
        ];
        let busiest = stages
            .into_iter()
            .max_by(|a, b| a.0.busy_fraction.total_cmp(&b.0.busy_fraction));
        let stall_fraction = per_second(self.waits.sum.as_secs_f64());
        LoaderFigures {
            clips: self.clips,
            seconds,
            clips_per_second: per_second(self.clips as f64),
            frames_per_second: per_second(self.frames as f64),
            stored_bytes_per_second: per_second((now.stored_bytes - before.stored_bytes) as f64),
            decoded_bytes_per_second: per_second((now.decoded_bytes - before.decoded_bytes) as f64),
            batch_wait_ms: WaitFigures {
                p50: self.waits.quantile_ms(0.5),
                p99: self.waits.quantile_ms(0.99),
                max: self.waits.max.as_secs_f64() * 1e3,
            },
            stall_fraction,
            ready_batches: self.ready as f64 / self.waits.count.max(1) as f64,
            fetch,
            read,
            decode,
            transform,
            idle_fraction: of_threads(now.idle_ns - before.idle_ns),
            limit: busiest
                .filter(|_| stall_fraction >= CONSUMER_LIMITS_BELOW)
                .map_or(LoaderLimit::Consumer, |(_, limit)| limit),
            thread_cpu_ms_per_clip: ms_per_clip(now.cpu_ns - before.cpu_ns),
            first_batch_seconds: self.first_batch.map_or(0.0, |time| time.as_secs_f64()),
            skipped: self.skipped,
            store: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_waits_are_right_to_a_bin() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile_ms(0.5), 0.0, "no waits");
        (1..=1000u64).for_each(|micros| waits.push(Duration::from_micros(micros)));
        for (share, exact) in [(0.5, 0.5), (0.99, 0.99), (0.1, 0.1)] {
            let got = waits.quantile_ms(share);
            assert!(got >= exact && got < exact * 1.07, "{got} for {exact}");
        }
        assert_eq!(waits.quantile_ms(1.0), 1.0, "never more than the longest");
        waits.push(Duration::ZERO);
        waits.push(Duration::from_secs(1_000_000));
        assert_eq!(waits.max, Duration::from_secs(1_000_000));
    }
}
