//! All by which a user sees a run: a line of metrics a step, TensorBoard's event files, pictures, and a report at the end.
//!
//! [`RunLog`] keeps them while the run goes on. [`History`] reads the metrics back; [`curves`] and [`report`] draw from it, at the end of a run and whenever
//! `trainer curves` is asked to.

mod average;
pub mod curves;
mod history;
mod metrics;
pub mod report;
mod tensorboard;

pub use average::Average;
pub use history::{History, HistoryError, Point};
pub use metrics::{METRICS_FILE, MetricsFile};
pub use tensorboard::{EventWriter, TENSORBOARD_DIR, masked_crc32c};

use crate::plot::png;
use image::RgbImage;
use pipeline::atomic_file;
use schemas::report::StepMetrics;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the resolved configuration inside the folder of a run.
pub const CONFIG_FILE: &str = "config.toml";

/// What the pictures of a reconstruction are called in TensorBoard.
pub const PICTURE_TAG: &str = "reconstruction";

/// Name of the latest of them inside the folder of a run.
pub const PICTURE_FILE: &str = "reconstruction.png";

/// Name of the picture of the curves inside the folder of a run.
pub const CURVES_FILE: &str = "curves.png";

/// Name of the report inside the folder of a run.
pub const REPORT_FILE: &str = "report.html";

/// Why a run cannot be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file of the run cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// The files of a run, of which a report is made, cannot be read.
    #[error("cannot report on {}: {reason}", dir.display())]
    Report {
        /// Folder of the run.
        dir: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// The metrics cannot be read back.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl LogError {
    fn write(path: &Path, reason: io::Error) -> Self {
        Self::Write { path: path.to_owned(), reason }
    }
}

/// What a run leaves in its folder for people, while it goes on. Nothing waits in it: all is handed to the system when it is logged.
pub struct RunLog {
    dir: PathBuf,
    steps_done: u64,
    metrics: MetricsFile,
    events: EventWriter,
}

impl RunLog {
    /// Goes on after `steps_done` steps: what an interrupted run has logged beyond its last checkpoint goes, from the metrics and in TensorBoard.
    ///
    /// # Errors
    /// When files in `dir` cannot be read or written.
    pub fn open(dir: &Path, steps_done: u64) -> Result<Self, LogError> {
        let metrics = MetricsFile::open(dir, steps_done).map_err(|error| LogError::write(&dir.join(METRICS_FILE), error))?;
        let events_dir = dir.join(TENSORBOARD_DIR);
        let events = EventWriter::create(&events_dir, steps_done).map_err(|error| LogError::write(&events_dir, error))?;
        Ok(Self { dir: dir.to_owned(), steps_done, metrics, events })
    }

    /// Logs a step.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn push(&mut self, metrics: &StepMetrics) -> Result<(), LogError> {
        self.metrics.push(metrics).map_err(|error| LogError::write(&self.dir.join(METRICS_FILE), error))?;
        let point = Point::from(metrics.clone());
        let mut scalars = vec![
            ("train/loss", point.loss),
            ("train/lr", point.lr),
            ("train/grad_norm", point.grad_norm),
            ("train/epoch", point.epoch),
            ("speed/clips_per_second", point.clips_per_second),
            ("speed/wait_fraction", point.wait_fraction()),
        ];
        if let Some(validation) = &metrics.validation {
            scalars.extend([
                ("validation/loss", validation.loss),
                ("validation/top1", validation.top1),
                ("validation/top5", validation.top5),
            ]);
        }
        self.events.scalars(point.step, &scalars).map_err(|error| LogError::write(self.events.path(), error))
    }

    /// Logs a picture as it is after `step` steps: as `TAG.png` in the run's folder, where it replaces the last one, and in TensorBoard, which keeps all. Call it
    /// before the checkpoint of this step is there: TensorBoard has the pictures of all steps up to the checkpoint from which a run goes on, and does not get
    /// them twice.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn picture(&mut self, step: u64, picture: &RgbImage, tag: &str) -> Result<(), LogError> {
        let path = self.dir.join(format!("{tag}.png"));
        let png = png(picture).map_err(|error| LogError::write(&path, error))?;
        atomic_file::write(&path, &png).map_err(|error| LogError::write(&path, error))?;
        if step > self.steps_done {
            let written = self.events.picture(step, tag, picture.dimensions(), &png);
            written.map_err(|error| LogError::write(self.events.path(), error))?;
        }
        Ok(())
    }

    /// Draws the curves of the whole run and writes the report on it. Of a run without a step there is none.
    ///
    /// # Errors
    /// When the metrics have been damaged, or the disk is full.
    pub fn finish(self) -> Result<(), LogError> {
        let history = match History::read(&self.dir) {
            Err(HistoryError::Empty { .. }) => return Ok(()),
            history => history?,
        };
        write_curves(&[history], &self.dir.join(CURVES_FILE), Some(&self.dir.join(REPORT_FILE)))
    }
}

/// Writes the picture of the curves of `runs`, and the report on them where `html` says.
///
/// # Errors
/// When a file cannot be written, or one of a run is there and cannot be read.
pub fn write_curves(runs: &[History], picture: &Path, html: Option<&Path>) -> Result<(), LogError> {
    let curves = curves::draw(runs);
    let written = png(&curves).and_then(|png| atomic_file::write(picture, &png));
    written.map_err(|error| LogError::write(picture, error))?;
    let Some(path) = html else { return Ok(()) };
    let dir = || runs.first().map_or_else(PathBuf::new, |run| run.dir.clone());
    let report = report::html(runs, &curves).map_err(|reason| LogError::Report { dir: dir(), reason })?;
    atomic_file::write(path, report.as_bytes()).map_err(|error| LogError::write(path, error))
}
