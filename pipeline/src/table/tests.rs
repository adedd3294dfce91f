use super::*;
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Writes a file, and returns its folder and path.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    (dir, path)
}

fn table(bytes: &[u8]) -> Table {
    let (_dir, path) = file("table", bytes);
    read(&path, Comments::No).expect("a table")
}

fn error(bytes: &[u8]) -> String {
    let (_dir, path) = file("table", bytes);
    let error = read(&path, Comments::No).expect_err("no table");
    error.to_string().replace(&path.display().to_string(), "F")
}

/// Renders the rows: line, and cells separated by bars.
fn rows(table: &Table) -> Vec<String> {
    let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    let row = |row: &Row| {
        let cells: Vec<String> = row.cells.iter().map(cell).collect();
        format!("{} {}", row.line, cells.join("|"))
    };
    table.rows.iter().map(row).collect()
}

#[test]
fn separated_text() {
    let cases: [(&[u8], u8); 4] = [
        (b"path,label\na.mp4,x y\n\nb.mp4,\n", b','),
        (b"path\tlabel\na.mp4\tx y\n\nb.mp4\t\n", b'\t'),
        (b"path;label\r\na.mp4;x y\r\n\r\nb.mp4;\r\n", b';'),
        (
            b"\xef\xbb\xbf\"path\",label\r\"a.mp4\",x y\r\rb.mp4,\"\"\r",
            b',',
        ),
    ];
    for (bytes, delimiter) in cases {
        let table = table(bytes);
        assert_eq!(table.columns, ["path", "label"]);
        assert_eq!(table.format, Format::Separated(delimiter));
        assert_eq!(rows(&table), ["2 a.mp4|x y", "4 b.mp4|-"]);
    }
}

#[test]
fn quotes() {
    let table = table(b"path,label\n\"a, \"\"b\"\".mp4\",\"two\nlines\"\nc,#d\n");
    assert_eq!(rows(&table), ["2 a, \"b\".mp4|two\nlines", "4 c|#d"]);
    assert_eq!(
        error(b"path,label\n\na,1\n\"b,2\nc,3\n"),
        "line 4 of F has a quote that is never closed"
    );
}

#[test]
fn comments() {
    let (_dir, path) = file("list.csv", b"# made by hand\npath,label\n#a,1\nb,#2\n");
    let table = read(&path, Comments::Hash).expect("a table");
    assert_eq!(rows(&table), ["4 b|#2"]);
}

#[test]
fn broken_text() {
    assert_eq!(
        error(b"a,b\n1,2\n1,2,3\n"),
        "line 3 of F has 3 cells, the header has 2: quote what contains a separator"
    );
    assert_eq!(
        error(b"a,a\n1,2\n"),
        "line 1 of F has several columns named a"
    );
    assert_eq!(error(b" \n"), "F is empty");
    assert_eq!(error(b""), "F is empty");
    assert_eq!(
        error(b"a,b\n1,\xe9\n"),
        "line 2 of F is not UTF-8: save the file as UTF-8"
    );
    let utf16 = "line 1 of F is not UTF-8, it looks like UTF-16: save the file as UTF-8";
    assert_eq!(error(b"\xff\xfea\0,\0b\0\n\0"), utf16);
    assert_eq!(error(b"a\0,\0b\0\n\0"), utf16);
    assert_eq!(
        error(b"\x80\x04\x95rest"),
        "F is a Python pickle: give it as CSV, JSON or Parquet"
    );
    assert_eq!(
        error(b"\x1f\x8b\x08\x00"),
        "F is compressed by gzip: unpack it"
    );
    let missing = read(Path::new("/nowhere/x"), Comments::No).expect_err("no file");
    assert_eq!(missing.to_string(), "cannot read /nowhere/x: no such file");
}

#[test]
fn json() {
    let expected = ["1 [1,\"x\"]|a|-", "2 -|b|true"];
    let array = table(b" [\n{\"path\":\"a\",\"n\":[1,\"x\"]},\n{\"path\":\"b\",\"flag\":true}]");
    assert_eq!(array.columns, ["n", "path", "flag"]);
    assert_eq!(array.format, Format::Json);
    assert_eq!(rows(&array), expected);
    let lines = table(b"{\"path\":\"a\",\"n\":[1,\"x\"]}\n\n{\"path\":\"b\",\"flag\":true}\n");
    assert_eq!(lines.format, Format::JsonLines);
    assert_eq!(rows(&lines), ["1 [1,\"x\"]|a|-", "3 -|b|true"]);
    let one = table(b"{\"path\":\"a\",\"start\":1.5,\"end\":null}");
    assert_eq!(rows(&one), ["1 -|a|1.5"]);
}

#[test]
fn broken_json() {
    let by_columns = error(b"{\"path\":[\"a\",\"b\"],\"label\":[1,2]}");
    assert!(by_columns.starts_with("F is one JSON object, by columns: write an array"));
    let nested = error(b"{\n\"path\":{\"0\":\"a\"}}");
    assert!(nested.starts_with("F is one JSON object"), "{nested}");
    assert_eq!(
        error(b"[{\"a\":1},\n2]"),
        "row 2 of F is no JSON object with the columns as keys"
    );
    assert_eq!(
        error(b"[\"a.mp4\"]"),
        "row 1 of F is no JSON object with the columns as keys"
    );
    let open = error(b"[{\"a\":1},\n{\"a\":]");
    assert!(
        open.starts_with("line 2 of F is not valid JSON: expected value"),
        "{open}"
    );
    let line = error(b"{\"a\":1}\n{\"a\":}\n");
    assert!(
        line.starts_with("line 2 of F is not valid JSON: expected value"),
        "{line}"
    );
}

#[test]
fn bracketed_names_are_text() {
    let table = table(b"[720p] path,label\na,1\n");
    assert_eq!(table.columns, ["[720p] path", "label"]);
}

/// Writes a Parquet file with one column of each kind.
fn columnar(path: &Path, compression: Compression) {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let columns: [(&str, ArrayRef); 5] = [
        (
            "path",
            Arc::new(StringArray::from(vec![Some("a"), None, Some("")])),
        ),
        ("n", Arc::new(Int64Array::from(vec![1, -1, 3]))),
        ("start", Arc::new(Float64Array::from(vec![1.5, 10.0, 0.1]))),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![true, false, true])),
        ),
        ("list", Arc::new(lists)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    )
    .expect("a batch");
    let file = File::create(path).expect("a file");
    let properties = WriterProperties::builder().set_compression(compression);
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[test]
fn parquet_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("any.name");
    for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED] {
        columnar(&path, compression);
        let table = read(&path, Comments::No).expect("a table");
        assert_eq!(table.columns, ["path", "n", "start", "flag", "list"]);
        assert_eq!(table.format, Format::Parquet);
        assert_eq!(
            rows(&table),
            [
                "1 a|1|1.5|true|[1,null]",
                "2 -|-1|10.0|false|-",
                "3 -|3|0.1|true|[]"
            ]
        );
    }
    std::fs::write(&path, b"PAR1 and no more").expect("written");
    let error = read(&path, Comments::No).expect_err("broken").to_string();
    assert!(
        error.contains("any.name cannot be read as Parquet: "),
        "{error}"
    );
}
