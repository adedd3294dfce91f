//! Listings of buckets.

use super::Faults;
use super::http::{Request, Response, decoded, encoded, escaped, iso_date};
use super::objects;
use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Most entries of a page.
const PAGE: usize = 1000;

/// A page of the keys in `dir`, in order: `ListObjectsV2`, and `ListObjects` where `list-type` is
/// missing.
pub fn list(dir: &Path, request: &Request, faults: &Faults) -> io::Result<Response> {
    let parameter = |name| request.parameter(name).unwrap_or_default();
    let second = parameter("list-type") == "2";
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let most = request
        .parameter("max-keys")
        .and_then(|most| most.parse().ok());
    let most = most.unwrap_or(PAGE).min(PAGE);
    let after = match request.parameter("continuation-token") {
        Some(token) => decoded(token, false),
        None if second => parameter("start-after").to_owned(),
        None => parameter("marker").to_owned(),
    };
    let mut keys = Vec::new();
    find(dir, "", prefix, &mut keys)?;
    keys.sort();

    let is_url = parameter("encoding-type") == "url";
    let shown = |text: &str| if is_url { encoded(text) } else { escaped(text) };
    let mut entries = String::new();
    let (mut count, mut last, mut is_truncated) = (0, after, false);
    for key in keys {
        let common = Some(delimiter)
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| key[prefix.len()..].find(delimiter))
            .map(|at| &key[..prefix.len() + at + delimiter.len()]);
        let entry = common.unwrap_or(&key);
        if entry <= last.as_str() {
            continue;
        }
        if count == most {
            is_truncated = most > 0;
            break;
        }
        if common.is_some() {
            let prefix = shown(entry);
            entries += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
        } else {
            // It may have been deleted since.
            let Ok(metadata) = fs::metadata(dir.join(&key)) else {
                continue;
            };
            let etag = escaped(&objects::etag(&metadata, faults.etag(&key)));
            let modified = iso_date(metadata.modified().unwrap_or(UNIX_EPOCH));
            entries += &format!(
                "<Contents><Key>{}</Key><LastModified>{modified}</LastModified>\
                 <ETag>{etag}</ETag><Size>{}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>",
                shown(&key),
                metadata.len()
            );
        }
        count += 1;
        last = entry.to_owned();
    }

    let mut fields = format!(
        "<Name>{}</Name><Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys>\
         <IsTruncated>{is_truncated}</IsTruncated>",
        request.bucket,
        shown(prefix)
    );
    let mut optional = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields += &format!("<{name}>{value}</{name}>");
        }
    };
    let sent = |name| request.parameter(name);
    optional("Delimiter", sent("delimiter").map(shown));
    optional("EncodingType", sent("encoding-type").map(escaped));
    optional("ContinuationToken", sent("continuation-token").map(escaped));
    optional("StartAfter", sent("start-after").map(shown));
    optional("Marker", sent("marker").map(shown));
    optional("KeyCount", second.then(|| count.to_string()));
    if is_truncated {
        // A token may hold any character, so that it is the same in XML and in a query.
        optional("NextContinuationToken", second.then(|| encoded(&last)));
        optional("NextMarker", (!second).then(|| shown(&last)));
    }
    Ok(Response::xml(
        200,
        &format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             {fields}{entries}</ListBucketResult>"
        ),
    ))
}

/// Adds the keys below a folder that begin with `prefix`; `inside` is what the keys below this
/// folder begin with.
fn find(dir: &Path, inside: &str, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Keys are text.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let key = format!("{inside}{name}");
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if !metadata.is_dir() {
            if key.starts_with(prefix) {
                keys.push(key);
            }
            continue;
        }
        let inside = key + "/";
        if inside.starts_with(prefix) || prefix.starts_with(&inside) {
            match find(&entry.path(), &inside, prefix, keys) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
