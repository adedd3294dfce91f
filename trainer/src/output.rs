//! Progress on standard error, results on standard output.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use schemas::report::StepMetrics;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where there is no terminal, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress bar on a terminal; a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    last_line: Option<Instant>,
    waited: f64,
}

impl Progress {
    /// A bar that shows itself at the first step.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(bar_style("step {pos}/{len}  {msg}  {elapsed}, {eta} left"));
        Self { bar, last_line: None, waited: 0.0 }
    }

    /// A step is done, of `steps` in all.
    pub fn advance(&mut self, metrics: &StepMetrics, steps: u64) {
        if self.bar.length().is_none() {
            self.bar.set_length(steps);
            self.bar.set_position(metrics.step - 1);
            self.bar.reset_eta();
        }
        self.waited += metrics.wait_seconds;
        let StepMetrics { step, loss, lr, clips_per_second, .. } = metrics;
        let message = format!("loss {loss:.4}  lr {lr:.1e}  {clips_per_second:.1} clips/s  waited {:.1} s", self.waited);
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if is_due && !io::stderr().is_terminal() {
            self.last_line = Some(Instant::now());
            say(&format!("step {step}/{steps}  {message}"));
        }
        self.bar.set_message(message);
        self.bar.set_position(*step);
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
