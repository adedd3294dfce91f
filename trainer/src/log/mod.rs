//! Logs of a run: metrics per step, TensorBoard event files, pictures, and a report at the end.
//!
//! [`RunLog`] writes them during a run. [`History`] reads the metrics; [`curves`] and [`report`]
//! draw from it, at the end of a run and in `trainer curves`.

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

/// Tag of the pictures of reconstructions in TensorBoard.
pub const PICTURE_TAG: &str = "reconstruction";

/// Name of the latest picture of reconstructions inside the folder of a run.
pub const PICTURE_FILE: &str = "reconstruction.png";

/// Name of the picture of the curves inside the folder of a run.
pub const CURVES_FILE: &str = "curves.png";

/// Name of the report inside the folder of a run.
pub const REPORT_FILE: &str = "report.html";

/// An error of logging a run.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file of the run cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: io::Error,
    },
    /// The files of a run cannot be read for a report.
    #[error("cannot report on {}: {reason}", dir.display())]
    Report {
        /// Folder of the run.
        dir: PathBuf,
        /// The cause.
        reason: io::Error,
    },
    /// The metrics cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl LogError {
    fn write(path: &Path, reason: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            reason,
        }
    }
}

/// Writes the logs of a run to its folder, without buffering.
pub struct RunLog {
    dir: PathBuf,
    steps_done: u64,
    metrics: MetricsFile,
    events: EventWriter,
}

impl RunLog {
    /// Opens the logs to continue after `steps_done` steps. Removes what an interrupted run has
    /// logged after its last checkpoint, from the metrics and in TensorBoard.
    ///
    /// # Errors
    /// When files in `dir` cannot be read or written.
    pub fn open(dir: &Path, steps_done: u64) -> Result<Self, LogError> {
        let metrics = MetricsFile::open(dir, steps_done)
            .map_err(|error| LogError::write(&dir.join(METRICS_FILE), error))?;
        let events_dir = dir.join(TENSORBOARD_DIR);
        let events = EventWriter::create(&events_dir, steps_done)
            .map_err(|error| LogError::write(&events_dir, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            steps_done,
            metrics,
            events,
        })
    }

    /// Logs a step.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn push(&mut self, metrics: &StepMetrics) -> Result<(), LogError> {
        self.metrics
            .push(metrics)
            .map_err(|error| LogError::write(&self.dir.join(METRICS_FILE), error))?;
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
        self.events
            .scalars(point.step, &scalars)
            .map_err(|error| LogError::write(self.events.path(), error))
    }

    /// Logs a picture after `step` steps: as `TAG.png` in the run's folder, where it replaces the
    /// last one, and in TensorBoard, which keeps all. Call it before writing the checkpoint of this
    /// step: TensorBoard then has the pictures of all steps up to the checkpoint from which a run
    /// is resumed, and does not get them twice.
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

    /// Plots the curves of the run and writes its report. Does nothing for a run without steps.
    ///
    /// # Errors
    /// When the metrics are damaged, or the disk is full.
    pub fn finish(self) -> Result<(), LogError> {
        let history = match History::read(&self.dir) {
            Err(HistoryError::Empty { .. }) => return Ok(()),
            history => history?,
        };
        write_curves(
            &[history],
            &self.dir.join(CURVES_FILE),
            Some(&self.dir.join(REPORT_FILE)),
        )
    }
}

/// Writes the plot of the curves of `runs` to `picture`, and their report to `html` if given.
///
/// # Errors
/// When a file cannot be written, or an existing file of a run cannot be read.
pub fn write_curves(runs: &[History], picture: &Path, html: Option<&Path>) -> Result<(), LogError> {
    let curves = curves::draw(runs);
    let written = png(&curves).and_then(|png| atomic_file::write(picture, &png));
    written.map_err(|error| LogError::write(picture, error))?;
    let Some(path) = html else { return Ok(()) };
    let dir = || {
        runs.first()
            .map_or_else(PathBuf::new, |run| run.dir.clone())
    };
    let report = report::render_html(runs, &curves)
        .map_err(|reason| LogError::Report { dir: dir(), reason })?;
    atomic_file::write(path, report.as_bytes()).map_err(|error| LogError::write(path, error))
}
