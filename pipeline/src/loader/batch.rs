//! Batches, and their layout in memory.

use crate::loader::buffers::{Buffer, Layout};
use crate::sampling::mask::{Mask, MaskRule, MaskScratch, Masks};
use crate::sampling::order::{Cursor, Purpose, SampleId};
use crate::transform::augment::{Augmenter, SampleAugment};
use crate::transform::{ClipView, PatchesMut, TargetForm, Transform, Value};
use half::bf16;
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;

/// Which pixels of a clip are made, and how they are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All: `[clips, 3, frames, size, size]`.
    Clips,
    /// What a masked autoencoder uses ([`Transform::patches`]): the visible tubelets, `[clips,
    /// visible, 3, tubelet, patch, patch]`, and the target of the predicted tokens, `[clips,
    /// predicted, values]`, with values as [`TargetForm`] orders them.
    Patches {
        /// What is predicted of each predicted token.
        target: TargetForm,
    },
    /// All, tubelet by tubelet: `[clips, tokens, 3, tubelet, patch, patch]`, for an encoder that
    /// sees the whole clip.
    Tokens,
}

/// Type of a pixel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// R'G'B' samples: a quarter of the bytes. The user normalises them.
    U8,
    /// Normalised, single precision.
    F32,
    /// Normalised, the upper half of single precision.
    Bf16,
}

impl ValueType {
    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The layout of a sample: how many bytes it has, and what they mean.
///
/// ```
/// use pipeline::loader::batch::{BatchFormat, Form, ValueType};
/// use pipeline::sampling::mask::{MaskKind, MaskRule};
/// use pipeline::transform::TargetForm;
/// use schemas::geometry::PatchGrid;
///
/// let format = BatchFormat {
///     grid: PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 },
///     mask_rule: Some(MaskRule { decoder_keep: 0.5, ..MaskRule::new(MaskKind::Tube, 0.9) }),
///     form: Form::Patches { target: TargetForm::Pixels { slices: 1 } },
///     values: ValueType::Bf16,
/// };
/// assert_eq!((format.visible(), format.predicted()), (160, 704));
/// // About a third of the bytes of whole clips, of 3 * 16 * 224 * 224 values each.
/// assert!(format.layout(8).bytes() < 8 * 3 * 16 * 224 * 224 * ValueType::Bf16.bytes() / 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchFormat {
    /// Frames and size of a training clip, and its patches.
    pub grid: PatchGrid,
    /// How masks are drawn; without a rule every token is visible and none predicted.
    pub mask_rule: Option<MaskRule>,
    /// Which pixels.
    pub form: Form,
    /// Type of their values.
    pub values: ValueType,
}

/// Parts of the buffer: the tokens of the masks, the pixels or visible ones, and the target.
const TOKENS: usize = 0;
const PIXELS: usize = 1;
const TARGET: usize = 2;

impl BatchFormat {
    /// Visible tokens of a clip.
    ///
    /// # Panics
    /// When the mask rule leaves none visible, or none masked.
    pub fn visible(&self) -> usize {
        self.mask_rule.map_or(self.grid.tokens(), |rule| {
            rule.visible(self.grid)
                .expect("some tokens are visible and some masked")
        })
    }

    /// Predicted tokens of a clip.
    ///
    /// # Panics
    /// When the mask rule leaves none.
    pub fn predicted(&self) -> usize {
        self.mask_rule.map_or(0, |rule| {
            rule.predicted(self.grid)
                .expect("some tokens are predicted")
        })
    }

    /// The layout of a batch of `clips` clips.
    ///
    /// # Panics
    /// As [`Self::visible`] and [`Self::predicted`].
    pub fn layout(&self, clips: usize) -> Layout {
        let grid = self.grid;
        let pixels = match self.form {
            Form::Clips | Form::Tokens => [grid.clip_values(), 0],
            Form::Patches { target } => [
                self.visible() * grid.tubelet_values(),
                self.predicted() * target.values(grid),
            ],
        };
        let [pixels, target] = pixels.map(|values| values * self.values.bytes());
        Layout::new(clips, &[grid.tokens() * size_of::<u32>(), pixels, target])
    }

