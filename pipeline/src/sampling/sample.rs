//! Which window, crop and flip a sample gets: pure functions of its random stream.

use rand::{Rng, RngExt};
use schemas::geometry::FrameSize;
use serde::{Deserialize, Serialize};

/// Tries at a random crop before the central one is taken.
const CROP_TRIES: usize = 10;

/// Ranges from which crops and flips are drawn. The defaults are those of pre-training in the
/// paper.
///
/// ```
/// use pipeline::sampling::order::{Purpose, stream};
/// use pipeline::sampling::sample::Augmentation;
/// use schemas::geometry::FrameSize;
///
/// let size = FrameSize { width: 456, height: 256 };
/// let mut rng = stream(Purpose::Augment, 0, 0, 0);
/// // 16 frames of a stored clip of 32.
/// let view = Augmentation::default().draw(&mut rng, 32, 16, size);
/// assert!(view.first_frame <= 16);
/// assert!(view.crop.left + view.crop.width <= size.width);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Least and greatest share of the frame's area.
    pub area: [f64; 2],
    /// Least and greatest aspect, width over height.
    pub aspect: [f64; 2],
    /// Probability of a flip left to right.
    pub flip: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            area: [0.5, 1.0],
            aspect: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
        }
    }
}

/// A rectangle of pixels, the same in all frames of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// The part of a stored clip that is used: a window of frames, a crop of each, and a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// First stored frame that is used; the next ones follow without a gap.
    pub first_frame: usize,
    /// The part of each frame that is used.
    pub crop: Crop,
    /// Whether left and right are swapped.
    pub flip: bool,
}

impl Augmentation {
    /// Draws a view of `frames` frames of a stored clip of `stored_frames` frames of `size`.
    ///
    /// # Panics
    /// When the stored clip has fewer than `frames` frames.
    pub fn draw(
        &self,
        rng: &mut impl Rng,
        stored_frames: usize,
        frames: usize,
        size: FrameSize,
    ) -> View {
        let first_frame = Self::draw_first_frame(rng, stored_frames, frames);
        let crop = self.draw_crop(rng, size);
        View {
            first_frame,
            crop,
            flip: rng.random_bool(self.flip),
        }
    }

    /// Draws [`View::first_frame`] alone, as [`Self::draw`] does with the same generator.
    ///
    /// # Panics
    /// When the stored clip has fewer than `frames` frames.
    pub fn draw_first_frame(rng: &mut impl Rng, stored_frames: usize, frames: usize) -> usize {
        rng.random_range(0..=stored_frames - frames)
    }

