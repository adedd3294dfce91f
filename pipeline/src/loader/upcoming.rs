//! The samples of the groups to come: drawn, and announced to their sources, before their tasks are
//! sent.
//!
//! Loader threads do this when they have finished a group, so that the user's thread finds the next
//! one ready: a new order of all clips, or advice to the system for each of a batch, takes longer
//! than everything else that is done for a batch on that thread.

use super::{LoaderOptions, Pass, Rank};
use crate::sampling::order::{Order, Purpose, SampleId};
use crate::sampling::sample::Augmentation;
use crate::source::WeightedSource;
use std::collections::VecDeque;

/// Clips of data sets in stores that are fetched ahead, at most.
const CLIPS_AHEAD: usize = 256;

/// Bytes of them, at most.
const BYTES_AHEAD: u64 = 256 << 20;

/// The samples of the groups whose tasks were not sent.
pub(super) struct Upcoming {
    order: Order,
    /// Number of the next group to be drawn.
    next_group: u64,
    /// The samples of the groups before it, in order: announced.
    groups: VecDeque<Vec<SampleId>>,
    /// First frames of the windows of a sample.
    starts: Vec<usize>,
}

impl Upcoming {
    /// Begins with `first_group`.
    pub(super) fn new(sources: &[WeightedSource], seed: u64, first_group: u64) -> Self {
        let sets: Vec<(u64, f64)> = sources
            .iter()
            .map(|set| (set.len() as u64, set.weight))
            .collect();
        Self {
            order: Order::new(&sets, seed),
            next_group: first_group,
            groups: VecDeque::new(),
            starts: Vec::new(),
        }
    }

    /// The samples of the next group; empty after the last one of a single pass.
    pub(super) fn take(
        &mut self,
        sources: &[WeightedSource],
        options: &LoaderOptions,
    ) -> Vec<SampleId> {
        if self.groups.is_empty() {
            self.announce_group(sources, options);
        }
        self.groups.pop_front().unwrap_or_default()
    }

    /// Announces the next group, and groups further ahead where clips are fetched from stores,
    /// which answer late. At most two at a time: the first ones, which are waited for, should not
    /// share the network with many others.
    pub(super) fn announce_ahead(&mut self, sources: &[WeightedSource], options: &LoaderOptions) {
        if self.groups.is_empty() {
            self.announce_group(sources, options);
        }
        if !sources.iter().any(|set| set.source.is_remote()) {
            return;
        }
        for _ in 0..2 {
            let bytes: u64 = sources.iter().map(|set| set.source.bytes_ahead()).sum();
            let clips: usize = self.groups.iter().map(Vec::len).sum();
            let is_end = self.groups.back().is_some_and(Vec::is_empty);
            if bytes < BYTES_AHEAD && clips < CLIPS_AHEAD && !is_end {
                self.announce_group(sources, options);
            }
        }
    }

    /// Draws the samples of the next group, and announces them.
    fn announce_group(&mut self, sources: &[WeightedSource], options: &LoaderOptions) {
        let number = self.next_group;
        let Rank {
            number: rank,
            of: ranks,
        } = options.rank;
        let share = options.batch_size / ranks;
        let first_draw = number * options.batch_size as u64 + (rank * share) as u64;
        let left = options
            .clips(sources)
            .map_or(u64::MAX, |clips| clips.saturating_sub(first_draw));
        let slots = share.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut samples = Vec::with_capacity(slots);
        for draw in (first_draw..).take(slots) {
            let sample = self.draw(draw, sources, options.pass);
            self.announce(sample, number, sources, options);
            samples.push(sample);
        }
        self.groups.push_back(samples);
        self.next_group += 1;
    }

    /// The sample of draw number `draw`.
    fn draw(&mut self, draw: u64, sources: &[WeightedSource], pass: Pass) -> SampleId {
        match pass {
            Pass::Training => {
                let sample = self.order.draw(draw);
                let clip = sources[sample.set as usize].number(sample.clip as usize) as u64;
                SampleId { clip, ..sample }
            }
            Pass::Once(_) => nth_clip(sources, draw as usize),
        }
    }

    /// Announces that the windows of the repeats of a sample in a group will soon be read.
    fn announce(
        &mut self,
        sample: SampleId,
        group: u64,
        sources: &[WeightedSource],
        options: &LoaderOptions,
    ) {
        let set = &sources[sample.set as usize];
        let clip = sample.clip as usize;
        let info = set.clip(clip);
        let frames = options.format.grid.frames;
        let repeats = options.first_repeat(group)..options.repeat;
        let starts = repeats.map(|repeat| match options.pass {
            Pass::Training => {
                let repeat = repeat as u32;
                let sample = SampleId { repeat, ..sample };
                let mut rng = sample.stream(Purpose::Augment, options.seed);
                Augmentation::draw_first_frame(&mut rng, info.frames, frames)
            }
            Pass::Once(views) => {
                views
                    .view(repeat, info.frames, frames, info.size)
                    .first_frame
            }
        });
        self.starts.clear();
        self.starts.extend(starts);
        set.source.fetch(clip, frames, &self.starts);
    }
}

/// Clip `index` of all data sets one after the other, with an epoch that training never has.
pub(super) fn nth_clip(sources: &[WeightedSource], mut index: usize) -> SampleId {
    for (source, set) in sources.iter().zip(0..) {
        if index < source.len() {
            return SampleId {
                set,
                epoch: u64::MAX,
                clip: source.number(index) as u64,
                repeat: 0,
            };
        }
        index -= source.len();
    }
    panic!("there are fewer clips than this index")
}
