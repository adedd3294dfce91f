//! Parses the lines of a label file.

use super::FORMS;
use super::names::{Known, VideoNames};
use anyhow::{anyhow, ensure};
use csv::ReaderBuilder;
use std::path::Path;

/// Names of the path column in a header.
const PATH_COLUMNS: &[&str] = &[
    "path",
    "video",
    "file",
    "filename",
    "video_path",
    "video_id",
    "clip",
];

/// Names of the label column in a header.
const LABEL_COLUMNS: &[&str] = &["label", "class", "category", "action"];

/// Separators of path and label in a file without columns.
const BLANKS: [char; 3] = [' ', '\t', ','];

/// Appended to the text to detect a quote that is never closed, which includes it.
const END: &str = "\u{1}";

/// The error of a line whose quote includes all following lines.
const OPEN_QUOTE: &str = "has a quote that is never closed";

/// A line that gives a video a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of the line, from 1.
    pub number: usize,
    /// Path of the video.
    pub path: String,
    /// Label; none if it is empty.
    pub label: Option<String>,
}

/// Reads the lines of `bytes`, the label file `file`.
///
/// # Errors
/// When the file is not UTF-8, or a line has no accepted form.
pub fn parse(bytes: &[u8], file: &Path, names: &VideoNames) -> anyhow::Result<Vec<Line>> {
    let parser = Parser { file, names };
    let text = parser.text(bytes)?;
    match parser.delimiter(&text)? {
        Some(delimiter) => parser.columns(&text, delimiter),
        None => parser.blanks(&text),
    }
}

/// Returns an error about line `number` of `file`.
pub fn fault(file: &Path, number: usize, what: &str) -> anyhow::Error {
    anyhow!("line {number} of {} {what}\n{FORMS}", file.display())
}

/// A row of columns.
struct Row {
    /// Number of its line, from 1.
    number: usize,
    cells: Vec<String>,
}

struct Parser<'a> {
    file: &'a Path,
    names: &'a VideoNames<'a>,
}

