//! One rank: programs that are built without MPI.

use super::RanksError;

/// The only rank.
#[derive(Debug)]
pub(super) struct World;

impl World {
    pub(super) fn start() -> Result<Self, RanksError> {
        Err(RanksError::Start(
            "this program was built without it; build it with `cargo build --release -p trainer \
             --features mpi`"
                .to_owned(),
        ))
    }

    pub(super) const fn alone() -> Self {
        Self
    }

    pub(super) const fn first(&self, _: usize) -> Option<Self> {
        Some(Self)
    }

    pub(super) const fn wait_quietly(&self) {}

    pub(super) const fn number(&self) -> usize {
        0
    }

    pub(super) const fn count(&self) -> usize {
        1
    }

    pub(super) fn gather(&self, values: &[f64]) -> Vec<f64> {
        values.to_vec()
    }

    pub(super) fn gather_bytes(&self, bytes: &[u8], _: &[usize]) -> Vec<u8> {
        bytes.to_vec()
    }

    pub(super) const fn broadcast(&self, _: &mut [f32]) {}

    pub(super) const fn send_to_root(&self, _: &[f32]) {}

    pub(super) const fn receive(&self, _: usize, _: &mut [f32]) {}

    pub(super) fn exchange(&self, values: &[f32], _: &[usize], received: &mut [f32]) {
        received.copy_from_slice(values);
    }

    pub(super) fn collect(&self, own: &[f32], _: &[usize], values: &mut [f32]) {
        values.copy_from_slice(own);
    }

    pub(super) fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
