//! Progress on standard error, and sizes and counts that people can read.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where there is no terminal, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress bar on a terminal; a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    last_line: Instant,
}

impl Progress {
    /// Progress over `total` items called `what`.
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {prefix}  {msg}  {elapsed}, {eta} left");
        bar.set_style(style.expect("a sound template"));
        bar.set_prefix(what);
        Self { bar, what, last_line: Instant::now() }
    }

    /// One more item is done; `message` says what came of all so far.
    pub fn advance(&mut self, message: String) {
        self.bar.inc(1);
        if !io::stderr().is_terminal() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&format!("{}/{} {}, {message}", self.bar.position(), self.bar.length().unwrap_or(0), self.what));
        }
        self.bar.set_message(message);
    }

    /// Writes a line without spoiling the bar.
    pub fn line(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
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

/// Whether the reader of our output has gone, which is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// `12.3 MB`, say: three digits, decimal units.
pub fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// `1 clip`, `2 clips`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// The `most` most frequent values, the more frequent first; the last of them may be all others together.
pub fn most_frequent(counts: &BTreeMap<String, u64>, most: usize) -> Vec<(String, u64)> {
    let mut sorted: Vec<(String, u64)> = counts.iter().map(|(name, &clips)| (name.clone(), clips)).collect();
    sorted.sort_by_key(|&(_, clips)| std::cmp::Reverse(clips));
    if sorted.len() > most {
        let others = sorted.split_off(most - 1);
        let clips = others.iter().map(|(_, clips)| clips).sum();
        sorted.push((format!("{} others", others.len()), clips));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_values_are_counted_together() {
        let counts = BTreeMap::from([("a", 1), ("b", 5), ("c", 2), ("d", 1)].map(|(name, clips)| (name.to_owned(), clips)));
        let expected = [("b", 5), ("c", 2), ("2 others", 2)].map(|(name, clips)| (name.to_owned(), clips));
        assert_eq!(most_frequent(&counts, 3), expected);
        assert_eq!(most_frequent(&counts, 4).len(), 4);
    }
}
