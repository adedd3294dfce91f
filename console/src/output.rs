//! Results on standard output, messages on standard error, and numbers for people.

use std::io::{self, Write};

/// Writes a line to standard error. A closed standard error is ignored: it must not stop the
/// program.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `text` and a newline to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// `12.3 MB`, say: three digits, decimal units.
pub fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// `1 clip`, `2 clips`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// Renders an error and its causes, each of them once: the messages of many errors contain those of
/// their causes.
pub fn render_error(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of our output has gone, which is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error
        .chain()
        .any(|cause| cause.downcast_ref().is_some_and(is_broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn each_cause_is_shown_once() {
        let error = anyhow!("disk full")
            .context("cannot write a: disk full")
            .context("saving");
        assert_eq!(render_error(&error), "saving: cannot write a: disk full");
    }

    #[test]
    fn a_broken_pipe_is_found_among_the_causes() {
        let failed =
            |kind: io::ErrorKind| Err::<(), _>(io::Error::from(kind)).context("cannot print");
        assert!(is_broken_pipe(
            &failed(io::ErrorKind::BrokenPipe).expect_err("it is an error")
        ));
        assert!(!is_broken_pipe(
            &failed(io::ErrorKind::NotFound).expect_err("it is an error")
        ));
    }
}
