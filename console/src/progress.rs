//! Progress on standard error. With `PROGRESS=json` in the environment it is lines of JSON, for
//! programs: `{"progress":{"done":3,"total":10,"message":"7 clips"}}`.

use crate::output;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Where there is no terminal, a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The same for lines of JSON.
const JSON_EVERY: Duration = Duration::from_millis(100);

/// Whether lines of JSON are wanted.
fn wants_json() -> bool {
    std::env::var_os("PROGRESS").is_some_and(|form| form == "json")
}

/// Where bars are drawn.
fn target() -> ProgressDrawTarget {
    if wants_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

/// The bars of several things at a time, one below the other.
pub struct Bars(MultiProgress);

impl Bars {
    /// None yet.
    pub fn new() -> Self {
        Self(MultiProgress::with_draw_target(target()))
    }

    /// Another bar, as [`Progress::without_eta`].
    pub fn add(&self, position: &str) -> Progress {
        let progress = Progress::without_eta(position);
        Progress {
            bar: self.0.add(progress.bar),
            ..progress
        }
    }

    /// Writes a line above the bars.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| output::say(line));
    }

    /// Prints text to standard output, above all bars.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, text: &str) -> io::Result<()> {
        self.0.suspend(|| output::print(text))
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

/// A bar on a terminal; elsewhere a line from time to time.
pub struct Progress {
    bar: ProgressBar,
    position: String,
    last_line: Cell<Option<Instant>>,
}

impl Progress {
    /// Progress over `total` items, with the time left. `position` shows the number of items that
    /// are done: `{pos}/{len} videos`.
    pub fn new(total: u64, position: &str) -> Self {
        let progress = Self::with_style(position, "{per_sec}, {elapsed}, {eta} left");
        progress.bar.set_length(total);
        progress.last_line.set(Some(Instant::now()));
        progress
    }

    /// Progress whose total comes with the first item, and whose messages have the time left. Where
    /// there is no terminal, the first item's line is written at once.
    pub fn without_eta(position: &str) -> Self {
        Self::with_style(position, "")
    }

    fn with_style(position: &str, end: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        let template = format!("{{bar:24}} {position}  {{msg}}  {end}");
        bar.set_style(ProgressStyle::with_template(&template).expect("a valid template"));
        Self {
            bar,
            position: position.to_owned(),
            last_line: Cell::new(None),
        }
    }

    /// `items` more items are done; `message` describes the result so far.
    pub fn advance(&self, items: u64, message: String) {
        self.set(
            self.bar.position() + items,
            self.bar.length().unwrap_or(0),
            message,
        );
    }

    /// `done` items of `total` are done; `message` describes the result so far.
    pub fn set(&self, done: u64, total: u64, message: String) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        let since = self.last_line.get().map(|last| last.elapsed());
        let is_due = |every| since.is_none_or(|since| since >= every);
        if wants_json() {
            if is_due(JSON_EVERY) || done == total {
                self.last_line.set(Some(Instant::now()));
                output::say(&render_json(done, total, &message));
            }
        } else if is_due(LINE_EVERY) && !io::stderr().is_terminal() {
            self.last_line.set(Some(Instant::now()));
            output::say(&render_line(&self.position, done, total, &message));
        }
        self.bar.set_message(message);
        self.bar.set_position(done);
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| output::say(line));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn render_line(position: &str, done: u64, total: u64, message: &str) -> String {
    let position = position
        .replace("{pos}", &done.to_string())
        .replace("{len}", &total.to_string());
    format!("{position}  {message}").trim_end().to_owned()
}

fn render_json(done: u64, total: u64, message: &str) -> String {
    let progress = serde_json::json!({ "done": done, "total": total, "message": message });
    serde_json::json!({ "progress": progress }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_position_and_the_message() {
        assert_eq!(
            render_line("{pos}/{len} videos", 3, 10, "7 clips"),
            "3/10 videos  7 clips"
        );
        assert_eq!(render_line("step {pos}/{len}", 3, 10, ""), "step 3/10");
    }

    #[test]
    fn lines_of_json_have_the_same() {
        let line = render_json(3, 10, "7 \"clips\"");
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["progress"]["message"], "7 \"clips\"");
        assert_eq!(value["progress"]["total"], 10);
    }

    #[test]
    fn items_add_up() {
        let progress = Progress::new(10, "{pos}/{len} videos");
        progress.advance(2, String::new());
        progress.advance(3, String::new());
        assert_eq!(
            (progress.bar.position(), progress.bar.length()),
            (5, Some(10))
        );
        progress.finish();
    }
}
