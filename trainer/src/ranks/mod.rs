//! Ranks: the processes that train one model together, each on its share of every batch.
//!
//! With the feature `mpi` they are those of `mpirun` or `srun`; without it, and without a launcher,
//! there is one. All calls of MPI are made on the thread that has started it.
//!
//! Sums have one fixed form whatever the number of ranks, so they are not MPI's: each rank gets its
//! share of the values of all (all to all), sums it as a balanced tree, and all get the sums (all
//! gather).

#[cfg(not(feature = "mpi"))]
#[path = "alone.rs"]
mod world;
#[cfg(feature = "mpi")]
#[path = "mpi.rs"]
mod world;

use pipeline::loader::Rank;
use pipeline::simd::InstructionSet;
use std::cell::RefCell;
use std::env;
use std::fs;
use std::ops::AddAssign;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};
use world::World;

/// Variables that launchers set for each rank: Open MPI's, MPICH's and Intel's, PMIx's.
const OF_LAUNCHERS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];

/// Values of a message, at most: MPI counts in 32 bits.
const MESSAGE: usize = 1 << 28;

/// Why ranks cannot work together.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// MPI has not started.
    #[error("MPI cannot be started: {0}")]
    Start(String),
    /// The ranks were not started alike.
    #[error(
        "the {what} of rank {rank} is not that of rank 0: {theirs}, not {ours}; start all ranks \
         with the same program, arguments and data"
    )]
    Unlike {
        /// Which one.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// That rank's, as far as it differs.
        theirs: String,
        /// Rank 0's.
        ours: String,
    },
    /// Too many clips cannot be read, on all ranks together.
    #[error(
        "{} clips cannot be read, and at most {limit} may be skipped (--max-bad); the last one: \
         {last}",
        limit + 1
    )]
    TooManyBad {
        /// How many may be skipped.
        limit: usize,
        /// Why the last one cannot be read.
        last: String,
    },
}

/// All ranks, as one of them sees them.
#[derive(Debug)]
pub struct Ranks {
    world: World,
    /// How many ranks may use the cores of this one, with it.
    on_same_cores: usize,
    received: RefCell<Vec<f32>>,
}

/// How long sums over ranks took.
#[derive(Debug, Clone, Copy, Default)]
pub struct SumTimes {
    /// All of it.
    pub all: Duration,
    /// What was left after the computation had ended.
    pub exposed: Duration,
}

impl AddAssign for SumTimes {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.exposed += other.exposed;
    }
}

impl Ranks {
    /// Meets the other ranks; without a launcher there are none.
    ///
    /// # Errors
    /// When MPI does not start.
    pub fn start() -> Result<Self, RanksError> {
        if OF_LAUNCHERS.iter().all(|name| env::var_os(name).is_none()) {
            return Ok(Self::alone());
        }
        let mut ranks = Self {
            world: World::start()?,
            ..Self::alone()
        };
        let cores = own_cores();
        let all = ranks.gather_bytes(cores.as_bytes());
        ranks.on_same_cores = all
            .iter()
            .filter(|other| *other == cores.as_bytes())
            .count();
        Ok(ranks)
    }

    /// This process alone, whatever others there are.
    pub fn alone() -> Self {
        Self {
            world: World::alone(),
            on_same_cores: 1,
            received: RefCell::default(),
        }
    }

    /// The first `count` ranks, to work without the others; none on those. All ranks call this.
    pub fn first(&self, count: usize) -> Option<Self> {
        if self.count() == 1 {
            return Some(Self::alone());
        }
        Some(Self {
            world: self.world.first(count)?,
            on_same_cores: self.on_same_cores,
            received: RefCell::default(),
        })
    }

    /// Number of this rank.
    pub fn number(&self) -> usize {
        self.world.number()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.world.count()
    }

    /// Which part of each batch this rank makes.
    pub fn rank(&self) -> Rank {
        Rank {
            number: self.number(),
            of: self.count(),
        }
    }

    /// This rank's share of `cores`, the number of those that it may use: ranks on the same machine
    /// may have to share them. At least 1.
    pub fn share_of(&self, cores: usize) -> usize {
        (cores / self.on_same_cores).max(1)
    }

    /// Whether this is rank 0, which writes and reports.
    pub fn is_root(&self) -> bool {
        self.number() == 0
    }

    /// The values of all ranks, which give equally many, in the order of the ranks.
    pub fn gather(&self, values: &[f64]) -> Vec<f64> {
        if self.count() == 1 {
            return values.to_vec();
        }
        self.world.gather(values)
    }

