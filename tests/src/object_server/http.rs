//! Requests and responses of HTTP/1.1, as far as clients of object stores use it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest head of a request.
const HEAD_BYTES: u64 = 64 << 10;

/// A request, without its body.
pub struct Request {
    /// `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
    pub method: String,
    /// First component of the path.
    pub bucket: String,
    /// The rest of the path. Empty if the request is about the bucket.
    pub key: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    /// Whether the client may send another request.
    pub keep_alive: bool,
}

impl Request {
    /// Reads the head of a request; None where the client has closed the connection.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut from = from.take(HEAD_BYTES);
        let mut line = String::new();
        // Empty lines between requests are to be skipped.
        while line.is_empty() {
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            line.truncate(line.trim_end().len());
        }
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(invalid("the first line is no request"));
        };
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            if from.read_line(&mut header)? == 0 {
                return Err(invalid("the head does not end"));
            }
            let header = header.trim_end();
            if header.is_empty() {
                break;
            }
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| invalid("a header without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = decoded(path, false);
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = query.split('&').filter(|pair| !pair.is_empty());
        let mut request = Self {
            method: method.to_owned(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            query: query
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name, true), decoded(value, true))
                })
                .collect(),
            headers,
            keep_alive: false,
        };
        request.keep_alive = match request.header("connection") {
            Some(value) if value.eq_ignore_ascii_case("close") => false,
            Some(value) if value.eq_ignore_ascii_case("keep-alive") => true,
            _ => version == "HTTP/1.1",
        };
        Ok(Some(request))
    }

    /// A header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter of the query; the empty text where it has no value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut query = self.query.iter();
        query
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the client waits to be told that its body is welcome.
    pub fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Copies the body of the request, to its last byte, and takes it out of the chunks in which
    /// HTTP and signed uploads send it.
    pub fn copy_body(&self, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
        let has = |name, part| {
            self.header(name)
                .is_some_and(|value| value.to_ascii_lowercase().contains(part))
        };
        let signed =
            has("x-amz-content-sha256", "streaming-") || has("content-encoding", "aws-chunked");
        if has("transfer-encoding", "chunked") {
            if !signed {
                return copy_chunks(from, to);
            }
            // Hardly a client sends chunks in chunks, and those that do send small ones.
            let mut chunks = Vec::new();
            copy_chunks(from, &mut chunks)?;
            return copy_chunks(&mut chunks.as_slice(), to);
        }
        let length = match self.header("content-length") {
            Some(length) => length
                .parse()
                .map_err(|_| invalid("Content-Length is no number"))?,
            None => 0,
        };
        let mut body = from.take(length);
        if signed {
            copy_chunks(&mut body, to)?;
        } else {
            io::copy(&mut body, to)?;
        }
        io::copy(&mut body, &mut io::sink())?;
        if body.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Copies chunks of `LENGTH[;EXTENSION]\r\nDATA\r\n` up to the one of length 0 and the lines that
/// follow it.
fn copy_chunks(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = line.split(';').next().unwrap_or_default().trim();
        let length =
            u64::from_str_radix(length, 16).map_err(|_| invalid("no length of a chunk"))?;
        if length > 0 && io::copy(&mut from.take(length), to)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // After the last chunk come trailers, which end with an empty line.
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 || length > 0 || line.trim_end().is_empty() {
                break;
            }
        }
        if length == 0 {
            return Ok(());
        }
    }
}

/// A response before it is sent.
pub struct Response {
    /// Status code.
    pub status: u16,
    headers: Vec<(&'static str, String)>,
    /// What follows the head.
    pub body: Body,
}

/// The body of a response.
pub enum Body {
    /// Made by the server.
    Bytes(Vec<u8>),
    /// A range of an object.
    Object {
        /// The file, positioned at the start of the range.
        file: File,
        /// Bytes of the range.
        length: u64,
    },
}

impl Response {
    /// A response without body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Bytes(Vec::new()),
        }
    }

    /// A response with XML.
    pub fn xml(status: u16, content: &str) -> Self {
        let mut response = Self::new(status).with("Content-Type", "application/xml");
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{content}");
        response.body = Body::Bytes(text.into_bytes());
        response
    }

    /// An error, as S3 describes it.
    pub fn error(status: u16, code: &str, request: &Request) -> Self {
        let resource = escaped(&format!("/{}/{}", request.bucket, request.key));
        Self::xml(
            status,
            &format!(
                "<Error><Code>{code}</Code><Message>{code}</Message>\
                 <Resource>{resource}</Resource><RequestId>0</RequestId></Error>"
            ),
        )
    }

    /// The same with one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Object { length, .. } => *length,
        }
    }

    /// The head, to be sent before the body.
    pub fn head(&self, keep_alive: bool) -> String {
        let status = self.status;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        // A response of these must not have a body, and so no length.
        if status != 204 && status != 304 {
            let _ = write!(head, "Content-Length: {}\r\n", self.length());
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let date = http_date(SystemTime::now());
        let _ = write!(
            head,
            "Date: {date}\r\nServer: object-server\r\nConnection: {connection}\r\n\r\n"
        );
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// An error in what a client sent.
pub fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Text with its percent signs decoded, and with spaces for plus signs where `query`.
pub fn decoded(text: &str, query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| text_of(after.get(..2)?))
            .flatten()
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[2..];
            continue;
        }
        bytes.push(if query && first == b'+' { b' ' } else { first });
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// Text with all but letters, digits, `-_.~` and slashes as percent signs.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Text as it may stand in XML.
pub fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// Text out of XML.
pub fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

/// Year, month, day, seconds of the day, and day of the week from Sunday, all in UTC.
fn calendar(time: SystemTime) -> (u64, usize, u64, u64, usize) {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let days = seconds / 86400;
    // Years are counted from March, so the leap day is the last one.
    let of_era = (days + 719_468) % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (of_month, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12);
    let year = (days + 719_468) / 146_097 * 400 + year + u64::from(month < 2);
    let of_week = (days + 4) % 7;
    (
        year,
        month as usize,
        of_month,
        seconds % 86400,
        of_week as usize,
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day, seconds, of_week) = calendar(time);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (of_week, month) = (DAYS[of_week], MONTHS[month]);
    format!("{of_week}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `1994-11-06T08:49:37.000Z`.
pub fn iso_date(time: SystemTime) -> String {
    let (year, month, day, seconds, _) = calendar(time);
    let (month, hour, minute) = (month + 1, seconds / 3600, seconds / 60 % 60);
    let second = seconds % 60;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}
