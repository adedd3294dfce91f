//! One decoded frame to one I420 frame: converted, scaled, upright.

use super::VideoError;
use crate::frames::Color;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use schemas::geometry::I420;
use schemas::shard::{ColorMatrix, ColorRange};
use serde::{Deserialize, Serialize};

/// How a picture has to be turned to be upright: mirrored left to right first, then rotated clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orientation {
    /// Degrees clockwise: 0, 90, 180 or 270.
    pub rotation: u32,
    /// Whether left and right are swapped first.
    pub mirrored: bool,
}

impl Orientation {
    /// Reads GStreamer's `image-orientation` tag: `rotate-90` or `flip-rotate-270`, say. Unknown values count as upright.
    pub fn from_tag(tag: &str) -> Self {
        let (mirrored, rotation) = match tag.strip_prefix("flip-") {
            Some(rotation) => (true, rotation),
            None => (false, tag),
        };
        let rotation = rotation.strip_prefix("rotate-").and_then(|degrees| degrees.parse().ok());
        match rotation {
            Some(rotation @ (0 | 90 | 180 | 270)) => Self { rotation, mirrored },
            _ => Self::default(),
        }
    }

    /// Size of an upright picture whose stored size is `size`.
    pub const fn upright_size(self, size: I420) -> I420 {
        if self.swaps_sides() { I420 { width: size.height, height: size.width } } else { size }
    }

    const fn swaps_sides(self) -> bool {
        self.rotation % 180 == 90
    }

    const fn is_upright(self) -> bool {
        self.rotation == 0 && !self.mirrored
    }

    /// Where the sample at (`x`, `y`) of an upright plane lies in the stored plane of `width` x `height`.
    const fn source(self, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
        let (x, y) = match self.rotation {
            90 => (y, height - 1 - x),
            180 => (width - 1 - x, height - 1 - y),
            270 => (width - 1 - y, x),
            _ => (x, y),
        };
        if self.mirrored { (width - 1 - x, y) } else { (x, y) }
    }
}

impl Color {
    /// Colour of frames of `info` once they are I420. What the stream does not say the container does; what neither says is taken as
    /// GStreamer does: limited range, BT.601 for small pictures and BT.709 for those of more than 576 lines.
    pub fn of(info: &gst_video::VideoInfo, container: Option<&gst_video::VideoColorimetry>) -> Self {
        let stream = info.colorimetry();
        // RGB is brought to limited range.
        let keeps_range = info.is_yuv() || info.is_gray();
        let is_full = |color: &gst_video::VideoColorimetry| color.range() == gst_video::VideoColorRange::Range0_255;
        let range =
            if keeps_range && (is_full(&stream) || container.is_some_and(is_full)) { ColorRange::Full } else { ColorRange::Limited };
        let known = |color: &gst_video::VideoColorimetry| match color.matrix() {
            gst_video::VideoColorMatrix::Bt709 => Some(ColorMatrix::Bt709),
            gst_video::VideoColorMatrix::Bt2020 => Some(ColorMatrix::Bt2020),
            gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => Some(ColorMatrix::Bt601),
            _ => None,
        };
        let usual = if info.height() > 576 { ColorMatrix::Bt709 } else { ColorMatrix::Bt601 };
        let matrix = known(&stream).or(container.and_then(known)).unwrap_or(usual);
        Self { range, matrix }
    }

    /// GStreamer's words for it. Nothing is known of the transfer function and the primaries.
    pub(super) fn colorimetry(self) -> gst_video::VideoColorimetry {
        let range = match self.range {
            ColorRange::Limited => gst_video::VideoColorRange::Range16_235,
            ColorRange::Full => gst_video::VideoColorRange::Range0_255,
        };
        let matrix = match self.matrix {
            ColorMatrix::Bt601 => gst_video::VideoColorMatrix::Bt601,
            ColorMatrix::Bt709 => gst_video::VideoColorMatrix::Bt709,
            ColorMatrix::Bt2020 => gst_video::VideoColorMatrix::Bt2020,
        };
        gst_video::VideoColorimetry::new(range, matrix, gst_video::VideoTransferFunction::Unknown, gst_video::VideoColorPrimaries::Unknown)
    }
}

