//! Reads the metrics of a run.

use super::METRICS_FILE;
use schemas::report::{RunFigures, StepMetrics};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Steps over which the first and the last loss are averaged.
const LOSS_STEPS: usize = 10;

/// A run, step by step.
#[derive(Debug, Clone)]
pub struct History {
    /// Folder of the run.
    pub dir: PathBuf,
    /// Name of the run in a legend.
    pub name: String,
    /// Its steps, at least one, without the figures of the loader.
    pub steps: Vec<Point>,
}

/// The values of a step that are plotted; see [`StepMetrics`]. Loss and norm are NaN if the step
/// was not finite; so is the accuracy if the step had no validation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Point {
    pub step: u64,
    pub epoch: f64,
    pub loss: f64,
    pub lr: f64,
    pub grad_norm: f64,
    pub clips_per_second: f64,
    pub step_seconds: f64,
    pub wait_seconds: f64,
    pub accuracy: f64,
}

impl Point {
    /// Share of the step spent waiting for data.
    pub fn wait_fraction(&self) -> f64 {
        if self.step_seconds > 0.0 {
            self.wait_seconds / self.step_seconds
        } else {
            0.0
        }
    }
}

impl From<StepMetrics> for Point {
    fn from(metrics: StepMetrics) -> Self {
        let StepMetrics {
            step,
            epoch,
            loss,
            lr,
            grad_norm,
            clips_per_second,
            step_seconds,
            wait_seconds,
            ranks: _,
            nonfinite: _,
            validation,
            loader: _,
        } = metrics;
        let accuracy = validation.map_or(f64::NAN, |validation| validation.top1);
        Self {
            step,
            epoch,
            loss,
            lr,
            grad_norm,
            clips_per_second,
            step_seconds,
            wait_seconds,
            accuracy,
        }
    }
}

