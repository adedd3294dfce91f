//! Decoded frames in memory: their layout and their colours.

use schemas::geometry::FrameSize;
use schemas::shard::{ColorMatrix, ColorRange};

/// Range and matrix of Y'CbCr samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// Range of the samples.
    pub range: ColorRange,
    /// Matrix to RGB.
    pub matrix: ColorMatrix,
}

/// 8-bit frames of one size, one after the other, without padding.
///
/// ```
/// use pipeline::frames::{Color, Frames};
/// use schemas::geometry::FrameSize;
/// use schemas::shard::{ColorMatrix, ColorRange};
///
/// let size = FrameSize { width: 4, height: 2 };
/// let color = Color { range: ColorRange::Limited, matrix: ColorMatrix::Bt709 };
/// let bytes = vec![128; 3 * size.frame_bytes()];
/// let frames = Frames::I420(&bytes, color);
/// assert_eq!((frames.frame_bytes(size), frames.each(size).count()), (12, 3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames<'a> {
    /// Y'CbCr in three planes, chroma at half size.
    I420(&'a [u8], Color),
    /// R'G'B', three bytes per pixel.
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
    pub const fn frame_bytes(self, size: FrameSize) -> usize {
        match self {
            Self::I420(..) => size.frame_bytes(),
            Self::Rgb(_) => 3 * size.width * size.height,
        }
    }

    /// Each frame of `size` on its own.
    ///
    /// # Panics
    /// When a side of `size` is 0.
    pub fn each(self, size: FrameSize) -> impl Iterator<Item = Self> {
        self.bytes()
            .chunks_exact(self.frame_bytes(size))
            .map(move |frame| self.alike(frame))
    }

    /// The `count` frames of `size` from frame `first` on; `None` if there are fewer.
    pub fn window(self, first: usize, count: usize, size: FrameSize) -> Option<Self> {
        let frame_bytes = self.frame_bytes(size);
        let from = self.bytes().get(first.checked_mul(frame_bytes)?..)?;
        let frames = from.get(..count.checked_mul(frame_bytes)?)?;
        Some(self.alike(frames))
    }

    /// Other frames of the same kind.
    pub(crate) const fn alike(self, bytes: &[u8]) -> Frames<'_> {
        match self {
            Self::I420(_, color) => Frames::I420(bytes, color),
            Self::Rgb(_) => Frames::Rgb(bytes),
        }
    }
}

/// Pads a frame of `size` to `coded`, which is not smaller, by repeating the last column and the
/// last row of each plane.
pub fn padded(frame: &[u8], size: FrameSize, coded: FrameSize) -> Vec<u8> {
    let mut out = Vec::with_capacity(coded.frame_bytes());
    for plane in 0..3 {
        let ((width, height), (coded_width, coded_height)) =
            (size.plane_size(plane), coded.plane_size(plane));
        let samples = &frame[size.plane_range(plane)];
        for y in 0..coded_height {
            let row = &samples[y.min(height - 1) * width..][..width];
            out.extend_from_slice(row);
            out.resize(out.len() + coded_width - width, row[width - 1]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_padded_with_their_last_row_and_column() {
        let (size, even) = (
            FrameSize {
                width: 3,
                height: 1,
            },
            FrameSize {
                width: 4,
                height: 2,
            },
        );
        assert_eq!(
            padded(&[1, 2, 3, 10, 11, 20, 21], size, even),
            [1, 2, 3, 3, 1, 2, 3, 3, 10, 11, 20, 21]
        );
        let size = FrameSize {
            width: 2,
            height: 2,
        };
        assert_eq!(padded(&[1, 2, 3, 4, 5, 6], size, size), [1, 2, 3, 4, 5, 6]);
        let result = padded(
            &[1, 2, 3, 4, 5, 6],
            size,
            FrameSize {
                width: 4,
                height: 4,
            },
        );
        assert_eq!(
            result,
            [
                1, 2, 2, 2, 3, 4, 4, 4, 3, 4, 4, 4, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6
            ]
        );
    }
}
