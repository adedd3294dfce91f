//! Which clip comes when: a permutation of all clips for every epoch, and a cursor into the endless
//! sequence of epochs.
//!
//! ```text
//! draws    0 1 2 3 | 4 5 6 7 | ...    each one clip of one data set, data sets mixed by weight
//! groups      0    |    1    | ...       as many draws as a batch has clips
//! batches  0, 1, 2 | 3, 4, 5 | ...    with three repeats: batch k holds repeat k of each draw
//! ```
//!
//! A clip is decoded once for all of its repeats, and no batch holds two of them. Ranks take equal,
//! adjacent parts of every batch, so each clip is decoded by one rank.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// What a random stream is for. Streams of different purposes never share numbers.
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
    /// Initial values of a model's parameters.
    Init = 5,
    /// Which data set comes when.
    Mix = 6,
    /// Which clips of a batch are mixed, and how.
    Mixing = 7,
    /// Dropout and stochastic depth of a sample.
    Dropout = 8,
    /// Changes of a sample's colours and shapes.
    RandAugment = 9,
    /// The erased box of a sample.
    Erasing = 10,
    /// Which videos are kept for validation, and which are trained on.
    Split = 11,
    /// The order of a sample's frames, where it is not that of the video.
    FrameOrder = 12,
    /// The draws of a test of significance.
    Significance = 13,
}

