//! The settings of a loader, their checks, and its errors.

use crate::loader::batch::{BatchFormat, Form, ValueType};
use crate::loader::buffers::MemoryKind;
use crate::sampling::frame_order::FrameOrder;
use crate::sampling::mask::MaskRule;
use crate::sampling::order::Cursor;
use crate::sampling::sample::{Augmentation, Views};
use crate::simd::InstructionSetError;
use crate::source::{SourceError, WeightedSource};
use crate::transform::augment::AugmentPolicy;
use crate::transform::{Normalisation, TargetForm};
use schemas::geometry::{GridError, PatchGrid};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Default of [`LoaderOptions::max_bad`].
pub const DEFAULT_MAX_BAD: usize = 100;

/// Default of [`LoaderOptions::memory_bytes`]: 2 GiB.
pub const DEFAULT_MEMORY_BYTES: usize = 2 << 30;

/// Which batches to make, and how.
///
/// ```
/// use pipeline::loader::LoaderOptions;
/// use pipeline::loader::batch::{Form, ValueType};
/// use pipeline::sampling::mask::{MaskKind, MaskRule};
/// use pipeline::transform::TargetForm;
/// use schemas::geometry::PatchGrid;
///
/// let grid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };
/// let mask = MaskRule::new(MaskKind::Random, 0.9);
/// let mut options = LoaderOptions { threads: 4, seed: 1, ..LoaderOptions::new(32, grid, mask) };
/// // Only the patches that a masked autoencoder uses, in bf16.
/// options.format.form = Form::Patches { target: TargetForm::Pixels { slices: 1 } };
/// options.format.values = ValueType::Bf16;
/// assert_eq!(options.format.visible(), 156, "of 1568 tokens");
/// ```
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Clips per batch, of all ranks together.
    pub batch_size: usize,
    /// Samples that are taken of a clip each time it is read (repeated augmentation); with
    /// [`Pass::Once`], its views.
    pub repeat: usize,
    /// Which clips, and which views of them.
    pub pass: Pass,
    /// The layout of a batch.
    pub format: BatchFormat,
    /// Ranges of crops and flips.
    pub augmentation: Augmentation,
    /// The order of the frames.
    pub frame_order: FrameOrder,
    /// Further augmentation of training samples; for [`Form::Tokens`] only.
    pub policy: AugmentPolicy,
    /// How values that are not bytes are normalised.
    pub normalisation: Normalisation,
    /// Seed of order, crops, flips and masks.
    pub seed: u64,
    /// Which part of each batch to make.
    pub rank: Rank,
    /// Worker threads.
    pub threads: usize,
    /// Batches made ahead, at most; at least those of one group (`repeat`).
    pub prefetch: usize,
    /// The kind of memory that batches are in.
    pub memory: MemoryKind,
    /// Bytes of the batches that are made ahead, at most.
    pub memory_bytes: usize,
    /// Bad clips that are skipped before loading stops with an error.
    pub max_bad: usize,
    /// Whether batches without clips, as all of theirs were bad, are handed out too: ranks that take
    /// batches together need them.
    pub keeps_empty: bool,
    /// Where to begin: at the end of a batch ([`super::batch::Batch::next`]).
    pub start: Cursor,
    /// When it is set, a batch that is not ready is not waited for: [`LoadError::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
}

impl LoaderOptions {
    /// The defaults for batches of `batch_size` clips of `grid`: whole clips in `f32`, all of them
    /// for one rank, one sample each time a clip is read.
    pub fn new(batch_size: usize, grid: PatchGrid, mask_rule: MaskRule) -> Self {
        let format = BatchFormat {
            grid,
            mask_rule: Some(mask_rule),
            form: Form::Clips,
            values: ValueType::F32,
        };
        Self::of_format(batch_size, format)
    }

    /// The same without masks: all tokens of each clip.
    pub fn tokens(batch_size: usize, grid: PatchGrid) -> Self {
        Self::of_format(
            batch_size,
            BatchFormat {
                grid,
                mask_rule: None,
                form: Form::Tokens,
                values: ValueType::F32,
            },
        )
    }

    fn of_format(batch_size: usize, format: BatchFormat) -> Self {
        Self {
            batch_size,
            repeat: 1,
            pass: Pass::Training,
            format,
            augmentation: Augmentation::default(),
            frame_order: FrameOrder::default(),
            policy: AugmentPolicy::default(),
            normalisation: Normalisation::default(),
            seed: 0,
            rank: Rank::default(),
            threads: 1,
            prefetch: 2,
            memory: MemoryKind::Host,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            max_bad: DEFAULT_MAX_BAD,
            keeps_empty: false,
            start: Cursor::default(),
            interrupt: Arc::default(),
        }
    }

