//! Single objects, and lists of them.

use super::client::{Client, identity, meta, path, version};
use super::error::{Operation, StoreError};
use super::failure::Failed;
use super::runtime::{Pending, block, persist, spawn};
use super::url::Url;
use bytes::Bytes;
use object_store::list::PaginatedListOptions;
use object_store::{GetOptions, GetRange, ObjectStoreExt, PutMode, PutOptions};
use std::collections::HashSet;
use std::ops::Range;
use tokio::sync::Semaphore;

/// At most so many of [`start_read`] run at a time.
pub const MAX_REQUESTS: usize = 128;

static PERMITS: Semaphore = Semaphore::const_new(MAX_REQUESTS);

/// What a store knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub url: Url,
    /// Its size.
    pub bytes: u64,
    /// What tells this content from others of the same name, to be given back as it is. Some web
    /// servers have none.
    pub etag: Option<String>,
    /// Time of its last modification in nanoseconds since 1970; 0 if it is not known.
    pub modified_ns: i64,
}

/// Bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The bytes.
    pub bytes: Bytes,
    /// As [`ObjectMeta::etag`].
    pub etag: Option<String>,
}

/// Asks for the size and the ETag of an object.
///
/// # Errors
/// When there is none, or the store cannot be reached.
pub fn head(url: &Url) -> Result<ObjectMeta, StoreError> {
    let client = Client::of(url)?;
    let url = url.clone();
    block(async move { head_async(&client, &url).await })
}

pub(super) async fn head_async(client: &Client, url: &Url) -> Result<ObjectMeta, StoreError> {
    let attempt = || async {
        let location = path(url)?;
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match client.objects().get_opts(&location, options).await {
            Ok(result) => Ok(meta(url.clone(), &result.meta)),
            Err(error) if url.scheme().is_web() => Err(error.into()),
            // The answer has no body, which would tell a missing bucket from a missing object.
            Err(error) => match fetch(client, url, Some(0..1), None).await {
                Err(Failed::Final(_)) => Err(Failed::Store(error)),
                Ok(_) => Err(Failed::Passed(error.to_string())),
                Err(failed) => Err(failed),
            },
        }
    };
    persist(url, Operation::Read, attempt).await.0
}

/// Lists all objects below `url` and a slash, in the order of the bytes of their keys.
///
/// # Errors
/// When the store cannot be reached or does not allow it; web servers cannot be listed.
pub fn list(url: &Url) -> Result<Vec<ObjectMeta>, StoreError> {
    let client = Client::of(url)?;
    let prefix = match url.key() {
        "" => String::new(),
        key => format!("{key}/"),
    };
    let root = url.clone();
    let unlistable = || StoreError::Unlistable {
        url: root.to_string(),
    };
    if client.pages().is_none() {
        return Err(unlistable());
    }
    let url = url.clone();
    let mut found = block(async move {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let attempt = || async {
                let Some(pages) = client.pages() else {
                    return Err(StoreError::other(&url, "not listable").into());
                };
                let options = PaginatedListOptions {
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                let prefix = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
                Ok(pages.list_paginated(prefix, options).await?)
            };
            let page = persist(&url, Operation::List, attempt).await.0?;
            found.extend(page.result.objects.iter().filter_map(|object| {
                let key: &str = object.location.as_ref();
                key.starts_with(&prefix)
                    .then(|| meta(url.with_key(key), object))
            }));
            token = page.page_token;
            if token.is_none() {
                return Ok(found);
            }
        }
    })?;
    found.sort_by(|a, b| a.url.key().cmp(b.url.key()));
    remove_folders(&mut found);
    Ok(found)
}

/// Removes the empty objects that consoles make for folders. Their keys end in a slash, which
/// object_store takes away.
fn remove_folders(found: &mut Vec<ObjectMeta>) {
    let mut parents = HashSet::new();
    for object in &*found {
        let mut key = object.url.key();
        while let Some((parent, _)) = key.rsplit_once('/') {
            if !parents.insert(parent.to_owned()) {
                break;
            }
            key = parent;
        }
    }
    found.retain(|object| object.bytes > 0 || !parents.contains(object.url.key()));
}

