//! The threads of a server: one accepts connections, the others answer requests.

use super::http::{Body, Request, Response};
use super::objects::{self, Store};
use super::{Faults, Logged, Requests};
use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Requests that the log remembers.
const LOG: usize = 1 << 16;

/// What the threads of a server share.
#[derive(Debug)]
pub struct Shared {
    store: Store,
    state: Mutex<State>,
    /// The server stops, or a connection has ended.
    changed: Condvar,
}

/// What changes while a server runs.
#[derive(Debug)]
pub struct State {
    faults: Faults,
    /// Whether all threads are to end.
    stopped: bool,
    /// Requests that met the faults, since they were set.
    requests: u64,
    /// Bodies of objects that met the faults, since they were set.
    pub bodies: u64,
    /// Requests being answered.
    answering: u64,
    /// Counters since the start.
    pub counts: Requests,
    /// Last requests.
    pub log: VecDeque<Logged>,
    connections: HashMap<u64, TcpStream>,
    /// When all bytes allowed so far will have been sent, at the rate allowed.
    pub free_at: Instant,
}

impl State {
    fn new(faults: Faults) -> Self {
        Self {
            faults,
            stopped: false,
            requests: 0,
            bodies: 0,
            answering: 0,
            counts: Requests::default(),
            log: VecDeque::new(),
            connections: HashMap::new(),
            free_at: Instant::now(),
        }
    }
}

impl Shared {
    /// For a server of the folders in `dir`.
    pub fn new(dir: &Path, faults: Faults) -> Self {
        Self {
            store: Store::new(dir),
            state: Mutex::new(State::new(faults)),
            changed: Condvar::new(),
        }
    }

    /// The state, locked.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the faults of requests that come from now on, and counts them from now on.
    pub fn set(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        (state.requests, state.bodies) = (0, 0);
        state.free_at = Instant::now();
    }

    /// Has all threads end; `address` is where the acceptor listens.
    pub fn stop(&self, address: SocketAddr) {
        let mut state = self.state();
        state.stopped = true;
        for stream in state.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
        // The acceptor waits for a connection, and looks up when it gets one.
        let _ = TcpStream::connect(address);
    }

    /// Returns when all connections have ended, and nothing of them is left.
    pub fn wait_for_connections(&self) {
        let ended = self
            .changed
            .wait_while(self.state(), |state| !state.connections.is_empty());
        drop(ended);
        self.store.clear();
    }

    /// Waits; false if the server is to stop.
    pub fn pause_until(&self, time: Instant) -> bool {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if state.stopped || now >= time {
                return !state.stopped;
            }
            let waited = self.changed.wait_timeout(state, time - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether connections are to end.
    pub fn is_gone(&self) -> bool {
        let state = self.state();
        state.stopped || state.faults.away
    }

    /// Accepts connections and gives each a thread, until the server stops.
    pub fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let mut state = self.state();
            if state.stopped {
                return;
            }
            let Ok(stream) = stream else { continue };
            let Ok(kept) = stream.try_clone() else {
                continue;
            };
            state.counts.connections += 1;
            if state.faults.away {
                continue;
            }
            let number = state.counts.connections;
            state.connections.insert(number, kept);
            drop(state);
            let shared = self.clone();
            let serve = move || {
                // Clients may go whenever they like, and some faults are errors of this kind.
                let _ = shared.serve(&stream);
                let _ = stream.shutdown(Shutdown::Both);
                shared.state().connections.remove(&number);
                shared.changed.notify_all();
            };
            if thread::Builder::new().spawn(serve).is_err() {
                self.state().connections.remove(&number);
            }
        }
    }

    /// Answers the requests of one connection.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        while let Some(request) = Request::read(&mut reader)? {
            let arrived = Instant::now();
            if request.expects_continue() {
                (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let received = self.store.receive(&request, &mut reader)?;
            if request.bucket == "-" {
                let counts = self.counters();
                self.send(stream, &request, counts, &Faults::default())?;
                continue;
            }
            let (faults, error) = self.begin(&request)?;
            let response = match error {
                Some((status, code)) => Response::error(status, code, &request),
                None => self.store.respond(&request, received, &faults),
            };
            let result = if self.pause_until(arrived + faults.delay) {
                self.send(stream, &request, response, &faults)
            } else {
                Err(io::ErrorKind::ConnectionAborted.into())
            };
            self.state().answering -= 1;
            result?;
            if !request.keep_alive {
                break;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Response {
        let counts = self.state().counts;
        let mut response = Response::new(200).with("Content-Type", "application/json");
        response.body = Body::Bytes(counts.json().into_bytes());
        response
    }

    /// Counts and logs a request; returns the faults that concern it, and the error it gets.
    fn begin(&self, request: &Request) -> io::Result<(Faults, Option<(u16, &'static str)>)> {
        let mut state = self.state();
        if state.faults.away || state.stopped {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match request.method.as_str() {
            "GET" => state.counts.gets += 1,
            "HEAD" => state.counts.heads += 1,
            "PUT" => state.counts.puts += 1,
            "POST" => state.counts.posts += 1,
            _ => state.counts.deletes += 1,
        }
        state.answering += 1;
        state.counts.at_once = state.counts.at_once.max(state.answering);
        if state.log.len() == LOG {
            state.log.pop_front();
        }
        state.log.push_back(Logged {
            method: request.method.clone(),
            key: format!("{}/{}", request.bucket, request.key),
            range: request.header("range").map(str::to_owned),
        });
        let mut faults = state.faults.clone();
        if !faults.concern(&request.key) {
            // ETags in a listing are of its objects, not of the request.
            faults = Faults {
                new_etags: faults.new_etags,
                only: faults.only,
                ..Faults::default()
            };
            return Ok((faults, None));
        }
        state.requests += 1;
        let error = match faults.error_every {
            _ if faults.deny => Some(403),
            Some((every, status)) if is_nth(state.requests, Some(every)) => Some(status),
            _ => None,
        };
        Ok((faults, error.map(|status| (status, objects::code(status)))))
    }
}

/// Whether something is to happen to the `number`-th of many.
pub fn is_nth(number: u64, every: Option<u64>) -> bool {
    every.is_some_and(|every| every > 0 && number.is_multiple_of(every))
}
