//! Objects: files in folders, with the conditions and the answers of S3.

use super::Faults;
use super::http::{Body, Request, Response, decoded, escaped, http_date, invalid, unescaped};
use super::listing;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// The folders served, and a folder for what is on its way into them.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// In `dir`, so that a rename takes a whole object to its place.
    incoming: PathBuf,
    files: AtomicU64,
    /// Held from the check of a condition to the rename that depends on it.
    writing: Mutex<()>,
}

/// The body of a request.
pub enum Received {
    /// Of `PUT`: a file of [`Store::incoming`].
    File(Incoming),
    /// Of all others.
    Bytes(Vec<u8>),
}

/// A file that is removed unless it has been renamed.
pub struct Incoming(PathBuf);

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The code that S3 gives to errors of a status.
pub fn code(status: u16) -> &'static str {
    match status {
        400 => "InvalidRequest",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        416 => "InvalidRange",
        429 | 503 => "SlowDown",
        501 => "NotImplemented",
        _ => "InternalError",
    }
}

/// The ETag of a file: another one after each write.
pub fn etag(file: &Metadata, new_etags: u64) -> String {
    let written = file.mtime() as u64 * 1_000_000_000 + file.mtime_nsec() as u64;
    // Not the 32 digits of an MD5, with which some clients would compare the object.
    let tag = format!("{:x}-{written:x}-{:x}", file.len(), file.ino());
    match new_etags {
        0 => format!("\"{tag}\""),
        number => format!("\"{tag}-{number:x}\""),
    }
}

fn names(condition: &str, etag: &str) -> bool {
    let mut tags = condition.split(',').map(str::trim);
    tags.any(|tag| {
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == etag.trim_matches('"')
    })
}

/// The bytes that `Range` asks for: None for all of them, an error if there are none.
fn range(header: Option<&str>, length: u64) -> Result<Option<Range<u64>>, ()> {
    // A server may ignore ranges that it does not understand, and sends everything then.
    let Some((first, last)) = header
        .and_then(|header| header.strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..length,
        (Err(_), Ok(last)) if first.trim().is_empty() => length.saturating_sub(last)..length,
        _ => return Ok(None),
    };
    if range.is_empty() {
        Err(())
    } else {
        Ok(Some(range))
    }
}

