//! Tests of the text of conditions, its errors and limits.

use super::tests::{batch, error, rows};
use super::{Expression, ExpressionError};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use proptest::prelude::*;
use std::sync::Arc;
use std::thread;

#[test]
fn errors_say_what_and_where() {
    for (text, parts) in [
        ("", &["at character 1 ", "expected an expression"][..]),
        (
            "clip > > 3",
            &["at character 8 ", "expected an expression", "ilike"],
        ),
        ("clip > 3 width", &["at character 10 ", "`width`"]),
        ("clip >\n\n 3 4", &["at character 12 "]),
        ("video = 'abc", &["at character 9 ", "string"]),
        (
            "(clip > 3",
            &["at character 10 ", "expected ), found the end"],
        ),
        (
            "mition > 3",
            &[
                "at character 1 ",
                "`mition`",
                "did you mean `motion`?",
                "pts_ns",
            ],
        ),
        ("Clip > 3", &["did you mean `clip`?"]),
        (
            "class == \"walk\"",
            &["at character 10 ", "text takes single quotes: 'walk'"],
        ),
        (
            "class == walk",
            &["text takes single quotes: 'walk'", "columns: class, video"],
        ),
        (
            "class = 5",
            &[
                "column `class` (text, type Utf8)",
                "compared with 5 (a number)",
            ],
        ),
        (
            "clip in (1, 'a')",
            &["column `clip` (a number, type UInt32)", "'a' (text)"],
        ),
        ("damaged = 1", &["`damaged` (true or false, type Boolean)"]),
        ("motion", &["the whole is column `motion`", "Float32"]),
        (
            "motion and damaged",
            &["`and` takes true or false", "`motion`"],
        ),
        ("class + 1 > 2", &["`+` takes numbers", "`class`"]),
        ("pts_ns > 2", &["`pts_ns` (a list", "cannot be compared"]),
        ("data is null", &["`data`", "LargeBinary"]),
        (
            "sqrt(clip) > 2",
            &["at character 1 ", "function `sqrt`", "lower(), upper()"],
        ),
        ("length() > 2", &["length() takes one value"]),
        ("lower(clip) = 'a'", &["lower() takes text", "`clip`"]),
        ("clip in (select 1)", &["at character 10 ", "`select`"]),
        (
            "clip > 1 & label > 2",
            &["at character 10 ", "`&`", "write `and`"],
        ),
        ("clip > 1 || label > 2", &["write `or`"]),
        ("0 < clip < 3", &["a comparison of a comparison", "between"]),
        ("clip > 1 -- no", &["a comment"]),
        ("clip is distinct from 3", &["`distinct`"]),
        ("clip > 1e999", &["not a number in range"]),
        ("pts_ns[0] = 1", &["an index is a whole number from 1"]),
        ("shards.clip = 1", &["`.`"]),
        ("label = null", &["at character 7 ", "`is null`"]),
        ("(null) <> label", &["at character 8 ", "`is null`"]),
        ("label not 3", &["at character 7 ", "found `not`"]),
        ("label is 3", &["expected null, true", "found `3`"]),
        (
            "clip > 12ab",
            &["at character 8 ", "`12ab` is not a number"],
        ),
        ("\"clip > 3", &["at character 1 ", "no closing \""]),
        ("label + and 3", &["expected an expression, found `and`"]),
        (
            "video like 'a!' escape '!'",
            &["ends with the escape character"],
        ),
    ] {
        let error = error(text);
        for part in parts {
            assert!(error.contains(part), "{text}: no {part:?} in {error}");
        }
    }
}

#[test]
fn columns_are_known_without_rows() {
    let condition = Expression::parse("b > 1 and (A in (c, 2) or length(b) is null) and d[1] = 0");
    let condition = condition.expect("a condition");
    assert_eq!(
        condition.columns().collect::<Vec<_>>(),
        ["A", "b", "c", "d"]
    );
    let schema = batch().schema();
    let check = |text: &str| Expression::parse(text).and_then(|it| it.check(&schema));
    assert!(check("clip in (label, 1 % 0, 3) and pts_ns[1] > clip").is_ok());
    assert!(matches!(check("class > 3"), Err(ExpressionError::Type(_))));
    assert!(matches!(
        check("x > 3"),
        Err(ExpressionError::UnknownColumn { .. })
    ));
}