/// Reads a whole object.
///
/// # Errors
/// When there is none, or the store cannot be reached.
pub fn read(url: &Url) -> Result<Contents, StoreError> {
    read_some(url, None, None)
}

/// Reads `range` of an object, of the content that has the ETag `etag` if that is given.
///
/// # Errors
/// When the object ends before the range does, has another ETag ([`StoreError::Changed`]), or
/// cannot be read.
pub fn read_range(
    url: &Url,
    range: Range<u64>,
    etag: Option<&str>,
) -> Result<Contents, StoreError> {
    read_some(url, Some(range), etag)
}

fn read_some(
    url: &Url,
    range: Option<Range<u64>>,
    etag: Option<&str>,
) -> Result<Contents, StoreError> {
    let client = Client::of(url)?;
    let (url, etag) = (url.clone(), etag.map(str::to_owned));
    block(async move { read_async(&client, &url, range, etag.as_deref()).await })
}

pub(super) async fn read_async(
    client: &Client,
    url: &Url,
    range: Option<Range<u64>>,
    etag: Option<&str>,
) -> Result<Contents, StoreError> {
    // Stores take no empty ranges.
    if range.as_ref().is_some_and(Range::is_empty) {
        return Ok(Contents {
            bytes: Bytes::new(),
            etag: etag.map(str::to_owned),
        });
    }
    let attempt = || fetch(client, url, range.clone(), etag);
    persist(url, Operation::Read, attempt).await.0
}

/// One attempt.
async fn fetch(
    client: &Client,
    url: &Url,
    range: Option<Range<u64>>,
    etag: Option<&str>,
) -> Result<Contents, Failed> {
    let end = range.as_ref().map(|range| range.end);
    let options = GetOptions {
        range: range.map(GetRange::Bounded),
        ..GetOptions::default()
    };
    let result = client.get(url, etag, options).await?;
    let (size, etag) = (result.meta.size, identity(url, &result.meta));
    // object_store cuts ranges off at the end of the object.
    if end.is_some_and(|end| end > size) {
        let reason = format!("the object has only {size} bytes: a range beyond it was to be read");
        return Err(StoreError::other(url, reason).into());
    }
    let wanted = result.range.end - result.range.start;
    let bytes = result.bytes().await?;
    match bytes.len() as u64 {
        got if got == wanted => Ok(Contents { bytes, etag }),
        got => Err(Failed::Length { got, wanted }),
    }
}

/// Starts reading a range; `done` is called with its bytes on the store's thread, which it must
/// not hold up. At most [`MAX_REQUESTS`] run at a time, first come first served. Dropping the
/// returned handle cancels it: `done` is then dropped, too, unless it was called already.
///
/// The first call for a bucket looks for credentials, which can take a second.
pub fn start_read(
    url: Url,
    range: Range<u64>,
    etag: Option<String>,
    done: impl FnOnce(Result<Contents, StoreError>) + Send + 'static,
) -> Result<Pending, StoreError> {
    let client = Client::of(&url)?;
    spawn(async move {
        // It is never closed.
        let permit = PERMITS.acquire().await.ok();
        let result = read_async(&client, &url, Some(range), etag.as_deref()).await;
        drop(permit);
        done(result);
    })
}

/// Writes an object if there is none of this name. Returns its ETag.
///
/// # Errors
/// [`StoreError::Exists`] if there is one; when the store cannot be reached.
pub fn create(url: &Url, bytes: Bytes) -> Result<Option<String>, StoreError> {
    put_once(url, bytes, PutMode::Create)
}

/// Writes an object, whatever was there.
///
/// # Errors
/// When the store cannot be reached.
pub fn overwrite(url: &Url, bytes: Bytes) -> Result<(), StoreError> {
    put(url, bytes, PutMode::Overwrite)?.0.map(drop)
}

