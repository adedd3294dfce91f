//! Sizes of I420 frames, and the grid of spacetime patches of a clip.

use serde::{Deserialize, Serialize};

/// Size of an 8-bit planar 4:2:0 frame, tightly packed: the luma plane, then the two chroma planes
/// at half size, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameSize {
    /// Luma samples per row.
    pub width: usize,
    /// Luma rows.
    pub height: usize,
}

impl FrameSize {
    /// Returns the chroma samples per row.
    pub const fn chroma_width(self) -> usize {
        self.width.div_ceil(2)
    }

    /// Returns the chroma rows.
    pub const fn chroma_height(self) -> usize {
        self.height.div_ceil(2)
    }

    /// Returns the bytes of the luma plane.
    pub const fn luma_bytes(self) -> usize {
        self.width * self.height
    }

    /// Returns the bytes of each of the two chroma planes.
    pub const fn chroma_bytes(self) -> usize {
        self.chroma_width() * self.chroma_height()
    }

    /// Returns the bytes of the whole frame.
    pub const fn frame_bytes(self) -> usize {
        self.luma_bytes() + 2 * self.chroma_bytes()
    }

    /// Returns width and height of plane `plane` (0 luma, 1 and 2 chroma).
    pub const fn plane_size(self, plane: usize) -> (usize, usize) {
        if plane == 0 {
            (self.width, self.height)
        } else {
            (self.chroma_width(), self.chroma_height())
        }
    }

    /// Returns the byte range of plane `plane` (0 luma, 1 and 2 chroma) inside the frame.
    pub const fn plane_range(self, plane: usize) -> std::ops::Range<usize> {
        let luma = self.luma_bytes();
        let chroma = self.chroma_bytes();
        match plane {
            0 => 0..luma,
            1 => luma..luma + chroma,
            _ => luma + chroma..luma + 2 * chroma,
        }
    }

    /// Returns the size after scaling the short side down to `short_side` with the same aspect
    /// ratio. Never enlarges. A scaled long side is rounded to the nearest even number; a frame
    /// that is small enough keeps its size, odd or not.
    pub fn scaled_to_short_side(self, short_side: usize) -> Self {
        let short = self.width.min(self.height);
        if short <= short_side {
            return self;
        }
        let long = self.width.max(self.height);
        let scaled_long =
            ((long as f64 * short_side as f64 / short as f64) / 2.0).round() as usize * 2;
        if self.width <= self.height {
            Self {
                width: short_side,
                height: scaled_long,
            }
        } else {
            Self {
                width: scaled_long,
                height: short_side,
            }
        }
    }
}

/// The grid of spacetime patches ("tubelets") of a training clip of `frames` square frames: each
/// patch has `tubelet` frames of `patch` x `patch` pixels. Tokens are ordered by time, then row,
/// then column, as in the reference implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchGrid {
    /// Frames per clip.
    pub frames: usize,
    /// Height and width of a frame, in pixels.
    pub size: usize,
    /// Frames per tubelet.
    pub tubelet: usize,
    /// Height and width of a patch, in pixels.
    pub patch: usize,
}

/// The frames of a clip that a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetFrames {
    /// Evenly spread from the clip's first frame to its last, rounded down: `linspace(0, frames -
    /// 1, time * slices)` truncated, as in the reference implementation (0, 2, 4, 6, 8, 10, 12, 15
    /// of 16 frames).
    #[default]
    Spread,
    /// The first frame of each tubelet, or of each of its `slices` equal parts: `[::2]` for
    /// tubelets of two, as in PySlowFast (0, 2, 4, 6, 8, 10, 12, 14 of 16 frames).
    Strided,
}

/// An error of a grid: its parts do not tile the clip.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridError {
    /// A dimension that must be at least 1 is 0.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// Name of the dimension.
        what: &'static str,
    },
    /// A part does not divide its whole.
    #[error(
        "{whole} = {whole_value} is not a multiple of {part} = {part_value}; choose {whole} = \
         {nearest}, or another {part}"
    )]
    DoesNotDivide {
        /// Name of the whole.
        whole: &'static str,
        /// Its value.
        whole_value: usize,
        /// Name of the part.
        part: &'static str,
        /// Its value.
        part_value: usize,
        /// Nearest valid whole.
        nearest: usize,
    },
}

impl PatchGrid {
    /// Checks that tubelets tile the frames and patches tile each frame.
    ///
    /// # Errors
    /// The dimension that is zero or does not divide, with the nearest valid one.
    pub fn validate(self) -> Result<Self, GridError> {
        let named = [
            ("frames", self.frames),
            ("size", self.size),
            ("tubelet", self.tubelet),
            ("patch", self.patch),
        ];
        if let Some((what, _)) = named.into_iter().find(|&(_, value)| value == 0) {
            return Err(GridError::Zero { what });
        }
        divides(("frames", self.frames), ("tubelet", self.tubelet))?;
        divides(("size", self.size), ("patch", self.patch))?;
        Ok(self)
    }

    /// Returns the number of tokens along time.
    pub const fn time(self) -> usize {
        self.frames / self.tubelet
    }

    /// Returns the number of tokens along a row, which is that along a column.
    pub const fn side(self) -> usize {
        self.size / self.patch
    }

