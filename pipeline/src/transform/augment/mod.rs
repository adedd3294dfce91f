//! Augmentations of fine-tuning: RandAugment and random erasing, the same for all frames of a clip.
//!
//! Operations are drawn first ([`RandAugment::draw`], [`Erasing::draw`]: pure functions of a random
//! stream) and applied afterwards. RandAugment works on bytes, random erasing on values of any
//! type; a clip is `[3, frames, side, side]`, as
//! [`Transform::clip`](crate::transform::Transform::clip) makes it.
//!
//! RandAugment (Cubuk et al. 2020) is `rand-m7-mstd0.5-inc1` of timm, as in VideoMAE's fine-tuning:
//! the same operations, probabilities and parameters, and for operations on colours the same bytes
//! as Pillow. Three things differ from VideoMAE. It augments whole frames and crops afterwards;
//! here the crop is augmented, which is less work, and the fill enters from beyond its edge. It
//! fills with 128; here the fill is the mean of the normalisation. And it interpolates bicubically,
//! here bilinearly.

mod erasing;
mod operations;
mod policy;

pub use erasing::{Erased, Erasing};
pub use operations::RandAugmenter;
pub use policy::AugmentPolicy;
pub(crate) use policy::{Augmenter, SampleAugment};

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Greatest magnitude; parameters are shares of it.
const GREATEST_MAGNITUDE: f64 = 10.0;

/// Probability with which each of the drawn operations is applied.
const PROBABILITY: f64 = 0.5;

/// Kinds of operations.
const KINDS: usize = 15;

/// Settings of RandAugment.
///
/// ```
/// use pipeline::sampling::order::{Purpose, stream};
/// use pipeline::transform::augment::{RandAugment, RandAugmenter};
///
/// // A clip of 4 frames of 32 x 32, R'G'B'.
/// let mut clip = vec![100; 3 * 4 * 32 * 32];
/// let mut rng = stream(Purpose::RandAugment, 0, 0, 0);
/// let operations = RandAugment::default().draw(&mut rng);
/// RandAugmenter::default().apply(&operations, &mut clip, 4, 32);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations that are drawn per clip; each is applied with a probability of one half. The
    /// default is 2.
    pub operations: usize,
    /// Mean of the operations' magnitude, from 0 (little or no change) to 10. The default is 7.
    pub magnitude: f64,
    /// Standard deviation of the magnitude, which is normal and clipped to 0..=10. The default is
    /// 0.5.
    pub deviation: f64,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            operations: 2,
            magnitude: 7.0,
            deviation: 0.5,
        }
    }
}

/// One operation on a clip, the same for all of its frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Stretches each channel of each frame to 0..=255.
    AutoContrast,
    /// Makes the values of each channel of each frame equally frequent.
    Equalize,
    /// The negative.
    Invert,
    /// Rotates about the centre.
    Rotate {
        /// Counterclockwise.
        degrees: f64,
    },
    /// Keeps the upper bits of each value.
    Posterize {
        /// Bits that are kept: 0 is black, 8 changes nothing.
        bits: u32,
    },
    /// Inverts values that are not below a threshold.
    Solarize {
        /// 0 inverts all, 256 none.
        threshold: u16,
    },
    /// Adds to values below 128.
    SolarizeAdd {
        /// The summand.
        add: u8,
    },
    /// Blends the grey frame, at 0, and the frame, at 1; extrapolates beyond.
    Color {
        /// Weight of the frame.
        factor: f64,
    },
    /// Blends the mean grey of each frame, at 0, and the frame, at 1; extrapolates beyond.
    Contrast {
        /// Weight of the frame.
        factor: f64,
    },
    /// Blends black, at 0, and the frame, at 1; extrapolates beyond.
    Brightness {
        /// Weight of the frame.
        factor: f64,
    },
    /// Blends a smoothed frame, at 0, and the frame, at 1; extrapolates beyond.
    Sharpness {
        /// Weight of the frame.
        factor: f64,
    },
    /// Moves rows to the left, the more the lower they are.
    ShearX {
        /// Columns per row.
        factor: f64,
    },
    /// Moves columns up, the more the further to the right they are.
    ShearY {
        /// Rows per column.
        factor: f64,
    },
    /// Moves to the left.
    TranslateX {
        /// Share of the side.
        share: f64,
    },
    /// Moves up.
    TranslateY {
        /// Share of the side.
        share: f64,
    },
}

