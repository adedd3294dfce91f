//! Shape and orientation of decoded frames, and the size at which they are stored.

use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, PixelAspect};
use serde::{Deserialize, Serialize};

/// Pixel aspect ratios beyond this one are taken for a mistake of the header.
const MAX_ASPECT: u32 = 8;

/// Aspect ratio of a pixel: width to height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelRatio {
    /// Width.
    pub num: u32,
    /// Height.
    pub den: u32,
}

impl PixelRatio {
    /// Square pixels.
    pub const SQUARE: Self = Self { num: 1, den: 1 };

    /// Returns the ratio `num` to `den` of a stream; square where it is invalid.
    pub fn new(num: i32, den: i32) -> Self {
        let known = u32::try_from(num).ok().zip(u32::try_from(den).ok());
        known.map_or(Self::SQUARE, |(num, den)| {
            if num == 0 || den == 0 {
                Self::SQUARE
            } else {
                Self { num, den }
            }
        })
    }

    /// Whether width and height are equal.
    pub const fn is_square(self) -> bool {
        self.num == self.den
    }

    /// Returns the size at which a picture of `size` has square pixels, with the same height.
    /// Returns `size` itself where the ratio is too far from square to be intended, and where the
    /// width would change by less than a hundredth: encoders that round a side write such ratios,
    /// and scaling would cost more than it gives.
    pub fn square_size(self, size: FrameSize) -> FrameSize {
        let num = u64::from(self.num);
        let den = u64::from(self.den);
        let max = u64::from(MAX_ASPECT);
        if num > max * den || den > max * num {
            return size;
        }
        let width = ((size.width as u64 * num + den / 2) / den) as usize;
        if 100 * width.abs_diff(size.width) < size.width {
            return size;
        }
        FrameSize {
            width: width.max(1),
            height: size.height,
        }
    }
}

/// The properties of a decoded frame that determine the size of a stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceShape {
    /// Size in pixels.
    pub size: FrameSize,
    /// Aspect ratio of its pixels.
    pub pixel_aspect: PixelRatio,
    /// Rotation and mirroring that make it upright.
    pub orientation: Orientation,
}

impl SourceShape {
    /// Returns the size of a frame as a build with `options` stores it.
    pub fn stored_size(&self, options: &BuildOptions) -> FrameSize {
        let size = match options.pixel_aspect {
            PixelAspect::Square => self.pixel_aspect.square_size(self.size),
            PixelAspect::Keep => self.size,
        };
        self.orientation
            .upright_size(size)
            .scaled_to_short_side(options.short_side as usize)
    }
}

/// The rotation and mirroring that make a picture upright: it is mirrored left to right first, then
/// rotated clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orientation {
    /// Degrees clockwise: 0, 90, 180 or 270.
    pub rotation: u32,
    /// Whether left and right are swapped first.
    pub mirrored: bool,
}

impl Orientation {
    /// Parses GStreamer's `image-orientation` tag, such as `rotate-90` or `flip-rotate-270`.
    /// Unknown values count as upright.
    pub fn from_tag(tag: &str) -> Self {
        let (mirrored, rotation) = match tag.strip_prefix("flip-") {
            Some(rotation) => (true, rotation),
            None => (false, tag),
        };
        let rotation = rotation
            .strip_prefix("rotate-")
            .and_then(|degrees| degrees.parse().ok());
        match rotation {
            Some(rotation @ (0 | 90 | 180 | 270)) => Self { rotation, mirrored },
            _ => Self::default(),
        }
    }

    /// Returns the size of an upright picture whose size before rotation is `size`.
    pub const fn upright_size(self, size: FrameSize) -> FrameSize {
        if self.swaps_sides() {
            FrameSize {
                width: size.height,
                height: size.width,
            }
        } else {
            size
        }
    }

    const fn swaps_sides(self) -> bool {
        self.rotation % 180 == 90
    }

    pub(super) const fn is_upright(self) -> bool {
        self.rotation == 0 && !self.mirrored
    }

    /// Returns where the sample at (`x`, `y`) of an upright plane lies in the plane of
    /// `width` x `height` before rotation.
    pub(super) const fn source(
        self,
        x: usize,
        y: usize,
        width: usize,
        height: usize,
    ) -> (usize, usize) {
        let (x, y) = match self.rotation {
            90 => (y, height - 1 - x),
            180 => (width - 1 - x, height - 1 - y),
            270 => (width - 1 - y, x),
            _ => (x, y),
        };
        if self.mirrored {
            (width - 1 - x, y)
        } else {
            (x, y)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_square_by_the_width() {
        let size = |width, height| FrameSize { width, height };
        assert_eq!(
            PixelRatio::new(64, 45).square_size(size(160, 128)),
            size(228, 128)
        );
        assert_eq!(
            PixelRatio::new(8, 9).square_size(size(720, 480)),
            size(640, 480)
        );
        assert_eq!(
            PixelRatio::new(512, 511).square_size(size(454, 256)),
            size(454, 256),
            "as good as square"
        );
        assert_eq!(
            PixelRatio::new(0, 1).square_size(size(3, 2)),
            size(3, 2),
            "not known"
        );
        assert_eq!(
            PixelRatio::new(9, 1).square_size(size(3, 2)),
            size(3, 2),
            "not meant"
        );
        assert_eq!(PixelRatio::new(1, 8).square_size(size(1, 9)), size(1, 9));
    }

    #[test]
    fn an_unknown_orientation_is_upright() {
        assert_eq!(Orientation::from_tag("rotate-45"), Orientation::default());
        assert_eq!(Orientation::from_tag(""), Orientation::default());
    }
}