/// Brings decoded frames to I420 frames of one size. Reuses its memory from frame to frame.
pub struct FrameScaler {
    target: I420,
    orientation: Orientation,
    resizer: Resizer,
    converter: Option<(gst_video::VideoInfo, gst_video::VideoConverter)>,
    packed: Vec<u8>,
    scaled: Vec<u8>,
}

impl FrameScaler {
    /// A scaler to upright frames of size `target`, from frames that `orientation` brings upright.
    pub fn new(target: I420, orientation: Orientation) -> Self {
        Self { target, orientation, resizer: Resizer::new(), converter: None, packed: Vec::new(), scaled: Vec::new() }
    }

    /// Appends `frame` to `out` as one tightly packed I420 frame of the target's size.
    ///
    /// A frame that is I420, upright and of the target's size is copied as it is. Others are converted by GStreamer (without dither),
    /// scaled plane by plane with an antialiased Catmull-Rom filter about each plane's centre, and turned.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when GStreamer cannot convert the frame.
    pub fn append(&mut self, frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, out: &mut Vec<u8>) -> Result<(), VideoError> {
        let stored = I420 { width: frame.width() as usize, height: frame.height() as usize };
        self.packed.clear();
        if frame.format() == gst_video::VideoFormat::I420 {
            pack(frame, stored, &mut self.packed)?;
        } else {
            self.convert(frame, stored)?;
        }
        let unturned = self.orientation.upright_size(self.target);
        let upright = if unturned == stored {
            &self.packed
        } else {
            self.scale(stored, unturned)?;
            &self.scaled
        };
        if self.orientation.is_upright() {
            out.extend_from_slice(upright);
        } else {
            turn(upright, unturned, self.target, self.orientation, out);
        }
        Ok(())
    }

    fn convert(&mut self, frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, size: I420) -> Result<(), VideoError> {
        let info = frame.info();
        if self.converter.as_ref().is_none_or(|(known, _)| known != info) {
            // The same frame rate, or the converter refuses.
            let mut target = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, info.width(), info.height()).fps(info.fps());
            // Y'CbCr keeps its matrix and range, which are recorded; RGB has none, and takes GStreamer's for the size.
            let colorimetry = info.colorimetry();
            if info.is_yuv() || info.is_gray() {
                target = target.colorimetry(&colorimetry);
            }
            let target = target.build().map_err(VideoError::frame)?;
            self.converter = Some((info.clone(), converter(info, &target)?));
        }
        let Some((_, converter)) = &self.converter else { unreachable!("set above") };
        converted(converter, frame, size, &mut self.packed)
    }

    fn scale(&mut self, from: I420, to: I420) -> Result<(), VideoError> {
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        self.scaled.resize(to.frame_bytes(), 0);
        for plane in 0..3 {
            let (from_width, from_height) = from.plane_size(plane);
            let (to_width, to_height) = to.plane_size(plane);
            let source = &self.packed[from.plane_range(plane)];
            let source = ImageRef::new(from_width as u32, from_height as u32, source, PixelType::U8).map_err(VideoError::frame)?;
            let target = &mut self.scaled[to.plane_range(plane)];
            let mut target = Image::from_slice_u8(to_width as u32, to_height as u32, target, PixelType::U8).map_err(VideoError::frame)?;
            self.resizer.resize(&source, &mut target, &options).map_err(VideoError::frame)?;
        }
        Ok(())
    }
}

/// A converter that neither dithers nor starts threads.
fn converter(from: &gst_video::VideoInfo, to: &gst_video::VideoInfo) -> Result<gst_video::VideoConverter, VideoError> {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    config.set_threads(1);
    gst_video::VideoConverter::new(from, to, Some(config)).map_err(VideoError::frame)
}