/// An error of reading metrics.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file does not exist.
    #[error("{} does not exist: give the folder of a run of `trainer run` or `trainer \
             finetune`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: io::Error,
    },
    /// The run has no steps.
    #[error("{} has no steps yet: there is nothing to draw", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a step, or is out of order.
    #[error("{}, line {line}: {what}; the line is damaged, remove it to read the \
             rest", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The problem.
        what: String,
    },
}

impl History {
    /// Reads the run in `dir`. An incomplete last line is skipped: the run is writing it, or was
    /// killed while it did.
    ///
    /// # Errors
    /// When the file is missing, has no steps, or a line of it is damaged.
    pub fn read(dir: &Path) -> Result<Self, HistoryError> {
        let path = dir.join(METRICS_FILE);
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                HistoryError::Missing { path: path.clone() }
            }
            _ => HistoryError::Read {
                path: path.clone(),
                reason,
            },
        };
        let mut file = BufReader::new(File::open(&path).map_err(failed)?);
        let (mut steps, mut line): (Vec<Point>, _) = (Vec::new(), Vec::new());
        for number in 1.. {
            line.clear();
            file.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let damaged = |what: String| HistoryError::Line {
                path: path.clone(),
                line: number,
                what,
            };
            let point = Point::from(
                serde_json::from_slice::<StepMetrics>(&line)
                    .map_err(|error| damaged(parse_error(&error)))?,
            );
            if let Some(last) = steps.last().filter(|last| last.step >= point.step) {
                return Err(damaged(format!(
                    "step {} comes after step {}",
                    point.step, last.step
                )));
            }
            steps.push(point);
        }
        if steps.is_empty() {
            return Err(HistoryError::Empty { path });
        }
        let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = dir
            .file_name()
            .or_else(|| whole.file_name())
            .unwrap_or(dir.as_os_str())
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            dir: dir.to_owned(),
            name,
            steps,
        })
    }

    /// Reads several runs. Those whose folders have the same name are named by path.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(dirs: &[PathBuf]) -> Result<Vec<Self>, HistoryError> {
        let mut runs: Vec<Self> = dirs
            .iter()
            .map(|dir| Self::read(dir))
            .collect::<Result<_, _>>()?;
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        for run in &mut runs {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = run.dir.display().to_string();
            }
        }
        Ok(runs)
    }

    /// Summary figures of the run.
    pub fn figures(&self) -> RunFigures {
        let some = LOSS_STEPS.min(self.steps.len());
        let mean_loss = |steps: &[Point]| {
            let losses: Vec<f64> = steps
                .iter()
                .map(|step| step.loss)
                .filter(|loss| loss.is_finite())
                .collect();
            losses.iter().sum::<f64>() / losses.len() as f64
        };
        let sum = |value: fn(&Point) -> f64| self.steps.iter().map(value).sum::<f64>();
        let seconds = sum(|step| step.step_seconds);
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let last = self.steps.last();
        RunFigures {
            out: self.dir.display().to_string(),
            name: self.name.clone(),
            steps: last.map_or(0, |last| last.step),
            epochs: last.map_or(0.0, |last| last.epoch),
            first_loss: mean_loss(&self.steps[..some]),
            last_loss: mean_loss(&self.steps[self.steps.len() - some..]),
            seconds,
            clips_per_second: per_second(sum(|step| step.clips_per_second * step.step_seconds)),
            stall_fraction: per_second(sum(|step| step.wait_seconds)),
        }
    }
}

/// Message of a parse error, without the line number, which is always 1.
fn parse_error(error: &serde_json::Error) -> String {
    error
        .to_string()
        .replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::log::metrics::{MetricsFile, tests::metrics};
    use std::fs;

    /// A folder with the metrics of `steps` steps.
    pub fn run(dir: &Path, steps: u64) {
        fs::create_dir_all(dir).expect("a folder");
        let mut file = MetricsFile::open(dir, 0).expect("opened");
        (1..=steps).for_each(|step| {
            file.push(&StepMetrics {
                loss: 1.0 / step as f64,
                ..metrics(step)
            })
            .expect("written")
        });
    }

    #[test]
    fn a_run_is_summarised_by_its_metrics() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        run(&path, 20);
        // The run is writing its next line.
        let text = fs::read_to_string(path.join(METRICS_FILE)).expect("read");
        fs::write(path.join(METRICS_FILE), text + "{\"step\":21,\"lo").expect("written");
        let figures = History::read(&path).expect("read").figures();
        assert_eq!(
            (figures.name.as_str(), figures.steps, figures.epochs),
            ("a", 20, 0.5)
        );
        let mean = |steps: std::ops::RangeInclusive<u64>| {
            steps.map(|step| 1.0 / step as f64).sum::<f64>() / 10.0
        };
        assert!(
            (figures.first_loss - mean(1..=10)).abs() < 1e-12
                && (figures.last_loss - mean(11..=20)).abs() < 1e-12,
            "{figures:?}"
        );
        // Steps of 0.8 s at 10 clips/s, a quarter of it waiting.
        assert!(
            (figures.seconds - 16.0).abs() < 1e-9 && (figures.clips_per_second - 10.0).abs() < 1e-9,
            "{figures:?}"
        );
        assert!((figures.stall_fraction - 0.25).abs() < 1e-9, "{figures:?}");
    }

    #[test]
    fn steps_that_are_not_finite_have_no_loss() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = MetricsFile::open(dir.path(), 0).expect("opened");
        for (step, loss) in [(1, 2.0), (2, f64::INFINITY), (3, f64::NAN), (4, 4.0)] {
            file.push(&StepMetrics {
                loss,
                grad_norm: loss,
                ..metrics(step)
            })
            .expect("written");
        }
        let history = History::read(dir.path()).expect("read");
        assert!(history.steps[1].loss.is_nan() && history.steps[2].grad_norm.is_nan());
        let figures = history.figures();
        assert_eq!(
            (figures.steps, figures.first_loss, figures.last_loss),
            (4, 3.0, 3.0)
        );
        let mut file = MetricsFile::open(dir.path(), 0).expect("opened");
        file.push(&StepMetrics {
            loss: f64::NAN,
            ..metrics(1)
        })
        .expect("written");
        let figures = History::read(dir.path()).expect("read").figures();
        assert!(figures.first_loss.is_nan());
        let json = serde_json::to_string(&figures).expect("JSON");
        assert!(
            serde_json::from_str::<RunFigures>(&json)
                .expect("read back")
                .last_loss
                .is_nan()
        );
    }

    #[test]
    fn an_unreadable_line_is_named_with_its_number() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(METRICS_FILE);
        let message = |text: Option<&[u8]>| {
            text.iter()
                .for_each(|text| fs::write(&path, text).expect("written"));
            let error = History::read(dir.path()).expect_err("refused").to_string();
            error.replace(&path.display().to_string(), "FILE")
        };
        assert_eq!(
            message(None),
            "FILE does not exist: give the folder of a run of `trainer run` or `trainer finetune`"
        );
        assert_eq!(
            message(Some(b"")),
            "FILE has no steps yet: there is nothing to draw"
        );
        let line = |step: u64| serde_json::to_string(&metrics(step)).expect("JSON") + "\n";
        let damaged = message(Some(
            (line(1) + "{\"step\": 2, \"epoch\": null}\n" + &line(3)).as_bytes(),
        ));
        assert!(
            damaged.starts_with("FILE, line 2: ") && damaged.contains("null"),
            "{damaged}"
        );
        assert!(
            message(Some(&[line(1).as_bytes(), b"\xff\xfe\n"].concat()))
                .starts_with("FILE, line 2: ")
        );
        assert!(
            message(Some((line(1) + &line(3) + &line(3)).as_bytes()))
                .starts_with("FILE, line 3: step 3 comes after step 3; ")
        );
    }

    #[test]
    fn runs_of_one_name_are_named_by_path() {
        let dir = tempfile::tempdir().expect("a folder");
        let dirs = ["x/a", "y/a", "y/b"].map(|name| dir.path().join(name));
        dirs.iter().for_each(|dir| run(dir, 2));
        let names: Vec<String> = History::read_all(&dirs)
            .expect("read")
            .into_iter()
            .map(|run| run.name)
            .collect();
        assert_eq!(
            names,
            [
                dirs[0].display().to_string(),
                dirs[1].display().to_string(),
                "b".to_owned()
            ]
        );
    }
}
