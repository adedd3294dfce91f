//! Loaders.

use crate::batch::Batch;
use crate::errors::of_load;
use pipeline::loader;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one wait for a batch lasts before signals are handled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// An iterator over batches.
#[pyclass(frozen)]
pub struct Loader {
    /// None once it is closed.
    loader: Mutex<Option<loader::Loader>>,
    firsts: Arc<[u64]>,
    /// The process that its threads belong to.
    process: u32,
}

impl Loader {
    /// A loader of data sets whose clips are counted from `firsts` on.
    pub fn new(loader: loader::Loader, firsts: Arc<[u64]>) -> Self {
        Self {
            loader: Mutex::new(Some(loader)),
            firsts,
            process: std::process::id(),
        }
    }

    /// Not with the GIL held: its owner may be waiting for it.
    fn lock(&self) -> MutexGuard<'_, Option<loader::Loader>> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Loader {
    /// The next batch; none after the last. Waits without the GIL, and handles signals.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let batch = loop {
            let batch = py.detach(|| {
                let mut loader = self.lock();
                let Some(loader) = loader.as_mut() else {
                    return Some(None);
                };
                loader.wait(POLL_INTERVAL).then(|| loader.next())
            });
            if let Some(batch) = batch {
                break batch;
            }
            py.check_signals()?;
        };
        let batch = batch.transpose().map_err(|error| of_load(py, &error))?;
        Ok(batch.map(|batch| Batch::new(batch, Arc::clone(&self.firsts))))
    }

    /// What was measured, as JSON; with `restart` from now on anew.
    fn figures(&self, py: Python<'_>, restart: bool) -> Option<String> {
        py.detach(|| {
            let mut loader = self.lock();
            let loader = loader.as_mut()?;
            let figures = serde_json::to_string(&loader.figures()).ok();
            if restart {
                loader.restart_figures();
            }
            figures
        })
    }

    /// Ends the threads.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // A forked process has a copy of the loader without its threads: waiting for them would
        // never end.
        if std::process::id() != self.process {
            let loader = self
                .loader
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(loader.take());
        }
    }
}
