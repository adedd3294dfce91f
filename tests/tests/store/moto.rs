//! Against moto, which imitates S3. Set STORE_TEST_MOTO to the path of `moto_server`.

use crate::answers::environment;
use bytes::Bytes;
use pipeline::store::{self, StoreError, Url};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    let text = format!("{request} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn all_of_it_works_on_s3() {
    let Ok(program) = std::env::var("STORE_TEST_MOTO") else {
        eprintln!("skipped: STORE_TEST_MOTO is not set");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let (_, port) = address.split_once(':').expect("a port");
    let child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", port])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("moto_server");
    let _moto = Moto(child);
    let start = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "moto does not start"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(raw(&address, "PUT /bucket").contains("200"), "a bucket");
    let _guard = environment(&[
        ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("STORE_STALL_SECONDS", "30"),
    ]);
    let url = |text: &str| Url::parse(text).expect("a URL");
    small_objects(&url("s3://bucket/small"));
    odd_keys(&url("s3://bucket/odd"));
    compare_and_swap(&url("s3://bucket/swap"));
    transfers(&url("s3://bucket/large"), &address);
    lists(&url("s3://bucket/many"));

    let missing = store::head(&url("s3://nobucket/a")).expect_err("no bucket");
    assert!(
        matches!(missing, StoreError::NoBucket { .. }),
        "{missing:?}"
    );
    let missing = store::list(&url("s3://nobucket/a")).expect_err("no bucket");
    assert!(
        matches!(missing, StoreError::NoBucket { .. }),
        "{missing:?}"
    );
    let missing = store::create(&url("s3://nobucket/a"), Bytes::new()).expect_err("no bucket");
    assert!(
        matches!(missing, StoreError::NoBucket { .. }),
        "{missing:?}"
    );
}

fn small_objects(folder: &Url) {
    let url = folder.join("a.txt").expect("joined");
    let missing = store::head(&url).expect_err("nothing yet");
    assert!(missing.is_not_found(), "{missing:?}");
    assert!(store::read(&url).expect_err("nothing yet").is_not_found());
    store::create(&url, "first".into()).expect("created");
    let error = store::create(&url, "second".into()).expect_err("twice");
    assert!(matches!(error, StoreError::Exists { .. }), "{error:?}");
    let found = store::read(&url).expect("read");
    assert_eq!(&found.bytes[..], b"first");
    let meta = store::head(&url).expect("there");
    assert_eq!(
        (meta.bytes, meta.etag.as_deref()),
        (5, found.etag.as_deref())
    );
    assert!(meta.modified_ns > 1_500_000_000_000_000_000);
    let part = store::read_range(&url, 1..4, meta.etag.as_deref()).expect("read");
    assert_eq!(&part.bytes[..], b"irs");
    store::overwrite(&url, "other".into()).expect("written");
    let error = store::read_range(&url, 1..4, meta.etag.as_deref()).expect_err("replaced");
    assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
    store::delete(&url).expect("deleted");
    store::delete(&url).expect("deleted again");
    store::create(&url, Bytes::new()).expect("empty");
    assert_eq!(store::read(&url).expect("read").bytes.len(), 0);
    assert_eq!(store::head(&url).expect("there").bytes, 0);
}

fn odd_keys(folder: &Url) {
    let names = [
        "a b+c&d=e.mp4",
        "#1?.mp4",
        "50%25.mp4",
        "ümlaut [x]{y}~^`.mp4",
        "a:b@c*'\"\\",
    ];
    for name in names {
        let url = folder.join(name).expect("joined");
        store::create(&url, name.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&store::read(&url).expect("read").bytes[..], name.as_bytes());
    }
    let mut listed: Vec<String> = store::list(folder)
        .expect("listed")
        .iter()
        .map(|found| found.url.name().to_owned())
        .collect();
    let mut names = names.map(str::to_owned);
    names.sort();
    listed.sort();
    assert_eq!(listed, names);
}

fn compare_and_swap(url: &Url) {
    let none = store::replace(url, "x".into(), Some("\"0\"")).expect_err("nothing there");
    assert!(matches!(none, StoreError::Changed { .. }), "{none:?}");
    let first = store::replace(url, "1".into(), None).expect("written");
    let second = store::replace(url, "2".into(), first.as_deref()).expect("replaced");
    assert_ne!(first, second);
    let error = store::replace(url, "3".into(), first.as_deref()).expect_err("an old ETag");
    assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
    assert_eq!(&store::read(url).expect("read").bytes[..], b"2");
    assert_eq!(store::head(url).expect("there").etag, second);
}

fn transfers(folder: &Url, address: &str) {
    for (name, size) in [("small", 3 << 20), ("large", 40 << 20)] {
        let url = folder.join(name).expect("joined");
        let mut content = bytes(size, size as u64);
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&content).expect("written");
        assert!(
            store::upload(&url, file.path()).expect("uploaded"),
            "{name}"
        );
        assert!(!store::upload(&url, file.path()).expect("there"), "{name}");
        content[size - 1] ^= 1;
        std::fs::write(file.path(), &content).expect("written");
        let error = store::upload(&url, file.path()).expect_err("other bytes");
        assert!(matches!(error, StoreError::Exists { .. }), "{error:?}");
        std::fs::write(file.path(), b"short").expect("written");
        let error = store::upload(&url, file.path()).expect_err("another size");
        assert!(matches!(error, StoreError::Exists { .. }), "{error:?}");
        content[size - 1] ^= 1;

        let copy = tempfile::NamedTempFile::new().expect("a file");
        let meta = store::head(&url).expect("there");
        let mut steps = Vec::new();
        let mut progress = |bytes| {
            steps.push(bytes);
            Ok(())
        };
        let known = Some(&meta);
        let got = store::download(&url, known, copy.as_file(), &mut progress).expect("downloaded");
        assert_eq!(got, size as u64);
        assert!(std::fs::read(copy.path()).expect("read") == content);
        assert!(steps.is_sorted() && steps.last() == Some(&got), "{steps:?}");
        let other = store::ObjectMeta {
            etag: Some("\"0\"".to_owned()),
            ..meta
        };
        let error = store::download(&url, Some(&other), copy.as_file(), &mut |_| Ok(()));
        assert!(
            matches!(error, Err(StoreError::Changed { .. })),
            "{error:?}"
        );
        let mut stop = |_| Err(std::io::Error::other("enough"));
        let error = store::download(&url, None, copy.as_file(), &mut stop).expect_err("stopped");
        assert!(error.to_string().ends_with("enough"), "{error}");
    }
    let uploads = raw(address, "GET /bucket?uploads");
    assert!(!uploads.contains("<UploadId>"), "{uploads}");
}

fn lists(folder: &Url) {
    let count = 2_500;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let folder = folder.clone();
            std::thread::spawn(move || {
                for number in (thread..count).step_by(4) {
                    let url = folder.join(&format!("{:02}/{number:05}", number % 100));
                    store::create(&url.expect("joined"), "x".into()).expect("created");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("ended");
    }
    // A prefix is a folder, not the start of a name.
    store::create(&folder.root().join("many2").expect("joined"), "x".into()).expect("created");
    let before = store::traffic().requests;
    let found = store::list(folder).expect("listed");
    assert_eq!(store::traffic().requests - before, 3, "pages");
    assert_eq!(found.len(), count);
    assert!(found.is_sorted_by_key(|object| object.url.key().to_owned()));
    assert!(
        found
            .iter()
            .all(|object| object.bytes == 1 && object.etag.is_some())
    );
    assert_eq!(
        store::list(&folder.join("none").expect("joined")).expect("listed"),
        []
    );
    assert!(store::list(&folder.root()).expect("listed").len() > count);
}
