//! What servers and networks do wrong, and what is said about it.

use crate::answers::{Request, environment, object, reset, send, serve, serve_on};
use pipeline::store::{self, StoreError, Url};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const BYTES: &[u8] = b"0123456789";

fn web(address: &str) -> Url {
    Url::parse(&format!("http://{address}/folder/a.bin")).expect("a URL")
}

fn s3(bucket: &str) -> Url {
    Url::parse(&format!("s3://{bucket}/key")).expect("a URL")
}

/// Answers the first request by `first`, and the others as usual.
fn first(
    first: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> crate::answers::Server {
    serve(move |request, stream| match request.number {
        0 => first(request, stream),
        _ => object(request, stream, BYTES, "\"1\""),
    })
}

#[track_caller]
fn reads_at_the_second_attempt(server: &crate::answers::Server) {
    let before = store::traffic();
    let found = store::read_range(&web(&server.address), 2..7, None).expect("read");
    assert_eq!(&found.bytes[..], &BYTES[2..7]);
    assert_eq!(found.etag.as_deref(), Some("\"1\""));
    assert_eq!(server.requests.load(SeqCst), 2);
    let after = store::traffic();
    assert_eq!(after.requests - before.requests, 2);
    assert_eq!(after.retries - before.retries, 1);
    assert_eq!(after.failures, before.failures);
}

#[test]
fn a_busy_server_is_asked_again() {
    let _guard = environment(&[]);
    let server = first(|_, stream| send(stream, "503 Service Unavailable", "", b""));
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_head_request_that_fails_once_is_repeated() {
    // Its answer has no body; what is wrong is asked by another request, which goes well.
    let server = first(|_, stream| send(stream, "503 Service Unavailable", "", b""));
    let _guard = environment(&[
        ("AWS_ENDPOINT_URL", &format!("http://{}", server.address)),
        ("AWS_SKIP_SIGNATURE", "true"),
    ]);
    let found = store::head(&s3("once")).expect("found");
    assert_eq!(found.bytes, BYTES.len() as u64);
    assert_eq!(server.requests.load(SeqCst), 3);
}

#[test]
fn a_short_body_is_read_again() {
    let _guard = environment(&[]);
    let server = first(|_, stream| {
        let head = "HTTP/1.1 206 Partial Content\r\ncontent-length: 5\r\n\
                    content-range: bytes 2-6/10\r\netag: \"1\"\r\n\r\n23";
        stream.write_all(head.as_bytes()).expect("sent");
        false
    });
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_body_shorter_than_its_range_is_read_again() {
    let _guard = environment(&[]);
    let server = first(|_, stream| {
        let headers = "content-range: bytes 2-6/10\r\netag: \"1\"\r\n";
        send(stream, "206 Partial Content", headers, b"23")
    });
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_reset_in_the_body_is_survived() {
    let _guard = environment(&[]);
    let server = first(|_, stream| {
        let head = "HTTP/1.1 206 Partial Content\r\ncontent-length: 5\r\n\
                    content-range: bytes 2-6/10\r\netag: \"1\"\r\n\r\n23";
        stream.write_all(head.as_bytes()).expect("sent");
        thread::sleep(Duration::from_millis(50));
        reset(stream);
        false
    });
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_reset_before_the_answer_is_survived() {
    let _guard = environment(&[]);
    let server = first(|_, stream| {
        reset(stream);
        false
    });
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_stalled_body_is_given_up_and_read_again() {
    let _guard = environment(&[]);
    let server = first(|_, stream| {
        let head = "HTTP/1.1 206 Partial Content\r\ncontent-length: 5\r\n\
                    content-range: bytes 2-6/10\r\netag: \"1\"\r\n\r\n23";
        stream.write_all(head.as_bytes()).expect("sent");
        thread::sleep(Duration::from_secs(5));
        false
    });
    let start = Instant::now();
    reads_at_the_second_attempt(&server);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_server_that_does_not_answer_is_asked_again() {
    let _guard = environment(&[]);
    let server = first(|_, _| {
        thread::sleep(Duration::from_secs(5));
        false
    });
    reads_at_the_second_attempt(&server);
}

#[test]
fn a_server_that_comes_up_late_is_waited_for() {
    let _guard = environment(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(3));
        let listener = TcpListener::bind(address).expect("the same port");
        serve_on(listener, |request, stream| {
            object(request, stream, BYTES, "\"1\"")
        });
    });
    let before = store::traffic().retries;
    let found = store::read(&web(&address.to_string())).expect("read");
    assert_eq!(&found.bytes[..], BYTES);
    assert!(store::traffic().retries - before >= 3);
}

#[test]
fn at_last_it_gives_up() {
    let _guard = environment(&[("STORE_RETRY_SECONDS", "2")]);
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    store::on_wait(|message| HEARD.lock().expect("heard").push(message.to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let start = Instant::now();
    let error = store::head(&web(&address)).expect_err("nobody is there");
    assert!(
        matches!(error, StoreError::Unreachable { seconds: 2, .. }),
        "{error:?}"
    );
    let text = error.to_string();
    let expected = format!("http://{address}/folder/a.bin: gave up after 2 s: Connection refused");
    assert!(text.starts_with(&expected), "{text}");
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(2) && elapsed < Duration::from_secs(4));
    assert!(
        HEARD.lock().expect("heard").is_empty(),
        "too short to be told"
    );
}

#[test]
fn an_outage_is_told_once() {
    let _guard = environment(&[("STORE_RETRY_SECONDS", "14")]);
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    store::on_wait(|message| HEARD.lock().expect("heard").push(message.to_owned()));
    let server = serve(|_, stream| {
        let body = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>";
        send(stream, "503 Slow Down", "", body)
    });
    let url = web(&server.address);
    let other = url.join("../b.bin").expect("joined");
    let second = thread::spawn(move || store::read(&other));
    assert!(store::read(&url).is_err());
    assert!(second.join().expect("ended").is_err());
    let expected = format!(
        "waiting for http://{}: HTTP status 503 SlowDown: Reduce your rate",
        server.address
    );
    assert_eq!(*HEARD.lock().expect("heard"), [expected]);
}

#[test]
fn the_flag_ends_a_call_that_repeats() {
    let _guard = environment(&[]);
    let server = serve(|_, stream| send(stream, "500 Internal Server Error", "", b""));
    let flag = Arc::new(AtomicBool::new(false));
    store::stop_when(flag.clone());
    let url = web(&server.address);
    let call = thread::spawn(move || (store::read(&url), Instant::now()));
    thread::sleep(Duration::from_secs(1));
    let set = Instant::now();
    flag.store(true, SeqCst);
    let (result, end) = call.join().expect("ended");
    assert!(matches!(result, Err(StoreError::Interrupted)), "{result:?}");
    assert!(end - set < Duration::from_millis(100), "{:?}", end - set);
    thread::sleep(Duration::from_millis(100));
    let asked = server.requests.load(SeqCst);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.requests.load(SeqCst), asked, "the request goes on");
}

#[test]
fn a_dropped_read_is_cancelled_and_others_are_not() {
    let _guard = environment(&[]);
    let server = serve(|request, stream| {
        thread::sleep(Duration::from_millis(300));
        object(request, stream, BYTES, "\"1\"")
    });
    let (sender, receiver) = mpsc::channel();
    let start = |name: &'static str| {
        let sender = sender.clone();
        store::start_read(web(&server.address), 0..10, None, move |result| {
            sender
                .send((name, result.expect("read").bytes.len()))
                .expect("sent");
        })
        .expect("started")
    };
    let (dropped, kept) = (start("dropped"), start("kept"));
    thread::sleep(Duration::from_millis(100));
    drop(dropped);
    assert_eq!(receiver.recv(), Ok(("kept", 10)));
    drop(kept);
    assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err());
}

#[test]
fn a_replaced_object_is_noticed() {
    let _guard = environment(&[]);
    let server = serve(|request, stream| object(request, stream, BYTES, "\"2\""));
    let error = store::read_range(&web(&server.address), 0..5, Some("\"1\"")).expect_err("other");
    assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
    // A server that ignores If-Match.
    let server = serve(|request, stream| {
        let (start, end) = request.range(10).expect("a range");
        let headers = format!(
            "etag: \"2\"\r\ncontent-range: bytes {start}-{}/10\r\n",
            end - 1
        );
        send(stream, "206 Partial Content", &headers, &BYTES[start..end])
    });
    let error = store::read_range(&web(&server.address), 0..5, Some("\"1\"")).expect_err("other");
    assert!(matches!(error, StoreError::Changed { .. }), "{error:?}");
}

#[test]
fn a_range_beyond_the_end_is_no_outage() {
    let _guard = environment(&[]);
    let server = serve(|request, stream| object(request, stream, BYTES, "\"1\""));
    let start = Instant::now();
    let error = store::read_range(&web(&server.address), 5..11, None).expect_err("too long");
    assert!(error.to_string().contains("has only 10 bytes"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_download_survives_servers_without_ranges() {
    let _guard = environment(&[]);
    let server = serve(|request, stream| match request.method.as_str() {
        "HEAD" => object(request, stream, BYTES, "\"1\""),
        _ => send(stream, "200 OK", "etag: \"1\"\r\n", BYTES),
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut last = 0;
    let bytes = store::download(&web(&server.address), None, file.as_file(), &mut |bytes| {
        last = bytes;
        Ok(())
    });
    assert_eq!((bytes.expect("downloaded"), last), (10, 10));
    assert_eq!(std::fs::read(file.path()).expect("read"), BYTES);
    let error = store::read_range(&web(&server.address), 0..5, None).expect_err("no ranges");
    assert!(matches!(error, StoreError::NoRanges { .. }), "{error:?}");
}

#[test]
fn what_web_servers_cannot_do_is_said() {
    let _guard = environment(&[]);
    let url = web("127.0.0.1:1");
    let text = store::list(&url).expect_err("no list").to_string();
    assert!(text.contains("a web server cannot be listed"), "{text}");
    let text = store::create(&url, "a".into())
        .expect_err("no writes")
        .to_string();
    assert!(text.contains("a web server cannot be written to"), "{text}");
}

fn s3_error(bucket: &str, status: &'static str, headers: &'static str, body: String) -> StoreError {
    let server = serve(move |request, stream| match request.method.as_str() {
        "HEAD" => send(stream, status, headers, b""),
        _ => send(stream, status, headers, body.as_bytes()),
    });
    let _guard = environment(&[
        ("AWS_ENDPOINT_URL", &format!("http://{}", server.address)),
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let error = store::read(&s3(bucket)).expect_err("refused");
    // An answer to HEAD has no body, and still the cause is known.
    let head = store::head(&s3(bucket)).expect_err("refused");
    assert_eq!(error.to_string(), head.to_string());
    error
}

fn xml(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}\
         </Message><RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>"
    )
}

#[test]
fn refusals_of_s3_name_their_cause() {
    for (code, message, expected) in [
        (
            "AccessDenied",
            "Access Denied",
            "the credentials may be wrong or lack s3:GetObject",
        ),
        (
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            "check AWS_ACCESS_KEY_ID",
        ),
        (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            "check AWS_SECRET_ACCESS_KEY",
        ),
    ] {
        let bucket = code.to_ascii_lowercase();
        let error = s3_error(&bucket, "403 Forbidden", "", xml(code, message));
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(code) && text.contains(expected), "{text}");
        assert!(!text.contains('\n'));
    }
}

#[test]
fn the_region_of_a_bucket_is_named() {
    let body = xml(
        "PermanentRedirect",
        "The bucket must be addressed using another endpoint.",
    );
    let headers = "x-amz-bucket-region: eu-central-1\r\n";
    let error = s3_error("redirected", "301 Moved Permanently", headers, body);
    assert_eq!(
        error.to_string(),
        "s3://redirected: the bucket is in another region; set AWS_REGION=eu-central-1"
    );
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header \
                is malformed; the region 'us-east-1' is wrong; expecting 'ap-south-1'</Message>\
                <Region>ap-south-1</Region></Error>";
    let error = s3_error("malformed", "400 Bad Request", "", body.to_owned());
    assert!(
        error.to_string().ends_with("AWS_REGION=ap-south-1"),
        "{error}"
    );
}

#[test]
fn a_missing_bucket_is_no_missing_object() {
    let body = xml("NoSuchBucket", "The specified bucket does not exist");
    let error = s3_error("nobucket", "404 Not Found", "", body);
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
}

#[test]
fn without_credentials_the_error_comes_at_once() {
    // An address that does not answer: packets to it are lost.
    let _guard = environment(&[
        ("AWS_EC2_METADATA_DISABLED", ""),
        ("AWS_METADATA_ENDPOINT", "http://192.0.2.1"),
    ]);
    let start = Instant::now();
    let error = store::read(&s3("nokeys")).expect_err("no credentials");
    assert!(start.elapsed() < Duration::from_secs(2));
    let text = error.to_string();
    assert!(matches!(error, StoreError::NoCredentials { .. }), "{text}");
    for word in [
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_SKIP_SIGNATURE=true",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let az = store::read(&Url::parse("az://films/a").expect("a URL")).expect_err("none");
    assert!(az.to_string().contains("AZURE_STORAGE_ACCOUNT"), "{az}");
}

#[test]
fn profiles_are_read_and_their_limits_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("credentials");
    let (seen, found) = mpsc::channel();
    let seen = Mutex::new(seen);
    let server = serve(move |request, stream| {
        let key = request
            .header("authorization")
            .unwrap_or_default()
            .to_owned();
        seen.lock().expect("locked").send(key).expect("sent");
        object(request, stream, BYTES, "\"1\"")
    });
    let text = format!(
        "[ci]\naws_access_key_id = AKIACI\naws_secret_access_key = s\nregion = eu-west-3\n\
         endpoint_url = http://{}\n[sso]\nsso_session = a\n",
        server.address
    );
    std::fs::write(&path, text).expect("written");
    let file = path.to_str().expect("a path");
    let guard = environment(&[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "ci")]);
    store::read(&s3("profile-ci")).expect("read");
    let header = found.recv().expect("a request");
    assert!(
        header.contains("Credential=AKIACI/") && header.contains("/eu-west-3/s3/"),
        "{header}"
    );
    drop(guard);
    let guard = environment(&[
        ("AWS_SHARED_CREDENTIALS_FILE", file),
        ("AWS_PROFILE", "sso"),
    ]);
    let text = store::read(&s3("profile-sso"))
        .expect_err("sso")
        .to_string();
    assert!(
        text.contains("aws configure export-credentials --format env"),
        "{text}"
    );
    drop(guard);
    let _guard = environment(&[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "x")]);
    let text = store::read(&s3("profile-x")).expect_err("none").to_string();
    assert!(text.contains("there is no profile \"x\""), "{text}");
}

#[test]
fn a_create_whose_answer_is_lost_succeeds() {
    let server = serve(
        |request, stream| match (request.number, request.method.as_str()) {
            (0, "PUT") => {
                reset(stream);
                false
            }
            (_, "PUT") => {
                assert_eq!(request.header("if-none-match"), Some("*"));
                send(stream, "412 Precondition Failed", "", b"")
            }
            _ => object(request, stream, BYTES, "\"1\""),
        },
    );
    let _guard = environment(&[
        ("AWS_ENDPOINT_URL", &format!("http://{}", server.address)),
        ("AWS_SKIP_SIGNATURE", "true"),
    ]);
    store::create(&s3("lost-answer"), BYTES.into()).expect("its own object");
}

#[test]
fn an_emulator_of_google_needs_no_credentials() {
    let server = serve(|request, stream| {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.target, "/films/a%20b");
        let headers = "x-goog-generation: 17\r\netag: \"1\"\r\n\
                       last-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
        send(stream, "200 OK", headers, BYTES)
    });
    let _guard = environment(&[("STORAGE_EMULATOR_HOST", &server.address)]);
    let url = Url::parse("gs://films/a b").expect("a URL");
    let found = store::read(&url).expect("read");
    assert_eq!(found.etag.as_deref(), Some("\"1\" 17"));
}

#[test]
fn an_unfinished_upload_is_aborted() {
    let (seen, found) = mpsc::channel();
    let seen = Mutex::new(seen);
    let server = serve(move |request, stream| {
        let call = format!("{} {}", request.method, request.target);
        seen.lock().expect("locked").send(call).expect("sent");
        match request.method.as_str() {
            "POST" => {
                let body = b"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>key</Key>\
                             <UploadId>U1</UploadId></InitiateMultipartUploadResult>";
                send(stream, "200 OK", "", body)
            }
            "PUT" => send(stream, "403 Forbidden", "", b""),
            "DELETE" => send(stream, "204 No Content", "", b""),
            _ => send(stream, "404 Not Found", "", b""),
        }
    });
    let _guard = environment(&[
        ("AWS_ENDPOINT_URL", &format!("http://{}", server.address)),
        ("AWS_SKIP_SIGNATURE", "true"),
    ]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(33 << 20).expect("sparse");
    let error = store::upload(&s3("aborted"), file.path()).expect_err("refused");
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    let mut calls = found.try_iter();
    assert!(calls.any(|call| call == "DELETE /aborted/key?uploadId=U1"));
}

#[test]
fn paths_in_the_file_system_are_no_urls() {
    for path in ["./s3://x", "a:b", "C:/x", "s3:/x", "/a://b"] {
        assert_eq!(Url::of(Path::new(path)), None, "{path}");
    }
}
