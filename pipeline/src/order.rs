//! Which clip comes when: a permutation of all clips for every epoch, and a cursor into the endless sequence of epochs.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// What a random stream is for. Streams of different use never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The permutation of an epoch.
    Order = 1,
    /// Window, crop and flip of a sample.
    Augment = 2,
    /// Mask of a sample.
    Mask = 3,
    /// A synthesised video.
    Synth = 4,
    /// The first values of a model's parameters.
    Init = 5,
}

/// The random stream for `purpose` that (`seed`, `epoch`, `index`) names: the same on every thread and machine, in every run.
pub fn stream(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([purpose as u64, seed, epoch, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A place in the sequence of samples: how many were drawn before it. It is all that a run needs to go on where it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Samples drawn since the start of the run.
    pub samples: u64,
}

/// One draw from the data: clip `clip` in epoch `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleId {
    /// Pass over the data, from 0.
    pub epoch: u64,
    /// Number of the clip.
    pub clip: u64,
}

/// The endless sequence of samples: epoch after epoch, each a permutation of all clips. Batches are cut from it without regard to where
/// an epoch ends, so no clip is ever left out.
#[derive(Debug, Clone)]
pub struct SampleOrder {
    clips: u64,
    seed: u64,
    /// The permutation in use, and its epoch.
    epoch: Option<(u64, Vec<u64>)>,
}

impl SampleOrder {
    /// The order of `clips` clips under `seed`.
    ///
    /// # Panics
    /// When there are no clips.
    pub fn new(clips: u64, seed: u64) -> Self {
        assert!(clips > 0, "an order needs at least one clip");
        Self { clips, seed, epoch: None }
    }

    /// The sample at `cursor`.
    pub fn sample(&mut self, cursor: Cursor) -> SampleId {
        let (epoch, place) = (cursor.samples / self.clips, (cursor.samples % self.clips) as usize);
        let permutation = match &self.epoch {
            Some((known, permutation)) if *known == epoch => permutation,
            _ => {
                let mut permutation: Vec<u64> = (0..self.clips).collect();
                permutation.shuffle(&mut stream(Purpose::Order, self.seed, epoch, 0));
                &self.epoch.insert((epoch, permutation)).1
            }
        };
        SampleId { epoch, clip: permutation[place] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(clips in 1u64..200, seed: u64, epoch in 0u64..5) {
            let mut order = SampleOrder::new(clips, seed);
            let samples = (0..clips).map(|place| order.sample(Cursor { samples: epoch * clips + place }));
            let mut seen: Vec<u64> = samples.inspect(|sample| assert_eq!(sample.epoch, epoch)).map(|sample| sample.clip).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..clips).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let draw = |seed, epoch: u64| {
            let mut order = SampleOrder::new(100, seed);
            (0..100).map(|place| order.sample(Cursor { samples: epoch * 100 + place }).clip).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }
}