    /// The bytes of each rank.
    pub fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if self.count() == 1 {
            return vec![bytes.to_vec()];
        }
        let lengths = self.gather(&[bytes.len() as f64]);
        let lengths: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
        // MPI refuses the addresses of empty vectors.
        let all = match lengths.iter().sum() {
            0 => Vec::new(),
            _ => self.world.gather_bytes(bytes, &lengths),
        };
        let mut rest = all.as_slice();
        let parts = lengths.into_iter().map(|length| {
            let (part, others) = rest.split_at(length);
            rest = others;
            part.to_vec()
        });
        parts.collect()
    }

    /// Whether any rank says so.
    pub fn any(&self, flag: bool) -> bool {
        let flags = self.gather(&[f64::from(u8::from(flag))]);
        flags.into_iter().any(|flag| flag != 0.0)
    }

    /// Waits until all ranks are here.
    pub fn wait(&self) {
        self.any(false);
    }

    /// [`Self::wait`], which leaves the core to others meanwhile, and may take a little longer.
    pub fn wait_quietly(&self) {
        if self.count() > 1 {
            self.world.wait_quietly();
        }
    }

    /// Replaces the values of all ranks by those of rank 0.
    pub fn broadcast(&self, values: &mut [f32]) {
        if self.count() == 1 {
            return;
        }
        for part in values.chunks_mut(MESSAGE) {
            self.world.broadcast(part);
        }
    }

    /// Sends values to rank 0, which [receives](Self::receive) them.
    pub fn send_to_root(&self, values: &[f32]) {
        values
            .chunks(MESSAGE)
            .for_each(|part| self.world.send_to_root(part));
    }

    /// `length` values that rank `rank` sends to this one, which is rank 0.
    pub fn receive(&self, rank: usize, length: usize) -> Vec<f32> {
        let mut values = vec![0.0; length];
        values
            .chunks_mut(MESSAGE)
            .for_each(|part| self.world.receive(rank, part));
        values
    }

    /// Checks that all ranks run the same version on the same instruction set.
    ///
    /// # Errors
    /// [`RanksError::Unlike`], on all ranks.
    pub fn check_program(&self, set: InstructionSet) -> Result<(), RanksError> {
        // Each rank computes on its own, so roundings have to be the same.
        self.check("version", env!("CARGO_PKG_VERSION"))?;
        self.check("instruction set (INSTRUCTION_SET)", &format!("{set:?}"))
    }

    /// Checks that all ranks have the same `value`, what `what` says.
    ///
    /// # Errors
    /// [`RanksError::Unlike`], on all ranks.
    pub fn check(&self, what: &'static str, value: &str) -> Result<(), RanksError> {
        let values = self.gather_bytes(value.as_bytes());
        match values.iter().position(|other| *other != values[0]) {
            None => Ok(()),
            Some(rank) => Err(RanksError::Unlike {
                rank,
                what,
                theirs: only_in(&values[rank], &values[0]),
                ours: only_in(&values[0], &values[rank]),
            }),
        }
    }

    /// Replaces values by the sums of those of all ranks.
    pub fn sum(&self, values: &mut [f32]) {
        let count = self.count();
        if count == 1 || values.is_empty() {
            return;
        }
        let share = values.len().div_ceil(count);
        let first = |rank: usize| (rank * share).min(values.len());
        let lengths: Vec<usize> = (0..count)
            .map(|rank| first(rank + 1) - first(rank))
            .collect();
        let own = lengths[self.number()];
        let mut received = self.received.borrow_mut();
        received.resize(count * own, 0.0);
        self.world.exchange(values, &lengths, &mut received);
        sum_tree(&mut received, own);
        self.world.collect(&received[..own], &lengths, values);
    }

    /// Runs `compute` on another thread, and replaces each slice that it sends by the sum of those
    /// of all ranks meanwhile. All ranks have to send slices of the same lengths in the same order.
    pub fn sum_while<'a, R: Send>(
        &self,
        compute: impl FnOnce(Sender<&'a mut [f32]>) -> R + Send,
    ) -> (R, SumTimes) {
        let (sender, slices) = mpsc::channel();
        thread::scope(|scope| {
            let computing = scope.spawn(|| {
                let result = compute(sender);
                (result, Instant::now())
            });
            let mut all = Duration::ZERO;
            for slice in slices {
                let began = Instant::now();
                // MPI itself would wait for slower ranks with a core that the computation needs.
                self.wait_quietly();
                self.sum(slice);
                all += began.elapsed();
            }
            let (result, computed) = match computing.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            let exposed = computed.elapsed().min(all);
            (result, SumTimes { all, exposed })
        })
    }

    /// Ends all ranks at once: this one has failed, and has said why.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

/// This machine since its start, and the cores of it that this process may use, as text.
fn own_cores() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let cores = lines.find(|line| line.starts_with("Cpus_allowed:"));
    machine + cores.unwrap_or_default()
}

/// The lines of a text that another one does not have.
fn only_in(text: &[u8], other: &[u8]) -> String {
    let [text, other] = [text, other].map(String::from_utf8_lossy);
    let lines = text.lines();
    let lines = lines.filter(|line| !other.lines().any(|known| known == *line));
    lines.collect::<Vec<_>>().join(", ")
}

/// Sums parts of `length` values into the first one, as a balanced tree.
pub fn sum_tree(parts: &mut [f32], length: usize) {
    if length == 0 {
        return;
    }
    let count = parts.len() / length;
    let mut distance = 1;
    while distance < count {
        for pair in parts.chunks_mut(2 * distance * length) {
            if pair.len() > distance * length {
                let (to, from) = pair.split_at_mut(distance * length);
                let values = to[..length].iter_mut().zip(&from[..length]);
                values.for_each(|(to, from)| *to += from);
            }
        }
        distance *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_summed_as_a_balanced_tree() {
        let value = |at: usize| 1.0 / (3.0 + at as f32).powi(5);
        for (count, sum) in [
            (1, value(0)),
            (2, value(0) + value(1)),
            (3, value(0) + value(1) + value(2)),
            (4, (value(0) + value(1)) + (value(2) + value(3))),
        ] {
            // Two values in each part, of which the second is the first's negative.
            let mut parts: Vec<f32> = (0..count).flat_map(|at| [value(at), -value(at)]).collect();
            sum_tree(&mut parts, 2);
            assert_eq!(parts[..2], [sum, -sum], "{count}");
        }
    }
}
