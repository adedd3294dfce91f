//! Progress on standard error, results on standard output.

use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use schemas::report::StepMetrics;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use trainer::log::Average;

/// Where there is no terminal, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Steps of which progress shows the mean.
const SMOOTHED_STEPS: f64 = 50.0;

/// A progress bar on a terminal; a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    last_line: Option<Instant>,
    recent: Recent,
}

impl Progress {
    /// A bar that shows itself at the first step.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(bar_style("step {pos}/{len}  {msg}"));
        Self { bar, last_line: None, recent: Recent::new() }
    }

    /// A step is done, of `steps` in all.
    pub fn advance(&mut self, metrics: &StepMetrics, steps: u64) {
        if self.bar.length().is_none() {
            self.bar.set_length(steps);
        }
        let message = self.recent.push(metrics, steps);
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if is_due && !io::stderr().is_terminal() {
            self.last_line = Some(Instant::now());
            say(&format!("step {}/{steps}  {message}", metrics.step));
        }
        self.bar.set_message(message);
        self.bar.set_position(metrics.step);
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
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
        Self { loss, grad_norm, clips, seconds, waited }
    }

    /// Takes in a step, of `steps` in all, and says how the run is going.
    fn push(&mut self, metrics: &StepMetrics, steps: u64) -> String {
        let loss = self.loss.push(metrics.loss);
        let grad_norm = self.grad_norm.push(metrics.grad_norm);
        let clips = self.clips.push(metrics.clips_per_second * metrics.step_seconds);
        let seconds = self.seconds.push(metrics.step_seconds).max(f64::MIN_POSITIVE);
        let waited = self.waited.push(metrics.wait_seconds);
        let left = Duration::try_from_secs_f64(seconds * steps.saturating_sub(metrics.step) as f64).unwrap_or(Duration::MAX);
        format!(
            "loss {loss:.4}  lr {:.1e}  grad norm {grad_norm:.3}  {:.1} clips/s  {:.0} % waiting for data  {} left",
            metrics.lr,
            clips / seconds,
            100.0 * waited / seconds,
            FormattedDuration(left)
        )
    }
}

/// A bar, and `text` after it.
pub fn bar_style(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{{bar:24}} {text}")).expect("a sound template")
}

/// Writes a line to standard error. When nobody reads it, it is lost, and that stops nothing.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `text` and a line's end to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// An error and its causes, each said once: many messages have their cause's in them.
pub fn described(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        told => format!("{told}: {cause}"),
    })
}

/// Whether the reader of our output has gone, which is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
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
            loader: LoaderFigures::default(),
        };
        let mut recent = Recent::new();
        let first = "loss 0.5000  lr 3.0e-4  grad norm 0.250  4.0 clips/s  25 % waiting for data  02:13:18 left";
        assert_eq!(recent.push(&step(1, 0.5, 2.0), 4000), first);
        // What is not finite leaves the means as they were.
        assert_eq!(recent.push(&step(1, f64::NAN, 2.0), 4000), first);
        // The first step counts for little after some hundred; 3499 steps of a second are left.
        let line = (2..=501).map(|number| recent.push(&step(number, 1.0, 1.0), 4000)).last().expect("a line");
        assert_eq!(line, "loss 1.0000  lr 3.0e-4  grad norm 0.500  8.0 clips/s  25 % waiting for data  00:58:19 left");
    }
}
