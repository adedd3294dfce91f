//! Compilation of plain loops for each instruction set, and the exponential that they use.

pub(crate) use pipeline::simd::{InstructionSet, instruction_set};

/// Compiles a function of plain loops once per vector width, and calls the widest version that the
/// CPU supports. This is a macro because the attribute that selects the instructions belongs to a
/// function. A multiplication and an addition are fused only where `mul_add` is called, so all
/// versions return the same bits; without an FMA instruction `mul_add` is slow.
macro_rules! vectorised {
    (
        $(#[$meta:meta])* $visibility:vis
        fn $name:ident $(<$generic:ident : $bound:path $(, const $constant:ident : usize)?>)?
        ($($argument:ident : $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    ) => {
        $(#[$meta])*
        $visibility fn $name $(<$generic: $bound $(, const $constant: usize)?>)?
        ($($argument: $type),*) $(-> $result)? {
            use $crate::cpu::simd::{InstructionSet, instruction_set};

            #[inline(always)]
            fn plain $(<$generic: $bound $(, const $constant: usize)?>)?
            ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$generic: $bound $(, const $constant: usize)?>)?
            ($($argument: $type),*) $(-> $result)? {
                plain$(::<$generic $(, $constant)?>)?($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
            fn avx512 $(<$generic: $bound $(, const $constant: usize)?>)?
            ($($argument: $type),*) $(-> $result)? {
                plain$(::<$generic $(, $constant)?>)?($($argument),*)
            }

            match instruction_set() {
                // SAFETY: the CPU has these instructions.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => unsafe {
                    avx512$(::<$generic $(, $constant)?>)?($($argument),*)
                },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => unsafe {
                    avx2$(::<$generic $(, $constant)?>)?($($argument),*)
                },
                _ => plain$(::<$generic $(, $constant)?>)?($($argument),*),
            }
        }
    };
}
pub(crate) use vectorised;

/// Loads the cache line of an address, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch<A>(address: *const A) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has this instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// `2^x` for `x` up to 127, with a relative error below 3e-7. Results below 2^-126 become that
/// number, and NaN stays NaN.
///
/// The integer part of `x` goes to the exponent's bits, and the rest, at most a half, through the
/// polynomial of degree 5 whose greatest relative error is least, 7.5e-8 (Remez exchange).
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    /// Adding this leaves the integer part in the lowest bits: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    // `if` rather than `max`, which would drop NaN in some vector versions.
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + ROUND;
    let rest = x - (shifted - ROUND);
    let mut value = 1.327_647_2e-3f32;
    for coefficient in [
        9.675_541e-3,
        5.550_713_3e-2,
        0.240_221_2,
        0.693_146_97,
        1.000_000_1,
    ] {
        value = value.mul_add(rest, coefficient);
    }
    value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_near() {
        let mut worst = 0.0f64;
        for at in -1_260_000..1_270_000 {
            let x = at as f32 * 1e-4;
            let exact = f64::from(x).exp2();
            worst = worst.max((f64::from(exp2(x)) / exact - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert!(exp2(f32::NAN).is_nan());
        let smallest = exp2(-1e9) / f32::MIN_POSITIVE;
        assert!((smallest - 1.0).abs() < 3e-7, "{smallest}");
        assert!(exp2(f32::from_bits(0x7fff_ffff)).is_nan());
    }
}
