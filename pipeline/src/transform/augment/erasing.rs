//! Random erasing (Zhong et al. 2020): a box of noise.

use crate::sampling::sample::Crop;
use crate::transform::{Value, from_normalised};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Least and greatest area of a box, as shares of the frame's.
const AREA: [f64; 2] = [0.02, 1.0 / 3.0];

/// Least aspect of a box, height over width; the greatest is its inverse.
const LEAST_ASPECT: f64 = 0.3;

/// Tries at a box that is smaller than the frame, before nothing is erased.
const TRIES: usize = 10;

/// Settings of random erasing.
///
/// ```
/// use pipeline::sampling::order::{Purpose, stream};
/// use pipeline::transform::augment::Erasing;
///
/// let mut clip = vec![0f32; 3 * 4 * 32 * 32];
/// let mut rng = stream(Purpose::Erasing, 0, 0, 0);
/// let erased = Erasing { probability: 1.0 }.draw(&mut rng, 32).expect("a box");
/// erased.apply(&mut clip, 4, 32);
/// let noise = clip.iter().filter(|&&value| value != 0.0).count();
/// assert_eq!(noise, 3 * 4 * erased.area.width * erased.area.height);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Erasing {
    /// Probability that a box is erased, from 0 to 1. The default is 0.25.
    pub probability: f64,
}

impl Default for Erasing {
    fn default() -> Self {
        Self { probability: 0.25 }
    }
}

/// The box of a clip that is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// The box, the same in all frames.
    pub area: Crop,
    /// Seed of the noise that it is filled with.
    pub noise: u64,
}

impl Erasing {
    /// Draws the box, if any, of a clip of frames of `side` x `side` pixels: area uniform in 0.02
    /// to 1/3 of the frame's, aspect uniform in its logarithm in 0.3 to 1/0.3, anywhere in the
    /// frame.
    pub fn draw(&self, rng: &mut impl Rng, side: usize) -> Option<Erased> {
        if rng.random::<f64>() >= self.probability {
            return None;
        }
        let uniform = |rng: &mut _, [least, greatest]: [f64; 2]| {
            least + RngExt::random::<f64>(rng) * (greatest - least)
        };
        for _ in 0..TRIES {
            let area = (side * side) as f64 * uniform(rng, AREA);
            let aspect = uniform(rng, [LEAST_ASPECT.ln(), -LEAST_ASPECT.ln()]).exp();
            let (height, width) = (
                (area * aspect).sqrt().round() as usize,
                (area / aspect).sqrt().round() as usize,
            );
            if height < side && width < side {
                let top = rng.random_range(0..=side - height);
                let left = rng.random_range(0..=side - width);
                return Some(Erased {
                    area: Crop {
                        left,
                        top,
                        width,
                        height,
                    },
                    noise: rng.random(),
                });
            }
        }
        None
    }
}

