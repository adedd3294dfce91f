//! The worker process of the live source's tests.

fn main() -> Result<(), pipeline::worker::WorkerError> {
    pipeline::live::worker::run()
}
