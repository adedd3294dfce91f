//! Objects in S3, Google Cloud Storage and Azure Blob Storage, and files of web servers.
//!
//! All calls block; the requests run on one thread of the process, named "store". Whatever passes
//! by itself (a server that is busy, a connection that breaks) is repeated for [`RETRY_SECONDS`].
//! Credentials, regions and endpoints are those that each store's own tools use.

mod aws;
mod az;
mod client;
mod download;
mod error;
mod failure;
mod gs;
mod http;
mod objects;
mod place;
mod profile;
mod runtime;
mod upload;
mod url;

pub use self::download::download;
pub use self::error::StoreError;
pub use self::http::{Traffic, traffic};
pub use self::objects::{
    Contents, MAX_REQUESTS, ObjectMeta, create, delete, head, list, overwrite, read, read_range,
    replace, start_read,
};
pub use self::place::{NotLocal, local_path, open_file, place};
pub use self::runtime::{Pending, RETRY_SECONDS, check_stop, on_wait, stop_when};
pub use self::upload::upload;
pub use self::url::{Scheme, Url, UrlError};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data stay valid when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
