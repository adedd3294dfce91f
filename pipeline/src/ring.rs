//! Batch buffers that are used again. Fresh memory costs a page fault for every 4 KiB that is written to it, which is more than all else that is
//! done to a clip.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::ops::{Deref, DerefMut};

/// Buffers of one length, which come back when they are dropped. As many are made as are out at a time.
#[derive(Debug)]
pub struct Ring {
    values: usize,
    back: Sender<Vec<f32>>,
    free: Receiver<Vec<f32>>,
}

impl Ring {
    /// Of buffers of `values` values.
    pub fn new(values: usize) -> Self {
        let (back, free) = unbounded();
        Self { values, back, free }
    }

    /// A buffer. What it holds is what its last user left in it.
    pub fn take(&self) -> Buffer {
        let values = self.free.try_recv().unwrap_or_else(|_| vec![0.0; self.values]);
        Buffer { values, back: Some(self.back.clone()) }
    }
}

/// Values that go back to their ring, where there is one, when they are dropped.
#[derive(Debug)]
pub struct Buffer {
    values: Vec<f32>,
    back: Option<Sender<Vec<f32>>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(back) = &self.back {
            // The ring may be gone; then so is the buffer.
            let _ = back.send(std::mem::take(&mut self.values));
        }
    }
}

impl Clone for Buffer {
    /// The same values in memory of its own, which belongs to no ring.
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), back: None }
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_no_more_are_made_than_are_out() {
        let ring = Ring::new(1000);
        let (first, second) = (ring.take(), ring.take());
        let places = [first.as_ptr(), second.as_ptr()];
        assert_ne!(places[0], places[1]);
        let copy = first.clone();
        drop((first, second, copy));
        let again = [ring.take(), ring.take()];
        assert_eq!(again.each_ref().map(|buffer| buffer.as_ptr()), places, "the same memory, and not the copy's");
        drop(ring);
        assert_eq!(again[0].len(), 1000, "a buffer outlives its ring");
    }
}
