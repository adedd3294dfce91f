//! Work on many items in parallel, with results in the order of the items.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::VecDeque;

/// Items in flight per worker: enough that one long item does not soon leave the other workers
/// idle.
const ITEMS_AHEAD: usize = 4;

/// Runs `work` on every item, with `jobs` threads that each have their own `state`. Calls `consume`
/// on the calling thread, with the items in order, each with the receiver of the messages that
/// `work` sends for it. An item's channel holds `queued` messages; when it is full, its worker
/// waits.
///
/// This cannot deadlock: items are begun in order, so the item that `consume` waits for has a
/// worker. When `consume` fails, the receivers are dropped, and every worker ends at its next send.
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
    let (begin, begun) = unbounded::<(&T, Sender<M>)>();
    std::thread::scope(|scope| {
        // Moved in, so that they are dropped before the scope waits for the workers.
        let begin = begin;
        for _ in 0..jobs.min(items.len()) {
            let (begun, state, work) = (begun.clone(), &state, &work);
            scope.spawn(move || {
                let mut state = state();
                begun
                    .into_iter()
                    .for_each(|(item, sender)| work(&mut state, item, &sender));
            });
        }
        let mut waiting = VecDeque::new();
        let mut rest = items.iter();
        for item in items {
            while waiting.len() < jobs * ITEMS_AHEAD {
                let Some(next) = rest.next() else { break };
                let (sender, receiver) = bounded(queued);
                // The workers live as long as this scope, so this cannot fail.
                let _ = begin.send((next, sender));
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
        let send_thrice = |(): &mut (), &item: &u32, sender: &Sender<u32>| {
            (0..3).for_each(|part| assert!(sender.send(3 * item + part).is_ok()))
        };
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
        assert_eq!(
            result.expect_err("the sixth item fails").to_string(),
            "enough"
        );
    }
}