#[test]
fn keywords_of_other_sql_may_name_columns() {
    let dates: ArrayRef = Arc::new(UInt32Array::from(vec![1, 2]));
    let names = [
        "date",
        "position",
        "case",
        "timestamp",
        "row",
        "left",
        "map",
        "struct",
    ];
    let columns = names.map(|name| (name, Arc::clone(&dates)));
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    for name in [
        "date",
        "position",
        "\"case\"",
        "timestamp",
        "row",
        "left",
        "map",
        "struct",
    ] {
        let chosen = Expression::parse(&format!("{name} > 1")).and_then(|it| it.evaluate(&batch));
        assert_eq!(
            chosen.expect(name),
            BooleanArray::from(vec![false, true]),
            "{name}"
        );
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        Expression::parse(&format!("{}{inner}{}", open.repeat(n), close.repeat(n)))
    };
    for n in [60, 500, 1190, 10_000] {
        for (open, close) in [
            ("(", ")"),
            ("not ", ""),
            ("- ", ""),
            ("abs(", ")"),
            ("clip in (", ")"),
            ("", "[1]"),
            ("", " is null"),
            ("", " + 1"),
            ("1 + ", ""),
            ("(", ""),
            ("abs(", ""),
            ("x in (", ""),
            ("a between ", ""),
            ("", " like 'a'"),
            ("[", "]"),
            ("((1),", ")"),
        ] {
            let result = nested(open, "clip", close, n);
            let is_chain = close == " + 1" || close == " is null" || open == "1 + ";
            assert!(result.is_err() || is_chain && n == 60, "{open} {close} {n}");
        }
    }
    assert!(nested("(", "clip > 1", ")", 20).is_ok());
    let chain = vec!["clip = 7"; 400].join(" or ");
    assert_eq!(rows(&chain), [2]);
    let chain = vec!["clip = 7"; 4000].join(" or ");
    assert!(error(&chain).contains("`in (..)` takes a list"));
    let list: Vec<String> = (5..50_000).map(|n| n.to_string()).collect();
    assert_eq!(rows(&format!("clip in ({})", list.join(","))), [2]);
}

/// The deepest conditions that are read, and all that are refused, in a small stack.
#[test]
fn depth_fits_into_small_stacks() {
    let nested = [
        ("(", ")"),
        ("not (", ")"),
        ("not not ", ""),
        ("- ", ""),
        ("abs(", ")"),
        ("1 + (", ")"),
        ("clip in (", ")"),
        ("clip in (1, 2 + (", "))"),
        ("clip between (", ") and 3"),
        ("x between 1 and (", ")"),
        ("(", " is null)"),
        ("(", ") in (1)"),
        ("(", ") like 'a'"),
        ("(", " = 1 and true)"),
        ("", " is null"),
        ("", " + 1"),
        ("", " / 2"),
        ("(", " + 1 + 1)"),
        ("true and (false or ", ")"),
        ("", " like 'a'"),
        ("", "[1]"),
    ];
    let run = move || {
        let mut deepest = [0; 21];
        for (deepest, (open, close)) in deepest.iter_mut().zip(nested) {
            for inner in ["clip", "clip > 1", "damaged", "1"] {
                for n in (1..130).chain([1000, 20_000]) {
                    let text = format!("{}{inner}{}", open.repeat(n), close.repeat(n));
                    if let Ok(condition) = Expression::parse(&text) {
                        let _ = condition.evaluate(&batch());
                        let _ = condition.clone().columns().count();
                        *deepest = n.max(*deepest);
                    }
                }
            }
        }
        deepest
    };
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(run);
    let deepest = thread.expect("a thread").join().expect("no panic");
    for (deepest, (open, close)) in deepest.into_iter().zip(nested) {
        assert!(deepest < 125, "{open} {close} {deepest}");
    }
}

/// Words of conditions, and some that do not belong.
const WORDS: [&str; 64] = [
    "clip",
    "class",
    "motion",
    "damaged",
    "pts_ns",
    "fps",
    "data",
    "x",
    "\"run\"",
    "'run'",
    "'a%'",
    "0",
    "1",
    "-1",
    "2.5",
    "1e400",
    "18446744073709551616",
    "null",
    "true",
    "false",
    "unknown",
    "and",
    "or",
    "not",
    "in",
    "between",
    "like",
    "ilike",
    "is",
    "escape",
    "(",
    ")",
    "[",
    "]",
    ",",
    "=",
    "==",
    "!=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "lower(",
    "length(",
    "abs(",
    "data_xxh3",
    "and",
    "or",
    "case",
    "select",
    "date",
    "interval",
    ".",
    ";",
    "::",
    "--",
    "\n",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Words at random, of which some are conditions.
    #[test]
    fn no_words_panic(words in prop::collection::vec(0..WORDS.len(), 0..40)) {
        let words: Vec<&str> = words.into_iter().map(|word| WORDS[word]).collect();
        if let Ok(condition) = Expression::parse(&words.join(" ")) {
            let _ = condition.evaluate(&batch());
            let _ = condition.check(&batch().schema());
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}|[-a-e0-9'\"()\\[\\],.<>=!%*+/ \\n\\\\`$@#{}:;?&|^~]{0,60}") {
        if let Ok(condition) = Expression::parse(&text) {
            let _ = condition.evaluate(&batch());
        }
    }
}
