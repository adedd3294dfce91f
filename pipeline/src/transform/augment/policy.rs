//! How samples are augmented: from drawing what is done to the tubelets that a batch holds.

use super::{Erased, Erasing, Operation, RandAugment, RandAugmenter};
use crate::sampling::order::{Purpose, SampleId};
use crate::transform::{ClipView, MEAN, STD, Transform, Value, from_normalised};
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};

/// How samples are augmented beyond crop and flip; by default not at all.
///
/// ```
/// use pipeline::loader::LoaderOptions;
/// use pipeline::transform::augment::{AugmentPolicy, Erasing, RandAugment};
/// # use schemas::geometry::PatchGrid;
///
/// # let grid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };
/// // For fine-tuning.
/// let policy = AugmentPolicy {
///     rand_augment: Some(RandAugment { magnitude: 9.0, ..RandAugment::default() }),
///     erasing: Some(Erasing::default()),
/// };
/// let options = LoaderOptions { policy, ..LoaderOptions::tokens(8, grid) };
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentPolicy {
    /// RandAugment: changes of colours and shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// Random erasing: a box of noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<Erasing>,
}

/// What is done to one sample: drawn by [`AugmentPolicy::draw`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleAugment {
    /// RandAugment's operations in order; none where the policy has no RandAugment.
    operations: Option<Vec<Operation>>,
    erased: Option<Erased>,
}

impl AugmentPolicy {
    /// Whether it changes nothing.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// Draws what is done to `sample` under `seed`, whose frames have `side` x `side` pixels.
    pub(crate) fn draw(self, sample: SampleId, seed: u64, side: usize) -> SampleAugment {
        let stream = |purpose| sample.stream(purpose, seed);
        let operations = self
            .rand_augment
            .map(|policy| policy.draw(&mut stream(Purpose::RandAugment)));
        let erased = self
            .erasing
            .and_then(|policy| policy.draw(&mut stream(Purpose::Erasing), side));
        SampleAugment { operations, erased }
    }
}

/// Makes augmented clips. Reuses its memory from clip to clip.
#[derive(Debug, Default)]
pub(crate) struct Augmenter {
    augmenter: RandAugmenter,
    bytes: Vec<u8>,
    /// A clip of values of any type: none is larger.
    values: Vec<f32>,
}

impl Augmenter {
    /// Writes `clip`, as [`Transform::tokens`] does, with `augment` applied.
    pub(crate) fn tokens<T: Value>(
        &mut self,
        augment: &SampleAugment,
        transform: &mut Transform,
        clip: ClipView<'_>,
        grid: PatchGrid,
        out: &mut [T],
    ) {
        let PatchGrid {
            frames, size: side, ..
        } = grid;
        self.values.resize(grid.clip_values(), 0.0);
        let values: &mut [T] =
            &mut bytemuck::cast_slice_mut(&mut self.values)[..grid.clip_values()];
        if let Some(operations) = &augment.operations {
            self.bytes.resize(grid.clip_values(), 0);
            transform.clip(clip, frames, side, &mut self.bytes);
            self.augmenter
                .apply(operations, &mut self.bytes, frames, side);
            let table: [T; 256] =
                std::array::from_fn(|byte| from_normalised((byte as f32 / 255.0 - MEAN) / STD));
            values
                .iter_mut()
                .zip(&self.bytes)
                .for_each(|(value, &byte)| *value = table[usize::from(byte)]);
        } else {
            transform.clip(clip, frames, side, values);
        }
        if let Some(erased) = &augment.erased {
            erased.apply(values, frames, side);
        }
        scatter(values, grid, out);
    }
}

/// `[3, frames, side, side]` to `[tokens, 3, tubelet, patch, patch]`.
fn scatter<T: Copy>(clip: &[T], grid: PatchGrid, out: &mut [T]) {
    let (side, patch) = (grid.size, grid.patch);
    for (token, tubelet) in out.chunks_exact_mut(grid.tubelet_values()).enumerate() {
        let (time, place) = (token / grid.space(), token % grid.space());
        let (top, left) = (place / grid.side() * patch, place % grid.side() * patch);
        for (line, values) in tubelet.chunks_exact_mut(patch).enumerate() {
            let (channel, frame, row) = (
                line / (grid.tubelet * patch),
                line / patch % grid.tubelet,
                line % patch,
            );
            let at = ((channel * grid.frames + time * grid.tubelet + frame) * side + top + row)
                * side
                + left;
            values.copy_from_slice(&clip[at..at + patch]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Color, Frames};
    use crate::sampling::sample::central_view;
    use schemas::geometry::FrameSize;
    use schemas::shard::{ColorMatrix, ColorRange};

    #[test]
    fn a_plain_policy_gives_the_transforms_tokens_and_others_do_not() {
        let grid = PatchGrid {
            frames: 4,
            size: 24,
            tubelet: 2,
            patch: 8,
        };
        let size = FrameSize {
            width: 40,
            height: 30,
        };
        let bytes: Vec<u8> = (0..4 * size.frame_bytes())
            .map(|at| (at * 7919 % 251) as u8)
            .collect();
        let frames = Frames::I420(
            &bytes,
            Color {
                range: ColorRange::Limited,
                matrix: ColorMatrix::Bt601,
            },
        );
        let clip = ClipView {
            frames,
            size,
            view: central_view(size),
        };
        let mut transform = Transform::default();
        let mut augmenter = Augmenter::default();
        let mut augmented = |policy: AugmentPolicy, clip_number: u64| {
            let sample = SampleId {
                set: 0,
                epoch: 0,
                clip: clip_number,
                repeat: 0,
            };
            let mut out = vec![0f32; grid.clip_values()];
            augmenter.tokens(
                &policy.draw(sample, 3, grid.size),
                &mut transform,
                clip,
                grid,
                &mut out,
            );
            out
        };
        let mut plain = vec![0f32; grid.clip_values()];
        Transform::default().tokens(clip, grid, &mut plain);
        assert!(augmented(AugmentPolicy::default(), 0) == plain);
        // No operation, but values pass through bytes: at most half a step of 255 off.
        let no_operations = RandAugment {
            operations: 0,
            ..RandAugment::default()
        };
        let rounded = augmented(
            AugmentPolicy {
                rand_augment: Some(no_operations),
                erasing: None,
            },
            0,
        );
        assert!(
            rounded
                .iter()
                .zip(&plain)
                .all(|(a, b)| (a - b).abs() <= 0.501 / 255.0 / STD)
        );
        let erasing = AugmentPolicy {
            erasing: Some(Erasing { probability: 1.0 }),
            ..AugmentPolicy::default()
        };
        let erased = augmented(erasing, 1);
        assert!(
            erased == augmented(erasing, 1) && erased != plain && erased != augmented(erasing, 2)
        );
    }
}
