//! Types of the activations and weights in gemms: f32, or bf16 with sums in f32.

use super::memory::resize;
use super::simd::{InstructionSet, instruction_set, vectorised};
use super::team::for_each_chunk;
use half::bf16;

/// An operand type of the kernels.
pub(crate) trait Element: Copy + Send + Sync + Default + 'static {
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Converts exactly.
    fn to_f32(self) -> f32;
    /// Values per 32-bit lane of a kernel's vector: 2 where the CPU multiplies pairs, else 1.
    fn in_lane() -> usize;
    /// A lane that holds one value, as f32.
    #[inline(always)]
    fn single(self) -> u32 {
        self.to_f32().to_bits()
    }
    /// A lane that holds two consecutive values of the summed dimension. For f32, a lane holds the
    /// first only.
    fn pair(self, next: Self) -> u32;
    /// [`Self::pair`] of values that are already rounded.
    fn rounded_pair(first: f32, second: f32) -> u32;
    /// Packs consecutive values, already rounded, into pairs, lane by lane.
    fn rounded_pairs(values: &[f32], lanes: &mut [u32]);
    /// Whether gemms take rounded values.
    const IS_ROUNDED: bool;
    /// `values` as an operand of a gemm: unchanged, or rounded into `scratch`.
    fn operand<'a>(values: &'a [f32], scratch: &'a mut Vec<Self>) -> &'a [Self];
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn in_lane() -> usize {
        1
    }
    #[inline(always)]
    fn pair(self, _: Self) -> u32 {
        self.to_bits()
    }
    #[inline(always)]
    fn rounded_pair(first: f32, _: f32) -> u32 {
        first.to_bits()
    }
    #[inline(always)]
    fn rounded_pairs(values: &[f32], lanes: &mut [u32]) {
        lanes
            .iter_mut()
            .zip(values)
            .for_each(|(lane, value)| *lane = value.to_bits());
    }
    const IS_ROUNDED: bool = false;
    fn operand<'a>(values: &'a [f32], _: &'a mut Vec<Self>) -> &'a [Self] {
        values
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        // Rounding must not turn a NaN into a number.
        Self::from_bits(if value.is_nan() {
            0x7fc0
        } else {
            rounded as u16
        })
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn in_lane() -> usize {
        if instruction_set() == InstructionSet::Avx512Bf16 {
            2
        } else {
            1
        }
    }
    #[inline(always)]
    fn pair(self, next: Self) -> u32 {
        u32::from(self.to_bits()) | u32::from(next.to_bits()) << 16
    }
    #[inline(always)]
    fn rounded_pair(first: f32, second: f32) -> u32 {
        first.to_bits() >> 16 | second.to_bits()
    }
    #[inline(always)]
    fn rounded_pairs(values: &[f32], lanes: &mut [u32]) {
        // The halves of a lane lie in memory in the order of the values: pairs exist on
        // little-endian CPUs only.
        let halves: &mut [u16] = bytemuck::cast_slice_mut(lanes);
        halves
            .iter_mut()
            .zip(values)
            .for_each(|(half, value)| *half = (value.to_bits() >> 16) as u16);
    }
    const IS_ROUNDED: bool = true;
    fn operand<'a>(values: &'a [f32], scratch: &'a mut Vec<Self>) -> &'a [Self] {
        resize(scratch, values.len());
        for_each_chunk(scratch, ROUNDED_AT_ONCE, |at, out| {
            round(&values[at * ROUNDED_AT_ONCE..][..out.len()], out);
        });
        scratch
    }
}

/// Values per task.
const ROUNDED_AT_ONCE: usize = 1 << 15;

vectorised! {
    /// Rounds `values` into `out`.
    pub(crate) fn round<T: Element>(values: &[f32], out: &mut [T]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out = T::from_f32(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_equals_that_of_half() {
        for bits in (0..u32::MAX).step_by(9973) {
            let value = f32::from_bits(bits);
            let rounded = <bf16 as Element>::from_f32(value);
            assert!(
                rounded == bf16::from_f32(value) || value.is_nan() && rounded.is_nan(),
                "{value}"
            );
            assert!(Element::to_f32(rounded) == rounded.to_f32() || value.is_nan());
        }
        assert!(<bf16 as Element>::from_f32(f32::from_bits(0x7fff_ffff)).is_nan());
    }
}
