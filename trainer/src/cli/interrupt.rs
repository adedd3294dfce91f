//! Ctrl-C: the first one asks the run to stop after the step in hand, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether somebody looks at the request. Before that there is nothing to finish.
static HEEDED: AtomicBool = AtomicBool::new(false);

/// Exit code after a clean stop, the shell's for an interrupt.
pub const EXIT_CODE: u8 = 130;

/// Begins to listen to Ctrl-C and to a request to terminate.
///
/// # Errors
/// When the system refuses the handler.
pub fn listen() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) || !HEEDED.load(Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    })?)
}

/// What says whether the user wants the run to stop, for whoever looks at it from now on.
pub fn flag() -> Arc<AtomicBool> {
    HEEDED.store(true, Ordering::SeqCst);
    Arc::clone(&REQUESTED)
}
