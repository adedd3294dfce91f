//! One decoded frame to one I420 frame: converted, scaled, upright.

use super::VideoError;
use crate::frames::Color;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use schemas::geometry::FrameSize;
use schemas::manifest::{BuildOptions, PixelAspect};
use schemas::shard::{ColorMatrix, ColorRange};
use serde::{Deserialize, Serialize};

/// What is said of transfer and primaries that are not known.
pub(super) const UNKNOWN: &str = "unknown";

/// ffmpeg's name of a transfer function (ITU-T H.273, table 3).
pub(super) const fn transfer_name(transfer: gst_video::VideoTransferFunction) -> &'static str {
    use gst_video::VideoTransferFunction as T;
    match transfer {
        T::Bt709 => "bt709",
        T::Gamma22 => "bt470m",
        T::Gamma28 => "bt470bg",
        T::Bt601 => "smpte170m",
        T::Smpte240m => "smpte240m",
        T::Gamma10 => "linear",
        T::Log100 => "log100",
        T::Log316 => "log316",
        T::Srgb => "iec61966-2-1",
        T::Bt202010 => "bt2020-10",
        T::Bt202012 => "bt2020-12",
        T::Smpte2084 => "smpte2084",
        T::AribStdB67 => "arib-std-b67",
        _ => UNKNOWN,
    }
}

/// ffmpeg's name of colour primaries (ITU-T H.273, table 2).
pub(super) const fn primaries_name(primaries: gst_video::VideoColorPrimaries) -> &'static str {
    use gst_video::VideoColorPrimaries as P;
    match primaries {
        P::Bt709 => "bt709",
        P::Bt470m => "bt470m",
        P::Bt470bg => "bt470bg",
        P::Smpte170m => "smpte170m",
        P::Smpte240m => "smpte240m",
        P::Film => "film",
        P::Bt2020 => "bt2020",
        P::Smptest428 => "smpte428",
        P::Smpterp431 => "smpte431",
        P::Smpteeg432 => "smpte432",
        P::Ebu3213 => "ebu3213",
        _ => UNKNOWN,
    }
}

/// Ratios beyond this one are taken for a mistake of the header.
const MOST_ASPECT: u32 = 8;

/// Width to height of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelRatio {
    /// Its width.
    pub num: u32,
    /// Its height.
    pub den: u32,
}

impl PixelRatio {
    /// Square pixels.
    pub const SQUARE: Self = Self { num: 1, den: 1 };

    /// The ratio that a stream gives; square where it makes no sense.
    pub fn new(num: i32, den: i32) -> Self {
        let known = u32::try_from(num).ok().zip(u32::try_from(den).ok());
        known.map_or(Self::SQUARE, |(num, den)| if num == 0 || den == 0 { Self::SQUARE } else { Self { num, den } })
    }

    /// Whether width and height are equal.
    pub const fn is_square(self) -> bool {
        self.num == self.den
    }

    /// The size at which a picture of `size` has square pixels: its height stays. As it is where the ratio is
    /// too far from square to be meant, and where the width would change by less than a hundredth: encoders
    /// that round a side write such ratios, and scaling would cost more than it gives.
    pub fn square_size(self, size: FrameSize) -> FrameSize {
        let (num, den) = (u64::from(self.num), u64::from(self.den));
        let most = u64::from(MOST_ASPECT);
        if num > most * den || den > most * num {
            return size;
        }
        let width = ((size.width as u64 * num + den / 2) / den) as usize;
        if 100 * width.abs_diff(size.width) < size.width {
            return size;
        }
        FrameSize { width: width.max(1), height: size.height }
    }
}

/// What decides the size of a stored frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceShape {
    /// Size of a decoded frame.
    pub size: FrameSize,
    /// Of its pixels.
    pub pixel_aspect: PixelRatio,
    /// How it has to be turned.
    pub orientation: Orientation,
}

