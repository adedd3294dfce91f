//! Copies objects into files.

use super::client::Client;
use super::error::{Operation, StoreError};
use super::failure::Failed;
use super::objects::{ObjectMeta, head, read_async};
use super::runtime::{check_stop, persist, spawn, wait, windowed};
use super::url::Url;
use futures_util::StreamExt;
use object_store::GetOptions;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;

/// Bytes of one request.
const RANGE_BYTES: u64 = 8 << 20;

/// Copies an object into `file`, from its start, and returns its size. `progress` is called with
/// the number of bytes so far, and can end the copy. All bytes are of one content: that of `known`,
/// as the object was listed, if it is given.
///
/// # Errors
/// [`StoreError::Changed`] if the object has another ETag; when it cannot be read or the file not
/// be written.
pub fn download(
    url: &Url,
    known: Option<&ObjectMeta>,
    file: &File,
    progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<u64, StoreError> {
    let meta = match known {
        Some(known) => known.clone(),
        None => head(url)?,
    };
    let mut got = 0;
    let pinned = meta.etag.as_deref();
    let result = each_range(url, meta.bytes, pinned, |range, bytes| {
        file.write_all_at(bytes, range.start)?;
        got += bytes.len() as u64;
        progress(got)
    });
    match result {
        Err(StoreError::NoRanges { .. }) if got == 0 => {
            stream(url, meta.bytes, meta.etag, file, progress)?;
        }
        result => result?,
    }
    Ok(meta.bytes)
}

/// Reads an object of `size` bytes in ranges, several at a time; `take` gets them in any order.
pub(super) fn each_range(
    url: &Url,
    size: u64,
    etag: Option<&str>,
    mut take: impl FnMut(Range<u64>, &[u8]) -> io::Result<()>,
) -> Result<(), StoreError> {
    let client = Client::of(url)?;
    let range = |index: u64| index * RANGE_BYTES..((index + 1) * RANGE_BYTES).min(size);
    windowed(
        size.div_ceil(RANGE_BYTES),
        |index| {
            let (client, url) = (client.clone(), url.clone());
            let (range, etag) = (range(index), etag.map(str::to_owned));
            Ok(async move { read_async(&client, &url, Some(range), etag.as_deref()).await })
        },
        |index, contents| {
            take(range(index), &contents.bytes).map_err(|error| StoreError::io(url, error))
        },
    )
}

/// Reads an object in one request.
fn stream(
    url: &Url,
    size: u64,
    etag: Option<String>,
    file: &File,
    progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<(), StoreError> {
    let client = Client::of(url)?;
    let file = file
        .try_clone()
        .map_err(|error| StoreError::io(url, error))?;
    let got = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = sync_channel(1);
    let (counter, object) = (got.clone(), url.clone());
    let _pending = spawn(async move {
        let attempt = || async {
            let etag = etag.as_deref();
            let result = client.get(&object, etag, GetOptions::default()).await?;
            let mut stream = result.into_stream();
            let mut at = 0;
            while let Some(bytes) = stream.next().await {
                let bytes = bytes?;
                file.write_all_at(&bytes, at)
                    .map_err(|error| StoreError::io(&object, error))?;
                at += bytes.len() as u64;
                counter.store(at, Relaxed);
            }
            match at == size {
                true => Ok(()),
                false => Err(Failed::Length {
                    got: at,
                    wanted: size,
                }),
            }
        };
        let result = persist(&object, Operation::Read, attempt).await.0;
        // The caller may have given up.
        let _ = sender.send(result);
    })?;
    let mut look = || {
        check_stop()?;
        progress(got.load(Relaxed)).map_err(|error| StoreError::io(url, error))
    };
    wait(&receiver, &mut look)?;
    look()
}
