//! Frames in memory: what their bytes are, and what they mean.

use schemas::geometry::I420;
use schemas::shard::{ColorMatrix, ColorRange};

/// What samples of luma and chroma mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// Range of the samples.
    pub range: ColorRange,
    /// Matrix to RGB.
    pub matrix: ColorMatrix,
}

/// 8-bit frames of one size, one after the other, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames<'a> {
    /// Planes.
    I420(&'a [u8], Color),
    /// R'G'B', three bytes a pixel.
    Rgb(&'a [u8]),
}

impl<'a> Frames<'a> {
    /// The bytes of all frames.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::I420(bytes, _) | Self::Rgb(bytes) => bytes,
        }
    }

    /// Bytes of one frame of `size`.
    pub const fn frame_bytes(self, size: I420) -> usize {
        match self {
            Self::I420(..) => size.frame_bytes(),
            Self::Rgb(_) => 3 * size.width * size.height,
        }
    }

    /// Each frame by itself, where all are of `size`.
    ///
    /// # Panics
    /// When a side of `size` is 0.
    pub fn each(self, size: I420) -> impl Iterator<Item = Self> {
        self.bytes().chunks_exact(self.frame_bytes(size)).map(move |frame| self.alike(frame))
    }

    /// The first `count` frames, where all are of `size`; none where there are not so many.
    pub fn first(self, count: usize, size: I420) -> Option<Self> {
        self.bytes().get(..count * self.frame_bytes(size)).map(|frames| self.alike(frames))
    }

    /// Other frames of the same kind.
    const fn alike(self, bytes: &'a [u8]) -> Self {
        match self {
            Self::I420(_, color) => Self::I420(bytes, color),
            Self::Rgb(_) => Self::Rgb(bytes),
        }
    }
}
