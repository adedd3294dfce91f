//! The ranks of MPI's world.

use super::RanksError;
use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};
use std::fmt::{self, Debug, Formatter};
use std::thread;
use std::time::Duration;

/// How often a rank that waits quietly looks whether the others are there.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// All ranks, or some of them.
pub(super) struct World {
    /// None for one rank that takes no part.
    communicator: Option<SimpleCommunicator>,
    /// MPI, which ends when this is dropped; with all ranks only. After the communicator, which has
    /// to be freed first.
    _universe: Option<Universe>,
    number: usize,
    count: usize,
}

impl Debug for World {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} of {}", self.number, self.count)
    }
}

/// Lengths as MPI counts, and where each part begins.
fn places(lengths: &[usize]) -> (Vec<i32>, Vec<i32>) {
    let counts: Vec<i32> = lengths.iter().map(|&length| length as i32).collect();
    let firsts = counts.iter().scan(0, |next, count| {
        let first = *next;
        *next += count;
        Some(first)
    });
    let firsts = firsts.collect();
    (counts, firsts)
}

impl World {
    pub(super) fn start() -> Result<Self, RanksError> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| RanksError::Start("it was started before".to_owned()))?;
        if threading < Threading::Funneled {
            let message = "this MPI does not allow programs with threads (MPI_THREAD_FUNNELED)";
            return Err(RanksError::Start(message.to_owned()));
        }
        Ok(Self::of(universe.world(), Some(universe)))
    }

    fn of(communicator: SimpleCommunicator, universe: Option<Universe>) -> Self {
        Self {
            number: communicator.rank() as usize,
            count: communicator.size() as usize,
            communicator: Some(communicator),
            _universe: universe,
        }
    }

    pub(super) const fn alone() -> Self {
        Self {
            communicator: None,
            _universe: None,
            number: 0,
            count: 1,
        }
    }

    fn world(&self) -> &SimpleCommunicator {
        self.communicator.as_ref().expect("several ranks")
    }

    /// The first ranks, without the others; none on those.
    pub(super) fn first(&self, count: usize) -> Option<Self> {
        let color = match self.number < count {
            true => Color::with_value(0),
            false => Color::undefined(),
        };
        let communicator = self.world().split_by_color(color)?;
        Some(Self::of(communicator, None))
    }

    /// Waits until all ranks are here, and leaves the core to others meanwhile.
    pub(super) fn wait_quietly(&self) {
        let mut request = self.world().immediate_barrier();
        while let Err(waiting) = request.test() {
            request = waiting;
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(super) const fn number(&self) -> usize {
        self.number
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn gather(&self, values: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; values.len() * self.count];
        self.world().all_gather_into(values, &mut all[..]);
        all
    }

    pub(super) fn gather_bytes(&self, bytes: &[u8], lengths: &[usize]) -> Vec<u8> {
        let (counts, firsts) = places(lengths);
        let mut all = vec![0; lengths.iter().sum()];
        let mut parts = PartitionMut::new(&mut all[..], counts, firsts);
        self.world().all_gather_varcount_into(bytes, &mut parts);
        all
    }

    pub(super) fn broadcast(&self, values: &mut [f32]) {
        self.world().process_at_rank(0).broadcast_into(values);
    }

    pub(super) fn send_to_root(&self, values: &[f32]) {
        self.world().process_at_rank(0).send(values);
    }

    pub(super) fn receive(&self, rank: usize, values: &mut [f32]) {
        let sender = self.world().process_at_rank(rank as i32);
        sender.receive_into(values);
    }

    /// Sends each rank its part of `values`, which have `lengths`; `received` are the parts of this
    /// rank.
    pub(super) fn exchange(&self, values: &[f32], lengths: &[usize], received: &mut [f32]) {
        let (counts, firsts) = places(lengths);
        let sent = Partition::new(values, counts, firsts);
        let (counts, firsts) = places(&vec![lengths[self.number]; self.count]);
        let mut received = PartitionMut::new(received, counts, firsts);
        self.world().all_to_all_varcount_into(&sent, &mut received);
    }

    /// Collects the parts of all ranks, which have `lengths`; `own` is the part of this rank.
    pub(super) fn collect(&self, own: &[f32], lengths: &[usize], values: &mut [f32]) {
        let (counts, firsts) = places(lengths);
        let mut parts = PartitionMut::new(values, counts, firsts);
        self.world().all_gather_varcount_into(own, &mut parts);
    }

    pub(super) fn abort(&self, code: i32) -> ! {
        match &self.communicator {
            Some(world) => world.abort(code),
            None => std::process::exit(code),
        }
    }
}