    /// Returns the number of tokens per time step.
    pub const fn space(self) -> usize {
        self.side() * self.side()
    }

    /// Returns the number of tokens of a clip.
    pub const fn tokens(self) -> usize {
        self.time() * self.space()
    }

    /// Returns the number of visible tokens at `mask_ratio`: `int(tokens * (1 - mask_ratio))` in
    /// double precision, as in the reference implementation (156 of 1568 at 0.9, where exact
    /// arithmetic gives 156.8).
    pub fn visible_tokens(self, mask_ratio: f64) -> usize {
        (self.tokens() as f64 * (1.0 - mask_ratio)) as usize
    }

    /// Returns the indices of the frames that the model predicts: `slices` per time step, chosen by
    /// `kind`. Those of step `t` are the `slices` from index `t * slices` of the result.
    pub fn target_frames(self, slices: usize, kind: TargetFrames) -> impl Iterator<Item = usize> {
        let targets = self.time() * slices;
        (0..targets).map(move |target| match kind {
            TargetFrames::Spread => target * (self.frames - 1) / (targets - 1).max(1),
            TargetFrames::Strided => target * self.frames / targets,
        })
    }

    /// Returns the number of predicted values per token: 3 x slices x patch x patch.
    pub const fn target_values(self, slices: usize) -> usize {
        3 * slices * self.patch * self.patch
    }

    /// Returns the number of values of a tubelet: 3 x tubelet x patch x patch.
    pub const fn tubelet_values(self) -> usize {
        3 * self.tubelet * self.patch * self.patch
    }

    /// Returns the number of values of a clip: 3 x frames x size x size.
    pub const fn clip_values(self) -> usize {
        3 * self.frames * self.size * self.size
    }
}

fn divides(whole: (&'static str, usize), part: (&'static str, usize)) -> Result<(), GridError> {
    if whole.1.is_multiple_of(part.1) {
        return Ok(());
    }
    let nearest = ((whole.1 as f64 / part.1 as f64).round() as usize).max(1) * part.1;
    Err(GridError::DoesNotDivide {
        whole: whole.0,
        whole_value: whole.1,
        part: part.0,
        part_value: part.1,
        nearest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: PatchGrid = PatchGrid {
        frames: 16,
        size: 224,
        tubelet: 2,
        patch: 16,
    };

    #[test]
    fn the_papers_grid_keeps_156_of_1568_tokens() {
        assert_eq!(PAPER.tokens(), 1568);
        assert_eq!(PAPER.visible_tokens(0.9), 156);
        assert_eq!(PAPER.tubelet_values(), 1536);
    }

    #[test]
    fn target_frames_are_spread_or_strided() {
        let frames =
            |grid: PatchGrid, slices, kind| grid.target_frames(slices, kind).collect::<Vec<_>>();
        assert_eq!(
            frames(PAPER, 1, TargetFrames::Spread),
            [0, 2, 4, 6, 8, 10, 12, 15]
        );
        assert_eq!(
            frames(PAPER, 1, TargetFrames::Strided),
            [0, 2, 4, 6, 8, 10, 12, 14]
        );
        let odd = PatchGrid {
            frames: 9,
            tubelet: 3,
            ..PAPER
        };
        assert_eq!(frames(odd, 1, TargetFrames::Strided), [0, 3, 6]);
        assert_eq!(frames(odd, 2, TargetFrames::Strided), [0, 1, 3, 4, 6, 7]);
        for kind in [TargetFrames::Spread, TargetFrames::Strided] {
            assert_eq!(frames(odd, 3, kind), (0..9).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_grid_that_does_not_divide_names_the_side_and_the_nearest() {
        let error = PatchGrid { size: 225, ..PAPER }
            .validate()
            .expect_err("225 is not a multiple of 16");
        assert_eq!(
            error.to_string(),
            "size = 225 is not a multiple of patch = 16; choose size = 224, or another patch"
        );
        let error = PatchGrid {
            frames: 15,
            ..PAPER
        }
        .validate()
        .expect_err("15 is odd");
        assert!(
            error
                .to_string()
                .starts_with("frames = 15 is not a multiple of tubelet = 2"),
            "{error}"
        );
        assert_eq!(
            PatchGrid { patch: 0, ..PAPER }.validate(),
            Err(GridError::Zero { what: "patch" })
        );
    }

    #[test]
    fn odd_frames_round_their_chroma_up() {
        let frame = FrameSize {
            width: 5,
            height: 3,
        };
        assert_eq!(frame.frame_bytes(), 15 + 2 * 6);
        assert_eq!(frame.plane_range(2), 21..27);
    }

    #[test]
    fn scaling_keeps_small_frames_and_the_aspect_of_large_ones() {
        assert_eq!(
            FrameSize {
                width: 176,
                height: 144
            }
            .scaled_to_short_side(256),
            FrameSize {
                width: 176,
                height: 144
            }
        );
        assert_eq!(
            FrameSize {
                width: 1280,
                height: 720
            }
            .scaled_to_short_side(256),
            FrameSize {
                width: 456,
                height: 256
            }
        );
        assert_eq!(
            FrameSize {
                width: 720,
                height: 1280
            }
            .scaled_to_short_side(256),
            FrameSize {
                width: 256,
                height: 456
            }
        );
    }
}