impl RandAugment {
    /// Draws the operations of a clip in their order: each is one of the 15 kinds, drawn with
    /// replacement.
    pub fn draw(&self, rng: &mut impl Rng) -> Vec<Operation> {
        let mut operations = Vec::with_capacity(self.operations);
        for _ in 0..self.operations {
            let kind = rng.random_range(0..KINDS);
            let is_applied = rng.random_bool(PROBABILITY);
            let normal: f64 = StandardNormal.sample(rng);
            let share = (self.magnitude + self.deviation * normal).clamp(0.0, GREATEST_MAGNITUDE)
                / GREATEST_MAGNITUDE;
            let sign = if rng.random_bool(0.5) { -1.0 } else { 1.0 };
            if is_applied {
                operations.push(Operation::new(kind, share, sign));
            }
        }
        operations
    }
}

impl Operation {
    /// The operation of kind `kind` at `share` of the greatest magnitude, in the direction of
    /// `sign` if there are two.
    ///
    /// Parameters are timm's: at the greatest magnitude 30 degrees, a shear of 0.3, a shift by 0.45
    /// of the side, a factor of 0.1 or 1.9. As with `inc1`, posterizing (4 bits to none) and
    /// solarizing (from 256 down) grow with the magnitude.
    fn new(kind: usize, share: f64, sign: f64) -> Self {
        // Rounded down to whole numbers, as in timm: 7.4 of 10 are 2 of 4 bits less, not 3.
        let whole = |greatest: f64| (share * greatest) as u8;
        let factor = 1.0 + sign * 0.9 * share;
        match kind {
            0 => Self::AutoContrast,
            1 => Self::Equalize,
            2 => Self::Invert,
            3 => Self::Rotate {
                degrees: sign * 30.0 * share,
            },
            4 => Self::Posterize {
                bits: 4 - u32::from(whole(4.0)),
            },
            5 => Self::Solarize {
                threshold: 256 - (share * 256.0) as u16,
            },
            6 => Self::SolarizeAdd { add: whole(110.0) },
            7 => Self::Color { factor },
            8 => Self::Contrast { factor },
            9 => Self::Brightness { factor },
            10 => Self::Sharpness { factor },
            11 => Self::ShearX {
                factor: sign * 0.3 * share,
            },
            12 => Self::ShearY {
                factor: sign * 0.3 * share,
            },
            13 => Self::TranslateX {
                share: sign * 0.45 * share,
            },
            _ => Self::TranslateY {
                share: sign * 0.45 * share,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};

    fn draws(of: RandAugment, clips: u64) -> impl Iterator<Item = Vec<Operation>> {
        (0..clips).map(move |clip| of.draw(&mut stream(Purpose::Augment, 1, 0, clip)))
    }

    #[test]
    fn a_stream_names_its_operations() {
        let of = |clip| {
            RandAugment {
                operations: 8,
                ..RandAugment::default()
            }
            .draw(&mut stream(Purpose::Augment, 1, 0, clip))
        };
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn half_of_the_operations_are_done_and_all_kinds_come() {
        let (mut kinds, mut by_count) = (std::collections::HashMap::new(), [0; 3]);
        for operations in draws(RandAugment::default(), 3000) {
            by_count[operations.len()] += 1;
            for operation in operations {
                *kinds.entry(std::mem::discriminant(&operation)).or_insert(0) += 1;
            }
        }
        // 750, 1500 and 750; and 3000 of 15 kinds: 200 of each, give or take five standard
        // deviations.
        assert!(
            (630..870).contains(&by_count[0]) && (1360..1640).contains(&by_count[1]),
            "{by_count:?}"
        );
        assert!(
            kinds.len() == KINDS && kinds.values().all(|times| (130..270).contains(times)),
            "{kinds:?}"
        );
        assert!(
            draws(
                RandAugment {
                    operations: 0,
                    ..RandAugment::default()
                },
                10
            )
            .all(|operations| operations.is_empty())
        );
    }

    #[test]
    fn magnitudes_are_normal_and_clipped() {
        let degrees = |magnitude: f64, deviation: f64| {
            let of = RandAugment {
                operations: 15,
                magnitude,
                deviation,
            };
            let rotations = draws(of, 2000)
                .flatten()
                .filter_map(|operation| match operation {
                    Operation::Rotate { degrees } => Some(degrees),
                    _ => None,
                });
            rotations.collect::<Vec<f64>>()
        };
        let (of_seven, strongest) = (degrees(7.0, 0.5), degrees(9.0, 20.0));
        let count = of_seven.len() as f64;
        let mean = of_seven.iter().map(|degrees| degrees.abs()).sum::<f64>() / count;
        let deviation = (of_seven
            .iter()
            .map(|degrees| (degrees.abs() - mean).powi(2))
            .sum::<f64>()
            / count)
            .sqrt();
        // 7 and 0.5 of 10, of 30 degrees.
        assert!(
            (mean - 21.0).abs() < 0.3 && (deviation - 1.5).abs() < 0.2,
            "{mean} {deviation}"
        );
        let left = of_seven.iter().filter(|&&degrees| degrees > 0.0).count() as f64 / count;
        assert!((left - 0.5).abs() < 0.1, "{left}");
        assert!(
            strongest.iter().all(|degrees| degrees.abs() <= 30.0)
                && strongest.contains(&30.0)
                && strongest.contains(&0.0)
        );
    }

    #[test]
    fn parameters_are_those_of_timm() {
        let all = |share: f64, sign: f64| {
            (3..KINDS)
                .map(move |kind| Operation::new(kind, share, sign))
                .collect::<Vec<_>>()
        };
        let expected = |bits, threshold, add, degrees, factor, shear, share| {
            vec![
                Operation::Rotate { degrees },
                Operation::Posterize { bits },
                Operation::Solarize { threshold },
                Operation::SolarizeAdd { add },
                Operation::Color { factor },
                Operation::Contrast { factor },
                Operation::Brightness { factor },
                Operation::Sharpness { factor },
                Operation::ShearX { factor: shear },
                Operation::ShearY { factor: shear },
                Operation::TranslateX { share },
                Operation::TranslateY { share },
            ]
        };
        assert_eq!(all(0.0, 1.0), expected(4, 256, 0, 0.0, 1.0, 0.0, 0.0));
        assert_eq!(
            all(0.5, -1.0),
            expected(2, 128, 55, -15.0, 0.55, -0.15, -0.225)
        );
        assert_eq!(all(1.0, 1.0), expected(0, 0, 110, 30.0, 1.9, 0.3, 0.45));
        // timm at magnitude 7.4: posterize 4 - int(2.96), solarize 256 - int(189.44), add
        // int(81.4).
        let [
            Operation::Posterize { bits: 2 },
            Operation::Solarize { threshold: 67 },
            Operation::SolarizeAdd { add: 81 },
        ] = all(0.74, 1.0)[1..4]
        else {
            panic!("{:?}", all(0.74, 1.0));
        };
    }

    #[test]
    fn nothing_unknown_is_read() {
        let read = |text: &str| serde_json::from_str::<RandAugment>(text);
        assert_eq!(read("{}").expect("all by default"), RandAugment::default());
        assert_eq!(
            read(r#"{"magnitude": 9}"#).expect("one is given").magnitude,
            9.0
        );
        assert!(read(r#"{"magnitud": 9}"#).is_err());
    }
}
