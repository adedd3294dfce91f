//! Sending of responses: at the rate allowed, and with the faults of bodies.

use super::Faults;
use super::connections::{Shared, is_nth};
use super::http::{Body, Request, Response};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes sent without a look at the faults. More are not faster.
const CHUNK: u64 = 256 << 10;

/// How the body of an object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    Short,
    Wrong,
    Stalled,
}

impl Shared {
    /// Sends a response, with the faults of a body where it has one.
    pub fn send(
        &self,
        stream: &TcpStream,
        request: &Request,
        response: Response,
        faults: &Faults,
    ) -> io::Result<()> {
        let mut to = stream;
        let mut head = response.head(request.keep_alive).into_bytes();
        let has_body = request.method != "HEAD" && response.length() > 0;
        match response.body {
            _ if !has_body => to.write_all(&head),
            Body::Bytes(bytes) => {
                self.allow(bytes.len() as u64, faults.bytes_per_second)?;
                self.state().counts.bytes_sent += bytes.len() as u64;
                head.extend(bytes);
                to.write_all(&head)
            }
            Body::Object { file, length } => {
                to.write_all(&head)?;
                let ending = self.ending(faults);
                self.send_object(stream, &file, length, ending, faults)
            }
        }
    }

    fn ending(&self, faults: &Faults) -> Ending {
        let mut state = self.state();
        let kinds = [
            (faults.short_every, Ending::Short),
            (faults.wrong_every, Ending::Wrong),
            (faults.stall_every, Ending::Stalled),
        ];
        if kinds.iter().all(|(every, _)| every.is_none()) {
            return Ending::Whole;
        }
        state.bodies += 1;
        let mut kinds = kinds.into_iter();
        kinds
            .find(|(every, _)| is_nth(state.bodies, *every))
            .map_or(Ending::Whole, |(_, ending)| ending)
    }

    fn send_object(
        &self,
        stream: &TcpStream,
        mut file: &File,
        length: u64,
        ending: Ending,
        faults: &Faults,
    ) -> io::Result<()> {
        let mut to = stream;
        let middle = length / 2;
        let end = match ending {
            Ending::Short | Ending::Stalled => middle,
            Ending::Whole | Ending::Wrong => length,
        };
        // At a low rate, in many small pieces rather than a few long waits.
        let chunk = faults
            .bytes_per_second
            .map_or(CHUNK, |rate| (rate / 64).clamp(1 << 10, CHUNK));
        let mut buffer = vec![0; chunk.min(length) as usize];
        let mut sent = 0;
        while sent < end {
            let bytes = chunk.min(end - sent);
            self.allow(bytes, faults.bytes_per_second)?;
            if self.is_gone() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let buffer = &mut buffer[..bytes as usize];
            file.read_exact(buffer)?;
            if ending == Ending::Wrong && (sent..sent + bytes).contains(&middle) {
                buffer[(middle - sent) as usize] ^= 0x10;
            }
            to.write_all(buffer)?;
            sent += bytes;
            self.state().counts.bytes_sent += bytes;
        }
        match ending {
            Ending::Whole | Ending::Wrong => Ok(()),
            Ending::Short => Err(io::ErrorKind::ConnectionAborted.into()),
            Ending::Stalled => self.stall(stream),
        }
    }

    /// Waits until so many more bytes may be sent.
    fn allow(&self, bytes: u64, rate: Option<u64>) -> io::Result<()> {
        let Some(rate) = rate else { return Ok(()) };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut state = self.state();
        let free_at = state.free_at.max(Instant::now()) + takes;
        state.free_at = free_at;
        drop(state);
        if self.pause_until(free_at) {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }

    /// Sends nothing until the client closes the connection, or the server stops.
    fn stall(&self, stream: &TcpStream) -> io::Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        stream.set_read_timeout(Some(LOOK))?;
        while self.pause_until(Instant::now() + LOOK) && !matches!(stream.peek(&mut [0]), Ok(0)) {}
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}
