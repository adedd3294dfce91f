//! What a model predicts of a masked clip, and where the pixels of each patch go.

use super::color::Normalise;
use super::hog;
use super::value::Value;
use schemas::geometry::{PatchGrid, TargetFrames};
use std::ops::Range;

/// The target of each predicted token, of the frames that [`PatchGrid::target_frames`] gives
/// ([`TargetFrames::Spread`] unless noted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// Pixels, `[slices, patch, patch, 3]`.
    Pixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// Pixels of [`TargetFrames::Strided`] frames.
    StridedPixels {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
    /// Histograms of oriented gradients ([`crate::transform::hog`]), `[slices, cells, cells, 3,
    /// 9]`. They do not fit into [`u8`].
    Hog {
        /// Frames of each tubelet that are predicted.
        slices: usize,
    },
}

impl TargetForm {
    /// Frames of each tubelet that are predicted.
    pub const fn slices(self) -> usize {
        match self {
            Self::Pixels { slices } | Self::StridedPixels { slices } | Self::Hog { slices } => {
                slices
            }
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

/// Where the patches of a masked clip are written.
#[derive(Debug)]
pub struct PatchesMut<'a, T> {
    /// Tubelets that the encoder sees, `[visible tokens, 3, tubelet, patch, patch]`: the order of a
    /// 3-D convolution's kernel.
    pub visible: &'a mut [T],
    /// What the model predicts, `[predicted tokens, values]`; see [`TargetForm`].
    pub target: &'a mut [T],
}

/// Where the pixels of a token go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To the visible tokens, at this index.
    Visible(usize),
    /// To the predicted tokens, at this index.
    Predicted(usize),
    /// Not written.
    Nowhere,
}

/// A row of patches of one frame, and where their pixels go.
pub(super) struct Band<'a> {
    grid: PatchGrid,
    /// Number of the frame in the clip.
    frame: usize,
    /// Places of the tokens that the frame is a part of.
    tokens: &'a [Place],
    /// Of a target frame, the places of the tokens whose target it is, and which of how many slices
    /// of each it is.
    target: Option<(&'a [Place], usize, usize)>,
}

impl<'a> Band<'a> {
    /// Row `row` of patches of frame `frame`; of a target frame, its number among all of them and
    /// how many of them each tubelet has.
    #[inline]
    pub(super) fn new(
        places: &'a [Place],
        grid: PatchGrid,
        frame: usize,
        row: usize,
        target: Option<(usize, usize)>,
    ) -> Self {
        let of_time =
            |time: usize| &places[time * grid.space() + row * grid.side()..][..grid.side()];
        let target =
            target.map(|(target, slices)| (of_time(target / slices), target % slices, slices));
        Self {
            grid,
            frame,
            tokens: of_time(frame / grid.tubelet),
            target,
        }
    }

    /// The columns of pixels that are used, adjacent patches in one span.
    #[inline]
    pub(super) fn spans(&self, spans: &mut Vec<Range<usize>>) {
        let patch = self.grid.patch;
        spans.clear();
        for column in 0..self.grid.side() {
            let is_visible = matches!(self.tokens[column], Place::Visible(_));
            let is_target = self
                .target
                .is_some_and(|(places, ..)| matches!(places[column], Place::Predicted(_)));
            if !is_visible && !is_target {
                continue;
            }
            match spans.last_mut() {
                Some(span) if span.end == column * patch => span.end += patch,
                _ => spans.push(column * patch..(column + 1) * patch),
            }
        }
    }

    /// Writes the patches: `samples` are the rows of the band, luma and the two chromas, or red,
    /// green and blue. A patch is written as a whole before the next: a predicted one is a single
    /// run of memory, a visible one has such a run for each channel.
    pub(super) fn write<T: Value>(
        &self,
        samples: [&[i16]; 3],
        normalise: Normalise,
        out: &mut PatchesMut<'_, T>,
    ) {
        let Self { grid, frame, .. } = *self;
        let (patch, area) = (grid.patch, grid.patch * grid.patch);
        for column in 0..grid.side() {
            let samples = samples.map(|part| &part[column * patch..]);
            if let Place::Visible(at) = self.tokens[column] {
                let tubelet =
                    &mut out.visible[at * grid.tubelet_values()..][..grid.tubelet_values()];
                let start = frame % grid.tubelet * area;
                let (red, rest) = tubelet.split_at_mut(grid.tubelet * area);
                let (green, blue) = rest.split_at_mut(grid.tubelet * area);
                let channels = [red, green, blue].map(|channel| &mut channel[start..][..area]);
                normalise.planes(samples, grid.size, patch, channels);
            }
            if let Some((places, slice, slices)) = self.target
                && let Place::Predicted(at) = places[column]
            {
                let start = at * grid.target_values(slices) + 3 * slice * area;
                let out = &mut out.target[start..][..3 * area];
                normalise.interleaved(samples, grid.size, patch, out);
            }
        }
    }
}
