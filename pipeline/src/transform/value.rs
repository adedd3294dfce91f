//! Values of a training clip: their types, and how samples are normalised.

use half::bf16;

/// Mean of the normalisation, of values in 0..=1.
pub const MEAN: f32 = 0.45;

/// Standard deviation of the normalisation.
pub const STD: f32 = 0.225;

/// How samples become values: a sample `x` of 0..=255 is `(x / 255 - mean) / std` of its channel.
///
/// ```
/// use pipeline::transform::{MEAN, Normalisation};
///
/// assert_eq!(Normalisation::default().mean, [MEAN; 3]);
/// assert_eq!(Normalisation::IMAGENET.std, [0.229, 0.224, 0.225]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Of red, green and blue, in 0..=1.
    pub mean: [f32; 3],
    /// Their standard deviations.
    pub std: [f32; 3],
}

impl Normalisation {
    /// That of most models for pictures, and of VideoMAE.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
}

impl Default for Normalisation {
    /// [`MEAN`] and [`STD`] for all channels.
    fn default() -> Self {
        Self {
            mean: [MEAN; 3],
            std: [STD; 3],
        }
    }
}

/// The type of a training clip's values: `f32` and [`bf16`] are normalised, `u8` are R'G'B'
/// samples, which the user normalises.
pub trait Value: bytemuck::Pod + private::Value {}

impl Value for f32 {}
impl Value for bf16 {}
impl Value for u8 {}

mod private {
    use super::Normalisation;
    use half::bf16;
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::{
        __m256, _mm_packus_epi16, _mm_packus_epi32, _mm_storel_epi64, _mm_storeu_si128,
        _mm_stream_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_castps_si256,
        _mm256_castsi256_si128, _mm256_cvtps_epi32, _mm256_extracti128_si256, _mm256_set1_epi32,
        _mm256_srli_epi32, _mm256_storeu_ps, _mm256_stream_ps,
    };

    pub trait Value: Sized {
        /// How samples become values of this type, where `normalisation` is asked for.
        fn normalisation(normalisation: Normalisation) -> Normalisation {
            normalisation
        }

        /// Converts a value in the range of converted samples.
        fn from_f32(value: f32) -> Self;

        /// Converts any normalised value.
        fn from_normalised(value: f32) -> Self {
            Self::from_f32(value)
        }

        /// Writes [`Self::from_f32`] of each of 8 values, past the caches if `STREAM`.
        ///
        /// # Safety
        /// `out` must have room for them, aligned to their size if `STREAM`, and the CPU must have
        /// AVX2.
        #[cfg(target_arch = "x86_64")]
        unsafe fn store<const STREAM: bool>(values: __m256, out: *mut Self);
    }

    impl Value for f32 {
        fn from_f32(value: f32) -> Self {
            value
        }

        #[cfg(target_arch = "x86_64")]
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn store<const STREAM: bool>(values: __m256, out: *mut Self) {
            // SAFETY: the caller has room for 8 floats, aligned if `STREAM`.
            unsafe {
                if STREAM {
                    _mm256_stream_ps(out, values);
                } else {
                    _mm256_storeu_ps(out, values);
                }
            }
        }
    }

    impl Value for bf16 {
        /// Rounds to the nearest, half-way cases to even; values are never NaN.
        fn from_f32(value: f32) -> Self {
            let bits = value.to_bits();
            Self::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
        }

        #[cfg(target_arch = "x86_64")]
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn store<const STREAM: bool>(values: __m256, out: *mut Self) {
            let bits = _mm256_castps_si256(values);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let upper = _mm256_srli_epi32::<16>(rounded);
            let halves = _mm_packus_epi32(
                _mm256_castsi256_si128(upper),
                _mm256_extracti128_si256::<1>(upper),
            );
            // SAFETY: the caller has room for 8 values of 16 bits, aligned if `STREAM`.
            unsafe {
                if STREAM {
                    _mm_stream_si128(out.cast(), halves);
                } else {
                    _mm_storeu_si128(out.cast(), halves);
                }
            }
        }
    }

    impl Value for u8 {
        fn normalisation(_: Normalisation) -> Normalisation {
            Normalisation {
                mean: [0.0; 3],
                std: [1.0 / 255.0; 3],
            }
        }

        /// Rounds to the nearest, half-way cases to even.
        fn from_f32(value: f32) -> Self {
            value.round_ties_even() as Self
        }

        fn from_normalised(value: f32) -> Self {
            super::denormalise(value)
        }

        #[cfg(target_arch = "x86_64")]
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn store<const STREAM: bool>(values: __m256, out: *mut Self) {
            let numbers = _mm256_cvtps_epi32(values);
            let halves = _mm_packus_epi32(
                _mm256_castsi256_si128(numbers),
                _mm256_extracti128_si256::<1>(numbers),
            );
            // There is no vector of 8 bytes to stream.
            // SAFETY: the caller has room for 8 bytes.
            unsafe { _mm_storel_epi64(out.cast(), _mm_packus_epi16(halves, halves)) };
        }
    }
}

/// A normalised value as a value of `T`: clamped if that is bytes.
pub(crate) fn from_normalised<T: Value>(value: f32) -> T {
    T::from_normalised(value)
}

/// The 8-bit sample of a normalised value, clamped.
///
/// ```
/// use pipeline::transform::{MEAN, STD, denormalise};
///
/// assert_eq!(denormalise((200.0 / 255.0 - MEAN) / STD), 200);
/// ```
pub fn denormalise(value: f32) -> u8 {
    ((value * STD + MEAN) * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frames;
    use crate::sampling::order::{Purpose, stream};
    use crate::sampling::sample::Augmentation;
    use crate::transform::tests::{FULL, random_clip};
    use crate::transform::{ClipView, Transform};
    use schemas::geometry::FrameSize;

    #[test]
    fn bytes_and_bf16_are_the_floats_rounded() {
        let mut rng = stream(Purpose::Augment, 3, 2, 1);
        let size = FrameSize {
            width: 37,
            height: 29,
        };
        let bytes = random_clip(&mut rng, 3 * 3 * size.width * size.height);
        for frames in [
            Frames::I420(&bytes[..3 * size.frame_bytes()], FULL),
            Frames::Rgb(&bytes),
        ] {
            let view = Augmentation::default().draw(&mut rng, 3, 2, size);
            let clip = ClipView { frames, size, view };
            let (mut transform, values) = (Transform::default(), 3 * 2 * 24 * 24);
            let (mut floats, mut halves, mut samples) = (
                vec![0f32; values],
                vec![bf16::ZERO; values],
                vec![0u8; values],
            );
            transform.clip(clip, 2, 24, &mut floats);
            transform.clip(clip, 2, 24, &mut halves);
            transform.clip(clip, 2, 24, &mut samples);
            for ((&float, half), sample) in floats.iter().zip(halves).zip(samples) {
                assert_eq!(half, bf16::from_f32(float));
                let exact = (f64::from(float) * f64::from(STD) + f64::from(MEAN)) * 255.0;
                assert!(
                    (f64::from(sample) - exact).abs() < 0.501,
                    "{sample} for {exact}"
                );
            }
        }
    }
}
