//! Single batches of chosen clips, without threads: for pictures of what a model does.

use super::batch::Batch;
use super::buffers::{BatchMut, MemoryKind, Ring};
use super::options::{LoadError, LoaderOptions, check};
use super::upcoming::nth_clip;
use super::worker::{ClipSlots, Worker};
use crate::sampling::mask::MaskRule;
use crate::sampling::order::{Cursor, SampleId};
use crate::sampling::sample::{View, central_view};
use crate::source::WeightedSource;
use crate::stats::StageClock;
use schemas::geometry::PatchGrid;
use std::sync::Arc;
use std::time::Duration;

/// Loads up to `count` clips, evenly spread over the data: whole clips, the central square of each,
/// under masks that no epoch of training draws, all of whose masked tokens are predicted. A clip
/// that cannot be read is replaced by the next one that can.
///
/// # Errors
/// When no clip can be read, or loading fails for another reason than a bad clip.
pub fn examples(
    sources: &[WeightedSource],
    grid: PatchGrid,
    mask_rule: MaskRule,
    seed: u64,
    count: usize,
) -> Result<Batch, LoadError> {
    let all: usize = sources.iter().map(WeightedSource::len).sum();
    let count = count.min(all);
    let mask_rule = MaskRule {
        decoder_keep: 1.0,
        ..mask_rule
    };
    let options = LoaderOptions {
        seed,
        ..LoaderOptions::new(count, grid, mask_rule)
    };
    check(sources, &options)?;
    let mut worker = Worker::new(&Arc::default());
    let batch = single_batch(&options)?;
    let mut samples = Vec::with_capacity(count);
    let mut labels = Vec::with_capacity(count);
    for slot in 0..count {
        let mut bad = 0;
        let (sample, label) = loop {
            let first = nth_clip(sources, ((2 * slot + 1) * all / (2 * count) + bad) % all);
            let source = &sources[first.set as usize];
            worker.views.clear();
            worker
                .views
                .push(central_view(source.clip(first.clip as usize).size));
            let clip = ClipSlots {
                source,
                first,
                slot,
                batches: std::slice::from_ref(&batch),
            };
            match worker.load(&options, &clip, &mut StageClock::default()) {
                Ok((info, _)) => break (first, info.label),
                Err(error) if error.is_of_one_clip() && bad + 1 < all => bad += 1,
                Err(error) => return Err(error.into()),
            }
        };
        samples.push(sample);
        labels.push(label);
    }
    Ok(finish(batch, &options, samples, labels))
}

/// Loads clip `clip` of a source under several masks: the central square of its frames from
/// `first_frame` on. Returns a batch of this one clip for each of `rules`, all of whose masked
/// tokens are predicted.
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
    let first = SampleId {
        set: 0,
        epoch: u64::MAX,
        clip: clip as u64,
        repeat: 0,
    };
    worker.views.push(View {
        first_frame,
        ..central_view(source.clip(clip).size)
    });
    let under = |&rule: &MaskRule| {
        let options = LoaderOptions {
            seed,
            ..LoaderOptions::new(
                1,
                grid,
                MaskRule {
                    decoder_keep: 1.0,
                    ..rule
                },
            )
        };
        check(std::slice::from_ref(source), &options)?;
        let batch = single_batch(&options)?;
        let clip = ClipSlots {
            source,
            first,
            slot: 0,
            batches: std::slice::from_ref(&batch),
        };
        let (info, _) = worker.load(&options, &clip, &mut StageClock::default())?;
        Ok(finish(batch, &options, vec![first], vec![info.label]))
    };
    rules.iter().map(under).collect()
}

/// Memory for one batch.
fn single_batch(options: &LoaderOptions) -> Result<BatchMut, LoadError> {
    let layout = options.format.layout(options.batch_size);
    Ring::new(layout, 1, MemoryKind::Host)
        .take()
        .map_err(LoadError::NoMemory)
}

fn finish(
    batch: BatchMut,
    options: &LoaderOptions,
    samples: Vec<SampleId>,
    labels: Vec<Option<i32>>,
) -> Batch {
    Batch {
        format: options.format,
        samples,
        labels,
        skipped: Vec::new(),
        gaps: Vec::new(),
        buffer: batch.finish(),
        next: Cursor::default(),
        wait: Duration::ZERO,
    }
}
