//! `metrics.jsonl`: one line per step.

use pipeline::atomic_file;
use schemas::report::StepMetrics;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Name of the file inside the folder of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Appends to the metrics file.
pub struct MetricsFile(File);

impl MetricsFile {
    /// Opens the file to continue after `steps` steps. Removes the lines that an interrupted run
    /// has written after its last checkpoint, and an incomplete line.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(dir: &Path, steps: u64) -> io::Result<Self> {
        let path = dir.join(METRICS_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let is_kept = |line: &&str| {
            serde_json::from_str::<StepMetrics>(line).is_ok_and(|metrics| metrics.step <= steps)
        };
        let kept: String = text
            .lines()
            .filter(is_kept)
            .map(|line| format!("{line}\n"))
            .collect();
        atomic_file::write(&path, kept.as_bytes())?;
        Ok(Self(OpenOptions::new().append(true).open(&path)?))
    }

    /// Appends a step.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn push(&mut self, metrics: &StepMetrics) -> io::Result<()> {
        let mut line = serde_json::to_string(metrics)?;
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use schemas::report::LoaderFigures;

    /// Figures of a step.
    pub fn metrics(step: u64) -> StepMetrics {
        let epoch = 0.5;
        let lr = 1e-3;
        let clips_per_second = 10.0;
        let step_seconds = 0.8;
        let wait_seconds = 0.2;
        let nonfinite = 0;
        let loader = LoaderFigures::default();
        StepMetrics {
            step,
            epoch,
            loss: 0.75,
            lr,
            grad_norm: 1.0,
            clips_per_second,
            step_seconds,
            wait_seconds,
            nonfinite,
            validation: None,
            ranks: None,
            loader,
        }
    }

    #[test]
    fn a_resumed_run_drops_what_came_after_its_checkpoint() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut file = MetricsFile::open(dir.path(), 0).expect("opened");
        (1..=5).for_each(|step| file.push(&metrics(step)).expect("written"));
        file.0.write_all(b"{\"step\":6,\"lo").expect("written");
        let mut file = MetricsFile::open(dir.path(), 3).expect("opened again");
        file.push(&metrics(4)).expect("written");
        let text = fs::read_to_string(dir.path().join(METRICS_FILE)).expect("read");
        let steps: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<StepMetrics>(line)
                    .expect("a step")
                    .step
            })
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }
}