impl Erased {
    /// Fills the box in each frame of `clip`, `[3, frames, side, side]`, with normal noise, drawn
    /// for every value: of mean 0 and standard deviation 1 for normalised values, and the same
    /// converted to bytes for bytes.
    ///
    /// # Panics
    /// When the clip has a different length, or the box does not lie within a frame.
    pub fn apply<T: Value>(&self, clip: &mut [T], frames: usize, side: usize) {
        assert_eq!(clip.len(), 3 * frames * side * side, "values of a clip");
        let Crop {
            left,
            top,
            width,
            height,
        } = self.area;
        assert!(
            left + width <= side && top + height <= side,
            "a box within the frame"
        );
        if clip.is_empty() {
            return;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.noise);
        for plane in clip.chunks_exact_mut(side * side) {
            for row in plane.chunks_exact_mut(side).skip(top).take(height) {
                for value in &mut row[left..left + width] {
                    *value = from_normalised(StandardNormal.sample(&mut rng));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use crate::transform::{MEAN, STD};

    fn draws(probability: f64, clips: u64) -> Vec<Option<Erased>> {
        (0..clips)
            .map(|clip| {
                Erasing { probability }.draw(&mut stream(Purpose::Augment, 1, 0, clip), 224)
            })
            .collect()
    }

    #[test]
    fn a_quarter_of_the_clips_has_a_box() {
        let boxes = draws(Erasing::default().probability, 4000)
            .into_iter()
            .flatten()
            .count();
        // 1000, give or take five standard deviations.
        assert!((863..1137).contains(&boxes), "{boxes}");
        assert!(
            draws(0.0, 100).iter().all(Option::is_none)
                && draws(1.0, 100).iter().all(Option::is_some)
        );
        assert_eq!(draws(1.0, 50), draws(1.0, 50));
    }

    #[test]
    fn boxes_lie_in_the_frame_within_bounds_of_area_and_aspect() {
        let boxes: Vec<Crop> = draws(1.0, 2000)
            .into_iter()
            .flatten()
            .map(|erased| erased.area)
            .collect();
        let mut areas = [1.0f64, 0.0];
        let (mut tall, mut upper_left) = (0, 0);
        for &Crop {
            left,
            top,
            width,
            height,
        } in &boxes
        {
            assert!(left + width <= 224 && top + height <= 224);
            let (area, aspect) = (
                (width * height) as f64 / (224.0 * 224.0),
                height as f64 / width as f64,
            );
            areas = [areas[0].min(area), areas[1].max(area)];
            // Sides are rounded to whole pixels, of at least 17.
            assert!(
                (0.019..0.344).contains(&area) && (0.285..3.51).contains(&aspect),
                "{area} {aspect}"
            );
            tall += usize::from(height > width);
            upper_left += usize::from(2 * left + width < 224 && 2 * top + height < 224);
        }
        assert!(areas[0] < 0.025 && areas[1] > 0.32, "{areas:?}");
        assert!(
            (850..1150).contains(&tall) && (400..600).contains(&upper_left),
            "{tall} {upper_left}"
        );
    }

    #[test]
    fn the_box_is_the_same_in_all_frames_and_nothing_else_is_touched() {
        let (frames, side) = (4, 32);
        let area = Crop {
            left: 3,
            top: 5,
            width: 10,
            height: 7,
        };
        let mut clip = vec![100f32; 3 * frames * side * side];
        Erased { area, noise: 9 }.apply(&mut clip, frames, side);
        for (at, &value) in clip.iter().enumerate() {
            let (x, y) = (at % side, at / side % side);
            let is_inside = (3..13).contains(&x) && (5..12).contains(&y);
            assert_eq!(value == 100.0, !is_inside, "{value} at {x} {y}");
        }
        let mut again = vec![100f32; clip.len()];
        Erased { area, noise: 9 }.apply(&mut again, frames, side);
        assert!(again == clip, "a seed names its noise");
        Erased { area, noise: 10 }.apply(&mut again, frames, side);
        assert!(again != clip);
    }

    #[test]
    fn noise_is_normal_in_numbers_and_in_bytes() {
        let (frames, side) = (2, 64);
        let whole = Erased {
            area: Crop {
                left: 0,
                top: 0,
                width: side,
                height: side,
            },
            noise: 5,
        };
        let (mut numbers, mut bytes) = (
            vec![0f32; 3 * frames * side * side],
            vec![0u8; 3 * frames * side * side],
        );
        whole.apply(&mut numbers, frames, side);
        whole.apply(&mut bytes, frames, side);
        let count = numbers.len() as f32;
        let mean = numbers.iter().sum::<f32>() / count;
        let deviation = (numbers.iter().map(|value| value * value).sum::<f32>() / count).sqrt();
        assert!(
            mean.abs() < 0.03 && (deviation - 1.0).abs() < 0.03,
            "{mean} {deviation}"
        );
        for (&number, &byte) in numbers.iter().zip(&bytes) {
            let exact = ((number * STD + MEAN) * 255.0).clamp(0.0, 255.0);
            assert!((f32::from(byte) - exact).abs() < 0.51, "{byte} for {exact}");
        }
        // A pixel's channels, and a place's frames, differ.
        assert!(numbers[0] != numbers[side * side] && numbers[0] != numbers[frames * side * side]);
    }
}
