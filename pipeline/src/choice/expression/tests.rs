//! Tests of what conditions choose. The comparison with DuckDB is `oracle.py`.

use super::Expression;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeBinaryArray, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::Int64Type;
use std::sync::Arc;

/// Four rows with a column of each type.
pub fn batch() -> RecordBatch {
    let class = StringArray::from(vec![Some("run"), None, Some("a_b"), Some(r"a\b")]);
    let video = StringArray::from(vec!["a.mp4", "Übung", "axb", "it's"]);
    let pts = [
        Some(vec![Some(5), Some(7)]),
        Some(vec![]),
        None,
        Some(vec![Some(-1)]),
    ];
    let fps = vec![Some(-0.0), Some(f64::NAN), None, Some(-f64::NAN)];
    let columns: [(&str, ArrayRef); 10] = [
        ("class", Arc::new(class)),
        ("video", Arc::new(video)),
        ("clip", Arc::new(UInt32Array::from(vec![0, 1, 7, u32::MAX]))),
        (
            "label",
            Arc::new(Int32Array::from(vec![Some(-1), None, Some(2), Some(3)])),
        ),
        (
            "time",
            Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, (1 << 53) + 1])),
        ),
        (
            "data_xxh3",
            Arc::new(UInt64Array::from(vec![0, 9, 1 << 63, u64::MAX])),
        ),
        (
            "motion",
            Arc::new(Float32Array::from(vec![
                Some(0.001),
                Some(0.5),
                None,
                Some(9.0),
            ])),
        ),
        ("fps", Arc::new(Float64Array::from(fps))),
        (
            "damaged",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                Some(false),
                None,
                None,
            ])),
        ),
        (
            "pts_ns",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(pts)),
        ),
    ];
    let data: ArrayRef = Arc::new(LargeBinaryArray::from(vec![&b"x"[..]; 4]));
    RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .chain([("data", data)])
            .map(|(name, array)| (name, array, true)),
    )
    .expect("columns of one length")
}

/// Numbers of the rows that `text` chooses.
pub fn rows(text: &str) -> Vec<usize> {
    let chosen = Expression::parse(text).and_then(|condition| condition.evaluate(&batch()));
    let chosen = chosen.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!((chosen.len(), chosen.null_count()), (4, 0), "{text}");
    (0..4).filter(|&row| chosen.value(row)).collect()
}

/// The error of `text`.
pub fn error(text: &str) -> String {
    let chosen = Expression::parse(text).and_then(|condition| condition.evaluate(&batch()));
    chosen.expect_err(text).to_string()
}

#[test]
fn conditions_choose_rows() {
    for (text, expected) in [
        ("motion > 0.002 and class != 'none'", &[3][..]),
        ("class == 'run' or class <> 'run'", &[0, 2, 3]),
        ("not class = 'run'", &[2, 3]),
        ("class = 'run' or clip = 1", &[0, 1]),
        ("clip > 0 and clip > 1 or clip = 0", &[0, 2, 3]),
        ("(clip > 0 or clip = 0) and clip < 2", &[0, 1]),
        ("clip in (0, 7, null)", &[0, 2]),
        ("clip not in (0, 7, null)", &[]),
        ("clip not in (0, 7)", &[1, 3]),
        ("class in (video, 'run', 'a_b')", &[0, 2]),
        ("fps in (0, 1)", &[0]),
        ("clip between 1 and 7", &[1, 2]),
        ("label not between 0 and 2", &[0, 3]),
        ("label is null", &[1]),
        ("label is not null and damaged is unknown", &[2, 3]),
        ("damaged", &[0]),
        ("damaged is not true", &[1, 2, 3]),
        ("damaged is false", &[1]),
        ("null", &[]),
        ("true", &[0, 1, 2, 3]),
        ("lower(upper(video)) = 'übung'", &[1]),
        ("length(video) = 5 and length(\"class\") is null", &[1]),
        ("length(pts_ns) = 0", &[1]),
        ("pts_ns[2] = 7 or pts_ns[-1] = -1", &[0, 3]),
        ("pts_ns[1] is null", &[1, 2]),
        ("abs(label) = 1", &[0]),
        ("video = 'it''s'", &[3]),
        ("'b' < class", &[0]),
    ] {
        assert_eq!(rows(text), expected, "{text}");
    }
}

#[test]
fn whole_numbers_are_exact() {
    for (text, expected) in [
        ("clip > -1", &[0, 1, 2, 3][..]),
        ("clip = -1", &[]),
        ("clip < 4294967296", &[0, 1, 2, 3]),
        ("clip - 1 < 0", &[0]),
        ("-clip <= -7", &[2, 3]),
        ("time = 9007199254740993", &[3]),
        ("time = 9007199254740992", &[]),
        ("time < -9223372036854775807", &[0]),
        ("data_xxh3 = 18446744073709551615", &[3]),
        ("data_xxh3 > 9223372036854775807", &[2, 3]),
        ("data_xxh3 % 10 = 5", &[3]),
        ("data_xxh3 + data_xxh3 = 36893488147419103230", &[3]),
        ("label % 2 = -1", &[0]),
        ("time > data_xxh3", &[]),
        ("clip < 1e30 and clip >= 6.5", &[2, 3]),
    ] {
        assert_eq!(rows(text), expected, "{text}");
    }
    let product = "data_xxh3 * data_xxh3 * data_xxh3 > 0";
    assert!(
        error(product).contains("`*` exceeds the range"),
        "{}",
        error(product)
    );
}

#[test]
fn other_numbers_are_reals() {
    for (text, expected) in [
        ("fps = 0", &[0][..]),
        ("fps = fps", &[0, 1, 3]),
        ("fps > 1e300", &[1, 3]),
        ("clip / 2 = 3.5", &[2]),
        ("label / 0 is null", &[0, 1, 2, 3]),
        ("label % 0 = 0 or 1 / fps > 0", &[1, 3]),
        ("motion = 0.5", &[1]),
        // The stored value is 0.001000000047.
        ("motion = 0.001", &[0]),
        ("motion in (0.001, 9)", &[0, 3]),
        ("motion > 0.001", &[1, 3]),
        ("motion between 0.001 and 0.001", &[0]),
        ("-0.001 = -motion and abs(motion) <= 1e-3", &[0]),
        ("motion * 1000 = 1 and motion + 0.1 = 0.101", &[0]),
        ("motion * fps * 0 + motion = 0.001", &[]),
        ("motion > 0.00100000004 and motion < 0.00100000005", &[]),
        (
            "motion < 1e300 and motion > 1e-300 and motion != 16777217",
            &[0, 1, 3],
        ),
        ("motion * 1e38 > 8e38", &[3]),
        (".5e0 = motion", &[1]),
    ] {
        assert_eq!(rows(text), expected, "{text}");
    }
}

#[test]
fn patterns_are_those_of_sql() {
    for (text, expected) in [
        ("video like '%.mp4'", &[0][..]),
        ("class like 'a_b'", &[2, 3]),
        (r"class like 'a\_'", &[3]),
        ("class like 'a!_b' escape '!'", &[2]),
        (r"class like 'a\b'", &[3]),
        (r"class like 'a\\b' escape '\'", &[3]),
        ("video not like '%x%'", &[0, 1, 3]),
        ("video ilike 'üBUNG'", &[1]),
        ("not class ilike 'R%'", &[2, 3]),
        ("class like null or clip = 0", &[]),
    ] {
        if text.contains("null") {
            assert!(error(text).contains("is text in quotes"), "{}", error(text));
        } else {
            assert_eq!(rows(text), expected, "{text}");
        }
    }
}
