//! A worker thread: takes tasks, reads and transforms clips, and sends finished groups on.

use super::batch::SlotMut;
use super::buffers::BatchMut;
use super::{LoadError, LoaderOptions, Outcome, Pass, ReadGroup, Shared, Task};
use crate::panic_message::panic_message;
use crate::sampling::mask::MaskScratch;
use crate::sampling::order::{Purpose, SampleId};
use crate::sampling::sample::View;
use crate::source::{ClipBytes, ClipInfo, SourceError, SourceReader, WeightedSource};
use crate::stats::{Stage, StageClock};
use crate::transform::augment::Augmenter;
use crate::transform::{ClipView, Transform};
use crossbeam_channel::{Receiver, Sender};
use rustix::time::{ClockId, clock_gettime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Added to the niceness of the loader's threads: they work ahead, so threads that compute come
/// first.
const NICENESS: i32 = 5;

/// What a worker reuses from clip to clip.
pub(super) struct Worker {
    reader: SourceReader,
    transform: Transform,
    augmenter: Augmenter,
    scratch: MaskScratch,
    /// The view of each repeat of the clip in hand.
    pub(super) views: Vec<View>,
    starts: Vec<usize>,
    /// The frames of a clip in another order.
    reordered: Vec<u8>,
}

/// One clip, and the slot of each batch that it is written to.
pub(super) struct ClipSlots<'a> {
    pub(super) source: &'a WeightedSource,
    /// The first of as many repeats as there are batches.
    pub(super) first: SampleId,
    pub(super) slot: usize,
    pub(super) batches: &'a [BatchMut],
}

impl Worker {
    pub(super) fn new(stop: &Arc<AtomicBool>) -> Self {
        Self {
            reader: SourceReader::new(Arc::clone(stop)),
            transform: Transform::default(),
            augmenter: Augmenter::default(),
            scratch: MaskScratch::default(),
            views: Vec::new(),
            starts: Vec::new(),
            reordered: Vec::new(),
        }
    }

    /// Reads a clip and writes each of `self.views` of it to its slot.
    pub(super) fn load(
        &mut self,
        options: &LoaderOptions,
        clip: &ClipSlots<'_>,
        clock: &mut StageClock,
    ) -> Result<(ClipInfo, ClipBytes), SourceError> {
        let format = &options.format;
        self.transform.normalisation = options.normalisation;
        let number = clip.first.clip as usize;
        self.starts.clear();
        self.starts
            .extend(self.views.iter().map(|view| view.first_frame));
        let info = clip.source.clip(number);
        let (loaded, bytes) = self.reader.load(
            &clip.source.source,
            number,
            format.grid.frames,
            &self.starts,
            clock,
        )?;
        for (window, (batch, &view)) in clip.batches.iter().zip(&self.views).enumerate() {
            let (frames, first_frame) = loaded.window(window, view.first_frame);
            let sample = SampleId {
                repeat: clip.first.repeat + window as u32,
                ..clip.first
            };
            let order = options.frame_order;
            let (frames, first_frame) = if order.is_time() {
                (frames, first_frame)
            } else {
                let window = frames.window(first_frame, format.grid.frames, info.size);
                let window = window.expect("as many frames as the view needs");
                let mut rng = sample.stream(Purpose::FrameOrder, options.seed);
                let is_training = options.pass == Pass::Training;
                let buffer = &mut self.reordered;
                (
                    order.reorder(window, info.size, &mut rng, is_training, buffer),
                    0,
                )
            };
            let view = ClipView {
                frames,
                size: info.size,
                view: View {
                    first_frame,
                    ..view
                },
            };
            let slot = SlotMut::new(batch.slot(clip.slot).expect("each slot is filled once"));
            format.draw_mask(sample, options.seed, &mut self.scratch, slot.tokens);
            if options.policy.is_plain() || options.pass != Pass::Training {
                format.write(&mut self.transform, view, slot);
            } else {
                let augment = options.policy.draw(sample, options.seed, format.grid.size);
                format.write_augmented(
                    &mut self.augmenter,
                    &augment,
                    &mut self.transform,
                    view,
                    slot,
                );
            }
        }
        clock.lap(Stage::Transform);
        Ok((info, bytes))
    }

    /// Does a task: draws the views of the clip's repeats, and loads them. Returns the clip's
    /// class.
    fn work(&mut self, shared: &Shared, task: &Task) -> Result<Option<i32>, LoadError> {
        let options = &shared.options;
        let source = &shared.sources[task.sample.set as usize];
        let mut clock = StageClock::default();
        let cpu_before = thread_cpu();
        let first = SampleId {
            repeat: task.group.first_repeat as u32,
            ..task.sample
        };
        let info = source.clip(task.sample.clip as usize);
        let frames = options.format.grid.frames;
        let repeats = (first.repeat..).take(task.group.batches.len());
        self.views.clear();
        self.views.extend(repeats.map(|repeat| match options.pass {
            Pass::Training => {
                let mut rng = SampleId { repeat, ..first }.stream(Purpose::Augment, options.seed);
                options
                    .augmentation
                    .draw(&mut rng, info.frames, frames, info.size)
            }
            Pass::Once(views) => views.view(repeat as usize, info.frames, frames, info.size),
        }));
        let clip = ClipSlots {
            source,
            first,
            slot: task.slot,
            batches: &task.group.batches,
        };
        let (info, bytes) = self.load(options, &clip, &mut clock)?;
        shared.counters.clip(
            &clock,
            thread_cpu() - cpu_before,
            bytes.stored,
            bytes.decoded,
        );
        Ok(info.label)
    }
}

/// The body of a worker thread: takes tasks and sends groups until either channel is closed.
pub(super) fn run(shared: &Shared, tasks: &Receiver<Task>, finished: &Sender<ReadGroup>) {
    // Without permission, the threads are as fast, only less considerate.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let mut worker = Worker::new(&shared.stop);
    let mut free_since = Instant::now();
    for task in tasks {
        shared.counters.idle(free_since.elapsed());
        let result =
            catch_unwind(AssertUnwindSafe(|| worker.work(shared, &task))).unwrap_or_else(|panic| {
                // Its state may be half-changed: start again with a new one.
                worker = Worker::new(&shared.stop);
                Err(LoadError::Panic {
                    message: panic_message(&*panic),
                })
            });
        let Task {
            group,
            slot,
            sample,
        } = task;
        let outcome = match result {
            Ok(label) => Outcome::Done(sample, label),
            Err(error) => Outcome::Failed(sample, error),
        };
        *group.outcomes[slot]
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = outcome;
        // The last worker to release the group owns it.
        if let Some(group) = Arc::into_inner(group) {
            if finished.send(group).is_err() || shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let mut upcoming = shared.upcoming();
            upcoming.announce_ahead(&shared.sources, &shared.options);
        }
        free_since = Instant::now();
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
