//! The order of the frames of a training clip: a control of how much of a task is motion.

use crate::frames::Frames;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use schemas::geometry::FrameSize;
use serde::{Deserialize, Serialize};

/// The order of a clip's frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameOrder {
    /// As in the video.
    #[default]
    Time,
    /// In a random order.
    Shuffled,
    /// One frame, in place of all: drawn at random in training, the middle one in a single pass.
    Single,
}

impl FrameOrder {
    /// Whether it is [`Self::Time`].
    pub fn is_time(&self) -> bool {
        *self == Self::Time
    }

    /// Which of `count` frames is at each place.
    fn indices(self, count: usize, rng: &mut impl Rng, is_training: bool) -> Vec<usize> {
        match self {
            Self::Time => (0..count).collect(),
            Self::Shuffled => {
                let mut indices: Vec<usize> = (0..count).collect();
                indices.shuffle(rng);
                indices
            }
            Self::Single if is_training => vec![rng.random_range(0..count); count],
            Self::Single => vec![count / 2; count],
        }
    }

    /// Copies frames of `size` to `out` in this order, and returns them.
    pub(crate) fn reorder<'a>(
        self,
        frames: Frames<'_>,
        size: FrameSize,
        rng: &mut impl Rng,
        is_training: bool,
        out: &'a mut Vec<u8>,
    ) -> Frames<'a> {
        let frame_bytes = frames.frame_bytes(size);
        let count = frames.bytes().len() / frame_bytes;
        out.clear();
        for index in self.indices(count, rng, is_training) {
            out.extend_from_slice(&frames.bytes()[index * frame_bytes..][..frame_bytes]);
        }
        frames.alike(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};

    fn reordered(order: FrameOrder, index: u64, is_training: bool) -> Vec<u8> {
        let size = FrameSize {
            width: 1,
            height: 1,
        };
        let bytes: Vec<u8> = (0..8).flat_map(|frame| [frame; 3]).collect();
        let mut rng = stream(Purpose::FrameOrder, 0, 0, index);
        let mut out = Vec::new();
        let frames = order.reorder(Frames::Rgb(&bytes), size, &mut rng, is_training, &mut out);
        frames.bytes().iter().step_by(3).copied().collect()
    }

    #[test]
    fn each_order_has_its_frames() {
        let in_time: Vec<u8> = (0..8).collect();
        assert_eq!(reordered(FrameOrder::Time, 0, true), in_time);
        let shuffled = reordered(FrameOrder::Shuffled, 0, true);
        assert_ne!(shuffled, in_time);
        assert_ne!(shuffled, reordered(FrameOrder::Shuffled, 1, true));
        let mut sorted = shuffled;
        sorted.sort_unstable();
        assert_eq!(sorted, in_time);
        assert_eq!(reordered(FrameOrder::Single, 0, false), [4; 8]);
        let drawn: Vec<Vec<u8>> = (0..20)
            .map(|index| reordered(FrameOrder::Single, index, true))
            .collect();
        assert!(
            drawn
                .iter()
                .all(|frames| frames.iter().all(|at| *at == frames[0]))
        );
        assert!(drawn.iter().any(|frames| frames[0] != drawn[0][0]));
    }
}
