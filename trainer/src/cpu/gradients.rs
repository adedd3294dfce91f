//! A model's gradients as its backward makes them: from the last parameter to the first.
//!
//! ```text
//! backward of the last micro-batch ──> complete buckets, + the sums of earlier ones ──> ranks
//! ```
//!
//! The gradients of a batch's micro-batches are summed as a balanced binary tree, whose form is
//! that of the configuration: `((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))`. A rank sums a subtree,
//! as a binary counter does: after micro-batch 5, say, it holds the sums of 0 to 3 and of 4 and 5.

use super::gemm::add;
use super::memory::{resize, zeros};
use super::team::for_each_chunk2;
use std::ops::Range;
use std::sync::mpsc::Sender;

/// Values of a bucket, at least: 4 MB. Smaller messages waste time on latency.
const BUCKET: usize = 1 << 20;

/// Values per task of a sum.
const AT_ONCE: usize = 1 << 14;

/// What of a batch is in a call of `accumulate`.
#[derive(Debug)]
pub enum Part<'a> {
    /// All of it: its gradients are added to those that wait.
    Whole,
    /// One micro-batch of those that this rank has.
    Micro {
        /// Which one, from 0 on, in turn.
        index: usize,
        /// How many there are.
        count: usize,
        /// Takes the summed gradients of all, bucket by bucket, while the last one is computed;
        /// what the receiver makes of them is the gradient of the batch
        /// ([`super::Store::add_batch`]).
        buckets: Option<Sender<&'a mut [f32]>>,
    },
}

/// The gradients of one backward.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    /// Those that are not complete yet, which are the first ones.
    pub(crate) values: &'a mut [f32],
    /// Whether the gradients of the weights of linear layers are valid. If not, they are
    /// overwritten; all other gradients are zero then.
    pub(crate) adds: bool,
    /// Where complete ones go.
    pub(super) sink: Option<Sink<'a>>,
}

/// Where complete gradients go.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    /// First values of the buckets that are not complete.
    pub(super) buckets: Vec<usize>,
    /// Sums to be added.
    pub(super) sums: Vec<&'a mut [f32]>,
    pub(super) out: Option<Sender<&'a mut [f32]>>,
}

impl Gradients<'_> {
    /// Says that all gradients from place `from` on are complete.
    pub(crate) fn complete(&mut self, from: usize) {
        let Some(sink) = &mut self.sink else { return };
        while let Some(first) = sink.buckets.pop_if(|first| *first >= from) {
            let bucket = self
                .values
                .split_off_mut(first..)
                .expect("buckets end where others begin");
            for sums in &mut sink.sums {
                let sums = sums
                    .split_off_mut(first..)
                    .expect("as long as the gradients");
                add_all(sums, bucket);
            }
            if let Some(out) = &sink.out {
                // A receiver that is gone has failed, and says so itself.
                let _ = out.send(bucket);
            }
        }
    }
}

/// First values of buckets, from the places of a model's parameters.
pub(super) fn buckets(places: impl Iterator<Item = Range<usize>>) -> Vec<usize> {
    let mut firsts = vec![0];
    for place in places {
        if place.start >= firsts[firsts.len() - 1] + BUCKET {
            firsts.push(place.start);
        }
    }
    firsts
}

/// Adds all of `values` to `to`.
pub(super) fn add_all(values: &mut [f32], to: &mut [f32]) {
    for_each_chunk2(values, AT_ONCE, to, AT_ONCE, |_, values, to| {
        add(values, to)
    });
}

/// Sums of micro-batches of one batch: that of `2^n` of them at place `n`.
#[derive(Debug, Default)]
pub(super) struct Sums(Vec<Vec<f32>>);

impl Sums {
    /// Takes the gradients of micro-batch `index`, which is not the last one; what is left in
    /// `gradients` has no meaning.
    pub(super) fn push(&mut self, index: usize, gradients: &mut Vec<f32>) {
        let level = index.trailing_ones() as usize;
        for sums in &mut self.0[..level] {
            add_all(sums, gradients);
        }
        if self.0.len() == level {
            self.0.push(zeros(gradients.len()));
        }
        resize(&mut self.0[level], gradients.len());
        std::mem::swap(&mut self.0[level], gradients);
    }

    /// The sums that are to be added to the gradients of the last of `count` micro-batches.
    pub(super) fn rest(&mut self, count: usize) -> Vec<&mut [f32]> {
        let last = count - 1;
        let levels = self.0.iter_mut().enumerate();
        levels
            .filter(|(level, _)| last >> level & 1 == 1)
            .map(|(_, sums)| sums.as_mut_slice())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_are_summed_as_a_balanced_tree() {
        // Values whose sums depend on the order.
        let values = [1e8, 1.0, 1.0, 1.0, -1e8, 1.0, 1.0, 1.0];
        let tree = |values: &[f32]| match *values {
            [a, b, c, d, e, f, g, h] => ((a + b) + (c + d)) + ((e + f) + (g + h)),
            [a, b, c, d] => (a + b) + (c + d),
            [a, b] => a + b,
            [a, b, c] => a + b + c,
            _ => values[0],
        };
        let mut sums = Sums::default();
        for count in [8, 1, 2, 4, 3, 8] {
            let values = &values[..count];
            let mut gradients = vec![0.0];
            for (index, &value) in values.iter().enumerate() {
                gradients[0] = value;
                if index + 1 < count {
                    sums.push(index, &mut gradients);
                }
            }
            for rest in sums.rest(count) {
                add_all(rest, &mut gradients);
            }
            assert_eq!(gradients[0].to_bits(), tree(values).to_bits(), "{count}");
        }
        let one_by_one: f32 = values.iter().sum();
        assert_ne!(
            one_by_one.to_bits(),
            tree(&values).to_bits(),
            "the order matters"
        );
    }
}
