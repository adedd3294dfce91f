//! What a model predicts of a masked clip, and where the pixels of each patch go.

use super::hog;
#[cfg(target_arch = "x86_64")]
use super::resample::has_vectors;
use schemas::geometry::{PatchGrid, TargetFrames};

/// What the target holds of each token that is predicted, of the frames that [`PatchGrid::target_frames`] names, spread ones
/// where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// Pixels, `[slices, patch, patch, 3]`: the order of the reference's target.
    Pixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// The same of [`TargetFrames::Strided`] frames.
    StridedPixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// Histograms of oriented gradients ([`crate::transform::hog`]), `[slices, cells, cells, 3, 9]`. They are no samples: [`u8`] has no room for them.
    Hog {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
}

impl TargetForm {
    /// Frames of each tubelet that are predicted.
    pub const fn slices(self) -> usize {
        match self {
            Self::Pixels { slices } | Self::StridedPixels { slices } | Self::Hog { slices } => slices,
        }
    }

    /// Which frames are predicted.
    pub const fn frames(self) -> TargetFrames {
        match self {
            Self::Pixels { .. } | Self::Hog { .. } => TargetFrames::Spread,
            Self::StridedPixels { .. } => TargetFrames::Strided,
        }
    }

    /// Values of a token of `grid`.
    pub const fn values(self, grid: PatchGrid) -> usize {
        match self {
            Self::Pixels { slices } | Self::StridedPixels { slices } => grid.target_values(slices),
            Self::Hog { slices } => slices * hog::patch_values(grid.patch),
        }
    }
}

/// Where the pixels of a token go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To the visible ones, as number so and so.
    Visible(usize),
    /// To the predicted ones.
    Predicted(usize),
    /// Nowhere.
    LeftOut,
}

/// Writes pixels of three channels one after the other.
pub(super) fn interleave<T: Copy>(channels: [&[T]; 3], out: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if has_vectors() {
        // SAFETY: the processor has AVX2.
        return unsafe { super::x86::interleave(channels, out) };
    }
    interleave_plainly(channels, out);
}

#[inline(always)]
pub(super) fn interleave_plainly<T: Copy>([red, green, blue]: [&[T]; 3], out: &mut [T]) {
    // Lengths that the loop shares, so that it needs no checks.
    let count = red.len();
    let (green, blue, out) = (&green[..count], &blue[..count], &mut out[..3 * count]);
    for x in 0..count {
        out[3 * x] = red[x];
        out[3 * x + 1] = green[x];
        out[3 * x + 2] = blue[x];
    }
}
