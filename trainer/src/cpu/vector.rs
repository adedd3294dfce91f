//! Registers of sums, and the operations of the kernels on them, one type per instruction set.
//!
//! The functions are inlined into kernels that are compiled for the instructions that they use;
//! nothing else may call them. Pointers are to as many values as a register holds.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "every function is unsafe for the reasons above, and does one thing"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A register of sums.
pub(crate) trait Vector: Copy {
    /// A register of the right operand, or a lane of the left one in all lanes.
    type Factor: Copy;
    /// Sums per register.
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(sums: *const f32) -> Self;
    unsafe fn store(self, sums: *mut f32);
    unsafe fn load_factor(lanes: *const u32) -> Self::Factor;
    unsafe fn splat(lane: *const u32) -> Self::Factor;
    /// `self + left * right`
    unsafe fn add_product(self, left: Self::Factor, right: Self::Factor) -> Self;
}

/// Eight lanes of f32, for any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 8]);

impl Vector for Plain {
    type Factor = [f32; 8];
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }
    #[inline(always)]
    unsafe fn load(sums: *const f32) -> Self {
        Self(unsafe { sums.cast::<[f32; 8]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, sums: *mut f32) {
        unsafe { sums.cast::<[f32; 8]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn load_factor(lanes: *const u32) -> [f32; 8] {
        unsafe { lanes.cast::<[f32; 8]>().read() }
    }
    #[inline(always)]
    unsafe fn splat(lane: *const u32) -> [f32; 8] {
        [unsafe { lane.cast::<f32>().read() }; 8]
    }
    #[inline(always)]
    unsafe fn add_product(mut self, left: [f32; 8], right: [f32; 8]) -> Self {
        for lane in 0..8 {
            self.0[lane] += left[lane] * right[lane];
        }
        self
    }
}

/// Eight lanes of f32, with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    type Factor = __m256;
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm256_setzero_ps() })
    }
    #[inline(always)]
    unsafe fn load(sums: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(sums) })
    }
    #[inline(always)]
    unsafe fn store(self, sums: *mut f32) {
        unsafe { _mm256_storeu_ps(sums, self.0) }
    }
    #[inline(always)]
    unsafe fn load_factor(lanes: *const u32) -> __m256 {
        unsafe { _mm256_loadu_ps(lanes.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(lane: *const u32) -> __m256 {
        unsafe { _mm256_set1_ps(lane.cast::<f32>().read()) }
    }
    #[inline(always)]
    unsafe fn add_product(self, left: __m256, right: __m256) -> Self {
        Self(unsafe { _mm256_fmadd_ps(left, right, self.0) })
    }
}

/// 16 lanes of f32, with AVX-512; where lanes of the operands are `PAIRS` of bf16, with
/// AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const PAIRS: bool>(__m512);

#[cfg(target_arch = "x86_64")]
impl<const PAIRS: bool> Vector for Avx512<PAIRS> {
    type Factor = __m512;
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm512_setzero_ps() })
    }
    #[inline(always)]
    unsafe fn load(sums: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(sums) })
    }
    #[inline(always)]
    unsafe fn store(self, sums: *mut f32) {
        unsafe { _mm512_storeu_ps(sums, self.0) }
    }
    #[inline(always)]
    unsafe fn load_factor(lanes: *const u32) -> __m512 {
        unsafe { _mm512_loadu_ps(lanes.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(lane: *const u32) -> __m512 {
        unsafe { _mm512_set1_ps(lane.cast::<f32>().read()) }
    }
    #[inline(always)]
    unsafe fn add_product(self, left: __m512, right: __m512) -> Self {
        if !PAIRS {
            return Self(unsafe { _mm512_fmadd_ps(left, right, self.0) });
        }
        // Registers hold any bits, so pairs are loaded as f32 are.
        unsafe {
            let left = std::mem::transmute::<__m512, __m512bh>(left);
            let right = std::mem::transmute::<__m512, __m512bh>(right);
            Self(_mm512_dpbf16_ps(self.0, left, right))
        }
    }
}
