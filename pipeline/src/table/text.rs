//! Reads CSV, TSV and semicolon-separated text.

use super::{Cause, Comments, Format, Row, TableError};
use csv::{Reader, ReaderBuilder, StringRecord};
use std::path::Path;

/// Separators of columns, in the order in which they are preferred.
const DELIMITERS: [u8; 3] = [b'\t', b',', b';'];

/// Appended to the text to detect a quote that is never closed, which includes it.
const END: &str = "\u{1}";

/// Returns the text of a file without a byte order mark, with lines separated by line feeds.
pub fn decode(bytes: Vec<u8>, path: &Path) -> Result<String, TableError> {
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let zero = bytes.iter().position(|&byte| byte == 0);
    let (at, bytes) = match (zero, String::from_utf8(bytes)) {
        (None, Ok(text)) => {
            let text = match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            };
            if text.contains('\r') {
                return Ok(text.replace("\r\n", "\n").replace('\r', "\n"));
            }
            return Ok(text);
        }
        (Some(zero), Ok(text)) => (zero, text.into_bytes()),
        (_, Err(error)) => (error.utf8_error().valid_up_to(), error.into_bytes()),
    };
    let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let cause = Cause::NotUtf8 {
        // ASCII in UTF-16 has a zero in every second byte.
        utf16: utf16 || zero.is_some(),
    };
    Err(TableError::at(path, Format::JsonLines, line, cause))
}

/// Returns the byte that separates columns: the one by which the first two rows have the same
/// number of cells, and the most.
pub fn delimiter(text: &str, comments: Comments) -> u8 {
    let score = |delimiter: u8| {
        let mut reader = reader(text, delimiter, comments);
        let mut record = StringRecord::new();
        let mut cells = || match reader.read_record(&mut record) {
            Ok(true) => Some(record.len()),
            _ => None,
        };
        let first = cells().unwrap_or(0);
        let is_even = cells().is_none_or(|second| second == first);
        (first > 1 && is_even, first)
    };
    let mut best = (b',', score(b','));
    for delimiter in DELIMITERS {
        let score = score(delimiter);
        if score > best.1 {
            best = (delimiter, score);
        }
    }
    best.0
}

/// Returns the rows of `text`, the header included, without blank lines. Rows may have different
/// numbers of cells.
///
/// # Errors
/// When a quote is not closed.
pub fn records(
    text: &str,
    delimiter: u8,
    comments: Comments,
    path: &Path,
) -> Result<Vec<Row>, TableError> {
    let text = format!("{}\n{END}", text.trim_end_matches('\n'));
    let mut reader = reader(&text, delimiter, comments);
    let mut rows: Vec<Row> = Vec::new();
    let mut record = StringRecord::new();
    let (mut at, mut line) = (0, 1);
    // Reading from memory cannot fail, and the text is UTF-8.
    while let Ok(true) = reader.read_record(&mut record) {
        let start = record
            .position()
            .map_or(at, |position| position.byte() as usize);
        line += lines_between(&text, at, start);
        at = start;
        // The position of a record includes what the reader skips before it.
        while let Some(rest) = text.get(at..).filter(|rest| is_skipped(rest, comments)) {
            at += rest.find('\n').map_or(rest.len(), |end| end + 1);
            line += 1;
        }
        let is_one = record.len() == 1;
        if is_one && record.get(0) == Some(END) {
            break;
        }
        // Only an open quote includes the end.
        if record
            .iter()
            .next_back()
            .is_some_and(|cell| cell.ends_with(END))
        {
            let format = Format::Separated(delimiter);
            return Err(TableError::at(path, format, line, Cause::OpenQuote));
        }
        if is_one && record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let cell = |cell: &str| (!cell.is_empty()).then(|| cell.to_owned());
        rows.push(Row {
            line,
            cells: record.iter().map(cell).collect(),
        });
    }
    Ok(rows)
}

/// Returns a reader of `text`.
fn reader(text: &str, delimiter: u8, comments: Comments) -> Reader<&[u8]> {
    ReaderBuilder::new()
        .delimiter(delimiter)
        .comment((comments == Comments::Hash).then_some(b'#'))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
}

/// Returns the number of line feeds in a range of `text`.
fn lines_between(text: &str, start: usize, end: usize) -> usize {
    let bytes = text.as_bytes().get(start..end).unwrap_or_default();
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// Whether the reader skips the line with which `rest` begins.
fn is_skipped(rest: &str, comments: Comments) -> bool {
    rest.starts_with('\n') || (comments == Comments::Hash && rest.starts_with('#'))
}