impl Store {
    /// The folders in `dir`.
    pub fn new(dir: &Path) -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: dir.to_owned(),
            incoming: dir.join(format!(".object-server-{}-{number}", process::id())),
            files: AtomicU64::new(0),
            writing: Mutex::new(()),
        }
    }

    /// Removes what was on its way, once nothing more comes.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.incoming);
    }

    fn incoming(&self) -> io::Result<Incoming> {
        fs::create_dir_all(&self.incoming)?;
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        Ok(Incoming(self.incoming.join(number.to_string())))
    }

    /// Reads the body of a request to its end.
    pub fn receive(&self, request: &Request, from: &mut impl BufRead) -> io::Result<Received> {
        if request.method != "PUT" {
            let mut bytes = Vec::new();
            request.copy_body(from, &mut bytes)?;
            return Ok(Received::Bytes(bytes));
        }
        let incoming = self.incoming()?;
        request.copy_body(from, &mut File::create(&incoming.0)?)?;
        Ok(Received::File(incoming))
    }

    /// Does what a request asks for.
    pub fn respond(&self, request: &Request, received: Received, faults: &Faults) -> Response {
        let response = match (request.method.as_str(), received) {
            ("GET" | "HEAD", _) if request.key.is_empty() => self.bucket(request, faults),
            ("GET" | "HEAD", _) => self.get(request, faults),
            ("PUT", Received::File(_)) if request.key.is_empty() => self.create(request),
            ("PUT", Received::File(body)) => self.put(request, body, faults),
            ("POST", Received::Bytes(body)) => self.post(request, &body, faults),
            ("DELETE", _) if !request.key.is_empty() => self.delete(request),
            _ => Ok(Response::error(501, code(501), request)),
        };
        response.unwrap_or_else(|error| {
            let status = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 404,
                io::ErrorKind::PermissionDenied => 403,
                io::ErrorKind::InvalidData => 400,
                _ => 500,
            };
            let has_bucket = bucket(&self.dir, &request.bucket).is_ok_and(|dir| dir.is_dir());
            match status {
                404 if !has_bucket => Response::error(404, "NoSuchBucket", request),
                _ => Response::error(status, code(status), request),
            }
        })
    }

    /// The file of an object, whether it exists or not.
    fn file(&self, request: &Request, key: &str) -> io::Result<PathBuf> {
        let outside = |part: &str| part.is_empty() || part == "." || part == "..";
        if key.split('/').any(outside) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(bucket(&self.dir, &request.bucket)?.join(key))
    }

    fn bucket(&self, request: &Request, faults: &Faults) -> io::Result<Response> {
        let dir = bucket(&self.dir, &request.bucket)?;
        if !fs::metadata(&dir)?.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if request.method == "HEAD" {
            return Ok(Response::new(200).with("x-amz-bucket-region", "us-east-1"));
        }
        if request.parameter("location").is_some() {
            return Ok(Response::xml(200, "<LocationConstraint/>"));
        }
        listing::list(&dir, request, faults)
    }

    fn create(&self, request: &Request) -> io::Result<Response> {
        fs::create_dir_all(bucket(&self.dir, &request.bucket)?)?;
        Ok(Response::new(200))
    }

    fn get(&self, request: &Request, faults: &Faults) -> io::Result<Response> {
        let mut file = File::open(self.file(request, &request.key)?)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let length = metadata.len();
        let etag = etag(&metadata, faults.etag(&request.key));
        let is = |name: &str| {
            request
                .header(name)
                .map(|condition| names(condition, &etag))
        };
        if is("if-match") == Some(false) {
            return Ok(Response::error(412, code(412), request));
        }
        if is("if-none-match") == Some(true) {
            return Ok(Response::new(304).with("ETag", etag));
        }
        let asked = request.header("range");
        // What has changed is sent anew.
        let asked = asked.filter(|_| is("if-range") != Some(false));
        let Ok(range) = range(asked, length) else {
            return Ok(Response::error(416, code(416), request)
                .with("Content-Range", format!("bytes */{length}")));
        };
        let mut response = Response::new(if range.is_some() { 206 } else { 200 })
            .with("ETag", etag)
            .with(
                "Last-Modified",
                http_date(metadata.modified().unwrap_or(UNIX_EPOCH)),
            )
            .with("Accept-Ranges", "bytes")
            .with("Content-Type", "application/octet-stream");
        if let Some(Range { start, end }) = range {
            let last = end - 1;
            response = response.with("Content-Range", format!("bytes {start}-{last}/{length}"));
        }
        let Range { start, end } = range.unwrap_or(0..length);
        file.seek(SeekFrom::Start(start))?;
        response.body = Body::Object {
            file,
            length: end - start,
        };
        Ok(response)
    }

    fn put(&self, request: &Request, body: Incoming, faults: &Faults) -> io::Result<Response> {
        if let Some(upload) = request.parameter("uploadId") {
            let number = part_number(request.parameter("partNumber").unwrap_or_default())?;
            let etag = etag(&fs::metadata(&body.0)?, 0);
            fs::rename(&body.0, self.upload(upload)?.join(number))?;
            return Ok(Response::new(200).with("ETag", etag));
        }
        let Some(source) = request.header("x-amz-copy-source") else {
            return self.place(request, &body, faults);
        };
        let source = decoded(source.trim_start_matches('/'), false);
        let (of, key) = source.split_once('/').unwrap_or((&source, ""));
        fs::copy(bucket(&self.dir, of)?.join(key), &body.0)?;
        let response = self.place(request, &body, faults)?;
        if response.status != 200 {
            return Ok(response);
        }
        self.written(request, faults, "CopyObjectResult")
    }

    /// Renames a whole object to its place, if the conditions of the request hold.
    fn place(&self, request: &Request, body: &Incoming, faults: &Faults) -> io::Result<Response> {
        let path = self.file(request, &request.key)?;
        let tag = |path: &Path| -> io::Result<String> {
            Ok(etag(&fs::metadata(path)?, faults.etag(&request.key)))
        };
        fs::metadata(bucket(&self.dir, &request.bucket)?)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = tag(&path).ok();
        let is = |name| {
            let condition = request.header(name);
            condition.map(|condition| present.as_ref().is_some_and(|tag| names(condition, tag)))
        };
        if is("if-match") == Some(false) && present.is_none() {
            return Ok(Response::error(404, code(404), request));
        }
        if is("if-match") == Some(false) || is("if-none-match") == Some(true) {
            return Ok(Response::error(412, code(412), request));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&body.0, &path)?;
        Ok(Response::new(200).with("ETag", tag(&path)?))
    }

    /// XML about an object that has been written.
    fn written(&self, request: &Request, faults: &Faults, name: &str) -> io::Result<Response> {
        let metadata = fs::metadata(self.file(request, &request.key)?)?;
        let etag = escaped(&etag(&metadata, faults.etag(&request.key)));
        let modified = super::http::iso_date(metadata.modified()?);
        let key = escaped(&request.key);
        let bucket = &request.bucket;
        Ok(Response::xml(
            200,
            &format!(
                "<{name}><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>\
                 <LastModified>{modified}</LastModified></{name}>"
            ),
        ))
    }

    fn upload(&self, id: &str) -> io::Result<PathBuf> {
        let number: u64 = id.parse().map_err(|_| io::ErrorKind::NotFound)?;
        let dir = self.incoming.join(format!("upload-{number}"));
        fs::metadata(&dir)?;
        Ok(dir)
    }

    fn post(&self, request: &Request, body: &[u8], faults: &Faults) -> io::Result<Response> {
        let text = String::from_utf8_lossy(body);
        if request.parameter("delete").is_some() {
            let keys = elements(&text, "Key");
            let mut deleted = String::new();
            for key in keys.map(unescaped) {
                remove(&self.file(request, &key)?)?;
                deleted += &format!("<Deleted><Key>{}</Key></Deleted>", escaped(&key));
            }
            let deleted = format!("<DeleteResult>{deleted}</DeleteResult>");
            return Ok(Response::xml(200, &deleted));
        }
        self.file(request, &request.key)?;
        if request.parameter("uploads").is_some() {
            let number = self.files.fetch_add(1, Ordering::Relaxed);
            fs::create_dir_all(self.incoming.join(format!("upload-{number}")))?;
            let (bucket, key) = (&request.bucket, escaped(&request.key));
            return Ok(Response::xml(
                200,
                &format!(
                    "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>\
                     <UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
                ),
            ));
        }
        let Some(id) = request.parameter("uploadId") else {
            return Ok(Response::error(501, code(501), request));
        };
        let parts = self.upload(id)?;
        let whole = self.incoming()?;
        let mut to = File::create(&whole.0)?;
        for number in elements(&text, "PartNumber") {
            let part = parts.join(part_number(number)?);
            io::copy(&mut File::open(part)?, &mut to)?;
        }
        let response = self.place(request, &whole, faults)?;
        if response.status != 200 {
            return Ok(response);
        }
        fs::remove_dir_all(parts)?;
        self.written(request, faults, "CompleteMultipartUploadResult")
    }

    fn delete(&self, request: &Request) -> io::Result<Response> {
        match request.parameter("uploadId") {
            Some(id) => fs::remove_dir_all(self.upload(id)?)?,
            None => remove(&self.file(request, &request.key)?)?,
        }
        Ok(Response::new(204))
    }
}

/// The folder of a bucket, whether it exists or not.
fn bucket(dir: &Path, name: &str) -> io::Result<PathBuf> {
    // Names with a dot in front are not buckets: the folder of what is incoming has one.
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(dir.join(name))
}

/// Removes an object; no error if there is none.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name of a part's file.
fn part_number(text: &str) -> io::Result<String> {
    let number: u32 = text
        .trim()
        .parse()
        .map_err(|_| invalid("no number of a part"))?;
    Ok(number.to_string())
}

/// The texts of all elements of this name.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (text, after) = after.split_once(&end)?;
        rest = after;
        Some(text)
    })
}
