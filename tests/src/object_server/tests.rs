use super::http::{decoded, encoded, http_date, iso_date};
use super::{Faults, ObjectServer};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

const ONE: &str = "GET /b/folder/one";

/// What a server has answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }
}

fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at * at % 251) as u8).collect()
}

/// A bucket `b` with an object `folder/one` of 3 MB.
fn served(faults: Faults) -> (TempDir, ObjectServer) {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("b/folder")).expect("a bucket");
    fs::write(dir.path().join("b/folder/one"), content(3_000_000)).expect("an object");
    let server = ObjectServer::start(dir.path(), faults);
    (dir, server)
}

fn send(stream: &mut TcpStream, request: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
}

/// Sends a request on a connection of its own and reads until the connection ends.
fn ask_with(server: &ObjectServer, request: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    let length = format!("Content-Length: {}", body.len());
    let mut all = vec!["Connection: close"];
    if !body.is_empty() {
        all.push(&length);
    }
    all.extend(headers);
    send(&mut stream, request, &all, body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.expect("a head");
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).expect("text");
    let status = head[9..12].parse().expect("a status");
    Answer { status, head, body }
}

fn ask(server: &ObjectServer, request: &str, headers: &[&str]) -> Answer {
    ask_with(server, request, headers, b"")
}

fn get(server: &ObjectServer) -> Answer {
    ask(server, ONE, &[])
}

#[test]
fn whole_objects_and_ranges_are_read() {
    let (_dir, server) = served(Faults::default());
    let all = content(3_000_000);
    let whole = get(&server);
    assert_eq!((whole.status, &whole.body), (200, &all));
    assert_eq!(whole.header("Content-Length"), "3000000");
    assert_eq!(whole.header("Accept-Ranges"), "bytes");
    assert!(whole.header("Last-Modified").ends_with(" GMT"));
    let head = ask(&server, "HEAD /b/folder/one", &[]);
    assert_eq!(head.header("Content-Length"), "3000000");
    assert_eq!(head.header("ETag"), whole.header("ETag"));
    assert!(head.body.is_empty());

    for (asked, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-1999999", 10, 2_000_000),
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=2999990-9999999", 2_999_990, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=-9999999", 0, 3_000_000),
    ] {
        let part = ask(&server, ONE, &[&format!("Range: {asked}")]);
        assert_eq!((part.status, &part.body[..]), (206, &all[start..end]));
        let range = format!("bytes {start}-{}/3000000", end - 1);
        assert_eq!(part.header("Content-Range"), range);
    }
    for asked in ["bytes=3000000-", "bytes=-0"] {
        let none = ask(&server, ONE, &[&format!("Range: {asked}")]);
        assert_eq!(none.status, 416);
        assert_eq!(none.header("Content-Range"), "bytes */3000000");
    }
    for ignored in ["bytes=5-3", "lines=1-2", "bytes=0-1,4-5"] {
        let whole = ask(&server, ONE, &[&format!("Range: {ignored}")]);
        assert_eq!(whole.status, 200);
    }
    let log = server.log();
    assert_eq!(log[0].key, "b/folder/one");
    assert_eq!(log[1].method, "HEAD");
    assert_eq!(log[2].range.as_deref(), Some("bytes=0-0"));
    let requests = server.requests();
    assert_eq!((requests.gets, requests.heads), (12, 1));
}

#[test]
fn one_connection_has_many_requests() {
    let (_dir, server) = served(Faults::default());
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    for _ in 0..20 {
        send(&mut stream, ONE, &["Range: bytes=0-3"], b"");
        let mut answer = Vec::new();
        while !answer.ends_with(&content(4)) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
    }
    assert_eq!(server.requests().connections, 1);
}

#[test]
fn conditions_are_those_of_s3() {
    let (dir, server) = served(Faults::default());
    let tag = get(&server).header("ETag").to_owned();
    let is = |condition: &str| format!("{condition}: {tag}");
    let asked = |header: &str| ask(&server, ONE, &[header]).status;
    assert_eq!(asked(&is("If-Match")), 200);
    assert_eq!(asked("If-Match: \"other\", *"), 200);
    assert_eq!(asked("If-Match: \"other\""), 412);
    assert_eq!(asked(&is("If-None-Match")), 304);
    assert_eq!(asked("If-None-Match: \"other\""), 200);
    let range = |header: &str| ask(&server, ONE, &["Range: bytes=0-3", header]).status;
    assert_eq!(range(&is("If-Range")), 206);
    assert_eq!(range("If-Range: \"other\""), 200);

    let put = |key: &str, header: &str| {
        ask_with(&server, &format!("PUT /b/{key}"), &[header], b"new").status
    };
    assert_eq!(put("folder/one", "If-None-Match: *"), 412);
    assert_eq!(put("folder/one", "If-Match: \"other\""), 412);
    assert_eq!(put("deep/er/two", "If-Match: \"other\""), 404);
    assert_eq!(put("deep/er/two", "If-None-Match: *"), 200);
    assert_eq!(put("folder/one", &is("If-Match")), 200);
    assert_eq!(put("folder/one", &is("If-Match")), 412);
    assert_ne!(get(&server).header("ETag"), tag);
    assert!(dir.path().join("b/deep/er/two").is_file());

    server.set(Faults {
        new_etags: 1,
        ..Faults::default()
    });
    let changed = get(&server).header("ETag").to_owned();
    let listed = ask(&server, "GET /b?list-type=2", &[]);
    assert!(
        listed.text().contains(changed.trim_matches('"')),
        "{}",
        listed.text()
    );
}

