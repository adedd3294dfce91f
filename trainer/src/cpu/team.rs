//! The threads that compute a step, and their parallel loops.
//!
//! A step is a thousand short loops with little in between. Waking a thread takes longer than many
//! of them, so threads that wait for the next loop poll, and sleep only when that takes long. Most
//! of that time they yield: a thread of the loader that is ready to run gets their core.

use super::shared::Shared;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, yield_now};
use std::time::{Duration, Instant};

/// Polls between two looks at the clock.
const POLLS: u32 = 256;

/// How long a thread polls before it yields its core between polls.
const SPIN: Duration = Duration::from_micros(30);

/// How long a thread without work polls before it sleeps.
const AWAKE: Duration = Duration::from_micros(500);

/// Calls of the loop of one index each.
type Body<'a> = dyn Fn(usize) + Sync + 'a;

/// A loop that threads may join. Its low bit is set while it may be joined, the next 15 bits count
/// the threads in it, and the rest counts loops.
struct State(AtomicU64);

impl State {
    const OPEN: u64 = 1;
    const THREAD: u64 = 2;
    const LOOP: u64 = 1 << 16;

    /// Opens the next loop.
    fn open(&self) {
        let state = self.0.load(Ordering::Relaxed);
        self.0
            .store(state + Self::LOOP + Self::OPEN, Ordering::SeqCst);
    }

    /// Closes the loop, and waits for the threads in it.
    fn close(&self) {
        self.0.fetch_and(!Self::OPEN, Ordering::Relaxed);
        let inside = Self::LOOP - Self::THREAD;
        poll(Duration::MAX, || {
            self.0.load(Ordering::Acquire) & inside == 0
        });
    }

    /// Whether there is a loop other than `last` to join.
    fn is_open(&self, last: u64) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        state & Self::OPEN != 0 && state / Self::LOOP != last
    }

    /// Joins the loop, if it is open; returns its number.
    fn join(&self) -> Option<u64> {
        let join = |state| (state & Self::OPEN != 0).then_some(state + Self::THREAD);
        let state = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, join);
        Some(state.ok()? / Self::LOOP)
    }

    fn leave(&self) {
        self.0.fetch_sub(Self::THREAD, Ordering::Release);
    }
}

/// Polls until `is_done`, or for about `longest`; returns whether it was done.
fn poll(longest: Duration, is_done: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..POLLS {
            if is_done() {
                return true;
            }
            spin_loop();
        }
        let waited = began.elapsed();
        if waited > longest {
            return false;
        }
        if waited > SPIN {
            yield_now();
        }
    }
}

