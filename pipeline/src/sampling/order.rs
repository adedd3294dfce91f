//! Which clip comes when: a permutation of all clips for every epoch, and a cursor into the endless sequence of epochs.
//!
//! ```text
//! draws    0 1 2 3 | 4 5 6 7 | ...       each one clip of one data set: epoch after epoch, data sets mixed by weight
//! blocks      0    |    1    | ...       as many draws as a batch has clips
//! batches  0, 1, 2 | 3, 4, 5 | ...       with three repeats: batch k of a block holds repeat k of each of its draws
//! ```
//!
//! A clip is decoded once for all of its repeats, and no batch holds two of them. Ranks take equal, adjoining parts of every batch, so each clip is decoded by
//! one rank.

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
    /// Which data set comes when.
    Mix = 6,
    /// Which clips of a batch are mixed, and how.
    Mixing = 7,
    /// What of a model is left out for a sample.
    Dropout = 8,
    /// Changes of a sample's colours and shapes.
    RandAugment = 9,
    /// The part of a sample that is noise.
    Erasing = 10,
    /// Which videos are kept for validation, and which are trained on.
    Split = 11,
}

/// The random stream for `purpose` that (`seed`, `epoch`, `index`) names: the same on every thread and machine, in every run.
pub fn stream(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([purpose as u64, seed, epoch, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A place in the sequence of samples: how many were drawn before it, by all ranks together. It is all that a run needs to go on where it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Samples drawn since the start of the run.
    pub samples: u64,
}

/// One sample: repeat `repeat` of clip `clip` of data set `set` in epoch `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleId {
    /// Number of the data set.
    pub set: u32,
    /// Pass over this data set, from 0.
    pub epoch: u64,
    /// Number of the clip in it.
    pub clip: u64,
    /// Which of the samples of one reading of the clip, from 0.
    pub repeat: u32,
}

impl SampleId {
    /// The random stream of this sample for `purpose`.
    pub fn stream(self, purpose: Purpose, seed: u64) -> ChaCha8Rng {
        let mut rng = stream(purpose, seed, self.epoch, self.clip);
        rng.set_stream(u64::from(self.set) << 32 | u64::from(self.repeat));
        rng
    }
}

/// Draws in which each data set has its exact share, and beyond which their mixture is drawn anew.
const MIX_PERIOD: usize = 1024;

/// The endless sequence of draws: epoch after epoch of each data set, every epoch a permutation of its clips. An epoch may end inside of a batch, so no clip is
/// ever left out.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    sets: Vec<Set>,
    /// Where several sets are mixed, of the period in hand: for each draw the set, and how many draws of this set came before it in the period.
    mix: Vec<(u32, u64)>,
    period: Option<u64>,
}

/// The order of one data set.
#[derive(Debug, Clone)]
struct Set {
    clips: u64,
    /// Draws in a period.
    share: u64,
    /// The permutation in use, and its epoch.
    permutation: Vec<u64>,
    epoch: Option<u64>,
}

impl Order {
    /// The order under `seed` of data sets of so many clips, each with its weight: the share of draws, relative to the others'.
    ///
    /// # Panics
    /// When there is no set, one has no clips, or a weight is not a positive number.
    pub fn new(sets: &[(u64, f64)], seed: u64) -> Self {
        assert!(!sets.is_empty() && sets.iter().all(|&(clips, _)| clips > 0), "an order needs clips");
        assert!(sets.iter().all(|&(_, weight)| weight.is_finite() && weight > 0.0), "weights are positive numbers");
        let shares = shares(&sets.iter().map(|&(_, weight)| weight).collect::<Vec<_>>());
        let set = |(&(clips, _), share)| Set { clips, share, permutation: Vec::new(), epoch: None };
        Self { seed, sets: sets.iter().zip(shares).map(set).collect(), mix: Vec::new(), period: None }
    }

    /// Draw number `draw`, as its first repeat.
    pub fn draw(&mut self, draw: u64) -> SampleId {
        let (set, place) = self.set_and_place(draw);
        let known = &mut self.sets[set as usize];
        let (epoch, place) = (place / known.clips, (place % known.clips) as usize);
        if known.epoch != Some(epoch) {
            known.epoch = Some(epoch);
            known.permutation.clear();
            known.permutation.extend(0..known.clips);
            known.permutation.shuffle(&mut stream(Purpose::Order, self.seed, epoch, u64::from(set)));
        }
        SampleId { set, epoch, clip: known.permutation[place], repeat: 0 }
    }

