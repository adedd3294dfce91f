//! How long a step takes on many nodes, from what one of them measures.
//!
//! ```text
//! compute  forward ───── backward ──────────────────┐ update
//!                          │ bucket 0  │ 1   │ 2     │
//! sums                     └─ sum 0 ── sum 1 ── sum 2 ── exposed
//! ```
//!
//! Buckets of gradients are summed one after the other, each once it is complete and the one before
//! it is summed. A rank of `n` sends `(n - 1) / n` of a bucket's bytes to the others, in `n - 1`
//! messages, and receives as many, then the same again for the sums; it adds up `1 / n` of `n`
//! buckets between the two.

/// When a step makes its gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Seconds of forward and backward.
    pub compute: f64,
    /// When buckets are complete, in seconds from the beginning of the step, and their values.
    pub buckets: Vec<(f64, usize)>,
    /// Seconds of the update.
    pub update: f64,
}

/// What sums cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Bytes that a rank sends in a second, while it receives as many.
    pub bytes_per_second: f64,
    /// Seconds of each message beyond its bytes.
    pub latency: f64,
    /// Seconds of adding up a value of a bucket.
    pub add_up: f64,
}

/// A step as the model predicts it, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// All of it.
    pub step: f64,
    /// The sums.
    pub sums: f64,
    /// What is left of them after the backward.
    pub exposed: f64,
}

impl Timeline {
    /// Seconds of a step without sums.
    pub fn alone(&self) -> f64 {
        self.compute + self.update
    }

    /// Seconds from the first complete gradients to the end of the backward.
    pub fn overlap(&self) -> f64 {
        let first = self.buckets.first().map_or(self.compute, |&(at, _)| at);
        self.compute - first
    }

    /// The same step on `ranks` ranks.
    pub fn on(&self, ranks: usize, costs: Costs) -> Predicted {
        let mut end = 0.0;
        let mut sums = 0.0;
        for &(complete, values) in &self.buckets {
            let seconds = costs.of_bucket(ranks, values);
            sums += seconds;
            end = f64::max(end, complete) + seconds;
        }
        let exposed = if ranks == 1 {
            0.0
        } else {
            f64::max(end - self.compute, 0.0)
        };
        Predicted {
            step: self.alone() + exposed,
            sums,
            exposed,
        }
    }
}

impl Costs {
    /// Seconds of the sum of a bucket of `values` on `ranks` ranks.
    pub fn of_bucket(&self, ranks: usize, values: usize) -> f64 {
        if ranks == 1 {
            return 0.0;
        }
        let others = (ranks - 1) as f64;
        let sent = 4.0 * values as f64 * others / ranks as f64;
        2.0 * (sent / self.bytes_per_second + others * self.latency) + values as f64 * self.add_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backward from 1 s to 3 s, in two buckets.
    fn timeline() -> Timeline {
        Timeline {
            compute: 3.0,
            buckets: vec![(2.0, 1000), (3.0, 1000)],
            update: 0.5,
        }
    }

    /// A second for what a rank of two sends of a bucket, twice; nothing else.
    const SLOW: Costs = Costs {
        bytes_per_second: 2000.0,
        latency: 0.0,
        add_up: 0.0,
    };

    #[test]
    fn sums_are_hidden_as_far_as_gradients_come_early() {
        let timeline = timeline();
        assert_eq!(timeline.alone(), 3.5);
        assert_eq!(timeline.overlap(), 1.0);
        // The first from 2 to 4 s, the second from 4 to 6 s.
        let predicted = timeline.on(2, SLOW);
        assert_eq!(
            predicted,
            Predicted {
                step: 6.5,
                sums: 4.0,
                exposed: 3.0
            }
        );
        // Four times as fast: 2 to 2.5 s, then 3 to 3.5 s, as the second is not complete earlier.
        let fast = Costs {
            bytes_per_second: 8000.0,
            ..SLOW
        };
        assert_eq!(timeline.on(2, fast).exposed, 0.5);
        assert_eq!(timeline.on(1, SLOW).step, 3.5);
    }

    #[test]
    fn a_sum_takes_bytes_messages_and_additions() {
        // Of 4000 bytes, three quarters are sent in three messages, twice.
        let costs = Costs {
            bytes_per_second: 1000.0,
            latency: 0.25,
            add_up: 0.001,
        };
        assert_eq!(costs.of_bucket(4, 1000), 2.0 * (3.0 + 0.75) + 1.0);
        assert_eq!(costs.of_bucket(1, 1000), 0.0);
    }
}
