//! Progress of a training.

use console::progress::{Bars, Progress};
use indicatif::FormattedDuration;
use schemas::report::StepMetrics;
use std::time::Duration;
use trainer::log::Average;

/// Number of steps over which progress averages.
const SMOOTHED_STEPS: f64 = 50.0;

/// The step, the loss, the speed and the time left.
pub struct TrainingProgress {
    progress: Progress,
    recent: Recent,
}

impl TrainingProgress {
    /// Progress that shows itself at the first step.
    pub fn new() -> Self {
        Self::with(Progress::without_eta("step {pos}/{len}"))
    }

    /// The progress of one of several trainings.
    pub fn of(name: &str, bars: &Bars) -> Self {
        Self::with(bars.add(&format!("{name}: step {{pos}}/{{len}}")))
    }

    fn with(progress: Progress) -> Self {
        Self {
            progress,
            recent: Recent::new(),
        }
    }

    /// A step is done, of `steps` in all.
    pub fn advance(&mut self, metrics: &StepMetrics, steps: u64) {
        let message = self.recent.push(metrics, steps);
        self.progress.set(metrics.step, steps, message);
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.progress.finish();
    }
}

/// Means of the latest steps.
struct Recent {
    loss: Average,
    grad_norm: Average,
    clips: Average,
    seconds: Average,
    waited: Average,
}

impl Recent {
    fn new() -> Self {
        let [loss, grad_norm, clips, seconds, waited] = [Average::over(SMOOTHED_STEPS); 5];
        Self {
            loss,
            grad_norm,
            clips,
            seconds,
            waited,
        }
    }

    /// Adds a step, of `steps` in all; renders the means and the time left.
    fn push(&mut self, metrics: &StepMetrics, steps: u64) -> String {
        let loss = self.loss.push(metrics.loss);
        let grad_norm = self.grad_norm.push(metrics.grad_norm);
        let clips = self
            .clips
            .push(metrics.clips_per_second * metrics.step_seconds);
        let seconds = self
            .seconds
            .push(metrics.step_seconds)
            .max(f64::MIN_POSITIVE);
        let waited = self.waited.push(metrics.wait_seconds);
        let left = Duration::try_from_secs_f64(seconds * steps.saturating_sub(metrics.step) as f64)
            .unwrap_or(Duration::MAX);
        format!(
            "loss {loss:.4}  lr {:.1e}  grad norm {grad_norm:.3}  {:.1} clips/s  {:.0} % waiting \
             for data  {} left",
            metrics.lr,
            clips / seconds,
            100.0 * waited / seconds,
            FormattedDuration(left)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::report::LoaderFigures;

    #[test]
    fn progress_is_of_the_latest_steps() {
        let step = |step: u64, loss: f64, step_seconds: f64| StepMetrics {
            step,
            epoch: 0.5,
            loss,
            lr: 3e-4,
            grad_norm: loss / 2.0,
            clips_per_second: 8.0 / step_seconds,
            step_seconds,
            wait_seconds: step_seconds / 4.0,
            nonfinite: 0,
            validation: None,
            ranks: None,
            loader: LoaderFigures::default(),
        };
        let mut recent = Recent::new();
        let first = "loss 0.5000  lr 3.0e-4  grad norm 0.250  4.0 clips/s  25 % waiting for data  \
                     02:13:18 left";
        assert_eq!(recent.push(&step(1, 0.5, 2.0), 4000), first);
        // Values that are not finite leave the means as they were.
        assert_eq!(recent.push(&step(1, f64::NAN, 2.0), 4000), first);
        // After some hundred steps the first one has little weight; 3499 steps of a second are
        // left.
        let line = (2..=501)
            .map(|number| recent.push(&step(number, 1.0, 1.0), 4000))
            .last()
            .expect("a line");
        assert_eq!(
            line,
            "loss 1.0000  lr 3.0e-4  grad norm 0.500  8.0 clips/s  25 % waiting for data  00:58:19 \
             left"
        );
    }
}