    /// Draws the mask of `sample` into `tokens`.
    pub(crate) fn draw_mask(
        &self,
        sample: SampleId,
        seed: u64,
        scratch: &mut MaskScratch,
        tokens: &mut [u32],
    ) {
        match self.mask_rule {
            Some(rule) => rule.draw(
                &mut sample.stream(Purpose::Mask, seed),
                self.grid,
                scratch,
                tokens,
            ),
            None => tokens
                .iter_mut()
                .zip(0..)
                .for_each(|(token, number)| *token = number),
        }
    }

    /// Writes the pixels of one sample to its slot, whose mask is drawn already.
    pub(crate) fn write(&self, transform: &mut Transform, clip: ClipView<'_>, slot: SlotMut<'_>) {
        match self.values {
            ValueType::U8 => self.write_as::<u8>(transform, clip, slot),
            ValueType::F32 => self.write_as::<f32>(transform, clip, slot),
            ValueType::Bf16 => self.write_as::<bf16>(transform, clip, slot),
        }
    }

    fn write_as<T: Value>(&self, transform: &mut Transform, clip: ClipView<'_>, slot: SlotMut<'_>) {
        let grid = self.grid;
        let pixels: &mut [T] = bytemuck::cast_slice_mut(slot.pixels);
        match self.form {
            Form::Clips => transform.clip(clip, grid.frames, grid.size, pixels),
            Form::Patches { target: form } => {
                let mask = Mask::new(slot.tokens, self.visible(), self.predicted());
                let target = bytemuck::cast_slice_mut(slot.target);
                transform.patches(
                    clip,
                    grid,
                    mask,
                    form,
                    PatchesMut {
                        visible: pixels,
                        target,
                    },
                );
            }
            Form::Tokens => transform.tokens(clip, grid, pixels),
        }
    }

    /// Writes the pixels of one augmented sample of [`Form::Tokens`] to its slot.
    pub(crate) fn write_augmented(
        &self,
        augmenter: &mut Augmenter,
        augment: &SampleAugment,
        transform: &mut Transform,
        clip: ClipView<'_>,
        slot: SlotMut<'_>,
    ) {
        let (grid, pixels) = (self.grid, slot.pixels);
        match self.values {
            ValueType::U8 => augmenter.tokens::<u8>(augment, transform, clip, grid, pixels),
            ValueType::F32 => augmenter.tokens::<f32>(
                augment,
                transform,
                clip,
                grid,
                bytemuck::cast_slice_mut(pixels),
            ),
            ValueType::Bf16 => augmenter.tokens::<bf16>(
                augment,
                transform,
                clip,
                grid,
                bytemuck::cast_slice_mut(pixels),
            ),
        }
    }
}

/// The memory of one sample in a batch.
pub(crate) struct SlotMut<'a> {
    /// Its mask, as [`MaskRule::draw`] writes it.
    pub(crate) tokens: &'a mut [u32],
    /// Its pixels, or the visible ones.
    pixels: &'a mut [u8],
    /// The target of its predicted tokens.
    target: &'a mut [u8],
}

