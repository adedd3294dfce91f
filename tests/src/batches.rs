//! Options and pixels of a loader of small clips.

use pipeline::loader::LoaderOptions;
use pipeline::loader::batch::{Batch, Pixels, values};
use pipeline::sampling::mask::{MaskKind, MaskRule};
use schemas::geometry::PatchGrid;

/// Options of a loader of batches of 4 clips of 6 frames of 32 x 32 pixels.
pub fn loader_options(threads: usize) -> LoaderOptions {
    LoaderOptions {
        seed: 5,
        threads,
        prefetch: 3,
        ..LoaderOptions::new(
            4,
            PatchGrid {
                frames: 6,
                size: 32,
                tubelet: 2,
                patch: 8,
            },
            MaskRule::new(MaskKind::Random, 0.9),
        )
    }
}

/// The whole clips of a batch, as f32.
pub fn clip_pixels(batch: &Batch) -> &[f32] {
    match batch.pixels() {
        Pixels::Clips(bytes) | Pixels::Tokens(bytes) => values(bytes),
        Pixels::Patches { .. } => panic!("the batch holds patches"),
    }
}
