//! Copies files into objects.

use super::client::{Client, path};
use super::download::each_range;
use super::error::{Operation, StoreError};
use super::objects::{ObjectMeta, check_writable, create, head};
use super::runtime::{block, persist, spawn, windowed};
use super::url::Url;
use bytes::Bytes;
use object_store::MultipartId;
use object_store::multipart::{MultipartStore, PartId};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Larger files are sent in parts of so many bytes.
const PART_BYTES: u64 = 16 << 20;

/// Stores take no more parts.
const MAX_PARTS: u64 = 10_000;

/// Time in which a failed upload is removed from the store.
const ABORT: Duration = Duration::from_secs(3);

/// Writes the file at `file` to an object. Returns whether it was written: false if it was there
/// already with equal bytes.
///
/// An upload in parts that fails is removed from the store, for which [`StoreError::Interrupted`]
/// is delayed by up to three seconds.
///
/// # Errors
/// [`StoreError::Exists`] if there is an object with other bytes; when the file cannot be read or
/// the store not be reached.
pub fn upload(url: &Url, file: &Path) -> Result<bool, StoreError> {
    check_writable(url)?;
    let failed = |error| file_error(url, file, error);
    let source = File::open(file).map_err(failed)?;
    let size = source.metadata().map_err(failed)?.len();
    if size <= PART_BYTES {
        let bytes = read_at(&source, 0, size).map_err(failed)?;
        return match create(url, bytes) {
            Ok(_) => Ok(true),
            Err(StoreError::Exists { .. }) => {
                check_equal(&head(url)?, &source, size, file).map(|()| false)
            }
            Err(error) => Err(error),
        };
    }
    let client = Client::of(url)?;
    // Both at a time: hardly ever is it there.
    let (id, found) = std::thread::scope(|scope| {
        let id = scope.spawn(|| begin(&client, url));
        let found = head(url);
        (id.join(), found)
    });
    let id = id.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if !matches!(found, Err(StoreError::NotFound { .. })) {
        if let Ok(id) = id {
            abort(&client, url, id);
        }
        return check_equal(&found?, &source, size, file).map(|()| false);
    }
    in_parts(&client, url, id?, &source, size, file)?;
    match head(url)?.bytes {
        found if found == size => Ok(true),
        found => {
            let reason = format!("{found} of {size} bytes are there after the upload; delete it");
            Err(StoreError::other(url, reason))
        }
    }
}

fn file_error(url: &Url, file: &Path, error: io::Error) -> StoreError {
    let named = io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    StoreError::io(url, named)
}

fn read_at(file: &File, start: u64, bytes: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut buffer, start)?;
    Ok(buffer.into())
}

/// Fails unless the object has the same bytes as the file.
fn check_equal(
    found: &ObjectMeta,
    source: &File,
    size: u64,
    file: &Path,
) -> Result<(), StoreError> {
    let url = &found.url;
    let exists = || StoreError::Exists {
        url: url.to_string(),
    };
    if found.bytes != size {
        return Err(exists());
    }
    let mut differs = false;
    let result = each_range(url, size, found.etag.as_deref(), |range, bytes| {
        let own = read_at(source, range.start, range.end - range.start).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.display()))
        })?;
        differs = own != bytes;
        match differs {
            // Ends the reading.
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        }
    });
    if differs { Err(exists()) } else { result }
}

fn in_parts(
    client: &Client,
    url: &Url,
    id: MultipartId,
    source: &File,
    size: u64,
    file: &Path,
) -> Result<(), StoreError> {
    let result = send_parts(client, url, &id, source, size, file)
        .and_then(|parts| complete(client, url, &id, parts));
    if result.is_err() {
        abort(client, url, id);
    }
    result
}

fn parts_of<'a>(client: &'a Client, url: &Url) -> Result<&'a dyn MultipartStore, StoreError> {
    client
        .parts()
        .ok_or_else(|| StoreError::other(url, "the store takes no uploads in parts"))
}

fn begin(client: &Client, url: &Url) -> Result<MultipartId, StoreError> {
    let (client, url) = (client.clone(), url.clone());
    block(async move {
        let attempt = || async {
            Ok(parts_of(&client, &url)?
                .create_multipart(&path(&url)?)
                .await?)
        };
        persist(&url, Operation::Write, attempt).await.0
    })
}

fn send_parts(
    client: &Client,
    url: &Url,
    id: &MultipartId,
    source: &File,
    size: u64,
    file: &Path,
) -> Result<Vec<PartId>, StoreError> {
    let part_bytes = PART_BYTES.max(size.div_ceil(MAX_PARTS));
    let mut parts = BTreeMap::new();
    windowed(
        size.div_ceil(part_bytes),
        |index| {
            let start = index * part_bytes;
            let bytes = read_at(source, start, part_bytes.min(size - start))
                .map_err(|error| file_error(url, file, error))?;
            let (client, url, id) = (client.clone(), url.clone(), id.clone());
            Ok(async move {
                let attempt = || async {
                    let store = parts_of(&client, &url)?;
                    let (location, payload) = (path(&url)?, bytes.clone().into());
                    Ok(store
                        .put_part(&location, &id, index as usize, payload)
                        .await?)
                };
                persist(&url, Operation::Write, attempt).await.0
            })
        },
        |index, part| {
            parts.insert(index, part);
            Ok(())
        },
    )?;
    Ok(parts.into_values().collect())
}

fn complete(
    client: &Client,
    url: &Url,
    id: &MultipartId,
    parts: Vec<PartId>,
) -> Result<(), StoreError> {
    let (client, url, id) = (client.clone(), url.clone(), id.clone());
    block(async move {
        let attempt = || async {
            let store = parts_of(&client, &url)?;
            Ok(store
                .complete_multipart(&path(&url)?, &id, parts.clone())
                .await?)
        };
        match persist(&url, Operation::Write, attempt).await {
            // The answer to an earlier attempt was lost; the size is checked afterwards.
            (Err(StoreError::NotFound { .. }), attempts) if attempts > 1 => Ok(()),
            (result, _) => result.map(drop),
        }
    })
}

/// Removes the parts, which cost money and are not listed.
fn abort(client: &Client, url: &Url, id: MultipartId) {
    let (client, url) = (client.clone(), url.clone());
    let (sender, receiver) = sync_channel(1);
    // Not by `block`, which does nothing after an interrupt.
    let pending = spawn(async move {
        let attempt = || async {
            Ok(parts_of(&client, &url)?
                .abort_multipart(&path(&url)?, &id)
                .await?)
        };
        let result = persist(&url, Operation::Delete, attempt).await.0;
        // The caller may have given up.
        let _ = sender.send(result);
    });
    // The first failure is the one to report.
    let _ = receiver.recv_timeout(ABORT);
    drop(pending);
}