impl<'a> SlotMut<'a> {
    /// The slots of a batch's parts, in the order of [`BatchFormat::layout`].
    pub(crate) fn new([tokens, pixels, target]: [&'a mut [u8]; 3]) -> Self {
        Self {
            tokens: bytemuck::cast_slice_mut(tokens),
            pixels,
            target,
        }
    }
}

/// The pixels of a batch, as bytes of its [`ValueType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels<'a> {
    /// Of [`Form::Clips`].
    Clips(&'a [u8]),
    /// Of [`Form::Tokens`].
    Tokens(&'a [u8]),
    /// Of [`Form::Patches`].
    Patches {
        /// The visible tubelets.
        visible: &'a [u8],
        /// The target of the predicted tokens.
        target: &'a [u8],
    },
}

/// Bytes of a batch as values of their type.
///
/// # Panics
/// When they are not a whole number of values.
pub fn values<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

/// A clip that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Which one, as its first repeat.
    pub sample: SampleId,
    /// Why, with the file and the place in it.
    pub reason: String,
    /// Whether it is skipped for the first time.
    pub is_new: bool,
}

/// One batch of training clips. Its memory returns to the loader when it is dropped.
///
/// ```
/// use pipeline::loader::batch::{Form, Pixels, values};
/// use pipeline::loader::{Loader, LoaderOptions};
/// # use pipeline::sampling::mask::{MaskKind, MaskRule};
/// # use pipeline::source::{Source, WeightedSource};
/// use pipeline::transform::TargetForm;
/// # use schemas::geometry::PatchGrid;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = pipeline::shard::synthetic::write(dir.path(), 8)?;
/// # let source = WeightedSource::from(Source::Shards(data));
/// # let grid = PatchGrid { frames: 8, size: 32, tubelet: 2, patch: 8 };
/// let mut options = LoaderOptions::new(4, grid, MaskRule::new(MaskKind::Random, 0.75));
/// options.format.form = Form::Patches { target: TargetForm::Pixels { slices: 1 } };
/// let mut loader = Loader::new([source].into(), options)?;
/// let batch = loader.next().expect("an endless loader")?;
///
/// assert_eq!((batch.len(), batch.samples.len(), batch.labels.len()), (4, 4, 4));
/// let Pixels::Patches { visible, target } = batch.pixels() else { unreachable!("as asked for") };
/// let (visible, target): (&[f32], &[f32]) = (values(visible), values(target));
/// assert_eq!(visible.len(), 4 * batch.masks().visible() * grid.tubelet_values());
/// assert_eq!(target.len(), 4 * batch.masks().predicted() * grid.target_values(1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Batch {
    /// The layout of its samples.
    pub format: BatchFormat,
    /// Which samples these are, in order.
    pub samples: Vec<SampleId>,
    /// Class number of each clip.
    pub labels: Vec<Option<i32>>,
    /// Clips that are missing from it, because they could not be read.
    pub skipped: Vec<Skipped>,
    /// The places without a clip among those that were asked for, ascending: one for each skipped
    /// clip. The others follow each other in `samples`.
    pub gaps: Vec<usize>,
    /// Masks and pixels.
    pub buffer: Buffer,
    /// Where the next batch begins.
    pub next: Cursor,
    /// How long the caller waited for this batch.
    pub wait: Duration,
}

impl Batch {
    /// Number of clips.
    pub const fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no clips: see [`super::LoaderOptions::keeps_empty`].
    pub const fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Which of the clips are those of `places`: clips that are missing have a place, but no
    /// number.
    pub fn clips_at(&self, places: Range<usize>) -> Range<usize> {
        let number = |place: usize| place - self.gaps.partition_point(|&gap| gap < place);
        number(places.start)..number(places.end)
    }

    /// The clips' masks.
    pub fn masks(&self) -> Masks<'_> {
        Masks::new(
            values(self.buffer.part(TOKENS)),
            self.format.grid.tokens(),
            self.format.visible(),
        )
        .predicting(self.format.predicted())
    }

    /// The bytes of the pixels of whole clips, to change in place.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        self.buffer.part_mut(PIXELS)
    }

    /// The clips' pixels.
    pub fn pixels(&self) -> Pixels<'_> {
        match self.format.form {
            Form::Clips => Pixels::Clips(self.buffer.part(PIXELS)),
            Form::Tokens => Pixels::Tokens(self.buffer.part(PIXELS)),
            Form::Patches { .. } => Pixels::Patches {
                visible: self.buffer.part(PIXELS),
                target: self.buffer.part(TARGET),
            },
        }
    }
}

/// Batches are equal when they train alike: neither the time they took counts, nor which clips were
/// skipped.
impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.format == other.format
            && self.samples == other.samples
            && self.labels == other.labels
            && self.next == other.next
            && self.masks() == other.masks()
            && self.pixels() == other.pixels()
    }
}
