//! Ctrl-C: the first one asks the build to stop cleanly, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Exit code after a clean stop, the shell's for an interrupt.
pub const EXIT_CODE: u8 = 130;

/// Begins to listen to Ctrl-C and to a request to terminate.
///
/// # Errors
/// When the system refuses the handler.
pub fn listen() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    })?)
}

/// Whether the user wants the build to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// What [`requested`] looks at, for those who wait.
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(&REQUESTED)
}
