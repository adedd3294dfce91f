//! One stored frame as an 8-bit RGB picture, for people to look at. The maths is [`crate::transform`]'s.

use crate::transform::{Axis, ToRgb, blend, blend_rows, denormalise};
use schemas::geometry::I420;
use schemas::shard::{ColorMatrix, ColorRange};

/// Turns `frame`, tightly packed I420 of `size`, into `width` x `height` pixels of R'G'B': three bytes a pixel, row after row. At the frame's own size
/// luma is taken as it is; at others it is interpolated, as training clips are.
///
/// # Panics
/// When `frame` has another length than `size` says, or a side of either is 0.
pub fn to_rgb(frame: &[u8], size: I420, color: (ColorRange, ColorMatrix), width: usize, height: usize) -> Vec<u8> {
    assert_eq!(frame.len(), size.frame_bytes(), "bytes of a frame");
    let columns = Axis::columns(0, size.width, width, false);
    let rows = Axis::rows(0, size.height, height);
    let to_rgb = ToRgb::new(color.0, color.1);
    let mut planes: [Vec<f32>; 3] = Default::default();
    let mut out = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        let taps = [rows.luma[y], rows.chroma[y], rows.chroma[y]];
        for (plane, (row, tap)) in planes.iter_mut().zip(taps).enumerate() {
            blend_rows(&frame[size.plane_range(plane)], size.plane_size(plane).0, tap, row);
        }
        let [luma, cb, cr] = &planes;
        for x in 0..width {
            let (luma_tap, chroma_tap) = (columns.luma[x], columns.chroma[x]);
            out.extend(to_rgb.apply(blend(luma, luma_tap), blend(cb, chroma_tap), blend(cr, chroma_tap)).map(denormalise));
        }
    }
    out
}

/// The largest size of the same aspect that fits into a box of `width` x `height`, never larger than `size`, and no side less than a pixel.
pub fn size_within(size: I420, width: usize, height: usize) -> (usize, usize) {
    let scale = (width as f64 / size.width as f64).min(height as f64 / size.height as f64).min(1.0);
    let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (scaled(size.width), scaled(size.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Crop, View};
    use crate::transform::Transform;

    #[test]
    fn a_picture_is_what_training_sees() {
        let size = I420 { width: 6, height: 6 };
        let frame: Vec<u8> = (0..size.frame_bytes()).map(|at| (60 + 37 * at % 140) as u8).collect();
        let color = (ColorRange::Limited, ColorMatrix::Bt709);
        for side in [3, 6, 11] {
            let view = View { first_frame: 0, crop: Crop { left: 0, top: 0, width: 6, height: 6 }, flip: false };
            let mut clip = vec![0.0; 3 * side * side];
            Transform::default().apply(&frame, size, color, view, 1, side, &mut clip);
            let picture = to_rgb(&frame, size, color, side, side);
            for (pixel, rgb) in picture.chunks_exact(3).enumerate() {
                for (channel, &value) in rgb.iter().enumerate() {
                    assert_eq!(value, denormalise(clip[channel * side * side + pixel]), "pixel {pixel} at side {side}");
                }
            }
        }
    }

    #[test]
    fn grey_keeps_its_value_at_the_frames_own_size() {
        let size = I420 { width: 5, height: 3 };
        let frame: Vec<u8> = (0..15).map(|at| at * 17).chain([128; 12]).collect();
        let picture = to_rgb(&frame, size, (ColorRange::Full, ColorMatrix::Bt601), 5, 3);
        let expected: Vec<u8> = (0..15).flat_map(|at| [at * 17; 3]).collect();
        assert_eq!(picture, expected);
    }

    #[test]
    fn sizes_keep_their_aspect_and_never_grow() {
        assert_eq!(size_within(I420 { width: 456, height: 256 }, 192, 128), (192, 108));
        assert_eq!(size_within(I420 { width: 256, height: 456 }, 192, 128), (72, 128));
        assert_eq!(size_within(I420 { width: 64, height: 48 }, 192, 128), (64, 48));
        assert_eq!(size_within(I420 { width: 10_000, height: 1 }, 100, 100), (100, 1));
    }
}