/// The random stream for `purpose` of (`seed`, `epoch`, `index`): the same on every thread and
/// machine, in every run.
///
/// ```
/// use pipeline::sampling::order::{Purpose, stream};
/// use rand::RngExt;
///
/// let draw = |epoch| stream(Purpose::Augment, 1, epoch, 7).random::<u64>();
/// assert_eq!(draw(0), draw(0));
/// assert_ne!(draw(0), draw(1));
/// ```
pub fn stream(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key
        .chunks_exact_mut(8)
        .zip([purpose as u64, seed, epoch, index])
    {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A position in the sequence of samples. It is all that a run needs to resume where it stopped.
///
/// ```
/// use pipeline::loader::{Loader, LoaderOptions};
/// # use pipeline::sampling::mask::{MaskKind, MaskRule};
/// # use pipeline::source::{Source, WeightedSource};
/// # use schemas::geometry::PatchGrid;
/// # use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data = pipeline::shard::synthetic::write(dir.path(), 8)?;
/// # let sources: Arc<[WeightedSource]> = [WeightedSource::from(Source::Shards(data))].into();
/// # let grid = PatchGrid { frames: 8, size: 32, tubelet: 2, patch: 8 };
/// # let options = LoaderOptions::new(4, grid, MaskRule::new(MaskKind::Random, 0.75));
/// let mut loader = Loader::new(Arc::clone(&sources), options.clone())?;
/// let first = loader.next().expect("endless")?;
/// let second = loader.next().expect("endless")?;
///
/// let options = LoaderOptions { start: first.next, ..options };
/// let mut resumed = Loader::new(sources, options)?;
/// assert_eq!(resumed.next().expect("endless")?, second, "to the bit");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Samples drawn since the start of the run, by all ranks together.
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
    /// Which of the samples taken each time the clip is read, from 0.
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

/// Draws of a period: in each, every data set has its exact share, and the mixture is drawn anew.
const MIX_PERIOD: usize = 1024;

/// The endless sequence of draws: epoch after epoch of each data set, every epoch a permutation of
/// its clips. An epoch may end inside a batch, so no clip is ever dropped.
///
/// ```
/// use pipeline::sampling::order::Order;
///
/// let mut order = Order::new(&[(3, 1.0)], 42);
/// let mut epoch: Vec<u64> = (0..3).map(|draw| order.draw(draw).clip).collect();
/// epoch.sort_unstable();
/// assert_eq!(epoch, [0, 1, 2]);
/// assert_eq!(order.draw(3).epoch, 1);
/// ```
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    sets: Vec<Set>,
    /// With several sets, for each draw of the current period its set, and the number of earlier
    /// draws of this set in the period.
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
    /// The order under `seed` of data sets, each given as its number of clips and its weight: its
    /// share of draws, relative to the others'.
    ///
    /// # Panics
    /// When there is no set, one has no clips, or a weight is not a positive number.
    pub fn new(sets: &[(u64, f64)], seed: u64) -> Self {
        assert!(
            !sets.is_empty() && sets.iter().all(|&(clips, _)| clips > 0),
            "an order needs clips"
        );
        assert!(
            sets.iter()
                .all(|&(_, weight)| weight.is_finite() && weight > 0.0),
            "weights are positive numbers"
        );
        let shares = shares(&sets.iter().map(|&(_, weight)| weight).collect::<Vec<_>>());
        let set = |(&(clips, _), share)| Set {
            clips,
            share,
            permutation: Vec::new(),
            epoch: None,
        };
        Self {
            seed,
            sets: sets.iter().zip(shares).map(set).collect(),
            mix: Vec::new(),
            period: None,
        }
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
            known.permutation.shuffle(&mut stream(
                Purpose::Order,
                self.seed,
                epoch,
                u64::from(set),
            ));
        }
        SampleId {
            set,
            epoch,
            clip: known.permutation[place],
            repeat: 0,
        }
    }

    /// The data set of a draw, and how many draws of this set came before it.
    fn set_and_place(&mut self, draw: u64) -> (u32, u64) {
        if self.sets.len() == 1 {
            return (0, draw);
        }
        let (period, at) = (
            draw / MIX_PERIOD as u64,
            (draw % MIX_PERIOD as u64) as usize,
        );
        if self.period != Some(period) {
            self.period = Some(period);
            self.mix.clear();
            let sets = self.sets.iter().zip(0u32..);
            self.mix.extend(
                sets.flat_map(|(set, number)| std::iter::repeat_n((number, 0), set.share as usize)),
            );
            self.mix
                .shuffle(&mut stream(Purpose::Mix, self.seed, period, 0));
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

/// How many of [`MIX_PERIOD`] draws each of the `weights` gets: its share rounded down, at least
/// one; the rest goes to the largest remainders.
fn shares(weights: &[f64]) -> Vec<u64> {
    let all: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights
        .iter()
        .map(|weight| weight / all * MIX_PERIOD as f64)
        .collect();
    let mut shares: Vec<u64> = exact.iter().map(|&part| (part as u64).max(1)).collect();
    let total = |shares: &[u64]| shares.iter().sum::<u64>();
    let remainder = |shares: &[u64], set: &usize| exact[*set] - shares[*set] as f64;
    while total(&shares) != MIX_PERIOD as u64 {
        let sets = 0..weights.len();
        if total(&shares) < MIX_PERIOD as u64 {
            let most = sets.max_by(|a, b| remainder(&shares, a).total_cmp(&remainder(&shares, b)));
            shares[most.expect("a set")] += 1;
        } else {
            // Sets of tiny weight have one draw each, more than their share.
            let sets = sets.filter(|&set| shares[set] > 1);
            let least = sets.min_by(|a, b| remainder(&shares, a).total_cmp(&remainder(&shares, b)));
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
            let mut seen: Vec<u64> = samples
                .inspect(|sample| assert_eq!(sample.epoch, epoch))
                .map(|sample| sample.clip)
                .collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..clips).collect::<Vec<_>>());
        }

        #[test]
        fn sets_have_their_shares_and_each_goes_through_its_epochs(
            weights in proptest::collection::vec(0.001f64..100.0, 2..6),
            seed: u64,
        ) {
            let sets: Vec<(u64, f64)> =
                weights.iter().zip(5..).map(|(&weight, clips)| (clips, weight)).collect();
            let mut order = Order::new(&sets, seed);
            let draws: Vec<SampleId> =
                (0..2 * MIX_PERIOD as u64).map(|draw| order.draw(draw)).collect();
            let all: f64 = weights.iter().sum();
            for (number, &(clips, weight)) in sets.iter().enumerate() {
                let of_set: Vec<&SampleId> =
                    draws.iter().filter(|sample| sample.set == number as u32).collect();
                let exact = 2.0 * MIX_PERIOD as f64 * weight / all;
                prop_assert!(
                    (of_set.len() as f64 - exact.max(2.0)).abs() <= 2.0 * sets.len() as f64,
                    "{} draws for {exact}",
                    of_set.len()
                );
                for (place, epoch) in of_set.chunks_exact(clips as usize).enumerate() {
                    let mut seen: Vec<u64> = epoch.iter().map(|sample| sample.clip).collect();
                    seen.sort_unstable();
                    prop_assert_eq!(seen, (0..clips).collect::<Vec<_>>());
                    prop_assert!(epoch.iter().all(|sample| sample.epoch == place as u64));
                }
            }
            // Resumed anywhere, the order continues alike.
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
            (0..100)
                .map(|place| order.draw(epoch * 100 + place).clip)
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn every_sample_has_a_stream_of_its_own() {
        use rand::RngExt;
        let sample = SampleId {
            set: 0,
            epoch: 3,
            clip: 4,
            repeat: 0,
        };
        let others = [
            sample,
            SampleId { set: 1, ..sample },
            SampleId { epoch: 4, ..sample },
            SampleId { clip: 5, ..sample },
            SampleId {
                repeat: 1,
                ..sample
            },
        ];
        let numbers = others.map(|sample| sample.stream(Purpose::Augment, 9).random::<u64>());
        assert_eq!(
            numbers
                .iter()
                .collect::<std::collections::HashSet<_>>()
                .len(),
            others.len()
        );
        assert_eq!(
            numbers[0],
            stream(Purpose::Augment, 9, 3, 4).random::<u64>()
        );
    }
}