/// What the threads of a team share.
struct Common {
    state: State,
    /// The body of the loop and the number of its calls, while threads are in it.
    body: UnsafeCell<(*const Body<'static>, usize)>,
    /// Index of the next call.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    ends: AtomicBool,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `body` is written only while no thread is in a loop, and is `Sync`.
unsafe impl Sync for Common {}
// SAFETY: as above.
unsafe impl Send for Common {}

impl Common {
    /// Calls `body` for all indices below `count`, and returns when all calls are done.
    fn run(&self, count: usize, body: &Body<'_>) {
        // SAFETY: no thread is in a loop, so none reads this.
        unsafe {
            *self.body.get() = (
                std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body),
                count,
            )
        };
        self.next.store(0, Ordering::Relaxed);
        self.state.open();
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
        self.take_part();
        self.state.close();
        let panic = self
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Makes calls of the loop while there are any. A panic ends the loop.
    fn take_part(&self) {
        // SAFETY: the caller is in the loop, so nothing writes this, and the body lives.
        let (body, count) = unsafe {
            let (body, count) = *self.body.get();
            (&*body, count)
        };
        let calls = || loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            body(at);
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(calls)) {
            self.next.store(count, Ordering::Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    /// Joins loops until the team ends.
    fn work(&self) {
        let mut last = 0;
        loop {
            let has_work = || self.state.is_open(last) || self.ends.load(Ordering::SeqCst);
            if !poll(AWAKE, has_work) {
                let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                while !has_work() {
                    lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleeping.fetch_sub(1, Ordering::SeqCst);
            }
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            if let Some(joined) = self.state.join() {
                last = joined;
                self.take_part();
                self.state.leave();
            }
        }
    }
}

/// Some threads that run loops together with the thread that starts them.
pub(crate) struct Team {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team of {}", self.threads.len() + 1)
    }
}

impl Team {
    /// Starts `threads - 1` threads.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let common = Arc::new(Common {
            state: State(AtomicU64::new(State::LOOP)),
            body: UnsafeCell::new((&|_| {}, 0)),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            ends: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut team = Self {
            common,
            threads: Vec::new(),
        };
        for at in 1..threads {
            let common = Arc::clone(&team.common);
            let thread = std::thread::Builder::new().name(format!("compute-{at}"));
            team.threads.push(thread.spawn(move || common.work())?);
        }
        Ok(team)
    }

    /// Runs `compute`, whose loops run on the threads of this team.
    pub(crate) fn install<R>(&self, compute: impl FnOnce() -> R) -> R {
        let team = (!self.threads.is_empty()).then_some(&raw const *self);
        let _reset = Installed(TEAM.replace(team));
        compute()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.common.ends.store(true, Ordering::SeqCst);
        drop(
            self.common
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.common.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches the panics of loops.
            let _ = thread.join();
        }
    }
}

thread_local! {
    /// The team that runs the loops of this thread, if it is not in one.
    static TEAM: Cell<Option<*const Team>> = const { Cell::new(None) };
}

/// Resets the team of a thread.
struct Installed(Option<*const Team>);

impl Drop for Installed {
    fn drop(&mut self) {
        TEAM.set(self.0);
    }
}

/// Threads of the installed team.
pub(crate) fn threads() -> usize {
    // SAFETY: an installed team lives.
    TEAM.get()
        .map_or(1, |team| unsafe { (*team).threads.len() } + 1)
}

/// Calls `body` for all indices below `count`, on the threads of the installed team. Without a
/// team, or inside of another loop, calls it in order.
pub(crate) fn for_each(count: usize, body: impl Fn(usize) + Sync) {
    let team = TEAM.take();
    let _reset = Installed(team);
    match team {
        // SAFETY: an installed team lives.
        Some(team) if count > 1 => unsafe { (*team).common.run(count, &body) },
        _ => (0..count).for_each(body),
    }
}

/// Calls `body` with the index of each chunk of `size` values and with the chunk.
pub(crate) fn for_each_chunk<A: Send>(
    values: &mut [A],
    size: usize,
    body: impl Fn(usize, &mut [A]) + Sync,
) {
    for_each_chunk2(values, size, &mut [(); 0], 0, |at, chunk, _| {
        body(at, chunk)
    });
}

/// [`for_each_chunk`] of two slices, in chunks of their own sizes. The second has as many chunks,
/// or is empty.
pub(crate) fn for_each_chunk2<A: Send, B: Send>(
    first: &mut [A],
    first_size: usize,
    second: &mut [B],
    second_size: usize,
    body: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let count = first.len().div_ceil(first_size.max(1));
    let first = Shared::new(first, first_size);
    let second = Shared::new(second, second_size);
    for_each(count, |at| {
        // SAFETY: each chunk is taken once.
        let chunks = unsafe { (first.chunk(at), second.chunk(at)) };
        body(at, chunks.0, chunks.1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_called_once() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).expect("threads");
            for count in [0, 1, 2, 7, 1000].into_iter().cycle().take(500) {
                let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                team.install(|| {
                    for_each(count, |at| {
                        calls[at].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn chunks_are_disjoint_and_cover_all() {
        let team = Team::new(3).expect("threads");
        let mut first = [0; 10];
        let mut second = [0; 4];
        team.install(|| {
            for_each_chunk2(&mut first, 3, &mut second, 1, |at, first, second| {
                first.fill(at);
                second.fill(at);
            });
        });
        assert_eq!(first, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
        assert_eq!(second, [0, 1, 2, 3]);
    }

    #[test]
    fn loops_in_loops_and_after_sleep_run() {
        let team = Team::new(2).expect("threads");
        let calls = AtomicUsize::new(0);
        for _ in 0..3 {
            team.install(|| {
                for_each(4, |_| {
                    for_each(5, |_| {
                        calls.fetch_add(1, Ordering::Relaxed);
                    });
                });
            });
            std::thread::sleep(4 * AWAKE);
        }
        assert_eq!(calls.into_inner(), 60);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2).expect("threads");
        for at_fault in [0, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.install(|| for_each(100, |at| assert!(at != at_fault, "index {at}")));
            }));
            let panic = result.expect_err("a panic");
            let message = panic.downcast_ref::<String>().expect("a message");
            assert_eq!(*message, format!("index {at_fault}"));
            assert_eq!(threads(), 1, "the team is no longer installed");
        }
        let calls = AtomicUsize::new(0);
        team.install(|| {
            for_each(100, |_| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(calls.into_inner(), 100);
    }
}
