//! A matrix that several tasks write concurrently.

use std::marker::PhantomData;

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
