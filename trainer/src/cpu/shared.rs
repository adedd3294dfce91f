//! A matrix that several tasks write concurrently.

use super::simd::prefetch;
use std::marker::PhantomData;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// A matrix whose parts are written by different tasks.
pub(crate) struct Shared<'a, A> {
    values: *mut A,
    length: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [A]>,
}

// SAFETY: each value is borrowed as `&mut` by one task only, so `Send` suffices.
unsafe impl<A: Send> Sync for Shared<'_, A> {}

impl<'a, A> Shared<'a, A> {
    /// Shares a matrix with rows of `columns` values.
    pub(crate) fn new(values: &'a mut [A], columns: usize) -> Self {
        Self {
            values: values.as_mut_ptr(),
            length: values.len(),
            columns,
            lifetime: PhantomData,
        }
    }

    /// Chunk `at`; the last one may be shorter, and those after it are empty.
    ///
    /// # Safety
    /// A chunk must not be in use twice at the same time.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps chunks apart")]
    pub(crate) unsafe fn chunk(&self, at: usize) -> &mut [A] {
        let first = (at * self.columns).min(self.length);
        let length = self.columns.min(self.length - first);
        // SAFETY: the chunk lies in the values, and the caller keeps chunks disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(first), length) }
    }

    /// Loads [`Self::part`] into the innermost cache, where it will be read or written.
    pub(crate) fn prefetch(&self, row: usize, column: usize, width: usize) {
        let bytes = width * size_of::<A>();
        if self.length == 0 || bytes == 0 {
            return;
        }
        let first = self.values.wrapping_add(row * self.columns + column);
        let first = first.cast::<u8>();
        for byte in (0..bytes).step_by(CACHE_LINE) {
            prefetch(first.wrapping_add(byte));
        }
        // Rows need not begin where a cache line does.
        prefetch(first.wrapping_add(bytes - 1));
    }

    /// `width` values of `row` from `column` on; empty for an empty matrix.
    ///
    /// # Safety
    /// Parts that are in use at the same time must not overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub(crate) unsafe fn part(&self, row: usize, column: usize, width: usize) -> &mut [A] {
        if self.length == 0 {
            return &mut [];
        }
        let first = row * self.columns + column;
        assert!(
            column + width <= self.columns && first + width <= self.length,
            "a part of the matrix"
        );
        // SAFETY: the part lies in the matrix, and the caller keeps parts disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(first), width) }
    }
}