/// Writes an object, over the content that has the ETag `expected` if that is given. Returns the
/// new ETag.
///
/// # Errors
/// [`StoreError::Changed`] if the object is another or was deleted; when the store cannot be
/// reached.
pub fn replace(
    url: &Url,
    bytes: Bytes,
    expected: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let mode = match expected {
        Some(expected) => PutMode::Update(version(url, expected)),
        None => PutMode::Overwrite,
    };
    put_once(url, bytes, mode)
}

/// Writes an object under a condition, which it may itself have broken: the answer to an earlier
/// attempt may have been lost.
fn put_once(url: &Url, bytes: Bytes, mode: PutMode) -> Result<Option<String>, StoreError> {
    let (result, attempts) = put(url, bytes.clone(), mode)?;
    match result {
        Err(StoreError::Exists { .. } | StoreError::Changed { .. }) if attempts > 1 => {
            let found = read(url)?;
            match found.bytes == bytes {
                true => Ok(found.etag),
                false => result,
            }
        }
        result => result,
    }
}

/// Returns the ETag, and the number of attempts.
fn put(
    url: &Url,
    bytes: Bytes,
    mode: PutMode,
) -> Result<(Result<Option<String>, StoreError>, u32), StoreError> {
    let client = Client::of(url)?;
    check_writable(url)?;
    let operation = match mode {
        PutMode::Create => Operation::Create,
        _ => Operation::Write,
    };
    let must_exist = matches!(mode, PutMode::Update(_));
    let url = url.clone();
    block(async move {
        let attempt = || async {
            let options = PutOptions::from(mode.clone());
            let payload = bytes.clone().into();
            let location = path(&url)?;
            let result = client
                .objects()
                .put_opts(&location, payload, options)
                .await?;
            let written = object_store::ObjectMeta {
                location,
                last_modified: Default::default(),
                size: bytes.len() as u64,
                e_tag: result.e_tag,
                version: result.version,
            };
            Ok(identity(&url, &written))
        };
        let (result, attempts) = persist(&url, operation, attempt).await;
        let result = match result {
            Err(StoreError::NotFound { url }) if must_exist => Err(StoreError::Changed { url }),
            result => result,
        };
        Ok((result, attempts))
    })
}

/// Deletes an object; it need not exist.
///
/// # Errors
/// When the store cannot be reached or does not allow it.
pub fn delete(url: &Url) -> Result<(), StoreError> {
    let client = Client::of(url)?;
    check_writable(url)?;
    let url = url.clone();
    block(async move {
        let attempt = || async { Ok(client.objects().delete(&path(&url)?).await?) };
        match persist(&url, Operation::Delete, attempt).await.0 {
            Err(StoreError::NotFound { .. }) => Ok(()),
            result => result,
        }
    })
}

/// Web servers are only read from.
pub(super) fn check_writable(url: &Url) -> Result<(), StoreError> {
    match (url.scheme().is_web(), url.key()) {
        (true, _) => {
            let reason = "a web server cannot be written to; use s3://, gs:// or az://";
            Err(StoreError::other(url, reason))
        }
        (false, "") => Err(StoreError::other(url, "the name of the object is missing")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_objects_that_stand_for_folders_are_not_listed() {
        let object = |key: &str, bytes| ObjectMeta {
            url: Url::parse(&format!("s3://bucket/{key}")).expect("a URL"),
            bytes,
            etag: None,
            modified_ns: 0,
        };
        let mut found = vec![
            object("a", 0),
            object("a/b", 3),
            object("a/b/c", 1),
            object("empty", 0),
        ];
        remove_folders(&mut found);
        let keys: Vec<&str> = found.iter().map(|object| object.url.key()).collect();
        assert_eq!(keys, ["a/b", "a/b/c", "empty"]);
    }
}
