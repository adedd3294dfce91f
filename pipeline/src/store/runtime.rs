//! The thread that all requests run on, and how blocking callers wait for it.

use super::error::{Operation, StoreError};
use super::failure::{Failed, Verdict, judge};
use super::http::{ANSWER, Answer, FAILURES, RETRIES, seconds};
use super::lock;
use super::url::Url;
use futures_util::FutureExt;
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

/// For so long is repeated what fails. `STORE_RETRY_SECONDS` replaces it.
pub const RETRY_SECONDS: u64 = 300;

/// The environment variable that replaces [`RETRY_SECONDS`].
const RETRY_VARIABLE: &str = "STORE_RETRY_SECONDS";

/// Requests of one object at a time.
const IN_FLIGHT: usize = 4;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// The user hears of an outage that lasts longer.
const QUIET: Duration = Duration::from_secs(10);

/// How often a waiting call looks at the flag of [`stop_when`].
const LOOK: Duration = Duration::from_millis(50);

static RUNTIME: LazyLock<Result<Handle, String>> = LazyLock::new(start);

/// The runtime is driven by one thread of its own, and lives as long as the process.
fn start() -> Result<Handle, String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .map_err(|error| error.to_string())?;
    Ok(handle)
}

/// Returns the runtime.
pub(super) fn handle() -> Result<&'static Handle, StoreError> {
    RUNTIME.as_ref().map_err(|reason| StoreError::Other {
        url: "store".to_owned(),
        reason: format!("the thread for requests cannot be started: {reason}"),
    })
}

static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

/// Makes blocking calls of the whole process fail with [`StoreError::Interrupted`] soon after
/// `flag` is set.
pub fn stop_when(flag: Arc<AtomicBool>) {
    *lock(&STOP) = Some(flag);
}

/// Fails when the caller is to stop: the flag of [`stop_when`] is set.
///
/// # Errors
/// [`StoreError::Interrupted`].
pub fn check_stop() -> Result<(), StoreError> {
    match &*lock(&STOP) {
        Some(flag) if flag.load(Relaxed) => Err(StoreError::Interrupted),
        _ => Ok(()),
    }
}

/// A request that runs. Dropped, it is cancelled.
#[derive(Debug)]
pub struct Pending(AbortHandle);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts `future` on the store's thread.
pub(super) fn spawn(
    future: impl Future<Output = ()> + Send + 'static,
) -> Result<Pending, StoreError> {
    Ok(Pending(handle()?.spawn(future).abort_handle()))
}

/// Runs `future` on the store's thread and waits for it. It must not be called on that thread.
pub(super) fn block<T: Send + 'static>(
    future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    check_stop()?;
    let (sender, receiver) = sync_channel(1);
    let _pending = spawn(async move {
        // The caller may have given up.
        let _ = sender.send(future.await);
    })?;
    wait(&receiver, &mut check_stop)
}

/// Waits for a message; `look` is called now and then, and can end the waiting.
pub(super) fn wait<T>(
    receiver: &Receiver<Result<T, StoreError>>,
    look: &mut dyn FnMut() -> Result<(), StoreError>,
) -> Result<T, StoreError> {
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => look()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StoreError::Other {
                    url: "store".to_owned(),
                    reason: "a request was lost".to_owned(),
                });
            }
        }
    }
}

/// Runs `count` requests, [`IN_FLIGHT`] at a time: `make` makes each, and `take` gets its result,
/// in the order in which they end. Both are called on the calling thread.
pub(super) fn windowed<T: Send + 'static, F>(
    count: u64,
    mut make: impl FnMut(u64) -> Result<F, StoreError>,
    mut take: impl FnMut(u64, T) -> Result<(), StoreError>,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let (sender, receiver) = channel();
    let mut running = HashMap::new();
    let mut next = 0;
    while next < count || !running.is_empty() {
        check_stop()?;
        if next < count && running.len() < IN_FLIGHT {
            let (index, request, sender) = (next, make(next)?, sender.clone());
            let pending = spawn(async move {
                // The caller may have given up.
                let _ = sender.send(request.await.map(|value| (index, value)));
            })?;
            running.insert(index, pending);
            next += 1;
            continue;
        }
        let (index, value) = wait(&receiver, &mut check_stop)?;
        running.remove(&index);
        take(index, value)?;
    }
    Ok(())
}

