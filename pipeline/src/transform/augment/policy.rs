//! How the look of a sample is changed, from drawing it to the tubelets that a batch holds.

use super::{Erasing, RandAugment, RandAugmenter};
use crate::frames::Frames;
use crate::sampling::order::{Purpose, SampleId};
use crate::sampling::sample::View;
use crate::transform::{MEAN, STD, Transform, Value, from_normalised};
use schemas::geometry::{FrameSize, PatchGrid};
use serde::{Deserialize, Serialize};

/// How the look of samples is changed; by default not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentPolicy {
    /// Changes of colours and shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// A box of noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<Erasing>,
}

/// Makes clips of a changed policy. Uses its memory again from clip to clip.
#[derive(Debug, Default)]
pub(crate) struct Augmenter {
    augmenter: RandAugmenter,
    bytes: Vec<u8>,
    /// A clip of values of any type: none is larger.
    values: Vec<f32>,
}

impl AugmentPolicy {
    /// Whether it changes anything.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::default()
    }
}

impl Augmenter {
    /// Writes the view of a clip, as [`Transform::tokens`] does, with the look of `sample` under `seed`.
    pub(crate) fn tokens<T: Value>(
        &mut self,
        policy: AugmentPolicy,
        (sample, seed): (SampleId, u64),
        transform: &mut Transform,
        clip: Frames<'_>,
        size: FrameSize,
        view: View,
        grid: PatchGrid,
        out: &mut [T],
    ) {
        let PatchGrid { frames, size: side, .. } = grid;
        self.values.resize(grid.clip_values(), 0.0);
        let values: &mut [T] = &mut bytemuck::cast_slice_mut(&mut self.values)[..grid.clip_values()];
        if let Some(rand_augment) = policy.rand_augment {
            self.bytes.resize(grid.clip_values(), 0);
            transform.clip(clip, size, view, frames, side, &mut self.bytes);
            let operations = rand_augment.draw(&mut sample.stream(Purpose::RandAugment, seed));
            self.augmenter.apply(&operations, &mut self.bytes, frames, side);
            let table: [T; 256] = std::array::from_fn(|byte| from_normalised((byte as f32 / 255.0 - MEAN) / STD));
            values.iter_mut().zip(&self.bytes).for_each(|(value, &byte)| *value = table[usize::from(byte)]);
        } else {
            transform.clip(clip, size, view, frames, side, values);
        }
        if let Some(erased) = policy.erasing.and_then(|erasing| erasing.draw(&mut sample.stream(Purpose::Erasing, seed), side)) {
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
            let (channel, frame, row) = (line / (grid.tubelet * patch), line / patch % grid.tubelet, line % patch);
            let at = ((channel * grid.frames + time * grid.tubelet + frame) * side + top + row) * side + left;
            values.copy_from_slice(&clip[at..at + patch]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Color;
    use crate::sampling::sample::central_view;
    use schemas::shard::{ColorMatrix, ColorRange};

    #[test]
    fn a_plain_look_is_that_of_the_transform_and_another_is_not() {
        let (grid, size) = (PatchGrid { frames: 4, size: 24, tubelet: 2, patch: 8 }, FrameSize { width: 40, height: 30 });
        let bytes: Vec<u8> = (0..4 * size.frame_bytes()).map(|at| (at * 7919 % 251) as u8).collect();
        let clip = Frames::I420(&bytes, Color { range: ColorRange::Limited, matrix: ColorMatrix::Bt601 });
        let (mut transform, mut augmenter) = (Transform::default(), Augmenter::default());
        let of = |policy: AugmentPolicy, sample: u64, augmenter: &mut Augmenter, transform: &mut Transform| {
            let sample = (SampleId { set: 0, epoch: 0, clip: sample, repeat: 0 }, 3);
            let mut out = vec![0f32; grid.clip_values()];
            augmenter.tokens(policy, sample, transform, clip, size, central_view(size), grid, &mut out);
            out
        };
        let mut plain = vec![0f32; grid.clip_values()];
        transform.tokens(clip, size, central_view(size), grid, &mut plain);
        assert!(of(AugmentPolicy::default(), 0, &mut augmenter, &mut transform) == plain);
        // Nothing is done, but bytes are made on the way: half a step of 255 off at most.
        let idle = AugmentPolicy { rand_augment: Some(RandAugment { operations: 0, ..RandAugment::default() }), erasing: None };
        let rounded = of(idle, 0, &mut augmenter, &mut transform);
        assert!(rounded.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 0.501 / 255.0 / STD));
        let erasing = AugmentPolicy { erasing: Some(Erasing { probability: 1.0 }), ..AugmentPolicy::default() };
        let (erased, again) = (of(erasing, 1, &mut augmenter, &mut transform), of(erasing, 1, &mut augmenter, &mut transform));
        assert!(erased == again && erased != plain && erased != of(erasing, 2, &mut augmenter, &mut transform));
    }
}