impl Parser<'_> {
    fn fault(&self, number: usize, what: &str) -> anyhow::Error {
        fault(self.file, number, what)
    }

    /// Returns the text without a byte order mark, with lines separated by line feeds, and comments
    /// not indented.
    fn text(&self, bytes: &[u8]) -> anyhow::Result<String> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let number = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
            let hint = if utf16 { ", it looks like UTF-16" } else { "" };
            anyhow!(
                "line {number} of {} is not UTF-8{hint}: save the file as UTF-8",
                self.file.display()
            )
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        // Comments may be indented, but not for the CSV reader.
        let unindented = |line| {
            let trimmed = str::trim_start(line);
            if trimmed.starts_with('#') {
                trimmed
            } else {
                line
            }
        };
        Ok(text
            .split('\n')
            .map(unindented)
            .collect::<Vec<_>>()
            .join("\n"))
    }

    /// Returns the separator of columns, by the first row; none if blanks separate path and label.
    fn delimiter(&self, text: &str) -> anyhow::Result<Option<u8>> {
        let first = |delimiter| rows(text, delimiter).next().map(|row| row.cells);
        let tabs = first(b'\t').unwrap_or_default();
        if let [_, between @ .., _] = tabs.as_slice() {
            // A path and a label that are aligned by several tabs are no columns.
            let aligned = !between.is_empty() && between.iter().all(String::is_empty);
            return Ok((!aligned).then_some(b'\t'));
        }
        let commas = first(b',').unwrap_or_default();
        let Some((number, line)) = data_lines(text).next() else {
            return Ok(None);
        };
        let is_open = commas.len() == 1 && commas[0].ends_with(END);
        if commas.len() < 2 && !is_open {
            return Ok(None);
        }
        // The comma, or the quote, may be part of a path or a label.
        let splits = splits(line, if is_open { &BLANKS } else { &[' '] });
        let prefixes = splits.iter().map(|&(prefix, _)| prefix);
        let known = self
            .names
            .known(prefixes.clone().chain([commas[0].as_str()]));
        let is_blank = !known.contains(&commas[0])
            && prefixes.into_iter().any(|prefix| known.contains(prefix));
        ensure!(is_blank || !is_open, self.fault(number, OPEN_QUOTE));
        Ok((!is_blank).then_some(b','))
    }

    /// Reads a file of columns.
    fn columns(&self, text: &str, delimiter: u8) -> anyhow::Result<Vec<Line>> {
        let mut rows: Vec<Row> = rows(text, delimiter).collect();
        // Only an open quote includes the end.
        let is_open = |row: &Row| row.cells.last().is_some_and(|cell| cell.ends_with(END));
        if let Some(row) = rows.last().filter(|row| is_open(row)) {
            return Err(self.fault(row.number, OPEN_QUOTE));
        }
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let first_number = first.number;
        let header = self.header(&rows)?;
        let columns = if header.is_some() {
            first.cells.len()
        } else {
            2
        };
        let (path, label) = header.unwrap_or((0, 1));
        if header.is_some() {
            rows.remove(0);
        }
        let line = |mut row: Row| {
            while row.cells.len() > columns && row.cells.last().is_some_and(String::is_empty) {
                row.cells.pop();
            }
            let cells = row.cells.len();
            if cells == 1 {
                return Err(self.fault(row.number, "has no label: it has one column only"));
            }
            if cells != columns {
                let what = match (header, row.number == first_number) {
                    (None, true) => {
                        format!("has {cells} columns and no header that names two of them")
                    }
                    (None, false) => {
                        format!("has {cells} columns, there should be a path and a label")
                    }
                    (Some(_), _) => format!("has {cells} columns, the header has {columns}"),
                };
                return Err(self.fault(
                    row.number,
                    &format!("{what}; quote what contains a comma or a tab"),
                ));
            }
            let label = std::mem::take(&mut row.cells[label]);
            let path = std::mem::take(&mut row.cells[path]);
            if path.is_empty() {
                return Err(self.fault(row.number, "has no path"));
            }
            Ok(Line {
                number: row.number,
                path,
                label: (!label.is_empty()).then_some(label),
            })
        };
        rows.into_iter().map(line).collect()
    }

    /// Returns the columns of path and label, if the first row is a header.
    fn header(&self, rows: &[Row]) -> anyhow::Result<Option<(usize, usize)>> {
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let paths = named(first, PATH_COLUMNS);
        let labels = named(first, LABEL_COLUMNS);
        if paths.is_empty() || labels.is_empty() {
            return Ok(None);
        }
        // A video and its class may have the names of columns; with more than two cells, it can
        // only be a header.
        let path = first.cells[0].as_str();
        if first.cells.len() == 2 && self.names.known([path].into_iter()).contains(path) {
            return Ok(None);
        }
        let [label] = labels.as_slice() else {
            let what = "is a header with several columns of labels: leave one of them";
            return Err(self.fault(first.number, what));
        };
        let cell = |row: &'_ Row, column: usize| row.cells.get(column).cloned().unwrap_or_default();
        let Some((&path, others)) = paths.split_first() else {
            return Ok(None);
        };
        if others.is_empty() {
            return Ok(Some((path, *label)));
        }
        // Of several columns of paths, the one that names the most videos; the first of equals.
        let cells: Vec<String> = paths
            .iter()
            .flat_map(|&column| rows.iter().map(move |row| cell(row, column)))
            .collect();
        let known = self.names.known(cells.iter().map(String::as_str));
        let videos = |column: usize| {
            rows.iter()
                .filter(|row| known.contains(&cell(row, column)))
                .count()
        };
        let path = others.iter().fold(path, |best, &other| {
            if videos(other) > videos(best) {
                other
            } else {
                best
            }
        });
        Ok(Some((path, *label)))
    }

    /// Reads lines of the form `path label`.
    fn blanks(&self, text: &str) -> anyhow::Result<Vec<Line>> {
        let lines: Vec<(usize, &str)> = data_lines(text).collect();
        let splits: Vec<_> = lines
            .iter()
            .map(|&(_, line)| splits(line, &BLANKS))
            .collect();
        let prefixes = splits.iter().flatten().map(|&(prefix, _)| prefix);
        let known = self
            .names
            .known(prefixes.chain(lines.iter().map(|&(_, line)| line)));
        let mut parsed = Vec::with_capacity(lines.len());
        for (index, (&(number, line), splits)) in lines.iter().zip(&splits).enumerate() {
            if index == 0 && self.is_blank_header(number, splits, &known)? {
                continue;
            }
            // The longest prefix first.
            let video = splits
                .iter()
                .rev()
                .find(|(prefix, _)| known.contains(prefix));
            let last = splits.last().filter(|_| !known.contains(line));
            let Some(&(path, label)) = video.or(last) else {
                return Err(self.fault(number, "has no label"));
            };
            let words: Vec<&str> = label
                .split(BLANKS)
                .filter(|word| !word.is_empty())
                .collect();
            if words.len() > 1 && words.iter().all(|word| is_number(word)) {
                let what = format!(
                    "has several numbers after {path}: columns need a header that names them"
                );
                return Err(self.fault(number, &what));
            }
            let label = (!label.is_empty()).then(|| label.to_owned());
            parsed.push(Line {
                number,
                path: path.to_owned(),
                label,
            });
        }
        Ok(parsed)
    }

    fn is_blank_header(
        &self,
        number: usize,
        splits: &[(&str, &str)],
        known: &Known,
    ) -> anyhow::Result<bool> {
        let &[(first, second)] = splits else {
            return Ok(false);
        };
        let is = |cell: &str, columns: &[&str]| columns.contains(&column_name(cell).as_str());
        if known.contains(first) {
            return Ok(false);
        }
        if is(first, LABEL_COLUMNS) && is(second, PATH_COLUMNS) {
            return Err(self.fault(
                number,
                "is a header with the label first: separate the columns by commas or tabs",
            ));
        }
        Ok(is(first, PATH_COLUMNS) && is(second, LABEL_COLUMNS))
    }
}