    /// Of a draw its data set, and how many draws of this set came before it.
    fn set_and_place(&mut self, draw: u64) -> (u32, u64) {
        if self.sets.len() == 1 {
            return (0, draw);
        }
        let (period, at) = (draw / MIX_PERIOD as u64, (draw % MIX_PERIOD as u64) as usize);
        if self.period != Some(period) {
            self.period = Some(period);
            self.mix.clear();
            let sets = self.sets.iter().zip(0u32..);
            self.mix.extend(sets.flat_map(|(set, number)| std::iter::repeat_n((number, 0), set.share as usize)));
            self.mix.shuffle(&mut stream(Purpose::Mix, self.seed, period, 0));
            let mut before = vec![0; self.sets.len()];
            for (set, place) in &mut self.mix {
                *place = before[*set as usize];
                before[*set as usize] += 1;
            }
        }
        let (set, place) = self.mix[at];
        (set, period * self.sets[set as usize].share + place)
    }
}

/// How many of [`MIX_PERIOD`] draws each of the `weights` gets: its part rounded down, at least one; what is left goes to the largest remainders.
fn shares(weights: &[f64]) -> Vec<u64> {
    let all: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / all * MIX_PERIOD as f64).collect();
    let mut shares: Vec<u64> = exact.iter().map(|&part| (part as u64).max(1)).collect();
    let given = |shares: &[u64]| shares.iter().sum::<u64>();
    let by_lack = |shares: &[u64], set: &usize| exact[*set] - shares[*set] as f64;
    while given(&shares) != MIX_PERIOD as u64 {
        let sets = 0..weights.len();
        if given(&shares) < MIX_PERIOD as u64 {
            let most = sets.max_by(|a, b| by_lack(&shares, a).total_cmp(&by_lack(&shares, b)));
            shares[most.expect("a set")] += 1;
        } else {
            // Sets of hardly any weight were given one draw each.
            let least = sets.filter(|&set| shares[set] > 1).min_by(|a, b| by_lack(&shares, a).total_cmp(&by_lack(&shares, b)));
            shares[least.expect("fewer sets than draws in a period")] -= 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(clips in 1u64..200, seed: u64, epoch in 0u64..5) {
            let mut order = Order::new(&[(clips, 1.0)], seed);
            let samples = (0..clips).map(|place| order.draw(epoch * clips + place));
            let mut seen: Vec<u64> = samples.inspect(|sample| assert_eq!(sample.epoch, epoch)).map(|sample| sample.clip).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..clips).collect::<Vec<_>>());
        }

        #[test]
        fn sets_have_their_shares_and_each_goes_through_its_epochs(weights in proptest::collection::vec(0.001f64..100.0, 2..6), seed: u64) {
            let sets: Vec<(u64, f64)> = weights.iter().zip(5..).map(|(&weight, clips)| (clips, weight)).collect();
            let mut order = Order::new(&sets, seed);
            let draws: Vec<SampleId> = (0..2 * MIX_PERIOD as u64).map(|draw| order.draw(draw)).collect();
            let all: f64 = weights.iter().sum();
            for (number, &(clips, weight)) in sets.iter().enumerate() {
                let of_set: Vec<&SampleId> = draws.iter().filter(|sample| sample.set == number as u32).collect();
                let exact = 2.0 * MIX_PERIOD as f64 * weight / all;
                prop_assert!((of_set.len() as f64 - exact.max(2.0)).abs() <= 2.0 * sets.len() as f64, "{} draws for {exact}", of_set.len());
                for (place, epoch) in of_set.chunks_exact(clips as usize).enumerate() {
                    let mut seen: Vec<u64> = epoch.iter().map(|sample| sample.clip).collect();
                    seen.sort_unstable();
                    prop_assert_eq!(seen, (0..clips).collect::<Vec<_>>());
                    prop_assert!(epoch.iter().all(|sample| sample.epoch == place as u64));
                }
            }
            // Taken up anywhere, it goes on alike.
            let mut again = Order::new(&sets, seed);
            for draw in [1500, 3, 1100, 700] {
                prop_assert_eq!(again.draw(draw), draws[draw as usize]);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let draw = |seed, epoch: u64| {
            let mut order = Order::new(&[(100, 1.0)], seed);
            (0..100).map(|place| order.draw(epoch * 100 + place).clip).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn every_sample_has_a_stream_of_its_own() {
        use rand::RngExt;
        let sample = SampleId { set: 0, epoch: 3, clip: 4, repeat: 0 };
        let others = [
            sample,
            SampleId { set: 1, ..sample },
            SampleId { epoch: 4, ..sample },
            SampleId { clip: 5, ..sample },
            SampleId { repeat: 1, ..sample },
        ];
        let numbers = others.map(|sample| sample.stream(Purpose::Augment, 9).random::<u64>());
        assert_eq!(numbers.iter().collect::<std::collections::HashSet<_>>().len(), others.len());
        assert_eq!(numbers[0], stream(Purpose::Augment, 9, 3, 4).random::<u64>());
    }
}