/// Appends `frame` as `converter` makes it, an I420 frame of `size`, tightly packed.
fn converted(
    converter: &gst_video::VideoConverter,
    frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    size: I420,
    out: &mut Vec<u8>,
) -> Result<(), VideoError> {
    let target = converter.out_info().clone();
    let buffer = gstreamer::Buffer::with_size(target.size()).map_err(VideoError::frame)?;
    let mut converted = gst_video::VideoFrame::from_buffer_writable(buffer, &target).map_err(|_| VideoError::frame("out of memory"))?;
    converter.frame_ref(frame, &mut converted.as_mut_video_frame_ref());
    let buffer = converted.into_buffer();
    let converted = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &target).map_err(VideoError::frame)?;
    pack(&converted, size, out)
}

/// One frame of tightly packed 8-bit R'G'B' of `size`, as tightly packed I420 of `color`.
///
/// # Errors
/// [`VideoError::Frame`] when GStreamer cannot convert it.
pub fn rgb_to_i420(pixels: &[u8], size: I420, color: Color) -> Result<Vec<u8>, VideoError> {
    super::init()?;
    let (width, height) = (size.width as u32, size.height as u32);
    let from = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height).stride(&[3 * width as i32]).build();
    let to = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).colorimetry(&color.colorimetry()).build();
    let (from, to) = (from.map_err(VideoError::frame)?, to.map_err(VideoError::frame)?);
    let buffer = gstreamer::Buffer::from_slice(pixels.to_vec());
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &from).map_err(VideoError::frame)?;
    let mut out = Vec::with_capacity(size.frame_bytes());
    converted(&converter(&from, &to)?, &frame, size, &mut out)?;
    Ok(out)
}

/// Appends the three planes of an I420 frame without the padding at the ends of their rows; of a frame that is larger than `size`, its top left part.
pub(super) fn pack(frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, size: I420, out: &mut Vec<u8>) -> Result<(), VideoError> {
    for plane in 0..3 {
        let (width, height) = size.plane_size(plane);
        let stride = frame.plane_stride()[plane] as usize;
        let data = frame.plane_data(plane as u32).map_err(VideoError::frame)?;
        for row in data.chunks(stride).take(height) {
            out.extend_from_slice(&row[..width]);
        }
    }
    Ok(())
}

/// Appends the stored frame `stored` of size `size`, turned by `orientation` to the size `target`.
fn turn(stored: &[u8], size: I420, target: I420, orientation: Orientation, out: &mut Vec<u8>) {
    for plane in 0..3 {
        let (width, height) = size.plane_size(plane);
        let (target_width, target_height) = target.plane_size(plane);
        let source = &stored[size.plane_range(plane)];
        for y in 0..target_height {
            out.extend((0..target_width).map(|x| {
                let (source_x, source_y) = orientation.source(x, y, width, height);
                source[source_y * width + source_x]
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3x2 luma plane `abc/def` with 2x1 chroma planes `uv` and `xy`.
    const STORED: &[u8] = b"abcdefuvxy";
    const SIZE: I420 = I420 { width: 3, height: 2 };

    fn turned(tag: &str) -> String {
        let orientation = Orientation::from_tag(tag);
        let mut out = Vec::new();
        turn(STORED, SIZE, orientation.upright_size(SIZE), orientation, &mut out);
        String::from_utf8(out).expect("letters")
    }

    #[test]
    fn every_orientation_turns_every_plane() {
        assert_eq!(turned("rotate-0"), "abcdefuvxy");
        assert_eq!(turned("rotate-90"), "daebfcuvxy");
        assert_eq!(turned("rotate-180"), "fedcbavuyx");
        assert_eq!(turned("rotate-270"), "cfbeadvuyx");
        assert_eq!(turned("flip-rotate-0"), "cbafedvuyx");
        assert_eq!(turned("flip-rotate-90"), "fcebdavuyx");
        assert_eq!(turned("flip-rotate-180"), "defabcuvxy");
        assert_eq!(turned("flip-rotate-270"), "adbecfuvxy");
    }

    #[test]
    fn an_unknown_orientation_is_upright() {
        assert_eq!(Orientation::from_tag("rotate-45"), Orientation::default());
        assert_eq!(Orientation::from_tag(""), Orientation::default());
    }
}