    /// The same for one pass over the data: each clip once, in order, at `views`, which go to as
    /// many batches; the last batch may be smaller, and ranks may have no part of it.
    #[must_use]
    pub fn once(self, views: Views) -> Self {
        Self {
            pass: Pass::Once(views),
            repeat: views.count(),
            ..self
        }
    }

    /// Clips of the whole pass; none where it is endless.
    pub(super) fn clips(&self, sources: &[WeightedSource]) -> Option<u64> {
        let all = || sources.iter().map(|set| set.len() as u64).sum();
        matches!(self.pass, Pass::Once(_)).then(all)
    }

    /// Repeat of the first batch of group `number` that is handed out.
    pub(super) fn first_repeat(&self, number: u64) -> usize {
        let group_samples = (self.batch_size * self.repeat) as u64;
        let before = self.start.samples.saturating_sub(number * group_samples) as usize;
        before / self.batch_size
    }

    /// Groups in flight.
    const fn groups(&self) -> usize {
        // While the batches of a group are handed out one by one, the next group is made.
        (self.prefetch + self.repeat - 1).div_ceil(self.repeat)
    }
}

/// Which clips are loaded, and which views of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Epoch after epoch in random order, with random windows, crops and flips: endless.
    Training,
    /// Each clip once, in order, at these views.
    Once(Views),
}

/// One of several loaders that share each batch: it makes part `number` of `of` equal parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// From 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Default for Rank {
    fn default() -> Self {
        Self { number: 0, of: 1 }
    }
}

/// Why a batch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A clip cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Too many clips cannot be read.
    #[error("{} clips cannot be read, and at most {limit} may be skipped (--max-bad); the last \
             one: {last}", limit + 1)]
    TooManyBad {
        /// How many may be skipped.
        limit: usize,
        /// The error of the last one.
        last: Box<SourceError>,
    },
    /// No clip can be read.
    #[error("none of the {clips} clips can be read; the last one: {last}")]
    AllBad {
        /// How many there are.
        clips: usize,
        /// The error of the last one.
        last: Box<SourceError>,
    },
    /// The patches do not fit the clip.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// The environment names a set of vector instructions that cannot be used.
    #[error(transparent)]
    InstructionSet(#[from] InstructionSetError),
    /// There is nothing to load.
    #[error("{} holds no clips", path.display())]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
    /// A stored clip is shorter than a training clip.
    #[error("the clips in {} have {stored} frames, training wants {wanted}: build shards with \
             --frames {wanted}, or train on {stored}", path.display())]
    TooFewFrames {
        /// Which data set.
        path: PathBuf,
        /// Frames stored.
        stored: usize,
        /// Frames wanted.
        wanted: usize,
    },
    /// An option is invalid.
    #[error("{0}")]
    Option(String),
    /// The batches do not fit into [`LoaderOptions::memory_bytes`].
    #[error(
        "{batches} batches of {batch_bytes} bytes each must be in memory at a time, and the limit \
         is {memory_bytes} bytes: \
         raise it with --loader-memory, or make batches smaller"
    )]
    Memory {
        /// Bytes of a batch.
        batch_bytes: usize,
        /// Batches that are made together.
        batches: usize,
        /// Bytes that are allowed.
        memory_bytes: usize,
    },
    /// The system has no memory left.
    #[error("no memory for a batch: {0}")]
    NoMemory(std::io::Error),
    /// [`LoaderOptions::interrupt`] was set while waiting for a batch.
    #[error("stopped while waiting for data")]
    Interrupted,
    /// A worker panicked: a bug.
    #[error("a loader thread panicked: {message}")]
    Panic {
        /// Its message.
        message: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start a loader thread: {0}")]
    Thread(std::io::Error),
}

