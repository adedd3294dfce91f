//! What a loader is told, and what can be wrong with that.

use crate::loader::batch::{BatchFormat, Form, ValueType};
use crate::loader::buffers::MemoryKind;
use crate::sampling::mask::MaskRule;
use crate::sampling::order::Cursor;
use crate::sampling::sample::{Augmentation, Views};
use crate::source::{SourceError, WeightedSource};
use crate::transform::TargetForm;
use crate::transform::augment::AugmentPolicy;
use schemas::geometry::{GridError, PatchGrid};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bad clips that are left out before loading stops, unless told otherwise.
pub const DEFAULT_MAX_BAD: usize = 100;

/// Memory for batches on the way, unless told otherwise.
pub const DEFAULT_MEMORY_BYTES: usize = 2 << 30;

/// What batches to make, and how.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Clips a batch, of all ranks together.
    pub batch_size: usize,
    /// Samples that are taken of a clip each time that it is read; with [`Pass::Once`], its views.
    pub repeat: usize,
    /// Which clips, and which views of them.
    pub pass: Pass,
    /// What a batch holds.
    pub format: BatchFormat,
    /// Ranges of crops and flips.
    pub augmentation: Augmentation,
    /// Changes of the look of training samples; of [`Form::Tokens`] only.
    pub policy: AugmentPolicy,
    /// Seed of order, crops, flips and masks.
    pub seed: u64,
    /// Which part of each batch to make.
    pub rank: Rank,
    /// Worker threads.
    pub threads: usize,
    /// Batches made ahead, at most; no fewer than one block's.
    pub prefetch: usize,
    /// Where batches are.
    pub memory: MemoryKind,
    /// Memory of the batches that are made ahead, at most.
    pub memory_bytes: usize,
    /// Clips that may be bad before loading stops.
    pub max_bad: usize,
    /// Where to begin: between two batches.
    pub start: Cursor,
    /// Set by whoever wants to stop: a batch that is not ready is then not waited for.
    pub interrupt: Arc<AtomicBool>,
}

impl LoaderOptions {
    /// The defaults for batches of `batch_size` clips of `grid`: whole clips in `f32`, all of them for one rank, each clip sampled once each time that it is
    /// read.
    pub fn new(batch_size: usize, grid: PatchGrid, mask_rule: MaskRule) -> Self {
        let format = BatchFormat { grid, mask_rule: Some(mask_rule), form: Form::Clips, values: ValueType::F32 };
        Self::of_format(batch_size, format)
    }

    /// The same without masks: all tokens of each clip.
    pub fn tokens(batch_size: usize, grid: PatchGrid) -> Self {
        Self::of_format(batch_size, BatchFormat { grid, mask_rule: None, form: Form::Tokens, values: ValueType::F32 })
    }

    fn of_format(batch_size: usize, format: BatchFormat) -> Self {
        Self {
            batch_size,
            repeat: 1,
            pass: Pass::Training,
            format,
            augmentation: Augmentation::default(),
            policy: AugmentPolicy::default(),
            seed: 0,
            rank: Rank::default(),
            threads: 1,
            prefetch: 2,
            memory: MemoryKind::Host,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            max_bad: DEFAULT_MAX_BAD,
            start: Cursor::default(),
            interrupt: Arc::default(),
        }
    }

    /// The same for a look at every clip: each once, in order, at `views`, which go to as many batches; the last batch may be smaller.
    #[must_use]
    pub fn once(self, views: Views) -> Self {
        Self { pass: Pass::Once(views), repeat: views.count(), ..self }
    }

    /// Blocks on the way.
    const fn blocks(&self) -> usize {
        // While the batches of a block are handed out one by one, the next one is made.
        (self.prefetch + self.repeat - 1).div_ceil(self.repeat)
    }
}

/// Which clips are loaded, and which views of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Epoch after epoch in random order, at windows, crops and flips by chance: endless.
    Training,
    /// Each clip once, in order, at these views.
    Once(Views),
}

/// One of several equal loaders that share the work: it makes part `number` of `of` of each batch.
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
    #[error("{} clips cannot be read, which is more than the {limit} that may be left out (--max-bad); the last one: {last}", limit + 1)]
    TooManyBad {
        /// How many may be.
        limit: usize,
        /// Why not the last one.
        last: Box<SourceError>,
    },
    /// No clip can be read.
    #[error("none of the {clips} clips can be read; the last one: {last}")]
    AllBad {
        /// How many there are.
        clips: usize,
        /// Why not the last one.
        last: Box<SourceError>,
    },
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
        /// Which data set.
        path: PathBuf,
        /// Frames stored.
        stored: usize,
        /// Frames wanted.
        wanted: usize,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// The batches do not fit into the memory that they may take.
    #[error(
        "{batches} batches of {batch_bytes} bytes each have to be in memory at a time, and {memory_bytes} bytes are allowed: allow more with \
         --loader-memory, or make batches smaller"
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
    /// Whoever waited for a batch wants to stop: [`LoaderOptions::interrupt`].
    #[error("stopped while waiting for data")]
    Interrupted,
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