/// Repeats `attempt` until it succeeds, fails for good, or has failed for [`RETRY_SECONDS`]. Also
/// returns how many attempts there were: of a write that was repeated, the first may have been
/// done.
pub(super) async fn persist<T, F>(
    url: &Url,
    operation: Operation,
    attempt: impl Fn() -> F,
) -> (Result<T, StoreError>, u32)
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut failing_since: Option<Instant> = None;
    let mut attempts = 0;
    let mut delay = FIRST_DELAY;
    loop {
        attempts += 1;
        let answer = Arc::new(Mutex::new(Answer::default()));
        // A caller whose request panics would wait forever.
        let running = AssertUnwindSafe(ANSWER.scope(answer.clone(), attempt())).catch_unwind();
        let failed = match running.await {
            Ok(Ok(value)) => {
                end_outage(url);
                return (Ok(value), attempts);
            }
            Ok(Err(failed)) => failed,
            Err(_) => StoreError::other(url, "the request panicked").into(),
        };
        let answer = lock(&answer).clone();
        let reason = match judge(url, operation, failed, &answer) {
            Verdict::Transient(reason) => reason,
            Verdict::Final(error) => {
                // The store has answered.
                end_outage(url);
                FAILURES.fetch_add(1, Relaxed);
                return (Err(error), attempts);
            }
        };
        let limit = seconds(RETRY_VARIABLE).unwrap_or(Duration::from_secs(RETRY_SECONDS));
        let failing = failing_since.get_or_insert_with(Instant::now).elapsed();
        if failing >= limit {
            FAILURES.fetch_add(1, Relaxed);
            let error = StoreError::Unreachable {
                url: url.to_string(),
                reason,
                seconds: failing.as_secs(),
            };
            return (Err(error), attempts);
        }
        let pause = jitter(delay).min(limit - failing);
        note_outage(url, &reason, pause);
        tokio::time::sleep(pause).await;
        RETRIES.fetch_add(1, Relaxed);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// Between half of the delay and all of it, so that many requests do not come back at once.
fn jitter(delay: Duration) -> Duration {
    // Each RandomState has other keys.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    delay.mul_f64(0.5 + random / 2.0)
}

struct Outage {
    since: Instant,
    told: bool,
}

static OUTAGES: LazyLock<Mutex<HashMap<Url, Outage>>> = LazyLock::new(Mutex::default);

/// Number of [`OUTAGES`], so that successes need no lock while there is none.
static OUTAGE_COUNT: AtomicUsize = AtomicUsize::new(0);

static HOOK: Mutex<fn(&str)> = Mutex::new(print);

fn print(message: &str) {
    eprintln!("{message}");
}

/// Replaces what is called, once per outage that lasts longer than ten seconds, with
/// "waiting for s3://bucket: …". It runs on the store's thread. At first messages go to the
/// standard error.
pub fn on_wait(hook: fn(&str)) {
    *lock(&HOOK) = hook;
}

/// Notes that requests fail, and that the next one is sent after `pause`.
fn note_outage(url: &Url, reason: &str, pause: Duration) {
    let root = url.root();
    let message = format!("waiting for {root}: {reason}");
    let mut outages = lock(&OUTAGES);
    let outage = outages.entry(root).or_insert_with(|| Outage {
        since: Instant::now(),
        told: false,
    });
    let tell = !outage.told && outage.since.elapsed() + pause > QUIET;
    outage.told |= tell;
    OUTAGE_COUNT.store(outages.len(), Relaxed);
    drop(outages);
    if tell {
        let hook = *lock(&HOOK);
        hook(&message);
    }
}

fn end_outage(url: &Url) {
    if OUTAGE_COUNT.load(Relaxed) > 0 {
        let mut outages = lock(&OUTAGES);
        outages.remove(&url.root());
        OUTAGE_COUNT.store(outages.len(), Relaxed);
    }
}
