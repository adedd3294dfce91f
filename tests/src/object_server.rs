//! A small server of objects for tests and benches: it serves a folder over HTTP/1.1 in the way S3
//! does, and fails as asked.
//!
//! `http://127.0.0.1:PORT/BUCKET/KEY` is the file `KEY` in the folder `BUCKET` of the folder
//! served. Objects are read whole or by ranges, written, copied, deleted and uploaded in parts, and
//! buckets are listed, with the conditions that S3 knows. Signatures are not checked. Each
//! connection has a thread. `GET /-/requests` answers with the counters of [`Requests`] as JSON; it
//! is neither counted nor delayed.

mod connections;
mod http;
mod listing;
mod objects;
mod sending;
#[cfg(test)]
mod tests;

use connections::Shared;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What goes wrong, or slowly. By default nothing does.
///
/// Requests and bodies are counted from the last [`ObjectServer::set`], each n-th from the n-th.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// Time from a request to the first byte of its response. Connections do not wait for each
    /// other.
    pub delay: Duration,
    /// Bytes of bodies per second, of all connections together.
    pub bytes_per_second: Option<u64>,
    /// Each n-th request gets this status.
    pub error_every: Option<(u64, u16)>,
    /// Each n-th body of an object ends after half of its bytes, and with it the connection.
    pub short_every: Option<u64>,
    /// Each n-th body of an object has one byte changed, the one in its middle.
    pub wrong_every: Option<u64>,
    /// Each n-th body of an object stops after half of its bytes, and the connection stays.
    pub stall_every: Option<u64>,
    /// Connections are accepted and closed at once, and those that are open end.
    pub away: bool,
    /// Each request gets status 403.
    pub deny: bool,
    /// Part of every ETag, so that with another number every object appears changed.
    pub new_etags: u64,
    /// Only requests whose key contains this meet the faults above, but for `away`.
    pub only: Option<String>,
}

impl Faults {
    fn concern(&self, key: &str) -> bool {
        self.only.as_ref().is_none_or(|part| key.contains(part))
    }

    /// The number that is mixed into the ETag of an object.
    fn etag(&self, key: &str) -> u64 {
        if self.concern(key) { self.new_etags } else { 0 }
    }
}

/// What a server has been asked, and has answered, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// `GET` requests, listings included.
    pub gets: u64,
    /// `HEAD` requests.
    pub heads: u64,
    /// `PUT` requests.
    pub puts: u64,
    /// `POST` requests.
    pub posts: u64,
    /// `DELETE` requests.
    pub deletes: u64,
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Most requests that were being answered at one time.
    pub at_once: u64,
}

impl Requests {
    fn json(&self) -> String {
        let Self {
            gets,
            heads,
            puts,
            posts,
            deletes,
            bytes_sent,
            connections,
            at_once,
        } = self;
        format!(
            "{{\"gets\": {gets}, \"heads\": {heads}, \"puts\": {puts}, \"posts\": {posts}, \
             \"deletes\": {deletes}, \"bytes_sent\": {bytes_sent}, \
             \"connections\": {connections}, \"at_once\": {at_once}}}\n"
        )
    }
}

/// A request, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
    pub method: String,
    /// `BUCKET/KEY`.
    pub key: String,
    /// The header `Range`.
    pub range: Option<String>,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct ObjectServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl ObjectServer {
    /// Serves the folders in `dir` as buckets, on a free port of this machine.
    pub fn start(dir: &Path, faults: Faults) -> Self {
        Self::start_on(dir, 0, faults).expect("a free port")
    }

    /// Serves the folders in `dir` as buckets, on this port of this machine; 0 is a free one.
    pub fn start_on(dir: &Path, port: u16, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(dir, faults));
        let of_acceptor = shared.clone();
        let acceptor = thread::Builder::new()
            .name("object-server".to_owned())
            .spawn(move || of_acceptor.accept(&listener))?;
        Ok(Self {
            shared,
            address,
            acceptor: Some(acceptor),
        })
    }

    /// `http://127.0.0.1:PORT`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the faults, for requests that come from now on.
    pub fn set(&self, faults: Faults) {
        self.shared.set(faults);
    }

    /// Counters.
    pub fn requests(&self) -> Requests {
        self.shared.state().counts
    }

    /// The last 65,536 requests, in the order they came.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.state().log.iter().cloned().collect()
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.shared.stop(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.wait_for_connections();
    }
}
