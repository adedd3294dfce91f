//! Converts a decoded frame to an I420 frame: 8 bits per sample, scaled, upright.
//!
//! - `color`: the colours of frames, and ffmpeg's names for them.
//! - `components`: the components of frames, for measures.
//! - `shape`: shape and orientation of decoded frames, and the size at which they are stored.
//! - `deep`: frames with more than 8 bits per sample to frames with 8.

mod color;
mod components;
mod deep;
mod shape;

pub(super) use color::{UNKNOWN, primaries_name, range_only, transfer_name};
pub(super) use components::{components, planar, yuv};
pub use shape::{Orientation, PixelRatio, SourceShape};

use super::VideoError;
use crate::frames::Color;
use deep::{deep_format, reduce};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use schemas::geometry::FrameSize;
use schemas::shard::ColorRange;

/// Converts decoded frames to I420 frames of one size. Reuses its memory from frame to frame.
pub struct FrameScaler {
    target: FrameSize,
    orientation: Orientation,
    range: ColorRange,
    resizer: Resizer,
    converter: Option<(gst_video::VideoInfo, gst_video::VideoConverter)>,
    packed: Vec<u8>,
    scaled: Vec<u8>,
}

impl FrameScaler {
    /// Creates a scaler to upright frames of size `target`, from frames of `range` that
    /// `orientation` makes upright.
    pub fn new(target: FrameSize, orientation: Orientation, range: ColorRange) -> Self {
        Self {
            target,
            orientation,
            range,
            resizer: Resizer::new(),
            converter: None,
            packed: Vec::new(),
            scaled: Vec::new(),
        }
    }

    /// Appends `frame` to `out` as one tightly packed I420 frame of the target size.
    ///
    /// A frame that is I420, upright and of the target size is copied unchanged. Others are
    /// converted by GStreamer (without dither), scaled plane by plane with an antialiased
    /// Catmull-Rom filter about each plane's centre, and rotated.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when GStreamer cannot convert the frame.
    pub fn append(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
        out: &mut Vec<u8>,
    ) -> Result<(), VideoError> {
        let stored = FrameSize {
            width: frame.width() as usize,
            height: frame.height() as usize,
        };
        self.packed.clear();
        match deep_format(frame.format()) {
            _ if frame.format() == gst_video::VideoFormat::I420 => {
                pack(frame, stored, &mut self.packed)?
            }
            Some(deep) => {
                let reduced = reduce(frame, deep, self.range)?;
                let reduced = reduced.as_video_frame_ref();
                if deep.format == gst_video::VideoFormat::I420 {
                    pack(&reduced, stored, &mut self.packed)?;
                } else {
                    self.convert(&reduced, stored)?;
                }
            }
            None => self.convert(frame, stored)?,
        }
        let scaled_size = self.orientation.upright_size(self.target);
        let scaled = if scaled_size == stored {
            &self.packed
        } else {
            self.scale(stored, scaled_size)?;
            &self.scaled
        };
        if self.orientation.is_upright() {
            out.extend_from_slice(scaled);
        } else {
            rotate(scaled, scaled_size, self.target, self.orientation, out);
        }
        Ok(())
    }

    fn convert(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
        size: FrameSize,
    ) -> Result<(), VideoError> {
        let info = frame.info();
        if self
            .converter
            .as_ref()
            .is_none_or(|(known, _)| known != info)
        {
            // The converter refuses different frame rates.
            let mut target = gst_video::VideoInfo::builder(
                gst_video::VideoFormat::I420,
                info.width(),
                info.height(),
            )
            .fps(info.fps());
            // Y'CbCr keeps its matrix and range, which are recorded; RGB has none, and gets
            // GStreamer's default for its size.
            let colorimetry = info.colorimetry();
            if info.is_yuv() || info.is_gray() {
                target = target.colorimetry(&colorimetry);
            }
            let target = target.build().map_err(VideoError::frame)?;
            self.converter = Some((info.clone(), converter(info, &target)?));
        }
        let Some((_, converter)) = &self.converter else {
            unreachable!("set above")
        };
        append_converted(converter, frame, size, &mut self.packed)
    }