#[test]
fn absent_objects_are_errors_of_s3() {
    let (_dir, server) = served(Faults::default());
    for (request, status, code) in [
        ("GET /b/none", 404, "NoSuchKey"),
        ("GET /b/folder", 404, "NoSuchKey"),
        ("GET /b/folder/one/none", 404, "NoSuchKey"),
        ("GET /b/../b/folder/one", 404, "NoSuchKey"),
        ("GET /none/folder/one", 404, "NoSuchBucket"),
        ("PUT /none/folder/one", 404, "NoSuchBucket"),
        ("GET /none?list-type=2", 404, "NoSuchBucket"),
        ("POST /b/folder/one", 501, "NotImplemented"),
        ("PATCH /b/folder/one", 501, "NotImplemented"),
        ("PUT /b/x?uploadId=77&partNumber=1", 404, "NoSuchKey"),
    ] {
        let answer = ask(&server, request, &[]);
        assert_eq!(answer.status, status, "{request}");
        assert!(
            answer.text().contains(&format!("<Code>{code}</Code>")),
            "{request}"
        );
    }
    assert_eq!(ask(&server, "HEAD /b/none", &[]).status, 404);
    assert_eq!(ask(&server, "DELETE /b/none", &[]).status, 204);
    assert_eq!(ask(&server, "DELETE /b/folder/one", &[]).status, 204);
    assert_eq!(get(&server).status, 404);
}

#[test]
fn signed_chunks_and_parts_are_put_together() {
    let (dir, server) = served(Faults::default());
    let chunks = b"5;chunk-signature=0a\r\nhello\r\n6;chunk-signature=0b\r\n world\r\n\
                   0;chunk-signature=0c\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    let signed = ["x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER"];
    assert_eq!(
        ask_with(&server, "PUT /b/a%20b+c", &signed, chunks).status,
        200
    );
    let stored = |key: &str| fs::read(dir.path().join("b").join(key)).expect("an object");
    assert_eq!(stored("a b+c"), b"hello world");

    let begun = ask(&server, "POST /b/parts?uploads", &[]);
    let (_, id) = begun.text().split_once("<UploadId>").expect("an id");
    let (id, _) = id.split_once('<').expect("an id");
    for (number, part) in [(2, "world"), (1, "hello ")] {
        let request = format!("PUT /b/parts?partNumber={number}&uploadId={id}");
        let sent = ask_with(&server, &request, &[], part.as_bytes());
        assert_eq!(sent.status, 200);
    }
    let parts = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part>\
                 <Part><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>";
    let end = format!("POST /b/parts?uploadId={id}");
    let ended = ask_with(&server, &end, &[], parts.as_bytes());
    assert!(ended.text().contains("<CompleteMultipartUploadResult>"));
    assert_eq!(stored("parts"), b"hello world");
    assert_eq!(ask_with(&server, &end, &[], parts.as_bytes()).status, 404);

    let copied = ask(&server, "PUT /b/copy", &["x-amz-copy-source: /b/a%20b%2Bc"]);
    assert_eq!(copied.status, 200);
    assert_eq!(stored("copy"), b"hello world");
    let keys = b"<Delete><Object><Key>copy</Key></Object></Delete>";
    assert_eq!(ask_with(&server, "POST /b?delete", &[], keys).status, 200);
    assert_eq!(ask(&server, "GET /b/copy", &[]).status, 404);
    drop(server);
    let left = fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(left, 1, "what was incoming is removed");
}

