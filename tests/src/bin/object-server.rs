//! Serves the folders in a folder as the buckets of an object store, until it is killed:
//!
//!     object-server DIR [--port N] [--delay-ms N] [--bytes-per-second N] [--error-every N]
//!
//! Prints its URL on the first line. `--error-every` answers each n-th request with 503.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tests::object_server::{Faults, ObjectServer};

const USAGE: &str = "usage: object-server DIR [--port N] [--delay-ms N] [--bytes-per-second N] \
                     [--error-every N]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let (mut dir, mut port, mut faults) = (None, 0, Faults::default());
    while let Some(argument) = arguments.next() {
        if !argument.starts_with("--") && dir.is_none() {
            dir = Some(argument);
            continue;
        }
        let number = arguments
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        let number = number.ok_or(USAGE)?;
        match argument.as_str() {
            "--port" => port = number.try_into().map_err(|_| USAGE)?,
            "--delay-ms" => faults.delay = Duration::from_millis(number),
            "--bytes-per-second" => faults.bytes_per_second = Some(number),
            "--error-every" => faults.error_every = Some((number, 503)),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let dir = dir.ok_or(USAGE)?;
    if !Path::new(&dir).is_dir() {
        return Err(format!("{dir} is no folder"));
    }
    let server = ObjectServer::start_on(Path::new(&dir), port, faults)
        .map_err(|error| format!("port {port}: {error}"))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", server.url())
        .and_then(|()| stdout.flush())
        .map_err(|error| error.to_string())?;
    loop {
        std::thread::park();
    }
}