    fn scale(&mut self, from: FrameSize, to: FrameSize) -> Result<(), VideoError> {
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        self.scaled.resize(to.frame_bytes(), 0);
        for plane in 0..3 {
            let (from_width, from_height) = from.plane_size(plane);
            let (to_width, to_height) = to.plane_size(plane);
            let source = &self.packed[from.plane_range(plane)];
            let source =
                ImageRef::new(from_width as u32, from_height as u32, source, PixelType::U8)
                    .map_err(VideoError::frame)?;
            let target = &mut self.scaled[to.plane_range(plane)];
            let mut target =
                Image::from_slice_u8(to_width as u32, to_height as u32, target, PixelType::U8)
                    .map_err(VideoError::frame)?;
            self.resizer
                .resize(&source, &mut target, &options)
                .map_err(VideoError::frame)?;
        }
        Ok(())
    }
}

/// Creates a converter that neither dithers nor starts threads.
fn converter(
    from: &gst_video::VideoInfo,
    to: &gst_video::VideoInfo,
) -> Result<gst_video::VideoConverter, VideoError> {
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    config.set_threads(1);
    gst_video::VideoConverter::new(from, to, Some(config)).map_err(VideoError::frame)
}

/// Converts `frame` to I420 with `converter`, and appends the top left part of `size`, tightly
/// packed.
fn append_converted(
    converter: &gst_video::VideoConverter,
    frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    size: FrameSize,
    out: &mut Vec<u8>,
) -> Result<(), VideoError> {
    let target = converter.out_info().clone();
    let buffer = gstreamer::Buffer::with_size(target.size()).map_err(VideoError::frame)?;
    let mut converted = gst_video::VideoFrame::from_buffer_writable(buffer, &target)
        .map_err(|_| VideoError::frame("out of memory"))?;
    converter.frame_ref(frame, &mut converted.as_mut_video_frame_ref());
    let buffer = converted.into_buffer();
    let converted = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &target)
        .map_err(VideoError::frame)?;
    pack(&converted, size, out)
}

/// Converts one frame of tightly packed 8-bit R'G'B' of `size` to tightly packed I420 of `color`.
///
/// # Errors
/// [`VideoError::Frame`] when GStreamer cannot convert the frame.
pub fn rgb_to_i420(pixels: &[u8], size: FrameSize, color: Color) -> Result<Vec<u8>, VideoError> {
    super::init()?;
    let width = size.width as u32;
    let height = size.height as u32;
    let from = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height)
        .stride(&[3 * width as i32])
        .build();
    let to = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height)
        .colorimetry(&color.colorimetry())
        .build();
    let from = from.map_err(VideoError::frame)?;
    let to = to.map_err(VideoError::frame)?;
    let buffer = gstreamer::Buffer::from_slice(pixels.to_vec());
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &from)
        .map_err(VideoError::frame)?;
    let mut out = Vec::with_capacity(size.frame_bytes());
    append_converted(&converter(&from, &to)?, &frame, size, &mut out)?;
    Ok(out)
}

/// Appends the three planes of an I420 frame without the padding at the ends of their rows; of a
/// frame that is larger than `size`, its top left part.
pub(super) fn pack(
    frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    size: FrameSize,
    out: &mut Vec<u8>,
) -> Result<(), VideoError> {
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

/// Appends `frame` of size `size`, rotated and mirrored by `orientation` to the size `target`.
fn rotate(
    frame: &[u8],
    size: FrameSize,
    target: FrameSize,
    orientation: Orientation,
    out: &mut Vec<u8>,
) {
    for plane in 0..3 {
        let (width, height) = size.plane_size(plane);
        let (target_width, target_height) = target.plane_size(plane);
        let source = &frame[size.plane_range(plane)];
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
    const SIZE: FrameSize = FrameSize {
        width: 3,
        height: 2,
    };

    fn rotated(tag: &str) -> String {
        let orientation = Orientation::from_tag(tag);
        let mut out = Vec::new();
        rotate(
            STORED,
            SIZE,
            orientation.upright_size(SIZE),
            orientation,
            &mut out,
        );
        String::from_utf8(out).expect("letters")
    }

    #[test]
    fn every_orientation_applies_to_every_plane() {
        assert_eq!(rotated("rotate-0"), "abcdefuvxy");
        assert_eq!(rotated("rotate-90"), "daebfcuvxy");
        assert_eq!(rotated("rotate-180"), "fedcbavuyx");
        assert_eq!(rotated("rotate-270"), "cfbeadvuyx");
        assert_eq!(rotated("flip-rotate-0"), "cbafedvuyx");
        assert_eq!(rotated("flip-rotate-90"), "fcebdavuyx");
        assert_eq!(rotated("flip-rotate-180"), "defabcuvxy");
        assert_eq!(rotated("flip-rotate-270"), "adbecfuvxy");
    }
}
