//! The components of decoded frames, for measures that sample them.

use crate::frames::Color;
use crate::video::measure::picture::{Colors, Component};
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use schemas::geometry::FrameSize;
use schemas::shard::ColorRange;

/// Returns the components of `frame`, whose samples have `color`; none if its format packs them in
/// an unusual way.
pub(in crate::video) fn components<'a>(
    frame: &'a gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    color: Color,
) -> Option<([Component<'a>; 3], Colors)> {
    let format = frame.format_info();
    let is_packed = format
        .flags()
        .intersects(gst_video::VideoFormatFlags::COMPLEX | gst_video::VideoFormatFlags::TILED);
    if is_packed {
        return None;
    }
    let colors = if format.is_gray() {
        Colors::Gray
    } else if format.is_rgb() {
        Colors::Rgb
    } else if format.is_yuv() {
        yuv(color)
    } else {
        return None;
    };
    let component = |index: u8| {
        // A picture without colours has one component.
        let index = if colors == Colors::Gray { 0 } else { index };
        let (bits, shift) = (
            *format.depth().get(index as usize)?,
            *format.shift().get(index as usize)?,
        );
        let is_wide = bits + shift > 8;
        if is_wide && !format.is_le() || bits < 8 {
            return None;
        }
        let plane = *format.plane().get(index as usize)?;
        let offset = *format.poffset().get(index as usize)? as usize;
        let row_bytes = *frame.plane_stride().get(plane as usize)?;
        Some(Component {
            data: frame.plane_data(plane).ok()?.get(offset..)?,
            row_bytes: usize::try_from(row_bytes).ok()?,
            pixel_bytes: usize::try_from(*format.pixel_stride().get(index as usize)?).ok()?,
            width: frame.comp_width(index.into()) as usize,
            height: frame.comp_height(index.into()) as usize,
            bits,
            shift,
        })
    };
    Some(([component(0)?, component(1)?, component(2)?], colors))
}

/// Returns the components of a tightly packed I420 frame.
pub(in crate::video) fn planar(planes: &[u8], size: FrameSize) -> [Component<'_>; 3] {
    let mut rest = planes;
    [0, 1, 2].map(|plane| {
        let (width, height) = size.plane_size(plane);
        let (data, after) = rest.split_at((width * height).min(rest.len()));
        rest = after;
        Component {
            data,
            row_bytes: width,
            pixel_bytes: 1,
            width,
            height,
            bits: 8,
            shift: 0,
        }
    })
}

/// The meaning of luma and chroma of `color`.
pub(in crate::video) fn yuv(color: Color) -> Colors {
    Colors::Yuv {
        matrix: color.matrix,
        full_range: color.range == ColorRange::Full,
    }
}
