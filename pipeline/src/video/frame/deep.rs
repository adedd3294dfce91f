//! Frames with more than 8 bits per sample to frames with 8.

use crate::video::VideoError;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use schemas::shard::ColorRange;

/// A format with more than 8 bits per sample, stored in two bytes each.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeepFormat {
    /// The format of the same planes with 8 bits per sample.
    pub(super) format: gst_video::VideoFormat,
    /// Significant bits of a stored sample: none above these is set.
    bits: u32,
}

/// Returns the deep format of `format`, if its samples are reduced to 8 bits one by one.
/// GStreamer's converter would upsample and filter chroma on the way, depending on how the stream
/// describes its colours.
pub(super) const fn deep_format(format: gst_video::VideoFormat) -> Option<DeepFormat> {
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

/// Converts `frame` to 8 bits per sample: each sample is rounded to the nearest, without dither.
/// Limited range and chroma are scaled by the power of two between the bit depths; luma of full
/// range reaches from 0 to the greatest value in both (ITU-T H.273, 8.3).
pub(super) fn reduce(
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
    let reduced = gst_video::VideoFrame::from_buffer_writable(buffer, &target);
    let mut reduced = reduced.map_err(|_| VideoError::frame("out of memory"))?;
    let shift = deep.bits - 8;
    let half = 1u32 << (deep.bits - 9);
    let max = (1u32 << deep.bits) - 1;
    for plane in 0..frame.n_planes() {
        let from_stride = frame.plane_stride()[plane as usize] as usize;
        let to_stride = reduced.plane_stride()[plane as usize] as usize;
        let from = frame.plane_data(plane).map_err(VideoError::frame)?;
        let to = reduced.plane_data_mut(plane).map_err(VideoError::frame)?;
        for (from, to) in from.chunks(from_stride).zip(to.chunks_mut(to_stride)) {
            let samples = from
                .chunks_exact(2)
                .map(|bytes| u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
            if plane == 0 && range == ColorRange::Full {
                samples.zip(to).for_each(|(sample, out)| {
                    *out = ((sample * 255 + max / 2) / max).min(255) as u8
                });
            } else {
                samples
                    .zip(to)
                    .for_each(|(sample, out)| *out = ((sample + half) >> shift).min(255) as u8);
            }
        }
    }
    Ok(reduced)
}
