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

/// Parses a number of bytes: `500GB`, `1.5 TB`, `64MiB`, or a plain number.
///
/// # Errors
/// When it is neither.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 9] = [
        ("B", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KIB", 1024.0),
        ("MIB", 1048576.0),
        ("GIB", 1073741824.0),
        ("TIB", 1099511627776.0),
    ];
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let (number, unit) = text.split_at(text.find(|c| !is_of_number(c)).unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_uppercase();
    let scale = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit || name.strip_suffix('B') == Some(&unit))
        .map(|(_, scale)| scale);
    let bytes = number.parse::<f64>().ok().zip(scale);
    let bytes = bytes.map(|(number, scale)| number * scale);
    bytes
        .filter(|&bytes| bytes >= 1.0 && bytes < u64::MAX as f64)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "not a size such as 500GB, 64MiB or 1000000".to_owned())
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
    fn sizes_have_units() {
        let sizes = [
            ("5", 5),
            ("500GB", 500_000_000_000),
            ("1.5 tb", 1_500_000_000_000),
            ("64MiB", 64 << 20),
            ("2g", 2_000_000_000),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "0", "5 apples", "-1", "1e3"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
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