impl SourceShape {
    /// Size of a stored frame of a build with `options`.
    pub fn stored_size(&self, options: &BuildOptions) -> FrameSize {
        let size = match options.pixel_aspect {
            PixelAspect::Square => self.pixel_aspect.square_size(self.size),
            PixelAspect::Keep => self.size,
        };
        self.orientation.upright_size(size).scaled_to_short_side(options.short_side as usize)
    }
}

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
    pub const fn upright_size(self, size: FrameSize) -> FrameSize {
        if self.swaps_sides() { FrameSize { width: size.height, height: size.width } } else { size }
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
    /// Colour of frames of `info` once they are I420, by what is said of it in `words`: first by the stream,
    /// then by the container. What neither says is taken as GStreamer does: limited range, BT.601 for small
    /// pictures and BT.709 for those of more than 576 lines.
    pub fn of(info: &gst_video::VideoInfo, words: &[gst_video::VideoColorimetry]) -> Self {
        // RGB is brought to limited range.
        let keeps_range = info.is_yuv() || info.is_gray();
        let said = words.iter().map(gst_video::VideoColorimetry::range);
        let mut known = said.filter(|&range| range != gst_video::VideoColorRange::Unknown);
        let is_full = keeps_range && known.next() == Some(gst_video::VideoColorRange::Range0_255);
        let range = if is_full { ColorRange::Full } else { ColorRange::Limited };
        let known = |color: &gst_video::VideoColorimetry| match color.matrix() {
            gst_video::VideoColorMatrix::Bt709 => Some(ColorMatrix::Bt709),
            gst_video::VideoColorMatrix::Bt2020 => Some(ColorMatrix::Bt2020),
            gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => Some(ColorMatrix::Bt601),
            _ => None,
        };
        let usual = if info.height() > 576 { ColorMatrix::Bt709 } else { ColorMatrix::Bt601 };
        Self { range, matrix: words.iter().find_map(known).unwrap_or(usual) }
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

/// GStreamer's words for a range of which nothing else is known.
pub(super) fn range_only(range: ColorRange) -> gst_video::VideoColorimetry {
    let range = match range {
        ColorRange::Limited => gst_video::VideoColorRange::Range16_235,
        ColorRange::Full => gst_video::VideoColorRange::Range0_255,
    };
    gst_video::VideoColorimetry::new(
        range,
        gst_video::VideoColorMatrix::Unknown,
        gst_video::VideoTransferFunction::Unknown,
        gst_video::VideoColorPrimaries::Unknown,
    )
}

/// Brings decoded frames to I420 frames of one size. Reuses its memory from frame to frame.
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
    /// A scaler to upright frames of size `target`, from frames of `range` that `orientation` brings upright.
    pub fn new(target: FrameSize, orientation: Orientation, range: ColorRange) -> Self {
        Self { target, orientation, range, resizer: Resizer::new(), converter: None, packed: Vec::new(), scaled: Vec::new() }
    }

    /// Appends `frame` to `out` as one tightly packed I420 frame of the target's size.
    ///
    /// A frame that is I420, upright and of the target's size is copied as it is. Others are converted by GStreamer (without dither),
    /// scaled plane by plane with an antialiased Catmull-Rom filter about each plane's centre, and turned.
    ///
    /// # Errors
    /// [`VideoError::Frame`] when GStreamer cannot convert the frame.
    pub fn append(&mut self, frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, out: &mut Vec<u8>) -> Result<(), VideoError> {
        let stored = FrameSize { width: frame.width() as usize, height: frame.height() as usize };
        self.packed.clear();
        match deep_format(frame.format()) {
            _ if frame.format() == gst_video::VideoFormat::I420 => pack(frame, stored, &mut self.packed)?,
            Some(deep) => {
                let reduced = reduced(frame, deep, self.range)?;
                let reduced = reduced.as_video_frame_ref();
                if deep.format == gst_video::VideoFormat::I420 {
                    pack(&reduced, stored, &mut self.packed)?;
                } else {
                    self.convert(&reduced, stored)?;
                }
            }
            None => self.convert(frame, stored)?,
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

    fn convert(&mut self, frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, size: FrameSize) -> Result<(), VideoError> {
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

    fn scale(&mut self, from: FrameSize, to: FrameSize) -> Result<(), VideoError> {
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

/// Samples of more than 8 bits, in words of two bytes.
#[derive(Debug, Clone, Copy)]
struct DeepFormat {
    /// The same planes with samples of 8 bits.
    format: gst_video::VideoFormat,
    /// Bits of a sample above which none is set.
    bits: u32,
}

/// The deep formats whose samples are brought to 8 bits one by one. GStreamer's converter would take chroma
/// apart and filter it on the way, by how the stream describes its colours.
const fn deep_format(format: gst_video::VideoFormat) -> Option<DeepFormat> {
    use gst_video::VideoFormat as F;
    let (format, bits) = match format {
        F::I42010le => (F::I420, 10),
        F::I42012le => (F::I420, 12),
        F::I42210le => (F::Y42b, 10),
        F::I42212le => (F::Y42b, 12),
        F::Y44410le => (F::Y444, 10),
        F::Y44412le => (F::Y444, 12),
        F::Y44416le => (F::Y444, 16),
        F::Gray16Le => (F::Gray8, 16),
        // Samples are in the upper bits.
        F::P01010le | F::P012Le | F::P016Le => (F::Nv12, 16),
        _ => return None,
    };
    Some(DeepFormat { format, bits })
}

/// `frame` with samples of 8 bits: each is rounded to the nearest, without dither. Limited range and chroma are
/// as many times smaller as the values of a sample are fewer; luma of full range reaches from 0 to the most
/// in both (ITU-T H.273, 8.3).
fn reduced(
    frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    deep: DeepFormat,
    range: ColorRange,
) -> Result<gst_video::VideoFrame<gst_video::video_frame::Writable>, VideoError> {
    let info = frame.info();
    let colorimetry = info.colorimetry();
    let target = gst_video::VideoInfo::builder(deep.format, info.width(), info.height())
        .fps(info.fps())
        .colorimetry(&colorimetry)
        .chroma_site(info.chroma_site())
        .build()
        .map_err(VideoError::frame)?;
    let buffer = gstreamer::Buffer::with_size(target.size()).map_err(VideoError::frame)?;
    let mut reduced = gst_video::VideoFrame::from_buffer_writable(buffer, &target).map_err(|_| VideoError::frame("out of memory"))?;
    let (shift, half) = (deep.bits - 8, 1u32 << (deep.bits - 9));
    let most = (1u32 << deep.bits) - 1;
    for plane in 0..frame.n_planes() {
        let from_stride = frame.plane_stride()[plane as usize] as usize;
        let to_stride = reduced.plane_stride()[plane as usize] as usize;
        let from = frame.plane_data(plane).map_err(VideoError::frame)?;
        let to = reduced.plane_data_mut(plane).map_err(VideoError::frame)?;
        for (from, to) in from.chunks(from_stride).zip(to.chunks_mut(to_stride)) {
            let samples = from.chunks_exact(2).map(|bytes| u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
            if plane == 0 && range == ColorRange::Full {
                samples.zip(to).for_each(|(sample, out)| *out = ((sample * 255 + most / 2) / most).min(255) as u8);
            } else {
                samples.zip(to).for_each(|(sample, out)| *out = ((sample + half) >> shift).min(255) as u8);
            }
        }
    }
    Ok(reduced)
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
    size: FrameSize,
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
pub fn rgb_to_i420(pixels: &[u8], size: FrameSize, color: Color) -> Result<Vec<u8>, VideoError> {
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
pub(super) fn pack(frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>, size: FrameSize, out: &mut Vec<u8>) -> Result<(), VideoError> {
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
fn turn(stored: &[u8], size: FrameSize, target: FrameSize, orientation: Orientation, out: &mut Vec<u8>) {
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
    const SIZE: FrameSize = FrameSize { width: 3, height: 2 };

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
    fn pixels_become_square_by_the_width() {
        let size = |width, height| FrameSize { width, height };
        assert_eq!(PixelRatio::new(64, 45).square_size(size(160, 128)), size(228, 128));
        assert_eq!(PixelRatio::new(8, 9).square_size(size(720, 480)), size(640, 480));
        assert_eq!(PixelRatio::new(512, 511).square_size(size(454, 256)), size(454, 256), "as good as square");
        assert_eq!(PixelRatio::new(0, 1).square_size(size(3, 2)), size(3, 2), "not known");
        assert_eq!(PixelRatio::new(9, 1).square_size(size(3, 2)), size(3, 2), "not meant");
        assert_eq!(PixelRatio::new(1, 8).square_size(size(1, 9)), size(1, 9));
    }

    #[test]
    fn an_unknown_orientation_is_upright() {
        assert_eq!(Orientation::from_tag("rotate-45"), Orientation::default());
        assert_eq!(Orientation::from_tag(""), Orientation::default());
    }
}
