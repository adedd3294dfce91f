//! Runs side by side, each as soon as the one that it starts from is done.

use super::StudyError;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

/// A run that has not begun.
pub(super) struct Waiting<W> {
    /// Its name.
    pub(super) name: String,
    /// Name of the run that must be done before it begins, if there is one.
    pub(super) needs: Option<String>,
    /// What it does.
    pub(super) work: W,
}

/// Calls `run` for all runs, `jobs` at a time: the next is always the first that may begin. Calls
/// `done` with each result, on this thread. After an error, or when `stop` is set, no further run
/// begins; an error sets `stop`.
pub(super) fn run_all<W: Send, R: Send>(
    jobs: usize,
    stop: &AtomicBool,
    mut waiting: Vec<Waiting<W>>,
    run: impl Fn(&str, W) -> Result<R, StudyError> + Sync,
    mut done: impl FnMut(&str, R) -> Result<(), StudyError>,
) -> Result<(), StudyError> {
    let (sender, results) = mpsc::channel();
    let (run, mut running, mut finished) = (&run, 0, BTreeSet::new());
    let mut failed = None;
    thread::scope(|scope| {
        loop {
            while running < jobs && !stop.load(Ordering::SeqCst) {
                let may_begin = |next: &Waiting<W>| {
                    let needs = next.needs.as_ref();
                    needs.is_none_or(|needed| finished.contains(needed))
                };
                let Some(at) = waiting.iter().position(may_begin) else {
                    break;
                };
                let Waiting { name, work, .. } = waiting.remove(at);
                let sender = sender.clone();
                scope.spawn(move || {
                    // A panic must reach the loop below, which waits for this result.
                    let result = catch_unwind(AssertUnwindSafe(|| run(&name, work)));
                    let sent = sender.send((name, result));
                    sent.expect("results are received until no run is left");
                });
                running += 1;
            }
            if running == 0 {
                return;
            }
            let (name, result) = results.recv().expect("this function has a sender");
            running -= 1;
            let result = result.unwrap_or_else(|panic| {
                stop.store(true, Ordering::SeqCst);
                resume_unwind(panic)
            });
            match result.and_then(|result| done(&name, result)) {
                Ok(()) => {
                    finished.insert(name);
                }
                Err(error) => {
                    stop.store(true, Ordering::SeqCst);
                    // Runs that it stopped end with an error, too.
                    if matches!(failed, None | Some(StudyError::Stopped)) {
                        failed = Some(error);
                    }
                }
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None if waiting.is_empty() => Ok(()),
        None => Err(StudyError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    /// Runs with the name that each needs, or an empty one.
    fn runs(names: &[(&str, &str)]) -> Vec<Waiting<()>> {
        let of_name = |(name, needs): &(&str, &str)| Waiting {
            name: (*name).to_owned(),
            needs: (!needs.is_empty()).then(|| (*needs).to_owned()),
            work: (),
        };
        names.iter().map(of_name).collect()
    }

    #[test]
    fn the_first_run_that_may_begin_is_next() {
        let began = Mutex::new(Vec::new());
        let waiting = runs(&[("a", "c"), ("b", ""), ("c", ""), ("d", ""), ("e", "a")]);
        let run = |name: &str, ()| {
            began.lock().expect("no panic").push(name.to_owned());
            Ok(())
        };
        let mut done = Vec::new();
        let on_done = |name: &str, ()| {
            done.push(name.to_owned());
            Ok(())
        };
        run_all(1, &AtomicBool::new(false), waiting, run, on_done).expect("all runs");
        let began = began.into_inner().expect("no panic");
        assert_eq!(began, ["b", "c", "a", "d", "e"]);
        assert_eq!(done, began);
    }

    #[test]
    fn a_run_that_needs_none_of_those_at_work_is_beside_them() {
        // Each waits for the other: one at a time they would not end.
        let both = Barrier::new(2);
        let run = |name: &str, ()| {
            if name != "b" {
                both.wait();
            }
            Ok(())
        };
        let waiting = runs(&[("a", ""), ("b", "a"), ("c", "")]);
        run_all(2, &AtomicBool::new(false), waiting, run, |_, ()| Ok(())).expect("all runs");
    }

    #[test]
    fn an_error_stops_the_others_and_is_the_result() {
        let stop = AtomicBool::new(false);
        let run = |name: &str, ()| match name {
            "a" => {
                while !stop.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                Err(StudyError::Stopped)
            }
            "b" => Err(StudyError::NoOther),
            _ => panic!("{name} must not begin"),
        };
        let waiting = runs(&[("a", ""), ("b", ""), ("c", "")]);
        let error = run_all(2, &stop, waiting, run, |_, ()| Ok(()));
        assert!(matches!(error, Err(StudyError::NoOther)), "{error:?}");
        assert!(stop.load(Ordering::SeqCst));
        // None begins once it is stopped.
        let error = run_all(2, &stop, runs(&[("c", "")]), run, |_, ()| Ok(()));
        assert!(matches!(error, Err(StudyError::Stopped)), "{error:?}");
    }

    #[test]
    #[should_panic(expected = "a panic of a run")]
    fn a_panic_is_passed_on() {
        let stop = AtomicBool::new(false);
        let run = |name: &str, ()| {
            assert!(name != "a", "a panic of a run");
            while !stop.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            Err(StudyError::Stopped)
        };
        let waiting = runs(&[("a", ""), ("b", "")]);
        let ended: Result<(), _> = run_all(2, &stop, waiting, run, |_, ()| Ok(()));
        ended.expect("it panics");
    }
}
