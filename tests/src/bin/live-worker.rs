//! The worker process of the live source's tests.

fn main() -> Result<(), pipeline::live::worker::WorkerError> {
    pipeline::live::worker::run()
}