#[test]
fn listings_have_pages_and_folders() {
    let (dir, server) = served(Faults::default());
    for number in 0..2100 {
        fs::write(dir.path().join(format!("b/folder/{number:04}")), b"").expect("an object");
    }
    fs::write(dir.path().join("b/a & b"), b"1").expect("an object");
    let (mut pages, mut keys, mut token) = (0, 0, String::new());
    loop {
        let query = format!("prefix=folder/&continuation-token={}", encoded(&token));
        let page = ask(&server, &format!("GET /b?list-type=2&{query}"), &[]);
        pages += 1;
        keys += page.text().matches("<Key>folder/").count();
        let next = page.text().split_once("<NextContinuationToken>");
        let Some((_, next)) = next else { break };
        token = next.split_once('<').expect("a token").0.to_owned();
    }
    assert_eq!((pages, keys), (3, 2101));
    let top = ask(&server, "GET /b?list-type=2&delimiter=%2F&prefix=", &[]);
    assert_eq!(top.text().matches("<CommonPrefixes>").count(), 1);
    assert!(
        top.text()
            .contains("<Prefix>folder/</Prefix></CommonPrefixes>")
    );
    assert!(top.text().contains("<Key>a &amp; b</Key>"));
    assert!(top.text().contains("<Size>1</Size>"));
    let in_url = ask(
        &server,
        "GET /b?list-type=2&prefix=a&encoding-type=url",
        &[],
    );
    assert!(in_url.text().contains("<Key>a%20%26%20b</Key>"));
    assert_eq!(ask(&server, "HEAD /b", &[]).status, 200);
    assert_eq!(ask(&server, "HEAD /none", &[]).status, 404);
}

#[test]
fn faults_come_as_asked() {
    let all = content(3_000_000);
    let (_dir, server) = served(Faults {
        error_every: Some((3, 503)),
        ..Faults::default()
    });
    let statuses: Vec<u16> = (0..6).map(|_| get(&server).status).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503]);

    server.set(Faults {
        short_every: Some(2),
        wrong_every: Some(3),
        ..Faults::default()
    });
    let bodies: Vec<Vec<u8>> = (0..3).map(|_| get(&server).body).collect();
    assert_eq!(
        (&bodies[0][..], &bodies[1][..]),
        (&all[..], &all[..1_500_000])
    );
    let wrong: Vec<usize> = (0..all.len())
        .filter(|&at| bodies[2][at] != all[at])
        .collect();
    assert_eq!(wrong, [1_500_000]);

    server.set(Faults {
        deny: true,
        only: Some("one".to_owned()),
        ..Faults::default()
    });
    assert_eq!(get(&server).status, 403);
    assert_eq!(ask(&server, "GET /b/two", &[]).status, 404);

    server.set(Faults {
        away: true,
        ..Faults::default()
    });
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
    server.set(Faults::default());
    assert_eq!(get(&server).body, all);
}

#[test]
fn delays_of_connections_do_not_add_up() {
    let delay = Duration::from_millis(300);
    let (_dir, server) = served(Faults {
        delay,
        ..Faults::default()
    });
    let start = Instant::now();
    std::thread::scope(|scope| {
        (0..128).for_each(|_| {
            scope.spawn(|| assert_eq!(ask(&server, "HEAD /b/folder/one", &[]).status, 200));
        });
    });
    let took = start.elapsed();
    assert!((delay..10 * delay).contains(&took), "{took:?}");
    assert!(server.requests().at_once > 64);

    server.set(Faults {
        bytes_per_second: Some(6_000_000),
        ..Faults::default()
    });
    let start = Instant::now();
    std::thread::scope(|scope| {
        (0..2).for_each(|_| {
            scope.spawn(|| assert_eq!(get(&server).body.len(), 3_000_000));
        });
    });
    let took = start.elapsed().as_secs_f64();
    assert!((0.9..4.0).contains(&took), "{took}");
}

#[test]
fn a_server_stops_while_a_body_stalls() {
    let (_dir, server) = served(Faults {
        stall_every: Some(1),
        ..Faults::default()
    });
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    send(&mut stream, ONE, &[], b"");
    let wait = Some(Duration::from_millis(300));
    stream.set_read_timeout(wait).expect("a limit");
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).expect_err("a stall");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(
        (1_500_000..1_501_000).contains(&answer.len()),
        "{}",
        answer.len()
    );
    drop(server);
    assert!(
        stream.read_to_end(&mut answer).is_ok(),
        "the connection ends"
    );
}

#[test]
fn texts_are_as_http_has_them() {
    let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(iso_date(time), "1994-11-06T08:49:37.000Z");
    let leap = UNIX_EPOCH + Duration::from_secs(951_782_400);
    assert_eq!(http_date(leap), "Tue, 29 Feb 2000 00:00:00 GMT");
    assert_eq!(http_date(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    let text = "a b+ü/%&<>";
    assert_eq!(decoded(&encoded(text), true), text);
    assert_eq!(decoded("100%", false), "100%");
}