/// Checks the options; returns the number of groups that may be in flight.
pub(super) fn check(
    sources: &[WeightedSource],
    options: &LoaderOptions,
) -> Result<usize, LoadError> {
    let refused = |message: String| Err(LoadError::Option(message));
    let grid = options.format.grid.validate()?;
    let at_least_one = [
        ("batch size", options.batch_size),
        ("repeat", options.repeat),
        ("loader threads", options.threads),
        ("prefetch", options.prefetch),
        ("ranks", options.rank.of),
    ];
    if let Some((name, _)) = at_least_one.into_iter().find(|&(_, value)| value == 0) {
        return refused(format!("{name} is 0; it must be at least 1"));
    }
    let Rank {
        number: rank,
        of: ranks,
    } = options.rank;
    if rank >= ranks {
        return refused(format!(
            "there is no rank {rank} of {ranks}: ranks are counted from 0"
        ));
    }
    if !options.batch_size.is_multiple_of(ranks) {
        return refused(format!(
            "a batch of {} clips cannot be shared by {ranks} ranks; choose a multiple",
            options.batch_size
        ));
    }
    if !options
        .start
        .samples
        .is_multiple_of(options.batch_size as u64)
    {
        let (samples, batch_size) = (options.start.samples, options.batch_size);
        return refused(format!(
            "sample {samples} lies inside a batch of {batch_size}: continue with the batch size of \
             the run"
        ));
    }
    if let Pass::Once(views) = options.pass
        && (views.count() == 0 || views.count() != options.repeat)
    {
        return refused(format!(
            "{} x {} views of a clip; there must be at least one",
            views.temporal, views.spatial
        ));
    }
    if !options.policy.is_plain() && options.format.form != Form::Tokens {
        return refused(
            "samples are augmented only where all of their tokens are visible".to_owned(),
        );
    }
    let Normalisation { mean, std } = options.normalisation;
    if !(mean.iter().all(|mean| mean.is_finite())
        && std.iter().all(|&std| std.is_normal() && std > 0.0))
    {
        return refused(format!(
            "mean {mean:?} and std {std:?}; give finite numbers, std above 0"
        ));
    }
    if !options.policy.is_plain() && options.normalisation != Normalisation::default() {
        return refused(
            "samples are augmented only with the mean and std of the programs".to_owned(),
        );
    }
    match (options.format.mask_rule, options.format.form) {
        (Some(rule), _) => check_mask(rule, grid)?,
        (None, Form::Patches { .. }) => {
            return refused("without a mask there is nothing to predict".to_owned());
        }
        (None, Form::Clips | Form::Tokens) => {}
    }
    if let Form::Patches { target } = options.format.form {
        let slices = target.slices();
        if !(1..=grid.tubelet).contains(&slices) {
            return refused(format!(
                "{slices} target slices of a tubelet of {} frames; choose 1 to {}",
                grid.tubelet, grid.tubelet
            ));
        }
        if matches!(target, TargetForm::Hog { .. }) && options.format.values == ValueType::U8 {
            return refused(
                "histograms of gradients do not fit into u8 values; choose --values f32 or bf16"
                    .to_owned(),
            );
        }
    }
    if sources.is_empty() || sources.len() > MAX_SETS {
        return refused(format!(
            "{} data sets; give at least one, and at most {MAX_SETS}",
            sources.len()
        ));
    }
    for set in sources {
        let (weight, dir) = (set.weight, set.source.dir());
        if !weight.is_finite() || weight <= 0.0 {
            return refused(format!(
                "the weight of {} is {weight}; it must be a number above 0",
                dir.display()
            ));
        }
        if set.is_empty() {
            return Err(LoadError::Empty {
                path: dir.to_owned(),
            });
        }
        let wanted = grid.frames;
        if let Some(short) = (0..set.len())
            .map(|index| set.clip(set.number(index)))
            .find(|clip| clip.frames < wanted)
        {
            return Err(LoadError::TooFewFrames {
                path: dir.to_owned(),
                stored: short.frames,
                wanted,
            });
        }
    }
    let batch_bytes = options.format.layout(options.batch_size / ranks).bytes();
    let fitting = options.memory_bytes / (batch_bytes * options.repeat);
    if fitting == 0 {
        return Err(LoadError::Memory {
            batch_bytes,
            batches: options.repeat,
            memory_bytes: options.memory_bytes,
        });
    }
    Ok(options.groups().min(fitting))
}

fn check_mask(rule: MaskRule, grid: PatchGrid) -> Result<(), LoadError> {
    if rule.visible(grid).is_none() {
        let (ratio, tokens) = (rule.ratio, grid.tokens());
        return Err(LoadError::Option(format!(
            "mask ratio {ratio} does not leave some of {tokens} tokens visible and some masked"
        )));
    }
    if rule.predicted(grid).is_none() {
        let keep = rule.decoder_keep;
        return Err(LoadError::Option(format!(
            "the decoder keeps a share of {keep} of the masked tokens; choose one above 0 and at \
             most 1 that predicts some"
        )));
    }
    Ok(())
}

/// Data sets, at most: each has at least one draw per period of the order.
const MAX_SETS: usize = 256;
