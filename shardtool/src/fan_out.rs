//! Processes many items at a time, with results in the order of the items.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::VecDeque;
use std::num::NonZero;

/// Items in progress per worker: enough that a long item does not leave the other workers idle
/// soon.
const ITEMS_AHEAD: usize = 4;

/// Returns the number of cores that this process may use.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs `work` on every item with `jobs` threads, each with its own `state`. Runs `consume` on the
/// calling thread for one item after another, in order, with the receiver of the messages that
/// `work` sends for it. Each item's channel holds `queued` messages; then its worker waits.
///
/// There is no deadlock: items are started in order, so the item that `consume` waits for has a
/// worker. When `consume` fails, receivers are dropped, and every worker ends at its next send.
///
/// # Errors
/// The first error of `consume`.
pub fn fan_out<T: Sync, M: Send, S>(
    items: &[T],
    jobs: usize,
    queued: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T, &Sender<M>) + Sync,
    mut consume: impl FnMut(&T, Receiver<M>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (start, started) = unbounded::<(&T, Sender<M>)>();
    std::thread::scope(|scope| {
        // Moved in, so that it is dropped before the scope waits for the workers.
        let start = start;
        for _ in 0..jobs.min(items.len()) {
            let started = started.clone();
            let state = &state;
            let work = &work;
            scope.spawn(move || {
                let mut state = state();
                started.into_iter().for_each(|(item, sender)| work(&mut state, item, &sender));
            });
        }
        let mut waiting = VecDeque::new();
        let mut rest = items.iter();
        for item in items {
            while waiting.len() < jobs * ITEMS_AHEAD {
                let Some(next) = rest.next() else { break };
                let (sender, receiver) = bounded(queued);
                // The workers live as long as this scope, so the channel is open.
                let _ = start.send((next, sender));
                waiting.push_back(receiver);
            }
            let receiver = waiting.pop_front().expect("a receiver for every item");
            consume(item, receiver)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..50).collect();
        let mut seen = Vec::new();
        let send_thrice =
            |(): &mut (), &item: &u32, sender: &Sender<u32>| (0..3).for_each(|part| assert!(sender.send(3 * item + part).is_ok()));
        fan_out(
            &items,
            4,
            1,
            || (),
            send_thrice,
            |_, receiver| {
                seen.extend(receiver);
                Ok(())
            },
        )
        .expect("nothing fails");
        assert_eq!(seen, (0..150).collect::<Vec<_>>());
    }

    #[test]
    fn a_failing_consumer_ends_the_workers() {
        let items: Vec<u32> = (0..50).collect();
        let endless = |(): &mut (), _: &u32, sender: &Sender<u32>| while sender.send(0).is_ok() {};
        let result = fan_out(
            &items,
            3,
            2,
            || (),
            endless,
            |&item, receiver| {
                drop(receiver);
                anyhow::ensure!(item < 5, "enough");
                Ok(())
            },
        );
        assert_eq!(result.expect_err("the sixth item fails").to_string(), "enough");
    }
}
