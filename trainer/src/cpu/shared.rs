//! A matrix that several tasks write at once.

use std::marker::PhantomData;

/// A matrix of which tasks write different parts.
pub(crate) struct Shared<'a, A> {
    values: *mut A,
    length: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [A]>,
}

// SAFETY: values are handed out as `&mut` to one task each, so they need to be `Send` only.
unsafe impl<A: Send> Sync for Shared<'_, A> {}

impl<'a, A> Shared<'a, A> {
    /// With rows of `columns` values.
    pub(crate) fn new(values: &'a mut [A], columns: usize) -> Self {
        Self { values: values.as_mut_ptr(), length: values.len(), columns, lifetime: PhantomData }
    }

    /// `width` values of `row` from `column` on; none of an empty matrix.
    ///
    /// # Safety
    /// No two parts that are in use at a time may overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub(crate) unsafe fn part(&self, row: usize, column: usize, width: usize) -> &mut [A] {
        if self.length == 0 {
            return &mut [];
        }
        let first = row * self.columns + column;
        assert!(column + width <= self.columns && first + width <= self.length, "a part of the matrix");
        // SAFETY: it lies in the matrix, and the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(first), width) }
    }
}