/// Checks that batches can be made so; gives the number of blocks that may be on the way.
pub(super) fn check(sources: &[WeightedSource], options: &LoaderOptions) -> Result<usize, LoadError> {
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
    let Rank { number: rank, of: ranks } = options.rank;
    if rank >= ranks {
        return refused(format!("there is no rank {rank} of {ranks}: they are counted from 0"));
    }
    if !options.batch_size.is_multiple_of(ranks) {
        return refused(format!("a batch of {} clips cannot be shared by {ranks} ranks; choose a multiple", options.batch_size));
    }
    if !options.start.samples.is_multiple_of(options.batch_size as u64) {
        let (samples, batch_size) = (options.start.samples, options.batch_size);
        return refused(format!(
            "sample {samples} lies inside of a batch of {batch_size}: go on with the batch size that the run began with"
        ));
    }
    if let Pass::Once(views) = options.pass {
        if views.count() == 0 || views.count() != options.repeat {
            return refused(format!("{} x {} views of a clip; there must be at least one", views.temporal, views.spatial));
        }
        if ranks > 1 {
            return refused("a look at every clip once is not shared by ranks".to_owned());
        }
    }
    if !options.policy.is_plain() && options.format.form != Form::Tokens {
        return refused("the look of samples is changed only where all of their tokens are seen".to_owned());
    }
    match (options.format.mask_rule, options.format.form) {
        (Some(rule), _) => check_mask(rule, grid)?,
        (None, Form::Patches { .. }) => return refused("without a mask there is nothing to predict".to_owned()),
        (None, Form::Clips | Form::Tokens) => {}
    }
    if let Form::Patches { target } = options.format.form {
        let slices = target.slices();
        if !(1..=grid.tubelet).contains(&slices) {
            return refused(format!("{slices} target slices of a tubelet of {} frames; choose 1 to {}", grid.tubelet, grid.tubelet));
        }
        if matches!(target, TargetForm::Hog { .. }) && options.format.values == ValueType::U8 {
            return refused("histograms of gradients do not fit into u8 values; choose --values f32 or bf16".to_owned());
        }
    }
    if sources.is_empty() || sources.len() > MAX_SETS {
        return refused(format!("{} data sets; give at least one, and at most {MAX_SETS}", sources.len()));
    }
    for set in sources {
        let (weight, dir) = (set.weight, set.source.dir());
        if !weight.is_finite() || weight <= 0.0 {
            return refused(format!("the weight of {} is {weight}; it must be a number above 0", dir.display()));
        }
        if set.is_empty() {
            return Err(LoadError::Empty { path: dir.to_owned() });
        }
        let wanted = grid.frames;
        if let Some(short) = (0..set.len()).map(|index| set.clip(set.number(index))).find(|clip| clip.frames < wanted) {
            return Err(LoadError::TooFewFrames { path: dir.to_owned(), stored: short.frames, wanted });
        }
    }
    let batch_bytes = options.format.layout(options.batch_size / ranks).bytes();
    let fitting = options.memory_bytes / (batch_bytes * options.repeat);
    if fitting == 0 {
        return Err(LoadError::Memory { batch_bytes, batches: options.repeat, memory_bytes: options.memory_bytes });
    }
    Ok(options.blocks().min(fitting))
}

fn check_mask(rule: MaskRule, grid: PatchGrid) -> Result<(), LoadError> {
    if rule.visible(grid).is_none() {
        let (ratio, tokens) = (rule.ratio, grid.tokens());
        return Err(LoadError::Option(format!("mask ratio {ratio} does not leave some of {tokens} tokens visible and some masked")));
    }
    if rule.predicted(grid).is_none() {
        let keep = rule.decoder_keep;
        return Err(LoadError::Option(format!(
            "the decoder takes a share of {keep} of the masked tokens; choose one above 0, and at most 1, that predicts some"
        )));
    }
    Ok(())
}

/// Data sets, at most: each has at least one draw in a period of the order.
const MAX_SETS: usize = 256;