    /// A random resized crop: area uniform, aspect uniform in its logarithm, and when ten draws do
    /// not fit, the largest central crop whose aspect is in range (as torchvision's
    /// `RandomResizedCrop`).
    fn draw_crop(&self, rng: &mut impl Rng, size: FrameSize) -> Crop {
        let (width, height) = (size.width as f64, size.height as f64);
        for _ in 0..CROP_TRIES {
            let area = width * height * uniform(rng, self.area);
            let aspect = uniform(rng, self.aspect.map(f64::ln)).exp();
            let (crop_width, crop_height) = (
                (area * aspect).sqrt().round() as usize,
                (area / aspect).sqrt().round() as usize,
            );
            if (1..=size.width).contains(&crop_width) && (1..=size.height).contains(&crop_height) {
                let top = rng.random_range(0..=size.height - crop_height);
                let left = rng.random_range(0..=size.width - crop_width);
                return Crop {
                    left,
                    top,
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        let aspect = (width / height).clamp(self.aspect[0], self.aspect[1]);
        let crop_width = ((height * aspect).round() as usize).clamp(1, size.width);
        let crop_height = ((width / aspect).round() as usize).clamp(1, size.height);
        Crop {
            left: (size.width - crop_width) / 2,
            top: (size.height - crop_height) / 2,
            width: crop_width,
            height: crop_height,
        }
    }
}

/// Fixed views of a clip, for evaluation: `temporal` windows spread evenly from its first frames to
/// its last, and of each `spatial` squares as large as the frame allows, spread evenly along its
/// longer side. A single one is in the middle.
///
/// ```
/// use pipeline::sampling::sample::Views;
/// use schemas::geometry::FrameSize;
///
/// let views = Views { temporal: 2, spatial: 3 };
/// let size = FrameSize { width: 340, height: 256 };
/// let lefts: Vec<usize> = (0..3).map(|index| views.view(index, 64, 16, size).crop.left).collect();
/// assert_eq!(lefts, [0, 42, 84]);
/// assert_eq!(views.view(3, 64, 16, size).first_frame, 48);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Views {
    /// Windows per clip.
    pub temporal: usize,
    /// Crops per window.
    pub spatial: usize,
}

impl Views {
    /// The middle of a clip.
    pub const ONE: Self = Self {
        temporal: 1,
        spatial: 1,
    };

    /// Views of a clip.
    pub const fn count(self) -> usize {
        self.temporal * self.spatial
    }

    /// View `index` of `frames` frames, of a stored clip of `stored_frames` frames of `size`: all
    /// crops of the first window, then those of the next.
    ///
    /// # Panics
    /// When the stored clip has fewer than `frames` frames.
    pub fn view(self, index: usize, stored_frames: usize, frames: usize, size: FrameSize) -> View {
        assert!(
            frames <= stored_frames,
            "{frames} frames of {stored_frames}"
        );
        let side = size.width.min(size.height);
        let at = spread(
            index % self.spatial,
            self.spatial,
            size.width.max(size.height) - side,
        );
        let (left, top) = if size.width > size.height {
            (at, 0)
        } else {
            (0, at)
        };
        let first_frame = spread(index / self.spatial, self.temporal, stored_frames - frames);
        View {
            first_frame,
            crop: Crop {
                left,
                top,
                width: side,
                height: side,
            },
            flip: false,
        }
    }
}

/// Place `index` of `count` spread evenly over 0 to `room`; a single one is in the middle.
fn spread(index: usize, count: usize, room: usize) -> usize {
    if count == 1 {
        room / 2
    } else {
        (index * room + (count - 1) / 2) / (count - 1)
    }
}

/// The view for pictures: the first frames, the largest central square, no flip.
pub fn central_view(size: FrameSize) -> View {
    let side = size.width.min(size.height);
    let crop = Crop {
        left: (size.width - side) / 2,
        top: (size.height - side) / 2,
        width: side,
        height: side,
    };
    View {
        first_frame: 0,
        crop,
        flip: false,
    }
}

fn uniform(rng: &mut impl Rng, [least, greatest]: [f64; 2]) -> f64 {
    least + (greatest - least) * rng.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_view_lies_inside_its_clip(
            width in 1usize..700,
            height in 1usize..700,
            stored in 1usize..40,
            seed: u64,
        ) {
            let frames = stored.div_ceil(2);
            let mut rng = stream(Purpose::Augment, seed, 0, 0);
            let size = FrameSize { width, height };
            let view = Augmentation::default().draw(&mut rng, stored, frames, size);
            prop_assert!(view.first_frame + frames <= stored);
            prop_assert!(view.crop.width >= 1 && view.crop.left + view.crop.width <= width);
            prop_assert!(view.crop.height >= 1 && view.crop.top + view.crop.height <= height);
        }
    }

    #[test]
    fn crops_have_the_area_and_aspect_that_were_asked_for() {
        let size = FrameSize {
            width: 340,
            height: 256,
        };
        let (mut areas, mut flips) = (Vec::new(), 0);
        for seed in 0..2000 {
            let view = Augmentation::default().draw(
                &mut stream(Purpose::Augment, seed, 0, 0),
                16,
                16,
                size,
            );
            let (width, height) = (view.crop.width as f64, view.crop.height as f64);
            let aspect = width / height;
            assert!((0.74..1.35).contains(&aspect), "aspect {aspect}");
            areas.push(width * height / (340.0 * 256.0));
            flips += usize::from(view.flip);
        }
        areas.sort_by(f64::total_cmp);
        assert!(
            areas[0] > 0.495 && areas[0] < 0.51,
            "least area {}",
            areas[0]
        );
        assert!(areas[1999] > 0.95, "greatest area {}", areas[1999]);
        assert!((900..1100).contains(&flips), "{flips} flips of 2000");
    }

    #[test]
    fn a_frame_too_long_for_any_crop_gives_the_central_one() {
        let size = FrameSize {
            width: 1000,
            height: 10,
        };
        let view =
            Augmentation::default().draw(&mut stream(Purpose::Augment, 1, 0, 0), 16, 16, size);
        assert_eq!(
            view.crop,
            Crop {
                left: 493,
                top: 0,
                width: 13,
                height: 10
            }
        );
    }
}