/// Iterates over the lines that are neither empty nor comments, with their numbers.
fn data_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Returns all ways to split `line` in two at `separators`, the shortest first part first.
fn splits<'t>(line: &'t str, separators: &[char]) -> Vec<(&'t str, &'t str)> {
    let mut splits: Vec<(&str, &str)> = Vec::new();
    for (at, _) in line.match_indices(separators) {
        let (first, second) = line.split_at(at);
        let first = first.trim_end_matches(separators);
        let second = second.trim_start_matches(separators);
        if !first.is_empty() && splits.last() != Some(&(first, second)) {
            splits.push((first, second));
        }
    }
    splits
}

/// Iterates over the rows of a file of columns, except empty rows and comments.
fn rows(text: &str, delimiter: u8) -> impl Iterator<Item = Row> {
    let text = format!("{}\n{END}\n", text.trim_end_matches('\n'));
    let mut reader = ReaderBuilder::new();
    reader
        .delimiter(delimiter)
        .comment(Some(b'#'))
        .has_headers(false)
        .flexible(true);
    let records = reader
        .from_reader(std::io::Cursor::new(text.clone()))
        .into_records();
    let mut at = 0;
    let mut number = 1;
    // Reading from memory cannot fail, and the text is UTF-8.
    records.map_while(Result::ok).filter_map(move |record| {
        let start = record
            .position()
            .map_or(at, |position| position.byte() as usize);
        number += text
            .get(at..start)
            .map_or(0, |passed| passed.matches('\n').count());
        at = start;
        // The position of a record includes what the reader skips before it.
        while let Some(rest) = text.get(at..).filter(|rest| rest.starts_with(['\n', '#'])) {
            at += rest.find('\n').map_or(rest.len(), |end| end + 1);
            number += 1;
        }
        let cells: Vec<String> = record.iter().map(|cell| cell.trim().to_owned()).collect();
        let is_end = record.len() == 1 && record.get(0) == Some(END);
        (!is_end && cells.iter().any(|cell| !cell.is_empty())).then_some(Row { number, cells })
    })
}

/// Returns the columns of the header `row` with one of `names`.
fn named(row: &Row, names: &[&str]) -> Vec<usize> {
    let is_named = |column: &usize| names.contains(&column_name(&row.cells[*column]).as_str());
    (0..row.cells.len()).filter(is_named).collect()
}

fn is_number(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok()
}

/// Normalises the name of a column: `Video ID` becomes `video_id`.
fn column_name(cell: &str) -> String {
    cell.trim().to_ascii_lowercase().replace([' ', '-'], "_")
}
