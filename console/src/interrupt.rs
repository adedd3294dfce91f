//! Ctrl-C: the first one asks the program to stop cleanly, the second one ends it.

use signal_hook::consts::SIGUSR1;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether anything checks [`REQUESTED`]. Until then there is nothing to finish, and the first
/// Ctrl-C ends the program.
static HEEDED: AtomicBool = AtomicBool::new(false);

/// Exit code after a clean stop, the shell's code for an interrupt.
pub const EXIT_CODE: u8 = 130;

/// Handles Ctrl-C and a request to terminate from now on, and SIGUSR1, which only ever asks for a
/// clean stop: launchers pass it on to all processes, and schedulers send it before a job's time is
/// over.
///
/// # Errors
/// When the system refuses the handler.
pub fn listen() -> anyhow::Result<()> {
    signal_hook::flag::register(SIGUSR1, Arc::clone(&REQUESTED))?;
    Ok(ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) || !HEEDED.load(Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    })?)
}

/// The flag that is set when the user wants to stop. Whoever takes it has to check it: from now on
/// the first Ctrl-C does not end the program.
pub fn flag() -> Arc<AtomicBool> {
    HEEDED.store(true, Ordering::SeqCst);
    Arc::clone(&REQUESTED)
}

/// Whether the user wants to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
