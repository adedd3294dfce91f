//! A web server whose answers each test chooses, byte by byte.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

pub struct Request {
    /// Counted over the whole server, from 0.
    pub number: usize,
    pub method: String,
    pub target: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The range that is asked for, of an object of `size` bytes.
    pub fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (start, end) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((
            start.parse().ok()?,
            (end.parse::<usize>().ok()? + 1).min(size),
        ))
    }
}

pub struct Server {
    pub address: String,
    pub requests: Arc<AtomicUsize>,
}

/// Serves until the process ends. `answer` returns whether the connection stays open.
pub fn serve(answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> Server {
    serve_on(TcpListener::bind("127.0.0.1:0").expect("a port"), answer)
}

pub fn serve_on(
    listener: TcpListener,
    answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Server {
    let address = listener.local_addr().expect("an address").to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (requests.clone(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (count, answer) = (count.clone(), answer.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
                let mut stream = stream;
                while let Some(request) = read_request(&mut reader, &count) {
                    if !answer(&request, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    Server { address, requests }
}

fn read_request(reader: &mut impl BufRead, count: &AtomicUsize) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None => break,
        }
    }
    let mut request = Request {
        number: count.fetch_add(1, SeqCst),
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let bytes = request
        .header("content-length")
        .map_or(0, |text| text.parse().expect("bytes"));
    request.body = vec![0; bytes];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

pub fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
}

/// Answers as a well-behaved server does that holds `object`.
pub fn object(request: &Request, stream: &mut TcpStream, object: &[u8], etag: &str) -> bool {
    if request
        .header("if-match")
        .is_some_and(|wanted| wanted != etag)
    {
        return send(stream, "412 Precondition Failed", "", b"");
    }
    let headers = format!("etag: {etag}\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n");
    match request.range(object.len()) {
        _ if request.method == "HEAD" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n",
                object.len()
            );
            stream.write_all(head.as_bytes()).is_ok()
        }
        Some((start, end)) => {
            let range = format!(
                "content-range: bytes {start}-{}/{}\r\n",
                end - 1,
                object.len()
            );
            send(
                stream,
                "206 Partial Content",
                &(headers + &range),
                &object[start..end],
            )
        }
        None => send(stream, "200 OK", &headers, object),
    }
}

/// Ends a connection by a reset: unread bytes and no lingering.
pub fn reset(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the socket is open, and the option is one `linger`.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

static ENVIRONMENT: Mutex<()> = Mutex::new(());

/// Sets environment variables for as long as the guard lives: tests that do take turns.
pub fn environment(variables: &[(&str, &str)]) -> MutexGuard<'static, ()> {
    let guard = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let base = [
        ("HOME", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("STORE_STALL_SECONDS", "1"),
        ("STORE_RETRY_SECONDS", "20"),
        ("AWS_PROFILE", ""),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_ENDPOINT_URL", ""),
        ("AWS_SKIP_SIGNATURE", ""),
        ("AWS_SHARED_CREDENTIALS_FILE", ""),
    ];
    for (name, value) in base.iter().chain(variables) {
        // SAFETY: other threads only read variables by std, which locks them.
        unsafe { std::env::set_var(name, value) };
    }
    pipeline::store::stop_when(Arc::default());
    guard
}
