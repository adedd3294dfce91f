//! Tests of names.

use super::*;
use proptest::prelude::*;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

#[test]
fn urls_are_written_as_they_were_read() {
    for text in [
        "s3://bucket",
        "s3://my.bucket-1/a b/c#1?.mp4",
        "gs://under_score/ü/a%20b",
        "az://$web/a",
        "http://Host:8080/A%20b",
        "https://[::1]:80/a",
    ] {
        assert_eq!(url(text).to_string().to_lowercase(), text.to_lowercase());
        assert_eq!(url(&format!("{}/", url(text))), url(text));
    }
    assert_eq!(url("S3://b/k").to_string(), "s3://b/k");
    assert_eq!((url("s3://b").name(), url("s3://b").key()), ("b", ""));
}

#[test]
fn what_cannot_be_used_says_what_can() {
    for (text, expected) in [
        ("s3://", "the bucket is missing: write s3://bucket/key"),
        ("s3:///key", "the bucket is missing"),
        ("https:///a", "the host is missing"),
        ("s3://a b/key", "not allowed"),
        ("s3a://b/key", "write s3://b/key"),
        ("gcs://b/key", "write gs://b/key"),
        (
            "abfss://c@account.dfs.core.windows.net/key",
            "write az://container/key",
        ),
        ("ftp://host/a", "ftp:// is not supported"),
        ("file:///data/x", "give the local path /data/x"),
        (
            "https://h/a?X-Amz-Signature=1",
            "a query (?…) cannot be used",
        ),
        ("https://h/a#t=1", "a fragment (#…) cannot be used"),
        (
            "https://me:pw@host/a",
            "only addresses that need no password",
        ),
        (
            "s3://key:secret@bucket/a",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ("s3://b/a//c", "empty path segments"),
        ("s3://b/a/../c", "`.` and `..`"),
        ("bucket/key", "is not a URL"),
    ] {
        let error = Url::parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(
            !error.contains("pw") && !error.contains("secret@"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
}

#[test]
fn joining_stays_in_the_bucket() {
    let folder = url("s3://b/x/y");
    assert_eq!(folder.join("z").expect("joined"), url("s3://b/x/y/z"));
    assert_eq!(folder.join("./../w/").expect("joined"), url("s3://b/x/w"));
    assert_eq!(folder.join("../..").expect("joined"), url("s3://b"));
    assert_eq!(folder.join("").expect("joined"), folder);
    let error = folder.join("../../../c/z").expect_err("outside");
    assert!(error.to_string().contains("leaves the bucket"), "{error}");
    assert!(folder.join("/z").is_err());
    assert!(url("http://h/a").join("b?c").is_err());
    assert_eq!(url("s3://b").join("z").expect("joined"), url("s3://b/z"));
}

#[test]
fn relative_paths_lead_there() {
    let from = url("s3://b/x/y");
    for (to, path) in [
        ("s3://b/x/y/z", "z"),
        ("s3://b/x/z", "../z"),
        ("s3://b/q", "../../q"),
        ("s3://b/x/y", "."),
        ("s3://b/x", ".."),
    ] {
        assert_eq!(from.relative(&url(to)).as_deref(), Some(path));
    }
    assert_eq!(from.relative(&url("s3://c/x")), None);
    assert_eq!(from.relative(&url("gs://b/x")), None);
}

proptest! {
    #[test]
    fn join_undoes_relative(
        a in proptest::collection::vec("[a-c]{1,2}", 0..4),
        b in proptest::collection::vec("[a-c]{1,2}", 0..4),
    ) {
        let root = url("s3://bucket");
        let (a, b) = (root.with_key(&a.join("/")), root.with_key(&b.join("/")));
        let path = a.relative(&b).expect("one bucket");
        prop_assert_eq!(a.join(&path).expect("joined"), b);
    }

    #[test]
    fn nothing_panics(text in "\\PC*", scheme in "(s3|gs|az|http|file|ftp)") {
        let _ = Url::parse(&format!("{scheme}://{text}"));
        if let Ok(url) = Url::parse(&format!("{scheme}://b/{text}")) {
            prop_assert_eq!(Url::parse(&url.to_string()), Ok(url));
        }
    }
}
